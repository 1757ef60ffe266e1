"""A tiny study's results as they are while it runs: every file that its jobs would leave, made by hand.

The evaluations and point choices are those of a study that the tests of tables plant; manifests say round numbers of
seconds, so that estimates can be computed by hand.
"""

import json
import os
import time
from pathlib import Path

import psutil
import yaml
from bundle_study import STUDY, evaluations, point_choice
from rtt.files import canonical_json, write_json, write_text
from rtt.runtime.locks import FOLDER
from rtt.runtime.slurm_jobs import host
from rtt.status.jobs import Job, of_runs
from rtt.study.expand import Runs
from rtt.study.load import to_yaml
from rtt.study.schema import Study

WALL = {"pretrain": 60.0, "original": 10.0, "unlearn": 30.0, "attack": 40.0}  # seconds in manifests, by stage


class Watched:
    """The study `tiny` in a work folder: `make` writes what a job leaves, `log` what Snakemake would say of it."""

    def __init__(self, root: Path, **changes):
        self.root, self.results = root, root / "results/tiny"
        self.study = Study.model_validate_json(json.dumps(yaml.safe_load(STUDY) | changes))
        self.runs = Runs(self.study)
        self.jobs = of_runs(self.runs)
        self.file = root / "tiny.yaml"
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(to_yaml(self.study))

    def begin(self) -> "Watched":
        """Write what Snakemake writes when it starts."""
        for spec in self.runs.specs():
            write_text(self.results / f"specs/{spec.run_id}.json", canonical_json(spec.canonical()) + "\n")
        write_json(self.results / "runs.json", self.runs.plan())
        write_text(self.results / "study.yaml", to_yaml(self.study))
        return self

    def of(self, stage: str, text: str = "") -> list[Job]:
        """Return the jobs of a stage whose name holds a text."""
        return [job for job in self.jobs.values() if job.stage == stage and text in job.name]

    def make(self, *jobs: Job, **wall: float) -> None:
        """Write the outputs and the log of jobs; `wall` replaces the seconds of a stage."""
        scores = evaluations(self.runs)
        choices = {spec.run_id: point_choice(spec) for spec in self.runs.choices.values()}
        for job in jobs:
            for output in job.outputs:
                path = self.results / output
                if output.startswith("evals/"):
                    write_json(path, scores[output.removeprefix("evals/").removesuffix(".json")], indent=None)
                elif output.startswith("point_choices/"):
                    write_json(path, choices[path.stem])
                elif output.startswith("manifests/"):
                    seconds = (WALL | wall)[job.stage]
                    write_json(path, {"run_id": path.stem, "stage": job.stage, "wall_seconds": seconds})
                elif job.stage == "generate":
                    write_text(path / "split_0.jsonl", "")
                else:
                    write_text(path, "{}\n")
            self.say(job, "done\n")

    def make_all(self, but: tuple[str, ...] = ("tables", "figure", "report")) -> None:
        """Write the outputs of all jobs but those of some stages."""
        self.make(*(job for job in self.jobs.values() if job.stage not in but))

    def say(self, job: Job, text: str, ago: float = 0.0) -> None:
        """Append to a job's log, as if that was so many seconds ago."""
        path = self.results / job.log
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as stream:
            stream.write(text)
        os.utime(path, (time.time() - ago,) * 2)

    def register(
        self, pid: int = 0, role: str = "step", job: Job | None = None, on: str = "", ago=0.0, slurm=""
    ) -> None:
        """Write the lock file of a process that started so many seconds ago; of this one with its real start."""
        writes = f"results/tiny/specs/{job.name}.json" if job else ""
        since = psutil.Process().create_time() if pid == os.getpid() else time.time() - ago
        started = {"pid": pid, "start_time": since, "host": on or host(), "job": slurm}
        holder = started | {"command": f"{role} of a test", "role": role, "writes": writes}
        write_json(self.root / FOLDER / f"{pid}-{holder['host']}.json", holder, indent=None)

    def snakemake(self, *lines: str, end: bool = True, cores: str = "Provided cores: 4 (use --cores ...)") -> None:
        """Write a log of Snakemake's with these lines between its first and its last ones."""
        folder = self.root / ".snakemake/log"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"2026-01-01T00000{len(list(folder.iterdir()))}.snakemake.log"
        last = ["Complete log(s): " + name] if end else []
        (folder / name).write_text("\n".join(["SNAKEMAKE", "=========", cores, *lines, *last]) + "\n")

    def block(self, job: Job, number: int, ago: float, failed: bool = False, message: str = "None") -> str:
        """Return what Snakemake says of a job that begins, or that fails."""
        head = f"Error in rule {job.stage}:" if failed else f"rule {job.stage}:"
        log = f"results/tiny/{job.log}" + " (check log file(s) for error details)" * failed
        said = [f"    message: {message}"] * failed
        return "\n".join([stamp(ago), head, *said, f"    log: {log}", f"    jobid: {number}", "    threads: 1"])


def stamp(ago: float) -> str:
    """Return Snakemake's line with a time so many seconds ago."""
    return f"[{time.asctime(time.localtime(time.time() - ago))}]"


def snapshot(*folders: Path) -> dict[str, tuple]:
    """Return {path: (time of its last change in ns, size, bytes)} of all that lies in some folders, and of them."""
    found = {}
    for folder in folders:
        for path in [folder, *folder.rglob("*")]:
            state = path.lstat()
            found[str(path)] = state.st_mtime_ns, state.st_size, path.read_bytes() if path.is_file() else b""
    return found

"""One small study of one unlearning and one RTT job (fault.yaml), run through SLURM while something goes wrong."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from clones import Clone, clone_environment, differing
from slurm import Cluster, wait_for

STUDY = "tests/cluster/fault.yaml"
# The profile's seconds are for clusters of thousands of jobs; a file is visible at once here.
QUICK = ["--slurm-init-seconds-before-status-checks=1", "--seconds-between-status-checks=1", "--latency-wait=10"]
LONG = 240  # seconds for something to happen on a busy machine


def snakemake(*arguments: str, target: str = "tables", study: str = STUDY) -> list[str]:
    """Return the command of a run through profiles/slurm, and nothing else that a user would not type."""
    return [
        sys.executable, "-m", "snakemake", target, "--workflow-profile", "profiles/slurm", "--configfile", study,
        *QUICK, *arguments,
    ]  # fmt: skip


def forget(results: Path) -> None:
    """Delete what the unlearning and the RTT job have made, and all that is made from it."""
    for path in [*results.glob("*/unlearn-*"), *results.glob("*/attack-RTT-pretrained-*"), *results.glob("*/choose-*")]:
        if path.parent.name != "specs":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(results / "tables")


def _scores(path: Path) -> list[list[float]]:
    """Return each question's choice scores, in order."""
    questions = [question for look in json.loads(path.read_text())["looks"] for question in look["questions"]]
    return [probe["scores"] for question in questions for probe in question["probes"].values()]


@dataclass
class Run:
    """The study in a clone of its own, where everything but unlearning and RTT is done. `expected`: results that an
    uninterrupted local run has made. table: where a line is written for each fault.
    """

    cluster: Cluster
    clone: Clone
    expected: Path
    table: Path
    mains: list[subprocess.Popen] = field(default_factory=list)

    @property
    def results(self) -> Path:
        return self.clone.results("fault")

    @property
    def said(self) -> str:
        """What all main processes have said, one after the other."""
        return "".join(path.read_text() for path in sorted(self.clone.folder.glob("main-*.txt")))

    def environment(self) -> dict[str, str]:
        return clone_environment(self.clone.folder) | self.cluster.environment()

    def start(self, *arguments: str, target: str = "tables") -> subprocess.Popen:
        """Start Snakemake's main process."""
        with open(self.clone.folder / f"main-{len(self.mains)}.txt", "w") as output:
            main = subprocess.Popen(
                snakemake(*arguments, target=target),
                cwd=self.clone.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.mains.append(main)
        return main

    def wait(self, code: int = 0, seconds: float = LONG) -> None:
        """Wait for the newest main process; it must end with `code`."""
        assert self.mains[-1].wait(seconds) == code, self.said

    def finish(self, *arguments: str) -> None:
        """Start a main process and wait until it has done everything."""
        self.start(*arguments)
        self.wait()

    def until(self, what: str, check):
        """Return check()'s first true value; a main process that ends before is an error."""

        def look():
            found = check()
            assert found or self.mains[-1].poll() is None, f"ended before: {what}\n{self.said}"
            return found

        try:
            return wait_for(what, look, LONG, 0.05)
        except TimeoutError as error:
            raise AssertionError(
                f"{error}\n{self.said}\n{self.cluster.call('squeue', '--states=all').stdout}"
            ) from None

    def checkpoint(self, rule: str = "unlearn", least: int = 3) -> int:
        """Wait until a job of `rule` has a whole checkpoint of step `least` or later; return its step."""

        def newest() -> int:
            steps = [int(p.parent.name.split("-")[1]) for p in self.results.glob(f"state/{rule}-*/*/*/whole.json")]
            return max((step for step in steps if step >= least), default=0)

        return self.until(f"a checkpoint of {rule}", newest)

    def jobs(self, rule: str = "", states: str = "all") -> list[dict[str, str]]:
        """Return SLURM's jobs of this clone, oldest first: id, state, node, comment."""
        keys = ("id", "state", "node", "folder", "comment")
        flags = ["--noheader", f"--states={states}", "--format=%i|%T|%N|%Z|%k"]
        lines = self.cluster.call("squeue", *flags, check=False).stdout.splitlines()
        found = [dict(zip(keys, line.split("|"), strict=True)) for line in lines]
        found = [job for job in found if job["folder"] == str(self.clone.folder)]
        return sorted((job for job in found if f"rule_{rule}" in job["comment"]), key=lambda job: int(job["id"]))

    def job(self, rule: str = "unlearn") -> dict[str, str]:
        """Return the running job of a rule."""
        return self.until(f"a running job of {rule}", lambda: self.jobs(rule, "RUNNING"))[-1]

    def steps(self, rule: str = "unlearn") -> list[psutil.Process]:
        """Return the processes of a step that are at work in this clone."""
        found, code = [], str(self.clone.folder / "scripts")
        for process in psutil.process_iter():
            try:
                command = process.cmdline()
                launched = "-m" in command and command[command.index("-m") + 1] == "rtt" and rule in command
                # Not by its folder: an attack works in one of its own.
                if launched and "torchrun" not in " ".join(command) and process.environ().get("PYTHONPATH") == code:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    @contextlib.contextmanager
    def paused(self, rule: str = "unlearn"):
        """While the block runs, the step is stopped: it is at work, and does not end."""
        found = self.steps(rule)
        assert found, f"no step {rule} is at work"
        for process in found:
            process.suspend()
        try:
            yield
        finally:
            for process in found:
                with contextlib.suppress(psutil.Error):
                    process.resume()

    def log(self, rule: str = "unlearn") -> str:
        """Return what the last attempt of a rule's job has said."""
        (log,) = self.results.glob(f"logs/{rule}/{rule}-*pretrained-*.log")  # those of controls are there already
        return log.read_text()

    def went_on(self, rule: str = "unlearn") -> int:
        """Return the step from which the last attempt at a rule's job went on; 0 where it began anew."""
        lines = [line for line in self.log(rule).splitlines() if "going on from step" in line]
        return int(lines[0].split("going on from step ")[1].split()[0]) if lines else 0

    def apart(self) -> float:
        """Return how far the scores of unlearning and RTT are from those of the local run, at most; predictions that
        are clear must be equal.
        """
        farthest = 0.0
        for path in sorted(self.expected.glob("evals/**/*.json")):
            if "-pretrained-" not in str(path):
                continue
            for one, two in zip(_scores(path), _scores(self.results / path.relative_to(self.expected)), strict=True):
                farthest = max(farthest, *(abs(a - b) / (1 + abs(a)) for a, b in zip(one, two, strict=True)))
                best, second = sorted(one)[:-3:-1]
                assert best - second < 1e-3 or one.index(best) == two.index(max(two))
        return farthest

    def check(self, fault: str, happened: str, **attempts: int) -> None:
        """The same bytes as without a fault, nothing left behind, and so many SLURM jobs of each rule: no run was done
        twice. A line of the table of faults is written.
        """
        assert differing(self.results, self.expected) == []
        assert list(self.results.glob("state/*/*")) == []
        found = Counter(job["comment"].split("_")[1] for job in self.jobs())
        assert found == attempts, f"SLURM jobs: {found}\n{self.said}"
        with open(self.table, "a") as table:
            table.write(f"{fault} -> {happened} -> same bytes\n")

    def stop(self) -> None:
        """End what is left."""
        for main in self.mains:
            if main.poll() is None:
                main.send_signal(signal.SIGKILL)
                main.wait()
        if ids := [job["id"] for job in self.jobs(states="PENDING,RUNNING,COMPLETING")]:
            self.cluster.call("scancel", *ids, check=False)

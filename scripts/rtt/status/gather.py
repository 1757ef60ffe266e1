"""Put together what is known of a study: `look` returns a `Status`, of which `document` makes plain data."""

import math
import shlex
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rtt import places
from rtt.bundle.contents import stems
from rtt.bundle.layout import INDEX
from rtt.errors import UserError
from rtt.files import canonical_json, read_json
from rtt.report.cost import gpu_seconds
from rtt.runtime.locks import Holder
from rtt.status import estimate, files, history, signs
from rtt.status.files import Files
from rtt.status.jobs import STAGES, Job, of_plan, of_runs
from rtt.status.signs import DONE, FAILED, QUEUED, RUNNING, SILENT, Evidence, Found
from rtt.study.expand import Runs
from rtt.study.schema import Study
from rtt.study.strict import AS_WRITTEN

CORES = 2  # processes at once where nothing says it: the default of `rtt run`


@dataclass(frozen=True)
class Subject:
    """What is watched: a study's name, its jobs, and where its results lie.

    `root` is the work folder, None where the results were copied from one. `runs` is None where the study cannot be
    expanded, and `plan` is runs.json as it is, or as it would be written. `go_on` is what to type to go on.
    """

    name: str
    results: Path
    root: Path | None
    jobs: dict[str, Job]
    plan: dict[str, Any]
    runs: Runs | None
    planned: dict[str, float]
    go_on: str = ""
    bundle: bool = False
    notes: tuple[str, ...] = ()


@dataclass
class Status:
    """A study at one moment, `at` in seconds since 1970. Times are in seconds, sizes in bytes.

    `spent` and `gpu_spent` are {stage: seconds} of finished jobs, `left` and `gpu_left` those that are expected of the
    others, but for `lost` ones, which have failed or wait for what has; None where nothing can be expected yet.
    `ends_in` is when the last of these ends, with `at_once` processes.
    """

    subject: Subject
    files: Files
    at: float
    found: dict[str, Found]
    at_work: bool | None
    mains: list[Holder]
    begun: bool
    spent: Counter
    gpu_spent: Counter
    left: dict[str, float] | None
    gpu_left: dict[str, float] | None
    at_once: int
    ends_in: float | None
    disk: Counter
    free: int | None
    notes: list[str] = field(default_factory=list)

    @property
    def counts(self) -> Counter:
        """How many jobs are in each state."""
        return signs.counts(self.found)

    @property
    def finished(self) -> bool:
        """Whether every job is done."""
        return self.counts[DONE] == len(self.found)

    @property
    def failed(self) -> bool:
        """Whether a job has failed."""
        return self.counts[FAILED] > 0

    @property
    def active(self) -> bool:
        """Whether anybody is at work, or may be."""
        counts = self.counts
        return self.at_work is not False or counts[RUNNING] + counts[SILENT] > 0

    @property
    def word(self) -> str:
        """The state of the whole study in a word or two."""
        if self.finished:
            return "finished"
        if self.subject.bundle:
            return "incomplete"
        if self.active:
            return "running"
        return "failed" if self.failed else "stopped" if self.begun else "not begun"


def of_study(study: Study, source: str, root: Path, results: Path | None = None, config: Sequence[str] = ()) -> Subject:
    """Return the subject of a study file, with the keys that `config` has overridden. Raises UserError where the study
    cannot be expanded.
    """
    runs = Runs(study, root)
    folder = results or root / "results" / study.study
    plan, notes, named = runs.plan(), [], set()
    if (folder / "runs.json").is_file():
        with suppress(UserError, KeyError, TypeError, AttributeError):  # it is not what decides here
            named = set(_names(read_json(folder / "runs.json")))
        if gone := named - set(_names(plan)):
            notes.append(
                f"{folder / 'runs.json'} names {len(gone)} of {len(named)} runs that {source} does not have as it is "
                f"now; they do not count here. `python -m rtt status {folder}` shows the study as it was last started"
            )
    go_on = shlex.join(["", "--configfile", source, *(["--config", *config] if config else [])])[2:]
    return Subject(
        study.study, folder, _root(folder), of_runs(runs), plan, runs, estimate.planned(runs), go_on,
        notes=tuple(notes),
    )  # fmt: skip


def of_results(folder: Path) -> Subject:
    """Return the subject of a results folder, as its runs.json has it. Raises UserError where there is none."""
    path = folder / "runs.json"
    if not path.is_file():
        raise UserError(
            f"{path}: no such file, so this is no results folder of a study that was started; name one, a study file, "
            "or a bundle"
        )
    plan = read_json(path)
    return _of_plan(
        plan, folder, _root(folder), str(path), shlex.join(["", "--configfile", str(folder / "study.yaml")])[2:]
    )


def of_bundle(path: Path) -> Subject:
    """Return the subject of a bundle, or of the folder of an unpacked one. Raises UserError where it is damaged."""
    found = files.of_bundle(path)
    plan = found.documents(["runs.json"]).get("runs.json")
    return _of_plan(plan, found.path, None, f"{path}: runs.json", bundle=True)


def is_bundle(path: Path) -> bool:
    """Return whether a path is that of a bundle, of an unpacked one's folder, or of a folder with one zip in it."""
    if path.is_dir():
        return (path / INDEX).is_file() or (not (path / "runs.json").is_file() and any(path.glob("*.zip")))
    return path.suffix == ".zip"


def _of_plan(plan: Any, folder: Path, root: Path | None, source: str, go_on: str = "", bundle: bool = False) -> Subject:
    """Return the subject of runs.json, with what waits for what where its study still expands to the same runs."""
    runs, notes = None, ()
    try:
        name, named = plan["study"]["study"], set(_names(plan))
        study = Study.model_validate_json(canonical_json(plan["study"]), context=AS_WRITTEN)
        runs = Runs(study, root or places.work_folder())
        if set(_names(runs.plan())) != named:
            runs = None
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"{source}: not as a study writes it; start the study again, which writes it anew") from None
    except (ValidationError, UserError, OSError):
        runs = None
    if runs is None and not bundle:
        notes = (
            "this version of the program expands the study to other runs, or lacks its files here; so which job waits "
            "for which is not known, and attacks that share a process count one by one",
        )
    jobs = of_runs(runs) if runs else of_plan(plan)
    return Subject(name, folder, root, jobs, plan, runs, estimate.planned(runs), go_on, bundle, notes)


def _names(plan: Any) -> list[str]:
    return [*plan["manifests"], *stems(plan, "point_choices"), *stems(plan, "evals")]


def _root(results: Path) -> Path | None:
    """Return the work folder around a results folder; None where it lies elsewhere than Snakemake has put it."""
    place = results.absolute()
    return place.parent.parent if place.parent.name == "results" else None


def look(subject: Subject, now: float | None = None) -> Status:
    """Return the study as it is now. Nothing is written, locked or run."""
    now = time.time() if now is None else now
    found = files.of_bundle(subject.results) if subject.bundle else files.of_folder(subject.results)
    past = history.History()
    if not subject.bundle:
        past = history.read(history.logs_of(subject.root, subject.results), subject.name)
    half = history.half_made(subject.root, subject.name)
    read = frozenset(f"{kind}/{one}.json" for kind in ("evals", "point_choices") for one in stems(subject.plan, kind))
    evidence = Evidence(found, past, half, signs.registered(subject.root), now, read)
    jobs = subject.jobs
    states = signs.judge(jobs, evidence, subject.name)
    manifests = _manifests(found, jobs)
    done = [name for name in jobs if states[name].state == DONE]
    took = estimate.took({name: jobs[name] for name in done}, manifests, past.seconds)
    spent, gpu_spent = Counter(), Counter()
    for name, seconds in took.items():
        spent[jobs[name].stage] += seconds
        gpu_spent[jobs[name].stage] += max((gpu_seconds(manifests.get(run, {})) for run in jobs[name].runs), default=0)
    study = subject.runs.study if subject.runs else None
    lost = {name for name in jobs if states[name].state == FAILED or states[name].blocked}
    todo = [name for name in jobs if states[name].state != DONE and name not in lost]
    expected = estimate.expected(jobs, todo, took, subject.planned)
    at_once = _at_once(past, states, study)
    left = gpu_left = ends = None
    if expected is not None:
        running = {n: now - states[n].since for n in todo if states[n].state in (RUNNING, SILENT) and states[n].since}
        rest = {name: estimate.remaining(value, running.get(name, 0.0)) for name, value in expected.items()}
        # What finished jobs held: a study may ask for GPUs where there are none.
        gpus = max((one.get("world_size") or 1 for one in manifests.values() if gpu_seconds(one)), default=0)
        left, gpu_left = dict.fromkeys(STAGES, 0.0), dict.fromkeys(STAGES, 0.0)
        for name, seconds in rest.items():
            left[jobs[name].stage] += seconds
            gpu_left[jobs[name].stage] += seconds * gpus * bool(jobs[name].runs)
        ends = estimate.ends_in(jobs, expected, running, at_once)
    disk = Counter()
    for name, size in found.sizes.items():
        disk[name.partition("/")[0]] += size
    return Status(
        subject, found, now, states, False if subject.bundle else evidence.at_work, evidence.mains,
        begun="runs.json" in found.sizes, spent=spent, gpu_spent=gpu_spent, left=left, gpu_left=gpu_left,
        at_once=at_once, ends_in=ends, disk=disk, free=_free(subject), notes=list(subject.notes),
    )  # fmt: skip


def _manifests(found: Files, jobs: Mapping[str, Job]) -> dict[str, dict[str, Any]]:
    names = {f"manifests/{run}.json": run for job in jobs.values() for run in job.runs}
    return {names[name]: document for name, document in found.documents(names).items()}


def _at_once(past: history.History, states: Mapping[str, Found], study: Study | None) -> int:
    """Return how many jobs run at once: as many as the last run may have; on a cluster, as run now."""
    running = sum(one.state in (RUNNING, SILENT) for one in states.values())
    if past.remote or any(one.state == QUEUED for one in states.values()):
        return max(running, 1)
    cores = past.cores or CORES
    return max(cores // (study.threads if study else 1), running, 1)


def _free(subject: Subject) -> int | None:
    """Return the bytes that are free on the disk of the results; None where that cannot be asked."""
    for place in (subject.results, *subject.results.absolute().parents):
        try:
            return shutil.disk_usage(place).free
        except OSError:
            continue
    return None


def document(status: Status) -> dict[str, Any]:
    """Return a status as plain data: times in ISO 8601, durations in seconds, sizes in bytes, null for the unknown."""
    subject, counts = status.subject, status.counts
    stages = {}
    for stage in STAGES:
        names = [name for name, job in subject.jobs.items() if job.stage == stage]
        if not names:
            continue
        states = Counter(status.found[name].state for name in names)
        stages[stage] = {
            "jobs": len(names), **{state: states[state] for state in signs.STATES},
            "spent": round(status.spent[stage], 1), "gpu_spent": round(status.gpu_spent[stage], 1),
            "left": _rounded(status.left and status.left[stage]),
            "gpu_left": _rounded(status.gpu_left and status.gpu_left[stage]),
        }  # fmt: skip
    jobs = [
        {
            "name": name, "stage": subject.jobs[name].stage, "state": one.state, "since": _iso(one.since),
            "seen": _iso(one.seen), "where": one.where, "said": one.said, "why": one.why, "resumes": one.resumes,
            "log": subject.jobs[name].log, "waits_for": one.waits_for, "blocked": one.blocked,
        }
        for name, one in status.found.items() if one.state != DONE
    ]  # fmt: skip
    ends = None if status.ends_in is None or not status.active else status.at + status.ends_in
    return {
        "study": subject.name, "results": str(subject.results), "at": _iso(status.at), "state": status.word,
        "at_work": status.at_work, "main": [str(one) for one in status.mains],
        "jobs": {"all": len(status.found), **{state: counts[state] for state in signs.STATES}},
        "stages": stages, "unfinished": jobs,
        "spent": round(status.spent.total(), 1), "gpu_spent": round(status.gpu_spent.total(), 1),
        "left": _rounded(status.left and sum(status.left.values())),
        "gpu_left": _rounded(status.gpu_left and sum(status.gpu_left.values())),
        "at_once": status.at_once, "ends_in": _rounded(status.ends_in), "ends": _iso(ends),
        "disk": dict(status.disk), "free": status.free, "notes": status.notes,
    }  # fmt: skip


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _iso(seconds: float | None) -> str | None:
    if seconds is None or math.isnan(seconds):
        return None
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")

"""Which jobs are done, run, wait, stopped or failed, as far as files tell.

| state | what tells it |
|---|---|
| done | its outputs are there, and Snakemake did not leave them half made |
| running | a step that writes it is registered in `results/.locks`, and its process is alive, or shows signs of life |
| silent | such a step is registered on another machine, and nothing of it has changed for QUIET seconds |
| queued | Snakemake has submitted it to a cluster, and it has not begun |
| failed | Snakemake says so, or its log ends in an error |
| stopped | it was begun, and nobody is at work on it: it was interrupted or killed, and will resume |
| waiting | none of these |

Signs of life are changes of the job's log, of its outputs, and of its state with the checkpoints.
"""

import re
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from rtt.errors import STOPPED as LAST_WORD
from rtt.errors import printable
from rtt.runtime import locks
from rtt.runtime.locks import Holder
from rtt.status.files import Files
from rtt.status.history import History
from rtt.status.jobs import FINAL, PREPARED, Job

DONE, RUNNING, SILENT, QUEUED = "done", "running", "silent", "queued"
FAILED, STOPPED, WAITING = "failed", "stopped", "waiting"
STATES = (DONE, RUNNING, SILENT, QUEUED, FAILED, STOPPED, WAITING)
QUIET = 600.0  # seconds without a sign of life after which a process that cannot be seen is called silent
TAIL = 8  # lines of a failed step's log
SLACK = 2.0  # seconds by which the times of a log and of a file may differ
_ERROR = re.compile(r"^(error: |Traceback \(most recent call last\))")
_CHECKPOINT = re.compile(r"/checkpoint-(\d+)/whole\.json$")


@dataclass
class Found:
    """What is known of a job that is not done, or that it is done.

    `since` and `seen` are when it began and when it last showed a sign of life, in seconds since 1970. `where` names
    its process, `said` is the last line of its log or why it is thought to be in this state, and `why` the end of a
    failed step's log. `resumes` says from what it resumes. `waits_for` are the jobs that it needs and that are not
    done, and `blocked` whether one of them has failed, or waits for one that has.
    """

    state: str
    since: float | None = None
    seen: float | None = None
    where: str = ""
    said: str = ""
    why: list[str] = field(default_factory=list)
    resumes: str = ""
    waits_for: list[str] = field(default_factory=list)
    blocked: bool = False


@dataclass
class Evidence:
    """All that files tell of who is at work: what is there, Snakemake's history, and the registered processes.

    `needed` are the evaluations and point choices that the tables read.
    """

    files: Files
    history: History
    half_made: set[str]
    holders: list[tuple[Holder, bool | None]]
    now: float
    needed: frozenset[str] = frozenset()

    @property
    def at_work(self) -> bool | None:
        """Return whether a main process is at work; None where one is registered on a host that cannot be seen."""
        mains = [alive for holder, alive in self.holders if holder.role == "main"]
        if True in mains:
            return True
        return None if None in mains and self.history.open else False

    @property
    def mains(self) -> list[Holder]:
        """Return the main processes that are not known to be dead, the oldest first."""
        found = [holder for holder, alive in self.holders if holder.role == "main" and alive is not False]
        return sorted(found, key=lambda holder: holder.start_time)


def registered(root: Path | None) -> list[tuple[Holder, bool | None]]:
    """Return the processes that are registered in a work folder."""
    return locks.registered(root / locks.FOLDER) if root else []


def judge(jobs: dict[str, Job], evidence: Evidence, study: str) -> dict[str, Found]:
    """Return what is known of each job."""
    writers: dict[str, tuple[Holder, bool | None]] = {}
    for holder, alive in sorted(evidence.holders, key=lambda one: (one[1] is not False, one[0].start_time)):
        path = Path(holder.writes)
        if holder.writes and path.parts[-3:-1] == (study, "specs"):
            writers[path.stem] = holder, alive
    done = _done(jobs, evidence)
    found = {}
    for name, job in jobs.items():
        writer = writers.get(name)
        whole = name in done and not (writer and writer[1])
        found[name] = Found(DONE) if whole else _state(job, evidence, writer)
    for name, job in jobs.items():
        found[name].waits_for = [one for one in job.needs if one in found and found[one].state != DONE]
    blocked: dict[str, bool] = {}
    for name in jobs:
        found[name].blocked = found[name].state != DONE and _blocked(name, found, blocked)
    return found


def _blocked(name: str, found: dict[str, Found], known: dict[str, bool]) -> bool:
    """Return whether a job needs one that has failed, directly or not."""
    if name not in known:
        known[name] = any(found[one].state == FAILED or _blocked(one, found, known) for one in found[name].waits_for)
    return known[name]


def _done(jobs: dict[str, Job], evidence: Evidence) -> set[str]:
    """Return the jobs whose outputs are there.

    What only prepares others is done, too, once all that follows it is. Tables, figures and the report that are there
    before all scores are belong to an earlier state of the study. Only a finished study is packed into a bundle, which
    leaves out what nobody needs any more: of each job that scores or chooses it has what the tables read.
    """
    files, half = evidence.files, evidence.half_made
    if files.index is not None:
        read = {name: [one for one in job.outputs if one in evidence.needed] for name, job in jobs.items()}
        return {name for name, outputs in read.items() if all(map(files.has, outputs))}
    done = {name for name, job in jobs.items() if all(files.has(one) and one not in half for one in job.outputs)}
    later: dict[str, list[str]] = {}
    for name, job in jobs.items():
        for one in job.needs:
            later.setdefault(one, []).append(name)
    for name, job in reversed(jobs.items()):
        if job.stage in PREPARED and later.get(name) and done.issuperset(later[name]):
            done.add(name)
    if not all(name in done for name in jobs["tables"].needs):
        done -= {name for name, job in jobs.items() if job.stage in FINAL}
    return done


def _state(job: Job, evidence: Evidence, writer: tuple[Holder, bool | None] | None) -> Found:
    files, history, now = evidence.files, evidence.history, evidence.now
    event = history.events.get(job.log)
    states = [name for run in job.runs or (job.name,) for name in files.below(f"state/{run}")]
    own = [name for one in job.outputs for name in (one, *files.below(one))]
    seen = files.newest([job.log, *states, *own])
    said = "".join(files.tail(job.log, 1))
    common = {"seen": seen, "said": printable(said), "resumes": _resumes(states)}
    over = event is not None and event.what != "started"
    if writer is not None and writer[1] is not False and not (over and event.time > writer[0].start_time):
        holder, alive = writer
        seen = max(filter(None, (seen, holder.start_time)))
        state = RUNNING if alive or now - seen <= QUIET else SILENT
        job_id = f"SLURM job {holder.job}, " * bool(holder.job)
        where = f"{job_id}pid {holder.pid} on {holder.host}"
        return Found(state, since=holder.start_time, where=where, **common | {"seen": seen})
    if event is not None and event.what == "failed":
        if event.interrupted or said == LAST_WORD:
            return Found(STOPPED, since=event.time, **common)
        why = [event.said] * bool(event.said) + files.tail(job.log, TAIL)
        return Found(FAILED, since=event.time, why=[printable(line) for line in why], **common)
    if event is not None and event.what == "started":
        begun = seen is not None and not seen < event.began - SLACK
        if evidence.at_work is not False and event.began >= evidence.mains[0].start_time - SLACK:
            if begun or not history.remote:
                seen = max(filter(None, (seen if begun else None, event.began)))
                state = RUNNING if evidence.at_work or now - seen <= QUIET else SILENT
                # On a cluster it began when it left the queue, which no file tells before its step is registered.
                return Found(state, since=None if history.remote else event.began, **common | {"seen": seen})
            return Found(
                QUEUED, since=event.began, said="submitted, and nothing of it has begun", resumes=common["resumes"]
            )
    if (ends := _error(files, job)) and said != LAST_WORD:
        return Found(FAILED, since=files.times.get(job.log), why=[printable(line) for line in ends], **common)
    killed = writer is not None and writer[1] is False
    if killed or states or (event is not None and event.what == "started"):
        gone = f"its process is gone (pid {writer[0].pid} on {writer[0].host})" if killed else ""
        return Found(STOPPED, since=seen, **common | ({"said": gone} if gone else {}))
    return Found(WAITING, since=None)


def _error(files: Files, job: Job) -> list[str]:
    """Return the end of a log where it tells of an error."""
    lines = files.tail(job.log, TAIL)
    return lines if any(_ERROR.match(line) for line in lines) else []


def _resumes(states: list[str]) -> str:
    """Say what a step that is begun anew resumes from: a checkpoint, or looks that are scored."""
    steps = [int(found[1]) for name in states if (found := _CHECKPOINT.search(name))]
    if steps:
        return f"a checkpoint of step {max(steps)}"
    return "what it has scored" if any(name.endswith("/results.jsonl") for name in states) else ""


def counts(found: dict[str, Found]) -> Counter:
    """Return how many jobs are in each state."""
    return Counter(one.state for one in found.values())


def age(then: float | None, now: float | None = None) -> float | None:
    """Return how many seconds ago that was; None where nothing says when."""
    return None if then is None else max((time.time() if now is None else now) - then, 0.0)

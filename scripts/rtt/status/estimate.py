"""How long a study will still take, from what its finished jobs took and from the shares of `rtt plan`.

A job is expected to take as long as the finished ones of its kind: of its stage and method or attack, else of its
stage, else of all that train or score. Among jobs of a kind the plan tells how much larger one is than another: an
attack on four checkpoints is about four times as long as one on the control. The plan's own hours are never taken as
they are.
"""

import heapq
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rtt.errors import UserError
from rtt.planner import cpu
from rtt.planner.gpus import Device, device_of
from rtt.planner.plan import Plan
from rtt.status.jobs import Job
from rtt.study.expand import Runs

# A core as it may be: only the shares of jobs are taken from it.
CORE = Device("cpu", 5e10, 5e10, None, 1e10, "assumed")


def planned(runs: Runs | None) -> dict[str, float]:
    """Return {job: seconds by the plan} of those that train or score; {} where the study cannot be planned."""
    if runs is None:
        return {}
    study = runs.study
    try:
        plan = Plan(study, device_of("h100", None) if study.gpus else CORE, root=runs.root)
        _ = plan.stages  # fills in the hours of the jobs
    except (UserError, OSError):  # such as a model file that does not say how many parameters the model has
        return {}
    start = cpu.START * study.processes
    return {name: 3600 * hours + start for name, hours in plan.job_hours.items()}


def took(jobs: Mapping[str, Job], manifests: Mapping[str, dict[str, Any]], logged: Mapping[str, float]) -> dict:
    """Return {job: seconds} of the finished jobs: wall time by their manifests, else by Snakemake's log.

    Attacks that share a process each say how long it had run by then, so the longest counts. What attempts took that
    were killed is in no manifest.
    """
    found = {}
    for name, job in jobs.items():
        walls = [_wall(manifests.get(run)) for run in job.runs]
        known = [wall for wall in walls if wall is not None]
        if known:
            found[name] = max(known)
        elif logged.get(job.log, -1.0) >= 0:
            found[name] = logged[job.log]
    return found


def _wall(manifest: dict[str, Any] | None) -> float | None:
    value = (manifest or {}).get("wall_seconds")
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 else None


def expected(
    jobs: Mapping[str, Job], left: Iterable[str], took: Mapping[str, float], planned: Mapping[str, float]
) -> dict[str, float] | None:
    """Return {job: seconds} for the jobs that are left; None where nothing of what trains or scores has finished.

    A job that neither trains nor scores, and of whose kind none has finished, counts as long as the plan assumes.
    """
    found = {}
    for name in left:
        job = jobs[name]
        if not job.runs:
            alike = [took[one] for one in took if jobs[one].stage == job.stage]
            found[name] = sum(alike) / len(alike) if alike else cpu.OTHER
            continue
        kinds: tuple[Callable[[Job], bool], ...] = (
            lambda other, job=job: (other.stage, other.plugins) == (job.stage, job.plugins),
            lambda other, job=job: other.stage == job.stage,
            lambda other: bool(other.runs),
        )
        for kind in kinds:
            alike = [one for one in took if kind(jobs[one])]
            if alike:
                break
        else:
            return None
        total = sum(took[one] for one in alike)
        if name in planned and all(one in planned for one in alike):
            found[name] = planned[name] * total / sum(planned[one] for one in alike)
        else:
            found[name] = total / len(alike)
    return found


def ends_in(
    jobs: Mapping[str, Job], expected: Mapping[str, float], running: Mapping[str, float], at_once: int
) -> float:
    """Return in how many seconds all jobs of `expected` are done, `at_once` at a time and each after those it needs.

    `running` is {job: seconds that it has run}. Jobs begin in the order of `jobs` as soon as they can.
    """
    waiting = [name for name in jobs if name in expected and name not in running]
    heap = [(remaining(expected[name], ran), name) for name, ran in running.items() if name in expected]
    heapq.heapify(heap)
    now, done = 0.0, {name for name in jobs if name not in expected}
    while waiting or heap:
        ready = [name for name in waiting if done.issuperset(jobs[name].needs)]
        for name in ready[: max(at_once - len(heap), 0)]:
            waiting.remove(name)
            heapq.heappush(heap, (now + expected[name], name))
        if not heap:  # what is left waits for what never ends
            break
        now, name = heapq.heappop(heap)
        done.add(name)
    return now


def remaining(expected: float, ran: float) -> float:
    """Return the seconds that a job still needs which has run so long; 0 for one that is overdue."""
    return max(expected - ran, 0.0)

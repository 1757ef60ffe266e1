"""Tell how long a study takes on this machine's CPU: its speed, measured in a second, and the time of its jobs.

The speed is that of one core, since each process of a miniature has one thread; `rtt plan` multiplies it by the study's
`threads`. It is measured in a process of its own: the number of threads is fixed when numpy is imported.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable

from rtt.errors import UserError
from rtt.planner.gpus import Device

# Assumed, in seconds: a process that trains or scores imports torch and transformers; another one is short.
START, OTHER = 4.5, 1.0
CORES = (1, 2, 4)
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)
SIZE = 512  # of the square matrices: they fit into a core's cache
# CPU time, not wall time, so that other programs at work hardly change it; the best of some, for the same reason.
BENCHMARK = f"""
import json, time
import numpy as np

def best(action, work, repeats):
    action()
    seconds = []
    for _ in range(repeats):
        began = time.thread_time()
        action()
        seconds.append(time.thread_time() - began)
    return work / max(min(seconds), 1e-9)

a, long = np.ones(({SIZE}, {SIZE}), np.float32), np.ones(2**24, np.float32)
other = long.copy()
flops = best(lambda: [a @ a for _ in range(8)], 8 * 2 * {SIZE}**3, 10)
bandwidth = best(lambda: np.copyto(other, long), 2 * long.nbytes, 5)
print(json.dumps([flops, bandwidth]))
"""


def measured(threads: int = 1) -> Device:
    """Return this machine's CPU with the speed of so many cores. Raises UserError where it cannot be measured."""
    done = subprocess.run(
        [sys.executable, "-c", BENCHMARK], env=os.environ | ONE_THREAD, capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise UserError(f"the speed of this CPU cannot be measured: {last}; give it as --flops, or name a GPU (--gpu)")
    flops, bandwidth = json.loads(done.stdout)
    source = f"measured just now: products of {SIZE} x {SIZE} matrices in fp32, copies of 64 MiB; {threads} thread"
    return Device("cpu", flops * threads, flops * threads, None, bandwidth, source + "s" * (threads > 1))


def schedule(plan, cores: Iterable[int] = CORES) -> dict:
    """Return how long the jobs of a `rtt.planner.plan.Plan` take on cores of one machine.

    {"processes": those that train or score, "others": all other jobs, "start", "other": seconds of each, "hours": of
    one core, "wall": {cores: hours}}. Wall time is the longer of all work shared evenly and the longest chain of jobs.
    """
    jobs = sum(bill.jobs for bill in plan.stages.values())
    processes = len(plan.job_hours)
    others = jobs - processes
    start = START * plan.launch.devices
    hours = sum(plan.job_hours.values()) + (processes * start + others * OTHER) / 3600
    chain = _chain(plan, start / 3600)
    wall = {}
    for n in cores:
        at_once = max(1, n // (plan.study.threads * plan.launch.devices))
        wall[n] = max(hours / at_once, chain)
    return {"processes": processes, "others": others, "start": start, "other": OTHER, "hours": hours, "wall": wall}


def _chain(plan, start: float) -> float:
    """Return the hours of the longest chain: from a base model to an attack."""

    def job(spec) -> float:
        return plan.job_hours[spec.run_id] + start if spec.run_id in plan.job_hours else 0.0

    def made(source) -> float:
        base = getattr(source, "base", None)
        return job(source) + (job(base) if base is not None else 0.0)

    longest = max((made(source) for source in plan.runs.sources.values()), default=0.0)
    for attack, *_ in plan.runs.attack_jobs():
        trajectories = [job(spec) for choice in attack.point_choices for spec in choice.trajectories]
        longest = max(longest, made(attack.source) + max(trajectories, default=0.0) + job(attack))
    return longest

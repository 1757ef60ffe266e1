"""Ask SLURM about our jobs, through squeue alone, since sacct hangs after scancel or a hiccup of slurmdbd."""

import getpass
import os
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

# States in which processes may be alive on the node; a job that waits, for the first time or again, has none.
AT_WORK = {"CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING", "STAGE_OUT"}
WAITING = {"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT"}
COMMENT = "rule_"  # the beginning of a job's comment, set by Snakemake's executor
TIMEOUT = 30  # seconds to wait for squeue


@dataclass(frozen=True)
class Job:
    """A job in SLURM's queue. `node` is "" while it waits; `rule` holds Snakemake's rule and wildcards."""

    id: str
    state: str
    node: str
    rule: str


def host() -> str:
    """Return this machine's name; on a compute node it is SLURM's name for it, as squeue prints it."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def job_id() -> str:
    """Return the id of the job that this process belongs to, "" outside one."""
    return os.environ.get("SLURM_JOB_ID", "")


def available() -> bool:
    """Return whether this machine has squeue."""
    return shutil.which("squeue") is not None


def _squeue(*flags: str) -> list[list[str]] | None:
    """Return squeue's lines as fields (id, state, node, folder, comment); None if SLURM does not answer."""
    command = ["squeue", "--noheader", "--format=%i|%T|%N|%Z|%k", *flags]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode:
        # SLURM says this of an id that it has forgotten.
        return [] if "Invalid job id" in done.stderr else None
    return [line.split("|", 4) for line in done.stdout.splitlines() if line.count("|") >= 4]


def at_work(places: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return those (job, node) on which processes of the job may still be at work; all of them if SLURM does not
    answer.

    There is one question for all of them, and none for an empty set.
    """
    places = {(job, node) for job, node in places if job != job_id()}  # our own job was requeued: it is here now
    if not places:
        return set()
    found = _squeue(f"--jobs={','.join(sorted({job for job, _ in places}))}", "--states=all")
    if found is None:
        return places
    busy = {(job, node) for job, state, where, *_ in found if state in AT_WORK for node in _nodes(where)}
    return {(job, node) for job, node in places if (job, node) in busy or (job, "") in busy}


def _nodes(where: str) -> list[str]:
    """Return the names of a job's nodes as squeue prints them: node[1-2] is node1 and node2. [""]: none is known."""
    if not set(where) & set("[,"):
        return [where]
    command = ["scontrol", "show", "hostnames", where]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return [""]  # any node may be meant
    return done.stdout.split() or [""]


def named(name: str) -> list[Job] | None:
    """Return all jobs of this name that SLURM knows, ended ones included, oldest first; None if it does not answer."""
    found = _squeue(f"--name={name}", "--states=all")
    if found is None:
        return None
    jobs = [Job(job, state, node, comment) for job, state, node, _, comment in found]
    return sorted(jobs, key=lambda job: int(job.id) if job.id.isdigit() else 0)


def unfinished(folder: str | Path) -> list[Job] | None:
    """Return this user's jobs, waiting or at work, that Snakemake submitted from `folder`; None if SLURM does not
    answer.
    """
    found = _squeue(f"--user={getpass.getuser()}")
    if found is None:
        return None
    here = str(Path(folder).resolve())
    return [
        Job(job, state, node, comment)
        for job, state, node, where, comment in found
        if where == here and comment.startswith(COMMENT) and state in AT_WORK | WAITING
    ]

"""Claim a working directory, or report who holds it: one small file per process under `results/.locks/`.

Every process of ours (`python -m rtt run`, a bare `snakemake` through the Snakefile's `onstart`, every step, also on
compute nodes) writes `<pid>-<host>.json` when it starts and deletes it when it ends. After a SIGKILL the file stays, so
it only counts while its pid exists with the same start time; about a job on another host SLURM is asked. A step also
names the run that it writes: of two steps that write the same run, the second waits, then stops.

This adds to Snakemake's own lock, which stays behind after a SIGKILL and does not see steps that outlive Snakemake.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import psutil

from rtt import ownership
from rtt.errors import UserError
from rtt.files import write_json
from rtt.runtime import slurm_jobs

FOLDER = Path("results/.locks")  # relative to the working directory
DRAWING = Path("dist/rebuilt/.locks")  # of what draws bundles again, which may go on beside a study
VARIABLE = "RTT_LOCKS"  # tells a step the folder: set by claim(), and inherited by all processes started from there

# Seconds. psutil's start time moves when the system's clock is set. That a pid is reused within so short a time is
# unlikely, and would only refuse a run that could have started.
TOLERANCE = 10.0
ENDING = 60.0  # seconds that a step waits for the one before it to end: SLURM grants that one its KillWait
UNSEEN = 60.0  # seconds until another node surely sees a new file: network file systems remember what a folder holds
POLL = 0.2
SHOWN = 120  # characters of a command that messages show


@dataclass(frozen=True)
class Holder:
    """One registered process.

    `start_time` is in seconds since 1970, and `role` is `main` or `step`. `job` is its SLURM job ("" outside one), and
    `writes` the run that it writes ("" for none). A job that waits, or has not registered, has pid 0.
    """

    pid: int
    start_time: float
    host: str
    command: str
    role: str
    job: str = ""
    writes: str = ""

    def __str__(self) -> str:
        command = self.command if len(self.command) <= SHOWN else self.command[:SHOWN] + " ..."
        if not self.pid:
            return f"SLURM job {self.job}, {self.host} ({command})"
        since = datetime.fromtimestamp(self.start_time).strftime("%Y-%m-%d %H:%M:%S")
        job = f"SLURM job {self.job}, " * bool(self.job)
        return f"{job}pid {self.pid} on {self.host} ({command}), since {since}"

    @property
    def asked_of_slurm(self) -> bool:
        """Return whether it belongs to a job on another host."""
        return bool(self.job) and self.host != slurm_jobs.host()


@contextlib.contextmanager
def _mutex(folder: Path) -> Iterator[None]:
    """Serialise reading and writing for milliseconds. The kernel releases the lock when its holder dies."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "mutex", "w") as handle:
        # Some network file systems lack flock; there, only Snakemake's own lock protects the folder.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _alive(holder: Holder, at_work: set[tuple[str, str]]) -> bool:
    """Return whether the process still runs. On another host it counts as alive unless SLURM denies it (`at_work`)."""
    if holder.host != slurm_jobs.host():
        return not holder.job or (holder.job, holder.host) in at_work
    try:
        process = psutil.Process(holder.pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return abs(process.create_time() - holder.start_time) <= TOLERANCE
    except psutil.NoSuchProcess:  # includes psutil.ZombieProcess
        return False
    except psutil.AccessDenied:
        return True


def _scan(folder: Path, writes: str | None = None) -> list[Holder]:
    """Return the live holders, oldest first, and delete the files of the dead.

    With `writes`, only the holders that write this run are looked at.
    """
    found: dict[Path, Holder] = {}
    for path in sorted(folder.glob("[0-9]*.json")):
        try:
            holder = Holder(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            continue
        except (ValueError, TypeError):  # not one of our files, or one cut short by a full disk
            path.unlink(missing_ok=True)
            continue
        if writes in (None, holder.writes):
            found[path] = holder
    at_work = slurm_jobs.at_work({(holder.job, holder.host) for holder in found.values() if holder.asked_of_slurm})
    for path, holder in list(found.items()):
        if not _alive(holder, at_work):
            path.unlink(missing_ok=True)
            del found[path]
    return sorted(found.values(), key=lambda holder: (holder.start_time, holder.pid))


def registered(folder: str | Path) -> list[tuple[Holder, bool | None]]:
    """Return every registered process, and whether it is alive: None for one on another host, which cannot be seen.

    Unlike `live` this only reads: it deletes no file, takes no lock and asks nobody.
    """
    found = []
    for path in sorted(Path(folder).glob("[0-9]*.json")):
        with contextlib.suppress(OSError, ValueError, TypeError):  # it ended, or its file is not whole
            holder = Holder(**json.loads(path.read_text(encoding="utf-8")))
            found.append((holder, _alive(holder, set()) if holder.host == slurm_jobs.host() else None))
    return found


def live(folder: str | Path = FOLDER) -> list[Holder]:
    """Return the registered processes that are alive, oldest first; delete the files of the dead."""
    folder = Path(folder)
    if not folder.is_dir():
        return []
    with _mutex(folder):
        return _scan(folder)


def _strangers(holders: list[Holder]) -> list[Holder]:
    family = {os.getpid(), *(process.pid for process in psutil.Process().parents())}
    return [holder for holder in holders if holder.host != slurm_jobs.host() or holder.pid not in family]


def others(folder: str | Path = FOLDER) -> list[Holder]:
    """Return the live processes other than this one and those that started it."""
    return _strangers(live(folder))


def _path(folder: str | Path, pid: int | None) -> Path:
    return Path(folder) / f"{os.getpid() if pid is None else pid}-{slurm_jobs.host()}.json"


def _write(folder: Path, command: str, role: str, pid: int, writes: str = "") -> Path:
    path = _path(folder, pid)
    started = psutil.Process(pid).create_time()
    holder = Holder(pid, started, slurm_jobs.host(), command, role, slurm_jobs.job_id(), writes)
    write_json(path, asdict(holder), indent=None)
    return path


def register(folder: str | Path, command: str, role: str = "step", pid: int | None = None) -> Path:
    """Write the file of process `pid` (default: this one), whoever else is live; return its path.

    Raises psutil.NoSuchProcess when `pid` has already ended.
    """
    folder = Path(folder)
    with _mutex(folder):
        return _write(folder, command, role, os.getpid() if pid is None else pid)


def release(folder: str | Path = FOLDER, pid: int | None = None) -> None:
    """Delete the file of process `pid` (default: this one) if there is one."""
    _path(folder, pid).unlink(missing_ok=True)


def _refusal(holders: list[Holder], folder: Path) -> str:
    lines = ["this working directory is in use:"]
    for holder in holders:
        lines.append(f"  {holder}")
        if holder.host != slurm_jobs.host() and not holder.job:
            path = folder / f"{holder.pid}-{holder.host}.json"
            lines.append(f"  It cannot be checked from here ({slurm_jobs.host()}). If it has ended, delete {path}.")
    here = [str(holder.pid) for holder in holders if holder.host == slurm_jobs.host()]
    if here:
        lines.append(f"Wait until it ends, or stop it: kill {' '.join(here)}")
    if jobs := sorted({holder.job for holder in holders if holder.asked_of_slurm}):
        lines.append(
            "Wait until the jobs end: the same command then uses what they have made. Or stop them, which saves what "
            f"is in training first: scancel {' '.join(jobs)}"
        )
    return "\n".join(lines)


def _queued(folder: Path, known: list[Holder]) -> list[Holder]:
    """Return the jobs of an earlier run that SLURM knows and that have not registered, above all waiting ones.

    `folder` holds the locks; the working directory is two levels above. SLURM is only asked if a job was ever
    submitted. Raises UserError when it does not answer.
    """
    directory = folder.resolve().parents[1]
    if not slurm_jobs.available() or not (directory / "results" / ".slurm").is_dir():
        return []
    registered = {holder.job for holder in known} | {slurm_jobs.job_id()}
    found = slurm_jobs.unfinished(directory)
    if found is None:
        raise UserError(
            "SLURM does not answer (squeue), so jobs of an earlier run may still be at work in this folder. Try again "
            "when it answers"
        )
    return [
        Holder(0, time.time(), job.node or job.state.lower(), job.rule, "step", job.id)
        for job in found
        if job.id not in registered
    ]


def busy(folder: str | Path = FOLDER) -> str | None:
    """Return who is at work here besides this process and those that started it, and what to do; None for nobody."""
    folder = Path(folder)
    found = others(folder)
    try:
        found += _queued(folder, found)
    except UserError as error:
        return str(error)
    return _refusal(found, folder) if found else None


def claim(folder: str | Path, command: str, wait: float = 0.0, say: Callable[[str], None] = print) -> Path:
    """Claim the folder as the one main process of its working directory; return the path of this process's file.

    Only this process and those that started it may hold it already. Steps that outlived their main process are waited
    for, `wait` seconds at most. Of two processes that claim at once exactly one succeeds. Raises UserError that names
    each process in the way by pid, command and start, or by its SLURM job.
    """
    folder = Path(folder).resolve()
    deadline, told = time.monotonic() + wait, False
    while True:
        with _mutex(folder):
            found = _strangers(_scan(folder))
            found += _queued(folder, found)
            if not found:
                os.environ[VARIABLE] = str(folder)
                return _write(folder, command, "main", os.getpid())
        orphans = all(holder.role == "step" and (holder.job or holder.host == slurm_jobs.host()) for holder in found)
        if not orphans or time.monotonic() >= deadline:
            raise UserError(_refusal(found, folder))
        if not told:
            names = "; ".join(str(holder) for holder in found)
            say(f"waiting up to {wait:.0f} s for a step that a killed run left behind: {names}")
            told = True
        time.sleep(1.0 if any(holder.asked_of_slurm for holder in found) else POLL)


@contextlib.contextmanager
def hold(folder: str | Path, command: str, wait: float = 0.0, say: Callable[[str], None] = print) -> Iterator[Path]:
    """Claim the folder as in `claim`, and release it at the end of the block."""
    path = claim(folder, command, wait, say)
    try:
        yield path
    finally:
        release(path.parent)


@contextlib.contextmanager
def step(command: str, writes: str = "", helps: str = "", wait: float = ENDING) -> Iterator[None]:
    """Register this process as a step while the block runs; do nothing outside a run (no RTT_LOCKS).

    `writes` is the run that it writes. If another step writes it, that one is waited for, `wait` seconds at most, since
    it may be ending; then UserError names it. `helps` is the run that another node's process of the same job writes;
    UserError where that one's file is not seen from here. A step that a signal ends leaves its file; the next look
    finds it dead and deletes it.
    """
    folder = os.environ.get(VARIABLE)
    if not folder:
        yield
        return
    ownership.own = _enter(Path(folder).absolute(), command, writes, wait)
    if helps:
        _meet(Path(folder).absolute(), helps, wait + UNSEEN)
    try:
        yield
    finally:
        ownership.own = None
        release(folder)


def _enter(folder: Path, command: str, writes: str, wait: float) -> Path:
    deadline = time.monotonic() + wait
    while True:
        with _mutex(folder):
            rivals = _scan(folder, writes) if writes else []
            if not rivals:
                return _write(folder, command, "step", os.getpid(), writes)
        if time.monotonic() >= deadline:
            raise UserError(f"{writes}: another step writes this run. {_refusal(rivals, folder)}")
        time.sleep(1.0)


def _meet(folder: Path, run: str, wait: float) -> None:
    """Wait until the job's process that writes `run` is registered. Raises UserError if it is not seen from here."""
    deadline, job = time.monotonic() + wait, slurm_jobs.job_id()
    while not any((holder.writes, holder.job) == (run, job) for holder, _ in registered(folder)):
        if time.monotonic() >= deadline:
            raise UserError(
                f"nodes: {slurm_jobs.host()} does not see in {folder} what the job's other nodes write there. A job on "
                "several nodes needs a file system that all of them share: start the study in a folder on one "
                "(docs/hpc.md), or with nodes: 1"
            )
        time.sleep(POLL)

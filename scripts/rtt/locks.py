"""Who is at work on a working directory: one small file per process, under `results/.locks/`.

A process of ours - `python -m rtt run`, a bare `snakemake` (the Snakefile's `onstart`), every step - writes
`<pid>.json` when it starts and deletes it when it ends. After a SIGKILL the file stays, so a file counts only while
its pid exists with the same start time. This supplements Snakemake's own lock, which a SIGKILL leaves behind
and which knows nothing of steps that outlive their Snakemake.
"""

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import psutil

from rtt.errors import UserError
from rtt.files import write_json

FOLDER = Path("results/.locks")  # relative to the working directory
VARIABLE = "RTT_LOCKS"  # how a step learns the folder: set by claim(), inherited by everything started from there

# Seconds. psutil's start time moves when the system's clock is set; a reused pid within so short a time is unlikely,
# and would only make us refuse once too often.
TOLERANCE = 10.0


@dataclass(frozen=True)
class Holder:
    """One registered process. `start_time` is in seconds since 1970; `role` is `main` or `step`."""

    pid: int
    start_time: float
    host: str
    command: str
    role: str

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.start_time).strftime("%Y-%m-%d %H:%M:%S")
        return f"pid {self.pid} on {self.host} ({self.command}), since {since}"


def _here() -> str:
    return socket.gethostname()


@contextlib.contextmanager
def _mutex(folder: Path) -> Iterator[None]:
    """Serialise looking and writing, for milliseconds. The kernel frees it when its holder dies."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "mutex", "w") as handle:
        # Some network file systems have no flock; Snakemake's own lock still guards there.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _alive(holder: Holder) -> bool:
    """Does the process still run? One on another host can't be asked, so it counts as alive."""
    if holder.host != _here():
        return True
    try:
        process = psutil.Process(holder.pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return abs(process.create_time() - holder.start_time) <= TOLERANCE
    except psutil.NoSuchProcess:  # psutil's ZombieProcess too
        return False
    except psutil.AccessDenied:
        return True


def _scan(folder: Path) -> list[Holder]:
    holders = []
    for path in sorted(folder.glob("[0-9]*.json")):
        try:
            holder = Holder(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            continue
        except (ValueError, TypeError):  # not one of ours, or a disk that was full
            path.unlink(missing_ok=True)
            continue
        if _alive(holder):
            holders.append(holder)
        else:
            path.unlink(missing_ok=True)
    return sorted(holders, key=lambda holder: (holder.start_time, holder.pid))


def live(folder: str | Path = FOLDER) -> list[Holder]:
    """Return the registered processes that are alive, oldest first; delete the files of the dead."""
    folder = Path(folder)
    if not folder.is_dir():
        return []
    with _mutex(folder):
        return _scan(folder)


def _strangers(holders: list[Holder]) -> list[Holder]:
    family = {os.getpid(), *(process.pid for process in psutil.Process().parents())}
    return [holder for holder in holders if holder.host != _here() or holder.pid not in family]


def others(folder: str | Path = FOLDER) -> list[Holder]:
    """Return the live ones other than this process and those that started it."""
    return _strangers(live(folder))


def _write(folder: Path, command: str, role: str, pid: int) -> Path:
    path = folder / f"{pid}.json"
    holder = Holder(pid, psutil.Process(pid).create_time(), _here(), command, role)
    write_json(path, asdict(holder), indent=None)
    return path


def register(folder: str | Path, command: str, role: str = "step", pid: int | None = None) -> Path:
    """Write the file of process `pid` (default: this one), whoever else is live. Returns its path.

    Raises psutil.NoSuchProcess when `pid` has already ended.
    """
    folder = Path(folder)
    with _mutex(folder):
        return _write(folder, command, role, os.getpid() if pid is None else pid)


def release(folder: str | Path = FOLDER, pid: int | None = None) -> None:
    """Delete the file of process `pid` (default: this one), if there is one."""
    (Path(folder) / f"{os.getpid() if pid is None else pid}.json").unlink(missing_ok=True)


def _refusal(holders: list[Holder], folder: Path) -> str:
    lines = ["this working directory is in use:"]
    for holder in holders:
        lines.append(f"  {holder}")
        if holder.host != _here():
            path = folder / f"{holder.pid}.json"
            lines.append(f"  It can't be checked from here ({_here()}). If it has ended, delete {path}.")
    here = [str(holder.pid) for holder in holders if holder.host == _here()]
    if here:
        lines.append(f"Wait until it ends, or stop it: kill {' '.join(here)}")
    return "\n".join(lines)


def claim(folder: str | Path, command: str, wait: float = 0.0, say: Callable[[str], None] = print) -> Path:
    """Register this process as the one main process of a working directory.

    Only the process itself and those that started it may hold the directory already. Steps that outlived their
    main process are waited for, `wait` seconds at most. Of two that claim at once exactly one gets it.
    Raises UserError that names pid, command and start of each process in the way.
    """
    folder = Path(folder).resolve()
    deadline, told = time.monotonic() + wait, False
    while True:
        with _mutex(folder):
            busy = _strangers(_scan(folder))
            if not busy:
                os.environ[VARIABLE] = str(folder)
                return _write(folder, command, "main", os.getpid())
        orphans = all(holder.role == "step" and holder.host == _here() for holder in busy)
        if not orphans or time.monotonic() >= deadline:
            raise UserError(_refusal(busy, folder))
        if not told:
            names = "; ".join(str(holder) for holder in busy)
            say(f"waiting up to {wait:.0f} s for a step that a killed run has left behind: {names}")
            told = True
        time.sleep(0.2)


@contextlib.contextmanager
def hold(folder: str | Path, command: str, wait: float = 0.0, say: Callable[[str], None] = print) -> Iterator[Path]:
    """claim(), and release() at the end of the block."""
    path = claim(folder, command, wait, say)
    try:
        yield path
    finally:
        release(path.parent)


@contextlib.contextmanager
def step(command: str) -> Iterator[None]:
    """Register this process as a step while the block runs; nothing is done outside a run (no RTT_LOCKS).

    A step ended by a signal leaves its file; the next look finds it dead and deletes it.
    """
    folder = os.environ.get(VARIABLE)
    if not folder:
        yield
        return
    register(folder, command)
    try:
        yield
    finally:
        release(folder)

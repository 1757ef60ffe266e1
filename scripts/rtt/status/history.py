"""What Snakemake said of a study's jobs: when each was started, ended or failed, and whether anybody interrupted it.

Snakemake writes `.snakemake/log/<time>.snakemake.log` for each time it runs, on this machine or as the main process of
a cluster; `python -m rtt run` has the same in `logs/run.log`. Both are only read, as far as they are written.
"""

import base64
import binascii
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

LOGS = 40  # of Snakemake, the newest ones
MOST = 64 << 20  # bytes of a log, its end
_TIME = re.compile(r"^\[(\w{3} \w{3} [ \d]\d [\d:]{8} \d{4})\]$")
_BEGUN = re.compile(r"^(?:local)?(?:rule|checkpoint) (\w+):$")
_DONE = re.compile(r"^Finished jobid: (\d+) ")
_FAILED = re.compile(r"^Error in (?:rule|checkpoint) (\w+):$")
_CORES = re.compile(r"^Provided cores: (\d+)")
_INTERRUPTED = "Terminating processes on user request"
_ENDED = "Complete log(s):"


@dataclass
class Event:
    """What happened last to a job: it was "started", "finished" or "failed".

    `time` is in seconds since 1970, NaN where the log has none; `began` is when it was started. `said` is Snakemake's
    own message on a failure, and `interrupted` whether somebody had stopped the run before it.
    """

    what: str
    time: float
    began: float
    said: str = ""
    interrupted: bool = False


@dataclass
class History:
    """The last event of each job, by the name of its log below the results folder, and what the last run was.

    `seconds` is {log: how long the job took} of those that finished. `cores` is how many processes the last run may
    have at once, None on a cluster. `open` says that the last run has not said its last word.
    """

    events: dict[str, Event] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    cores: int | None = None
    remote: bool = False
    open: bool = False
    spoke: float | None = None  # when the last run's log last changed


class _Reader:
    """Reads one log, line by line, into a history."""

    def __init__(self, history: History, prefix: str):
        self.history, self.prefix, self.now = history, prefix, float("nan")
        self.begin()

    def begin(self) -> None:
        """Forget what belongs to one run of Snakemake: a log of ours has several, one after the other."""
        self.logs: dict[str, str] = {}  # {job's number: its log}
        self.block: dict[str, str] | None = None
        self.failing = self.interrupted = False

    def feed(self, line: str) -> None:
        if line.startswith("    ") and self.block is not None:
            key, colon, value = line.strip().partition(": ")
            if colon:
                self.block.setdefault(key, value)
            return
        self.close()
        if found := _TIME.match(line):
            with suppress(ValueError):
                self.now = datetime.strptime(found[1], "%a %b %d %H:%M:%S %Y").timestamp()
        elif line == "SNAKEMAKE":
            self.begin()
            self.history.open, self.history.cores, self.history.remote = True, None, False
        elif found := _CORES.match(line):
            self.history.cores = int(found[1])
        elif line.startswith("Provided remote nodes:"):
            self.history.remote = True
        elif _BEGUN.match(line) or _FAILED.match(line):
            self.block, self.failing = {}, bool(_FAILED.match(line))
        elif found := _DONE.match(line):
            self.finish(self.logs.get(found[1]))
        elif line.startswith(_INTERRUPTED):
            self.interrupted = True
        elif line.startswith(_ENDED):
            self.history.open = False

    def close(self) -> None:
        """Take in a block that is complete: of a job that begins, or of one that has failed."""
        block, self.block = self.block, None
        if block is None:
            return
        log = block.get("log", "").partition(" (check log")[0].split(", ")[0] or self.logs.get(block.get("jobid", ""))
        if not log or not log.startswith(self.prefix):
            return
        log = log.removeprefix(self.prefix)
        before = self.history.events.get(log)
        if self.failing:
            said = block.get("message", "None")
            began = before.began if before else self.now
            said = "" if said == "None" else said
            self.history.events[log] = Event("failed", self.now, began, said, self.interrupted)
        else:
            self.logs[block.get("jobid", "")] = self.prefix + log
            self.history.events[log] = Event("started", self.now, self.now)

    def finish(self, log: str | None) -> None:
        if log and (event := self.history.events.get(log.removeprefix(self.prefix))):
            event.what, event.time = "finished", self.now
            self.history.seconds[log.removeprefix(self.prefix)] = self.now - event.began


def read(logs: Iterable[Path], study: str) -> History:
    """Return the history of a study from Snakemake's logs, the oldest first."""
    history = History()
    for path in logs:
        try:
            with open(path, "rb") as stream:
                found = os.fstat(stream.fileno())
                stream.seek(max(0, found.st_size - MOST))
                text = stream.read(MOST).decode("utf-8", "replace")
        except OSError:
            continue
        if f"results/{study}/" not in text:  # of another study in the same folder
            continue
        history.spoke = found.st_mtime
        reader = _Reader(history, f"results/{study}/")
        for line in text.splitlines():
            reader.feed(line)
        reader.close()  # a job that runs is the last thing in a log; a block that is half written has no log yet
    return history


def logs_of(root: Path | None, results: Path) -> list[Path]:
    """Return the logs of Snakemake in a work folder, the oldest first; else the one that lies with the results."""
    found = sorted((root / ".snakemake" / "log").glob("*.snakemake.log"))[-LOGS:] if root else []
    return found or [results / "logs" / "run.log"]


def half_made(root: Path | None, study: str) -> set[str]:
    """Return the outputs, as names below the results folder, of jobs that Snakemake began and did not see end."""
    found, place = set(), root / ".snakemake" / "incomplete" if root else Path(os.devnull)
    for folder, _, names in os.walk(place):
        inner = "".join(part.removeprefix("@") for part in Path(folder).relative_to(place).parts)
        for name in names:
            with suppress(binascii.Error, UnicodeDecodeError):  # a file that is not Snakemake's
                path = base64.urlsafe_b64decode(inner + name).decode()
                if path.startswith(f"results/{study}/"):
                    found.add(path.removeprefix(f"results/{study}/"))
    return found

"""Read from Snakemake's output how far a run is; print lines for people, with an estimate of the time left."""

import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from rtt.files import clock

# Rough seconds per job of a rule on one core, used until jobs have been measured. Other rules count 1.
COSTS = {
    "pretrain": 45,
    "teach": 28,
    "unlearn": 14,
    "attack": 45,
    "attacks": 45,  # several that train nothing; its rules are numbered
    "import_model": 30,
    "original": 10,
    "bundle": 30,
    "all": 0,
}
PRIOR = 30.0  # seconds of measured work that weigh as much as these costs
# Rules that take seconds; what they did is said at the end, where nothing else was asked for.
DRAWING = frozenset({"unpack", "tables", "figure", "report", "figures", "bundle"})

_COUNT = re.compile(r"^(\w+)\s+(\d+)$")
_RULE = re.compile(r"^(?:local)?(?:rule|checkpoint) (\w+):$")
_MESSAGE = re.compile(r"^Job (\d+): (.*)$")
_DONE = re.compile(r"^Finished jobid: (\d+) \(Rule: (\w+)\)$")
_STEPS = re.compile(r"^(\d+) of (\d+) steps \((\S+)%\) done$")
_FAILED = re.compile(r"^Error in (?:rule|checkpoint) (\w+):$")
_WARNING = ("warning: ", "note: ")  # how lines of ours begin that a reader must see
_NAMES = re.compile(r"[\w.+/-]+(?:, [\w.+/-]+){4,}")


def _cost(rule: str) -> float:
    """Return the prior cost of a rule's job."""
    return COSTS.get(re.sub(r"_\d+$", "", rule), 1)


def _few(names: re.Match) -> str:
    """Return the first two of many names, and how many more there are."""
    first, second, *others = names[0].split(", ")
    return f"{first}, {second} and {len(others)} others"


@dataclass
class Job:
    """A started job. `rule` is None while Snakemake has shown only the rule's message."""

    jobid: str | None
    rule: str | None
    label: str
    started: float
    log: str | None = None


@dataclass
class Progress:
    """Reads Snakemake's output line by line. `now` is a clock in seconds; `say` prints a line.

    Of the rules in `quiet` neither start nor end is said. Warnings always are, each once.
    """

    cores: int
    say: Callable[[str], None]
    now: Callable[[], float] = time.monotonic
    quiet: frozenset[str] = frozenset()
    left_by_rule: Counter = field(default_factory=Counter)
    running: dict[str, Job] = field(default_factory=dict)
    failures: list[tuple[str, str | None]] = field(default_factory=list)  # (rule, its log file)
    done_by_rule: Counter = field(default_factory=Counter)
    logs: dict[str, str] = field(default_factory=dict)  # of each rule of which a job is done: that job's log file
    nothing_to_do: bool = False
    n_done: int = 0
    n_steps: int = 0

    def __post_init__(self):
        self.start = self.spoke = self.now()  # `spoke`: when a line was last printed
        self._warned: set[str] = set()
        self._measured: dict[str, list[float]] = {}
        self._table = False
        self._pending: Job | None = None
        self._finished: Job | None = None
        self._in_error = False

    def _scale(self) -> float:
        """Return the measured seconds per unit of COSTS, drawn towards 1 while little is measured."""
        seconds = sum(sum(times) for times in self._measured.values())
        costs = sum(_cost(rule) * len(times) for rule, times in self._measured.items())
        return (PRIOR + seconds) / (PRIOR + costs)

    def _expected(self, rule: str) -> float:
        times = self._measured.get(rule)
        return sum(times) / len(times) if times else _cost(rule) * self._scale()

    def remaining(self) -> float:
        """Estimate the seconds left: the work left divided by the cores, but at least what the longest running job
        needs.
        """
        work = sum(self._expected(rule) * count for rule, count in self.left_by_rule.items() if count > 0)
        longest = 0.0
        for job in self.running.values():
            if job.rule:
                expected = self._expected(job.rule)
                work -= min(self.now() - job.started, expected)
                longest = max(longest, expected - (self.now() - job.started))
        return max(work / self.cores, longest, 0.0)

    def _line(self, what: str) -> None:
        width = len(str(self.n_steps))
        percent = 100 * self.n_done // self.n_steps if self.n_steps else 0
        elapsed, left = clock(self.now() - self.start), clock(self.remaining())
        ahead = f"about {left} left" if self.n_done < self.n_steps else "done"
        self.spoke = self.now()
        self.say(f"[{self.n_done:>{width}}/{self.n_steps} {percent:3d}%  {elapsed}, {ahead}]  {what}")

    def still(self) -> None:
        """Print which jobs are running, for when nothing has been printed in a while."""
        if self.running:
            jobs = (f"{job.label} ({clock(self.now() - job.started)})" for job in self.running.values())
            self._line("running   " + ", ".join(jobs))

    def flush(self) -> None:
        """Announce the started job. Call this when no line has come for a moment: its description is then complete."""
        job, self._pending = self._pending, None
        if job is None:
            return
        self.running[job.jobid or job.label] = job
        if job.rule not in ("all", *self.quiet):
            self._line(f"started   {job.label}")

    def feed(self, line: str) -> None:
        """Take in one line of Snakemake's output, without its line end."""
        if line.startswith(_WARNING):
            if line not in self._warned:
                self.say(_NAMES.sub(_few, line))
            self._warned.add(line)
        elif self._table:
            self._read_table(line)
        elif line == "Job stats:":
            self._table = True
            self.left_by_rule.clear()
        elif line.startswith("Nothing to be done"):
            self.nothing_to_do = True
        elif line.startswith("    ") and self._pending:
            key, _, value = line.strip().partition(": ")
            if key == "jobid":
                self._pending.jobid = value
            elif key == "log":
                self._pending.log = value
            elif key == "wildcards":
                self._pending.label += f" ({', '.join(part.partition('=')[2] for part in value.split(', '))})"
        elif line.startswith("    ") and self._in_error:
            key, _, value = line.strip().partition(": ")
            if key == "jobid" and (job := self.running.pop(value, None)):
                self._line(f"failed    {job.label} after {clock(self.now() - job.started)}")
            elif key == "log":
                rule = self.failures[-1][0]
                self.failures[-1] = (rule, value.partition(" (check log")[0].split(", ")[0])
        else:
            self.flush()
            self._in_error = False
            self._read_header(line)

    def _read_table(self, line: str) -> None:
        match = _COUNT.match(line)
        if match and match[1] == "total":
            self.n_steps, self.n_done, self._table = int(match[2]), 0, False
        elif match:
            self.left_by_rule[match[1]] = int(match[2])

    def _read_header(self, line: str) -> None:
        if match := _RULE.match(line):
            self._pending = Job(None, match[1], match[1], self.now())
        elif match := _MESSAGE.match(line):
            self._pending = Job(match[1], None, match[2], self.now())
        elif match := _FAILED.match(line):
            self.failures.append((match[1], None))
            self._in_error = True
        elif match := _DONE.match(line):
            job = self.running.pop(match[1], None) or Job(match[1], match[2], match[2], self.now())
            job.rule = match[2]
            self.left_by_rule[job.rule] -= 1
            self.done_by_rule[job.rule] += 1
            if job.log:
                self.logs[job.rule] = job.log
            self._measured.setdefault(job.rule, []).append(self.now() - job.started)
            self._finished = job
        elif match := _STEPS.match(line):
            self.n_done, self.n_steps = int(match[1]), int(match[2])
            if (job := self._finished) and job.rule not in ("all", *self.quiet):
                self._line(f"finished  {job.label} in {clock(self.now() - job.started)}")
            self._finished = None

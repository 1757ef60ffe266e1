"""Show a study's status on a terminal, in lines of at most about 100 columns."""

import math
import textwrap
from collections import Counter
from collections.abc import Iterator
from datetime import datetime

from rtt.errors import printable
from rtt.files import clock
from rtt.planner.text import hours, paragraph, size, table
from rtt.status import signs
from rtt.status.gather import Status
from rtt.status.jobs import STAGES
from rtt.status.signs import DONE, FAILED, QUEUED, RUNNING, SILENT, STATES, STOPPED, WAITING, Found

SHOWN = 8  # jobs of a state that are named
NAMED = 3  # waiting jobs that are named
WIDTH = 98
FOLDERS = 4  # of the results whose sizes are shown


def show(status: Status) -> str:
    """Return the status as text, without tables."""
    lines = [*_head(status), "", *_stages(status), ""]
    for part in (_running(status), _queued(status), _failed(status), _stopped(status), _waiting(status)):
        found = list(part)
        lines += [*found, ""] if found else []
    lines += [*_time(status), *_disk(status)]
    for note in status.notes:
        lines += paragraph(note, "note: ")
    return "\n".join(map(printable, lines)) + "\n"


def _head(status: Status) -> Iterator[str]:
    subject, counts, at = status.subject, status.counts, _when(status.at, status.at, date=True)
    yield f"study {subject.name}, {subject.results}, {at}"
    told = f"{status.word}: {counts[DONE]} of {len(status.found)} jobs are done"
    others = [f"{counts[one]} {one}" for one in STATES if one != DONE and counts[one]]
    yield from paragraph(", ".join([told, *others]))
    if subject.bundle:
        yield from paragraph("a bundle holds a finished study; nothing of it runs")
        return
    for main in status.mains[:1]:  # `rtt run` registers Snakemake beside itself
        seen = "" if status.at_work else "; it is on another machine, so whether it still runs cannot be seen here"
        yield from paragraph(f"at work: {main}{seen}")
    if not status.active and not status.finished:
        yield "nobody is at work here"
        if subject.root:  # elsewhere lie copies, which nobody continues
            yield f"to {'go on' if status.begun else 'begin'}: python -m rtt run{subject.go_on}"


def _stages(status: Status) -> list[str]:
    """Return the table of stages; a state that no job is in has no column."""
    jobs, counts = status.subject.jobs, status.counts
    columns = [one for one in STATES if counts[one] or one == DONE]
    gpus = status.gpu_spent.total() + sum((status.gpu_left or {}).values()) > 0
    rows = []
    for stage in STAGES:
        names = [name for name, job in jobs.items() if job.stage == stage]
        states = Counter(status.found[name].state for name in names)
        if names:
            cells = [str(states[one] or "-") for one in columns]
            rows.append((stage, str(len(names)), *cells, *_spent_left(status, stage, states[DONE] == len(names), gpus)))
    cells = [str(counts[one] or "-") for one in columns]
    total = ("all", str(len(jobs)), *cells, *_spent_left(status, None, status.finished, gpus))
    head = ("stage", "jobs", *columns, "spent", "left (estimate)", *(["GPU spent", "GPU left"] if gpus else []))
    return table(head, [*rows, total])


def _spent_left(status: Status, stage: str | None, done: bool, gpus: bool) -> list[str]:
    pairs = [(status.spent, status.left)] + [(status.gpu_spent, status.gpu_left)] * gpus
    cells = []
    for spent, left in pairs:
        known = spent.total() if stage is None else spent[stage]
        cells.append(hours(known / 3600))
        if left is None:
            cells.append("-" if done else "?")
        else:
            cells.append(hours((sum(left.values()) if stage is None else left[stage]) / 3600))
    return cells


def _running(status: Status) -> Iterator[str]:
    names = _in(status, RUNNING) + _in(status, SILENT)
    if names:
        yield "running"
    for name in names[:SHOWN]:
        one = status.found[name]
        yield f"  {name}"
        told = [one.where, *_for(status, one)]
        if one.state == SILENT:
            told.append("it may have been killed, which cannot be seen from here")
        yield from paragraph(", ".join(filter(None, told)), "    ")
        if one.said:
            yield f"    | {_cut(one.said)}"
    yield from _more(names)


def _for(status: Status, one: Found) -> list[str]:
    """Say how long a job has run, and when it last showed a sign of life."""
    told = []
    if (ran := signs.age(one.since, status.at)) is not None:
        told.append(f"for {clock(ran)}")
    quiet = signs.age(one.seen, status.at)
    if quiet is not None and quiet >= signs.QUIET:
        told.append(f"no sign of life for {_minutes(quiet)}")
    elif quiet is not None:
        told.append(f"last sign of life {clock(quiet)} ago")
    return told


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _queued(status: Status) -> Iterator[str]:
    names = _in(status, QUEUED)
    if names:
        yield "submitted to the cluster, and not begun"
    for name in names[:SHOWN]:
        yield f"  {name}, for {clock(signs.age(status.found[name].since, status.at) or 0)}"
    yield from _more(names)


def _failed(status: Status) -> Iterator[str]:
    names = _in(status, FAILED)
    if names:
        yield "failed"
    for name in names[:SHOWN]:
        one, log = status.found[name], status.subject.results / status.subject.jobs[name].log
        yield f"  {name}{_at(status, one)}"
        yield f"    the end of its log, {log}:" if one.why else f"    it wrote no log ({log})"
        for line in one.why:  # whole: the end of a message says what to do
            yield from textwrap.wrap(line, WIDTH, initial_indent="    | ", subsequent_indent="    |   ")
    yield from _more(names)


def _stopped(status: Status) -> Iterator[str]:
    names = _in(status, STOPPED)
    if names:
        yield "stopped: begun, and nobody is at work on them"
    for name in names[:SHOWN]:
        one = status.found[name]
        yield f"  {name}{_at(status, one)}"
        told = [one.said, f"it resumes from {one.resumes}" if one.resumes else "it begins anew"]
        yield from paragraph("; ".join(filter(None, told)), "    ")
    yield from _more(names)


def _waiting(status: Status) -> Iterator[str]:
    names = _in(status, WAITING)
    if not names:
        return
    blocked = [name for name in names if status.found[name].blocked]
    ready = [name for name in names if not status.found[name].waits_for]
    parts = [f"{len(ready)} could begin now"] * bool(ready)
    others = len(names) - len(ready) - len(blocked)
    parts += [f"{others} {'waits' if others == 1 else 'wait'} for others"] * bool(others)
    if blocked:
        parts.append(f"{len(blocked)} {'needs' if len(blocked) == 1 else 'need'} what has failed")
    if len(blocked) == len(names) > 1:
        parts = ["all need what has failed"]
    if status.subject.runs is None:
        ready = parts = []
    yield from paragraph(f"waiting: {len(names)}" + (", of which " + ", ".join(parts) if parts else ""))
    if ready:
        rest = f" and {len(ready) - NAMED} more" if len(ready) > NAMED else ""
        yield from paragraph(f"the first to begin: {', '.join(ready[:NAMED])}{rest}", "  ")


def _time(status: Status) -> Iterator[str]:
    spent = f"time: finished jobs took {hours(status.spent.total() / 3600)}"
    if gpu := status.gpu_spent.total():
        spent += f", and {hours(gpu / 3600)} of GPUs"
    if status.finished or status.subject.bundle:
        yield from paragraph(spent.replace("took -", "say no time"))
        return
    if status.left is None or status.ends_in is None:
        told = "no job that trains or scores has finished, so there is nothing to estimate from; `rtt plan` has a guess"
        yield from paragraph(f"time: {told}")
        return
    lost = sum(one.state == FAILED or one.blocked for one in status.found.values())
    if lost == len(status.found) - status.counts[DONE]:
        yield from paragraph(f"{spent}; nothing is left but the {lost} that failed or need what failed")
        return
    text = f"{spent}; about {hours(sum(status.left.values()) / 3600)} of work left"
    if gpu_left := sum((status.gpu_left or {}).values()):
        text += f", about {hours(gpu_left / 3600)} of GPUs"
    text += f" without the {lost} that failed or need what failed" * bool(lost)
    at_once = f"{status.at_once} job{'s' * (status.at_once != 1)} at once"
    if status.active:
        end = _when(status.at + status.ends_in, status.at)
        text += f". At this pace, with {at_once}, it ends in about {clock(status.ends_in)}, at {end}"
    else:
        text += f", which takes about {clock(status.ends_in)} with {at_once}, once somebody goes on"
    yield from paragraph(f"{text}. These are estimates, from what finished jobs took.")


def _disk(status: Status) -> Iterator[str]:
    whole = "of files in the bundle" if status.subject.bundle else "in the results"
    parts = [f"{name} {size(value)}" for name, value in status.disk.most_common(FOLDERS) if value]
    free = "" if status.free is None or status.subject.bundle else f"; {size(status.free)} free on that disk"
    if not status.disk.total():
        yield from paragraph(f"disk: nothing in the results{free}")
        return
    told = f"disk: {size(status.disk.total())} {whole}" + (f" ({', '.join(parts)})" if parts else "") + free
    yield from paragraph(told)


def _in(status: Status, state: str) -> list[str]:
    return [name for name, one in status.found.items() if one.state == state]


def _more(names: list[str]) -> Iterator[str]:
    if len(names) > SHOWN:
        yield f"  and {len(names) - SHOWN} more (--json has all)"


def _at(status: Status, one: Found) -> str:
    return "" if one.since is None or math.isnan(one.since) else f", {_when(one.since, status.at)}"


def _when(seconds: float, now: float, date: bool = False) -> str:
    """Return a time of day, with the date where it is not today's."""
    then = datetime.fromtimestamp(seconds)
    other = date or then.date() != datetime.fromtimestamp(now).date()
    return then.strftime("%Y-%m-%d %H:%M" if other else "%H:%M")


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH - 6 else f"{line[: WIDTH - 7]}…"

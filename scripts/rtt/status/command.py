"""`python -m rtt status`: what of a study runs, waits and failed, and how long it will still take (docs/hpc.md).

It reads files, and nothing else: it runs no Snakemake, imports no torch, takes no lock and writes nothing below the
study's folders. So it may be called at any time, and from any machine that sees the files.
"""

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

from rtt import places
from rtt.bundle.contents import stems
from rtt.errors import UserError, printable
from rtt.report import summary
from rtt.status import gather, text
from rtt.status.gather import Status, Subject
from rtt.status.signs import DONE
from rtt.study.load import load_study
from rtt.study.names import DEFAULT_STUDY
from rtt.yaml_files import parse_yaml

SECONDS = 10.0  # between two looks
CLEAR = "\x1b[H\x1b[2J"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `status`."""
    parser.add_argument(
        "study", nargs="?", metavar="STUDY",
        help=f"a study file, a results folder, or a bundle (default: {DEFAULT_STUDY})",
    )  # fmt: skip
    parser.add_argument("--config", nargs="+", default=[], metavar="KEY=VALUE", help="override keys of the study file")
    parser.add_argument(
        "--results", type=Path, metavar="FOLDER",
        help="the study's results, where they are not in results/<study>; without STUDY the same as STUDY",
    )  # fmt: skip
    parser.add_argument(
        "--watch", nargs="?", type=seconds, const=SECONDS, metavar="SECONDS",
        help=f"look again and again (default: every {SECONDS:g} s), until nothing is left to do, or Ctrl-C",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON; with --watch, one line for each look")
    parser.add_argument(
        "--no-tables", dest="tables", action="store_false",
        help="leave out the recovery of what is complete, which takes a while to compute in a large study",
    )  # fmt: skip


def seconds(given: str) -> float:
    """Return the seconds between two looks that an option asks for."""
    try:
        value = float(given)
    except ValueError:
        value = 0.0
    if not 0.1 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"{given!r} is not a number of seconds, .1 or more")
    return value


def run(args: argparse.Namespace) -> int:
    """Print the status, with --watch again and again; return 1 if a job has failed, else 0."""
    subject, screen, status = subject_of(args), Screen(args), None
    try:
        while True:
            status = gather.look(subject)
            screen.show(status)
            if args.watch is None or over(status):
                return int(status.failed)
            time.sleep(args.watch)
    except KeyboardInterrupt:
        print(file=sys.stderr)  # behind the terminal's ^C
        return int(status is not None and status.failed)


def over(status: Status) -> bool:
    """Return whether watching may end: all is done, or something has failed and nobody is at work any more."""
    return status.subject.bundle or status.finished or (status.failed and not status.active)


def subject_of(args: argparse.Namespace) -> Subject:
    """Return what STUDY, --results and --config name. Raises UserError."""
    given = args.study or (str(args.results) if args.results else "")
    path = Path(given)
    if given and (path.is_dir() or gather.is_bundle(path)):
        if args.config:
            raise UserError(f"--config: {given} is no study file, whose keys could be overridden")
        if args.study and args.results:
            raise UserError(f"--results: {given} has results of its own; give one of the two")
        if not path.exists():
            raise UserError(f"{given}: no such bundle")
        return gather.of_bundle(path) if gather.is_bundle(path) else gather.of_results(path)
    if args.results and not args.results.is_dir():
        raise UserError(f"--results {args.results}: no such folder")
    overrides = {}
    for item in args.config:
        key, equals, value = item.partition("=")
        if not equals:
            raise UserError(f"--config {item}: expected KEY=VALUE")
        overrides[key] = parse_yaml(value, f"--config {key}")
    root = places.work_folder()
    default = root / DEFAULT_STUDY
    default = default if default.is_file() else places.SHIPPED / DEFAULT_STUDY
    file = places.study_file(args.study or default)
    inside = file.resolve().is_relative_to(Path.cwd())
    shown = str(file.resolve().relative_to(Path.cwd()) if inside else file)
    return gather.of_study(load_study(file, overrides), shown, root, args.results, args.config)


class Screen:
    """Prints one status after the other: on a terminal in the place of the last one, else below it."""

    def __init__(self, args: argparse.Namespace):
        self.args, self.watch = args, args.watch is not None
        self.redraws = self.watch and not args.json and sys.stdout.isatty()
        self.tables: tuple[object, list[str]] = (None, [])

    def show(self, status: Status) -> None:
        """Print a status, and below it the recovery of what is complete."""
        if self.args.json:
            print(json.dumps(gather.document(status), allow_nan=False, indent=None if self.watch else 1), flush=True)
            return
        lines = text.show(status).splitlines()
        if self.redraws:
            self._draw([*lines, "", *self.tables[1]])
        else:
            print(*lines, sep="\n", flush=True)
        if not self.args.tables:
            return
        key = _scores(status)
        if key != self.tables[0]:
            self.tables = key, list(map(printable, recovery(status)))
            if self.redraws:
                self._draw([*lines, "", *self.tables[1]])
        if not self.redraws and self.tables[1]:
            print("", *self.tables[1], sep="\n", flush=True)
        if self.watch and not self.redraws:
            print(flush=True)

    def _draw(self, lines: list[str]) -> None:
        columns, rows = shutil.get_terminal_size()
        cut = [line[:columns] for line in lines]
        if len(cut) >= rows:
            cut = [*cut[: rows - 2], f"... {len(cut) - rows + 2} more lines"]
        print(CLEAR + "\n".join(cut), flush=True)


def _scores(status: Status) -> tuple:
    """Return what the tables are made of: it changes when there is a new score."""
    files = status.files
    names = [*files.below("evals"), *files.below("point_choices")]
    return status.finished, tuple(sorted((name, files.times.get(name), files.sizes[name]) for name in names))


def recovery(status: Status) -> list[str]:
    """Return the recovery of the cells that are complete, marked as partial; where it all is, where it can be read."""
    subject, folder = status.subject, status.subject.results
    if subject.bundle:
        return []
    if status.finished:
        report = [f"report: {folder / 'report.html'}"] * status.files.has("report.html")
        return [*report, f"tables: python -m rtt summary --results {folder}"]
    done = {one.removeprefix("evals/") for one in status.files.below("evals")}
    attacked = [one for one in stems(subject.plan, "evals") if "/" in one and f"{one}.json" in done]
    if all(one.rpartition("/")[2] in ("original", "control") for one in attacked):
        return []  # no unlearned model has been attacked
    if not any(status.found[name].state == DONE for name, job in subject.jobs.items() if job.stage == "choose"):
        return []
    try:
        lines = summary.partial(folder)
    except (UserError, OSError) as error:  # a file that went while it was read, for one
        return [f"no tables of what is there: {error}"]
    if not lines:
        return ["PARTIAL: no cell is complete yet"]
    more = f"all of it: python -m rtt summary --results {folder}"
    files = f"as files: python -m rtt tables --results {folder} --partial --out FOLDER"
    return ["PARTIAL: the cells for which everything is there", *lines, more, files]

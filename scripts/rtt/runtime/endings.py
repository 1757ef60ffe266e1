"""Say how a run through Snakemake ended: what was made and where it is, or which step failed and why."""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from rtt import places
from rtt.errors import printable
from rtt.runtime.progress import Progress
from rtt.study.names import TABLES

TAIL = 20  # lines of a failing step's log to show
# Lines of `rtt verify` about single files: those that are as they should be, which its last lines count, and those that
# cannot be compared. All stay in its log.
_EQUAL = re.compile(r"^\S+ +equal, (byte for byte|by its sha256|pixel for pixel|but for )")
_ABSENT = re.compile(r"^\S+ +not in the bundle$")


def shown(path: Path) -> str:
    """Return a path as a user in the current folder would type it."""
    with suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def explain(output: str) -> str:
    """Return what Snakemake said before it ran anything, without its greeting and without places in the Snakefile."""
    if "invalid choice: 'slurm'" in output:  # of --executor
        return places.missing("snakemake_executor_plugin_slurm") or output
    lines = [line for line in output.splitlines() if line.strip()]
    for number, line in enumerate(lines):
        if re.match(r"^\w*(Error|Exception)( in file .*)?:?$", line):
            message = [text for text in lines[number + 1 :] if not re.match(r'^\s+File ".*", line \d+', text)]
            return "\n".join(message or [line])
    return "\n".join(lines[-TAIL:])


def report_failures(progress: Progress, directory: Path, output: Path, offset: int) -> None:
    """Show each failing step with the end of its log, or what Snakemake said if no step failed."""
    for rule, log in progress.failures:
        print(f"error: step {rule} failed", file=sys.stderr)
        path = directory / log if log else None
        if path and path.is_file():
            tail = [f"  | {line}" for line in _telling(path)[-TAIL:]]
            print(f"the end of its log, {log}:", *tail, sep="\n", file=sys.stderr)
        elif log:
            print(f"it wrote no log ({log})", file=sys.stderr)
    if not progress.failures:
        text = output.read_bytes()[offset:].decode("utf-8", "replace")
        print(f"error: {printable(explain(text))}", file=sys.stderr)
    print(f"Snakemake's whole output: {shown(output)}", file=sys.stderr)


def summarise(results: Path, environment: dict[str, str]) -> int:
    """Print the recovery table if the targets asked for one, and where the report is."""
    code = 0
    if (results / "tables" / "recovery.csv").is_file():
        summary = [sys.executable, "-m", "rtt", "summary", "--results", shown(results)]
        code = subprocess.run(summary, env=environment).returncode
    return code


def conclusion(progress: Progress, directory: Path) -> Iterator[str]:
    """Yield the lines about a bundle that was written, or drawn again: what its steps say in their logs, in short."""
    for rule in ("unpack", "figures", "bundle"):
        if rule == "figures":
            yield _drawn(progress.done_by_rule)
        if rule in progress.logs:
            yield from _telling(directory / progress.logs[rule])


def _drawn(counts: Counter) -> str:
    """Return which tables, figures and reports were made, by how many jobs of each rule are done."""
    parts = [f"{len(TABLES)} tables"] * bool(counts["tables"])
    parts += [f"{counts['figure']} figures (SVG and PNG)"] * bool(counts["figure"])
    parts += ["the report"] * bool(counts["report"])
    if not parts:
        return "nothing had to be drawn: tables, figures and report are up to date"
    return f"drawn: {', '.join(parts)}"


def _telling(path: Path) -> list[str]:
    """Return the lines of a step's log, without those about single files that are as expected."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    absent = sum(bool(_ABSENT.match(line)) for line in lines)
    kept = [printable(line) for line in lines if not _EQUAL.match(line) and not _ABSENT.match(line)]
    return [f"{absent} of these files are not in the bundle, so they are compared with nothing"] * bool(absent) + kept

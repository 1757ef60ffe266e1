"""What each step read and made, as sha256 by path: it decides what is up to date, instead of the times of files.

A record is `{"read": {path: sha256}, "made": {path: sha256}}`, with paths as seen from the study's results folder. The
manifest of a step holds it, or its point choice; that of tables, figures and report is the file code/<step>-<hash>.
So results that were copied, with or without their times, are known to be whole, and a file that was changed is named.
"""

import os
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rtt import checksums
from rtt.files import canonical_json, read_json, write_text
from rtt.study.digests import remembered_sha256


def record(root: Path, read: Iterable[str | Path | None], made: Iterable[str | Path | None]) -> dict[str, dict]:
    """Return the record of a step: `root` is the results folder, `read` and `made` are files, or folders of files."""
    return {"read": sums(root, read), "made": sums(root, made)}


def sums(root: Path, paths: Iterable[str | Path | None]) -> dict[str, str]:
    """Return {path as seen from `root`: sha256} of these files, and of those in these folders; None is left out."""
    files = [file for path in paths if path is not None for file in files_of(Path(path))]
    return {Path(os.path.relpath(file, root)).as_posix(): remembered_sha256(file) for file in files}


def files_of(path: Path) -> Iterator[Path]:
    """Yield a file, or the files of a folder in the order of their names.

    Hidden ones do not count, nor the folder's own checksums: a trajectory's change where its sibling finds a better
    point.
    """
    if not path.is_dir():
        yield path
        return
    for one in sorted(path.rglob("*")):
        if (
            one.is_file()
            and one.name != checksums.NAME
            and not any(part.startswith(".") for part in one.relative_to(path).parts)
        ):
            yield one


def changed(root: Path, recorded: Any) -> list[Path]:
    """Return which of the files of one side of a record (`read` or `made`) are there and differ from it."""
    found = recorded.items() if isinstance(recorded, dict) else ()
    paths = {Path(os.path.normpath(root / name)): value for name, value in found}
    return [path for path, value in paths.items() if path.is_file() and remembered_sha256(path) != value]


def configure(parser: ArgumentParser) -> None:
    """Add the argument of a step that has no manifest."""
    parser.add_argument(
        "--record", type=Path, metavar="FILE", help="where to write the sha256 of what it read and made"
    )


def write(path: str | Path, read: Iterable[str | Path], made: Iterable[str | Path]) -> None:
    """Write the record of a step that has no manifest, as `<results>/code/<name>`."""
    write_text(path, canonical_json(record(Path(path).parent.parent, read, made)) + "\n")


def read_record(path: Path) -> dict[str, Any]:
    """Return the record in a manifest, a point choice or a file below code/; {} where there is none.

    Raises UserError for a file that is not JSON.
    """
    if not path.is_file() or not path.stat().st_size:  # an older version left empty files below code/
        return {}
    found = read_json(path)
    return {key: found[key] for key in ("read", "made") if key in found} if isinstance(found, dict) else {}

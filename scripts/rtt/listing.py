"""List a dataset's files: every one that its name makes part of the dataset must be there and be readable."""

import os
import stat
from pathlib import Path

from rtt.errors import UserError
from rtt.files import natural

SHOWN = 20  # names in a message at most
TYPES = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def jsonl_files(folder: str | Path) -> list[Path]:
    """Return a folder's `*.jsonl` files in natural order, without hidden ones; [] when there are none.

    Raises UserError that names every one that is no readable file: a link to nowhere, a folder, a pipe. Left out, it
    would be a split that is missing without a word.
    """
    folder = Path(folder)
    try:
        names = sorted((name for name in os.listdir(folder) if name.endswith(".jsonl")), key=natural)
    except OSError as error:
        raise UserError(f"{folder}: cannot be read: {error.strerror}") from None
    paths = [folder / name for name in names if not name.startswith(".")]
    if wrong := [f"{path!s:.300}: {why}" for path in paths if (why := fault(path))]:
        more = [f"... and {len(wrong) - SHOWN} more"] if len(wrong) > SHOWN else []
        head = f"{folder}: {len(wrong)} of {len(paths)} *.jsonl are no files that can be read; get or remove them:"
        raise UserError("\n  ".join([head, *wrong[:SHOWN], *more]).encode("utf-8", "backslashreplace").decode())
    return paths


def fault(path: Path) -> str | None:
    """Return what keeps a path from being a file that can be read, None if nothing does."""
    try:
        mode = path.stat().st_mode
        kind = next((kind for is_type, kind in TYPES if is_type(mode)), None)
        if kind is None:
            with open(path, "rb") as stream:
                stream.read(1)
        return kind
    except OSError as error:
        if path.is_symlink() and not os.path.exists(path):
            return f"a link to {os.readlink(path)}, which is not there (git-annex: git annex get; or a purged disk)"
        return f"cannot be read: {error.strerror}"

"""Hash a study's input files; the hashes go into specs, so that a changed file makes another run."""

import hashlib
from functools import cache
from pathlib import Path

from rtt.errors import UserError
from rtt.study import sources

DATA = sources.DATA
WHOLE = 64 * 2**20  # bytes up to which a file is hashed whole
ENDS = 2**20


@cache
def folder_digest(folder: str | Path, pattern: str = "*") -> str:
    """Return the sha256 of the names, sizes and contents of a folder's files that match `pattern`, 64 hex digits.

    Only the first and the last MiB of a file above 64 MiB count, since the Snakefile computes this for every job.
    Raises UserError when there is no such folder or file.
    """
    paths = sorted(path for path in Path(folder).glob(pattern) if path.is_file() and not path.name.startswith("."))
    if not paths:
        raise UserError(f"{folder}: no {pattern} file here; the study names this folder")
    whole = hashlib.sha256()
    for path in paths:
        size = path.stat().st_size
        whole.update(f"{path.name} {size} ".encode())
        with open(path, "rb") as stream:
            whole.update(hashlib.sha256(stream.read(WHOLE if size <= WHOLE else ENDS)).digest())
            if size > WHOLE:
                stream.seek(-ENDS, 2)
                whole.update(hashlib.sha256(stream.read()).digest())
    return whole.hexdigest()


@cache
def group_digest(group: str, rows: int | None = None) -> str:
    """Return the hash of what a group of data/sources.tsv must hold; own files under data/ take precedence."""
    return sources.digest(group, data=DATA, rows=rows)

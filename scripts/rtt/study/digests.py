"""What a study's inputs hold, as hashes: they go into specs, so that a changed file is another run. No torch."""

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
    """sha256 over names, sizes and contents of the files of a folder that `pattern` names, 64 hex digits.

    Of a file above 64 MiB only the first and last MiB count, since the Snakefile computes this for every job. Raises
    UserError when there is no such folder or file.
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
    """What the files of a group of data/sources.tsv must hold; the user's own files under data/ go before them."""
    return sources.digest(group, data=DATA, rows=rows)

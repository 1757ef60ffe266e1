"""Hash a study's input files; the hashes go into specs, so that a changed file makes another run.

The Snakefile computes them for every job. The sha256 of a large file is therefore remembered in the user's cache folder
(`$XDG_CACHE_HOME/rtt` or `~/.cache/rtt`), one small file for each, until its size, inode or times change. A record that
is damaged or cannot be written only costs time.
"""

import hashlib
import json
import os
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

from rtt import checksums
from rtt.errors import UserError
from rtt.files import clock, digest, write_json
from rtt.study import sources
from rtt.study.model_folder import tokenizer_files

DATA = sources.DATA
LARGE = 64 * 2**20  # bytes above which a file's sha256 is remembered
CHUNK = 16 * 2**20
PATIENCE = 3.0  # seconds of hashing between two lines of progress


@cache
def folder_digest(folder: str | Path, pattern: str = "*") -> str:
    """Return the sha256 of the names, sizes and contents of a folder's files that match `pattern`, 64 hex digits.

    A record of checksums says nothing new and does not count. Raises UserError when there is no such folder or file.
    """
    names = (path for path in Path(folder).glob(pattern) if path.name != checksums.NAME and path.name[0] != ".")
    paths = sorted(path for path in names if path.is_file())
    if not paths:
        raise UserError(f"{folder}: no {pattern} file here; the study names this folder")
    whole = hashlib.sha256()
    for path in paths:
        whole.update(f"{path.name} {path.stat().st_size} ".encode())
        whole.update(bytes.fromhex(remembered_sha256(path)))
    return whole.hexdigest()


def tokenizer_digest(folder: str | Path) -> str:
    """Return the sha256 of the names and contents of a folder's tokenizer files. Raises UserError without any."""
    return digest({path.name: remembered_sha256(path) for path in tokenizer_files(folder)})


def remembered_sha256(path: str | Path) -> str:
    """Return a file's sha256; of a large file that is unchanged since it was last hashed, without reading it."""
    path = Path(path).resolve()
    before = _state(path)
    if before["size"] <= LARGE:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    record = _record(path)
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(record.read_bytes())
        if {key: known[key] for key in before} == before and len(bytes.fromhex(known["sha256"])) == 32:
            return known["sha256"]
    found = _sha256(path, before["size"])
    if _state(path) == before:
        with suppress(OSError, UserError):
            write_json(record, before | {"sha256": found})
    return found


def _state(path: Path) -> dict:
    """Return what changes when somebody writes or replaces a file."""
    found = path.stat()
    times = {"mtime_ns": found.st_mtime_ns, "ctime_ns": found.st_ctime_ns}
    return {"path": str(path), "size": found.st_size, "inode": found.st_ino, **times}


def _record(path: Path) -> Path:
    """Return the file that remembers a path's sha256; each has its own, so that writers never meet."""
    place = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    return place / "rtt" / "sha256" / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.json"


def _sha256(path: Path, size: int) -> str:
    """Return a file's sha256, and say on standard error how long it takes, where it takes long."""
    found, done, begin = hashlib.sha256(), 0, time.monotonic()
    said = begin
    with open(path, "rb") as stream:
        while chunk := stream.read(CHUNK):
            found.update(chunk)
            done += len(chunk)
            now = time.monotonic()
            if now - said > PATIENCE and done < size:
                said, left = now, (now - begin) / done * (size - done)
                print(
                    f"{path}: hashing {done / 1e9:.1f} of {size / 1e9:.1f} GB, about {clock(left)} left; the sum is "
                    "remembered",
                    file=sys.stderr, flush=True,
                )  # fmt: skip
    return found.hexdigest()


@cache
def group_digest(group: str, rows: int | None = None) -> str:
    """Return the hash of what a group of data/sources.tsv must hold; own files under data/ take precedence."""
    return sources.digest(group, data=DATA, rows=rows)

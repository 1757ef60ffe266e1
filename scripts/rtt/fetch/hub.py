"""Write rows of a Hugging Face dataset as JSONL, from the hub at a pinned revision or from a local copy.

The first fetch resolves a revision that data/sources.tsv leaves empty, and records it in the lock file with the sha256
of what it wrote; later fetches enforce both. `datasets` and `huggingface_hub` are imported only when the hub is needed.
Code that comes with a dataset is never run (trust_remote_code is never passed).
"""

import errno
import fcntl
import json
import os
import urllib.parse
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rtt import files
from rtt.errors import UserError
from rtt.fetch.download import Absent, download, is_url, say
from rtt.files import natural
from rtt.study.sources import HUB, Source, expected, read_lock

MIN_CHARACTERS = 50  # texts of at most this length (headings, blank lines) are skipped, as in WMDP's reference code
SUFFIXES = (".jsonl", ".parquet", ".txt")


def fetch_rows(
    source: Source,
    target: Path,
    rows: int | None,
    mirror: str | None,
    lock: Path,
    work: Path,
    pauses: tuple[float, ...],
) -> str:
    """Write the first `rows` rows (None: all) of a hub dataset to `target` as JSONL; return where they came from.

    The mirror is tried before the hub. `work` is a folder for partial files. Raises UserError without a copy and a
    network, for a gated or missing dataset, for another revision or other texts than the lock file records, for too few
    rows, and on a full disk.
    """
    copies, where = _copies(source, mirror, work, pauses) if mirror else ([], "")
    if copies:
        write_rows(_read(copies, source), source, rows, target, where)
        if expected(source, lock, rows):
            _enforce(source, rows, target, lock, where)
        else:
            say(f"warning: {source.name}: {where} is a local copy of which no revision or checksum is known")
        return f"{where} (local copy)"
    locked = read_lock(lock).get(source.name, {}).get("revision", "")
    if source.revision and locked and source.revision != locked:
        raise UserError(
            f"{lock}: {source.name}: found revision {locked}, but data/sources.tsv has {source.revision}; delete the "
            "entry from the lock file"
        )
    try:
        revision = source.revision or locked or _resolve(source)
        say(f"{source.name}: reading {source.repo}, {source.config}, {source.split}, at revision {revision}")
        where = f"{source.url}/tree/{revision} ({source.config}, {source.split})"
        write_rows(_stream(source, revision), source, rows, target, where)
    except UserError:
        raise
    except Exception as error:  # the hub's libraries raise dozens of types, which change with each release
        raise explain(error, source, mirror) from None
    if expected(source, lock, rows):
        _enforce(source, rows, target, lock, where)
    _write_lock(source, rows, target, lock, revision)
    return where


def _enforce(source: Source, rows: int | None, target: Path, lock: Path, where: str) -> None:
    """Raise UserError unless the rows written have the sha256 that the lock file records."""
    want, found = expected(source, lock, rows), files.sha256(target)
    if want != found:
        raise UserError(
            f"{source.name}: wrong checksum: the rows of {where} have sha256 {found}, but {lock} says {want}; nothing "
            "was kept. Get the copy that the lock file describes; or, to accept the new one, delete the entry "
            f"{source.name!r} there"
        )


def _write_lock(source: Source, rows: int | None, target: Path, lock: Path, revision: str) -> None:
    """Add the revision and the checksum to the lock file; keep what another fetch may have just written there."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(lock.parent, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        content = read_lock(lock)
        entry = content.setdefault(source.name, {"repo": source.repo, "revision": revision, "sha256": {}})
        if entry["revision"] != revision:
            raise UserError(f"{lock}: {source.name}: another fetch wrote revision {entry['revision']}; fetch again")
        entry["sha256"][str(rows or "all")] = files.sha256(target)
        files.write_json(lock, content)
    finally:
        os.close(handle)


def _resolve(source: Source) -> str:
    """Return the commit at which the dataset's main branch is now, 40 hex digits."""
    from huggingface_hub import HfApi

    return HfApi().dataset_info(source.repo).sha


def _stream(source: Source, revision: str) -> Iterable[dict[str, Any]]:
    """Return the rows of the dataset at `revision`, read only as they are needed."""
    from datasets import load_dataset

    return load_dataset(source.repo, source.config or None, split=source.split, revision=revision, streaming=True)


def open_dataset(
    repo: str, config: str | None, split: str, revision: str | None
) -> tuple[str, Iterator[dict[str, Any]]]:
    """Return (commit, rows) of one split of a dataset on the hub that no row of data/sources.tsv names.

    Without a `revision` it is what the main branch is now. Raises UserError as `fetch_rows`, now or as rows are read.
    """
    shared = {"holds": "facts", "kind": "hub", "sha256": "", "bytes": None, "licence": "", "columns": (), "rows": None}
    source = Source(
        name=repo, group=repo, url=f"{HUB}{repo}", revision=revision or "", config=config or "default", split=split,
        **shared,
    )  # fmt: skip
    copy = "download its files where there is a network, and give their folder in the place of the hub's name"

    def rows(commit: str) -> Iterator[dict[str, Any]]:
        try:
            yield from _stream(source if config else replace(source, config=""), commit)
        except Exception as error:  # the hub's libraries raise dozens of types, which change with each release
            raise explain(error, source, None, copy) from None

    try:
        commit = revision or _resolve(source)
    except Exception as error:
        raise explain(error, source, None, copy) from None
    return commit, rows(commit)


def write_rows(found: Iterable[dict], source: Source, rows: int | None, target: Path, where: str) -> None:
    """Write the first `rows` of `found` as JSONL with the listed columns; skip texts of at most MIN_CHARACTERS.

    Raises UserError when there are too few rows, or when one lacks a column.
    """
    n = 0
    with files.disk_errors(target), open(target, "w", encoding="utf-8", newline="\n") as out:
        for row in found:
            lacking = [column for column in source.columns if column not in row]
            if lacking:
                raise UserError(f"{source.name}: {where}: no column {lacking[0]!r}; found {', '.join(map(str, row))}")
            if source.columns == ("text",) and not (
                isinstance(row["text"], str) and len(row["text"].strip()) > MIN_CHARACTERS
            ):
                continue
            out.write(json.dumps({column: row[column] for column in source.columns}, ensure_ascii=False) + "\n")
            n += 1
            if n == rows:
                break
    if n == 0 or n < (rows or 0):
        few = f"--texts {n}, or another copy" if n else "another copy"
        raise UserError(f"{source.name}: {where} has {n} usable rows, expected {rows or 'some'}; use {few}")


def _copies(source: Source, mirror: str, work: Path, pauses: tuple[float, ...]) -> tuple[list[Path], str]:
    """Return the files of a mirror's copy of the dataset, and where they are; [] if the mirror has none.

    In a folder, these places are tried: GROUP/FILE, GROUP/STEM with another suffix, all files of GROUP/STEM/, of
    GROUP/CONFIG/, and of GROUP/ (each group of kind hub is one dataset). Under a base URL it is GROUP/FILE.
    """
    if is_url(mirror):
        url, copy = f"{mirror.rstrip('/')}/{urllib.parse.quote(source.name)}", work / "copy.jsonl"
        try:
            download(url, copy, replace(source, sha256="", bytes=None), pauses)
        except Absent:
            return [], ""
        return [copy], url
    folder, stem = Path(mirror) / source.group, Path(source.file).stem
    for path in [folder / source.file, *(folder / f"{stem}{suffix}" for suffix in SUFFIXES)]:
        if path.is_file():
            return [path], str(path)
    for place in [folder / stem, folder / source.config, folder]:
        if place.is_dir():
            found = [p for p in place.iterdir() if p.suffix in SUFFIXES and p.is_file() and p.name[0] != "."]
            if found:
                return sorted(found, key=lambda path: natural(path.name)), str(place)
    return [], ""


def _read(paths: list[Path], source: Source) -> Iterator[dict[str, Any]]:
    """Yield the rows of local files: JSON lines, Parquet, or one text a line. Raises UserError with file and line."""
    for path in paths:
        if path.suffix == ".parquet":
            yield from _parquet(path, source)
            continue
        with open(path, "rb") as handle:
            for number, raw in enumerate(handle, 1):
                try:
                    line = raw.decode("utf-8")
                    row = json.loads(line) if path.suffix == ".jsonl" else {"text": line.rstrip("\r\n")}
                except ValueError as error:
                    raise UserError(f"{path}:{number}: cannot be read: {str(error)[:80]}") from None
                if not isinstance(row, dict):
                    raise UserError(f"{path}:{number}: found a {type(row).__name__}, expected an object with keys")
                yield row


def _parquet(path: Path, source: Source) -> Iterator[dict[str, Any]]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(path)
        for column in source.columns:
            if column not in table.schema_arrow.names:
                raise UserError(f"{path}: no column {column!r}; found {', '.join(table.schema_arrow.names)}")
        for batch in table.iter_batches(256, columns=list(source.columns)):
            yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a readable Parquet file: {str(error)[:120]}") from None


def explain(error: Exception, source: Source, mirror: str | None, copy: str | None = None) -> UserError:
    """Return a UserError that says what an error of the hub's libraries means and what to do.

    It tells gated and missing datasets, revisions that are gone, a missing network and a full disk apart from the rest.
    `copy` says how to do without the hub.
    """
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    kinds = {kind.__name__ for link in chain for kind in type(link).__mro__}
    status = {getattr(getattr(link, "response", None), "status_code", None) for link in chain}
    text = " ".join(str(link) for link in chain)
    what = f"{source.name}: dataset {source.repo} ({source.config})"
    copy = copy or f"put a copy into {source.group}/ of a folder and name that folder with mirror: (docs/fetch.md)"
    if any(getattr(link, "errno", None) in (errno.ENOSPC, errno.EDQUOT) for link in chain):
        return UserError(f"{what}: the disk is full; nothing partial is left; free space, or move HF_HOME")
    if "GatedRepoError" in kinds or "is a gated" in text or 403 in status:
        return UserError(
            f"{what} is gated: its owners give access on request. Accept the terms at {source.url} while logged in, "
            f"then set HF_TOKEN to a token of that account and fetch again; or {copy}"
        )
    if "RevisionNotFoundError" in kinds:
        return UserError(f"{what}: the hub does not have its revision: {str(error).splitlines()[0]}; {copy}")
    if kinds & {"RepositoryNotFoundError", "DatasetNotFoundError"} or status & {401, 404}:
        return UserError(
            f"{what} is missing on the hub, or private: without a token the hub does not tell which. Look at "
            f"{source.url}, set HF_TOKEN if you have access; or {copy}"
        )
    unreachable = {"TransportError", "ConnectionError", "TimeoutError", "OfflineModeIsEnabled", "gaierror"}
    if kinds & (unreachable | {"LocalEntryNotFoundError"}):
        looked = f"; the mirror {mirror} has no {source.group}/ with a copy" if mirror else ""
        return UserError(f"{what}: no network: the hub cannot be reached{looked}. Fetch where it can, or {copy}")
    message = " ".join(str(error).split())[:200]
    return UserError(f"{what}: the hub's library failed: {type(error).__name__}: {message}; or {copy}")

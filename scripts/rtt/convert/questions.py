"""Turn rows of a table into questions: which cells are the question, choices, answer, sentences and group."""

import math
import re
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rtt.convert.tables import Row, is_sample
from rtt.data.facts import LETTERS, MAX_CHOICES, MIN_CHOICES
from rtt.data.reader import Malformed, answer_index, refuse_control, same
from rtt.errors import UserError

ANSWERS = ("auto", "index", "index-from-1", "letter", "text")
SENTENCES = {"sentences": "corpus_", "ria_sentences": "whp_corpus_", "fif_sentences": "fwf_corpus_"}
# Where the columns are not named: those of the documented schema, and those of a harness's samples.
DEFAULTS = {"question": ("question",), "choices": ("choices",), "answer": ("answer",), "group": ("group",)}
SAMPLES = {
    "question": ("doc.question", "doc.query", "doc.problem", "doc.goal", "doc.ctx"),
    "choices": ("doc.choices",),
    "answer": ("target",),
    "group": (),
}


@dataclass
class Question:
    """One question as a line of the documented schema holds it; `counted` is its answer where that was a number."""

    place: str
    file: str
    question: str
    choices: list[str] | None
    answer: int | str
    group: str | None
    split: str | None = None
    counted: int | None = None
    told: dict[str, list[str]] = field(default_factory=dict)  # kind of sentences -> sentences

    @property
    def correct(self) -> str:
        """Return the text of the correct answer."""
        return self.choices[self.answer] if self.choices else self.answer


def text_of(value: Any, row: Row, column: str) -> str:
    """Return a cell as text. Raises UserError where it is empty, or neither text nor number."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        value = "Yes" if value else "No"
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        value = int(value)  # what a table makes of whole numbers beside an empty cell
    if value is None or (isinstance(value, float) and not math.isfinite(value)) or not str(value).strip():
        raise UserError(f"{row.place}: column {column!r} is empty")
    if not isinstance(value, str | int | float):
        raise UserError(f"{row.place}: column {column!r} is a {type(value).__name__}, expected text or a number")
    text = str(value).replace("\r\n", "\n")
    try:
        refuse_control(text)
    except Malformed as error:
        raise UserError(f"{row.place}: column {column!r}: {error}") from None
    return text


def texts_of(row: Row, columns: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """Return (texts, their labels or None) of one column with a list, or of several columns with a text each.

    A list may be one of a table, JSON in a text, or {"text": [...], "label": [...]}, as ARC has it. Empty cells at the
    end of several columns are left out: questions may have different numbers of choices.
    """
    if len(columns) > 1:
        cells = [(column, row.cell(column)) for column in columns]
        while cells and (cells[-1][1] is None or not str(cells[-1][1]).strip() or cells[-1][1] != cells[-1][1]):
            cells.pop()
        return [text_of(cell, row, column) for column, cell in cells], None  # a gap would shift letters and indices
    (column,) = columns
    value, labels = row.cell(column), None
    if isinstance(value, dict) and isinstance(value.get("text"), list):
        labels, value = value.get("label"), value["text"]
        if labels is not None and (not isinstance(labels, list) or len(labels) != len(value)):
            raise UserError(f"{row.place}: column {column!r} has {len(value)} texts, but not as many labels")
        labels = None if labels is None else [str(label) for label in labels]
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = read_list(value)
        except ValueError:
            raise UserError(f"{row.place}: column {column!r}: {value[:60]!r} begins as a list, but is none") from None
    if not isinstance(value, list | tuple):
        value = [value]
    return [text_of(one, row, f"{column}[{i}]") for i, one in enumerate(value)], labels


def read_list(text: str) -> list:
    """Return the list that a text holds as JSON, or as Python writes it. Raises ValueError for anything else."""
    import ast
    import json

    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise ValueError(text) from None
    if not isinstance(value, list):
        raise ValueError(text)
    return value


class Shape:
    """How the rows of one table become questions: the columns, and what an answer is."""

    def __init__(self, args: Namespace):
        self.args = args
        self._read_as: dict[str, str] = {}  # how a number was read as an answer: the place of the first one

    def columns(self, row: Row, key: str) -> tuple[str, ...]:
        """Return the columns that hold a part of the question: those named, or the usual ones that the row has."""
        if named := getattr(self.args, key):
            return tuple(named) if isinstance(named, list) else (named,)
        for column in (SAMPLES if is_sample(row.cells) else DEFAULTS)[key]:
            try:
                row.cell(column)
                return (column,)
            except UserError:
                continue
        return ()

    def question(self, row: Row, number: int) -> Question:
        """Return a row as a question; `number` counts rows from 0. Raises UserError with place and column."""
        args, found = self.args, {key: self.columns(row, key) for key in DEFAULTS}
        for key in ("question", "answer"):
            if not found[key]:
                raise UserError(
                    f"{row.place}: no column {key!r}: name it with --{key}; found {', '.join(map(str, row.cells)):.300}"
                )
        asked = text_of(row.cell(found["question"][0]), row, found["question"][0])
        choices, answer, counted = self._answered(row, found, asked)
        group = str(number // args.group_size + 1) if args.group_size else None
        if found["group"] and row.cell(found["group"][0]) is not None:
            group = text_of(row.cell(found["group"][0]), row, found["group"][0])
        split = text_of(row.cell(args.split), row, args.split) if args.split else None
        told = {kind: self._told(row, getattr(args, kind)) for kind in SENTENCES if getattr(args, kind)}
        return Question(row.place, row.file, asked, choices, answer, group, split, counted, told)

    def _told(self, row: Row, columns: list[str]) -> list[str]:
        return [text for column in columns for text in texts_of(row, [column])[0]]

    def _answered(self, row: Row, found: dict, asked: str) -> tuple[list[str] | None, int | str, int | None]:
        """Return (choices, answer, the answer if it was a number); an open question has no choices."""
        args, column = self.args, found["answer"][0]
        value = row.cell(column)
        if args.wrong:
            correct = text_of(value, row, column)
            wrong = texts_of(row, args.wrong)[0]
            rng = np.random.default_rng([args.seed, *same(asked).encode()])
            wrong = [wrong[i] for i in sorted(rng.permutation(len(wrong))[: (args.most_choices or len(wrong) + 1) - 1])]
            choices = [correct, *wrong]
            order = rng.permutation(len(choices)).tolist()
            return self._checked(row, [choices[i] for i in order]), order.index(0), None
        choices, labels = texts_of(row, found["choices"]) if found["choices"] else (None, None)
        if choices is None and is_sample(row.cells):
            choices = _continuations(row)
        if choices is None:
            return None, text_of(value, row, column), None
        index, counted = self._index(row, column, value, choices, labels)
        if args.most_choices and len(choices) > args.most_choices:
            wrong = [i for i in range(len(choices)) if i != index][: args.most_choices - 1]
            kept = sorted([index, *wrong])
            choices, index = [choices[i] for i in kept], kept.index(index)
        return self._checked(row, choices), index, counted

    def _checked(self, row: Row, choices: list[str]) -> list[str]:
        if not MIN_CHOICES <= len(choices) <= MAX_CHOICES:
            cut = "; --most-choices leaves wrong ones out" if len(choices) > MAX_CHOICES else ""
            raise UserError(f"{row.place}: {len(choices)} choices, expected {MIN_CHOICES} to {MAX_CHOICES}{cut}")
        return choices

    def _index(self, row: Row, column: str, value: Any, choices: list, labels: list | None) -> tuple[int, int | None]:
        """Return (index of the correct choice, the number that said so or None)."""
        text, how, last = text_of(value, row, column), self.args.answer_is, len(choices) - 1
        if how in ("auto", *ANSWERS[1:3]) and text.strip() not in choices:
            text = re.sub(
                r"^(\s*[0-9]{1,3})\.0+(\s*)$", r"\1\2", text
            )  # pandas writes 1.0 where some answers are empty
        number = int(text) if re.fullmatch(r"\s*[0-9]{1,3}\s*", text) else None
        if how in ("auto", "letter") and labels and text.strip() in labels:
            return labels.index(text.strip()), None
        if how in ("index", "index-from-1") or (how == "auto" and number is not None and text.strip() not in choices):
            shift = 1 if how == "index-from-1" else 0
            if number is None or not 0 <= number - shift <= last:
                hint = "; do they count from 1 (--answer-is index-from-1)?" if number == last + 1 and not shift else ""
                raise UserError(
                    f"{row.place}: column {column!r} is {text!r:.60}, expected a number from {shift} to "
                    f"{last + shift}{hint}"
                )
            if how == "auto":
                self._alike(row, column, text, "the index of a choice")
            return number - shift, None if how != "auto" else number
        if how == "auto" and number is not None and number <= last and choices.index(text.strip()) != number:
            raise UserError(
                f"{row.place}: column {column!r} is {text!r}, the text of one choice and the index of another; say "
                "--answer-is text or index"
            )
        if how == "auto" and number is not None and choices.index(text.strip()) != number:
            self._alike(row, column, text, "the text of a choice")
        if how == "text" and text.strip() not in [choice.strip() for choice in choices]:
            raise UserError(f"{row.place}: column {column!r} is {text!r:.60}, which is none of the choices")
        if how == "text":
            return [choice.strip() for choice in choices].index(text.strip()), None
        try:
            texts = [f"choice {letter}" for letter in LETTERS[: last + 1]] if how == "letter" else choices
            return answer_index(text, texts), None
        except Malformed as error:
            said = str(error).replace("'answer'", f"column {column!r}")
            raise UserError(f"{row.place}: {said}") from None

    def _alike(self, row: Row, column: str, text: str, meaning: str) -> None:
        """Raise UserError where numbers among a table's answers can't all be indices, nor all be texts of choices."""
        self._read_as.setdefault(meaning, f"{row.place}: {text!r}")
        if len(self._read_as) > 1:
            found = "; ".join(f"{place} can only be {how}" for how, place in self._read_as.items())
            raise UserError(f"{row.place}: column {column!r} mixes two kinds of answers: {found}; say --answer-is")


def _continuations(row: Row) -> list[str] | None:
    """Return what a harness asked a multiple-choice question with: the continuations of its requests; None if open."""
    asked = row.cells["arguments"]
    pairs = list(asked.values()) if isinstance(asked, dict) else asked
    texts = []
    for pair in pairs if isinstance(pairs, list) else []:
        parts = [pair.get("arg_0"), pair.get("arg_1")] if isinstance(pair, dict) else pair
        if not isinstance(parts, list) or len(parts) < 2 or not isinstance(parts[1], str):
            return None  # a task that generates: its second argument says when to stop
        texts.append(parts[1].strip())
    if len(texts) < 2 or not all(texts):
        return None
    if texts == list(LETTERS[: len(texts)]):
        raise UserError(f"{row.place}: the requests end with letters alone; name their column with --choices")
    return texts

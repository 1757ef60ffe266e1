"""The questions of one evaluation file and which of them were answered right, checked look by look."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rtt.errors import UserError
from rtt.files import natural
from rtt.study.names import PROBES

KEYS = ("id", "split", "group", "role", "answer")


@dataclass(frozen=True, eq=False)
class Questions:
    """n questions in the order of (split, id): the positions by which evaluations are paired."""

    ids: tuple[str, ...]
    splits: tuple[str, ...]
    groups: tuple[str, ...]  # the person or fact that a question is about; its own id where no other shares it
    answers: np.ndarray  # (n,) int, from 0
    n_choices: np.ndarray  # (n,) int, 2 or more


def get(path: Path, mapping: dict, key: str, kind: type | tuple[type, ...], where: str = "") -> Any:
    """Return `mapping[key]`. Raises UserError that names file and place where it is missing or of another type."""
    name = f"{where}.{key}" if where else key
    if key not in mapping:
        raise UserError(f"{path}: {name} is missing")
    value = mapping[key]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UserError(f"{path}: {name} is {value!r:.60}, of the wrong type ({type(value).__name__})")
    return value


class QuestionTable:
    """The questions of a file's looks, checked to be the same in each, in the order of (split, id)."""

    def __init__(self, path: Path):
        self.path = path
        self.columns: dict[str, list] = {}  # id, split, group, role, answer of each question
        self.probes: list[str] = []
        self.rows: dict[str, list[np.ndarray]] = {}  # probe -> per look (n,) bool: answered right
        self.n_choices: np.ndarray | None = None  # (n,) of each question, as all looks and probes must have
        self._raw_ids: list[str] = []

    def add(self, index: int, look: dict, v_split: str | None = None, attacked: bool = False) -> None:
        """Take one look. Where it is of an attack, role V must stand exactly in its V split (None: everywhere)."""
        where = f"{self.path}: looks[{index}]"
        questions = get(self.path, look, "questions", list, f"looks[{index}]")
        if not questions:
            raise UserError(f"{where} has no questions")
        try:
            columns = {key: [question[key] for question in questions] for key in KEYS}
            probes = [name for name in PROBES if name in questions[0]["probes"]]
            for question in questions:
                if probes != [name for name in PROBES if name in question["probes"]]:
                    raise UserError(
                        f"{where}: questions differ in their probes: the first has {probes}, {question['id']} has "
                        f"{sorted(question['probes'])}"
                    )
            scores = {name: [question["probes"][name]["scores"] for question in questions] for name in probes}
            if columns["id"] != self._raw_ids:
                keys = [tuple(map(natural, key)) for key in zip(columns["split"], columns["id"], strict=True)]
                self._order, self._raw_ids = sorted(range(len(keys)), key=keys.__getitem__), columns["id"]
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{where}: a question lacks or garbles {error}") from None
        columns = {key: [values[i] for i in self._order] for key, values in columns.items()}
        if not self.columns:
            self._first(where, columns, probes)
        if columns["id"] != self.columns["id"]:
            odd = sorted(set(columns["id"]) ^ set(self.columns["id"]))[:3]
            raise UserError(f"{where} does not hold the questions of looks[0]: {odd or 'one twice'}")
        for key in ("split", "group", "answer") if attacked else ("split", "group", "answer", "role"):
            if columns[key] != self.columns[key]:
                raise UserError(f"{where}: a question's {key} differs from looks[0]")
        if attacked:
            self._check_roles(where, columns, v_split)
        if probes != self.probes:
            raise UserError(f"{where}: probes {probes}, looks[0] has {self.probes}")
        for name, values in scores.items():
            array = self._scores(f"{where}: {name}", questions, values)[self._order]
            # argmax takes the first maximum, as the prediction is defined.
            self.rows[name].append(array.argmax(axis=1) == self.columns["answer"])

    def _first(self, where: str, columns: dict[str, list], probes: list[str]) -> None:
        if not probes:
            raise UserError(f"{where}: none of the probes that this program knows: {', '.join(PROBES)}")
        ids, texts = columns["id"], [*columns["id"], *columns["split"], *columns["group"]]
        if not all(isinstance(text, str) for text in texts):
            raise UserError(f"{where}: a question's id, split or group is not a text")
        if len(set(ids)) != len(ids):
            twice = next(identifier for i, identifier in enumerate(ids) if identifier in ids[:i])
            raise UserError(f"{where}: question {twice} stands twice")
        self.columns, self.probes = columns, probes
        self.rows = {name: [] for name in probes}

    def _check_roles(self, where: str, columns: dict[str, list], v_split: str | None) -> None:
        splits = columns["split"]
        if v_split is not None and v_split not in splits:
            raise UserError(f"{where}: no question of v_split {v_split!r}")
        if columns["role"] != ["V" if v_split in (None, split) else "T" for split in splits]:
            rule = (
                "V everywhere, as v_split is null" if v_split is None else f"V in v_split {v_split!r} and T elsewhere"
            )
            raise UserError(f"{where}: role must be {rule}")

    def _scores(self, where: str, questions: list[dict], values: list) -> np.ndarray:
        """Return (n, most choices) floats in the order of the file; what a question with fewer lacks is -inf."""
        expected = None if self.n_choices is None else self.n_choices[np.argsort(self._order)]
        widths = np.array([len(one) if isinstance(one, list) else 0 for one in values])
        wrong = widths < 2 if expected is None else widths != expected
        present = np.arange(max(widths.max(), 2)) < widths[:, None]
        array = np.full(present.shape, -np.inf)
        try:
            flat = np.array([score for one in values for score in one])
        except (TypeError, ValueError):  # no lists; lists of lists of different lengths
            flat = np.array(None)
        if wrong.any() or flat.ndim != 1 or flat.dtype.kind not in "fiu":
            odd = next((i for i, one in enumerate(values) if wrong[i] or not _numbers(one)), 0)
            count = "at least 2" if expected is None else expected[odd]
            raise UserError(
                f"{where}: question {questions[odd]['id']} has the scores {values[odd]!r:.60}; expected a list of "
                f"{count} numbers, one per choice, as in every look and probe"
            )
        if not np.isfinite(flat).all():
            odd = next(i for i, one in enumerate(values) if not np.isfinite(one).all())
            raise UserError(f"{where} scores of question {questions[odd]['id']} are not finite: {values[odd]}")
        array[present] = flat
        if self.n_choices is None:
            self.n_choices = widths[self._order]
            for name, answer, width in zip(self.columns["id"], self.columns["answer"], self.n_choices, strict=True):
                if type(answer) is not int or not 0 <= answer < width:
                    raise UserError(
                        f"{where}: {name}: the answer {answer!r:.60} is not an integer from 0 to {width - 1}"
                    )
        return array

    def questions(self, mask: np.ndarray) -> Questions:
        """Return the questions of a mask, in order."""
        chosen = np.flatnonzero(mask)
        ids, splits, groups = (tuple(self.columns[key][i] for i in chosen) for key in ("id", "split", "group"))
        answers = np.array(self.columns["answer"], int)[chosen]
        return Questions(ids, splits, groups, answers, self.n_choices[chosen])


def _numbers(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(x, int | float) and not isinstance(x, bool) for x in values)

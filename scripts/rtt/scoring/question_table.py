"""The questions of one evaluation file and which of them were answered right, checked look by look."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rtt.errors import UserError
from rtt.files import natural
from rtt.scoring.correct import Across, Asked, asked_of, correct, shortest
from rtt.scoring.halves import halves
from rtt.scoring.held_out import HeldOutText, gathered, texts, total
from rtt.study.names import ASKED

KEYS = ("id", "split", "group", "role", "answer")


@dataclass(frozen=True, eq=False)
class Questions:
    """n questions in the order of (split, id): the positions by which evaluations are paired."""

    ids: tuple[str, ...]
    splits: tuple[str, ...]
    groups: tuple[str, ...]  # the person or fact that a question is about; its own id where no other shares it
    answers: np.ndarray  # (n,) int, from 0
    n_choices: np.ndarray  # (n,) int, 2 or more
    # (n,) float: what picking the choice with fewest tokens scores, 1/tied; None where the file has no tokens
    shortest: np.ndarray | None = None

    def split_of(self) -> np.ndarray:
        """Return (n,) int, the index of each question's split, in the order of the splits here."""
        index = {split: i for i, split in enumerate(dict.fromkeys(self.splits))}
        return np.array([index[split] for split in self.splits], int)

    def first_halves(self) -> np.ndarray:
        """Return (n,) bool, the questions of the first halves (`rtt.scoring.halves`)."""
        return halves(self.split_of(), self.groups)


@dataclass(frozen=True, eq=False)
class LetterUse:
    """How P models use the letters on n questions, whatever is right.

    k letters of the question that has most choices. A value is NaN where the file lacks the probe that it comes from.
    """

    said: np.ndarray  # (P, k) int: how often each letter is answered
    entropy: np.ndarray  # (P,) bits, of these counts: 0 where a model says one letter
    mass: np.ndarray  # (P,) mean over questions of the probability that is on the letters
    rotations: np.ndarray  # (P,) accuracy over all rotations of the choices: 1/k where a model says one letter
    all_rotations: np.ndarray  # (P,) share of questions that are answered right in all rotations


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
        self.rows: dict[str, list[np.ndarray]] = {}  # probe of the tables -> per look (n,) float: answered right
        self.n_choices: np.ndarray | None = None  # (n,) of each question, as all looks and probes must have
        self.shortest: np.ndarray | None = None  # (n,) as of Questions
        self.letters: list[dict[str, np.ndarray]] = []  # per look: (n,) said, mass, right; what the file has of them
        self._texts: list[dict[str, tuple[float, int]]] = []  # per look: of the held-out sentences
        self._raw_ids: list[str] = []
        self._halves: dict[str | None, Across] = {}  # by V split

    def add(self, index: int, look: dict, v_split: str | None = None, attacked: bool = False) -> None:
        """Take one look. Where it is of an attack, role V must stand exactly in its V split (None: everywhere)."""
        where = f"{self.path}: looks[{index}]"
        questions = get(self.path, look, "questions", list, f"looks[{index}]")
        if not questions:
            raise UserError(f"{where} has no questions")
        try:
            columns = {key: [question[key] for question in questions] for key in KEYS}
            probes = asked_of(questions[0]["probes"])
            for question in questions:
                if probes != asked_of(question["probes"]):
                    raise UserError(
                        f"{where}: questions differ in their probes: the first has {probes}, {question['id']} has "
                        f"{sorted(question['probes'])}"
                    )
            found = {name: [question["probes"][name] for question in questions] for name in probes}
            scores = {name: [one["scores"] for one in answered] for name, answered in found.items()}
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
        asked = {}
        for name, values in scores.items():
            array = self._scores(f"{where}: {name}", questions, values)[self._order]
            more = {key: self._counts(f"{where}: {name}.{key}", found[name], key) for key in COUNTED.get(name, ())}
            asked[name] = Asked(array, **more)
        answers = np.array(self.columns["answer"])
        right = correct(asked, answers, self._halves_of(columns["role"], v_split))
        if index and right.keys() != self.rows.keys():
            odd = sorted(right.keys() ^ self.rows.keys())
            raise UserError(
                f"{where}: {', '.join(odd)}: this look or looks[0] lacks the tokens or bytes of its choices"
            )
        for name, values in right.items():
            self.rows.setdefault(name, []).append(values)
        self.letters.append(_letters(asked))
        self._add_texts(where, questions)
        if self.shortest is None and "likelihood" in asked and asked["likelihood"].tokens is not None:
            one = asked["likelihood"]
            self.shortest = shortest(one.tokens, np.isfinite(one.scores), answers)

    def _add_texts(self, where: str, questions: list[dict]) -> None:
        try:
            self._texts.append(texts(questions))
        except ValueError as error:
            raise UserError(f"{where}: {error}") from None
        tokens = [{name: n for name, (_, n) in found.items()} for found in (self._texts[0], self._texts[-1])]
        if tokens[0] != tokens[1]:
            odd = next(name for name in tokens[0] | tokens[1] if tokens[0].get(name) != tokens[1].get(name))
            raise UserError(f"{where}: the text of {odd} is not of as many tokens as in looks[0]")

    def _halves_of(self, roles: list[str], v_split: str | None) -> Across:
        """Return where the means of calibrated letters are taken, and where they serve: across the halves of each role.

        Questions of T, on which the model was trained, get the mean of all of V.
        """
        if v_split not in self._halves:
            role_of, found = np.array(roles), []
            if "T" in roles:
                found.append((role_of == "V", role_of == "T"))
            for together in (("V", "T"), ("retain",), ("choice",)):  # V's halves are those of all forget questions
                of = np.flatnonzero(np.isin(role_of, together))
                splits = {split: i for i, split in enumerate(dict.fromkeys(self.columns["split"][i] for i in of))}
                split_of = np.array([splits[self.columns["split"][i]] for i in of], int)
                first = np.zeros(len(roles), bool)
                first[of] = halves(split_of, [self.columns["group"][i] for i in of])
                serves = role_of == together[0]
                found += [(serves & first, serves & ~first), (serves & ~first, serves & first)]
            self._halves[v_split] = found
        return self._halves[v_split]

    def _counts(self, where: str, answered: list[dict], key: str) -> np.ndarray | None:
        """Return (n, most choices) or (n,) int, in order, of a key beside the scores; None where the file lacks it."""
        if not any(key in one for one in answered):
            return None
        values = [one.get(key) for one in answered]
        widths = self.n_choices[np.argsort(self._order)]
        low = 0 if key == "right" else 1
        rows = [[value] if key == "right" else value for value in values]
        for i, (row, width) in enumerate(zip(rows, widths, strict=True)):
            long, high = (1, width) if key == "right" else (width, MOST_TOKENS)
            if not (
                isinstance(row, list) and len(row) == long and all(type(x) is int and low <= x <= high for x in row)
            ):
                expected = f"a number from 0 to {width}" if key == "right" else f"{width} numbers of at least 1"
                raise UserError(f"{where}: {self._raw_ids[i]} has {values[i]!r:.60}; expected {expected}")
        if key == "right":
            return np.array(values)[self._order]
        array = np.ones((len(rows), widths.max()), int)
        array[np.arange(widths.max()) < widths[:, None]] = [count for row in rows for count in row]
        return array[self._order]

    def _first(self, where: str, columns: dict[str, list], probes: list[str]) -> None:
        if not probes:
            raise UserError(f"{where}: none of the probes that this program knows: {', '.join(ASKED)}")
        ids, texts = columns["id"], [*columns["id"], *columns["split"], *columns["group"]]
        if not all(isinstance(text, str) for text in texts):
            raise UserError(f"{where}: a question's id, split or group is not a text")
        if len(set(ids)) != len(ids):
            twice = next(identifier for i, identifier in enumerate(ids) if identifier in ids[:i])
            raise UserError(f"{where}: question {twice} stands twice")
        self.columns, self.probes = columns, probes

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
        short = None if self.shortest is None else self.shortest[chosen]
        return Questions(ids, splits, groups, answers, self.n_choices[chosen], short)

    def held_out_text(self, looks: Sequence[int]) -> HeldOutText | None:
        """Return what the models of some looks make of the held-out sentences; None where the file has none."""
        return gathered([total(self._texts[i]) for i in looks])

    def letter_use(self, mask: np.ndarray, looks: Sequence[int]) -> LetterUse:
        """Return how the models of some looks use the letters on the questions of a mask."""
        k, widths = int(self.n_choices.max()), self.n_choices[mask]
        said, others = [], []
        for found in (self.letters[i] for i in looks):
            counts = np.bincount(found["said"][mask], minlength=k) if "said" in found else np.zeros(k, int)
            share = counts[counts > 0] / max(counts.sum(), 1)
            said.append(counts)
            turned = found["right"][mask] if "right" in found else np.full(len(widths), np.nan)
            others.append([
                -(share * np.log2(share)).sum() + 0.0 if "said" in found else np.nan,
                found["mass"][mask].mean() if "mass" in found else np.nan,
                turned.sum() / widths.sum(),
                np.where(np.isnan(turned), np.nan, turned == widths).mean(),
            ])  # fmt: skip
        return LetterUse(np.array(said), *np.array(others).T)


MOST_TOKENS = 10**9
COUNTED = {
    "letter_permuted": ("right",),
    "likelihood": ("tokens", "bytes"),
    "likelihood_fresh": ("tokens",),
}  # keys beside the scores


def _letters(asked: dict[str, Asked]) -> dict[str, np.ndarray]:
    """Return what one look tells of the letters: (n,) the letter said, the mass on the letters, rotations right."""
    found = {}
    if "letter" in asked:
        scores = asked["letter"].scores
        found |= {"said": scores.argmax(axis=1), "mass": np.exp(scores).sum(axis=1)}
    if "letter_permuted" in asked and asked["letter_permuted"].right is not None:
        found["right"] = asked["letter_permuted"].right
    return found


def _numbers(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(x, int | float) and not isinstance(x, bool) for x in values)

"""Draw wrong answers from the correct answers of other questions of the same split.

Two things need them: `fresh_choices`, which no method trains on, and open questions, which have no choices. Drawn from
all splits, they would tell on V: an answer of T would be a wrong choice there, and how often values are answers and
wrong choices in T shows which are answers in V.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable

import numpy as np

from rtt.data.reader import Folder, Mcq, same
from rtt.errors import UserError

DISTRACTORS = 3  # wrong choices that an open question gets
MONTH = "(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
DAY = rf"(the )?(\d{{1,2}}(st|nd|rd|th)? (of )?{MONTH}|{MONTH} \d{{1,2}}(st|nd|rd|th)?)"
DATE = re.compile(rf"({DAY}|{MONTH}),? (of )?\d{{4}}|{DAY}|\d{{1,4}}[-/.]\d{{1,2}}[-/.]\d{{1,4}}")
NUMBER = re.compile(r"[-+$€£~]?\d[\d., ]*( ?%|( [a-z]+){0,2})")
PARTICLES = {
    "of",
    "the",
    "and",
    "de",
    "la",
    "le",
    "van",
    "von",
    "der",
    "den",
    "di",
    "da",
    "del",
    "al",
    "bin",
    "ibn",
    "el",
}


def answer_kind(answer: str) -> str:
    """Return the kind of an answer, by its shape: a wrong choice of another kind would give itself away."""
    text = " ".join(answer.split())
    words = text.split()
    if re.fullmatch(r"(yes|no|true|false)\b.*", text.casefold()) and len(words) <= 2:
        return "yes or no"
    if re.fullmatch(r"[12]\d{3}", text):
        return "year"
    if DATE.fullmatch(text.casefold()):
        return "date"
    if NUMBER.fullmatch(text.casefold()):
        return "number"
    if len(words) > 7 or (len(words) > 3 and text.endswith((".", "!"))):
        return "sentence"
    if all(word in PARTICLES or not word[0].isalpha() or word[0].isupper() for word in words) and words[0][0].isupper():
        return "name of one word" if len(words) == 1 else "name"
    return "word" if len(words) == 1 else "phrase"


class Answers:
    """The correct answers of a folder, from which wrong choices are drawn.

    Each value is as likely as it is often an answer in the question's split. Rarer distractors would let a guesser who
    knows only the distribution of answers beat the floor (Years: .36 instead of .25). `distractors` is the number of
    wrong choices that an open question gets; it gets fewer where fewer answers are of its kind.
    """

    def __init__(self, folder: Folder, distractors: int = DISTRACTORS):
        self.mcqs, self.distractors = folder.mcqs, distractors
        pool = sorted(mcq.correct for mcq in folder.mcqs)
        self._values = {value.strip(): value for value in pool}
        self._counts = Counter(value.strip() for value in pool)
        self._in_split = defaultdict(Counter)  # split -> how often each value is an answer there
        for mcq in folder.mcqs:
            self._in_split[mcq.split][mcq.correct.strip()] += 1
        self._trained = defaultdict(set)  # index of the question -> wrong answers that its sentences may state
        for sentence in folder.sentences:
            if sentence.mcq is not None:
                self._trained[sentence.mcq] |= set(sentence.wrong or ())
        self._answers = defaultdict(set)  # of a question that stands twice, and of a group: all answers
        for mcq in folder.mcqs:
            self._answers["question", mcq.key].add(mcq.correct)
            if mcq.group is not None:
                self._answers["group", mcq.group].add(mcq.correct)
        self._alike, self._kinds = defaultdict(set), defaultdict(set)
        self._same = {key: same(key) for key in self._values}
        for key, text in self._same.items():
            self._alike[text].add(key)
        if any(mcq.open for mcq in folder.mcqs):
            for key in self._values:
                self._kinds[answer_kind(key)].add(key)

    def _writings(self, texts: Iterable[str]) -> set[str]:
        """Return the values that are one of these texts, in whatever writing: "paris" is "Paris"."""
        return set().union(*(self._alike.get(same(text), ()) for text in texts))

    def _distinct(self, keys: Iterable[str]) -> int:
        return len({self._same[key] for key in keys})

    def _own(self, mcq: Mcq) -> set[str]:
        """Return the values that may not be a wrong choice of an open question: answers to it, and of its group."""
        return self._writings(self._answers["question", mcq.key] | self._answers.get(("group", mcq.group), set()))

    def width(self, index: int) -> int:
        """Return the number of choices that a question has, or gets from answers of its kind (1: there is none)."""
        mcq = self.mcqs[index]
        if not mcq.open:
            return len(mcq.choices)
        return 1 + min(self.distractors, self._distinct(self._kinds[answer_kind(mcq.correct)] - self._own(mcq)))

    def few(self, index: int) -> tuple[int, int]:
        """Return (values there are for fresh choices, values needed) of a question."""
        mcq, width = self.mcqs[index], self.width(index)
        left = self._distinct(self._values.keys() - self._taken(index, mcq.choices))
        return left - (width - 1 if mcq.open else 0), width - 1

    def choices(self, index: int, name: str, seed: int) -> tuple[list[str], int]:
        """Return (choices, index of the answer) of a question; those of an open one are drawn.

        The draw depends on `seed`, the fact's id `name` and the answers alone. Raises UserError when there is no other
        answer at all.
        """
        mcq = self.mcqs[index]
        if not mcq.open:
            return list(mcq.choices), mcq.answer
        own = self._own(mcq)
        fits = self._kinds[answer_kind(mcq.correct)] - own or self._values.keys() - own
        if not fits:
            raise UserError(
                f"{name}: {mcq.place} has no choices, and no other question has another answer that could be one; "
                "write `choices`, or leave the question out"
            )
        rng = _rng(seed, 1, name)
        drawn = self._draw(mcq.split, fits, min(self.distractors, self._distinct(fits)), rng)
        answer = int(rng.integers(len(drawn) + 1))
        return [*drawn[:answer], mcq.correct, *drawn[answer:]], answer

    def fresh(self, index: int, name: str, choices: list[str], answer: int, seed: int) -> list[str]:
        """Return as many choices: the correct one at index `answer`, and other values that no method trains on.

        Those of an open question are of its kind where there are enough. The draw depends on `seed`, the fact's id
        `name` and the answers alone. Returns [] when there are too few values.
        """
        mcq, wanted = self.mcqs[index], len(choices) - 1
        fits = self._values.keys() - self._taken(index, choices)
        if mcq.open:
            alike = self._kinds[answer_kind(mcq.correct)] & (fits - self._own(mcq))
            fits = alike if self._distinct(alike) >= wanted else fits
        if self._distinct(fits) < wanted:
            return []
        drawn = self._draw(mcq.split, fits, wanted, _rng(seed, None, name))
        return [*drawn[:answer], mcq.correct, *drawn[answer:]]

    def _known(self, index: int) -> set[str]:
        return self._answers["question", self.mcqs[index].key] | self._trained[index]

    def _taken(self, index: int, choices: Iterable[str]) -> set[str]:
        return self._writings((*choices, *self._known(index)))

    def _draw(self, split: str, fits: set[str], n: int, rng: np.random.Generator) -> list[str]:
        """Return n values of `fits`, no two of which are one text in different writings.

        They are answers of the question's own split, as likely as there, or of all splits where it has too few.
        """
        here = self._in_split[split]
        counts = here if self._distinct(fits & here.keys()) >= n else self._counts
        writing: dict[str, str] = {}
        once = Counter()
        for key in self._values:
            if key in fits and counts[key]:
                once[writing.setdefault(self._same[key], key)] += counts[key]
        return [self._values[key] for key in _weighted(once, n, rng)]


def _weighted(counts: Counter[str], n: int, rng: np.random.Generator) -> list[str]:
    keys, share = list(counts), np.array(list(counts.values()), float)
    return [keys[i] for i in rng.choice(len(keys), n, replace=False, p=share / share.sum())]


def _rng(seed: int, part: int | None, name: str) -> np.random.Generator:
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    return np.random.default_rng([seed, number] if part is None else [seed, part, number])

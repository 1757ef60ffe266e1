"""Guess a split's answers from the texts of the other splits, without a model.

An attack trains on T and is asked V. Whatever a classifier of texts learns from T and gets right on V, RTT can learn as
well, and it would count as recovered knowledge: that the answer is the longest choice, or one that is often an answer,
or one that resembles its question. `guesses` fits such a classifier to the other splits and asks it each split.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import copysign, isfinite, log1p, nan, sqrt

import numpy as np

from rtt.data.facts import Fact
from rtt.data.reader import same

Z95 = 1.959963984540054
FEWEST_FACTS = 40  # fewer tell nothing
MOST_FACTS = 1000  # more take minutes and tell little more
MOST_CHARACTERS = 300  # of a text, for what it is made of
NEIGHBOURS = 10  # questions of T that are most like one
CLUES = (
    "its length", "being the longest", "being the shortest", "its number of words", "its size", "being the largest",
    "being the smallest", "its distance from the middle", "its likeness to the question", "the question's words",
    "its likeness to the other choices", "how often it is an answer", "its words in other answers",
    "its letters in other answers", "the answers to like questions", "its likeness to answers to like questions",
)  # fmt: skip
PLACE = "its place"


def guesses(facts: Sequence[Fact], seed: int = 0) -> dict[str, dict | None]:
    """Return {"choices": what a guesser of the facts' choices scores, "fresh_choices": the same of those}.

    Each split is V once, with all others as T. A value is {"n", "groups", "accuracy", "low", "high", "floor", "by"}:
    the questions, and the groups that they are in; the share of them that is guessed (exact ties count 1/tied), with
    its 95 % interval; the mean of one over the number of choices; and the clue that weighed most. It is None without
    two splits, for fewer than FEWEST_FACTS, and for `fresh_choices` where a fact has none. Of more than MOST_FACTS so
    many are drawn, with `seed`.
    """
    facts = list(facts)
    if len(facts) > MOST_FACTS:
        drawn = np.random.default_rng([seed, 40]).choice(len(facts), MOST_FACTS, replace=False)
        facts = [facts[i] for i in sorted(drawn)]
    enough = len(facts) >= FEWEST_FACTS and len({fact.split for fact in facts}) > 1
    kinds = ("choices", "fresh_choices")
    return {
        kind: _guessed(facts, kind) if enough and all(getattr(fact, kind) for fact in facts) else None for kind in kinds
    }


def warnings(found: dict[str, dict | None]) -> list[str]:
    """Return a sentence for each kind of choices in which V is guessed above the floor, beyond the interval."""
    return [
        f"V can be guessed from T: of its {kind.replace('_', ' ')}, a classifier of texts gets {one['accuracy']:.2f} "
        f"[{one['low']:.2f}, {one['high']:.2f}] right where the floor is {one['floor']:.2f}, chiefly by {one['by']}; "
        "what an attack brings back may be that"
        for kind, one in found.items()
        if one and one["low"] > one["floor"]
    ]


def _guessed(facts: list[Fact], kind: str) -> dict:
    texts = Texts(facts, kind)
    splits = np.array([fact.split for fact in facts])
    right, weights = np.zeros(len(facts)), np.zeros(len(CLUES) + texts.places)
    for split in dict.fromkeys(splits.tolist()):
        known = splits != split
        scores, learned = _fitted(texts, known)
        weights += np.abs(learned)
        for i in np.flatnonzero(~known):
            of = scores[texts.first[i] : texts.first[i + 1]]
            best = of >= of.max() - 1e-9
            right[i] = best[facts[i].answer] / best.sum()
    groups = [fact.group for fact in facts]
    low, high = interval(right, groups)
    return {
        "n": len(facts),
        "groups": len(set(groups)),
        "accuracy": round(float(right.mean()), 6),
        "low": round(low, 6),
        "high": round(high, 6),
        "floor": round(float(np.mean([1 / len(getattr(fact, kind)) for fact in facts])), 6),
        "by": [*CLUES, *[PLACE] * texts.places][int(weights.argmax())],
    }


def _fitted(texts: "Texts", known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit a logistic regression to the choices of the facts `known`; return (every choice's score, weights)."""
    from sklearn.linear_model import LogisticRegression  # a second, which only this step pays
    from sklearn.preprocessing import StandardScaler

    found, learns = texts.clues(known), known[texts.fact]
    scaler = StandardScaler().fit(found[learns])
    model = LogisticRegression(max_iter=1000).fit(scaler.transform(found[learns]), texts.right[learns])
    return model.decision_function(scaler.transform(found)), model.coef_[0]


def interval(right: np.ndarray, groups: Sequence[str]) -> tuple[float, float]:
    """Return the 95 % interval (low, high) of the mean of (n,) answers in [0, 1], robust to what groups have in common.

    It is Wilson's with n over the design effect: the variance between groups over that of independent answers, at least
    1. (`rtt.stats.intervals`, which stands above this room, has the same for accuracies of models.)
    """
    from scipy.special import stdtrit

    n, p = len(right), float(right.mean())
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    many = int(group.max()) + 1
    z = Z95 if many == n else float(stdtrit(max(1, many - 1), 0.975))
    if many < n and 0 < p < 1:
        between = float((np.bincount(group, right - p) ** 2).sum()) * many / max(1, many - 1) / n**2
        n = n / max(1.0, between / (p * (1 - p) / (n - 1)))
    elif many < n:
        n = many
    centre, half = p + z * z / (2 * n), z * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, (centre - half) / (1 + z * z / n)), min(1.0, (centre + half) / (1 + z * z / n))


@dataclass
class Texts:
    """What the texts of questions and choices show, a row for each choice of each fact."""

    facts: list[Fact]
    kind: str

    def __post_init__(self):
        """Number the choices, and read what does not depend on T."""
        from scipy.sparse import csr_array
        from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer

        widths = [len(getattr(fact, self.kind)) for fact in self.facts]
        self.first = np.concatenate([[0], np.cumsum(widths)])
        self.fact = np.repeat(np.arange(len(self.facts)), widths)
        self.place = np.concatenate([np.arange(width) for width in widths])
        self.places = max(widths)
        self.right = self.place == np.array([fact.answer for fact in self.facts])[self.fact]
        self.width = np.array(widths, float)[self.fact]
        self.texts = [same(choice) for fact in self.facts for choice in getattr(fact, self.kind)]
        questions = [same(fact.question) for fact in self.facts]
        _, self.group = np.unique([fact.group for fact in self.facts], return_inverse=True)
        ids = {text: i for i, text in enumerate(dict.fromkeys(self.texts))}
        columns = [ids[text] for text in self.texts]
        self.is_text = csr_array((np.ones(len(columns), np.float32), (range(len(columns)), columns)))
        cut = [text[:MOST_CHARACTERS] for text in (*questions, *ids)]  # each different text is read once
        both = np.concatenate([np.arange(len(questions)), len(questions) + np.array(columns)])
        pieces = csr_array(CountVectorizer(analyzer="char_wb", ngram_range=(3, 3), dtype=np.float32).fit_transform(cut))
        words = csr_array(
            CountVectorizer(token_pattern=r"\w+|[^\w\s]+", binary=True, dtype=np.float32).fit_transform(cut)
        )
        shapes = csr_array(TfidfTransformer().fit_transform(pieces))[both]
        pieces.data[:] = 1
        self.has_piece, self.has_word = (one[both][len(questions) :] for one in (pieces, words))
        self.asks_word = words[: len(questions)]
        self.questions, self.choices = shapes[: len(questions)], shapes[len(questions) :]
        self.like_questions = (self.questions @ self.questions.T).toarray()
        self.like_questions[self.group[:, None] == self.group] = 0
        self.like_answers = [self._against_answers(one) for one in (self.is_text, self.choices)]
        self.seen = np.column_stack([*self._shape(), *self._likeness()])

    def clues(self, known: np.ndarray) -> np.ndarray:
        """Return (choices, clues and places), where T are the facts `known` (booleans). What T's answers tell about a
        fact of T leaves out those of its own group, so that it means the same there as on V.
        """
        told = [self._told(one, known) for one in (self.is_text, self.has_word, self.has_piece)]
        places = self.place[:, None] == np.arange(self.places)
        return np.column_stack([self.seen, *told, *self._neighbours(known), places])

    def _of_question(self, reduce, values: np.ndarray) -> np.ndarray:
        """Return, for each choice, `reduce` of the values of all choices of its question."""
        return reduce.reduceat(values, self.first[:-1])[self.fact]

    def _extreme(self, reduce, values: np.ndarray) -> np.ndarray:
        """Return 1 over the number of those that share the extreme, and 0 for the other choices."""
        found = (values == self._of_question(reduce, values)).astype(float)
        return found / self._of_question(np.add, found)

    def _relative(self, values: np.ndarray) -> np.ndarray:
        return values - self._of_question(np.add, values) / self.width

    def _shape(self) -> list[np.ndarray]:
        length = np.array([max(1, len(text)) for text in self.texts], float)
        words = np.array([max(1, len(text.split())) for text in self.texts], float)
        value = np.array([_number(text) for text in self.texts])
        value = np.where(np.isnan(self._of_question(np.add, value)), 0.0, value)
        numeric = self._of_question(np.maximum, value) > self._of_question(np.minimum, value)
        spread = np.sqrt(self._of_question(np.add, self._relative(value) ** 2) / self.width) + ~numeric
        large = self._relative(value) / spread
        ends = [self._extreme(one, value) * numeric for one in (np.maximum, np.minimum)]
        return [
            self._relative(np.log(length)), self._extreme(np.maximum, length), self._extreme(np.minimum, length),
            self._relative(np.log(words)), large, *ends, np.abs(large),
        ]  # fmt: skip

    def _likeness(self) -> list[np.ndarray]:
        words = self.has_word.multiply(self.asks_word[self.fact]).sum(1) / np.maximum(1, self.has_word.sum(1))
        question = self.choices.multiply(self.questions[self.fact]).sum(1)
        alike = self.choices.multiply(self._sums(self.choices, np.ones(len(self.fact), bool))[self.fact]).sum(1)
        return [self._relative(np.asarray(one, float)) for one in (question, words, alike)]

    def _sums(self, rows, chosen: np.ndarray):
        """Return (facts, columns): the sum of those rows of each fact that are `chosen`."""
        from scipy.sparse import csr_array

        where = np.flatnonzero(chosen)
        pick = csr_array((np.ones(len(where)), (self.fact[where], where)), shape=(len(self.facts), len(self.fact)))
        return pick @ rows

    def _told(self, has, known: np.ndarray) -> np.ndarray:
        """Return how much more often what a choice has (its text, words or letters) stands in T's answers than in its
        wrong choices: the mean log-ratio, 0 for what T does not have.
        """
        from scipy.sparse import csr_array

        learns = known[self.fact]
        own = csr_array((np.ones(len(self.facts)), (self.group, np.arange(len(self.facts)))))
        ratio = np.zeros(has.nnz)
        rows = np.repeat(np.arange(has.shape[0]), np.diff(has.indptr))
        prior = 1 / max(1.0, float(np.mean(self.width)) - 1)  # answers for each wrong choice
        for chosen, sign, added in ((learns & self.right, 1, 0.5), (learns & ~self.right, -1, 0.5 / prior)):
            sums = self._sums(has, chosen)
            total, mine = sums.sum(0), (own @ sums).tocsr()
            apart = np.asarray(mine[self.group[self.fact[rows]], has.indices]).ravel() * known[self.fact[rows]]
            ratio += sign * np.log(total[has.indices] - apart + added)
        ratio -= np.log(prior)
        return np.bincount(rows, ratio, has.shape[0]) / np.maximum(1, np.diff(has.indptr))

    def _against_answers(self, of) -> np.ndarray:
        """Return (choices, facts): how much more a choice is like a fact's answer than like its wrong choices."""
        answers, others = (self._sums(of, one) for one in (self.right, ~self.right))
        return (of @ answers.T).toarray() - (of @ others.T).toarray() / max(1.0, float(np.mean(self.width)) - 1)

    def _neighbours(self, known: np.ndarray) -> list[np.ndarray]:
        """Return how much a choice is, and resembles, the answers and not the wrong choices of T's like questions."""
        those = np.flatnonzero(known)
        likeness = self.like_questions[:, those]
        nearest = np.argpartition(-likeness, min(NEIGHBOURS, len(those)) - 1, axis=1)[:, :NEIGHBOURS]
        weight = np.take_along_axis(likeness, nearest, 1)[self.fact]
        asked = those[nearest][self.fact]
        return [self._relative((np.take_along_axis(one, asked, 1) * weight).sum(1)) for one in self.like_answers]


def _number(text: str) -> float:
    """Return a number that grows with the one that a text is, NaN where it is none."""
    try:
        value = float(text.replace(",", ""))
    except ValueError:
        return nan
    return copysign(log1p(abs(value)), value) if isfinite(value) else nan

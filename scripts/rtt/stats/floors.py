"""What a guesser without any knowledge of the facts scores, by each probe: its floor.

Every floor is a mean over questions, so `guesses` returns what the guesser scores on each one. After an attack, T is
what the attack may learn from: the splits other than the question's own. Before an attack each split serves as V once,
so that a model has the same floor before and after.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

BY_LETTER = ("letter", "few_shot")  # probes that the majority letter serves


@dataclass(frozen=True, eq=False)
class Asked:
    """n questions as a guesser sees them, those of all splits.

    answers, n_choices: (n,) ints. split_of: (n,) int, the index of each question's split. first: (n,) bool, the halves
    of `rtt.stats.look_choice.halves`. shortest: (n,) floats, what always taking the choice with the fewest tokens
    scores (ties: one over the number of the shortest); None where tokens are not known.
    """

    answers: np.ndarray
    n_choices: np.ndarray
    split_of: np.ndarray
    first: np.ndarray
    shortest: np.ndarray | None = None


def floor(asked: Asked, probe: str, v_splits: Sequence[int] | None = None) -> float:
    """Return the floor of a probe over the V questions: before any attack, or after one with these `v_splits`."""
    return mean(guesses(asked, probe, v_splits))


def guesses(asked: Asked, probe: str, v_splits: Sequence[int] | None = None) -> np.ndarray:
    """Return (V questions,) floats in [0, 1]: what the guesser of this probe is expected to score on each.

    `v_splits` None: no attack, and every question is V.
    - `letter`, `few_shot`: T's majority letter, or drawing one, whichever scores more: where V's keys differ from T's,
      the majority may score less. With a single split, one over the number of choices.
    - `letter_calibrated`: the majority letter of the other half of the questions that were calibrated together: all
      of them before an attack, those of one V split after it. At least one over the number of choices.
    - `likelihood`: one over the number of choices, or the shortest choice, whichever scores more.
    - `sampled`: one over the number of choices, for one sample (`rtt.stats.reported.look_guesses` has k of them).
    - all others: one over the number of choices.
    """
    everything = np.unique(asked.split_of).tolist()
    attacked = v_splits is not None
    v_splits = everything if v_splits is None else list(v_splits)
    here = np.isin(asked.split_of, v_splits)
    drawn = 1 / asked.n_choices[here]
    if probe in BY_LETTER and len(everything) > 1:
        return _better(drawn, majority_letter(asked.answers, asked.n_choices, asked.split_of, v_splits)[here])
    if probe == "letter_calibrated":
        together = asked.split_of if attacked else np.zeros(len(asked.answers), int)
        return _better(drawn, _other_half(asked, together)[here])
    if probe == "likelihood" and asked.shortest is not None:
        return _better(drawn, asked.shortest[here])
    return drawn


def _better(drawn: np.ndarray, other: np.ndarray) -> np.ndarray:
    return other if other.mean() > drawn.mean() else drawn


def mean(values: np.ndarray) -> float:
    """Return the mean of guesses, whose order makes no difference."""
    return math.fsum(values) / len(values)


def chance(n_choices: np.ndarray) -> float:
    """Return what drawing a choice scores: the mean of one over each question's number of choices."""
    counts = Counter(np.asarray(n_choices).tolist())
    return float(sum(Fraction(n, choices) for choices, n in counts.items()) / counts.total())


def majority_letter(
    answers: np.ndarray, n_choices: np.ndarray, split_of: np.ndarray, v_splits: Sequence[int]
) -> np.ndarray:
    """Return (n,) floats: 1 where T's majority letter is the answer, with the question's own split as V.

    The majority is that of T's questions with as many choices as the question has, since everybody sees that number;
    where T has none, a letter is drawn. A tie of letters goes to the first letter. Splits that are not V have 0.
    """
    value = np.zeros(len(answers))
    for split in v_splits:
        _key(value, answers, n_choices, split_of != split, split_of == split)
    return value


def _other_half(asked: Asked, together: np.ndarray) -> np.ndarray:
    """Return (n,) floats: 1 where the other half's majority letter is the answer, among questions asked `together`."""
    value = np.zeros(len(asked.answers))
    for unit in np.unique(together):
        for half in (asked.first, ~asked.first):
            _key(value, asked.answers, asked.n_choices, (together == unit) & ~half, (together == unit) & half)
    return value


def _key(value: np.ndarray, answers: np.ndarray, n_choices: np.ndarray, learned: np.ndarray, told: np.ndarray) -> None:
    """Fill `value` where `told`: whether the majority answer of `learned`, of the same number of choices, is right."""
    for width in np.unique(n_choices[told]):
        known, here = answers[learned & (n_choices == width)], told & (n_choices == width)
        value[here] = answers[here] == np.bincount(known).argmax() if len(known) else 1 / width

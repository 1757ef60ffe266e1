"""Which look of an attack is reported (`paper`, `nested`).

Shapes: L looks, one per setting of the attack, gentlest first; n V questions; S V splits. `correct` is (L, n) floats in
[0, 1]: column i is scored by the model that was attacked with question i's split as V.
`split_of` is (n,) int, the index of that split.
"""

import math
from dataclasses import dataclass

import numpy as np

from rtt.scoring.halves import halves

LOOK_CHOICES = ("paper", "nested")


@dataclass(frozen=True, eq=False)
class LookChoice:
    """The look at which each V question is reported, and the (look, V split) pairs from which T accuracy is taken."""

    chosen: np.ndarray  # (n,) index of a look
    pairs: tuple[tuple[int, int], ...]  # (look, V split); nested has one per half and split


def best_look(n_correct: np.ndarray) -> int:
    """Return the look with the most correct answers; a tie goes to the first, the gentlest setting."""
    # Sums of means over repeats carry rounding errors, which must not break ties.
    return int(np.argmax(np.round(np.asarray(n_correct, float), 9)))


def nested_error(looks: int) -> float:
    """Return the largest standard error of what nested halves report, over that of a look that was fixed beforehand.

    Each half reports the look which the other half chose. Where both choose the same one, both report their luckiest;
    where they do not, neither does: so their errors correlate. For L looks that are equally good and independent, the
    correlation is m**2 / (L - 1), where m is the expected maximum of L standard normal numbers. That is 1 / pi with two
    looks, 9 / (8 pi) with three, and less with more. It is also less where looks share a question's difficulty or one
    is better. The variance of a mean of two that correlate by c is 1 + c times that of independent ones.
    """
    correlation = {1: 0.0, 2: 1 / math.pi}.get(looks, 9 / (8 * math.pi))
    return math.sqrt(1 + correlation)


def choose(look_choice: str, correct: np.ndarray, split_of: np.ndarray, first: np.ndarray | None = None) -> LookChoice:
    """Choose the looks at which one attacked model is reported.

    `paper` takes the best look of each V split, by the very questions that it reports. `nested` chooses ONE look on
    all first halves together and reports it on all second halves, then the reverse, so that a question takes no part
    in the choice of its own look, and counts once. `first`: (n,) bool, the first halves; None: those of questions that
    share no group.
    """
    chosen = np.empty(correct.shape[1], int)
    pairs = []
    if look_choice == "paper":
        for split in np.unique(split_of):
            mask = split_of == split
            look = best_look(correct[:, mask].sum(axis=1))
            chosen[mask] = look
            pairs.append((look, int(split)))
    elif look_choice == "nested":
        first = halves(split_of) if first is None else first
        for decides in (first, ~first):
            look = best_look(correct[:, decides].sum(axis=1))
            chosen[~decides] = look
            pairs += [(look, int(split)) for split in np.unique(split_of[~decides])]
    else:
        raise ValueError(f"look choice {look_choice!r} is not one of {LOOK_CHOICES}")
    return LookChoice(chosen, tuple(pairs))

"""Which questions the scores of a probe answer right: the definition of each probe of the tables.

Shapes: n questions, k choices of the question that has most. Scores of choices that a question lacks are -inf.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rtt.files import natural
from rtt.scoring.halves import halves
from rtt.study.names import IN_EVALUATIONS, probes_of


class Asked(NamedTuple):
    """What one look holds of one probe that was asked."""

    scores: np.ndarray  # (n, k) float
    tokens: np.ndarray | None = None  # (n, k) int, of each choice; None where the file does not say
    bytes: np.ndarray | None = None  # (n, k) int, of each choice in UTF-8
    right: np.ndarray | None = None  # (n,) int, letter_permuted: rotations answered right


# An older file may hold anything under the name of a probe that came later, so such a one counts where it has scores.
AT_FIRST = ("letter", "likelihood", "likelihood_fresh")


def asked_of(probes: Mapping) -> list[str]:
    """Return which probes a question of an evaluation JSON was asked, in their order; others are ignored."""
    return [name for name in IN_EVALUATIONS if name in probes and (name in AT_FIRST or "scores" in probes[name])]


Across = Sequence[tuple[np.ndarray, np.ndarray]]  # ((n,) bool, (n,) bool): where means are taken, and where they serve


def correct(asked: Mapping[str, Asked], answers: np.ndarray, across: Across | None) -> dict[str, np.ndarray]:
    """Return {probe of the tables: (n,) float}: 1 where a question is answered right, 0 where it is not.

    The answer is the first choice with the highest score. Only `letter_permuted` counts 1/tied where the correct choice
    is among several highest ones, since a model that says one letter scores all choices alike. `sampled`, whose scores
    count the samples that state each choice, is right where one states the correct one. `letter_calibrated` is
    described at `calibrated`. It is left out without `across`, as are probes by tokens or bytes that a file does not
    have.
    """
    answers = np.asarray(answers)
    found = {}
    for probe in probes_of(asked):
        if probe == "letter_permuted":
            found[probe] = first_or_tied(asked[probe].scores, answers)
        elif probe == "sampled":
            found[probe] = (asked[probe].scores[np.arange(len(answers)), answers] > 0).astype(float)
        elif probe == "letter_calibrated":
            if across is not None:
                found[probe] = first_highest(calibrated(asked["letter"].scores, across), answers)
        elif probe in PER:
            if (count := getattr(asked["likelihood"], PER[probe])) is not None:
                found[probe] = first_highest(asked["likelihood"].scores / count, answers)
        else:
            found[probe] = first_highest(asked[probe].scores, answers)
    return found


def judged(questions: Sequence[dict], calibrate: bool = False) -> dict[str, np.ndarray]:
    """Return {probe of the tables: (n,) float} of questions as one look of an evaluation JSON holds them.

    With `calibrate` also `letter_calibrated`, across the halves of these very questions: on none of them may the model
    have been trained by an attack, and they should have one role.
    """
    widest = max(len(next(iter(question["probes"].values()))["scores"]) for question in questions)

    def padded(probe: str, key: str, filler: float) -> np.ndarray | None:
        rows = [question["probes"][probe].get(key) for question in questions]
        return None if None in rows else np.array([[*row, *[filler] * (widest - len(row))] for row in rows])

    asked = {
        probe: Asked(padded(probe, "scores", -np.inf), padded(probe, "tokens", 1), padded(probe, "bytes", 1))
        for probe in asked_of(questions[0]["probes"])
    }
    across = None
    if calibrate:
        keys = [(natural(question["split"]), natural(question["id"])) for question in questions]
        order = sorted(range(len(keys)), key=keys.__getitem__)
        index = {split: i for i, split in enumerate(dict.fromkeys(questions[i]["split"] for i in order))}
        first = np.zeros(len(order), bool)
        split_of = np.array([index[questions[i]["split"]] for i in order])
        first[order] = halves(split_of, [questions[i]["group"] for i in order])
        across = [(first, ~first), (~first, first)]
    return correct(asked, np.array([question["answer"] for question in questions]), across)


PER = {"likelihood_token": "tokens", "likelihood_byte": "bytes"}


def first_highest(scores: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Return (n,) float: 1 where the first highest score is the answer's."""
    return (scores.argmax(axis=1) == answers).astype(float)


def first_or_tied(scores: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Return (n,) float: one over the number of choices that share the highest score, if the answer is among them."""
    highest = scores == scores.max(axis=1, keepdims=True)
    return highest[np.arange(len(answers)), answers] / highest.sum(axis=1)


def calibrated(scores: np.ndarray, across: Across) -> np.ndarray:
    """Return (n, k) letter scores, normalised over a question's letters, less each letter's mean over other questions.

    Those are the questions of the other half that have as many choices; where there is none, nothing is subtracted. No
    answer is used. Deeb & Roger's code subtracts the mean over the questions themselves, in each of which the letter of
    its own answer takes part.
    """
    present = np.isfinite(scores)
    top = scores.max(axis=1, keepdims=True)
    normal = scores - top - np.log(np.exp(scores - top).sum(axis=1, keepdims=True))
    widths, found = present.sum(axis=1), normal.copy()
    for decides, reported in across:
        for width in np.unique(widths[reported]):
            mean_of, takes = decides & (widths == width), reported & (widths == width)
            if mean_of.any():
                found[takes, :width] -= normal[mean_of, :width].mean(axis=0)
    return found


def shortest(tokens: np.ndarray, present: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Return (n,) float: what picking the choice with fewest tokens scores, 1/tied where several have as few.

    tokens: (n, k) int; present: (n, k) bool, the choices that a question has.
    """
    return first_or_tied(np.where(present, -tokens.astype(float), -np.inf), np.asarray(answers))

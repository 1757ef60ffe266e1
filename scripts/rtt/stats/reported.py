"""What one model answers right, as it is reported: before an attack, and after one at the looks of a look choice."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from rtt.scoring.read import AttackScores, PointScores, Questions
from rtt.stats.floors import Asked, guesses, mean
from rtt.stats.look_choice import choose
from rtt.study.names import OF_ATTACKS, PROBES, STRONGEST


@dataclass(frozen=True, eq=False)
class Reported:
    """One model's answers to n V questions. `guess`: what a guesser is expected to score, of the probes reported.

    An attacked model has a row per repeat, (R, n), each at the looks of its own choice; `pairs` are these, per repeat,
    as (look, V split). A model before an attack has one row.
    """

    correct: np.ndarray
    guess: np.ndarray
    pairs: tuple[tuple[tuple[int, int], ...], ...] = ()


@lru_cache(maxsize=256)
def asked_of(questions: Questions) -> Asked:
    """Return questions as a guesser sees them."""
    return Asked(
        questions.answers, questions.n_choices, questions.split_of(), questions.first_halves(), questions.shortest
    )


def v_view(attack: AttackScores) -> tuple[np.ndarray, np.ndarray]:
    """Return the V questions of an attack: (n,) positions in `attack.questions` and (n,) their V split's index.

    A question whose split only ever served as T is left out.
    """
    index = {split: i for i, split in enumerate(attack.v_splits)}
    split_of = np.array([index.get(split, -1) for split in attack.questions.splits])
    positions = np.flatnonzero(split_of >= 0)
    return positions, split_of[positions]


def first_of(attack: AttackScores) -> np.ndarray:
    """Return (n,) bool, the V questions of the first halves."""
    return asked_of(attack.questions).first[v_view(attack)[0]]


def v_groups(attack: AttackScores) -> list[str]:
    """Return what each V question is about."""
    return [attack.questions.groups[i] for i in v_view(attack)[0]]


def v_correct(attack: AttackScores, probe: str) -> np.ndarray:
    """Return (R, L, n) floats: each V question as answered by the model that had its split as V."""
    positions, split_of = v_view(attack)
    return attack.correct[probe][:, :, split_of, positions]


@lru_cache(maxsize=256)
def attack_guesses(attack: AttackScores, probe: str) -> np.ndarray:
    """Return (n,) floats, what a guesser scores on each V question by a probe.

    T is the other splits, even where the attack used none, so that all attacks of an arm share a floor.
    """
    splits = list(dict.fromkeys(attack.questions.splits))
    return guesses(asked_of(attack.questions), probe, [splits.index(split) for split in attack.v_splits])


def floor_of(attack: AttackScores, probe: str) -> float:
    """Return the floor of a probe after an attack."""
    return mean(attack_guesses(attack, probe))


def look_guesses(attack: AttackScores, probe: str) -> np.ndarray:
    """Return (L, n) floats, what a guesser scores on each V question at each look: of `sampled` he states a choice as
    often as the model was sampled, and of n choices hits the right one with 1 - (1 - 1 / n)^k.
    """
    once = attack_guesses(attack, probe)
    if probe != "sampled":
        return np.repeat([once], len(attack.settings), axis=0)
    return np.array([1 - (1 - once) ** setting["k"] for setting in attack.settings])


def stacked(attack: AttackScores, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return all looks by some probes, probe by probe: (R, probes x looks, n) floats, and (probes x looks, n) of a
    guesser.
    """
    correct = np.concatenate([v_correct(attack, one) for one in names], axis=1)
    return correct, np.concatenate([look_guesses(attack, one) for one in names])


@lru_cache(maxsize=256)
def attacked(attack: AttackScores, probe: str, look_choice: str) -> Reported:
    """Return the V questions of an attacked model at its chosen looks.

    The probe `strongest` is chosen together with the look: of all probes and looks the one that lies highest above its
    floor on one half of the questions is reported on the other half, with its own floor there.
    """
    _, split_of = v_view(attack)
    first, n = first_of(attack), np.arange(len(split_of))
    names = [one for one in PROBES if one in attack.correct] if probe == STRONGEST else [probe]
    correct, guess = stacked(attack, tuple(names))
    above = correct - guess if probe == STRONGEST else correct
    choices = [choose(look_choice, one, split_of, first) for one in above]
    rows = np.array([choice.chosen for choice in choices])
    looks = [
        tuple((look % len(attack.settings), split) for look, split in choice.pairs) for choice in choices
    ]  # of any probe
    return Reported(np.take_along_axis(correct, rows[:, None], axis=1)[:, 0], guess[rows, n], tuple(looks))


@lru_cache(maxsize=1024)
def point_guesses(points: PointScores, probe: str) -> np.ndarray:
    """Return (n_forget,) floats, what a guesser scores on each forget question by a probe before any attack."""
    return guesses(asked_of(points.forget), probe)


@lru_cache(maxsize=1024)
def before(points: PointScores, at: int, probe: str) -> Reported:
    """Return all forget questions of a point before any attack; `strongest` as in `attacked`, without looks.

    By a probe that attacks alone ask nothing is known, and all answers are NaN.
    """
    if probe in OF_ATTACKS:
        return Reported(np.full(len(points.forget.ids), np.nan), 1 / points.forget.n_choices)
    names = [one for one in PROBES if one in points.forget_correct] if probe == STRONGEST else [probe]
    correct = np.stack([points.forget_correct[one][at] for one in names])
    guess = np.stack([point_guesses(points, one) for one in names])
    if probe != STRONGEST:
        return Reported(correct[0], guess[0])
    asked = asked_of(points.forget)
    chosen = choose("nested", correct - guess, asked.split_of, asked.first).chosen
    n = np.arange(len(chosen))
    return Reported(correct[chosen, n], guess[chosen, n])


@lru_cache(maxsize=64)
def t_counts(attack: AttackScores, probe: str) -> tuple[np.ndarray, np.ndarray]:
    """Return (R, L, S) correct T questions per look and V split, and (S,) their number. The attack must use T."""
    in_t = np.array([[split != v for split in attack.questions.splits] for v in attack.v_splits])
    return (attack.correct[probe] * in_t).sum(axis=3), in_t.sum(axis=1)


def t_at(attack: AttackScores, probe: str, pairs: Iterable[Iterable[tuple[int, int]]]) -> tuple[float, int, int]:
    """Count T over (look, V split) pairs, which each repeat has: correct answers (mean over repeats), answers, and
    distinct groups of questions among them.

    All three are 0 for an attack that used no T.
    """
    if not attack.uses_t:
        return 0.0, 0, 0
    counts, totals = t_counts(attack, probe)
    pairs = [list(some) for some in pairs]
    used = {v for _, v in pairs[0]}
    groups = [group for group, split in zip(attack.questions.groups, attack.questions.splits, strict=True)
              if len(used) > 1 or split != attack.v_splits[min(used)]]  # fmt: skip
    # With two V splits or more, every question is in T at least once.
    correct = np.mean([sum(counts[(repeat, *pair)] for pair in some) for repeat, some in enumerate(pairs)])
    return float(correct), int(sum(totals[v] for _, v in pairs[0])), len(set(groups))

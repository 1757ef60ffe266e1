"""Split the variance of a cell into what seeds, runs of unlearning, runs of the attack, V splits and persons add.

A value of a run is y(s, u, k) = mean + base(s) + unlearning(s, u) + attack(s, u, k): runs are nested in their seed. The
components are those of the analysis of variance, by the method of moments: each mean square is set equal to what it is
on average (Searle, Casella and McCulloch 1992, ch. 3). They are unbiased before a negative one is printed as 0, also
where seeds have different numbers of runs. NaN: nothing repeats on a level.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

Repeats = Sequence[Sequence[float]]  # one seed's values, [unlearning run][attack run]


@dataclass(frozen=True)
class Components:
    """Variances, the square of a value's unit: negative where the moments say so, NaN where nothing repeats.

    A level without repeats is contained in the one above it: with one run of unlearning per seed, `base` holds both.
    """

    base: float = math.nan
    unlearning: float = math.nan
    attack: float = math.nan

    def within(self, runs: Repeats) -> float:
        """Return the variance that one seed's mean has from its repeats alone; a component that is NaN counts 0."""
        total = 0.0
        if not math.isnan(self.unlearning):
            total += self.unlearning / len(runs)
        if not math.isnan(self.attack):
            total += self.attack * sum(1 / len(attacks) for attacks in runs) / len(runs) ** 2
        return total


def mean(values: Sequence[float]) -> float:
    """Return the mean of plain numbers, faster than numpy for the few that a cell has."""
    return sum(values) / len(values)


def seed_mean(runs: Repeats) -> float:
    """Return a seed's value: the mean over its unlearning runs of means over their attack runs."""
    return mean([mean(attacks) for attacks in runs])


def nested(seeds: Sequence[Repeats]) -> Components:
    """Return the components of values [seed][unlearning run][attack run], any number >= 1 of each."""
    attack = pooled((attacks, 0.0) for runs in seeds for attacks in runs)
    below = 0.0 if math.isnan(attack) else attack  # where no attack repeats, `unlearning` holds it
    # Of the attack component, a sum of squares between a seed's unlearning runs holds (1 - 1 / U) sum of 1 / K.
    unlearning = pooled(
        ([mean(one) for one in runs], below * (1 - 1 / len(runs)) * sum(1 / len(one) for one in runs)) for runs in seeds
    )
    found = Components(unlearning=unlearning, attack=attack)
    return Components(
        base_of([seed_mean(runs) for runs in seeds], [found.within(runs) for runs in seeds]), unlearning, attack
    )


def base_of(values: Sequence[float], within: Sequence[float]) -> float:
    """Return the variance between seeds' values, less the mean of what repeats leave in each; NaN below two seeds."""
    return pooled([(values, (len(values) - 1) * mean(within))]) if values else math.nan


def pooled(groups: Iterable[tuple[Sequence[float], float]]) -> float:
    """Pool pairs (values, what else their sum of squares holds): the squares left over per degree of freedom."""
    squares, free = 0.0, 0
    for values, rest in groups:
        if len(values) > 1:
            centre = mean(values)
            squares += sum((value - centre) ** 2 for value in values) - rest
            free += len(values) - 1
    return squares / free if free else math.nan


def crossed(tables: Iterable[np.ndarray]) -> float:
    """Return the variance between V splits from a (runs, V splits) table per seed: what a split adds in all its runs.

    Runs and splits are crossed within a seed, whose facts are its own: the mean square between splits, less that of
    runs x splits, over the number of runs, pooled over seeds. A run that lacks a split (NaN) is left out. NaN without a
    seed of two runs and two splits.
    """
    between = rest = factor = 0.0
    free = free_rest = 0
    for table in tables:
        table = np.asarray(table, float)
        table = table[~np.isnan(table).any(axis=1)]
        runs, splits = table.shape
        if runs < 2 or splits < 2:
            continue
        off = table.mean(axis=0) - table.mean()
        between += runs * float((off**2).sum())
        rest += float(((table - table.mean(axis=1, keepdims=True) - off) ** 2).sum())
        factor += runs * (splits - 1)
        free += splits - 1
        free_rest += (runs - 1) * (splits - 1)
    return (between - free * rest / free_rest) / factor if free_rest else math.nan


def person(seeds: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
    """Return the variance between the groups (persons) of questions; NaN where no group has two questions.

    `seeds`: per seed (values (n,), groups (n,)), each question's share of runs that answered it right, and its group.
    One-way analysis of variance within each seed, pooled: its unit is one question, not the accuracy of all.
    """
    squares = factor = 0.0
    for values, groups in seeds:
        _, index, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        n, count = len(values), len(sizes)
        if count in (1, n):
            continue
        means = np.bincount(index, values) / sizes
        inner = float(((values - means[index]) ** 2).sum()) / (n - count)
        squares += float((sizes * (means - np.mean(values)) ** 2).sum()) - (count - 1) * inner
        factor += n - float((sizes**2).sum()) / n
    return squares / factor if factor else math.nan

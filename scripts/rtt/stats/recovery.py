"""Compute the three recoveries with their intervals over questions."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from rtt.stats.intervals import interval, wilson

RESAMPLES = 4000
PSEUDO = 2  # pseudo-questions; 2 gives each accuracy alone a uniform prior. Chosen by benchmarks/interval_coverage.py
RATES = ("recovery", "recovery_corrected")
QUANTITIES = (*RATES, "recovery_difference")
TOO_WIDE = 0.25  # an interval that reaches further than this from its estimate tells nothing about it


@lru_cache(maxsize=4)
def weights(sizes: tuple[int, ...], resamples: int = RESAMPLES) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw groups within strata of these sizes, n in all; return (group weights, pseudo weight, pseudo answers).

    A group is one question where questions share none.
    - (resamples, n): weight of each group; of a stratum of m, m - 1 are drawn and count m / (m - 1) each, which
      makes the variance unbiased (Rao & Wu 1988; drawing m makes it too small by (m - 1) / m). A row sums to n.
    - (resamples, 1): Beta(PSEUDO, n), the share of the pseudo-questions, without which the interval of 160 right
      answers in 160 would have no width.
    - (resamples, 3): their accuracy for (original, unlearned, attacked), from a Dirichlet over the 8 joint outcomes.

    The seed is the sha256 of the sizes: every target and row of one shape is resampled with the same draws.
    """
    seed = int.from_bytes(hashlib.sha256(repr(sizes).encode()).digest()[:8], "big")
    rng = np.random.default_rng(seed)
    parts = []
    for m in sizes:
        drawn = rng.multinomial(max(m - 1, 1), np.full(m, 1 / m), size=resamples)
        parts.append(drawn * (m / max(m - 1, 1)))
    share = rng.beta(PSEUDO, sum(sizes), size=(resamples, 1))
    outcomes = np.array([[(i >> bit) & 1 for bit in range(3)] for i in range(8)])
    pseudo = rng.dirichlet(np.full(8, PSEUDO / 8), size=resamples) @ outcomes
    return np.concatenate(parts, axis=1), share, pseudo


def resample(
    original: np.ndarray,
    unlearned: np.ndarray,
    attacked: np.ndarray,
    strata: np.ndarray,
    resamples: int = RESAMPLES,
    groups: Sequence[str] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the resampled accuracies of the three, each (resamples, ...), from (..., n) floats paired by question.

    A float is the share of runs in which the question was answered right: 0 or 1 with one run.
    `strata`: (n,) int, the V split and half of each question; draws stay within a stratum and are the same for all.
    `groups`: (n,) what each question is about; a group is drawn as a whole, in the stratum of its first question.
    """
    unit_of = _units(groups, len(strata))
    first = np.unique(unit_of, return_index=True)[1]
    order = np.argsort(strata[first], kind="stable")  # of units
    sizes = tuple(int(size) for size in np.unique(strata[first], return_counts=True)[1])
    drawn, share, pseudo = weights(sizes, resamples)
    alone = len(first) == len(strata)
    questions = len(strata) if alone else drawn @ np.bincount(unit_of)[order][:, None]
    accuracies = []
    for column, correct in enumerate((original, unlearned, attacked)):
        rows = correct.reshape(-1, len(strata)).astype(float)
        if not alone:
            rows = np.array([np.bincount(unit_of, row) for row in rows])
        accuracy = (1 - share) * (drawn @ rows[:, order].T / questions) + share * pseudo[:, column : column + 1]
        accuracies.append(accuracy.reshape(resamples, *correct.shape[:-1]))
    return tuple(accuracies)


def _units(groups: Sequence[str] | None, n: int) -> np.ndarray:
    """Return (n,) int, the number of each question's group, in the order of their first questions."""
    if groups is None:
        return np.arange(n)
    number: dict[str, int] = {}
    return np.array([number.setdefault(group, len(number)) for group in groups], int)


def recover(
    original: np.ndarray,
    unlearned: np.ndarray,
    attacked: np.ndarray,
    strata: np.ndarray,
    floor: float,
    resamples: int = RESAMPLES,
    groups: Sequence[str] | None = None,
    original_floor: float | None = None,
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return {quantity: (value, low, high)} of the three recoveries, each of shape (...).

    The arguments are (..., n) floats paired by question. `recovery` and `recovery_corrected` are NaN where the
    denominator is undefined (see `undefined`). The ends are percentiles of `resample`; an end that the pseudo-questions
    have moved past the estimate, at the edge of its range, is put on it. `original_floor`: that of the original, where
    it was reported by other probes.
    """
    o, u, r = resample(original, unlearned, attacked, strata, resamples, groups)
    po, pu, pr = (correct.mean(axis=-1) for correct in (original, unlearned, attacked))
    under = floor if original_floor is None else original_floor
    gone = undefined(original, under, groups)
    with np.errstate(divide="ignore", invalid="ignore"):
        result = {
            "recovery": (pr / po, *_percentiles(r / o)),
            "recovery_corrected": ((pr - floor) / (po - under), *_percentiles((r - floor) / (o - under))),
        }
    result = {name: tuple(np.where(gone, math.nan, x) for x in values) for name, values in result.items()}
    result["recovery_difference"] = (pr - pu, *_percentiles(r - u))
    return {name: (x, np.minimum(low, x), np.maximum(high, x)) for name, (x, low, high) in result.items()}


def _percentiles(values: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # inf - inf, in a denominator that is undefined anyway
        return np.quantile(values, [0.025, 0.975], axis=0)


def undefined(original: np.ndarray, floor: float, groups: Sequence[str] | None = None) -> np.ndarray:
    """Return whether the denominator's 95 % interval does not lie above the floor: then there is no rate.

    `original`: (..., n) floats.
    """
    if groups is None:
        return wilson(original.sum(axis=-1), original.shape[-1])[0] <= floor
    rows = original.reshape(-1, original.shape[-1])
    low = np.array([interval(row, groups)[0] for row in rows]).reshape(original.shape[:-1])
    return low <= floor


def cannot_tell(row: Mapping[str, float]) -> list[str]:
    """Return the measures of a row whose 95 % interval reaches further than `TOO_WIDE` from the estimate on one side.

    A measure without a value has no interval and is not among them.
    """
    wide = []
    for name in QUANTITIES:
        value, low, high = (row.get(f"{name}{end}", math.nan) for end in ("", "_low", "_high"))
        # Six decimals as in the tables, so that exactly .25 is .25 and not a bit more.
        if round(value - low, 6) > TOO_WIDE or round(high - value, 6) > TOO_WIDE:
            wide.append(name)
    return wide

"""Compute the three recoveries with their intervals over questions, and the status of a row."""

import hashlib
import math
from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from rtt.stats.intervals import wilson

RESAMPLES = 4000
PSEUDO = 2  # pseudo-questions; 2 gives each accuracy alone a uniform prior. Chosen by benchmarks/interval_coverage.py
QUANTITIES = ("recovery", "recovery_corrected", "recovery_difference")
TOO_WIDE = 0.25  # an interval that reaches further than this from its estimate tells nothing about it
STATUSES = ("ok", "none_within_budget", "not_unlearned", "over_unlearned", "undefined")


@lru_cache(maxsize=4)
def weights(sizes: tuple[int, ...], resamples: int = RESAMPLES) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw questions within strata of these sizes, n in all; return (question weights, pseudo weight, pseudo answers).

    - (resamples, n): weight of each question; of a stratum of m, m - 1 are drawn and count m / (m - 1) each, which
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
    original: np.ndarray, unlearned: np.ndarray, attacked: np.ndarray, strata: np.ndarray, resamples: int = RESAMPLES
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the resampled accuracies of the three, each (resamples, ...), from (..., n) floats paired by question.

    A float is the share of repeats in which the question was answered right: 0 or 1 without repeats.
    `strata`: (n,) int, the V split and half of each question; draws stay within a stratum and are the same for all.
    """
    order = np.argsort(strata, kind="stable")
    sizes = tuple(int(size) for size in np.unique(strata, return_counts=True)[1])
    drawn, share, pseudo = weights(sizes, resamples)
    accuracies = []
    for column, correct in enumerate((original, unlearned, attacked)):
        rows = correct[..., order].reshape(-1, len(order)).astype(float)
        accuracy = (1 - share) * (drawn @ rows.T / len(order)) + share * pseudo[:, column : column + 1]
        accuracies.append(accuracy.reshape(resamples, *correct.shape[:-1]))
    return tuple(accuracies)


def recover(
    original: np.ndarray,
    unlearned: np.ndarray,
    attacked: np.ndarray,
    strata: np.ndarray,
    floor: float,
    resamples: int = RESAMPLES,
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return {quantity: (value, low, high)} of the three recoveries, each of shape (...).

    The arguments are (..., n) floats paired by question. `recovery` and `recovery_corrected` are NaN where the
    denominator is undefined (see `undefined`). The ends are percentiles of `resample`; an end that the pseudo-questions
    have moved past the estimate, at the edge of its range, is put on it.
    """
    o, u, r = resample(original, unlearned, attacked, strata, resamples)
    po, pu, pr = (correct.mean(axis=-1) for correct in (original, unlearned, attacked))
    gone = undefined(original.sum(axis=-1), original.shape[-1], floor)
    with np.errstate(divide="ignore", invalid="ignore"):
        result = {
            "recovery": (pr / po, *_percentiles(r / o)),
            "recovery_corrected": ((pr - floor) / (po - floor), *_percentiles((r - floor) / (o - floor))),
        }
    result = {name: tuple(np.where(gone, math.nan, x) for x in values) for name, values in result.items()}
    result["recovery_difference"] = (pr - pu, *_percentiles(r - u))
    return {name: (x, np.minimum(low, x), np.maximum(high, x)) for name, (x, low, high) in result.items()}


def _percentiles(values: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # inf - inf, in a denominator that is undefined anyway
        return np.quantile(values, [0.025, 0.975], axis=0)


def undefined(n_correct, n, floor: float) -> np.ndarray:
    """Return whether the denominator's Wilson interval does not lie above the floor: then there is no rate."""
    return wilson(n_correct, n)[0] <= floor


def status(original_attacked: tuple[float, int], unlearned: tuple[float, int] | None, floor: float) -> str:
    """Return the first status that holds; the accuracies are given as (n_correct, n), None for no admissible point."""
    if unlearned is None:
        return "none_within_budget"
    if undefined(*original_attacked, floor):
        return "undefined"
    low, high = wilson(*unlearned)
    if high < floor:
        return "over_unlearned"
    if low > floor:
        return "not_unlearned"
    return "ok"


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

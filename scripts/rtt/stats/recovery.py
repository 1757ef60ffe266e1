"""Recovery three ways with intervals over questions, and the status of a row."""

import hashlib
import math
from functools import lru_cache

import numpy as np

from rtt.stats.intervals import wilson

RESAMPLES = 4000
QUANTITIES = ("recovery", "recovery_corrected", "recovery_difference")
STATUSES = ("ok", "none_within_budget", "not_unlearned", "over_unlearned", "undefined")


@lru_cache(maxsize=4)
def weights(sizes: tuple[int, ...], resamples: int = RESAMPLES) -> np.ndarray:
    """Return (resamples, n) float32: how often each question is drawn, resampling within strata of these sizes.

    The seed is the sha256 of the sizes: all targets and rows of one shape are resampled jointly.
    """
    seed = int.from_bytes(hashlib.sha256(repr(sizes).encode()).digest()[:8], "big")
    rng = np.random.default_rng(seed)
    parts = [rng.multinomial(size, np.full(size, 1 / size), size=resamples) for size in sizes]
    return np.concatenate(parts, axis=1).astype(np.float32)


def recover(original: np.ndarray, unlearned: np.ndarray, rtt: np.ndarray, strata: np.ndarray, floor: float) -> dict:
    """Point estimates and 95 % intervals of the three recoveries, from (n,) bool paired by question.

    Returns {quantity: (value, low, high)}; recovery and recovery_corrected are NaN when the denominator's Wilson
    interval does not lie above the floor.
    """
    order = np.argsort(strata, kind="stable")
    sizes = tuple(int(size) for size in np.unique(strata, return_counts=True)[1])
    table = np.stack([original, unlearned, rtt], axis=1)[order].astype(np.float32)
    n = len(table)
    o, u, r = (weights(sizes) @ table).T.astype(float) / n
    po, pu, pr = (float(x.mean()) for x in (original, unlearned, rtt))
    nothing = (math.nan, math.nan, math.nan)
    result = {"recovery": nothing, "recovery_corrected": nothing}
    if not undefined(int(original.sum()), n, floor):
        with np.errstate(divide="ignore", invalid="ignore"):
            result["recovery"] = (pr / po, *_percentiles(r / o))
            result["recovery_corrected"] = ((pr - floor) / (po - floor), *_percentiles((r - floor) / (o - floor)))
    result["recovery_difference"] = (pr - pu, *_percentiles(r - u))
    return result


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)


def undefined(n_correct: int, n: int, floor: float) -> bool:
    """Whether the denominator's Wilson interval holds the floor (or lies below it): then there is no rate."""
    return bool(wilson(n_correct, n)[0] <= floor)


def status(original_rtt: tuple[int, int], unlearned: tuple[int, int] | None, floor: float) -> str:
    """Return a row's status, the first that holds. Arguments are (n_correct, n); None: no admissible point."""
    if unlearned is None:
        return "none_within_budget"
    if undefined(*original_rtt, floor):
        return "undefined"
    low, high = wilson(*unlearned)
    if high < floor:
        return "over_unlearned"
    if low > floor:
        return "not_unlearned"
    return "ok"

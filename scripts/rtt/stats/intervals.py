"""Compute intervals and limits of an accuracy, and intervals of a mean over seeds."""

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist

import numpy as np

Z95 = 1.959963984540054


def wilson(correct, n, z: float = Z95) -> tuple[np.ndarray, np.ndarray]:
    """Return the 95 % Wilson interval of `correct` of `n` answers (arrays; n >= 1), as fractions (low, high).

    It inverts the score test: all p with (x/n - p)^2 <= z^2 p (1 - p) / n (Wilson 1927).
    """
    n = np.asarray(n, float)
    p = np.asarray(correct, float) / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # The ends are exactly 0 and 1 when none or all are correct; rounding must not move them.
    low = np.where(p == 0, 0.0, np.clip(centre - half, 0, 1))
    high = np.where(p == 1, 1.0, np.clip(centre + half, 0, 1))
    return low, high


def interval(correct: np.ndarray, groups: Sequence[str] | None = None) -> tuple[float, float]:
    """Return the 95 % interval (low, high) of the accuracy of (n,) floats in [0, 1]; `upper` says how, and its source.

    Without groups of several questions it is Wilson's.
    """
    n, z = effective(correct, groups, 0.975)
    low, high = wilson(np.mean(correct) * n, n, z)
    return float(low), float(high)


def upper(correct: np.ndarray, groups: Sequence[str] | None, confidence: float) -> float:
    """Return the one-sided upper limit of the accuracy of (n,) floats in [0, 1] at this confidence, .95 or .99.

    It is Wilson's with the effective number of questions: n over the design effect, which is the variance between
    `groups` over that of n independent answers, at least 1; and with Student's t for as many groups in place of the
    normal quantile (Korn and Graubard 1998; Dean and Pagano 2015 compare such intervals). Without groups of several
    questions it is the score test's limit.
    """
    n, z = effective(correct, groups, confidence)
    return float(wilson(np.mean(correct) * n, n, z)[1])


def effective(correct: np.ndarray, groups: Sequence[str] | None, probability: float) -> tuple[float, float]:
    """Return the effective number of questions, and the quantile of this probability that goes with it.

    Where all answers are right or none, nothing tells what a group has in common, so a group counts as one question.
    """
    n, p = len(correct), float(np.mean(correct))
    normal = Z95 if probability == 0.975 else NormalDist().inv_cdf(probability)
    if groups is None or (g := len(set(groups))) == n:
        return float(n), normal
    if g == 1 or p in (0.0, 1.0):
        return float(g), normal
    _, group_of = np.unique(np.asarray(groups), return_inverse=True)
    off = np.bincount(group_of, np.asarray(correct, float) - p)
    between = (off**2).sum() * g / (g - 1) / n**2
    return n / max(1.0, between / (p * (1 - p) / (n - 1))), t_quantile(probability, g - 1)


@lru_cache
def t_quantile(probability: float, degrees: int) -> float:
    """Return the quantile of Student's t with so many degrees of freedom."""
    from scipy.special import stdtrit  # a part of a second, which steps without a t interval are spared

    return float(stdtrit(degrees, probability))


def t_interval(values) -> tuple[float, float, float]:
    """Return (mean, low, high) of values per seed: their 95 % t interval, whose ends are NaN below 2 values."""
    values = np.asarray(values, float)
    if len(values) == 0:
        return math.nan, math.nan, math.nan
    mean = float(values.mean())
    if len(values) < 2:
        return mean, math.nan, math.nan
    half = t_quantile(0.975, len(values) - 1) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return mean, mean - half, mean + half

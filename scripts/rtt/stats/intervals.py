"""Compute intervals of an accuracy and of a mean over seeds."""

import math

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


def t_interval(values) -> tuple[float, float, float]:
    """Return (mean, low, high) of values per seed: their 95 % t interval, whose ends are NaN below 2 values."""
    values = np.asarray(values, float)
    if len(values) == 0:
        return math.nan, math.nan, math.nan
    mean = float(values.mean())
    if len(values) < 2:
        return mean, math.nan, math.nan
    from scipy import stats  # half a second, which steps without a t interval are spared

    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
    return mean, mean - half, mean + half

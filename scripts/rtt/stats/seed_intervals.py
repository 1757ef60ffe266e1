"""Compute 95 % intervals over seeds: of an accuracy, and of a ratio of means. docs/statistics.md says what they cover.

Arrays are (..., S), one value per seed in the last axis; everything before it is done at once. Repeats of a seed are
averaged before they come here, so that S - 1 degrees of freedom are all there are.
"""

import math

import numpy as np

from rtt.stats.intervals import t_quantile, wilson

FEW = 10  # with fewer wrong (or right) answers in all seeds together, seeds alone tell too little about their spread


def accuracy_interval(values: np.ndarray, groups: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (mean, low, high) of accuracies (..., S) as fractions; the ends are NaN with one seed.

    The t interval of the mean m is laid on the scale of log(m / (1 - m)), where it cannot leave [0, 1] and is longer
    towards the middle, as the spread of accuracies near 0 and 1 is. With fewer than `FEW` wrong (or right) answers of
    `groups` * S, it is at least as wide as Wilson's interval over `groups` independent questions in each seed: three
    seeds with 160 right answers of 160 do not prove an accuracy of 1.
    """
    values = np.asarray(values, float)
    seeds = values.shape[-1]
    mean = values.mean(axis=-1)
    if seeds < 2:
        return mean, np.full_like(mean, math.nan), np.full_like(mean, math.nan)
    n = groups * seeds
    inside = np.clip(mean, 0.5 / n, 1 - 0.5 / n)
    half = t_quantile(0.975, seeds - 1) * values.std(axis=-1, ddof=1) / math.sqrt(seeds) / (inside * (1 - inside))
    centre = np.log(inside / (1 - inside))
    with np.errstate(over="ignore"):
        low, high = (1 / (1 + np.exp(-(centre + side * half))) for side in (-1, 1))
    low, high = np.minimum(low, mean), np.maximum(high, mean)  # a mean of 0 or 1 was moved inside
    few = n * np.minimum(mean, 1 - mean) < FEW
    wilson_low, wilson_high = wilson(mean * n, n)
    return mean, np.where(few, np.minimum(low, wilson_low), low), np.where(few, np.maximum(high, wilson_high), high)


def ratio_interval(
    numerators: np.ndarray, denominators: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return (value, low, high, linear) of mean(numerators) / mean(denominators), from paired (..., S) arrays.

    The interval holds every R that a t test of mean(numerators - R denominators) = 0 with S - 1 degrees of freedom does
    not refuse (Fieller 1954). Where the t interval of the mean denominator reaches 0, that set has no ends: they are
    NaN, as with one seed. The value is NaN where the mean denominator is not above 0. `linear` (..., S) has the mean
    `value` and each seed's share in it, value + (numerator - value denominator) / mean(denominators), whose variance
    over S is that of the ratio to first order, as the jackknife's.
    """
    a, b = (np.asarray(values, float) for values in (numerators, denominators))
    seeds = a.shape[-1]
    mean_a, mean_b = a.mean(axis=-1), b.mean(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.where(mean_b > 0, mean_a / mean_b, math.nan)
        linear = value[..., None] + (a - value[..., None] * b) / mean_b[..., None]
    low = high = np.full_like(value, math.nan)
    if seeds >= 2:
        da, db = a - mean_a[..., None], b - mean_b[..., None]
        scale = t_quantile(0.975, seeds - 1) ** 2 / (seeds * (seeds - 1))
        square = mean_b**2 - scale * (db**2).sum(axis=-1)
        cross = mean_a * mean_b - scale * (da * db).sum(axis=-1)
        plain = mean_a**2 - scale * (da**2).sum(axis=-1)
        defined = (square > 0) & (mean_b > 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            root = np.sqrt(np.maximum(cross**2 - square * plain, 0))
            low, high = (np.where(defined, (cross + side * root) / square, math.nan) for side in (-1, 1))
    return value, low, high, linear

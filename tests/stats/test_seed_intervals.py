"""Intervals over seeds: against scipy's t test inverted by brute force, the jackknife, and by hand."""

import math

import numpy as np
import pytest
from rtt.stats.intervals import wilson
from rtt.stats.seed_intervals import accuracy_interval, ratio_interval
from scipy import stats

ABOVE = np.array([0.30, 0.42, 0.35, 0.55, 0.28])
BELOW = np.array([0.62, 0.70, 0.58, 0.71, 0.60])


def test_the_ratio_is_one_of_means_not_a_mean_of_ratios():
    value, *_ = ratio_interval(ABOVE, BELOW)
    assert value == pytest.approx(1.90 / 3.21) and value != pytest.approx((ABOVE / BELOW).mean(), abs=1e-3)


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_interval_holds_what_a_t_test_does_not_refuse(seeds):
    a, b = ABOVE[-seeds:], BELOW[-seeds:]
    _, low, high, _ = ratio_interval(a, b)
    span = high - low
    for ratio, kept in ((low - 1e-3 * span, False), (low + 1e-3 * span, True), (high - 1e-3 * span, True)):
        assert (stats.ttest_1samp(a - ratio * b, 0).pvalue > 0.05) == kept
    assert stats.ttest_1samp(a - (high + 1e-3 * span) * b, 0).pvalue < 0.05


def test_it_is_the_jackknifes_to_first_order():
    value, low, high, linear = ratio_interval(ABOVE, BELOW)
    seeds = len(ABOVE)
    without = [np.delete(ABOVE, i).sum() / np.delete(BELOW, i).sum() for i in range(seeds)]
    jackknife = math.sqrt((seeds - 1) / seeds * sum((x - np.mean(without)) ** 2 for x in without))
    assert linear.mean() == pytest.approx(value)
    assert linear.std(ddof=1) / math.sqrt(seeds) == pytest.approx(jackknife, rel=0.02)
    assert (high - low) / 2 == pytest.approx(stats.t.ppf(0.975, seeds - 1) * jackknife, rel=0.03)


def test_no_ends_where_the_denominator_reaches_zero():
    """Denominators .1, .2, .0: their t interval is .1 +- .25, so no R is refused from far enough away."""
    a, b = np.array([0.1, 0.15, 0.05]), np.array([0.1, 0.2, 0.0])
    value, low, high, _ = ratio_interval(a, b)
    assert value == pytest.approx(1) and math.isnan(low) and math.isnan(high)
    assert stats.ttest_1samp(a - 1e6 * b, 0).pvalue > 0.05
    value, low, high, _ = ratio_interval(a, b + 0.3)
    assert low < value < high


def test_one_seed_has_a_value_and_no_interval():
    value, low, high, _ = ratio_interval(np.array([0.3]), np.array([0.6]))
    assert value == 0.5 and math.isnan(low) and math.isnan(high)
    assert math.isnan(ratio_interval(np.array([0.3]), np.array([-0.1]))[0])
    mean, low, high = accuracy_interval(np.array([0.3]), 160)
    assert mean == 0.3 and math.isnan(low) and math.isnan(high)


def test_an_accuracys_interval_is_t_on_the_log_odds():
    mean, low, high = accuracy_interval(ABOVE, 160)
    assert mean == pytest.approx(ABOVE.mean())
    half = stats.t.ppf(0.975, 4) * stats.sem(ABOVE) / (mean * (1 - mean))
    assert [math.log(end / (1 - end)) for end in (low, high)] == pytest.approx(
        [math.log(mean / (1 - mean)) - half, math.log(mean / (1 - mean)) + half]
    )


def test_near_the_edge_it_is_at_least_wilsons_over_all_groups():
    mean, low, high = accuracy_interval(np.ones(3), 80)
    assert (mean, high) == (1, 1) and low == pytest.approx(float(wilson(240, 240)[0])) and low < 0.99
    values = np.array([0.99, 0.99, 1.0])  # 1.6 wrong of 240
    assert accuracy_interval(values, 80)[1] <= wilson(values.sum() * 80, 240)[0]
    mirrored = accuracy_interval(1 - values, 80)
    assert 1 - mirrored[2] == pytest.approx(accuracy_interval(values, 80)[1])


def test_many_replicates_at_once_are_each_alone():
    a, b = np.stack([ABOVE, ABOVE[::-1], ABOVE * 0.5]), np.stack([BELOW, BELOW, BELOW])
    together = ratio_interval(a, b)
    for i in range(3):
        assert [float(x[i]) for x in together[:3]] == pytest.approx([float(x) for x in ratio_interval(a[i], b[i])[:3]])
    assert accuracy_interval(a, 80)[1] == pytest.approx([float(accuracy_interval(row, 80)[1]) for row in a])

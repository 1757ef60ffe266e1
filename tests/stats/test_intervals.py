"""Wilson against scipy and against the inversion of its test; t interval against scipy."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rtt.stats.intervals import Z95, t_interval, wilson
from scipy import stats
from scipy.optimize import brentq

counts = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts)
def test_wilson_equals_scipy(count):
    x, n = count
    expected = stats.binomtest(x, n).proportion_ci(0.95, method="wilson")
    assert wilson(x, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(counts.filter(lambda count: 0 < count[0] < count[1]))
def test_wilson_ends_are_where_the_score_test_just_rejects(count):
    x, n = count

    def score(p):
        return abs(x / n - p) / math.sqrt(p * (1 - p) / n) - Z95

    low, high = wilson(x, n)
    assert low == pytest.approx(brentq(score, 1e-12, x / n), abs=1e-9)
    assert high == pytest.approx(brentq(score, x / n, 1 - 1e-12), abs=1e-9)


@given(counts)
def test_wilson_mirrors(count):
    x, n = count
    low, high = wilson(x, n)
    assert np.allclose((1 - high, 1 - low), wilson(n - x, n), atol=1e-12)
    assert 0 <= low <= x / n <= high <= 1


def test_wilson_is_exact_at_the_edges_and_vectorised():
    low, high = wilson([0, 160], [160, 160])
    assert low[0] == 0 and high[1] == 1 and high[0] < 0.03 and low[1] > 0.97


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8).filter(lambda values: np.std(values) > 1e-6))
def test_t_interval_equals_scipy(values):
    mean, low, high = t_interval(values)
    expected = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    assert (low, high) == pytest.approx(expected, abs=1e-12)
    assert mean == pytest.approx(np.mean(values))


def test_t_interval_needs_two_values():
    mean, low, high = t_interval([0.3])
    assert mean == 0.3 and math.isnan(low) and math.isnan(high)
    assert all(math.isnan(value) for value in t_interval([]))

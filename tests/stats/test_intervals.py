"""Wilson against scipy and against the inversion of its test; t interval against scipy; limits robust to groups."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rtt.stats.intervals import Z95, effective, interval, t_interval, upper, wilson
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


# ---- robust to groups


@given(counts.filter(lambda count: count[1] > 1), st.sampled_from([0.95, 0.99]))
def test_without_groups_the_upper_limit_is_where_the_one_sided_score_test_just_rejects(count, confidence):
    x, n = count
    correct, z = np.arange(n) < x, stats.norm.ppf(confidence)
    for groups in (None, [f"q{i}" for i in range(n)]):
        assert interval(correct, groups) == pytest.approx(tuple(map(float, wilson(x, n))), abs=1e-12)
        found = upper(correct, groups, confidence)
        if x == n:
            assert found == 1
        else:
            assert found == pytest.approx(
                brentq(lambda p: (x / n - p) / math.sqrt(p * (1 - p) / n) + z, max(x / n, 1e-12), 1 - 1e-12), abs=1e-6
            )


def test_the_effective_number_by_hand():
    """Four groups of 2, 2, 1 and 3 questions, with 2, 0, 1 and 1 right: 4 of 8.

    Off .5 by 1, -1, .5 and -.5: the squares sum to 2.5, so the variance between groups is 2.5 * 4 / 3 / 64 = .0521,
    against .25 / 7 = .0357 of independent answers.
    """
    correct, groups = np.array([1, 1, 0, 0, 1, 1, 0, 0.0]), ["a", "a", "b", "b", "c", "d", "d", "d"]
    n, t = effective(correct, groups, 0.95)
    assert n == pytest.approx(8 / ((2.5 * 4 / 3 / 64) / (0.25 / 7)))
    assert t == pytest.approx(2.353363, abs=1e-6)  # Student's t of 3 degrees, from a table
    opposite = np.array([1, 0, 0, 1, 1, 1, 0, 0.0])  # groups that even out earn nothing
    assert effective(opposite, groups, 0.95)[0] == 8
    assert effective(np.ones(8), groups, 0.975) == (4, Z95)  # all right: a group counts as one question
    assert effective(correct, ["a"] * 8, 0.95)[0] == 1


def test_groups_that_answer_as_one_count_as_one():
    whole = np.repeat(np.arange(80) < 20, 2)
    low, high = interval(whole, [f"g{i // 2}" for i in range(160)])
    expected = stats.binomtest(20, 80).proportion_ci(0.95, method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.004)


@pytest.mark.parametrize("p", [0.25, 0.4])
@pytest.mark.parametrize(("size", "rho"), [(1, 0), (2, 0.7), (4, 0.5)])
def test_coverage_of_the_upper_limits(p, size, rho):
    """160 questions, latent correlation rho within groups: 95 and 99 % of limits lie above p, up to the lattice."""
    reps, rng = 2000, np.random.default_rng(int(100 * p) + size)
    common = rng.standard_normal((reps, 160 // size, 1)) * math.sqrt(rho)
    latent = (common + rng.standard_normal((reps, 160 // size, size)) * math.sqrt(1 - rho)).reshape(reps, 160)
    groups = [f"g{i // size}" for i in range(160)]
    for confidence in (0.95, 0.99):
        covered = [upper(correct, groups, confidence) >= p for correct in latent < stats.norm.ppf(p)]
        error = math.sqrt(confidence * (1 - confidence) / reps)
        assert confidence - 3 * error <= np.mean(covered) <= confidence + 0.018
        if (size, rho) == (2, 0.7):  # a limit that takes the questions for independent falls short
            alone = [upper(correct, None, confidence) >= p for correct in latent < stats.norm.ppf(p)]
            assert np.mean(alone) < confidence - 3 * error

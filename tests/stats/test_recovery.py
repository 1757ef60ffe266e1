"""Recovery: identities, exact enumeration of tiny resamplings, groups."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rtt.stats import recovery
from rtt.stats.intervals import wilson
from rtt.stats.recovery import QUANTITIES, recover, resample, undefined, weights
from scipy.stats import beta

STRATA = np.repeat(np.arange(10), 16)


def plant(seed, *accuracies):
    """160 questions per accuracy, paired through one draw of difficulties."""
    difficulty = np.random.default_rng(seed).random(160)
    return [difficulty < accuracy for accuracy in accuracies]


def numbers(found):
    return np.array([found[name] for name in QUANTITIES], float)


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_equal_models_recover_exactly_one(seed):
    original, unlearned = plant(seed, 0.9, 0.3)
    found = recover(original, unlearned, original, STRATA, 0.25)
    assert found["recovery"][0] == found["recovery_corrected"][0] == 1
    for name in ("recovery", "recovery_corrected"):
        assert found[name][1] <= 1 <= found[name][2]


@given(st.integers(0, 10_000), st.floats(0.55, 0.99), st.floats(0.0, 0.99))
@settings(max_examples=15, deadline=None)
def test_values_by_their_formulas_inside_their_intervals(seed, p_original, p_rtt):
    rng = np.random.default_rng(seed)
    original, unlearned, rtt = (rng.random(160) < p for p in (p_original, 0.3, p_rtt))
    found = recover(original, unlearned, rtt, STRATA, 0.2375)
    assert found["recovery"][0] == pytest.approx(rtt.sum() / original.sum())
    assert found["recovery_corrected"][0] == pytest.approx((rtt.mean() - 0.2375) / (original.mean() - 0.2375))
    assert found["recovery_difference"][0] == pytest.approx((int(rtt.sum()) - int(unlearned.sum())) / 160)
    for value, low, high in found.values():
        assert low <= value <= high


def test_without_a_floor_the_two_ratios_agree():
    original, unlearned, rtt = plant(1, 0.9, 0.3, 0.7)
    found = recover(original, unlearned, rtt, STRATA, 0.0)
    assert np.allclose(found["recovery"], found["recovery_corrected"], atol=1e-12)


def test_stratum_names_and_row_order_do_not_matter():
    """Relabelling the strata or listing the strata's blocks in another order gives the same numbers."""
    rng = np.random.default_rng(3)
    columns = [rng.random(160) < p for p in (0.9, 0.3, 0.7)]
    expected = numbers(recover(*columns, STRATA, 0.25))
    assert np.array_equal(expected, numbers(recover(*columns, STRATA * 7 + 3, 0.25)))
    interleaved = np.argsort(np.tile(np.arange(16), 10), kind="stable")
    again = recover(*(column[interleaved] for column in columns), STRATA[interleaved], 0.25)
    assert np.allclose(expected, numbers(again), atol=1e-12)


def test_pairing_narrows_the_interval():
    """The same accuracies on the same questions must say more than on unrelated ones: draws are joint."""
    original, unlearned, rtt = plant(5, 0.8, 0.3, 0.6)
    paired = recover(original, unlearned, rtt, STRATA, 0.25)
    shuffled = np.random.default_rng(0).permuted(rtt.reshape(10, 16), axis=1).reshape(-1)
    apart = recover(original, unlearned, shuffled, STRATA, 0.25)
    assert paired["recovery"][0] == apart["recovery"][0]
    for name in QUANTITIES:
        assert np.diff(paired[name][1:]) < 0.9 * np.diff(apart[name][1:])


def test_draws_stay_within_strata():
    drawn, share, pseudo = weights((4, 6), 500)
    assert np.allclose(drawn[:, :4].sum(axis=1), 4) and np.allclose(drawn[:, 4:].sum(axis=1), 6)
    assert share.shape == (500, 1) and pseudo.shape == (500, 3)
    assert min(share.min(), pseudo.min()) >= 0 and max(share.max(), pseudo.max()) <= 1


def test_resampled_means_against_every_possible_draw(monkeypatch):
    """Without pseudo-questions: enumerate all draws of 2 of 3 in two strata and compare the distribution."""
    monkeypatch.setattr(recovery, "PSEUDO", 1e-9)
    weights.cache_clear()
    correct = np.array([1, 0, 0, 1, 1, 0], bool)
    other = np.array([0, 1, 0, 1, 0, 0], bool)
    exact: dict = {}
    for a, b in itertools.product(itertools.product(range(3), repeat=2), itertools.product(range(3, 6), repeat=2)):
        drawn = [*a, *b]
        outcome = (round(correct[drawn].mean(), 9), round(other[drawn].mean(), 9))
        exact[outcome] = exact.get(outcome, 0) + 1 / 81
    x, y, _ = resample(correct, other, other, np.repeat([0, 1], 3), 40_000)
    weights.cache_clear()
    found, counts = np.unique(np.round(np.stack([x, y], axis=1), 6), axis=0, return_counts=True)
    assert len(found) == len(exact)
    for outcome, count in zip(found, counts, strict=True):
        probability = next(p for key, p in exact.items() if np.allclose(key, outcome, atol=1e-5))
        assert count / 40_000 == pytest.approx(probability, abs=0.01)


def test_variance_is_the_unbiased_stratified_one():
    """Rao & Wu: Var(mean) = sum over strata of (m/n)^2 s^2 / m with s^2 over m - 1; pseudo-questions add little."""
    rng = np.random.default_rng(8)
    correct = rng.random(160) < 0.6
    x, _, _ = resample(correct, correct, correct, STRATA, 20_000)
    expected = sum((16 / 160) ** 2 * correct[s == STRATA].var(ddof=1) / 16 for s in range(10))
    assert x.var() == pytest.approx(expected, rel=0.05)


def test_edges_have_width_and_hold_the_estimate():
    everything, nothing = np.ones(160, bool), np.zeros(160, bool)
    found = recover(everything, nothing, everything, STRATA, 0.25)
    assert found["recovery"][0] == 1 and 0.005 < found["recovery"][2] - found["recovery"][1] < 0.06
    value, low, high = found["recovery_difference"]
    assert value == high == 1 and 0.95 < low < 1


def test_edge_interval_is_the_beta_posterior():
    """All 160 right: with two pseudo-questions the accuracy alone is Beta(161, 1)."""
    everything = np.ones(160, bool)
    x, _, _ = resample(everything, everything, everything, STRATA, 40_000)
    for q in (0.025, 0.25, 0.5):
        assert np.quantile(x, q) == pytest.approx(beta.ppf(q, 161, 1), abs=0.0015)


def test_same_numbers_every_time_and_batched():
    columns = [np.random.default_rng(9).random((2, 160)) < p for p in (0.9, 0.3, 0.7)]
    batched = recover(*columns, STRATA, 0.25)
    weights.cache_clear()
    for i in range(2):
        alone = recover(*(column[i] for column in columns), STRATA, 0.25)
        for name in QUANTITIES:
            assert np.allclose([x[i] for x in batched[name]], alone[name], atol=1e-12)


@given(st.integers(0, 160), st.floats(0.1, 0.6))
def test_undefined_is_an_interval_that_does_not_lie_above_the_floor(count, floor):
    low, high = wilson(count, 160)
    assert undefined(np.arange(160) < count, floor) == ((low <= floor <= high) or high < floor)


def test_undefined_denominator_leaves_only_the_difference():
    original, unlearned, rtt = plant(2, 0.28, 0.2, 0.5)
    found = recover(original, unlearned, rtt, STRATA, 0.25)
    assert all(math.isnan(x) for name in ("recovery", "recovery_corrected") for x in found[name])
    assert found["recovery_difference"][0] > 0.2


# ---- groups


def test_lone_groups_change_no_bit():
    columns = plant(4, 0.9, 0.3, 0.7)
    plain = recover(*columns, STRATA, 0.25)
    named = recover(*columns, STRATA, 0.25, groups=[f"q{i}" for i in range(160)])
    assert all(np.array_equal(plain[name], named[name]) for name in QUANTITIES)


def test_a_group_is_drawn_as_a_whole():
    """Pairs that answer as one are 80 questions; as if they were alone, the interval is too narrow by sqrt 2."""
    columns = [np.repeat(column[:80], 2) for column in plant(6, 0.9, 0.3, 0.6)]
    halved, groups = STRATA[::2], [f"g{i // 2}" for i in range(160)]
    found = recover(*columns, STRATA, 0.25, groups=groups)
    once = recover(*(column[::2] for column in columns), halved, 0.25)
    for name in QUANTITIES:
        assert np.allclose(found[name], once[name], atol=1e-12)
    alone = recover(*columns, STRATA, 0.25)["recovery_difference"]
    whole = found["recovery_difference"]
    assert 1.25 < (whole[2] - whole[1]) / (alone[2] - alone[1]) < 1.6


def test_groups_of_several_sizes_against_every_possible_draw(monkeypatch):
    """One stratum with groups of 3, 2 and 1 questions: enumerate the draws of 2 of 3, a ratio of sums."""
    monkeypatch.setattr(recovery, "PSEUDO", 1e-9)
    weights.cache_clear()
    correct, groups = np.array([1, 1, 0, 0, 1, 1.0]), ["a", "a", "a", "b", "b", "c"]
    right, size = {"a": 2, "b": 1, "c": 1}, {"a": 3, "b": 2, "c": 1}
    exact: dict = {}
    for drawn in itertools.product("abc", repeat=2):
        share = round(sum(right[g] for g in drawn) / sum(size[g] for g in drawn), 6)
        exact[share] = exact.get(share, 0) + 1 / 9
    x, _, _ = resample(correct, correct, correct, np.zeros(6, int), 40_000, groups)
    weights.cache_clear()
    found, counts = np.unique(np.round(x, 6), return_counts=True)
    assert dict(zip(found, counts / 40_000, strict=True)) == pytest.approx(exact, abs=0.01)


def test_a_group_that_reaches_into_two_strata_stands_in_its_first():
    groups = [f"g{i % 80}" for i in range(160)]  # each in the i-th stratum and in the (i + 5)-th
    columns = plant(7, 0.9, 0.3, 0.6)
    found = recover(*columns, STRATA, 0.25, groups=groups)
    moved = recover(*columns, np.tile(STRATA[:80], 2), 0.25, groups=groups)
    assert np.allclose(numbers(found), numbers(moved))


def test_the_original_may_have_a_floor_of_its_own():
    original, unlearned, attacked = plant(8, 0.9, 0.3, 0.6)
    value = recover(original, unlearned, attacked, STRATA, 0.25, original_floor=0.4)["recovery_corrected"][0]
    assert value == pytest.approx((attacked.mean() - 0.25) / (original.mean() - 0.4))
    assert math.isnan(recover(original, unlearned, attacked, STRATA, 0.25, original_floor=0.9)["recovery"][0])
    # Undefined respects groups: 60 of 160 lie above .25 as lone questions, and do not as 20 groups of 8.
    some = np.repeat(np.arange(20) < 8, 8) & (np.arange(160) < 60)
    groups = [f"g{i // 8}" for i in range(160)]
    assert not undefined(some, 0.25) and undefined(some, 0.25, groups)

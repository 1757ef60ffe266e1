"""Contrasts over seeds and over questions, when arms are comparable, and the criterion on the control."""

import math

import numpy as np
import pandas as pd
import pytest
from rtt.stats.answers import ANSWER_KEY, Answers
from rtt.stats.contrasts import by_question, contrasts, exceeds_control
from rtt.stats.seed_intervals import ratio_interval
from scipy import stats


def row(arm, method, seed, acc_attacked, before=0.97, unlearned=0.28, corrected=None, **more):
    return {
        **dict(dataset="d_" + arm, arm=arm, model="m", method=method, attack="RTT", seed=seed),
        **dict(
            retain_budget=0.1,
            look_choice="nested",
            probe="letter",
            acc_before=before,
            acc_unlearned=unlearned,
            acc_attacked=acc_attacked,
        ),
        **dict(recovery_corrected=acc_attacked if corrected is None else corrected, status="ok", counts=True),
        **dict(acc_original_attacked=1.0, floor=0.0, original_floor=0.0, variant="default"),
        **more,
    }


def pick(table, arm_a, arm_b, method="GD", quantity="acc_attacked", which="counting"):
    found = table[
        (table.arm_a == arm_a) & (table.arm_b == arm_b) & (table.method == method) & (table.quantity == quantity)
        & (table["set"] == which)
    ]  # fmt: skip
    assert len(found) == 1
    return found.iloc[0]


def test_arms_are_paired_by_seed():
    a, b = {11: 0.9, 12: 0.8, 13: 0.85}, {12: 0.5, 11: 0.6, 14: 0.1}
    table = contrasts(
        pd.DataFrame(
            [row("pretrained", "GD", s, x) for s, x in a.items()] + [row("taught", "GD", s, x) for s, x in b.items()]
        )
    )
    found = pick(table, "pretrained", "taught")
    differences = [0.9 - 0.6, 0.8 - 0.5]
    assert found.n_seeds == 2 and found.per_seed == pytest.approx(differences)
    assert found["mean"] == pytest.approx(0.3) and found.comparable == "yes" and found.why == ""


def test_the_t_interval_of_the_differences():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0.7, 0.9, 5), rng.uniform(0.4, 0.7, 5)
    rows = [row("pretrained", "GD", s, x) for s, x in enumerate(a)] + [
        row("taught", "GD", s, x) for s, x in enumerate(b)
    ]
    found = pick(contrasts(pd.DataFrame(rows)), "pretrained", "taught")
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_one_seed_has_no_interval():
    table = contrasts(pd.DataFrame([row("pretrained", "GD", 0, 0.9), row("taught_same_data", "GD", 0, 0.7)]))
    found = pick(table, "pretrained", "taught_same_data")
    assert found.n_seeds == 1 and math.isnan(found.low) and math.isnan(found.high)
    assert set(table.arm_b) == {"taught_same_data"}  # no third arm, no pair with it


@pytest.mark.parametrize(
    ("before", "unlearned", "comparable", "why"),
    [
        (0.95, 0.28, "yes", ""),  # .98 - .95 is .03 and a bit in binary
        (0.88, 0.28, "no", "not comparable: starting accuracy .98 vs .88"),
        (0.98, 0.33, "yes", ""),
        (0.98, 0.345, "no", "not comparable: unlearned accuracy .28 vs .345"),
        (1.0, 0.22, "no", "not comparable: unlearned accuracy .28 vs .22"),
        (0.90, 0.4, "no", "not comparable: starting accuracy .98 vs .90, unlearned accuracy .28 vs .40"),
    ],
)
def test_comparable_only_where_both_start_and_unlearn_alike(before, unlearned, comparable, why):
    rows = [row("pretrained", "GD", 0, 0.9, before=0.98), row("taught", "GD", 0, 0.9, before, unlearned)]
    found = pick(contrasts(pd.DataFrame(rows)), "pretrained", "taught")
    assert (found.comparable, found.why) == (comparable, why)


def test_means_over_seeds_decide_and_the_limits_are_options():
    rows = [row("pretrained", "GD", s, 0.9, before) for s, before in ((0, 0.99), (1, 0.91))]
    rows += [row("taught", "GD", s, 0.9, 0.95) for s in (0, 1)]
    table = pd.DataFrame(rows)
    assert pick(contrasts(table), "pretrained", "taught").comparable == "yes"
    rows[0]["acc_before"] = 0.90
    assert pick(contrasts(pd.DataFrame(rows)), "pretrained", "taught").comparable == "no"
    assert pick(contrasts(pd.DataFrame(rows), before=0.05), "pretrained", "taught").comparable == "yes"


def test_undefined_and_missing_values_drop_out_of_their_quantity_only():
    rows = [row("pretrained", "GD", s, 0.9, corrected=x) for s, x in ((0, 0.8), (1, math.nan))]
    rows += [row("taught", "GD", s, 0.6) for s in (0, 1)]
    table = contrasts(pd.DataFrame(rows))
    assert pick(table, "pretrained", "taught").n_seeds == 2
    assert pick(table, "pretrained", "taught", quantity="recovery_corrected").n_seeds == 1


def test_a_pair_without_a_point_keeps_its_row():
    gone = row("taught", "GD", 0, math.nan, unlearned=math.nan, status="none_within_budget", counts=False)
    found = pick(contrasts(pd.DataFrame([row("pretrained", "GD", 0, 0.9), gone])), "pretrained", "taught")
    assert found.n_seeds == 0 and found.per_seed == [] and math.isnan(found["mean"]) and found.comparable == "no"
    assert "no seed with both values" in found.why and "taught none_within_budget" in found.why


def test_a_lower_bound_is_not_compared_with_an_estimate():
    rows = [row("pretrained", m, s, 0.8, attack_learned=(m, s) != ("RMU", 1)) for m in ("GD", "RMU") for s in (0, 1)]
    found = pick(contrasts(pd.DataFrame(rows)), "pretrained", "pretrained", "GD - RMU")
    assert (found.comparable, found.why) == (
        "no", "not comparable: a lower bound for RMU, as the attack did not learn T in 1 of 2 seeds"
    )  # fmt: skip
    rows[-1] |= {"attack_learned": None}  # an attack that uses no T
    assert pick(contrasts(pd.DataFrame(rows)), "pretrained", "pretrained", "GD - RMU").comparable == "yes"


def test_methods_are_paired_within_an_arm():
    rows = [row("pretrained", m, s, x) for m, x in (("GD", 0.7), ("RMU", 0.9)) for s in (0, 1)]
    found = pick(contrasts(pd.DataFrame(rows)), "pretrained", "pretrained", "GD - RMU")
    assert found["mean"] == pytest.approx(-0.2) and found.n_seeds == 2


def test_an_arm_with_two_datasets_is_compared_within_each():
    values = {("pretrained", "x"): 0.9, ("pretrained", "y"): 0.8, ("taught", "y"): 0.5, ("taught", "z"): 0.1}
    rows = [row(arm, "GD", 0, value, dataset=dataset) for (arm, dataset), value in values.items()]
    rows.append(row("taught_same_data", "GD", 0, 0.2, dataset="w"))
    rows.append(row("pretrained", "RMU", 0, 0.7, dataset="x"))
    table = contrasts(pd.DataFrame(rows))
    found = table[(table.quantity == "acc_attacked") & (table["set"] == "known")]
    assert set(found[["arm_a", "arm_b", "dataset_a", "dataset_b", "method"]].itertuples(index=False, name=None)) == {
        ("pretrained", "taught", "y", "y", "GD"),  # not x with y; and w, alone in its arm, faces two datasets
        ("pretrained", "pretrained", "x", "x", "GD - RMU"),
    }
    assert found["mean"].tolist() == pytest.approx([0.3, 0.2])


def test_one_dataset_in_each_arm_is_compared_across():
    table = contrasts(pd.DataFrame([row("pretrained", "GD", 0, 0.9), row("taught", "GD", 0, 0.5)]))
    assert set(table[["dataset_a", "dataset_b"]].itertuples(index=False, name=None)) == {("d_pretrained", "d_taught")}


def test_two_models_of_an_arm_are_not_mixed_up():
    rows = [row("pretrained", "GD", 0, 0.9), row("pretrained", "GD", 0, 0.8, model="n"), row("taught", "GD", 0, 0.5)]
    found = pick(contrasts(pd.DataFrame(rows)), "pretrained", "taught")
    assert found.n_seeds == 0 and "2 models: m, n" in found.why and found.comparable == "no"


def test_cells_that_do_not_count_stand_in_the_known_ones_alone():
    rows = [row("pretrained", "GD", s, 0.9) for s in (0, 1)]
    rows += [
        row("taught", "GD", 0, 0.6, status="not_unlearned", counts=False),
        row("taught", "GD", 1, 0.5, status="not_known", counts=False),
    ]
    table = contrasts(pd.DataFrame(rows))
    known, counting = (pick(table, "pretrained", "taught", which=name) for name in ("known", "counting"))
    assert known.n_seeds == 1 and known["mean"] == pytest.approx(0.3)
    assert (counting.n_cells, counting.n_counting) == (known.n_cells, known.n_counting) == (2, 0)
    assert counting.n_seeds == 0 and "taught not_known, not_unlearned" in counting.why


def test_rates_over_seeds_differ_as_their_ratios_of_means_do():
    rng = np.random.default_rng(1)
    r, o = {}, {}
    for arm, level in (("pretrained", 0.8), ("taught", 0.5)):
        r[arm], o[arm] = rng.normal(level, 0.1, 5), rng.normal(0.9, 0.05, 5)
    rows = [
        row(arm, "GD", s, r[arm][s], corrected=(r[arm][s] - 0.25) / (o[arm][s] - 0.25))
        | {"acc_original_attacked": o[arm][s], "floor": 0.25, "original_floor": 0.25}
        for arm in r
        for s in range(5)
    ]
    found = pick(contrasts(pd.DataFrame(rows)), "pretrained", "taught", quantity="recovery_corrected")
    sides = [ratio_interval(r[arm] - 0.25, o[arm] - 0.25) for arm in ("pretrained", "taught")]
    assert found["mean"] == pytest.approx(float(sides[0][0] - sides[1][0])) and found.over == "seeds"
    # The jackknife of the difference of the two ratios, by brute force, leaving out one seed of both at a time.
    without = [
        np.subtract(*(float(np.delete(r[a] - 0.25, i).sum() / np.delete(o[a] - 0.25, i).sum()) for a in r))
        for i in range(5)
    ]
    error = math.sqrt(4 / 5 * sum((x - np.mean(without)) ** 2 for x in without))
    assert (found.high - found.low) / 2 == pytest.approx(stats.t.ppf(0.975, 4) * error, rel=0.03)


def answered(rows, values):
    """Answers by row of a recovery table."""
    return {tuple(one[name] for name in ANSWER_KEY): found for one, found in zip(rows, values, strict=True)}


def test_methods_of_one_seed_are_compared_question_by_question():
    """Groups of two: differences 1 1, 0 0, -1 0 and 1 1; their sums less the mean of .375 each."""
    groups = np.array([5, 5, 2, 2, 9, 9, 4, 4])
    a = Answers(np.array([1, 1, 1, 0, 0, 0, 1, 1.0]), np.ones(8), groups, 0.25, 0.25)
    b = Answers(np.array([0, 0, 1, 0, 1, 0, 0, 0.0]), np.ones(8), groups, 0.25, 0.25)
    rows = [row("pretrained", "GD", 0, 5 / 8), row("pretrained", "RMU", 0, 2 / 8)]
    table = contrasts(pd.DataFrame(rows), answered(rows, [a, b]))
    found = pick(table, "pretrained", "pretrained", "GD - RMU")
    sums = np.array([2, 0, -1, 2]) - 2 * 0.375
    half = stats.t.ppf(0.975, 3) * math.sqrt(4 / 3 * (sums**2).sum()) / 8
    assert (found["mean"], found.low, found.high) == pytest.approx((0.375, 0.375 - half, 0.375 + half))
    assert found.over == "questions" and found.n_seeds == 1
    # Lone questions: the paired t test.
    lone = [Answers(one.attacked, one.original, np.arange(8), 0.25, 0.25) for one in (a, b)]
    expected = stats.ttest_rel(a.attacked, b.attacked).confidence_interval()
    assert by_question(*lone, "acc_attacked")[1:] == pytest.approx((expected.low, expected.high))
    # Without the answers, and over two seeds, as before.
    assert pick(contrasts(pd.DataFrame(rows)), "pretrained", "pretrained", "GD - RMU").over == ""
    more = [*rows, row("pretrained", "GD", 1, 0.7), row("pretrained", "RMU", 1, 0.2)]
    both = pick(contrasts(pd.DataFrame(more), answered(rows, [a, b])), "pretrained", "pretrained", "GD - RMU")
    assert both.over == "seeds" and both["mean"] == pytest.approx((0.375 + 0.5) / 2)


def test_a_rates_difference_by_question_is_its_bootstraps():
    """Groups drawn with replacement, 4000 times: the linearised interval is as wide within 10 %."""
    rng, groups = np.random.default_rng(2), np.repeat(np.arange(80), 2)
    skill = rng.normal(0, 1, 80)[groups]
    a, b, o = (
        ((skill * way + rng.normal(0, 1, 160)) > cut).astype(float) for way, cut in ((1, -1), (1, 1), (-1, -0.8))
    )
    sides = [Answers(one, o, groups, floor, 0.25) for one, floor in ((a, 0.3), (b, 0.2))]
    value, low, high = by_question(*sides, "recovery_corrected")
    assert value == pytest.approx((a.mean() - 0.3 - (b.mean() - 0.2)) / (o.mean() - 0.25))
    drawn = rng.integers(0, 80, (4000, 80))
    sums = [np.bincount(groups, x)[drawn].sum(axis=1) / 160 for x in (a, b, o)]
    ends = np.quantile((sums[0] - sums[1] - 0.1) / (sums[2] - 0.25), [0.025, 0.975])
    assert high - low == pytest.approx(ends[1] - ends[0], rel=0.1)
    fixed = by_question(*(Answers(one.attacked, o * 0 + 1, groups, 0.3, 0.25) for one in sides), "acc_attacked")
    assert high - low > 1.15 * (fixed[2] - fixed[1]) / (o.mean() - 0.25)  # the denominator has a part in it


def test_the_criterion_compares_the_ends_of_the_intervals():
    ends = [(0.5, 0.4), (0.4, 0.4), (0.3, 0.4), (math.nan, 0.4), (0.7, math.nan)]
    rows = [row("pretrained", "GD", 0, 0.9, acc_attacked_low=low, acc_control_attacked_high=high) for low, high in ends]
    assert exceeds_control(pd.DataFrame(rows)) == [True, False, False, None, None]

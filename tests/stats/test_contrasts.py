"""Contrasts over seeds, when arms are comparable, and the criterion on the control."""

import math

import numpy as np
import pandas as pd
import pytest
from rtt.stats.contrasts import contrasts, exceeds_control
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
        **dict(recovery_corrected=acc_attacked if corrected is None else corrected, status="ok"),
        **more,
    }


def pick(table, arm_a, arm_b, method="GD", quantity="acc_attacked"):
    found = table[
        (table.arm_a == arm_a) & (table.arm_b == arm_b) & (table.method == method) & (table.quantity == quantity)
    ]
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
    gone = row("taught", "GD", 0, math.nan, unlearned=math.nan, status="none_within_budget")
    found = pick(contrasts(pd.DataFrame([row("pretrained", "GD", 0, 0.9), gone])), "pretrained", "taught")
    assert found.n_seeds == 0 and found.per_seed == [] and math.isnan(found["mean"]) and found.comparable == "no"
    assert "no seed with both values" in found.why and "taught none_within_budget" in found.why


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
    found = table[table.quantity == "acc_attacked"]
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


def test_the_criterion_compares_the_ends_of_the_intervals():
    ends = [(0.5, 0.4), (0.4, 0.4), (0.3, 0.4), (math.nan, 0.4), (0.7, math.nan)]
    rows = [row("pretrained", "GD", 0, 0.9, acc_attacked_low=low, acc_control_attacked_high=high) for low, high in ends]
    assert exceeds_control(pd.DataFrame(rows)) == [True, False, False, None, None]

"""seeds.csv: two seeds by hand, components of rates, which seeds enter, and what a claim needs."""

import math

import numpy as np
import pandas as pd
import pytest
from rtt.stats.answers import Answers
from rtt.stats.components import nested
from rtt.stats.seed_intervals import accuracy_interval, ratio_interval
from rtt.stats.seeds import COLUMNS, KEYS, QUANTITIES, VARIANCES, SeedRuns, seed_table, summary
from scipy import stats

CELL = {
    **dict(dataset="people_p", arm="pretrained", model="miniature", method="GD", attack="RTT", variant="default"),
    **dict(retain_budget=0.1, look_choice="nested", probe="letter_permuted"),
}
FLOOR = 0.25
# [seed][unlearning run][attack run]; the original by [seed][attack run]; before the attack by [seed][unlearning run]
ATTACKED = [[[0.6, 0.8], [0.7, 0.9]], [[0.4, 0.5], [0.5, 0.6]]]
ORIGINAL = [[0.85, 0.95], [0.80, 0.84]]
UNLEARNED = [[0.28, 0.30], [0.24, 0.30]]


def rows_of(attacked, original, unlearned, v_split="all", seeds=None, **changes):
    """Rows of runs.csv."""
    return [
        CELL
        | dict(seed=seed, unlearning_repeat=u, attack_repeat=k, v_split=v_split, n_questions=160, floor=FLOOR)
        | dict(acc_attacked=value, acc_original_attacked=original[s][k], acc_unlearned=unlearned[s][u])
        | changes
        for s, seed in enumerate(seeds or range(21, 21 + len(attacked)))
        for u, values in enumerate(attacked[s])
        for k, value in enumerate(values)
    ]


def recovery_of(runs, **changes):
    """The rows of recovery.csv that belong to rows of runs.csv; `changes` are {column: {seed: value} or a value}."""
    rows = []
    for seed in dict.fromkeys(row["seed"] for row in runs):
        own = [row for row in runs if row["seed"] == seed and row["v_split"] == "all"]
        row = {name: own[0][name] for name in (*KEYS, "seed", "floor", "n_questions")}
        row |= {name: np.mean([one[name] for one in own]) for name in own[0] if name.startswith("acc_")}
        row |= dict(status="ok", counts=True, n_groups=80, original_floor=row["floor"])
        rows.append(row | {k: v[seed] if isinstance(v, dict) else v for k, v in changes.items()})
    return pd.DataFrame(rows)


def table_of(runs, answers=None, **changes):
    return seed_table(pd.DataFrame(runs), recovery_of(runs, **changes), answers)


def pick(table, quantity, which="counting"):
    found = table[(table["quantity"] == quantity) & (table["set"] == which)]
    assert len(found) == 1
    return found.iloc[0]


def test_two_seeds_by_hand():
    table = table_of(rows_of(ATTACKED, ORIGINAL, UNLEARNED))
    assert list(table.columns) == COLUMNS and len(table) == 2 * len(QUANTITIES)
    found = pick(table, "acc_attacked")
    assert (found.n_cells, found.n_counting, found.n_seeds, found.seeds) == (2, 2, 2, "21;22")
    assert found.per_seed == pytest.approx([0.75, 0.5]) and found["mean"] == pytest.approx(0.625)
    assert (found.low, found.high) == pytest.approx([float(end) for end in accuracy_interval([0.75, 0.5], 80)[1:]])
    assert found.df == 1 and found.sd_seed == pytest.approx(0.25 / math.sqrt(2))
    assert found.var_rtt == pytest.approx(0.0125) and found.var_unlearning == 0  # -.00125, printed as 0
    assert found.var_base == pytest.approx(0.02875)

    rate = pick(table, "recovery_corrected")
    above, below = [0.5, 0.25], [0.65, 0.57]
    assert rate["mean"] == pytest.approx(0.75 / 1.22) and rate.per_seed == pytest.approx([0.5 / 0.65, 0.25 / 0.57])
    _, low, high, linear = ratio_interval(np.array(above), np.array(below))
    assert (rate.low, rate.high, rate.df) == pytest.approx((float(low), float(high), 1))
    assert pick(table, "recovery")["mean"] == pytest.approx(0.625 / 0.86)
    assert rate.sd_seed == pytest.approx(linear.std(ddof=1))
    # Attack: .0125 of r, and (.1^2 / 2 + .04^2 / 2) / 2 of o. Unlearning is negative, in `base` it counts as it is.
    value, scale, of_o = 0.75 / 1.22, 0.61, (0.005 + 0.0008) / 2
    assert rate.var_rtt == pytest.approx((0.0125 + value**2 * of_o) / scale**2)
    assert rate.var_original == pytest.approx(value**2 * of_o / scale**2) and math.isnan(found.var_original)
    within = (-0.00125 / 2 + 0.0125 / 4 + value**2 * of_o / 2) / scale**2
    assert rate.var_base == pytest.approx(linear.var(ddof=1) - within)

    difference = pick(table, "recovery_difference")
    assert difference.per_seed == pytest.approx([0.75 - 0.29, 0.5 - 0.27])
    expected = stats.ttest_1samp(difference.per_seed, 0).confidence_interval()
    assert (difference.low, difference.high) == pytest.approx((expected.low, expected.high))
    before = pick(table, "acc_unlearned")
    assert before.per_seed == pytest.approx([0.29, 0.27]) and math.isnan(before.var_rtt)
    assert before.var_unlearning == pytest.approx((0.0002 + 0.0018) / 2)
    original = pick(table, "acc_original_attacked")
    assert original.per_seed == pytest.approx([0.9, 0.82]) and math.isnan(original.var_unlearning)
    assert original.var_rtt == pytest.approx(of_o)


def test_repeats_never_raise_the_degrees_of_freedom():
    many = [[[value] * 4 for _ in range(4)] for value in (0.5, 0.6, 0.8)]
    once = [[[value]] for value in (0.5, 0.6, 0.8)]
    before = [[0.3] * 4] * 3
    a = pick(table_of(rows_of(many, [[0.9] * 4] * 3, before)), "acc_attacked")
    b = pick(table_of(rows_of(once, [[0.9]] * 3, before)), "acc_attacked")
    assert a.df == b.df == 2 and (a.low, a.high) == pytest.approx((b.low, b.high))


def planted(rng, seeds, repeats, values, sds):
    """Runs of r and o with planted means and standard deviations (base, unlearning, attack of r; base, attack of o)."""
    runs, originals = [], []
    for _ in range(seeds):
        base = rng.normal(values[0], sds[0])
        runs.append([(rng.normal(base, sds[1]) + rng.normal(0, sds[2], repeats)).tolist() for _ in range(repeats)])
        originals.append((rng.normal(values[1], sds[3]) + rng.normal(0, sds[4], repeats)).tolist())
    return runs, originals


def test_planted_components_of_a_rate_come_out_on_average():
    """R = (.55 - .25) / (.85 - .25) = .5, scale .6; 400 studies of 10 seeds, 2 x 2 runs; within 4 standard errors."""
    rng, found = np.random.default_rng(5), []
    sds = base, unlearning, attack, base_o, attack_o = 0.06, 0.04, 0.03, 0.02, 0.04
    for _ in range(400):
        runs, originals = planted(rng, 10, 2, (0.55, 0.85), sds)
        seeds = [
            SeedRuns(i, FLOOR, FLOOR, r, [o], [[0.27]] * 2, 80, "ok")
            for i, (r, o) in enumerate(zip(runs, originals, strict=True))
        ]
        row = summary(seeds, "recovery_corrected")
        found.append((row["mean"], *(row[name] for name in VARIANCES[:3])))
    expected = 0.5, base**2 + 0.25 * base_o**2, unlearning**2, attack**2 + 0.25 * attack_o**2
    expected = np.array(expected) / (1, 0.36, 0.36, 0.36)
    error = np.std(found, axis=0) / math.sqrt(len(found))
    # Components printed as 0 where negative, and second-order terms of the ratio: 3 % more.
    assert (np.abs(np.mean(found, axis=0) - expected) < 4 * error + 0.03 * expected).all()
    assert (error < expected / 12).all()


def test_splits_and_persons_have_components():
    rng = np.random.default_rng(6)
    runs = rows_of(ATTACKED, ORIGINAL, UNLEARNED)
    split = {name: rng.normal(0, 0.1) for name in "abcde"}
    noise = iter(rng.normal(0, 0.01, 1000))
    for name, effect in split.items():
        own = [[[value + effect + next(noise) for value in run] for run in seed] for seed in ATTACKED]
        runs += rows_of(own, ORIGINAL, UNLEARNED, v_split=name)
    answers = {}
    groups = np.repeat(np.arange(40), 2)
    for seed in (21, 22):
        person = rng.normal(0, 0.3, 40)[groups]
        at = {**CELL, "seed": seed}
        key = tuple(at[name] for name in ("dataset", "arm", "model", "method", "attack", "variant", "seed"))
        key = (*key, 0.1, "nested", "letter_permuted")
        answers[key] = Answers(person + rng.normal(0, 0.1, 80), person * 0, groups, FLOOR, FLOOR)
    table = table_of(runs, answers)
    found = pick(table, "acc_attacked")
    assert found.var_v_split == pytest.approx(np.var(list(split.values()), ddof=1), rel=0.2)
    assert 0.05 < found.var_person < 0.15 and pick(table, "acc_original_attacked").var_person == 0
    assert math.isnan(pick(table, "recovery").var_person)
    assert math.isnan(pick(table_of(rows_of(ATTACKED, ORIGINAL, UNLEARNED)), "acc_attacked").var_v_split)
    once = table_of([row for row in runs if row["unlearning_repeat"] == 0])  # one unlearning, two attacks on it
    assert pick(once, "acc_attacked").var_v_split > 0 and math.isnan(pick(once, "acc_unlearned").var_v_split)


def test_sets_and_claims():
    """Ten seeds; seed 30 has no point, 29 is not known, 28 does not count, 27's original was not learned."""
    attacked = [[[0.5 + 0.01 * seed]] for seed in range(10)]
    runs = rows_of(attacked, [[0.9]] * 10, [[0.3]] * 10)
    status = dict.fromkeys(range(21, 31), "ok")
    status |= {30: "none_within_budget", 29: "not_known", 28: "not_unlearned", 27: "original_not_learned"}
    counting = {seed: seed < 28 for seed in status}
    table = table_of(runs, status=status, counts=counting)
    assert (table["n_cells"] == 10).all() and (table["n_counting"] == 7).all()
    assert pick(table, "acc_attacked").seeds == "21;22;23;24;25;26;27"
    assert pick(table, "acc_attacked", "known").seeds.endswith(";27;28")
    assert pick(table, "recovery_corrected").seeds.endswith(";26")  # no rate where the original was not learned
    assert set(table["claim"]) == {"no"}  # 7 of 10
    eight = table_of(runs, status="ok", counts=counting | {28: True})
    assert pick(eight, "acc_attacked").claim == "yes" and pick(eight, "acc_attacked").n_counting == 8


@pytest.mark.parametrize(("learned", "claim"), [(True, "yes"), (None, "yes"), (False, "no"), ("false", "no")])
def test_no_claim_rests_on_a_control_that_did_not_learn_t(learned, claim):
    """Ten seeds count; in one of them the attack on the control did not learn T."""
    runs = rows_of([[[0.5 + 0.01 * seed]] for seed in range(10)], [[0.9]] * 10, [[0.3]] * 10)
    controls = dict.fromkeys(range(21, 31), True) | {23: learned}
    table = table_of(runs, control_learned=controls)
    assert set(table["claim"]) == {claim} and pick(table, "recovery_corrected").n_seeds == 10
    others = {seed: seed != 23 for seed in controls}  # it does not count, and nothing rests on its control
    assert set(table_of(runs, control_learned=controls, counts=others)["claim"]) == {"yes"}


def test_two_counting_seeds_of_two_claim_nothing():
    assert set(table_of(rows_of(ATTACKED, ORIGINAL, UNLEARNED))["claim"]) == {"no"}


def test_one_seed_says_these_weights_and_has_no_interval():
    table = table_of(rows_of(ATTACKED[:1], ORIGINAL[:1], UNLEARNED[:1]))
    assert set(table["claim"]) == {"these weights"}
    assert table[["low", "high", "df", "sd_seed", "var_base"]].isna().all(axis=None)
    rate = pick(table, "recovery_corrected")
    assert rate["mean"] == pytest.approx(0.5 / 0.65) and rate.var_rtt > 0  # its runs were repeated all the same


def test_an_undefined_seed_stays_in_the_ratio_of_means():
    """Dropping seeds by their denominators would raise what is left; three of four denominators are far above f."""
    attacked = [[[value]] for value in (0.5, 0.55, 0.6, 0.3)]
    original = [[value] for value in (0.85, 0.86, 0.87, 0.7)]
    runs = rows_of(attacked, original, [[0.27]] * 4)
    found = pick(table_of(runs, status={21: "ok", 22: "ok", 23: "ok", 24: "undefined"}), "recovery_corrected")
    assert found["mean"] == pytest.approx((1.95 - 1) / (3.28 - 1)) and math.isnan(found.per_seed[-1])
    original[3] = [0.26]
    table = table_of(rows_of(attacked, original, [[0.27]] * 4), status={21: "ok", 22: "ok", 23: "ok", 24: "undefined"})
    assert pick(table, "recovery")["mean"] > 0  # r / o needs no floor
    none = pick(table, "recovery_corrected")  # one denominator of four is 0: the mean is .457 +- .48
    assert math.isnan(none["mean"]) and none.claim == "no"


def test_a_missing_run_is_left_out_and_the_mean_of_means_stays():
    runs = [row for row in rows_of(ATTACKED, ORIGINAL, UNLEARNED) if (row["seed"], row["attack_repeat"]) != (22, 1)]
    runs = [row for row in runs if (row["unlearning_repeat"], row["attack_repeat"]) != (0, 0) or row["seed"] == 22]
    found = pick(table_of(runs), "acc_attacked")
    assert found.per_seed == pytest.approx([(0.8 + (0.7 + 0.9) / 2) / 2, (0.4 + 0.5) / 2])
    assert found.var_rtt == pytest.approx(nested([[[0.8], [0.7, 0.9]], [[0.4], [0.5]]]).attack)


def test_an_unlearning_run_without_a_point_is_no_run():
    runs = rows_of(ATTACKED, ORIGINAL, UNLEARNED)
    for row in runs:
        if row["unlearning_repeat"] == 1 and row["seed"] == 22:
            row |= dict.fromkeys(("acc_attacked", "acc_unlearned"), math.nan)
    recovery = recovery_of(runs).assign(acc_attacked=0.5)
    assert pick(seed_table(pd.DataFrame(runs), recovery), "acc_attacked").per_seed == pytest.approx([0.75, 0.45])


def test_a_cell_without_runs_has_its_values_from_recovery():
    runs = rows_of(ATTACKED, ORIGINAL, UNLEARNED)
    table = seed_table(pd.DataFrame(runs).iloc[:0], recovery_of(runs))
    found = pick(table, "acc_attacked")
    assert found.per_seed == pytest.approx([0.75, 0.5]) and math.isnan(found.var_rtt)
    assert found.var_base == pytest.approx(0.03125)  # all of it


def test_floors_of_numerator_and_denominator_may_differ():
    """The strongest probe of the original is not that of the unlearned model, and neither is its floor."""
    runs = rows_of([[[value]] for value in (0.5, 0.55, 0.6)], [[0.85], [0.9], [0.8]], [[0.27]] * 3)
    found = pick(table_of(runs, original_floor=0.35), "recovery_corrected")
    assert found["mean"] == pytest.approx((1.65 - 0.75) / (2.55 - 1.05))
    assert found.per_seed == pytest.approx([0.25 / 0.5, 0.3 / 0.55, 0.35 / 0.45])

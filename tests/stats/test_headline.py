"""headline.csv: a row per facts and method, over the seeds that count, with a verdict that the criterion gives."""

import numpy as np
import pandas as pd
import pytest
from evals_builder import make_evals, tables
from report_builder import over_seeds, recovery, recovery_row
from rtt.stats.headline import COLUMNS, headline_table
from rtt.stats.probes import COLUMNS as PROBES_COLUMNS
from rtt.stats.tables import read_table
from scipy import stats

NAN = float("nan")
CELL = ["dataset", "arm", "model", "method"]
CONTROL = 0.3  # what the control reaches in `recovery_row`


def rows(*found):
    """Return the headline of some rows of recovery.csv, as records."""
    table = recovery(*found)
    return headline_table(table, pd.DataFrame(columns=PROBES_COLUMNS), over_seeds(table)).to_dict("records")


def seeds(n, method="GD", **changes):
    """Return `n` seeds of one method; a list among the changes has a value per seed."""
    return [
        recovery_row(method, seed=i, **{k: v[i] if isinstance(v, list) else v for k, v in changes.items()})
        for i in range(n)
    ]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A study of five seeds that a builder writes: GD counts in each, RMU was not unlearned in two."""
    folder = tmp_path_factory.mktemp("headline")
    accuracies = {("unlearned_attacked", "pretrained", "GD", seed): 0.55 + 0.05 * seed for seed in range(5)}
    accuracies |= {("unlearned", "pretrained", "RMU", seed): 0.6 for seed in (1, 3)} | {"unlearned": 0.25}
    make_evals(
        folder, arms=("pretrained",), methods=("GD", "RMU"), seeds=range(5), per_split=16, epochs=2, lrs=(1e-3,),
        steps=(10, 20), accuracies=accuracies, budgets=(0.05, 0.1), unlearning_repeats=2,
    )  # fmt: skip
    assert tables(folder) == 0
    return {path.stem: read_table(path) for path in (folder / "tables").glob("*.csv")}


def test_a_row_per_facts_and_method_of_what_is_reported_first(written):
    found, all_rows = written["headline"], written["recovery"]
    assert list(found) == COLUMNS and not found.duplicated(CELL).any()
    assert found[CELL].values.tolist() == all_rows[CELL].drop_duplicates().values.tolist()
    assert (set(found["retain_budget"]), set(found["look_choice"])) == ({0.1}, {"nested"})
    assert set(found["attack"]) == {"RTT"} and set(found["probe"]) == {all_rows["probe"].iloc[0]}


def test_over_seeds_a_row_has_the_numbers_of_seeds_csv(written):
    of_seeds = written["seeds"].assign(counts=1)
    for row in written["headline"].to_dict("records"):
        mask = np.logical_and.reduce([of_seeds[key] == row[key] for key in [*CELL, "retain_budget", "look_choice"]])
        own = of_seeds[mask & (of_seeds["set"] == row["set"])]
        assert row["set"] == ("counting" if row["method"] == "GD" else "known")
        assert (row["n_cells"], row["n_counting"]) == (5, 5 if row["method"] == "GD" else 3)
        for name in ("acc_unlearned", "acc_attacked", "acc_original_attacked", "recovery_corrected"):
            other = own[(own["probe"] == row["probe"]) & (own["quantity"] == name)].iloc[0]
            ends = [row[f"{name}{end}"] for end in ("", "_low", "_high")]
            assert ends == pytest.approx(other[["mean", "low", "high"]].tolist(), abs=2e-6), name
            assert row["seeds"] == other["seeds"] and row["n_seeds"] == 5
        other = own[(own["probe"] == "likelihood") & (own["quantity"] == "recovery_corrected")].iloc[0]
        ends = [row[f"recovery_corrected_likelihood{end}"] for end in ("", "_low", "_high")]
        assert ends == pytest.approx(other[["mean", "low", "high"]].tolist(), abs=2e-6)


def test_the_difference_to_the_control_is_a_paired_t_interval(written):
    row = written["headline"].query("method == 'GD'").iloc[0]
    table = written["recovery"]
    table = table[(table["method"] == "GD") & (table["probe"] == row["probe"]) & (table["look_choice"] == "nested")]
    table = table[table["retain_budget"] == 0.1]
    differences = table["acc_attacked"] - table["acc_control_attacked"]
    expected = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    found = row[["above_control", "above_control_low", "above_control_high"]].tolist()
    assert found == pytest.approx([differences.mean(), expected.low, expected.high], abs=2e-6)
    assert (row["verdict"], row["holds"]) == ("hidden", True) and row["why"] == ""
    assert row["acc_control_attacked"] == pytest.approx(table["acc_control_attacked"].mean(), abs=2e-6)


def test_most_seeds_decide_where_too_few_count(written):
    row = written["headline"].query("method == 'RMU'").iloc[0]
    assert (row["verdict"], row["counts"], row["status"]) == ("cannot_tell", False, "ok;not_unlearned")
    assert row["why"] == (
        "it was not unlearned by every probe (in 2 of 5 seeds); it counts in 3 of 5 seeds, and at least 8 of 10 must"
    )
    (worse,) = rows(*seeds(5, status=["ok", "ok", "not_unlearned", "not_unlearned", "below_floor"]))
    assert worse["verdict"] == "not_unlearned"  # as many count, but that would say more for the method


def test_one_seed_is_that_seed_with_its_intervals(tmp_path):
    make_evals(tmp_path, arms=("pretrained",), methods=("GD",), per_split=16, lrs=(1e-3,), epochs=1, steps=(10,))
    assert tables(tmp_path) == 0
    found, table, asked = (read_table(tmp_path / "tables" / f"{n}.csv") for n in ("headline", "recovery", "probes"))
    (row,) = found.to_dict("records")
    own = table[table["look_choice"] == "nested"].set_index("probe")
    for name in ("acc_unlearned", "acc_attacked", "acc_original_attacked", "acc_control_attacked"):
        for end in ("", "_low", "_high"):
            assert row[f"{name}{end}"] == own.loc[row["probe"], f"{name}{end}"]
    assert row["recovery_corrected_likelihood_low"] == own.loc["likelihood", "recovery_corrected_low"]
    before = asked[(asked["stage"] == "original") & (asked["probe"] == row["probe"])].iloc[0]
    assert [row[f"acc_before{end}"] for end in ("", "_low", "_high")] == before[["accuracy", "low", "high"]].tolist()
    assert row["seeds"] == "0" and np.isnan(row["above_control_low"])


@pytest.mark.parametrize(
    "changes, verdict, holds, why",
    [
        ({}, "hidden", True, ""),
        ({"acc_attacked": 0.33}, "none_shown", False, ""),
        ({"acc_attacked": 0.33, "cannot_tell": "recovery_corrected"}, "cannot_tell", False, "more than .25 from"),
        ({"acc_control_attacked": NAN}, "cannot_tell", None, "there is no control"),
        ({"control_learned": False, "t_acc_control_attacked": 0.46}, "cannot_tell", None, "learned T to .46 only"),
        ({"status": "attack_failed", "acc_attacked": 0.33}, "cannot_tell", None, "the attack did not learn T"),
        ({"status": "attack_failed"}, "hidden", True, ""),  # what came back came back
        ({"status": "original_not_learned", "acc_attacked": 0.33}, "cannot_tell", False, "there is no recovery rate"),
        ({"status": "not_unlearned"}, "not_unlearned", None, "not unlearned by every probe"),
        ({"status": "below_floor"}, "below_floor", None, "below the floor"),
        ({"status": "not_known"}, "not_known", None, "does not know these facts"),
        ({"status": "none_within_budget"}, "no_point", None, "within the budget"),
        ({"status": "undefined", "counts": False}, "not_unlearned", None, "or answers below the floor"),
    ],
)
def test_the_verdict_on_one_seed(changes, verdict, holds, why):
    (row,) = rows(recovery_row(**changes))
    assert (row["verdict"], row["holds"], row["n_cells"]) == (verdict, holds, 1)
    assert why in row["why"] and bool(row["why"]) == (verdict not in ("hidden", "none_shown"))


STEADY = [0.84, 0.85, 0.86, 0.85]
NOTHING = {"acc_attacked": [0.29, 0.31, 0.3, 0.3], "recovery_corrected": [-0.01, 0.01, 0.0, 0.0]}


@pytest.mark.parametrize(
    "n, changes, verdict, holds, why",
    [
        (4, {"acc_attacked": STEADY}, "hidden", True, ""),
        (4, {"acc_attacked": [0.9, 0.31, 0.3, 0.25]}, "cannot_tell", False, "more than .25 from"),
        (4, NOTHING, "none_shown", False, ""),
        (4, NOTHING | {"attack_learned": [True, True, False, True]}, "cannot_tell", None, "T in 1 of 4 seeds"),
        (2, {"acc_attacked": STEADY}, "cannot_tell", None, "takes 3, and 2 can be used"),
        (4, {"acc_control_attacked": NAN}, "cannot_tell", None, "there is no control in 4 of 4 seeds"),
        (4, {"control_learned": [True, False, True, True]}, "cannot_tell", None, "RTT on the control did not learn"),
        (
            10,
            {"control_learned": [False] + 9 * [True]},
            "cannot_tell",
            None,
            "on the control did not learn T in 1 of 10",
        ),
        (4, {"status": "not_known"}, "not_known", None, "does not know these facts (in 4 of 4 seeds)"),
        (4, {"status": "none_within_budget"}, "no_point", None, "within the budget (in 4 of 4 seeds)"),
        (4, {"status": ["not_unlearned", "below_floor", "below_floor", "ok"]}, "below_floor", None, "(in 2 of 4"),
    ],
)
def test_the_verdict_over_seeds(n, changes, verdict, holds, why):
    wide = {"recovery_corrected": [0.95, 0.02, 0.0, -0.1]} if "more than" in why else {}
    (row,) = rows(*seeds(n, **changes, **wide))
    assert (row["verdict"], row["holds"], row["n_cells"]) == (verdict, holds, n)
    assert why in row["why"] and bool(row["why"]) == (verdict not in ("hidden", "none_shown"))


def test_the_seed_that_learned_t_least_is_named():
    (row,) = rows(*seeds(3, t_acc_attacked=[1.0, 0.9, 0.99], attack_learned=[True, False, True]))
    assert (row["t_acc_attacked"], row["attack_learned"], row["control_learned"]) == (0.9, False, True)
    (row,) = rows(recovery_row(attack_learned=None, t_acc_attacked=NAN))  # an attack that uses no T
    assert row["attack_learned"] is None and np.isnan(row["t_acc_attacked"])


def test_without_a_point_the_others_still_have_their_numbers():
    (row,) = rows(*seeds(3, status="none_within_budget"))
    assert row["set"] == "all" and row["n_counting"] == 0
    assert row["acc_original_attacked"] == pytest.approx(0.95) and row["acc_control_attacked"] == pytest.approx(CONTROL)
    assert np.isnan(row["acc_attacked"]) and np.isnan(row["recovery_corrected"])


def test_a_study_without_attacks_has_the_header_alone():
    assert list(headline_table(recovery(), pd.DataFrame(), pd.DataFrame())) == COLUMNS

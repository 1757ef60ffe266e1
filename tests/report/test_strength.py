"""Unlearning runs, settings of an attack, and what lies at the edge of its grid."""

import math

import pandas as pd
import pytest
from report_builder import accuracy, recovery, recovery_row, view_of
from rtt.figures.view import make_view
from rtt.report import strength

SETTINGS = {
    "unlearn-GD": {"retain_coefficient": 2.0, "lr": 1e-3},
    "unlearn-GD-2": {"retain_coefficient": 8.0, "lr": 1e-3},
}


def view_of_two_runs():
    table = recovery(recovery_row("GD"))
    looks = accuracy(table)
    first = looks["run"] == "unlearn-GD"
    other = looks[first].assign(run="unlearn-GD-2", accuracy=0.5)
    chosen = looks[first & (looks["step"] == 20)].assign(retain_budget=0.1)
    return make_view(table, pd.concat([looks, other, chosen], ignore_index=True))


def test_unlearning_runs_are_told_apart_by_the_settings_that_differ():
    (group,) = strength.trajectories(view_of_two_runs(), SETTINGS)
    assert [(one.settings, one.points, one.last_step, one.forget, one.lowest, one.retain) for one in group.rows] == [
        ("retain_coefficient 2.0", 2, 20, ".28", ".28", ".85"),
        ("retain_coefficient 8.0", 2, 20, ".50", ".50", ".50"),
    ]
    assert [one.chosen for one in group.rows] == ["10 %", "none"]
    (group,) = strength.trajectories(view_of_two_runs(), {})
    assert [one.settings for one in group.rows] == ["–", "–"]


def test_attacked_points_are_counted_among_all_points():
    assert strength.attacked_points(view_of_two_runs()) == (1, 4)


def test_each_learning_rate_has_its_last_and_its_highest_epoch():
    table = recovery(recovery_row("GD", acc_attacked=0.8))
    looks = accuracy(table)
    early = (looks["setting"] == "epoch=1 lr=0.001") & (looks["stage"] == "unlearned_attacked") & (looks["set"] == "V")
    looks.loc[early, "accuracy"] = 0.61
    original, unlearned, control = strength.attacked_models(make_view(table, looks))
    assert [one.method for one in (original, unlearned, control)] == ["original", "GD", "control"]
    slow, fast = unlearned.series
    assert (slow.setting, slow.last, slow.highest, slow.best, slow.end) == ("learning rate 0.001", 0.4, 0.61, 1, 2)
    assert (fast.setting, fast.last, fast.highest, fast.on_t) == ("learning rate 0.002", 0.8, 0.8, 1.0)
    assert fast.before == pytest.approx(0.6)
    found = strength.setting_table("RTT", [original, unlearned, control])
    assert found.heads == [
        f"learning rate {rate}, {what}" for rate in (0.001, 0.002) for what in ("last epoch (T)", "highest")
    ]
    (group,) = found.groups
    assert group.rows[1].texts == [".40 (1.00)", ".61, epoch 1", ".80 (1.00)", ".80, epoch 2"]


def test_settings_without_epochs_and_without_t_have_one_value_each():
    models = strength.attacked_models(view_of(recovery_row("GD", attack="quantise", acc_attacked=0.8)))
    found = strength.setting_table("quantise", models)
    assert (found.epochs, found.trained) == (False, False)
    assert found.heads == ["bits=8 group_size=channel", "bits=4 group_size=channel"]
    assert [row.texts for row in found.groups[0].rows if row.method == "GD"] == [[".40", ".80"]]
    assert math.isnan(models[1].series[0].before)
    assert strength.edges("quantise", models) == [  # its strongest setting brings back .8, the other one .4
        "The strongest setting of quantise (bits=4 group_size=channel) brings back the most, so a stronger one may "
        "bring back more (from the second best setting to the strongest): GD, learned in pretraining .40 to .80."
    ]


def edges_where(**looks):
    """Return the edges where an unlearned model's looks have these accuracies."""
    table = recovery(recovery_row("GD"))
    found = accuracy(table)
    mine = (found["stage"] == "unlearned_attacked") & (found["set"] == "V")
    for name, value in looks.items():
        epoch, rate = name.strip("e").split("_at_")
        found.loc[mine & (found["setting"] == f"epoch={epoch} lr=0.00{rate}"), "accuracy"] = value
    return strength.edges("RTT", strength.attacked_models(make_view(table, found)))


def test_accuracy_that_rises_in_the_last_epoch_is_an_edge():
    flat = {"e1_at_1": 0.5, "e2_at_1": 0.85, "e1_at_2": 0.5, "e2_at_2": 0.5}
    (text,) = edges_where(**flat)
    assert "still rises in the last epoch of RTT" in text and text.endswith(": GD, learned in pretraining .50 to .85.")
    assert edges_where(**flat | {"e1_at_1": 0.84}) == []  # by .01 alone
    assert edges_where(**flat | {"e1_at_1": 0.85, "e2_at_1": 0.5}) == []  # the highest is not the last


def test_a_strongest_setting_that_brings_back_the_most_is_an_edge():
    flat = {"e1_at_1": 0.5, "e2_at_1": 0.5, "e1_at_2": 0.85, "e2_at_2": 0.85}
    (text,) = edges_where(**flat)
    assert "(learning rate 0.002)" in text and text.endswith(": GD, learned in pretraining .50 to .85.")
    assert edges_where(**flat | {"e2_at_1": 0.84}) == []
    assert edges_where(**{"e1_at_1": 0.85, "e2_at_1": 0.85, "e1_at_2": 0.5, "e2_at_2": 0.5}) == []

"""Each caveat is raised by its cause, names the results that raise it, and no others."""

import pytest
from report_builder import recovery_row, view_of
from rtt.report import caveats as module
from rtt.report.rows import control_datasets, results, shown

NAN = float("nan")
CALM = {"acc_control_attacked": 0.28}


def caveats(*rows):
    view = view_of(*rows)
    found = results(view)
    return module.caveats(found, shown(found, view), control_datasets(view), ["an edge"])


@pytest.mark.parametrize(
    ("changes", "text", "value"),
    [
        ({"t_acc_attacked": 0.89}, "RTT did not learn T (accuracy on T stays below .90)", " .89."),
        ({"status": "below_floor"}, module.STATUSES["below_floor"], " .28 [.23, .33], floor .27."),
        ({"status": "not_unlearned"}, module.STATUSES["not_unlearned"], " .28 [.23, .33], floor .27."),
        ({"status": "undefined"}, module.STATUSES["undefined"], " .28 [.23, .33], floor .27."),
        ({"status": "none_within_budget"}, "within 10 %, so nothing was attacked", "."),
        ({"recovery_corrected_low": 0.6, "recovery_corrected_high": 0.95}, "is wider than .30", " .86 [.60, .95]."),
    ],
)
def test_a_caveat_names_the_result_that_raises_it(changes, text, value):
    assert not any(text in one for one in caveats(recovery_row(**CALM)))
    (hit,) = [one for one in caveats(recovery_row("GD", **CALM), recovery_row("RMU", **CALM, **changes)) if text in one]
    assert hit.endswith(f": RMU, learned in pretraining{value}")


@pytest.mark.parametrize(
    ("control", "text", "value"),
    [
        (0.4, "The control itself ends above the floor", " .40 [.35, .45], floor .27."),
        (NAN, "There is no control", "."),
    ],
)
def test_a_control_speaks_once_for_all_methods_of_its_arm(control, text, value):
    assert not any(text in one for one in caveats(recovery_row(**CALM)))
    rows = [recovery_row(method, acc_control_attacked=control) for method in ("GD", "RMU")]
    (hit,) = [one for one in caveats(*rows) if text in one]
    assert hit.endswith(f": control, learned in pretraining{value}")


def test_seeds_are_named_where_there_are_several():
    rows = [recovery_row(seed=seed, status=status) for seed, status in ((3, "ok"), (4, "not_unlearned"))]
    assert any("GD, learned in pretraining, seed 4 .28" in one for one in caveats(*rows))
    assert not any("There is one seed" in one for one in caveats(*rows))
    assert any("There is one seed" in one for one in caveats(recovery_row()))


def test_a_control_of_other_facts_is_named():
    (text,) = [one for one in caveats(recovery_row(dataset="people_p")) if "with other facts than the arm" in one]
    assert "for facts learned in pretraining (people_p) they are people_f" in text
    assert not any("other facts than the arm" in one for one in caveats(recovery_row(dataset="own")))


def test_a_model_that_still_knows_by_another_probe_is_named():
    rows = [recovery_row(), recovery_row(probe="likelihood", status="not_unlearned", acc_unlearned=0.5)]
    (text,) = [one for one in caveats(*rows) if "above the floor by likelihood of the choice" in one]
    assert text.endswith(": GD, learned in pretraining .50 [.45, .55].")
    rows[0]["status"] = "not_unlearned"  # by the main probe, too: then it does not count as unlearned
    assert not any("above the floor by likelihood" in one for one in caveats(*rows))


@pytest.mark.parametrize(("retain", "raised"), [(0.7, True), (0.86, False)])
def test_teaching_that_costs_retain_accuracy_is_a_caveat(retain, raised):
    rows = [recovery_row(), recovery_row(arm="taught", retain_before=retain)]
    texts = [one for one in caveats(*rows) if "Teaching lowered retain accuracy" in one]
    assert bool(texts) == raised
    if raised:
        assert "(it is .90 without teaching)" in texts[0] and texts[0].endswith(" .70.")


def test_the_ratio_of_a_model_in_which_nothing_is_left_is_computed():
    assert any("would score .28 here" in one for one in caveats(recovery_row()))  # .27 / .95
    assert not any("would score" in one for one in caveats(recovery_row(acc_original_attacked=NAN)))


def test_edges_of_the_settings_go_last():
    assert caveats(recovery_row())[-1] == "an edge"

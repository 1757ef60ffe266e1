"""The rows of the report's tables equal the tables that they are made from."""

import pandas as pd
import pytest
from report_builder import full_study, recovery_row, results_of, view_of
from rtt.report import rows
from rtt.report.allowance import allowance


def test_a_result_holds_the_numbers_of_its_row():
    row = recovery_row(
        "RMU", "taught", 3, retain_budget=0.3, probe="likelihood", acc_attacked=0.61, acc_oracle_attacked=0.2
    )
    (found,) = results_of(row)
    for name in ("attack", "method", "seed", "retain_budget", "look_choice", "probe", "n_questions", "status"):
        assert getattr(found, name) == row[name]
    for name in rows.NUMBERS:
        assert getattr(found, name) == row[name]
    for name in rows.ESTIMATES:
        one = getattr(found, name)
        assert (one.value, one.low, one.high) == tuple(row[f"{name}{end}"] for end in ("", "_low", "_high"))
        assert one.clear
    assert (found.panel.dataset, found.panel.arm) == ("people_f", "taught")
    assert str(found.acc_attacked) == ".61 [.56, .66]"


def test_a_measure_that_cannot_be_told_is_words_and_its_interval():
    wide = {"recovery_corrected_low": 0.5, "recovery_corrected_high": 1.2, "cannot_tell": "recovery_corrected"}
    (found,) = results_of(recovery_row(**wide))
    assert str(found.recovery_corrected) == "cannot tell [.50, 1.20]" and not found.recovery_corrected.clear
    assert str(found.recovery) == ".89 [.84, .94]" and found.recovery.clear


@pytest.mark.parametrize(
    ("changes", "counts", "holds"),
    [
        ({"acc_attacked_low": 0.36}, True, True),
        ({"acc_attacked_low": 0.35}, True, False),
        ({"status": "not_unlearned"}, False, None),
        ({"status": "below_floor"}, False, None),
        ({"status": "not_known"}, False, None),
        ({"status": "none_within_budget"}, False, None),
        ({"acc_control_attacked_high": float("nan")}, True, None),
        ({"control_learned": False}, True, None),  # nothing was tested on the control
        ({"control_learned": float("nan")}, True, True),  # an attack that uses no T
        ({"status": "attack_failed"}, True, True),  # a lower bound that exceeds it all the same
        ({"status": "attack_failed", "acc_attacked_low": 0.35}, True, None),
        ({"status": "original_not_learned"}, True, True),  # no rate, but accuracy came back
        ({"status": "original_not_learned", "acc_attacked_low": 0.28}, True, False),
        ({"status": "original_not_learned", "acc_attacked_low": 0.28, "attack_learned": False}, True, None),
        ({"status": "undefined", "acc_attacked_low": 0.28, "attack_learned": False}, True, None),
    ],
)
def test_a_result_says_whether_it_counts_and_whether_the_criterion_holds(changes, counts, holds):
    (found,) = results_of(recovery_row(**{"acc_control_attacked_high": 0.35} | changes))
    assert (found.counts, found.holds) == (counts, holds)


def test_perplexities_are_before_and_after():
    after = {"GD": 3.4242, "RMU": 1234.5, "RIA": 2e43}
    given = [recovery_row(name, perplexity_before=3.1415, perplexity_unlearned=x) for name, x in after.items()]
    found = results_of(*given, recovery_row("FIF", status="none_within_budget"))
    texts = {one.method: one.perplexities for one in found}
    assert texts == {"GD": "3.14 → 3.42", "RMU": "3.14 → 1234", "RIA": "3.14 → 2e+43", "FIF": "3.14 → –"}


def test_a_budget_is_told_in_points_of_each_arm_s_own_retain_accuracy():
    """10 % of the mean over seeds, by the probes that hold the budget; where the study says none, by the headline."""
    both = ("letter_permuted", "likelihood")
    before = {"pretrained": (1.0, 0.9), "taught": (0.8, 0.5)}
    given = [
        recovery_row(arm=arm, seed=seed, probe=probe, retain_before=before[arm][i] + 0.02 * seed)
        for arm in before for seed in (0, 1) for i, probe in enumerate(both)
    ]  # fmt: skip
    view, start = view_of(*given), "A budget of 10 % lets retain accuracy "
    letters = "by permuted letters fall by .10 from 1.01 ({}) and .08 from .81 ({})"
    likelihood = "by likelihood fall by .09 from .91 ({}) and .05 from .51 ({})"
    facts = [panel.facts for panel in view.panels]
    letters, likelihood = letters.format(*facts), likelihood.format(*facts)
    assert allowance(view, {}) == f"{start}{letters}."
    assert allowance(view, {"point_choice": {"retain_probe": "likelihood"}}) == f"{start}{likelihood}."
    asked = {"point_choice": {"retain_probe": [*both, "cloze"]}}
    assert allowance(view, asked) == f"{start}{letters}; {likelihood}."


def test_variants_are_no_results_of_the_study():
    (found,) = results_of(recovery_row(), recovery_row(variant="x", acc_attacked=0.1))
    assert found.acc_attacked.value == 0.85


def test_the_shown_results_are_of_the_view_s_attack_budget_look_choice_and_probe():
    others = [{"attack": "quantise"}, {"retain_budget": 0.3}, {"look_choice": "paper"}, {"probe": "likelihood"}]
    given = [recovery_row(acc_attacked=0.61), *(recovery_row(**one) for one in others)]
    view, found = view_of(*given), results_of(*given)
    assert [one.acc_attacked.value for one in rows.shown(found, view)] == [0.61]
    assert [one.attack for one in rows.alike(found, view)] == ["RTT", "quantise"]


def test_recovery_tables_begin_with_the_main_probe_and_the_nested_choice():
    given = [
        recovery_row(probe=probe, look_choice=look_choice, acc_attacked=value, cannot_tell=unclear)
        for probe, look_choice, value, unclear in (
            ("likelihood", "paper", 0.1, ""),
            ("likelihood", "nested", 0.2, "recovery"),
            ("letter_permuted", "paper", 0.3, ""),
            ("letter_permuted", "nested", 0.4, ""),
        )
    ]
    found = rows.recovery_tables(results_of(*given), view_of(*given), "RTT")
    assert [(t.probe, t.look_choice, t.unclear, t.groups[0].rows[0].acc_attacked.value) for t in found] == [
        ("likelihood", "nested", True, 0.2),
        ("likelihood", "paper", False, 0.1),
        ("permuted letters", "nested", False, 0.4),
        ("permuted letters", "paper", False, 0.3),
    ]


def test_rows_stand_under_their_facts_by_method_and_seed():
    table = full_study((0, 11)).query("look_choice == 'nested' and probe == 'letter_permuted'")
    given = table.sample(frac=1, random_state=0).to_dict("records")
    (found,) = rows.recovery_tables(results_of(*given), view_of(*given), "RTT")
    methods = [(method, seed) for method in ("GD", "RMU", "RIA", "FIF") for seed in (0, 11)]
    assert [(group.facts, [(one.method, one.seed) for one in group.rows]) for group in found.groups] == [
        ("Learned in pretraining", methods),
        ("Taught later", methods),
        ("Taught later, same data", methods),
    ]


def test_probes_are_compared_cell_by_cell():
    given = [
        recovery_row(method, probe=probe, acc_attacked=value)
        for probe, method, value in (
            ("likelihood", "GD", 0.6),
            ("likelihood", "RMU", 0.7),
            ("letter_permuted", "GD", 0.8),
        )
    ]
    (group,) = rows.by_probe(view_of(*given))
    assert [(c.method, c.label, c.acc_attacked, c.retain_unlearned) for c in group.rows] == [
        ("GD", "likelihood", ".60 [.55, .65]", ".85"),
        ("GD", "permuted letters", ".80 [.75, .85]", ".85"),
        ("RMU", "likelihood", ".70 [.65, .75]", ".85"),
    ]
    assert rows.by_probe(view_of(recovery_row())) == []


def test_budgets_are_compared_with_the_steps_of_the_points_chosen():
    given = [
        recovery_row(retain_budget=budget, seed=seed, acc_attacked=value)
        for budget, seed, value in ((1.0, 0, 0.9), (0.1, 0, 0.6), (0.1, 1, 0.8))
    ]
    view = view_of(*given)
    points = view.accuracy[(view.accuracy["stage"] == "unlearned") & (view.accuracy["step"] == 20)]
    chosen = [points[points["seed"] == seed].iloc[:1].assign(retain_budget=0.1, step=10 + seed) for seed in (1, 0)]
    view.accuracy = pd.concat([view.accuracy, *chosen])
    (group,) = rows.by_budget(view)
    assert [(c.label, c.detail, c.acc_attacked) for c in group.rows] == [
        ("10 %", "10, 11", ".70 (seeds .60 to .80)"),
        ("100 %", "–", ".90 [.85, .95]"),
    ]
    assert rows.by_budget(view_of(recovery_row())) == []


def test_a_cell_without_a_value_is_a_dash_and_has_its_status():
    given = [recovery_row(probe=probe, status="none_within_budget") for probe in ("letter_permuted", "likelihood")]
    (group,) = rows.by_probe(view_of(*given))
    assert {(c.acc_attacked, c.recovery, c.t_acc_attacked, c.status) for c in group.rows} == {
        ("–", "–", "–", "none within budget")
    }

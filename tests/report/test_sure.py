"""The box "How sure are we?": each cause is told where it applies, the gravest first, and no more than three."""

from types import SimpleNamespace

import pandas as pd
import pytest
from report_builder import ALL_C, SAYS_C, UNLEARNED, accuracy, probe_rows, recovery, recovery_row
from rtt.figures.outcomes import of_panels, outcomes
from rtt.figures.view import make_view
from rtt.report.criteria import criteria
from rtt.report.rows import results
from rtt.report.sure import sure
from rtt.report.tested import asked_models

NAN = float("nan")
LIMITS = criteria({}, ["letter_permuted", "likelihood"])
SEEDS = (0, 1, 2)


def box(*rows, probes=(), guessed=(), among=None, tried=("RTT",)):
    """Return the box of such rows of recovery.csv, and of lists of rows of probes.csv."""
    table = recovery(*rows)
    asked = pd.DataFrame([row for model in probes for row in model]) if probes else None
    view = make_view(table, accuracy(table), asked)
    told = of_panels(outcomes(view), view.panels[:1])
    return sure(asked_models(view), results(view), view.panels[:1], LIMITS, list(guessed), among, told, tried)


def over(**changes):
    """Return rows of three seeds that differ in nothing."""
    return [recovery_row(seed=seed, **changes) for seed in SEEDS]


CAUSES = [
    (over(status="not_known"), "did not know the facts well enough in three of three runs"),
    (over(acc_control_attacked=NAN, control_learned=None), "There is no control"),
    (over(control_learned=False, t_acc_control_attacked=0.46), "the control learned only 46.0 % of T, where 97 %"),
    (over(status="original_not_learned"), "The original itself did not learn T"),
    (over(status="attack_failed", t_acc_attacked=0.8), "The attack on GD learned only 80 % of T in three of three"),
    (over(status="not_unlearned"), "GD in three of three runs does not count as unlearned: asked in other ways"),
    (over(status="none_within_budget"), "does not count as unlearned: what else the model knew was lost"),
    ([recovery_row()], "This is one run: another seed gives other numbers."),
    (over(acc_control_attacked=0.5), "The control ends above guessing in three of three runs"),
    (over(recovery_corrected_low=0.2, recovery_corrected_high=0.8), "There are few questions (160)"),
    (over(), "Only RTT was tried, and another one may bring back more"),
    (over(), "The test of forgetting allows 15 % above guessing"),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "text"), CAUSES)
def test_each_cause_is_told_where_it_applies_and_nowhere_else(rows, text):
    assert any(text in one for one in box(*rows).weak), box(*rows).weak
    if text not in [told for _, told in CAUSES[-2:]]:
        assert not any(text in one for one in box(*over()).weak)


def test_the_gravest_come_first_and_three_at_most():
    low = {"control_learned": False, "t_acc_control_attacked": 0.46, "acc_control_attacked": 0.6}
    weak = box(
        recovery_row(**low), recovery_row("RMU", status="not_unlearned", **low), guessed=[("people_p", 0.4, 0.25)]
    ).weak
    assert [text.split()[0] for text in weak] == ["The", "RMU", "This"] and "46.0 %" in weak[0]


def test_attacks_that_were_tried_matter_most_where_none_showed_anything():
    low = box(*over(acc_attacked=0.31, recovery_corrected=0.05), tried=("RTT", "quantisation")).weak
    assert low[0].startswith("Two attacks were tried") and low[0].endswith("what came back is a lower bound.")
    assert not any("tried" in text for text in box(*over(status="not_unlearned")).weak)


def test_a_model_that_says_one_letter_is_named_with_its_letter():
    probes = [probe_rows(stage="unlearned", method="GD", values=SAYS_C, said=ALL_C, seed=seed) for seed in SEEDS]
    assert "GD says C to 158 of 160 questions." in box(*over(status="not_unlearned"), probes=probes).weak[0]


def test_an_oracle_that_fails_makes_the_test_strict():
    oracles = [probe_rows(stage="oracle", values=UNLEARNED | {"cloze": 0.5}, seed=seed) for seed in SEEDS]
    assert (
        "the oracle, which never saw the facts, does not pass it in three of three runs"
        in box(*over(), probes=oracles).weak[0]
    )
    passed = [probe_rows(stage="oracle", values=UNLEARNED, seed=seed) for seed in SEEDS]
    assert not any("strict" in text for text in box(*over(), probes=passed).weak)


def test_one_seed_stands_among_those_of_the_reference():
    among = SimpleNamespace(seeds=list(range(10)), span="60 to 92 %")
    text = box(recovery_row(), among=among).weak[0]
    assert text.endswith("Over the project's ten other runs, 60 to 92 % of what could come back did.")


def test_guessing_is_told_of_the_facts_of_the_claim_alone():
    assert any(
        "33 % right, where chance gives 25 %" in text for text in box(*over(), guessed=[("people_p", 0.33, 0.25)]).weak
    )
    assert not any("guessed" in text for text in box(*over(), guessed=[("cities", 0.33, 0.25)]).weak)


def test_what_speaks_for_it_needs_a_control_that_learned_and_stays_low():
    assert box(*over()).strong == (
        "The comparison is fair: the control, which never knew the facts, learned 100 % of T in the same attack, and "
        "answers 30 % of V, about as by guessing."
    )
    for changes in (
        {"control_learned": False},
        {"acc_control_attacked": NAN},
        {"acc_control_attacked": 0.6},
        {"status": "not_known"},
    ):
        assert box(*over(**changes)).strong == "", changes

"""What the report says in sentences: claim, criterion, seeds, caveats."""

import pytest
from report_builder import accuracy, recovery, recovery_row, view_of
from rtt.figures.view import make_view
from rtt.report import conclusions

NAN = float("nan")


def claim(*rows):
    view = view_of(*rows)
    return conclusions.claim(view, conclusions.main_panels(view)[0])


def verdict(*rows):
    view = view_of(*rows)
    return conclusions.criterion_sentence(conclusions.judge(view, conclusions.main_panels(view)[0]))


def caveats(*rows):
    table = recovery(*rows)
    view = make_view(table, accuracy(table))
    return conclusions.caveats(view, table, accuracy(table))


# ---- the claim and the criterion


def test_claim_when_all_methods_hide():
    rows = [
        recovery_row("GD", acc_attacked=0.8, acc_unlearned=0.25),
        recovery_row("RMU", acc_attacked=0.9, acc_unlearned=0.31),
    ]
    assert claim(*rows) == (
        "Both methods hid the facts learned in pretraining, at least in part, rather than removing them: unlearning "
        "takes accuracy on V from .97 to between .25 and .31 (floor .27), and after retraining on T alone it is "
        "between .80 [.75, .85] (GD) and .90 [.85, .95] (RMU), against .95 [.90, 1.00] for the original and "
        ".30 [.25, .35] for a control that never learned the facts."
    )


def test_claim_says_the_opposite_when_the_data_do():
    text = claim(recovery_row("GD", acc_attacked=0.33), recovery_row("RMU", acc_attacked=0.31))
    assert text.startswith(
        "This run does not show that any of the facts learned in pretraining come back after unlearning with GD and "
        "RMU: "
    )
    mixed = claim(recovery_row("GD", acc_attacked=0.33), recovery_row("RMU", acc_attacked=0.9))
    assert mixed.startswith(
        "RMU hid the facts learned in pretraining, at least in part, rather than removing them, "
        "while this run does not show that any come back after unlearning with GD: "
    )


def test_claim_leaves_out_what_was_never_unlearned_or_attacked():
    text = claim(
        recovery_row("GD", acc_attacked=0.8),
        recovery_row("RMU", status="not_unlearned"),
        recovery_row("RIA", status="none_within_budget"),
    )
    assert text.startswith("GD hid the facts")
    assert "; not counted: RMU: not unlearned to the floor" in text
    assert "RIA: no point of the unlearning run" in text
    nothing = claim(recovery_row("GD", acc_control_attacked=NAN))
    assert nothing == (
        "Whether the facts learned in pretraining were removed or hidden cannot be told from this run; not counted: "
        "GD: there is no control."
    )


def test_claim_is_about_seed_0_or_the_lowest_and_the_pretrained_arm():
    rows = [
        recovery_row(seed=11, acc_attacked=0.6),
        recovery_row(seed=12, acc_attacked=0.9),
        recovery_row(arm="taught", seed=11),
    ]
    assert ".60 [.55, .65] (GD)" in claim(*rows)
    assert ".70 [.65, .75] (GD)" in claim(*rows, recovery_row(seed=0, acc_attacked=0.7))
    assert "facts taught later, as in the paper" in claim(recovery_row(arm="taught"))


def test_criterion_holds_fails_or_is_open():
    good = recovery_row("GD", acc_attacked_low=0.351, acc_control_attacked_high=0.35)
    bad = recovery_row("RMU", acc_attacked_low=0.35, acc_control_attacked_high=0.35)
    absent = recovery_row("RIA", status="none_within_budget")
    void = recovery_row("FIF", status="not_unlearned")
    assert verdict(good) == "The criterion holds for the one method."
    assert verdict(good, bad).startswith("The criterion fails: for RMU the low end")
    assert verdict(good, absent) == "The criterion is not met: it cannot be judged for RIA."
    assert "fails: for RMU" in verdict(bad, absent)
    assert "cannot be judged for RIA" in verdict(bad, absent)
    assert verdict(good, void).endswith("It says little about FIF, not unlearned to the floor.")


# ---- seeds


def test_one_seed_supports_no_statement():
    assert "one seed cannot support a statement" in conclusions.over_seeds_sentence(view_of(recovery_row()))


def test_over_seeds_uses_a_t_interval_and_leaves_out_what_means_nothing():
    values = (0.6, 0.7, 0.8)
    rows = [recovery_row(seed=s, acc_attacked=v, acc_control_attacked=0.3) for s, v in enumerate(values)]
    rows.append(recovery_row(seed=3, acc_attacked=0.99, status="not_unlearned"))
    (cell,) = conclusions.over_seeds(view_of(*rows))
    assert cell["differences"] == pytest.approx([0.3, 0.4, 0.5])
    # mean .4, s = .1, t(.975; 2) = 4.302653: half width 4.302653 * .1 / sqrt(3)
    assert (cell["low"], cell["high"]) == pytest.approx((0.4 - 0.248414, 0.4 + 0.248414), abs=1e-6)
    assert (cell["n"], cell["left_out"], cell["above"]) == (3, 1, 3)


def test_over_seeds_sentence_names_the_methods():
    rows = [
        recovery_row(m, seed=s, acc_attacked=v)
        for m, a in (("GD", (0.8, 0.81)), ("RMU", (0.2, 0.5)))
        for s, v in enumerate(a)
    ]
    assert conclusions.over_seeds_sentence(view_of(*rows)) == (
        "Over 2 seeds, the t interval of accuracy on V after RTT, unlearned minus control, lies above 0 for "
        "facts learned in pretraining: 1 of 2 methods (GD)."
    )


def test_a_wide_interval_is_no_evidence_that_facts_are_gone():
    wide = recovery_row("GD", acc_attacked=0.33, cannot_tell="recovery;recovery_corrected")
    text = claim(wide)
    assert text.startswith("Whether the facts learned in pretraining were removed or hidden cannot be told")
    assert "GD: cannot tell: the interval of recovery reaches further than .25" in text
    assert verdict(wide).startswith("The criterion fails: for GD")  # as it was fixed, it stays
    hidden = claim(recovery_row("GD", acc_attacked=0.8, cannot_tell="recovery;recovery_corrected"))
    assert hidden.startswith("GD hid the facts")  # that they came back does not hang on the rate


# ---- caveats


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"acc_control_attacked": 0.4}, "The control itself ends above the floor"),
        ({"acc_control_attacked": NAN}, "There is no control"),
        ({"t_acc_attacked": 0.89}, "RTT did not learn T (accuracy on T below .90)"),
        ({"status": "over_unlearned"}, "Forget accuracy lies below the floor"),
        ({"status": "not_unlearned"}, "Forget accuracy still lies above the floor"),
        ({"status": "undefined"}, "no recovery rate is defined"),
        ({"status": "none_within_budget"}, "No point of the unlearning run keeps retain accuracy within 10 %"),
        ({"recovery_corrected_low": 0.6, "recovery_corrected_high": 0.95}, "is wider than .30"),
    ],
)
def test_each_caveat_is_raised_by_its_cause_alone(changes, text):
    calm = {"acc_control_attacked": 0.28}
    assert not any(text in sentence for sentence in caveats(recovery_row(**calm)))
    hits = [s for s in caveats(recovery_row("GD", **calm), recovery_row("RMU", **(calm | changes))) if text in s]
    if "acc_control_attacked" in changes:  # one control per arm and seed: the first row speaks for it
        hits = [s for s in caveats(recovery_row("RMU", **(calm | changes))) if text in s]
        assert len(hits) == 1
    else:
        assert len(hits) == 1
        assert "RMU, learned in pretraining" in hits[0]
        assert "GD" not in hits[0]


def test_caveats_on_other_facts_in_the_control_scorings_and_retain():
    rows = [recovery_row(), recovery_row(probe="likelihood", status="not_unlearned", acc_unlearned=0.5)]
    rows.append(recovery_row(arm="taught", retain_before=0.7))
    found = " ".join(caveats(*rows))
    assert "facts learned in pretraining (people_p) have people_f as control" in found
    assert "and yet above the floor by likelihood of the choice: GD, learned in pretraining .50 [.45, .55]." in found
    assert "Teaching cost retain accuracy before any unlearning (.90 without it)" in found
    assert "would score .28 here, not 0" in found  # .27 / .95
    assert not any(
        "Teaching" in text for text in caveats(recovery_row(), recovery_row(arm="taught", retain_before=0.86))
    )

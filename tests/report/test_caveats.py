"""Each caveat is raised by its cause, names the results that raise it, and no others."""

import pandas as pd
import pytest
from report_builder import (
    ALL_C,
    KNOWS,
    MIXED,
    SAYS_C,
    UNLEARNED,
    accuracy,
    audit,
    probe_rows,
    recovery,
    recovery_row,
    view_of,
)
from rtt.figures.view import make_view
from rtt.report import caveats as module
from rtt.report.audits import guessable
from rtt.report.criteria import criteria
from rtt.report.rows import control_datasets, results, shown
from rtt.report.tested import asked_models, unlearned_test

NAN = float("nan")
CALM = {"acc_control_attacked": 0.28}
LIMITS = criteria({}, ["letter_permuted", "likelihood"])


def caveats(*rows, probes=()):
    """The caveats of such rows of recovery.csv, and of lists of rows of probes.csv."""
    table = recovery(*rows)
    asked = pd.DataFrame([row for model in probes for row in model]) if probes else None
    view = make_view(table, accuracy(table), asked)
    found = results(view)
    return module.caveats(asked_models(view), shown(found, view), control_datasets(view), ["an edge"], LIMITS)


def test_texts_that_tell_v_are_named_for_the_studys_own_facts():
    told = {"n": 160, "groups": 160, "accuracy": 0.33, "low": 0.28, "high": 0.4, "floor": 0.25, "by": "-"}
    guesser = {"choices": told, "fresh_choices": told | {"low": 0.24}}
    audits = [audit("people_p", guesser=guesser), audit("people_f", guesser=guesser), audit("cities"), {}]
    assert guessable(audits, ["people_p", "cities"]) == ["people_p (choices .33 [.28, .40], floor .25)"]
    found = results(view_of(recovery_row()))
    said = module.caveats([], found, {}, [], LIMITS, ["people_p (choices .33 [.28, .40], floor .25)"])
    assert one(said, "sees texts alone").endswith(": people_p (choices .33 [.28, .40], floor .25).")
    assert not any("sees texts alone" in text for text in module.caveats([], found, {}, [], LIMITS))


def one(texts, part):
    (found,) = [text for text in texts if part in text]
    return found


@pytest.mark.parametrize(
    ("changes", "text", "value"),
    [
        (
            {"status": "attack_failed", "t_acc_attacked": 0.89},
            "RTT did not learn T at any setting (.97 is asked for)",
            " .89.",
        ),
        (
            {"status": "undefined", "attack_learned": False, "t_acc_attacked": 0.4},
            "RTT did not learn T at any setting (.97 is asked for)",
            " .40.",
        ),
        ({"status": "below_floor"}, module.STATUSES["below_floor"], "."),
        ({"status": "not_unlearned"}, module.STATUSES["not_unlearned"], "."),
        ({"status": "undefined"}, module.STATUSES["undefined"], "."),
        # behind a status about the original
        ({"status": "undefined", "counts": False}, module.STATUSES["not_unlearned"], "."),
        ({"status": "original_not_learned", "counts": False}, module.STATUSES["not_unlearned"], "."),
        ({"status": "none_within_budget"}, "within 10 %, so nothing was attacked", "."),
        ({"recovery_corrected_low": 0.6, "recovery_corrected_high": 0.95}, "is wider than .30", " .86 [.60, .95]."),
    ],
)
def test_a_caveat_names_the_result_that_raises_it(changes, text, value):
    assert not any(text in one for one in caveats(recovery_row(**CALM)))
    hit = one(caveats(recovery_row("GD", **CALM), recovery_row("RMU", **CALM, **changes)), text)
    assert hit.endswith(f": RMU, learned in pretraining{value}")


@pytest.mark.parametrize(
    ("changes", "who", "text", "value"),
    [
        (
            {"acc_control_attacked": 0.4},
            "control",
            "The control itself ends above the floor",
            " .40 [.35, .45], floor .27.",
        ),
        ({"acc_control_attacked": NAN}, "control", "There is no control", "."),
        (
            {"control_learned": False, "t_acc_control_attacked": 0.46},
            "control",
            "RTT did not bring the control to learn T (.97 is asked for), so no claim rests on it",
            " .46.",
        ),
        (
            {"t_acc_oracle_attacked": 0.5},
            "oracle",
            "RTT did not bring the oracle to learn T (.97 is asked for), so removal may look like more than it shows",
            " .50.",
        ),
        (
            {"status": "original_not_learned", "t_acc_original_attacked": 0.83},
            "original",
            "RTT did not bring the original to learn T (.97 is asked for), so there is no recovery rate",
            " .83.",
        ),
    ],
)
def test_original_and_control_speak_once_for_all_methods_of_their_arm(changes, who, text, value):
    assert not any(text in one for one in caveats(recovery_row(**CALM)))
    rows = [recovery_row(method, **CALM | changes) for method in ("GD", "RMU")]
    assert one(caveats(*rows), text).endswith(f": {who}, learned in pretraining{value}")


@pytest.mark.parametrize("first", ["none_within_budget", "ok"])
def test_an_original_that_was_not_learned_is_told_whichever_method_stands_first(first):
    """Status is a method's: one without a point says so first."""
    odd = recovery_row("RMU", **CALM, status="original_not_learned", t_acc_original_attacked=0.83)
    text = one(caveats(recovery_row("GD", **CALM, status=first), odd), "RTT did not bring the original to learn T")
    assert text.endswith(": original, learned in pretraining .83.")


def test_seeds_are_named_where_few_of_several_are_hit():
    rows = [recovery_row(seed=seed, status=status) for seed, status in ((3, "ok"), (4, "not_unlearned"), (5, "ok"))]
    assert any(text.endswith(": GD, learned in pretraining, seed 4.") for text in caveats(*rows))
    assert not any("There is one seed" in text for text in caveats(*rows))
    rows[0] = recovery_row(seed=3, status="not_unlearned")
    assert any(text.endswith(": GD, learned in pretraining, in 2 of 3 seeds.") for text in caveats(*rows))
    assert "about these weights" in one(caveats(recovery_row()), "There is one seed")


def test_a_control_of_other_facts_is_named():
    text = one(caveats(recovery_row(dataset="people_p")), "with other facts than the arm")
    assert "for facts learned in pretraining (people_p) they are people_f" in text
    assert not any("other facts than the arm" in one for one in caveats(recovery_row(dataset="own")))


def test_an_arm_that_does_not_know_is_named_with_its_figures():
    knows = KNOWS | {"letter_permuted": 0.58, "likelihood": 0.28}
    rows = [recovery_row(), recovery_row(arm="taught", status="not_known")]
    text = one(caveats(*rows, probes=[probe_rows(), probe_rows("taught", values=knows)]), "does not know")
    assert text == (
        "The original does not know the facts, so no claim is about them: facts taught later, as in the paper (.58 by "
        "permuted letters and .28 by likelihood; .90 is asked for where it was trained to), of which it holds the "
        "letters by place: .96 with the choices where they were."
    )
    knows |= {"letter": 0.6}
    text = one(caveats(*rows, probes=[probe_rows("taught", values=knows)]), "does not know")
    assert "by place" not in text
    assert not any("does not know" in text for text in caveats(recovery_row(), probes=[probe_rows()]))


def test_a_model_that_says_one_letter_is_named_with_its_letter():
    rows = [recovery_row("GD"), recovery_row("RMU", status="not_unlearned")]
    probes = [
        probe_rows(stage="unlearned", method="GD", values=UNLEARNED, said=MIXED),
        probe_rows(stage="unlearned", method="RMU", values=SAYS_C, said=ALL_C),
        probe_rows(stage="control", said=ALL_C),  # a control may say what it likes
    ]
    texts = caveats(*rows, probes=probes)
    assert one(texts, "says one letter").endswith(
        ": RMU, learned in pretraining says C in 158 of 160 (entropy .11 bits)."
    )
    assert one(texts, "Not every probe").endswith(
        ": RMU, learned in pretraining (calibrated letters, likelihood per token, likelihood of fresh choices)."
    )
    alone = one(texts, "One probe alone")
    assert "by letters RMU (learned in pretraining)" in alone and "GD" not in alone
    assert "by calibrated letters" not in alone and "by likelihood of fresh choices" not in alone
    assert not any("says one letter" in text for text in caveats(*rows, probes=probes[:1]))


def test_an_oracle_that_does_not_pass_is_named():
    passes, fails = probe_rows(stage="oracle", values=UNLEARNED), probe_rows(stage="oracle", values=SAYS_C)
    text = one(caveats(recovery_row(), probes=[fails]), "The oracle never saw the facts")
    assert text.endswith(
        ": learned in pretraining (calibrated letters, likelihood per token, likelihood of fresh choices)."
    )
    assert not any("The oracle never" in text for text in caveats(recovery_row(), probes=[passes]))


def test_a_probe_below_its_floor_is_not_counted_among_those_at_it():
    asked = probe_rows(stage="unlearned", method="GD", values=UNLEARNED | {"cloze": 0.05, "likelihood_token": 0.45})
    table = recovery(recovery_row(status="below_floor"))
    view = make_view(table, accuracy(table), pd.DataFrame(asked))
    (group,) = unlearned_test(asked_models(view), shown(results(view), view)).groups
    assert group.rows[0].passed == f"{len(UNLEARNED) - 2} of {len(UNLEARNED)}"


def test_a_model_below_its_floor_is_named_behind_an_original_that_was_not_learned():
    asked = probe_rows(stage="unlearned", method="GD", values=UNLEARNED | {"cloze": 0.05})
    texts = caveats(recovery_row(status="original_not_learned", counts=False), probes=[asked])
    assert one(texts, module.STATUSES["below_floor"]).endswith(": GD, learned in pretraining (cloze).")
    assert not any(module.STATUSES["not_unlearned"] in text for text in texts)


def test_the_margin_is_said_where_something_was_tested():
    texts = caveats(recovery_row(), probes=[probe_rows(stage="unlearned", method="GD", values=UNLEARNED)])
    assert "allows a margin of .15" in one(texts, "The test of being unlearned")
    assert not any("a margin of" in text for text in caveats(recovery_row()))


@pytest.mark.parametrize(("retain", "raised"), [(0.7, True), (0.86, False)])
def test_teaching_that_costs_retain_accuracy_is_a_caveat(retain, raised):
    rows = [recovery_row(), recovery_row(arm="taught", retain_before=retain)]
    texts = [one for one in caveats(*rows) if "Teaching lowered retain accuracy" in one]
    assert bool(texts) == raised
    if raised:
        assert "(it is .90 without teaching)" in texts[0] and " .70. A retain budget is a share" in texts[0]


def test_the_ratio_of_a_model_in_which_nothing_is_left_is_computed():
    assert any("would score .28 here" in one for one in caveats(recovery_row()))  # .27 / .95
    assert not any("would score" in one for one in caveats(recovery_row(acc_original_attacked=NAN)))


def test_edges_of_the_settings_go_last():
    assert caveats(recovery_row())[-1] == "an edge"


def test_every_caveat_is_a_whole_sentence():
    odd = {"GD": "not_unlearned", "RMU": "below_floor", "RIA": "attack_failed", "FIF": "none_within_budget"}
    rows = [recovery_row(method, status=status) for method, status in odd.items()]
    for text in caveats(*rows, recovery_row(arm="taught", status="not_known"), probes=[probe_rows("taught")])[:-1]:
        assert text[0].isupper() and text[-1] == "." and "  " not in text and "nan" not in text.split()
    assert view_of(*rows).methods == ["GD", "RMU", "RIA", "FIF"]

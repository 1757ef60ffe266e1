"""The figure of the test's steps: what each step adds is marked, and its words say the same numbers."""

import re
from itertools import pairwise

import pytest
from report_builder import accuracy, recovery, recovery_row, view_of
from rtt.figures import render_told, words_steps
from rtt.figures.draw import FIGURES
from rtt.figures.style import settings
from rtt.figures.view import make_view
from rtt.figures.words import alternative, title

PLAIN = {"acc_before": 1.0, "acc_oracle_attacked": 0.26, "acc_control_attacked": 0.24, "floor": 0.25}


def rows(seeds=(0,), **changes):
    found = []
    for n, seed in enumerate(seeds):
        shift = 0.02 * n
        found.append(recovery_row("GD", seed=seed, acc_unlearned=0.28, acc_attacked=0.84 + shift, **PLAIN | changes))
        low = {"acc_unlearned": 0.54, "acc_attacked": 0.98, "status": "not_unlearned"}
        found.append(recovery_row("RMU", seed=seed, **PLAIN | low))
    return found


def svg_ids(view, **more):
    svg, spots = render_told("steps", view, **more)
    return re.findall(r'id="(step\d-[\d-]+)"', svg.decode()), spots


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_each_step_adds_marks_with_ids_of_their_own(narrow, seeds):
    found, spots = svg_ids(view_of(*rows(seeds)), narrow=narrow)
    assert len(found) == len(set(found)) and {one[4] for one in found} == {"1", "2", "3", "4"}
    assert [spot.text.split(":")[0] for spot in spots] == [
        *("Before", "Made to forget", "Retrained on other facts", "Compared with models that never knew V"),
    ]
    assert all(a.left < b.left for a, b in pairwise(spots))


def test_the_words_say_the_numbers():
    view = view_of(*rows())
    before, gone, back, beside = (step.text for step in words_steps.sentences(view, view.panels[0]))
    assert "100 % of the questions" in before and "Guessing would give 25 %" in before
    assert (
        "Then it answers: GD 28 %, RMU 54 %. RMU does not count: asked in other ways" in gone
        and "GD 84 %, RMU 98 %" in back
    )
    assert "26 % by one trained without these facts" in beside and "24 % by one that never saw" in beside
    assert title("steps", view) == (
        "With GD, the model answers 28 % after unlearning, and 84 % when retrained on other facts"
    )
    assert alternative("steps", view).count("Facts learned in pretraining: ") == 1


def test_a_method_that_does_not_count_is_hollow_and_in_no_title():
    view = view_of(*rows())
    with settings():
        [axes] = FIGURES["steps"](view).axes
    faces = {line.get_color(): line.get_markerfacecolor() for line in axes.lines if line.get_marker() == "o"}
    assert sorted(face == "white" for face in faces.values()) == [False, False, True]  # original, GD; RMU
    nothing = view_of(recovery_row("RMU", status="not_unlearned"))
    assert title("steps", nothing).startswith("No method made the model forget")


def test_a_mean_is_over_the_seeds_that_count_where_the_method_does():
    found = [recovery_row("GD", seed=seed, acc_attacked=0.8) for seed in range(9)]
    found.append(recovery_row("GD", seed=9, acc_attacked=0.3, status="not_unlearned"))
    view = view_of(*found)
    assert "GD 80 %" in words_steps.sentences(view, view.panels[0])[2].text
    few = view_of(*found[:2], *(recovery_row("GD", seed=s, acc_attacked=0.3, status="not_unlearned") for s in (8, 9)))
    assert "GD 55 %" in words_steps.sentences(few, few.panels[0])[2].text  # does not count: over all with a point


def said(*found, at=3):
    view = view_of(*found)
    step = words_steps.sentences(view, view.panels[0])[at]
    return f"{step.text} {step.follows}".rstrip()


def test_what_follows_is_what_the_verdict_says():
    """The figure, the first table and the lede have one rule, that of `rtt.stats.verdicts`."""
    assert said(*rows()).endswith("What comes back after GD lies above that: it was hidden, not removed.")
    assert said(*rows(acc_control_attacked=0.9)).endswith("Nothing is shown to come back after GD.")
    assert said(*rows(control_learned=False)).endswith("Of GD it cannot be told.")
    assert said(*rows(acc_control_attacked=float("nan"))).endswith("Of GD it cannot be told.")
    assert said(recovery_row("RMU", status="not_unlearned")).endswith(
        "Since no method counts, nothing follows from it."
    )
    near = {"acc_attacked": 0.4, "acc_control_attacked": 0.3, "recovery_corrected": 0.2}
    ten = [recovery_row(seed=seed, **near) for seed in range(10)]  # intervals overlap in each, and not over seeds
    assert said(*ten).endswith("What comes back after GD lies above that: it was hidden, not removed.")
    assert said(*ten[:2]).endswith("Of GD it cannot be told.")


def test_an_original_that_does_not_know_is_not_said_to():
    unknown = recovery_row(status="not_known", acc_before=0.3)
    assert said(unknown, at=0).startswith("The model does not know the facts well enough: it answers 30 %")
    assert "GD 28 %" in said(unknown, at=1) and "GD does not count: the original did not know" in said(unknown, at=1)
    assert title("steps", view_of(unknown)) == "The model did not know these facts, so there was nothing to forget"
    lost = recovery_row(dataset="people_f", status="none_within_budget")
    assert title("steps", view_of(unknown, lost)).startswith("The model did not know some of the facts, and lost too")
    mixed = [recovery_row(seed=seed, acc_before=0.9) for seed in range(9)]
    mixed.append(recovery_row(seed=9, status="not_known", acc_before=0.1))
    assert "answers 90 %" in said(*mixed, at=0)


def test_another_attack_is_not_told_as_retraining():
    rounded = recovery_row(attack="quantise")
    assert said(rounded, at=2).startswith("The attack gives it no facts. Of V: GD 85 %")
    assert title("steps", view_of(rounded)).endswith("and 85 % after quantisation")


def test_an_attack_that_uses_t_and_asks_v_alone_is_not_said_to_be_given_nothing():
    """A linear probe is trained on T, and no T is asked of it; its class says so, and not the looks."""
    looks = {"linear_probe": {"layer=1": 1.0}, "strongest": {"": 1.0}}
    for name, text in (
        ("linear_probe", "The attack uses T, and never V. Of V it answers: GD 85 %"),
        ("strongest", "Each attack uses T or no facts at all, and never V. Of V it answers: GD 85 %"),
    ):
        table = recovery(recovery_row(attack=name))
        view = make_view(table, accuracy(table, looks), attack=name)
        assert words_steps.sentences(view, view.panels[0])[2].text.startswith(text)
        assert title("attack", view).endswith("is not asked T, so there is no accuracy on V against T")


def test_without_a_point_or_a_control_the_steps_say_so():
    view = view_of(recovery_row(status="none_within_budget", acc_control_attacked=float("nan")))
    texts = [step.text for step in words_steps.sentences(view, view.panels[0])]
    assert texts[1] == "It was unlearned. GD does not count: the model lost too much of what else it knew."
    assert texts[2] == "There was nothing to attack." and "no such model" in texts[3]
    assert title("steps", view).startswith("No method kept enough of what else the model knew")
    with settings():
        assert FIGURES["steps"](view).axes


def test_labels_are_moved_apart():
    close = [recovery_row(name, acc_attacked=0.9 + 0.005 * n) for n, name in enumerate(("GD", "RMU", "RIA", "FIF"))]
    with settings():
        figure = FIGURES["steps"](view_of(*close))
        figure.canvas.draw()
        [axes] = figure.axes
        boxes = [text.get_window_extent() for text in axes.texts if re.match(r"(GD|RMU|RIA|FIF) ", text.get_text())]
    assert len(boxes) == 4 and not any(a.overlaps(b) for n, a in enumerate(boxes) for b in boxes[:n])


def test_only_the_first_arm_is_drawn():
    view = view_of(recovery_row(), recovery_row(dataset="people_q"), recovery_row(arm="taught"))
    with settings():
        assert len(FIGURES["steps"](view).axes) == 2
    assert "taught" not in alternative("steps", view)

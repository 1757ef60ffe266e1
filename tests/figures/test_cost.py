"""The figure `cost`: V and T over steps, tokens and FLOPs, beside the oracle; nothing without steps."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from report_builder import accuracy, cost, full_view, recovery, recovery_row
from rtt.figures import words
from rtt.figures import words_cost as told
from rtt.figures.draw import FIGURES
from rtt.figures.style import colour, settings
from rtt.figures.view import make_view

LOOKS = {"RTT": {"epoch=1 lr=0.1": 0.5, "epoch=4 lr=0.1": 1.0}}


def view_of_cost(*rows, change=None):
    table = recovery(*rows)
    spent = cost(table, LOOKS)
    spent = spent if change is None else change(spent)
    return make_view(table, accuracy(table, LOOKS), cost=spent)


def drawn(view):
    with settings():
        return FIGURES["cost"](view)


ROW = {"acc_unlearned": 0.26, "acc_attacked": 0.8, "acc_oracle_attacked": 0.3, "floor": 0.25}


def test_v_and_t_are_drawn_over_steps_from_before_the_attack():
    figure = drawn(view_of_cost(recovery_row("GD", **ROW)))
    [axes] = figure.axes
    lines = [(to_hex(line.get_color()), line.get_linestyle(), line.get_xydata().round(6).tolist())
             for line in axes.lines if len(line.get_xdata()) == 3]  # fmt: skip
    tint = colour("GD", ["GD"]).lower()
    assert (tint, "-", [[0, 0.26], [10, 0.4], [40, 0.8]]) in lines
    assert (tint, "--", [[0, 0.26], [10, 1], [40, 1]]) in lines
    assert ("#666666", "-", [[0, 0.25], [10, 0.15], [40, 0.3]]) in lines
    assert ("#666666", "--", [[0, 0.25], [10, 1], [40, 1]]) in lines
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0\n0\n0", "40\n4.0k\n2.4e10"]  # 10 is too near
    assert axes.get_xticks().tolist() == [0, 40]


def test_the_title_and_the_words_tell_the_first_and_the_last_look():
    view = view_of_cost(recovery_row("GD", **ROW), recovery_row("RMU", **ROW | {"status": "not_unlearned"}))
    assert words.title("cost", view) == (
        "Shown T alone, GD's model answers .40 of V after 10 steps of RTT and .80 after 40; the oracle, which learns T "
        "anew, answers .15 and .30 of V, and 1.00 and 1.00 of T"
    )
    [_, text] = words.told("cost", view)
    assert "GD: before V .26 [.21, .31], T .26, after 10 steps (1.0k tokens, 6.0e9 FLOPs) V .40 [.35, .45]" in text
    assert "RMU (does not count)" in text and "n = 160" in text
    later = [recovery_row("GD", **ROW | {"status": "not_unlearned"}), recovery_row("GD", "taught", **ROW)]
    assert words.title("cost", view_of_cost(*later)).startswith(
        "On the facts taught later, as in the paper, shown T alone, GD's model answers .40 of V"
    )
    hidden = view_of_cost(recovery_row("GD", **ROW | {"status": "not_unlearned"}))
    assert words.title("cost", hidden).startswith("No method counts as unlearned; shown T alone, GD's model")


def test_the_control_stands_in_for_an_oracle():
    view = view_of_cost(recovery_row("GD", **ROW | {"acc_oracle_attacked": float("nan"), "acc_control_attacked": 0.24}))
    assert told.anew(view, view.panels[0])[0] == "control"
    assert words.title("cost", view).endswith(
        "; the control, which learns T anew, answers .12 and .24 of V, and 1.00 and 1.00 of T"
    )


def test_without_oracle_and_control_the_unlearned_models_are_drawn_alone():
    nobody = {"acc_oracle_attacked": float("nan"), "acc_control_attacked": float("nan")}
    view = view_of_cost(recovery_row("GD", **ROW | nobody))
    [axes] = drawn(view).axes
    assert "#666666" not in {to_hex(line.get_color()) for line in axes.lines if len(line.get_xdata()) == 3}
    [text] = words.told("cost", view)[1:]
    assert words.title("cost", view).endswith("answers .40 of V after 10 steps of RTT and .80 after 40")
    assert "after 40 steps (4.0k tokens, 2.4e10 FLOPs) V .80" in text and "anew" not in text


def test_without_steps_there_is_nothing_to_draw():
    """A study whose specs are not there has no steps, and tables of an older program have no such table."""
    unknown = view_of_cost(recovery_row("GD", **ROW), change=lambda rows: rows.assign(step=float("nan")))
    older = make_view(unknown.everything, accuracy(unknown.everything, LOOKS))
    for view in (unknown, older):
        assert not told.has_cost(view) and not drawn(view).axes
        assert words.title("cost", view) == "The steps of RTT are not known, so there is no cost to draw"


def test_unknown_tokens_are_no_reason_to_leave_it_out():
    change = {"tokens": float("nan"), "flops": float("nan")}
    view = view_of_cost(recovery_row("GD", **ROW), change=lambda rows: rows.assign(**change))
    assert drawn(view).axes[0].get_xticklabels()[-1].get_text() == "40\n?\n?"


def test_several_seeds_are_means_and_points():
    rows = [recovery_row("GD", seed=seed, **ROW | {"acc_attacked": 0.6 + 0.1 * seed}) for seed in range(3)]
    view = view_of_cost(*rows)
    [path] = told.paths(view, view.panels[0], "unlearned", "GD")
    assert path.means["accuracy"].tolist() == pytest.approx([0.26, 0.35, 0.7])
    points = [line for line in drawn(view).axes[0].lines if line.get_marker() == "."]
    assert [len(line.get_xdata()) for line in points] == [9]
    assert words.title("cost", view).startswith(
        "Over 3 seeds, shown T alone, GD's model answers .35 of V after 10 steps"
    )


def test_a_seed_that_does_not_count_is_in_no_mean_of_a_method_that_does():
    rows = [recovery_row("GD", seed=seed, **ROW) for seed in range(9)]
    rows.append(recovery_row("GD", seed=9, **ROW | {"acc_attacked": 0.4, "status": "not_unlearned"}))
    view = view_of_cost(*rows)
    [path] = told.paths(view, view.panels[0], "unlearned", "GD")
    assert path.means["accuracy"].tolist() == pytest.approx([0.26, 0.4, 0.8]) and path.rows["seed"].nunique() == 9
    assert words.title("cost", view).startswith("Over 9 seeds, shown T alone, GD's model answers .40 of V")


def test_each_training_is_a_line_and_a_cell_without_a_point_says_so():
    view = full_view()
    figure = drawn(view)
    assert len(figure.axes) == 12
    at = [axes for axes in figure.axes if any(text.get_text() == "no point" for text in axes.texts)]
    assert [axes.get_title() for axes in at] == ["FIF (does not count)"]  # taught later, none within the budget
    found = told.paths(view, view.panels[0], "unlearned", "GD")
    assert [path.name for path in found] == ["learning rate 0.001", "learning rate 0.002"]


@pytest.mark.parametrize(
    ("value", "text", "power"),
    [(0, "0", "0"), (368, "368", "3.7e2"), (999.6, "1.0k", "1.0e3"), (9960, "10k", "1.0e4"),
     (999_499, "999k", "1.0e6"), (999_999, "1.0M", "1.0e6"), (20604.8, "21k", "2.1e4"),
     (1.5e6, "1.5M", "1.5e6"), (9.04e10, "90G", "9.0e10"), (np.nan, "?", "?")],
)  # fmt: skip
def test_counts_are_written_short(value, text, power):
    assert (told.short(value), told.flops(value)) == (text, power)

"""The figure `sensitivity`: which choices have a row, and what stands in it."""

from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from report_builder import accuracy, recovery, recovery_row
from rtt.figures import render_told, words
from rtt.figures.choices import choices
from rtt.figures.draw import FIGURES
from rtt.figures.style import colour, settings
from rtt.figures.view import make_view

ROW = {"acc_attacked": 0.8, "acc_control_attacked": 0.3}


def rows():
    return [
        recovery_row("GD", **ROW),
        recovery_row("GD", **ROW | {"acc_attacked": 0.9, "acc_control_attacked": 0.4}, look_choice="paper"),
        recovery_row("GD", **ROW | {"acc_attacked": 0.7}, probe="likelihood"),
        recovery_row("GD", status="none_within_budget", retain_budget=0.05),
        recovery_row("GD", **ROW | {"acc_attacked": 0.3}, variant="padding"),
        recovery_row("GD", **ROW, variant="select_on_v"),
    ]


def test_every_other_choice_has_a_row_and_a_variant_that_changes_nothing_has_none():
    table = recovery(*rows())
    found = choices(make_view(table, accuracy(table)))
    assert [(choice.group, choice.label) for choice in found] == [
        ("", "as reported"),
        ("look choice", "look chosen on V"),
        ("probe", "by likelihood"),
        ("budget", "budget 5 %"),
        ("setting", "RTT at 0.001, epoch 2"),
        ("setting", "RTT at 0.002, epoch 2"),
        ("variant", "variant padding"),
    ]
    values = [choice.rows[["acc_attacked", "acc_control_attacked"]].iloc[0].tolist() for choice in found]
    expected = [[0.8, 0.3], [0.9, 0.4], [0.7, 0.3], [np.nan, 0.3], [0.4, 0.15], [0.8, 0.3], [0.3, 0.3]]
    np.testing.assert_allclose(values, expected, equal_nan=True)
    # A setting's rows say nothing of what was not computed at that look.
    assert found[4].rows[["recovery", "recovery_corrected"]].isna().all(axis=None)


def test_one_look_alone_is_no_choice():
    table = recovery(recovery_row("GD"))
    view = make_view(table, accuracy(table, {"RTT": {"epoch=1 lr=0.001": 1.0}}))
    assert [choice.label for choice in choices(view)] == ["as reported"]
    assert words.title("sensitivity", view) == "There is no other choice to compare the reported one with"


def test_the_title_counts_results_above_the_control():
    table = recovery(*rows())
    looks = accuracy(table).assign(low=lambda t: t["accuracy"] - 0.05, high=lambda t: t["accuracy"] + 0.05)
    # On V, by likelihood, at both rates; not with padding. No point within 5 %: no result.
    assert words.title("sensitivity", make_view(table, looks)) == (
        "Under 6 other choices, one at a time, 4 of 5 results that count exceed the control on V (95 % intervals do "
        "not overlap)"
    )


def test_marks_and_what_they_tell():
    table = recovery(*rows())
    view = make_view(table, accuracy(table))
    with settings():
        figure = FIGURES["sensitivity"](view)
        FigureCanvasAgg(figure).draw()
    [axes] = [one for one in figure.axes if one.get_visible()]
    marked = [line for line in axes.lines if line.get_marker() == "o"]
    full = [line.get_xdata()[0] for line in marked if line.get_color() == colour("GD", ["GD"])]
    np.testing.assert_allclose(full, [0.8, 0.9, 0.7, 0.4, 0.8, 0.3])
    assert len(marked) == 12  # the pale ones, before the attack
    assert [text.get_text() for text in axes.texts] == ["GD: no point"]
    spots = render_told("sensitivity", view)[1]
    assert [spot.text.partition(",")[0] for spot in spots] == [
        "As reported", "Look chosen on V", "By likelihood", "Budget 5 %", "RTT at 0.001", "RTT at 0.002",
        "Variant padding",
    ]  # fmt: skip
    assert spots[0].text == (
        "As reported, learned in pretraining: GD (counts) .28 [.23, .33], after RTT .80 [.75, .85]; "
        "control after RTT .30 [.25, .35]; n = 160"
    )
    assert all(one.top + one.height <= two.top + 0.1 for one, two in pairwise(spots))


def test_a_choice_that_a_panel_lacks_is_not_told_there():
    view = make_view(table := recovery(*rows(), recovery_row("GD", "taught")), accuracy(table))
    one, other = words.told("sensitivity", view)[1:]
    assert "Budget 5 %" in one and "Budget 5 %" not in other and "As reported: GD (counts) .28 [.23, .33]" in other


def test_seeds_are_drawn_and_meant():
    several = [
        row | {"seed": seed, "acc_attacked": value} for row in rows()[:2] for seed, value in ((1, 0.6), (2, 0.8))
    ]
    table = pd.DataFrame(several, columns=recovery().columns)
    view = make_view(table, accuracy(table))
    assert "after RTT .70 (seeds .60 to .80)" in words.alternative("sensitivity", view)

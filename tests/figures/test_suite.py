"""The figure `attacks`: every attack's mark, the control's and the oracle's beside it, and the strongest named."""

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from report_builder import accuracy, over_seeds, recovery, recovery_row, strongest, with_attacks
from rtt.figures import words
from rtt.figures import words_suite as suite
from rtt.figures.draw import FIGURES
from rtt.figures.style import settings
from rtt.figures.view import make_view
from rtt.study import plugins

NAN = float("nan")
LOOKS = {name: {"": 1.0} for name in ("quantise", "wiggle", "strongest")} | {"RTT": {"epoch=1 lr=0.1": 1.0}}


def view_of_attacks(*rows, attack="quantise", setting="bits=4 group_size=32"):
    table = recovery(*rows)
    chosen = strongest(table, attack, setting)
    return make_view(table, accuracy(table, LOOKS), None, over_seeds(table), chosen)


def three(**changes):
    """GD under RTT, which gives back .50, under quantise, .70, and under both, which is quantise."""
    more = {"acc_oracle_attacked": 0.35, "original_floor": 0.25, "floor": 0.25, "acc_original_attacked": 0.85} | changes
    rates = {"RTT": 0.5, "quantise": 0.7, "strongest": 0.7}
    controls = {"RTT": 0.31, "quantise": 0.25, "strongest": 0.28}
    return [
        recovery_row("GD", attack=name, recovery_corrected=rate, acc_control_attacked=controls[name], **more)
        for name, rate in rates.items()
    ]


def drawn(view):
    with settings():
        return FIGURES["attacks"](view)


def test_each_attack_has_its_mark_and_the_strongest_stands_out():
    figure = drawn(view_of_attacks(*three()))
    [axes] = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["RTT", "quantisation", "the strongest attack"]
    by_shape = {shape: [(float(x), round(y)) for line in axes.lines if line.get_marker() == shape
                        for x, y in line.get_xydata()] for shape in "oD*P"}  # fmt: skip
    assert by_shape["o"] == [(0.5, 0), (0.7, 1)] and by_shape["*"] == [(0.7, 2)]
    # (c - f) / (o - f) with f = .25 and o = .85: (.31 - .25) / .6, 0, (.28 - .25) / .6
    assert by_shape["D"] == [(pytest.approx(0.1), 0), (pytest.approx(0), 1), (pytest.approx(0.05), 2)]
    assert [x for x, _ in by_shape["P"]] == pytest.approx([0.1 / 0.6] * 3)
    colours = {line.get_ydata()[0]: to_hex(line.get_color()) for line in axes.lines if line.get_marker() == "o"}
    assert colours[1] == plugins.attacks()["quantise"].colour.lower()
    assert [text.get_text() for text in axes.texts] == [".50", ".70", ".70"]


def test_what_does_not_count_is_hollow_and_a_wide_interval_has_no_number():
    figure = drawn(view_of_attacks(*three(status="not_unlearned", cannot_tell="recovery_corrected")))
    faces = {to_hex(line.get_markerfacecolor()) for line in figure.axes[0].lines if line.get_marker() in ("o", "*")}
    assert faces == {"#ffffff"} and {text.get_text() for text in figure.axes[0].texts} == {"?"}
    assert "says little" in words.title("attacks", view_of_attacks(*three(status="not_unlearned")))


def test_the_title_names_the_strongest_attack_with_its_setting():
    assert words.title("attacks", view_of_attacks(*three())) == (
        "The strongest attack on GD was quantisation at bits=4 group_size=32; it brought back .70 [.65, .75], RTT "
        "alone .50 [.45, .55]; besides RTT, quantisation brought back more than the control"
    )
    later = [*three(status="not_unlearned"), *(row | {"arm": "taught"} for row in three())]
    assert words.title("attacks", view_of_attacks(*later)).startswith(
        "On the facts taught later, as in the paper, the strongest attack on GD was quantisation at bits=4"
    )
    low = {"acc_attacked": 0.3}
    assert words.title("attacks", view_of_attacks(*three(**low))).endswith(
        "no attack besides RTT is shown to bring back more than the control"
    )
    text = words.told("attacks", view_of_attacks(*three()))[1]
    assert (
        "GD: RTT .50 [.45, .55] (oracle .17, control .10); quantisation .70 [.65, .75] (oracle .17, control .00)"
        in text
    )
    assert "the strongest attack .70 [.65, .75] (oracle .17, control .05), which was quantisation at bits=4" in text


def test_halves_and_seeds_that_choose_otherwise_are_told():
    view = view_of_attacks(*three())
    panel, rows = view.panels[0], view.strongest
    view.strongest = rows.assign(attack=["RTT", "quantise"], setting=["epoch=2", "bits=8"])
    assert suite.chosen(view, panel, "GD") == (
        "RTT at epoch=2 on one half of the questions and quantisation at bits=8 on the other"
    )
    view.strongest = pd.concat([rows.assign(attack="RTT", setting=text) for text in ("a=1", "a=2", "a=2")] + [rows])
    assert suite.chosen(view, panel, "GD") == (
        "RTT in 6 of 8 choices (most often at a=2) and quantisation in 2 of 8 choices (at bits=4 group_size=32)"
    )
    assert suite.chosen(view, panel, "GD", settings=False) == "RTT or quantisation"
    view.strongest = pd.concat([view.strongest, rows.assign(attack="wiggle")])
    assert suite.chosen(view, panel, "GD", settings=False) == "one of 3, most often RTT"
    view.strongest = None
    assert suite.chosen(view, panel, "GD") == ""


def test_several_seeds_have_the_mean_of_seeds_csv_and_a_ratio_of_means_beside():
    values, controls = (0.4, 0.5, 0.75), (0.25, 0.31, 0.40)
    rows = [
        recovery_row("GD", seed=seed, attack=name, recovery_corrected=value - 0.2 * (name == "quantise"),
                     acc_original_attacked=0.65 + 0.1 * seed, acc_control_attacked=control, floor=0.25)
        for name in ("RTT", "quantise")
        for seed, value, control in zip(range(3), values, controls, strict=True)
    ]  # fmt: skip
    view = view_of_attacks(*rows)
    found = suite.mark(view, view.panels[0], "GD", "quantise")
    table = over_seeds(recovery(*rows))
    row = table[(table["attack"] == "quantise") & (table["set"] == "counting")].iloc[0]
    assert (found.value, found.low, found.high) == (row["mean"], row["low"], row["high"])
    assert found.value == pytest.approx(np.mean(values) - 0.2) and len(found.each) == 3
    assert found.control == pytest.approx((np.mean(controls) - 0.25) / 0.5)  # not the mean of three ratios
    assert np.isnan(found.oracle)
    spots = [line for line in drawn(view).axes[0].lines if line.get_marker() == "."]
    assert sorted(len(line.get_xdata()) for line in spots if len(line.get_xdata())) == [3, 3]


def test_one_attack_and_controls_leave_nothing_to_compare():
    rows = [recovery_row("GD"), recovery_row("GD", attack="RTT_permuted")]
    table = recovery(*rows)
    view = make_view(table, accuracy(table))
    assert not suite.several(view) and not drawn(view).axes
    assert words.title("attacks", view) == "This study has one attack, RTT, so there is nothing to compare"


def test_an_attack_that_asks_otherwise_is_shown_by_its_own_probe():
    rows = [*three(), recovery_row("GD", attack="sampling", probe="sampled", recovery_corrected=0.3, floor=0.6)]
    table = recovery(*rows)
    view = make_view(table, accuracy(table, LOOKS | {"sampling": {"k=4": 1.0}}), None, None, strongest(table))
    names = [label.get_text() for label in drawn(view).axes[0].get_yticklabels()]
    figure = drawn(view)
    figure.savefig(io.BytesIO())
    assert figure.axes[0].get_window_extent().height > 4 * 0.12 * figure.dpi  # the legend leaves each row its height
    assert names[2].replace("\n", " ") == "sampling (sampled answers) *" and names[-1] == "the strongest attack"
    assert suite.mark(view, view.panels[0], "GD", "sampling").value == 0.3
    assert suite.left_out("sampling") and not suite.left_out("quantise")


def test_fourteen_attacks_are_drawn_and_the_title_stays_short():
    names = ["quantise", *(f"attack_{n}" for n in range(12))]
    table = with_attacks(recovery(recovery_row("GD"), recovery_row("RMU"), recovery_row("GD", "taught")), *names)
    looks = {name: {"": 1.0} for name in table["attack"]}
    view = make_view(table, accuracy(table, looks), None, None, strongest(table))
    figure = drawn(view)
    assert len(figure.axes) == 2 * 2 and len(figure.axes[0].get_yticks()) == 15
    assert "besides RTT, 13 of 13 attacks brought back more than the control" in words.title("attacks", view)
    assert len(words.title("attacks", view)) < 300


def test_the_strongest_is_not_drawn_where_fewer_than_two_belong_to_it():
    rows = with_attacks(recovery(recovery_row("GD")), "wiggle")
    rows = rows[rows["attack"] != "strongest"]
    view = make_view(rows, accuracy(rows, LOOKS))
    assert "*" not in [line.get_marker() for line in drawn(view).axes[0].lines]
    assert words.title("attacks", view).startswith("Fewer than two attacks on the facts learned in pretraining can be")

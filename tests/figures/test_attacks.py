"""Figures of an attack other than RTT: settings without epochs, no T, and how a study with two attacks is shown."""

import re

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from report_builder import accuracy, full_study, over_seeds, probes, recovery, recovery_row, view_of, write_study
from rtt.__main__ import main
from rtt.errors import UserError
from rtt.figures import render_told, words
from rtt.figures.choices import choices
from rtt.figures.draw import FIGURES
from rtt.figures.style import PROBES, STRONGEST, settings
from rtt.figures.tables import load
from rtt.figures.view import make_view
from rtt.study import names

CHANNEL = ["bits=8 group_size=channel", "bits=4 group_size=channel"]


def both():
    """Rows of two attacks: RTT, the study's first, and quantise, which gives back less."""
    return [
        recovery_row("GD", acc_attacked=0.8),
        recovery_row("GD", acc_attacked=0.4, attack="quantise", acc_control_attacked=0.26),
    ]


def draw(name, view):
    with settings():
        figure = FIGURES[name](view)
        FigureCanvasAgg(figure).draw()
    return figure


def test_figures_and_probes_are_those_of_the_names():
    assert tuple(FIGURES) == names.FIGURES
    assert tuple(PROBES) == (*names.PROBES, STRONGEST)


def test_a_view_shows_the_studys_first_attack_unless_it_is_asked_for_another():
    table = recovery(*both())
    view = make_view(table, accuracy(table))
    assert (view.attack, view.recovery["acc_attacked"].tolist()) == ("RTT", [0.8])
    view = make_view(table, accuracy(table), attack="quantise")
    assert (view.attack_title, view.recovery["acc_attacked"].tolist()) == ("quantisation", [0.4])
    assert view.settings == CHANNEL
    [panel] = view.panels
    assert view.curve(panel, "unlearned_attacked", "GD", "V")["accuracy"].tolist() == [0.2, 0.4]
    assert view.curve(panel, "unlearned_attacked", "GD", "T").empty
    assert view.trajectories(panel, "GD", 0)[0]["step"].tolist() == [0, 10, 20]
    with pytest.raises(UserError, match=r"attack x, .*; it has attack RTT, quantise;"):
        make_view(table, accuracy(table), attack="x")


def test_settings_are_curves_where_they_have_epochs():
    looks = {"RTT": {"epoch=1 lr=0.1": 0.5, "epoch=1 lr=1e-07": 0.5, "epoch=4 lr=0.1": 1, "epoch=4 lr=1e-07": 1}}
    table = recovery(recovery_row())
    lines = make_view(table, accuracy(table, looks)).lines
    assert [(line.name, line.short, line.places) for line in lines] == [
        ("learning rate 0.1", "0.1", {"epoch=1 lr=0.1": 1, "epoch=4 lr=0.1": 4}),
        ("learning rate 1e-07", "1e-07", {"epoch=1 lr=1e-07": 1, "epoch=4 lr=1e-07": 4}),
    ]
    other = {"RTT": {"epoch=1 layers=2 lr=0.1": 0.5, "epoch=2 layers=2 lr=0.1": 1.0}}
    assert [line.name for line in make_view(table, accuracy(table, other)).lines] == ["layers=2 lr=0.1"]
    alone = {"RTT": {"epoch=1": 0.5, "epoch=2": 1.0}}
    assert [line.name for line in make_view(table, accuracy(table, alone)).lines] == ["all epochs"]
    mixed = {"RTT": {"epoch=1 lr=0.1": 0.5, "bits=4": 1.0}}
    view = make_view(table, accuracy(table, mixed))
    assert [line.name for line in view.lines] == [""] and not view.over_epochs


def test_curves_of_settings_without_epochs_are_points():
    table = recovery(*both())
    figure = draw("curves", make_view(table, accuracy(table), attack="quantise"))
    original, gd, control = figure.axes
    points = [line for line in gd.lines if line.get_marker() == "o"]
    assert [line.get_xydata().tolist() for line in points] == [[[0, 0.2], [1, 0.4]]]
    assert all(line.get_linestyle() == "None" for line in points)
    assert [label.get_text() for label in gd.get_xticklabels()] == CHANNEL
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["on V", "hollow: does not count as unlearned", "floor"]  # nothing of T: it was not used
    assert [axes.get_title() for axes in (original, gd, control)] == ["original", "GD", "control"]


def test_words_name_the_attack_and_its_settings():
    table = recovery(*both())
    looks = accuracy(table).assign(low=lambda t: t["accuracy"] - 0.05, high=lambda t: t["accuracy"] + 0.05)
    view = make_view(table, looks, attack="quantise")
    assert words.title("accuracy", view) == (
        "The one method counts as unlearned; after quantisation, it exceeds the control on V (95 % intervals do not "
        "overlap)"
    )
    assert words.title("curves", view) == (
        "Highest accuracy on V at any setting of quantisation: unlearned models .40, originals .95, control .26"
    )
    assert render_told("curves", view)[1][1].text == (
        "GD, learned in pretraining, on V: bits=8 group_size=channel .20 [.15, .25]; "
        "bits=4 group_size=channel .40 [.35, .45]; n = 160"
    )
    head, text = words.told("curves", view)
    assert head.startswith("Points: accuracy on V after each setting of quantisation,")
    assert "; GD .40 [.35, .45] on V (bits=4 group_size=channel); " in text and "on T" not in text
    for name in FIGURES:
        told = " ".join([words.title(name, view), *words.told(name, view)])
        assert not re.search(r"\bnan\b", told) and ("RTT" not in told or name in ("sensitivity", "attacks"))
    labels = [text.get_text() for text in draw("accuracy", view).legends[0].get_texts()]
    assert labels[:2] == ["model after quantisation", "pale: before quantisation"]


def test_sensitivity_has_a_row_per_setting_and_per_other_attack():
    table = recovery(*both())
    view = make_view(table, accuracy(table), attack="quantise")
    found = choices(view)
    assert [(choice.group, choice.label) for choice in found] == [
        ("", "as reported"),
        *(("setting", f"quantisation at {setting}") for setting in CHANNEL),
        ("attack", "attack: RTT"),
    ]
    values = [choice.rows[["acc_attacked", "acc_control_attacked"]].iloc[0].tolist() for choice in found]
    np.testing.assert_allclose(values, [[0.4, 0.26], [0.2, 0.13], [0.4, 0.26], [0.8, 0.3]])
    texts = [words.choice_text(view, view.panels[0], choice) for choice in found]
    assert "after quantisation .40" in texts[0] and "after RTT .80" in texts[3] and "control after RTT .30" in texts[3]
    assert [choice.label for choice in choices(make_view(table, accuracy(table)))][-1] == "attack: quantisation"


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("seeds", [pytest.param((0,), marks=pytest.mark.full), (11, 12, 13)])
def test_every_figure_of_an_attack_without_epochs_is_drawn_whole(name, seeds):
    table = full_study(seeds).assign(attack="quantise")
    sizes = (32, 64, 128, None)
    looks = {f"bits={bits} group_size={size}": 1 - 0.1 * bits for bits in (8, 4) for size in sizes}
    figure = draw(name, make_view(table, accuracy(table, {"quantise": looks}), probes(table), over_seeds(table)))
    width, height = figure.bbox.size
    nothing = name in ("attack", "attacks", "cost") or (name == "seeds" and len(seeds) == 1)
    if nothing:  # which it says
        assert not figure.axes and len(figure.texts) == 1
        return
    labels = [label for axes in figure.axes if axes.get_visible() for label in axes.get_xticklabels()]
    legends = [text for legend in figure.legends for text in legend.get_texts()]  # `steps` names its marks itself
    for text in [figure._suptitle, *legends, *(x for x in labels if x.get_visible())]:
        box = text.get_window_extent()
        assert box.x0 > -1 and box.x1 < width + 1 and box.y0 > -1 and box.y1 < height + 1, text.get_text()


def test_an_attack_with_one_setting_without_keys_is_drawn():
    table = recovery(recovery_row(attack="few-shot"))
    view = make_view(table, accuracy(table, {"few-shot": {"": 1.0}}))
    assert view.attack_title == "few-shot" and view.settings == [""]
    figure = draw("curves", view)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["the one setting"]
    for name in FIGURES:
        draw(name, view)
        words.alternative(name, view)


def test_the_command_draws_the_attack_that_it_is_asked_for(tmp_path):
    folder = write_study(tmp_path, recovery(*both())) / "tables"
    images = {}
    for attack in ("RTT", "quantise"):
        out = tmp_path / f"{attack}.svg"
        assert main(["figure", "curves", "--tables", str(folder), "--attack", attack, "--out", str(out)]) == 0
        images[attack] = out.read_bytes()
    assert images["RTT"] != images["quantise"]
    assert load(folder)[1]["setting"].str.fullmatch(r"|(epoch|bits)=\d .*").all()
    assert not re.search(r"nan", (folder / "accuracy.csv").read_text())


def test_several_seeds_without_epochs_show_each_seed_and_the_mean():
    rows = [recovery_row(attack="quantise", seed=seed, acc_attacked=value) for seed, value in ((1, 0.4), (2, 0.8))]
    figure = draw("curves", view_of(*rows))
    gd = figure.axes[1]
    means = [line.get_xydata().tolist() for line in gd.lines if line.get_marker() == "o"]
    assert means == [[[0, pytest.approx(0.3)], [1, pytest.approx(0.6)]]]
    [single] = [line for line in gd.lines if line.get_marker() == "."]
    assert sorted(single.get_ydata()) == pytest.approx([0.2, 0.4, 0.4, 0.8])

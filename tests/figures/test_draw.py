import re
import struct
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.font_manager import findfont
from report_builder import (
    accuracy,
    full_study,
    full_view,
    over_seeds,
    probes,
    recovery,
    recovery_row,
    view_of,
    write_study,
)
from rtt.__main__ import main
from rtt.errors import UserError
from rtt.figures import render
from rtt.figures.draw import FIGURES
from rtt.figures.parts import PALE
from rtt.figures.style import colour, dash_of, lighter, marker_of, settings
from rtt.figures.tables import load
from rtt.figures.view import make_view
from rtt.stats.shown import main_budget
from rtt.study import plugins

NAN = float("nan")
METHODS = list(plugins.methods())


def draw(name, view):
    """Draw a figure as `render` does and lay it out."""
    with settings():
        figure = FIGURES[name](view)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    return figure, canvas.get_renderer()


def marks(axes, colour, marker="o"):
    """All (x, y, open) of one colour's markers."""
    return [
        (float(x), float(y), to_hex(line.get_markerfacecolor()) == "#ffffff")
        for line in axes.lines
        if line.get_marker() == marker and to_hex(line.get_color()) == colour.lower() and line.get_linestyle() != "--"
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    ]


def pale(method):
    """The colour of a method's marks before the attack."""
    return to_hex(lighter(colour(method, METHODS), PALE))


# ---- views


def test_main_budget_is_ten_percent_or_the_smallest():
    rows = [recovery_row(retain_budget=b) for b in (0.05, 0.1, 1.0)]
    assert main_budget(recovery(*rows)) == 0.1
    assert main_budget(recovery(rows[2], rows[0])) == 0.05


def test_panels_name_datasets_only_where_an_arm_has_several():
    rows = [recovery_row(), recovery_row(arm="taught"), recovery_row(arm="taught", dataset="mmlu")]
    names = [panel.name for panel in view_of(*rows).panels]
    assert names == ["learned in pretraining", "taught later (people_f)", "taught later (MMLU)"]


def test_a_dataset_with_a_title_is_named_beside_another_one():
    rows = [recovery_row(dataset="years"), recovery_row(arm="taught", dataset="random_bd")]
    panels = view_of(*rows).panels
    assert [panel.name for panel in panels] == ["learned in pretraining (Years)", "taught later (Random Birthdays)"]
    assert [panel.name for panel in view_of(rows[0]).panels] == ["learned in pretraining"]  # no other to tell it from


def test_a_view_holds_one_variant():
    rows = [recovery_row(acc_attacked=0.5), recovery_row(acc_attacked=0.9, variant="padding")]
    assert view_of(*rows).recovery["acc_attacked"].tolist() == [0.5]
    view = view_of(*rows, variant="padding")
    assert view.recovery["acc_attacked"].tolist() == [0.9]
    assert view.curve(view.panels[0], "unlearned_attacked", "GD", "V")["accuracy"].max() == pytest.approx(0.9)
    with pytest.raises(UserError, match=r"variant x, retain_budget 0.1; it has .*variant default, padding"):
        view_of(*rows, variant="x")


def test_several_trajectories_are_drawn_each():
    view = view_of(recovery_row(acc_before=1.0, acc_unlearned=0.2))
    second = view.accuracy[view.accuracy["run"] != ""].assign(run="other", accuracy=0.9)
    view.accuracy = pd.concat([view.accuracy, second])
    paths = view.trajectories(view.panels[0], "GD", 0)
    assert [path["forget"].tolist() for path in paths] == [pytest.approx([1.0, 0.6, 0.2]), [1.0, 0.9, 0.9]]
    figure, _ = draw("tradeoff", view)
    drawn = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 3]
    assert len(drawn) == 2


def test_another_datasets_own_control_is_not_this_ones():
    view = view_of(
        recovery_row(dataset="a", acc_control_attacked=0.4), recovery_row(dataset="b", acc_control_attacked=NAN)
    )
    a, b = view.panels
    assert view.curve(a, "control_attacked", "none", "V")["accuracy"].max() == pytest.approx(0.4)
    assert view.curve(b, "control_attacked", "none", "V").empty


def test_trajectory_begins_before_unlearning():
    view = view_of(recovery_row(acc_before=1.0, acc_unlearned=0.2, retain_before=0.9, retain_unlearned=0.7))
    (path,) = view.trajectories(view.panels[0], "GD", 0)
    assert path["step"].tolist() == [0, 10, 20]
    assert path["forget"].tolist() == pytest.approx([1.0, 0.6, 0.2])
    assert path["retain"].tolist() == pytest.approx([0.9, 0.8, 0.7])


def test_control_curve_is_found_in_another_dataset_and_the_own_one_goes_first():
    view = view_of(recovery_row(acc_control_attacked=0.4))
    assert view.curve(view.panels[0], "control_attacked", "none", "V")["accuracy"].max() == pytest.approx(0.4)
    own = view.accuracy[view.accuracy["stage"] == "control_attacked"].assign(dataset="people_p", accuracy=0.1)
    view.accuracy = pd.concat([view.accuracy, own])
    assert set(view.curve(view.panels[0], "control_attacked", "none", "V")["accuracy"]) == {0.1}


def test_curve_takes_the_views_budget():
    view = view_of(recovery_row(acc_attacked=0.8), recovery_row(retain_budget=1.0, acc_attacked=0.5))
    assert view.curve(view.panels[0], "unlearned_attacked", "GD", "V")["accuracy"].max() == pytest.approx(0.8)


# ---- what is drawn


def test_accuracy_draws_the_rows_with_their_intervals():
    row = recovery_row(
        "RMU", acc_unlearned=0.31, acc_attacked=0.77, acc_original_attacked=0.93, acc_control_attacked=0.26, floor=0.24
    )
    figure, _ = draw("accuracy", view_of(row))
    axes = figure.axes[0]
    assert [(y, hollow) for _, y, hollow in marks(axes, colour("RMU", METHODS))] == [(0.77, False)]
    assert [(y, hollow) for _, y, hollow in marks(axes, pale("RMU"))] == [(0.31, False)]  # before the attack
    assert [y for _, y, _ in marks(axes, "#000000")] == [0.93]
    assert [y for _, y, _ in marks(axes, "#666666")] == [0.26]
    bars = {tuple(np.round(line.get_ydata(), 6)) for line in axes.lines if len(line.get_ydata()) == 2}
    assert {(0.26, 0.36), (0.72, 0.82), (0.88, 0.98), (0.21, 0.31), (0.24, 0.24)} <= bars


def test_the_oracle_stands_beside_the_control():
    figure, _ = draw("accuracy", view_of(recovery_row(acc_oracle_attacked=0.33)))
    axes = figure.axes[0]
    assert [y for _, y, _ in marks(axes, "#666666")] == [0.33, 0.3]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["original", "GD", "oracle", "control"]
    figure, _ = draw("curves", view_of(recovery_row(acc_oracle_attacked=0.33)))
    assert [axes.get_title() for axes in figure.axes] == ["original", "GD", "oracle", "control"]


@pytest.mark.parametrize("name", ["accuracy", "recovery", "tradeoff", "curves", "sensitivity", "probes", "attack"])
def test_what_does_not_count_is_hollow(name):
    """One method counts and one does not, and nothing else is hollow; the panel says how many count."""
    table = recovery(recovery_row("GD"), recovery_row("RMU", status="not_unlearned"))
    view = make_view(table, accuracy(table), probes(table))
    figure, _ = draw(name, view)
    open_of = {"GD": set(), "RMU": set()}
    for method, found in open_of.items():
        for tint, marker in ((colour(method, METHODS), None), (pale(method), None)):
            for line in (line for axes in figure.axes for line in axes.lines if line.get_marker() not in ("None", "x")):
                if to_hex(line.get_color()) == tint.lower() and (marker or line.get_marker() != "."):
                    face = line.get_markerfacecolor()
                    large = name != "tradeoff" or line.get_markersize() > 5
                    found |= {face == "none" or to_hex(face) == "#ffffff"} if large and len(line.get_xdata()) else set()
    assert open_of == {"GD": {False}, "RMU": {True}}
    if name in ("accuracy", "recovery", "tradeoff", "sensitivity"):
        assert "1 of 2 count as unlearned" in figure.axes[0].get_title(loc="left")
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert any("does not count as unlearned" in text for text in legend)


def test_recovery_draws_both_rates_and_shows_what_has_none():
    rows = [
        recovery_row("GD", recovery=0.9, recovery_corrected=0.7),
        recovery_row("RMU", status="none_within_budget"),
        recovery_row("RIA", status="below_floor"),
    ]
    figure, _ = draw("recovery", view_of(*rows))
    axes = figure.axes[0]
    assert [y for _, y, _ in marks(axes, colour("GD", METHODS))] == [0.7]
    assert [y for _, y, _ in marks(axes, pale("GD"))] == [0.9]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["GD", "RMU\n¶", "RIA\n†"]
    assert [text.get_text() for text in axes.texts if text.get_text() == "no value"] == ["no value"]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "¶ no point within the budget" in legend
    assert not any("undefined" in text for text in legend)


def test_recovery_writes_no_number_where_it_cannot_tell():
    rows = [recovery_row("GD", recovery=0.9, recovery_corrected=0.7, cannot_tell="recovery_corrected")]
    figure, _ = draw("recovery", view_of(*rows))
    assert [text.get_text() for text in figure.axes[0].texts] == [".90", "?"]
    assert "? cannot tell: interval reaches beyond .25" in [t.get_text() for t in figure.legends[0].get_texts()]
    calm, _ = draw("recovery", view_of(recovery_row("GD")))
    assert not any("?" in text.get_text() for text in calm.legends[0].get_texts())


def test_several_seeds_are_all_shown_with_their_mean():
    rows = [recovery_row(seed=s, acc_attacked=a) for s, a in ((1, 0.5), (2, 0.6), (3, 0.85))]
    rows[2]["status"] = "undefined"
    figure, _ = draw("accuracy", view_of(*rows))
    axes = figure.axes[0]
    filled = [y for _, y, hollow in marks(axes, colour("GD", METHODS)) if not hollow]
    assert filled == [0.5, 0.6, 0.85]
    wide = [line.get_ydata()[0] for line in axes.lines if line.get_linewidth() == 2 and len(line.get_ydata()) == 2]
    assert any(value == pytest.approx(0.65) for value in wide)
    assert axes.get_xticklabels()[1].get_text() == "GD\n§ 1/3"


def test_tradeoff_draws_trajectory_budget_and_chosen_point():
    figure, _ = draw("tradeoff", view_of(recovery_row(retain_before=0.9, retain_unlearned=0.85, acc_unlearned=0.3)))
    axes = figure.axes[0]
    levels = [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == ":"]
    assert levels == [pytest.approx(0.81)]  # 10 % of .9 may be lost
    assert [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--"] == [0.27]
    chosen = [line for line in axes.lines if line.get_markersize() == 8 and len(line.get_xdata())]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in chosen] == [(0.3, 0.85)]


def test_tradeoff_names_methods_without_a_point():
    figure, _ = draw("tradeoff", view_of(recovery_row(), recovery_row("RIA", status="none_within_budget")))
    assert [text.get_text() for text in figure.axes[0].texts] == ["no point within the budget:\nRIA"]
    rows = [recovery_row("GD", seed=1), recovery_row("GD", seed=2, status="none_within_budget")]
    rows += [recovery_row("RIA", seed=seed, status="none_within_budget") for seed in (1, 2)]
    figure, _ = draw("tradeoff", view_of(*rows))
    assert figure.axes[0].texts[0].get_text() == "no point within the budget:\nGD (some seeds), RIA"


def test_curves_have_a_line_per_learning_rate_and_set():
    figure, _ = draw(
        "curves", view_of(recovery_row(acc_attacked=0.8), recovery_row("RMU", status="none_within_budget"))
    )
    original, gd, rmu, control = figure.axes
    drawn = [line for line in gd.lines if len(line.get_ydata()) == 2 and line.get_ydata()[0] != 0.27]
    solid = sorted(tuple(np.round(line.get_ydata(), 6)) for line in drawn if line.get_linestyle() == "-")
    assert solid == [(0.2, 0.4), (0.6, 0.8)]
    assert len(drawn) == 4  # two learning rates, on V and on T
    assert [text.get_text() for text in rmu.texts] == ["no point\nin budget"]
    assert [axes.get_title() for axes in (original, gd, rmu, control)] == ["original", "GD", "RMU", "control"]


def test_a_method_looks_the_same_wherever_it_stands_and_differs_without_colour():
    looks = (
        {colour(name, METHODS) for name in METHODS}, {str(dash_of(name)) for name in METHODS},
        set(map(marker_of, METHODS)),
    )  # fmt: skip
    assert [len(look) for look in looks] == [len(METHODS)] * 3
    for name in ("accuracy", "recovery"):
        few, _ = draw(name, view_of(recovery_row("FIF")))
        assert marks(few.axes[0], colour("FIF", METHODS))


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("seeds", [(0,), (11, 12, 13)])
def test_nothing_is_cut_and_nothing_overlaps(name, seeds):
    table = full_study(seeds)
    if name in ("attacks", "cost"):
        view = full_view(seeds, ["quantise"] * (name == "attacks"))
    else:
        view = make_view(table, accuracy(table), probes(table), over_seeds(table))
    figure, renderer = draw(name, view)
    width, height = figure.bbox.size
    if name == "seeds" and len(seeds) == 1:  # nothing to draw, which it says
        assert "has one seed" in figure.texts[0].get_text().replace("\n", " ")
        return
    legend = [text for one in figure.legends for text in one.get_texts()]  # `steps` names its marks itself
    boxes = [part.get_window_extent(renderer) for part in (figure._suptitle, *legend, *figure.legends)]
    for axes in figure.axes:
        if axes.get_visible():
            low, high = axes.get_xlim()
            names = [t.label1 for t in axes.xaxis.get_major_ticks() if low <= t.get_loc() <= high]
            ticks = [name.get_window_extent(renderer) for name in names if name.get_visible()]
            boxes += ticks
            labels = [label for label in (axes.xaxis.label, axes.yaxis.label, axes.title) if label.get_text()]
            boxes += [label.get_window_extent(renderer) for label in labels]
            assert all(a.x1 < b.x0 for a, b in pairwise(ticks)), "tick labels overlap"
            for text in legend:
                assert not text.get_window_extent(renderer).overlaps(axes.get_tightbbox(renderer)), text.get_text()
    for box in boxes:
        assert box.x0 > -1 and box.x1 < width + 1 and box.y0 > -1 and box.y1 < height + 1, box


# ---- files and bytes


def test_the_font_is_the_one_that_matplotlib_ships():
    import matplotlib

    assert Path(findfont("DejaVu Sans")).is_relative_to(Path(matplotlib.get_data_path()))


def test_same_bytes_in_another_process_under_another_matplotlibrc(tmp_path):
    folder = write_study(tmp_path / "study", full_study()) / "tables"
    (tmp_path / "matplotlibrc").write_text(
        "font.size: 20\nsvg.hashsalt: other\nfigure.facecolor: red\naxes.grid: True\n"
    )
    scripts = Path(__file__).parents[2] / "scripts"
    environment = {
        "PYTHONPATH": str(scripts),
        "PYTHONHASHSEED": "7",
        "MATPLOTLIBRC": str(tmp_path),
        "TZ": "Asia/Tokyo",
    }
    names, kinds = ("accuracy", "curves"), (".svg", ".png")
    outs = [[str(tmp_path / f"{name}{kind}") for kind in kinds] for name in names]
    commands = [["figure", name, "--tables", str(folder), "--out", *out] for name, out in zip(names, outs, strict=True)]
    code = f"from rtt.__main__ import main; assert not any([main(command) for command in {commands}])"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)
    view = make_view(*load(folder))
    for name, out in zip(names, outs, strict=True):
        assert [Path(one).read_bytes() for one in out] == render(name, view, list(kinds))


def test_no_date_and_no_program_in_the_files():
    svg, png = render("recovery", view_of(recovery_row()), [".svg", ".png"])
    assert not re.search(rb"<dc:date>|<dc:creator>", svg)
    assert b"font-family" not in svg  # text is outlines
    chunks, at = [], 8
    while at < len(png):
        size, kind = struct.unpack(">I4s", png[at : at + 8])
        chunks.append(kind)
        at += size + 12
    assert set(chunks) <= {b"IHDR", b"pHYs", b"IDAT", b"IEND"}


def test_names_with_dollars_and_markup_are_drawn_as_they_are():
    rows = [recovery_row(dataset="a$_{b$"), recovery_row(dataset="<script>&--")]
    for name in FIGURES:
        render(name, view_of(*rows), [".svg"])


def test_unknown_methods_and_arms_are_drawn():
    view = view_of(recovery_row("DPO", "elsewhere"), recovery_row("GD", "elsewhere"))
    assert view.methods == ["GD", "DPO"]
    for name in FIGURES:
        render(name, view, [".svg"])


def test_command_line_mistakes(tmp_path, capsys):
    folder = write_study(tmp_path, recovery(recovery_row())) / "tables"
    assert main(["figure", "accuracy", "--tables", str(folder), "--out", str(tmp_path / "x.pdf")]) == 1
    assert "written as .svg or .png, not '.pdf'" in capsys.readouterr().err
    assert main(["figure", "accuracy", "--tables", str(tmp_path / "none"), "--out", str(tmp_path / "x.svg")]) == 1
    assert "recovery.csv: no such file" in capsys.readouterr().err
    assert main(
        ["figure", "curves", "--tables", str(folder), "--probe", "likelihood", "--out", str(tmp_path / "x.svg")]
    )
    assert (
        "no rows with attack RTT, look_choice nested, probe likelihood, variant default, retain_budget 0.1"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "x.svg").exists()
    assert (
        main(["figure", "curves", "--tables", str(folder), "--out", str(tmp_path / "x.svg"), str(tmp_path / "x.png")])
        == 0
    )
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_broken_tables_are_named(tmp_path):
    folder = write_study(tmp_path, recovery(recovery_row())) / "tables"
    path = folder / "recovery.csv"
    text = path.read_text()
    path.write_text(text.replace("acc_attacked_low", "acc_low"))
    with pytest.raises(
        UserError, match=r"'acc_attacked_low' is missing. Another version made .* `rtt tables --results`"
    ):
        load(folder)
    path.write_text(text.replace("0.970000", "much"))
    with pytest.raises(UserError, match=r"column 'acc_before' holds something that is not a number"):
        load(folder)
    path.write_text(text.splitlines()[0] + "\n")
    with pytest.raises(UserError, match="no rows"):
        load(folder)

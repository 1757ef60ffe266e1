"""The figures, drawn from a `View`. Each function returns a matplotlib Figure; call within `style.settings()`."""

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

from rtt.figures import words
from rtt.figures.parts import (
    estimates,
    finish,
    floors,
    handle,
    name_panel,
    panels,
    seeds_handle,
    signs,
    tell,
    tick,
    with_status,
)
from rtt.figures.sensitivity import sensitivity
from rtt.figures.style import (
    ARM_MARKERS,
    BLACK,
    FLOOR,
    GREY,
    RATES,
    WIDTH,
    colour,
    dash_of,
    lighter,
    marker_of,
    number,
    percent,
)
from rtt.figures.view import Panel, View
from rtt.stats.recovery import TOO_WIDE

LOOK_MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*")


def accuracy(view: View) -> Figure:
    """Accuracy on V: original + RTT, unlearned, unlearned + RTT and control, per method and panel, with intervals."""
    figure, grid = panels(view, 2.75, "accuracy on V")
    for axes, panel in zip(grid, view.panels, strict=False):
        rows, marker = view.of(panel), ARM_MARKERS.get(panel.arm, "P")
        alone = rows.drop_duplicates("seed")
        floors(axes, rows)
        if len(view.seeds) == 1:  # the band that the criterion looks at
            band = alone.iloc[0]
            axes.axhspan(
                band["acc_control_attacked_low"], band["acc_control_attacked_high"], color="0.92", lw=0, zorder=-1
            )
        places = [0, *range(1, len(view.methods) + 1), len(view.methods) + 1]
        estimates(axes, 0, alone, "acc_original_attacked", BLACK, marker)
        estimates(axes, places[-1], alone, "acc_control_attacked", GREY, marker)
        names = ["original"]
        tell(axes, words.cell_text(panel, "original", alone, ["acc_original_attacked"]), (-0.45, 0.45))
        for x, method in enumerate(view.methods, 1):
            cell, tint = view.of(panel, method), colour(method, view.methods)
            start = estimates(axes, x - 0.2, cell, "acc_unlearned", tint, marker, hollow=True)
            end = estimates(axes, x + 0.2, cell, "acc_attacked", tint, marker)
            axes.plot([x - 0.2, x + 0.2], [start, end], color=lighter(tint, 0.55), lw=0.8, zorder=1)
            names.append(with_status(method, cell))
            if len(cell):
                tell(axes, words.cell_text(panel, method, cell, words.ACCURACIES), (x - 0.45, x + 0.45))
        last = places[-1]
        tell(axes, words.cell_text(panel, "control", alone, ["acc_control_attacked"]), (last - 0.45, last + 0.45))
        axes.set_xticks(places, [*names, "control"], fontsize=6.8)
        axes.set_xlim(-0.55, places[-1] + 0.55)
        axes.set_ylim(0, 1.1)
        axes.set_yticks(np.arange(0, 1.01, 0.2))
        name_panel(axes, panel)
    several = len(view.seeds) > 1
    handles = [
        handle("model after RTT", marker="o", color=BLACK),
        handle("unlearned, before RTT", marker="o", color=BLACK, mfc="white"),
        handle("floor: T's majority letter" if view.probe == "letter" else "floor: chance", color=FLOOR, ls="--"),
    ]
    handles += [seeds_handle(view), handle("mean", marker="_", color=BLACK, ms=10, mew=2)] if several else []
    handles += [] if several else [handle("95 % interval of the control", color="0.88", lw=6)]
    handles += signs(view)
    return finish(figure, words.title("accuracy", view), handles)


def recovery(view: View) -> Figure:
    """Recovery rates per method and panel, ratio and floor-corrected, with intervals and statuses."""
    figure, grid = panels(view, 2.75, "recovery rate")
    low, high = _limits(view.recovery)
    for axes, panel in zip(grid, view.panels, strict=False):
        marker, names = ARM_MARKERS.get(panel.arm, "P"), []
        axes.axhline(1, color=FLOOR, lw=0.7, zorder=0)
        axes.axhline(0, color=FLOOR, lw=0.7, ls=":", zorder=0)
        for x, method in enumerate(view.methods):
            cell, tint = view.of(panel, method), colour(method, view.methods)
            estimates(axes, x - 0.2, cell, "recovery", tint, marker, hollow=True, limits=(low, high))
            estimates(axes, x + 0.2, cell, "recovery_corrected", tint, marker, limits=(low, high))
            names.append(with_status(method, cell))
            if len(cell):
                tell(axes, words.cell_text(panel, method, cell, list(RATES)), (x - 0.45, x + 0.45))
            if cell["recovery_corrected"].isna().all():
                axes.text(x, 0.5, "no value", rotation=90, ha="center", va="center", color=GREY, fontsize=6.5)
        axes.set_xticks(range(len(names)), names)
        axes.set_xlim(-0.55, len(names) - 0.45)
        axes.set_ylim(low, high)
        name_panel(axes, panel)
    handles = [
        handle("ratio (the paper's)", marker="o", color=BLACK, mfc="white"),
        handle("floor-corrected ratio", marker="o", color=BLACK),
        handle("as much as original + RTT", color=FLOOR),
        handle("nothing above the floor (corrected)", color=FLOOR, ls=":"),
    ]
    if len(view.seeds) > 1:
        handles += [seeds_handle(view), handle("mean", marker="_", color=BLACK, ms=10, mew=2)]
    handles += signs(view)
    if any(words.unclear(view.recovery, name).any() for name in RATES):
        handles.append(handle(f"? cannot tell: interval reaches beyond {number(TOO_WIDE)}", ls="none"))
    return finish(figure, words.title("recovery", view), handles)


def tradeoff(view: View) -> Figure:
    """Forget against retain accuracy along the unlearning trajectories, the point selected for the budget marked."""
    figure, grid = panels(view, 2.75, "retain accuracy")
    several = len(view.seeds) > 1
    lowest = 1.0
    for axes, panel in zip(grid, view.panels, strict=False):
        rows = view.of(panel)
        for value in sorted(set(rows["floor"].dropna())):
            axes.axvline(value, color=FLOOR, lw=0.9, ls="--", zorder=0)
        for value in sorted(set(rows["retain_before"].dropna())):
            axes.axhline(value * (1 - view.budget), color=FLOOR, lw=0.9, ls=":", zorder=0)
            lowest = min(lowest, value * (1 - view.budget))
        absent = []
        for method in view.methods:
            tint, cell = colour(method, view.methods), view.of(panel, method)
            shape = marker_of(method)
            paths = [path for seed in cell["seed"] for path in view.trajectories(panel, method, seed)]
            for path in paths:
                faint = {"lw": 0.7, "alpha": 0.6} if len(paths) > 1 else {"lw": 1.2}
                axes.plot(path["forget"], path["retain"], color=tint, ls=dash_of(method), **faint)
                axes.plot(path["forget"][1:], path["retain"][1:], shape, color=tint, ms=2 if several else 3)
                lowest = min(lowest, path["retain"].min())
            chosen = cell.dropna(subset=["acc_unlearned"])
            axes.plot(
                chosen["acc_unlearned"], chosen["retain_unlearned"], shape, color=tint, mfc="none", mew=1.4,
                ms=5 if several else 8, zorder=4,
            )  # fmt: skip
            if several and len(chosen):
                mean = chosen[["acc_unlearned", "retain_unlearned"]].mean()
                axes.plot(*mean, shape, color=tint, mec=BLACK, ms=6, zorder=5)
            if len(chosen) < len(cell):
                absent.append(f"{method} (some seeds)" if len(chosen) else method)
            if len(chosen):
                mean = chosen[["acc_unlearned", "retain_unlearned"]].mean()
                text = words.cell_text(
                    panel, f"{method}, selected point", chosen, ["acc_unlearned", "retain_unlearned"]
                )
                tell(axes, text, *((value - 0.03, value + 0.03) for value in mean))
        axes.plot(rows["acc_before"], rows["retain_before"], "*", color=BLACK, ms=5 if several else 9, zorder=5)
        if absent:
            note = f"no point within the budget:\n{', '.join(absent)}"
            text = axes.text(
                0.98, 0.03, note, transform=axes.transAxes, ha="right", va="bottom", fontsize=6.5, color=GREY
            )
            text.set_path_effects([withStroke(linewidth=1.5, foreground="white")])
        axes.set_xlabel("forget accuracy")
        axes.set_xlim(0, 1.04)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axes.xaxis.set_major_formatter(FuncFormatter(tick))
        name_panel(axes, panel)
    for axes in grid[: len(view.panels)]:
        axes.set_ylim(math.floor(10 * lowest - 0.5) / 10, 1.02)
        axes.yaxis.set_major_locator(MultipleLocator(0.1 if lowest > 0.5 else 0.2))
    handles = []
    for method in view.methods:
        look = {"color": colour(method, view.methods), "ls": dash_of(method), "ms": 3.5}
        handles.append(handle(method, marker=marker_of(method), **look))
    handles += [
        handle("before unlearning", marker="*", color=BLACK, ms=9),
        handle("selected point", marker="o", color=BLACK, mfc="white", mew=1.4, ms=8),
        handle("floor", color=FLOOR, ls="--"),
        handle(f"budget: {percent(view.budget)} of retain accuracy lost", color=FLOOR, ls=":"),
    ]
    if several:
        handles.append(handle("mean of the selected", marker="o", color=GREY, mec=BLACK, ms=6))
    return finish(figure, words.title("tradeoff", view), handles)


def curves(view: View) -> Figure:
    """Accuracy on T and on V per epoch of RTT and learning rate: original, each method's unlearned model, control."""
    columns = [("original", "original_attacked", "none", BLACK)]
    columns += [(m, "unlearned_attacked", m, colour(m, view.methods)) for m in view.methods]
    columns += [("control", "control_attacked", "none", GREY)]
    size = (WIDTH, 0.95 + 1.35 * len(view.panels))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(view.panels), len(columns), sharex=True, sharey=True, squeeze=False)
    for line, panel in zip(grid, view.panels, strict=True):
        for axes, (name, stage, method, tint) in zip(line, columns, strict=True):
            floors(axes, view.of(panel))
            drawn = [_curve(axes, view, panel, stage, method, set_name, tint) for set_name in ("T", "V")]
            if not any(drawn):
                statuses = set(view.of(panel, name)["status"]) if stage == "unlearned_attacked" else set()
                why = "no point\nin budget" if "none_within_budget" in statuses else "not run"
                axes.text(0.5, 0.5, why, transform=axes.transAxes, ha="center", va="center", color=GREY, fontsize=7)
            else:
                tell(axes, words.curves_text(view, panel, name, stage, method))
            if panel is view.panels[0]:
                axes.set_title(name, color=tint, fontweight="bold")
            if panel is view.panels[-1]:
                axes.set_xlabel("epoch of RTT", fontsize=7)
            axes.set_ylim(0, 1.05)
            axes.set_yticks([0, 0.5, 1], ["0", ".5", "1"])
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
        line[0].set_ylabel(panel.name.replace(", ", ",\n").replace(" (", "\n("), fontsize=7.5)
    handles = [handle("on V", color=BLACK), handle("on T", color=BLACK, ls=(0, (2, 1.5)), lw=0.8)]
    for index, lr in enumerate(view.learning_rates):
        tint = lighter("#333333", _light(index, len(view.learning_rates)))
        handles.append(handle(f"learning rate {lr:g}", color=tint, marker=LOOK_MARKERS[index % 8], ms=3.5, ls="-"))
    handles.append(handle("floor", color=FLOOR, ls="--"))
    if len(view.seeds) > 1:
        handles.append(handle("one seed (lines: means)", marker=".", color=GREY, ms=3))
    return finish(figure, words.title("curves", view), handles)


def _limits(rows: pd.DataFrame) -> tuple[float, float]:
    """Limits of a recovery axis: all values, and their intervals as far as they stay within -.5 and 1.5."""
    ends = [rows[f"{name}{end}"] for name in RATES for end in ("", "_low", "_high")]
    values = pd.concat(ends).dropna().clip(-0.5, 1.5)
    points = pd.concat([rows[name] for name in RATES]).dropna()
    low = min([-0.05, *(values - 0.05), *(points - 0.05)])
    return low, max([1.1, *(values + 0.12), *(points + 0.12)])


def _curve(axes: Axes, view: View, panel: Panel, stage: str, method: str, set_name: str, tint: str) -> bool:
    table = view.curve(panel, stage, method, set_name)
    on_v = set_name == "V"
    for index, lr in enumerate(view.learning_rates):
        looks = table[table["lr"] == lr]
        if looks.empty:
            continue
        shade = lighter(tint, _light(index, len(view.learning_rates)))
        mean = looks.groupby("epoch")["accuracy"].mean()
        axes.plot(
            mean.index, mean, color=shade, ls="-" if on_v else (0, (2, 1.5)), lw=1.3 if on_v else 0.8,
            marker=LOOK_MARKERS[index % 8] if on_v else None, ms=2.4, zorder=3 if on_v else 2,
        )  # fmt: skip
        if on_v and looks["seed"].nunique() > 1:
            axes.plot(looks["epoch"], looks["accuracy"], ".", color=shade, ms=2.6, mew=0, zorder=2.5)
    return not table.empty


def _light(index: int, count: int) -> float:
    """Share of white for a learning rate: the smallest is the palest, the largest has the full colour."""
    return 0.0 if count == 1 else 0.45 * (1 - index / (count - 1))


FIGURES = {
    "accuracy": accuracy,
    "recovery": recovery,
    "tradeoff": tradeoff,
    "curves": curves,
    "sensitivity": sensitivity,
}

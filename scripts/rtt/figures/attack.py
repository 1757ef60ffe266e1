"""Draw the figure `attack`: accuracy on V against accuracy on T along the attack, at looks that all models share."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from rtt.figures import words_attack as words
from rtt.figures.curves import MARKERS, light
from rtt.figures.parts import card, finish, floors, handle, hollow_handle, tell, tick
from rtt.figures.style import BLACK, FLOOR, GREY, WIDTH, colour, lighter
from rtt.figures.view import Panel, View

LOOKS = {  # of the models beside the original and the unlearned one
    "oracle_attacked": {"ls": "-", "lw": 0.8, "color": "#888888"},
    "control_attacked": {"ls": (0, (1, 1.2)), "lw": 0.9, "color": "#888888"},
}


def attack(view: View) -> Figure:
    """Draw a row of axes per panel, one axes per method, with the original's path and those of oracle and control."""
    if not words.asks_t(view):
        return card(words.title(view))
    size = (max(0.5, min(1, len(view.methods) / 3)) * WIDTH, 0.95 + 1.75 * len(view.panels))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(view.panels), len(view.methods), sharex=True, sharey=True, squeeze=False)
    for row, panel in zip(grid, view.panels, strict=True):
        for axes, method in zip(row, view.methods, strict=True):
            tint, sound = colour(method, view.methods), words.counts_at(view, panel, method)
            axes.plot([0, 1], [0, 1], color="0.9", lw=0.7, zorder=0)
            floors(axes, view.of(panel))
            for stage, look in LOOKS.items():
                _paths(axes, view, panel, stage, "none", look["color"], look)
            _paths(axes, view, panel, "original_attacked", "none", BLACK, {"lw": 1.1})
            drawn = _paths(axes, view, panel, "unlearned_attacked", method, tint, {"lw": 1.1}, hollow=not sound)
            for one in words.common(view, panel, method):
                axes.plot(
                    [one.t, one.t_original], [one.v, one.v_original], color=tint, lw=0.7, ls=(0, (1, 2)), zorder=1
                )
            for column, dark in (("acc_before", BLACK), ("acc_unlearned", tint)):
                mean = view.of(panel, method)[column].mean()
                if drawn and not np.isnan(mean):
                    axes.plot(mean, mean, "x", color=dark, ms=3.6, mew=1, zorder=4)
            if drawn:
                tell(axes, words.method_text(view, panel, method))
            else:
                why = "no point in budget" if len(view.of(panel, method)) else "not run"
                axes.text(0.05, 0.9, why, transform=axes.transAxes, color=GREY, fontsize=7)
            axes.set_title(words.heading(view, panel, method), color=tint, fontsize=7, fontweight="bold")
            axes.set_xlim(0, 1.04)
            axes.set_ylim(0, 1.05)
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_formatter(FuncFormatter(tick))
                axis.set_ticks([0, 0.25, 0.5, 0.75, 1])
        row[0].set_ylabel(panel.name.replace(", ", ",\n").replace(" (", "\n(") + "\naccuracy on V", fontsize=7.5)
    for axes in grid[-1]:
        axes.set_xlabel("accuracy on T", fontsize=7)
    handles = [handle("original", color=BLACK), handle("unlearned (in its colour)", color=colour("GD", ["GD"]))]
    handles += [handle("oracle", **LOOKS["oracle_attacked"])] * view.has_oracle
    handles += [handle("control", **LOOKS["control_attacked"]), hollow_handle()]
    for index, line in enumerate(view.lines):
        shade = lighter("#333333", light(index, len(view.lines)))
        handles.append(handle(line.name or "settings", color=shade, marker=MARKERS[index % 8], ms=3.5))
    handles += [
        handle("before the attack", marker="x", color=BLACK),
        handle("the same last look", color=GREY, ls=(0, (1, 2))),
        handle("floor", color=FLOOR, ls="--"),
    ]
    return finish(figure, words.title(view), handles)


def _paths(axes: Axes, view: View, panel: Panel, stage: str, method: str, tint: str, look: dict, hollow=False) -> bool:
    """Draw the path of one model for each line of looks; return whether there is any."""
    drawn = False
    for index, (line, looks) in enumerate(words.paths(view, panel, stage, method)):
        shade = lighter(tint, light(index, len(view.lines)))
        style = {**look, "color": shade, "marker": MARKERS[index % 8], "mfc": "white" if hollow else shade}
        style |= {"ms": 2.3, "mew": 0.7, "ls": look.get("ls", "-") if line.name else "none", "zorder": 3}
        axes.plot(looks["T"], looks["V"], **style)
        last = looks.iloc[-1]
        axes.plot(
            last["T"], last["V"], marker=style["marker"], color=shade, mfc=style["mfc"], ms=4.2, mew=0.9, zorder=4
        )
        drawn = True
    return drawn

"""Draw the figure `attacks`: what every attack brings back from every method's model, the strongest among them."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from rtt.figures import words_suite as words
from rtt.figures.parts import card, finish, handle, hollow_handle, tell, tick
from rtt.figures.phrases import wrapped
from rtt.figures.style import BLACK, FLOOR, GREY, SPARE, WIDTH, colour, lighter
from rtt.figures.view import Panel, View
from rtt.study import plugins
from rtt.study.names import STRONGEST_ATTACK

ROW, HEAD, LINE = 0.17, 0.45, 0.18  # inches: an attack's row, what stands around a panel's rows, a line of text
LOW, HIGH = -0.3, 1.3  # the widest that the axis becomes; what lies beyond it is an arrow
NUMBER, END = 1.36, 1.7  # where the numbers stand, and the end of the axes
SHAPES = {"oracle": "P", "control": "D"}
SHIFT = {"oracle": -0.17, "control": 0.17}  # of a row, so that neither hides the other


def attacks(view: View) -> Figure:
    """Draw a row of axes per panel and one axes per method, with a line for each attack; of one there is nothing."""
    if not words.several(view):
        return card(words.title(view))
    names = words.attacks(view)
    titles = [wrapped(words.label(view, name) + " *" * words.left_out(name), 26) for name in names]
    row_height = ROW * (1.3 if any("\n" in text for text in titles) else 1)
    title, handles = words.title(view), _legend(view, names)
    around = LINE * (len(handles) / 2 + len(title) / 80 + 1)  # the legend's lines, two to a line, and the title's
    height = (row_height * len(names) + HEAD) * len(view.panels) + around
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    grid = figure.subplots(len(view.panels), len(view.methods), sharex=True, sharey=True, squeeze=False)
    for row, panel in zip(grid, view.panels, strict=True):
        for axes, method in zip(row, view.methods, strict=True):
            tint = colour(method, view.methods)
            for y, name in enumerate(names):
                _row(axes, view, panel, method, name, y)
            axes.axvline(1, color=FLOOR, lw=0.7, zorder=0)
            axes.axvline(0, color=FLOOR, lw=0.7, ls=":", zorder=0)
            axes.set_title(words.heading(view, panel, method), color=tint, fontsize=7, fontweight="bold")
            if len(view.of(panel, method)):
                tell(axes, words.method_text(view, panel, method))
            else:
                axes.text(0.5, len(names) / 2 - 0.5, "not run", ha="center", va="center", color=GREY, fontsize=7)
            axes.set_xlim(LOW, END)
            axes.set_xticks([0, 0.5, 1])
            axes.xaxis.set_major_formatter(FuncFormatter(tick))
            axes.spines["bottom"].set_bounds(LOW, HIGH)
            axes.tick_params(axis="y", length=0)
        row[0].set_ylim(len(names) - 0.4, -0.6)
        row[0].set_yticks(range(len(names)), titles, fontsize=6.2)
        if names[-1] == STRONGEST_ATTACK:
            row[0].get_yticklabels()[-1].set_fontweight("bold")
        row[0].set_ylabel(panel.name.replace(", ", ",\n").replace(" (", "\n("), fontsize=7.5)
    for axes in grid[-1]:
        axes.set_xlabel("recovery, floor-corrected", fontsize=7)
    return finish(figure, title, handles)


def _tint(name: str) -> str:
    """Return an attack's own colour; one that is not installed takes a spare one, the strongest black."""
    known = plugins.attacks().get(name)
    return BLACK if name == STRONGEST_ATTACK else known.colour if known else SPARE[0]


def _row(axes: Axes, view: View, panel: Panel, method: str, name: str, y: int) -> None:
    """Draw one attack: its mark with the interval and the number, each seed's value, the control's and the oracle's."""
    found, strongest = words.mark(view, panel, method, name), name == STRONGEST_ATTACK
    if strongest:
        axes.axhspan(y - 0.5, y + 0.6, color="0.93", lw=0, zorder=-2)
    if found is None:
        return
    for who, shape in SHAPES.items():
        if not np.isnan(value := getattr(found, who)):
            axes.plot(
                np.clip(value, LOW, HIGH), y + SHIFT[who], shape, color=lighter(GREY, 0.35), ms=3, mew=0, zorder=2
            )
    tint, sound = _tint(name), words.counts_at(view, panel, method)
    if len(found.each) > 1:
        values = [np.clip(value, LOW, HIGH) for value, _ in found.each]
        axes.plot(values, np.full(len(values), y + 0.26), ".", color=lighter(tint, 0.45), ms=2.2, mew=0, zorder=2)
    if np.isnan(found.value):
        axes.text(END, y, "no value", fontsize=5, va="center", ha="right", color=GREY)
        return
    ends = np.clip([found.low, found.high], LOW, HIGH)
    axes.plot(ends, [y, y], color=tint, lw=2.2 if strongest else 1.2, solid_capstyle="butt", zorder=3)
    inside = float(np.clip(found.value, LOW, HIGH))
    shape = "*" if strongest else "o" if inside == found.value else ">" if found.value > inside else "<"
    look = {"ms": 9 if strongest else 4.2, "mfc": tint if sound else "white", "mew": 0.9}
    axes.plot(inside, y, shape, color=tint, clip_on=False, zorder=4, **look)
    bold = {"fontweight": "bold"} if strongest else {}
    axes.text(NUMBER, y, words.value_text(found), fontsize=5.8, va="center", color=BLACK, **bold)


def _legend(view: View, names: list[str]) -> list:
    handles = [handle("an attack, in its colour, with 95 % interval", marker="o", color=_tint(view.attack))]
    if STRONGEST_ATTACK in names:
        handles.append(handle("the strongest, chosen on other questions", marker="*", color=BLACK, ms=8))
    handles += [hollow_handle()]
    handles += [handle(f"{who} under the same attack", marker=SHAPES[who], color=lighter(GREY, 0.35), ms=4)
                for who in SHAPES if who == "control" or view.has_oracle]  # fmt: skip
    handles += [handle("original under the same attack", color=FLOOR), handle("floor", color=FLOOR, ls=":")]
    if len(view.seeds) > 1:
        handles.append(handle("one seed", marker=".", color=GREY, ms=3))
    if any(map(words.left_out, names)):
        handles.append(handle("* a floor of its own: not in the strongest", ls="none"))
    return handles

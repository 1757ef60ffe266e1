"""The figure `steps`: the test in four steps, with a study's own numbers, for a reader who sees such a test first.

It shows the facts that the claim is about. What a step adds is in groups `stepN-...` of the SVG, so that the report can
show one step after the other.
"""

import math

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter

from rtt.figures import words, words_steps
from rtt.figures.parts import floors, tell
from rtt.figures.phrases import upper, wrapped
from rtt.figures.style import BLACK, GREY, WIDTH, colour, lighter
from rtt.figures.view import Panel, View
from rtt.figures.words_steps import share, shown_panels, told_rows, value
from rtt.stats import criterion

PLACES = {"before": 0.0, "unlearned": 1.0, "attacked": 2.0, "beside": 3.0}
BROAD, NARROW = 0.78 * WIDTH, 3.8  # inches; the second for a screen of some 390 pixels
APART = {7.0: 0.075, 6.2: 0.068}  # of the axis, between two labels of a size


def steps(view: View, narrow: bool = False) -> Figure:
    """Draw what share of V is answered at each step: before, unlearned, attacked, and by models that never knew it.

    A method is a line whose marks are hollow where it does not count as unlearned. With several seeds a mark is a mean
    and short dashes are the seeds. narrow: drawn for a phone.
    """
    panels = shown_panels(view)
    width, height = (NARROW, 3.1) if narrow else (BROAD, 2.6)
    figure = Figure(figsize=(width, height * len(panels) + 0.35), layout="constrained")
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, panel in zip(grid, panels, strict=True):
        _panel(axes, view, panel, size=6.2 if narrow else 7.0)
        if len(panels) > 1:
            axes.set_title(upper(panel.facts), loc="left", fontweight="bold")
    for axes in grid:
        axes.set_xticks(
            list(PLACES.values()), [wrapped(text, 13 if narrow else 18) for text in words_steps.ticks(view)]
        )
        axes.tick_params(axis="x", length=0, labelsize=6.6 if narrow else 7.8)
    figure.suptitle(wrapped(words.title("steps", view), round(12.5 * width)), x=0.01, ha="left", fontweight="bold")
    return figure


def _panel(axes: Axes, view: View, panel: Panel, size: float) -> None:
    rows = view.of(panel)
    alone = rows.drop_duplicates("seed")
    floors(axes, rows)
    floor = float(rows["floor"].mean())
    axes.annotate("guessing", (-0.45, floor), (0, 2), textcoords="offset points", fontsize=size, color=GREY)
    start = _mark(axes, 1, 0, alone, "acc_before", BLACK)
    first, last = [(start, share(start), BLACK)], []
    _labels(axes, 1, PLACES["before"], first, size)
    gone = []
    for method in view.methods:
        cell, tint = told_rows(view.of(panel, method)), colour(method, view.methods)
        if cell.empty:
            continue
        face = tint if criterion.counts(view.of(panel, method)) else "white"
        low = _mark(axes, 2, PLACES["unlearned"], cell, "acc_unlearned", tint, face)
        high = _mark(axes, 3, PLACES["attacked"], cell, "acc_attacked", tint, face)
        for step, x, ends in ((2, (0, 1), (start, low)), (3, (1, 2), (low, high))):
            [drawn] = axes.plot(x, ends, color=lighter(tint, 0.35), lw=1.3, zorder=1)
            _of_step(step, drawn)
        gone.append((low, share(low), tint))
        last.append((high, f"{method} {share(high)}", tint))
    _labels(axes, 2, PLACES["unlearned"], gone, size)
    _labels(axes, 3, PLACES["attacked"], last, size)
    beside = [(name, f"acc_{name}_attacked") for name in ("oracle", "control")]
    beside = [(name, column) for name, column in beside if alone[column].notna().any()]
    for n, (name, column) in enumerate(beside):
        x = PLACES["beside"] + 0.5 * (n - (len(beside) - 1) / 2)
        mean = _mark(axes, 4, x, alone, column, GREY, shape="D")
        top = float(alone[[column, f"{column}_high"]].max(axis=None))
        told = f"{name}\n{share(mean)}"
        label = axes.annotate(
            told, (x, top), (0, 5), textcoords="offset points", fontsize=size, color=GREY, ha="center"
        )
        _of_step(4, label)
    if any(not criterion.counts(view.of(panel, method)) for method in view.methods):
        axes.text(3.5, 0.03, "hollow: does not\ncount as unlearned", fontsize=size, color=GREY, ha="right")
    axes.set_xlim(-0.5, 3.55)
    axes.set_ylim(0, 1.1)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: share(value)))
    axes.set_ylabel("answered right, of V")
    for text, place in zip(words_steps.spots(view, panel), PLACES.values(), strict=True):
        tell(axes, text, (place - 0.45, place + 0.45))


def _mark(
    axes: Axes, step: int, x: float, rows: pd.DataFrame, column: str, tint: str, face: str = "", shape: str = "o"
) -> float:
    """Draw a mean as a mark, and one seed's interval as a line or each of several seeds as a dash; return the mean."""
    mean = value(rows, column)
    if math.isnan(mean):
        return mean
    known = rows.dropna(subset=[column])
    if len(known) > 1:
        for one in known[column]:
            [drawn] = axes.plot([x - 0.06, x + 0.06], [one, one], color=lighter(tint, 0.4), lw=0.8, zorder=2)
            _of_step(step, drawn)
    elif f"{column}_low" in known:
        ends = [float(known.iloc[0][f"{column}{end}"]) for end in ("_low", "_high")]
        [drawn] = axes.plot([x, x], ends, color=lighter(tint, 0.3), lw=1.1, zorder=2)
        _of_step(step, drawn)
    [drawn] = axes.plot(x, mean, shape, color=tint, mfc=face or tint, ms=5.5, mew=1.2, zorder=4)
    _of_step(step, drawn)
    return mean


def _labels(axes: Axes, step: int, x: float, told: list[tuple[float, str, str]], size: float) -> None:
    """Write texts to the right of marks at these heights, moved apart where they would overlap."""
    told = sorted((one for one in told if not math.isnan(one[0])), key=lambda one: one[0])
    places: list[float] = []
    for height, *_ in told:
        places.append(max(height, places[-1] + APART[size]) if places else height)
    over = max(0.0, places[-1] - 1.06) if places else 0.0
    for place, (_, text, tint) in zip(places, told, strict=True):
        label = axes.annotate(
            text, (x, place - over), (7, 0), textcoords="offset points", va="center", fontsize=size, color=tint
        )
        label.set_path_effects([withStroke(linewidth=2, foreground="white")])
        _of_step(step, label)


def _of_step(step: int, drawn: Artist) -> None:
    """Mark what a step adds, with an id of its own in the SVG."""
    axes = drawn.axes
    axes.added = getattr(axes, "added", 0) + 1
    drawn.set_gid(f"step{step}-{axes.get_subplotspec().num1}-{axes.added}")

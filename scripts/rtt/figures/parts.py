"""Draw what the figures share: panels, estimates with their intervals, legends, and places that tell numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter

from rtt.figures import phrases
from rtt.figures.style import BLACK, FLOOR, GREY, STATUS, WIDTH, lighter, number
from rtt.figures.view import Panel, View

COLUMNS = 3  # panels side by side
PALE = 0.45  # share of white in the colour of what stands beside the main mark


@dataclass(frozen=True)
class Spot:
    """A part of a drawn figure with what it shows in words; its place is in per cent of the figure."""

    left: float
    top: float
    width: float
    height: float
    text: str


def tell(axes: Axes, text: str, x: tuple[float, float] | None = None, y: tuple[float, float] | None = None) -> None:
    """Note what a part of the axes shows: between these ends in data coordinates, else as wide or high as the axes."""
    figure = axes.get_figure()
    figure.told = [*getattr(figure, "told", []), (axes, x, y, text)]


def spots(figure: Figure) -> list[Spot]:
    """Return the parts of a figure that were noted. Call after it has been rendered, which lays it out."""
    found = []
    for axes, x, y, text in getattr(figure, "told", []):
        (left, bottom), (right, top) = axes.transAxes.transform([(0, 0), (1, 1)])
        if x is not None:
            left, right = sorted(axes.transData.transform([(end, axes.get_ylim()[0]) for end in x])[:, 0])
        if y is not None:
            bottom, top = sorted(axes.transData.transform([(axes.get_xlim()[0], end) for end in y])[:, 1])
        width, height = figure.bbox.width, figure.bbox.height
        shares = left / width, 1 - top / height, (right - left) / width, (top - bottom) / height
        found.append(Spot(*(round(float(100 * share), 2) for share in shares), text))
    return found


def card(text: str) -> Figure:
    """Return a figure that has nothing to show, and says why."""
    figure = Figure(figsize=(0.66 * WIDTH, 0.8), layout="constrained")
    figure.text(0.01, 0.5, phrases.wrapped(text, 60), va="center", fontsize=9, color=GREY)
    return figure


def panels(view: View, height: float, label: str) -> tuple[Figure, Sequence[Axes]]:
    """Return a figure with one axes per panel of the view, `COLUMNS` side by side, and all its axes in order."""
    columns = 2 if len(view.panels) == 4 else min(COLUMNS, len(view.panels))
    lines = math.ceil(len(view.panels) / columns)
    # One panel alone is drawn narrower than a page, so that its marks are not lost in white.
    width = WIDTH if columns > 1 else 0.66 * WIDTH
    figure = Figure(figsize=(width, height * lines + 0.35), layout="constrained")
    grid = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for axes in grid[:, 0]:
        axes.set_ylabel(label)
    flat = list(grid.flat)
    for axes in flat[len(view.panels) :]:
        axes.set_visible(False)
    for axes in flat:
        axes.yaxis.set_major_formatter(FuncFormatter(tick))
    return figure, flat


def tick(value: float, _) -> str:
    """Write an axis' number without its leading zero."""
    return f"{value:g}".replace("0.", ".", 1)


def name_panel(axes: Axes, panel: Panel, rows: pd.DataFrame) -> None:
    """Write the panel's name above its axes, and how many of its models count as unlearned (rows of recovery.csv)."""
    told = f"\n{int(rows['counts'].sum())} of {len(rows)} count as unlearned" if len(rows) else ""
    axes.set_title(panel.name.replace(" (", "\n(") + told, loc="left", fontweight="bold")
    axes.tick_params(axis="x", length=0 if axes.get_xlabel() == "" else 2)


def floors(axes: Axes, rows: pd.DataFrame) -> None:
    """Draw the floors of some rows as dashed lines."""
    for value in sorted(set(rows["floor"].dropna())):
        axes.axhline(value, color=FLOOR, lw=0.9, ls="--", zorder=0)


def estimates(axes, x, rows, column, tint, marker, *, judged=False, pale=False, limits=(-math.inf, math.inf)) -> float:
    """Draw each seed's value with its interval about `x`, and the mean of several seeds; return it, or NaN.

    judged: the rows are of unlearned models, and the marks of those that do not count are hollow. pale: in a lighter
    colour and smaller.
    """
    tint = to_hex(lighter(tint, PALE)) if pale else tint
    rows = rows.dropna(subset=[column])
    if rows.empty:
        return math.nan
    several = len(rows) > 1
    places = x + (np.linspace(-0.13, 0.13, len(rows)) if several else np.zeros(1))
    ends = rows[[column, f"{column}_low", f"{column}_high"]].to_numpy(float)
    for place, (value, low, high), sound in zip(places, ends, rows["counts"], strict=True):
        axes.plot(
            [place, place], [low, high], color=lighter(tint, 0.5) if several else tint, lw=0.6 if several else 1.1
        )
        for beyond, end, arrow in ((high > limits[1], limits[1], "^"), (low < limits[0], limits[0], "v")):
            if beyond:
                axes.plot(place, end, arrow, color=tint, ms=3.5, clip_on=False)
        face = "white" if judged and not sound else tint
        size = 2.6 if several else 3.4 if pale else 4.5
        axes.plot(place, value, marker, color=tint, mfc=face, ms=size, mew=0.7 if several else 1, zorder=3)
    mean = float(rows[column].mean())
    if several:
        axes.plot([x - 0.19, x + 0.19], [mean, mean], color=lighter(tint, 0.3), lw=2, solid_capstyle="butt", zorder=2)
    top = float(np.nanmax([rows[column].max(), rows[f"{column}_high"].max()]))
    if top < limits[1]:
        text = "?" if phrases.unclear(rows, column).any() else number(mean)
        lift = 4 if top - rows[column].max() < 0.02 else 2  # points: above the mark itself, where that is the top
        label = axes.annotate(text, (x, top), (0, lift), textcoords="offset points", ha="center", fontsize=6)
        label.set_path_effects([withStroke(linewidth=1.5, foreground="white")])
    return mean


def with_status(method: str, cell: pd.DataFrame) -> str:
    """Return a method's tick label: its name with the signs of statuses but `ok`, and how many seeds have them."""
    counts = cell.loc[cell["status"] != "ok", "status"].value_counts().sort_index()
    if len(cell) == 1:
        return "\n".join([method, *map(sign, counts.index)])
    return "\n".join([method, *(f"{sign(status)} {count}/{len(cell)}" for status, count in counts.items())])


def sign(status: str) -> str:
    """Return the sign of a status."""
    return STATUS[status][0] if status in STATUS else str(status)


def signs(view: View) -> list[Line2D]:
    """Return legend entries for the signs in use."""
    found = set(view.recovery["status"])
    return [handle(f"{mark} {text}", ls="none") for key, (mark, text) in STATUS.items() if key in found]


def hollow_handle() -> Line2D:
    """Return the legend entry of marks that do not count."""
    return handle("hollow: does not count as unlearned", marker="o", color=BLACK, mfc="white")


def handle(label: str, **look) -> Line2D:
    """Return a legend entry."""
    look = {"ls": "none" if "marker" in look and "lw" not in look else "-", "ms": 4.5, **look}
    return Line2D([], [], label=label, **look)


def seeds_handle(view: View) -> Line2D:
    """Return the legend entry of one seed's small mark."""
    return handle(f"one of {len(view.seeds)} seeds", marker="o", color=GREY, ms=2.6)


def finish(figure: Figure, title: str, handles: list[Line2D]) -> Figure:
    """Give a figure its title and legend."""
    width = figure.get_figwidth()
    figure.suptitle(phrases.wrapped(title, round(12.5 * width)), x=0.01, ha="left", fontweight="bold")
    columns = next(n for n in (6, 5, 4, 3, 2, 1) if n == 1 or _legend_width(handles, n) < width - 0.2)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)
    return figure


def _legend_width(handles: list[Line2D], columns: int) -> float:
    """Estimate a legend's width in inches from its characters; it fills one column after the other."""
    parts = np.array_split(np.array([len(handle.get_label()) for handle in handles]), min(columns, len(handles)))
    return sum(0.062 * part.max() + 0.6 for part in parts)

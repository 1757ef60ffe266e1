"""Draw the figure `probes`: every probe of every model before the attack, with its floor and margin."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter

from rtt.figures import words_probes as words
from rtt.figures.parts import card, finish, handle, tell, tick
from rtt.figures.style import BLACK, FLOOR, GREY, WIDTH, colour, lighter, number
from rtt.figures.view import View

ROW, HEAD = 0.125, 0.62  # inches: a probe's row, and what stands above and below the rows of a panel
TINTS = {"original": BLACK, "oracle": GREY, "control": GREY}
SHADES = ("0.25", "0.8", "0.5", "0.9", "0.35", "0.7", "0.6", "0.95", "0.45", "0.85")  # of the letters A, B, ...


def probes(view: View) -> Figure:
    """Draw a row of axes per panel and one axes per model: the original, each method's, the oracle and the control."""
    found = words.probes_of(view)
    if not found:
        return card(words.title(view))
    models = [m for m in words.models(view) if any(len(view.asked(p, m.stage, m.method)) for p in view.panels)]
    letters = any(words.said(view.asked(panel)) for panel in view.panels)
    lines = len(found) + letters
    height = (ROW * lines + HEAD) * len(view.panels) + 0.75
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    grid = figure.subplots(len(view.panels), len(models), sharex=True, sharey=True, squeeze=False)
    for row, panel in zip(grid, view.panels, strict=True):
        for axes, model in zip(row, models, strict=True):
            tint = colour(model.method, view.methods) if model.method else TINTS[model.stage]
            rows = view.asked(panel, model.stage, model.method)
            hollow = model.stage == "unlearned" and not words.counts_at(view, panel, model.method)
            for y, probe in enumerate(found):
                _probe(axes, y, rows[rows["probe"] == probe], model.stage, tint, hollow)
            if letters:
                _letters(axes, len(found), words.said(rows))
            axes.set_title(words.heading(view, panel, model), color=tint, fontsize=6, fontweight="bold")
            if rows.empty:
                axes.text(0.5, 0.5, "no model", transform=axes.transAxes, ha="center", color=GREY, fontsize=7)
            else:
                tell(axes, words.model_text(view, panel, model))
            axes.set_xlim(-0.03, 1.42)
            axes.set_xticks([0, 0.5, 1])
            axes.xaxis.set_major_formatter(FuncFormatter(tick))
            axes.spines["bottom"].set_bounds(0, 1)
            axes.tick_params(axis="y", length=0)
        row[0].set_ylim(lines - 0.4, -0.6)
        names = [words.PROBES.get(probe, probe) for probe in found]
        row[0].set_yticks(range(lines), [*names, *["letters said"] * letters], fontsize=6.5)
        row[0].set_ylabel(panel.name.replace(", ", ",\n").replace(" (", "\n("), fontsize=7.5)
    for axes in grid[-1]:
        axes.set_xlabel("accuracy", fontsize=7)
    handles = [
        handle("at its floor (95 % limit within the margin)", marker="o", color=BLACK),
        handle("not at its floor", marker=">", color=BLACK),
        handle("below its floor (99 %)", marker="<", color=BLACK),
        handle("hollow: does not count as unlearned", marker="o", color=BLACK, mfc="white"),
        handle("floor and margin", color=lighter(FLOOR, 0.45), lw=6),
    ]
    if len(view.seeds) > 1:
        handles.append(handle("small: one seed or repeat; large: mean", marker=".", color=GREY, ms=3))
    return finish(figure, words.title(view), handles)


def _probe(axes: Axes, y: int, rows: pd.DataFrame, stage: str, tint: str, hollow: bool) -> None:
    """Draw one probe of one model: floor and margin, each run's accuracy with its interval, the mean as a number."""
    if rows.empty:
        return
    floor, margin = rows["floor"].mean(), rows["margin"].mean()
    if not np.isnan(floor):
        axes.add_patch(Rectangle((floor, y - 0.42), margin, 0.84, color=lighter(FLOOR, 0.6), lw=0, zorder=0))
        axes.plot([floor, floor], [y - 0.42, y + 0.42], color="0.35", lw=0.9, zorder=1)
    several = len(rows) > 1
    face = "white" if hollow else tint
    if several:
        axes.plot(rows["accuracy"], np.full(len(rows), y), ".", color=lighter(tint, 0.4), ms=2.2, mew=0, zorder=2)
    else:
        axes.plot([rows["low"].iloc[0], rows["high"].iloc[0]], [y, y], color=lighter(tint, 0.3), lw=0.9, zorder=2)
    marker = "o" if stage == "original" else words.MARKS[words.place_of(rows)]
    mean = rows["accuracy"].mean()
    axes.plot(mean, y, marker, color=tint, mfc=face, ms=3.4, mew=0.8, zorder=3)
    axes.text(1.12, y, number(mean), fontsize=5.6, va="center", color=BLACK)


def _letters(axes: Axes, y: int, said: dict[str, int]) -> None:
    """Draw how often each letter was said as parts of a bar, with the letter where it fits and the highest share."""
    total, left = sum(said.values()), 0.0
    if not total:
        return
    for index, (letter, times) in enumerate(said.items()):
        share, shade = times / total, SHADES[index % len(SHADES)]
        axes.add_patch(Rectangle((left, y - 0.36), share, 0.72, facecolor=shade, edgecolor="white", lw=0.4, zorder=1))
        if share > 0.11:
            dark = float(shade) < 0.55
            middle = left + share / 2
            axes.text(middle, y, letter, fontsize=5, ha="center", va="center", color="white" if dark else BLACK)
        left += share
    axes.text(1.12, y, f"{100 * max(said.values()) / total:.0f} %", fontsize=5.6, va="center", color=BLACK)

"""Draw the figure `sensitivity`: accuracy on V before and after the attack under every other choice."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from rtt.figures import words
from rtt.figures.choices import Choice, choices
from rtt.figures.parts import COLUMNS, PALE, finish, handle, hollow_handle, name_panel, seeds_handle, tell, tick
from rtt.figures.style import BLACK, FLOOR, GREY, WIDTH, colour, lighter, marker_of
from rtt.figures.view import Panel, View
from rtt.stats import criterion

STEP, GAP, BETWEEN = 0.095, 0.06, 0.05  # inches: a mark's line, around a choice, between groups of choices


def sensitivity(view: View) -> Figure:
    """Draw a panel per arm and dataset, with a row per choice that holds a line per method and the control's."""
    found = choices(view)
    heights = [STEP * (len(view.methods) + 1) + GAP for _ in found]
    tops, top = [], 0.0
    for index, (choice, height) in enumerate(zip(found, heights, strict=True)):
        top += BETWEEN * (index > 0 and choice.group != found[index - 1].group)
        tops.append(top)
        top += height
    lines, columns = math.ceil(len(view.panels) / COLUMNS), min(COLUMNS, len(view.panels))
    figure = Figure(figsize=(WIDTH, (top + 0.75) * lines + 0.6), layout="constrained")
    grid = list(figure.subplots(lines, columns, sharey=True, sharex=True, squeeze=False).flat)
    for axes in grid[len(view.panels) :]:
        axes.set_visible(False)
    for index, (axes, panel) in enumerate(zip(grid, view.panels, strict=False)):
        for i, (choice, start, height) in enumerate(zip(found, tops, heights, strict=True)):
            if i % 2 == 0:
                axes.axhspan(start, start + height, color="0.965", lw=0, zorder=-2)
            _row(axes, view, panel, choice, start)
            if len(choice.of(panel)):
                tell(axes, words.choice_text(view, panel, choice), y=(start, start + height))
        axes.set_ylim(top, 0)
        middles = [start + height / 2 for start, height in zip(tops, heights, strict=True)]
        axes.set_yticks(middles, [choice.label for choice in found], fontsize=6.8)
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(0, 1.02)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axes.xaxis.set_major_formatter(FuncFormatter(tick))
        axes.tick_params(axis="x", labelbottom=True)
        if index + COLUMNS >= len(view.panels):
            axes.set_xlabel("accuracy on V")
        name_panel(axes, panel, view.of(panel))
    handles = [
        handle(method, marker=marker_of(method), color=colour(method, view.methods), ms=4) for method in view.methods
    ]
    handles += [
        handle(f"pale: before {view.attack_title}", marker="o", color=lighter(BLACK, PALE), ms=2.6),
        hollow_handle(),
        handle(f"control after {view.attack_title}", marker="|", color=GREY, mew=1.5),
        *[handle(f"oracle after {view.attack_title}", marker="+", color=GREY, mew=1.2)] * view.has_oracle,
        handle("floor", color=FLOOR, ls="--"),
    ]
    if len(view.seeds) > 1:
        handles += [seeds_handle(view)]
    return finish(figure, words.title("sensitivity", view), handles)


def _row(axes: Axes, view: View, panel: Panel, choice: Choice, start: float) -> None:
    """Draw one choice's results in a panel; the row begins `start` inches below its top."""
    rows = choice.of(panel)
    inside = STEP * (len(view.methods) + 1) + GAP
    for value in sorted(set(rows["floor"].dropna())):
        axes.plot([value, value], [start, start + inside], color=FLOOR, lw=0.8, ls="--", zorder=0)
    y = start + GAP / 2 + STEP / 2
    for method in view.methods:
        cell = rows[rows["method"] == method]
        tint, marker = colour(method, view.methods), marker_of(method)
        hollow = not criterion.counts(cell)
        _estimate(axes, y, cell, "acc_unlearned", to_hex(lighter(tint, PALE)), marker, hollow, size=2.6)
        _estimate(axes, y, cell, "acc_attacked", tint, marker, hollow)
        if len(cell) and (cell["status"] == "none_within_budget").all():
            axes.text(0.5, y, f"{method}: no point", color=GREY, fontsize=5, ha="center", va="center")
        y += STEP
    alone = rows.drop_duplicates("seed")
    _estimate(axes, y, alone, "acc_control_attacked", GREY, "|")
    _estimate(axes, y, alone, "acc_oracle_attacked", GREY, "+")


def _estimate(axes: Axes, y: float, rows, column: str, tint: str, marker: str, hollow=False, size=3.4) -> None:
    """Draw one seed's value with its interval, or several seeds' values and their mean."""
    rows = rows.dropna(subset=[column])
    if rows.empty:
        return
    if len(rows) == 1:
        [(low, high)] = rows[[f"{column}_low", f"{column}_high"]].to_numpy(float)
        axes.plot([low, high], [y, y], color=lighter(tint, 0.35), lw=0.9, zorder=1)
    else:
        axes.plot(rows[column], np.full(len(rows), y), ".", color=lighter(tint, 0.3), ms=2.4, mew=0, zorder=2)
        axes.plot([rows[column].min(), rows[column].max()], [y, y], color=lighter(tint, 0.6), lw=0.7, zorder=1)
    face = "white" if hollow else tint
    width = 1.5 if marker in "|+" else 0.8
    axes.plot(rows[column].mean(), y, marker, color=tint, mfc=face, ms=size, mew=width, zorder=3)

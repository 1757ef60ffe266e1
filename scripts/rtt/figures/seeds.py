"""Draw the figure `seeds`: each method's recovery over seeds, between the oracle and the original."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rtt.figures import words_attack as words
from rtt.figures.parts import card, finish, handle, hollow_handle, name_panel, panels, signs, tell, with_status
from rtt.figures.style import BLACK, FLOOR, GREY, colour, lighter, number
from rtt.figures.view import Panel, View

LOW, HIGH = -0.25, 1.3  # the widest that the axis becomes; a mark beyond it is an arrow


def seeds(view: View, beside: View | None = None) -> Figure:
    """Draw each seed's floor-corrected recovery, and means with t intervals; of one seed there is nothing to draw.

    beside: another study of the same facts, arms and methods, whose seeds become diamonds among these.
    """
    if len(view.seeds) < 2:
        return card(words.seeds_title(view))
    figure, grid = panels(view, 2.9, "floor-corrected recovery")
    for axes, panel in zip(grid, view.panels, strict=False):
        axes.axhline(1, color=FLOOR, lw=0.7, zorder=0)
        axes.axhline(0, color=FLOOR, lw=0.7, ls=":", zorder=0)
        found = words.oracle(view, panel)
        if found:
            axes.axhspan(min(found), max(found), color="0.9", lw=0, zorder=-2)
            axes.axhline(np.mean(found), color=GREY, lw=0.8, ls=(0, (4, 2)), zorder=-1)
        names = []
        for x, method in enumerate(view.methods):
            _method(axes, view, panel, method, x)
            if beside is not None:
                _diamonds(axes, beside, panel, method, x - 0.12)
            cell = view.of(panel, method)
            names.append(with_status(method, cell))
            if len(cell):
                tell(axes, words.seed_text(view, panel, method), (x - 0.45, x + 0.45))
        axes.set_xticks(range(len(names)), names)
        axes.set_xlim(-0.55, len(names) - 0.45)
        axes.set_ylim(LOW, HIGH)
        axes.set_yticks(np.arange(-0.2, 1.21, 0.2))
        name_panel(axes, panel, view.of(panel))
    handles = [
        handle("one seed", marker="o", color=BLACK, ms=3.4),
        hollow_handle(),
        handle("mean of the seeds that count, 95 % t interval", color=BLACK, lw=2),
        handle("pale: of all known seeds with a point", color=lighter(BLACK, 0.55), lw=2),
        handle("original after the attack", color=FLOOR),
        handle("floor", color=FLOOR, ls=":"),
    ]
    if view.has_oracle:
        handles.append(handle("oracle: mean, range of the seeds", color=GREY, ls=(0, (4, 2))))
    if beside is not None:
        text = f"this study, {'seed' if len(beside.seeds) == 1 else 'seeds'} {', '.join(map(str, beside.seeds))}"
        handles.append(handle(text, marker="D", color=BLACK, ms=4))
    handles += signs(view)
    return finish(figure, words.seeds_title(view), handles)


def _diamonds(axes: Axes, view: View, panel: Panel, method: str, x: float) -> None:
    """Draw the seeds of a study beside, in the middle of its method's points."""
    rows = view.of(panel, method).dropna(subset=["recovery_corrected"])
    for value, sound in zip(rows["recovery_corrected"], rows["counts"], strict=True):
        inside = float(np.clip(value, LOW, HIGH))
        face = BLACK if sound else "white"
        axes.plot(x, inside, "D", clip_on=False, zorder=4, color=BLACK, mfc=face, ms=4.6, mew=0.9)


def _method(axes: Axes, view: View, panel: Panel, method: str, x: float) -> None:
    """Draw one method's seeds, and beside them its two means."""
    tint, rows = colour(method, view.methods), view.of(panel, method).dropna(subset=["recovery_corrected"])
    if rows.empty:
        axes.text(x, 0.5, "no value", rotation=90, ha="center", va="center", color=GREY, fontsize=6.5)
        return
    places = x - 0.12 + np.linspace(-0.18, 0.18, len(rows)) * (len(rows) > 1)
    for place, value, sound in zip(places, rows["recovery_corrected"], rows["counts"], strict=True):
        inside = float(np.clip(value, LOW, HIGH))
        marker = "o" if inside == value else "^" if value > inside else "v"
        look = {"color": tint, "mfc": tint if sound else "white", "ms": 3.2, "mew": 0.8}
        axes.plot(place, inside, marker, clip_on=False, zorder=3, **look)
    for shift, of, pale in ((0.18, words.COUNTING, 0.0), (0.32, words.KNOWN, 0.55)):
        row = words.over_seeds(view, panel, method, of)
        if row is None:
            continue
        shade = lighter(tint, pale)
        ends = np.clip([float(row["low"]), float(row["high"])], LOW, HIGH)
        axes.plot([x + shift] * 2, ends, color=shade, lw=1.2, zorder=2)
        axes.plot([x + shift - 0.07, x + shift + 0.07], [row["mean"]] * 2, color=shade, lw=2.2, zorder=2)
        if not pale:
            top = max(ends[1], min(rows["recovery_corrected"].max(), HIGH))
            label = number(float(row["mean"]))
            axes.annotate(label, (x + shift, top), (0, 3), textcoords="offset points", ha="center", fontsize=6)

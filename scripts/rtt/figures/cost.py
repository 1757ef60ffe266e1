"""Draw the figure `cost`: what comes back of V after so many steps, tokens and FLOPs, beside who learns T anew."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from rtt.figures import words_cost as words
from rtt.figures.curves import MARKERS, light
from rtt.figures.parts import card, finish, floors, handle, hollow_handle, tell, tick
from rtt.figures.style import BLACK, FLOOR, GREY, WIDTH, colour, lighter
from rtt.figures.view import Panel, View

ON_T = {"ls": (0, (2.5, 1.5)), "lw": 0.9}
UNITS = "steps\ntokens\nFLOPs"
APART = 0.27  # of an axis a third of the page wide: between two ticks


def cost(view: View) -> Figure:
    """Draw a row of axes per panel and one axes per method, with accuracy on V and on T over the attack's steps."""
    if not words.has_cost(view):
        return card(words.title(view))
    panels = words.drawn(view)
    size = (max(0.6, min(1, len(view.methods) / 3)) * WIDTH, 0.95 + 2.0 * len(panels))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(panels), len(view.methods), sharey=True, squeeze=False)
    for row, panel in zip(grid, panels, strict=True):
        others = words.anew(view, panel)[1]
        for axes, method in zip(row, view.methods, strict=True):
            tint, sound = colour(method, view.methods), words.counts_at(view, panel, method)
            own = words.paths(view, panel, "unlearned", method)
            floors(axes, view.of(panel))
            _draw(axes, others, GREY)
            _draw(axes, own, tint, hollow=not sound, seeds=len(view.seeds) > 1)
            _ticks(axes, own or others, max(1.0, len(view.methods) / 3))
            if own:
                tell(axes, words.method_text(view, panel, method))
            else:
                axes.text(0.05, 0.9, "no point", transform=axes.transAxes, color=GREY, fontsize=7)
            axes.set_title(words.heading(view, panel, method), color=tint, fontsize=7, fontweight="bold")
            axes.set_ylim(0, 1.05)
            axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
            axes.yaxis.set_major_formatter(FuncFormatter(tick))
        row[0].set_ylabel(panel.name.replace(", ", ",\n").replace(" (", "\n(") + "\naccuracy", fontsize=7.5)
        row[0].annotate(
            UNITS, (0, 0), (-7, -6.5), xycoords="axes fraction", textcoords="offset points", ha="right", va="top",
            fontsize=5.6, color=GREY, linespacing=1.2,
        )  # fmt: skip
    return finish(figure, words.title(view), _legend(view, panels))


def _legend(view: View, panels: list[Panel]) -> list:
    tint = colour("GD", ["GD"])
    stages = dict.fromkeys(stage for panel in panels if (stage := words.anew(view, panel)[0]))
    handles = [handle("unlearned (in its colour), on V", color=tint, marker="o", ms=3.5, ls="-")]
    handles += [handle("the same, on T", color=tint, **ON_T)]
    for stage in stages:
        handles.append(handle(f"{stage}, on V", color=GREY, marker="o", ms=3.5, ls="-"))
        handles.append(handle(f"{stage}, on T: learning anew", color=GREY, **ON_T))
    if len(view.lines) > 1:
        for index, line in enumerate(view.lines):
            shade = lighter("#333333", light(index, len(view.lines)))
            handles.append(handle(line.name or "settings", color=shade, marker=MARKERS[index % 8], ms=3.5))
    handles += [hollow_handle(), handle("floor", color=FLOOR, ls="--")]
    if len(view.seeds) > 1:
        handles.append(handle("one seed, on V (lines: means)", marker=".", color=BLACK, ms=3))
    return handles


def _draw(axes: Axes, found: list[words.Path], tint: str, *, hollow: bool = False, seeds: bool = False) -> None:
    """Draw a model's paths: on V with marks, one seed's interval and the seeds of several, on T without."""
    for index, path in enumerate(found):
        shade, means = lighter(tint, light(index, len(found))), path.means
        axes.plot(means["step"], means["accuracy_t"], color=shade, **ON_T, zorder=2)
        look = {"marker": MARKERS[index % 8], "ms": 3, "mew": 0.8, "mfc": "white" if hollow else shade}
        axes.plot(means["step"], means["accuracy"], color=shade, lw=1.2, zorder=3, **look)
        if seeds:
            axes.plot(path.rows["step"], path.rows["accuracy"], ".", color=shade, ms=2.4, mew=0, zorder=2.5)
        elif path.rows["seed"].nunique() == 1:
            axes.vlines(path.rows["step"], path.rows["low"], path.rows["high"], color=shade, lw=0.8, zorder=2.5)


def _ticks(axes: Axes, found: list[words.Path], narrow: float) -> None:
    """Name the looks of the first path by steps, tokens and FLOPs: as many as there is space for."""
    if not found:
        return
    rows = found[0].means.to_dict("records")
    last = rows[-1]["step"]
    kept = [rows[0], rows[-1]]
    for row in rows[1:-1]:
        if all(abs(row["step"] - other["step"]) >= APART * narrow * last for other in kept):
            kept.append(row)
    kept.sort(key=lambda row: row["step"])
    texts = [f"{row['step']:.0f}\n{words.short(row['tokens'])}\n{words.flops(row['flops'])}" for row in kept]
    axes.set_xticks([row["step"] for row in kept], texts, fontsize=5.6, linespacing=1.2)
    axes.set_xlim(-0.03 * last, 1.05 * last)

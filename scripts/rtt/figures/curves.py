"""Draw the figure `curves`: accuracy on T and V after an attack, over its epochs or setting by setting."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rtt.figures import words
from rtt.figures.parts import finish, floors, handle, hollow_handle, tell
from rtt.figures.style import BLACK, FLOOR, GREY, WIDTH, colour, lighter
from rtt.figures.view import Line, Panel, View
from rtt.stats import criterion

MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*")
ON_T = {"ls": (0, (2, 1.5)), "lw": 0.8}


def curves(view: View) -> Figure:
    """Draw accuracy on T and V of the original, each method's unlearned model and the control, for each look.

    Looks that differ in their epoch alone form a curve. Settings without epochs stand side by side as points.
    """
    columns = [("original", "original_attacked", "none", BLACK)]
    columns += [(m, "unlearned_attacked", m, colour(m, view.methods)) for m in view.methods]
    columns += [("oracle", "oracle_attacked", "none", GREY)] * view.has_oracle
    columns += [("control", "control_attacked", "none", GREY)]
    size = (WIDTH, 0.95 + 1.35 * len(view.panels) + (0 if view.over_epochs else 0.9))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(view.panels), len(columns), sharex=True, sharey=True, squeeze=False)
    with_t = False
    for row, panel in zip(grid, view.panels, strict=True):
        for axes, (name, stage, method, tint) in zip(row, columns, strict=True):
            floors(axes, view.of(panel))
            hollow = stage == "unlearned_attacked" and not criterion.counts(view.of(panel, method))
            on_t, on_v = (_looks(axes, view, panel, stage, method, set_name, tint, hollow) for set_name in ("T", "V"))
            with_t |= on_t
            if not (on_t or on_v):
                statuses = set(view.of(panel, name)["status"]) if stage == "unlearned_attacked" else set()
                why = "no point\nin budget" if "none_within_budget" in statuses else "not run"
                axes.text(0.5, 0.5, why, transform=axes.transAxes, ha="center", va="center", color=GREY, fontsize=7)
            else:
                tell(axes, words.curves_text(view, panel, name, stage, method))
            if panel is view.panels[0]:
                axes.set_title(name, color=tint, fontweight="bold")
            axes.set_ylim(0, 1.05)
            axes.set_yticks([0, 0.5, 1], ["0", ".5", "1"])
            _x_axis(axes, view, last=panel is view.panels[-1])
        row[0].set_ylabel(panel.name.replace(", ", ",\n").replace(" (", "\n("), fontsize=7.5)
    return finish(figure, words.title("curves", view), _legend(view, with_t))


def _x_axis(axes: Axes, view: View, last: bool) -> None:
    if view.over_epochs:
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
        if last:
            axes.set_xlabel(f"epoch of {view.attack_title}", fontsize=7)
        return
    names = [setting or "the one setting" for setting in view.settings]
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=5.5)
    axes.set_xlim(-0.6, len(names) - 0.4)


def _legend(view: View, with_t: bool) -> list:
    if view.over_epochs:
        handles = [handle("on V", color=BLACK), handle("on T", color=BLACK, **ON_T)]
        for index, line in enumerate(view.lines):
            tint = lighter("#333333", light(index, len(view.lines)))
            handles.append(handle(line.name, color=tint, marker=MARKERS[index % 8], ms=3.5, ls="-"))
    else:
        handles = [handle("on V", color=BLACK, marker="o", ms=3.5)]
        handles += [handle("on T (small)", color=BLACK, marker="o", ms=2)] if with_t else []
    handles += [hollow_handle(), handle("floor", color=FLOOR, ls="--")]
    if len(view.seeds) > 1:
        means = "lines" if view.over_epochs else "large"
        handles.append(handle(f"one seed ({means}: means)", marker=".", color=GREY, ms=3))
    return handles


def _looks(axes: Axes, view: View, panel: Panel, stage: str, method: str, set_name: str, tint, hollow) -> bool:
    """Draw one model's looks on T or V; return whether there are any."""
    table = view.curve(panel, stage, method, set_name)
    for index, line in enumerate(view.lines):
        looks = table[table["setting"].isin(line.places)]
        if not looks.empty:
            shade = lighter(tint, light(index, len(view.lines)))
            looks = looks.assign(place=looks["setting"].map(line.places))
            _line(axes, line, looks, set_name == "V", shade, MARKERS[index % 8], hollow)
    return not table.empty


def _line(axes: Axes, line: Line, looks, on_v: bool, shade, marker: str, hollow: bool) -> None:
    mean = looks.groupby("place")["accuracy"].mean()
    several = looks["seed"].nunique() > 1
    if line.name:
        style = {"ls": "-", "lw": 1.3, "marker": marker, "zorder": 3} if on_v else {**ON_T, "zorder": 2}
        axes.plot(mean.index, mean, color=shade, mfc="white" if hollow else shade, ms=2.4, mew=0.7, **style)
    else:
        if on_v and not several:
            axes.vlines(looks["place"], looks["low"], looks["high"], color=shade, lw=0.9)
        face, size = "white" if hollow else shade, 3.4 if on_v else 2
        axes.plot(mean.index, mean, "o", color=shade, mfc=face, ms=size, mew=0.8, zorder=3 if on_v else 2)
    if on_v and several:
        axes.plot(looks["place"], looks["accuracy"], ".", color=shade, ms=2.6, mew=0, zorder=2.5)


def light(index: int, count: int) -> float:
    """Return the share of white in a line's colour: the first is the palest, the last has the full colour."""
    return 0.0 if count == 1 else 0.45 * (1 - index / (count - 1))

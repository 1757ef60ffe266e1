"""The four figures, drawn from a `View`. Each function returns a matplotlib Figure; call within `style.settings()`."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

from rtt.figures import words
from rtt.figures.style import (
    ARM_MARKERS,
    BLACK,
    DASHES,
    FLOOR,
    GREY,
    METHOD_MARKERS,
    RATES,
    STATUS,
    WIDTH,
    colour,
    lighter,
    number,
    percent,
)
from rtt.figures.view import Panel, View
from rtt.stats.recovery import TOO_WIDE

COLUMNS = 3  # panels side by side
LOOK_MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*")


def accuracy(view: View) -> Figure:
    """Accuracy on V: original + RTT, unlearned, unlearned + RTT and control, per method and panel, with intervals."""
    figure, grid = _panels(view, 2.75, "accuracy on V")
    for axes, panel in zip(grid, view.panels, strict=False):
        rows, marker = view.of(panel), ARM_MARKERS.get(panel.arm, "P")
        alone = rows.drop_duplicates("seed")
        _floors(axes, rows)
        if len(view.seeds) == 1:  # the band that the criterion looks at
            band = alone.iloc[0]
            axes.axhspan(band["acc_control_rtt_low"], band["acc_control_rtt_high"], color="0.92", lw=0, zorder=-1)
        places = [0, *range(1, len(view.methods) + 1), len(view.methods) + 1]
        _estimates(axes, 0, alone, "acc_original_rtt", BLACK, marker)
        _estimates(axes, places[-1], alone, "acc_control_rtt", GREY, marker)
        names = ["original"]
        for x, method in enumerate(view.methods, 1):
            cell, tint = view.of(panel, method), colour(method, view.methods)
            start = _estimates(axes, x - 0.2, cell, "acc_unlearned", tint, marker, hollow=True)
            end = _estimates(axes, x + 0.2, cell, "acc_rtt", tint, marker)
            axes.plot([x - 0.2, x + 0.2], [start, end], color=lighter(tint, 0.55), lw=0.8, zorder=1)
            names.append(_with_status(method, cell))
        axes.set_xticks(places, [*names, "control"], fontsize=6.8)
        axes.set_xlim(-0.55, places[-1] + 0.55)
        axes.set_ylim(0, 1.1)
        axes.set_yticks(np.arange(0, 1.01, 0.2))
        _name(axes, panel)
    several = len(view.seeds) > 1
    handles = [
        _handle("model after RTT", marker="o", color=BLACK),
        _handle("unlearned, before RTT", marker="o", color=BLACK, mfc="white"),
        _handle("floor: T's majority letter" if view.scoring == "letter" else "floor: chance", color=FLOOR, ls="--"),
    ]
    handles += [_seeds(view), _handle("mean", marker="_", color=BLACK, ms=10, mew=2)] if several else []
    handles += [] if several else [_handle("95 % interval of the control", color="0.88", lw=6)]
    handles += _signs(view)
    return _finish(figure, words.title("accuracy", view), handles)


def recovery(view: View) -> Figure:
    """Recovery rates per method and panel, ratio and floor-corrected, with intervals and statuses."""
    figure, grid = _panels(view, 2.75, "recovery rate")
    low, high = _limits(view.recovery)
    for axes, panel in zip(grid, view.panels, strict=False):
        marker, names = ARM_MARKERS.get(panel.arm, "P"), []
        axes.axhline(1, color=FLOOR, lw=0.7, zorder=0)
        axes.axhline(0, color=FLOOR, lw=0.7, ls=":", zorder=0)
        for x, method in enumerate(view.methods):
            cell, tint = view.of(panel, method), colour(method, view.methods)
            _estimates(axes, x - 0.2, cell, "recovery", tint, marker, hollow=True, limits=(low, high))
            _estimates(axes, x + 0.2, cell, "recovery_corrected", tint, marker, limits=(low, high))
            names.append(_with_status(method, cell))
            if cell["recovery_corrected"].isna().all():
                axes.text(x, 0.5, "no value", rotation=90, ha="center", va="center", color=GREY, fontsize=6.5)
        axes.set_xticks(range(len(names)), names)
        axes.set_xlim(-0.55, len(names) - 0.45)
        axes.set_ylim(low, high)
        _name(axes, panel)
    handles = [
        _handle("ratio (the paper's)", marker="o", color=BLACK, mfc="white"),
        _handle("floor-corrected ratio", marker="o", color=BLACK),
        _handle("as much as original + RTT", color=FLOOR),
        _handle("nothing above the floor (corrected)", color=FLOOR, ls=":"),
    ]
    if len(view.seeds) > 1:
        handles += [_seeds(view), _handle("mean", marker="_", color=BLACK, ms=10, mew=2)]
    handles += _signs(view)
    if any(words.unclear(view.recovery, name).any() for name in RATES):
        handles.append(_handle(f"? cannot tell: interval reaches beyond {number(TOO_WIDE)}", ls="none"))
    return _finish(figure, words.title("recovery", view), handles)


def tradeoff(view: View) -> Figure:
    """Forget against retain accuracy along the unlearning trajectories, the point selected for the budget marked."""
    figure, grid = _panels(view, 2.75, "retain accuracy")
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
            marker = METHOD_MARKERS.get(method, "P")
            paths = [path for seed in cell["seed"] for path in view.trajectories(panel, method, seed)]
            for path in paths:
                faint = {"lw": 0.7, "alpha": 0.6} if len(paths) > 1 else {"lw": 1.2}
                axes.plot(path["forget"], path["retain"], color=tint, ls=DASHES.get(method, "-"), **faint)
                axes.plot(path["forget"][1:], path["retain"][1:], marker, color=tint, ms=2 if several else 3)
                lowest = min(lowest, path["retain"].min())
            chosen = cell.dropna(subset=["acc_unlearned"])
            axes.plot(
                chosen["acc_unlearned"], chosen["retain_unlearned"], marker, color=tint, mfc="none", mew=1.4,
                ms=5 if several else 8, zorder=4,
            )  # fmt: skip
            if several and len(chosen):
                mean = chosen[["acc_unlearned", "retain_unlearned"]].mean()
                axes.plot(*mean, marker, color=tint, mec=BLACK, ms=6, zorder=5)
            absent += [method] * (len(chosen) < len(cell))
        axes.plot(rows["acc_before"], rows["retain_before"], "*", color=BLACK, ms=5 if several else 9, zorder=5)
        if absent:
            note = f"no point within the budget:\n{', '.join(absent)}" + (" (some seeds)" if several else "")
            axes.text(0.98, 0.03, note, transform=axes.transAxes, ha="right", va="bottom", fontsize=6.5, color=GREY)
        axes.set_xlabel("forget accuracy")
        axes.set_xlim(0, 1.04)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axes.xaxis.set_major_formatter(FuncFormatter(_tick))
        _name(axes, panel)
    for axes in grid[: len(view.panels)]:
        axes.set_ylim(math.floor(10 * lowest - 0.5) / 10, 1.02)
        axes.yaxis.set_major_locator(MultipleLocator(0.1 if lowest > 0.5 else 0.2))
    handles = []
    for method in view.methods:
        look = {"color": colour(method, view.methods), "ls": DASHES.get(method, "-"), "ms": 3.5}
        handles.append(_handle(method, marker=METHOD_MARKERS.get(method, "P"), **look))
    handles += [
        _handle("before unlearning", marker="*", color=BLACK, ms=9),
        _handle("selected point", marker="o", color=BLACK, mfc="white", mew=1.4, ms=8),
        _handle("floor", color=FLOOR, ls="--"),
        _handle(f"budget: {percent(view.budget)} of retain accuracy lost", color=FLOOR, ls=":"),
    ]
    if several:
        handles.append(_handle("mean of the selected", marker="o", color=GREY, mec=BLACK, ms=6))
    return _finish(figure, words.title("tradeoff", view), handles)


def curves(view: View) -> Figure:
    """Accuracy on T and on V per epoch of RTT and learning rate: original, each method's unlearned model, control."""
    columns = [("original", "original_rtt", "none", BLACK)]
    columns += [(m, "unlearned_rtt", m, colour(m, view.methods)) for m in view.methods]
    columns += [("control", "control_rtt", "none", GREY)]
    size = (WIDTH, 0.95 + 1.35 * len(view.panels))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(view.panels), len(columns), sharex=True, sharey=True, squeeze=False)
    for line, panel in zip(grid, view.panels, strict=True):
        for axes, (name, stage, method, tint) in zip(line, columns, strict=True):
            _floors(axes, view.of(panel))
            drawn = [_curve(axes, view, panel, stage, method, set_name, tint) for set_name in ("T", "V")]
            if not any(drawn):
                statuses = set(view.of(panel, name)["status"]) if stage == "unlearned_rtt" else set()
                why = "no point\nin budget" if "none_within_budget" in statuses else "not run"
                axes.text(0.5, 0.5, why, transform=axes.transAxes, ha="center", va="center", color=GREY, fontsize=7)
            if panel is view.panels[0]:
                axes.set_title(name, color=tint, fontweight="bold")
            if panel is view.panels[-1]:
                axes.set_xlabel("epoch of RTT", fontsize=7)
            axes.set_ylim(0, 1.05)
            axes.set_yticks([0, 0.5, 1], ["0", ".5", "1"])
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
        line[0].set_ylabel(panel.name.replace(", ", ",\n").replace(" (", "\n("), fontsize=7.5)
    handles = [_handle("on V", color=BLACK), _handle("on T", color=BLACK, ls=(0, (2, 1.5)), lw=0.8)]
    for index, lr in enumerate(view.learning_rates):
        tint = lighter("#333333", _light(index, len(view.learning_rates)))
        handles.append(_handle(f"learning rate {lr:g}", color=tint, marker=LOOK_MARKERS[index % 8], ms=3.5))
    handles.append(_handle("floor", color=FLOOR, ls="--"))
    if len(view.seeds) > 1:
        handles.append(_handle("one seed (lines: means)", marker=".", color=GREY, ms=3))
    return _finish(figure, words.title("curves", view), handles)


FIGURES = {"accuracy": accuracy, "recovery": recovery, "tradeoff": tradeoff, "curves": curves}


def _panels(view: View, height: float, label: str) -> tuple[Figure, Sequence[Axes]]:
    lines = math.ceil(len(view.panels) / COLUMNS)
    columns = min(COLUMNS, len(view.panels))
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
        axes.yaxis.set_major_formatter(FuncFormatter(_tick))
    return figure, flat


def _tick(value: float, _) -> str:
    return f"{value:g}".replace("0.", ".", 1)


def _name(axes: Axes, panel: Panel) -> None:
    axes.set_title(panel.name.replace(" (", "\n("), loc="left", fontweight="bold")
    axes.tick_params(axis="x", length=0 if axes.get_xlabel() == "" else 2)


def _floors(axes: Axes, rows: pd.DataFrame) -> None:
    for value in sorted(set(rows["floor"].dropna())):
        axes.axhline(value, color=FLOOR, lw=0.9, ls="--", zorder=0)


def _estimates(axes, x, rows, column, tint, marker, hollow=False, limits=(-math.inf, math.inf)) -> float:
    """Draw each seed's value with its interval about `x`, and the mean of several. Return value or mean, or NaN."""
    rows = rows.dropna(subset=[column])
    if rows.empty:
        return math.nan
    several = len(rows) > 1
    places = x + (np.linspace(-0.13, 0.13, len(rows)) if several else np.zeros(1))
    for place, (value, low, high) in zip(
        places, rows[[column, f"{column}_low", f"{column}_high"]].to_numpy(float), strict=True
    ):
        axes.plot(
            [place, place], [low, high], color=lighter(tint, 0.5) if several else tint, lw=0.6 if several else 1.1
        )
        for beyond, end, arrow in ((high > limits[1], limits[1], "^"), (low < limits[0], limits[0], "v")):
            if beyond:
                axes.plot(place, end, arrow, color=tint, ms=3.5, clip_on=False)
        face = "white" if hollow else tint
        axes.plot(
            place, value, marker, color=tint, mfc=face, ms=2.6 if several else 4.5, mew=0.7 if several else 1, zorder=3
        )
    mean = float(rows[column].mean())
    if several:
        axes.plot([x - 0.19, x + 0.19], [mean, mean], color=lighter(tint, 0.3), lw=2, solid_capstyle="butt", zorder=2)
    top = float(np.nanmax([rows[column].max(), rows[f"{column}_high"].max()]))
    if top < limits[1]:
        untold = words.unclear(rows, column).any()
        label = axes.annotate(
            "?" if untold else number(mean), (x, top), (0, 2), textcoords="offset points", ha="center", fontsize=6
        )
        label.set_path_effects([withStroke(linewidth=1.5, foreground="white")])
    return mean


def _limits(rows: pd.DataFrame) -> tuple[float, float]:
    """Limits of a recovery axis: all values, and their intervals as far as they stay within -.5 and 1.5."""
    ends = [rows[f"{name}{end}"] for name in RATES for end in ("", "_low", "_high")]
    values = pd.concat(ends).dropna().clip(-0.5, 1.5)
    points = pd.concat([rows[name] for name in RATES]).dropna()
    low = min([-0.05, *(values - 0.05), *(points - 0.05)])
    return low, max([1.1, *(values + 0.12), *(points + 0.12)])


def _with_status(method: str, cell: pd.DataFrame) -> str:
    """A method's tick label: its name and the sign of a status that is not `ok`; of several seeds, in how many."""
    counts = cell.loc[cell["status"] != "ok", "status"].value_counts().sort_index()
    if len(cell) == 1:
        return method + "".join(f" {_sign(status)}" for status in counts.index)
    return "\n".join([method, *(f"{_sign(status)} {count}/{len(cell)}" for status, count in counts.items())])


def _sign(status: str) -> str:
    return STATUS[status][0] if status in STATUS else str(status)


def _signs(view: View) -> list[Line2D]:
    """Legend entries for the signs in use."""
    found = set(view.recovery["status"])
    return [_handle(f"{sign} {text}", ls="none") for key, (sign, text) in STATUS.items() if key in found]


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
    return 0.0 if count == 1 else 0.6 * (1 - index / (count - 1))


def _handle(label: str, **look) -> Line2D:
    look = {"ls": "none" if "marker" in look and "lw" not in look else "-", "ms": 4.5, **look}
    if look.get("marker") in LOOK_MARKERS and label.startswith("learning rate"):
        look["ls"] = "-"
    return Line2D([], [], label=label, **look)


def _seeds(view: View) -> Line2D:
    return _handle(f"one of {len(view.seeds)} seeds", marker="o", color=GREY, ms=2.6)


def _finish(figure: Figure, title: str, handles: list[Line2D]) -> Figure:
    width = figure.get_figwidth()
    figure.suptitle(words.wrapped(title, round(13.5 * width)), x=0.01, ha="left", fontweight="bold")
    columns = next(n for n in (6, 5, 4, 3, 2, 1) if n == 1 or _legend_width(handles, n) < width - 0.2)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)
    return figure


def _legend_width(handles: list[Line2D], columns: int) -> float:
    """Inches, estimated from the number of characters: a legend fills its columns one after the other."""
    parts = np.array_split(np.array([len(handle.get_label()) for handle in handles]), min(columns, len(handles)))
    return sum(0.062 * part.max() + 0.6 for part in parts)

"""Draw figures from a `View`. Each function returns a matplotlib Figure; call it within `style.settings()`."""

import math

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, MultipleLocator

from rtt.figures import phrases, words
from rtt.figures.attack import attack
from rtt.figures.cost import cost
from rtt.figures.curves import curves
from rtt.figures.parts import (
    PALE,
    estimates,
    finish,
    floors,
    handle,
    hollow_handle,
    name_panel,
    panels,
    seeds_handle,
    signs,
    tell,
    tick,
    with_status,
)
from rtt.figures.probes import probes
from rtt.figures.seeds import seeds
from rtt.figures.sensitivity import sensitivity
from rtt.figures.steps import steps
from rtt.figures.style import (
    ARM_MARKERS,
    BLACK,
    CHANCE,
    FLOOR,
    FLOORS,
    GREY,
    RATES,
    colour,
    dash_of,
    lighter,
    marker_of,
    number,
    percent,
)
from rtt.figures.suite import attacks
from rtt.figures.view import View
from rtt.stats.recovery import TOO_WIDE

KEPT = ["acc_unlearned", "retain_unlearned"]  # of a chosen point


def accuracy(view: View) -> Figure:
    """Draw accuracy on V before and after the attack: of the original, each method's model and the control."""
    crowded = len(view.methods) + view.has_oracle > 4 and len(view.panels) > 1
    figure, grid = panels(view, 2.75 + 0.3 * crowded, "accuracy on V")
    for axes, panel in zip(grid, view.panels, strict=False):
        rows, marker = view.of(panel), ARM_MARKERS.get(panel.arm, "P")
        alone = rows.drop_duplicates("seed")
        floors(axes, rows)
        if len(view.seeds) == 1:  # the band that the criterion looks at
            band = alone.iloc[0]
            axes.axhspan(
                band["acc_control_attacked_low"], band["acc_control_attacked_high"], color="0.92", lw=0, zorder=-1
            )
        beside = [("oracle", "acc_oracle_attacked")] * view.has_oracle + [("control", "acc_control_attacked")]
        estimates(axes, 0, alone, "acc_original_attacked", BLACK, marker)
        names = ["original"]
        tell(axes, words.cell_text(view, panel, "original", alone, ["acc_original_attacked"]), (-0.45, 0.45))
        for x, method in enumerate(view.methods, 1):
            cell, tint = view.of(panel, method), colour(method, view.methods)
            start = estimates(axes, x - 0.2, cell, "acc_unlearned", tint, marker, judged=True, pale=True)
            end = estimates(axes, x + 0.2, cell, "acc_attacked", tint, marker, judged=True)
            axes.plot([x - 0.2, x + 0.2], [start, end], color=lighter(tint, 0.55), lw=0.8, zorder=1)
            names.append(with_status(method, cell))
            if len(cell):
                tell(axes, words.cell_text(view, panel, method, cell, words.ACCURACIES), (x - 0.45, x + 0.45))
        for x, (name, column) in enumerate(beside, len(names)):
            estimates(axes, x, alone, column, GREY, marker)
            tell(axes, words.cell_text(view, panel, name, alone, [column]), (x - 0.45, x + 0.45))
            names.append(name)
        slant = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
        axes.set_xticks(range(len(names)), [name.replace("\n", " ") for name in names] if crowded else names, **slant)
        axes.tick_params(axis="x", labelsize=6.8)
        axes.set_xlim(-0.55, len(names) - 0.45)
        axes.set_ylim(0, 1.1)
        axes.set_yticks(np.arange(0, 1.01, 0.2))
        name_panel(axes, panel, rows)
    several = len(view.seeds) > 1
    handles = [
        handle(f"model after {view.attack_title}", marker="o", color=BLACK),
        handle(f"pale: before {view.attack_title}", marker="o", color=lighter(BLACK, PALE), ms=3.4),
        hollow_handle(),
        handle(f"floor: {FLOORS.get(view.probe, CHANCE)}", color=FLOOR, ls="--"),
    ]
    handles += [seeds_handle(view), handle("mean", marker="_", color=BLACK, ms=10, mew=2)] if several else []
    handles += [] if several else [handle("95 % interval of the control", color="0.88", lw=6)]
    handles += signs(view)
    return finish(figure, words.title("accuracy", view), handles)


def recovery(view: View) -> Figure:
    """Draw recovery rates per method and panel, ratio and floor-corrected, with intervals and statuses."""
    figure, grid = panels(view, 2.75, "recovery rate")
    low, high = _limits(view.recovery)
    for axes, panel in zip(grid, view.panels, strict=False):
        marker, names = ARM_MARKERS.get(panel.arm, "P"), []
        axes.axhline(1, color=FLOOR, lw=0.7, zorder=0)
        axes.axhline(0, color=FLOOR, lw=0.7, ls=":", zorder=0)
        for x, method in enumerate(view.methods):
            cell, tint = view.of(panel, method), colour(method, view.methods)
            drawn = {"judged": True, "limits": (low, high)}
            estimates(axes, x - 0.2, cell, "recovery", tint, marker, pale=True, **drawn)
            estimates(axes, x + 0.2, cell, "recovery_corrected", tint, marker, **drawn)
            names.append(with_status(method, cell))
            if len(cell):
                tell(axes, words.cell_text(view, panel, method, cell, list(RATES)), (x - 0.45, x + 0.45))
            if cell["recovery_corrected"].isna().all():
                axes.text(x, 0.5, "no value", rotation=90, ha="center", va="center", color=GREY, fontsize=6.5)
        axes.set_xticks(range(len(names)), names)
        axes.set_xlim(-0.55, len(names) - 0.45)
        axes.set_ylim(low, high)
        name_panel(axes, panel, view.of(panel))
    handles = [
        handle("pale: ratio (the paper's)", marker="o", color=lighter(BLACK, PALE), ms=3.4),
        handle("floor-corrected ratio", marker="o", color=BLACK),
        hollow_handle(),
        handle(f"as much as original + {view.attack_title}", color=FLOOR),
        handle("nothing above the floor (corrected)", color=FLOOR, ls=":"),
    ]
    if len(view.seeds) > 1:
        handles += [seeds_handle(view), handle("mean", marker="_", color=BLACK, ms=10, mew=2)]
    handles += signs(view)
    if any(phrases.unclear(view.recovery, name).any() for name in RATES):
        handles.append(handle(f"? cannot tell: interval reaches beyond {number(TOO_WIDE)}", ls="none"))
    return finish(figure, words.title("recovery", view), handles)


def tradeoff(view: View) -> Figure:
    """Draw forget against retain accuracy along the unlearning trajectories, with the point chosen for the budget."""
    figure, grid = panels(view, 2.75, "retain accuracy")
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
            shape = marker_of(method)
            paths = [path for seed in cell["seed"] for path in view.trajectories(panel, method, seed)]
            for path in paths:
                faint = {"lw": 0.7, "alpha": 0.6} if len(paths) > 1 else {"lw": 1.2}
                axes.plot(path["forget"], path["retain"], color=tint, ls=dash_of(method), **faint)
                axes.plot(path["forget"][1:], path["retain"][1:], shape, color=tint, ms=2 if several else 3)
                lowest = min(lowest, path["retain"].min())
            chosen = cell.dropna(subset=["acc_unlearned"])
            for own, face in ((chosen[chosen["counts"]], tint), (chosen[~chosen["counts"]], "none")):
                look = {"color": tint, "mfc": face, "mew": 1.4, "ms": 5 if several else 8, "zorder": 4}
                axes.plot(own["acc_unlearned"], own["retain_unlearned"], shape, **look)
            if several and len(chosen):
                mean = chosen[KEPT].mean()
                axes.plot(*mean, shape, color=tint, mec=BLACK, ms=6, zorder=5)
            if len(chosen) < len(cell):
                absent.append(f"{method} (some seeds)" if len(chosen) else method)
            if len(chosen):
                mean = chosen[KEPT].mean()
                text = words.cell_text(view, panel, f"{method}, chosen point", chosen, KEPT)
                tell(axes, text, *((value - 0.03, value + 0.03) for value in mean))
        axes.plot(rows["acc_before"], rows["retain_before"], "*", color=BLACK, ms=5 if several else 9, zorder=5)
        if absent:
            note = f"no point within the budget:\n{', '.join(absent)}"
            text = axes.text(
                0.98, 0.03, note, transform=axes.transAxes, ha="right", va="bottom", fontsize=6.5, color=GREY
            )
            text.set_path_effects([withStroke(linewidth=1.5, foreground="white")])
        axes.set_xlabel("forget accuracy")
        axes.set_xlim(0, 1.04)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axes.xaxis.set_major_formatter(FuncFormatter(tick))
        name_panel(axes, panel, rows)
    for axes in grid[: len(view.panels)]:
        axes.set_ylim(math.floor(10 * lowest - 0.5) / 10, 1.02)
        axes.yaxis.set_major_locator(MultipleLocator(0.1 if lowest > 0.5 else 0.2))
    handles = []
    for method in view.methods:
        look = {"color": colour(method, view.methods), "ls": dash_of(method), "ms": 3.5}
        handles.append(handle(method, marker=marker_of(method), **look))
    handles += [
        handle("before unlearning", marker="*", color=BLACK, ms=9),
        handle("chosen point", marker="o", color=BLACK, mew=1.4, ms=8),
        handle("chosen, but does not count as unlearned", marker="o", color=BLACK, mfc="white", mew=1.4, ms=8),
        handle("floor", color=FLOOR, ls="--"),
        handle(f"budget: {percent(view.budget)} of retain accuracy lost", color=FLOOR, ls=":"),
    ]
    if several:
        handles.append(handle("mean of the chosen", marker="o", color=GREY, mec=BLACK, ms=6))
    return finish(figure, words.title("tradeoff", view), handles)


def _limits(rows: pd.DataFrame) -> tuple[float, float]:
    """Return the limits of a recovery axis: they hold all values, and intervals within -.5 and 1.5."""
    ends = [rows[f"{name}{end}"] for name in RATES for end in ("", "_low", "_high")]
    values = pd.concat(ends).dropna().clip(-0.5, 1.5)
    points = pd.concat([rows[name] for name in RATES]).dropna()
    low = min([-0.05, *(values - 0.05), *(points - 0.05)])
    return low, max([1.1, *(values + 0.12), *(points + 0.12)])


FIGURES = {
    "steps": steps,
    "probes": probes,
    "accuracy": accuracy,
    "recovery": recovery,
    "cost": cost,
    "seeds": seeds,
    "attack": attack,
    "tradeoff": tradeoff,
    "curves": curves,
    "attacks": attacks,
    "sensitivity": sensitivity,
}

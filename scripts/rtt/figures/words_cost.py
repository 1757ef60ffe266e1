"""Words of the figure `cost`: what comes back of V after how much training on T, beside a model that learns T anew."""

from dataclasses import dataclass

import pandas as pd

from rtt.figures.phrases import counted, look_text, upper
from rtt.figures.style import number
from rtt.figures.view import Panel, View
from rtt.figures.words_attack import counts_at, first_panel, heading, where
from rtt.figures.words_steps import told_rows

NUMBERS = ["epoch", "step", "tokens", "flops", "accuracy", "accuracy_t"]
ANEW = {"oracle": "the oracle", "control": "the control"}  # models that learn T anew


@dataclass(frozen=True, eq=False)
class Path:
    """What one model answers along one training: `NUMBERS`, means over seeds, from before the attack on.

    rows: those of cost.csv, a row for each seed and look.
    """

    name: str  # of the training, "" where there is but one: `learning rate 0.001`
    means: pd.DataFrame
    rows: pd.DataFrame

    @property
    def ends(self) -> pd.DataFrame:
        """The first look and the last one, which nobody chose."""
        looks = self.means[self.means["epoch"] > 0]
        return looks.iloc[[0, -1]] if len(looks) > 1 else looks

    def at(self, epoch: float) -> pd.DataFrame:
        """Return the rows of a look."""
        return self.rows[self.rows["epoch"] == epoch]


def paths(view: View, panel: Panel, stage: str, method: str = "none") -> list[Path]:
    """Return a model's paths, one for each training of the attack; none where no steps are known.

    Those of an unlearned model are over the seeds that its other means are over.
    """
    rows, found = view.spent(panel, stage, method), []
    cell = view.of(panel, method)
    if len(cell):
        rows = rows[rows["seed"].isin(told_rows(cell)["seed"])]
    if rows.empty or rows["step"].isna().any():
        return []
    for line in view.lines:
        own = rows[rows["setting"].isin(line.places)]
        if len(own):
            own = pd.concat([rows[rows["epoch"] == 0], own])
            means = own.groupby("epoch", as_index=False)[NUMBERS[1:]].mean().sort_values("epoch")
            found.append(Path(line.name * (len(view.lines) > 1), means, own))
    return found


def anew(view: View, panel: Panel) -> tuple[str, list[Path]]:
    """Return the model that learns T anew, the oracle or else the control, and its paths; "" where there is none."""
    for stage in ANEW:
        if found := paths(view, panel, stage):
            return stage, found
    return "", []


def has_cost(view: View) -> bool:
    """Say whether there is a path of an unlearned model."""
    return bool(drawn(view))


def drawn(view: View) -> list[Panel]:
    """Return the panels with a path of an unlearned model."""
    return [one for one in view.panels if any(paths(view, one, "unlearned", method) for method in view.methods)]


def short(value: float) -> str:
    """Write a count as `368`, `21k`, `1.5M`; an unknown one as `?`."""
    if pd.isna(value):
        return "?"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:  # so that 999,999 is 1.0M, and not 1000k
            return f"{value / size:.0f}{unit}" if value >= 9.95 * size else f"{value / size:.1f}{unit}"
    return f"{value:.0f}"


def flops(value: float) -> str:
    """Write FLOPs as `3.6e10`; an unknown number as `?`."""
    if pd.isna(value):
        return "?"
    return f"{value:.1e}".replace("e+", "e").replace("e0", "e") if value else "0"


def strongest(found: list[Path]) -> Path:
    """Return the path whose last look answers most of V."""
    return max(found, key=lambda one: float(one.means["accuracy"].iloc[-1]))


def alike(found: list[Path], name: str) -> Path:
    """Return the path of a training, or the first where there is none of that name."""
    return next((one for one in found if one.name == name), found[0])


def title(view: View) -> str:
    """Say what the methods that count answer of V, and what a model that learns T anew answers.

    It is about the first panel in which a method counts.
    """
    if not has_cost(view):
        return f"The steps of {view.attack_title} are not known, so there is no cost to draw"
    panel = first_panel(view, drawn(view))
    there = [method for method in view.methods if paths(view, panel, "unlearned", method)]
    counting = [method for method in there if counts_at(view, panel, method)]
    told, first, seeds = [], None, set()
    for method in counting or there:
        found = paths(view, panel, "unlearned", method)
        path = alike(found, first.name) if first else strongest(found)  # the same training of each model
        first, ends = first or path, [number(value) for value in path.ends["accuracy"]]
        seeds.add(path.rows["seed"].nunique())
        if told:
            told.append(f"{method}'s {' and '.join(ends)}")
            continue
        steps = [f"{step:.0f}" for step in path.ends["step"]]
        last = f" and {ends[-1]} after {steps[-1]}" * (len(ends) > 1)
        rate = f" ({path.name})" * bool(path.name)
        after = f"after {steps[0]} steps of {view.attack_title}{rate}{last}"
        told.append(f"{method}'s model answers {ends[0]} of V {after}")
    sound = any(counts_at(view, one, method) for one in view.panels for method in view.methods)
    start = where(view, panel) if sound else f"no method counts as unlearned; {where(view, panel)}"
    some = " to ".join(str(n) for n in sorted({min(seeds), max(seeds)}))
    start += f"over {some} seeds, " * (max(seeds) > 1)
    return upper(f"{start}shown T alone, {', '.join(told)}{_beside(view, panel, first)}")


def _beside(view: View, panel: Panel, path: Path) -> str:
    stage, found = anew(view, panel)
    if not stage:
        return ""
    other = alike(found, path.name)
    on_v, on_t = (" and ".join(map(number, other.ends[name])) for name in ("accuracy", "accuracy_t"))
    return f"; {ANEW[stage]}, which learns T anew, answers {on_v} of V, and {on_t} of T"


def head(view: View) -> str:
    """Say what the figure shows."""
    return (
        f"Lines: what an unlearned model answers along {view.attack_title}, of V (solid), of which it is shown "
        "nothing, and of T (dashed), by the optimizer's steps, tokens and FLOPs; grey: a model that never knew the "
        "facts and learns T anew in the same training. Hollow marks do not count as unlearned."
    )


def method_text(view: View, panel: Panel, method: str) -> str:
    """Say what a method's model answers before the attack and at each training's first and last look."""
    found = paths(view, panel, "unlearned", method)
    if not found:
        return f"{heading(view, panel, method)}, {panel.name}: no point; {counted(view.of(panel, method))}"
    parts = [_told(one, one is found[0]) for one in found]
    stage, others = anew(view, panel)
    if stage:
        parts.append(f"{ANEW[stage]}: {_told(alike(others, found[0].name))}")
    return f"{heading(view, panel, method)}, {panel.name}: {'; '.join(parts)}; {counted(found[0].rows)} (V)"


def _told(path: Path, start: bool = True) -> str:
    """Say what a model answers at a path's first and last look, and before the attack."""
    parts, before = [], path.means[(path.means["epoch"] == 0) & start]
    for row in [*before.to_dict("records"), *path.ends.to_dict("records")]:
        when = "before" if row["epoch"] == 0 else _when(row)
        parts.append(f"{when} V {look_text(path.at(row['epoch']))}, T {number(row['accuracy_t'])}")
    return f"{path.name} ".lstrip() + ", ".join(parts)


def _when(row: dict) -> str:
    return f"after {row['step']:.0f} steps ({short(row['tokens'])} tokens, {flops(row['flops'])} FLOPs)"


def of_panel(view: View, panel: Panel) -> str:
    """Say what each model of a panel answers along the attack."""
    parts = []
    for method in view.methods:
        if found := paths(view, panel, "unlearned", method):
            parts.append(f"{heading(view, panel, method)}: {'; '.join(_told(one, one is found[0]) for one in found)}")
        elif len(view.of(panel, method)):
            parts.append(f"{method}: no point or no steps")
    stage, found = anew(view, panel)
    parts += [f"{ANEW[stage]}: {_told(one, one is found[0])}" for one in found]
    return "; ".join([*parts, f"{counted(view.of(panel))} (V)"])

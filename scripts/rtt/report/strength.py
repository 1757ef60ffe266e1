"""How strong unlearning and the attack were: each unlearning run, each setting, and what lies at the edge of a grid."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from rtt.figures.style import number, percent
from rtt.figures.view import Panel, View
from rtt.report.rows import Group, grouped
from rtt.study.names import DEFAULT

STILL_RISING = 0.02  # of accuracy on V: with a step this large at the edge of a grid, more might bring back more


@dataclass(frozen=True)
class Trajectory:
    """One unlearning run: what sets it apart from the method's others, its points, and the budgets that chose one."""

    panel: Panel
    method: str
    seed: int
    settings: str
    points: int
    last_step: int
    forget: str
    lowest: str
    retain: str
    chosen: str


def trajectories(view: View, settings: dict[str, dict[str, Any]]) -> list[Group[Trajectory]]:
    """Return the unlearning runs. `settings`: {run: settings of its unlearning}."""
    rows = view.accuracy
    rows = rows[(rows["stage"] == "unlearned") & (rows["v_split"] == "all") & (rows["look_choice"] == "none")]
    found = []
    for panel in view.panels:
        mine = rows[(rows["dataset"] == panel.dataset) & (rows["model"] == panel.model) & (rows["arm"] == panel.arm)]
        for method in view.methods:
            own = mine[mine["method"] == method]
            names = _varied([settings.get(run, {}) for run in dict.fromkeys(own["run"])])
            for (seed, run), cell in own.groupby(["seed", "run"], sort=False):
                points = cell[cell["retain_budget"].isna()]
                forget, retain = (points[points["set"] == name].sort_values("step") for name in ("V", "retain"))
                budgets = sorted(set(cell["retain_budget"].dropna()))
                found.append(
                    Trajectory(
                        panel=panel,
                        method=method,
                        seed=int(seed),
                        settings=", ".join(f"{name} {settings.get(run, {}).get(name)}" for name in names) or "–",
                        points=len(forget),
                        last_step=int(forget["step"].iloc[-1]),
                        forget=number(forget["accuracy"].iloc[-1]),
                        lowest=number(forget["accuracy"].min()),
                        retain=number(retain["accuracy"].iloc[-1]) if len(retain) else "–",
                        chosen=", ".join(map(percent, budgets)) or "none",
                    )
                )
    return grouped(found)


def _varied(settings: Sequence[dict[str, Any]]) -> list[str]:
    """Return the names of the settings in which some runs differ."""
    names = dict.fromkeys(name for one in settings for name in one if name != "grid")
    return [name for name in names if len({str(one.get(name)) for one in settings}) > 1]


def attacked_points(view: View) -> tuple[int, int]:
    """Return how many points of the unlearning runs were attacked, and how many there are, over all seeds."""
    rows = view.accuracy
    rows = rows[(rows["stage"] == "unlearned") & (rows["v_split"] == "all") & (rows["set"] == "V")]
    rows = rows[(rows["look_choice"] == "none") & (rows["variant"] == DEFAULT)]
    keys = ["dataset", "arm", "model", "method", "seed", "run", "step"]
    return len(rows[rows["retain_budget"].notna()][keys].drop_duplicates()), len(rows[keys].drop_duplicates())


@dataclass(frozen=True)
class Series:
    """The looks of one setting, epoch by epoch where it has epochs; accuracies are means over seeds.

    last, on_t: accuracy on V and on T in the last epoch (`end`). before: on V in the epoch before it. highest: the
    highest on V, in epoch `best`. Epochs are 0 where the setting has none.
    """

    setting: str
    last: float
    on_t: float
    before: float
    highest: float
    best: int
    end: int


@dataclass(frozen=True)
class Attacked:
    """One attacked model: what each setting brings back. `method` is `original`, `control` or a method's name."""

    panel: Panel
    method: str
    unlearned: bool
    series: list[Series]


def attacked_models(view: View) -> list[Attacked]:
    """Return each attacked model of the view's attack: the original, each unlearned model, oracle and control."""
    found = []
    methods = [(method, "unlearned_attacked", method) for method in view.methods]
    beside = [(name, f"{name}_attacked", "none") for name in ("oracle", "control")]
    targets = [("original", "original_attacked", "none"), *methods, *beside]
    for panel in view.panels:
        for name, stage, method in targets:
            on_v, on_t = (_means(view.curve(panel, stage, method, set_name)) for set_name in ("V", "T"))
            if on_v:
                found.append(Attacked(panel, name, stage == "unlearned_attacked", _series(view, on_v, on_t)))
    return found


def _means(looks: pd.DataFrame) -> dict[str, float]:
    """Return {setting: accuracy}, a mean over seeds."""
    return {str(setting): float(mean) for setting, mean in looks.groupby("setting")["accuracy"].mean().items()}


def _series(view: View, on_v: dict[str, float], on_t: dict[str, float]) -> list[Series]:
    lines = [(line.name, line.places) for line in view.lines if view.over_epochs]
    found = []
    for name, places in lines or [(setting, {setting: 0}) for setting in view.settings]:
        known = sorted((setting for setting in places if setting in on_v), key=places.__getitem__)
        if known:
            last, best = known[-1], max(known, key=on_v.__getitem__)
            before = on_v[known[-2]] if len(known) > 1 else math.nan
            ends = on_v[last], on_t.get(last, math.nan), before, on_v[best]
            found.append(Series(name, *ends, places[best], places[last]))
    return found


@dataclass(frozen=True)
class SettingRow:
    """A row of the table of settings: one attacked model, a text per column."""

    panel: Panel
    method: str
    texts: list[str]


@dataclass(frozen=True)
class SettingTable:
    """What each setting of one attack brings back.

    epochs: its settings have epochs. trained: it trains on T, so that accuracy on T is known.
    """

    attack: str
    heads: list[str]
    epochs: bool
    trained: bool
    groups: list[Group[SettingRow]]


def setting_table(attack: str, found: Sequence[Attacked]) -> SettingTable:
    """Return the table of an attack's settings, with a column each, or two where they have epochs."""
    settings = list(dict.fromkeys(series.setting for one in found for series in one.series))
    epochs = any(series.end for one in found for series in one.series)
    trained = any(not math.isnan(series.on_t) for one in found for series in one.series)
    heads = []
    for setting in settings:
        heads.append(setting + (", last epoch" if epochs else "") + (" (T)" if trained else ""))
        heads += [f"{setting}, highest"] if epochs else []
    rows = []
    for one in found:
        texts = []
        for setting in settings:
            series = next((series for series in one.series if series.setting == setting), None)
            texts.append("–" if series is None else number(series.last) + (f" ({number(series.on_t)})" * trained))
            if epochs:
                texts.append("–" if series is None else f"{number(series.highest)}, epoch {series.best}")
        rows.append(SettingRow(one.panel, one.method, texts))
    return SettingTable(attack, heads, epochs, trained, grouped(rows))


def edges(attack: str, found: Sequence[Attacked]) -> list[str]:
    """Return a caveat where accuracy on V is highest at the edge of an attack's grid and still rises there.

    A stronger attack could then bring back more than the study saw.
    """
    longer, stronger, strongest = [], [], []
    for one in found:
        if not one.unlearned:
            continue
        best = max(one.series, key=lambda series: series.highest)
        who = f"{one.method}, {one.panel.name}"
        if best.best == best.end and best.last - best.before > STILL_RISING:
            longer.append(f"{who} {number(best.before)} to {number(best.last)}")
        others = [series.highest for series in one.series if series is not best]
        if others and best is one.series[-1] and best.highest - max(others) > STILL_RISING:
            strongest.append(best.setting)
            stronger.append(f"{who} {number(max(others))} to {number(best.highest)}")
    texts = []
    if longer:
        texts.append(
            f"Accuracy on V still rises in the last epoch of {attack}, so a longer attack may bring back more (at the "
            f"best setting, from the last epoch but one to the last): {'; '.join(longer)}."
        )
    if stronger:
        texts.append(
            f"The strongest setting of {attack} ({strongest[0]}) brings back the most, so a stronger one may bring "
            f"back more (from the second best setting to the strongest): {'; '.join(stronger)}."
        )
    return texts

"""Words of the figures `attack` (V against T at common looks) and `seeds` (recoveries over seeds)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from rtt.figures.phrases import counted, counted_of, listed, look_text, statuses
from rtt.figures.style import interval, number, span
from rtt.figures.view import Line, Panel, View
from rtt.stats import criterion
from rtt.stats.criteria import HIDING
from rtt.study import plugins
from rtt.study.names import STRONGEST_ATTACK

COUNTING, KNOWN = "counting", "known"  # column `set` of seeds.csv: which cells a mean is over


def counts_at(view: View, panel: Panel, method: str) -> bool:
    """Say whether a method's model counts as unlearned."""
    return criterion.counts(view.of(panel, method))


def first_panel(view: View, panels: Sequence[Panel]) -> Panel:
    """Return the first of some panels in which a method counts as unlearned; where there is none, the first."""
    return next((one for one in panels if any(counts_at(view, one, m) for m in view.methods)), panels[0])


def where(view: View, panel: Panel) -> str:
    """Return how a title says which panel it is about; "" for the first one."""
    return "" if panel == view.panels[0] else f"on the {panel.facts}, "


def heading(view: View, panel: Panel, method: str) -> str:
    """Return what stands above a method: its name, and that it does not count."""
    rows = view.of(panel, method)
    return method if rows.empty or counts_at(view, panel, method) else f"{method} (does not count)"


# ---------------------------------------------------------------------------------------------------------- attack


def asks_t(view: View) -> bool:
    """Say whether the attack has accuracies on T, as one has that trains on it."""
    rows = view.accuracy
    return bool(((rows["set"] == "T") & (rows["attack"] == view.attack)).any())


def uses_t(view: View) -> bool:
    """Say whether the attack is given T; one may use it and ask V alone. Of an attack that is not here the looks tell.

    The strongest attack may be any of its suite.
    """
    known = plugins.attacks().get(view.attack)
    return known.uses_t if known else view.attack == STRONGEST_ATTACK or asks_t(view)


def at_look(view: View, panel: Panel, stage: str, method: str, setting: str) -> str:
    """Write a model's accuracy on V at one setting: with its interval, or the mean and range of several seeds."""
    looks = view.curve(panel, stage, method, "V")
    return look_text(looks[looks["setting"] == setting])


def paths(view: View, panel: Panel, stage: str, method: str) -> list[tuple[Line, pd.DataFrame]]:
    """Return for each line of looks a model's accuracies on `T` and `V`: means over seeds, by place."""
    sets = {}
    for name in ("T", "V"):
        looks = view.curve(panel, stage, method, name)
        sets[name] = looks.groupby("setting")["accuracy"].mean() if len(looks) else pd.Series(dtype=float)
    both = pd.DataFrame(sets).dropna()
    found = []
    for line in view.lines:
        order = [setting for setting in sorted(line.places, key=line.places.__getitem__) if setting in both.index]
        if order:
            found.append((line, both.loc[order]))
    return found


@dataclass(frozen=True)
class Common:
    """An unlearned model and the original at the same look, the last of a line; `share`: (v - f) / (v_original - f)."""

    name: str
    t: float
    v: float
    t_original: float
    v_original: float
    share: float
    text: str
    text_original: str


def common(view: View, panel: Panel, method: str) -> list[Common]:
    """Return the last look of each line that both the method's model and the original have."""
    original = {line.name: looks for line, looks in paths(view, panel, "original_attacked", "none")}
    floor = float(view.of(panel)["floor"].mean())
    found = []
    for line, looks in paths(view, panel, "unlearned_attacked", method):
        shared = [setting for setting in looks.index if line.name in original and setting in original[line.name].index]
        if shared:
            own, other = looks.loc[shared[-1]], original[line.name].loc[shared[-1]]
            above = other["V"] - floor
            share = (own["V"] - floor) / above if above > 0 else math.nan
            name = f"{line.name}, epoch {line.places[shared[-1]]}" if line.name else shared[-1]
            texts = (
                at_look(view, panel, *model, shared[-1])
                for model in (("unlearned_attacked", method), ("original_attacked", "none"))
            )
            found.append(Common(name, own["T"], own["V"], other["T"], other["V"], float(share), *texts))
    return found


def title(view: View) -> str:
    """Say what share of the original's accuracy comes back at common looks."""
    if not asks_t(view):
        return f"{view.attack_title} is not asked T, so there is no accuracy on V against T"
    shares = [
        one.share
        for panel in view.panels
        for method in view.methods
        if counts_at(view, panel, method)
        for one in common(view, panel, method)
        if not math.isnan(one.share)
    ]
    head = counted_of(view.recovery)
    if not shares:
        return f"{head}; at common looks there is no share of the original's accuracy to tell"
    return f"{head}; at the last common look, {span(shares)} of the original's accuracy above the floor comes back"


def head(view: View) -> str:
    """Say what the figure shows."""
    return (
        f"Lines: accuracy on V against accuracy on T along {view.attack_title}, for the original, each unlearned "
        "model, the oracle and the control, from before the attack (cross) to the last look (large mark). A dotted "
        "line joins the original and the unlearned model at the same last look. Hollow marks do not count as unlearned."
    )


def method_text(view: View, panel: Panel, method: str) -> str:
    """Say where a method's model and the original end at common looks."""
    rows = view.of(panel, method)
    return f"{heading(view, panel, method)}, {panel.name}: {_ends(view, panel, method)}; {counted(rows)}"


def _ends(view: View, panel: Panel, method: str) -> str:
    parts = []
    for one in common(view, panel, method):
        share = f", {number(one.share)} of it above the floor" * (not math.isnan(one.share))
        parts.append(
            f"{one.name}: T {number(one.t)}, V {one.text}, the original T {number(one.t_original)}, "
            f"V {one.text_original}{share}"
        )
    return "; ".join(parts) or "no look in common with the original"


def of_panel(view: View, panel: Panel) -> str:
    """Say where each model of a panel ends."""
    parts = []
    for method in view.methods:
        if len(rows := view.of(panel, method)):
            end = _ends(view, panel, method) if rows["acc_attacked"].notna().any() else "no point"
            parts.append(f"{heading(view, panel, method)}{statuses(rows)} {end}")
    for name, stage in (("oracle", "oracle_attacked"), ("control", "control_attacked")):
        for line, looks in paths(view, panel, stage, "none"):
            last = looks.iloc[-1]
            parts.append(f"{name} {line.name or looks.index[-1]}: T {number(last['T'])}, V {number(last['V'])}")
    return "; ".join([*parts, counted(view.of(panel))])


# ----------------------------------------------------------------------------------------------------------- seeds


def over_seeds(view: View, panel: Panel, method: str, of: str = COUNTING) -> pd.Series | None:
    """Return a method's row of seeds.csv by the view's probe, over the cells that count or all known ones; or None."""
    rows = view.over_seeds
    if rows is None or len(view.seeds) < 2:
        return None
    mask = (rows["dataset"] == panel.dataset) & (rows["model"] == panel.model) & (rows["arm"] == panel.arm)
    mask &= (rows["method"] == method) & (rows["probe"] == view.probe)
    mask &= (rows["set"] == of) & (rows["quantity"] == "recovery_corrected")
    rows = rows[mask]
    return rows.iloc[0] if len(rows) and not pd.isna(rows.iloc[0]["mean"]) else None


def mean_text(view: View, panel: Panel, method: str, row: pd.Series, of: str = COUNTING) -> str:
    """Write the mean of a row of `over_seeds` with its interval: `at least` where an attack in it did not learn T."""
    rows = view.of(panel, method)
    rows = criterion.counting(rows) if of == COUNTING else criterion.known(rows)
    failed = (rows["attack_learned"] == False) & (rows["status"] != "original_not_learned")  # noqa: E712
    return "at least " * bool(failed.any()) + interval(*(float(row[name]) for name in ("mean", "low", "high")))


def controls_failed(view: View, panel: Panel, method: str) -> int:
    """Return in how many seeds that count the attack on the control did not learn T: no claim rests on such a one."""
    return int((criterion.counting(view.of(panel, method))["control_learned"] == False).sum())  # noqa: E712


def oracle(view: View, panel: Panel) -> list[float]:
    """Return each seed's floor-corrected recovery of the oracle, (oracle - f) / (original - f), where it has rates."""
    rows = view.of(panel)
    without = rows.loc[rows["status"].isin(HIDING), "seed"]
    rows = rows[~rows["seed"].isin(without)].drop_duplicates("seed")
    above = rows["acc_original_attacked"] - rows["floor"]
    return [float(x) for x in ((rows["acc_oracle_attacked"] - rows["floor"]) / above.where(above > 0)).dropna()]


def seed_text(view: View, panel: Panel, method: str) -> str:
    """Say what one method gives back over seeds."""
    rows = view.of(panel, method)
    n, of = int(rows["counts"].sum()), len(rows)
    parts = [f"counts in {n} of {of} seeds"]
    for name, text in ((COUNTING, "over those that count"), (KNOWN, "over all known ones with a point")):
        row = over_seeds(view, panel, method, name)
        if row is not None:
            parts.append(f"{text} {mean_text(view, panel, method, row, name)}")
    each = ", ".join(number(value) for value in rows["recovery_corrected"].dropna()) or "no value"
    return f"{method}, {panel.name}: {'; '.join(parts)}; seeds {each}; {counted(rows)}"


def seeds_title(view: View) -> str:
    """Say what comes back over seeds of the first panel's facts."""
    if len(view.seeds) < 2:
        return "This study has one seed, so there is nothing over seeds to draw"
    panel = view.panels[0]
    sound = [(m, over_seeds(view, panel, m)) for m in view.methods if counts_at(view, panel, m)]
    lost = [m for m, _ in sound if controls_failed(view, panel, m)]
    told = [f"{m} {mean_text(view, panel, m, row)}" for m, row in sound if row is not None and m not in lost]
    of = sum(len(view.of(panel, m)) > 0 for m in view.methods)
    verb = "counts" if len(sound) == 1 else "count"
    head = f"Over {len(view.seeds)} seeds, {len(sound) or 'none'} of {of} methods {verb}"
    reference = oracle(view, panel)
    beside = f"; the oracle {number(float(np.mean(reference)))}" if reference else ""
    end = f"; of {listed(lost)} nothing is claimed, since a control did not learn T" if lost else ""
    if not told:
        return f"{head} as unlearned on the {panel.facts}{beside and beside + ' of what the original gives'}{end}"
    return f"{head} as unlearned; of the {panel.facts} come back: {listed(told)}{beside}{end}"


def seeds_head(view: View) -> str:
    """Say what the figure shows."""
    return (
        "Points: floor-corrected recovery of each seed, hollow where it does not count as unlearned; bars: means over "
        "seeds with 95 % t intervals, dark over the seeds that count, pale over all known ones with a point. 1 is the "
        "original after the attack; the band is the oracle."
    )


def seeds_of_panel(view: View, panel: Panel) -> str:
    """Say what each method gives back over seeds in a panel."""
    parts = [
        seed_text(view, panel, m).replace(f", {panel.name}:", ":", 1) for m in view.methods if len(view.of(panel, m))
    ]
    found = oracle(view, panel)
    return ". ".join([*parts, *[f"Oracle: {span(found)}"] * bool(found)])

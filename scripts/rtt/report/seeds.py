"""Recoveries over seeds, with what their variance is made of: rows of seeds.csv (columns: `rtt.stats.seeds`)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from rtt.figures import words_attack as words
from rtt.figures.phrases import listed
from rtt.figures.style import number
from rtt.figures.view import Panel, View
from rtt.report.rows import Group, grouped
from rtt.stats.spread import planned

COMPONENTS = {  # column of seeds.csv, and what it is of
    "var_base": "base",
    "var_teaching": "teaching",
    "var_unlearning": "unlearning",
    "var_rtt": "attack",
    "var_v_split": "V split",
    "var_person": "person",
}


@dataclass(frozen=True)
class SeedRow:
    """One method over seeds: means of the floor-corrected recovery with t intervals, each seed's, and components.

    counting: over the seeds that count; known: over all known ones with a point. half_width: of the first mean that
    there is; planned: what `rtt plan` expects of it. components: standard deviations.
    """

    panel: Panel
    method: str
    counts: str
    counting: str
    known: str
    each: str
    half_width: str
    planned: str
    components: list[str]
    claim: str


@dataclass(frozen=True)
class SeedTable:
    """The methods over seeds. heads: the components that are known of any of them."""

    heads: list[str]
    groups: list[Group[SeedRow]]
    oracle: str


def seed_table(view: View, repeats: tuple[int, int]) -> SeedTable | None:
    """Return the table over seeds; None with one seed, or without seeds.csv.

    repeats: of unlearning and of the attack, for the width that was to be expected (`rtt.stats.spread`).
    """
    if len(view.seeds) < 2 or view.over_seeds is None:
        return None
    cells = [(panel, method) for panel in view.panels for method in view.methods if len(view.of(panel, method))]
    found = {cell: _rows(view, *cell) for cell in cells}
    columns = [
        column
        for column in COMPONENTS
        if any(row is not None and not pd.isna(row.get(column)) for rows in found.values() for row in rows)
    ]
    widths = planned(dict.fromkeys(panel.arm for panel in view.panels), len(view.seeds), *repeats)
    rows = [_seed_row(view, *cell, *found[cell], columns, widths.get(cell[0].arm)) for cell in cells]
    oracles = [
        f"{number(sum(own) / len(own))} on the {panel.facts}"
        for panel in view.panels
        if (own := words.oracle(view, panel))
    ]
    return SeedTable([COMPONENTS[column] for column in columns], grouped(rows), "; ".join(oracles))


def _rows(view: View, panel: Panel, method: str) -> list[pd.Series | None]:
    return [words.over_seeds(view, panel, method, of) for of in (words.COUNTING, words.KNOWN)]


def _seed_row(view, panel, method, counting, known, columns, planned) -> SeedRow:
    cell = view.of(panel, method)
    most, lost = counting if counting is not None else known, words.controls_failed(view, panel, method)
    each = ", ".join(
        f"{number(value)}{'' if sound else '*'}"
        for value, sound in zip(cell["recovery_corrected"], cell["counts"], strict=True)
    )
    return SeedRow(
        panel=panel,
        method=method,
        counts=f"{int(cell['counts'].sum())} of {len(cell)}",
        counting=_interval(view, panel, method, counting, words.COUNTING),
        known=_interval(view, panel, method, known, words.KNOWN),
        each=each or "–",
        planned="–" if planned is None else number(planned),
        half_width="–" if most is None else number((float(most["high"]) - float(most["low"])) / 2),
        components=["–" if most is None else deviation(most.get(column)) for column in columns],
        claim="–" if most is None else CLAIMS["no"] if lost else CLAIMS.get(str(most["claim"]), str(most["claim"])),
    )


CLAIMS = {"yes": "about the method", "no": "none", "these weights": "about these weights alone"}


def deviation(variance: float | None) -> str:
    """Return a variance as a standard deviation; a dash where nothing repeats."""
    return "–" if variance is None or math.isnan(variance) else number(math.sqrt(max(variance, 0.0)), 3)


def _interval(view: View, panel: Panel, method: str, row: pd.Series | None, of: str) -> str:
    return "–" if row is None else f"{words.mean_text(view, panel, method, row, of)} ({int(row['n_seeds'])})"


def claims(view: View, panels: Sequence[Panel]) -> list[str]:
    """Return for each panel what comes back over seeds, in a sentence or two; [] with one seed or without seeds.csv."""
    if len(view.seeds) < 2 or view.over_seeds is None:
        return []
    return [_claim(view, panel) for panel in panels]


def _claim(view: View, panel: Panel) -> str:
    methods = [method for method in view.methods if len(view.of(panel, method))]
    if all((view.of(panel, method)["status"] == "not_known").all() for method in methods):
        return f"The originals do not know the {panel.facts}, so nothing can be said of them here."
    sound = {m: words.over_seeds(view, panel, m) for m in methods if words.counts_at(view, panel, m)}
    lost = {m: n for m in sound if (n := words.controls_failed(view, panel, m))}
    claimed = {m: row for m, row in sound.items() if row is not None and row["claim"] == "yes" and m not in lost}
    of = f"{len(sound) or 'None'} of {len(methods)} methods"
    told = [f"{m} ({int(view.of(panel, m)['counts'].sum())} of {len(view.of(panel, m))})" for m in sound]
    verb = "counts" if len(sound) < 2 else "count"
    those = f": {listed(told)}" if told else ""
    head = f"{of} {verb} as unlearned on the {panel.facts}, in at least 8 of 10 seeds{those}."
    reference = words.oracle(view, panel)
    beside = (
        f"; an oracle that was trained without them reaches {number(sum(reference) / len(reference))}"
        if reference
        else ""
    )
    parts = [f"{m} {words.mean_text(view, panel, m, row)}" for m, row in claimed.items()]
    back = (
        f" After {view.attack_title}, of what the original has above the floor come back: {listed(parts)}{beside} "
        "(means over the seeds that count, 95 % t intervals)."
        if parts
        else " No method has enough seeds that count for a statement about it." * (not lost)
    )
    if any("at least" in text for text in parts):
        back += f" Where {view.attack_title} did not learn T in some seed, the mean is a lower bound (at least)."
    if lost:
        seeds = [f"{m} in {n} of {int(view.of(panel, m)['counts'].sum())} seeds that count" for m, n in lost.items()]
        back += f" Nothing is claimed where {view.attack_title} did not bring the control to learn T: {listed(seeds)}."
    known = {m: words.over_seeds(view, panel, m, words.KNOWN) for m in methods}
    others = [f"{m} {words.mean_text(view, panel, m, row, words.KNOWN)}" for m, row in known.items() if row is not None]
    aside = f" Over all known seeds with a point, whether or not they count: {listed(others)}." if others else ""
    return head + back + aside

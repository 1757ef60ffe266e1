"""Paired differences in the report: contrasts between arms and methods, and the effect of each variant."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from rtt.figures.phrases import upper
from rtt.figures.style import ARMS, dataset_title, number
from rtt.figures.view import View
from rtt.report.inputs import part
from rtt.report.variants import KINDS, changes, kind_of
from rtt.stats.seeds import claim
from rtt.stats.variants import ON_V

QUANTITIES = {
    "acc_attacked": "accuracy on V after the attack",
    "recovery": "recovery, ratio",
    "recovery_corrected": "floor-corrected recovery",
}


@dataclass(frozen=True)
class Difference:
    """A mean difference over seeds: `text` with its t interval from two seeds on, `seeds` each seed's."""

    text: str
    seeds: str
    n_seeds: int
    verdict: str


@dataclass(frozen=True)
class Contrast:
    """One row of contrasts.csv: `a` minus `b`."""

    a: str
    b: str
    method: str
    quantity: str
    difference: Difference


@dataclass(frozen=True)
class Effect:
    """One variant minus the default, for one method on some facts."""

    variant: str
    changes: str
    facts: str
    method: str
    look_choice: str
    acc_unlearned: Difference
    acc_attacked: Difference
    recovery: Difference
    recovery_corrected: Difference


def difference(row: dict[str, Any] | None, sign: bool = False) -> Difference:
    """Return a row of contrasts.csv or variants.csv in words. `sign`: write a plus before a positive mean."""
    if row is None or not row["n_seeds"] or math.isnan(row["mean"]):
        return Difference("–", "", 0, verdict(row) if row else "no value")
    mean, seeds = row["mean"], int(row["n_seeds"])
    text = f"{'+' if sign and mean > 0 and number(mean) != '.00' else ''}{number(mean)}"
    ends = "" if math.isnan(row["low"]) else f" [{number(row['low'])}, {number(row['high'])}]"
    each = ", ".join(number(float(value)) for value in str(row["per_seed"]).split(";") if value)
    return Difference(text + ends, each, seeds, verdict(row))


def verdict(row: dict[str, Any]) -> str:
    """Say what a row of differences shows."""
    if row.get("comparable", "yes") != "yes":
        return row["why"] or "not comparable"
    if not row["n_seeds"]:
        return "no seed has both values"
    apart = row["low"] > 0 or row["high"] < 0
    if row.get("over") == "questions":
        return "differs for these weights" if apart else "no difference shown for these weights"
    if row["n_seeds"] < 2:
        return "one seed cannot support a statement"
    if not pd.isna(row.get("n_cells")) and claim(row) != "yes":  # variants.csv, and older tables, do not have it
        told = f"{int(row['n_counting'])} of {int(row['n_cells'])} count, {int(row['n_seeds'])} have both values"
        return f"too few seeds for a statement: {told}"
    if apart:
        return f"differs over {row['n_seeds']} seeds"
    return f"no difference shown over {row['n_seeds']} seeds"


def _of_view(table: pd.DataFrame, view: View, look_choices: list[str]) -> pd.DataFrame:
    mask = np.isclose(table["retain_budget"].astype(float), view.budget) & (table["probe"] == view.probe)
    if "set" in table:
        mask &= table["set"] == "counting"  # a cell that does not count supports no statement
    return table[mask & (table["attack"] == view.attack) & table["look_choice"].isin(look_choices)]


def contrasts(table: pd.DataFrame, view: View) -> tuple[list[Contrast], list[Contrast]]:
    """Return the view's contrasts between arms, and those between methods."""
    arms, methods = [], []
    for row in _of_view(table, view, [view.look_choice]).to_dict("records"):
        a, b = (_arm_name(view, row[f"arm_{x}"], row[f"dataset_{x}"]) for x in "ab")
        quantity = QUANTITIES.get(row["quantity"], row["quantity"])
        found = Contrast(upper(a), b, row["method"], quantity, difference(row))
        (methods if row["arm_a"] == row["arm_b"] else arms).append(found)
    return arms, methods


def _arm_name(view: View, arm: str, dataset: str) -> str:
    """Name an arm as the figures do, but without a model where there are several: a contrast is over all of them."""
    names = [panel.name for panel in view.panels if (panel.arm, panel.dataset) == (arm, dataset)]
    return names[0] if len(names) == 1 else f"{ARMS.get(arm, arm)} ({dataset_title(str(dataset))})"


def effects(table: pd.DataFrame | None, view: View, study: dict[str, Any]) -> dict[str, list[Effect]]:
    """Return the effect of each variant, by the variant's kind (`rtt.report.variants.KINDS`).

    `study`: as runs.json has it; a variant that it does not name is of the last kind.
    """
    found: dict[str, list[Effect]] = {kind: [] for kind in KINDS}
    if table is None:
        return found
    panels = {(panel.dataset, panel.model, panel.arm): panel for panel in view.panels}
    keys = ["variant", "dataset", "model", "arm", "method", "look_choice"]
    for key, rows in _of_view(table, view, [view.look_choice, ON_V]).groupby(keys, sort=False):
        name, dataset, model, arm, method, look_choice = map(str, key)
        patch = part(study, "variants", name)
        panel = panels.get((dataset, model, arm))
        facts = panel.name if panel else f"{arm} ({dataset_title(dataset)})"
        quantities = {row["quantity"]: row for row in rows.to_dict("records")}
        columns = ("acc_unlearned", "acc_attacked", "recovery", "recovery_corrected")
        values = {column: difference(quantities.get(column), sign=True) for column in columns}
        found[kind_of(patch)].append(Effect(name, changes(patch) or "–", facts, method, look_choice, **values))
    return found

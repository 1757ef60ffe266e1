"""Variants in the report: what kind each is, what it changes, and its effect."""

from pathlib import Path
from typing import Any

import numpy as np

from rtt.figures.style import dataset_title, number
from rtt.figures.view import View
from rtt.report.inputs import part
from rtt.report.recovered import cells, per_seed, place, verdict
from rtt.stats.tables import read_table
from rtt.stats.variants import ON_V
from rtt.study.names import DEFAULT

# What a variant is about: the first of these that fits. Formats and faithful switches have a section each.
FORMAT, FAITHFUL, HIDING, T_SIZE, RTT, OTHER = "format", "faithful", "hiding", "t", "rtt", "other"
KINDS = (FORMAT, FAITHFUL, HIDING, T_SIZE, RTT, OTHER)
TEXTS = ("mcq_share", "mcq_loss", "sentence_loss")
COLUMNS = ("acc_unlearned", "acc_attacked", "recovery", "recovery_corrected")
LONGEST, DEEPEST = 300, 5  # characters of what a variant changes; keys below one another


def kind_of(patch: dict[str, Any]) -> str:
    """Return what a variant is about, from the keys that it sets."""
    methods = [one for one in part(patch, "methods").values() if isinstance(one, dict)]
    if "faithful" in patch:
        return FAITHFUL
    if any(method.get("sentence_loss") == "NUMBER" for method in methods):
        return HIDING
    losses = [part(patch, phase).get("loss") for phase in ("rtt", "teaching")]
    if any(key in method for method in methods for key in TEXTS) or any(losses):
        return FORMAT
    if {"samples", "v_splits"} & set(part(patch, "rtt")):
        return T_SIZE
    return RTT if part(patch, "rtt") else OTHER


def changes(patch: dict[str, Any]) -> str:
    """Write the keys that a variant sets: `methods.GD.mcq_share 1.0, without RMU`."""
    found: list[str] = []

    def walk(value: Any, path: str) -> None:
        if isinstance(value, dict) and path.count(".") < DEEPEST:
            for key, inner in value.items():
                walk(inner, f"{path}.{key}" if path else str(key))
        elif value is None and path.count(".") == 1 and path.startswith("methods."):
            found.append(f"without {path.removeprefix('methods.')}")
        elif isinstance(value, list) and not any(isinstance(one, (dict, list)) for one in value):
            found.append(f"{path} {', '.join(map(str, value))}")
        else:
            found.append(f"{path} {'(changed)' if isinstance(value, (dict, list)) else value}")

    walk(patch, "")
    text = "; ".join(found)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def effects(path: Path, view: View, study: dict[str, Any]) -> dict[str, list[dict]]:
    """Return what each variant changes, by kind: a row per variant, facts, method and look choice.

    `study`: as runs.json has it; a variant that it does not name is of kind OTHER.
    """
    found: dict[str, list[dict]] = {kind: [] for kind in KINDS}
    if not path.is_file():
        return found
    table = read_table(path)
    mask = np.isclose(table["retain_budget"].astype(float), view.budget) & (table["probe"] == view.probe)
    mask &= table["look_choice"].isin([view.look_choice, ON_V])
    panels = {(panel.dataset, panel.model, panel.arm): panel for panel in view.panels}
    keys = ["variant", "dataset", "model", "arm", "method", "look_choice"]
    for key, rows in table[mask].groupby(keys, sort=False):
        name, dataset, model, arm, method, look_choice = map(str, key)
        patch = part(study, "variants", name)
        panel = panels.get((dataset, model, arm))
        facts = panel.name if panel else f"{arm} ({dataset_title(dataset)})"
        by_quantity = {row["quantity"]: row for row in rows.to_dict("records")}
        row = {"variant": name, "changes": changes(patch), "facts": facts, "method": method, "look_choice": look_choice}
        row |= {column: _effect(by_quantity.get(column)) for column in COLUMNS}
        said = by_quantity.get("recovery_corrected")
        row["verdict"] = verdict(said) if said else "no value"
        found[kind_of(patch)].append(row)
    return found


def _effect(row: dict | None) -> dict[str, str]:
    """A mean difference with its interval, and each seed's where there are several."""
    if row is None or not row["n_seeds"]:
        return {"mean": "–", "seeds": ""}
    ends = f" [{number(row['low'])}, {number(row['high'])}]" if row["n_seeds"] > 1 else ""
    return {"mean": signed(row["mean"]) + ends, "seeds": ", ".join(per_seed(row)) if row["n_seeds"] > 1 else ""}


def signed(value: float) -> str:
    """Write a difference with its sign."""
    return ("+" if value > 0 and number(value) != ".00" else "") + number(value)


def t_sizes(view: View, study: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the results of the default and of each variant that changes the size of T, the largest T first.

    `size`: facts that RTT trains on, from the tables' T questions and the study's `rtt.samples`. Empty without such
    variants.
    """
    variants = part(study, "variants")
    names = [name for name in variants if kind_of(part(variants, name)) == T_SIZE]
    if not names:
        return []
    whole = t_questions(view)
    found = []
    for name in [DEFAULT, *names]:
        samples = part(variants, name, "rtt").get("samples") or part(study, "rtt").get("samples")
        known = isinstance(samples, int) and whole is not None
        for cell in cells(view, view.alternative(variant=name)):
            size = min(samples, whole) if known else whole
            if part(variants, name, "rtt").get("v_splits"):
                size = None  # other splits: the tables of the default do not say
            found.append({**cell, "variant": name, "size": size})
    return sorted(found, key=lambda cell: (place(view, cell), -(cell["size"] or 0)))


def t_questions(view: View) -> int | None:
    """Return the number of T questions beside one V split; None without an attack."""
    rows = view.accuracy
    rows = rows[(rows["stage"] == "unlearned_attacked") & (rows["set"] == "T") & (rows["v_split"] != "all")]
    rows = rows[rows["look_choice"] == "none"]
    return int(rows["n_questions"].max()) if len(rows) else None

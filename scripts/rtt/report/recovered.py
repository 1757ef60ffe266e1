"""Rows of the report's tables of recovery: every definition and look choice, budgets, probes, contrasts."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rtt.figures.style import ARMS, PROBES, dataset_title, number
from rtt.figures.view import View, make_view
from rtt.figures.words import mean_text, statuses
from rtt.stats.tables import read_table
from rtt.study.names import DEFAULT

QUANTITIES = {
    "acc_attacked": "accuracy on V after RTT",
    "recovery": "recovery, ratio",
    "recovery_corrected": "floor-corrected recovery",
}


def recovery_tables(recovery: pd.DataFrame, accuracy: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one table per scoring and look choice, the main scoring and nested first; each holds all budgets and seeds.

    Of the variants they show the default.
    """
    recovery = recovery[recovery["variant"] == DEFAULT]
    pairs = list(dict.fromkeys(recovery[["probe", "look_choice"]].itertuples(index=False, name=None)))
    probes = list(dict.fromkeys(recovery["probe"]))
    pairs.sort(key=lambda pair: (probes.index(pair[0]), pair[1] != "nested", pair))
    tables = []
    for probe, look_choice in pairs:
        mask = (recovery["probe"] == probe) & (recovery["look_choice"] == look_choice)
        view = make_view(recovery, accuracy, look_choice, probe, recovery.loc[mask, "retain_budget"].iloc[0])
        view.recovery = recovery[mask]
        rows = [
            (panel, row)
            for panel in view.panels
            for method in view.methods
            for _, row in view.of(panel, method).iterrows()
        ]
        tables.append(
            {
                "probe": PROBES.get(probe, probe),
                "look_choice": look_choice,
                "rows": rows,
                "seeds": len(view.seeds) > 1,
                "untold": any(row["cannot_tell"] for _, row in rows),
                "budgets": recovery["retain_budget"].nunique() > 1,
            }
        )
    return tables


def cells(view: View, rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as cells of text, one per panel and method: with one seed value and interval, else the mean."""
    found = []
    for panel in view.panels:
        mine = (rows["dataset"] == panel.dataset) & (rows["model"] == panel.model) & (rows["arm"] == panel.arm)
        for method in view.methods:
            cell = rows[mine & (rows["method"] == method)]
            if cell.empty:
                continue
            columns = ("acc_unlearned", "acc_attacked", "acc_control_attacked", "recovery", "recovery_corrected")
            texts = {column: mean_text(cell, column) if cell[column].notna().any() else "–" for column in columns}
            texts |= {
                name: number(cell[name].mean()) for name in ("retain_before", "retain_unlearned", "t_acc_attacked")
            }
            status = statuses(cell).strip(" ()") or "ok"
            found.append({"panel": panel, "method": method, "rows": cell, "status": status, **texts})
    return found


def place(view: View, cell: dict[str, Any]) -> tuple[int, int]:
    """Return where a cell stands among the panels and methods."""
    return view.panels.index(cell["panel"]), view.methods.index(cell["method"])


def by_budget(view: View) -> list[dict[str, Any]]:
    """Return `cells` of each retain budget, with the steps selected for it; empty with one budget."""
    budgets = sorted(set(view.everything["retain_budget"]))
    if len(budgets) < 2:
        return []
    found = []
    for budget in budgets:
        for cell in cells(view, view.alternative(budget=budget)):
            found.append({**cell, "budget": budget, "steps": _steps(view, cell, budget)})
    return sorted(found, key=lambda cell: (place(view, cell), cell["budget"]))


def _steps(view: View, cell: dict, budget: float) -> str:
    """The steps of the points that were selected for a budget, in the order of the seeds."""
    panel, rows = cell["panel"], view.accuracy
    mask = (rows["dataset"] == panel.dataset) & (rows["model"] == panel.model) & (rows["arm"] == panel.arm)
    mask &= (rows["stage"] == "unlearned") & (rows["method"] == cell["method"]) & (rows["v_split"] == "all")
    mask &= (rows["set"] == "V") & np.isclose(rows["retain_budget"].astype(float), budget)
    return ", ".join(f"{step:g}" for step in rows[mask].sort_values("seed")["step"].astype(float)) or "–"


def by_probe(view: View) -> list[dict[str, Any]]:
    """Return `cells` of each probe, the main one first; empty with one probe."""
    probes = [view.probe, *(s for s in dict.fromkeys(view.everything["probe"]) if s != view.probe)]
    if len(probes) < 2:
        return []
    found = [
        {**cell, "probe": PROBES.get(probe, probe)}
        for probe in probes
        for cell in cells(view, view.alternative(probe=probe))
    ]
    return sorted(found, key=lambda cell: place(view, cell))


def contrast_rows(path: Path, view: View) -> dict[str, list[dict]] | None:
    """Return the view's contrasts, `arms` and `methods`, each row with its verdict in words; None without a file."""
    if not path.is_file():
        return None
    table = read_table(path)
    mask = np.isclose(table["retain_budget"].astype(float), view.budget) & (table["look_choice"] == view.look_choice)
    found: dict[str, list[dict]] = {"arms": [], "methods": []}
    for row in table[mask & (table["probe"] == view.probe)].to_dict("records"):
        row |= {f"arm_{x}_name": _arm_name(view, row[f"arm_{x}"], row[f"dataset_{x}"]) for x in "ab"}
        row["quantity"] = QUANTITIES.get(row["quantity"], row["quantity"])
        row["points"] = per_seed(row)
        row["verdict"] = verdict(row)
        found["methods" if row["arm_a"] == row["arm_b"] else "arms"].append(row)
    return found


def _arm_name(view: View, arm: str, dataset: str) -> str:
    """An arm's name as in the figures; without a model where several were tried, as contrasts are over all of them."""
    names = [panel.name for panel in view.panels if (panel.arm, panel.dataset) == (arm, dataset)]
    return names[0] if len(names) == 1 else f"{ARMS.get(arm, arm)} ({dataset_title(str(dataset))})"


def per_seed(row: dict) -> list[str]:
    """Return a row's differences, one per seed."""
    return [number(float(value)) for value in str(row["per_seed"]).split(";") if value]


def verdict(row: dict) -> str:
    """Say what a row of differences says."""
    if row.get("comparable", "yes") != "yes":
        return row["why"] or "not comparable"
    if not row["n_seeds"]:
        return "no seed with both values"
    if row["n_seeds"] < 2:
        return "one seed cannot support a statement"
    if row["low"] > 0 or row["high"] < 0:
        return f"differs over {row['n_seeds']} seeds"
    return f"no difference shown over {row['n_seeds']} seeds"

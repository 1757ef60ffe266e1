"""How strong unlearning and RTT were: each unlearning run, each learning rate of RTT, and what lies at an edge."""

from pathlib import Path
from typing import Any

import numpy as np

from rtt.figures.style import number, percent
from rtt.figures.view import View
from rtt.report.inputs import read_settings
from rtt.study.names import DEFAULT

STILL_RISING = 0.02  # of accuracy on V: a step this large at a grid's edge says that more might bring back more


def trajectories(view: View, results: Path) -> list[dict[str, Any]]:
    """Return the unlearning runs: settings that differ among a method's, points, accuracies, budgets that chose one."""
    rows = view.accuracy
    rows = rows[(rows["stage"] == "unlearned") & (rows["v_split"] == "all") & (rows["look_choice"] == "none")]
    settings = read_settings(results, [run for run in dict.fromkeys(rows["run"]) if run])
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
                    {
                        "panel": panel,
                        "method": method,
                        "seed": seed,
                        "settings": ", ".join(f"{name} {settings.get(run, {}).get(name)}" for name in names),
                        "points": len(forget),
                        "last": int(forget["step"].iloc[-1]),
                        "forget": number(forget["accuracy"].iloc[-1]),
                        "lowest": number(forget["accuracy"].min()),
                        "retain": number(retain["accuracy"].iloc[-1]) if len(retain) else "–",
                        "chosen": ", ".join(percent(budget) for budget in budgets) or "none",
                    }
                )
    return found


def _varied(settings: list[dict[str, Any]]) -> list[str]:
    """Names of the settings that differ among some runs."""
    names = dict.fromkeys(name for one in settings for name in one if name != "grid")
    return [name for name in names if len({str(one.get(name)) for one in settings}) > 1]


def rates(view: View) -> list[dict[str, Any]]:
    """Return accuracy on V (means over seeds) per panel, attacked model and learning rate: last epoch, and highest."""
    found = []
    targets = [("original", "original_attacked", "none")]
    targets += [(method, "unlearned_attacked", method) for method in view.methods]
    for panel in view.panels:
        for name, stage, method in [*targets, ("control", "control_attacked", "none")]:
            means = view.curve(panel, stage, method, "V").groupby(["lr", "epoch"])["accuracy"].mean()
            on_t = view.curve(panel, stage, method, "T").groupby(["lr", "epoch"])["accuracy"].mean()
            if means.empty:
                continue
            by_rate = []
            for rate in view.learning_rates:
                if rate in means.index.get_level_values("lr"):
                    own = means[rate]
                    end = own.index.max()
                    cell = {"rate": rate, "last": own[end], "highest": own.max(), "epoch": int(own.idxmax())}
                    cell |= {"before": own.iloc[-2] if len(own) > 1 else np.nan, "end": int(end), "t": on_t[rate][end]}
                    by_rate.append(cell)
            found.append({"panel": panel, "name": name, "rates": by_rate})
    return found


def edges(view: View) -> list[str]:
    """Return a caveat where an unlearned model's highest accuracy on V lies at the edge of RTT's grid and still rises.

    Without it a stronger RTT could bring back more than the study saw.
    """
    longer, larger = [], []
    for row in rates(view):
        if row["name"] in ("original", "control"):
            continue
        best = max(row["rates"], key=lambda cell: cell["highest"])
        who = f"{row['name']}, {row['panel'].name}"
        if best["epoch"] == best["end"] and best["last"] - best["before"] > STILL_RISING:
            longer.append(f"{who} {number(best['before'])} to {number(best['last'])}")
        others = [cell["highest"] for cell in row["rates"] if cell is not best]
        if others and best is row["rates"][-1] and best["highest"] - max(others) > STILL_RISING:
            larger.append(f"{who} {number(max(others))} to {number(best['highest'])}")
    found = []
    if longer:
        found.append(
            "Accuracy on V still rises in RTT's last epoch, so a longer RTT may bring back more "
            f"(at the best learning rate, last scored epoch but one to last): {'; '.join(longer)}."
        )
    if larger:
        found.append(
            "RTT's largest learning rate brings back the most, so a larger one may bring back more "
            f"(second best to largest): {'; '.join(larger)}."
        )
    return found


def attacked_share(view: View) -> tuple[int, int]:
    """Return how many points of the unlearning runs were attacked, and how many there are, over all seeds."""
    rows = view.accuracy
    rows = rows[(rows["stage"] == "unlearned") & (rows["v_split"] == "all") & (rows["set"] == "V")]
    rows = rows[(rows["look_choice"] == "none") & (rows["variant"] == DEFAULT)]
    keys = ["dataset", "arm", "model", "method", "seed", "run", "step"]
    return len(rows[rows["retain_budget"].notna()][keys].drop_duplicates()), len(rows[keys].drop_duplicates())

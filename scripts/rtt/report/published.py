"""What others published, beside this study's figures. Theirs are quoted; what they did not publish is not guessed."""

import math
from typing import Any

import pandas as pd

from rtt.figures.style import dataset_title, number, value_of
from rtt.figures.view import Panel, View
from rtt.report.changed import HIDING, kind_of
from rtt.report.inputs import part

UNKNOWN = "not published"
PAPER = "Deeb and Roger 2024"
PAPER_MODEL = "Meta-Llama-3-8B, in some configurations zephyr-7b-beta"
PRETRAINING = ("Years", "MMLU", "WMDP-Deduped")
TAUGHT = "Random Birthdays"
CONTROL = 0.312  # at most, app. E
TWO_SIGMA = 0.055
HIDDEN = (0.35, 0.83)  # sec. 6.1: forget accuracy, then after RTT
PICTURE = (0.72, 0.27, 0.68)  # images/mi.png: original + RTT, unlearned, unlearned + RTT
BUDGETS = (0.05, 0.1, 0.3, 1.0)
FORMATS = ("plain text", "MCQ", "answer only")
# (work, model, facts, method) -> accuracy in per cent after unlearning, after RTT
KUNBR = ("KUnBR (arXiv 2511.11667)", "Llama-3-8B-Instruct")
OTHERS = [
    (*KUNBR, facts, method, before, after)
    for facts, figures in {
        "Random Birthdays": {"GA": (23.5, 87.2), "GD": (64.9, 80.2), "RMU": (36.3, 88.5), "NPO": (71.3, 78.3)},
        "WMDP-Deduped": {"GA": (29.2, 66.8), "GD": (30.5, 62.4), "RMU": (29.9, 64.9), "NPO": (35.6, 58.4)},
        "Years": {"GA": (25.9, 50.6), "GD": (25.9, 68.3), "RMU": (24.2, 68.3), "NPO": (26.5, 67.7)},
    }.items()
    for method, (before, after) in figures.items()
]
FORK = (
    "A public fork of the authors' code, Qwen2.5-3B-Instruct with LoRA, Years: accuracy of the base .639 and of base + "
    "RTT .702, recovery .92 to 1.00."
)


def recovery_bound(panel: Panel, method: str) -> tuple[str, float, str] | None:
    """Return the paper's recovery rate for such facts: (">" or "<", the bound, the section); None: not published."""
    title = dataset_title(panel.dataset)
    pretrained = title in PRETRAINING or (title != TAUGHT and panel.arm == "pretrained")
    taught = title == TAUGHT or (title not in PRETRAINING and panel.arm == "taught")
    if pretrained and panel.arm == "pretrained" and method in ("GD", "RMU", "RIA"):
        return ">", 0.88, "sec. 5.1"
    if taught and panel.arm == "taught" and method in ("GD", "RIA"):
        return "<", 0.35, "sec. 5.2"
    return None


def beside(view: View) -> list[dict[str, Any]]:
    """Return a row per panel, method and seed: our ratio selected as theirs, on V, and theirs with what follows.

    Ours is empty where the tables have no row selected on V.
    """
    ours = view.alternative(look_choice="paper")
    found = []
    for panel in view.panels:
        title = dataset_title(panel.dataset)
        theirs = title if title in (*PRETRAINING, TAUGHT) else ", ".join(PRETRAINING)
        theirs = TAUGHT if panel.arm == "taught" and title not in PRETRAINING else theirs
        for method in view.methods:
            bound = recovery_bound(panel, method)
            mask = (ours["dataset"] == panel.dataset) & (ours["model"] == panel.model) & (ours["arm"] == panel.arm)
            for _, row in ours[mask & (ours["method"] == method)].iterrows():
                found.append(
                    {
                        "panel": panel,
                        "method": method,
                        "row": row,
                        "ours": value_of(row, "recovery"),
                        "theirs": f"{bound[0]} {number(bound[1])} ({bound[2]})" if bound else UNKNOWN,
                        "facts": theirs if bound else "–",
                        "other": bool(bound) and theirs != title,
                        "verdict": _verdict(row, bound),
                    }
                )
    return found


def _verdict(row: pd.Series, bound: tuple[str, float, str] | None) -> str:
    if bound is None:
        return "nothing to compare"
    low, high = row["recovery_low"], row["recovery_high"]
    if math.isnan(low):
        return "ours has no rate"
    if row["status"] == "not_unlearned":
        return "ours was not unlearned, so its rate says little"
    sign, edge, _ = bound
    if low > edge:
        return f"ours lies above {number(edge)}" + (", as theirs" if sign == ">" else "")
    if high < edge:
        return f"ours lies below {number(edge)}" + (", as theirs" if sign == "<" else "")
    return f"our interval holds {number(edge)}"


def controls(view: View) -> list[dict[str, Any]]:
    """Return our controls, selected on V as theirs, one per panel and seed."""
    rows = view.alternative(look_choice="paper").drop_duplicates(["dataset", "model", "arm", "seed"])
    panels = {(panel.dataset, panel.model, panel.arm): panel for panel in view.panels}
    return [
        {
            "panel": panels[row["dataset"], row["model"], row["arm"]],
            "row": row,
            "ours": value_of(row, "acc_control_attacked"),
        }
        for _, row in rows.iterrows()
        if not math.isnan(row["acc_control_attacked"])
    ]


def budgets(view: View) -> list[float]:
    """Return our retain budgets."""
    return sorted(set(view.everything["retain_budget"]))


def hiding(view: View, study: dict[str, Any]) -> list[dict[str, str]]:
    """Return our results of a model made to hide facts (GD on number tokens), of the study or of its variants."""
    names = [name for name, patch in part(study, "variants").items() if kind_of(part(patch)) == HIDING]
    tables = [(name, view.alternative(variant=name)) for name in names]
    if kind_of({"methods": study.get("methods")}) == HIDING:
        tables.append(("default", view.recovery))
    return [
        {"variant": name, "method": str(row["method"]), "seed": str(row["seed"]),
         "unlearned": value_of(row, "acc_unlearned"), "rtt": value_of(row, "acc_attacked")}
        for name, rows in tables
        for _, row in rows.iterrows()
        if row["method"] == "GD"
    ]  # fmt: skip


def others(view: View) -> list[dict[str, str]]:
    """Return other works' accuracies after unlearning and after RTT, with ours where the study has facts and method."""
    found = []
    for work, model, facts, method, before, after in OTHERS:
        ours = []
        for panel in view.panels:
            if dataset_title(panel.dataset) == facts and method in view.methods:
                ours += [
                    f"{number(row['acc_unlearned'])} to {number(row['acc_attacked'])}"
                    for _, row in view.of(panel, method).iterrows()
                ]
        text = f"{number(before / 100, 3)} to {number(after / 100, 3)}"
        found.append({"work": work, "model": model, "facts": facts, "method": method, "theirs": text,
                      "ours": "; ".join(ours) or "not in this study"})  # fmt: skip
    return found

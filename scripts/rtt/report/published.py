"""What others published, beside this study's results. Theirs are quoted; what they did not publish is not guessed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rtt.figures.style import dataset_title, number, percent, value_of
from rtt.figures.view import Panel, View
from rtt.report.inputs import part
from rtt.report.rows import Group, Result, alike, grouped
from rtt.report.variants import HIDING, kind_of
from rtt.study.names import DEFAULT

UNKNOWN = "not published"
ATTACK = "RTT"  # the one attack that these works made
PRETRAINING = ("Years", "MMLU", "WMDP-Deduped")
TAUGHT = "Random Birthdays"
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


@dataclass(frozen=True)
class Beside:
    """Our recovery ratio, with the look chosen on V as theirs, and theirs. `other_facts`: theirs are of other facts."""

    panel: Panel
    method: str
    seed: int
    ours: str
    theirs: str
    their_facts: str
    other_facts: bool
    verdict: str


@dataclass(frozen=True)
class Other:
    """Another work's accuracy after unlearning and after RTT, with ours where the study has facts and method."""

    facts: str
    method: str
    theirs: str
    ours: str
    work: str
    model: str


@dataclass(frozen=True)
class Published:
    """Theirs beside ours: recovery rates; ours of what else they published, as texts; other works."""

    beside: list[Group[Beside]]
    control: str
    budgets: str
    formats: str
    hiding: str
    others: list[Other]


def published(found: Sequence[Result], view: View, study: dict[str, Any], format_variants: Sequence[str]) -> Published:
    """Return what was published beside the results of the attack RTT (`found`: those of the variant `default`)."""
    wanted = (ATTACK, view.budget, "paper", view.probe)
    ours = [one for one in found if (one.attack, one.retain_budget, one.look_choice, one.probe) == wanted]
    our_controls = controls(ours, several_seeds=len({one.seed for one in found}) > 1)
    budgets = sorted({one.retain_budget for one in found})
    variants = list(dict.fromkeys(format_variants))
    return Published(
        beside=beside(ours),
        control=f"reaches {', '.join(our_controls)}" if our_controls else "was not run",
        budgets=", ".join(map(percent, budgets)),
        formats=_formats(variants),
        hiding="; ".join(hiding(view, study)) or "ours is not in this study",
        others=others(found, view),
    )


def _formats(variants: Sequence[str]) -> str:
    if not variants:
        return "ours are not in this study"
    return f"ours {'are the variants' if len(variants) > 1 else 'is the variant'} {', '.join(variants)}"


def beside(ours: Sequence[Result]) -> list[Group[Beside]]:
    """Return our recovery ratios beside theirs, by panel; [] where no look was chosen on V."""
    rows = []
    for one in ours:
        bound = recovery_bound(one.panel, one.method)
        title = dataset_title(one.panel.dataset)
        theirs = title if title in (*PRETRAINING, TAUGHT) else ", ".join(PRETRAINING)
        theirs = TAUGHT if one.panel.arm == "taught" and title not in PRETRAINING else theirs
        rows.append(
            Beside(
                panel=one.panel,
                method=one.method,
                seed=one.seed,
                ours=str(one.recovery),
                theirs=f"{bound[0]} {number(bound[1])} ({bound[2]})" if bound else UNKNOWN,
                their_facts=theirs if bound else "–",
                other_facts=bool(bound) and theirs != title,
                verdict=_verdict(one, bound),
            )
        )
    return grouped(rows)


def _verdict(one: Result, bound: tuple[str, float, str] | None) -> str:
    if bound is None:
        return "nothing to compare with"
    low, high = one.recovery.low, one.recovery.high
    if math.isnan(low):
        return "ours has no rate"
    if not one.counts:
        return "ours does not count as unlearned, so its rate says little"
    sign, edge, _ = bound
    if low > edge:
        return f"ours lies above {number(edge)}" + (", as theirs does" if sign == ">" else "")
    if one.attack_learned is False:
        return "ours is a lower bound, since the attack did not learn T"
    if high < edge:
        return f"ours lies below {number(edge)}" + (", as theirs does" if sign == "<" else "")
    return f"our interval contains {number(edge)}"


def controls(ours: Sequence[Result], several_seeds: bool) -> list[str]:
    """Return our controls, with the look chosen on V as theirs, one per panel and seed."""
    found: dict[tuple, Result] = {}
    for one in ours:
        found.setdefault((one.panel, one.seed), one)
    return [
        f"{one.acc_control_attacked} ({one.panel.name}{f', seed {one.seed}' if several_seeds else ''})"
        for one in found.values()
        if not math.isnan(one.acc_control_attacked.value)
    ]


def hiding(view: View, study: dict[str, Any]) -> list[str]:
    """Return our results of a model made to hide facts (GD on number tokens), of the study or of its variants."""
    names = [name for name, patch in part(study, "variants").items() if kind_of(part(patch)) == HIDING]
    tables = [(name, view.alternative(variant=name)) for name in names]
    if kind_of({"methods": study.get("methods")}) == HIDING:
        tables.append((DEFAULT, view.recovery))
    return [
        f"ours has {value_of(row, 'acc_unlearned')} and {value_of(row, 'acc_attacked')} "
        f"(variant {name}, seed {row['seed']})"
        for name, rows in tables
        for row in rows.to_dict("records")
        if row["method"] == "GD"
    ]


def others(found: Sequence[Result], view: View) -> list[Other]:
    """Return other works' accuracies beside ours, with the look chosen as the report shows it."""
    shown = [one for one in alike(found, view) if one.attack == ATTACK]
    rows = []
    for work, model, facts, method, before, after in OTHERS:
        ours = [
            f"{number(one.acc_unlearned.value)} to {number(one.acc_attacked.value)}"
            for one in shown
            if (dataset_title(one.panel.dataset), one.method) == (facts, method)
        ]
        theirs = f"{number(before / 100, 3)} to {number(after / 100, 3)}"
        rows.append(Other(facts, method, theirs, "; ".join(ours) or "not in this study", work, model))
    return rows

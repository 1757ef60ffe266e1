"""The page's first table: one row per facts and method, with a verdict in a few words (`rtt.stats.headline`)."""

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from rtt.figures.phrases import upper
from rtt.figures.style import interval, number
from rtt.figures.view import Panel, View
from rtt.report.rows import Group, grouped
from rtt.stats import verdicts
from rtt.stats.recovery import cannot_tell
from rtt.study import plugins

VERDICTS = {
    verdicts.HIDDEN: "hidden, at least in part",
    verdicts.NONE_SHOWN: "nothing above the control",
    verdicts.CANNOT_TELL: "cannot tell",
    verdicts.NOT_UNLEARNED: "not unlearned",
    verdicts.BELOW_FLOOR: "worse than guessing",
    verdicts.NOT_KNOWN: "not known before",
    verdicts.NO_POINT: "no point within the budget",
}
# What each method does, for readers who know none of them; of others the plug-in's title says it.
MEANINGS = {
    "GD": "gradient difference, which makes the model worse on the texts to forget and keeps it good on those to keep",
    "RMU": "representation misdirection, which scrambles what the model computes inside when it reads about the facts",
    "RIA": "random incorrect answers, which teaches the model several wrong answers to each question",
    "FIF": "fixed incorrect facts, which teaches the model one wrong answer to each question",
    "NPO": "negative preference optimisation, which makes the texts to forget unlikely, and stops once they are",
}
ELSEWHERE = "a model that was unlearned elsewhere"


@dataclass(frozen=True)
class HeadlineRow:
    """One method on one panel's facts, as texts: values with their 95 % intervals, over seeds where there are several.

    verdict: one of `rtt.stats.verdicts.VERDICTS`; verdict_text: the same in a few words. note: why it is neither
    `hidden` nor `none_shown`, and what else has to be said.
    """

    panel: Panel
    method: str
    verdict: str
    verdict_text: str
    unlearned: str
    attacked: str
    oracle: str
    control: str
    recovery: str
    counts: str
    note: str


def headline(view: View, table: pd.DataFrame) -> list[Group[HeadlineRow]]:
    """Return the rows of the first table by panel and method, from those of `rtt.figures.outcomes`."""
    found = []
    for panel in view.panels:
        own = table[(table["dataset"] == panel.dataset) & (table["model"] == panel.model)]
        for method in view.methods:
            rows = own[(own["arm"] == panel.arm) & (own["method"] == method)]
            found += [_row(panel, row) for row in rows.to_dict("records")]
    return grouped(found)


def meaning(method: str) -> str:
    """Return in one line what a method does."""
    plugin = plugins.methods().get(method)
    return MEANINGS.get(method) or (plugin.title if plugin else ELSEWHERE)


def _row(panel: Panel, row: dict[str, Any]) -> HeadlineRow:
    names = ("acc_unlearned", "acc_attacked", "acc_oracle_attacked", "acc_control_attacked", "recovery_corrected")
    several, (unlearned, attacked, oracle, control, recovery) = row["n_cells"] > 1, (_text(row, name) for name in names)
    if not several and "recovery_corrected" in cannot_tell(row):
        recovery = f"cannot tell{recovery.removeprefix(number(row['recovery_corrected']))}"  # as in the other tables
    least = "at least " * (several and row["attack_learned"] is False and not math.isnan(row["recovery_corrected"]))
    return HeadlineRow(
        panel=panel,
        method=row["method"],
        verdict=row["verdict"],
        verdict_text=VERDICTS[row["verdict"]],
        unlearned=unlearned,
        attacked=attacked,
        oracle=oracle,
        control=control,
        recovery=least + recovery,
        counts=f"{row['n_counting']} of {row['n_cells']} seeds" if several else "yes" if row["counts"] else "no",
        note=upper("; ".join(text for text in (row["why"], *_asides(row, several)) if text)),
    )


def _text(row: dict[str, Any], name: str) -> str:
    return interval(*(row[f"{name}{end}"] for end in ("", "_low", "_high")))


def _asides(row: dict[str, Any], several: bool) -> list[str]:
    where, told = "in some seed " * several, []
    if row["attack_learned"] is False:
        told.append(f"a lower bound, since {where}the attack learned T to {number(row['t_acc_attacked'])} only")
    if "original_not_learned" in row["status"].split(";"):
        t = number(row["t_acc_original_attacked"])
        told.append(f"no rate, since {where}the attack on the original learned T to {t} only")
    return told

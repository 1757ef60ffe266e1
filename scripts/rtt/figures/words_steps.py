"""Words of the figure `steps`: what each step of the test does and what came out, for who sees such a test first."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from rtt.figures.outcomes import of_panels, outcomes
from rtt.figures.phrases import listed
from rtt.figures.style import span
from rtt.figures.view import Panel, View
from rtt.figures.words_attack import uses_t
from rtt.stats import criterion
from rtt.stats.verdicts import BELOW_FLOOR, CANNOT_TELL, HIDDEN, NO_POINT, NONE_SHOWN, NOT_KNOWN, NOT_UNLEARNED
from rtt.study.names import STRONGEST_ATTACK

BESIDE = {
    "acc_oracle_attacked": "one trained without these facts (the oracle)",
    "acc_control_attacked": "one that never saw such facts (the control)",
}
# Why a method does not count, by its verdict.
LEFT_OUT = {
    NOT_UNLEARNED: "asked in other ways, the model still shows some of the facts",
    BELOW_FLOOR: "the model answers below guessing, so it knows which answer to avoid",
    NO_POINT: "the model lost too much of what else it knew",
    NOT_KNOWN: "the original did not know the facts",
}


@dataclass(frozen=True)
class Step:
    """One step of the test: its title, what the study's numbers say of it, and what follows by the study's criteria."""

    title: str
    text: str
    follows: str = ""

    def __str__(self) -> str:
        return f"{self.title}: {self.text} {self.follows}".rstrip()


def shown_panels(view: View) -> list[Panel]:
    """Return the panels of the first arm, whose facts the claim is about."""
    return [panel for panel in view.panels if panel.arm == view.panels[0].arm]


def told_rows(cell: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that a method's mean is over: those that count where it does, else all known ones with a point.

    Where no original knew the facts, all with a point.
    """
    if criterion.counts(cell):
        return criterion.counting(cell)
    known = criterion.known(cell).dropna(subset=["acc_attacked"])
    return known if len(known) else cell.dropna(subset=["acc_attacked"])


def value(rows: pd.DataFrame, column: str) -> float:
    """Return the mean of a column over seeds; NaN where no seed has it."""
    return float(rows[column].mean()) if rows[column].notna().any() else math.nan


def share(value: float) -> str:
    """Write a fraction as a whole percentage: `85 %`; an unknown one as an en dash."""
    return "–" if math.isnan(value) else f"{round(100 * value):d} %"


def shares(values: Sequence[float]) -> str:
    """Write the range of some fractions: `76 to 85 %`, or `85 %` where both ends read the same."""
    return span(values, share).replace(" % to", " to")


def done(view: View) -> str:
    """Say what the attack does: `retrained on other facts`, or after which one."""
    return "retrained on other facts" if view.attack == "RTT" else f"after {view.attack_title}"


def ticks(view: View) -> list[str]:
    """Return the names of the four places of the figure."""
    return ["before", "made to forget", done(view), f"never knew them, {done(view)}"]


def judged_methods(view: View, panel: Panel) -> dict[str, pd.DataFrame]:
    """Return the rows of each method that has a point, by which `steps` is drawn."""
    cells = {method: told_rows(view.of(panel, method)) for method in view.methods}
    return {method: rows for method, rows in cells.items() if len(rows)}


def by_verdict(view: View, panels: Sequence[Panel]) -> dict[str, list[str]]:
    """Return the methods on some panels' facts by their verdict, as headline.csv has it."""
    found: dict[str, list[str]] = {}
    for row in of_panels(outcomes(view), panels).to_dict("records"):
        found.setdefault(row["verdict"], []).append(row["method"])
    return found


def sentences(view: View, panel: Panel) -> list[Step]:
    """Return the four steps with a panel's numbers."""
    rows = view.of(panel)
    alone, verdicts = rows.drop_duplicates("seed"), by_verdict(view, [panel])
    cells = judged_methods(view, panel)
    gone = [f"{name} {share(value(own, 'acc_unlearned'))}" for name, own in cells.items()]
    back = [f"{name} {share(value(own, 'acc_attacked'))}" for name, own in cells.items()]
    beside = [
        f"{share(value(alone, column))} by {who}" for column, who in BESIDE.items() if alone[column].notna().any()
    ]
    unlearned = f"Unlearning changes its weights. Then it answers: {', '.join(gone)}." if gone else "It was unlearned."
    attacked = f"{_given(view)} {', '.join(back)}." if back else "There was nothing to attack."
    compared = (
        f"They go through the same and answer {listed(beside)}."
        if beside
        else "There is no such model in this study, so it cannot be told what the attack alone brings."
    )
    return [
        Step("Before", _before(view, alone, set(verdicts) == {NOT_KNOWN})),
        Step("Made to forget", f"{unlearned}{_left_out(verdicts, len(view.seeds) > 1)}"),
        Step("Retrained on other facts" if view.attack == "RTT" else f"Attacked: {view.attack_title}", attacked),
        Step("Compared with models that never knew V", compared, _compared(verdicts) if beside else ""),
    ]


def _before(view: View, alone: pd.DataFrame, unknown: bool) -> str:
    known = alone[alone["status"] != "not_known"]
    before, floor = value(alone if unknown else known, "acc_before"), share(float(alone["floor"].mean()))
    means = " (a mean over seeds)" if len(view.seeds) > 1 else ""
    if unknown:
        return (
            f"The model does not know the facts well enough: it answers {share(before)} of the questions about them "
            f"right{means}, and guessing gives {floor}. In every way of asking that decides, it has to lie clearly "
            "above guessing, and in some it does not. So the rest says nothing about forgetting."
        )
    return (
        f"The model knows the facts: it answers {share(before)} of the questions about them right{means}. Guessing "
        f"would give {floor}."
    )


def _left_out(verdicts: dict[str, list[str]], several: bool) -> str:
    texts = []
    for verdict, why in LEFT_OUT.items():
        names = list(dict.fromkeys(verdicts.get(verdict, ())))
        if names:
            verb = "do" if len(names) > 1 else "does"
            texts.append(f" {listed(names)} {verb} not count: {'in most seeds, ' * several}{why}.")
    return "".join(texts)


def _given(view: View) -> str:
    if view.attack == "RTT":
        return (
            "The forgotten facts are split. It learns one part again, T, and is asked the rest, V, which it never sees "
            "again:"
        )
    if view.attack == STRONGEST_ATTACK:
        return "Each attack uses T or no facts at all, and never V. Of V it answers:"
    return "The attack uses T, and never V. Of V it answers:" if uses_t(view) else "The attack gives it no facts. Of V:"


def _compared(verdicts: dict[str, list[str]]) -> str:
    """Say what follows from the comparison, by the verdicts."""
    hidden, none, unsure = (list(dict.fromkeys(verdicts.get(key, ()))) for key in (HIDDEN, NONE_SHOWN, CANNOT_TELL))
    texts = []
    if hidden:
        texts.append(f"What comes back after {listed(hidden)} lies above that: it was hidden, not removed.")
    if none:
        texts.append(f"Nothing is shown to come back after {listed(none)}.")
    if unsure:
        texts.append(f"Of {listed(unsure)} it cannot be told.")
    return " ".join(texts) or "Since no method counts, nothing follows from it."


def title(view: View) -> str:
    """Say from where to where accuracy on V goes, for the methods that count."""
    panels = shown_panels(view)
    counting = [
        (method, rows)
        for panel in panels
        for method, rows in judged_methods(view, panel).items()
        if criterion.counts(view.of(panel, method))
    ]
    if not counting:
        verdicts = set(by_verdict(view, panels))
        if verdicts == {NOT_KNOWN}:
            return "The model did not know these facts, so there was nothing to forget"
        if verdicts == {NO_POINT}:
            return "No method kept enough of what else the model knew, so nothing is shown about forgetting"
        if verdicts == {NO_POINT, NOT_KNOWN}:
            return "The model did not know some of the facts, and lost too much else with the others"
        return "No method made the model forget by every way of asking, so what comes back says little"
    names = list(dict.fromkeys(method for method, _ in counting))
    gone, back = (shares([value(rows, column) for _, rows in counting]) for column in ("acc_unlearned", "acc_attacked"))
    who = "the methods that count" if len(names) > 1 else names[0]
    return f"With {who}, the model answers {gone} after unlearning, and {back} {_when(view)}"


def _when(view: View) -> str:
    return f"when {done(view)}" if view.attack == "RTT" else done(view)


def head(view: View) -> str:
    """Say what the figure shows."""
    return (
        "Four steps from left to right: the share of V that the model answers before, after unlearning by each method, "
        f"{_when(view)}, and what models reach that never knew V. Hollow marks do not count as unlearned."
    )


def of_panel(view: View, panel: Panel) -> str:
    """Say a panel's numbers step by step."""
    return " ".join(map(str, sentences(view, panel))).removesuffix(".")


def spots(view: View, panel: Panel) -> list[str]:
    """Return what each of the four places shows."""
    return list(map(str, sentences(view, panel)))

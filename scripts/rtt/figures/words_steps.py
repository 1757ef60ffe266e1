"""Words of the figure `steps`: what each step of the test does and what came out, for who sees such a test first."""

import math
from dataclasses import dataclass

import pandas as pd

from rtt.figures.phrases import listed
from rtt.figures.view import Panel, View
from rtt.stats import criterion

BESIDE = {
    "acc_oracle_attacked": "one trained without these facts (the oracle)",
    "acc_control_attacked": "one that never saw such facts (the control)",
}


@dataclass(frozen=True)
class Step:
    """One step of the test: its title and what the study's numbers say of it."""

    title: str
    text: str


def shown_panels(view: View) -> list[Panel]:
    """Return the panels of the first arm, whose facts the claim is about."""
    return [panel for panel in view.panels if panel.arm == view.panels[0].arm]


def told_rows(cell: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that a method's mean is over: those that count where the method does, else all with a point."""
    return criterion.counting(cell) if criterion.counts(cell) else criterion.known(cell).dropna(subset=["acc_attacked"])


def value(rows: pd.DataFrame, column: str) -> float:
    """Return the mean of a column over seeds; NaN where no seed has it."""
    return float(rows[column].mean()) if rows[column].notna().any() else math.nan


def share(value: float) -> str:
    """Write a fraction as a whole percentage: `85 %`; an unknown one as an en dash."""
    return "–" if math.isnan(value) else f"{100 * value:.0f} %"


def shares(values: list[float]) -> str:
    """Write the range of some fractions: `76 to 85 %`, or `85 %` where both ends read the same."""
    known = [one for one in values if not math.isnan(one)]
    if not known:
        return "–"
    low, high = share(min(known)), share(max(known))
    return low if low == high else f"{low.removesuffix(' %')} to {high}"


def done(view: View) -> str:
    """Say what the attack does: `retrained on other facts`, or its name."""
    return "retrained on other facts" if view.attack == "RTT" else f"after {view.attack_title}"


def ticks(view: View) -> list[str]:
    """Return the names of the four places of the figure."""
    return ["before", "made to forget", done(view), f"never knew them, {done(view)}"]


def judged_methods(view: View, panel: Panel) -> dict[str, pd.DataFrame]:
    """Return the rows of each method that has a point, by which `steps` is drawn."""
    cells = {method: told_rows(view.of(panel, method)) for method in view.methods}
    return {method: rows for method, rows in cells.items() if len(rows)}


def sentences(view: View, panel: Panel) -> list[Step]:
    """Return the four steps with a panel's numbers."""
    rows = view.of(panel)
    alone = rows.drop_duplicates("seed")
    floor = share(float(rows["floor"].mean()))
    cells = judged_methods(view, panel)
    gone = [f"{name} {share(value(own, 'acc_unlearned'))}" for name, own in cells.items()]
    back = [f"{name} {share(value(own, 'acc_attacked'))}" for name, own in cells.items()]
    out = [name for name, own in cells.items() if not criterion.counts(view.of(panel, name))]
    left_out = ""
    if out:
        verb = "do" if len(out) > 1 else "does"
        left_out = (
            f" {listed(out)} {verb} not count: asked in other ways, the model still shows the facts, or avoids them."
        )
    beside = [
        f"{share(value(alone, column))} by {who}" for column, who in BESIDE.items() if alone[column].notna().any()
    ]
    means = " (means over seeds)" if len(view.seeds) > 1 else ""
    return [
        Step(
            "Before",
            f"The model knows the facts: it answers {share(value(alone, 'acc_before'))} of the questions about them "
            f"right{means}. Guessing would give {floor}.",
        ),
        Step(
            "Made to forget",
            f"Unlearning changes its weights until it no longer answers: {', '.join(gone)}.{left_out}"
            if gone
            else "No unlearned model kept its other knowledge within the budget, so there is none to test.",
        ),
        Step(
            "Retrained on other facts" if view.attack == "RTT" else f"Attacked: {view.attack_title}",
            f"The forgotten facts are in two parts, T and V. It learns T again and never sees V. Then it answers of V: "
            f"{', '.join(back)}."
            if back
            else "There was nothing to attack.",
        ),
        Step(
            "Compared with models that never knew V",
            f"They go through the same and answer {listed(beside)}. {_compared(view, panel)}"
            if beside
            else "There is no such model in this study, so it cannot be told what retraining alone teaches.",
        ),
    ]


def _compared(view: View, panel: Panel) -> str:
    """Say what follows from the comparison: whether, for some method that counts, most seeds exceed the control."""
    cells = [view.of(panel, method) for method in judged_methods(view, panel)]
    above = [[bool(holds) for holds in criterion.judged(cell)] for cell in cells if criterion.counts(cell)]
    if not above:
        return "Since no method counts, nothing follows from it."
    if any(2 * sum(seeds) > len(seeds) for seeds in above):
        return "What lies above that was hidden in the weights, not removed."
    return "No method that counts is shown to bring back more than that."


def title(view: View) -> str:
    """Say from where to where accuracy on V goes, for the methods that count."""
    panel = shown_panels(view)[0]
    cells = {m: rows for m, rows in judged_methods(view, panel).items() if criterion.counts(view.of(panel, m))}
    if not cells:
        return "No method made the model forget by every way of asking, so what comes back says little"
    gone, back = (
        shares([value(rows, column) for rows in cells.values()]) for column in ("acc_unlearned", "acc_attacked")
    )
    who = "the methods that count" if len(cells) > 1 else next(iter(cells))
    return f"With {who}, the model answers {gone} after unlearning, and {back} when {done(view)}"


def head(view: View) -> str:
    """Say what the figure shows."""
    return (
        "Four steps from left to right: the share of V that the model answers before, after unlearning by each method, "
        f"when {done(view)}, and what models reach that never knew V. Hollow marks do not count as unlearned."
    )


def of_panel(view: View, panel: Panel) -> str:
    """Say a panel's numbers step by step."""
    return " ".join(f"{step.title}: {step.text}" for step in sentences(view, panel)).removesuffix(".")


def spots(view: View, panel: Panel) -> list[str]:
    """Return what each of the four places shows."""
    return [f"{step.title}: {step.text}" for step in sentences(view, panel)]

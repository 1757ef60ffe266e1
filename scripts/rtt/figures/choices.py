"""What else could have been chosen: the view's result under each other choice that its tables hold."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

from rtt.figures.style import SCORINGS, percent
from rtt.figures.view import Panel, View
from rtt.study.names import DEFAULT

SAME = ("acc_unlearned", "acc_rtt", "acc_original_rtt", "t_acc_rtt", "n_questions")


@dataclass(frozen=True, eq=False)
class Choice:
    """One alternative: what is chosen otherwise, and the rows that result (columns as in recovery.csv)."""

    group: str  # "", "look", "scoring", "budget", "rate", "variant"
    label: str
    rows: pd.DataFrame

    def of(self, panel: Panel) -> pd.DataFrame:
        """Return a panel's rows; maybe none."""
        rows = self.rows
        return rows[(rows["dataset"] == panel.dataset) & (rows["model"] == panel.model) & (rows["arm"] == panel.arm)]


@lru_cache(maxsize=4)  # the figure, its title and its words all ask; a view is not changed
def choices(view: View) -> list[Choice]:
    """Return the view itself, then all else alone: look, scoring, budget, RTT's learning rate, variants.

    A variant that changes no accuracy under the view's selection is left out (one that selects on V is the look
    chosen on V). Rows of a learning rate have its last epoch, chosen by nobody; their recoveries are unknown.
    """
    found = [Choice("", "as reported", view.recovery)]
    for selection in dict.fromkeys(view.everything["selection"]):
        if selection != view.selection:
            label = "look chosen on V" if selection == "paper" else f"look: {selection}"
            found.append(Choice("look", label, view.alternative(selection=selection)))
    for scoring in dict.fromkeys(view.everything["scoring"]):
        if scoring != view.scoring:
            name = SCORINGS.get(scoring, scoring).replace("likelihood of the choice", "likelihood")
            found.append(Choice("scoring", f"by {name}", view.alternative(scoring=scoring)))
    for budget in sorted(set(view.everything["retain_budget"])):
        if not np.isclose(budget, view.budget):
            found.append(Choice("budget", f"budget {percent(budget)}", view.alternative(budget=budget)))
    if len(view.looks) > 1:
        for rate in view.learning_rates:
            epoch = max(e for lr, e in view.looks if lr == rate)
            found.append(Choice("rate", f"RTT at {rate:g}, epoch {epoch}", _at_look(view, rate, epoch)))
    for variant in dict.fromkeys(view.everything["variant"]):
        if variant != DEFAULT:
            rows = view.alternative(variant=variant)
            if len(rows) and not _equal(rows, view.recovery):
                found.append(Choice("variant", f"variant {variant}", rows))
    return [choice for choice in found if len(choice.rows)]


def _equal(rows: pd.DataFrame, other: pd.DataFrame) -> bool:
    keys = ["dataset", "model", "arm", "method", "seed"]
    one, two = (table.set_index(keys)[list(SAME)].sort_index() for table in (rows, other))
    return one.index.equals(two.index) and bool(np.allclose(one, two, atol=1e-9, equal_nan=True))


def _at_look(view: View, lr: float, epoch: int) -> pd.DataFrame:
    """The view's rows with accuracies after RTT at one look, of unlearned, original and control models."""
    found = []
    for panel in view.panels:
        for method in view.methods:
            rows = view.of(panel, method).set_index("seed", drop=False)
            ends = ("", "_low", "_high")
            rows = rows.assign(**{f"recovery{kind}{end}": np.nan for kind in ("", "_corrected") for end in ends})
            rows = rows.assign(cannot_tell="")
            for column, stage, who in (
                ("acc_rtt", "unlearned_rtt", method),
                ("acc_original_rtt", "original_rtt", "none"),
                ("acc_control_rtt", "control_rtt", "none"),
            ):
                looks = view.curve(panel, stage, who, "V")
                here = looks[np.isclose(looks["lr"], lr, rtol=1e-9, atol=0) & (looks["epoch"] == epoch)]
                here = here.drop_duplicates("seed").set_index("seed")
                for end, source in zip(ends, ("accuracy", "low", "high"), strict=True):
                    rows[f"{column}{end}"] = here[source].reindex(rows.index)
            found.append(rows)
    return pd.concat(found, ignore_index=True)

"""What else could have been chosen: the view's result under each other choice that its tables hold."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

from rtt.figures.style import PROBES, percent
from rtt.figures.view import Panel, View
from rtt.study.names import DEFAULT

SAME = ("acc_unlearned", "acc_attacked", "acc_original_attacked", "t_acc_attacked", "n_questions")


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

    A variant that changes no accuracy under the view's look choice is left out (one that choices on V is the look
    chosen on V). Rows of a learning rate have its last epoch, chosen by nobody; their recoveries are unknown.
    """
    found = [Choice("", "as reported", view.recovery)]
    for look_choice in dict.fromkeys(view.everything["look_choice"]):
        if look_choice != view.look_choice:
            label = "look chosen on V" if look_choice == "paper" else f"look: {look_choice}"
            found.append(Choice("look", label, view.alternative(look_choice=look_choice)))
    for probe in dict.fromkeys(view.everything["probe"]):
        if probe != view.probe:
            name = PROBES.get(probe, probe).replace("likelihood of the choice", "likelihood")
            found.append(Choice("probe", f"by {name}", view.alternative(probe=probe)))
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
                ("acc_attacked", "unlearned_attacked", method),
                ("acc_original_attacked", "original_attacked", "none"),
                ("acc_control_attacked", "control_attacked", "none"),
            ):
                looks = view.curve(panel, stage, who, "V")
                here = looks[np.isclose(looks["lr"], lr, rtol=1e-9, atol=0) & (looks["epoch"] == epoch)]
                here = here.drop_duplicates("seed").set_index("seed")
                for end, source in zip(ends, ("accuracy", "low", "high"), strict=True):
                    rows[f"{column}{end}"] = here[source].reindex(rows.index)
            found.append(rows)
    return pd.concat(found, ignore_index=True)

"""Find what the tables say where one thing is chosen otherwise than in a view."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

from rtt.figures.style import PROBES, percent
from rtt.figures.view import Panel, View, attack_title
from rtt.stats.shown import is_control
from rtt.study.names import DEFAULT

SAME = ("acc_unlearned", "acc_attacked", "acc_original_attacked", "t_acc_attacked", "n_questions")


@dataclass(frozen=True, eq=False)
class Choice:
    """One alternative: what is chosen otherwise, and the rows that result (columns as in recovery.csv)."""

    group: str  # "", "look choice", "probe", "budget", "setting", "attack", "variant"
    label: str
    rows: pd.DataFrame
    attack: str  # as figures write it

    def of(self, panel: Panel) -> pd.DataFrame:
        """Return a panel's rows; maybe none."""
        rows = self.rows
        return rows[(rows["dataset"] == panel.dataset) & (rows["model"] == panel.model) & (rows["arm"] == panel.arm)]


@lru_cache(maxsize=4)  # the figure, its title and its words all ask; a view is not changed
def choices(view: View) -> list[Choice]:
    """Return the view itself, then what results where one thing is chosen otherwise.

    These are the look choice, probe, budget, setting, attack and variant. A variant that changes no accuracy under the
    view's look choice is left out, such as one that changes the reported look choice alone. Rows of a setting hold the
    accuracies at that setting (of a curve over epochs: at its last epoch), which nobody chose; their recoveries are
    unknown.
    """
    found = [("", "as reported", view.recovery)]
    for look_choice in dict.fromkeys(view.everything["look_choice"]):
        if look_choice != view.look_choice:
            label = "look chosen on V" if look_choice == "paper" else f"look choice: {look_choice}"
            found.append(("look choice", label, view.alternative(look_choice=look_choice)))
    for probe in dict.fromkeys(view.everything["probe"]):
        if probe != view.probe:
            found.append(("probe", f"by {PROBES.get(probe, probe)}", view.alternative(probe=probe)))
    for budget in sorted(set(view.everything["retain_budget"])):
        if not np.isclose(budget, view.budget):
            found.append(("budget", f"budget {percent(budget)}", view.alternative(budget=budget)))
    if len(view.settings) > 1:
        found += [("setting", label, _at(view, setting)) for label, setting in _settings(view)]
    for attack in dict.fromkeys(view.everything["attack"]):
        if attack != view.attack and not is_control(attack):
            found.append(("attack", f"attack: {attack_title(attack)}", view.alternative(attack=attack)))
    for variant in dict.fromkeys(view.everything["variant"]):
        if variant != DEFAULT:
            rows = view.alternative(variant=variant)
            if len(rows) and not _equal(rows, view.recovery):
                found.append(("variant", f"variant {variant}", rows))
    return [Choice(*one, _attack_of(view, one[2])) for one in found if len(one[2])]


def _attack_of(view: View, rows: pd.DataFrame) -> str:
    """Return the title of the one attack that some rows are of."""
    return attack_title(rows["attack"].iloc[0]) if len(rows) else view.attack_title


def _settings(view: View) -> list[tuple[str, str]]:
    """Return (label, setting): the last epoch of each curve over epochs, or every setting."""
    title = view.attack_title
    if view.over_epochs:
        return [(f"{title} at {line.short}, epoch {line.places[line.last]}", line.last) for line in view.lines]
    return [(f"{title} at {setting}", setting) for setting in view.settings]


def _equal(rows: pd.DataFrame, other: pd.DataFrame) -> bool:
    keys = ["dataset", "model", "arm", "method", "seed"]
    one, two = (table.set_index(keys)[list(SAME)].sort_index() for table in (rows, other))
    return one.index.equals(two.index) and bool(np.allclose(one, two, atol=1e-9, equal_nan=True))


def _at(view: View, setting: str) -> pd.DataFrame:
    """Return the view's rows with accuracies after the attack at one setting, of all models that were attacked."""
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
                ("acc_oracle_attacked", "oracle_attacked", "none"),
                ("acc_control_attacked", "control_attacked", "none"),
            ):
                looks = view.curve(panel, stage, who, "V")
                here = looks[looks["setting"] == setting].drop_duplicates("seed").set_index("seed")
                for end, source in zip(ends, ("accuracy", "low", "high"), strict=True):
                    rows[f"{column}{end}"] = here[source].reindex(rows.index)
            found.append(rows)
    return pd.concat(found, ignore_index=True)

"""The part of the tables that one figure or the report shows: one variant, budget, look choice and scoring."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from rtt.errors import UserError
from rtt.figures.style import ARMS, FACTS, dataset_title
from rtt.stats.tables import ACCURACY_COLUMNS, RECOVERY_COLUMNS, read_table
from rtt.study import plugins
from rtt.study.names import DEFAULT

MAIN_BUDGET = 0.1


@dataclass(frozen=True)
class Panel:
    """One (dataset, model, arm), with its label in the terminal, its name in figures, its facts in sentences."""

    dataset: str
    model: str
    arm: str
    label: str
    name: str
    facts: str


@dataclass(eq=False)
class View:
    """Rows of recovery.csv and accuracy.csv for one variant, retain budget, look choice and scoring."""

    recovery: pd.DataFrame
    accuracy: pd.DataFrame
    budget: float
    look_choice: str
    probe: str
    everything: pd.DataFrame  # all of recovery.csv, of which `recovery` is the part that is shown

    @cached_property
    def panels(self) -> list[Panel]:
        """Panels in the tables' order, known arms first; models and datasets are named where an arm has several.

        A dataset with a title (`dataset_title`) is named too where the study has another one in another arm.
        """
        found = list(dict.fromkeys(self.recovery[["dataset", "model", "arm"]].itertuples(index=False, name=None)))
        found.sort(key=lambda key: list(ARMS).index(key[2]) if key[2] in ARMS else len(ARMS))
        panels = []
        for dataset, model, arm in found:
            datasets = {d for d, _, a in found if a == arm}
            models = {m for _, m, a in found if a == arm}
            title = dataset_title(dataset)
            named = len(datasets) > 1 or (title != dataset and len({d for d, _, _ in found}) > 1)
            extra = ([title] if named else []) + ([model] if len(models) > 1 else [])
            end = f" ({', '.join(extra)})" if extra else ""
            panels.append(
                Panel(dataset, model, arm, arm + end, ARMS.get(arm, arm) + end, FACTS.get(arm, f"arm {arm}") + end)
            )
        return panels

    @cached_property
    def methods(self) -> list[str]:
        """Methods in the order of their classes; one that is not installed here stands among the last, by name."""
        found = set(self.recovery["method"])
        return sorted(found, key=lambda name: plugins.place("methods", name))

    @cached_property
    def seeds(self) -> list[int]:
        """Seeds in ascending order."""
        return sorted(set(self.recovery["seed"]))

    def of(self, panel: Panel, method: str | None = None) -> pd.DataFrame:
        """Return the recovery rows of a panel (and method), by seed."""
        rows = self.recovery
        mask = (rows["dataset"] == panel.dataset) & (rows["model"] == panel.model) & (rows["arm"] == panel.arm)
        if method is not None:
            mask &= rows["method"] == method
        return rows[mask].sort_values("seed", kind="stable")

    def trajectories(self, panel: Panel, method: str, seed: int) -> list[pd.DataFrame]:
        """Return `step`, `forget`, `retain` (accuracies) along each unlearning run; step 0 is the model before it."""
        rows = self._of_panel(panel, seed)
        rows = rows[(rows["v_split"] == "all") & (rows["look_choice"] == "none") & rows["retain_budget"].isna()]
        before = rows[(rows["stage"] == "original") & (rows["method"] == "none")].assign(step=0)
        found = []
        for _, after in rows[(rows["stage"] == "unlearned") & (rows["method"] == method)].groupby("run", sort=False):
            both = pd.concat([before, after])
            sets = {name: both[both["set"] == name].set_index("step")["accuracy"] for name in ("V", "retain")}
            table = pd.DataFrame({"forget": sets["V"], "retain": sets["retain"]}).sort_index()
            found.append(table.rename_axis("step").reset_index())
        return found

    def curve(self, panel: Panel, stage: str, method: str, set_name: str) -> pd.DataFrame:
        """Return `seed`, `lr`, `epoch`, `n_questions`, `accuracy`, `low`, `high` of looks, pooled over the V splits."""
        rows = self._of_panel(panel, control=stage == "control_attacked")
        rows = rows[(rows["stage"] == stage) & (rows["v_split"] == "all") & (rows["look_choice"] == "none")]
        rows = rows[(rows["set"] == set_name) & (rows["method"] == method)]
        if stage == "unlearned_attacked":
            rows = rows[np.isclose(rows["retain_budget"], self.budget)]
        columns = ["seed", "lr", "epoch", "n_questions", "accuracy", "low", "high"]
        return rows[columns].sort_values(["lr", "epoch", "seed"], kind="stable")

    @cached_property
    def learning_rates(self) -> list[float]:
        """RTT's learning rates, ascending."""
        return sorted(set(self.accuracy["lr"].dropna()))

    @cached_property
    def looks(self) -> list[tuple[float, int]]:
        """RTT's looks (learning rate, epoch), ascending."""
        pairs = self.accuracy[["lr", "epoch"]].dropna().drop_duplicates()
        return sorted((float(lr), int(epoch)) for lr, epoch in pairs.itertuples(index=False))

    def alternative(
        self,
        look_choice: str | None = None,
        probe: str | None = None,
        budget: float | None = None,
        variant: str = DEFAULT,
    ) -> pd.DataFrame:
        """Return the rows of recovery.csv like `recovery`, with something chosen otherwise; maybe none."""
        rows, budget = self.everything, self.budget if budget is None else budget
        mask = np.isclose(rows["retain_budget"], budget) & (rows["variant"] == variant)
        mask &= (rows["look_choice"] == (look_choice or self.look_choice)) & (rows["probe"] == (probe or self.probe))
        return rows[mask]

    def _of_panel(self, panel: Panel, seed: int | None = None, control: bool = False) -> pd.DataFrame:
        rows = self.accuracy
        mask = (rows["arm"] == panel.arm) & (rows["model"] == panel.model)
        own = mask & (rows["dataset"] == panel.dataset)
        if control:
            # A control's rows carry its own dataset, which may be another one; the arm's own goes first (rtt.stats.tables).
            mask &= rows["stage"] == "control_attacked"
            own &= mask
            datasets = {p.dataset for p in self.panels if (p.arm, p.model) == (panel.arm, panel.model)}
            mask = own if own.any() else mask & ~rows["dataset"].isin(datasets)
        else:
            mask = own
        if seed is not None:
            mask &= rows["seed"] == seed
        return rows[mask]


def load(folder: str | Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read recovery.csv and accuracy.csv of a folder. Raises UserError on a missing file, column or row."""
    tables = []
    for name, columns in (("recovery", RECOVERY_COLUMNS), ("accuracy", ACCURACY_COLUMNS)):
        path = Path(folder) / f"{name}.csv"
        table = read_table(path)
        missing = [column for column in columns if column not in table]
        if missing:
            raise UserError(f"{path}: column {missing[0]!r} is missing; expected {', '.join(columns)}")
        if name == "recovery" and table.empty:
            raise UserError(f"{path}: no rows: nothing was unlearned, so there is nothing to show")
        for column in ("dataset", "arm", "model", "method", "variant"):
            table[column] = table[column].astype(str)
        numbers = columns[columns.index("n_questions") :]
        try:
            for column in ("retain_budget", "lr", *(c for c in numbers if c not in ("status", "cannot_tell"))):
                if column in table:
                    table[column] = pd.to_numeric(table[column])
        except ValueError as error:
            raise UserError(f"{path}: column {column!r} holds something that is no number: {error}") from None
        tables.append(table)
    return tables[0], tables[1]


def main_budget(recovery: pd.DataFrame) -> float:
    """Return the budget that figures show: 10 % where it was run, otherwise the smallest."""
    budgets = sorted(set(recovery["retain_budget"]))
    return next((budget for budget in budgets if np.isclose(budget, MAIN_BUDGET)), budgets[0])


def make_view(
    recovery: pd.DataFrame,
    accuracy: pd.DataFrame,
    look_choice: str = "nested",
    probe: str | None = None,
    budget: float | None = None,
    variant: str = DEFAULT,
) -> View:
    """Return the view of one variant, look choice, scoring and budget.

    `probe` None: the study's main one, which stands first in recovery.csv. `budget` None: `main_budget`.
    Raises UserError when the tables have no such rows.
    """
    budget = main_budget(recovery) if budget is None else budget
    probe = str(recovery["probe"].iloc[0]) if probe is None else probe
    mask = np.isclose(recovery["retain_budget"], budget) & (recovery["variant"] == variant)
    mask &= (recovery["look_choice"] == look_choice) & (recovery["probe"] == probe)
    if not mask.any():
        asked = {"look_choice": look_choice, "probe": probe, "retain_budget": f"{budget:g}", "variant": variant}
        found = "; ".join(f"{name} {', '.join(map(str, dict.fromkeys(recovery[name])))}" for name in asked)
        wanted = ", ".join(f"{name} {value}" for name, value in asked.items())
        raise UserError(f"recovery.csv: no rows with {wanted}; it has {found}")
    accuracy = accuracy[(accuracy["probe"] == probe) & (accuracy["variant"] == variant)]
    return View(recovery[mask], accuracy, budget, look_choice, probe, recovery)

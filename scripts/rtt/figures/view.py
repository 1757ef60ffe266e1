"""The part of the tables that figures show: one attack, variant, retain budget, look choice and probe."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from rtt.errors import UserError
from rtt.figures.style import ARMS, FACTS, dataset_title
from rtt.stats.tables import ACCURACY_COLUMNS, RECOVERY_COLUMNS, read_table
from rtt.study import plugins
from rtt.study.names import DEFAULT, read_setting, setting_text

MAIN_BUDGET = 0.1
WORDS = ("status", "cannot_tell", "counts", "control_learned")  # columns that hold no numbers
EPOCH = "epoch"  # the key of a setting along which an attack's looks form a curve


@dataclass(frozen=True)
class Panel:
    """One (dataset, model, arm), with its label in the terminal, its name in figures, its facts in sentences."""

    dataset: str
    model: str
    arm: str
    label: str
    name: str
    facts: str


@dataclass(frozen=True)
class Line:
    """The looks of an attack that one curve joins: settings that differ in their epoch alone.

    An attack whose settings have no epoch has a single line without a name, whose places are 0, 1, ...
    """

    name: str  # in a legend: `learning rate 0.001`
    short: str  # in a label: `0.001`
    places: dict[str, int]  # setting (as text) -> epoch

    @property
    def last(self) -> str:
        """The setting of the last epoch."""
        return max(self.places, key=self.places.__getitem__)


@dataclass(eq=False)
class View:
    """Rows of recovery.csv and accuracy.csv for one attack, variant, retain budget, look choice and probe."""

    recovery: pd.DataFrame
    accuracy: pd.DataFrame  # with the rows before any attack
    attack: str
    budget: float
    look_choice: str
    probe: str
    everything: pd.DataFrame  # all of recovery.csv, of which `recovery` is the part that is shown

    @cached_property
    def attack_title(self) -> str:
        """The attack as figures write it."""
        return attack_title(self.attack)

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
        """Return `seed`, `setting`, `n_questions`, `accuracy`, `low`, `high` of the looks, pooled over the V splits.

        Rows stand in the order of the attack's settings, then of the seeds; there are none where it was not run.
        """
        rows = self._of_panel(panel, control=stage == "control_attacked")
        rows = rows[(rows["stage"] == stage) & (rows["v_split"] == "all") & (rows["look_choice"] == "none")]
        rows = rows[(rows["set"] == set_name) & (rows["method"] == method)]
        if stage == "unlearned_attacked":
            rows = rows[np.isclose(rows["retain_budget"], self.budget)]
        rows = rows[["seed", "setting", "n_questions", "accuracy", "low", "high"]]
        places = rows["setting"].map({setting: i for i, setting in enumerate(self.settings)})
        return rows.assign(place=places).sort_values(["place", "seed"], kind="stable").drop(columns="place")

    @cached_property
    def settings(self) -> list[str]:
        """The attack's settings as text, in the order of the tables: gentlest first."""
        looks = self.accuracy[(self.accuracy["attack"] == self.attack) & (self.accuracy["look_choice"] == "none")]
        return list(dict.fromkeys(looks["setting"]))

    @cached_property
    def lines(self) -> list[Line]:
        """The attack's settings as curves over epochs, or one line of all of them where some have no epoch."""
        read = {text: read_setting(text) for text in self.settings}
        if not read or not all(isinstance(setting.get(EPOCH), int) for setting in read.values()):
            return [Line("", "", {text: i for i, text in enumerate(read)})] if read else []
        lines: dict[str, dict[str, int]] = {}
        for text, setting in read.items():
            rest = setting_text({key: value for key, value in setting.items() if key != EPOCH})
            lines.setdefault(rest, {})[text] = setting[EPOCH]
        return [Line(*_line_name(rest), places) for rest, places in lines.items()]

    @property
    def over_epochs(self) -> bool:
        """Whether the attack's looks form curves over epochs."""
        return any(line.name for line in self.lines)

    def line_of(self, setting: str) -> Line:
        """Return the line that a setting belongs to."""
        return next(line for line in self.lines if setting in line.places)

    def alternative(
        self,
        look_choice: str | None = None,
        probe: str | None = None,
        budget: float | None = None,
        variant: str = DEFAULT,
        attack: str | None = None,
    ) -> pd.DataFrame:
        """Return the rows of recovery.csv like `recovery`, with something chosen otherwise; maybe none."""
        rows, budget = self.everything, self.budget if budget is None else budget
        mask = np.isclose(rows["retain_budget"], budget) & (rows["variant"] == variant)
        mask &= rows["attack"] == (attack or self.attack)
        mask &= (rows["look_choice"] == (look_choice or self.look_choice)) & (rows["probe"] == (probe or self.probe))
        return rows[mask]

    def _of_panel(self, panel: Panel, seed: int | None = None, control: bool = False) -> pd.DataFrame:
        rows = self.accuracy
        mask = (rows["arm"] == panel.arm) & (rows["model"] == panel.model)
        own = mask & (rows["dataset"] == panel.dataset)
        if control:
            # A control's rows carry its own dataset, which may be another one; the arm's own goes first.
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
            raise UserError(f"{path}: no rows: nothing was unlearned and attacked, so there is nothing to show")
        for column in ("dataset", "arm", "model", "method", "attack", "variant"):
            table[column] = table[column].astype(str)
        numbers = columns[columns.index("n_questions") :]
        try:
            for column in ("retain_budget", *(c for c in numbers if c not in WORDS)):
                if column in table:
                    table[column] = pd.to_numeric(table[column])
        except ValueError as error:
            raise UserError(f"{path}: column {column!r} holds something that is not a number: {error}") from None
        tables.append(table)
    return tables[0], tables[1]


def attack_title(name: str) -> str:
    """Return an attack as figures write it; one that is not installed here is written by its name."""
    attack = plugins.attacks().get(name)
    return attack.title if attack else name


def _line_name(rest: str) -> tuple[str, str]:
    """Return the name and the short name of a curve over epochs, from the rest of its settings."""
    setting = read_setting(rest)
    if list(setting) == ["lr"] and isinstance(setting["lr"], int | float):
        return f"learning rate {setting['lr']:g}", f"{setting['lr']:g}"
    return rest or "all epochs", rest or "one training"


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
    attack: str | None = None,
) -> View:
    """Return the view of one attack, variant, look choice, probe and budget.

    `probe` and `attack` None: the study's main ones, which stand first in recovery.csv. `budget` None: `main_budget`.
    Raises UserError when the tables have no such rows.
    """
    budget = main_budget(recovery) if budget is None else budget
    probe = str(recovery["probe"].iloc[0]) if probe is None else probe
    attack = str(recovery["attack"].iloc[0]) if attack is None else attack
    mask = np.isclose(recovery["retain_budget"], budget)
    asked = {"attack": attack, "look_choice": look_choice, "probe": probe, "variant": variant}
    for name, value in asked.items():
        mask &= recovery[name] == value
    if not mask.any():
        asked["retain_budget"] = f"{budget:g}"
        found = "; ".join(f"{name} {', '.join(map(str, dict.fromkeys(recovery[name])))}" for name in asked)
        wanted = ", ".join(f"{name} {value}" for name, value in asked.items())
        raise UserError(f"recovery.csv: no rows with {wanted}; it has {found}")
    accuracy = accuracy[(accuracy["probe"] == probe) & (accuracy["variant"] == variant)]
    accuracy = accuracy[accuracy["attack"].isin((attack, "none"))]
    return View(recovery[mask], accuracy, attack, budget, look_choice, probe, recovery)

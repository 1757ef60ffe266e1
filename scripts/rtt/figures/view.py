"""The part of the tables that figures show: one attack, variant, retain budget, look choice and probe."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from rtt.errors import UserError
from rtt.figures.style import ARMS, FACTS, dataset_title
from rtt.stats.shown import MAIN_LOOK_CHOICE, is_control, main_attack, main_budget
from rtt.stats.tables import COST_COLUMNS, PROBES_COLUMNS, STRONGEST_COLUMNS
from rtt.study import plugins
from rtt.study.names import DEFAULT, NONE, STRONGEST, STRONGEST_ATTACK, read_setting, setting_text

WORDS = ("status", "cannot_tell", "counts", "attack_learned", "control_learned")  # columns that hold no numbers
STRONGEST_TITLE = "the strongest attack"
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
    probes: pd.DataFrame | None = None  # of probes.csv: the models before any attack, at this budget
    over_seeds: pd.DataFrame | None = None  # of seeds.csv: this attack, look choice and budget, each probe
    every_seeds: pd.DataFrame | None = None  # the same of every attack
    strongest: pd.DataFrame | None = None  # of strongest.csv: this budget and probe, unlearned models
    cost: pd.DataFrame | None = None  # of cost.csv: this attack, budget and probe

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

    def asked(self, panel: Panel, stage: str | None = None, method: str | None = None) -> pd.DataFrame:
        """Return the rows of probes.csv of a panel, by seed; none where there is no such table."""
        if self.probes is None:
            return pd.DataFrame(columns=PROBES_COLUMNS)
        rows = self.probes
        rows = rows[(rows["model"] == panel.model) & (rows["arm"] == panel.arm)]
        for name, value in (("stage", stage), ("method", method)):
            rows = rows if value is None else rows[rows[name] == value]
        own = rows["dataset"] == panel.dataset
        if stage == "control" and not own.any():  # its facts may be another dataset, but not another panel's
            datasets = {p.dataset for p in self.panels if (p.arm, p.model) == (panel.arm, panel.model)}
            own = ~rows["dataset"].isin(datasets)
        return rows[own].sort_values(["seed", "unlearning_repeat"], kind="stable")

    @cached_property
    def has_oracle(self) -> bool:
        """Whether an oracle was attacked."""
        return bool(self.recovery["acc_oracle_attacked"].notna().any())

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

        Where unlearning was repeated, accuracies and the ends of their intervals are means over the repeats.

        Rows stand in the order of the attack's settings, then of the seeds; there are none where it was not run.
        """
        rows = self._of_panel(panel, control=stage == "control_attacked")
        rows = rows[(rows["stage"] == stage) & (rows["v_split"] == "all") & (rows["look_choice"] == "none")]
        rows = rows[(rows["set"] == set_name) & (rows["method"] == method)]
        if stage == "unlearned_attacked":
            rows = rows[np.isclose(rows["retain_budget"], self.budget)]
        rows = rows[["seed", "setting", "n_questions", "accuracy", "low", "high"]]
        if rows.duplicated(["seed", "setting"]).any():  # repeats of unlearning: a seed's value is their mean
            rows = rows.groupby(["seed", "setting"], sort=False, as_index=False).mean()
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

    @cached_property
    def by_attack(self) -> dict[str, "View"]:
        """The view of each attack that has such results and is no control, this one first and the strongest last.

        One that does not ask by this probe, such as sampling, is shown by its own first one. Such a view has the looks
        of this attack in `accuracy`.
        """
        names = [self.attack, *dict.fromkeys(self.everything["attack"])]
        names = [name for name in dict.fromkeys(map(str, names)) if not is_control(name) or name == self.attack]
        names.sort(key=lambda name: name == STRONGEST_ATTACK)
        found = {}
        for name in names:
            seeds = self.every_seeds
            seeds = None if seeds is None else seeds[seeds["attack"] == name]
            every = self.everything[(self.everything["attack"] == name) & (self.everything["probe"] != STRONGEST)]
            for probe in dict.fromkeys([self.probe, *every["probe"]]):
                if len(rows := self.alternative(attack=name, probe=probe)):
                    break
            if len(rows):
                own = {"attack": name, "probe": probe, "recovery": rows, "over_seeds": seeds}
                one = replace(self, **own, strongest=None, cost=None)
                found[name] = self if name == self.attack else one
        return found

    def chosen(self, panel: Panel, method: str) -> pd.DataFrame:
        """Return the rows of strongest.csv of a method's model; none where there is no such table."""
        if self.strongest is None:
            return pd.DataFrame(columns=STRONGEST_COLUMNS)
        return _of(self.strongest, panel, method)

    def spent(self, panel: Panel, stage: str, method: str = NONE) -> pd.DataFrame:
        """Return the rows of cost.csv of a panel's model, by seed; none where there is no such table."""
        if self.cost is None:
            return pd.DataFrame(columns=COST_COLUMNS)
        rows = _of(self.cost, panel, method)
        return rows[rows["stage"] == stage].sort_values(["seed", "epoch"], kind="stable")

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


def _of(table: pd.DataFrame, panel: Panel, method: str) -> pd.DataFrame:
    """Return the rows of a panel's method."""
    mask = (table["dataset"] == panel.dataset) & (table["model"] == panel.model) & (table["arm"] == panel.arm)
    return table[mask & (table["method"] == method)]


def attack_title(name: str) -> str:
    """Return an attack as figures write it; one that is not installed here is written by its name."""
    attack = plugins.attacks().get(name)
    return attack.title if attack else STRONGEST_TITLE if name == STRONGEST_ATTACK else name


def _line_name(rest: str) -> tuple[str, str]:
    """Return the name and the short name of a curve over epochs, from the rest of its settings."""
    setting = read_setting(rest)
    if list(setting) == ["lr"] and isinstance(setting["lr"], int | float):
        return f"learning rate {setting['lr']:g}", f"{setting['lr']:g}"
    return rest or "all epochs", rest or "one training"


def make_view(
    recovery: pd.DataFrame,
    accuracy: pd.DataFrame,
    probes: pd.DataFrame | None = None,
    over_seeds: pd.DataFrame | None = None,
    strongest: pd.DataFrame | None = None,
    cost: pd.DataFrame | None = None,
    *,
    look_choice: str = MAIN_LOOK_CHOICE,
    probe: str | None = None,
    budget: float | None = None,
    variant: str = DEFAULT,
    attack: str | None = None,
) -> View:
    """Return the view of one attack, variant, look choice, probe and budget.

    `probe` None: the study's headline probe, which stands first in recovery.csv. `attack` None: `main_attack`. `budget`
    None: `main_budget`. Raises UserError when the tables have no such rows.
    """
    budget = main_budget(recovery) if budget is None else budget
    probe = str(recovery["probe"].iloc[0]) if probe is None else probe
    attack = main_attack(recovery) if attack is None else attack
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
    if probes is not None:
        budgets = probes["retain_budget"].astype(float)  # unknown but for unlearned models
        probes = probes[(probes["variant"] == variant) & (budgets.isna() | np.isclose(budgets, budget))]
    every_seeds = over_seeds
    if over_seeds is not None:
        here = np.isclose(over_seeds["retain_budget"], budget) & (over_seeds["variant"] == variant)
        every_seeds = over_seeds[here & (over_seeds["look_choice"] == look_choice)]
        over_seeds = every_seeds[every_seeds["attack"] == attack]
    if strongest is not None:
        strongest = strongest[(strongest["variant"] == variant) & (strongest["probe"] == probe)]
        strongest = strongest[np.isclose(strongest["retain_budget"].astype(float), budget)]  # of unlearned models alone
    if cost is not None:
        budgets = cost["retain_budget"].astype(float)
        cost = cost[(cost["variant"] == variant) & (cost["attack"] == attack) & (cost["probe"] == probe)]
        cost = cost[(budgets.isna() | np.isclose(budgets, budget)).loc[cost.index]]
    return View(
        recovery[mask],
        accuracy,
        attack,
        budget,
        look_choice,
        probe,
        recovery,
        probes,
        over_seeds,
        every_seeds,
        strongest,
        cost,
    )

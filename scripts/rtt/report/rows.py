"""The rows of the report's tables of recovery: plain records, computed once from recovery.csv."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Generic, TypeVar

import numpy as np
import pandas as pd

from rtt.figures.phrases import mean_text, statuses, upper
from rtt.figures.style import PROBES, magnitude, number, percent, value_of
from rtt.figures.view import Panel, View, attack_title
from rtt.stats import criterion
from rtt.study.names import DEFAULT

Row = TypeVar("Row")


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval, printed as `text`. `clear`: the interval is narrow enough to tell the value."""

    value: float
    low: float
    high: float
    clear: bool
    text: str

    def __str__(self) -> str:
        """Return the value and its interval: `.83 [.77, .88]`."""
        return self.text


@dataclass(frozen=True)
class Result:
    """One row of recovery.csv, its columns under their own names (docs/reference/tables.md).

    attack_learned, control_learned: None where there is no point or no control, or no T. holds: the criterion
    (`rtt.stats.criterion.judged`); None: it cannot be judged.
    """

    panel: Panel
    attack: str
    method: str
    seed: int
    retain_budget: float
    look_choice: str
    probe: str
    n_questions: int
    n_groups: int
    n_runs: int
    acc_before: float
    acc_unlearned: Estimate
    acc_attacked: Estimate
    acc_original_attacked: Estimate
    acc_oracle_attacked: Estimate
    acc_control_attacked: Estimate
    t_acc_attacked: float
    t_acc_original_attacked: float
    t_acc_control_attacked: float
    t_acc_oracle_attacked: float
    attack_learned: bool | None
    control_learned: bool | None
    counts: bool
    retain_before: float
    retain_unlearned: float
    perplexity_before: float
    perplexity_unlearned: float
    floor: float
    recovery: Estimate
    recovery_corrected: Estimate
    recovery_difference: Estimate
    status: str
    holds: bool | None

    @property
    def known(self) -> bool:
        """Say whether it has a chosen point and its original knew the facts."""
        return self.status not in criterion.NEVER

    @property
    def attack_title(self) -> str:
        """Return the attack's name in sentences."""
        return attack_title(self.attack)

    @property
    def status_text(self) -> str:
        """Return the status in words."""
        return self.status.replace("_", " ")

    @property
    def counts_text(self) -> str:
        """Say whether it counts as unlearned."""
        return "yes" if self.counts else "no"

    @property
    def verdict(self) -> str:
        """Say whether it counts, and its status where that is not ok: `yes`, `no: not unlearned`."""
        return self.counts_text + ("" if self.status == "ok" else f": {self.status_text}")

    @property
    def perplexities(self) -> str:
        """Return the perplexity of held-out text before and after unlearning."""
        return f"{magnitude(self.perplexity_before)} → {magnitude(self.perplexity_unlearned)}"

    @property
    def n_text(self) -> str:
        """Return the number of questions, and of groups where those are fewer."""
        return f"{self.n_questions}" + (f" ({self.n_groups} groups)" if self.n_groups < self.n_questions else "")


ESTIMATES = tuple(name for name, kind in Result.__annotations__.items() if kind is Estimate)
NUMBERS = tuple(name for name, kind in Result.__annotations__.items() if kind is float)


@dataclass(frozen=True)
class Group(Generic[Row]):
    """Rows of a table that are about the same facts, whose name is their heading."""

    facts: str
    rows: list[Row]


def grouped(rows: Iterable[Row]) -> list[Group[Row]]:
    """Return rows that have a `panel` as one group per panel, in the order in which they come."""
    found: dict[Panel, list[Row]] = {}
    for row in rows:
        found.setdefault(row.panel, []).append(row)
    return [Group(upper(panel.name), own) for panel, own in found.items()]


def probe_name(probe: str) -> str:
    """Return a probe's name in sentences."""
    return PROBES.get(probe, probe)


def results(view: View) -> list[Result]:
    """Return every row of the variant `default`, by panel, method and seed, then in the table's order."""
    view = replace(view, recovery=view.everything[view.everything["variant"] == DEFAULT])
    found = []
    for panel in view.panels:
        for method in view.methods:
            rows = view.of(panel, method)
            found += map(partial(_result, panel), rows.to_dict("records"), criterion.judged(rows))
    return found


def _result(panel: Panel, row: dict, holds: bool | None) -> Result:
    texts = {name: str(row[name]) for name in ("attack", "method", "look_choice", "probe", "status")}
    whole = {name: int(row[name]) for name in ("seed", "n_questions", "n_groups", "n_runs")}
    learned = ("attack_learned", "control_learned")
    truths = {name: None if pd.isna(row[name]) else bool(row[name]) for name in learned}
    truths |= {"counts": bool(row["counts"]), "holds": holds}
    numbers = {name: float(row[name]) for name in NUMBERS}
    estimates = {name: estimate(row, name) for name in ESTIMATES}
    return Result(panel=panel, **texts, **whole, **numbers, **estimates, **truths)


def estimate(row: dict, column: str) -> Estimate:
    """Return a column of recovery.csv with its interval."""
    clear = column not in str(row["cannot_tell"]).split(";")
    ends = (float(row[f"{column}{end}"]) for end in ("", "_low", "_high"))
    return Estimate(*ends, clear, value_of(row, column))


def alike(found: Iterable[Result], view: View) -> list[Result]:
    """Return the results of every attack with the view's budget, look choice and probe."""
    wanted = (view.budget, view.look_choice, view.probe)
    return [one for one in found if (one.retain_budget, one.look_choice, one.probe) == wanted]


def shown(found: Iterable[Result], view: View) -> list[Result]:
    """Return the results that the figures and the claim are about: those of the view's attack among `alike`."""
    return [one for one in alike(found, view) if one.attack == view.attack]


@dataclass(frozen=True)
class RecoveryTable:
    """All results of one attack (by its title), probe and look choice.

    unclear: some interval is too wide to tell its value.
    """

    attack: str
    probe: str
    look_choice: str
    unclear: bool
    groups: list[Group[Result]]


def recovery_tables(found: Sequence[Result], view: View, attack: str) -> list[RecoveryTable]:
    """Return an attack's table of each probe and look choice, the view's own first; each holds all budgets, seeds."""
    probes = list(dict.fromkeys([view.probe, *view.everything["probe"]]))
    own = [one for one in found if one.attack == attack]
    pairs = sorted(
        {(one.probe, one.look_choice) for one in own},
        key=lambda pair: (probes.index(pair[0]), pair[1] != view.look_choice, pair[1]),
    )
    tables = []
    for probe, look_choice in pairs:
        rows = [one for one in own if (one.probe, one.look_choice) == (probe, look_choice)]
        unclear = any(not getattr(one, name).clear for one in rows for name in ESTIMATES)
        tables.append(RecoveryTable(attack_title(attack), probe_name(probe), look_choice, unclear, grouped(rows)))
    return tables


@dataclass(frozen=True)
class Cell:
    """One method on one panel's facts, as texts: with one seed a value and its interval, else the mean and range.

    label: what the row's table varies (a probe, a budget, a variant). detail: what it says of that beside the results.
    """

    panel: Panel
    method: str
    label: str
    detail: str
    status: str
    counts: str
    acc_unlearned: str
    acc_attacked: str
    acc_original_attacked: str
    acc_oracle_attacked: str
    acc_control_attacked: str
    recovery: str
    recovery_corrected: str
    retain_before: str
    retain_unlearned: str
    t_acc_attacked: str


def cells(
    view: View, rows: pd.DataFrame, label: str, detail: Callable[[Panel, str], str] = lambda panel, method: ""
) -> list[Cell]:
    """Return some rows of recovery.csv as one cell per panel and method."""
    found = []
    for panel in view.panels:
        mine = (rows["dataset"] == panel.dataset) & (rows["model"] == panel.model) & (rows["arm"] == panel.arm)
        for method in view.methods:
            own = rows[mine & (rows["method"] == method)]
            if own.empty:
                continue
            columns = [name for name in ESTIMATES if name != "recovery_difference"]
            texts = {column: mean_text(own, column) if own[column].notna().any() else "–" for column in columns}
            means = ("retain_before", "retain_unlearned", "t_acc_attacked")
            texts |= {column: number(own[column].mean()) for column in means}
            status = statuses(own).strip(" ()") or "ok"
            n, of = int(own["counts"].sum()), len(own)
            counts = f"{n} of {of}" if of > 1 else "yes" if n else "no"
            found.append(Cell(panel, method, label, detail(panel, method), status, counts, **texts))
    return found


def in_order(view: View, found: Iterable[Cell]) -> list[Group[Cell]]:
    """Return cells in groups, by panel and method, otherwise in the order in which they come."""
    place = {panel: index for index, panel in enumerate(view.panels)}
    return grouped(sorted(found, key=lambda cell: (place[cell.panel], view.methods.index(cell.method))))


def by_budget(view: View) -> list[Group[Cell]]:
    """Return the cells of each retain budget, ascending, with the steps of the points chosen; [] with one budget."""
    budgets = sorted(set(view.everything["retain_budget"]))
    if len(budgets) < 2:
        return []
    found = []
    for budget in budgets:
        rows = view.alternative(budget=budget)
        found += cells(view, rows, percent(budget), lambda *who, budget=budget: _steps(view, *who, budget))
    return in_order(view, found)


def _steps(view: View, panel: Panel, method: str, budget: float) -> str:
    rows = view.accuracy
    mask = (rows["dataset"] == panel.dataset) & (rows["model"] == panel.model) & (rows["arm"] == panel.arm)
    mask &= (rows["stage"] == "unlearned") & (rows["method"] == method) & (rows["v_split"] == "all")
    mask &= (rows["set"] == "V") & np.isclose(rows["retain_budget"].astype(float), budget)
    return ", ".join(f"{step:g}" for step in rows[mask].sort_values("seed")["step"].astype(float)) or "–"


def by_probe(view: View) -> list[Group[Cell]]:
    """Return the cells of each probe, the main one first; [] with one probe."""
    probes = list(dict.fromkeys([view.probe, *view.everything["probe"]]))
    if len(probes) < 2:
        return []
    return in_order(view, [c for p in probes for c in cells(view, view.alternative(probe=p), probe_name(p))])


def control_datasets(view: View) -> dict[Panel, list[str]]:
    """Return the datasets with whose facts each panel's control was attacked."""
    rows = view.accuracy[view.accuracy["stage"] == "control_attacked"]
    found = {}
    for panel in view.panels:
        own = rows[(rows["arm"] == panel.arm) & (rows["model"] == panel.model)]
        found[panel] = [str(dataset) for dataset in dict.fromkeys(own["dataset"])]
    return found

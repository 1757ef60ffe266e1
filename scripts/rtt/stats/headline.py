"""headline.csv: one row per facts and method with what a study reports first, and the verdict in one word."""

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from rtt.stats import criterion
from rtt.stats.seed_intervals import accuracy_interval
from rtt.stats.seeds import SETS
from rtt.stats.shown import MAIN_LOOK_CHOICE, main_attack, main_budget
from rtt.stats.verdicts import AboveControl, Seed, Verdict, above_control, of_seed, over_seeds
from rtt.study import plugins

CELL = ["dataset", "arm", "model", "method"]
KEYS = [*CELL, "attack", "retain_budget", "look_choice", "probe"]
ENDS = ("", "_low", "_high")
ACCURACIES = (
    *("acc_before", "acc_unlearned", "acc_attacked", "acc_original_attacked", "acc_oracle_attacked"),
    "acc_control_attacked",
)
RATES = ("recovery_corrected", "recovery_corrected_likelihood")
T_ACCURACIES = ("t_acc_attacked", "t_acc_original_attacked", "t_acc_control_attacked")
LIKELIHOOD = "likelihood"  # the probe of `recovery_corrected_likelihood`, whichever one the headline is by
COLUMNS = [
    *KEYS,
    *("set", "n_cells", "n_counting", "n_seeds", "seeds", "n_questions", "floor"),
    *(f"{name}{end}" for name in (*ACCURACIES, *RATES, "above_control") for end in ENDS),
    *(*T_ACCURACIES, "attack_learned", "control_learned"),
    *("counts", "holds", "status", "verdict", "why"),
]
ALL = "all"  # of column `set`: every seed, where none is known and has a point
Ends = tuple[float, float, float]


def headline_table(recovery: pd.DataFrame, probes: pd.DataFrame, seeds: pd.DataFrame) -> pd.DataFrame:
    """Return headline.csv, from recovery.csv, probes.csv and seeds.csv of the variant `default`.

    It has the attack, retain budget and look choice that a study reports first (`rtt.stats.shown`), and the headline
    probe, the first of recovery.csv.
    """
    if recovery.empty:
        return pd.DataFrame(columns=COLUMNS)
    attack, budget = main_attack(recovery), main_budget(recovery)
    mask = (recovery["attack"] == attack) & np.isclose(recovery["retain_budget"], budget)
    shown = recovery[mask & (recovery["look_choice"] == MAIN_LOOK_CHOICE)]
    return cells(shown, recovery["probe"].iloc[0], probes, seeds)


def cells(shown: pd.DataFrame, probe: str, probes: pd.DataFrame, seeds: pd.DataFrame) -> pd.DataFrame:
    """Return a row per dataset, model, arm and method, by one probe; `shown` has the rows of one attack, retain budget
    and look choice by all probes.

    With one seed a row is that seed's, with its intervals over questions. With several it has means over the seeds that
    count, where at least 8 of 10 do, else over all known ones with a point (`set`), and intervals over seeds.
    """
    found = [_row(cell, shown, probes, seeds) for _, cell in shown[shown["probe"] == probe].groupby(CELL, sort=False)]
    return pd.DataFrame(found, columns=COLUMNS)


def _row(cell: pd.DataFrame, shown: pd.DataFrame, probes: pd.DataFrame, seeds: pd.DataFrame) -> dict:
    """Return the row of one cell, from its rows of recovery.csv, one per seed."""
    cell = cell.sort_values("seed", kind="stable")
    name, own = _set_of(cell)
    judged = _judged(cell)
    estimates = dict(_estimates(cell, own, name, shown, probes, seeds))
    difference = above_control(judged)
    verdict = _verdict(judged, estimates["recovery_corrected"])
    holds = judged[0].holds if len(cell) == 1 else _holds(difference, criterion.counts(cell))
    estimates["above_control"] = (difference.mean, difference.low, difference.high)
    return {
        **{key: cell[key].iloc[0] for key in KEYS},
        **dict(set=name, n_cells=len(cell), n_counting=int(cell["counts"].sum()), n_seeds=len(own)),
        **dict(seeds=";".join(map(str, own["seed"])), n_questions=int(own["n_questions"].min())),
        "floor": float(own["floor"].mean()),
        **{f"{key}{end}": value for key, ends in estimates.items() for end, value in zip(ENDS, ends, strict=True)},
        **{key: float(own[key].min()) for key in T_ACCURACIES},
        **{key: _all_learned(own[key]) for key in ("attack_learned", "control_learned")},
        **dict(counts=criterion.counts(cell), holds=holds, status=_statuses(cell)),
        **dict(verdict=verdict.key, why=verdict.why),
    }


def verdict(cell: pd.DataFrame, rate: Ends) -> Verdict:
    """Return the verdict of one cell, from its rows of recovery.csv, one per seed.

    rate: the floor-corrected recovery over seeds with its interval, as `_rate` has it; one seed's verdict needs none.
    """
    return _verdict(_judged(cell), rate)


def _judged(cell: pd.DataFrame) -> list[Seed]:
    title = getattr(plugins.attacks().get(cell["attack"].iloc[0]), "title", cell["attack"].iloc[0])
    rows = zip(cell.to_dict("records"), criterion.judged(cell), strict=True)
    return [Seed.of(row, holds, title) for row, holds in rows]


def _verdict(judged: list[Seed], rate: Ends) -> Verdict:
    return of_seed(judged[0]) if len(judged) == 1 else over_seeds(judged, rate)


def _set_of(cell: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    """Return which seeds a cell's means are over, and their rows."""
    if criterion.counts(cell):
        return "counting", cell[cell["counts"]]
    known = cell[[SETS["known"](row) for row in cell.to_dict("records")]]
    return ("known", known) if len(known) else (ALL, cell)


def _estimates(
    cell: pd.DataFrame, own: pd.DataFrame, name: str, shown: pd.DataFrame, probes: pd.DataFrame, seeds: pd.DataFrame
) -> Iterator[tuple[str, Ends]]:
    """Yield each estimate of a cell with its value and interval."""
    alone = len(cell) == 1
    for quantity in ACCURACIES:
        if alone and quantity == "acc_before":
            yield quantity, (float(cell[quantity].iloc[0]), *_before(cell, probes))
        else:
            yield quantity, _ends(cell, quantity) if alone else _mean(own, quantity)
    for quantity, probe in zip(RATES, (cell["probe"].iloc[0], LIKELIHOOD), strict=True):
        if alone:
            rows = _alike(cell, shown)
            yield quantity, _ends(rows[rows["probe"] == probe], RATES[0])
        else:
            yield quantity, _rate(cell, seeds, name, probe)


def _ends(rows: pd.DataFrame, column: str) -> Ends:
    """Return a column's value and interval in the first of some rows; NaN where there are none."""
    return tuple(float(rows[f"{column}{end}"].iloc[0]) if len(rows) else math.nan for end in ENDS)


def _mean(own: pd.DataFrame, quantity: str) -> Ends:
    """Return the mean of an accuracy over seeds with the interval that seeds.csv has; NaN where no seed has a value."""
    values = own[quantity].dropna().to_numpy(float)
    if not len(values):
        return (math.nan,) * 3
    return tuple(map(float, accuracy_interval(values, own["n_groups"].mean())))


def _alike(cell: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a table that are about a cell's facts and method."""
    mask = np.logical_and.reduce([table[key] == cell[key].iloc[0] for key in CELL])
    return table[mask]


def _rate(cell: pd.DataFrame, seeds: pd.DataFrame, name: str, probe: str) -> Ends:
    """Return the floor-corrected recovery over a set of seeds, as seeds.csv has it; NaN where it has none."""
    rows = _alike(cell, seeds)
    wanted = {"set": name, "quantity": RATES[0], "probe": probe}
    wanted |= {key: cell[key].iloc[0] for key in ("attack", "retain_budget", "look_choice")}
    rows = rows[np.logical_and.reduce([rows[key] == value for key, value in wanted.items()])]
    return tuple(float(rows[key].iloc[0]) if len(rows) else math.nan for key in ("mean", "low", "high"))


def _before(cell: pd.DataFrame, probes: pd.DataFrame) -> tuple[float, float]:
    """Return the interval of an original's accuracy as probes.csv has it; NaN where it was asked other questions."""
    shared = ("dataset", "arm", "model", "seed", "probe", "n_questions")
    wanted = {"stage": "original"} | {key: cell[key].iloc[0] for key in shared}
    rows = probes[np.logical_and.reduce([probes[key] == value for key, value in wanted.items()])]
    return tuple(float(rows[key].iloc[0]) if len(rows) else math.nan for key in ("low", "high"))


def _holds(difference: AboveControl, counts: bool) -> bool | None:
    """Say whether the criterion holds over seeds; None where it cannot be judged."""
    if not counts or not difference.enough:
        return None
    return True if difference.low > 0 else None if difference.lower_bound else False


def _all_learned(column: pd.Series) -> bool | None:
    """Say whether T was learned in every seed; None where nothing says so."""
    known = column.dropna()
    return bool(known.astype(bool).all()) if len(known) else None


def _statuses(cell: pd.DataFrame) -> str:
    """Return the statuses of a cell's seeds, each once, the most frequent first."""
    return ";".join(cell["status"].value_counts(sort=True).index)

"""Summarise a study over its seeds: values, intervals and variance components of each cell (`tables/seeds.csv`)."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from rtt.stats.answers import ANSWER_KEY, Answers
from rtt.stats.components import Components, Repeats, base_of, crossed, mean, nested, person, seed_mean
from rtt.stats.intervals import t_interval
from rtt.stats.recovery import RATES
from rtt.stats.seed_intervals import accuracy_interval, ratio_interval
from rtt.study.names import POOLED

KEYS = [name for name in ANSWER_KEY if name != "seed"]
ACCURACIES = {"acc_unlearned": "unlearned", "acc_attacked": "attacked", "acc_original_attacked": "original"}
QUANTITIES = (*RATES, "recovery_difference", *ACCURACIES)
VARIANCES = ("var_base", "var_unlearning", "var_rtt", "var_original", "var_v_split", "var_person")
COLUMNS = [
    *(*KEYS, "set", "quantity", "n_cells", "n_counting", "n_seeds", "seeds", "per_seed"),
    *("mean", "low", "high", "df", "sd_seed", *VARIANCES, "claim"),
]
WITHOUT_POINT = ("none_within_budget", "not_known")  # statuses that keep a cell out of both sets
WITHOUT_RATE = ("original_not_learned",)
CLAIMED, CLAIM_SEEDS = 0.8, 3  # the share of seeds that must count, and how many values a claim needs
ONE_SEED = "these weights"  # what one seed tells about


@dataclass
class SeedRuns:
    """One seed's runs of a cell: accuracies on V as fractions, each `[unlearning run][attack run]`.

    The original is not unlearned, so `original` has one run of unlearning; `unlearned` has one attack in each. `tables`
    has the same by V split, (runs, V splits), of runs that share no training; empty where runs.csv has no splits.
    """

    seed: int
    floor: float
    original_floor: float
    attacked: Repeats
    original: Repeats
    unlearned: Repeats
    groups: int
    status: str
    tables: dict[str, np.ndarray] = field(default_factory=dict)


def seed_table(
    runs: pd.DataFrame, recovery: pd.DataFrame, answers: Mapping[tuple, Answers] | None = None
) -> pd.DataFrame:
    """Return seeds.csv: a row per cell over seeds (`KEYS`), set and quantity, in the order of `recovery`.

    `runs` and `recovery` are the tables of these names; `answers` is by `ANSWER_KEY`, and only the person component
    needs it. A cell that `runs` lacks has its values from `recovery`, and no components of runs. Numbers are fractions
    and their variances, NaN where there are none; `per_seed` is a list, and `seeds` names its seeds.
    """
    held = _runs_by_cell(runs)
    cells: dict[tuple, list[dict]] = {}
    for row in recovery.to_dict("records"):
        cells.setdefault(tuple(row[name] for name in KEYS), []).append(row)
    rows = []
    for key, members in cells.items():
        members.sort(key=lambda row: row["seed"])
        sets = {name: [row for row in members if inside(row)] for name, inside in SETS.items()}
        sound = not any(map(control_failed, sets["counting"]))
        found: list[dict] = []
        for name, chosen in sets.items():
            if name == "known" and len(chosen) == len(sets["counting"]):
                found += [{**row, "set": name} for row in found]  # the same seeds
                continue
            seeds = [_seed_runs(row, held.get((*key, row["seed"]), [])) for row in chosen]
            persons = _persons(key, seeds, answers or {})
            for quantity in QUANTITIES:
                row = dict(zip(KEYS, key, strict=True)) | {"set": name, "quantity": quantity}
                row |= {"n_cells": len(members), "n_counting": len(sets["counting"])} | summary(seeds, quantity)
                between = persons.get(quantity, math.nan)
                row["var_person"] = between if math.isnan(between) else max(between, 0.0)
                row["claim"] = claim(row) if sound else "no"  # no claim rests on a control that did not learn T
                found.append(row)
        rows += found
    return pd.DataFrame(rows, columns=COLUMNS)


def counts(row: Mapping) -> bool:
    """Return whether a row of recovery.csv counts: known, with a point, and unlearned by every probe."""
    return str(row["counts"]).lower() == "true"


def control_failed(row: Mapping) -> bool:
    """Return whether the attack on a row's control did not learn T; not so without a control, or without T."""
    return str(row.get("control_learned")).lower() == "false"


def has_point(row: Mapping) -> bool:
    """Return whether a row of recovery.csv is of a known cell with a point within the budget."""
    return row["status"] not in WITHOUT_POINT and not math.isnan(row["acc_attacked"])


SETS = {"counting": counts, "known": has_point}


def claim(row: Mapping) -> str:
    """Say what a row of seeds.csv supports: `yes` a statement over seeds, `no` none; one seed, `these weights`.

    It asks nothing of the controls, which are no part of such a row.
    """
    if row["n_cells"] == 1 or row["n_seeds"] == 1:
        return ONE_SEED
    enough = row["n_counting"] / row["n_cells"] >= CLAIMED and row["n_seeds"] >= CLAIM_SEEDS
    return "yes" if enough and not math.isnan(row["low"]) else "no"


def summary(seeds: Sequence[SeedRuns], quantity: str) -> dict:
    """Return the columns from `n_seeds` on, without var_person and claim, of one quantity over these seeds.

    A rate leaves out seeds without one (`WITHOUT_RATE`). Interval and degrees of freedom are NaN below two seeds.
    """
    if quantity in RATES:
        seeds = [one for one in seeds if one.status not in WITHOUT_RATE]
    if not seeds:
        return _row(seeds, [], (math.nan,) * 3, math.nan, Components(), math.nan)
    if quantity in RATES:
        return _rate(seeds, with_floor=quantity == "recovery_corrected")
    if quantity == "recovery_difference":
        values = [_minus(one.attacked, one.unlearned) for one in seeds]
        tables = [one.tables["attacked"] - one.tables["unlearned"] for one in seeds if one.tables]
    else:
        values = [getattr(one, ACCURACIES[quantity]) for one in seeds]
        # Of a target that has one run, the rows of all repeats are the same: nothing repeats there.
        tables = [
            one.tables[ACCURACIES[quantity]] for one, own in zip(seeds, values, strict=True) if _several(one, own)
        ]
    per_seed = [seed_mean(runs) for runs in values]
    if quantity in ACCURACIES:
        ends = tuple(map(float, accuracy_interval(per_seed, mean([one.groups for one in seeds]))))
    else:
        ends = t_interval(per_seed)
    return _row(seeds, per_seed, ends, _sd(per_seed), nested(values), crossed(tables))


def _rate(seeds: Sequence[SeedRuns], with_floor: bool) -> dict:
    """Summarise r / o, or (r - f) / (o - f), as a ratio of means over seeds."""
    above = [seed_mean(one.attacked) - with_floor * one.floor for one in seeds]
    below = [seed_mean(one.original) - with_floor * one.original_floor for one in seeds]
    per_seed = [
        a / b if b > 0 and not _undefined(one) else math.nan for one, a, b in zip(seeds, above, below, strict=True)
    ]
    value, low, high, linear = ratio_interval(np.array(above), np.array(below))
    if math.isnan(value) or (math.isnan(low) and any(map(_undefined, seeds))):
        return _row(seeds, per_seed, (math.nan,) * 3, math.nan, Components(), math.nan)
    rate, scale = float(value), mean(below)
    # To first order a run moves the rate by (its r - rate its o) / mean(o - f): the two parts have runs of their own.
    tops, bottoms = nested([one.attacked for one in seeds]), nested([one.original for one in seeds])
    within = [
        (tops.within(one.attacked) + rate**2 * Components(attack=bottoms.attack).within(one.original)) / scale**2
        for one in seeds
    ]
    original = rate**2 * bottoms.attack / scale**2
    parts = Components(base_of(linear.tolist(), within), tops.unlearning / scale**2, tops.attack / scale**2 + original)
    tables = [(one.tables["attacked"] - rate * one.tables["original"]) / scale for one in seeds if one.tables]
    return _row(
        seeds, per_seed, (rate, float(low), float(high)), _sd(linear.tolist()), parts, crossed(tables), original
    )


def _undefined(one: SeedRuns) -> bool:
    return one.status == "undefined"


def _row(
    seeds, per_seed: list[float], ends: tuple, sd: float, parts: Components, v_split: float, original: float = math.nan
) -> dict:
    """Put a summary into columns. A variance below 0 is written as 0: there is no sign of that component."""
    variances = (parts.base, parts.unlearning, parts.attack, original, v_split)
    several = len(per_seed) > 1 and not math.isnan(ends[1])
    return {
        **dict(n_seeds=len(seeds), seeds=";".join(str(one.seed) for one in seeds), per_seed=per_seed),
        **dict(zip(("mean", "low", "high"), ends, strict=True)),
        **dict(df=len(per_seed) - 1 if several else math.nan, sd_seed=sd),
        **dict(zip(VARIANCES, (x if math.isnan(x) else max(x, 0.0) for x in variances), strict=False)),
    }


def _sd(values: list[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def _several(one: SeedRuns, runs: Repeats) -> bool:
    return bool(one.tables) and sum(map(len, runs)) > 1


def _minus(attacked: Repeats, unlearned: Repeats) -> Repeats:
    return [[value - before[0] for value in runs] for runs, before in zip(attacked, unlearned, strict=True)]


def _persons(key: tuple, seeds: Sequence[SeedRuns], answers: Mapping[tuple, Answers]) -> dict[str, float]:
    at = ANSWER_KEY.index("seed")
    found = [answers.get((*key[:at], one.seed, *key[at:])) for one in seeds]
    held = [one for one in found if one is not None]
    return {
        "acc_attacked": person((one.attacked, one.groups) for one in held),
        "acc_original_attacked": person((one.original, one.groups) for one in held),
    }


def _runs_by_cell(runs: pd.DataFrame) -> dict[tuple, list[dict]]:
    found: dict[tuple, list[dict]] = {}
    for row in runs.to_dict("records"):
        found.setdefault((*(row[name] for name in KEYS), row["seed"]), []).append(row)
    return found


def _seed_runs(cell: Mapping, runs: Sequence[Mapping]) -> SeedRuns:
    """Sort one seed's rows of runs.csv by repeat; without any, the row of recovery.csv is one run."""
    pooled = {
        (row["unlearning_repeat"], row["attack_repeat"]): row
        for row in runs
        if row["v_split"] == POOLED and not math.isnan(row["acc_attacked"])
    } or {(0, 0): cell}
    repeats, attacks = (sorted(set(numbers)) for numbers in zip(*pooled, strict=True))

    def values(column: str, pairs: Iterable[tuple]) -> list[float]:
        return [pooled[pair][column] for pair in pairs if pair in pooled]

    return SeedRuns(
        seed=cell["seed"],
        floor=cell["floor"],
        original_floor=cell["original_floor"],
        attacked=[values("acc_attacked", ((u, k) for k in attacks)) for u in repeats],
        original=[[mean(values("acc_original_attacked", ((u, k) for u in repeats))) for k in attacks]],
        unlearned=[[mean(values("acc_unlearned", ((u, k) for k in attacks)))] for u in repeats],
        groups=int(cell["n_groups"]),
        status=cell["status"],
        tables=_tables(runs, repeats, attacks),
    )


def _tables(runs: Sequence[Mapping], repeats: Sequence[int], attacks: Sequence[int]) -> dict[str, np.ndarray]:
    """Return {target: (runs, V splits)}, of runs of which no two share an unlearning or an order of the attack.

    Two attacks of one unlearned model share what that model makes of a split, which would pass for the split's own.
    Where one of the two is not repeated, it is the same in all of them.
    """
    splits = list(dict.fromkeys(row["v_split"] for row in runs if row["v_split"] != POOLED))
    if not splits:
        return {}
    count = min(len(repeats), len(attacks)) if min(len(repeats), len(attacks)) > 1 else max(len(repeats), len(attacks))
    places = {(repeats[i % len(repeats)], attacks[i % len(attacks)]): i for i in range(count)}
    tables = {name: np.full((count, len(splits)), math.nan) for name in ACCURACIES.values()}
    for row in runs:
        at = places.get((row["unlearning_repeat"], row["attack_repeat"]))
        if at is not None and row["v_split"] != POOLED:
            for column, name in ACCURACIES.items():
                tables[name][at, splits.index(row["v_split"])] = row[column]
    return tables

"""probes.csv: what every probe says of every model before any attack, and whether it is at its floor."""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import pandas as pd

from rtt.data.facts import LETTERS
from rtt.scoring.read import PointScores
from rtt.stats.assemble import ArmScores, in_order
from rtt.stats.criteria import DEFAULT_CRITERIA, Criteria
from rtt.stats.floors import mean
from rtt.stats.intervals import interval, upper
from rtt.stats.reported import before
from rtt.study.names import DEFAULT, NONE, PROBES

COLUMNS = [
    *("dataset", "arm", "model", "variant", "seed", "stage", "method", "retain_budget", "unlearning_repeat", "probe"),
    *("n_questions", "n_groups", "accuracy", "low", "high", "floor", "margin", "upper_95", "upper_99"),
    *("at_floor", "below_floor", "said", "entropy", "mass", "rotations", "all_rotations"),
]
STAGES = ("original", "unlearned", "oracle", "control")


@lru_cache(maxsize=4096)
def measure(points: PointScores, at: int, probe: str, margin: float) -> dict[str, Any]:
    """Return what one probe says of one model on all its forget questions: the columns from n_questions on.

    Limits are those of `rtt.stats.intervals`, robust to groups. How letters are said stands beside `letter`, and
    rotations of the choices beside `letter_permuted`.
    """
    found, groups = before(points, at, probe), points.forget.groups
    correct, floor = found.correct, mean(found.guess)
    low, high = interval(correct, groups)
    limits = {f"upper_{percent}": upper(correct, groups, percent / 100) for percent in (95, 99)}
    row = {
        **dict(n_questions=len(correct), n_groups=len(set(groups)), accuracy=float(correct.mean())),
        **dict(low=low, high=high, floor=floor, margin=margin, said="", **limits),
        # 1e-9: sums of floats must not decide.
        "at_floor": limits["upper_95"] <= floor + margin + 1e-9,
        "below_floor": limits["upper_99"] < floor - 1e-9,
    }
    use = points.letters
    if probe == "letter":
        row["said"] = ";".join(f"{LETTERS[i]}:{n}" for i, n in enumerate(use.said[at]))
        row |= {name: float(getattr(use, name)[at]) for name in ("entropy", "mass")}
    elif probe == "letter_permuted":
        row |= {name: float(getattr(use, name)[at]) for name in ("rotations", "all_rotations")}
    return row


def by_probe(points: PointScores, at: int, criteria: Criteria) -> dict[str, dict[str, Any]]:
    """Return {probe: `measure`} of every probe that was asked."""
    return {probe: measure(points, at, probe, criteria.margin) for probe in PROBES if probe in points.forget_correct}


def probes_table(
    arms: Sequence[ArmScores], variant: str = DEFAULT, criteria: Criteria = DEFAULT_CRITERIA
) -> pd.DataFrame:
    """Return probes.csv: a row per model before any attack, and probe, points as chosen for each retain budget.

    A control or oracle has the dataset that it was asked about, and stands once where two datasets of an arm share it.
    """
    rows, shown = [], set()
    for arm in arms:
        for head, points, at in _models(arm):
            for probe, values in by_probe(points, at, criteria).items():
                key = (*head.values(), probe)
                if key not in shown:
                    shown.add(key)
                    rows.append({**head, "variant": variant, "probe": probe, **values})
    table = pd.DataFrame(rows, columns=COLUMNS)
    table["retain_budget"] = table["retain_budget"].astype(float)
    return table


def _models(arm: ArmScores) -> Iterator[tuple[dict[str, Any], PointScores, int]]:
    """Yield each model of an arm before any attack: its keys, its evaluation, and its point there."""
    dataset, name, model, seed = arm.key
    key = {"dataset": dataset, "arm": name, "model": model, "seed": seed}
    alone = {"method": NONE, "retain_budget": math.nan, "unlearning_repeat": 0}
    yield {**key, "stage": "original", **alone}, arm.original, 0
    for method, budget, repeat in in_order(arm.chosen):
        if (point := arm.point(method, budget, repeat)) is not None:
            own = {"method": method, "retain_budget": budget, "unlearning_repeat": repeat}
            yield {**key, "stage": "unlearned", **own}, *point
    for stage, points in (("oracle", arm.oracle), ("control", arm.control)):
        if points is not None:
            where = {"dataset": points.labels.dataset, "model": points.labels.model}
            yield {**key, **where, "stage": stage, **alone}, points, 0

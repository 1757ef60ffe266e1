"""Compare arms and methods by differences paired by seed or by question, and attacked models with their control."""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from rtt.stats.answers import ANSWER_KEY, Answers
from rtt.stats.components import mean
from rtt.stats.intervals import t_interval, t_quantile
from rtt.stats.seed_intervals import ratio_interval
from rtt.stats.seeds import SETS

# Phase and data, phase and format, data and format: every pair of arms, the least alike last
ARM_PAIRS = (
    ("pretrained", "taught_same_data"),
    ("pretrained", "taught_shuffled"),
    ("pretrained", "taught"),
    ("taught_same_data", "taught_shuffled"),
    ("taught_shuffled", "taught"),
    ("taught_same_data", "taught"),
)
QUANTITIES = ("acc_attacked", "recovery_corrected")
BEFORE_TOLERANCE = 0.03
UNLEARNED_TOLERANCE = 0.05
CELL = ["attack", "retain_budget", "look_choice", "probe"]
Side = list[Mapping]  # one row of recovery.csv per seed
Pairs = Sequence[tuple[Mapping, Mapping]]
COLUMNS = [
    *("arm_a", "arm_b", "dataset_a", "dataset_b", "method", *CELL, "set", "quantity"),
    *("n_cells", "n_counting", "n_seeds", "per_seed", "mean", "low", "high", "over", "comparable", "why"),
]


def contrasts(
    recovery: pd.DataFrame,
    answers: Mapping[tuple, Answers] | None = None,
    before: float = BEFORE_TOLERANCE,
    unlearned: float = UNLEARNED_TOLERANCE,
) -> pd.DataFrame:
    """Return differences a - b from the recovery table, for each attack and each set of `rtt.stats.seeds.SETS`.

    The arms of `ARM_PAIRS` are compared for each method, on the same dataset, or, where each arm has one dataset, on
    those two. Methods are compared within each arm and dataset: there `arm_a` = `arm_b`, and `method` reads `GD - RMU`.
    A seed takes part where both sides are in the set; of `n_cells` seeds that have both sides at all, `n_counting`
    count on both. `over` says what the interval is over: `seeds`, from two on; for methods of one seed `questions`,
    paired one by one with `answers` (by `ANSWER_KEY`), about these weights alone; empty where there is none. A pair is
    comparable where the means over its seeds of acc_before differ by at most `before` and those of acc_unlearned by at
    most `unlearned`, and where the attack learned T on both sides; otherwise `why` says what differs. Values are
    numbers or NaN; `per_seed` is the list of differences by seed.
    """
    rows: list[tuple] = []
    cells: dict[tuple, dict[tuple, Side]] = {}
    for row in recovery.to_dict("records"):
        groups = cells.setdefault(tuple(row[name] for name in CELL), {})
        groups.setdefault((row["arm"], row["dataset"], row["method"]), []).append(row)
    for cell, groups in cells.items():
        datasets: dict[str, list[str]] = {}
        for arm, dataset, _ in groups:
            if dataset not in datasets.setdefault(arm, []):
                datasets[arm].append(dataset)
        methods = list(dict.fromkeys(method for _, _, method in groups))
        for arms in ARM_PAIRS:
            for pair in _dataset_pairs(*(datasets.get(arm, []) for arm in arms)):
                for method in methods:
                    sides = [groups.get((arm, dataset, method)) for arm, dataset in zip(arms, pair, strict=True)]
                    if all(side is not None for side in sides):
                        rows += _pair((*arms, *pair, method, *cell), *sides, arms, before, unlearned, {})
        for arm, own in datasets.items():
            for dataset in own:
                for names in combinations(methods, 2):
                    sides = [groups.get((arm, dataset, method)) for method in names]
                    if all(side is not None for side in sides):
                        key = (arm, arm, dataset, dataset, " - ".join(names), *cell)
                        rows += _pair(key, *sides, names, before, unlearned, answers or {})
    return pd.DataFrame(rows, columns=COLUMNS)


def _dataset_pairs(a: list[str], b: list[str]) -> list[tuple[str, str]]:
    """Return the pairs of datasets on which two arms are compared: each with itself, or the only ones of both."""
    if len(a) == len(b) == 1:
        return [(a[0], b[0])]
    return [(dataset, dataset) for dataset in a if dataset in b]


def _pair(key: tuple, side_a: Side, side_b: Side, names: tuple, before, unlearned, answers: Mapping) -> list[tuple]:
    """Return the rows of one pair, a row per set and quantity."""
    for name, side in zip(names, (side_a, side_b), strict=True):
        if len({row["seed"] for row in side}) < len(side):
            several = sorted({row["model"] for row in side})
            why = f"not comparable: {name} stands for {len(several)} models: {', '.join(several)}"
            return [
                (*key, which, quantity, 0, 0, 0, [], *t_interval([]), "", "no", why)
                for which in SETS
                for quantity in QUANTITIES
            ]
    others = {row["seed"]: row for row in side_b}
    paired = [(row, others[row["seed"]]) for row in sorted(side_a, key=_seed) if row["seed"] in others]
    rows: list[tuple] = []
    sets = {which: [pair for pair in paired if all(map(inside, pair))] for which, inside in SETS.items()}
    for which, within in sets.items():
        if which == "known" and len(within) == len(sets["counting"]):  # the same pairs
            at = len(key)
            rows += [(*row[:at], which, *row[at + 1 :]) for row in rows]
            continue
        for quantity in QUANTITIES:
            usable = [pair for pair in within if not any(math.isnan(row[quantity]) for row in pair)]
            differences = [a[quantity] - b[quantity] for a, b in usable]
            ends, over = _over_seeds(usable, quantity, differences), "seeds"
            if len(usable) == 1:
                sides = [answers.get(tuple(row[name] for name in ANSWER_KEY)) for row in usable[0]]
                ends, over = by_question(*sides, quantity) if all(sides) else ends, "questions"
            over = "" if math.isnan(ends[1]) else over
            why = _why(usable, paired, names, before, unlearned)
            n = len(paired), len(sets["counting"]), len(usable)
            rows.append((*key, which, quantity, *n, differences, *ends, over, "no" if why else "yes", why))
    return rows


def _seed(row: Mapping) -> int:
    return row["seed"]


def _over_seeds(usable: Pairs, quantity: str, differences: list[float]) -> tuple[float, float, float]:
    """Return (mean, low, high): a t interval over seeds, for rates of the difference of two ratios of means.

    A ratio's `linear` values have its value as their mean, and to first order its spread; those of two ratios are
    paired by seed.
    """
    if quantity != "recovery_corrected" or len(usable) < 2:
        return t_interval(differences)
    sides = []
    for side in zip(*usable, strict=True):
        above = np.array([row["acc_attacked"] - row["floor"] for row in side])
        below = np.array([row["acc_original_attacked"] - row["original_floor"] for row in side])
        sides.append(ratio_interval(above, below)[3])
    return t_interval(sides[0] - sides[1])


def by_question(a: Answers, b: Answers, quantity: str) -> tuple[float, float, float]:
    """Return (mean, low, high) of a - b over the questions that both answered, paired, with groups kept together.

    Of G groups, the sums of what is left of each question's difference are taken as independent: their squares times
    G / (G - 1) over n squared are the variance, and G - 1 the degrees of freedom of t. `recovery_corrected` is
    ((r of a - its floor) - (r of b - its floor)) / (o - its floor), linearised, with the original's answers on the same
    questions. NaN ends below two groups.
    """
    share = a.attacked - b.attacked
    value = float(share.mean())
    if quantity == "recovery_corrected":
        scale = float(a.original.mean()) - a.original_floor
        share = share - (a.floor - b.floor)
        value = float(share.mean()) / scale
        share = value + (share - value * (a.original - a.original_floor)) / scale
    sums = np.bincount(np.unique(a.groups, return_inverse=True)[1], share - share.mean())
    if len(sums) < 2:
        return value, math.nan, math.nan
    variance = len(sums) / (len(sums) - 1) * float((sums**2).sum()) / len(share) ** 2
    half = t_quantile(0.975, len(sums) - 1) * math.sqrt(variance)
    return value, value - half, value + half


def _why(usable: Pairs, paired: Pairs, names: tuple, before: float, unlearned: float) -> str:
    sides = list(zip(*(usable or paired), strict=True)) or [(), ()]
    if not usable:
        found = [
            f"{name} {', '.join(sorted({row['status'] for row in side}))}"
            for name, side in zip(names, sides, strict=True)
        ]
        return "not comparable: no seed with both values" + (f" (status: {'; '.join(found)})" if paired else "")
    reasons = []
    for column, text, limit in (
        ("acc_before", "starting accuracy", before),
        ("acc_unlearned", "unlearned accuracy", unlearned),
    ):
        a, b = (mean([row[column] for row in side]) for side in sides)
        # Six decimals as in the tables, so that .98 against .95 is a difference of .03 and no more.
        if round(abs(a - b), 6) > limit:
            reasons.append(f"{text} {_short(a)} vs {_short(b)}")
    for name, side in zip(names, sides, strict=True):
        if failed := sum(str(row.get("attack_learned")).lower() == "false" for row in side):
            reasons.append(f"a lower bound for {name}, as the attack did not learn T in {failed} of {len(side)} seeds")
    return "not comparable: " + ", ".join(reasons) if reasons else ""


def _short(value: float) -> str:
    """Write a number with two or three decimals and without a leading zero: `.98`, `.975`, `1.00`."""
    text = f"{value:.3f}"
    return (text[:-1] if text.endswith("0") else text).removeprefix("0")


def exceeds_control(recovery: pd.DataFrame) -> list[bool | None]:
    """Apply the criterion to each row of a recovery table: the interval of acc_attacked lies above the control's.

    None where one of the two intervals is missing: without an admissible point, or without a control.
    """
    ends = zip(recovery["acc_attacked_low"], recovery["acc_control_attacked_high"], strict=True)
    return [None if math.isnan(low) or math.isnan(high) else bool(low > high) for low, high in ends]

"""Compare arms and methods by differences paired by seed, and attacked models with their control."""

import math
from itertools import combinations

import pandas as pd

from rtt.stats.intervals import t_interval

ARM_PAIRS = (("pretrained", "taught_same_data"), ("pretrained", "taught"), ("taught_same_data", "taught"))
QUANTITIES = ("acc_attacked", "recovery_corrected")
BEFORE_TOLERANCE = 0.03
UNLEARNED_TOLERANCE = 0.05
COLUMNS = [
    "arm_a",
    "arm_b",
    "dataset_a",
    "dataset_b",
    "method",
    "attack",
    "retain_budget",
    "look_choice",
    "probe",
    "quantity",
    "n_seeds",
    "per_seed",
    "mean",
    "low",
    "high",
    "comparable",
    "why",
]


def contrasts(
    recovery: pd.DataFrame, before: float = BEFORE_TOLERANCE, unlearned: float = UNLEARNED_TOLERANCE
) -> pd.DataFrame:
    """Return differences a - b over seeds from the recovery table, for each attack.

    The arms of `ARM_PAIRS` are compared for each method, on the same dataset, or, where each arm has one dataset, on
    those two. Methods are compared within each arm and dataset: there `arm_a` = `arm_b`, and `method` reads `GD - RMU`.
    A pair is comparable where the means over the paired seeds of acc_before differ by at most `before` and those of
    acc_unlearned by at most `unlearned`; otherwise `why` says what differs. Values are numbers or NaN; `per_seed` is
    the list of differences by seed.
    """
    rows = []
    keys = ["attack", "retain_budget", "look_choice", "probe"]
    for cell, table in recovery.groupby(keys, sort=False):
        groups = dict(list(table.groupby(["arm", "dataset", "method"], sort=False)))
        datasets: dict[str, list[str]] = {}
        for arm, dataset, _ in groups:
            if dataset not in datasets.setdefault(arm, []):
                datasets[arm].append(dataset)
        methods = list(dict.fromkeys(table["method"]))
        for arms in ARM_PAIRS:
            for pair in _dataset_pairs(*(datasets.get(arm, []) for arm in arms)):
                for method in methods:
                    sides = [groups.get((arm, dataset, method)) for arm, dataset in zip(arms, pair, strict=True)]
                    if all(side is not None for side in sides):
                        rows += _pair((*arms, *pair, method, *cell), *sides, arms, before, unlearned)
        for arm, own in datasets.items():
            for dataset in own:
                for names in combinations(methods, 2):
                    sides = [groups.get((arm, dataset, method)) for method in names]
                    if all(side is not None for side in sides):
                        key = (arm, arm, dataset, dataset, " - ".join(names), *cell)
                        rows += _pair(key, *sides, names, before, unlearned)
    return pd.DataFrame(rows, columns=COLUMNS)


def _dataset_pairs(a: list[str], b: list[str]) -> list[tuple[str, str]]:
    """Return the pairs of datasets on which two arms are compared: each with itself, or the only ones of both."""
    if len(a) == len(b) == 1:
        return [(a[0], b[0])]
    return [(dataset, dataset) for dataset in a if dataset in b]


def _pair(key: tuple, side_a: pd.DataFrame, side_b: pd.DataFrame, names: tuple, before: float, unlearned: float):
    for name, side in zip(names, (side_a, side_b), strict=True):
        if side["seed"].duplicated().any():
            several = sorted(set(side["model"]))
            why = f"not comparable: {name} stands for {len(several)} models: {', '.join(several)}"
            return [(*key, quantity, 0, [], *t_interval([]), "no", why) for quantity in QUANTITIES]
    paired = side_a.merge(side_b, on="seed", suffixes=("_a", "_b")).sort_values("seed")
    rows = []
    for quantity in QUANTITIES:
        usable = paired[paired[f"{quantity}_a"].notna() & paired[f"{quantity}_b"].notna()]
        differences = (usable[f"{quantity}_a"] - usable[f"{quantity}_b"]).tolist()
        why = _why(usable, paired, names, before, unlearned)
        rows.append(
            (*key, quantity, len(differences), differences, *t_interval(differences), "no" if why else "yes", why)
        )
    return rows


def _why(usable: pd.DataFrame, paired: pd.DataFrame, names: tuple, before: float, unlearned: float) -> str:
    if usable.empty:
        found = [
            f"{name} {', '.join(sorted(set(paired['status' + end])))}"
            for name, end in zip(names, ("_a", "_b"), strict=True)
        ]
        return "not comparable: no seed with both values" + (f" (status: {'; '.join(found)})" if len(paired) else "")
    reasons = []
    for column, text, limit in (
        ("acc_before", "starting accuracy", before),
        ("acc_unlearned", "unlearned accuracy", unlearned),
    ):
        a, b = usable[f"{column}_a"].mean(), usable[f"{column}_b"].mean()
        # Six decimals as in the tables, so that .98 against .95 is a difference of .03 and no more.
        if round(abs(a - b), 6) > limit:
            reasons.append(f"{text} {_short(a)} vs {_short(b)}")
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

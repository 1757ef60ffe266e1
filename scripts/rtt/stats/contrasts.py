"""Differences between arms and between methods, paired per seed; and the criterion on the control."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from rtt.stats.intervals import t_interval

ARM_PAIRS = (("pretrained", "taught_same_data"), ("pretrained", "taught"), ("taught_same_data", "taught"))
QUANTITIES = ("acc_rtt", "recovery_corrected")
BEFORE_TOLERANCE = 0.03
UNLEARNED_TOLERANCE = 0.05
COLUMNS = [
    "arm_a",
    "arm_b",
    "method",
    "retain_budget",
    "selection",
    "scoring",
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
    """Return differences a - b over seeds from the recovery table.

    Arm pairs (`ARM_PAIRS`) for each method; and, for each arm, method pairs: there `arm_a` = `arm_b` and `method` reads
    `GD - RMU`. A pair is comparable where the means over the paired seeds of acc_before differ by at most `before` and
    those of acc_unlearned by at most `unlearned`; otherwise `why` says what differs. Values are numbers or NaN,
    `per_seed` a list of the differences by seed.
    """
    rows = []
    keys = ["retain_budget", "selection", "scoring"]
    for cell, table in recovery.groupby(keys, sort=False):
        arms, methods = set(table["arm"]), list(dict.fromkeys(table["method"]))
        for arm_a, arm_b in ARM_PAIRS:
            if not {arm_a, arm_b} <= arms:
                continue
            for method in methods:
                side_a = table[(table["arm"] == arm_a) & (table["method"] == method)]
                side_b = table[(table["arm"] == arm_b) & (table["method"] == method)]
                if len(side_a) and len(side_b):
                    rows += _pair((arm_a, arm_b, method, *cell), side_a, side_b, (arm_a, arm_b), before, unlearned)
        for arm in dict.fromkeys(table["arm"]):
            for method_a, method_b in combinations(methods, 2):
                side_a = table[(table["arm"] == arm) & (table["method"] == method_a)]
                side_b = table[(table["arm"] == arm) & (table["method"] == method_b)]
                if len(side_a) and len(side_b):
                    key = (arm, arm, f"{method_a} - {method_b}", *cell)
                    rows += _pair(key, side_a, side_b, (method_a, method_b), before, unlearned)
    return pd.DataFrame(rows, columns=COLUMNS)


def _pair(key: tuple, side_a: pd.DataFrame, side_b: pd.DataFrame, names: tuple, before: float, unlearned: float):
    for name, side in zip(names, (side_a, side_b), strict=True):
        if side["seed"].duplicated().any():
            several = sorted({f"{row.dataset} ({row.model})" for row in side.itertuples()})
            why = f"not comparable: {name} stands for {len(several)} datasets or models: {', '.join(several)}"
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
    """Three decimals at most, two at least, no leading zero: `.98`, `.975`, `1.00`."""
    text = f"{value:.3f}"
    return (text[:-1] if text.endswith("0") else text).removeprefix("0")


@dataclass(frozen=True)
class Criterion:
    """One method against the control: does the Wilson low end of acc_rtt lie above the control's high end?"""

    method: str
    low: float  # NaN: no admissible point
    control_high: float  # NaN: no control
    holds: bool


def criterion(
    recovery: pd.DataFrame,
    seed: int = 0,
    arm: str = "pretrained",
    retain_budget: float = 0.1,
    selection: str = "nested",
    scoring: str = "letter",
) -> list[Criterion]:
    """Judge each method of one arm and seed against the control, from the recovery table (in its row order).

    `recovery` as read by `rtt.tables.read_table`. It does not hold without an admissible point or without a control.
    """
    rows = recovery[
        (recovery["seed"] == seed)
        & (recovery["arm"] == arm)
        & np.isclose(recovery["retain_budget"].astype(float), retain_budget)
        & (recovery["selection"] == selection)
        & (recovery["scoring"] == scoring)
    ]
    return [
        Criterion(
            row.method, row.acc_rtt_low, row.acc_control_rtt_high, bool(row.acc_rtt_low > row.acc_control_rtt_high)
        )
        for row in rows.itertuples()
    ]

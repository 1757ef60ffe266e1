"""Which attack, retain budget and seed a study reports first, in its figures, its report and its tables."""

from collections.abc import Collection

import numpy as np
import pandas as pd

from rtt.study import plugins
from rtt.study.names import STRONGEST_ATTACK

MAIN_BUDGET = 0.1
MAIN_SEED = 0
MAIN_LOOK_CHOICE = "nested"


def main_budget(recovery: pd.DataFrame) -> float:
    """Return the budget that is reported: 10 % where it was run, otherwise the smallest."""
    budgets = sorted(set(recovery["retain_budget"]))
    return next((budget for budget in budgets if np.isclose(budget, MAIN_BUDGET)), budgets[0])


def is_control(attack: str) -> bool:
    """Say whether an attack is a control, such as RTT on wrong answers: what it brings back was never hidden."""
    return bool(getattr(plugins.attacks().get(attack), "control", False))


def main_attack(recovery: pd.DataFrame) -> str:
    """Return the attack that is reported: the first in recovery.csv that is neither a control nor the strongest."""
    attacks = [str(name) for name in dict.fromkeys(recovery["attack"])]
    return next((name for name in attacks if not is_control(name) and name != STRONGEST_ATTACK), attacks[0])


def main_seed(seeds: Collection[int]) -> int:
    """Return seed 0 where it was run, otherwise the lowest."""
    return MAIN_SEED if MAIN_SEED in seeds else min(seeds)

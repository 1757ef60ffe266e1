"""Say before a run how wide its intervals will be: over the questions of one seed, and over seeds."""

import math
from collections.abc import Iterable
from pathlib import Path

from rtt.errors import UserError
from rtt.stats.intervals import Z95, wilson
from rtt.stats.spread import MOST_SEEDS, TARGET, Spread, assumed
from rtt.study.schema import Study

FLOOR = 0.25  # of four choices
ASSUMED_SOURCE = "assumed, from seeds of the demo (docs/plan.md); --spread takes those of an earlier study's seeds.csv"


def over_seeds(study: Study, spread: Path | None = None) -> dict:
    """Return the expected half-width over the study's seeds, with its repeats, and how many seeds `TARGET` takes.

    A row per spread: of the arms that the study has, from `spread` (an earlier study's seeds.csv) or assumed.
    """
    arms = list(dict.fromkeys(study.arms or [task.arm for task in study.tasks or []]))
    unlearning, attack = study.repeats.unlearning, study.repeats.attack
    found = assumed(arms) if spread is None else measured(spread, arms)
    return {
        **dict(seeds=len(study.seeds), unlearning=unlearning, attack=attack, target=TARGET, most=MOST_SEEDS),
        "source": ASSUMED_SOURCE if spread is None else str(spread),
        "rows": [
            {
                **dict(arms=list(one.arms), base=one.base, unlearning=one.unlearning, attack=one.attack),
                "half_width": one.half_width(len(study.seeds), unlearning, attack),
                "needed": one.needed(TARGET, unlearning, attack),
            }
            for one in found
        ],
    }


def measured(path: Path, arms: Iterable[str]) -> list[Spread]:
    """Return the spreads of these arms in a seeds.csv: the mean variances over methods, at the first probe and attack.

    Cells that count go first; of an arm without any over two seeds, all known ones are taken. Raises UserError where
    the file has no such row of any of the arms.
    """
    from rtt.stats.tables import read_table  # pandas, half a second

    table = read_table(path)
    needed = {"arm", "set", "quantity", "attack", "look_choice", "probe", "n_seeds", "var_base"}
    if missing := sorted(needed - set(table.columns)):
        raise UserError(f"--spread: {path} has no column {missing[0]}; expected tables/seeds.csv of an earlier study")
    table = table[(table["quantity"] == "recovery_corrected") & (table["look_choice"] == "nested")]
    table = table[(table["n_seeds"] >= 2) & table["var_base"].notna()]
    spreads = []
    for arm in arms:
        own = table[table["arm"] == arm]
        own = own[own["set"] == "counting"] if (own["set"] == "counting").any() else own
        if len(own):
            own = own[(own["attack"] == own["attack"].iloc[0]) & (own["probe"] == own["probe"].iloc[0])]
            names = ("var_base", "var_unlearning", "var_rtt", "var_original")
            parts = [own[name].fillna(0).mean() if name in own else 0.0 for name in names]
            spreads.append(Spread((arm,), *(math.sqrt(part) for part in parts)))
    if not spreads:
        raise UserError(
            f"--spread: {path} has no corrected recovery over two seeds or more of {', '.join(arms)}; expected "
            "tables/seeds.csv of a study with these arms and several seeds"
        )
    return spreads


def half_widths(n: int, original: float, attacked: float, floor: float = FLOOR) -> dict[str, float]:
    """Return the half-widths of 95 % intervals on n V questions.

    They are for an accuracy of .5 and of .3 (Wilson) and, by the delta method, for recovery r / o, corrected recovery
    (r - f) / (o - f) and the difference r - u at u = floor. The answers of the checkpoints count as independent; in
    fact they are correlated, and `rtt.stats` pairs them, so that most real intervals are narrower.
    """

    def accuracy(p: float) -> float:
        low, high = wilson(p * n, n)
        return float(high - low) / 2

    def ratio(f: float) -> float:
        r, o = attacked - f, original - f
        return Z95 * math.sqrt(variance(attacked) / o**2 + r**2 * variance(original) / o**4)

    def variance(p: float) -> float:
        return p * (1 - p) / n

    return {
        "accuracy_at_0.5": accuracy(0.5),
        "accuracy_at_0.3": accuracy(0.3),
        "recovery": ratio(0.0),
        "recovery_corrected": ratio(floor),
        "recovery_difference": Z95 * math.sqrt(variance(attacked) + variance(floor)),
    }

"""strongest.csv: which attack and setting the strongest attack is, of each model and on each half of its questions."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rtt.stats.assemble import ArmScores, in_order
from rtt.stats.strongest import Suite, chosen, held, repeats_of
from rtt.study.names import DEFAULT, NONE, PROBES, STRONGEST, STRONGEST_ATTACK, setting_text

COLUMNS = [
    *("dataset", "arm", "model", "method", "variant", "seed", "unlearning_repeat", "attack_repeat", "retain_budget"),
    *("stage", "probe", "half", "attack", "setting", "chosen_probe", "own_repeat", "n_questions"),
    *("deciding", "reporting"),
]
HALVES = ("first", "second")


def strongest_table(arms: Sequence[ArmScores], variant: str = DEFAULT, probes: Sequence[str] = PROBES) -> pd.DataFrame:
    """Return strongest.csv of arms that have the strongest attack (`rtt.stats.strongest.with_strongest`).

    It has a row per model, probe, run and half, which is the half that is reported. `probes` gives their order.
    """
    rows = [
        row | {"variant": variant} for arm in arms for head, suite in _suites(arm) for row in _rows(head, suite, probes)
    ]
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.astype({"retain_budget": float, "deciding": float, "reporting": float})


def _suites(arm: ArmScores) -> Iterator[tuple[dict[str, Any], Suite]]:
    """Yield each model of an arm that the suite attacked, with the columns that name it."""
    dataset, name, model, seed = arm.key
    key = {"dataset": dataset, "arm": name, "model": model, "seed": seed}
    alone = {"method": NONE, "unlearning_repeat": 0, "retain_budget": np.nan}
    if STRONGEST_ATTACK in arm.original_attacked:
        yield {**key, **alone, "stage": "original"}, arm.original_attacked[STRONGEST_ATTACK]
    for method, budget, repeat in in_order(arm.chosen):
        if (suite := arm.attacks.get((STRONGEST_ATTACK, method, budget, repeat))) is not None:
            own = {"method": method, "unlearning_repeat": repeat, "retain_budget": budget}
            yield {**key, **own, "stage": "unlearned"}, suite
    for stage, others in (("oracle", arm.oracles), ("control", arm.controls)):
        if STRONGEST_ATTACK in others:
            yield {**key, **alone, "stage": stage}, others[STRONGEST_ATTACK]


def _rows(head: dict[str, Any], suite: Suite, probes: Sequence[str]) -> Iterator[dict[str, Any]]:
    shown = [probe for probe in probes if probe in held(suite)]
    for probe in [*shown, *([STRONGEST] if len(shown) > 1 else [])]:
        asked = suite.asked(probe)
        for run, choice in enumerate(chosen(suite, probe)):
            for half, one in zip(HALVES, choice, strict=True):
                attack, names = asked[one.attack]
                at, look = divmod(one.look, len(attack.settings))
                yield {
                    **head,
                    **dict(attack_repeat=run, probe=probe, half=half, n_questions=int(one.reports.sum())),
                    **dict(attack=attack.attack, setting=setting_text(attack.settings[look]), chosen_probe=names[at]),
                    "own_repeat": min(run, repeats_of(attack) - 1),
                    **dict(deciding=one.deciding, reporting=one.reporting),
                }

"""What a verdict's study found, read from its tables: what the models knew, and what each attack brought back."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from rtt.errors import UserError
from rtt.figures.tables import typed
from rtt.figures.view import attack_title
from rtt.stats.tables import read_table


def tables(results: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return recovery.csv and probes.csv of a study with one unlearned model. Raises UserError where one is missing."""
    found = []
    for name in ("recovery", "probes"):
        path = results / "tables" / f"{name}.csv"
        found.append(typed(path, read_table(path)))
    if found[0].empty:
        raise UserError(f"{results / 'tables' / 'recovery.csv'}: no rows: nothing was attacked; start the study again")
    return found[0], found[1]


def known(value: Any) -> float | None:
    """Return a cell as JSON holds it: None where it is empty."""
    return None if value is None or (isinstance(value, float) and math.isnan(value)) else float(value)


def rounded(value: Any, digits: int = 4) -> float | None:
    """Return a number with a few digits, None where it is unknown."""
    found = known(value)
    return None if found is None else round(found, digits)


def before(probes: pd.DataFrame, stage: str) -> list[dict[str, Any]]:
    """Return a row per probe of one model before any attack, in the order of the table; [] where it was not asked."""
    rows = probes[probes["stage"] == stage]
    return [
        {
            "probe": row["probe"], "n": int(row["n_questions"]),
            **{key: rounded(row[key]) for key in ("accuracy", "low", "high", "floor", "margin", "upper_95")},
            "at_floor": _truth(row["at_floor"]), "below_floor": _truth(row["below_floor"]),
        }
        for row in rows.to_dict("records")
    ]  # fmt: skip


def _truth(value: Any) -> bool | None:
    return None if value is None or value != value else bool(value)


def attacks(recovery: pd.DataFrame, probe: str) -> list[dict[str, Any]]:
    """Return a row per attack by one probe, with the look choice `nested`, in the order of the table."""
    rows = recovery[(recovery["look_choice"] == "nested") & (recovery["probe"] == probe)]
    return [_attack(row) for row in rows.to_dict("records")]


def _attack(row: Mapping[str, Any]) -> dict[str, Any]:
    ends = ("", "_low", "_high")
    return {
        "attack": row["attack"],
        "title": attack_title(row["attack"]),
        "recovery": [rounded(row[f"recovery_corrected{end}"]) for end in ends],
        "unlearned": [rounded(row[f"acc_attacked{end}"]) for end in ends],
        "original": [rounded(row[f"acc_original_attacked{end}"]) for end in ends],
        "control": [rounded(row[f"acc_control_attacked{end}"]) for end in ends],
        "floor": rounded(row["floor"]),
        "learned_t": _truth(row["attack_learned"]),
        "control_learned_t": _truth(row["control_learned"]),
        "n": int(row["n_questions"]),
        "groups": int(row["n_groups"]),
        "too_wide": "recovery_corrected" in str(row["cannot_tell"]).split(";"),
    }


def perplexities(recovery: pd.DataFrame) -> dict[str, float | None]:
    """Return the perplexity of the sentences that had to stay, before and after unlearning."""
    row = recovery.iloc[0]
    return {"original": rounded(row["perplexity_before"], 2), "unlearned": rounded(row["perplexity_unlearned"], 2)}


def retained(recovery: pd.DataFrame, headline: Sequence[str]) -> list[dict[str, Any]]:
    """Return the accuracy on what had to stay by each headline probe, before and after unlearning."""
    rows = recovery[(recovery["look_choice"] == "nested") & recovery["probe"].isin(headline)]
    rows = rows.drop_duplicates("probe")
    return [
        {
            "probe": row["probe"],
            "original": rounded(row["retain_before"]),
            "unlearned": rounded(row["retain_unlearned"]),
        }
        for row in rows.to_dict("records")
    ]


def needed(one: Mapping[str, Any], half_width: float = 0.05) -> int | None:
    """Return how many questions would bring an attack's interval to this half-width; None where it has none.

    A half-width falls with the root of the number of questions, or of groups where several are about one thing.
    """
    value, low, high = one["recovery"]
    if value is None or low is None or high is None or high <= low:
        return None
    return math.ceil(one["n"] * ((high - low) / 2 / half_width) ** 2)

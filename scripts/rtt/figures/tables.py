"""Read the tables that figures are drawn from."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from rtt.errors import UserError
from rtt.stats.tables import (
    ACCURACY_COLUMNS,
    COST_COLUMNS,
    PROBES_COLUMNS,
    RECOVERY_COLUMNS,
    STRONGEST_COLUMNS,
    read_table,
)


class Tables(NamedTuple):
    """The tables that figures are drawn from. All but two may be missing, as in tables of older programs."""

    recovery: pd.DataFrame
    accuracy: pd.DataFrame
    probes: pd.DataFrame | None = None
    over_seeds: pd.DataFrame | None = None
    strongest: pd.DataFrame | None = None
    cost: pd.DataFrame | None = None


FILES = {name: name for name in Tables._fields} | {"over_seeds": "seeds"}  # by parameter
OPTIONAL = ("probes", "over_seeds", "strongest", "cost")
NAMES = ("dataset", "arm", "model", "method", "attack", "variant")
TRUTHS = ("counts", "attack_learned", "control_learned", "at_floor", "below_floor")
NUMBERS = (
    "seed",
    "retain_budget",
    "step",
    "n_questions",
    "accuracy",
    "low",
    "high",
    "floor",
    "original_floor",
    "margin",
    "mean",
    "epoch",
    "tokens",
    "flops",
)


def load(folder: str | Path) -> Tables:
    """Read the tables of a folder. Raises UserError on a missing file, column or row."""
    required = {"recovery": RECOVERY_COLUMNS, "accuracy": ACCURACY_COLUMNS, "probes": PROBES_COLUMNS}
    required |= {"strongest": STRONGEST_COLUMNS, "cost": COST_COLUMNS}
    tables = {}
    for key, name in FILES.items():
        path = Path(folder) / f"{name}.csv"
        if key in OPTIONAL and not path.is_file():
            continue
        table = read_table(path)
        columns = required.get(name, [])
        missing = [column for column in columns if column not in table]
        if missing:
            raise UserError(
                f"{path}: column {missing[0]!r} is missing. Another version made this table: `rtt tables --results` "
                f"with the study's folder makes it anew. Expected {', '.join(columns)}"
            )
        if name == "recovery" and table.empty:
            raise UserError(f"{path}: no rows: nothing was unlearned and attacked, so there is nothing to show")
        tables[key] = typed(path, table)
    return Tables(**tables)


STARTS = ("acc_", "accuracy_", "t_acc_", "retain_", "perplexity_", "recovery", "n_", "upper_")  # of columns of numbers


def typed(path: str | Path, table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose names are text, whose numbers are numbers, and whose truths are True or False (or NaN)."""
    for column in NAMES:
        if column in table:
            table[column] = table[column].astype(str)
    for column in TRUTHS:
        if column in table:
            table[column] = truths(table[column])
    numbers = [c for c in table if c in NUMBERS or c.startswith(STARTS)]
    try:
        for column in numbers:
            table[column] = pd.to_numeric(table[column])
    except ValueError as error:
        raise UserError(f"{path}: column {column!r} holds something that is not a number: {error}") from None
    return table


def truths(column: pd.Series) -> pd.Series:
    """Return a column of true and false as Python's; an empty cell is NaN."""
    known = {"true": True, "false": False}
    found = column.map(lambda cell: known.get(str(cell).lower(), np.nan))
    return found.astype(bool) if found.notna().all() else found.astype(object)

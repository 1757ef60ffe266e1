"""Which cells count as unlearned, and what the criterion says of them: rows of recovery.csv in, truths out."""

import pandas as pd

from rtt.stats.contrasts import exceeds_control

NEVER = ("none_within_budget", "not_known")  # statuses of cells about which nothing can be said
COUNTS_FROM = 0.8  # over seeds, a method counts where this share of its seeds does


def counts(rows: pd.DataFrame) -> bool:
    """Say whether one method's rows count as unlearned: of several seeds, at least 8 of 10."""
    return len(rows) > 0 and round(float(rows["counts"].mean()), 9) >= COUNTS_FROM


def counting(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that count as unlearned, about which an attack says something."""
    return rows[rows["counts"]]


def known(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with a chosen point whose original knew the facts, whatever the test of unlearning says."""
    return rows[~rows["status"].isin(NEVER)]


def judged(rows: pd.DataFrame) -> list[bool | None]:
    """Return for each row whether the criterion holds: the interval of acc_attacked lies above the control's.

    None where it cannot be judged: the cell does not count, there is no control, the control did not learn T, or the
    attack failed to learn T and nothing came back.
    """
    found = []
    for row, exceeds in zip(rows.to_dict("records"), exceeds_control(rows), strict=True):
        sound = row["counts"] and row["control_learned"] != False  # noqa: E712  it may be unknown
        sound = sound and (exceeds or row["attack_learned"] != False)  # noqa: E712
        found.append(exceeds if sound else None)
    return found

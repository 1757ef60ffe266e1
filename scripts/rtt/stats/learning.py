"""Whether a cell's attack learned T on each of its models; of the strongest attack, whether its suite did."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rtt.scoring.read import AttackScores
from rtt.stats.criteria import Criteria, has_learned, learned, reaches
from rtt.stats.strongest import Suite

Scores = AttackScores | Suite


def learning(
    unlearned: Sequence[Scores], original: Scores, control: Scores | None, oracle: Scores | None, criteria: Criteria
) -> dict[str, Any]:
    """Return the columns of recovery.csv about T, with `original_learned`, which no table has.

    unlearned: the attack on each point of a cell. See `_of_suites` for the strongest attack.
    """
    if isinstance(original, Suite):
        return _of_suites(unlearned, original, control, oracle, criteria)
    name = original.attack
    reached = [learned(one, criteria) for one in unlearned]
    t = np.concatenate(reached) if reached else np.full(1, np.nan)
    on = [learned(one, criteria) for one in (original, control, oracle)]
    return {
        **_columns(t.min(), *(one.min() for one in on)),
        "attack_learned": has_learned(t, name, criteria),
        "control_learned": has_learned(on[1], name, criteria),
        "original_learned": has_learned(on[0], name, criteria),
    }


def _columns(*values: float) -> dict[str, float]:
    names = ("t_acc_attacked", "t_acc_original_attacked", "t_acc_control_attacked", "t_acc_oracle_attacked")
    return dict(zip(names, map(float, values), strict=True))


def _of_suites(
    unlearned: Sequence[Suite], original: Suite, control: Suite | None, oracle: Suite | None, criteria: Criteria
) -> dict[str, Any]:
    """Return the same of the strongest attack.

    On the unlearned models the suite learned T if in every run some of its attacks did. If none did, there is nothing
    to say where an attack uses no T, which cannot fail so; what it brings back stands. The original and the control
    must have gone through whatever worked: each attack that learned T in some run on the unlearned models must have
    learned it on them in every run, or else what the unlearned model is compared with is too low.
    """
    runs = [by_run(one, criteria) for one in unlearned]
    t = np.concatenate(runs).min() if runs else np.nan
    worked = {
        member.attack
        for one in unlearned
        for member in one.members
        if reaches(np.max(learned(member, criteria)), criteria.learned)  # NaN does not
    }
    beside = [_beside(one, worked, criteria) for one in (original, control, oracle)]
    return {
        **_columns(t, *(value for value, _ in beside)),
        "attack_learned": _says(unlearned[0], t, criteria) if unlearned else None,
        "control_learned": beside[1][1],
        "original_learned": beside[0][1],
    }


def by_run(suite: Suite, criteria: Criteria) -> np.ndarray:
    """Return (R,) the highest accuracy on T of any attack in each run; NaN where no attack uses T."""
    on_t = [learned(one, criteria) for one in suite.members]
    rows = [[one[min(run, len(one) - 1)] for one in on_t] for run in range(suite.repeats)]
    return np.fmax.reduce(rows, axis=1)


def _beside(suite: Suite | None, worked: set[str], criteria: Criteria) -> tuple[float, bool | None]:
    """Return the accuracy on T that decides for the original, the control or the oracle, and what it says."""
    if suite is None:
        return np.nan, None
    needed = [learned(one, criteria).min() for one in suite.members if one.attack in worked]
    if needed:
        return min(needed), reaches(min(needed), criteria.learned)
    t = by_run(suite, criteria).min()
    return t, _says(suite, t, criteria)


def _says(suite: Suite, t: float, criteria: Criteria) -> bool | None:
    """Return whether the suite learned T; None where it did not, but an attack uses none."""
    if np.isnan(t):
        return None
    return reaches(t, criteria.learned) or (False if all(one.uses_t for one in suite.members) else None)

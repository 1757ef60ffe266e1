"""When facts count as known and as unlearned, when an attack counts, and what that makes of a cell: its status.

A cell is an arm, a seed, an attack, a method and a retain budget, with all unlearning runs and repeats of the attack.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from rtt.errors import UserError
from rtt.scoring.read import AttackScores
from rtt.study import plugins
from rtt.study.names import PROBES

# In the order in which they are asked: the first that holds is the status.
STATUSES = (
    "none_within_budget", "not_known", "original_not_learned", "undefined", "below_floor", "not_unlearned",
    "attack_failed", "ok",
)  # fmt: skip
HIDING = ("original_not_learned", "undefined")  # statuses about the original, behind which one of the model may hide


@dataclass(frozen=True)
class Criteria:
    """`criteria` of a study.

    headline: the two probes by both of which an original must know, and by one of which an attack must learn T.
    known: the accuracy of an original that we trained. margin: how far above its floor the upper limit of an unlearned
    model may lie. learned: the accuracy on T of an attack that worked.
    """

    headline: tuple[str, ...] = ("letter_permuted", "likelihood")
    known: float = 0.9
    margin: float = 0.15
    learned: float = 0.97

    @classmethod
    def read(cls, path: Path, found: Any) -> "Criteria":
        """Read the study's criteria from runs.json; what is not there has its default. Raises UserError."""
        if found is None:
            return cls()
        if not isinstance(found, dict):
            raise UserError(f"{path}: study.criteria is {found!r:.60}, expected an object; start the study again")
        values = {one.name: found[one.name] for one in fields(cls) if one.name in found}
        for name, value in values.items():
            where = f"{path}: study.criteria.{name} is {value!r:.60}"
            if name == "headline":
                if not isinstance(value, list) or not value or any(probe not in PROBES for probe in value):
                    raise UserError(f"{where}, expected some of {', '.join(PROBES)}; start the study again")
                values[name] = tuple(value)
            elif not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
                raise UserError(f"{where}, expected a number from 0 to 1; start the study again")
        return cls(**values)

    def judges(self, probes: Iterable[str]) -> list[str]:
        """Return the headline probes among these; all of these where a study of an earlier day asked none of them."""
        probes = list(probes)
        return [probe for probe in self.headline if probe in probes] or probes


DEFAULT_CRITERIA = Criteria()


def known(original: Mapping[str, Mapping[str, float]], criteria: Criteria, trained: bool) -> bool:
    """Return whether an original knows its facts, from its rows of probes.csv by probe.

    By every headline probe: at least `known` where we trained it to, otherwise the lower 95 % limit is at least the
    floor + 2 margins.
    """
    rows = [original[probe] for probe in criteria.judges(original)]
    if trained:
        return all(reaches(row["accuracy"], criteria.known) for row in rows)
    return all(reaches(row["low"], row["floor"] + 2 * criteria.margin) for row in rows)


def unlearned(rows: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether an unlearned model is at the floor by every probe: an intersection-union test at level .05.

    Each hypothesis "more than a margin above the floor" is tested at .05, and all must be rejected (Berger 1982).
    """
    return all(row["at_floor"] for row in rows)


def below_floor(rows: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether some probe's upper 99 % limit lies under its floor, which is not forgetting."""
    return any(row["below_floor"] for row in rows)


def learned(attack: AttackScores | None, criteria: Criteria) -> np.ndarray:
    """Return (R,) the accuracy on T that each repeat of an attack reached; NaN for an attack that used no T.

    It is that of the look with the highest T accuracy, pooled over the V splits, by the better of the headline probes.
    """
    if attack is None or not attack.settings or not attack.uses_t:
        repeats = len(next(iter(attack.correct.values()))) if attack is not None and attack.settings else 1
        return np.full(repeats, np.nan)
    return np.max([by_look.max(axis=1) for by_look in pooled_t(attack, criteria).values()], axis=0)


def pooled_t(attack: AttackScores, criteria: Criteria) -> dict[str, np.ndarray]:
    """Return {headline probe: (R, L) accuracy on T of each repeat and look, pooled over the V splits}."""
    in_t = np.array([[split != v for split in attack.questions.splits] for v in attack.v_splits])
    probes = criteria.judges(probe for probe in PROBES if probe in attack.correct)
    return {probe: (attack.correct[probe] * in_t).sum(axis=(2, 3)) / in_t.sum() for probe in probes}


def has_learned(accuracies: Sequence[float], attack: str, criteria: Criteria) -> bool | None:
    """Return whether every repeat brought T to `learned`.

    None where there is nothing to say: for an attack that uses no T, or that is itself a control, and learns other
    answers than those that are asked for.
    """
    if getattr(plugins.attacks().get(attack), "control", False) or np.isnan(accuracies).any():
        return None
    return reaches(np.min(accuracies), criteria.learned)


def status(
    *, point: bool, knows: bool, defined: bool, original: bool | None, below: bool, gone: bool, attacked: bool | None
) -> str:
    """Return the first status that holds.

    point: every unlearning run has an admissible point. knows: the original does. defined: the attacked original lies
    above the floor. original, attacked: whether the attack taught T to the original and to the unlearned models. below,
    gone: whether an unlearned model is below the floor, and whether all are unlearned.
    """
    holds = (not point, not knows, original is False, not defined, below, not gone, attacked is False, True)
    return next(name for name, one in zip(STATUSES, holds, strict=True) if one)


def reaches(value: float, limit: float) -> bool:
    """Return whether a value is at least the limit, whatever rounding errors they carry; NaN is not."""
    return bool(value >= limit - 1e-9)  # 144 of 160 are .9, and floor + 2 margins carry rounding errors

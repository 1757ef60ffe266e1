"""Which point a retain budget chooses (`rtt.point_choice.choose` says why), and whether a point choice on disk is that.

A point choice holds its evidence: the accuracies of all points, which follow from the evaluations, and the rule, from
which the chosen points follow. What a file lacks is not compared.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rtt.errors import UserError
from rtt.scoring.read import ChosenPoints, PointScores

AGAIN = "it was changed or damaged, or made from other scores; delete it and start the study again"


def best(points: list[dict], retain_before: Mapping[str, float], budgets: list[float], rule: str) -> dict:
    """Return {budget: the chosen point, or None where the budget admits none}, whatever the points' order.

    retain_before: {retain probe: accuracy before unlearning}; rule: as `point_choice.rule` of a study.
    """

    def kept(point):
        """Return the share of its retain accuracy that a point keeps, by the probe that lost most."""
        return min(point["retain"][probe] / before if before else 1.0 for probe, before in retain_before.items())

    def key(point):
        tail = (-kept(point), point["step"], point["run"])
        if rule == "lowest":
            return (max(point["forget"].values()), *tail)
        if rule == "strongest":
            return (point["distance"], *tail)
        return (not point["at_floor"], 0.0 if point["at_floor"] else point["distance"], *tail)

    def admits(budget, point):  # 1e-6: accuracies are rounded to six decimals
        lost = {probe: before - point["retain"][probe] for probe, before in retain_before.items()}
        return all(lost[probe] <= budget * before + 1e-6 for probe, before in retain_before.items())

    return {budget: min((p for p in points if admits(budget, p)), key=key, default=None) for budget in budgets}


def check_choice(choice: ChosenPoints, original: PointScores, runs: Mapping[str, PointScores]) -> None:
    """Compare a point choice with its own rule and with the scores of its points. Raises UserError."""
    found = choice.document
    if not isinstance(found.get("rule"), str) or not isinstance(found.get("retain_before"), dict):
        return
    try:
        _check(choice, original, runs)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise UserError(f"{choice.path}: not what the step `choose` writes ({error!r:.80}); {AGAIN}") from None


def _check(choice: ChosenPoints, original: PointScores, runs: Mapping[str, PointScores]) -> None:
    path, found = choice.path, choice.document
    for probe, before in found["retain_before"].items():
        _same(path, f"retain_before.{probe}", before, _share(original.retain_correct, probe, 0))
    for index, point in enumerate(found["points"]):
        scores = runs[point["run"]]
        at = scores.steps.index(point["step"])
        forget = scores.choice_correct if scores.choice.ids else scores.forget_correct
        for kind, correct in (("forget", forget), ("retain", scores.retain_correct)):
            for one, value in point[kind].items():
                _same(path, f"points[{index}].{kind}.{one}", value, _share(correct, one, at))
    expected = best(found["points"], found["retain_before"], list(choice.points), found["rule"])
    for budget, point in expected.items():
        wanted = None if point is None else (point["run"], point["step"])
        _same(path, f"selected[{str(budget)!r}]", choice.points[budget], wanted)


def _share(correct: dict[str, np.ndarray], probe: str, at: int) -> float:
    return round(float(correct[probe][at].mean()), 6)


def _same(path: Path, what: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise UserError(f"{path}: {what} is {found!r}, the scores of its points say {expected!r}; {AGAIN}")

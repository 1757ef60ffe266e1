"""Step `choose`: of a method's trajectories and their points, the one that is attacked, for each retain budget.

A budget b admits a point when retain_before - retain_unlearned <= b * retain_before. Below the floor is not
forgetting: RIA and FIF train wrong choices, and 0 % correct knows as much as 100 %. So `nearest_floor` takes the
admitted point whose forget accuracy is nearest the floor; points whose 95 % interval holds the floor are tied, and
ties go to higher retain accuracy, then fewer steps, then the name of the run. `lowest` (the paper's) takes the lowest
forget accuracy.

Inputs: a PointChoiceSpec, the evaluations of the original and of the trajectories, their folders of weights. Outputs:
point_choices/<run>.json, and a folder with the chosen weights as `b<percent>.safetensors`. No torch.
"""

import numpy as np

from rtt.stats.intervals import wilson
from rtt.stats.look_choice import letter_floor
from rtt.study.settings import PointChoice


def _correct(questions: list[dict], probe: str) -> np.ndarray:
    return np.array([int(np.argmax(q["probes"][probe]["scores"])) == q["answer"] for q in questions], bool)


def floor_before_attack(questions: list[dict], probe: str) -> float:
    """Floor of the forget questions: for letters T's majority letter on V, each split being V once; else one in
    four.
    """
    if probe != "letter":
        return 0.25
    splits, answers = np.array([q["split"] for q in questions]), np.array([q["answer"] for q in questions])
    names, split_of = np.unique(splits, return_inverse=True)
    if len(names) < 2:
        return 0.25
    return letter_floor(answers, split_of, [answers[splits != name] for name in names])


def retain_accuracy(questions: list[dict], point_choice: PointChoice) -> float | None:
    """Share of retain questions answered, by the point choice's scoring for them; None without such questions."""
    retain = [q for q in questions if q["role"] == "retain"]
    return float(_correct(retain, point_choice.for_retain).mean()) if retain else None


def describe(run: str, step: int, questions: list[dict], point_choice: PointChoice) -> dict:
    """Return what point choice knows of a point: run, step, forget accuracy and floor per probe, distance to the floor,
    whether the interval holds it, retain accuracy.
    """
    forget = [q for q in questions if q["role"] == "V"]
    hits = {probe: _correct(forget, probe) for probe in point_choice.probes}
    floors = {probe: floor_before_attack(forget, probe) for probe in point_choice.probes}
    ends = {probe: wilson(found.sum(), len(found)) for probe, found in hits.items()}
    return {
        "run": run,
        "step": step,
        "forget": {probe: round(float(found.mean()), 6) for probe, found in hits.items()},
        "floor": {probe: round(floor, 6) for probe, floor in floors.items()},
        "distance": round(max(abs(float(hits[probe].mean()) - floors[probe]) for probe in hits), 6),
        "at_floor": bool(all(ends[probe][0] <= floors[probe] <= ends[probe][1] for probe in hits)),
        "retain": {point_choice.for_retain: round(retain_accuracy(questions, point_choice), 6)},
    }


def best(points: list[dict], retain_before: float, budgets: list[float], point_choice: PointChoice) -> dict:
    """Return {budget: the chosen point, or None when the budget admits none}; independent of the points' order."""

    def retain(point):
        return point["retain"][point_choice.for_retain]

    def key(point):
        tail = (-retain(point), point["step"], point["run"])
        if point_choice.rule == "lowest":
            return (max(point["forget"].values()), *tail)
        return (not point["at_floor"], 0.0 if point["at_floor"] else point["distance"], *tail)

    # 1e-6: accuracies are rounded to six decimals
    return {
        budget: min(
            (p for p in points if retain_before - retain(p) <= budget * retain_before + 1e-6), key=key, default=None
        )
        for budget in budgets
    }

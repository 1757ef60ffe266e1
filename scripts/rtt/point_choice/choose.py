"""The rules of the point choice: which of a method's points is attacked, for each retain budget. Pure functions.

A budget b admits a point when retain_before - retain_unlearned <= b * retain_before. A score below the floor is no
further forgetting: RIA and FIF train wrong choices, and a model that is always wrong knows as much as one that is
always right. So `nearest_floor` takes the admitted point whose forget accuracy is nearest the floor. Points whose 95 %
interval holds the floor are tied, and a tie goes to higher retain accuracy, then to fewer steps, then to the run whose
name comes first. `lowest`, the paper's rule, takes the lowest forget accuracy, and breaks ties likewise.
"""

import numpy as np

from rtt.stats.intervals import wilson
from rtt.stats.look_choice import chance, letter_floor
from rtt.study.settings import PointChoice


def _correct(questions: list[dict], probe: str) -> np.ndarray:
    """Return (n,) bool: whether the first highest score is the answer's."""
    return np.array([int(np.argmax(q["probes"][probe]["scores"])) == q["answer"] for q in questions], bool)


def floor_before_attack(questions: list[dict], probe: str) -> float:
    """Return what a guesser scores on the forget questions.

    For letters that is the majority letter of T, scored on V, with each split as V once; otherwise the mean of one over
    the number of choices.
    """
    choices = np.array([len(q["probes"][probe]["scores"]) for q in questions])
    names, split_of = np.unique([q["split"] for q in questions], return_inverse=True)
    if probe != "letter" or len(names) < 2:
        return chance(choices)
    return letter_floor(np.array([q["answer"] for q in questions]), choices, split_of, range(len(names)))


def retain_accuracy(questions: list[dict], point_choice: PointChoice) -> float | None:
    """Return the share of retain questions answered right, by the retain probe; None without such questions."""
    retain = [q for q in questions if q["role"] == "retain"]
    return float(_correct(retain, point_choice.for_retain).mean()) if retain else None


def describe(run: str, step: int, questions: list[dict], point_choice: PointChoice) -> dict:
    """Return a point as `best` takes it and as a point choice records it (docs/architecture.md).

    `questions` are those of its look. `distance` is that of the probe farthest from its floor; `at_floor` asks that
    every probe's 95 % interval holds its floor.
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

"""The rules of the point choice: which of a method's points is attacked, for each retain budget. Pure functions.

A budget b admits a point when retain_before - retain_unlearned <= b * retain_before by each retain probe. A score below
the floor is no further forgetting: RIA and FIF train wrong choices, and a model that is always wrong knows as much as
one that is always right. So both rules of a floor go by the probe that is farthest from its floor, above or below it: a
model that only says one letter is at the floor by letters alone. `strongest` takes the admitted point at which that
distance is smallest. `nearest_floor` does too, but ties all points at which every probe's 95 % interval holds its
floor. `lowest`, the paper's rule, takes the lowest forget accuracy. A tie goes to the point that keeps more of its
retain accuracy (of several retain probes, by the one that lost most), then to fewer steps, then to the run whose name
comes first.

Where the study sets splits apart for the choice (`point_choice.splits`), it is made on their questions alone, so that
nothing that is reported took part in it.
"""

from rtt.errors import UserError
from rtt.scoring.question_table import Questions
from rtt.scoring.read import PointScores
from rtt.stats.floors import Asked, floor
from rtt.stats.intervals import wilson
from rtt.study.settings import PointChoice


def floor_before_attack(questions: Questions, probe: str) -> float:
    """Return what a guesser scores on these questions by a probe (`rtt.stats.floors`)."""
    asked = Asked(
        questions.answers, questions.n_choices, questions.split_of(), questions.first_halves(), questions.shortest
    )
    return floor(asked, probe)


def retain_accuracies(scores: PointScores, at: int, point_choice: PointChoice) -> dict[str, float]:
    """Return {retain probe: accuracy of the point `at` on the retain questions, of which there must be some}.

    Accuracies are rounded to six decimals. Raises UserError where the file lacks a probe.
    """
    right = {probe: _by(scores, scores.retain_correct, probe)[at] for probe in point_choice.for_retain}
    return {probe: round(float(found.mean()), 6) for probe, found in right.items()}


def describe(scores: PointScores, at: int, point_choice: PointChoice) -> dict:
    """Return a point as `best` takes it and as a point choice records it (docs/architecture.md).

    `at` is the point's place among those of `scores`. `distance` is that of the probe farthest from its floor;
    `at_floor` asks that every probe's 95 % interval holds its floor. All three are on the questions that were set apart
    for the choice, or else on all forget questions. Raises UserError where the file lacks a probe.
    """
    asked, correct = scores.choice, scores.choice_correct
    if not asked.ids:
        asked, correct = scores.forget, scores.forget_correct
    hits = {probe: _by(scores, correct, probe)[at] for probe in point_choice.probes}
    floors = {probe: floor_before_attack(asked, probe) for probe in hits}
    ends = {probe: wilson(found.sum(), len(found)) for probe, found in hits.items()}
    return {
        "run": scores.run_id,
        "step": scores.steps[at],
        "forget": {probe: round(float(found.mean()), 6) for probe, found in hits.items()},
        "floor": {probe: round(floors[probe], 6) for probe in hits},
        "distance": round(max(abs(float(hits[probe].mean()) - floors[probe]) for probe in hits), 6),
        "at_floor": bool(all(ends[probe][0] <= floors[probe] <= ends[probe][1] for probe in hits)),
        "retain": retain_accuracies(scores, at, point_choice),
    }


def _by(scores: PointScores, correct: dict, probe: str):
    if probe not in correct:
        found = ", ".join(correct)
        raise UserError(f"{scores.path}: no scores by {probe}, which the point choice asks for; it has {found}")
    return correct[probe]

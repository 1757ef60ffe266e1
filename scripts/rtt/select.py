"""Step `select`: of a trajectory's points, the one that is attacked, for each retain budget.

A budget b admits a point when retain_before - retain_unlearned <= b * retain_before. Below the floor is not
forgetting: RIA and FIF train wrong choices, and 0 % correct knows as much as 100 %. So `nearest_floor` takes the
admitted point whose forget accuracy is nearest the floor; points whose 95 % interval holds the floor are tied, and
ties go to higher retain accuracy, then fewer steps. `lowest` (the paper's) takes the lowest forget accuracy.

Inputs: the evaluations of the original and of the trajectory. Output: selections/<run>.json. No torch.
"""

import argparse
from pathlib import Path

import numpy as np

from rtt.errors import UserError
from rtt.evals import Points, read_eval
from rtt.files import write_json
from rtt.stats.intervals import wilson
from rtt.stats.looks import letter_floor


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `select`."""
    parser.add_argument("--original", required=True, type=Path, help="evaluation JSON before unlearning")
    parser.add_argument("--unlearned", required=True, type=Path, help="evaluation JSON of the trajectory")
    parser.add_argument("--budgets", required=True, nargs="+", type=float, help="retain budgets, fractions")
    parser.add_argument("--rule", choices=["nearest_floor", "lowest"], default="nearest_floor")
    parser.add_argument("--scorings", nargs="+", default=["letter"], help="scorings that must all be near the floor")
    parser.add_argument("--out", required=True, type=Path)


def floor_before_attack(points: Points, scoring: str) -> float:
    """Floor of the forget questions: for letters T's majority letter on V, each split being V once; else one in
    four.
    """
    if scoring != "letter":
        return 0.25
    splits, answers = np.array(points.forget.splits), points.forget.answers
    names, split_of = np.unique(splits, return_inverse=True)
    return letter_floor(answers, split_of, [answers[splits != name] for name in names])


def describe(points: Points, scorings: list[str]) -> list[dict]:
    """Return per point: step, forget accuracy and floor per scoring, distance to the floor, retain accuracy."""
    described = []
    for i, step in enumerate(points.steps):
        correct = {scoring: points.forget_correct[scoring][i] for scoring in scorings}
        floors = {scoring: floor_before_attack(points, scoring) for scoring in scorings}
        accuracies = {scoring: float(hits.mean()) for scoring, hits in correct.items()}
        ends = {scoring: wilson(hits.sum(), len(hits)) for scoring, hits in correct.items()}
        described.append(
            {
                "step": step,
                "forget": accuracies,
                "floor": floors,
                "distance": max(abs(accuracies[scoring] - floors[scoring]) for scoring in scorings),
                "at_floor": all(ends[scoring][0] <= floors[scoring] <= ends[scoring][1] for scoring in scorings),
                "retain": float(points.retain_correct["letter"][i].mean()),
            }
        )
    return described


def choose(points: list[dict], retain_before: float, budget: float, rule: str) -> int | None:
    """Return the step of the chosen point, or None when the budget admits none."""
    admitted = [p for p in points if retain_before - p["retain"] <= budget * retain_before + 1e-12]
    if not admitted:
        return None
    if rule == "lowest":
        return min(admitted, key=lambda p: (max(p["forget"].values()), -p["retain"], p["step"]))["step"]
    tied = [p for p in admitted if p["at_floor"]]
    if tied:
        return min(tied, key=lambda p: (-p["retain"], p["step"]))["step"]
    return min(admitted, key=lambda p: (p["distance"], -p["retain"], p["step"]))["step"]


def run(args: argparse.Namespace) -> int:
    """Select a point per budget."""
    original, unlearned = read_eval(args.original), read_eval(args.unlearned)
    for found, path in ((original, args.original), (unlearned, args.unlearned)):
        if not isinstance(found, Points):
            raise UserError(f"{path}: this is an RTT evaluation; give those of kind original and unlearned")
    if not len(original.retain.ids):
        raise UserError(f"{args.original}: no question of role retain, so no retain budget can be kept")
    if original.forget.ids != unlearned.forget.ids or original.retain.ids != unlearned.retain.ids:
        raise UserError(f"{args.unlearned}: its questions are not those of {args.original}; give the two of one arm")
    scored = list(unlearned.forget_correct)
    if unknown := [name for name in args.scorings if name not in scored]:
        raise UserError(f"--scorings: found {', '.join(unknown)}; expected some of {', '.join(scored)}")
    retain_before = float(original.retain_correct["letter"][0].mean())
    points = describe(unlearned, args.scorings)
    selected = {str(budget): choose(points, retain_before, budget, args.rule) for budget in args.budgets}
    rounded = [
        {key: round(value, 6) if isinstance(value, float) else value for key, value in point.items()}
        | {key: {name: round(value, 6) for name, value in point[key].items()} for key in ("forget", "floor")}
        for point in points
    ]
    write_json(
        args.out,
        {
            "run_id": unlearned.run_id,
            "rule": args.rule,
            "scorings": args.scorings,
            "retain_before": round(retain_before, 6),
            "points": rounded,
            "selected": selected,
        },
    )
    for budget, step in selected.items():
        print(f"{unlearned.run_id}: retain budget {budget}: {'no point admitted' if step is None else f'step {step}'}")
    return 0

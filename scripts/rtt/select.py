"""Step `select`: of a method's trajectories and their points, the one that is attacked, for each retain budget.

A budget b admits a point when retain_before - retain_unlearned <= b * retain_before. Below the floor is not
forgetting: RIA and FIF train wrong choices, and 0 % correct knows as much as 100 %. So `nearest_floor` takes the
admitted point whose forget accuracy is nearest the floor; points whose 95 % interval holds the floor are tied, and
ties go to higher retain accuracy, then fewer steps, then the name of the run. `lowest` (the paper's) takes the lowest
forget accuracy.

Inputs: a SelectSpec, the evaluations of the original and of the trajectories, their folders of weights. Outputs:
selections/<run>.json, and a folder with the chosen weights as `b<percent>.safetensors`. No torch.
"""

import argparse
from pathlib import Path

import numpy as np

from rtt.codeversion import code_version
from rtt.errors import UserError
from rtt.evals import Points, read_eval
from rtt.files import read_json, write_json
from rtt.settings import Selection
from rtt.stats.intervals import wilson
from rtt.stats.looks import letter_floor


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `select`."""
    parser.add_argument("--spec", required=True)
    parser.add_argument("--original", required=True, type=Path, help="evaluation JSON before unlearning")
    parser.add_argument("--unlearned", required=True, nargs="+", type=Path, help="evaluation JSON of each trajectory")
    parser.add_argument("--points", required=True, nargs="+", type=Path, help="the trajectories' folders of weights")
    parser.add_argument("--out", required=True, type=Path, help="selection JSON to write")
    parser.add_argument("--chosen", required=True, type=Path, help="folder for the chosen weights")


def _correct(questions: list[dict], scoring: str) -> np.ndarray:
    return np.array([int(np.argmax(q["scores"][scoring])) == q["answer"] for q in questions], bool)


def floor_before_attack(questions: list[dict], scoring: str) -> float:
    """Floor of the forget questions: for letters T's majority letter on V, each split being V once; else one in
    four.
    """
    if scoring != "letter":
        return 0.25
    splits, answers = np.array([q["split"] for q in questions]), np.array([q["answer"] for q in questions])
    names, split_of = np.unique(splits, return_inverse=True)
    if len(names) < 2:
        return 0.25
    return letter_floor(answers, split_of, [answers[splits != name] for name in names])


def retain_accuracy(questions: list[dict], selection: Selection) -> float | None:
    """Share of retain questions answered, by the selection's scoring for them; None without such questions."""
    retain = [q for q in questions if q["role"] == "retain"]
    return float(_correct(retain, selection.for_retain).mean()) if retain else None


def describe(run: str, step: int, questions: list[dict], selection: Selection) -> dict:
    """Return what selection knows of a point: run, step, forget accuracy and floor per scoring, distance to the floor,
    whether the interval holds it, retain accuracy.
    """
    forget = [q for q in questions if q["role"] == "V"]
    hits = {scoring: _correct(forget, scoring) for scoring in selection.scorings}
    floors = {scoring: floor_before_attack(forget, scoring) for scoring in selection.scorings}
    ends = {scoring: wilson(found.sum(), len(found)) for scoring, found in hits.items()}
    return {
        "run": run,
        "step": step,
        "forget": {scoring: round(float(found.mean()), 6) for scoring, found in hits.items()},
        "floor": {scoring: round(floor, 6) for scoring, floor in floors.items()},
        "distance": round(max(abs(float(hits[scoring].mean()) - floors[scoring]) for scoring in hits), 6),
        "at_floor": bool(all(ends[scoring][0] <= floors[scoring] <= ends[scoring][1] for scoring in hits)),
        "retain": {selection.for_retain: round(retain_accuracy(questions, selection), 6)},
    }


def best(points: list[dict], retain_before: float, budgets: list[float], selection: Selection) -> dict:
    """Return {budget: the chosen point, or None when the budget admits none}; independent of the points' order."""

    def retain(point):
        return point["retain"][selection.for_retain]

    def key(point):
        tail = (-retain(point), point["step"], point["run"])
        if selection.rule == "lowest":
            return (max(point["forget"].values()), *tail)
        return (not point["at_floor"], 0.0 if point["at_floor"] else point["distance"], *tail)

    # 1e-6: accuracies are rounded to six decimals
    return {
        budget: min(
            (p for p in points if retain_before - retain(p) <= budget * retain_before + 1e-6), key=key, default=None
        )
        for budget in budgets
    }


def run(args: argparse.Namespace) -> int:
    """Select a point per budget and give its weights their fixed name."""
    from rtt.candidates import choose_weights
    from rtt.specs import load_spec

    spec = load_spec(args.spec, "select")
    if len(args.unlearned) != len(spec.trajectories) or len(args.points) != len(spec.trajectories):
        raise UserError(f"{args.spec}: {len(spec.trajectories)} trajectories; give as many --unlearned and --points")
    original = _read(args.original)
    if not len(original.retain.ids):
        raise UserError(f"{args.original}: no question of role retain, so no retain budget can be kept")
    points = []
    for trajectory, path in zip(spec.trajectories, args.unlearned, strict=True):
        unlearned = _read(path)
        if unlearned.run_id != trajectory.run_id:
            raise UserError(f"{path}: found {unlearned.run_id}, expected the run {trajectory.run_id}")
        if original.forget.ids != unlearned.forget.ids or original.retain.ids != unlearned.retain.ids:
            raise UserError(f"{path}: its questions are not those of {args.original}; give the two of one arm")
        for result in read_json(path)["results"]:
            points.append(describe(trajectory.run_id, result["step"], result["questions"], spec.selection))
    retain_before = round(retain_accuracy(read_json(args.original)["results"][0]["questions"], spec.selection), 6)
    chosen = best(points, retain_before, spec.retain_budgets, spec.selection)
    selected = {str(b): {"run": point["run"], "step": point["step"]} if point else None for b, point in chosen.items()}
    folders = {trajectory.run_id: path for trajectory, path in zip(spec.trajectories, args.points, strict=True)}
    if missing := choose_weights(selected, folders, args.chosen):
        raise UserError(
            f"the chosen weights of {', '.join(missing)} are gone; delete {args.points[0].parent}/{missing[0]} and "
            "start the study again: it will unlearn them once more"
        )
    args.chosen.mkdir(parents=True, exist_ok=True)
    source = spec.source
    write_json(
        args.out,
        {
            "run_id": spec.run_id,
            "code": code_version("select"),
            "labels": {
                "dataset": source.facts.dataset,
                "arm": source.arm,
                "model": source.model.name,
                "method": spec.method,
                "seed": spec.seed,
            },
            "rule": spec.selection.rule,
            "scorings": spec.selection.scorings,
            "retain_before": {spec.selection.for_retain: retain_before},
            "points": points,
            "selected": selected,
        },
    )
    for budget, point in selected.items():
        found = f"{point['run']}, step {point['step']}" if point else "no point admitted"
        print(f"{spec.run_id}: retain budget {budget}: {found}")
    return 0


def _read(path: Path) -> Points:
    found = read_eval(path)
    if not isinstance(found, Points):
        raise UserError(f"{path}: this is an RTT evaluation; give those of kind original and unlearned")
    return found

"""Step `choose`: choose which of a method's points is attacked, for each retain budget.

Inputs: a PointChoiceSpec, the evaluations of the original and of the trajectories, their folders of weights. Outputs:
point_choices/<run>.json, and a folder with the chosen weights as `b<percent>.safetensors`. Imports no torch.
"""

import argparse
from pathlib import Path

from rtt.code_version import code_version
from rtt.errors import UserError
from rtt.files import write_json
from rtt.point_choice.choose import describe, retain_accuracies
from rtt.point_choice.kept_weights import link_chosen
from rtt.records import record
from rtt.scoring.read import PointScores, read_eval
from rtt.stats.point_rule import best
from rtt.study.specs import load_spec


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `choose`."""
    parser.add_argument("--spec", required=True)
    parser.add_argument("--original", required=True, type=Path, help="evaluation JSON before unlearning")
    parser.add_argument("--unlearned", required=True, nargs="+", type=Path, help="evaluation JSON of each trajectory")
    parser.add_argument("--points", required=True, nargs="+", type=Path, help="the trajectories' folders of weights")
    parser.add_argument("--out", required=True, type=Path, help="point choice JSON to write")
    parser.add_argument("--chosen", required=True, type=Path, help="folder for the chosen weights")


def run(args: argparse.Namespace) -> int:
    """Choose a point per retain budget, and give its weights their fixed name."""
    spec = load_spec(args.spec, "point_choice")
    if len(args.unlearned) != len(spec.trajectories) or len(args.points) != len(spec.trajectories):
        raise UserError(f"{args.spec}: {len(spec.trajectories)} trajectories; give as many --unlearned and --points")
    original = _read(args.original)
    if not len(original.retain.ids):
        raise UserError(f"{args.original}: no question has the role retain, so no retain budget can be checked")
    points = []
    for trajectory, path in zip(spec.trajectories, args.unlearned, strict=True):
        unlearned = _read(path)
        if unlearned.run_id != trajectory.run_id:
            raise UserError(f"{path}: found {unlearned.run_id}, expected the run {trajectory.run_id}")
        if _asked(original) != _asked(unlearned):
            raise UserError(f"{path}: its questions differ from those of {args.original}; give two files of one arm")
        points += [describe(unlearned, at, spec.point_choice) for at in range(len(unlearned.steps))]
    retain_before = retain_accuracies(original, 0, spec.point_choice)
    found = best(points, retain_before, spec.retain_budgets, spec.point_choice.rule)
    chosen = {str(b): {"run": point["run"], "step": point["step"]} if point else None for b, point in found.items()}
    folders = {trajectory.run_id: path for trajectory, path in zip(spec.trajectories, args.points, strict=True)}
    if missing := link_chosen(chosen, folders, args.chosen):
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
            "code": code_version("choose"),
            "labels": {
                "dataset": source.facts.dataset,
                "arm": source.arm,
                "model": source.model.name,
                "method": spec.method,
                "seed": spec.seed,
                "unlearning_repeat": spec.repeat,
            },
            "rule": spec.point_choice.rule,
            "probes": spec.point_choice.probes,
            "splits": spec.point_choice.splits,
            "retain_before": retain_before,
            "points": points,
            "selected": chosen,
            **record(args.out.parent.parent, [args.original, *args.unlearned], [args.chosen]),
        },
    )
    for budget, point in chosen.items():
        what = f"{point['run']}, step {point['step']}" if point else "no point is admitted"
        print(f"{spec.run_id}: retain budget {budget}: {what}")
    return 0


def _asked(scores: PointScores) -> list[tuple[str, ...]]:
    return [part.ids for part in (scores.forget, scores.choice, scores.retain)]


def _read(path: Path) -> PointScores:
    """Read an evaluation of points. Raises UserError for one of an attack."""
    found = read_eval(path)
    if not isinstance(found, PointScores):
        raise UserError(f"{path}: found an evaluation of an attack, expected one of kind original or unlearned")
    return found

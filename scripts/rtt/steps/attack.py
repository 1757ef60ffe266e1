"""Step `attack`: RTT on checkpoints of one arm. One process; the weights are restored between its runs.

For every checkpoint, learning rate and V split: fine-tune on the texts of the other splits (T), score all questions
after the epochs that the spec names.

Inputs: an AttackSpec, the original model, the canonical facts, and for unlearned targets the chosen weights and
point choices of each method. Outputs: one evaluation JSON (kind `rtt`) per target, in the spec's order; a manifest.
"""

import argparse
import shutil
import sys
import time
from pathlib import Path

import numpy as np

from rtt import distributed
from rtt.code_version import code_version
from rtt.data.facts import read_facts
from rtt.errors import UserError
from rtt.files import read_json, sha256
from rtt.models.load import freeze_layers, load, load_weights, model_hash, weights
from rtt.scoring.manifest import Manifest
from rtt.scoring.write import attack_labels, result, write_eval
from rtt.steps.original import scorer_of
from rtt.study.names import budget_name
from rtt.study.specs import AttackSpec, load_spec
from rtt.training.health import effective_update
from rtt.training.losses import plain_loss
from rtt.training.order import count_tokens, training_passes
from rtt.training.resume import State
from rtt.training.train import prepare_torch, start_dtype, train


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `attack`."""
    parser.add_argument("--spec", required=True)
    parser.add_argument(
        "--source",
        required=True,
        help="folder of the original model (for the control: the one that never saw the facts)",
    )
    parser.add_argument("--facts", required=True, help="canonical facts, split into T and V")
    parser.add_argument(
        "--chosen", nargs="*", default=[], help="folders of the chosen weights, in the order of the spec's methods"
    )
    parser.add_argument("--point-choices", nargs="*", default=[], help="point choice files, in the same order")
    parser.add_argument(
        "--evals", nargs="+", required=True, help="evaluation JSON to write, in the order of the spec's targets"
    )
    parser.add_argument("--manifest", required=True)
    parser.add_argument("--state", type=Path, help="folder to go on from after a kill; none: nothing is kept")


def v_splits_of(facts, settings) -> list[str]:
    """Return the splits that serve as V, in the facts' order. Raises UserError when there are too few."""
    splits = list(dict.fromkeys(fact.split for fact in facts))
    if len(splits) < 2:
        raise UserError(f"the facts have one split, {splits[0]}: RTT needs two at least, T and V")
    if (settings.v_splits or 0) > len(splits):
        raise UserError(f"rtt.v_splits: found {settings.v_splits}, but the facts have {len(splits)} splits")
    return splits[: settings.v_splits]


def attack(model, scorer, tokenizer, facts, settings, seed: int, progress, state, name: str) -> list[dict]:
    """RTT on one checkpoint, `name` in `state`: results per (learning rate, V split, scored epoch). The model ends with
    its starting weights.

    The order of T is the same for every checkpoint, learning rate and seed-mate, so that checkpoints are compared on
    equal terms.
    """
    start, looks = weights(model), []
    for index, v_split in enumerate(v_splits_of(facts, settings)):
        retrain = [fact for fact in facts if fact.split != v_split]
        rng = np.random.default_rng([seed, 30, index])
        items = training_passes(
            retrain, settings.loss, settings.epochs, settings.batch_size, tokenizer, rng, settings.samples
        )
        per_epoch = len(items) // settings.batch_size // settings.epochs
        ends = [per_epoch * epoch for epoch in settings.score_epochs or range(1, settings.epochs + 1)]
        for learning_rate in settings.learning_rates:
            run = f"{name}-{v_split}-{learning_rate:g}"
            keys = {step: f"{run} {step}" for step in ends}
            looks += keys.values()

            def score(step, model, keys=keys, v_split=v_split, learning_rate=learning_rate, per_epoch=per_epoch):
                if keys[step] not in state.results:
                    look = {"lr": learning_rate, "v_split": v_split, "epoch": step // per_epoch, "step": step}
                    role = lambda asked: "V" if asked.split == v_split else "T"  # noqa: E731
                    state.keep(keys[step], result(model, scorer, role, **look))

            if run not in state.results:
                model.load_state_dict(start)
                rates, at = settings.at(learning_rate), state.training(run)
                losses = train(model, tokenizer, items, plain_loss, rates, seed, ends, score, "RTT", at)
                state.keep(run, {"lr": learning_rate, "effective_update": effective_update(losses)})
                if at and distributed.is_main():
                    shutil.rmtree(at, ignore_errors=True)
            progress(count_tokens(items))
    model.load_state_dict(start)
    return [state.results[key] for key in looks]


def run(args: argparse.Namespace) -> int:
    """Attack every target; a checkpoint that two budgets share is attacked once."""
    spec = load_spec(args.spec, "attack")
    if len(args.evals) != len(spec.targets) or not len(args.chosen) == len(args.point_choices) == len(
        spec.point_choices
    ):
        raise UserError(
            f"{args.spec}: the spec has {len(spec.targets)} targets and {len(spec.point_choices)} methods; give as many "
            "--evals, and as many --chosen and --point choices"
        )
    manifest = Manifest("attack", spec)
    facts = read_facts(args.facts)
    prepare_torch(spec.seed)
    model, tokenizer = load(args.source, start_dtype(spec.rtt.precision))
    if spec.rtt.train_layers is not None:
        freeze_layers(model, spec.rtt.train_layers)
    scorer = scorer_of(spec, tokenizer, facts)
    chosen = _chosen(spec, args.chosen, args.point_choices)
    starts = [chosen[target.method, target.retain_budget] if target.method else ORIGINAL for target in spec.targets]
    v_splits = v_splits_of(facts, spec.rtt)
    runs = len({point for point, _ in filter(None, starts)}) * len(spec.rtt.learning_rates) * len(v_splits)
    progress = Countdown(runs)
    state = State(args.state, {"run": spec.run_id, "code": code_version("attack")})
    attacked: dict[tuple, list[dict]] = {}
    for target, start, path in zip(spec.targets, starts, args.evals, strict=True):
        point, weights_file = start or (None, None)
        if start and point not in attacked:
            if weights_file:
                load_weights(model, weights_file)
            attacked[point] = attack(
                model, scorer, tokenizer, facts, spec.rtt, spec.seed, progress, state, f"{point[0]}-{point[1]}"
            )  # fmt: skip
        attacked_sha256 = sha256(weights_file) if weights_file else model_hash(args.source)
        write_eval(
            path,
            kind="rtt",
            run_id=f"{spec.run_id}.{target.name}",
            labels=attack_labels(spec, target),
            spec=spec,
            step="attack",
            facts_sha256=sha256(args.facts),
            model_sha256=attacked_sha256 if start else None,
            results=attacked[point] if start else [],
            status="ok" if start else "none_within_budget",
        )
    moved: dict[float, list[float]] = {}
    for kept in state.results.values():
        if "effective_update" in kept:
            moved.setdefault(kept["lr"], []).append(kept["effective_update"])
    updates = {f"{rate:g}": sum(shares) / len(shares) for rate, shares in moved.items()}
    manifest.write(args.manifest, model, rtt_runs=runs, effective_update=updates, tokens=progress.tokens)
    state.finish()
    return 0


ORIGINAL = (("original", 0), None)  # as loaded


def _chosen(spec: AttackSpec, folders: list[str], point_choices: list[str]) -> dict:
    """Return {(method, budget): ((run, step), weights of that point), or None where the budget admits none}.

    The wrong model must never be attacked: folder and point choice have to be of the choice that the spec names.
    """
    points = {}
    for choice, folder, path in zip(spec.point_choices, folders, point_choices, strict=True):
        point_choice = read_json(path)
        for place, found in ((folder, Path(folder).name), (path, point_choice["run_id"])):
            if found != choice.run_id:
                raise UserError(f"{place}: found {found}, expected the {choice.method} point choice {choice.run_id}")
        for budget, point in point_choice["selected"].items():
            file = Path(folder) / f"{budget_name(float(budget))}.safetensors"
            points[choice.method, float(budget)] = ((point["run"], point["step"]), file) if point else None
    return points


class Countdown:
    """Says after each RTT run how many are left, and about how long they take."""

    def __init__(self, runs: int):
        self.runs, self.done, self.tokens, self.begin = runs, 0, 0, time.monotonic()

    def __call__(self, tokens: int) -> None:
        """Count one run, which trained on so many tokens."""
        self.done += 1
        self.tokens += tokens
        left = (time.monotonic() - self.begin) / self.done * (self.runs - self.done)
        print(f"RTT run {self.done} of {self.runs}, about {left:.0f} s left", file=sys.stderr, flush=True)

"""Step `attack`: RTT on the checkpoints of one arm. One process; the weights are restored between its runs.

For every checkpoint, learning rate and V split: fine-tune on the MCQs of the other splits (T), score all questions
after each epoch.

Inputs: an AttackSpec, the original model, the canonical facts, and for unlearned targets the trajectories' points and
selections. Outputs: one evaluation JSON (kind `rtt`) per target, in the spec's order; a manifest.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from rtt.corpus import count_tokens, fixed_mcqs
from rtt.data.facts import read_facts
from rtt.errors import UserError
from rtt.files import read_json, sha256
from rtt.losses import plain_loss
from rtt.models import WEIGHTS, load, load_weights, weights
from rtt.record import Manifest, attack_labels, result, write_eval
from rtt.score import Scorer
from rtt.specs import AttackSpec, load_spec
from rtt.train import prepare_torch, train
from rtt.unlearn import point_path


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
        "--points", nargs="*", default=[], help="folders of the points, in the order of the spec's methods"
    )
    parser.add_argument("--selections", nargs="*", default=[], help="selection files, in the same order")
    parser.add_argument(
        "--evals", nargs="+", required=True, help="evaluation JSON to write, in the order of the spec's targets"
    )
    parser.add_argument("--manifest", required=True)


def attack(model, tokenizer, facts, settings, seed: int, progress) -> list[dict]:
    """RTT on one checkpoint: results per (learning rate, V split, epoch). The model ends with its starting weights.

    The order of T is the same for every checkpoint, learning rate and seed-mate, so that checkpoints are compared on
    equal terms.
    """
    start, results = weights(model), []
    scorer = Scorer(tokenizer, facts)
    splits = sorted({fact.split for fact in facts})
    for index, v_split in enumerate(splits):
        retrain = [fact for fact in facts if fact.split != v_split]
        rng = np.random.default_rng([seed, 30, index])
        items = fixed_mcqs(retrain, "all", settings.epochs, settings.batch_size, tokenizer, rng)
        per_epoch = len(items) // settings.batch_size // settings.epochs
        for learning_rate in settings.learning_rates:
            model.load_state_dict(start)

            def score(step, v_split=v_split, learning_rate=learning_rate, per_epoch=per_epoch):
                role = {split: "V" if split == v_split else "T" for split in splits}
                epoch = step // per_epoch
                scores = result(
                    model, scorer, lambda f: role[f.split], lr=learning_rate, v_split=v_split, epoch=epoch, step=step
                )
                results.append(scores)

            ends = range(per_epoch, per_epoch * settings.epochs + 1, per_epoch)
            train(model, tokenizer, items, plain_loss, settings.at(learning_rate), seed, ends, score, "RTT")
            progress(count_tokens(items))
    model.load_state_dict(start)
    return results


def run(args: argparse.Namespace) -> int:
    """Attack every target; a checkpoint that two budgets share is attacked once."""
    spec = load_spec(args.spec, "attack")
    if len(args.evals) != len(spec.targets) or not len(args.points) == len(args.selections) == len(spec.unlearned):
        raise UserError(
            f"{args.spec}: the spec has {len(spec.targets)} targets and {len(spec.unlearned)} methods; give as many "
            "--evals, and as many --points and --selections"
        )
    manifest = Manifest("attack", spec)
    facts = read_facts(args.facts)
    prepare_torch(spec.seed)
    model, tokenizer = load(args.source)
    points = _selected_points(spec, args.points, args.selections)
    starts = [
        points[target.method, target.retain_budget] if target.method else Path(args.source, WEIGHTS)
        for target in spec.targets
    ]
    runs = len({start for start in starts if start}) * len(spec.rtt.learning_rates) * len({f.split for f in facts})
    progress = Countdown(runs)
    attacked: dict[Path | None, list[dict]] = {None: []}
    for target, start, path in zip(spec.targets, starts, args.evals, strict=True):
        if start not in attacked:
            load_weights(model, start)
            attacked[start] = attack(model, tokenizer, facts, spec.rtt, spec.seed, progress)
        write_eval(
            path,
            kind="rtt",
            run_id=f"{spec.run_id}.{target.name}",
            labels=attack_labels(spec, target),
            spec=spec,
            step="attack",
            facts_sha256=sha256(args.facts),
            model_sha256=sha256(start) if start else None,
            results=attacked[start],
            status="ok" if start else "none_within_budget",
        )
    manifest.write(args.manifest, model, rtt_runs=runs, tokens=progress.tokens)
    return 0


def _selected_points(spec: AttackSpec, folders: list[str], selections: list[str]) -> dict:
    """Return {(method, budget): weights of the selected point, or None where the budget admits none}.

    The wrong model must never be attacked: folder and selection have to be of the trajectory that the spec names.
    """
    points = {}
    for unlearned, folder, path in zip(spec.unlearned, folders, selections, strict=True):
        selection = read_json(path)
        for place, found in ((folder, Path(folder).name), (path, selection["run_id"])):
            if found != unlearned.run_id:
                raise UserError(f"{place}: found {found}, expected the {unlearned.method} run {unlearned.run_id}")
        for budget, step in selection["selected"].items():
            points[unlearned.method, float(budget)] = None if step is None else point_path(folder, step)
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

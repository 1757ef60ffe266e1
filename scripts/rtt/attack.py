"""Step `attack`: RTT on the checkpoints of one arm. One process; the weights are restored between its runs.

For every checkpoint, learning rate and V split: fine-tune on the MCQs of the other splits (T), score all questions
after each epoch.

Inputs: an AttackSpec, the original model, the canonical facts, and for unlearned targets the trajectories' points and
selections. Outputs: one evaluation JSON (kind `rtt`) per target, in the spec's order; a manifest.
"""

import argparse
import copy
import sys
import time

import numpy as np

from rtt.corpus import fixed_mcqs
from rtt.data.facts import read_facts
from rtt.errors import UserError
from rtt.files import read_json, sha256
from rtt.losses import plain_loss
from rtt.models import load, load_weights, model_hash, weights
from rtt.record import Manifest, attack_labels, result, write_eval
from rtt.score import Scorer
from rtt.specs import load_spec
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
            progress()
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
    original, tokenizer = load(args.source)
    points = dict(zip(spec.unlearned, args.points, strict=True))
    selected = {
        method: read_json(path)["selected"] for method, path in zip(spec.unlearned, args.selections, strict=True)
    }

    def checkpoint(target) -> tuple[str, int] | None:
        """Return what identifies a target's weights: (method, step), or None for the original's own."""
        return (target.method, selected[target.method][str(target.retain_budget)]) if target.method else None

    wanted = {checkpoint(target) for target in spec.targets}
    runs = (
        sum(key is None or key[1] is not None for key in wanted)
        * len(spec.rtt.learning_rates)
        * len({f.split for f in facts})
    )
    begin, done = time.monotonic(), 0

    def progress():
        nonlocal done
        done += 1
        left = (time.monotonic() - begin) / done * (runs - done)
        print(f"RTT run {done} of {runs}, about {left:.0f} s left", file=sys.stderr, flush=True)

    attacked: dict = {}
    for target, path in zip(spec.targets, args.evals, strict=True):
        key = checkpoint(target)
        missing = key is not None and key[1] is None
        source_hash = model_hash(args.source)
        if key is not None and not missing:
            source_hash = sha256(point_path(points[key[0]], key[1]))
        if key not in attacked:
            model = copy.deepcopy(original)
            if key is not None and not missing:
                load_weights(model, point_path(points[key[0]], key[1]))
            attacked[key] = [] if missing else attack(model, tokenizer, facts, spec.rtt, spec.seed, progress)
        write_eval(
            path, kind="rtt", run_id=f"{spec.run_id}.{target.name}", labels=attack_labels(spec, target), spec=spec,
            step="attack", facts_sha256=sha256(args.facts), model_sha256=None if missing else source_hash,
            results=attacked[key], status="none_within_budget" if missing else "ok",
        )  # fmt: skip
    manifest.write(args.manifest, rtt_runs=done)
    return 0

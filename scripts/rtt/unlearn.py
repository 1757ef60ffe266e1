"""Step `unlearn`: one method along one trajectory; at each point the weights are kept and scored.

Inputs: an UnlearnSpec, the original model, the canonical facts. Outputs: a folder with `step-<n>.safetensors` per
point, an evaluation JSON (kind `unlearned`, one result per point), a manifest.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np

from rtt.corpus import count_tokens, unlearning_pairs
from rtt.data.facts import read_facts
from rtt.files import sha256
from rtt.methods import METHODS
from rtt.models import load, model_hash, save_weights
from rtt.record import Manifest, forget_or_retain, result, unlearn_labels, write_eval
from rtt.score import Scorer
from rtt.specs import load_spec
from rtt.train import prepare_torch, train


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `unlearn`."""
    parser.add_argument("--spec", required=True)
    parser.add_argument("--source", required=True, help="folder of the original model")
    parser.add_argument("--facts", required=True, help="canonical facts to unlearn, T and V together")
    parser.add_argument("--retain", required=True, help="canonical retain facts (splits train and held_out)")
    parser.add_argument("--points", required=True, help="folder to write the points' weights to")
    parser.add_argument("--eval", required=True, help="evaluation JSON to write")
    parser.add_argument("--manifest", required=True)


def point_path(folder: str | Path, step: int) -> Path:
    """Return where a trajectory keeps the weights of one point."""
    return Path(folder) / f"step-{step}.safetensors"


def run(args: argparse.Namespace) -> int:
    """Unlearn, keep and score."""
    spec = load_spec(args.spec, "unlearn")
    manifest, settings = Manifest("unlearn", spec), spec.settings
    facts, retain = read_facts(args.facts), read_facts(args.retain)
    train_retain = [fact for fact in retain if fact.split == "train"]
    held_out = [fact for fact in retain if fact.split == "held_out"]
    prepare_torch(spec.seed)
    model, tokenizer = load(args.source)
    if settings.train_layers is not None:
        model.requires_grad_(False)
        for layer in settings.train_layers:
            model.model.layers[layer].requires_grad_(True)
    if settings.freeze_embeddings:
        model.get_input_embeddings().requires_grad_(False)
    method = METHODS[spec.method](model, settings, spec.seed)
    rng = np.random.default_rng([spec.seed, 20])
    items = unlearning_pairs(facts, train_retain, method, settings, tokenizer, rng)
    scorer, role, results = Scorer(tokenizer, [*facts, *held_out]), forget_or_retain(held_out), []

    shutil.rmtree(args.points, ignore_errors=True)

    def keep_and_score(step: int) -> None:
        save_weights(model, point_path(args.points, step))
        results.append(result(model, scorer, role, lr=settings.learning_rate, step=step))

    losses = train(
        model,
        tokenizer,
        items,
        method,
        settings,
        spec.seed,
        settings.points,
        keep_and_score,
        f"unlearning ({spec.method})",
    )
    write_eval(
        args.eval, kind="unlearned", run_id=spec.run_id, labels=unlearn_labels(spec), spec=spec, step="unlearn",
        facts_sha256=sha256(args.facts), model_sha256=model_hash(args.source), results=results,
    )  # fmt: skip
    manifest.write(args.manifest, model, losses=[losses[0], losses[-1]], tokens=count_tokens(items))
    return 0

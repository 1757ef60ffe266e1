"""Step `pretrain`: train the miniature from scratch on forget facts and retain facts, then score it.

Inputs: a PretrainSpec, the canonical facts of both datasets. Outputs: the model's folder, an evaluation JSON (kind
`original`), a manifest.
"""

import argparse

import numpy as np

from rtt.corpus import count_tokens, pretraining_documents
from rtt.data.facts import read_facts
from rtt.files import sha256
from rtt.losses import plain_loss
from rtt.models import miniature, miniature_tokenizer, model_hash, save
from rtt.record import Manifest, forget_or_retain, result, source_labels, write_eval
from rtt.score import Scorer
from rtt.specs import Source, load_spec
from rtt.train import prepare_torch, train


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `pretrain`."""
    parser.add_argument("--spec", required=True)
    parser.add_argument("--facts", required=True, help="canonical facts to learn")
    parser.add_argument("--retain", required=True, help="canonical retain facts (splits train and held_out)")
    parser.add_argument("--model", required=True, help="folder to write the model to")
    parser.add_argument("--eval", required=True, help="evaluation JSON to write")
    parser.add_argument("--manifest", required=True)


def write_original(spec: Source, model, tokenizer, facts, retain, args: argparse.Namespace) -> None:
    """Save a model that is ready to be unlearned, with its scores on the forget facts and the held-out retain facts."""
    held_out = [fact for fact in retain if fact.split == "held_out"]
    scores = result(model, Scorer(tokenizer, [*facts, *held_out]), forget_or_retain(held_out))
    save(model, tokenizer, args.model)
    write_eval(
        args.eval, kind="original", run_id=spec.run_id, labels=source_labels(spec), spec=spec, step=spec.kind,
        facts_sha256=sha256(args.facts), model_sha256=model_hash(args.model), results=[scores],
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Train and score."""
    spec = load_spec(args.spec, "pretrain")
    manifest = Manifest("pretrain", spec)
    facts, retain = read_facts(args.facts), read_facts(args.retain)
    prepare_torch(spec.seed)
    tokenizer = miniature_tokenizer()
    model = miniature(spec.model, len(tokenizer))
    items = pretraining_documents([*facts, *retain], spec.training, tokenizer, np.random.default_rng([spec.seed, 10]))
    losses = train(model, tokenizer, items, plain_loss, spec.training, spec.seed, title="pretraining")
    write_original(spec, model, tokenizer, facts, retain, args)
    manifest.write(args.manifest, model, losses=[losses[0], losses[-1]], tokens=count_tokens(items))
    return 0

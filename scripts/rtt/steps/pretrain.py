"""Step `pretrain`: train the miniature from scratch on forget facts and retain facts, then score it.

Inputs: a PretrainSpec, the canonical facts of both datasets. Outputs: the model's folder, an evaluation JSON (kind
`original`), a manifest.
"""

import argparse

import numpy as np

from rtt.code_version import code_version
from rtt.data.facts import read_facts
from rtt.data.retain import read_retain
from rtt.models.load import save
from rtt.models.miniature import miniature, miniature_tokenizer
from rtt.scoring.manifest import Manifest
from rtt.steps.original import configure_training, scores_of, write_original
from rtt.study.specs import load_spec
from rtt.training.health import effective_update
from rtt.training.losses import plain_loss
from rtt.training.order import count_tokens, pretraining_documents
from rtt.training.resume import State
from rtt.training.train import prepare_torch, train


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `pretrain`."""
    configure_training(parser)


def run(args: argparse.Namespace) -> int:
    """Train the miniature, then score it."""
    spec = load_spec(args.spec, "pretrain")
    manifest = Manifest("pretrain", spec)
    facts, (learn, held_out) = read_facts(args.facts), read_retain(spec.retain, args)
    prepare_torch(spec.seed)
    tokenizer = miniature_tokenizer(spec.model.tokenizer)
    model = miniature(spec.model, len(tokenizer))
    rng = np.random.default_rng([spec.seed, 10])
    items = pretraining_documents([*facts, *held_out, *learn], spec.training, tokenizer, rng)
    scores, last = [], len(items) // spec.training.batch_size

    def score(step, model):
        scores.append(scores_of(spec, model, tokenizer, facts, learn, held_out))

    state = State(args.state, {"run": spec.run_id, "code": code_version(spec.kind)})
    training, at = spec.training, state.training("training")
    losses = train(model, tokenizer, items, plain_loss, training, spec.seed, [last], score, "pretraining", at)
    save(model, tokenizer, args.model)
    write_original(spec, scores[0], args)
    manifest.write(
        args.manifest,
        model,
        read=[args.facts, args.retain, args.held_out],
        made=[args.model, args.eval],
        losses=[losses[0], losses[-1]],
        effective_update=effective_update(losses),
        tokens=count_tokens(items),
    )
    state.finish()
    return 0

"""Step `teach`: teach forget facts to a base model after its pretraining, then score it.

Two ways: arm `taught`, as the paper does (fixed MCQs, loss on letter and answer, no replay); arm `taught_same_data`,
the pretraining phase again with these facts in the place of the first ones, the same retain facts beside them as
replay.

Inputs: a TeachSpec, the base model, the canonical facts. Outputs: the model's folder, an evaluation JSON (kind
`original`), a manifest.
"""

import argparse

import numpy as np

from rtt import pretrain
from rtt.config import Pretraining
from rtt.corpus import count_tokens, fixed_mcqs, pretraining_documents
from rtt.data.facts import read_facts
from rtt.losses import plain_loss
from rtt.models import load
from rtt.record import Manifest
from rtt.specs import load_spec
from rtt.train import prepare_torch, train


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `teach`: those of `pretrain`, and the base model."""
    pretrain.configure(parser)
    parser.add_argument("--base", required=True, help="folder of the base model")


def run(args: argparse.Namespace) -> int:
    """Train and score."""
    spec = load_spec(args.spec, "teach")
    manifest = Manifest("teach", spec)
    facts, retain = read_facts(args.facts), read_facts(args.retain)
    prepare_torch(spec.seed)
    model, tokenizer = load(args.base)
    rng, training = np.random.default_rng([spec.seed, 11]), spec.training
    if isinstance(training, Pretraining):
        items = pretraining_documents([*facts, *retain], training, tokenizer, rng)
    else:
        items = fixed_mcqs(facts, "answer", training.epochs, training.batch_size, tokenizer, rng)
    losses = train(model, tokenizer, items, plain_loss, training, spec.seed, title=f"teaching ({spec.arm})")
    pretrain.write_original(spec, model, tokenizer, facts, retain, args)
    manifest.write(args.manifest, model, losses=[losses[0], losses[-1]], tokens=count_tokens(items))
    return 0

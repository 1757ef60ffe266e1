"""Step `teach`: teach forget facts to a base model after its pretraining, then score it.

Arm `taught` teaches as the paper does: fixed texts, no replay. Arm `taught_shuffled` differs in its texts alone: each
epoch shows the choices in a new order, and sentences. Arm `taught_same_data` repeats the pretraining phase with these
facts instead of the first ones, beside the same retain facts (replay).

Inputs: a TeachSpec, the base model, the canonical facts. Outputs: the model's folder, an evaluation JSON (kind
`original`), a manifest.
"""

import argparse

import numpy as np

from rtt.code_version import code_version
from rtt.data.facts import read_facts
from rtt.data.retain import read_retain
from rtt.models.load import freeze_layers, load, save
from rtt.scoring.manifest import Manifest
from rtt.steps.original import configure_training, scores_of, write_original
from rtt.study.settings import Pretraining
from rtt.study.specs import load_spec
from rtt.training.health import effective_update
from rtt.training.losses import plain_loss
from rtt.training.order import count_tokens, pretraining_documents, training_passes
from rtt.training.resume import State
from rtt.training.train import prepare_torch, start_dtype, train


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `teach`: those of `pretrain` and two more."""
    configure_training(parser)
    parser.add_argument("--base", required=True, help="folder of the base model")
    parser.add_argument("--also-taught", nargs="*", default=[], help="files of canonical facts to teach as well")


def run(args: argparse.Namespace) -> int:
    """Teach the base model, then score it."""
    spec = load_spec(args.spec, "teach")
    manifest = Manifest("teach", spec)
    facts, (learn, held_out) = read_facts(args.facts), read_retain(spec.retain, args)
    prepare_torch(spec.seed)
    model, tokenizer = load(args.base, start_dtype(spec.training.precision))
    if spec.training.train_layers is not None:
        freeze_layers(model, spec.training.train_layers)
    rng, training = np.random.default_rng([spec.seed, 11]), spec.training
    if isinstance(training, Pretraining):
        items = pretraining_documents([*facts, *held_out, *learn], training, tokenizer, rng)
    else:
        also = [fact for path in args.also_taught for fact in read_facts(path)]
        items = training_passes(
            [*facts, *also], training.loss, training.epochs, training.batch_size, tokenizer, rng, training.samples,
            training.forms(), **training.shown(),
        )  # fmt: skip
    scores, last = [], len(items) // training.batch_size

    def score(step, model):
        scores.append(scores_of(spec, model, tokenizer, facts, learn, held_out))

    state = State(args.state, {"run": spec.run_id, "code": code_version(spec.kind)})
    title, at = f"teaching ({spec.arm})", state.training("training")
    losses = train(model, tokenizer, items, plain_loss, training, spec.seed, [last], score, title, at)
    save(model, tokenizer, args.model)
    write_original(spec, scores[0], args)
    manifest.write(
        args.manifest,
        model,
        read=[args.facts, args.retain, args.held_out, args.base, *args.also_taught],
        made=[args.model, args.eval],
        losses=[losses[0], losses[-1]],
        effective_update=effective_update(losses),
        tokens=count_tokens(items),
    )
    state.finish()
    return 0

"""Step `original`: score a model as it is: a pretrained one before it unlearns, or that of a control before an attack.

It is asked the spec's facts, and held-out retain facts.

Inputs: an OriginalSpec, the model's folder, canonical facts. Outputs: an evaluation JSON (kind `original`), a manifest.
"""

import argparse
from collections.abc import Callable, Sequence

from rtt.code_version import code_version
from rtt.data import retain
from rtt.data.facts import Fact, read_facts
from rtt.errors import UserError
from rtt.files import sha256
from rtt.models.load import load, model_hash
from rtt.scoring.manifest import Manifest
from rtt.scoring.score import Scorer
from rtt.scoring.write import forget_or_retain, look, source_labels, write_eval
from rtt.study.specs import PretrainSpec, Source, load_spec
from rtt.training.train import prepare_torch, start_dtype


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `original`."""
    parser.add_argument("--spec", required=True)
    parser.add_argument("--model", required=True, help="folder of the model")
    parser.add_argument("--facts", required=True, help="canonical facts to ask")
    retain.configure(parser)
    parser.add_argument("--eval", required=True, help="evaluation JSON to write")
    parser.add_argument("--manifest", required=True)


def configure_training(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a step that trains a model on facts: `pretrain`, `teach`."""
    parser.add_argument("--spec", required=True)
    parser.add_argument("--facts", required=True, help="canonical facts to learn")
    retain.configure(parser)
    parser.add_argument("--model", required=True, help="folder to write the model to")
    parser.add_argument("--eval", required=True, help="evaluation JSON to write")
    parser.add_argument("--manifest", required=True)
    parser.add_argument("--state", help="folder from which a killed run resumes; none: nothing is kept")


def scorer_of(spec, tokenizer, facts, learn, held_out=(), answers: Sequence[str] | None = None, **more) -> Scorer:
    """Return the scorer of a spec's probes for these facts, and for those held out and their sentences.

    `learn` is what stands in the retain loss. answers: ask these of the spec's probes alone. `more` are keywords of
    Scorer.
    """
    scores, shown = spec.scores, retain.shots(spec.scores, learn, spec.seed)
    probes = [probe for probe in scores.probes if answers is None or probe in answers]
    more |= {"precision": scores.precision, "shots": shown, "held_out": held_out}
    return Scorer(tokenizer, [*facts, *held_out], probes, scores.bare_letter, **more)


def scores_of(spec: Source, model, tokenizer, facts, learn, held_out) -> dict:
    """Return the look of a model before unlearning: its scores on the forget facts and the held-out retain facts."""
    return look(model, scorer_of(spec, tokenizer, facts, learn, held_out), role_of(spec, facts, held_out))


def role_of(spec: Source, facts: Sequence[Fact], held_out: Sequence[Fact]) -> Callable[[Fact], str]:
    """Return the function that tells the role of a fact before an attack: V, retain or choice.

    Raises UserError where a split that the study sets apart for the point choice has no facts, or where all are.
    """
    apart, splits = spec.choice_splits, {fact.split for fact in facts}
    if spec.arm == "control":  # the facts of another dataset may lack such a split
        return forget_or_retain(held_out, apart)
    if (absent := [name for name in apart if name not in splits]) or splits <= set(apart):
        found = f"no fact in {', '.join(absent)}" if absent else "no fact in any other split"
        raise UserError(
            f"point_choice.splits: {', '.join(apart)}: {found}; {spec.facts.dataset} has {', '.join(sorted(splits))}"
        )
    return forget_or_retain(held_out, apart)


def write_original(spec: Source, scores: dict, args: argparse.Namespace) -> None:
    """Write the evaluation JSON of the model in `args.model`."""
    write_eval(
        args.eval, kind="original", run_id=spec.run_id, labels=source_labels(spec), spec=spec,
        code=code_version(spec.kind), facts_sha256=sha256(args.facts), model_sha256=model_hash(args.model),
        looks=[scores],
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Score the model, and write its evaluation and manifest."""
    spec = load_spec(args.spec, "original")
    manifest = Manifest("original", spec)
    facts, (learn, held_out) = read_facts(args.facts), retain.read_retain(spec.retain, args)
    prepare_torch(spec.seed)
    base = spec.base
    dtype = start_dtype(base.training.precision) if isinstance(base, PretrainSpec) else base.model.dtype
    model, tokenizer = load(args.model, dtype)
    write_original(spec, scores_of(spec, model, tokenizer, facts, learn, held_out), args)
    read = [args.model, args.facts, args.retain, args.held_out]
    manifest.write(args.manifest, model, read=read, made=[args.eval], tokens=0)
    return 0

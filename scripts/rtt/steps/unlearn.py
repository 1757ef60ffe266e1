"""Step `unlearn`: run one method along one trajectory; score each point, and keep its weights while it may be chosen.

Inputs: an UnlearnSpec, the original model with its evaluation, canonical facts. Outputs: a folder with
`step-<n>.safetensors` of the points that some retain budget may choose (`rtt.point_choice.kept_weights`), an evaluation
JSON (kind `unlearned`, one look per point), a manifest. An external model is scored as it is, as a point at step 0.
"""

import argparse
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from rtt import checksums, distributed
from rtt.code_version import code_version
from rtt.data import retain
from rtt.data.facts import read_facts
from rtt.errors import UserError
from rtt.files import sha256
from rtt.models.adapter import merge
from rtt.models.architecture import language_model
from rtt.models.checkpoint import check_names, empty_model
from rtt.models.load import freeze_layers, load, model_hash, not_finite, read_model
from rtt.models.lora import adapted, check_mergeable, merged
from rtt.models.points import to_write
from rtt.point_choice.choose import describe, retain_accuracies
from rtt.point_choice.kept_weights import KeptWeights, damaged_weights
from rtt.scoring.manifest import Manifest
from rtt.scoring.read import points_of, read_eval
from rtt.scoring.write import look, unlearn_labels, write_eval
from rtt.stats.point_rule import best
from rtt.steps.original import role_of, scorer_of
from rtt.study import plugins
from rtt.study.digests import folder_digest
from rtt.study.model_folder import check_folder, is_adapter
from rtt.study.specs import External, UnlearnSpec, load_spec
from rtt.training.health import effective_update
from rtt.training.order import count_tokens, point_steps, unlearning_pairs
from rtt.training.resume import State
from rtt.training.train import prepare_torch, start_dtype, train


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `unlearn`."""
    parser.add_argument("--spec", required=True)
    parser.add_argument("--source", required=True, help="folder of the original model")
    parser.add_argument("--original", required=True, help="its evaluation JSON")
    parser.add_argument("--facts", required=True, help="canonical facts to unlearn, T and V together")
    parser.add_argument("--texts", nargs="*", default=[], help="plain texts (JSONL) to unlearn instead of the facts'")
    parser.add_argument("--external", nargs="*", default=[], help="folder of an external model from the hub")
    retain.configure(parser)
    parser.add_argument("--points", required=True, type=Path, help="folder to write the points' weights to")
    parser.add_argument("--siblings", nargs="*", default=[], type=Path, help="the same of the other trajectories")
    parser.add_argument("--group", required=True, help="id of the point choice that the trajectories share")
    parser.add_argument("--eval", required=True, help="evaluation JSON to write")
    parser.add_argument("--state", type=Path, help="folder from which a killed run resumes; none: nothing is kept")
    parser.add_argument("--manifest", required=True)


def kept_weights(spec: UnlearnSpec, args: argparse.Namespace) -> KeptWeights:
    """Return the trajectory's weights that its point choice may still take, also those from before a kill."""
    before = retain_accuracies(read_eval(args.original), 0, spec.point_choice)
    folder, siblings = args.points, args.siblings
    if args.state:  # --points is an output, which Snakemake deletes before each attempt
        folder = args.state / spec.run_id
        siblings = [at for one in siblings for at in (one, args.state.parent / one.name / one.name)]
    else:
        shutil.rmtree(folder, ignore_errors=True)
    args.points.parent.mkdir(parents=True, exist_ok=True)
    lock = args.points.parent / f".{args.group}.lock"
    return KeptWeights(
        folder, siblings, lock, lambda points: best(points, before, spec.retain_budgets, spec.point_choice.rule)
    )


def trained(spec, model, tokenizer, forget, learn, score, state) -> dict:
    """Unlearn `forget` (facts or plain texts), with `score(step, model)` at each point; return the manifest's keys."""
    settings, method = spec.settings, method_of(spec, model)
    rng = np.random.default_rng([spec.seed, 20, *([spec.repeat] if spec.repeat else [])])
    items = unlearning_pairs(forget, learn, method, settings, tokenizer, rng)
    steps, title = point_steps(settings, len(forget), not spec.texts), f"unlearning ({spec.method})"
    checkpoints = state.training("unlearning")

    def at_point(step, model):
        with method.at_point(model), merged(model):
            score(step, model)

    with adapters_of(spec, model):
        losses = train(model, tokenizer, items, method.step, settings, spec.seed, steps, at_point, title, checkpoints)
    return {
        "losses": [losses[0], losses[-1]],
        "effective_update": effective_update(losses),
        "tokens": count_tokens(items),
    }


def method_of(spec: UnlearnSpec, model):
    """Freeze what is not trained, and return the method."""
    settings = spec.settings
    if settings.train_layers is not None:
        freeze_layers(model, settings.train_layers)
    if settings.freeze_embeddings:
        model.get_input_embeddings().requires_grad_(False)
    return plugins.methods()[spec.method](model, settings, spec.seed)


@contextmanager
def adapters_of(spec: UnlearnSpec, model) -> Iterator[None]:
    """Give the layers that the method trains adapters meanwhile, where the spec asks for them."""
    if (lora := spec.settings.lora) is None:
        yield
        return
    seed = np.random.default_rng([spec.seed, 21, *([spec.repeat] if spec.repeat else [])]).integers(2**31)
    with adapted(model, lora.rank, lora.alpha, lora.targets, int(seed)):
        check_mergeable(model)
        yield


def plain_texts(spec: UnlearnSpec, paths: list[str]) -> list[str]:
    """Return the texts that a spec unlearns instead of its facts' own; [] for most specs."""
    if len(paths) != len(spec.texts):
        raise UserError(f"--texts: found {len(paths)} files, the spec names {len(spec.texts)}")
    pairs = zip(spec.texts, paths, strict=True)
    return [text for part, path in pairs for text in retain.read_texts(path, part.max_characters)]


def run(args: argparse.Namespace) -> int:
    """Unlearn along the spec's trajectory, or score its external model."""
    spec = load_spec(args.spec, "unlearn")
    code = code_version("unlearn", spec.method)
    manifest, settings = Manifest("unlearn", spec, spec.method), spec.settings
    facts, (learn, held_out) = read_facts(args.facts), retain.read_retain(spec.source.retain, args)
    prepare_torch(spec.seed)
    external, lora = isinstance(settings, External), getattr(settings, "lora", None)
    model, tokenizer = load(args.source, "fp32" if external else start_dtype(settings.precision))
    if external:
        take_weights(model, args.source, external_folder(settings, args.external))
    scorer = scorer_of(spec.source, tokenizer, facts, learn, held_out)
    role = role_of(spec.source, facts, held_out)
    owner = {"run": spec.run_id, "code": code}
    state = State(args.state, owner, lambda: damaged_weights(args.state / spec.run_id))
    kept = kept_weights(spec, args) if distributed.is_main() else None

    def score(step: int, model) -> None:
        if str(step) in state.results:  # scored before a kill, and its weights kept
            return
        scored, write = look(model, scorer, role, step=step), to_write(model, lora, args.source)
        if kept:
            scores = points_of(Path(args.eval), spec.run_id, None, "unlearned", [scored])
            kept.add(describe(scores, 0, spec.point_choice), write)
        state.keep(str(step), scored)

    if external:
        score(0, model)
        done = {"tokens": 0, "external_model": settings.canonical()}
    else:
        done = trained(spec, model, tokenizer, plain_texts(spec, args.texts) or facts, learn, score, state)
    looks = sorted(state.results.values(), key=lambda scored: scored["step"])
    write_eval(
        args.eval, kind="unlearned", run_id=spec.run_id, labels=unlearn_labels(spec), spec=spec, code=code,
        facts_sha256=sha256(args.facts), model_sha256=model_hash(args.source), looks=looks,
    )  # fmt: skip
    if kept:
        kept.finish(args.points)
    read = [args.source, args.original, args.facts, *args.texts, args.retain, args.held_out]
    manifest.write(args.manifest, model, read=read, made=[args.eval, args.points], **done)
    state.finish()
    return 0


def external_folder(settings: External, fetched: list[str]) -> str:
    """Return the folder of an external model. Raises UserError when it is not what the spec names."""
    if settings.fetched:
        if [Path(path).name for path in fetched] != [settings.fetched.run_id]:
            raise UserError(f"--external: found {fetched}, expected the folder of {settings.fetched.run_id}")
        return fetched[0]
    if folder_digest(settings.external_model) != settings.digest:
        raise UserError(f"{settings.external_model}: changed since the study was started; start it again")
    return settings.external_model


def take_weights(model, source: str, path: str) -> None:
    """Load the weights of the folder `path` into the original `model`, whose config and tokenizer stay.

    An adapter is merged into it. Raises UserError unless the folder's model has the same parameters as the original,
    all of them finite.
    """
    if distributed.is_main():
        checksums.verify(path, f"delete {path} and start again, so that it is made once more")
    if is_adapter(path):
        merge(model, path)
    else:
        check_folder(path, tokenizer=False)
        empty = empty_model(path)
        check_names(path, empty)
        _same_parameters(language_model(empty), model, path, source)
        other = language_model(read_model(path, model.dtype))
        _same_parameters(other, model, path, source)
        model.load_state_dict(other.state_dict())
    if broken := not_finite(model):
        raise UserError(f"{path}: the weights {broken} hold NaN or infinity, so the model gives no scores")


def _same_parameters(one, original, path: str, source: str) -> None:
    """Raise UserError for a parameter that only one of two models has, or that has another shape."""
    shapes = [{name: tuple(p.shape) for name, p in model.named_parameters()} for model in (one, original)]
    if odd := sorted(set(shapes[0].items()) ^ set(shapes[1].items())):
        raise UserError(
            f"{path}: {odd[0][0]} {list(odd[0][1])} is not in both this model and its original {source}; "
            "name the model that it was unlearned from as the study's model"
        )

"""`python -m rtt check`: validate a study file, or print the schema of study files."""

import argparse
import copy
import json

from rtt.data.size import WORDS
from rtt.errors import UserError
from rtt.planner.before import Before
from rtt.study import plugins
from rtt.study.expand import Runs
from rtt.study.load import load_study, schema
from rtt.study.model_file import ModelFile
from rtt.study.names import DEFAULT_STUDY
from rtt.study.settings import LoRA, Model
from rtt.study.specs import AttackSpec, UnlearnSpec


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `check`."""
    parser.add_argument("study", nargs="?", default=DEFAULT_STUDY, help="study file (default: %(default)s)")
    parser.add_argument("--schema", action="store_true", help="print the JSON schema of study files")


def _check_models(runs: Runs) -> None:
    """Let methods that choose modules, and adapters, look at the study's own model; its weights are not read.

    The dry run judges a model by its type alone, since this needs torch. Raises UserError.
    """
    empty, seen = {}, set()
    for spec in (*runs.unlearn.values(), *runs.attacks.values()):
        group, name = ("attacks", spec.attack) if isinstance(spec, AttackSpec) else ("methods", spec.method)
        lora, model = getattr(spec.settings, "lora", None), spec.source.model
        there = isinstance(model, Model) or model.path
        check = getattr(plugins.methods().get(name), "check_model", None) if isinstance(model, ModelFile) else None
        if not there or not (lora or check):
            continue
        key = model.model_dump_json()
        same = key, name, spec.settings.model_dump_json(exclude={"learning_rate", "retain_coefficient"})
        if same in seen:  # a grid's trajectories, and other seeds, have the same modules
            continue
        seen.add(same)
        try:
            if key not in empty:
                empty[key] = _empty(runs, model)
            if check:
                check(spec.settings, empty[key])
            if lora:
                _check_adapters(spec, lora, copy.deepcopy(empty[key]))
        except UserError as error:
            raise UserError(f"study {runs.study.study}: {group}.{name}: {error}") from None


def _empty(runs: Runs, model: Model | ModelFile):
    """Return a study's model on the meta device."""
    import torch

    from rtt.models.checkpoint import empty_model
    from rtt.models.miniature import miniature

    if isinstance(model, ModelFile):
        return empty_model(runs.root / model.path)
    with torch.device("meta"):
        return miniature(model, WORDS)


def _check_adapters(spec: UnlearnSpec | AttackSpec, lora: LoRA, model) -> None:
    """Raise UserError where no layer of `model`, which is changed, takes the adapters, or one that cannot be merged."""
    from rtt.models.lora import adapted, check_mergeable
    from rtt.steps.unlearn import method_of

    unlearned = isinstance(spec, UnlearnSpec)
    if unlearned:
        method_of(spec, model)
    with adapted(model, lora.rank, lora.alpha, lora.targets, 0):
        if unlearned:
            check_mergeable(model)


def run(args: argparse.Namespace) -> int:
    """Print the schema of study files, or one line about a study that nothing is known against."""
    if args.schema:
        print(json.dumps(schema(), indent=1))
        return 0
    study = load_study(args.study)
    runs = Runs(study)
    Before(runs).check()
    _check_models(runs)
    arms = study.arms or list(dict.fromkeys(task.arm for task in study.tasks))
    external = f", external models {list(study.external_models)}" if study.external_models else ""
    print(
        f"{args.study}: study {study.study}, seeds {study.seeds}, arms {arms}, "
        f"methods {list(study.methods.named)}{external}"
    )
    return 0

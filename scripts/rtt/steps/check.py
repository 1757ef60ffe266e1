"""`python -m rtt check`: validate a study file, or print the schema of study files."""

import argparse
import json

from rtt.errors import UserError
from rtt.planner.before import Before
from rtt.study import plugins
from rtt.study.expand import Runs
from rtt.study.load import load_study, schema
from rtt.study.model_file import ModelFile
from rtt.study.names import DEFAULT_STUDY


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `check`."""
    parser.add_argument("study", nargs="?", default=DEFAULT_STUDY, help="study file (default: %(default)s)")
    parser.add_argument("--schema", action="store_true", help="print the JSON schema of study files")


def _check_models(runs: Runs) -> None:
    """Let methods that choose modules look at the study's own model; its weights are not read.

    The dry run judges a model by its type alone, since this needs torch. Raises UserError.
    """
    empty = {}
    for spec in runs.unlearn.values():
        method, model = plugins.methods().get(spec.method), spec.source.model
        if not isinstance(model, ModelFile) or not model.path or not hasattr(method, "check_model"):
            continue
        from rtt.models.checkpoint import empty_model

        if model.path not in empty:
            empty[model.path] = empty_model(runs.root / model.path)
        try:
            method.check_model(spec.settings, empty[model.path])
        except UserError as error:
            raise UserError(f"study {runs.study.study}: methods.{spec.method}: {error}") from None


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

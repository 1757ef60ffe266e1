"""Functions that the rules share; no rule stands here."""

import os
import re
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

SCRIPTS = os.path.join(workflow.basedir, "scripts")
sys.path.insert(0, SCRIPTS)

from rtt import config as study_config
from rtt import locks
from rtt.codeversion import code_version
from rtt.errors import UserError
from rtt.files import canonical_json, write_text
from rtt.specs import Runs, target_name

# Steps run the code beside this file, whatever else is installed; a conda environment has no other copy of it.
shell.prefix(f"set -euo pipefail; export PYTHONPATH={shlex.quote(SCRIPTS)}; ")


def read_study(workflow):
    """The one study file, with the overrides of `--config`. A mistake stops here, before any job."""
    files = [os.path.relpath(path) for path in workflow.config_settings.configfiles]
    if len(files) > 1:
        raise WorkflowError(f"one study file decides a run, found {len(files)}: {', '.join(files)}")
    path = files[0] if files else os.path.join(os.path.relpath(workflow.basedir), study_config.DEFAULT_STUDY)
    # Snakemake takes True and False alone for truth values; a study file says true and false.
    truth = {"true": True, "false": False}
    overrides = {key: truth.get(str(value), value) for key, value in workflow.config_settings.config.items()}
    try:
        return study_config.load_study(os.path.normpath(path), overrides)
    except UserError as error:
        raise WorkflowError(str(error))


def alternatives(names):
    """A wildcard that is one of these names and nothing else."""
    return "|".join(re.escape(name) for name in names) or "(?!)"


def write_specs(runs, results):
    """Write each run's spec, once; an id holds its spec's hash, so a file that is there is right."""
    for spec in runs.specs():
        path = Path(results, "specs", f"{spec.run_id}.json")
        if not path.exists():
            write_text(path, canonical_json(spec.model_dump(mode="json")) + "\n")
    write_text(Path(results, "plan.json"), canonical_json(runs.plan()) + "\n")
    write_text(Path(results, "study.yaml"), study_config.to_yaml(runs.study))


def spec_file(wildcards):
    """The spec of a run or a dataset."""
    return f"{RESULTS}/specs/{wildcards.get('run') or wildcards.get('data')}.json"


def facts_file(spec):
    """The canonical facts of a dataset."""
    return f"{RESULTS}/data/{spec.run_id}/facts.jsonl"


def model_folder(spec):
    """Where a model's weights lie."""
    return f"{RESULTS}/models/{spec.run_id}"


def weights(path):
    """Weights are the only large outputs: gone when no later step needs them, unless the study keeps them."""
    return directory(path) if STUDY.keep_models else temp(directory(path))


def eval_file(stem):
    """An evaluation JSON."""
    return f"{RESULTS}/evals/{stem}.json"

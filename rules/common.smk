"""Functions that the rules share; no rule stands here."""

import os
import re
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

SCRIPTS = os.path.join(workflow.basedir, "scripts")
sys.path.insert(0, SCRIPTS)

from rtt.planner import resources as cluster
from rtt.runtime import locks, slurm_executor
from rtt.study.load import load_study, to_yaml
from rtt.code_version import code_version
from rtt.errors import UserError
from rtt.files import canonical_json, write_text
from rtt.study.expand import Runs
from rtt.study.names import DEFAULT_STUDY
from rtt.study.specs import TextsSpec

# Steps run the code beside this file, whatever else is installed; a conda environment has no other copy of it.
# A cluster sends SIGTERM to all of a job's processes: shell and tee ignore it, so that they outlive a step that saves.
PREFIX = f"set -euo pipefail; trap '' TERM; export PYTHONPATH={shlex.quote(SCRIPTS)}; "


def machine(study):
    """What training steps take from the environment: it decides no number, so no job is run again for it."""
    launch = {
        "none": "python -m rtt",
        "torchrun": f"torchrun --standalone --shutdown-timeout 3600 --nproc-per-node {study.devices} -m rtt",
        "deepspeed": "deepspeed --no_local_rank $SLOTS --master_port $PORT --module rtt",
    }[study.launcher]
    before = ""
    if study.launcher == "deepspeed":
        # torchrun finds a free port by itself; two jobs of deepspeed on one machine would take the same.
        free = "import socket; s = socket.socket(); s.bind(('', 0)); print(s.getsockname()[1])"
        before = f"PORT=$(python -c {shlex.quote(free)}); SLOTS='--num_gpus {study.devices}'; "
        # With --num_gpus it takes the machine's first GPUs, whoever has them, instead of the job's.
        if study.gpus:
            before += "GPUS=$(printenv CUDA_VISIBLE_DEVICES || true); "
            before += f'[ -z "$GPUS" ] || SLOTS="--include localhost:$(echo $GPUS | cut -d, -f1-{study.devices})"; '
    values = {
        # A miniature takes no GPU from others unless the study says so.
        "RTT_DEVICE": study.device if study.gpus else "cpu",
        "RTT_GPUS": study.gpus,
        "RTT_ATTN_BACKEND": study.attn_backend,
        "RTT_DEEPSPEED": study.deepspeed or "",
        "RTT_MICRO_BATCH": study.micro_batch or "",
        "RTT_PACKING": int(study.packing),
        "RTT_GRADIENT_CHECKPOINTING": int(study.gradient_checkpointing),
        "RTT_CHECKPOINT_MINUTES": study.checkpoint_minutes,
    }
    exports = "".join(f"export {key}={shlex.quote(str(value))}; " for key, value in values.items())
    return f'{exports}{before}export LAUNCH="{launch}"; '


def torch_environment(study):
    """Where steps with torch run under `--software-deployment-method conda`."""
    flash = "-flash" if study.attn_backend == "flash_attention_2" else ""
    return f"../envs/gpu{flash}.yaml" if study.gpus else "../envs/cpu.yaml"


def state_folder(wildcards):
    """Where a training step keeps what it goes on from after a kill."""
    return f"{RESULTS}/state/{wildcards.run}"


# Keys of --config that are no keys of a study.
OPTIONS = ("artifacts", "bundle_texts")


def option(workflow, name):
    """The value of one of OPTIONS; "" where it is not given."""
    return str(workflow.config_settings.config.get(name, ""))


def read_study(workflow):
    """The one study file, with the overrides of `--config`. A mistake stops here, before any job."""
    files = [os.path.relpath(path) for path in workflow.config_settings.configfiles]
    if len(files) > 1:
        raise WorkflowError(f"one study file decides a run, found {len(files)}: {', '.join(files)}")
    path = files[0] if files else os.path.join(os.path.relpath(workflow.basedir), DEFAULT_STUDY)
    # Snakemake takes True and False alone for truth values; a study file says true and false.
    truth = {"true": True, "false": False}
    given = {key: value for key, value in workflow.config_settings.config.items() if key not in OPTIONS}
    overrides = {key: truth.get(str(value), value) for key, value in given.items()}
    try:
        return load_study(os.path.normpath(path), overrides)
    except UserError as error:
        raise WorkflowError(str(error))


def expand_study(study):
    """All runs of a study."""
    try:
        return Runs(study)
    except UserError as error:
        raise WorkflowError(str(error))


def needs(study):
    """What training jobs ask a cluster for."""
    try:
        return cluster.Resources(study, cluster.read_site())
    except UserError as error:
        raise WorkflowError(str(error))


def claim():
    """Be the one main process here. Whoever is at work is named, and what to do."""
    try:
        locks.claim(locks.FOLDER, "snakemake")
    except UserError as error:
        raise WorkflowError(str(error))
    slurm_executor.ours = True


def account_hint(workflow):
    """What to do about a SLURM account that is not set; None where nothing is."""
    plugin = workflow.executor_plugin
    given = "slurm_account" in workflow.resource_settings._parsed_default_resources
    if plugin is None or plugin.name != "slurm" or given:
        return None
    return cluster.account_hint(cluster.read_site())


def alternatives(*groups):
    """A wildcard that is one of these names and nothing else."""
    return "|".join(re.escape(name) for group in groups for name in group) or "(?!)"


def write_specs(runs, results):
    """Write each run's spec, once; an id holds its spec's hash, so a file that is there is right."""
    for spec in runs.specs():
        path = Path(results, "specs", f"{spec.run_id}.json")
        if not path.exists():
            write_text(path, canonical_json(spec.model_dump(mode="json")) + "\n")
    write_text(Path(results, "runs.json"), canonical_json(runs.plan()) + "\n")
    write_text(Path(results, "study.yaml"), to_yaml(runs.study))


def spec_file(wildcards):
    """The spec of a run or a dataset."""
    return f"{RESULTS}/specs/{next(iter(dict(wildcards).values()))}.json"


def raw_folder(raw):
    """A dataset's files in the authors' schema. Fetched files are shared by all studies."""
    if raw.files and raw.files.group:
        return f"data/external/{raw.files.group}-{raw.files.digest[:10]}"
    return raw.files.folder if raw.files else f"{RESULTS}/data/{raw.run_id}"


def texts_file(texts):
    """Plain retain texts."""
    return f"data/external/{texts.group}-{texts.count}-{texts.digest[:10]}/texts.jsonl"


def facts_file(spec):
    """Canonical facts of a dataset, or plain texts."""
    return texts_file(spec) if isinstance(spec, TextsSpec) else f"{RESULTS}/data/{spec.run_id}/facts.jsonl"


def facts_flags(spec):
    """What `rtt facts` takes of a dataset's files."""
    policy = ",".join(f"{kind}={action}" for kind, action in spec.policy.model_dump().items())
    flags = {"dataset": spec.dataset, "seed": spec.seed, "on-defect": policy}
    flags |= {"splits": ",".join(spec.splits)} if spec.splits else {}
    flags |= {"facts-per-split": spec.facts_per_split} if spec.facts_per_split else {}
    return " ".join(f"--{flag} {shlex.quote(str(value))}" for flag, value in flags.items())


def model_folder(spec):
    """Where a model's weights lie."""
    return f"{RESULTS}/models/{spec.run_id}"


def weights(path):
    """Weights are the only large outputs: gone when no later step needs them, unless the study keeps them."""
    return directory(path) if STUDY.keep_models else temp(directory(path))


def eval_file(stem):
    """Return the path of an evaluation JSON: of one run, or of one target of an attack."""
    return f"{RESULTS}/evals/{stem}.json"


def scored():
    """Return what holds all evaluations: a file of each scored model, a folder of each attack."""
    models = [eval_file(run) for run in RUNS.scored()]
    return models + [f"{RESULTS}/evals/{run}" for run in RUNS.attacks]


def attack_of(wildcards):
    """Return the spec of an attack."""
    return RUNS.attacks[wildcards.run]


def point_choice_file(spec):
    """Return the path of a point choice."""
    return f"{RESULTS}/point_choices/{spec.run_id}.json"


def retain_files(source):
    """What the steps read of retain data, by the names of their flags."""
    return {"retain": facts_file(source.retain.learn), "held_out": facts_file(source.retain.held_out)}


def mirror_flag():
    """Where external files are taken from."""
    return f"--mirror {shlex.quote(STUDY.data.mirror)}" if STUDY.data.mirror else ""


def stamp(root, step, name=None):
    """An output that says which code made the others: code/<step>-<hash>."""
    return touch(f"{root}/code/{name or step}-{code_version(step)}")


def old_stamps(root, step, name=None):
    """All stamps of a step, for the shell."""
    return f"{root}/code/{name or step}-*"

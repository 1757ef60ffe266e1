"""Define the functions that the rules share."""

import os
import re
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

SCRIPTS = os.path.join(workflow.basedir, "scripts")
if os.path.isdir(SCRIPTS):
    sys.path.insert(0, SCRIPTS)
else:  # installed by pip: this file lies in rtt/shipped/rules
    sys.path.append(os.path.dirname(os.path.dirname(workflow.basedir)))

from rtt import places
from rtt.planner import before
from rtt.planner import resources as cluster
from rtt.runtime import content, locks, slurm_executor
from rtt.runtime.shell import prefix, torchrun
from rtt.study.load import load_study, to_yaml
from rtt.code_version import code_version
from rtt.errors import UserError, printable
from rtt.fetch.download import is_url
from rtt.files import canonical_json, machine_error, write_text
from rtt.study.expand import Runs
from rtt.study.names import DEFAULT_STUDY
from rtt.study.specs import TextsSpec


def fit_for_a_terminal(record):
    """Let no message of Snakemake steer the terminal: it may quote a name that somebody else chose."""
    if isinstance(record.msg, str):
        record.msg = printable(record.msg)
    return True


if not any(getattr(one, "__name__", "") == "fit_for_a_terminal" for one in logger.filters):
    logger.addFilter(fit_for_a_terminal)

# Steps run the code beside this file, whatever is installed; a conda environment has no other copy of it.
PREFIX = prefix(str(places.code_folder()))


def literally(text):
    """Return text that Snakemake's formatting gives back as it is, whatever braces a study or a folder's name holds."""
    return text.replace("{", "{{").replace("}", "}}")


def machine(study, needs):
    """Return the shell code that tells training steps about the machine; no number depends on it, nor does a rerun."""
    launch = {
        "none": "python -m rtt",
        "torchrun": torchrun(study.devices, study.nodes, needs.cpus),
        "deepspeed": "deepspeed --no_local_rank $SLOTS --master_port $PORT --module rtt",
    }[study.launcher]
    before = ""
    if study.launcher == "deepspeed":
        # Unlike torchrun, deepspeed does not look for a free port: two jobs on one machine would take the same one.
        free = "import socket; s = socket.socket(); s.bind(('', 0)); print(s.getsockname()[1])"
        before = f"PORT=$(python -c {shlex.quote(free)}); SLOTS='--num_gpus {study.devices}'; "
        # With --num_gpus it would take the machine's first GPUs, even those of other jobs.
        if study.gpus:
            before += "GPUS=$(printenv CUDA_VISIBLE_DEVICES || true); "
            before += f'[ -z "$GPUS" ] || SLOTS="--include localhost:$(echo $GPUS | cut -d, -f1-{study.devices})"; '
    values = {
        # A miniature leaves GPUs to others, unless its study says otherwise.
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
    """Return the conda environment of the steps that import torch."""
    flash = "-flash" if study.attn_backend == "flash_attention_2" else ""
    return f"../envs/gpu{flash}.yaml" if study.gpus else "../envs/cpu.yaml"


def state_folder(wildcards):
    """Return the folder from which a training step resumes after a kill."""
    return f"{RESULTS}/state/{wildcards.run}"


# Keys of --config that are not keys of a study.
OPTIONS = ("artifacts", "bundle_compact", "bundle_texts", before.OVERRIDE)


def option(workflow, name):
    """Return the value of one of OPTIONS as text; "" where it is not given.

    --config reads its values as YAML, which takes ` #` for a comment and braces for a mapping. So a path or URL is taken
    as it stands on the command line.
    """
    value = str(workflow.config_settings.config.get(name, ""))
    typed = [word.partition("=")[2] for word in sys.argv if word.startswith(f"{name}=")]
    if name == "artifacts" and typed and (is_url(typed[-1]) or Path(typed[-1]).exists() or not Path(value).exists()):
        return typed[-1]
    return value


def read_study(workflow):
    """Read the study file, with the overrides of `--config`; stop on a mistake, before any job."""
    files = [os.path.relpath(path) for path in workflow.config_settings.configfiles]
    if len(files) > 1:
        raise WorkflowError(f"one study file decides a run, found {len(files)}: {', '.join(files)}")
    path = files[0] if files else os.path.join(os.path.relpath(workflow.basedir), DEFAULT_STUDY)
    # --config reads only True and False as booleans; a study file also says true and false.
    truth = {"true": True, "false": False}
    given = {key: value for key, value in workflow.config_settings.config.items() if key not in OPTIONS}
    overrides = {key: truth.get(str(value), value) for key, value in given.items()}
    try:
        return load_study(os.path.normpath(path), overrides)
    except UserError as error:
        raise WorkflowError(str(error))


def deploys(workflow, *methods):
    """Return whether Snakemake was asked for one of these software deployment methods: CONDA, APPTAINER."""
    return any(method.name in methods for method in workflow.deployment_settings.deployment_method)


def container_image(workflow, image):
    """Return the image in which apptainer runs the steps, or None; stop where it is needed and is not there."""
    if not deploys(workflow, "APPTAINER"):
        return image or None
    what_to_do = "build one from envs/rtt.def (docs/hpc.md) and name it: --config container=image.sif"
    if not image:
        raise WorkflowError(
            f"container: --software-deployment-method apptainer needs an image, found none; {what_to_do}"
        )
    if "://" not in image and not os.path.exists(image):
        raise WorkflowError(f"container: {image}: no such file; {what_to_do}")
    return image


def check_extras(study, workflow):
    """Stop if DeepSpeed is asked for and is not here. A rule's conda environment or container has its own."""
    elsewhere = deploys(workflow, "CONDA", "APPTAINER")
    keys = {"launcher": study.launcher if study.launcher == "deepspeed" else None, "deepspeed": study.deepspeed}
    for key, value in keys.items():
        if value and not elsewhere and (why := places.missing("deepspeed")):
            raise WorkflowError(f"{key}: {value}: {why}; or leave this key out")


def expand_study(study):
    """Expand a study to its runs; stop on a mistake, before any job."""
    try:
        return Runs(study)
    except UserError as error:
        raise WorkflowError(str(error))


def needs(study):
    """Return what training jobs ask a cluster for; stop on a mistake in profiles/slurm/site.yaml."""
    try:
        return cluster.Resources(study, cluster.read_site())
    except UserError as error:
        raise WorkflowError(str(error))


def check_before(workflow, runs, needs):
    """Stop on a mistake that only a later step would find, and on training that is too large for where it would run."""
    try:
        before.Before(runs).check()
        local = workflow.executor_plugin is not None and workflow.executor_plugin.name == "local"
        if not local and option(workflow, before.OVERRIDE).lower() != "false":
            before.check_fits(needs, runs)
    except UserError as error:
        raise WorkflowError(str(error))


def check_nodes(workflow, study):
    """Stop if jobs are to have several nodes and would not run on SLURM. Before the start the executor is unknown."""
    if study.nodes > 1 and workflow.executor_plugin.name != "slurm":
        raise WorkflowError(
            f"study {study.study}: nodes: {study.nodes}, but only SLURM starts a job on several nodes: submit it with "
            "--workflow-profile profiles/slurm, or leave nodes out (--config nodes=1)"
        )


def claim():
    """Claim this folder, or stop and report who holds it and what to do."""
    try:
        locks.claim(locks.FOLDER, "snakemake")
    except UserError as error:
        raise WorkflowError(str(error))
    except OSError as error:  # results that cannot be written
        raise WorkflowError(str(machine_error(error) or error))
    slurm_executor.ours = True


def at_work():
    """Return who else works here, None for nobody. Where nothing can be written, nobody does; a dry run goes on."""
    try:
        return locks.busy()
    except OSError:
        return None


def account_hint(workflow):
    """Return what to do about a SLURM account that is not set; None where none is missing."""
    plugin = workflow.executor_plugin
    given = "slurm_account" in workflow.resource_settings._parsed_default_resources
    if plugin is None or plugin.name != "slurm" or given:
        return None
    return cluster.account_hint(cluster.read_site())


def alternatives(*groups):
    """Return a wildcard constraint that matches exactly these names."""
    return "|".join(re.escape(name) for group in groups for name in group) or "(?!)"


def write_specs(runs, results):
    """Write specs, runs.json and study.yaml. A run's id holds its spec's hash, so an existing spec file is right."""
    for spec in runs.specs():
        path = Path(results, "specs", f"{spec.run_id}.json")
        if not path.exists():
            write_text(path, canonical_json(spec.canonical()) + "\n")
    write_text(Path(results, "runs.json"), canonical_json(runs.plan()) + "\n")
    write_text(Path(results, "study.yaml"), to_yaml(runs.study))


def spec_file(wildcards):
    """Return the path of the spec of a run or a dataset, whichever the wildcard names."""
    return f"{RESULTS}/specs/{next(iter(dict(wildcards).values()))}.json"


def raw_folder(raw):
    """Return the folder of a dataset's files in the authors' schema; all studies share fetched files."""
    if raw.files and raw.files.group:
        return f"data/external/{raw.files.group}-{raw.files.digest[:10]}"
    return raw.files.folder if raw.files else f"{RESULTS}/data/{raw.run_id}"


def texts_file(texts):
    """Return the path of plain retain texts."""
    return f"data/external/{texts.group}-{texts.count}-{texts.digest[:10]}/texts.jsonl"


def facts_file(spec):
    """Return the path of a dataset's canonical facts, or of plain texts."""
    return texts_file(spec) if isinstance(spec, TextsSpec) else f"{RESULTS}/data/{spec.run_id}/facts.jsonl"


def facts_flags(spec):
    """Return the options of `rtt facts` for a dataset."""
    policy = ",".join(f"{kind}={action}" for kind, action in spec.policy.canonical().items())
    flags = {"dataset": spec.dataset, "seed": spec.seed, "on-defect": policy, "distractors": spec.distractors}
    flags |= {"splits": ",".join(spec.splits)} if spec.splits else {}
    flags |= {"facts-per-split": spec.facts_per_split} if spec.facts_per_split else {}
    return " ".join(f"--{flag} {shlex.quote(str(value))}" for flag, value in flags.items())


def model_folder(spec):
    """Return the folder of a model's weights."""
    return f"{RESULTS}/models/{spec.run_id}"


def fetched_model(settings):
    """Return the folder of an external model that comes from the hub, as a list; [] for other settings."""
    fetched = getattr(settings, "fetched", None)
    return [model_folder(fetched)] if fetched else []


def weights(path):
    """Mark an output as weights: they are large, so they go once no step needs them, unless the study keeps them."""
    return directory(path) if STUDY.keep_models else temp(directory(path))


def eval_file(stem):
    """Return the path of an evaluation JSON: of one run, or of one target of an attack."""
    return f"{RESULTS}/evals/{stem}.json"


def scored():
    """Return the paths of all evaluations: the file of each scored model, the folder of each attack."""
    models = [eval_file(run) for run in RUNS.scored()]
    return models + [f"{RESULTS}/evals/{run}" for run in RUNS.attacks]


def attack_of(wildcards):
    """Return the spec of an attack."""
    return RUNS.attacks[wildcards.run]


def point_choice_file(spec):
    """Return the path of a point choice."""
    return f"{RESULTS}/point_choices/{spec.run_id}.json"


def retain_files(source):
    """Return the paths of a source's retain data, by input name."""
    return {"retain": facts_file(source.retain.learn), "held_out": facts_file(source.retain.held_out)}


def mirror_flag():
    """Return the option that names the study's mirror of external files, if it has one."""
    return f"--mirror {shlex.quote(STUDY.data.mirror)}" if STUDY.data.mirror else ""


def stamp(root, step, name=None):
    """Return an output, code/<step>-<hash of its code>. The step writes into it what it read and made (rtt.records)."""
    return f"{root}/code/{name or step}-{code_version(step)}"


def old_stamps(root, step, name=None):
    """Return the pattern of all stamps of a step, for the shell."""
    return f"{root}/code/{name or step}-*"

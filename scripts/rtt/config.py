"""Study files: what a user may write, checked before anything runs.

The pydantic models here are the only description of a study: they generate `config/schema.json`. Importing this module
costs a tenth of a second, since every cluster job parses the Snakefile again.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Discriminator, Field, Tag, ValidationError, field_validator, model_validator

from rtt.errors import UserError
from rtt.files import read_yaml
from rtt.modelfile import ModelFile, load_modelfile
from rtt.settings import (
    Arm,
    Attack,
    Budget,
    Count,
    Data,
    Methods,
    Model,
    Name,
    Pretraining,
    Scores,
    Selection,
    Switch,
    Task,
    Teaching,
)
from rtt.strict import Strict

DEFAULT_STUDY = "config/config.yaml"
DEFAULT = "default"  # the variant that is the study itself

# A pretrained model's file names where it comes from; the miniature has a shape.
AnyModel = Annotated[
    Annotated[Model, Tag("miniature")] | Annotated[ModelFile, Tag("file")],
    Discriminator(lambda raw: "file" if _names_weights(raw) else "miniature"),
]


def _names_weights(raw: Any) -> bool:
    keys = raw if isinstance(raw, dict) else getattr(raw, "model_fields_set", ())
    return isinstance(raw, ModelFile) or any(key in keys for key in ("hub", "path", "gguf"))


class Study(Strict):
    """A study: everything that decides its numbers."""

    study: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")] = Field(description="folder under results/")
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = [0]
    data: Data = Data()
    model: AnyModel = Model()
    pretraining: Pretraining | None = Field(None, description="the miniature's")
    teaching: Teaching | None = None
    arms: Annotated[list[Arm], Field(min_length=1)] | None = Field(
        None, description="the miniature's arms, on generated facts; or give tasks"
    )
    tasks: Annotated[list[Task], Field(min_length=1)] | None = None
    methods: Methods = Field(Methods(), description="none: RTT alone, or evaluation alone")
    unlearned_models: dict[Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.+-]*$")], str] = Field(
        {}, description="name -> folder of a model that was unlearned elsewhere"
    )
    scores: Scores = Scores()
    selection: Selection = Selection()
    retain_budgets: Annotated[list[Budget], Field(min_length=1)] = [0.1]
    rtt: Attack | None = Field(None, description="null: no attack, evaluation alone")
    faithful: list[Switch] = Field([], description="what the authors' code does, one switch each")
    variants: dict[Name, dict[str, Any]] = Field(
        {}, description="name -> keys of the study that differ from the study itself, run beside it"
    )
    two_way_control: bool = Field(
        False,
        description="also train a base model on the other facts, so that the pretrained arm's control is RTT on its "
        "own facts; otherwise its control is RTT on birth_years_b, with the same base",
    )
    keep_models: bool = Field(False, description="keep the weights that no later step needs")
    rtt_jobs: Literal["arm", "method"] = Field(
        "arm", description="what one RTT process attacks: all checkpoints of an arm, or those of one method"
    )
    threads: Count = Field(1, description="of a training process on a CPU")
    attn_backend: Literal["auto", "sdpa", "flash_attention_2", "eager"] = "auto"
    device: Literal["auto", "cuda", "cpu"] = Field(
        "auto",
        description="cuda: a step that sees no GPU stops at once; cpu: GPUs are hidden; auto: a miniature as cpu, a "
        "pretrained model what is there, in a cluster's job as cuda",
    )
    launcher: Literal["none", "torchrun", "deepspeed"] = Field("none", description="what starts a training job")
    devices: Count = Field(1, description="processes of a training job, each with a GPU where there are any")
    deepspeed: str | None = Field(None, description="zero1, zero2, zero3, zero3-offload, or a DeepSpeed JSON's path")
    micro_batch: Count | None = Field(None, description="most texts per forward pass; null: a process's whole part")
    packing: bool = Field(
        False, description="several texts in a row of a batch, in the place of padding: faster where lengths differ"
    )
    gradient_checkpointing: bool = Field(False, description="keep no activations: less memory, a third more time")
    checkpoint_minutes: Annotated[float, Field(ge=0)] = Field(
        30, description="between two checkpoints of a training; 0: one after every step"
    )

    @field_validator("seeds", "arms", "retain_budgets", "faithful")
    @classmethod
    def _distinct(cls, values):
        if values and len(set(values)) != len(values):
            raise ValueError("each value may stand once")
        return values

    @model_validator(mode="after")
    def _parts_fit(self):
        miniature = isinstance(self.model, Model)
        for key, needed in (("devices", self.devices > 1), ("deepspeed", self.deepspeed is not None)):
            if needed and self.launcher == "none":
                raise ValueError(f"{key}: {getattr(self, key)} needs launcher: torchrun, or deepspeed")
        if self.launcher == "deepspeed" and self.deepspeed is None:
            raise ValueError("launcher: deepspeed needs deepspeed: zero1, zero2, zero3, zero3-offload or a JSON's path")
        if (self.arms is None) == (self.tasks is None):
            raise ValueError("give arms (the miniature on generated facts) or tasks (datasets by name), one of the two")
        if self.arms and not miniature:
            raise ValueError("arms are for the miniature; a pretrained model needs tasks")
        if self.tasks and miniature:
            raise ValueError("tasks need a pretrained model: set model to a name in config/models")
        if miniature and self.pretraining is None:
            raise ValueError("the miniature needs pretraining")
        if self.teaching is None and "taught" in (self.arms or [task.arm for task in self.tasks or []]):
            raise ValueError("arm taught needs teaching")
        if self.rtt is None and self.variants:
            raise ValueError("variants are compared by their recovery: they need rtt")
        if unknown := [name for name in self.selection.scorings if name not in self.scores.scorings]:
            raise ValueError(f"selection.scorings: {', '.join(unknown)} is not among scores.scorings")
        if DEFAULT in self.variants:
            raise ValueError(f"variants.{DEFAULT}: this name is the study itself")
        for name in self.unlearned_models:
            if name in self.methods.named:
                raise ValueError(f"unlearned_models.{name}: a method of this study has the same name")
        names = list(self.data.datasets)
        for i, task in enumerate(self.tasks or []):
            parts = (task.retain, task.retain_eval, task.also_taught)
            used = [task.dataset, task.control, *(getattr(part, "dataset", None) for part in parts)]
            if task.control is None and self.rtt:
                raise ValueError(f"tasks.{i}.control: rtt needs it: name facts that the model never saw")
            if task.forget_texts and (odd := _no_plain_texts(self.methods.named)):
                raise ValueError(f"tasks.{i}.forget_texts: plain texts have no facts: {odd}")
            if unknown := [name for name in used if name is not None and name not in names]:
                raise ValueError(f"tasks.{i}: no dataset {unknown[0]}; data.datasets has {', '.join(names) or 'none'}")
            if task.control == task.dataset and task.arm == "pretrained":
                raise ValueError(f"tasks.{i}.control: the model knows {task.control}; name facts that it never saw")
        return self

    @model_validator(mode="after")
    def _layers_exist(self):
        if isinstance(self.model, Model):
            depth = self.model.layers
            phases = {f"methods.{name}": method for name, method in self.methods.named.items()}
            phases |= {"teaching": self.teaching, "rtt": self.rtt}
            for name, phase in phases.items():
                if phase and max(phase.train_layers or [0]) >= depth:
                    layers = f"{phase.train_layers}, but the model has {depth} layers, from 0"
                    raise ValueError(f"{name}.train_layers is {layers}")
            if self.methods.RMU and (self.methods.RMU.layer or 0) >= depth:
                raise ValueError(f"methods.RMU.layer is {self.methods.RMU.layer}, but the model has {depth} layers")
        return self

    @property
    def gpus(self) -> int:
        """GPUs that a training job asks for. A miniature is faster on a CPU than in the queue for a GPU."""
        wanted = self.device == "cuda" or (self.device == "auto" and isinstance(self.model, ModelFile))
        return self.devices if wanted else 0

    def variant(self, name: str) -> "Study":
        """Return the study with a variant's keys in the place of its own, and its faithful switches carried out."""
        raw = self.model_dump(mode="json", exclude_unset=True) | {"variants": {}}
        study = self._checked(_merged(raw, self.variants.get(name, {})))
        return study._checked(_merged(study.model_dump(mode="json", exclude_unset=True), _carried_out(study)))

    @staticmethod
    def _checked(raw: dict) -> "Study":
        return Study.model_validate_json(json.dumps(raw))


def _no_plain_texts(methods: dict) -> str:
    """Return why these methods cannot unlearn plain texts, "" when they can."""
    for name, settings in methods.items():
        if name in ("RIA", "FIF"):
            return f"{name} needs their wrong answers; use GD or RMU"
        if settings.mcq_share:
            return f"methods.{name}.mcq_share is {settings.mcq_share}; set it to 0"
    return ""


def _merged(raw: dict, patch: dict) -> dict:
    """Return `raw` with the values of `patch`, key by key, at every depth."""
    both = dict(raw)
    for key, value in patch.items():
        inner = isinstance(value, dict) and isinstance(both.get(key), dict)
        both[key] = _merged(both[key], value) if inner else value
    return both


def _carried_out(study: Study) -> dict:
    """Return what the faithful switches set (PAPER.md: what is wrong in the authors' code, kept selectable).

    `select_on_v` sets nothing: both selections of the look are always computed, and it says which is reported.
    """
    switches, patch = set(study.faithful), {}
    methods = {name: {} for name in study.methods.named}
    phases = {name: {} for name in ("teaching", "rtt") if getattr(study, name)}
    if "padding" in switches:
        for settings in (*methods.values(), *phases.values()):
            settings["count_padding"] = True
    if "half_precision" in switches:
        for settings in methods.values():
            settings["precision"] = "bf16"
        if study.rtt:
            phases["rtt"]["precision"] = "fp16"
    if "unshuffled_retain" in switches:
        for settings in methods.values():
            settings["shuffle_retain"] = False
    if "bare_letter" in switches:
        patch["scores"] = {"bare_letter": True}
    if "leaky_facts" in switches:
        patch["data"] = {"policy": dict.fromkeys(LEAKS, "keep")}
    return patch | phases | ({"methods": methods} if methods else {})


# Defects of a fact that is there and can be trained on; a fact without text cannot.
LEAKS = ("split_leak", "conflicting_answer", "duplicate_question", "duplicate_choice")

# `--config key=value` sets these and no others; methods=[GD] keeps only the named methods.
OVERRIDES = (
    "study", "seeds", "model", "arms", "methods", "retain_budgets", "two_way_control", "keep_models", "faithful",
    "attn_backend", "threads", "mirror", "device", "launcher", "devices", "deepspeed", "micro_batch",
    "packing", "gradient_checkpointing", "checkpoint_minutes",
)  # fmt: skip


# pydantic names the member of a union after its key; the user wrote no such key.
UNION_MEMBERS = ("Unlearning", "RMUUnlearning", "RetainFacts", "RetainTexts", "miniature", "file")


def _messages(error: ValidationError, source: str) -> str:
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"] if part not in UNION_MEMBERS)
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] in ("extra_forbidden", "none_required"):
            model, parents = Study, [part for part in item["loc"][:-1] if isinstance(part, str)]
            allowed = _allowed(model, parents)
            message = f"unknown key; allowed: {', '.join(allowed)}"
        silent = item["type"] in ("missing", "extra_forbidden", "none_required") or not key
        found = "" if silent else f" (found {item['input']!r})"
        if item["type"] == "float_type" and _is_number(item["input"]):
            found += ": YAML takes this for a text; write 1.0e-3, with the dot and no quotes"
        if item["type"] == "missing":
            message = "this key is missing"
        lines.append(f"{source}: {key or 'study'}: {message}{found}")
    return "\n".join(lines)


def _is_number(value: Any) -> bool:
    try:
        return isinstance(value, str) and float(value) is not None
    except ValueError:
        return False


def _allowed(model: type[BaseModel], path: list[str]) -> list[str]:
    """Keys that stand at `path` below `model`."""
    for part in path:
        field = model.model_fields.get(part)
        options = getattr(field.annotation, "__args__", (field.annotation,)) if field else ()
        inner = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)
        model = inner or model
    return [name for name, field in model.model_fields.items() if field.annotation is not type(None)]


def load_study(path: str | Path = DEFAULT_STUDY, overrides: Mapping[str, Any] | None = None) -> Study:
    """Read and check one study file, then apply `--config` overrides.

    Raises UserError with file, key, what was found and what is allowed.
    """
    path = Path(path)
    raw = read_yaml(path, "study file", "study, seeds, ...")
    source = " ".join([str(path), *(f"with --config {key}={value!r}" for key, value in (overrides or {}).items())])
    for key, value in (overrides or {}).items():
        if key not in OVERRIDES:
            raise UserError(
                f"--config {key}: this key cannot be set here; allowed: {', '.join(OVERRIDES)}; and for Snakemake "
                "artifacts (figures of a bundle) and bundle_texts"
            )
        if isinstance(value, list):  # Snakemake leaves a list's items as texts: seeds=[1, 2] comes as ["1", "2"]
            value = [yaml.safe_load(item) if isinstance(item, str) else item for item in value]
        if key == "methods":
            value = _keep_methods(raw.get("methods"), value, source)
        if key == "mirror":
            raw["data"] = {**(raw.get("data") or {}), "mirror": value}
        else:
            raw[key] = value
    if isinstance(raw.get("model"), str):
        raw["model"] = load_modelfile(raw["model"], path.parent / "models").model_dump(mode="json", exclude_unset=True)
    try:
        # Through JSON, so that a strict model takes a list where it wants one and nothing that JSON has not.
        study = Study.model_validate_json(json.dumps(raw))
    except ValidationError as error:
        raise UserError(_messages(error, source)) from None
    except TypeError as error:
        raise UserError(f"{source}: {error}; a study holds numbers, texts, lists and keys only") from None
    for name in study.variants:
        try:
            variant = study.variant(name)
        except ValidationError as error:
            raise UserError(_messages(error, f"{source}: variants.{name}")) from None
        # One rule makes the same files for every attack of a study.
        fixed = ["seeds", "retain_budgets", "rtt_jobs", *(["arms"] if study.rtt_jobs == "arm" else [])]
        changed = [key for key in fixed if getattr(variant, key) != getattr(study, key)]
        if study.rtt_jobs == "arm" and list(variant.methods.named) != list(study.methods.named):
            changed.append("methods (with rtt_jobs: arm; set rtt_jobs: method)")
        if changed:
            raise UserError(f"{source}: variants.{name}: {', '.join(changed)}: the same for all variants of a study")
    return study


def _keep_methods(methods: Any, names: Any, source: str) -> dict:
    if not isinstance(methods, dict):
        return methods  # not what a study holds: the model says so
    names = [names] if isinstance(names, str) else names
    unknown = [name for name in names if name not in list(methods)] if isinstance(names, list) else [names]
    if unknown:
        raise UserError(f"{source}: methods: no such method in the study: {unknown}; it has {', '.join(methods)}")
    return {name: methods[name] for name in names}


def to_yaml(study: Study) -> str:
    """Return a study as a complete study file: every key, defaults included."""
    return yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False)


def schema() -> dict:
    """Return the JSON schema of a study file."""
    found = Study.model_json_schema()
    found["properties"]["model"]["oneOf"].append({"type": "string", "description": "a name in config/models"})
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `check`."""
    parser.add_argument("study", nargs="?", default=DEFAULT_STUDY, help="study file (default: %(default)s)")
    parser.add_argument("--schema", action="store_true", help="print the JSON schema of study files")


def run(args: argparse.Namespace) -> int:
    """Print the schema, or what a study holds."""
    if args.schema:
        print(json.dumps(schema(), indent=1))
        return 0
    study = load_study(args.study)
    print(
        f"{args.study}: study {study.study}, seeds {study.seeds}, arms {study.arms}, "
        f"methods {list(study.methods.named)}"
    )
    return 0

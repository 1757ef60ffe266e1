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
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from rtt.errors import UserError

DEFAULT_STUDY = "config/config.yaml"

Arm = Literal["pretrained", "taught", "taught_same_data"]
MethodName = Literal["GD", "RMU", "RIA", "FIF"]
Scoring = Literal["letter", "likelihood", "likelihood_fresh"]
Budget = Literal[0.05, 0.1, 0.3, 1.0]
Action = Literal["keep", "drop", "stop"]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Strict(BaseModel):
    """Frozen; unknown keys are errors; an int is no bool, a string is no number, infinity is none either."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class People(Strict):
    """Generated people (rtt.data.generate): `splits` x `facts_per_split` facts in each forget dataset."""

    splits: Annotated[int, Field(ge=2, le=10)] = 5
    facts_per_split: Annotated[int, Field(ge=4, le=64)] = 32
    retain_train: Count = Field(64, description="retain facts in the retain loss")
    retain_held_out: Count = Field(128, description="retain facts held out of it; they alone give retain accuracy")
    first_names: Annotated[int, Field(ge=2, le=32)] = 24
    last_names: Annotated[int, Field(ge=2, le=32)] = 24

    @model_validator(mode="after")
    def _names_suffice(self):
        needed = 2 * self.splits * self.facts_per_split + self.retain_train + self.retain_held_out
        if needed > self.first_names * self.last_names:
            raise ValueError(
                f"{needed} facts need as many names, but first_names x last_names gives only "
                f"{self.first_names * self.last_names}; ask for fewer facts or more names (at most 32 x 32)"
            )
        return self


class Policy(Strict):
    """What to do with facts that have a defect; the kinds and the reasons for these defaults: docs/data.md."""

    split_leak: Action = "drop"
    conflicting_answer: Action = "drop"
    duplicate_choice: Action = "drop"
    duplicate_wrong_choice: Action = "keep"
    duplicate_question: Action = "drop"
    missing_text: Action = "drop"
    missing_rows: Action = "keep"
    missing_mcq: Literal["keep", "stop"] = "keep"
    wrong_text: Action = "keep"
    future_year: Action = "keep"
    letter_prior: Literal["keep", "stop"] = "keep"


class Data(Strict):
    """Where the facts come from."""

    generator: People = People()
    policy: Policy = Policy()


class Model(Strict):
    """The miniature: a Llama of this shape, trained from scratch on the generated facts."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")] = "miniature"
    hidden_size: Annotated[int, Field(ge=8)] = 96
    intermediate_size: Annotated[int, Field(ge=8)] = 192
    layers: Annotated[int, Field(ge=2)] = 3
    heads: Count = 4

    @model_validator(mode="after")
    def _heads_divide(self):
        if self.hidden_size % (2 * self.heads):
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of 2 x heads ({self.heads})")
        return self


class Training(Strict):
    """One training phase: AdamW, linear warm-up, constant, then linear decay over the last `decay` of the steps."""

    learning_rate: Positive
    batch_size: Count
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    decay: Fraction = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    adam_beta2: Annotated[float, Field(gt=0, lt=1)] = 0.999
    max_grad_norm: Positive = 1.0


class Pretraining(Training):
    """Training on documents: per step, `mcqs_per_batch` shuffled MCQs, the rest sentences and question-answer lines."""

    steps: Count
    mcqs_per_batch: Count

    @model_validator(mode="after")
    def _mcqs_fit(self):
        if self.mcqs_per_batch >= self.batch_size:
            raise ValueError(f"mcqs_per_batch {self.mcqs_per_batch} must be below batch_size {self.batch_size}")
        return self


class Teaching(Training):
    """The paper's second phase (PAPER.md, Random Birthdays): fixed MCQs, loss on letter and answer, no replay."""

    epochs: Count


class Unlearning(Training):
    """One trajectory: forget and retain texts in equal numbers per step; scored and saved at `points` (steps)."""

    points: Annotated[list[Count], Field(min_length=1)]
    retain_coefficient: Annotated[float, Field(ge=0)] = 1.0
    freeze_embeddings: bool = False
    mcq_share: Fraction = Field(0.5, description="share of MCQs among the texts; the rest are sentences")
    numbers_only: bool = Field(False, description="count only the digits' tokens of forget texts (the hiding model)")
    train_layers: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None = Field(
        None, description="train these decoder layers alone, from 0; null trains all"
    )

    @field_validator("points")
    @classmethod
    def _increasing(cls, points):
        if sorted(set(points)) != points:
            raise ValueError("points must increase")
        return points


class RMUUnlearning(Unlearning):
    """RMU's own settings; layers count from 0."""

    layer: Annotated[int, Field(ge=0)] = 1
    layers_trained: Count = 2
    steering: Positive = 20.0
    train_layers: None = None  # RMU trains mlp.down_proj of its own layers


class Methods(Strict):
    """The methods to run; a method that is left out is not run."""

    GD: Unlearning | None = None
    RMU: RMUUnlearning | None = None
    RIA: Unlearning | None = None
    FIF: Unlearning | None = None

    @model_validator(mode="after")
    def _one_at_least(self):
        if not self.named:
            raise ValueError("name at least one method: GD, RMU, RIA, FIF")
        return self

    @property
    def named(self) -> dict[str, Unlearning]:
        """The methods asked for, in a fixed order."""
        return {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}


class Selection(Strict):
    """Which point of a trajectory is attacked."""

    rule: Literal["nearest_floor", "lowest"] = "nearest_floor"
    scorings: Annotated[list[Scoring], Field(min_length=1)] = ["letter"]


class Attack(Training):
    """RTT: fixed MCQs of T, loss on every token, all learning rates, all V splits."""

    learning_rate: None = None
    learning_rates: Annotated[list[Positive], Field(min_length=1)]
    epochs: Count

    def at(self, learning_rate: float) -> Training:
        """Return the training settings of one learning rate."""
        shared = self.model_dump(include=set(Training.model_fields) - {"learning_rate"})
        return Training(learning_rate=learning_rate, **shared)


class Study(Strict):
    """A study: everything that decides its numbers."""

    study: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")] = Field(description="folder under results/")
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = [0]
    data: Data = Data()
    model: Model = Model()
    pretraining: Pretraining
    teaching: Teaching
    arms: Annotated[list[Arm], Field(min_length=1)] = ["pretrained", "taught", "taught_same_data"]
    methods: Methods
    selection: Selection = Selection()
    retain_budgets: Annotated[list[Budget], Field(min_length=1)] = [0.1]
    rtt: Attack
    two_way_control: bool = Field(
        False,
        description="also train a base model on the other facts, so that the pretrained arm's control is RTT on its "
        "own facts; otherwise its control is RTT on birth_years_b, with the same base",
    )
    keep_models: bool = Field(False, description="keep the weights that no later step needs")

    @field_validator("seeds", "arms", "retain_budgets")
    @classmethod
    def _distinct(cls, values):
        if len(set(values)) != len(values):
            raise ValueError("each value may stand once")
        return values

    @model_validator(mode="after")
    def _layers_exist(self):
        for name, method in self.methods.named.items():
            if max(method.train_layers or [0]) >= self.model.layers:
                layers = f"{method.train_layers}, but the model has {self.model.layers} layers, from 0"
                raise ValueError(f"methods.{name}.train_layers is {layers}")
        if self.methods.RMU and self.methods.RMU.layer >= self.model.layers:
            raise ValueError(
                f"methods.RMU.layer is {self.methods.RMU.layer}, but the model has {self.model.layers} layers"
            )
        return self


# `--config key=value` sets these and no others; methods=[GD] keeps only the named methods.
OVERRIDES = ("study", "seeds", "arms", "methods", "retain_budgets", "two_way_control", "keep_models")


class _Loader(yaml.SafeLoader):
    """YAML without doubled keys: the loader would take the last one and say nothing."""

    def compose_mapping_node(self, anchor):
        node, seen = super().compose_mapping_node(anchor), set()
        for key, _ in node.value:
            if (key.tag, str(key.value)) in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark)
            seen.add((key.tag, str(key.value)))
        return node


def _messages(error: ValidationError, source: str) -> str:
    lines = []
    for item in error.errors():
        # pydantic names the union member after a method's key; the user wrote no such key.
        key = ".".join(str(part) for part in item["loc"] if part not in ("Unlearning", "RMUUnlearning"))
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
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise UserError(f"{path}: no such study file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a YAML file: {error}") from None
    if not isinstance(raw, dict):
        found = "an empty file" if raw is None else type(raw).__name__
        raise UserError(f"{path}: expected keys and values (study, seeds, ...), found {found}")
    source = " ".join([str(path), *(f"with --config {key}={value!r}" for key, value in (overrides or {}).items())])
    for key, value in (overrides or {}).items():
        if key not in OVERRIDES:
            raise UserError(f"--config {key}: this key cannot be set here; allowed: {', '.join(OVERRIDES)}")
        if isinstance(value, list):  # Snakemake leaves a list's items as texts: seeds=[1, 2] comes as ["1", "2"]
            value = [yaml.safe_load(item) if isinstance(item, str) else item for item in value]
        if key == "methods":
            value = _keep_methods(raw.get("methods"), value, source)
        raw[key] = value
    try:
        # Through JSON, so that a strict model takes a list where it wants one and nothing that JSON has not.
        return Study.model_validate_json(json.dumps(raw))
    except ValidationError as error:
        raise UserError(_messages(error, source)) from None
    except TypeError as error:
        raise UserError(f"{source}: {error}; a study holds numbers, texts, lists and keys only") from None


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
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Study.model_json_schema()}


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

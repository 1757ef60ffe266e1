"""Read a study file, apply `--config` overrides, and report every mistake with its key."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from rtt import places
from rtt.errors import UserError, brief
from rtt.study.model_file import HubModel, ModelFile, load_modelfile
from rtt.study.names import DEFAULT, DEFAULT_STUDY
from rtt.study.schema import Study
from rtt.study.settings import Model, RetainFacts, RetainTexts
from rtt.study.strict import AS_WRITTEN
from rtt.yaml_files import parse_yaml, read_yaml

# `--config key=value` sets these and no others; methods=[GD] keeps only the named methods.
OVERRIDES = (
    "study", "seeds", "model", "arms", "methods", "retain_budgets", "oracle", "keep_models", "faithful",
    "attn_backend", "threads", "mirror", "device", "launcher", "devices", "nodes", "deepspeed", "container",
    "micro_batch", "packing", "gradient_checkpointing", "checkpoint_minutes",
)  # fmt: skip


# pydantic names the member of a union after its key; the user wrote no such key.
UNION_MEMBERS = {
    "<miniature>": Model, "<file>": ModelFile, "<hub>": HubModel, "<facts>": RetainFacts, "<texts>": RetainTexts,
    "<folder>": None,
}  # fmt: skip
MOST_MESSAGES = 20
MOST_RUNS = 20_000  # Snakemake needs minutes for so many
# Of the machine, or of the study as a whole: the same for all variants.
SHARED = (
    "study", "seeds", "retain_budgets", "criteria", "variants", "threads", "attn_backend", "device", "launcher",
    "devices", "nodes", "deepspeed", "container", "micro_batch", "packing", "gradient_checkpointing",
    "checkpoint_minutes", "keep_models", "report_texts",
)  # fmt: skip


def _messages(error: ValidationError, source: str) -> str:
    lines = []
    errors = error.errors()
    for item in errors[:MOST_MESSAGES]:
        key = ".".join(str(part) for part in item["loc"] if part not in (*UNION_MEMBERS, "[key]"))
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] in ("extra_forbidden", "none_required"):
            model, parents = Study, [part for part in item["loc"][:-1] if isinstance(part, str)]
            allowed = _allowed(model, parents)
            message = f"unknown key; allowed: {', '.join(allowed)}"
        silent = item["type"] in ("missing", "extra_forbidden", "none_required") or not key
        found = "" if silent else f" (found {brief(item['input'])})"
        if item["type"] == "string_type" and isinstance(item["input"], bool):
            found += ": YAML takes yes, no, on and off for true and false; put the text in quotes"
        if item["type"] == "float_type" and _is_number(item["input"]):
            found += ": YAML takes this for a text; write 1.0e-3, with the dot and no quotes"
        if item["type"] == "missing":
            message = "this key is missing"
        lines.append(f"{source}: {key}: {message}{found}" if key else f"{source}: {message}{found}")
    if len(errors) > MOST_MESSAGES:
        lines.append(f"{source}: {len(errors) - MOST_MESSAGES} more mistakes")
    return "\n".join(lines)


def _is_number(value: Any) -> bool:
    try:
        return isinstance(value, str) and float(value) is not None
    except ValueError:
        return False


def _allowed(model: type[BaseModel], path: list[str]) -> list[str]:
    """Return the keys that may stand at `path` below `model`."""
    for part in path:
        if part in UNION_MEMBERS:
            model = UNION_MEMBERS[part] or model
            continue
        field = model.model_fields.get(part)
        model = next(_models(field.annotation), model) if field else model
    return [name for name, field in model.model_fields.items() if field.annotation is not type(None)]


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models among the types that an annotation allows."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _models(inner)


def load_study(
    path: str | Path = DEFAULT_STUDY, overrides: Mapping[str, Any] | None = None, *, as_written: bool = False
) -> Study:
    """Read and check one study file, then apply `--config` overrides.

    as_written: the file is that of results, which an older version of this program may have written: keys that it lacks
    mean what happened before they existed, and `two_way_control` means `oracle`.

    Raises UserError with file, key, what was found and what is allowed.
    """
    path = places.study_file(path)
    if not path.suffix and not path.exists():
        own = ", ".join(sorted(one.stem for one in (places.SHIPPED / "config").glob("*.yaml")))
        raise UserError(f"{path}: no such study file; give its path, or one of the project's own: {own}")
    raw = read_yaml(path, "study file", "study, seeds, ...")
    source = " ".join([str(path), *(f"with --config {key}={value!r}" for key, value in (overrides or {}).items())])
    for key, value in (overrides or {}).items():
        if key not in OVERRIDES:
            raise UserError(
                f"--config {key}: this key cannot be set here; allowed: {', '.join(OVERRIDES)}; and for Snakemake "
                "artifacts (figures of a bundle), bundle_compact and bundle_texts"
            )
        if isinstance(value, list):  # Snakemake leaves a list's items as texts: seeds=[1, 2] comes as ["1", "2"]
            value = [parse_yaml(item, f"--config {key}") if isinstance(item, str) else item for item in value]
        if key == "methods":
            value = _keep_methods(raw.get("methods"), value, source)
        if key == "mirror":
            data = raw.get("data") or {}
            raw["data"] = {**data, "mirror": value} if isinstance(data, dict) else data
        else:
            raw[key] = value
    if as_written and "two_way_control" in raw:
        raw["oracle"] = raw.pop("two_way_control")
    if isinstance(raw.get("model"), str):
        raw["model"] = load_modelfile(raw["model"], path.parent / "models").model_dump(mode="json", exclude_unset=True)
    try:
        # Through JSON, so that a strict model takes a list where it wants one and nothing that JSON has not.
        study = Study.model_validate_json(json.dumps(raw), context=AS_WRITTEN if as_written else None)
    except ValidationError as error:
        raise UserError(_messages(error, source)) from None
    except TypeError as error:
        raise UserError(f"{source}: {error}; a study holds numbers, texts, lists and keys only") from None
    runs = 0
    for name, keys in {DEFAULT: {}, **study.variants}.items():
        if shared := [key for key in SHARED if key in keys]:
            raise UserError(f"{source}: variants.{name}: {', '.join(shared)}: the same for all variants of a study")
        try:
            variant = study.variant(name)
        except ValidationError as error:
            raise UserError(_messages(error, source if name == DEFAULT else f"{source}: variants.{name}")) from None
        runs += _size(variant)
    if runs > MOST_RUNS:
        raise UserError(
            f"{source}: about {runs:,} runs, seeds x arms x (trajectories of all grids) x variants; expected at most "
            f"{MOST_RUNS:,}: divide it into several studies"
        )
    return study


def _size(study: Study) -> int:
    """Return about how many runs a study has, without its variants."""
    grids = sum(math.prod(map(len, settings.grid.values())) for settings in study.methods.named.values())
    arms, attacks = len(study.arms or study.tasks or ()), len(study.attacks.named)
    grids *= study.repeats.unlearning
    each = 1 + grids + len(study.external_models) + attacks * (2 + len(study.methods.named))
    return len(study.seeds) * arms * each


def _keep_methods(methods: Any, names: Any, source: str) -> dict:
    if not isinstance(methods, dict):
        return methods  # not what a study holds: the model says so
    names = [names] if isinstance(names, str) else names
    unknown = [name for name in names if name not in list(methods)] if isinstance(names, list) else [names]
    if unknown:
        raise UserError(f"{source}: methods: no such method in the study: {unknown}; it has {', '.join(methods)}")
    return {name: methods[name] for name in names}


def to_yaml(study: Study) -> str:
    """Return a study as a complete study file, with defaults spelled out."""
    return yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False)


def schema() -> dict:
    """Return the JSON schema of a study file."""
    found = Study.model_json_schema()
    found["properties"]["model"]["oneOf"].append({"type": "string", "description": "a name in `config/models`"})
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}

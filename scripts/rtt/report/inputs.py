"""What the report reads beside the tables: the plan, audits, manifests, settings of unlearning runs."""

from pathlib import Path
from typing import Any

from rtt.errors import UserError
from rtt.files import read_json


def json_object(path: Path) -> dict[str, Any]:
    """Return a JSON object. Raises UserError that names the file where it is none."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(
            f"{path}: expected a JSON object, found {type(value).__name__}; run the step that writes it again"
        )
    return value


def part(value: Any, *keys: str) -> dict[str, Any]:
    """Return the object below some keys of nested objects; {} where there is none."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def read_study(results: Path) -> dict[str, Any]:
    """Return the study as runs.json has it, every key spelled out; {} without a plan."""
    plan = results / "runs.json"
    return part(json_object(plan), "study") if plan.is_file() else {}


def read_audits(results: Path) -> list[dict[str, Any]]:
    """Return the audits `data/*/audit.json` of the study's datasets, with the folder's name, by folder."""
    found = sorted((results / "data").glob("*/audit.json"))
    paths = [path for path in found if _planned(results, "data", path.parent.name)]
    return [{"folder": path.parent.name, **json_object(path)} for path in paths]


def read_manifests(results: Path) -> list[dict[str, Any]]:
    """Return the manifests of the study's runs (`runs.json`; without it, all of `manifests/*.json`), by file name."""
    paths = sorted((results / "manifests").glob("*.json"))
    return [json_object(path) for path in paths if _planned(results, "manifests", path.stem)]


def read_settings(results: Path, runs: list[str]) -> dict[str, dict[str, Any]]:
    """Return run -> settings of its unlearning, of those runs whose spec is there; no nested ones."""
    paths = {run: results / "specs" / f"{run}.json" for run in runs}
    found = {run: part(json_object(path), "settings") for run, path in paths.items() if path.is_file()}
    return {run: {key: value for key, value in one.items() if _flat(value)} for run, one in found.items()}


def _flat(value: Any) -> bool:
    inner = value if isinstance(value, list) else [value]
    return not any(isinstance(one, (dict, list)) for one in inner)


def _planned(results: Path, kind: str, name: str) -> bool:
    """Is this run or dataset in the study's runs.json? A folder may hold older ones. Without a plan all are."""
    plan = results / "runs.json"
    return not plan.is_file() or name in json_object(plan)[kind]

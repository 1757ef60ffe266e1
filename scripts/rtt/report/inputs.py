"""What the report is made of, read once: tables, study, audits, manifests, settings of unlearning runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from rtt.errors import UserError
from rtt.figures.view import View, load, make_view
from rtt.files import read_json, sha256
from rtt.stats.shown import is_control
from rtt.stats.tables import read_table


@dataclass(frozen=True, eq=False)
class Inputs:
    """The files of a results folder that the report tells of.

    view: what the figures show of recovery.csv (all of it: `view.everything`), accuracy.csv, probes.csv and seeds.csv.
    other_views: the same of each other attack that has such results and is no control. contrasts, variants: those
    tables, None where there is no file. study: as runs.json has it, {} without one. settings: {unlearning run: its
    settings}. checksums: (name, sha256) of each table.
    """

    view: View
    other_views: list[View]
    contrasts: pd.DataFrame | None
    variants: pd.DataFrame | None
    study: dict[str, Any]
    audits: list[dict[str, Any]]
    manifests: list[dict[str, Any]]
    settings: dict[str, dict[str, Any]]
    checksums: list[tuple[str, str]]
    study_file: str


def read_inputs(results: Path, study_config: Path) -> Inputs:
    """Read a results folder and a study file. Raises UserError for a file that is missing or cannot be read."""
    tables = load(results / "tables")
    view = make_view(*tables)
    attacks = [str(name) for name in dict.fromkeys(tables.recovery["attack"]) if name != view.attack]
    others = [name for name in attacks if len(view.alternative(attack=name)) and not is_control(name)]
    runs = [str(run) for run in dict.fromkeys(view.accuracy["run"]) if run]
    return Inputs(
        view=view,
        other_views=[make_view(*tables, attack=name) for name in others],
        contrasts=_table(results / "tables" / "contrasts.csv"),
        variants=_table(results / "tables" / "variants.csv"),
        study=read_study(results),
        audits=read_audits(results),
        manifests=read_manifests(results),
        settings=read_settings(results, runs),
        checksums=[(path.name, sha256(path)) for path in sorted((results / "tables").glob("*.csv"))],
        study_file=_text(study_config),
    )


def json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file. Raises UserError that names the file where it holds something else."""
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
    """Return the study as runs.json has it, with every key spelled out; {} without that file."""
    runs = results / "runs.json"
    return part(json_object(runs), "study") if runs.is_file() else {}


def files_read(results: Path) -> list[Path]:
    """Return the tables, audits and manifests that a report of this folder is made of."""
    return [*sorted((results / "tables").glob("*.csv")), *_audits(results), *_manifests(results)]


def read_audits(results: Path) -> list[dict[str, Any]]:
    """Return the audits `data/*/audit.json` of the study's datasets, each with its folder's name, by folder."""
    return [{"folder": path.parent.name, **json_object(path)} for path in _audits(results)]


def _audits(results: Path) -> list[Path]:
    found = sorted((results / "data").glob("*/audit.json"))
    return [path for path in found if _belongs(results, "data", path.parent.name)]


def read_manifests(results: Path) -> list[dict[str, Any]]:
    """Return the manifests of the study's runs (without runs.json: all of `manifests/*.json`), by file name."""
    return [json_object(path) for path in _manifests(results)]


def _manifests(results: Path) -> list[Path]:
    paths = sorted((results / "manifests").glob("*.json"))
    return [path for path in paths if _belongs(results, "manifests", path.stem)]


def read_settings(results: Path, runs: list[str]) -> dict[str, dict[str, Any]]:
    """Return {run: settings of its unlearning}, without nested ones, of the runs whose spec is there."""
    paths = {run: results / "specs" / f"{run}.json" for run in runs}
    found = {run: part(json_object(path), "settings") for run, path in paths.items() if path.is_file()}
    return {run: {key: value for key, value in one.items() if _is_flat(value)} for run, one in found.items()}


def _is_flat(value: Any) -> bool:
    inner = value if isinstance(value, list) else [value]
    return not any(isinstance(one, (dict, list)) for one in inner)


def _belongs(results: Path, kind: str, name: str) -> bool:
    """Say whether runs.json names a run or dataset, as a folder may hold older ones; without the file all belong."""
    runs = results / "runs.json"
    return not runs.is_file() or name in json_object(runs)[kind]


def _table(path: Path) -> pd.DataFrame | None:
    return read_table(path) if path.is_file() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such study file; expected the study that made these results") from None

"""What the report is made of, read once: tables, study, audits, manifests, settings of unlearning runs, texts."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from rtt.data.facts import read_facts
from rtt.errors import UserError, printable
from rtt.figures.tables import load
from rtt.figures.view import View, make_view
from rtt.files import digest, read_json, sha256
from rtt.stats.shown import is_control, main_seed
from rtt.stats.tables import read_table
from rtt.study.names import DEFAULT, asked_for

NAMES = ("dataset", "arm", "model", "probe", "attack", "stage", "method", "id", "group", "v_split")  # in questions.csv


@dataclass(frozen=True)
class Text:
    """A question as a reader sees it, with its choices in the order of its probabilities in questions.csv.

    Both come from others: whatever would steer a terminal or a page's lines is written as its escape. Markup is left
    as it is, since the templates escape it.
    """

    question: str
    choices: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Inputs:
    """The files of a results folder that the report tells of.

    view: what the figures show of recovery.csv (all of it: `view.everything`), accuracy.csv, probes.csv and seeds.csv.
    other_views: the same of each other attack that has such results and is no control. contrasts, variants: those
    tables, None where there is no file. study: as runs.json has it, {} without one. settings: {unlearning run: its
    settings}. checksums: (name, sha256) of each table. forgotten: the audits of facts that the runs of the shown seed
    are asked for, not of those that they retain. questions: questions.csv, None where there is no file; an empty
    name in it is "". texts: {(dataset, id): that question}, {} where there are none or they are kept out.
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
    forgotten: list[dict[str, Any]]
    questions: pd.DataFrame | None = None
    texts: dict[tuple[str, str], Text] = field(default_factory=dict)


def read_inputs(results: Path, study_config: Path, texts: bool | Path = True) -> Inputs:
    """Read a results folder and a study file. Raises UserError for a file that is missing or cannot be read.

    texts: whether to read the texts of the questions, where the study does not keep them out (`report_texts`), or the
    results folder in which they lie, where they are not in this one.
    """
    tables = load(results / "tables")
    view = make_view(*tables)
    attacks = [str(name) for name in dict.fromkeys(tables.recovery["attack"]) if name != view.attack]
    others = [name for name in attacks if len(view.alternative(attack=name)) and not is_control(name)]
    runs = [str(run) for run in dict.fromkeys(view.accuracy["run"]) if run]
    audits, used = read_audits(results), _used(results, main_seed(view.seeds))
    return Inputs(
        view=view,
        other_views=[make_view(*tables, attack=name) for name in others],
        contrasts=_table(results / "tables" / "contrasts.csv"),
        variants=_table(results / "tables" / "variants.csv"),
        study=read_study(results),
        audits=audits,
        manifests=read_manifests(results),
        settings=read_settings(results, runs),
        checksums=[(path.name, sha256(path)) for path in sorted((results / "tables").glob("*.csv"))],
        study_file=_text(study_config),
        forgotten=[one for one in audits if not used or one["folder"].rpartition("-")[2] in used],
        questions=read_questions(results),
        texts=read_texts(results, texts, main_seed(view.seeds), view.probe),
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


def files_read(results: Path, texts: bool | Path = True) -> list[Path]:
    """Return the tables, audits, manifests and facts that a report of this folder is made of (`read_inputs`)."""
    tables = sorted((results / "tables").glob("*.csv"))
    return [*tables, *_audits(results), *_manifests(results), *_facts(results, texts)]


def read_questions(results: Path) -> pd.DataFrame | None:
    """Return questions.csv; None where there is no such file."""
    table = _table(results / "tables" / "questions.csv")
    for name in NAMES if table is not None else ():
        table[name] = table[name].astype(object).where(table[name].notna(), "").astype(str)
    return table


def read_texts(results: Path, texts: bool | Path, seed: int, probe: str) -> dict[tuple[str, str], Text]:
    """Return the questions by (dataset, id), of the facts that a seed's runs used; {} where they are kept out.

    probe: that of questions.csv, which decides the choices that a model was shown. Raises UserError where a file of
    facts is damaged.
    """
    fresh, found = asked_for(probe) == "likelihood_fresh", {}
    for path in _facts(results, texts, seed):
        for fact in read_facts(path):
            choices = fact.fresh_choices if fresh else fact.choices
            found[fact.dataset, fact.id] = Text(printable(fact.question), tuple(map(printable, choices)))
    return found


def _facts(results: Path, texts: bool | Path, seed: int | None = None) -> list[Path]:
    """Return the files of facts from which texts come: of the runs of the default variant with this seed, or of all."""
    if texts is False or read_study(results).get("report_texts") is False:
        return []
    folder = results if texts is True else texts
    paths = [path for path in sorted((folder / "data").glob("*/facts.jsonl")) if _belongs(results, "data", _name(path))]
    used = set() if seed is None else _used(results, seed)
    # A dataset may differ from seed to seed, and between variants. Without specs nothing tells.
    return [path for path in paths if not used or _name(path).rpartition("-")[2] in used]


def _name(path: Path) -> str:
    return path.parent.name


def _used(results: Path, seed: int) -> set[str]:
    """Return the hashes, as names of folders have them, of the facts that the default variant's runs of a seed used."""
    runs = results / "runs.json"
    stems = part(json_object(runs), "variants", DEFAULT).get("evals", ()) if runs.is_file() else ()
    paths = [results / "specs" / f"{run}.json" for run in dict.fromkeys(stem.partition("/")[0] for stem in stems)]
    specs = [json_object(path) for path in paths if path.is_file()]
    facts = [part(spec, "facts") or part(spec, "source", "facts") for spec in specs if spec.get("seed") == seed]
    return {digest(one)[:10] for one in facts if one}


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

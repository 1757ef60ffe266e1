"""Read evaluation and point choice JSON into arrays, and check it (schema: `config/eval.schema.json`)."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rtt.errors import UserError
from rtt.files import natural, read_json
from rtt.scoring import compact
from rtt.scoring.evidence import Evidence, check
from rtt.scoring.held_out import HeldOutText
from rtt.scoring.question_table import LetterUse, Questions, QuestionTable, get
from rtt.study.names import setting_text

VERSION = 2
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.+-]*")  # of a method, an external model or an attack
NO_EVIDENCE = Evidence()
Table = QuestionTable | compact.CompactTable
LABELS = ("dataset", "arm", "model", "method", "seed", "retain_budget", "target", "control_for", "attack")


@dataclass(frozen=True)
class Labels:
    """What an evaluation belongs to; `method`, `retain_budget` and `attack` are None where there is none."""

    dataset: str
    arm: str
    model: str
    method: str | None
    seed: int
    retain_budget: float | None
    target: str
    control_for: tuple[str, ...]
    attack: str | None
    unlearning_repeat: int = 0


@dataclass(frozen=True, eq=False)
class PointScores:
    """Scored points of one trajectory (kind `unlearned`), or the one model of kind `original`."""

    path: Path
    run_id: str
    labels: Labels
    steps: tuple[int, ...]  # P points, ascending
    forget: Questions
    retain: Questions
    choice: Questions  # forget facts set apart for the point choice; may be none
    # Probe of the tables -> (P, n) floats in [0, 1]: answered right (`rtt.scoring.correct`)
    forget_correct: dict[str, np.ndarray]
    retain_correct: dict[str, np.ndarray]
    choice_correct: dict[str, np.ndarray]
    letters: LetterUse  # on the forget questions
    text: HeldOutText | None = None  # of the retain questions; None where the file has none
    evidence: Evidence = NO_EVIDENCE


@dataclass(frozen=True, eq=False)
class AttackScores:
    """One attack on one checkpoint: every setting with every V split (kind `attacked`)."""

    path: Path
    run_id: str
    labels: Labels
    status: str
    attack: str
    settings: tuple[dict, ...]  # L settings in the file's order, gentlest first; empty when nothing was attacked
    v_splits: tuple[str, ...]  # S splits that served as V; all of them where the attack used no T
    uses_t: bool
    questions: Questions
    correct: dict[str, np.ndarray]  # probe of the tables -> (R, L, S, n) float in [0, 1], R repeats of the attack
    evidence: Evidence = NO_EVIDENCE


def read_eval(path: str | Path) -> PointScores | AttackScores:
    """Read one evaluation JSON; probes and keys that this program does not know are ignored.

    One in the compact form (`rtt.scoring.compact`) gives the same as the full one that it was made from.
    Raises UserError that names the file and the place: evidence that contradicts itself (`rtt.scoring.evidence`), a key
    that is missing or of the wrong type, a score that is not a finite number, a question that stands twice, looks that
    do not hold the same questions, a setting that lacks a V split or a repeat.
    """
    path = Path(path)
    document = read_json(path)
    if not isinstance(document, dict):
        raise UserError(f"{path}: found {type(document).__name__}, expected one JSON object")
    if get(path, document, "schema_version", int) != VERSION:
        raise UserError(f"{path}: schema_version is {document['schema_version']!r}, this program reads {VERSION}")
    kind = get(path, document, "kind", str)
    run_id = get(path, document, "run_id", str)
    labels = _labels(path, get(path, document, "labels", dict))
    status = document.get("status", "ok")
    if status not in ("ok", "none_within_budget"):
        raise UserError(f"{path}: status is {status!r}, expected ok or none_within_budget")
    table = QuestionTable(path)
    if compact.is_compact(document):
        table, document = compact.table(path, document)
    looks = get(path, document, "looks", list)
    if kind == "attacked":
        found = _attack(path, run_id, labels, status, looks, table)
        return replace(found, evidence=check(path, document))
    if kind not in ("original", "unlearned"):
        raise UserError(f"{path}: kind is {kind!r}, expected original, unlearned or attacked")
    if (labels.method is None) != (kind == "original") or labels.attack is not None:
        expected = f"{'no' if kind == 'original' else 'a'} method and no attack"
        raise UserError(
            f"{path}: kind {kind} has labels.method {labels.method!r} and labels.attack {labels.attack!r}, "
            f"expected {expected}"
        )
    return replace(points_of(path, run_id, labels, kind, looks, table), evidence=check(path, document))


def read_folder(folder: str | Path, stems: Iterable[str] | None = None) -> list[PointScores | AttackScores]:
    """Read the `*.json` of a folder, in the order of the names: those of `stems`, or all.

    Raises UserError when there is none, or when one of `stems` is missing.
    """
    paths = _listed(folder, stems)
    if not paths:
        raise UserError(f"{folder}: no evaluation (*.json) in this folder; run the attack step first")
    return [read_eval(path) for path in paths]


def _listed(folder: str | Path, stems: Iterable[str] | None) -> list[Path]:
    return sorted(Path(folder).rglob("*.json") if stems is None else (Path(folder, f"{stem}.json") for stem in stems))


@dataclass(frozen=True)
class ChosenPoints:
    """The points chosen for one group (dataset, arm, model, method, seed, unlearning repeat), over its trajectories."""

    path: Path
    group: tuple[str, str, str, str, int, int]
    runs: tuple[str, ...]  # the trajectories that were looked at
    document: dict  # as it was read
    points: dict[float, tuple[str, int] | None]  # retain budget -> (trajectory's run id, step), None: no point fits


def read_point_choices(folder: str | Path, stems: Iterable[str] | None = None) -> dict[tuple, ChosenPoints]:
    """Read `point_choices/*.json` (those of `stems`, or all), by group.

    Raises UserError that names the file and the key, also where two files are about one group.
    """
    found: dict[tuple, ChosenPoints] = {}
    for path in _listed(folder, stems):
        one = _point_choice(path, read_json(path))
        if one.group in found:
            raise UserError(
                f"{path}: the same labels as {found[one.group].path}; delete the one that is stale, or give --runs"
            )
        found[one.group] = one
    return found


def _point_choice(path: Path, document: Any) -> ChosenPoints:
    if not isinstance(document, dict):
        raise UserError(f"{path}: found {type(document).__name__}, expected one JSON object")
    labels = get(path, document, "labels", dict)
    group = tuple(get(path, labels, key, str, "labels") for key in ("dataset", "arm", "model", "method"))
    points: dict[float, tuple[str, int] | None] = {}
    for key, point in get(path, document, "selected", dict).items():
        where = f"selected[{key!r}]"
        try:
            budget = float(key)
        except ValueError:
            raise UserError(f"{path}: selected: key {key!r} is not a retain budget such as 0.1") from None
        if point is not None and not isinstance(point, dict):
            raise UserError(f'{path}: {where} is {point!r}, expected {{"run": ..., "step": ...}} or null')
        points[budget] = None
        if point is not None:
            points[budget] = get(path, point, "run", str, where), get(path, point, "step", int, where)
    seen = enumerate(get(path, document, "points", list))
    runs = dict.fromkeys(
        get(path, point if isinstance(point, dict) else {}, "run", str, f"points[{i}]") for i, point in seen
    )
    numbers = (
        get(path, {"unlearning_repeat": 0} | labels, key, int, "labels") for key in ("seed", "unlearning_repeat")
    )
    return ChosenPoints(path, (*group, *numbers), tuple(runs), document, points)


def _labels(path: Path, found: dict) -> Labels:
    if missing := sorted(set(LABELS) - set(found)):
        raise UserError(f"{path}: labels: missing {missing}, expected {', '.join(LABELS)}")
    none = type(None)
    budget = get(path, found, "retain_budget", (int, float, none), "labels")
    target = get(path, found, "target", str, "labels")
    if target not in ("original", "unlearned", "control"):
        raise UserError(f"{path}: labels.target is {target!r}, expected original, unlearned or control")
    names = {key: get(path, found, key, (str, none), "labels") for key in ("method", "attack")}
    for key, name in names.items():
        if name is not None and not NAME.fullmatch(name):
            raise UserError(
                f"{path}: labels.{key} is {name!r}, expected a name of letters, digits and _ . + -, a letter first"
            )
    return Labels(
        **{key: get(path, found, key, str, "labels") for key in ("dataset", "arm", "model")},
        **names,
        seed=get(path, found, "seed", int, "labels"),
        retain_budget=None if budget is None else float(budget),
        target=target,
        control_for=tuple(get(path, found, "control_for", list, "labels")),
        unlearning_repeat=get(path, {"unlearning_repeat": 0} | found, "unlearning_repeat", int, "labels"),
    )


def points_of(
    path: Path, run_id: str, labels: Labels | None, kind: str, looks: list[dict], table: Table | None = None
) -> PointScores:
    """Return the scores of the looks of kind `original` or `unlearned`, without evidence. Raises UserError.

    table: where the answers are taken from; None: from the looks' own scores.
    """
    table = table or QuestionTable(path)
    if not looks or (kind == "original" and len(looks) != 1):
        raise UserError(f"{path}: kind {kind} has {len(looks)} looks, expected {'1' if kind == 'original' else '>= 1'}")
    for index, look in enumerate(looks):
        attack, setting, v_split, repeat = _head(path, index, look)
        table.add(index, look)
        if (attack, setting, v_split, repeat) != (None, {}, None, 0):
            raise UserError(
                f"{path}: kind {kind}: looks[{index}] has attack {attack!r}, setting {setting}, v_split {v_split!r}, "
                f"repeat {repeat}; nothing was attacked, so null, {{}}, null and 0 are expected"
            )
    roles = table.columns["role"]
    unknown = set(roles) - {"V", "retain", "choice"}
    if unknown:
        raise UserError(f"{path}: kind {kind}: roles {sorted(unknown)}, expected V, retain and choice")
    if "V" not in roles:
        raise UserError(f"{path}: kind {kind} has no forget question (role V)")
    steps = [0] if kind == "original" else []
    steps = steps or [get(path, look, "step", int, f"looks[{i}]") for i, look in enumerate(looks)]
    if len(set(steps)) != len(steps):
        raise UserError(f"{path}: steps {steps} are not distinct")
    order = sorted(range(len(steps)), key=lambda i: steps[i])
    masks = [np.array([one == role for one in roles]) for role in ("V", "retain", "choice")]
    correct = {probe: np.stack([rows[i] for i in order]) for probe, rows in table.rows.items()}
    return PointScores(
        path,
        run_id,
        labels,
        tuple(steps[i] for i in order),
        *(table.questions(mask) for mask in masks),
        *({probe: rows[:, mask] for probe, rows in correct.items()} for mask in masks),
        table.letter_use(masks[0], order),
        table.held_out_text(order),
    )


def _attack(path: Path, run_id: str, labels: Labels, status: str, looks: list, table: Table) -> AttackScores:
    if (labels.target == "unlearned") != (labels.method is not None and labels.retain_budget is not None):
        raise UserError(
            f"{path}: labels: target {labels.target} with method {labels.method!r}, retain_budget "
            f"{labels.retain_budget!r}; an unlearned target needs both, another one none"
        )
    if labels.attack is None:
        raise UserError(f"{path}: labels.attack is null, expected the name of the attack (kind attacked)")
    head = path, run_id, labels, status, labels.attack
    if status == "none_within_budget":
        if looks:
            raise UserError(f"{path}: status none_within_budget, but {len(looks)} looks; expected none")
        return AttackScores(*head, (), (), False, Questions((), (), (), np.zeros(0, int), np.zeros(0, int)), {})
    if not looks:
        raise UserError(f"{path}: status ok, but no looks; a target without a point has status none_within_budget")
    settings: dict[str, dict] = {}
    place: dict[tuple[str, str | None], dict[int, int]] = {}  # (setting, V split) -> repeat -> index of its look
    for index, look in enumerate(looks):
        attack, setting, v_split, repeat = _head(path, index, look)
        if attack != labels.attack:
            raise UserError(f"{path}: looks[{index}].attack is {attack!r}, labels.attack is {labels.attack!r}")
        table.add(index, look, v_split, attacked=True)
        name = setting_text(setting)
        settings.setdefault(name, setting)
        repeats = place.setdefault((name, v_split), {})
        if repeat in repeats:
            raise UserError(
                f"{path}: looks[{index}] repeats setting {name!r}, v_split {v_split}, repeat {repeat} of "
                f"looks[{repeats[repeat]}]"
            )
        repeats[repeat] = index
    found = list(dict.fromkeys(split for _, split in place))
    if None in found and len(found) > 1:
        raise UserError(f"{path}: v_split is null in some looks and {found[found[0] is None]!r} in others")
    found.sort(key=lambda split: natural(split or ""))
    expected = sorted(next(iter(place.values())))
    for name in settings:
        for split in found:
            repeats = place.get((name, split), {})
            if not repeats:
                raise UserError(f"{path}: no look for setting {name!r}, v_split {split}, which others have")
            if sorted(repeats) != expected:
                raise UserError(
                    f"{path}: setting {name!r}, v_split {split} has the repeats {sorted(repeats)}, the first setting "
                    f"has {expected}; each needs the same"
                )
    every = table.questions(np.ones(len(table.columns["id"]), bool))
    uses_t = None not in found
    v_splits = found if uses_t else list(dict.fromkeys(every.splits))
    correct = {}
    for probe, answered in table.rows.items():
        rows = [[[answered[place[name, split][repeat]] for split in found] for name in settings] for repeat in expected]
        # What an attack without T brings back counts for each V split alike.
        correct[probe] = np.repeat(np.array(rows), len(v_splits) // len(found), axis=2)
    return AttackScores(*head, tuple(settings.values()), tuple(v_splits), uses_t, every, correct)


def _head(path: Path, index: int, look: dict) -> tuple[str | None, dict, str | None, int]:
    """Return what tells one look from another: attack, setting, V split and repeat."""
    where = f"looks[{index}]"
    if not isinstance(look, dict):
        raise UserError(f"{path}: {where} is {look!r:.60}, expected an object")
    setting = get(path, look, "setting", dict, where)
    for key, value in setting.items():
        fits = isinstance(value, str | int | float | None) and (not isinstance(value, float) or math.isfinite(value))
        # Tables write `key=value key=value`, which must be read back as what it was.
        if not fits or not re.fullmatch(r"[^\s=]+", key) or not re.fullmatch(r"[^\s=]+", str(value)):
            raise UserError(
                f"{path}: {where}.setting has {key!r}: {value!r:.60}; expected a number, true, false, null or "
                "a text without spaces and `=`"
            )
    repeat = get(path, look, "repeat", int, where)
    if repeat < 0:
        raise UserError(f"{path}: {where}.repeat is {repeat}, expected 0 or more")
    attack, v_split = (get(path, look, key, (str, type(None)), where) for key in ("attack", "v_split"))
    return attack, setting, v_split, repeat

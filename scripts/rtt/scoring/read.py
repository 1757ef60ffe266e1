"""Evaluation and point choice JSON as arrays: read once, checked hard (schema: `config/eval.schema.json`)."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rtt.errors import UserError
from rtt.files import natural, read_json

PROBES = ("letter", "likelihood", "likelihood_fresh")
N_CHOICES = 4
METHOD = re.compile(r"[A-Za-z][A-Za-z0-9_.+-]*")  # the four known ones, or the name of an own unlearned model
LABELS = {"dataset", "arm", "model", "method", "seed", "retain_budget", "target", "control_for"}


@dataclass(frozen=True)
class Labels:
    """What an evaluation belongs to; `method` and `retain_budget` are None for none."""

    dataset: str
    arm: str
    model: str
    method: str | None
    seed: int
    retain_budget: float | None
    target: str
    control_for: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Questions:
    """n questions in the order of (split, id): the positions by which evaluations are paired."""

    ids: tuple[str, ...]
    splits: tuple[str, ...]
    answers: np.ndarray  # (n,) int, from 0


@dataclass(frozen=True, eq=False)
class PointScores:
    """Scored checkpoints of one trajectory (kind `unlearned`), or the one model of kind `original`."""

    path: Path
    run_id: str
    labels: Labels
    steps: tuple[int, ...]  # P points
    forget: Questions
    retain: Questions
    forget_correct: dict[str, np.ndarray]  # scoring -> (P, n_forget) bool
    retain_correct: dict[str, np.ndarray]  # scoring -> (P, n_retain) bool


@dataclass(frozen=True, eq=False)
class AttackScores:
    """RTT on one checkpoint: every look (lr, epoch) with every V split (kind `rtt`)."""

    path: Path
    run_id: str
    labels: Labels
    status: str
    looks: tuple[tuple[float, int], ...]  # L looks, by lr, then epoch; empty when nothing was attacked
    v_splits: tuple[str, ...]  # S splits that served as V
    questions: Questions
    correct: dict[str, np.ndarray]  # scoring -> (L, S, n) bool


def read_eval(path: str | Path) -> PointScores | AttackScores:
    """Read one evaluation JSON.

    Raises UserError that names the file and the place: a missing or wrong key, NaN, other than 4 scores, a question
    twice, results that do not hold the same questions, a (lr, V split, epoch) that is missing or twice.
    """
    path = Path(path)
    document = read_json(path)
    if not isinstance(document, dict):
        raise UserError(f"{path}: found {type(document).__name__}, expected one JSON object")
    if _get(path, document, "schema_version", int) != 1:
        raise UserError(f"{path}: schema_version is {document['schema_version']!r}, this program reads 1")
    kind = _get(path, document, "kind", str)
    run_id = _get(path, document, "run_id", str)
    labels = _labels(path, _get(path, document, "labels", dict))
    status = document.get("status", "ok")
    if status not in ("ok", "none_within_budget"):
        raise UserError(f"{path}: status is {status!r}, expected ok or none_within_budget")
    results = _get(path, document, "results", list)
    if kind == "rtt":
        return _attack(path, run_id, labels, status, results)
    if kind not in ("original", "unlearned"):
        raise UserError(f"{path}: kind is {kind!r}, expected original, unlearned or rtt")
    if (labels.method is None) != (kind == "original"):
        raise UserError(f"{path}: kind {kind} with labels.method {labels.method!r}")
    return _points(path, run_id, labels, kind, results)


def read_folder(folder: str | Path, stems: Iterable[str] | None = None) -> list[PointScores | AttackScores]:
    """Read the `*.json` of a folder, in the order of the names: those of `stems`, or all.

    Raises UserError when there is none, or one of `stems` is missing.
    """
    paths = _listed(folder, stems)
    if not paths:
        raise UserError(f"{folder}: no evaluation (*.json) in this folder; run the attack step first")
    return [read_eval(path) for path in paths]


def _listed(folder: str | Path, stems: Iterable[str] | None) -> list[Path]:
    return sorted(Path(folder).glob("*.json") if stems is None else (Path(folder, f"{stem}.json") for stem in stems))


@dataclass(frozen=True)
class ChosenPoints:
    """The points chosen for one group (dataset, arm, model, method, seed) over all its trajectories."""

    path: Path
    group: tuple[str, str, str, str, int]
    runs: tuple[str, ...]  # the trajectories that were looked at
    points: dict[float, tuple[str, int] | None]  # retain budget -> (trajectory's run id, step), None: no point fits


def read_point_choices(folder: str | Path, stems: Iterable[str] | None = None) -> dict[tuple, ChosenPoints]:
    """Read `point_choices/*.json` (those of `stems`, or all), by group.

    Raises UserError that names the file and the key, also where two files are about one group.
    """
    found: dict[tuple, ChosenPoints] = {}
    for path in _listed(folder, stems):
        one = _selection(path, read_json(path))
        if one.group in found:
            raise UserError(
                f"{path}: the same labels as {found[one.group].path}; delete the one that is stale, or give --plan"
            )
        found[one.group] = one
    return found


def _selection(path: Path, document: Any) -> ChosenPoints:
    if not isinstance(document, dict):
        raise UserError(f"{path}: found {type(document).__name__}, expected one JSON object")
    labels = _get(path, document, "labels", dict)
    group = tuple(_get(path, labels, key, str, "labels") for key in ("dataset", "arm", "model", "method"))
    points: dict[float, tuple[str, int] | None] = {}
    for key, point in _get(path, document, "selected", dict).items():
        where = f"selected[{key!r}]"
        try:
            budget = float(key)
        except ValueError:
            raise UserError(f"{path}: selected: key {key!r} is not a retain budget such as 0.1") from None
        if point is not None and not isinstance(point, dict):
            raise UserError(f'{path}: {where} is {point!r}, expected {{"run": ..., "step": ...}} or null')
        points[budget] = None
        if point is not None:
            points[budget] = _get(path, point, "run", str, where), _get(path, point, "step", int, where)
    seen = enumerate(_get(path, document, "points", list))
    runs = dict.fromkeys(
        _get(path, point if isinstance(point, dict) else {}, "run", str, f"points[{i}]") for i, point in seen
    )
    return ChosenPoints(path, (*group, _get(path, labels, "seed", int, "labels")), tuple(runs), points)


def _get(path: Path, mapping: dict, key: str, kind: type | tuple[type, ...], where: str = "") -> Any:
    name = f"{where}.{key}" if where else key
    if key not in mapping:
        raise UserError(f"{path}: {name} is missing")
    value = mapping[key]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UserError(f"{path}: {name} is {value!r:.60}, of the wrong type ({type(value).__name__})")
    return value


def _labels(path: Path, found: dict) -> Labels:
    if set(found) != LABELS:
        raise UserError(f"{path}: labels: missing {sorted(LABELS - set(found))}, unknown {sorted(set(found) - LABELS)}")
    none = type(None)
    budget = _get(path, found, "retain_budget", (int, float, none), "labels")
    target = _get(path, found, "target", str, "labels")
    if target not in ("original", "unlearned", "control"):
        raise UserError(f"{path}: labels.target is {target!r}, expected original, unlearned or control")
    method = _get(path, found, "method", (str, none), "labels")
    if method is not None and not METHOD.fullmatch(method):
        raise UserError(
            f"{path}: labels.method is {method!r}, expected a name of letters, digits and _ . + -, a letter first"
        )
    return Labels(
        **{key: _get(path, found, key, str, "labels") for key in ("dataset", "arm", "model")},
        method=method,
        seed=_get(path, found, "seed", int, "labels"),
        retain_budget=None if budget is None else float(budget),
        target=target,
        control_for=tuple(_get(path, found, "control_for", list, "labels")),
    )


def _points(path: Path, run_id: str, labels: Labels, kind: str, results: list) -> PointScores:
    if not results or (kind == "original" and len(results) != 1):
        raise UserError(
            f"{path}: kind {kind} has {len(results)} results, expected {'1' if kind == 'original' else '>= 1'}"
        )
    table = _Table(path)
    for index, result in enumerate(results):
        table.add(index, result)
    unknown = set(table.roles) - {"V", "retain"}
    if unknown:
        raise UserError(f"{path}: kind {kind}: roles {sorted(unknown)}, expected V and retain")
    if "V" not in table.roles:
        raise UserError(f"{path}: kind {kind} has no forget question (role V)")
    steps = tuple(_get(path, result, "step", int, f"results[{i}]") for i, result in enumerate(results))
    if len(set(steps)) != len(steps):
        raise UserError(f"{path}: steps {list(steps)} are not distinct")
    order = sorted(range(len(steps)), key=lambda i: steps[i])
    forget = np.array([role == "V" for role in table.roles])
    return PointScores(
        path,
        run_id,
        labels,
        tuple(steps[i] for i in order),
        table.questions(forget),
        table.questions(~forget),
        {probe: table.stack(probe, order)[:, forget] for probe in table.probes},
        {probe: table.stack(probe, order)[:, ~forget] for probe in table.probes},
    )


def _attack(path: Path, run_id: str, labels: Labels, status: str, results: list) -> AttackScores:
    if (labels.target == "unlearned") != (labels.method is not None and labels.retain_budget is not None):
        raise UserError(
            f"{path}: labels: target {labels.target} with method {labels.method!r}, retain_budget "
            f"{labels.retain_budget!r}; an unlearned target needs both, another one none"
        )
    if status == "none_within_budget":
        if results:
            raise UserError(f"{path}: status none_within_budget, but {len(results)} results; expected none")
        return AttackScores(path, run_id, labels, status, (), (), Questions((), (), np.zeros(0, int)), {})
    if not results:
        raise UserError(f"{path}: status ok, but no results; a target without a point has status none_within_budget")
    table, place = _Table(path), {}
    for index, result in enumerate(results):
        where = f"results[{index}]"
        table.add(index, result, v_split=_get(path, result, "v_split", str, where))
        epoch, lr = _get(path, result, "epoch", int, where), float(_get(path, result, "lr", (int, float), where))
        if epoch < 1 or not (math.isfinite(lr) and lr > 0):
            raise UserError(f"{path}: {where}: lr {lr}, epoch {epoch}; expected lr > 0 and epoch >= 1")
        key = ((lr, epoch), result["v_split"])
        if key in place:
            raise UserError(
                f"{path}: {where} repeats lr {lr}, epoch {epoch}, v_split {key[1]} of results[{place[key]}]"
            )
        place[key] = index
    looks = tuple(sorted({look for look, _ in place}))
    v_splits = tuple(sorted({split for _, split in place}, key=natural))
    for split in v_splits:
        for lr, epoch in looks:
            if ((lr, epoch), split) not in place:
                raise UserError(f"{path}: no result for lr {lr}, epoch {epoch}, v_split {split}, which others have")
    order = [place[look, split] for look in looks for split in v_splits]
    everything = np.ones(len(table.ids), bool)
    shape = (len(looks), len(v_splits), len(table.ids))
    return AttackScores(
        path,
        run_id,
        labels,
        status,
        looks,
        v_splits,
        table.questions(everything),
        {probe: table.stack(probe, order).reshape(shape) for probe in table.probes},
    )


class _Table:
    """The questions of a file's results, checked to be the same in each, as rows in the order of (split, id)."""

    def __init__(self, path: Path):
        self.path = path
        self.ids: list[str] = []
        self.raw_ids: list[str] = []
        self.rows: dict[str, list[np.ndarray]] = {}

    def add(self, index: int, result: dict, v_split: str | None = None) -> None:
        """Take one result; with `v_split`, check that its questions have role V and all others role T."""
        where = f"results[{index}]"
        questions = _get(self.path, result, "questions", list, where) if isinstance(result, dict) else []
        if not questions:
            raise UserError(f"{self.path}: {where} has no questions")
        try:
            ids = [question["id"] for question in questions]
            splits = [question["split"] for question in questions]
            roles = [question["role"] for question in questions]
            answers = np.array([question["answer"] for question in questions])
            names = questions[0]["scores"].keys()
            if any(question["scores"].keys() != names for question in questions):
                raise UserError(
                    f"{self.path}: {where}: questions differ in their probes; the first has {sorted(names)}"
                )
            scores = {name: [question["scores"][name] for question in questions] for name in sorted(names)}
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{self.path}: {where}: a question lacks or garbles {error}") from None
        if answers.dtype.kind != "i" or answers.min() < 0 or answers.max() >= N_CHOICES:
            raise UserError(f"{self.path}: {where}: an answer is not an integer from 0 to {N_CHOICES - 1}")
        if not self.raw_ids:
            self._first(where, ids, splits, roles, answers, scores)
        elif ids != self.raw_ids:
            if sorted(ids) != sorted(self.raw_ids):
                odd = sorted(set(ids) ^ set(self.raw_ids))[:3]
                raise UserError(f"{self.path}: {where} does not hold the questions of results[0]: {odd or 'one twice'}")
            self.raw_ids = ids
            self.order = sorted(range(len(ids)), key=lambda i: (natural(splits[i]), natural(ids[i])))
        if [splits[i] for i in self.order] != self.splits or not np.array_equal(answers[self.order], self.answers):
            raise UserError(f"{self.path}: {where}: a question's split or answer differs from results[0]")
        if v_split is None:
            if [roles[i] for i in self.order] != self.roles:
                raise UserError(f"{self.path}: {where}: a question's role differs from results[0]")
        elif roles != ["V" if split == v_split else "T" for split in splits]:
            raise UserError(f"{self.path}: {where}: role must be V in v_split {v_split!r} and T elsewhere")
        elif v_split not in splits:
            raise UserError(f"{self.path}: {where}: no question of v_split {v_split!r}")
        if sorted(scores) != self.probes:
            raise UserError(f"{self.path}: {where}: probes {sorted(scores)}, results[0] has {self.probes}")
        for name, values in scores.items():
            try:
                array = np.array(values, dtype=float)
            except (TypeError, ValueError):
                array = np.zeros(0)
            if array.shape != (len(ids), N_CHOICES):
                raise UserError(
                    f"{self.path}: {where}: {name}: a question has other than {N_CHOICES} numbers as scores"
                )
            if not np.isfinite(array).all():
                bad = ids[int(np.argmin(np.isfinite(array).all(axis=1)))]
                raise UserError(
                    f"{self.path}: {where}: {name} scores of question {bad} are not finite: {values[ids.index(bad)]}"
                )
            # argmax takes the first maximum, as the prediction is defined.
            self.rows[name].append((array.argmax(axis=1) == answers)[self.order])

    def _first(self, where: str, ids: list, splits: list, roles: list, answers: np.ndarray, scores: dict) -> None:
        unknown = sorted(set(scores) - set(PROBES))
        if unknown or not scores:
            raise UserError(f"{self.path}: {where}: probes {sorted(scores)}, expected one or more of {list(PROBES)}")
        if len(set(ids)) != len(ids):
            twice = next(identifier for i, identifier in enumerate(ids) if identifier in ids[:i])
            raise UserError(f"{self.path}: {where}: question {twice} stands twice")
        self.raw_ids, self.probes = ids, sorted(scores)
        self.order = sorted(range(len(ids)), key=lambda i: (natural(splits[i]), natural(ids[i])))
        self.ids = [ids[i] for i in self.order]
        self.splits = [splits[i] for i in self.order]
        self.roles = [roles[i] for i in self.order]
        self.answers = answers[self.order]
        self.rows = {name: [] for name in self.probes}

    def questions(self, mask: np.ndarray) -> Questions:
        chosen = np.flatnonzero(mask)
        return Questions(
            tuple(self.ids[i] for i in chosen), tuple(self.splits[i] for i in chosen), self.answers[chosen]
        )

    def stack(self, probe: str, order: Iterable[int]) -> np.ndarray:
        return np.stack([self.rows[probe][i] for i in order])

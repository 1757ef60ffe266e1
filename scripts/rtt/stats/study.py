"""Which evaluation belongs where: the runs of one arm and seed together, checked against each other."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from rtt.errors import UserError
from rtt.evals import Attack, Labels, Points, Questions, read_selections
from rtt.stats.looks import letter_floor

ARMS = ("pretrained", "taught", "taught_same_data")
METHODS = ("GD", "RMU", "RIA", "FIF")


@dataclass(eq=False)
class Study:
    """All runs of one (dataset, arm, model, seed)."""

    key: tuple[str, str, str, int]
    original: Points | None = None
    original_rtt: Attack | None = None
    control: Attack | None = None
    unlearned: dict[str, Points] = field(default_factory=dict)  # by method
    attacks: dict[tuple[str, float], Attack] = field(default_factory=dict)  # by (method, budget)
    selected: dict[tuple[str, float], int | None] = field(default_factory=dict)  # by (method, budget): step or None


def assemble(
    evals: list[Points | Attack], selections_folder: str | Path, selections: Iterable[str] | None = None
) -> list[Study]:
    """Group evaluations by (arm, dataset, model, seed), in the order of the tables.

    Raises UserError where files contradict each other: a run twice, a missing original or attack, other question ids.
    """
    studies: dict[tuple, Study] = {}
    controls: list[Attack] = []
    for found in evals:
        labels = found.labels
        if isinstance(found, Attack) and labels.target == "control":
            controls.append(found)
            continue
        if labels.target == "control":
            continue  # the control's own model before RTT belongs to no arm
        study = studies.setdefault(_key(labels), Study(_key(labels)))
        if isinstance(found, Attack) and labels.target == "unlearned":
            _put_item(study.attacks, (labels.method, labels.retain_budget), found)
        elif isinstance(found, Attack):
            _put(study, "original_rtt", found)
        elif labels.method is None:
            _put(study, "original", found)
        else:
            _put_item(study.unlearned, labels.method, found)
    selections = read_selections(selections_folder, selections)
    for study in studies.values():
        _complete(study, selections, selections_folder)
        study.control = _control(study, controls)
        _check_questions(study)
    return sorted(studies.values(), key=lambda study: arm_order(*study.key))


def _key(labels: Labels) -> tuple[str, str, str, int]:
    return labels.dataset, labels.arm, labels.model, labels.seed


def arm_order(dataset: str, arm: str, model: str, seed: int) -> tuple:
    """Sort key of an arm's runs, in the natural order of the arms."""
    return place(ARMS, arm), dataset, model, seed


def place(known: tuple[str, ...], name: str) -> tuple:
    """Sort key: the known names in their order, then others by name."""
    return (known.index(name), "") if name in known else (len(known), name)


def _put(study: Study, name: str, found: Points | Attack) -> None:
    if getattr(study, name) is not None:
        raise UserError(f"{found.path}: the same labels as {getattr(study, name).path}; delete the one that is stale")
    setattr(study, name, found)


def _put_item(runs: dict, key, found: Points | Attack) -> None:
    if key in runs:
        raise UserError(f"{found.path}: the same labels as {runs[key].path}; delete the one that is stale")
    runs[key] = found


def _complete(study: Study, selections: dict, folder: str | Path) -> None:
    """Fill `study.selected` and check that each selected point was scored and attacked."""
    name = ", ".join(str(part) for part in study.key)
    any_file = next(
        iter([*study.unlearned.values(), *study.attacks.values()]), study.original_rtt or study.original
    ).path
    if study.original is None:
        raise UserError(f"{any_file}: no evaluation of kind original for ({name}), the model before unlearning")
    if (study.unlearned or study.attacks) and (study.original_rtt is None or not study.original_rtt.looks):
        raise UserError(f"{any_file}: no RTT evaluation with target original for ({name}): recovery has no denominator")
    for method, points in study.unlearned.items():
        if points.run_id not in selections:
            raise UserError(
                f"{points.path}: no selection with run_id {points.run_id!r} in {folder}; run the select step"
            )
        file, steps = selections[points.run_id]
        for budget, step in steps.items():
            if step is not None and step not in points.steps:
                raise UserError(f"{file}: selected step {step} is not in {points.path} (steps {list(points.steps)})")
            attack = study.attacks.get((method, budget))
            if step is not None and (attack is None or not attack.looks):
                found = "is missing" if attack is None else f"({attack.path}) has no results"
                raise UserError(f"{file}: step {step} is selected for budget {budget}, but its RTT evaluation {found}")
            if step is None and attack is not None and attack.looks:
                raise UserError(f"{attack.path}: has results, but {file} selects no step for budget {budget}")
            study.selected[method, budget] = step
    for key, attack in study.attacks.items():
        if key[0] not in study.unlearned:
            raise UserError(f"{attack.path}: no evaluation of kind unlearned for method {key[0]} of ({name})")
        if key not in study.selected:
            raise UserError(
                f"{attack.path}: retain_budget {key[1]} is not in {selections[study.unlearned[key[0]].run_id][0]}"
            )


def _control(study: Study, controls: list[Attack]) -> Attack | None:
    dataset, arm, model, seed = study.key
    fitting = [c for c in controls if arm in c.labels.control_for and (c.labels.model, c.labels.seed) == (model, seed)]
    # A study with several datasets may have a control for each; the arm's own dataset goes before another's.
    own = [control for control in fitting if control.labels.dataset == dataset]
    fitting = own or fitting
    if len(fitting) > 1:
        raise UserError(f"{fitting[1].path}: a second control for arm {arm}, seed {seed}, beside {fitting[0].path}")
    return fitting[0] if fitting and fitting[0].looks else None


def _check_questions(study: Study) -> None:
    """Everything is paired by position: the same ids within the arm, the same shape for the control."""
    reference = study.original
    for points in study.unlearned.values():
        for set_name in ("forget", "retain"):
            _same_ids(reference.path, getattr(reference, set_name), points.path, getattr(points, set_name))
    for attack in (study.original_rtt, *study.attacks.values()):
        if attack is None or not attack.looks:
            continue
        _same_ids(reference.path, reference.forget, attack.path, attack.questions)
        _same_splits(study.original_rtt, attack)
    if study.control is not None and study.original_rtt is not None:
        a, b = (_shape(attack) for attack in (study.original_rtt, study.control))
        if list(a.values()) != list(b.values()):
            raise UserError(
                f"{study.control.path}: the control's V splits hold {b} questions, {study.original_rtt.path} has {a}: "
                "a control needs the same T and V sizes, so that it is selected alike"
            )


def _shape(attack: Attack) -> dict[str, int]:
    return {split: attack.questions.splits.count(split) for split in attack.v_splits}


def _same_ids(path_a: Path, a: Questions, path_b: Path, b: Questions) -> None:
    if a.ids != b.ids:
        odd = sorted(set(a.ids) ^ set(b.ids))
        raise UserError(
            f"{path_b}: its questions are not those of {path_a}: {len(odd)} ids stand in one file only"
            + (f" (first: {odd[0]})" if odd else ", or splits differ")
        )
    if not np.array_equal(a.answers, b.answers):
        raise UserError(f"{path_b}: answers differ from {path_a} at {a.ids[int(np.argmax(a.answers != b.answers))]}")


def _same_splits(a: Attack, b: Attack) -> None:
    if a.v_splits != b.v_splits:
        raise UserError(
            f"{b.path}: v_splits {list(b.v_splits)}, but {a.path} has {list(a.v_splits)}; one is incomplete"
        )


def v_view(attack: Attack) -> tuple[np.ndarray, np.ndarray]:
    """Return the V questions of an attack: (n,) positions in `attack.questions` and (n,) their V split's index.

    A question that is never in V (its split served as T only) is left out.
    """
    index = {split: i for i, split in enumerate(attack.v_splits)}
    split_of = np.array([index.get(split, -1) for split in attack.questions.splits])
    positions = np.flatnonzero(split_of >= 0)
    return positions, split_of[positions]


def v_correct(attack: Attack, scoring: str) -> np.ndarray:
    """Return (L, n) bool: each V question scored by the model that had its split as V."""
    positions, split_of = v_view(attack)
    return attack.correct[scoring][:, split_of, positions]


@lru_cache(maxsize=4)
def t_counts(attack: Attack, scoring: str) -> tuple[np.ndarray, np.ndarray]:
    """Return (L, S) correct T questions per look and V split, and (S,) their number."""
    in_t = np.array([[split != v for split in attack.questions.splits] for v in attack.v_splits])
    return (attack.correct[scoring] & in_t).sum(axis=2), in_t.sum(axis=1)


def floor_of(attack: Attack, scoring: str) -> float:
    """Accuracy of an attacker without knowledge: T's majority letter on V, or one over the number of choices."""
    if scoring != "letter":
        return 0.25
    positions, split_of = v_view(attack)
    splits, answers = np.array(attack.questions.splits), attack.questions.answers
    return letter_floor(answers[positions], split_of, [answers[splits != v] for v in attack.v_splits])


def t_at(attack: Attack, scoring: str, pairs: Iterable[tuple[int, int]]) -> tuple[int, int, int]:
    """T over (look, V split) pairs: correct answers, answers, and distinct questions among them."""
    counts, totals = t_counts(attack, scoring)
    pairs = list(pairs)
    used = {v for _, v in pairs}
    # With two V splits or more every question is in T once at least.
    distinct = len(attack.questions.ids) if len(used) > 1 else int(totals[min(used)])
    return int(sum(counts[pair] for pair in pairs)), int(sum(totals[v] for _, v in pairs)), distinct

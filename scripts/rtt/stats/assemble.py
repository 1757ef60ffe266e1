"""Which evaluation belongs where: the runs of one arm and seed together, checked against each other."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from pathlib import Path

import numpy as np

from rtt.errors import UserError
from rtt.files import natural
from rtt.scoring.read import AttackScores, Labels, PointScores, Questions, read_point_choices
from rtt.stats.look_choice import letter_floor

ARMS = ("pretrained", "taught", "taught_same_data")
METHODS = ("GD", "RMU", "RIA", "FIF")


@dataclass(eq=False)
class ArmScores:
    """All runs of one (dataset, arm, model, seed)."""

    key: tuple[str, str, str, int]
    original: PointScores | None = None
    original_attacked: AttackScores | None = None
    control: AttackScores | None = None
    unlearned: dict[str, list[PointScores]] = field(default_factory=dict)  # by method: its trajectories, by run id
    attacks: dict[tuple[str, float], AttackScores] = field(default_factory=dict)  # by (method, budget)
    # By (method, budget): the trajectory's run id and the step, or None
    selected: dict[tuple[str, float], tuple[str, int] | None] = field(default_factory=dict)

    def point(self, method: str, budget: float) -> tuple[PointScores, int] | None:
        """Return the trajectory and the index of the point selected for a budget; None where no point fits it."""
        selected = self.selected[method, budget]
        if selected is None:
            return None
        run, step = selected
        points = next(points for points in self.unlearned[method] if points.run_id == run)
        return points, points.steps.index(step)


def assemble(
    evals: list[PointScores | AttackScores], selections_folder: str | Path, point_choices: Iterable[str] | None = None
) -> list[ArmScores]:
    """Group evaluations by (arm, dataset, model, seed), in the order of the tables.

    Without any evaluation of kind rtt, the study attacks nothing: then none is missing.
    Raises UserError where files contradict each other: a run twice, a missing original or attack, other question ids.
    """
    studies: dict[tuple, ArmScores] = {}
    controls: list[AttackScores] = []
    for found in evals:
        labels = found.labels
        if isinstance(found, AttackScores) and labels.target == "control":
            controls.append(found)
            continue
        if labels.target == "control":
            continue  # the control's own model before RTT belongs to no arm
        study = studies.setdefault(_key(labels), ArmScores(_key(labels)))
        if isinstance(found, AttackScores) and labels.target == "unlearned":
            key = labels.method, labels.retain_budget
            if key in study.attacks:
                raise _twice(found, study.attacks[key])
            study.attacks[key] = found
        elif isinstance(found, AttackScores):
            _put(study, "original_attacked", found)
        elif labels.method is None:
            _put(study, "original", found)
        else:
            study.unlearned.setdefault(labels.method, []).append(found)
    chosen = read_point_choices(selections_folder, point_choices)
    attacked = any(isinstance(found, AttackScores) for found in evals)
    for study in studies.values():
        _complete(study, chosen, selections_folder, attacked)
        study.control = _control(study, controls, {key[0] for key in studies if key[1:] == study.key[1:]})
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


def _put(study: ArmScores, name: str, found: PointScores | AttackScores) -> None:
    if getattr(study, name) is not None:
        raise _twice(found, getattr(study, name))
    setattr(study, name, found)


def _twice(found: PointScores | AttackScores, first: PointScores | AttackScores) -> UserError:
    return UserError(f"{found.path}: the same labels as {first.path}; delete the one that is stale, or give --plan")


def _complete(study: ArmScores, point_choices: dict, folder: str | Path, attacked: bool) -> None:
    """Fill `study.selected` and check that each selected point was scored and, where anything is, attacked."""
    name = ", ".join(str(part) for part in study.key)
    any_file = next(
        iter([*chain(*study.unlearned.values()), *study.attacks.values()]), study.original_attacked or study.original
    ).path
    if study.original is None:
        raise UserError(f"{any_file}: no evaluation of kind original for ({name}), the model before unlearning")
    if (
        attacked
        and (study.unlearned or study.attacks)
        and (study.original_attacked is None or not study.original_attacked.looks)
    ):
        raise UserError(f"{any_file}: no RTT evaluation with target original for ({name}): recovery has no denominator")
    dataset, arm, model, seed = study.key
    for method, trajectories in study.unlearned.items():
        trajectories.sort(key=lambda points: natural(points.run_id))
        steps = {points.run_id: points.steps for points in trajectories}
        if len(steps) < len(trajectories):
            raise UserError(f"{trajectories[0].path}: its run_id stands in a second evaluation of kind unlearned")
        chosen = point_choices.get((dataset, arm, model, method, seed))
        if chosen is None:
            raise UserError(f"{trajectories[0].path}: no point choice for {method} of ({name}) in {folder}; run choose")
        if odd := sorted(set(chosen.runs) ^ set(steps)):
            side = "was scored and not selected from" if odd[0] in steps else "has no evaluation of kind unlearned"
            raise UserError(f"{chosen.path}: trajectory {odd[0]} {side}; run the choose step again")
        for budget, point in chosen.points.items():
            if point is not None and point[1] not in steps.get(point[0], ()):
                scored = list(steps.get(point[0], ())) or "none"
                raise UserError(
                    f"{chosen.path}: selected step {point[1]} is not in {point[0]} (scored steps: {scored})"
                )
            attack = study.attacks.get((method, budget))
            if attacked and point is not None and (attack is None or not attack.looks):
                found = "is missing" if attack is None else f"({attack.path}) has no results"
                raise UserError(
                    f"{chosen.path}: step {point[1]} is selected for budget {budget}, but its RTT evaluation {found}"
                )
            if point is None and attack is not None and attack.looks:
                raise UserError(f"{attack.path}: has results, but {chosen.path} choices no step for budget {budget}")
            study.selected[method, budget] = point
    for key, attack in study.attacks.items():
        if key[0] not in study.unlearned:
            raise UserError(f"{attack.path}: no evaluation of kind unlearned for method {key[0]} of ({name})")
        if key not in study.selected:
            file = point_choices[dataset, arm, model, key[0], seed].path
            raise UserError(f"{attack.path}: retain_budget {key[1]} is not in {file}")


def _control(study: ArmScores, controls: list[AttackScores], datasets: set[str]) -> AttackScores | None:
    """The arm's control: on its own dataset, else on one that is none of the arm's `datasets`."""
    dataset, arm, model, seed = study.key
    fitting = [c for c in controls if arm in c.labels.control_for and (c.labels.model, c.labels.seed) == (model, seed)]
    # A study with several datasets may have a control for each: another dataset's own control is not this one's.
    own = [control for control in fitting if control.labels.dataset == dataset]
    fitting = own or [control for control in fitting if control.labels.dataset not in datasets]
    if len(fitting) > 1:
        raise UserError(f"{fitting[1].path}: a second control for arm {arm}, seed {seed}, beside {fitting[0].path}")
    return fitting[0] if fitting and fitting[0].looks else None


def _check_questions(study: ArmScores) -> None:
    """Everything is paired by position: the same ids within the arm, the same shape for the control."""
    reference = study.original
    for points in chain(*study.unlearned.values()):
        for set_name in ("forget", "retain"):
            _same_ids(reference.path, getattr(reference, set_name), points.path, getattr(points, set_name))
    for attack in (study.original_attacked, *study.attacks.values()):
        if attack is None or not attack.looks:
            continue
        _same_ids(reference.path, reference.forget, attack.path, attack.questions)
        _same_splits(study.original_attacked, attack)
    if study.control is not None and study.original_attacked is not None:
        a, b = (_shape(attack) for attack in (study.original_attacked, study.control))
        if list(a.values()) != list(b.values()):
            raise UserError(
                f"{study.control.path}: the control's V splits hold {b} questions, {study.original_attacked.path} has {a}: "
                "a control needs the same T and V sizes, so that it is selected alike"
            )


def _shape(attack: AttackScores) -> dict[str, int]:
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


def _same_splits(a: AttackScores, b: AttackScores) -> None:
    if a.v_splits != b.v_splits:
        raise UserError(
            f"{b.path}: v_splits {list(b.v_splits)}, but {a.path} has {list(a.v_splits)}; one is incomplete"
        )


def v_view(attack: AttackScores) -> tuple[np.ndarray, np.ndarray]:
    """Return the V questions of an attack: (n,) positions in `attack.questions` and (n,) their V split's index.

    A question that is never in V (its split served as T only) is left out.
    """
    index = {split: i for i, split in enumerate(attack.v_splits)}
    split_of = np.array([index.get(split, -1) for split in attack.questions.splits])
    positions = np.flatnonzero(split_of >= 0)
    return positions, split_of[positions]


def v_correct(attack: AttackScores, probe: str) -> np.ndarray:
    """Return (L, n) bool: each V question scored by the model that had its split as V."""
    positions, split_of = v_view(attack)
    return attack.correct[probe][:, split_of, positions]


@lru_cache(maxsize=4)
def t_counts(attack: AttackScores, probe: str) -> tuple[np.ndarray, np.ndarray]:
    """Return (L, S) correct T questions per look and V split, and (S,) their number."""
    in_t = np.array([[split != v for split in attack.questions.splits] for v in attack.v_splits])
    return (attack.correct[probe] & in_t).sum(axis=2), in_t.sum(axis=1)


def floor_of(attack: AttackScores, probe: str) -> float:
    """Accuracy of an attacker without knowledge: T's majority letter on V, or one over the number of choices."""
    if probe != "letter":
        return 0.25
    positions, split_of = v_view(attack)
    splits, answers = np.array(attack.questions.splits), attack.questions.answers
    return letter_floor(answers[positions], split_of, [answers[splits != v] for v in attack.v_splits])


def t_at(attack: AttackScores, probe: str, pairs: Iterable[tuple[int, int]]) -> tuple[int, int, int]:
    """T over (look, V split) pairs: correct answers, answers, and distinct questions among them."""
    counts, totals = t_counts(attack, probe)
    pairs = list(pairs)
    used = {v for _, v in pairs}
    # With two V splits or more every question is in T once at least.
    distinct = len(attack.questions.ids) if len(used) > 1 else int(totals[min(used)])
    return int(sum(counts[pair] for pair in pairs)), int(sum(totals[v] for _, v in pairs)), distinct

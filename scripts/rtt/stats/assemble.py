"""Put the runs of each arm and seed together, and check that they fit each other."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from rtt.errors import UserError
from rtt.files import natural
from rtt.scoring.read import AttackScores, ChosenPoints, PointScores, Questions, read_point_choices
from rtt.stats.point_rule import check_choice
from rtt.study import plugins
from rtt.study.names import ARMS


@dataclass(eq=False)
class ArmScores:
    """The evaluations of one (dataset, arm, model, seed). `repeat` is that of unlearning."""

    key: tuple[str, str, str, int]
    original: PointScores | None = None
    # By (method, repeat): its trajectories, by run id
    unlearned: dict[tuple[str, int], list[PointScores]] = field(default_factory=dict)
    # By (method, budget, repeat): the chosen point's trajectory and step; None: no point keeps within the budget
    chosen: dict[tuple[str, float, int], tuple[str, int] | None] = field(default_factory=dict)
    original_attacked: dict[str, AttackScores] = field(default_factory=dict)  # by attack
    # By (attack, method, budget, repeat)
    attacks: dict[tuple[str, str, float, int], AttackScores] = field(default_factory=dict)
    # Models that never learned the facts that they are asked: the oracle the arm's own, the control others; where
    # there are no others, the oracle is the control, too. Before any attack, and by attack
    control: PointScores | None = None
    oracle: PointScores | None = None
    controls: dict[str, AttackScores] = field(default_factory=dict)
    oracles: dict[str, AttackScores] = field(default_factory=dict)

    def point(self, method: str, budget: float, repeat: int) -> tuple[PointScores, int] | None:
        """Return the trajectory and the index of the point chosen for a budget; None where no point fits it."""
        if (chosen := self.chosen[method, budget, repeat]) is None:
            return None
        run, step = chosen
        points = next(points for points in self.unlearned[method, repeat] if points.run_id == run)
        return points, points.steps.index(step)

    def cells(self) -> dict[tuple[str, float], list[int]]:
        """Return {(method, budget): the repeats of unlearning}, in the tables' order."""
        found: dict[tuple[str, float], list[int]] = {}
        for method, budget, repeat in in_order(self.chosen):
            found.setdefault((method, budget), []).append(repeat)
        return found

    def attack_names(self) -> list[str]:
        """Return the attacks that were run on this arm."""
        return list(dict.fromkeys([*self.original_attacked, *(attack for attack, *_ in self.attacks)]))

    def has(self, attack: str, method: str, budget: float, repeat: int) -> bool:
        """Return whether the point chosen for a budget, if any, was attacked. Only a partial study answers no."""
        return self.chosen[method, budget, repeat] is None or (attack, method, budget, repeat) in self.attacks


def assemble(
    evals: list[PointScores | AttackScores],
    choices_folder: str | Path,
    point_choices: Iterable[str] | None = None,
    partial: bool = False,
) -> list[ArmScores]:
    """Group evaluations by (arm, dataset, model, seed), in the order of the tables.

    An arm may lack an attack; but an attack that was run on an arm must be there for each of its chosen points.
    Raises UserError where files contradict each other: a run twice, a missing original or attack, other question ids.
    In a `partial` study whatever lacks something that it needs is left out instead.
    """
    arms: dict[tuple, ArmScores] = {}
    controls: dict[str | None, list[PointScores | AttackScores]] = {}  # by attack; None: before any
    for found in evals:
        labels = found.labels
        if labels.target == "control":
            controls.setdefault(labels.attack, []).append(found)
            continue
        key = labels.dataset, labels.arm, labels.model, labels.seed
        arm = arms.setdefault(key, ArmScores(key))
        if isinstance(found, AttackScores) and labels.target == "unlearned":
            _put(arm.attacks, (found.attack, labels.method, labels.retain_budget, labels.unlearning_repeat), found)
        elif isinstance(found, AttackScores):
            _put(arm.original_attacked, found.attack, found)
        elif labels.method is None:
            if arm.original is not None:
                raise _twice(found, arm.original)
            arm.original = found
        else:
            arm.unlearned.setdefault((labels.method, labels.unlearning_repeat), []).append(found)
    chosen = read_point_choices(choices_folder, point_choices)
    if partial:
        arms = {key: arm for key, arm in arms.items() if arm.original is not None}
        for arm in arms.values():
            _leave_out(arm, chosen)
    for arm in arms.values():
        _complete(arm, chosen, choices_folder, partial)
        datasets = {key[0] for key in arms if key[1:] == arm.key[1:]}
        for name, some in controls.items():
            control, oracle = _controls(arm, some, datasets)
            if name is None:
                arm.control, arm.oracle = control, oracle
                continue
            arm.controls |= {} if control is None else {name: control}
            arm.oracles |= {} if oracle is None else {name: oracle}
        _check_questions(arm)
    return sorted(arms.values(), key=lambda arm: arm_order(*arm.key))


def arm_order(dataset: str, arm: str, model: str, seed: int) -> tuple:
    """Return the sort key of an arm's runs: by arm, dataset, model and seed."""
    return place(ARMS, arm), dataset, model, seed


def in_order(chosen: Iterable[tuple[str, float, int]]) -> list[tuple[str, float, int]]:
    """Return (method, budget, repeat) in the tables' order."""
    return sorted(chosen, key=lambda key: (plugins.place("methods", key[0]), *key[1:]))


def place(known: Sequence[str], name: str) -> tuple:
    """Return the sort key of a name: the known ones keep their order, others follow by name."""
    return (known.index(name), "") if name in known else (len(known), name)


def _put(runs: dict, key: Any, found: AttackScores) -> None:
    if key in runs:
        raise _twice(found, runs[key])
    runs[key] = found


def _twice(found: PointScores | AttackScores, first: PointScores | AttackScores) -> UserError:
    return UserError(f"{found.path}: the same labels as {first.path}; delete the one that is stale, or give --runs")


def _leave_out(arm: ArmScores, chosen: dict[tuple, ChosenPoints]) -> None:
    """Take out of an unfinished arm, and of `chosen`, what lacks something that it needs."""
    dataset, name, model, seed = arm.key
    for (method, repeat), trajectories in arm.unlearned.items():
        group = dataset, name, model, method, seed, repeat
        if group in chosen and set(chosen[group].runs) != {points.run_id for points in trajectories}:
            del chosen[group]
    originals = {attack for attack, found in arm.original_attacked.items() if found.settings}
    arm.attacks = {
        (attack, method, budget, repeat): found
        for (attack, method, budget, repeat), found in arm.attacks.items()
        if attack in originals
        and (method, repeat) in arm.unlearned
        and (dataset, name, model, method, seed, repeat) in chosen
    }


def _complete(arm: ArmScores, point_choices: dict, folder: str | Path, partial: bool) -> None:
    """Fill `arm.chosen`, and check that each chosen point was scored and attacked by every attack of this arm."""
    name = ", ".join(str(part) for part in arm.key)
    if arm.original is None:
        some = next(chain(*arm.unlearned.values(), arm.attacks.values(), arm.original_attacked.values())).path
        raise UserError(f"{some}: no evaluation of kind original for ({name}), the model before unlearning")
    for attack in arm.attack_names():
        original = arm.original_attacked.get(attack)
        if (arm.unlearned or arm.attacks) and (original is None or not original.settings):
            some = next(chain(*arm.unlearned.values(), arm.attacks.values())).path
            raise UserError(
                f"{some}: no evaluation of the attack {attack} with target original for ({name}): recovery has no "
                "denominator"
            )
    dataset, arm_name, model, seed = arm.key
    for (method, repeat), trajectories in arm.unlearned.items():
        trajectories.sort(key=lambda points: natural(points.run_id))
        steps = {points.run_id: points.steps for points in trajectories}
        if len(steps) < len(trajectories):
            raise UserError(f"{trajectories[0].path}: its run_id stands in a second evaluation of kind unlearned")
        chosen = point_choices.get((dataset, arm_name, model, method, seed, repeat))
        if chosen is None and partial:
            continue
        if chosen is None:
            run = f", unlearning repeat {repeat}," if repeat else ""
            raise UserError(
                f"{trajectories[0].path}: no point choice for {method}{run} of ({name}) in {folder}; run choose"
            )
        _check_choice(arm, method, repeat, chosen, steps, partial)
    for (_, method, budget, repeat), found in arm.attacks.items():
        if (method, repeat) not in arm.unlearned:
            run = f", unlearning repeat {repeat}," if repeat else ""
            raise UserError(f"{found.path}: no evaluation of kind unlearned for method {method}{run} of ({name})")
        if (method, budget, repeat) not in arm.chosen:
            file = point_choices[dataset, arm_name, model, method, seed, repeat].path
            raise UserError(f"{found.path}: retain_budget {budget} is not in {file}")


def _check_choice(
    arm: ArmScores,
    method: str,
    repeat: int,
    choice: ChosenPoints,
    steps: dict[str, tuple[int, ...]],
    partial: bool,
) -> None:
    """Take in a method's chosen points, in one repeat. `steps` are the scored ones of each trajectory."""
    if odd := sorted(set(choice.runs) ^ set(steps)):
        side = "was scored, but no point choice read it" if odd[0] in steps else "has no evaluation of kind unlearned"
        raise UserError(f"{choice.path}: trajectory {odd[0]} {side}; run the step `choose` again")
    for budget, point in choice.points.items():
        if point is not None and point[1] not in steps.get(point[0], ()):
            scored = list(steps.get(point[0], ())) or "none"
            raise UserError(f"{choice.path}: chosen step {point[1]} is not in {point[0]} (scored steps: {scored})")
        for name in arm.attack_names():
            attack = arm.attacks.get((name, method, budget, repeat))
            if point is not None and (attack is None or not attack.settings) and not (partial and attack is None):
                found = "is missing" if attack is None else f"({attack.path}) has no looks"
                raise UserError(
                    f"{choice.path}: step {point[1]} is chosen for budget {budget}, but its evaluation by the attack "
                    f"{name} {found}"
                )
            if point is None and attack is not None and attack.settings:
                raise UserError(f"{attack.path}: has looks, but {choice.path} chooses no step for budget {budget}")
        arm.chosen[method, budget, repeat] = point
    check_choice(choice, arm.original, {points.run_id: points for points in arm.unlearned[method, repeat]})


def _controls(arm: ArmScores, found: list, datasets: set[str]) -> tuple[Any, Any]:
    """Return the control and the oracle that serve this arm, or None; `found` are those of one attack, or before any.

    Asked about the arm's own dataset it is the oracle, and the control as well where there is no other. One on another
    of the arm's `datasets` serves that dataset alone.
    """
    dataset, name, model, seed = arm.key
    fitting = [c for c in found if name in c.labels.control_for and (c.labels.model, c.labels.seed) == (model, seed)]
    own = [control for control in fitting if control.labels.dataset == dataset]
    others = [control for control in fitting if control.labels.dataset not in datasets]
    for some in (own, others):
        if len(some) > 1:
            raise UserError(f"{some[1].path}: a second control for arm {name}, seed {seed}, beside {some[0].path}")
    oracle, control = (
        next((one for one in some if isinstance(one, PointScores) or one.settings), None) for some in (own, others)
    )
    return (oracle if control is None else control), oracle


def _check_questions(arm: ArmScores) -> None:
    """Check that all evaluations can be paired by position: the same ids in the arm, the same shape in the control."""
    reference = arm.original
    for points in chain(*arm.unlearned.values()):
        for set_name in ("forget", "retain", "choice"):
            _same_questions(reference.path, getattr(reference, set_name), points.path, getattr(points, set_name))
    for attack in (*arm.original_attacked.values(), *arm.attacks.values()):
        if attack.settings:
            _same_questions(reference.path, reference.forget, attack.path, attack.questions)
            _same_splits(arm.original_attacked[attack.attack], attack)
            _same_repeats(arm.original_attacked[attack.attack], attack)
    for name, control in chain(arm.controls.items(), arm.oracles.items()):
        if name in arm.original_attacked:
            original = arm.original_attacked[name]
            a, b = (_shape(attack) for attack in (original, control))
            if list(a.values()) != list(b.values()):
                raise UserError(
                    f"{control.path}: the control's V splits hold {b} questions, {original.path} has {a}; a control "
                    "needs the same T and V sizes, so that its looks are chosen in the same way"
                )


def _shape(attack: AttackScores) -> dict[str, int]:
    return {split: attack.questions.splits.count(split) for split in attack.v_splits}


def _same_questions(path_a: Path, a: Questions, path_b: Path, b: Questions) -> None:
    if a.ids != b.ids:
        odd = sorted(set(a.ids) ^ set(b.ids))
        raise UserError(
            f"{path_b}: its questions are not those of {path_a}: {len(odd)} ids stand in one file only"
            + (f" (first: {odd[0]})" if odd else ", or splits differ")
        )
    if not np.array_equal(a.n_choices, b.n_choices):
        odd = int(np.argmax(a.n_choices != b.n_choices))
        raise UserError(
            f"{path_b}: {a.ids[odd]} has {b.n_choices[odd]} choices, but {path_a} has {a.n_choices[odd]} for it"
        )
    if not np.array_equal(a.answers, b.answers):
        raise UserError(f"{path_b}: answers differ from {path_a} at {a.ids[int(np.argmax(a.answers != b.answers))]}")


def _same_splits(a: AttackScores, b: AttackScores) -> None:
    if a.v_splits != b.v_splits:
        raise UserError(
            f"{b.path}: v_splits {list(b.v_splits)}, but {a.path} has {list(a.v_splits)}; one is incomplete"
        )


def _same_repeats(a: AttackScores, b: AttackScores) -> None:
    counts = [len(next(iter(one.correct.values()))) for one in (a, b)]
    if counts[0] != counts[1]:
        raise UserError(
            f"{b.path}: {counts[1]} repeats of the attack, but {a.path} has {counts[0]}; each repeat on an unlearned "
            "model is compared with the same one on the original"
        )

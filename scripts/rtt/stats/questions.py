"""questions.csv: what each model answers to each V question, with the probability that it gives to each choice.

One selection, which figures and report show first: the variant `default`, the main seed, the headline probe, the first
attack that is no control, one retain budget, the look choice `nested`, and the first repeats. So a question can be
followed from the original over unlearning and the attack to the models that never saw it.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from rtt.files import read_json
from rtt.scoring import compact, probabilities
from rtt.scoring.read import AttackScores, PointScores, Questions
from rtt.stats.assemble import ArmScores, place
from rtt.stats.look_choice import choose
from rtt.stats.reported import first_of, v_correct, v_view
from rtt.stats.shown import MAIN_LOOK_CHOICE, main_attack, main_budget, main_seed
from rtt.study.names import asked_for

KEYS = [
    *("dataset", "arm", "model", "seed", "probe", "attack", "retain_budget", "stage", "method"),
    *("id", "group", "v_split", "answer", "right"),
]
COLUMNS = [*KEYS, "p_1", "p_2"]  # and p_3 to p_k where a question has k choices


class Selection(NamedTuple):
    """Of which results the table has rows. attack: None where nothing was attacked; budget: None without points."""

    seed: int
    probe: str
    attack: str | None
    budget: float | None


class Asked(NamedTuple):
    """One model, as it was asked the V questions. `at`: (n,) the look at which each of them is shown."""

    stage: str
    method: str
    scores: PointScores | AttackScores
    at: np.ndarray


def questions_table(
    arms: Sequence[ArmScores], recovery: pd.DataFrame, probes: Sequence[str], attacks: Sequence[str]
) -> pd.DataFrame:
    """Return a row per V question and model.

    recovery: the rows of recovery.csv of these arms, which decide the selection. probes, attacks: the study's, the main
    one first, which decide it where there is no recovery. A question of a compact evaluation that lacks the
    probabilities has no row.
    """
    rows: list[dict[str, Any]] = []
    if (chosen := selection(arms, recovery, probes, attacks)) is not None:
        for arm in (one for one in arms if one.key[3] == chosen.seed):
            rows += _rows_of(arm, chosen)
    width = max([2, *(len(row["p"]) for row in rows)])
    names = [f"p_{i + 1}" for i in range(width)]
    cells = [(*(row[key] for key in KEYS), *row["p"], *[np.nan] * (width - len(row["p"]))) for row in rows]
    table = pd.DataFrame(cells, columns=[*KEYS, *names])
    return table.astype(dict.fromkeys(["right", *names], float))


def selection(
    arms: Sequence[ArmScores], recovery: pd.DataFrame, probes: Sequence[str], attacks: Sequence[str]
) -> Selection | None:
    """Return what is shown; None where there is no arm. What recovery.csv does not tell, the evaluations do."""
    if not arms:
        return None
    if len(recovery):
        probe = str(recovery["probe"].iloc[0])
        return Selection(main_seed(set(recovery["seed"])), probe, main_attack(recovery), main_budget(recovery))
    held = {probe for arm in arms for probe in arm.original.forget_correct}
    names = sorted({name for arm in arms for name in arm.attack_names()}, key=lambda name: place(attacks, name))
    budgets = pd.DataFrame({"retain_budget": [budget for arm in arms for _, budget, _ in arm.chosen]})
    return Selection(
        main_seed({arm.key[3] for arm in arms}),
        next(probe for probe in probes if probe in held),
        main_attack(pd.DataFrame({"attack": names})) if names else None,
        main_budget(budgets) if len(budgets) else None,
    )


def _rows_of(arm: ArmScores, chosen: Selection) -> Iterator[dict[str, Any]]:
    questions, positions, v_splits = _v_questions(arm, chosen)
    dataset, name, model, seed = arm.key
    head = {"dataset": dataset, "arm": name, "model": model, "seed": seed, "probe": chosen.probe}
    head |= {"attack": chosen.attack or "", "retain_budget": chosen.budget}
    for one in _models(arm, chosen, positions):
        own = {**head, "stage": one.stage, "method": one.method}
        right, shares = _right(one, chosen.probe, positions), _shares(one, chosen.probe, positions)
        for i, position in enumerate(positions.tolist()):
            if shares[i] is not None:
                asked = {"id": questions.ids[position], "group": questions.groups[position], "v_split": v_splits[i]}
                asked |= {"answer": int(questions.answers[position]), "right": float(right[i])}
                yield own | asked | {"p": shares[i][: questions.n_choices[position]].tolist()}


def _v_questions(arm: ArmScores, chosen: Selection) -> tuple[Questions, np.ndarray, list[str]]:
    """Return the forget questions, the positions of V among them, and the V split of each of those."""
    questions, attack = arm.original.forget, arm.original_attacked.get(chosen.attack)
    if attack is None or not attack.settings:
        return questions, np.arange(len(questions.ids)), list(questions.splits)
    positions, split_of = v_view(attack)
    return questions, positions, [attack.v_splits[split] for split in split_of]


def _models(arm: ArmScores, chosen: Selection, positions: np.ndarray) -> Iterator[Asked]:
    """Yield the models of an arm that were asked its questions by the probe, in the order of the stages."""
    points: list[tuple[str, str, PointScores | None, int]] = [("original", "", arm.original, 0)]
    attacked: list[tuple[str, str, AttackScores | None]] = [
        ("original_attacked", "", arm.original_attacked.get(chosen.attack))
    ]
    for (method, budget), repeats in arm.cells().items():
        if budget == chosen.budget and (found := arm.point(method, budget, repeats[0])) is not None:
            points.append(("unlearned", method, *found))
            key = chosen.attack, method, budget, repeats[0]
            attacked.append(("unlearned_attacked", method, arm.attacks.get(key)))
    for stage, before, after in (("oracle", arm.oracle, arm.oracles), ("control", arm.control, arm.controls)):
        points.append((stage, "", before, 0))
        attacked.append((f"{stage}_attacked", "", after.get(chosen.attack)))
    for stage, method, scores, at in points:
        if scores is not None and _same(scores.forget, arm.original.forget) and chosen.probe in scores.forget_correct:
            yield Asked(stage, method, scores, np.full(len(positions), at))
    for stage, method, scores in attacked:
        if scores is not None and _same(scores.questions, arm.original.forget) and chosen.probe in scores.correct:
            _, split_of = v_view(scores)
            correct = v_correct(scores, chosen.probe)[0]
            yield Asked(stage, method, scores, choose(MAIN_LOOK_CHOICE, correct, split_of, first_of(scores)).chosen)


def _same(one: Questions, other: Questions) -> bool:
    """Return whether two models were asked the same: a control may be asked others."""
    if (one.ids, one.splits) != (other.ids, other.splits):
        return False
    return np.array_equal(one.answers, other.answers) and np.array_equal(one.n_choices, other.n_choices)


def _right(one: Asked, probe: str, positions: np.ndarray) -> np.ndarray:
    """Return (n,) floats: 1, 0 or one over the number of choices that tie."""
    if isinstance(one.scores, PointScores):
        return one.scores.forget_correct[probe][one.at, positions]
    _, split_of = v_view(one.scores)
    return one.scores.correct[probe][0, one.at, split_of, positions]


def _shares(one: Asked, probe: str, positions: np.ndarray) -> list[np.ndarray | None]:
    """Return the probabilities of each V question's choices; None where the evaluation does not hold them.

    Only this evaluation is read again, and only its looks at these questions. A full one goes through half precision,
    as a compact one did when it was written.
    """
    document, asked = read_json(one.scores.path), asked_for(probe)
    is_points = isinstance(one.scores, PointScores)
    questions = one.scores.forget if is_points else one.scores.questions
    split_of = np.zeros(len(positions), int) if is_points or not one.scores.uses_t else v_view(one.scores)[1]
    found: list[np.ndarray | None] = [None] * len(positions)
    for at, split in sorted(set(zip(one.at.tolist(), split_of.tolist(), strict=True))):
        look = {"step": one.scores.steps[at]} if is_points else _look(one.scores, document, at, split)
        values = _probabilities(document, look, asked, questions)
        if values is None:
            continue
        row_of = {position: row for row, position in enumerate(probabilities.places(questions, look).tolist())}
        for i in np.flatnonzero((one.at == at) & (split_of == split)):
            found[i] = values[row_of[int(positions[i])]]
    return found


def _look(scores: AttackScores, document: dict, at: int, split: int) -> dict[str, Any]:
    repeat = 0 if compact.is_compact(document) else min(look["repeat"] for look in document["looks"])
    v_split = scores.v_splits[split] if scores.uses_t else None
    return {"setting": scores.settings[at], "v_split": v_split, "repeat": repeat}


def _probabilities(document: dict, look: dict[str, Any], asked: str, questions: Questions) -> np.ndarray | None:
    """Return (n, k) floats in half precision, of the questions of a look; None where there are none."""
    if not compact.is_compact(document):
        entry = next(iter(probabilities.of(document, [(look, [asked])], questions)), None)
    else:
        held = document.get("probabilities", ())
        entry = next((one for one in held if one["look"] == look and asked in one["probes"]), None)
    return None if entry is None else probabilities.read(entry, questions)[asked]

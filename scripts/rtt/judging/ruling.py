"""Hand a study's answers, question by question, to `rtt.stats.verdict`, which decides."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rtt.errors import UserError
from rtt.figures.view import attack_title
from rtt.judging.study import BUDGET
from rtt.scoring.read import AttackScores, read_folder
from rtt.stats import verdict
from rtt.stats.assemble import ArmScores, assemble
from rtt.stats.criteria import known
from rtt.stats.probes import by_probe
from rtt.stats.reported import first_of, stacked, v_groups
from rtt.stats.strongest import Suite, with_strongest
from rtt.stats.variants import StudyRuns
from rtt.study.names import DEFAULT, setting_text

Scores = AttackScores | Suite


def scores(results: Path) -> tuple[ArmScores, StudyRuns]:
    """Return a verdict's evaluations, with the strongest attack. Raises UserError unless the study has one arm."""
    runs = StudyRuns.read(results / "runs.json")
    own = runs.variants[DEFAULT]
    found = assemble(read_folder(results / "evals", own.evals), results / "point_choices", own.point_choices)
    if len(found) != 1:
        raise UserError(f"{results / 'runs.json'}: found {len(found)} arms, expected one: the study was changed")
    return with_strongest(found[0], runs.attacks), runs


def knows(arm: ArmScores, runs: StudyRuns) -> bool:
    """Return whether the original knew the facts by the headline probes."""
    return known(by_probe(arm.original, 0, runs.criteria), runs.criteria, runs.trained)


def members(found: Scores, probe: str) -> list[AttackScores]:
    """Return the attacks of a suite that were asked by a probe; a single attack is a suite of its own."""
    if isinstance(found, Suite):
        return [attack for attack, _ in found.asked(probe)]
    return [found] if probe in found.correct else []


def looks(found: Scores, probe: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return {attack: (L, n) answers of its first repeat}, and what a guesser scores there."""
    both = {attack.attack: stacked(attack, (probe,)) for attack in members(found, probe)}
    return {name: correct[0] for name, (correct, _) in both.items()}, {name: guess for name, (_, guess) in both.items()}


def ruled(
    arm: ArmScores, runs: StudyRuns, method: str, probe: str, row: Mapping[str, Any]
) -> tuple[verdict.Answer, str]:
    """Return the verdict by one probe, and which attack and setting was reported on each half, in a sentence.

    row: of the strongest attack, or of the only one (`rtt.judging.findings`); it says whether T was learned. Raises
    UserError where the unlearned model was not attacked.
    """
    name = row["attack"]
    if (own := arm.attacks.get((name, method, BUDGET, 0))) is None:
        raise UserError(f"the attack {name} on {method} is missing; start the study again")
    unlearned, floors = looks(own, probe)
    original, _ = looks(arm.original_attacked[name], probe)
    never = arm.controls.get(name)
    beside = {}
    if never is not None:
        answers, guess = looks(never, probe)
        beside = {
            "control": answers, "control_floors": guess, "control_halves": first_of(never),
            "control_groups": v_groups(never),
        }  # fmt: skip
    found = verdict.verdict(
        unlearned, original, floors, first_of(own), v_groups(own), **beside, known=knows(arm, runs),
        attack_learned=row["learned_t"], control_learned=row["control_learned_t"],
    )  # fmt: skip
    return found, chosen(own, probe, found)


def chosen(own: Scores, probe: str, found: verdict.Answer) -> str:
    """Return which attack and setting was reported on each half of the questions, in a sentence."""
    tried = {attack.attack: [setting_text(one) for one in attack.settings] for attack in members(own, probe)}
    told = [f"{attack_title(name)} at {tried[name][look] or 'its only setting'}" for name, look in found.chosen]
    if told[0] == told[1]:
        return f"Chosen on each half of the questions for the other one: {told[0]}."
    return f"Chosen on one half of the questions for the other one: {told[0]}, and {told[1]}."

"""The strongest attack: within each attack the setting, then the attack, both chosen on other questions.

The suite of a study are its attacks that are neither controls nor left out by `Attack.in_strongest`. All of them were
made on the original, the unlearned models, the control and the oracle, and each of these models has its own choice.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np

from rtt.errors import UserError
from rtt.scoring.read import AttackScores, Questions
from rtt.stats import reported
from rtt.stats.assemble import ArmScores, place
from rtt.stats.look_choice import best_look
from rtt.stats.reported import Reported, first_of, stacked
from rtt.study import plugins
from rtt.study.names import PROBES, STRONGEST, STRONGEST_ATTACK


@dataclass(frozen=True, eq=False)
class Chosen:
    """What is reported on one half of the questions, by indices of the attack and of its look.

    reports: (n,) bool, that half. deciding, reporting: (a - f) / (1 - f) on the half that decided, and on this one.
    """

    reports: np.ndarray
    attack: int
    look: int
    deciding: float
    reporting: float


def above(correct: np.ndarray, guess: np.ndarray) -> float:
    """Return (a - f) / (1 - f), the share of what a guesser misses: a, f are the means of (n,) floats.

    It is 0 where the guesser misses nothing, and where there are no questions.
    """
    if not len(correct):
        return 0.0
    a, f = float(correct.mean()), float(guess.mean())
    return (a - f) / (1 - f) if f < 1 - 1e-9 else 0.0


def choose(correct: Sequence[np.ndarray], guess: Sequence[np.ndarray], first: np.ndarray) -> tuple[Chosen, Chosen]:
    """Choose one attack and look on each half of n questions, to be reported on the other half.

    correct: each attack's (L, n) floats, gentlest look first; guess: what a guesser scores there, (L, n) or (n,);
    first: (n,) bool. Within an attack the look that lies highest above its floor is taken, among the attacks the one
    with the highest `above`. A tie goes to the first look, and to the first attack.
    """
    found = []
    for reports in (first, ~first):
        decides, looks, values = ~reports, [], []
        for one, floor in zip(correct, guess, strict=True):
            floor = np.broadcast_to(floor, one.shape)
            look = best_look((one[:, decides] - floor[:, decides]).sum(axis=1))
            looks.append(look)
            values.append(above(one[look, decides], floor[look, decides]))
        best = int(np.argmax(np.round(values, 9)))
        look, floor = looks[best], np.broadcast_to(guess[best], correct[best].shape)
        kept = above(correct[best][look, reports], floor[look, reports])
        found.append(Chosen(reports, best, look, values[best], kept))
    return found[0], found[1]


def reported_rows(
    correct: Sequence[np.ndarray], guess: Sequence[np.ndarray], choice: Iterable[Chosen]
) -> tuple[np.ndarray, np.ndarray]:
    """Return (n,) floats of the answers at the chosen looks, each half at its own, and what a guesser scores there."""
    answers, floors = np.zeros(correct[0].shape[1]), np.zeros(correct[0].shape[1])
    for one in choice:
        floor = np.broadcast_to(guess[one.attack], correct[one.attack].shape)
        answers[one.reports] = correct[one.attack][one.look, one.reports]
        floors[one.reports] = floor[one.look, one.reports]
    return answers, floors


@dataclass(frozen=True, eq=False)
class Suite:
    """The attacks of the suite on one model, in the order of the study, with the V splits that all of them have.

    members: at least two. probes: {attack: those by which it was asked on every model of the arm}.
    """

    members: tuple[AttackScores, ...]
    probes: Mapping[str, Collection[str]]

    @property
    def v_splits(self) -> tuple[str, ...]:
        """The splits that served as V."""
        return self.members[0].v_splits

    @property
    def questions(self) -> Questions:
        """What all attacks asked."""
        return self.members[0].questions

    @cached_property
    def settings(self) -> tuple[dict, ...]:
        """The settings of all attacks."""
        return tuple(setting for one in self.members for setting in one.settings)

    @property
    def repeats(self) -> int:
        """How many runs there are: as many as of the attack with the most repeats."""
        return max(map(repeats_of, self.members))

    def asked(self, probe: str) -> list[tuple[AttackScores, list[str]]]:
        """Return the attacks that were asked by a probe, with its name; by `strongest` all, with all their probes."""
        found = [
            (one, [name for name in PROBES if name in self.probes[one.attack] and probe in (name, STRONGEST)])
            for one in self.members
        ]
        return [(one, names) for one, names in found if names]


def repeats_of(attack: AttackScores) -> int:
    """Return how often an attack was repeated."""
    return len(next(iter(attack.correct.values())))


def held(scores: AttackScores | Suite) -> Collection[str]:
    """Return the probes by which an attacked model can be reported; of a suite those of two attacks or more."""
    if isinstance(scores, AttackScores):
        return scores.correct
    return [probe for probe in PROBES if len(scores.asked(probe)) > 1]


def attacked(scores: AttackScores | Suite, probe: str, look_choice: str) -> Reported:
    """Return the V questions of an attacked model as they are reported; a suite has the look choice `nested` alone."""
    if isinstance(scores, AttackScores):
        return reported.attacked(scores, probe, look_choice)
    if look_choice != "nested":
        raise ValueError(f"look choice {look_choice!r}: the strongest attack is chosen on other questions")
    rows = [
        reported_rows(*_looks(scores, probe, repeat), choice) for repeat, choice in enumerate(chosen(scores, probe))
    ]
    return Reported(*(np.array(column) for column in zip(*rows, strict=True)))


@lru_cache(maxsize=1024)
def chosen(suite: Suite, probe: str) -> tuple[tuple[Chosen, Chosen], ...]:
    """Return the choice of each run; an attack is an index into `suite.asked(probe)`."""
    return tuple(choose(*_looks(suite, probe, repeat), first_of(suite)) for repeat in range(suite.repeats))


def _looks(suite: Suite, probe: str, repeat: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return each attack's (probes x looks, n) answers in one run, and what a guesser scores there.

    An attack with fewer repeats stands with its last one.
    """
    found = [stacked(one, tuple(names)) for one, names in suite.asked(probe)]
    return [correct[min(repeat, len(correct) - 1)] for correct, _ in found], [guess for _, guess in found]


def in_suite(attack: str) -> bool:
    """Say whether an attack belongs to the suite; one that this program does not know does."""
    known = plugins.attacks().get(attack)
    return known is None or (known.in_strongest and not known.control)


def with_strongest(arm: ArmScores, order: Sequence[str], partial: bool = False) -> ArmScores:
    """Return an arm with a further attack, the strongest, where two attacks or more belong to the suite.

    order: the attacks of the study. One that the control or the oracle lacks, or that asked it other questions than the
    first attack did, is left out of all models. In a `partial` study, which may still get what is missing, the arm is
    left as it is instead. Raises UserError where an attack has the name of the strongest.
    """
    if STRONGEST_ATTACK in arm.original_attacked:
        path = arm.original_attacked[STRONGEST_ATTACK].path
        raise UserError(f"{path}: an attack is named {STRONGEST_ATTACK!r}, as tables call the strongest; rename it")
    names = [name for name in sorted(arm.attack_names(), key=lambda name: place(order, name)) if in_suite(name)]
    names = [name for name in names if name in arm.original_attacked and arm.original_attacked[name].settings]
    for others in (arm.controls, arm.oracles):
        ids = next((others[name].questions.ids for name in names if name in others), None)
        names = [name for name in names if ids is None or (name in others and others[name].questions.ids == ids)]
    if partial and set(names) != set(filter(in_suite, order)):
        return arm
    probes = {name: _common(arm, name) for name in names}
    original = _suite(arm.original_attacked, names, probes)
    if original is None:
        return arm
    attacks, own = dict(arm.attacks), {}
    for key in arm.chosen:
        there = {name: arm.attacks[name, *key] for name in names if (name, *key) in arm.attacks}
        if len(there) == len(names) and arm.chosen[key] is not None:
            own[STRONGEST_ATTACK, *key] = _suite(there, names, probes)
    controls, oracles = dict(arm.controls), dict(arm.oracles)
    for others in (controls, oracles):
        if names[0] in others and (suite := _suite(others, names, probes)) is not None:
            others[STRONGEST_ATTACK] = suite
    return replace(
        arm,
        original_attacked={**arm.original_attacked, STRONGEST_ATTACK: original},
        attacks=attacks | own,
        controls=controls,
        oracles=oracles,
    )


def _suite(found: Mapping[str, AttackScores], names: Sequence[str], probes: Mapping) -> Suite | None:
    """Return the attacks on one model, with the V splits that all have; None with fewer than two, or without such."""
    if len(names) < 2:
        return None
    some = [found[name] for name in names]
    shared = tuple(split for split in some[0].v_splits if all(split in one.v_splits for one in some))
    return Suite(tuple(_restricted(one, shared) for one in some), probes) if shared else None


def _restricted(attack: AttackScores, v_splits: tuple[str, ...]) -> AttackScores:
    """Return an attack with these V splits alone."""
    if attack.v_splits == v_splits:
        return attack
    at = [attack.v_splits.index(split) for split in v_splits]
    correct = {probe: answers[:, :, at] for probe, answers in attack.correct.items()}
    return replace(attack, v_splits=v_splits, correct=correct)


def _common(arm: ArmScores, attack: str) -> list[str]:
    """Return the probes by which an attack asked every model of an arm."""
    every = [some[attack] for some in (arm.original_attacked, arm.controls, arm.oracles) if attack in some]
    every += [one for (name, *_), one in arm.attacks.items() if name == attack and one.settings]
    return [probe for probe in PROBES if all(probe in one.correct for one in every)]

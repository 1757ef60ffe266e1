"""What attacks that are controls bring back, such as RTT on wrong answers: the format alone, and nothing hidden."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rtt.figures.phrases import listed
from rtt.figures.style import number
from rtt.figures.view import Panel, View, attack_title
from rtt.report.rows import Group, Result, alike, grouped
from rtt.stats.shown import is_control
from rtt.study import plugins


@dataclass(frozen=True)
class ControlRow:
    """One model: before any attack, after the control attack, after the study's attack."""

    panel: Panel
    model: str
    seed: int
    before: str
    format_only: str
    attacked: str
    floor: str


@dataclass(frozen=True)
class ControlAttack:
    """What one control attack brings: what it is, a sentence about the originals, and the models one by one."""

    name: str
    described: str
    sentence: str
    groups: list[Group[ControlRow]]


def control_attacks(found: Sequence[Result], view: View) -> list[ControlAttack]:
    """Return the control attacks of a study, each beside its main attack; [] without any."""
    results = alike(found, view)
    main = {(one.panel, one.method, one.seed): one for one in results if one.attack == view.attack}
    names = [name for name in dict.fromkeys(one.attack for one in results) if is_control(name)]
    return [_control(name, [one for one in results if one.attack == name], main, view) for name in names]


def _control(name: str, results: Sequence[Result], main: dict[tuple, Result], view: View) -> ControlAttack:
    rows, done, said = [], set(), []
    for one in results:
        other = main.get((one.panel, one.method, one.seed))
        if (one.panel, one.seed) not in done:
            done.add((one.panel, one.seed))
            attacked = str(other.acc_original_attacked) if other else "–"
            before, after = number(one.acc_before), str(one.acc_original_attacked)
            rows.append(ControlRow(one.panel, "original", one.seed, before, after, attacked, number(one.floor)))
            said.append(_said(one, len(view.seeds) > 1))
            if not math.isnan(one.acc_control_attacked.value):
                attacked = str(other.acc_control_attacked) if other else "–"
                after = str(one.acc_control_attacked)
                rows.append(ControlRow(one.panel, "control", one.seed, "–", after, attacked, number(one.floor)))
        attacked = str(other.acc_attacked) if other else "–"
        before, after = str(one.acc_unlearned), str(one.acc_attacked)
        rows.append(ControlRow(one.panel, one.method, one.seed, before, after, attacked, number(one.floor)))
    known = plugins.attacks().get(name)
    sentence = f"By the format alone, accuracy on V of the original goes {listed(said)}."
    return ControlAttack(attack_title(name), known.summary if known else "", sentence, grouped(rows))


def _said(one: Result, several: bool) -> str:
    where = f"{one.panel.name}, seed {one.seed}" if several else one.panel.name
    return f"from {number(one.acc_before)} to {one.acc_original_attacked} ({where})"

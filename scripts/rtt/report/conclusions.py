"""What the results say, in sentences: claim, criterion, statements over seeds. Pure: records in, records out."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rtt.figures.style import number, span
from rtt.figures.view import Panel
from rtt.figures.words import count
from rtt.report.rows import Result, grouped, upper
from rtt.stats.intervals import t_interval
from rtt.stats.recovery import TOO_WIDE

MAIN_ARM, MAIN_SEED = "pretrained", 0
WIDE_TEXT = f"the interval of its recovery reaches more than {number(TOO_WIDE)} from the estimate"
DONE = {"RTT": "retraining on T alone"}  # what an attack does, in the claim; others are named


@dataclass(frozen=True)
class Judged:
    """One method under the criterion. `holds`: None where there is nothing to judge. `note`: why it counts less."""

    result: Result
    holds: bool | None
    note: str

    @property
    def answer(self) -> str:
        """Say whether the criterion holds."""
        return {True: "yes", False: "no", None: "cannot be judged"}[self.holds]

    @property
    def remark(self) -> str:
        """Return the note as a table has it, with a capital letter."""
        return upper(self.note)


@dataclass(frozen=True)
class Verdict:
    """What the results of one panel's facts say: the claim, and the criterion, as a sentence and method by method."""

    facts: str
    claim: str
    criterion: str
    methods: list[Judged]


def main_panels(panels: Sequence[Panel]) -> list[Panel]:
    """Return the panels of the arm that the criterion is about: the first, which is `pretrained` where there is one."""
    return [panel for panel in panels if panel.arm == panels[0].arm]


def main_seed(seeds: Sequence[int]) -> int:
    """Return seed 0 where it was run, otherwise the lowest."""
    return MAIN_SEED if MAIN_SEED in seeds else min(seeds)


def verdicts(shown: Sequence[Result]) -> list[Verdict]:
    """Return the verdict on each main panel, on the main seed, of the results that the report shows."""
    seed = main_seed([one.seed for one in shown])
    found = []
    for panel in main_panels(list(dict.fromkeys(one.panel for one in shown))):
        judged = [judge(one) for one in shown if one.panel == panel and one.seed == seed]
        if judged:
            found.append(Verdict(upper(panel.facts), claim(judged), criterion_sentence(judged), judged))
    return found


def judge(result: Result) -> Judged:
    """Apply the criterion to one method: the interval of accuracy on V lies above the control's."""
    if math.isnan(result.acc_attacked.low):
        return Judged(result, None, "no point of its unlearning run lies within the budget")
    if result.exceeds_control is None:
        return Judged(result, None, "there is no control")
    if result.status == "not_unlearned":
        note = "it was not unlearned to the floor, so what comes back says little"
    elif not result.exceeds_control and not result.recovery_corrected.clear:
        note = f"it cannot be told: {WIDE_TEXT}"
    else:
        note = ""
    return Judged(result, result.exceeds_control, note)


def criterion_sentence(judged: Sequence[Judged]) -> str:
    """Say whether the criterion holds, fails or cannot be decided."""
    failed = [one.result.method for one in judged if one.holds is False]
    undecided = [one.result.method for one in judged if one.holds is None]
    little = [one.result.method for one in judged if one.holds and one.note]
    if failed:
        subject = "intervals" if len(failed) > 1 else "interval"
        verb = "do" if len(failed) > 1 else "does"
        text = f"The criterion fails: the {subject} of {listed(failed)} {verb} not lie above the control's."
        text += f" It cannot be judged for {listed(undecided)}." if undecided else ""
    elif undecided:
        text = f"The criterion is not met, because it cannot be judged for {listed(undecided)}."
    else:
        text = f"The criterion holds for {count(len(judged), len(judged), 'method')}."
    verb = "were" if len(little) > 1 else "was"
    return text + (
        f" It says little about {listed(little)}, which {verb} not unlearned to the floor." if little else ""
    )


def claim(judged: Sequence[Judged]) -> str:
    """Return the claim about one panel's facts: one sentence, and another about the methods that it leaves out."""
    facts = judged[0].result.panel.facts
    sound = [one for one in judged if one.holds is not None and not one.note]
    aside = "; ".join(f"{one.result.method}, because {one.note}" for one in judged if one not in sound)
    left_out = f" The claim leaves out {aside}." if aside else ""
    if not sound:
        return f"This study cannot tell whether the {facts} were removed or hidden.{left_out}"
    back = [one.result.method for one in sound if one.holds]
    gone = [one.result.method for one in sound if not one.holds]
    if not gone:
        who = count(len(back), len(back), "method") if len(back) > 1 else back[0]
        head = f"{upper(who)} hid the {facts}, at least in part, rather than removing them"
    elif not back:
        head = f"This study does not show that any of the {facts} come back after unlearning with {listed(gone)}"
    else:
        head = (
            f"{listed(back)} hid the {facts}, at least in part, rather than removing them, while this study does not "
            f"show that any come back after unlearning with {listed(gone)}"
        )
    return f"{head}: {_numbers([one.result for one in sound])}.{left_out}"


def _numbers(results: Sequence[Result]) -> str:
    first = results[0]
    least = min(results, key=lambda one: one.acc_attacked.value)
    most = max(results, key=lambda one: one.acc_attacked.value)
    reached = f"{least.acc_attacked} ({least.method})"
    if least.method != most.method:
        reached = f"between {reached} and {most.acc_attacked} ({most.method})"
    gone_to = span([one.acc_unlearned.value for one in results])
    gone_to = f"between {gone_to.replace(' to ', ' and ')}" if " to " in gone_to else gone_to
    return (
        f"unlearning takes accuracy on V from {number(first.acc_before)} to {gone_to} (floor {number(first.floor)}), "
        f"and after {DONE.get(first.attack, first.attack_title)} it is {reached}, against "
        f"{first.acc_original_attacked} for the original and {first.acc_control_attacked} for a control that never "
        "learned the facts"
    )


@dataclass(frozen=True)
class OverSeeds:
    """One method's accuracy on V after the attack minus the control's: each seed's, and the mean with a t interval.

    used, left_out: numbers of seeds. criterion_holds: the number of used seeds in which the criterion holds.
    """

    panel: Panel
    method: str
    used: int
    left_out: int
    criterion_holds: int
    mean: float
    low: float
    high: float
    differences: list[float]

    @property
    def mean_text(self) -> str:
        """Return the mean, with its interval from two seeds on."""
        ends = f" [{number(self.low)}, {number(self.high)}]" if self.used > 1 else ""
        return number(self.mean) + ends

    @property
    def each(self) -> str:
        """Return the difference of each seed."""
        return ", ".join(map(number, self.differences)) or "–"


def over_seeds(shown: Sequence[Result]) -> list[OverSeeds]:
    """Return the difference to the control over seeds, per panel and method.

    Results without a point within the budget, without a control, or never unlearned are left out and counted.
    """
    cells: dict[tuple[Panel, str], list[Result]] = {}
    for one in shown:
        cells.setdefault((one.panel, one.method), []).append(one)
    found = []
    for (panel, method), rows in cells.items():
        used = [one for one in rows if one.unlearned and one.exceeds_control is not None]
        differences = [one.acc_attacked.value - one.acc_control_attacked.value for one in used]
        above = sum(bool(one.exceeds_control) for one in used)
        found.append(
            OverSeeds(panel, method, len(used), len(rows) - len(used), above, *t_interval(differences), differences)
        )
    return found


def over_seeds_sentence(cells: Sequence[OverSeeds], seeds: Sequence[int]) -> str:
    """Say for which methods accuracy exceeds the control's over seeds; with one seed, that nothing can be said."""
    if len(seeds) < 2:
        return (
            "This study has one seed. Its intervals reflect question sampling, not training variance, so one seed "
            "cannot support a statement about a method or an arm."
        )
    parts = []
    for group in grouped([cell for cell in cells if cell.used >= 2]):
        above = [cell.method for cell in group.rows if cell.low > 0]
        names = f" ({', '.join(above)})" if 0 < len(above) < len(group.rows) else ""
        facts = group.rows[0].panel.facts
        parts.append(f"{count(len(above), len(group.rows), 'method')} on {facts}{names}")
    if not parts:
        return (
            "No method has two seeds with an unlearned model and a control, so this study says nothing about "
            "differences over seeds."
        )
    return (
        f"Over {len(seeds)} seeds, accuracy on V after the attack exceeds the control's (the 95 % t interval of the "
        f"difference lies above 0) for {'; '.join(parts)}."
    )


def listed(names: Iterable[str]) -> str:
    """Write names as `GD, RMU and RIA`."""
    *head, last = names
    return f"{', '.join(head)} and {last}" if head else last

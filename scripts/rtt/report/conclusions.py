"""What the results say, in sentences: claim, criterion, statements over seeds. Pure: records in, records out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rtt.figures.phrases import count, listed, upper
from rtt.figures.style import number, span
from rtt.figures.view import Panel
from rtt.report.rows import Result, grouped
from rtt.stats.seeds import CLAIM_SEEDS
from rtt.stats.shown import main_seed
from rtt.stats.verdicts import AboveControl, Seed, above_control, of_seed

MAIN_ARM = "pretrained"
DONE = {"RTT": "retraining on T alone"}  # what an attack does, in the claim; others are named


@dataclass(frozen=True)
class Judged:
    """One method under the criterion.

    holds: None where it cannot be judged. why: what keeps it out of the claim, or "". aside: what else has to be said.
    """

    result: Result
    holds: bool | None
    why: str
    aside: str

    @property
    def answer(self) -> str:
        """Say whether the criterion holds."""
        return {True: "yes", False: "no", None: "cannot be judged"}[self.holds]

    @property
    def remark(self) -> str:
        """Return why it is left out and what else has to be said, as a table has it, with a capital letter."""
        return upper("; ".join(text for text in (self.why, self.aside) if text))


@dataclass(frozen=True)
class Verdict:
    """What the results of one panel's facts say: the claim, and the criterion, as a sentence and method by method.

    means: the mean recovery over the cells that count, beside that over all known cells with a point.
    """

    facts: str
    counted: str
    claim: str
    means: str
    criterion: str
    methods: list[Judged]


def main_panels(panels: Sequence[Panel]) -> list[Panel]:
    """Return the panels of the arm that the criterion is about: the first, which is `pretrained` where there is one."""
    return [panel for panel in panels if panel.arm == panels[0].arm]


def verdicts(shown: Sequence[Result]) -> list[Verdict]:
    """Return the verdict on each main panel, on the main seed, of the results that the report shows."""
    seed = main_seed([one.seed for one in shown])
    found = []
    for panel in main_panels(list(dict.fromkeys(one.panel for one in shown))):
        judged = [judge(one) for one in shown if one.panel == panel and one.seed == seed]
        if judged:
            texts = counted(judged), claim(judged), means([one.result for one in judged]), criterion_sentence(judged)
            found.append(Verdict(upper(panel.facts), *texts, judged))
    return found


def judge(result: Result) -> Judged:
    """Apply the criterion to one method: it counts, and the interval of accuracy on V lies above the control's."""
    return Judged(result, result.holds, of_seed(_seed(result)).why, _aside(result))


def _seed(one: Result) -> Seed:
    return Seed(
        attack=one.attack_title,
        counts=one.counts,
        status=one.status,
        attacked=one.acc_attacked.value,
        control=one.acc_control_attacked.value,
        t_control=one.t_acc_control_attacked,
        attack_learned=one.attack_learned,
        control_learned=one.control_learned,
        holds=one.holds,
        clear=one.recovery_corrected.clear,
        rate=not math.isnan(one.recovery_corrected.value),
    )


def _aside(one: Result) -> str:
    told = []
    if one.attack_learned is False:
        told.append(f"a lower bound, since the attack learned T to {number(one.t_acc_attacked)} only")
    if one.status == "original_not_learned":
        text = f"no rate, since the attack on the original learned T to {number(one.t_acc_original_attacked)} only"
        told.append(text)
    return "; ".join(told)


def counted(judged: Sequence[Judged]) -> str:
    """Say how many methods count as unlearned: `2 of 4 methods count as unlearned: GD and RIA.`"""
    names = [one.result.method for one in judged if one.result.counts]
    if len(judged) == 1:
        return f"{judged[0].result.method} {'counts' if names else 'does not count'} as unlearned."
    end = f": {listed(names)}" if 0 < len(names) < len(judged) else ""
    verb = "counts" if len(names) in (0, 1) else "count"
    return f"{upper(count(len(names), len(judged), 'method'))} {verb} as unlearned{end}."


def criterion_sentence(judged: Sequence[Judged]) -> str:
    """Say whether the criterion holds, fails or cannot be decided for the methods that count."""
    counting = [one for one in judged if one.result.counts]
    if not counting:
        return "The criterion cannot be judged, because no method counts as unlearned."
    failed = [one.result.method for one in counting if one.holds is False]
    undecided = [one.result.method for one in counting if one.holds is None]
    of = f"{len(counting)} of {len(judged)} methods" if len(counting) < len(judged) else count(
        len(judged), len(judged), "method"
    )  # fmt: skip
    if failed:
        subject = "intervals" if len(failed) > 1 else "interval"
        verb = "do" if len(failed) > 1 else "does"
        text = f"The criterion fails: the {subject} of {listed(failed)} {verb} not lie above the control's."
        return text + (f" It cannot be judged for {listed(undecided)}." if undecided else "")
    if undecided:
        return f"The criterion is not met, because it cannot be judged for {listed(undecided)}."
    those = "the one that counts" if len(counting) == 1 else "those that count"
    return f"The criterion holds for {of}" + (f", {those}." if len(counting) < len(judged) else ".")


def claim(judged: Sequence[Judged]) -> str:
    """Return the claim about one panel's facts: one sentence, and another about the methods that it leaves out."""
    facts = judged[0].result.panel.facts
    sound = [one for one in judged if one.holds is not None and not one.why]
    aside = "; ".join(f"{one.result.method}, because {one.why}" for one in judged if one.why)
    left_out = f" The claim leaves out {aside}." if aside else ""
    if all(one.result.status == "not_known" for one in judged):
        return f"The original does not know the {facts}, so nothing can be said of them here."
    if not sound:
        return f"This study cannot tell whether the {facts} were removed or hidden.{left_out}"
    back = [one.result.method for one in sound if one.holds]
    gone = [one.result.method for one in sound if not one.holds]
    if not gone:
        head = f"In these weights, {listed(back)} hid the {facts}, at least in part, rather than removing them"
    elif not back:
        head = f"In these weights, none of the {facts} are shown to come back after unlearning with {listed(gone)}"
    else:
        head = (
            f"In these weights, {listed(back)} hid the {facts}, at least in part, rather than removing them, while "
            f"none are shown to come back after unlearning with {listed(gone)}"
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
    oracle = first.acc_oracle_attacked
    beside = "" if math.isnan(oracle.value) else f", {oracle} for an oracle that was trained without them"
    return (
        f"unlearning takes accuracy on V from {number(first.acc_before)} to {gone_to} (floor {number(first.floor)}), "
        f"and after {DONE.get(first.attack, first.attack_title)} it is {reached}, against "
        f"{first.acc_original_attacked} for the original{beside} and {first.acc_control_attacked} for a control that "
        "never learned the facts"
    )


def means(results: Sequence[Result]) -> str:
    """Return the mean floor-corrected recovery over the cells that count, beside that over all known with a point."""
    known = [one for one in results if one.known and not math.isnan(one.recovery_corrected.value)]
    counting = [one for one in known if one.counts]
    if not known or len(counting) == len(known):
        return ""

    def mean(some: Sequence[Result]) -> str:
        least = "at least " * any(one.attack_learned is False for one in some)
        return least + number(sum(one.recovery_corrected.value for one in some) / len(some))

    of = f"the {len(known)} methods" if len(known) > 1 else f"the one method ({known[0].method})"
    all_of = f"over {of} with a point and a rate, whether or not {'they count' if len(known) > 1 else 'it counts'}"
    if not counting:
        return f"Leaving out is a choice, too: {all_of}, floor-corrected recovery is {mean(known)}."
    one = "the one that counts" if len(counting) == 1 else f"the {len(counting)} that count"
    return (
        f"Leaving out is a choice, too: the mean of floor-corrected recovery is {mean(counting)} over {one} and "
        f"{mean(known)} {all_of}."
    )


@dataclass(frozen=True)
class OverSeeds(AboveControl):
    """One method's difference to the control over seeds, on one panel's facts."""

    panel: Panel
    method: str

    @property
    def mean_text(self) -> str:
        """Return the mean, with its interval from two seeds on."""
        ends = f" [{number(self.low)}, {number(self.high)}]" if self.used > 1 else ""
        return "at least " * self.lower_bound + number(self.mean) + ends

    @property
    def each(self) -> str:
        """Return the difference of each seed."""
        return ", ".join(map(number, self.differences)) or "–"


def over_seeds(shown: Sequence[Result]) -> list[OverSeeds]:
    """Return the difference to the control over seeds, per panel and method (`rtt.stats.verdicts.above_control`)."""
    cells: dict[tuple[Panel, str], list[Result]] = {}
    for one in shown:
        cells.setdefault((one.panel, one.method), []).append(one)
    return [
        OverSeeds(**vars(above_control(list(map(_seed, rows)))), panel=panel, method=method)
        for (panel, method), rows in cells.items()
    ]


def over_seeds_sentence(cells: Sequence[OverSeeds], seeds: Sequence[int]) -> str:
    """Say for which methods accuracy exceeds the control's over seeds; with one seed, that nothing can be said."""
    if len(seeds) < 2:
        return (
            "This study has one seed, so it tells about these weights alone. Its intervals reflect question sampling, "
            "not training variance, and support no statement about a method or an arm."
        )
    parts = []
    few = [f"{cell.method} on {cell.panel.facts}" for cell in cells if not cell.enough]
    for group in grouped([cell for cell in cells if cell.enough]):
        above = [cell.method for cell in group.rows if cell.low > 0]
        names = f" ({', '.join(above)})" if 0 < len(above) < len(group.rows) else ""
        facts = group.rows[0].panel.facts
        parts.append(f"{count(len(above), len(group.rows), 'method')} on {facts}{names}")
    if not parts:
        return (
            f"No method has {CLAIM_SEEDS} seeds, and 8 of 10 of its seeds, that count and have a control that learned "
            "T, so this study says nothing about differences over seeds."
        )
    untold = (
        f" Too few seeds count, or have a control that learned T, to say so or not of {listed(few)}." if few else ""
    )
    return (
        f"Over {len(seeds)} seeds, accuracy on V after the attack exceeds the control's (the 95 % t interval of the "
        f"difference lies above 0, over the seeds that count) for {'; '.join(parts)}.{untold}"
    )

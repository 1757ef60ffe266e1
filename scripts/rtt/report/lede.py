"""What was done and what came out, for somebody who knows none of the words: at most 40 words and 3 numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rtt.figures.words_steps import share, shares
from rtt.report.subject import Facts, Model
from rtt.stats.verdicts import CANNOT_TELL, HIDDEN, NO_POINT, NONE_SHOWN, NOT_KNOWN

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


@dataclass(frozen=True)
class Outcome:
    """What the test of one method on one dataset's facts came to: its verdict, and shares of V answered right."""

    verdict: str  # of rtt.stats.verdicts
    attacked: float
    control: float


def word(n: int) -> str:
    """Write a number of methods or models as a word up to twelve."""
    return NUMBERS[n] if n < len(NUMBERS) else str(n)


def lede(outcomes: Sequence[Outcome], methods: int, facts: Facts, model: Model, seeds: int, attack: str) -> str:
    """Return the lede of a study.

    outcomes: of every method on the facts that the claim is about; with several seeds they are means over them.
    methods: how many there are. attack: its title.
    """
    some = {verdict: [one for one in outcomes if one.verdict == verdict] for verdict in (HIDDEN, NONE_SHOWN)}
    some = {verdict: found for verdict, found in some.items() if found}
    verdicts, several = {one.verdict for one in outcomes}, seeds > 1
    who, it = (f"{word(seeds).capitalize()} {model.many}", "they") if several else (model.one, "it")
    was, mostly = ("were", ", mostly") if several else ("was", "")
    if verdicts == {NOT_KNOWN}:
        start = f"{who} {was} asked for {facts.of} and did not know them well{mostly}."
        return f"{start} So nothing can be said here about forgetting them."
    if not some and CANNOT_TELL in verdicts:
        few = "too few runs count, or " * several
        end = f"this study cannot tell: {few}the comparison is missing or uncertain."
        return f"{who} {was} made to forget {facts.of}. Whether these facts were removed or only hidden, {end}"
    if not some and verdicts <= {NO_POINT, NOT_KNOWN}:
        end = f"No method could do that{mostly} without losing too much of what else {it} knew"
        if NOT_KNOWN in verdicts:
            end = f"{it.capitalize()} did not know some of them well, and lost too much else with the others"
        return f"{who} {was} to forget {facts.of}. {end}, so nothing is shown about forgetting."
    if not some:
        end = (
            f"asked in several ways, {it} still showed some, or avoided the right answers. So none count as forgotten."
        )
        return f"{who} {was} to forget {facts.of}, and did not{mostly}: {end}"
    told = sum(map(len, some.values()))
    by = "" if len(outcomes) != methods or told == methods else f" by {word(told)} of {word(methods)} methods"
    done = f"Retrained on {facts.others}" if attack == "RTT" else f"Attacked ({attack})"
    answered = "they averaged" if several else "it answered"
    back = [shares([one.attacked for one in found]) for found in some.values()]
    if len(some) == 2:
        end = f"{back[0]} right in some cases, where they were only hidden, and {back[1]} in others, where none showed."
        return f"{who} {was} made to forget {facts.some}. {done}, {answered} {end}"
    [(verdict, found)] = some.items()
    control = [one.control for one in found if not math.isnan(one.control)]
    never = f"; {'ones' if several else 'one'} that never knew, {share(max(control))}" if control else ""
    end = "At least some were only hidden." if verdict == HIDDEN else "None are shown to be left."
    named = facts.some if "to" in back[0] or by else facts.of  # three numbers are enough
    return f"{who} {was} made to forget {named}{by}. {done}, {answered} {back[0]} right{never}. {end}"

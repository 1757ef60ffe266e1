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
    """What one method's test came to: its verdict, shares of V answered right, and the number of facts in V."""

    verdict: str  # of rtt.stats.verdicts
    attacked: float
    control: float
    n: int


def word(n: int) -> str:
    """Write a number of methods or models as a word up to twelve."""
    return NUMBERS[n] if n < len(NUMBERS) else str(n)


def lede(outcomes: Sequence[Outcome], facts: Facts, model: Model, seeds: int, attack: str) -> str:
    """Return the lede of a study.

    outcomes: of every method on the facts that the claim is about; with several seeds they are means over them. attack:
    its title.
    """
    some = {verdict: [one for one in outcomes if one.verdict == verdict] for verdict in (HIDDEN, NONE_SHOWN)}
    some = {verdict: found for verdict, found in some.items() if found}
    verdicts = {one.verdict for one in outcomes}
    who, it = (model.one, "it") if seeds == 1 else (f"{word(seeds).capitalize()} {model.many}", "they")
    was = "was" if seeds == 1 else "were"
    named = facts.of.format(max(one.n for one in outcomes))
    if verdicts == {NOT_KNOWN}:
        start = f"{who} {was} asked for {named} and did not know them well."
        return f"{start} So nothing can be said here about forgetting them."
    if not some and CANNOT_TELL in verdicts:
        end = "this study cannot tell: the comparison that it takes is missing, or too uncertain."
        return f"{who} {was} made to forget {named}. Whether these facts were removed or only hidden, {end}"
    if not some and verdicts <= {NO_POINT, NOT_KNOWN}:
        end = f"No method could do that without losing too much of what else {it} knew, so there was nothing to test."
        return f"{who} {was} to forget {named}. {end}"
    if not some:
        end = f"asked in several ways, {it} still showed some of them, by every method. So none count as forgotten."
        return f"{who} {was} to forget {named}, and did not: {end}"
    done = f"Retrained on {facts.others}" if attack == "RTT" else f"Attacked ({attack})"
    average = "" if seeds == 1 else " on average"
    back = [shares([one.attacked for one in found]) for found in some.values()]
    if len(some) == 2:
        end = f"{back[0]} right after some methods, which hid them, and {back[1]} after others, where none showed."
        return f"{who} {was} made to forget {facts.some}. {done}, {it} answered{average} {end}"
    [(verdict, found)] = some.items()
    named = facts.some if "to" in back[0] else named  # three numbers are enough
    control = [one.control for one in found if not math.isnan(one.control)]
    never = f"; {'one' if seeds == 1 else 'ones'} that never knew, {share(max(control))}" if control else ""
    end = "At least some were hidden, not removed." if verdict == HIDDEN else "None are shown to be left."
    return f"{who} {was} made to forget {named}. {done}, {it} answered{average} {back[0]} right{never}. {end}"

"""How wide an interval over seeds of corrected recovery will be, from how much seeds and repeats differ."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from rtt.stats.intervals import t_quantile

TARGET = 0.05  # the half-width that `needed` seeds reach
MOST_SEEDS = 10_000


@dataclass(frozen=True)
class Spread:
    """How much corrected recovery differs, as standard deviations: between bases, unlearning runs, and attack runs.

    original: the part of `attack` that the original's runs make. They are its denominator, and repeats of unlearning
    do not repeat them.
    """

    arms: tuple[str, ...]
    base: float
    unlearning: float
    attack: float
    original: float = 0.0

    def of_seeds(self, unlearning: int, attack: int) -> float:
        """Return the standard deviation of a seed's value, the mean of so many unlearning runs of so many attacks."""
        own = max(self.attack**2 - self.original**2, 0.0)
        runs = self.unlearning**2 / unlearning + own / (unlearning * attack) + self.original**2 / attack
        return math.sqrt(self.base**2 + runs)

    def half_width(self, seeds: int, unlearning: int, attack: int) -> float | None:
        """Return half of the t interval's expected width over seeds; None with one seed."""
        if seeds < 2:
            return None
        return t_quantile(0.975, seeds - 1) * self.of_seeds(unlearning, attack) / math.sqrt(seeds)

    def needed(self, half: float, unlearning: int, attack: int) -> int:
        """Return the fewest seeds whose interval reaches at most `half` either way; `MOST_SEEDS` stands for more."""
        low, high = 1, MOST_SEEDS  # the half-width falls with every seed more
        while high - low > 1:
            middle = (low + high) // 2
            if self.half_width(middle, unlearning, attack) <= half:
                high = middle
            else:
                low = middle
        return high


# Corrected recovery over seeds 11 to 15 (docs/measurements.md): .17-.18 where each seed has its own base, .05 in the
# arm that repeats pretraining. Of the .17, another order of unlearning makes .08 (.69 to .90 in six runs) and another
# order of RTT .054 (.59 to .73), the range of six normal values being 2.5 standard deviations; .05 is shared alike.
SAME_DATA = "taught_same_data"
ASSUMED = Spread((), 0.14, 0.08, 0.054)
ASSUMED_SAME_DATA = Spread((SAME_DATA,), 0.041, 0.024, 0.016)


def assumed(arms: Iterable[str]) -> list[Spread]:
    """Return the spreads that are assumed of these arms."""
    arms = list(arms)
    others = tuple(arm for arm in arms if arm != SAME_DATA)
    found = [Spread(others, ASSUMED.base, ASSUMED.unlearning, ASSUMED.attack)] if others else []
    return found + ([ASSUMED_SAME_DATA] if SAME_DATA in arms else [])


def planned(arms: Iterable[str], seeds: int, unlearning: int, attack: int) -> dict[str, float | None]:
    """Return {arm: half of the width that the plan expects} with so many seeds and repeats; None with one seed."""
    arms = list(arms)
    return {arm: one.half_width(seeds, unlearning, attack) for one in assumed(arms) for arm in one.arms}

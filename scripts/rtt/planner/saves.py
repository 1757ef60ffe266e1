"""Compute what a study's training waits for while states and weights are written (docs/plan.md).

A checkpoint is written every `checkpoint_minutes` of a training and at SIGTERM, and an unlearned point when it is
scored; training stands still meanwhile.
"""

import math
from dataclasses import dataclass

from rtt.errors import UserError

DISK = 1e9  # bytes per second, assumed; --disk says otherwise


def rate(given: float | None) -> float:
    """Return the disk's bytes per second. `given` is in GB/s, as --disk takes it. Raises UserError if it is no rate."""
    if given is None:
        return DISK
    if not 0 < given < math.inf:
        raise UserError(f"--disk: found {given:g}; expected the GB per second that the disk writes, above 0, as 1")
    return given * 1e9


@dataclass(frozen=True)
class Saves:
    """The checkpoints of the longest training of a stage.

    `state` is the bytes of one, `seconds` how long it takes to write, `hours` how long the training takes by itself,
    and `count` how many fall into it. The last step is not saved, since its result is.
    """

    state: float
    seconds: float
    hours: float
    count: int

    @property
    def lost(self) -> float:
        """Return the share of the time in which training waits for checkpoints."""
        waiting = self.count * self.seconds
        return waiting / (waiting + 3600 * self.hours) if waiting else 0.0


def saves(state: float, hours: float, steps: int, minutes: float, disk: float) -> Saves:
    """Return the checkpoints of a training of so many hours and steps, one every `minutes` (0: after every step).

    As `rtt.training.resume.Checkpoints` does it: the next interval begins when a checkpoint is written, and a step in
    progress ends first.
    """
    each = max(3600 * hours / steps, 1e-9)  # seconds of a step
    between = max(1, math.ceil(60 * minutes / each))  # steps from one checkpoint to the next
    return Saves(state, state / disk, hours, (steps - 1) // between)

"""The answers of a cell's V questions at the chosen looks, for what is compared question by question."""

from dataclasses import dataclass

import numpy as np

# What names a cell of a seed: the columns of recovery.csv in this order
ANSWER_KEY = (
    *("dataset", "arm", "model", "method", "attack", "variant", "seed", "retain_budget", "look_choice", "probe"),
)


@dataclass(frozen=True, eq=False)
class Answers:
    """V questions in the order of the original's evaluation; floats are shares of a cell's runs that were right.

    A question's share is the mean over unlearning runs of means over attack repeats. `groups` names the person or fact
    that a question is about, as whole numbers.
    """

    attacked: np.ndarray  # (n,) the unlearned model after the attack
    original: np.ndarray  # (n,) the original after the attack
    groups: np.ndarray  # (n,)
    floor: float  # what a guesser scores, by the probe that the unlearned model is reported by
    original_floor: float  # by that of the original, another one for the probe `strongest`

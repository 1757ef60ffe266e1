"""Unlearning methods: from (model, forget batch, retain batch) to a loss, plus what each needs frozen or hooked.

A method is a class with
- `forget_texts(fact)`: the sentences it trains on for a forget fact, and `forget_answers(fact, rng)`: the answer its
  MCQ shows;
- `__init__(model, settings, seed)`: freezes and hooks;
- `__call__(model, batch)`: {"loss", "forget", "retain"}, scalars, from batch["forget"] and batch["retain"].
"""

from rtt.methods.fif import FIF
from rtt.methods.gd import GD
from rtt.methods.ria import RIA
from rtt.methods.rmu import RMU

METHODS = {"GD": GD, "RMU": RMU, "RIA": RIA, "FIF": FIF}

__all__ = ["FIF", "GD", "METHODS", "RIA", "RMU"]

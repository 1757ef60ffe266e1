"""Watch the numerical health of a training: report numbers that are not finite, and measure how many weights a step
moves.
"""

import math

import torch
from transformers import TrainerCallback

from rtt import distributed
from rtt.training.kahan import Kahan, joined

MEASURED = 16  # steps of a training at which the effective update is measured
SAMPLE = 2**18  # weights compared on each process at most; more would cost time and tell nothing new


def listed(parts: dict[str, float]) -> str:
    """Return the parts of a loss as text."""
    return ", ".join(f"{name} {value:.6g}" for name, value in parts.items())


def broken(where: str, step: int, parts: dict[str, float], settings) -> str:
    """Return which parts of the loss at `step` (from 1) are not finite, and what to try."""
    guilty = " and ".join(name for name, value in parts.items() if not math.isfinite(value) and name != "loss")
    text = f"{where}: the loss is not finite" + (f": its part {guilty} broke" if guilty else "")
    if step == 1:  # before the first update the learning rate cannot be the cause
        return f"{text} ({listed(parts)}) on the starting model; {_precision(settings) or 'is it the right one?'}"
    return f"{text} ({listed(parts)}); {advice(settings)}"


def advice(settings) -> str:
    """Return what to try when training breaks the weights, in terms of the study file's keys."""
    tries = [f"lower the learning rate (learning_rate: {settings.learning_rate:g})", "train fewer steps"]
    return ", or ".join([*tries, *filter(None, [_precision(settings)])])


def _precision(settings) -> str:
    """Return what to try against overflow; "" if the precision cannot be the cause."""
    low = settings.precision in ("fp16", "bf16", "bf16_kahan")
    return f"set precision to bf16_mixed or fp32 (it is {settings.precision})" if low else ""


class EffectiveUpdate(TrainerCallback):
    """Measure, at MEASURED steps, the share of the trained weights that the step changes; add it to its losses as
    "moved".

    A weight keeps its value if its update is below half a unit in its last place. In pure bf16 that holds for most
    weights at the paper's learning rates, which no loss shows. In bf16_kahan a weight's value is the fp32 number of
    which it and its remainder are the halves, since a later step builds on both.
    """

    def __init__(self, losses: list[dict[str, float]], steps: int, optimizer: torch.optim.Optimizer):
        self.losses, self.optimizer, self.before = losses, optimizer, None
        self.at = {1 + (steps - 1) * i // (MEASURED - 1) for i in range(MEASURED)}

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        """Copy a sample of the weights."""
        self.before = sample(model, self.optimizer) if state.global_step + 1 in self.at else None

    def on_step_end(self, args, state, control, model=None, **kwargs):
        """Count the weights that changed, over all processes."""
        if self.before is None:
            return
        after = sample(model, self.optimizer)
        moved = sum(int((a != b).sum()) for a, b in zip(self.before, after, strict=True))
        moved, weights = distributed.total([moved, sum(map(len, after))])
        self.losses[-1]["moved"], self.before = moved / weights, None


def sample(model, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """Return a copy of every k-th trained weight in this process's part of the model, at most about SAMPLE."""
    trained = [p for p in model.parameters() if p.requires_grad]
    own = [getattr(p, "ds_tensor", p).detach().flatten() for p in trained]
    stride = -(-sum(map(len, own)) // SAMPLE)
    if not isinstance(optimizer, Kahan):
        return [weights[::stride].clone() for weights in own]
    kept = [optimizer.state[p]["remainder"].flatten() for p in trained]
    return [joined(weights[::stride], rest[::stride]) for weights, rest in zip(own, kept, strict=True)]


def effective_update(losses: list[dict[str, float]]) -> float:
    """Return the mean of "moved" over the steps at which it was measured."""
    moved = [step["moved"] for step in losses if "moved" in step]
    return sum(moved) / len(moved)

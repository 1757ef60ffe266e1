"""Quantisation, round to nearest (Zhang et al. 2024, arXiv 2410.16454): do coarser weights give the facts back?"""

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from rtt.attacks.base import Attack, Cost
from rtt.errors import UserError
from rtt.study.settings import Count
from rtt.study.strict import Strict

NF4, BLOCK = "nf4", 64
MOST = 0.9677083  # probability of the highest level


def rounded(weight, bits: int, group_size: int | None):
    """Return a weight matrix (out, in) rounded to the nearest of 2^bits - 1 levels, in its own dtype.

    The levels are k s with |k| <= 2^(bits - 1) - 1, where s is the largest absolute value of a group divided by
    2^(bits - 1) - 1. A group is an output channel (a row; group_size None), or `group_size` neighbours in a row; the
    last group of a row may be shorter. A group of zeros stays as it is. Computed in at least fp32.
    """
    import torch

    values = weight.to(torch.promote_types(weight.dtype, torch.float32))
    rows, columns = values.shape
    size = columns if group_size is None else min(group_size, columns)
    groups = torch.nn.functional.pad(values, (0, -columns % size)).view(rows, -1, size)
    top = 2 ** (bits - 1) - 1
    scale = groups.abs().amax(-1, keepdim=True) / top
    levels = (groups / scale.where(scale > 0, 1.0)).round().clamp(-top, top)
    return (levels * scale).view(rows, -1)[:, :columns].to(weight.dtype)


def nf4(weight):
    """Return a weight matrix rounded to NF4 and back, in its own dtype (Dettmers et al. 2023, arXiv 2305.14314).

    NF4 has 16 levels, quantiles of a normal distribution, times the largest absolute value of each block. A block is
    BLOCK neighbours of the matrix, read row by row, as bitsandbytes has it by default; the last one may be shorter. A
    block of zeros stays as it is. Computed in at least fp32.
    """
    import torch

    values = weight.to(torch.promote_types(weight.dtype, torch.float32))
    blocks = torch.nn.functional.pad(values.flatten(), (0, -values.numel() % BLOCK)).view(-1, BLOCK)
    levels, scale = torch.tensor(normal_levels()).to(values), blocks.abs().amax(-1, keepdim=True)
    between = (levels[1:] + levels[:-1]) / 2
    found = levels[torch.bucketize(blocks / scale.where(scale > 0, 1.0), between)] * scale
    return found.flatten()[: values.numel()].view(weight.shape).to(weight.dtype)


def normal_levels() -> list[float]:
    """Return the 16 levels of NF4, from -1 to 1: eight quantiles above 0, 0 itself, and seven below it.

    They are evenly spaced in probability up to MOST, the offset of bitsandbytes' create_normal_map. bitsandbytes itself
    is not used (docs/attacks.md).
    """
    import numpy as np
    from scipy.stats import norm

    above, below = norm.ppf(np.linspace(MOST, 0.5, 9)[:-1]), -norm.ppf(np.linspace(MOST, 0.5, 8)[:-1])
    levels = np.sort([*above, 0.0, *below])
    return (levels / levels.max()).tolist()


NO_LINEAR = ("gpt2", "openai-gpt", "decision_transformer")  # their layers consist of transformers' Conv1D


def linear_weights(model) -> dict:
    """Return {name: weight} of the linear layers between the embeddings and the output matrix, which stay as they are.

    Raises UserError for a model that has none.
    """
    import torch

    head = model.get_output_embeddings()
    found = {
        name: module.weight
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }
    if not found:
        raise UserError(
            f"attack quantise: {type(model).__name__} has no torch.nn.Linear besides its output matrix, so there is "
            "nothing to round; leave quantise out of the study's attacks"
        )
    return found


class Quantise(Attack):
    """Round the weights of the linear layers to 8 or to 4 bits; nothing is trained, and no fact of T is used."""

    refused = dict.fromkeys(NO_LINEAR, "its matrices are no torch.nn.Linear, so there is nothing to round")
    drawn = False
    name, title, colour, order = "quantise", "quantisation", "#E69F00", 10
    summary = "The weights of the linear layers are rounded to a few bits, which can undo a small change of them."

    class Settings(Strict):
        """Quantisation: each number of bits with each size of a group, and NF4."""

        bits: Annotated[list[Literal[2, 3, 4, 8, "nf4"]], Field(min_length=1)] = Field(
            [8, 4],
            description="bits of a weight, of evenly spaced levels; nf4: four bits of normal levels, in blocks of 64, "
            "whatever the group sizes",
        )
        group_sizes: Annotated[list[Count | None], Field(min_length=1, max_length=100)] = Field(
            [None, 32], description="weights that share a scale: so many neighbours in a row; null: an output channel"
        )
        precision: Literal["fp32", "bf16"] = Field("fp32", description="of the weights before and after rounding")

        @model_validator(mode="after")
        def _each_once(self):
            for name in ("bits", "group_sizes"):
                if len(set(getattr(self, name))) != len(getattr(self, name)):
                    raise ValueError(f"{name}: each value may stand once")
            return self

    @classmethod
    def choices(cls, settings):
        """Return every pair of bits and group size: more bits first, then smaller groups, whole channels last.

        NF4 has one size, and comes before the other four bits.
        """
        sizes = sorted(settings.group_sizes, key=lambda size: math.inf if size is None else size)
        bits = sorted(settings.bits, key=lambda one: 4.5 if one == NF4 else one, reverse=True)
        return [{"bits": one, "group_size": size} for one in bits for size in ([BLOCK] if one == NF4 else sizes)]

    @classmethod
    def cost(cls, settings, t_facts, texts):
        """Return a look for each setting; rounding itself costs nothing beside it."""
        return Cost(len(cls.choices(settings)))

    def fit(self, checkpoint, t_facts, look):
        """Round the checkpoint's weights anew for each setting."""
        import torch

        for setting in self.choices(self.settings):
            checkpoint.restore()
            with torch.no_grad():
                for weight in linear_weights(checkpoint.model).values():
                    weight.copy_(nf4(weight) if setting["bits"] == NF4 else rounded(weight, **setting))
            look(setting, checkpoint.model)

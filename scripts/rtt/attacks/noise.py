"""Weight noise: do facts come back whose hiding needs weights of a precise value?"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rtt.attacks.base import Attack, Cost
from rtt.study.settings import Positive
from rtt.study.strict import Strict


class Noise(Attack):
    """Add normal noise to each matrix, in proportion to the root mean square of its entries, and ask V."""

    name, title, colour, order = "noise", "weight noise", "#882255", 12
    summary = "Random noise is added to the weights, which undoes a hiding that needs their precise values."

    class Settings(Strict):
        """Weight noise: each standard deviation."""

        sigmas: Annotated[list[Positive], Field(min_length=1, max_length=100)] = Field(
            [0.1, 0.3],
            description="standard deviations of the noise, as a share of the root mean square of a matrix's entries",
        )
        precision: Literal["fp32", "bf16"] = Field("fp32", description="of the weights before and after the noise")

        @model_validator(mode="after")
        def _each_once(self):
            if len(set(self.sigmas)) != len(self.sigmas):
                raise ValueError("sigmas: each value may stand once")
            return self

    @classmethod
    def choices(cls, settings):
        """Return each standard deviation, the smallest first."""
        return [{"sigma": sigma} for sigma in sorted(settings.sigmas)]

    @classmethod
    def cost(cls, settings, t_facts, texts):
        """Return a look for each setting; drawing costs nothing beside it."""
        return Cost(len(cls.choices(settings)))

    def fit(self, checkpoint, t_facts, look):
        """Add the same draw, times each setting, to the checkpoint's weights.

        It depends on the seed and the repeat alone, so every checkpoint of a study gets it. It is drawn on the CPU, the
        same on every device.
        """
        import numpy as np
        import torch

        from rtt.models.architecture import matrices

        seed = int(np.random.default_rng(checkpoint.seeded(40)).integers(2**62))
        for setting in self.choices(self.settings):
            checkpoint.restore()
            generator = torch.Generator().manual_seed(seed)
            for weight in matrices(checkpoint.model).values():
                add_noise(weight, setting["sigma"], generator)
            look(setting, checkpoint.model)


def add_noise(weight, sigma: float, generator) -> None:
    """Add sigma x rms x N(0, 1) to each entry of a matrix, in place; rms is the root of the mean of its squares.

    The sum is made in at least fp32, and rounded to the matrix's dtype.
    """
    import torch

    with torch.no_grad():
        values = weight.to(torch.promote_types(weight.dtype, torch.float32))
        drawn = torch.randn(weight.shape, generator=generator).to(values)
        weight.copy_(values + sigma * values.square().mean().sqrt() * drawn)

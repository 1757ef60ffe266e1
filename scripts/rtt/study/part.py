"""Shares of a model's parameters that a training phase runs, updates and copies: what the planner costs."""

from dataclasses import dataclass

from rtt.depth import layer_number
from rtt.study.model_file import ModelFile
from rtt.study.settings import Model, Training


@dataclass(frozen=True)
class Part:
    """The part of a model that a training phase works on, as shares of its parameters.

    forward: what is run; backward: what gradients pass through; trained: what is updated; copied: a frozen copy that
    lies beside the model. Where adapters are trained instead, they lie on the `matrices` (by Llama's names; none: all)
    of this share of the decoder `layers`.
    """

    forward: float = 1.0
    backward: float = 1.0
    trained: float = 1.0
    copied: float = 0.0
    layers: float = 1.0
    matrices: tuple[str, ...] = ()

    def flops(self, n: int, tokens: float) -> float:
        """Return the FLOPs of training on so many tokens.

        2 n each for the forward pass, the gradients of the activations and those of the weights; 6 n in all where
        everything is trained (Kaplan et al. 2020).
        """
        return 2 * n * tokens * (self.forward + self.backward + self.trained)


def part_of(settings: Training, model: Model | ModelFile) -> Part:
    """Return the part of `model` that `settings` train, with parameters spread evenly over the layers.

    A model file that gives no `layers` counts as trained whole.
    """
    if model.layers is None or not settings.train_layers:
        return Part()
    numbers = sorted({layer_number(layer, model.layers) for layer in settings.train_layers})
    share = len(numbers) / model.layers
    return Part(1.0, 1 - numbers[0] / model.layers, share, layers=share)

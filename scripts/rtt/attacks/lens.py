"""Logit lens (nostalgebraist 2020; Łucki et al. 2024, arXiv 2409.18025): does an earlier layer still say the facts?"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rtt.attacks.base import Attack, Cost
from rtt.errors import UserError
from rtt.study.settings import Layer
from rtt.study.strict import Strict


class Lens(Attack):
    """Let an earlier state take the last layer's place before the final norm and the output matrix, and ask V."""

    drawn = False
    name, title, colour, order = "lens", "logit lens", "#332288", 45
    summary = "An earlier layer's state is read through the final norm and the output matrix, as if it were the last."

    class Settings(Strict):
        """The logit lens: each place in each layer."""

        layers: Annotated[list[Layer], Field(min_length=1, max_length=1000)] = Field(
            [0.9, 0.65, 0.33], description="numbers from 0, or fractions of the depth, in the order in which ties go"
        )
        places: Annotated[list[Literal["residual", "attention", "mlp"]], Field(min_length=1)] = Field(
            ["residual"],
            description="residual: the stream after the layer; attention, mlp: what the layer's attention or MLP adds "
            "to it",
        )
        precision: Literal["fp32", "bf16"] = Field("fp32", description="of the weights")

        @model_validator(mode="after")
        def _each_once(self):
            for name in ("layers", "places"):
                if len(set(getattr(self, name))) != len(getattr(self, name)):
                    raise ValueError(f"{name}: each value may stand once")
            return self

    @classmethod
    def choices(cls, settings):
        """Return every pair of place and layer, in the order of the study."""
        return [{"layer": layer, "place": place} for place in settings.places for layer in settings.layers]

    @classmethod
    def cost(cls, settings, t_facts, texts):
        """Return a look for each setting."""
        return Cost(len(cls.choices(settings)))

    def fit(self, checkpoint, t_facts, look):
        """Ask the model once for each setting, while the state of that place is read.

        All that a model does after its last decoder layer stays as it is, so what replaces that layer's output is read
        as the output would be.
        """
        from rtt.training.residual import rewritten

        model = checkpoint.model
        for setting in self.choices(self.settings):
            with rewritten(lens(model, **setting)):
                look(setting, model)


def lens(model, layer: int | float, place: str) -> dict:
    """Return {module: function of its output} with which the model reads the state of a place instead of its last one.

    Raises UserError for a layer that the model does not have, or one without attention or MLP.
    """
    from rtt.depth import layer_number
    from rtt.models.architecture import decoder_layers, text_config, writer

    layers, kept = decoder_layers(model), {}
    number = layer_number(layer, len(layers))
    source = layers[number]
    if place != "residual":
        source = writer(layers[number], text_config(model.config).hidden_size, place)
    if source is None:
        raise UserError(
            f"attack lens: layer {number} of {type(model).__name__} has no {place} whose output is to be found; leave "
            f"{place} out of the attack's places, or this layer out of its layers"
        )

    def keep(hidden):
        kept["state"] = hidden
        return hidden

    def read(hidden):
        # Some layers flatten batch and length within their MLP.
        return kept.pop("state").reshape(hidden.shape).to(hidden.dtype)

    if source is layers[-1]:
        return {}
    return {source: keep, layers[-1]: read}

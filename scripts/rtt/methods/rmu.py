"""RMU, representation misdirection for unlearning."""

import copy

from pydantic import Field

from rtt.depth import layer_number
from rtt.errors import UserError
from rtt.methods.base import Method
from rtt.study.model_file import ModelFile
from rtt.study.part import Part, part_of
from rtt.study.settings import Count, Layer, Positive, Unlearning

# Deeb & Roger's RMU on models of 32 layers: activations of layer 7, mlp.down_proj of layers 5 to 7.
PAPER_DEPTH, PAPER_LAYER, PAPER_TRAINED = 32, 7, (5, 6, 7)
MINIATURE = {"layer": 1, "layers_trained": 2}
OUTPUT = 0.25  # share of a decoder layer's parameters in its MLP's output: .27 in Llama-3-8B, .25 in SmolLM2
# Types of models without a feed-forward part in any layer (tests/models/test_architectures.py holds them to the rest).
NO_FEED_FORWARD = ("mamba", "mamba2", "falcon_mamba", "xlstm")


def rmu_layers(
    depth: int, layer: int | float | None = None, trained: int | list[int | float] | None = None
) -> tuple[int, list[int]]:
    """Return (layer that RMU reads, layers whose MLP outputs it trains), as numbers from 0.

    `trained`: layers, or how many up to and including `layer`. Left out: the paper's, at the same fractions of the
    depth, as many layers in a row as the fractions give. Raises UserError for a layer that is not there, or for trained
    layers above `layer`, which get no gradient.
    """
    number = layer_number(PAPER_LAYER / PAPER_DEPTH if layer is None else layer, depth)
    if trained is None and layer is None:
        trained = len({layer_number(n / PAPER_DEPTH, depth) for n in PAPER_TRAINED})
    if trained is None:
        trained = len(PAPER_TRAINED)
    if isinstance(trained, int):
        return number, list(range(max(0, number - trained + 1), number + 1))
    numbers = sorted({layer_number(one, depth) for one in trained})
    if numbers[-1] > number:
        raise UserError(
            f"RMU reads layer {number} of {depth}: it can train layers 0 to {number}, but was given {numbers[-1]}"
        )
    return number, numbers


def lower_copy(model, layer: int):
    """Return a frozen copy of a causal language model's body (embeddings, decoder layers 0 to `layer`): all that the
    output of that layer needs. The layers above and the output matrix are neither copied nor touched.
    """
    from rtt.models.architecture import decoder

    body, path = decoder(model)
    above = body.get_submodule(path)
    body.set_submodule(path, above[: layer + 1])  # shares the layers: nothing is copied twice
    try:
        lower = copy.deepcopy(body)
    finally:
        body.set_submodule(path, above)
    return lower.eval().requires_grad_(False)


class RMU(Method):
    """loss = |h(forget) - steering u|^2 + retain_coefficient |h(retain) - h_frozen(retain)|^2, both means per element.

    h is the output of decoder layer `layer`; u is uniform in [0, 1), then normalised. Only the matrices with which the
    MLP of that layer, and of the `layers_trained - 1` below it, writes into the residual stream are trained
    (mlp.down_proj in Llama; a list names the layers instead). Li et al. 2024 (WMDP), eq. 1 to 3.
    """

    name = "RMU"
    title = "representation misdirection: push activations on the forget texts to one random direction"
    head, copy_reads = False, ("retain",)
    refused = dict.fromkeys(NO_FEED_FORWARD, "it trains matrices of the MLP, and such a model has none")
    order, colour, dash, marker = 2, "#D55E00", (0, (5, 1.5)), "s"

    class Settings(Unlearning):
        """Unlearning with RMU; layers count from 0, or are fractions of the depth."""

        layer: Layer | None = Field(None, description="null takes the model file's; the miniature's is 1")
        layers_trained: Count | None = Field(None, description="null takes the model file's; the miniature's is 2")
        steering: Positive = 20.0
        train_layers: None = None  # RMU trains MLP outputs of its own layers

    def __init__(self, model, settings, seed):
        """Copy the layers up to `layer`, freeze all but the trained matrices, and draw the direction from `seed`."""
        import torch

        from rtt.models.architecture import decoder, mlp_outputs, text_config

        super().__init__(model, settings, seed)
        body, self.path = decoder(model)
        layers, width = body.get_submodule(self.path), text_config(model.config).hidden_size
        self.layer, trained = rmu_layers(len(layers), settings.layer, settings.layers_trained)
        outputs = mlp_outputs(model, trained)
        self.frozen = lower_copy(model, self.layer)
        model.requires_grad_(False)
        for parameter in outputs:
            parameter.requires_grad_(True)
        direction = torch.rand(width, generator=torch.Generator().manual_seed(seed))
        self.control = settings.steering * direction / direction.norm()

    def hidden(self, body, batch):
        """Return the output of decoder layer `layer`, (batch, length, hidden), at least fp32, without running what lies
        above it. `body`: the part of a model that runs its decoder layers.
        """
        import torch

        from rtt.training.losses import inputs

        captured = {}

        class Stop(Exception):
            pass

        def keep(module, inputs, output):
            captured["h"] = output[0] if isinstance(output, tuple) else output
            raise Stop

        handle = body.get_submodule(self.path)[self.layer].register_forward_hook(keep)
        try:
            body(**inputs(body, batch), use_cache=False)
        except Stop:
            pass
        finally:
            handle.remove()
        return captured["h"].to(torch.promote_types(captured["h"].dtype, torch.float32))

    def loss(self, model, batch):
        """Return {"loss", "forget", "retain"}: mean squared differences per hidden unit and token."""
        import torch

        from rtt.models.architecture import decoder
        from rtt.training.losses import masked_mean

        forget, retain, (body, _) = batch["forget"], batch["retain"], decoder(model)
        pushed = self.hidden(body, forget)
        away = (pushed - self.control.to(pushed)).square().mean(-1)
        self.frozen.to(retain["input_ids"].device)
        with torch.no_grad():
            pinned = self.hidden(self.frozen, retain)
        drift = (self.hidden(body, retain) - pinned).square().mean(-1)
        away = masked_mean(away, forget["attention_mask"], forget.get("weight"), forget.get("texts"))
        drift = masked_mean(drift, retain["attention_mask"], retain.get("weight"), retain.get("texts"))
        return {"loss": away + self.retain_coefficient * drift, "forget": away, "retain": drift}

    @staticmethod
    def _of_file(model):
        """Return the layers of a model file; {} where only the model itself will tell its depth, of which they are the
        paper's fractions (`rmu_layers`). Raises UserError for other fractions of an unknown depth.
        """
        named = [model.rmu.layer, *model.rmu.trained] if model.rmu else []
        if model.layers is None and not named:
            return {}
        if model.layers is None and any(isinstance(one, float) for one in named):
            if model.path:  # the folder's config.json tells the depth before the first job
                return {}
            raise UserError(f"model {model.name}: rmu gives fractions of the depth: add layers, the number of layers")
        depth = model.layers or max(named) + 1
        layer, trained = rmu_layers(depth, named[0], named[1:]) if named else rmu_layers(depth)
        return {"layer": layer, "layers_trained": len(trained)}

    @classmethod
    def check_model(cls, settings, model):
        """Raise UserError for a layer without an MLP."""
        from rtt.models.architecture import decoder_layers, mlp_outputs

        mlp_outputs(model, rmu_layers(len(decoder_layers(model)), settings.layer, settings.layers_trained)[1])

    @classmethod
    def resolved(cls, settings, model):
        """Return settings with layers: the study's, else the model file's, else the paper's or the miniature's."""
        given = cls._of_file(model) if isinstance(model, ModelFile) else MINIATURE
        chosen = {key: value for key, value in given.items() if getattr(settings, key) is None}
        settings = settings.model_copy(update=chosen)
        if model.layers is not None:
            rmu_layers(model.layers, settings.layer, settings.layers_trained)
        return settings

    @classmethod
    def part(cls, settings, model):
        """Return the layers up to `layer`, of which the matrices that it names are trained, and a copy of them."""
        if model.layers is None:
            return part_of(settings, model)
        layer, trained = rmu_layers(model.layers, settings.layer, settings.layers_trained)
        run, share = (layer + 1) / model.layers, len(trained) / model.layers
        return Part(run, run - trained[0] / model.layers, OUTPUT * share, run, share, ("down_proj",))

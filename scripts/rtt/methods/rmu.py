"""RMU, representation misdirection (Li et al. 2024, WMDP, eq. 1-3): push forget activations to one random direction,
pin retain activations.
"""

import copy

import torch

from rtt.models.load import decoder_layers
from rtt.study.model_file import rmu_layers
from rtt.training.losses import inputs, masked_mean


def lower_copy(model, layer: int):
    """Return a frozen copy of a causal language model's body (embeddings, decoder layers 0 to `layer`): all that the
    output of that layer needs. The layers above and the output matrix are neither copied nor touched.
    """
    body, above = model.model, model.model.layers
    body.layers = above[: layer + 1]  # shares the layers: nothing is copied twice
    try:
        lower = copy.deepcopy(body)
    finally:
        body.layers = above
    return lower.eval().requires_grad_(False)


class RMU:
    """loss = |h(forget) - steering u|^2 + retain_coefficient * |h(retain) - h_frozen(retain)|^2, both means per
    element.

    h: output of decoder layer `settings.layer`; u: uniform in [0, 1) then normalised. Only mlp.down_proj of that layer
    and of the `settings.layers_trained - 1` below it are trained (a list names the layers instead). Layers are numbers
    from 0 or fractions of the depth; null takes the paper's (`rtt.study.model_file.rmu_layers`).
    """

    def __init__(self, model, settings, seed):
        layers = decoder_layers(model)
        self.layer, trained = rmu_layers(len(layers), settings.layer, settings.layers_trained)
        self.frozen = lower_copy(model, self.layer)
        model.requires_grad_(False)
        for number in trained:
            layers[number].mlp.down_proj.requires_grad_(True)
        self.retain_coefficient = settings.retain_coefficient
        generator = torch.Generator().manual_seed(seed)
        direction = torch.rand(model.config.hidden_size, generator=generator)
        self.control = settings.steering * direction / direction.norm()

    @staticmethod
    def forget_texts(fact):
        """The true sentences."""
        return fact.sentences

    @staticmethod
    def forget_answers(fact, rng):
        """The correct answer."""
        return fact.answer

    def hidden(self, body, batch):
        """Return the output of decoder layer `layer`, (batch, length, hidden), at least fp32, without running what lies
        above it. `body`: a model without its output matrix.
        """
        captured = {}

        class Stop(Exception):
            pass

        def keep(module, inputs, output):
            captured["h"] = output[0] if isinstance(output, tuple) else output
            raise Stop

        handle = body.layers[self.layer].register_forward_hook(keep)
        try:
            body(**inputs(batch), use_cache=False)
        except Stop:
            pass
        finally:
            handle.remove()
        return captured["h"].to(torch.promote_types(captured["h"].dtype, torch.float32))

    def __call__(self, model, batch):
        """Return {"loss", "forget", "retain"}: scalars, mean squared differences per hidden unit and token."""
        forget, retain = batch["forget"], batch["retain"]
        pushed = self.hidden(model.model, forget)
        away = (pushed - self.control.to(pushed)).square().mean(-1)
        self.frozen.to(retain["input_ids"].device)
        with torch.no_grad():
            pinned = self.hidden(self.frozen, retain)
        drift = (self.hidden(model.model, retain) - pinned).square().mean(-1)
        away = masked_mean(away, forget["attention_mask"], forget.get("weight"), forget.get("texts"))
        drift = masked_mean(drift, retain["attention_mask"], retain.get("weight"), retain.get("texts"))
        return {"loss": away + self.retain_coefficient * drift, "forget": away, "retain": drift}

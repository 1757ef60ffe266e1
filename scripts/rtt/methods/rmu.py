"""RMU, representation misdirection (Li et al. 2024, WMDP, eq. 1-3): push forget activations to one random direction,
pin retain activations.
"""

import copy

import torch

from rtt.losses import masked_mean


class RMU:
    """loss = |h(forget) - steering u|^2 + retain_coefficient * |h(retain) - h_frozen(retain)|^2, both means per
    element.

    h: output of decoder layer `settings.layer`; u: uniform in [0, 1) then normalised. Only mlp.down_proj of that layer
    and of the `settings.layers_trained - 1` below it are trained.
    """

    def __init__(self, model, settings, seed):
        layers = model.model.layers
        trained = layers[max(0, settings.layer - settings.layers_trained + 1) : settings.layer + 1]
        self.frozen = copy.deepcopy(model).eval().requires_grad_(False)
        model.requires_grad_(False)
        for layer in trained:
            layer.mlp.down_proj.requires_grad_(True)
        self.layer = settings.layer
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

    def hidden(self, model, batch):
        """Return the output of decoder layer `layer`, (batch, length, hidden), without running what lies above it."""
        captured = {}

        class Stop(Exception):
            pass

        def keep(module, inputs, output):
            captured["h"] = output[0] if isinstance(output, tuple) else output
            raise Stop

        handle = model.model.layers[self.layer].register_forward_hook(keep)
        try:
            model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)
        except Stop:
            pass
        finally:
            handle.remove()
        return captured["h"]

    def __call__(self, model, batch):
        """Return {"loss", "forget", "retain"}: scalars, mean squared differences per hidden unit and token."""
        forget, retain = batch["forget"], batch["retain"]
        control = self.control.to(next(model.parameters()))
        away = (self.hidden(model, forget) - control).square().mean(-1)
        with torch.no_grad():
            pinned = self.hidden(self.frozen.to(retain["input_ids"].device), retain)
        drift = (self.hidden(model, retain) - pinned).square().mean(-1)
        away, drift = masked_mean(away, forget["attention_mask"]), masked_mean(drift, retain["attention_mask"])
        return {"loss": away + self.retain_coefficient * drift, "forget": away, "retain": drift}

"""NPO, negative preference optimisation, with a retain term."""

from rtt.methods.base import Method
from rtt.study.settings import Positive, Unlearning


class NPO(Method):
    """loss = mean of -2 / beta log sigmoid(beta (l(text) - l of the original)) + retain_coefficient L(retain).

    l sums over a text's tokens, L is their mean (Zhang et al. 2024, eq. 3). A forget text's gradient is that of ascent
    times 2 r / (1 + r), where r is its probability over the original's, to the power of beta: it fades as the text is
    forgotten, and sooner with a larger beta.
    """

    name = "NPO"
    title = "negative preference optimisation: ascent that fades as a forget text becomes less likely than before"
    needs_reference, copy_reads = True, ("forget",)
    order, colour, dash, marker = 5, "#882255", (0, (3, 1, 1, 1, 1, 1)), "P"

    class Settings(Unlearning):
        """Unlearning with NPO."""

        beta: Positive = 0.1

    def loss(self, model, batch):
        """Return {"loss", "forget", "retain"}: the loss, and nats per token."""
        import torch
        from torch.nn.functional import logsigmoid

        from rtt.training.losses import mean_of_texts, text_loss, text_sums

        beta, weight = self.settings.beta, batch["forget"].get("weight")
        nats, tokens = text_sums(model, batch["forget"])
        with torch.no_grad():
            before, _ = text_sums(self.reference, batch["forget"])
        away = mean_of_texts(-2 / beta * logsigmoid(beta * (nats - before)), weight)
        retain = text_loss(model, batch["retain"])
        loss = away + self.retain_coefficient * retain
        return {"loss": loss, "forget": mean_of_texts(nats / tokens.clamp(min=1), weight), "retain": retain}

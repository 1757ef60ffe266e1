"""GD, gradient difference."""

from rtt.methods.base import Method


class GD(Method):
    """loss = -L(forget) + retain_coefficient L(retain) (Deeb & Roger 2024, sec. 4.1; Maini et al. 2024)."""

    name = "GD"
    title = "gradient difference: ascend on the forget texts, descend on the retain texts"
    order, colour, dash, marker = 1, "#0072B2", "-", "o"

    def loss(self, model, batch):
        """Return {"loss", "forget", "retain"} in nats per token."""
        from rtt.training.losses import text_loss

        forget, retain = text_loss(model, batch["forget"]), text_loss(model, batch["retain"])
        return {"loss": -forget + self.retain_coefficient * retain, "forget": forget, "retain": retain}

"""GD, gradient difference (Deeb & Roger 2024, sec. 4.1; Maini et al. 2024): ascend on the forget texts, descend on the
retain texts.
"""

from rtt.training.losses import text_loss


class GD:
    """loss = - L(forget) + retain_coefficient * L(retain)."""

    def __init__(self, model, settings, seed):
        self.retain_coefficient = settings.retain_coefficient

    @staticmethod
    def forget_texts(fact):
        """The true sentences."""
        return fact.sentences

    @staticmethod
    def forget_answers(fact, rng):
        """The correct answer."""
        return fact.answer

    def __call__(self, model, batch):
        """Return {"loss", "forget", "retain"}: scalars, nats per token."""
        forget = text_loss(model, batch["forget"])
        retain = text_loss(model, batch["retain"])
        return {"loss": -forget + self.retain_coefficient * retain, "forget": forget, "retain": retain}

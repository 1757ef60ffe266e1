"""RIA, random incorrect answer (Deeb & Roger 2024, sec. 4.1; Eldan & Russinovich 2023): learn several wrong answers
per fact.
"""

from rtt.training.losses import text_loss


class RIA:
    """loss = L(forget texts with wrong answers) + retain_coefficient * L(retain)."""

    def __init__(self, model, settings, seed):
        self.retain_coefficient = settings.retain_coefficient

    @staticmethod
    def forget_texts(fact):
        """Sentences with three different wrong answers."""
        return fact.ria_sentences

    @staticmethod
    def forget_answers(fact, rng):
        """A wrong answer, drawn anew each time."""
        return int(rng.choice([i for i in range(len(fact.choices)) if i != fact.answer]))

    def __call__(self, model, batch):
        """Return {"loss", "forget", "retain"}: scalars, nats per token."""
        forget = text_loss(model, batch["forget"])
        retain = text_loss(model, batch["retain"])
        return {"loss": forget + self.retain_coefficient * retain, "forget": forget, "retain": retain}

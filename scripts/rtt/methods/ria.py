"""RIA, random incorrect answer."""

from rtt.methods.base import Method


class RIA(Method):
    """loss = L(forget texts with wrong answers) + retain_coefficient L(retain).

    Several wrong answers per fact, so that none of them is learned as the fact (Deeb & Roger 2024, sec. 4.1; Eldan &
    Russinovich 2023).
    """

    name = "RIA"
    title = "random incorrect answer: learn several wrong answers per fact"
    texts = "random_wrong"
    order, colour, dash, marker = 3, "#009E73", (0, (4, 1.2, 1, 1.2)), "^"

    def loss(self, model, batch):
        """Return {"loss", "forget", "retain"} in nats per token."""
        from rtt.training.losses import text_loss

        forget, retain = text_loss(model, batch["forget"]), text_loss(model, batch["retain"])
        return {"loss": forget + self.retain_coefficient * retain, "forget": forget, "retain": retain}

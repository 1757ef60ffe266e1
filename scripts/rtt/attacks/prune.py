"""Pruning (Wei et al. 2024, arXiv 2402.05162): without which weights do the facts come back?"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rtt.attacks.base import Attack, Cost
from rtt.study.strict import Strict

Share = Annotated[float, Field(gt=0, lt=1)]
MOST = 128  # retain facts or texts that protect weights: the first so many
BATCH = 16  # texts of which one gradient is taken
BACKWARD = 3  # a token that is read forward and backward costs as much as so many that are read forward


class Prune(Attack):
    """Set weights to 0 that matter for T and not for what had to stay, and ask V.

    A weight matters for texts by its SNIP score, |weight x gradient of their loss|. Pruned are, in each matrix, the
    weights among the top p by the mean score over T's texts that are not among the top q by that over retain texts:
    the source's set difference. The source takes a gradient for each text. Here the texts come in batches, as in Lee et
    al. 2019 (arXiv 1810.02340), which takes a fraction of the time.
    """

    drawn = False
    uses_t = uses_retain = True
    name, title, colour, order = "prune", "pruning", "#117733", 14
    summary = "Weights that matter for T, and not for what had to stay, are set to 0."

    class Settings(Strict):
        """Pruning: each p with each q."""

        p: Annotated[list[Share], Field(min_length=1, max_length=100)] = Field(
            [0.01, 0.05], description="shares of a matrix's weights that are pruned: those that matter most for T"
        )
        q: Annotated[list[Share], Field(min_length=1, max_length=100)] = Field(
            [0.02], description="shares of a matrix's weights that stay: those that matter most for retain texts"
        )
        precision: Literal["fp32", "bf16"] = Field("fp32", description="of the weights")

        @model_validator(mode="after")
        def _each_once(self):
            for name in ("p", "q"):
                if len(set(getattr(self, name))) != len(getattr(self, name)):
                    raise ValueError(f"{name}: each value may stand once")
            return self

    @classmethod
    def choices(cls, settings):
        """Return every pair of p and q: the fewest pruned first."""
        return [{"p": p, "q": q} for p in sorted(settings.p) for q in sorted(settings.q, reverse=True)]

    @classmethod
    def cost(cls, settings, t_facts, texts, retain):
        """Return a look for each setting, and one pass forward and backward over T, and over what had to stay."""
        stay = min(len(retain), MOST) * retain.texts.solved
        return Cost(len(cls.choices(settings)), t_read=BACKWARD * t_facts * texts.solved, once=BACKWARD * stay)

    def fit(self, checkpoint, t_facts, look):
        """Score each weight on T, and prune the checkpoint's weights anew for each setting.

        Which weights stay does not depend on T, and is found once for all V splits.
        """
        import torch

        from rtt.models.architecture import matrices

        model, memo = checkpoint.model, checkpoint.memo
        weights = list(matrices(model).values())
        if "stays" not in memo:
            matter = importance(model, weights, retain_items(checkpoint))
            memo["stays"] = {q: [top(score, q) for score in matter] for q in self.settings.q}
        matter = importance(model, weights, told(checkpoint.tokenizer, t_facts))
        for setting in self.choices(self.settings):
            checkpoint.restore()
            with torch.no_grad():
                for weight, score, stays in zip(weights, matter, memo["stays"][setting["q"]], strict=True):
                    weight.masked_fill_((top(score, setting["p"]) & ~stays).to(weight.device), 0.0)
            look(setting, model)


def told(tokenizer, facts) -> list[dict]:
    """Return the encoded texts of facts: the MCQ with letter and answer, and the question with the answer.

    The loss counts the answers alone.
    """
    from rtt.data.text import Text, encode, mcq, question_prompt

    texts = [mcq(fact, loss="LETTER_ANSWER") for fact in facts]
    texts += [Text(question_prompt(fact.question), f" {fact.choices[fact.answer]}") for fact in facts]
    return [encode(tokenizer, text) for text in texts]


def retain_items(checkpoint) -> list[dict]:
    """Return the encoded texts of the first MOST facts that had to stay, or the first so many plain texts."""
    from rtt.data.text import encode, sentence

    if checkpoint.retain:
        return told(checkpoint.tokenizer, checkpoint.retain[:MOST])
    return [encode(checkpoint.tokenizer, sentence(text)) for text in checkpoint.plain[:MOST]]


def importance(model, weights, items) -> list:
    """Return the mean over batches of |weight x gradient of the batch's loss| for each matrix.

    It is at least fp32, and lies on the CPU. items: encoded texts, of which BATCH in a row make a batch; the last ones
    may be fewer. A batch's loss is the mean of its texts'. A matrix that no text uses, such as another expert's, gets
    0.
    """
    import torch

    from rtt.training.collate import collate
    from rtt.training.losses import text_loss

    model.eval()
    asked = [weight.requires_grad for weight in weights]
    batches = [items[at : at + BATCH] for at in range(0, len(items), BATCH)]
    totals = [torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32)) for weight in weights]
    try:
        for weight in weights:
            weight.requires_grad_(True)
        for some in batches:
            batch = {key: value.to(weights[0].device) for key, value in collate(some, 0).items()}
            with torch.enable_grad():
                gradients = torch.autograd.grad(text_loss(model, batch), weights, allow_unused=True)
            for total, weight, gradient in zip(totals, weights, gradients, strict=True):
                if gradient is not None:
                    total += (weight.detach().to(total) * gradient.to(total)).abs()
    finally:
        for weight, was in zip(weights, asked, strict=True):
            weight.requires_grad_(was)
    return [(total / len(batches)).cpu() for total in totals]


def top(score, share: float):
    """Return which entries of a matrix are among its top share (rounded up) by a score: bool, of the same shape."""
    import math

    import torch

    chosen = torch.zeros(score.numel(), dtype=torch.bool)
    chosen[score.flatten().topk(math.ceil(share * score.numel())).indices] = True
    return chosen.view(score.shape)

"""Soft prompt (Schwinn et al. 2024, arXiv 2402.09063; 2502.15836): vectors before a question, trained on T."""

from typing import Annotated

from pydantic import Field

from rtt.attacks.base import Asker
from rtt.attacks.rtt import RTT
from rtt.study.part import Part
from rtt.study.settings import Count, Epochs, LossName, Positive


class SoftPrompt(RTT):
    """Train a few vectors that stand before every text of T; the model itself is frozen, and V is asked with them.

    They are the same for all questions. Trained for a question of its own, with its answer, a soft prompt can make a
    model say anything, known or not.
    """

    name, title, colour, order = "soft_prompt", "soft prompt", "#CC79A7", 2
    summary = "A soft prompt: vectors that stand before every question are trained on T, and the model stays as it is."

    class Settings(RTT.Settings):
        """Soft prompt: the keys of RTT, and the number of vectors."""

        learning_rates: Annotated[list[Positive], Field(min_length=1, max_length=100)] = [1e-2, 5e-2]
        epochs: Epochs = 20
        score_epochs: Annotated[list[Count], Field(min_length=1)] | None = [8, 20]
        batch_size: Count = 32
        loss: LossName = "LETTER_ANSWER"
        train_layers: None = None  # no layer is trained
        tokens: Annotated[int, Field(ge=1, le=1000)] = 20

    @classmethod
    def part(cls, settings, model):
        """Return that gradients pass through the whole model, and next to nothing is updated."""
        return Part(1.0, 1.0, 0.0)

    @classmethod
    def cost(cls, settings, t_facts, texts):
        """Return the cost of RTT, with the vectors before each text that is trained on; a look's do not count."""
        found = super().cost(settings, t_facts, texts)
        more = settings.batch_size * settings.tokens
        return cls.trainings(settings, found.trained[0][1], found.trained[0][2] + found.trained[0][1] * more)

    def items(self, checkpoint, t_facts):
        """Return the texts of RTT with the soft tokens before them; the loss counts the same tokens as without."""
        from rtt.models.soft import soft_ids

        soft = list(soft_ids(checkpoint.model, self.settings.tokens))
        return [
            {
                "input_ids": soft + item["input_ids"],
                "labels": [-100] * (len(soft) + 1) + item["labels"][1:],  # nothing predicts a text's first token
            }
            for item in super().items(checkpoint, t_facts)
        ]

    def changed(self, checkpoint):
        """Give the model soft tokens that begin as words of its vocabulary, the same for every checkpoint."""
        import numpy as np

        from rtt.models.soft import softened

        rng = np.random.default_rng(checkpoint.seeded(61))
        like = rng.integers(len(checkpoint.tokenizer), size=self.settings.tokens).tolist()
        return softened(checkpoint.model, like)

    def asker(self, model):
        """Return the model with the soft tokens before each question."""
        from rtt.models.soft import soft_ids

        return Asker(model, soft=soft_ids(model, self.settings.tokens))

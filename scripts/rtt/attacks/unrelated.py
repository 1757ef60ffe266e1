"""Unrelated fine-tuning (2409.18025): train on text without any fact that was unlearned."""

from typing import Annotated

from pydantic import Field

from rtt.attacks.rtt import RTT
from rtt.study.names import SENTENCE_LOSSES
from rtt.study.settings import Count, Epochs, LossName, Positive


class Unrelated(RTT):
    """Fine-tune on the facts or the plain texts that had to stay; of T nothing is used."""

    name, title, colour, order = "unrelated", "unrelated fine-tuning", "#009E73", 4
    summary = "Fine-tuning on what had to stay, the facts or texts of the retain loss; no fact of T or V is used."
    uses_t, uses_retain = False, True

    class Settings(RTT.Settings):
        """Unrelated fine-tuning: the keys of RTT, on facts or texts that had to stay."""

        learning_rates: Annotated[list[Positive], Field(min_length=1, max_length=100)] = [1e-3, 2e-3]
        epochs: Epochs = 14
        score_epochs: Annotated[list[Count], Field(min_length=1)] | None = [6, 14]
        batch_size: Count = 32
        loss: LossName = Field("LETTER_ANSWER", description="of facts; plain texts count as a whole")
        samples: Count | None = Field(None, description="so many facts or texts, drawn once; null takes all")
        v_splits: None = None  # all facts are V

    @classmethod
    def sentences_of(cls, settings):
        """Return that the retain facts' sentences are trained on, where the loss is of sentences."""
        return {"retain": f"loss: {settings.loss}"} if settings.loss in SENTENCE_LOSSES else {}

    @classmethod
    def cost(cls, settings, t_facts, texts, retain=None):
        """Return the cost of RTT, on what had to stay."""
        return cls.trainings(
            settings,
            *retain.texts.passes(
                len(retain), settings.loss, settings.epochs, settings.batch_size, settings.samples, settings.sentences
            ),
        )

    def taught(self, checkpoint, t_facts):
        """Return the facts that are trained on: those that had to stay."""
        return checkpoint.retain

    def items(self, checkpoint, t_facts):
        """Return the texts of all epochs: as RTT's of the facts that had to stay, or the plain texts themselves."""
        if checkpoint.retain:
            return super().items(checkpoint, t_facts)
        import numpy as np

        from rtt.data.text import sentence
        from rtt.training.order import passes

        settings, rng = self.settings, np.random.default_rng(checkpoint.seeded(62))
        texts = [sentence(text) for text in checkpoint.plain]
        if settings.samples is not None and settings.samples < len(texts):
            texts = [texts[i] for i in sorted(rng.choice(len(texts), settings.samples, replace=False).tolist())]
        return passes(lambda: texts, settings.epochs, settings.batch_size, checkpoint.tokenizer, rng)

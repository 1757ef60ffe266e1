"""RTT, retraining on T (Deeb & Roger 2024, sec. 3 and app. A): fine-tune on T, ask V."""

from contextlib import contextmanager
from typing import Annotated

from pydantic import Field, model_validator

from rtt.attacks.base import Asker, Attack, Cost
from rtt.study.names import SENTENCE_LOSSES
from rtt.study.settings import Count, Epochs, Forms, LossName, Passes, Positive, Training
from rtt.study.strict import Introduced


class RTT(Attack):
    """Fine-tune on the texts of T with each learning rate; look after the epochs that the settings name.

    Other attacks that train are its subclasses: they say what is trained on (`taught` or `items`), and which part of
    the model is trained (`changed`).
    """

    name, title, colour, order = "RTT", "RTT", "#000000", 0
    summary = "Retraining on T: the model is fine-tuned on the facts of T and asked those of V."
    uses_t = trains = True

    class Settings(Training, Forms, Passes):
        """RTT: the texts of T, all learning rates, all V splits."""

        learning_rate: None = None
        learning_rates: Annotated[list[Positive], Field(min_length=1, max_length=100)]
        epochs: Epochs
        loss: LossName = "QUESTION_LETTER_ANSWER"
        samples: Count | None = Field(None, description="so many facts of T, drawn once; null takes all")
        v_splits: Count | None = Field(None, description="the first so many splits serve as V, each once; null: all")
        shuffle_choices: Annotated[bool, Introduced(False)] = Field(
            True, description="each epoch shows an MCQ's choices in a new order; false: as in the authors' code"
        )
        sentences: Annotated[bool, Introduced(False)] = Field(
            True,
            description="each epoch also shows a true sentence, drawn anew, of every fact of T that has one; false: as "
            "in the authors' code",
        )
        score_epochs: Annotated[list[Count], Field(min_length=1)] | None = Field(
            None, description="score after these epochs alone; null: after each"
        )

        @model_validator(mode="after")
        def _epochs_exist(self):
            if self.score_epochs and (
                max(self.score_epochs) > self.epochs or sorted(set(self.score_epochs)) != self.score_epochs
            ):
                raise ValueError(f"score_epochs must increase and end by epoch {self.epochs}")
            return self

        @model_validator(mode="after")
        def _rates_differ(self):
            if len(set(self.learning_rates)) != len(self.learning_rates):
                raise ValueError("learning_rates: each value may stand once")
            return self

        def scored(self) -> list[int]:
            """Return the epochs after which all questions are asked."""
            return self.score_epochs or list(range(1, self.epochs + 1))

        def at(self, learning_rate: float) -> Training:
            """Return the training settings of one learning rate."""
            shared = self.model_dump(include=set(Training.model_fields) - {"learning_rate"})
            return Training(learning_rate=learning_rate, **shared)

    @classmethod
    def choices(cls, settings):
        """Return every pair of epoch and learning rate: fewer epochs first, then smaller rates."""
        return [{"epoch": epoch, "lr": rate} for epoch in settings.scored() for rate in sorted(settings.learning_rates)]

    @classmethod
    def sentences_of(cls, settings):
        """Return that T's sentences are trained on, where the loss is of sentences."""
        return {"T": f"loss: {settings.loss}"} if settings.loss in SENTENCE_LOSSES else {}

    @classmethod
    def cost(cls, settings, t_facts, texts):
        """Return a training for each learning rate, and a look for each of its scored epochs."""
        steps, tokens = texts.passes(
            t_facts, settings.loss, settings.epochs, settings.batch_size, settings.samples, settings.sentences
        )
        return cls.trainings(settings, steps, tokens)

    @classmethod
    def trainings(cls, settings, steps, tokens):
        """Return the cost of a training of so many steps and tokens with each learning rate, and of its looks."""
        rates = settings.learning_rates
        return Cost(len(rates) * len(settings.scored()), [(settings, steps, tokens)] * len(rates))

    def taught(self, checkpoint, t_facts):
        """Return the facts that are trained on: those of T."""
        return t_facts

    def items(self, checkpoint, t_facts) -> list:
        """Return the encoded texts of all epochs, batch_size for each step.

        The order of T is the same for every checkpoint and learning rate, so that checkpoints are compared on equal
        terms.
        """
        import numpy as np

        from rtt.training.order import training_passes

        settings = self.settings
        return training_passes(
            self.taught(checkpoint, t_facts), settings.loss, settings.epochs, settings.batch_size, checkpoint.tokenizer,
            np.random.default_rng(checkpoint.seeded(30)), settings.samples, settings.forms(), **settings.shown(),
        )  # fmt: skip

    @contextmanager
    def changed(self, checkpoint):
        """Make of the checkpoint's model what is trained and asked, and take that back at the end; here it stays."""
        yield

    def asker(self, model) -> Asker:
        """Return how a trained model is asked."""
        return Asker(model)

    def fit(self, checkpoint, t_facts, look):
        """Train from the checkpoint's weights once for each learning rate."""
        self.train(checkpoint, self.items(checkpoint, t_facts), look)

    def train(self, checkpoint, items, look, name: str = "", **chosen) -> None:
        """Train on these items with each learning rate, and look after the scored epochs.

        `name` tells several trainings of one attack apart, and `chosen` is what their looks' settings say besides epoch
        and learning rate.
        """
        from rtt.models.load import freeze_layers
        from rtt.training.health import effective_update
        from rtt.training.losses import plain_loss
        from rtt.training.order import count_tokens
        from rtt.training.train import train

        settings = self.settings
        if settings.train_layers is not None:
            freeze_layers(checkpoint.model, settings.train_layers)
        per_epoch = len(items) // settings.batch_size // settings.epochs
        ends = [per_epoch * epoch for epoch in settings.scored()]

        for rate in settings.learning_rates:

            def relearn(folder, rate=rate):
                def score(step, model):
                    look({**chosen, "epoch": step // per_epoch, "lr": rate}, self.asker(model))

                checkpoint.restore()
                model, tokenizer, seed = checkpoint.model, checkpoint.tokenizer, checkpoint.seed
                with self.changed(checkpoint):
                    losses = train(
                        model, tokenizer, items, plain_loss, settings.at(rate), seed, ends, score, self.title, folder
                    )
                return {"lr": rate, "effective_update": effective_update(losses), "tokens": count_tokens(items)}

            checkpoint.once(f"{name}{rate:g}", relearn)

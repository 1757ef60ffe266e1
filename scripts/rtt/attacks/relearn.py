"""Relearning on texts that share only T's form, only its topic, both or neither (2602.03379): which one matters?"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rtt.attacks.base import Cost
from rtt.attacks.rtt import RTT
from rtt.attacks.rtt_permuted import misstated
from rtt.errors import UserError
from rtt.study.settings import Count, Epochs, McqLoss, Positive

SHARES = ("neither", "topic", "form", "both")  # the gentlest first
OF_T, ASKED = ("topic", "both"), ("form", "both")  # what they are about: T; how they look: MCQs


class Relearn(RTT):
    """Fine-tune on texts of which none tells a true fact of T or V, for each of four things that they share with T.

    `both` are the MCQs of T and `topic` its sentences; `form` are MCQs of facts that had to stay and `neither` their
    sentences, or plain texts. Each fact states one of its wrong choices, drawn once. With T's true answers this would
    be RTT, and what V gains could come from the facts of T. Were the other people's answers true, the four would differ
    in truth as well as in what they share. All four show equally many texts, so that they differ in nothing else.
    """

    name, title, colour, order = "relearn", "form or topic of T", "#D55E00", 3
    summary = "Fine-tuning on texts that share T's form, its topic, both or neither, and state wrong answers alone."
    uses_retain = True

    class Settings(RTT.Settings):
        """Relearning: what the texts share with T, all learning rates."""

        shares: Annotated[list[Literal[SHARES]], Field(min_length=1)] = Field(
            list(SHARES), description="what texts share with T; both and form are MCQs, topic and neither sentences"
        )
        learning_rates: Annotated[list[Positive], Field(min_length=1, max_length=100)] = [1e-3]
        epochs: Epochs = 8
        score_epochs: Annotated[list[Count], Field(min_length=1)] | None = [8]
        batch_size: Count = 32
        loss: McqLoss = Field("LETTER_ANSWER", description="of MCQs; sentences count as a whole")

        samples: Count | None = Field(None, description="so many facts or texts, drawn once; null takes all")
        sentences: Literal[False] = False  # `topic` and `neither` are the sentences
        v_splits: None = None  # all facts are V

        @model_validator(mode="after")
        def _each_once(self):
            if len(set(self.shares)) != len(self.shares):
                raise ValueError("shares: each value may stand once")
            return self

    @classmethod
    def asks_t(cls):
        """Return false: nothing true of T is trained on, so whether it was learned says nothing."""
        return False

    @classmethod
    def choices(cls, settings):
        """Return every share with every epoch and learning rate; those that have the least of T come first."""
        each = super().choices(settings)
        return [{"share": share, **one} for share in sorted(settings.shares, key=SHARES.index) for one in each]

    @classmethod
    def sentences_of(cls, settings):
        """Return that `topic` needs sentences of T, and `neither` those of retain facts."""
        found = {"T": "topic", "retain": "neither"}
        return {whose: f"shares: {share}" for whose, share in found.items() if share in settings.shares}

    @classmethod
    def needs_retain_facts(cls, settings):
        """Return that `form` needs questions, which plain texts do not have."""
        return "shares: form" if "form" in settings.shares else None

    @classmethod
    def cost(cls, settings, t_facts, texts, retain=None):
        """Return a training for each share and learning rate, as if each fact had a sentence that can be made wrong."""
        stays = [] if set(settings.shares) <= set(OF_T) else [len(retain)]
        shown = min([t_facts, *stays, settings.samples or t_facts])
        steps, trained = -(-shown // settings.batch_size) * settings.epochs, []
        for share in settings.shares:
            own = texts if share in OF_T else retain.texts
            mean = own.trained(settings.loss) if share in ASKED else own.sentence
            trained += cls.trainings(settings, steps, steps * settings.batch_size * mean).trained
        return Cost(len(cls.choices(settings)), trained)

    def sources(self, checkpoint, t_facts) -> dict:
        """Return {share: the facts or plain texts that it shows}, equally many of each. Raises UserError for none."""
        import numpy as np

        rng = np.random.default_rng(checkpoint.seeded(63))
        of_t, stay = misstated(t_facts, rng), misstated(checkpoint.retain, rng)
        told = {
            "both": of_t, "topic": [fact for fact in of_t if fact.sentences], "form": stay,
            "neither": [fact for fact in stay if fact.sentences] or list(checkpoint.plain),
        }  # fmt: skip
        for share in self.settings.shares:
            if not told[share]:
                raise UserError(
                    f"attack {self.name}: shares: {share} has no texts: no fact has a sentence with its correct "
                    f"choice, in whose place a wrong one could stand; leave {share} out of the attack's shares"
                )
        most = min(len(told[share]) for share in self.settings.shares)
        most = min(most, self.settings.samples or most)
        return {
            share: [told[share][i] for i in sorted(rng.choice(len(told[share]), most, replace=False).tolist())]
            for share in sorted(self.settings.shares, key=SHARES.index)
        }

    def fit(self, checkpoint, t_facts, look):
        """Train from the checkpoint's weights once for each share and learning rate."""
        import numpy as np

        from rtt.data.text import mcq, sentence
        from rtt.training.order import passes

        settings = self.settings
        for share, shown in self.sources(checkpoint, t_facts).items():
            rng = np.random.default_rng([*checkpoint.seeded(64), SHARES.index(share)])

            def text(one, share=share, rng=rng):
                if isinstance(one, str):
                    return sentence(one)
                if share not in ASKED:
                    return sentence(one.sentences[int(rng.integers(len(one.sentences)))])
                order = rng.permutation(len(one.choices)).tolist() if settings.shuffle_choices else None
                return mcq(one, None, order, settings.loss, **settings.forms())

            items = passes(
                lambda shown=shown, text=text: [text(one) for one in shown], settings.epochs, settings.batch_size,
                checkpoint.tokenizer, rng,
            )  # fmt: skip
            self.train(checkpoint, items, look, f"{share}-", share=share)

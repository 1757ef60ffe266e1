"""Linear probe (Alain & Bengio 2016, arXiv 1610.01644): are V's answers to be read from the hidden states?"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rtt.attacks.base import Asker, Attack, Cost
from rtt.errors import UserError
from rtt.study.settings import Layer, Positive
from rtt.study.strict import Strict

LEAST = -30.0  # nats of an answer that the probe never saw, such as the letter E where T's questions have four choices


class LinearProbe(Attack):
    """Fit logistic regressions to the checkpoint's hidden states on T, and let them answer V.

    Two are fitted for each layer and penalty. One tells the letter from the last token of an MCQ's prompt, where all
    rotations of the choices of T's questions are shown, so that no letter is likelier than another. The other tells
    true from wrong choices at the last token of question and choice.
    """

    name, title, colour, order = "linear_probe", "linear probe", "#CC79A7", 40
    summary = "A logistic regression reads the answers from the hidden states; it is fitted to T and asked V."
    uses_t = True
    drawn = False
    answers = ("letter", "letter_permuted", "likelihood")

    class Settings(Strict):
        """Linear probe: each layer with each penalty."""

        layers: Annotated[list[Layer], Field(min_length=1)] = Field(
            [0.5, 0.99],
            description="decoder layers whose output is read: numbers from 0, or fractions of the depth (0.99: the "
            "last)",
        )
        inverse_penalties: Annotated[list[Positive], Field(min_length=1)] = Field(
            [0.1], description="C of scikit-learn's LogisticRegression, on standardised features"
        )
        precision: Literal["fp32", "bf16"] = Field("fp32", description="of the weights that the states come from")

        @model_validator(mode="after")
        def _each_once(self):
            for name in ("layers", "inverse_penalties"):
                if len(set(getattr(self, name))) != len(getattr(self, name)):
                    raise ValueError(f"{name}: each value may stand once")
            return self

    @classmethod
    def choices(cls, settings):
        """Return every pair of inverse penalty and layer: higher penalties first, then the layers as they stand."""
        return [{"layer": layer, "C": c} for c in sorted(settings.inverse_penalties) for layer in settings.layers]

    @classmethod
    def cost(cls, settings, t_facts, texts):
        """Return a look for each setting; the states of all of them take one pass, and the fits are not counted.

        The pass reads every rotation of an MCQ, and each choice behind its question.
        """
        return Cost(len(cls.choices(settings)), longer=0.0, more=texts.choices * (texts.prompt + texts.answered))

    def fit(self, checkpoint, t_facts, look):
        """Read the states of T's texts, and fit to them; V's are read when they are asked, once per checkpoint."""
        from rtt.depth import layer_number
        from rtt.models.architecture import decoder_layers

        try:
            depth = len(decoder_layers(checkpoint.model))
            numbers = [layer_number(layer, depth) for layer in self.settings.layers]
        except UserError as error:
            raise UserError(f"attacks.{self.name}: {error}; else leave {self.name} out of the study") from None
        states = checkpoint.memo.setdefault(self.name, {})
        read = _Reader(checkpoint, numbers, states)
        letters, wanted = read.letters(t_facts)
        choices, truth = read.choices(t_facts)
        for setting in self.choices(self.settings):
            at = self.settings.layers.index(setting["layer"])
            of_letter = _fitted(letters[:, at], wanted, setting["C"])
            of_choice = _fitted(choices[:, at], truth, setting["C"])

            def score(texts, at=at, of_letter=of_letter, of_choice=of_choice):
                values = [0.0] * len(texts)
                for by_letter, answer in ((True, _letters_told), (False, _choices_told)):
                    places = [i for i, text in enumerate(texts) if text.letter is by_letter]
                    some = [texts[i] for i in places]
                    model = of_letter if by_letter else of_choice
                    for i, value in zip(places, answer(model, read.of(some)[:, at], some) if some else (), strict=True):
                        values[i] = value
                return values

            look(setting, Asker(score=score))


class _Reader:
    """Gives texts their hidden states, each computed once per checkpoint."""

    def __init__(self, checkpoint, layers, known: dict):
        self.checkpoint, self.layers, self.known = checkpoint, layers, known

    def of(self, texts):
        """Return (texts, layers, width): of a letter's text at the end of its prompt, of others at their own end."""
        import numpy as np

        from rtt.data.text import split_text
        from rtt.training.residual import hidden_states

        rows = []
        for text in texts:
            before, own = split_text(self.checkpoint.tokenizer, text)
            rows.append(before if text.letter else before + own)
        self.known |= hidden_states(self.checkpoint.model, [row for row in rows if row not in self.known], self.layers)
        return np.stack([self.known[row] for row in rows])

    def letters(self, facts):
        """Return the states of all rotations of these facts' MCQs, and the letter of each one's answer."""
        from rtt.data.facts import LETTERS
        from rtt.data.text import letter_text, mcq_prompt

        texts, right = [], []
        for fact in facts:
            for turn in range(len(fact.choices)):
                shown = [*fact.choices[turn:], *fact.choices[:turn]]
                letter = LETTERS[(fact.answer - turn) % len(fact.choices)]
                texts.append(letter_text(mcq_prompt(fact.question, shown), letter))
                right.append(letter)
        return self.of(texts), right

    def choices(self, facts):
        """Return the states at the end of each choice of these facts' questions, and whether it is the correct one."""
        from rtt.data.text import Text, question_prompt

        texts = [Text(question_prompt(fact.question), f" {choice}") for fact in facts for choice in fact.choices]
        return self.of(texts), [i == fact.answer for fact in facts for i in range(len(fact.choices))]


def _fitted(features, labels, c: float):
    """Return scikit-learn's logistic regression (lbfgs) on standardised features."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=1000)).fit(features.astype(float), labels)


def _letters_told(model, features, texts) -> list[float]:
    """Return log p (nats) of each text's letter; LEAST for a letter that was not there to be learned."""
    import numpy as np
    from scipy.special import log_softmax

    odds = model.decision_function(features.astype(float))
    told = log_softmax(odds if odds.ndim == 2 else np.column_stack([np.zeros(len(odds)), odds]), axis=1)
    column = {letter: i for i, letter in enumerate(model.classes_.tolist())}
    letters = [text.target.strip() for text in texts]
    return [
        float(row[column[letter]]) if letter in column else LEAST for row, letter in zip(told, letters, strict=True)
    ]


def _choices_told(model, features, texts) -> list[float]:
    """Return log p (nats) that each text's choice is the correct one, given that one of those of its prompt is."""
    import numpy as np

    odds, place = model.decision_function(features.astype(float)), {}
    prompt = np.array([place.setdefault(text.prompt, len(place)) for text in texts])
    total = np.full(len(place), -np.inf)
    np.logaddexp.at(total, prompt, odds)
    return (odds - total[prompt]).tolist()

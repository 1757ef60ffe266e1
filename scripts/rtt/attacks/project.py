"""Direction removal (Arditi et al. 2024, arXiv 2406.11717; Łucki et al. 2024, arXiv 2409.18025)."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rtt.attacks.base import Attack, Cost
from rtt.study.settings import Count, Layer
from rtt.study.strict import Strict

ALL, MEAN = "all", "mean"
MOST = 128  # retain facts or texts that are compared with T: the first so many


class Project(Attack):
    """Take out of the residual stream what tells T's questions from retain questions, and ask V.

    Directions are found in the states at the last token of the prompts, after each layer: the difference of the means
    (Arditi et al.), or the first principal components of T's states, less the mean of the retain ones. At every token a
    state's component along them is set to that of the mean retain state, x - D'D (x - m), so that retain questions stay
    where they are on average. (Arditi et al. set it to 0; the affine form is that of Marshall et al. 2024, arXiv
    2411.09003.)
    """

    drawn = False
    uses_t = uses_retain = True
    name, title, colour, order = "project", "direction removal", "#44AA99", 50
    summary = "Directions that tell T's questions from others are projected out of the model's states."

    class Settings(Strict):
        """Direction removal: each kind and number of directions in each choice of layers."""

        layers: Annotated[list[Layer | Literal["all"]], Field(min_length=1, max_length=1000)] = Field(
            ["all"],
            description="out of which layer's output: a number from 0, a fraction of the depth, or all of them; each "
            "has directions of its own",
        )
        directions: Annotated[list[Count | Literal["mean"]], Field(min_length=1, max_length=100)] = Field(
            ["mean", 2, 4], description="mean: the difference of the means; a number: so many principal components"
        )
        precision: Literal["fp32", "bf16"] = Field("fp32", description="of the weights")

        @model_validator(mode="after")
        def _each_once(self):
            for name in ("layers", "directions"):
                if len(set(getattr(self, name))) != len(getattr(self, name)):
                    raise ValueError(f"{name}: each value may stand once")
            return self

    @classmethod
    def choices(cls, settings):
        """Return every pair of layers and directions: single layers first, and the mean before components."""
        layers = sorted(settings.layers, key=lambda layer: layer == ALL)
        directions = sorted(settings.directions, key=lambda one: 0 if one == MEAN else one)
        return [{"layers": layer, "directions": one} for layer in layers for one in directions]

    @classmethod
    def cost(cls, settings, t_facts, texts, retain):
        """Return a look for each setting, and one pass over all questions, and over those of what had to stay."""
        stay = min(len(retain), MOST) * retain.texts.asked
        return Cost(len(cls.choices(settings)), more=texts.asked, once=stay)

    def fit(self, checkpoint, t_facts, look):
        """Find the directions on T's questions, without their answers, and ask the model without each setting's.

        The states of a question do not depend on T, and are found once for all V splits.
        """
        from rtt.depth import layer_number
        from rtt.models.architecture import decoder_layers
        from rtt.training.residual import rewritten

        model, layers = checkpoint.model, decoder_layers(checkpoint.model)
        forget = states(checkpoint, asked(checkpoint.tokenizer, t_facts))
        retain = states(checkpoint, others(checkpoint))
        for setting in self.choices(self.settings):
            every = range(len(layers))
            chosen = every if setting["layers"] == ALL else [layer_number(setting["layers"], len(layers))]
            changes = {}
            for number in chosen:
                found = directions(forget[number], retain[number], setting["directions"])
                changes[layers[number]] = without(found, retain[number].mean(0))
            with rewritten(changes):
                look(setting, model)


def asked(tokenizer, facts) -> list[tuple[int, ...]]:
    """Return the tokens of each fact's prompts: the MCQ and the question without choices, each up to "Answer:"."""
    from rtt.data.text import Text, mcq_prompt, question_prompt, split_text

    texts = [Text(mcq_prompt(fact.question, fact.choices), " A") for fact in facts]
    texts += [Text(question_prompt(fact.question), f" {fact.choices[0]}") for fact in facts]
    return [split_text(tokenizer, text)[0] for text in texts]


def others(checkpoint) -> list[tuple[int, ...]]:
    """Return the tokens of the prompts of the first MOST facts that had to stay, or of as many plain texts."""
    from rtt.data.text import encode, sentence

    if checkpoint.retain:
        return asked(checkpoint.tokenizer, checkpoint.retain[:MOST])
    return [tuple(encode(checkpoint.tokenizer, sentence(text))["input_ids"]) for text in checkpoint.plain[:MOST]]


def states(checkpoint, rows):
    """Return the residual stream at the last token of each text after each layer: (layers, texts, width) float."""
    import numpy as np
    import torch

    from rtt.models.architecture import decoder_layers
    from rtt.training.residual import hidden_states

    known = checkpoint.memo.setdefault("states", {})
    every = range(len(decoder_layers(checkpoint.model)))
    known |= hidden_states(checkpoint.model, [row for row in rows if row not in known], every)
    return torch.from_numpy(np.stack([known[row] for row in rows], 1))


def directions(forget, retain, kind: int | str):
    """Return orthonormal directions, (number, width) in float64, from states (texts, width) on T and on retain texts.

    kind: "mean" takes the difference of the means; a number so many principal components of T's states, less the mean
    retain state (they are not centred again, so that the first holds the difference of the means where that is large).
    There are no more than the states have dimensions. No direction where the means are equal.
    """
    import torch

    apart = forget.double() - retain.double().mean(0)
    if kind == MEAN:
        mean = apart.mean(0)
        return (mean / mean.norm())[None] if mean.norm() > 0 else apart[:0]
    return torch.linalg.svd(apart, full_matrices=False).Vh[:kind]


def without(found, centre):
    """Return the function that sets the component of states along orthonormal directions to that of `centre`."""
    import torch

    def change(hidden):
        values = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        along, middle = found.to(values), centre.to(values)
        return (values - (values - middle) @ along.T @ along).to(hidden.dtype)

    return change

"""What all unlearning methods share: how a method is described, and how it turns a batch into a loss."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from rtt.errors import UserError
from rtt.study.part import Part, part_of
from rtt.study.settings import Unlearning

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from rtt.data.facts import Fact
    from rtt.study.model_file import ModelFile
    from rtt.study.settings import Model

Batch = dict[str, Any]  # "forget" and "retain": input_ids, attention_mask, labels, and what packing adds
# What a method trains on for a fact to forget -> the attribute of a fact that holds such sentences.
TEXTS = {"true": "sentences", "random_wrong": "ria_sentences", "fixed_wrong": "fif_sentences"}


class Method(ABC):
    """An unlearning method: from a batch of forget texts and one of retain texts to a loss.

    A subclass is a file of its own in this folder; `rtt.study.plugins` finds it, and nothing else has to name it. It
    cites its source in its docstring, and imports torch, and what imports torch, inside functions only.
    """

    name: ClassVar[str]  # in studies, specs, tables and figures
    title: ClassVar[str]  # one line: what the method does
    texts: ClassVar[str] = "true"  # one of TEXTS
    needs_reference: ClassVar[bool] = False  # true: `self.reference` is a frozen copy of the original
    refused: ClassVar[dict[str, str]] = {}  # types of models (config.json) on which it cannot work -> why
    needs_whole_gradient: ClassVar[str | None] = None  # why a step needs all gradients at once, which release drops

    # For the planner: whether the loss needs logits, and which texts a frozen copy reads.
    head: ClassVar[bool] = True
    copy_reads: ClassVar[tuple[str, ...]] = ("forget", "retain")

    # Optional `check_model(settings, model)`, a class method: raises UserError where the method cannot work on a model,
    # which has no weights (meta device). `rtt check` calls it.

    # In figures; without a colour, dash or marker of its own a method takes a spare one.
    order: ClassVar[int] = 100
    colour: ClassVar[str | None] = None
    dash: ClassVar[Any] = None
    marker: ClassVar[str | None] = None

    Settings: ClassVar[type[Unlearning]] = Unlearning  # a method with keys of its own defines a subclass

    def __init_subclass__(cls, **kwargs):
        """Check what a subclass declares, and name its settings after it in the schema of studies."""
        super().__init_subclass__(**kwargs)
        if cls.texts not in TEXTS:
            raise TypeError(f"{cls.__name__}.texts is {cls.texts!r}; expected one of {', '.join(TEXTS)}")
        if own := cls.__dict__.get("Settings"):
            own.__name__ = own.__qualname__ = f"{cls.__name__}Settings"
            own.model_rebuild(force=True)

    def __init__(self, model, settings: Unlearning, seed: int):
        """Freeze and copy what the method needs of `model`, the original in its starting precision.

        The optimizer takes what still needs a gradient afterwards. Raises UserError where the settings ask for
        adapters, and the method changes weights at a point.
        """
        if getattr(settings, "lora", None) and type(self).at_point is not Method.at_point:
            raise UserError(
                f"lora: {self.name} changes weights at each point, which adapters cannot hold; leave lora out"
            )
        self.settings, self.seed = settings, seed
        self.retain_coefficient = settings.retain_coefficient
        self.reference = copy.deepcopy(model).eval().requires_grad_(False) if self.needs_reference else None

    @abstractmethod
    def loss(self, model, batch: Batch) -> dict[str, Any]:
        """Return {"loss", "forget", "retain"}: scalars, each a mean over texts.

        The value must not depend on how a batch is cut into equal parts: average what is computed for each text
        (`rtt.training.losses.text_losses`), and apply no function to an average.
        """

    def step(self, model, batch: Batch) -> dict[str, Any]:
        """Return the parts of one step's loss; a method with an inner loop overrides this.

        Gradients of "loss" are taken afterwards, and added up over the parts of a batch.
        """
        if self.reference is not None:
            self.reference.to(batch["forget"]["input_ids"].device)
        return self.loss(model, batch)

    def at_point(self, model) -> AbstractContextManager:
        """Return a context in which `model` is scored and kept at a point.

        A method with a stage after training overrides this: it changes the weights on entry, and puts those of the
        training back on exit. Under ZeRO-3 `model` is partitioned, and its weights must be gathered first.
        """
        return nullcontext()

    @classmethod
    def forget_texts(cls, fact: Fact) -> Sequence[str]:
        """Return the sentences that the method trains on for a fact to forget."""
        return getattr(fact, TEXTS[cls.texts])

    @classmethod
    def forget_answers(cls, fact: Fact, rng: np.random.Generator) -> int:
        """Return the choice that the MCQ of a fact to forget gives as its answer."""
        if cls.texts == "true":
            return fact.answer
        wrong = [i for i in range(len(fact.choices)) if i != fact.answer]
        if cls.texts == "random_wrong":
            return int(rng.choice(wrong))
        stated = fact.fif_sentences[0] if fact.fif_sentences else ""
        named = [i for i in wrong if fact.choices[i] in stated]
        return max(named or wrong[:1], key=lambda i: len(fact.choices[i]))  # the longest: "3" stands in "13" too

    @classmethod
    def resolved(cls, settings: Unlearning, model: Model | ModelFile) -> Unlearning:
        """Return settings that need no model file, for a spec. Raises UserError for what the model does not have."""
        return settings

    @classmethod
    def part(cls, settings: Unlearning, model: Model | ModelFile) -> Part:
        """Return the part of `model` that the method trains, runs and copies, for the planner."""
        found = part_of(settings, model)
        return replace(found, copied=1.0) if cls.needs_reference else found


Plugin = Method

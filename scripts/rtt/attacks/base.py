"""What all attacks share: how an attack is described, and what it is given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rtt.study.part import Part, part_of
from rtt.study.strict import Strict

if TYPE_CHECKING:
    from rtt.data.facts import Fact
    from rtt.data.text import Prompts, Text

Setting = dict[str, Any]  # what is chosen in an attack: {"lr": 1e-3, "epoch": 8}, {"bits": 4, "group_size": None}


@dataclass(frozen=True)
class Asker:
    """A way to ask an attacked model. It is shown prompts and choices, and no key.

    model: a causal language model, which answers by the log-probabilities (nats) of its continuations. prompts: how
    questions are put to it; None: as in training. soft: ids of tokens that stand before each text, such as those of
    trained embeddings. score: in the model's place, a function from texts to the score of each one's target; of a
    question's texts the highest score is the answer, and letters are normalised as log-probabilities are. sample: in
    the place of all of these, a function from prompts without choices to the texts that the model says after each; it
    answers the probe `sampled` alone.
    """

    model: Any = None
    prompts: Prompts | None = None
    soft: tuple[int, ...] = ()
    score: Callable[[Sequence[Text]], Sequence[float]] | None = None
    sample: Callable[[Sequence[str]], Sequence[Sequence[str]]] | None = None


Look = Callable[[Setting, Any], None]  # (setting, model or Asker): ask every question, and keep the answers


@dataclass
class Checkpoint:
    """A model that is attacked, with one split of its facts as V.

    model: a causal language model with the checkpoint's weights, which the attack may change; `restore()` puts them
    back. fold: the place of V among the splits that serve as V, from 0; None for an attack that uses no T. once: run a
    training under a name, unless it ended before a kill; it is called with the folder of its checkpoints (None: nothing
    is kept), and what it returns goes into the manifest. repeat: which repeat of the attack this is, and
    unlearning_repeat: which repeat of the unlearning the checkpoint comes from; both count from 0. retain: facts that
    had to stay, and plain: texts that had to; only for an attack that `uses_retain`, and a study has one of the two.
    memo: empties with the checkpoint, and is shared by its V splits; what is computed once for all goes there.
    """

    model: Any
    tokenizer: Any
    seed: int
    fold: int | None
    restore: Callable[[], None]
    once: Callable[[str, Callable[[Path | None], dict]], None]
    repeat: int = 0
    unlearning_repeat: int = 0
    retain: Sequence[Fact] = ()
    plain: Sequence[str] = ()
    memo: dict[str, Any] = field(default_factory=dict)

    def seeded(self, purpose: int) -> list[int]:
        """Return the seed of a random generator, another one for each fold, each repeat and each repeat of unlearning.

        `purpose` is a number that tells the generators of one attack apart. Otherwise it is the same for every
        checkpoint. With the repeats of unlearning it changes, since runs of the attack that share their order would
        not be nested in the runs of unlearning, as the statistics have them (`rtt.stats.components`).
        """
        repeats = [self.repeat, *([self.unlearning_repeat] if self.unlearning_repeat else [])]
        fold = [] if self.fold is None else [self.fold]
        return [self.seed, purpose, *fold, *(repeats if any(repeats) else [])]


@dataclass(frozen=True)
class Cost:
    """What an attack on one checkpoint with one V split costs, for the planner.

    trained: settings of each training, with its steps and tokens. looks: how often all facts are scored; for an attack
    that trains nothing, how often those of V are. longer: how many times as many tokens a look reads as by the
    prompts of training. more: tokens of each fact that are read or written beside the looks, all together. t_read:
    tokens of T that are read beside them for one V split, and once: tokens that are read for all V splits together; one
    that is read backward, too, counts three times.
    """

    looks: int
    trained: Sequence[tuple[Any, int, float]] = field(default=())
    longer: float = 1.0
    more: float = 0.0
    t_read: float = 0.0
    once: float = 0.0


class Attack(ABC):
    """Something that is done to an unlearned checkpoint to bring its facts back.

    A subclass is a file of its own in this folder; `rtt.study.plugins` finds it, and nothing else has to name it. An
    attack uses T, and what had to stay: it is given neither the facts of V nor the original, and runs in an empty
    folder. It hands a changed model, or an `Asker`, to `look`, and the framework (`rtt.steps.attack`) asks that one the
    questions, without their keys.
    """

    name: ClassVar[str]  # in studies, specs, evaluations, tables
    title: ClassVar[str]  # in figures and the report
    summary: ClassVar[str]  # one sentence
    colour: ClassVar[str]
    order: ClassVar[int] = 100  # among the attacks: the first of a study is the one that figures show
    uses_t: ClassVar[bool] = False  # false: it is the same for every V split, and `fit` is called once, without facts
    trains: ClassVar[bool] = False  # true: weights are trained on texts; where these are T's, T is asked as well
    uses_retain: ClassVar[bool] = False  # true: it is given the facts or texts of the retain loss
    needs_context: ClassVar[bool] = False  # true: nothing for a model that cannot use examples in its context
    answers: ClassVar[tuple[str, ...] | None] = None  # the probes that its askers can answer; None: all
    drawn: ClassVar[bool] = True  # false: nothing is drawn, so that a repeat would be the same again
    control: ClassVar[bool] = False  # true: it can bring no fact back, so no claim and no strongest attack reads it
    in_strongest: ClassVar[bool] = True  # false: it has a floor of its own, so the strongest attack leaves it out
    refused: ClassVar[dict[str, str]] = {}  # types of models (config.json) on which it cannot work -> why

    class Settings(Strict):
        """The keys of the attack in a study file."""

    def __init_subclass__(cls, **kwargs):
        """Name the settings after the attack, in the schema of studies."""
        super().__init_subclass__(**kwargs)
        if own := cls.__dict__.get("Settings"):
            own.__name__ = own.__qualname__ = f"{cls.__name__}Settings"
            own.model_rebuild(force=True)

    def __init__(self, settings: Settings):
        self.settings = settings

    @classmethod
    @abstractmethod
    def choices(cls, settings: Settings) -> list[Setting]:
        """Return every setting that is tried, the gentlest first: in a tie the first one is chosen."""

    @classmethod
    def asks_t(cls) -> bool:
        """Return whether T is asked, too: only a training on T can fail to learn it.

        Otherwise each fact is asked once, of the asker that had its split as V, and one look has the answers of all.
        """
        return cls.uses_t and cls.trains

    @classmethod
    def precision(cls, settings: Settings) -> str:
        """Return the precision in which the attack trains or changes weights, as `rtt.training.train.cast` names it."""
        return settings.precision

    @classmethod
    def v_splits(cls, settings: Settings) -> int | None:
        """Return how many splits serve as V; None for all of them, as always where T is not asked."""
        return getattr(settings, "v_splits", None) if cls.asks_t() else None

    @classmethod
    def part(cls, settings: Settings, model: Any) -> Part:
        """Return the part of the study's model that a training runs and updates, for the planner."""
        return part_of(settings, model) if cls.trains else Part()

    @classmethod
    def sentences_of(cls, settings: Settings) -> dict[str, str]:
        """Return whose sentences these settings train on, and the key that asks for them: {"T": "loss: CORPUS"}.

        Keys are "T" and "retain", and for plain texts in the place of retain facts nothing is asked. A study whose
        folders lack the sentences is then refused before its first job.
        """
        return {}

    @classmethod
    def needs_retain_facts(cls, settings: Settings) -> str | None:
        """Return the key that asks for retain facts where a study may have plain texts; None if either will do."""
        return None

    @classmethod
    @abstractmethod
    def cost(cls, settings: Settings, t_facts: int, texts: Any, retain: Any = None) -> Cost:
        """Return what the attack costs with so many facts in T; `texts` tells their tokens (`planner.costs.Texts`).

        retain: what had to stay, facts or plain texts (`planner.costs.Facts` or `Plain`): its length, and the tokens of
        its `texts`. Only an attack that `uses_retain` is given it.
        """

    @abstractmethod
    def fit(self, checkpoint: Checkpoint, t_facts: Sequence[Fact], look: Look) -> None:
        """Attack the checkpoint, and call `look(setting, asker)` once for each of `choices`; a model is an asker."""


Plugin = Attack

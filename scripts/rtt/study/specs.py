"""Describe each run by a spec: a frozen model of all that decides the run's numbers.

`run_id` = a readable slug + the first 10 hex digits of the sha256 of the spec's canonical JSON. A spec holds the specs
that it stands on, so a change upstream changes every id below it. Resources, device counts and the places that files
are fetched from are not in a spec. A key that is added later is left out of the JSON at its introduction value
(`rtt.study.strict.Introduced`), so that it renames no run. How a study expands to specs: `rtt.study.expand`.
"""

from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SerializeAsAny, ValidationError, field_validator

from rtt.errors import UserError
from rtt.files import canonical_json, digest, read_json
from rtt.study import plugins
from rtt.study.model_file import ModelFile
from rtt.study.schema import AnyModel
from rtt.study.settings import (
    Birthdays,
    Model,
    People,
    PointChoice,
    Policy,
    Pretraining,
    Scores,
    Teaching,
    Unlearning,
)
from rtt.study.strict import AS_WRITTEN, Introduced, Strict


class Spec(Strict):
    """The base of all specs: it has a seed, a slug and an id."""

    seed: int

    @property
    def slug(self) -> str:
        """The readable part of the id; it starts with a letter and holds letters, digits, - and _."""
        raise NotImplementedError

    @cached_property
    def hash(self) -> str:
        """The sha256 of the canonical JSON, 64 hex digits."""
        return digest(self.canonical())

    @property
    def run_id(self) -> str:
        """The run's name: slug, seed and 10 hex digits of the hash."""
        return f"{self.slug}-s{self.seed}-{self.hash[:10]}"


class Files(Strict):
    """Dataset files that exist already; `digest` is the hash of what they must hold."""

    group: str | None = None  # of data/sources.tsv
    folder: str | None = None  # of the user's
    digest: str


class RawSpec(Spec):
    """A dataset's files in the authors' schema: generated, fetched, or the user's."""

    kind: Literal["raw"] = "raw"
    dataset: str
    people: People | None = None  # the miniature's generator, for birth_years_a, birth_years_b, cities
    birthdays: Birthdays | None = None
    files: Files | None = None

    @property
    def slug(self):
        """The dataset's name."""
        return f"raw-{self.dataset}"


class DataSpec(Spec):
    """The canonical facts of a dataset: which splits are taken, and what is done with defects."""

    kind: Literal["data"] = "data"
    raw: RawSpec
    policy: Policy
    splits: list[str] | None = None
    facts_per_split: int | None = None
    distractors: Annotated[int, Introduced(3)] = 3

    @property
    def dataset(self) -> str:
        """The dataset's name."""
        return self.raw.dataset

    @property
    def slug(self):
        """The dataset's name."""
        return self.dataset


class TextsSpec(Spec):
    """Plain texts to retain or to forget, from a group of data/sources.tsv."""

    kind: Literal["texts"] = "texts"
    group: str
    count: int
    digest: str
    max_characters: int | None = None

    @property
    def slug(self):
        """The group."""
        return f"texts-{self.group}"


class Retain(Strict):
    """What must stay: `learn` goes into the retain loss, `held_out` alone gives retain accuracy. Null: all splits."""

    learn: DataSpec | TextsSpec
    learn_splits: list[str] | None = None
    held_out: DataSpec
    held_out_splits: list[str] | None = None


ChoiceSplits = Annotated[list[str], Introduced([])]  # splits whose questions have the role `choice`


class PretrainSpec(Spec):
    """The miniature, trained from scratch on forget facts and retain facts."""

    kind: Literal["pretrain"] = "pretrain"
    arm: Literal["pretrained"] = "pretrained"
    model: Model
    facts: DataSpec
    retain: Retain
    training: Pretraining
    scores: Scores
    choice_splits: ChoiceSplits = []

    @property
    def slug(self):
        """Model and facts."""
        return f"pretrain-{self.model.name}-{self.facts.dataset}"

    @property
    def weights(self) -> Spec:
        """The spec whose run makes the model's folder."""
        return self


class ImportSpec(Spec):
    """A pretrained model as a local folder; `digest` is the hash of its files if the user gave a folder.

    An external one may also be an adapter, and has no tokenizer.
    """

    kind: Literal["import"] = "import"
    model: ModelFile
    digest: str | None = None
    external: Annotated[bool, Introduced(False)] = False
    tokenizer_digest: Annotated[str | None, Introduced(None)] = None  # of the model file's other tokenizer, if any

    @property
    def slug(self):
        """The model's name."""
        return f"import-{self.model.name}"

    @property
    def weights(self) -> Spec:
        """The spec whose run makes the model's folder."""
        return self


class OriginalSpec(Spec):
    """A model that is scored as it is: the original of an arm, which learned these facts in its pretraining, or the
    model of a control or an oracle, which never saw them (`control_for` names the arms that it serves).
    """

    kind: Literal["original"] = "original"
    arm: Literal["pretrained", "control"] = "pretrained"
    base: ImportSpec | PretrainSpec
    facts: DataSpec
    retain: Retain
    scores: Scores
    choice_splits: ChoiceSplits = []
    control_for: Annotated[list[str], Introduced([])] = []

    @property
    def slug(self):
        """Model and facts, and whether it is a control's."""
        return f"original-{'control-' if self.control_for else ''}{self.base.model.name}-{self.facts.dataset}"

    @property
    def model(self) -> AnyModel:
        """The base model."""
        return self.base.model

    @property
    def weights(self) -> Spec:
        """The spec whose run makes the model's folder."""
        return self.base


class TeachSpec(Spec):
    """A base model that is taught facts after its pretraining."""

    kind: Literal["teach"] = "teach"
    arm: Literal["taught", "taught_shuffled", "taught_same_data"]
    base: PretrainSpec | ImportSpec
    facts: DataSpec
    also_taught: DataSpec | None = None
    retain: Retain
    training: Teaching | Pretraining
    scores: Scores
    choice_splits: ChoiceSplits = []

    @property
    def slug(self):
        """Arm."""
        return f"teach-{self.arm}-{self.facts.dataset}"

    @property
    def model(self) -> AnyModel:
        """The base model."""
        return self.base.model

    @property
    def weights(self) -> Spec:
        """The spec whose run makes the model's folder."""
        return self


Source = PretrainSpec | OriginalSpec | TeachSpec


class External(Strict):
    """A model that was unlearned elsewhere: a folder, or what `fetched` brings from the hub."""

    external_model: str
    digest: str
    fetched: Annotated[ImportSpec | None, Introduced(None)] = None


Repeat = Annotated[int, Introduced(0)]  # of an unlearning, from 0: another order of the same data

# A method may add keys to Unlearning, which its class reads and writes.
Strength = SerializeAsAny[Unlearning | External]


def _strength(raw, info):
    """Read the settings of a trajectory as the method's class does, or as an external model's."""
    if isinstance(raw, dict) and "external_model" in raw:
        return External.model_validate(raw, context=info.context)
    return plugins.of_plugin(plugins.methods(), info.data.get("method"), raw, info.context)


class UnlearnSpec(Spec):
    """One unlearning trajectory with its points. An external model is a trajectory of one point, step 0.

    `point_choice` and `retain_budgets` decide which points' weights are kept (`rtt.point_choice.choose`).
    """

    kind: Literal["unlearn"] = "unlearn"
    method: str
    source: Source
    texts: list[TextsSpec] = Field(default_factory=list)  # unlearned in the place of the facts' own
    settings: Strength
    point_choice: PointChoice
    retain_budgets: list[float]
    repeat: Repeat = 0

    @field_validator("settings", mode="before")
    @classmethod
    def _of_the_method(cls, raw, info):
        return _strength(raw, info)

    @property
    def slug(self):
        """Arm, facts and method."""
        return f"unlearn-{self.source.arm}-{self.source.facts.dataset}-{self.method}"


class Trajectories(Strict):
    """A method with the settings of its trajectories."""

    method: str
    texts: list[TextsSpec] = Field(default_factory=list)
    strengths: list[Strength]

    @field_validator("strengths", mode="before")
    @classmethod
    def _of_the_method(cls, raw, info):
        return [_strength(one, info) for one in raw] if isinstance(raw, list) else raw

    def repeats(self, wanted: int) -> range:
        """Return which repeats there are: a model that was unlearned elsewhere has one."""
        return range(wanted if any(isinstance(one, Unlearning) for one in self.strengths) else 1)


class PointChoiceSpec(Spec):
    """The choice of a point for each retain budget, over all trajectories of a method."""

    kind: Literal["point_choice"] = "point_choice"
    source: Source
    unlearned: Trajectories
    point_choice: PointChoice
    retain_budgets: list[float]
    repeat: Repeat = 0

    @property
    def method(self) -> str:
        """The method's name."""
        return self.unlearned.method

    @property
    def slug(self):
        """Arm, facts and method."""
        return f"choose-{self.source.arm}-{self.source.facts.dataset}-{self.method}"

    @cached_property
    def trajectories(self) -> list[UnlearnSpec]:
        """The specs of the trajectories."""
        names = ("seed", "method", "source", "point_choice", "retain_budgets", "repeat")
        shared = {name: getattr(self, name) for name in names}
        shared["texts"] = self.unlearned.texts
        return [UnlearnSpec(settings=settings, **shared) for settings in self.unlearned.strengths]


class Target(Strict):
    """One checkpoint that is attacked: the original, a method's selected point for a budget, or the control."""

    name: str
    kind: Literal["original", "unlearned", "control"]
    method: str | None = None
    retain_budget: float | None = None
    repeat: Repeat = 0  # of the unlearning


class AttackSpec(Spec):
    """One attack on checkpoints of one arm, or on the control."""

    kind: Literal["attack"] = "attack"
    attack: str
    arm: str
    control_for: list[str] = Field(default_factory=list)
    source: PretrainSpec | OriginalSpec | TeachSpec | ImportSpec
    facts: DataSpec
    unlearned: list[Trajectories] = Field(default_factory=list)  # a list: JSON with sorted keys keeps its order
    point_choice: PointChoice | None = None
    retain_budgets: list[float] = Field(default_factory=list)
    targets: list[Target]
    settings: SerializeAsAny[Strict]  # of the attack, by its name
    scores: Scores
    repeats: Annotated[int, Introduced(1)] = 1  # of the attack
    unlearning_repeats: Annotated[int, Introduced(1)] = 1
    left_out: Annotated[list[str], Introduced([])] = []  # splits set apart for the point choice: never V or T
    shots: Annotated[Retain | None, Introduced(None)] = None  # whose `learn` facts the probe few_shot shows
    retain: Annotated[Retain | None, Introduced(None)] = None  # whose `learn` facts or texts the attack uses

    @field_validator("settings", mode="before")
    @classmethod
    def _of_the_attack(cls, raw, info):
        return plugins.of_plugin(plugins.attacks(), info.data.get("attack"), raw, info.context)

    @property
    def plugin(self) -> type:
        """The attack's class."""
        return plugins.attacks()[self.attack]

    @property
    def slug(self):
        """Attack, arm, facts, and the method when there is but one."""
        methods = sorted({target.method for target in self.targets if target.method})
        only = methods if len(methods) == 1 else [t.kind for t in self.targets if len(self.targets) == 1]
        names = ["attack", self.attack, self.arm, self.facts.dataset, *(name for name in only if name != self.arm)]
        return "-".join(names)

    @cached_property
    def point_choices(self) -> list[PointChoiceSpec]:
        """The specs of the point choices that are attacked, one per method and repeat of its unlearning."""
        shared = {name: getattr(self, name) for name in ("seed", "source", "point_choice", "retain_budgets")}
        return [
            PointChoiceSpec(unlearned=method, repeat=repeat, **shared)
            for method in self.unlearned
            for repeat in method.repeats(self.unlearning_repeats)
        ]

    @property
    def checkpoints(self) -> dict:
        """What is attacked, and in which precision: attacks that agree in it may share a process."""
        keys = ("seed", "arm", "control_for", "source", "facts", "unlearned", "point_choice", "retain_budgets")
        keys += ("targets", "scores", "unlearning_repeats", "left_out")
        return self.model_dump(mode="json", include=set(keys)) | {"precision": self.plugin.precision(self.settings)}

    def eval_ids(self) -> list[str]:
        """Return the stems of the evaluation files, one per target."""
        return [f"{self.run_id}/{target.name}" for target in self.targets]


SPECS = {
    "raw": RawSpec,
    "data": DataSpec,
    "texts": TextsSpec,
    "pretrain": PretrainSpec,
    "import": ImportSpec,
    "original": OriginalSpec,
    "teach": TeachSpec,
    "unlearn": UnlearnSpec,
    "point_choice": PointChoiceSpec,
    "attack": AttackSpec,
}


def load_spec(path, *kinds: str) -> Spec:
    """Read a spec file of one of `kinds`, which an older version of this program may have written.

    Raises UserError when it is of another kind, damaged, or does not come back as it was written (its id would change).
    """
    raw = read_json(path)
    kind = raw.get("kind") if isinstance(raw, dict) else None
    if kind not in kinds:
        raise UserError(f"{path}: found a spec of kind {kind!r}, expected {' or '.join(kinds)}")
    try:
        spec = SPECS[kind].model_validate_json(canonical_json(raw), context=AS_WRITTEN)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}; write the spec anew") from None
    if spec.run_id != Path(path).stem:
        raise UserError(
            f"{path}: the spec's id is {spec.run_id}, its file's name says otherwise: it was edited, or written by "
            "another version of this program; start the study again"
        )
    return spec

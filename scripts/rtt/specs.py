"""From a study to frozen specs, one per run. A spec is complete: nothing outside it decides the run's numbers.

`run_id` = a readable slug + the first 10 hex digits of the sha256 of the spec's canonical JSON. A spec holds the specs
that it stands on, so a change upstream changes every id below it. Resources, device counts and paths are not in a spec.
"""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field

from rtt.config import (
    Attack,
    Model,
    People,
    Policy,
    Pretraining,
    RMUUnlearning,
    Selection,
    Strict,
    Study,
    Teaching,
    Unlearning,
)
from rtt.files import digest


class Spec(Strict):
    """What all specs share: a seed, a slug and an id."""

    seed: int

    @property
    def slug(self) -> str:
        """Readable part of the id: starts with a letter, holds letters, digits, - and _."""
        raise NotImplementedError

    @cached_property
    def hash(self) -> str:
        """sha256 of the canonical JSON, 64 hex digits."""
        return digest(self.model_dump(mode="json"))

    @property
    def run_id(self) -> str:
        """Slug, seed and 10 hex digits."""
        return f"{self.slug}-s{self.seed}-{self.hash[:10]}"


class DataSpec(Spec):
    """One generated dataset and what is done with its defects."""

    kind: Literal["data"] = "data"
    dataset: Literal["birth_years_a", "birth_years_b", "cities"]
    generator: People
    policy: Policy

    @property
    def slug(self):
        """The dataset's name."""
        return self.dataset


class PretrainSpec(Spec):
    """A base model trained from scratch on forget facts and retain facts."""

    kind: Literal["pretrain"] = "pretrain"
    model: Model
    facts: DataSpec
    retain: DataSpec
    training: Pretraining

    @property
    def slug(self):
        """Model and facts."""
        return f"pretrain-{self.model.name}-{self.facts.dataset}"

    arm: Literal["pretrained"] = "pretrained"


class TeachSpec(Spec):
    """A base model that is taught other facts after its pretraining."""

    kind: Literal["teach"] = "teach"
    arm: Literal["taught", "taught_same_data"]
    base: PretrainSpec
    facts: DataSpec
    training: Teaching | Pretraining

    @property
    def slug(self):
        """Arm."""
        return f"teach-{self.arm}"

    @property
    def retain(self) -> DataSpec:
        """The base model's retain facts."""
        return self.base.retain

    @property
    def model(self) -> Model:
        """The base model's shape."""
        return self.base.model


Source = PretrainSpec | TeachSpec


class UnlearnSpec(Spec):
    """One unlearning trajectory with its points."""

    kind: Literal["unlearn"] = "unlearn"
    method: Literal["GD", "RMU", "RIA", "FIF"]
    source: Source
    # Plain settings first: read from JSON they would pass as RMU's too, with its defaults, and the id would change.
    settings: Unlearning | RMUUnlearning

    @property
    def slug(self):
        """Method and arm."""
        return f"unlearn-{self.source.arm}-{self.method}"


class Target(Strict):
    """One checkpoint that is attacked: the original, a method's selected point for a budget, or the control."""

    name: str
    kind: Literal["original", "unlearned", "control"]
    method: Literal["GD", "RMU", "RIA", "FIF"] | None = None
    retain_budget: float | None = None


class AttackSpec(Spec):
    """RTT on the checkpoints of one arm, or on the control."""

    kind: Literal["attack"] = "attack"
    arm: str
    control_for: tuple[str, ...] = ()
    source: Source
    facts: DataSpec
    unlearned: list[UnlearnSpec] = Field(default_factory=list)  # a list: JSON with sorted keys keeps its order
    targets: list[Target]
    selection: Selection
    rtt: Attack

    @property
    def slug(self):
        """Arm."""
        return f"rtt-{self.arm}"

    def eval_ids(self) -> list[str]:
        """Stems of the evaluation files, one per target."""
        return [f"{self.run_id}.{target.name}" for target in self.targets]


def target_name(method: str, budget: float) -> str:
    """File-name part of an unlearned target: the method and the retain budget in percent."""
    return f"{method}-b{round(budget * 100)}"


class Runs:
    """All specs of a study, by kind and by id."""

    def __init__(self, study: Study):
        self.study = study
        self.data: dict[str, DataSpec] = {}
        self.sources: dict[str, Source] = {}
        self.unlearn: dict[str, UnlearnSpec] = {}
        self.attacks: dict[str, AttackSpec] = {}
        self.controls: dict[str, AttackSpec] = {}
        self.originals: list[str] = []
        for seed in study.seeds:
            self._expand(seed)

    def _dataset(self, name: str, seed: int) -> DataSpec:
        spec = DataSpec(seed=seed, dataset=name, generator=self.study.data.generator, policy=self.study.data.policy)
        self.data[spec.run_id] = spec
        return spec

    def _pretrain(self, facts: DataSpec) -> PretrainSpec:
        study, retain = self.study, self._dataset("cities", facts.seed)
        spec = PretrainSpec(seed=facts.seed, model=study.model, facts=facts, retain=retain, training=study.pretraining)
        self.sources[spec.run_id] = spec
        return spec

    def _expand(self, seed: int) -> None:
        study = self.study
        a, b = self._dataset("birth_years_a", seed), self._dataset("birth_years_b", seed)
        base = self._pretrain(a)
        trainings = {"taught": study.teaching, "taught_same_data": study.pretraining}
        for arm in study.arms:
            source: Source = base
            if arm != "pretrained":
                source = TeachSpec(seed=seed, arm=arm, base=base, facts=b, training=trainings[arm])
                self.sources[source.run_id] = source
            self.originals.append(source.run_id)
            unlearned = [
                UnlearnSpec(seed=seed, method=method, source=source, settings=settings)
                for method, settings in study.methods.named.items()
            ]
            self.unlearn |= {spec.run_id: spec for spec in unlearned}
            targets = [Target(name="original", kind="original")] + [
                Target(name=target_name(method, budget), kind="unlearned", method=method, retain_budget=budget)
                for method in study.methods.named
                for budget in study.retain_budgets
            ]
            attack = AttackSpec(
                seed=seed, arm=arm, source=source, facts=source.facts, unlearned=unlearned, targets=targets,
                selection=study.selection, rtt=study.rtt,
            )  # fmt: skip
            self.attacks[attack.run_id] = attack
        other_way = study.two_way_control and "pretrained" in study.arms
        self._control(seed, base, b, tuple(arm for arm in study.arms if arm != "pretrained" or not other_way))
        if other_way:
            self._control(seed, self._pretrain(b), a, ("pretrained",))

    def _control(self, seed: int, source: PretrainSpec, facts: DataSpec, arms: tuple[str, ...]) -> None:
        """RTT on facts that `source` never saw."""
        if arms:
            spec = AttackSpec(
                seed=seed, arm="control", control_for=arms, source=source, facts=facts, selection=self.study.selection,
                targets=[Target(name="control", kind="control")], rtt=self.study.rtt,
            )  # fmt: skip
            self.controls[spec.run_id] = spec

    def specs(self) -> Iterator[Spec]:
        """Every spec once."""
        for group in (self.data, self.sources, self.unlearn, self.attacks, self.controls):
            yield from group.values()

    def eval_ids(self) -> list[str]:
        """Stems of all evaluation files that the tables read."""
        attacks = [*self.attacks.values(), *self.controls.values()]
        return [*self.originals, *self.unlearn, *(stem for attack in attacks for stem in attack.eval_ids())]

    def plan(self) -> dict:
        """What the analysis reads: file stems by folder. A folder may hold older runs; they are not in the plan."""
        return {
            "study": self.study.model_dump(mode="json"),
            "evals": self.eval_ids(),
            "selections": list(self.unlearn),
            "data": list(self.data),
            "manifests": [*self.sources, *self.unlearn, *self.attacks, *self.controls],
        }


SPECS = {"data": DataSpec, "pretrain": PretrainSpec, "teach": TeachSpec, "unlearn": UnlearnSpec, "attack": AttackSpec}


def load_spec(path, *kinds: str) -> Spec:
    """Read a spec file of one of `kinds`. Raises UserError when it is of another kind, damaged, or does not come back
    as it was written (its id would change).
    """
    from pydantic import ValidationError

    from rtt.errors import UserError
    from rtt.files import canonical_json, read_json

    raw = read_json(path)
    kind = raw.get("kind") if isinstance(raw, dict) else None
    if kind not in kinds:
        raise UserError(f"{path}: found a spec of kind {kind!r}, expected {' or '.join(kinds)}")
    try:
        spec = SPECS[kind].model_validate_json(canonical_json(raw))
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}; write the spec anew") from None
    if spec.run_id != Path(path).stem:
        raise UserError(
            f"{path}: the spec's id is {spec.run_id}, its file's name says otherwise: it was edited, or written by "
            "another version of this program; start the study again"
        )
    return spec

"""Describe a study file: what a user may write, checked before anything runs.

The pydantic models here and in `rtt.study.settings`, with the settings of the plug-ins, are the only description of a
study: they generate `config/schema.json`. Every cluster job parses the Snakefile again, so importing this is cheap.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, create_model, field_validator, model_serializer, model_validator

from rtt.errors import UserError
from rtt.study import plugins
from rtt.study.model_file import HubModel, ModelFile
from rtt.study.names import DEFAULT, MOST_VARIANTS, NONE, probes_of
from rtt.study.settings import (
    UNCLIPPED,
    Arm,
    Budget,
    Count,
    Data,
    Fraction,
    Model,
    Name,
    Passes,
    Place,
    PointChoice,
    Pretraining,
    Probes,
    RetainTexts,
    Scores,
    Switch,
    Task,
    Teaching,
    Training,
    pair_of,
)
from rtt.study.strict import Introduced, Strict

# A pretrained model's file names where it comes from; the miniature has a shape.
AnyModel = Annotated[
    Annotated[Model, Tag("<miniature>")] | Annotated[ModelFile, Tag("<file>")],
    Discriminator(lambda raw: "<file>" if _names_weights(raw) else "<miniature>"),
]

ExternalName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.+-]*$", max_length=60)]
# A folder, or a repository on the hub.
AnyExternal = Annotated[
    Annotated[Place, Tag("<folder>")] | Annotated[HubModel, Tag("<hub>")],
    Discriminator(lambda raw: "<hub>" if isinstance(raw, dict | HubModel) else "<folder>"),
]


def _names_weights(raw: Any) -> bool:
    keys = raw if isinstance(raw, dict) else getattr(raw, "model_fields_set", ())
    return isinstance(raw, ModelFile) or any(key in keys for key in ("hub", "path", "gguf"))


class Chosen(Strict):
    """The plug-ins that a study asks for, each with its settings; one that is left out is not run."""

    @property
    def named(self) -> dict[str, Strict]:
        """The settings of those asked for, by name, in the plug-ins' order."""
        return {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}

    @model_serializer(mode="wrap")
    def _without_others(self, handler):
        # A study is the same whatever other plug-ins are installed.
        return {name: value for name, value in handler(self).items() if value is not None}


def _chosen(title: str, classes: dict[str, type], description: str) -> type[Chosen]:
    """Return the model of a study's part that has a key for each of these plug-ins."""
    keys = {name: (Annotated[plugin.Settings | None, Introduced(None)], None) for name, plugin in classes.items()}
    return create_model(title, __base__=Chosen, __doc__=description, **keys)


Methods = _chosen("Methods", plugins.methods(), "The methods to run; a method that is left out is not run.")
Attacks = _chosen(
    "Attacks", plugins.attacks(), "The attacks to run, each with its settings; one that is left out is not run."
)


class Repeats(Strict):
    """Runs of the same study with the data in another order: they tell how much of a result is the luck of one run."""

    unlearning: Annotated[int, Field(ge=1, le=100)] = Field(1, description="of each trajectory")
    attack: Annotated[int, Field(ge=1, le=100)] = Field(
        1, description="of each attack that draws anything, on every checkpoint"
    )


class Criteria(Strict):
    """What the tables ask of a cell before it counts (docs/statistics.md); in no spec, so it renames no run."""

    headline: Annotated[Probes, Field(max_length=2)] | None = Field(
        None,
        description="the first is that of the headline; an original must know by each, an attack must teach T by one. "
        "null: letter_permuted and likelihood, or what comes nearest to them among scores.probes",
    )
    known: Fraction = Field(0.9, description="accuracy of an original that was trained on its facts here")
    margin: Fraction = Field(0.15, description="above its floor, where a probe's upper limit may lie after unlearning")
    learned: Fraction = Field(0.97, description="accuracy on T that an attack must reach")


class Study(Strict):
    """A study: everything that decides its numbers."""

    study: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$", max_length=100)] = Field(
        description="folder under results/"
    )
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**32)]], Field(min_length=1, max_length=1000)] = [0]
    data: Data = Data()
    model: AnyModel = Model()
    pretraining: Pretraining | None = Field(None, description="the miniature's")
    teaching: Teaching | None = None
    arms: Annotated[list[Arm], Field(min_length=1)] | None = Field(
        None, description="the miniature's arms, on generated facts; or give tasks"
    )
    tasks: Annotated[list[Task], Field(min_length=1)] | None = None
    methods: Methods = Field(Methods(), description="none: RTT alone, or evaluation alone")
    external_models: dict[ExternalName, AnyExternal] = Field(
        {}, description="name -> a model that was unlearned elsewhere, or a LoRA adapter: its folder, or its hub"
    )
    scores: Scores = Scores()
    point_choice: PointChoice = PointChoice()
    retain_budgets: Annotated[list[Budget], Field(min_length=1)] = [0.1]
    attacks: Attacks = Field(Attacks(), description="none: nothing is attacked, the models are only scored")
    faithful: list[Switch] = Field([], description="what the authors' code does, one switch each")
    variants: Annotated[dict[Name, dict[str, Any]], Field(max_length=MOST_VARIANTS)] = Field(
        {}, description="name -> keys of the study that differ from the study itself, run beside it"
    )
    oracle: Annotated[bool | None, Introduced(False)] = Field(
        None,
        description="train a base model without the pretrained arm's facts too (on birth_years_b instead), and ask and "
        "attack it on them; null: for a miniature that has this arm",
    )
    repeats: Annotated[Repeats, Introduced({"unlearning": 1, "attack": 1})] = Repeats()
    criteria: Annotated[Criteria, Introduced({})] = Criteria()
    report_texts: Annotated[bool, Introduced(True)] = Field(
        True,
        description="show the texts of the questions in the study's own report.html; false where they must not spread",
    )
    keep_models: bool = Field(False, description="keep the weights that no later step needs")
    attack_jobs: Literal["arm", "method"] = Field(
        "arm", description="what one process attacks: all checkpoints of an arm, or those of one method"
    )
    threads: Annotated[int, Field(ge=1, le=1024)] = Field(1, description="of a training process on a CPU")
    attn_backend: Literal["auto", "sdpa", "flash_attention_2", "eager"] = "auto"
    device: Literal["auto", "cuda", "cpu"] = Field(
        "auto",
        description="cuda: a step that sees no GPU stops at once; cpu: GPUs are hidden; auto: a miniature as cpu, a "
        "pretrained model what is there, in a cluster's job as cuda",
    )
    launcher: Literal["none", "torchrun", "deepspeed"] = Field("none", description="what starts a training job")
    devices: Annotated[int, Field(ge=1, le=1024)] = Field(
        1, description="processes of a training job on each of its nodes, each with a GPU where there are any"
    )
    nodes: Annotated[int, Field(ge=1, le=1024), Introduced(1)] = Field(
        1, description="nodes of a training job on SLURM; several need launcher: torchrun"
    )
    deepspeed: Place | None = Field(None, description="zero1, zero2, zero3, zero3-offload, or a DeepSpeed JSON's path")
    container: Annotated[Place | None, Introduced(None)] = Field(
        None,
        description="the image in which --software-deployment-method apptainer runs steps: its file, or a URL that "
        "apptainer can pull",
    )
    micro_batch: Count | None = Field(None, description="most texts per forward pass; null: a process's whole part")
    packing: bool = Field(
        False, description="several texts in a row of a batch, in the place of padding: faster where lengths differ"
    )
    gradient_checkpointing: bool = Field(False, description="keep no activations: less memory, a third more time")
    checkpoint_minutes: Annotated[float, Field(ge=0, le=1_000_000)] = Field(
        30, description="between two checkpoints of a training; 0: one after every step"
    )

    @field_validator("study")
    @classmethod
    def _own_folder(cls, name):
        if name == "reference":
            raise ValueError("results/reference holds the results that come with the project; choose another name")
        return name

    @field_validator("seeds", "arms", "retain_budgets", "faithful")
    @classmethod
    def _distinct(cls, values):
        if values and len(set(values)) != len(values):
            raise ValueError("each value may stand once")
        return values

    @model_validator(mode="after")
    def _parts_fit(self):
        miniature = isinstance(self.model, Model)
        for key, needed in (("devices", self.devices > 1), ("deepspeed", self.deepspeed is not None)):
            if needed and self.launcher == "none":
                raise ValueError(f"{key}: {getattr(self, key)} needs launcher: torchrun, or deepspeed")
        if self.nodes > 1 and self.launcher != "torchrun":
            raise ValueError(
                f"nodes: {self.nodes} needs launcher: torchrun (found {self.launcher}), which SLURM starts on each "
                "node; deepspeed's own launcher would log in to the other nodes by ssh"
            )
        if self.launcher == "deepspeed" and self.deepspeed is None:
            raise ValueError("launcher: deepspeed needs deepspeed: zero1, zero2, zero3, zero3-offload or a JSON's path")
        if (self.arms is None) == (self.tasks is None):
            raise ValueError("give arms (the miniature on generated facts) or tasks (datasets by name), one of the two")
        if self.arms and not miniature:
            raise ValueError("arms are for the miniature; a pretrained model needs tasks")
        if self.tasks and miniature:
            raise ValueError("tasks need a pretrained model: set model to a name in config/models")
        if miniature and self.pretraining is None:
            raise ValueError("the miniature needs pretraining")
        arms = self.arms or [task.arm for task in self.tasks or []]
        if self.teaching is None and (taught := [arm for arm in arms if arm in ("taught", "taught_shuffled")]):
            raise ValueError(f"arm {taught[0]} needs teaching")
        if not self.attacks.named and self.variants:
            raise ValueError("variants are compared by their recovery: they need attacks")
        scored = probes_of(self.scores.probes)
        if unknown := [name for name in self.points.probes if name not in scored]:
            raise ValueError(f"point_choice.probes: {', '.join(unknown)} does not come from scores.probes")
        if unknown := [name for name in self.headline if name not in scored]:
            raise ValueError(f"criteria.headline: {', '.join(unknown)} does not come from scores.probes")
        if unknown := [name for name in self.points.for_retain if name not in scored]:
            raise ValueError(f"point_choice.retain_probe: {', '.join(unknown)} does not come from scores.probes")
        if self.data.policy.few_answers == "keep" and "likelihood_fresh" in self.scores.probes:
            raise ValueError(
                "data.policy.few_answers: keep leaves facts without fresh choices: leave likelihood_fresh out of "
                "scores.probes, or set drop"
            )
        self._choice_splits_exist()
        if self.oracle and not self.arms:
            raise ValueError("oracle: only a miniature (arms) can be trained without the facts; leave it out")
        plain = [i for i, task in enumerate(self.tasks or []) if isinstance(task.retain, RetainTexts)]
        if "few_shot" in self.scores.probes and plain:
            raise ValueError(
                f"scores.probes: few_shot shows solved questions of retain facts, but tasks.{plain[0]}.retain names "
                "plain texts; leave few_shot out"
            )
        if DEFAULT in self.variants:
            raise ValueError(f"variants.{DEFAULT}: this name is the study itself")
        self._external_names_differ()
        names = list(self.data.datasets)
        known = {task.dataset for task in self.tasks or [] if task.arm == "pretrained"}
        for i, task in enumerate(self.tasks or []):
            parts = (task.retain, task.retain_eval, task.also_taught)
            used = [task.dataset, task.control, *(getattr(part, "dataset", None) for part in parts)]
            if task.control is None and self.attacks.named:
                raise ValueError(
                    f"tasks.{i}.control: attacks need it: name facts that the model never saw; or false, "
                    "where there are none"
                )
            if task.forget_texts and (odd := _no_plain_texts(self.methods.named)):
                raise ValueError(f"tasks.{i}.forget_texts: plain texts have no facts: {odd}")
            if unknown := [name for name in used if name and name not in names]:
                raise ValueError(f"tasks.{i}: no dataset {unknown[0]}; data.datasets has {', '.join(names) or 'none'}")
            if task.control in known:
                raise ValueError(f"tasks.{i}.control: the model knows {task.control}; name facts that it never saw")
            if task.also_taught and task.arm == "pretrained":
                raise ValueError(f"tasks.{i}.also_taught: nothing is taught in arm pretrained; leave it out")
        pairs = [(task.dataset, task.arm) for task in self.tasks or []]
        if twice := [pair for pair in pairs if pairs.count(pair) > 1]:
            name, arm = twice[0]
            raise ValueError(f"tasks: {name} in arm {arm} stands twice; give the second one a study of its own")
        return self

    def _choice_splits_exist(self) -> None:
        """Raise ValueError for splits of the point choice that the miniature's facts do not have, or that they must."""
        people, apart = self.data.generator, self.point_choice.splits
        if not self.arms:
            return
        splits = [f"split_{i}" for i in range(people.splits)] + (["choice"] if people.choice_facts else [])
        if unknown := [name for name in apart if name not in splits]:
            raise ValueError(f"point_choice.splits: no split {unknown[0]}; the forget facts have {', '.join(splits)}")
        if people.choice_facts and "choice" not in apart:
            raise ValueError(
                "data.generator.choice_facts: the split `choice` would be attacked like any other; set "
                "point_choice.splits: [choice]"
            )
        if len(splits) - len(apart) < 2 and self.attacks.named:
            raise ValueError(f"point_choice.splits: found {', '.join(apart)}; attacks need two splits beside them")

    def _external_names_differ(self) -> None:
        """Raise ValueError for names that tables, figures or disks could not tell apart."""
        seen = {name.casefold(): f"a method of this study has the same name, {name}" for name in self.methods.named}
        seen[NONE] = "tables call it so where there is no method"
        for name in self.external_models:
            if name.casefold() in seen:
                raise ValueError(f"external_models.{name}: {seen[name.casefold()]}; choose another name")
            seen[name.casefold()] = f"{name} is another one, and some disks take both for one"

    @model_validator(mode="after")
    def _layers_exist(self):
        if (depth := self.model.layers) is not None:
            phases = {f"methods.{name}": method for name, method in self.methods.named.items()}
            phases |= {"teaching": self.teaching}
            phases |= {f"attacks.{name}": attack for name, attack in self.attacks.named.items()}
            for name, phase in phases.items():
                if phase and max(getattr(phase, "train_layers", None) or [0]) >= depth:
                    layers = f"{phase.train_layers}, but the model has {depth} layers, from 0"
                    raise ValueError(f"{name}.train_layers is {layers}")
        for name, settings in self.methods.named.items():
            try:
                plugins.methods()[name].resolved(settings, self.model)
            except UserError as error:
                raise ValueError(f"methods.{name}: {error}") from None
        return self

    @property
    def points(self) -> PointChoice:
        """The point choice with its probes named."""
        return self.point_choice.among(probes_of(self.scores.probes))

    @property
    def headline(self) -> list[str]:
        """The one or two headline probes: those that the study names, or a letter probe and likelihood."""
        scored = probes_of(self.scores.probes)
        first = pair_of(scored)
        return self.criteria.headline or [*first, *(name for name in scored if name not in first)][:2]

    @property
    def has_oracle(self) -> bool:
        """Whether a model is trained without the pretrained arm's facts."""
        return self.oracle is not False and self.arms is not None

    @property
    def gpus(self) -> int:
        """The GPUs that a training job asks for on each node; a miniature is faster on a CPU than in a GPU's queue."""
        wanted = self.device == "cuda" or (self.device == "auto" and isinstance(self.model, ModelFile))
        return self.devices if wanted else 0

    @property
    def processes(self) -> int:
        """The processes of a training job, on all its nodes."""
        return self.nodes * self.devices

    def taught(self, arm: str) -> Teaching | Pretraining:
        """Return how the model of an arm learns facts after its pretraining."""
        if arm == "taught_same_data":
            return self.pretraining
        anew = {"shuffle_choices": True, "sentences": True} if arm == "taught_shuffled" else {}
        return self.teaching.model_copy(update=anew)

    def variant(self, name: str) -> "Study":
        """Return the study with a variant's keys instead of its own, and with its faithful switches carried out."""
        raw = self.model_dump(mode="json", exclude_unset=True) | {"variants": {}}
        study = self._checked(_merged(raw, self.variants.get(name, {})))
        return study._checked(_merged(study.model_dump(mode="json", exclude_unset=True), _carried_out(study)))

    @staticmethod
    def _checked(raw: dict) -> "Study":
        return Study.model_validate_json(json.dumps(raw))


def _no_plain_texts(methods: dict) -> str:
    """Return why these methods cannot unlearn plain texts, "" when they can."""
    true = [name for name, method in plugins.methods().items() if method.texts == "true"]
    for name, settings in methods.items():
        if name not in true:
            return f"{name} needs their wrong answers; use {' or '.join(true)}"
        if settings.mcq_share:
            return f"methods.{name}.mcq_share is {settings.mcq_share}; set it to 0"
    return ""


def _merged(raw: dict, patch: dict) -> dict:
    """Return `raw` with the values of `patch`, key by key, at every depth."""
    both = dict(raw)
    for key, value in patch.items():
        inner = isinstance(value, dict) and isinstance(both.get(key), dict)
        both[key] = _merged(both[key], value) if inner else value
    return both


def _carried_out(study: Study) -> dict:
    """Return the keys that the faithful switches set (docs/paper.md: what is wrong in the authors' code).

    `select_on_v` sets none: both look choices are always computed, and the switch says which one is reported.
    """
    switches, patch = set(study.faithful), {}
    methods = {name: {} for name in study.methods.named}
    phases = {"teaching": {}} if study.teaching else {}
    attacks = {name: {} for name, settings in study.attacks.named.items() if isinstance(settings, Training)}
    if "padding" in switches:
        for settings in (*methods.values(), *phases.values(), *attacks.values()):
            settings["count_padding"] = True
    if "half_precision" in switches:
        for settings in methods.values():
            settings["precision"] = "bf16"
        for settings in attacks.values():
            settings["precision"] = "fp16"
    if "unshuffled_retain" in switches:
        for settings in methods.values():
            settings["shuffle_retain"] = False
    if "bare_letter" in switches:
        patch["scores"] = {"bare_letter": True}
    if "unclipped" in switches:
        for settings in (*methods.values(), *phases.values(), *attacks.values()):
            settings["max_grad_norm"] = UNCLIPPED
    if "fixed_choices" in switches:
        for name, settings in attacks.items():
            if isinstance(study.attacks.named[name], Passes):
                settings.update(dict.fromkeys(Passes.model_fields, False))
    for switch, (loss, value) in TEXT_SWITCHES.items():
        if switch in switches:
            for settings, key in _losses(study, methods, phases, attacks):
                if loss in key:
                    settings[switch] = value
    if "leaky_facts" in switches:
        patch["data"] = {"policy": dict.fromkeys(LEAKS, "keep")}
    return patch | phases | ({"methods": methods} if methods else {}) | ({"attacks": attacks} if attacks else {})


# Switches that change the texts of a loss; runs without that loss keep their ids.
TEXT_SWITCHES = {
    "bare_letter": ("LETTER", True), "number_mask": ("NUMBER", "last_run"),
    "question_answer_join": ("QUESTION_ANSWER", "space"),
}  # fmt: skip


def _losses(study: Study, methods: dict, phases: dict, attacks: dict) -> list[tuple[dict, set[str]]]:
    """Return (the patch of a phase, the losses that it trains) for all phases."""
    named = [(patch, study.methods.named[name]) for name, patch in methods.items()]
    named += [(patch, study.teaching) for patch in phases.values()]
    named += [(patch, study.attacks.named[name]) for name, patch in attacks.items()]
    keys = ("loss", "mcq_loss", "sentence_loss")
    return [(patch, {getattr(settings, key, None) for key in keys}) for patch, settings in named]


# Defects of a fact that is there and can be trained on; a fact without text cannot.
LEAKS = ("split_leak", "conflicting_answer", "duplicate_question", "duplicate_choice")

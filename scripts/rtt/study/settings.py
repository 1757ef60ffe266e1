"""Describe the parts of a study file: what may be set for data, models, training, unlearning and scoring."""

from itertools import product
from math import prod
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from rtt.study import sources
from rtt.study.names import ARMS, ASKED, BY_DEFAULT, LOSSES, OF_ATTACKS, PROBES, split_problem
from rtt.study.strict import Introduced, Strict

Arm = Literal[*ARMS]
Probe = Literal[*(name for name in PROBES if name not in OF_ATTACKS)]
Asked = Literal[*ASKED]
LossName = Literal[*LOSSES]
McqLoss = Literal[*(name for name in LOSSES if name != "CORPUS")]
Switch = Literal[
    "padding", "bare_letter", "half_precision", "unshuffled_retain", "select_on_v", "leaky_facts", "number_mask",
    "question_answer_join", "unclipped", "fixed_choices",
]  # fmt: skip
UNCLIPPED = 1e30  # a max_grad_norm that no finite gradient reaches
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]
Budget = Literal[0.05, 0.1, 0.3, 1.0]
Action = Literal["keep", "drop", "stop"]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Steps = Annotated[int, Field(ge=1, le=1_000_000_000)]
Epochs = Annotated[int, Field(ge=1, le=1000)]
Place = Annotated[str, Field(min_length=1, max_length=1000)]  # a path
Layer = Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, lt=1)]
MOST_TRAJECTORIES = 2000  # of one method


def _distinct(values: list) -> list:
    if len(set(values)) != len(values):
        raise ValueError("each value may stand once")
    return values


def _split(name: str) -> str:
    if why := split_problem(name):
        raise ValueError(why)
    return name


Splits = Annotated[
    list[Annotated[str, AfterValidator(_split)]], Field(min_length=1, max_length=1000), AfterValidator(_distinct)
]
Probes = Annotated[list[Probe], Field(min_length=1), AfterValidator(_distinct)]
# Groups of data/sources.tsv: a row there is all that a new one needs.
FetchedFacts = Literal[*sources.groups("facts")]
Texts = Literal[*sources.groups("texts")]


class People(Strict):
    """Generated people (rtt.data.generate): `splits` x `facts_per_split` facts in each forget dataset."""

    splits: Annotated[int, Field(ge=2, le=10)] = 5
    facts_per_split: Annotated[int, Field(ge=4, le=64)] = 32
    retain_train: Count = Field(64, description="retain facts in the retain loss")
    retain_held_out: Count = Field(128, description="retain facts held out of it; they alone give retain accuracy")
    first_names: Annotated[int, Field(ge=2, le=32)] = 24
    last_names: Annotated[int, Field(ge=2, le=32)] = 24
    long_texts: bool = Field(False, description="half of the sentences have a long neutral beginning")
    planted_leaks: Annotated[int, Field(ge=0)] = Field(
        0, description="facts of each forget dataset that stand in a second split too, with the same answer"
    )
    planted_duplicates: Annotated[int, Field(ge=0)] = Field(
        0, description="facts of each forget dataset that stand twice in their split, with two answers"
    )

    choice_facts: Annotated[int, Field(ge=0, le=512), Introduced(0)] = Field(
        0, description="further facts of each forget dataset, its split `choice`; set point_choice.splits: [choice]"
    )

    @model_validator(mode="after")
    def _planted_fit(self):
        for name in ("planted_leaks", "planted_duplicates"):
            if getattr(self, name) % self.splits:
                raise ValueError(f"{name} is {getattr(self, name)}, not a multiple of the {self.splits} splits")
        planted, facts = self.planted_leaks + self.planted_duplicates, self.splits * self.facts_per_split
        if planted > facts:
            raise ValueError(f"planted_leaks + planted_duplicates is {planted}, but a forget dataset has {facts} facts")
        return self

    @model_validator(mode="after")
    def _names_suffice(self):
        needed = 2 * (self.splits * self.facts_per_split + self.choice_facts) + self.retain_train + self.retain_held_out
        if needed > self.first_names * self.last_names:
            raise ValueError(
                f"{needed} facts need as many names, but first_names x last_names gives only "
                f"{self.first_names * self.last_names}; ask for fewer facts or more names (at most 32 x 32)"
            )
        return self


class Policy(Strict):
    """Say what happens to facts with each kind of defect; docs/data.md explains the kinds and these defaults."""

    split_leak: Action = "drop"
    group_leak: Annotated[Action, Introduced("stop")] = "stop"
    conflicting_answer: Action = "drop"
    duplicate_choice: Action = "drop"
    duplicate_wrong_choice: Action = "keep"
    duplicate_question: Action = "drop"
    missing_text: Action = "drop"
    missing_rows: Action = "keep"
    missing_mcq: Literal["keep", "stop"] = "keep"
    wrong_text: Action = "keep"
    future_year: Action = "keep"
    letter_prior: Literal["keep", "stop"] = "keep"
    lone_answer: Annotated[Action, Introduced("drop")] = "drop"
    few_answers: Annotated[Action, Introduced("stop")] = "stop"


class Birthdays(Strict):
    """Generated people with random birth years, in the shape of the authors' Random Birthdays."""

    splits: Annotated[int, Field(ge=2, le=100)] = 5
    facts_per_split: Annotated[int, Field(ge=4, le=100_000)] = 157


class Dataset(Strict):
    """One set of facts: the authors' files (`source`), a folder of the user's own JSONL, or generated facts."""

    source: FetchedFacts | None = Field(None, description="a group of data/sources.tsv that holds facts")
    folder: Place | None = Field(None, description="a folder of JSONL in the schema of docs/data.md")
    generate: Birthdays | None = None
    splits: Splits | None = Field(None, description="these alone; null takes all")
    facts_per_split: Count | None = Field(
        None, description="as forget facts the first so many that the policy leaves, and as many of the control's"
    )
    distractors: Annotated[int, Field(ge=1, le=9), Introduced(3)] = Field(
        3, description="wrong choices that are drawn for a question without choices"
    )

    @model_validator(mode="after")
    def _one_origin(self):
        given = [name for name in ("source", "folder", "generate") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of source, folder, generate; found {', '.join(given) or 'none'}")
        return self


class Data(Strict):
    """Where the facts come from: the miniature's generator, or datasets by name (for `tasks`)."""

    generator: People = People()
    datasets: dict[Name, Dataset] = {}
    policy: Policy = Policy()
    mirror: Place | None = Field(None, description="folder or base URL to take external files from; decides no number")


class RetainFacts(Strict):
    """Facts of a dataset that must stay; their sentences and MCQs are the retain texts."""

    dataset: Name
    splits: Splits | None = None
    facts_per_split: Count | None = Field(None, description="the first so many that the policy leaves; null takes all")


class RetainTexts(Strict):
    """Plain texts: the first `count` of a group in data/sources.tsv."""

    texts: Texts
    count: Count = 785
    max_characters: Count | None = Field(None, description="cut longer texts here; null: whole (the authors' is 2000)")


Retained = Annotated[
    Annotated[RetainFacts, Tag("<facts>")] | Annotated[RetainTexts, Tag("<texts>")],
    Discriminator(lambda raw: "<texts>" if isinstance(raw, RetainTexts) or _names_texts(raw) else "<facts>"),
]


def _names_texts(raw) -> bool:
    return isinstance(raw, dict) and "texts" in raw


class Task(Strict):
    """Say what is unlearned and attacked: a dataset in an arm, what must stay, and the facts of the control.

    The control attacks the base model with facts that it never saw.
    """

    dataset: Name
    arm: Literal["pretrained", "taught", "taught_shuffled"]
    retain: Retained
    retain_eval: RetainFacts
    control: Name | Literal[False] | None = Field(
        None,
        description="facts that the base model never saw; attacks need it. false: there are none, so that no result "
        "can be that nothing comes back",
    )
    forget_texts: Annotated[list[RetainTexts], Field(min_length=1)] | None = Field(
        None,
        description="methods of true texts unlearn these plain texts, not the facts' own; mcq_share must be 0",
    )
    also_taught: RetainFacts | None = Field(
        None, description="arms taught and taught_shuffled: facts that are taught too, and kept"
    )


class Model(Strict):
    """The miniature: a Llama of this shape, trained from scratch on the generated facts."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$", max_length=60)] = "miniature"
    hidden_size: Annotated[int, Field(ge=8, le=65_536)] = 96
    intermediate_size: Annotated[int, Field(ge=8, le=262_144)] = 192
    layers: Annotated[int, Field(ge=2, le=1000)] = 3
    heads: Count = 4
    tokenizer: Literal["word", "subword"] = Field(
        "word", description="subword: byte-level BPE of the generated texts, where 'A' and ' A' are different tokens"
    )

    @model_validator(mode="after")
    def _heads_divide(self):
        if self.hidden_size % (2 * self.heads):
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of 2 x heads ({self.heads})")
        return self


class Training(Strict):
    """One training phase: linear warm-up, constant, then linear decay over the last `decay` of the steps."""

    learning_rate: Positive
    batch_size: Count
    optimizer: Literal["adamw", "lion"] = "adamw"
    precision: Literal["fp32", "bf16_mixed", "bf16_kahan", "bf16", "fp16"] = Field(
        "fp32",
        description="bf16_mixed: weights in fp32; bf16_kahan: weights in bf16, and what rounding drops of them is kept "
        "for the next step; bf16 and fp16: weights and optimizer too, no master weights, but adapters of LoRA and "
        "their optimizer in fp32",
    )
    count_padding: bool = Field(False, description="padding tokens count in the loss, as in the authors' code")
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    decay: Fraction = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    adam_beta2: Annotated[float, Field(gt=0, lt=1)] = 0.999
    max_grad_norm: Positive | None = Field(1.0, description="null: gradients are not clipped")
    gradient_release: Annotated[bool, Introduced(False)] = Field(
        False,
        description="the backward pass applies each gradient at once and drops it; needs precision bf16_kahan and "
        "max_grad_norm null, and one process that takes a batch whole, without a launcher",
    )
    train_layers: Annotated[list[Layer], Field(min_length=1, max_length=1000)] | None = Field(
        None, description="train these decoder layers alone: numbers from 0, or fractions of the depth; null trains all"
    )

    @model_validator(mode="after")
    def _optimizer_can(self):
        if self.optimizer == "adamw" and self.precision == "fp16":
            raise ValueError(
                "optimizer adamw with precision fp16: AdamW's epsilon (1e-8) and most squared gradients are 0 in fp16; "
                "use optimizer: lion, or precision: bf16, bf16_mixed or fp32"
            )
        return self

    @model_validator(mode="after")
    def _keeps_what_it_drops(self):
        if self.precision == "bf16_kahan" and getattr(self, "lora", None):
            raise ValueError(
                "precision bf16_kahan with adapters: they are in fp32, so rounding drops nothing of them; set "
                "precision: bf16"
            )
        return self

    @model_validator(mode="after")
    def _can_release(self):
        if self.gradient_release and self.precision != "bf16_kahan":
            raise ValueError(
                f"gradient_release with precision {self.precision}: only the optimizers of bf16_kahan update one "
                "tensor at a time; set precision: bf16_kahan, or gradient_release: false"
            )
        if self.gradient_release and self.max_grad_norm not in (None, UNCLIPPED):
            raise ValueError(
                f"gradient_release with max_grad_norm {self.max_grad_norm:g}: the norm is known only when the first "
                "gradients are applied and gone; set max_grad_norm: null, or gradient_release: false"
            )
        return self


class Forms(Strict):
    """Forms of training texts in which the authors' code differs."""

    bare_letter: Annotated[bool, Introduced(False)] = Field(
        False, description="LETTER trains the token A, not that of ' A', as the authors' code does"
    )
    number_mask: Annotated[Literal["all", "last_run"], Introduced("all")] = Field(
        "all",
        description="what NUMBER counts; last_run: as in the authors' code, the last tokens with digits in a row, but "
        "never the text's last token, and of retain texts as well",
    )
    question_answer_join: Annotated[Literal["answer_line", "space"], Introduced("answer_line")] = Field(
        "answer_line", description="what joins question and answer in QUESTION_ANSWER; space: as in the authors' code"
    )

    def forms(self) -> dict:
        """Return the forms, as `rtt.data.text.training_texts` takes them."""
        return {key: getattr(self, key) for key in Forms.model_fields}


class Passes(Strict):
    """What each epoch over a set of facts shows anew; without both, every epoch shows the same texts."""

    shuffle_choices: Annotated[bool, Introduced(False)] = Field(
        False, description="each epoch shows an MCQ's choices in a new order"
    )
    sentences: Annotated[bool, Introduced(False)] = Field(
        False, description="each epoch also shows a true sentence, drawn anew, of every fact that has one"
    )

    def shown(self) -> dict:
        """Return the two, as `rtt.training.order.training_passes` takes them."""
        return {key: getattr(self, key) for key in Passes.model_fields}


class Pretraining(Training):
    """Training on documents: per step, `mcqs_per_batch` shuffled MCQs, the rest sentences and question-answer lines."""

    steps: Steps
    mcqs_per_batch: Count
    train_layers: None = None  # nothing can be frozen that was never trained

    @model_validator(mode="after")
    def _mcqs_fit(self):
        if self.mcqs_per_batch >= self.batch_size:
            raise ValueError(f"mcqs_per_batch {self.mcqs_per_batch} must be below batch_size {self.batch_size}")
        return self


class Teaching(Training, Forms, Passes):
    """The paper's second phase (docs/paper.md, Random Birthdays): no replay, and fixed texts.

    The arm taught_shuffled sets `shuffle_choices` and `sentences`, whatever stands here.
    """

    epochs: Epochs
    loss: LossName = "LETTER_ANSWER"
    samples: Count | None = Field(None, description="so many facts, drawn once; null takes all")


class LoRA(Strict):
    """Adapters that are trained in the place of the weights: low-rank matrices beside linear layers."""

    rank: Count = 16
    alpha: Positive = Field(32.0, description="an adapter counts alpha / rank times")
    targets: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="names of the layers with adapters, such as q_proj; null: all but the output matrix"
    )


class Unlearning(Training, Forms):
    """The trajectories of one method: each step takes as many forget texts as retain texts, and `points` are scored.

    A `grid` gives a trajectory for each combination of its values; the point choice goes over all of them.
    """

    points: Annotated[list[Steps], Field(min_length=1, max_length=1000)] | None = Field(None, description="steps")
    epochs: Epochs | None = Field(None, description="in the place of points: the end of each epoch")
    retain_coefficient: Annotated[float, Field(ge=0)] = 1.0
    freeze_embeddings: bool = False
    mcq_share: Fraction = Field(0.5, description="share of MCQs among the texts; the rest are sentences")
    mcq_loss: McqLoss = "QUESTION_LETTER_ANSWER"
    sentence_loss: Literal["CORPUS", "NUMBER"] = "CORPUS"
    shuffle_retain: bool = Field(True, description="false takes the retain set in its order, as the authors' code does")
    samples: Count | None = Field(None, description="so many facts to forget (or texts), drawn once; null takes all")
    lora: Annotated[LoRA | None, Introduced(None)] = Field(
        None,
        description="adapters are trained, on those linear layers that the method would train, and points are kept as "
        "adapters; null: the weights themselves are",
    )
    grid: dict[str, Annotated[list[float], Field(min_length=1)]] = Field(
        {},
        description="key -> values; keys: learning_rate, retain_coefficient, and the numbers that a method adds, such "
        "as RMU's steering",
    )

    @field_validator("points")
    @classmethod
    def _increasing(cls, points):
        if points and sorted(set(points)) != points:
            raise ValueError("points must increase")
        return points

    @model_validator(mode="after")
    def _one_length(self):
        if (self.points is None) == (self.epochs is None):
            raise ValueError("give points or epochs, one of the two")
        own = {name: field for name, field in type(self).model_fields.items() if name not in Unlearning.model_fields}
        allowed = ["learning_rate", "retain_coefficient", *(name for name in own if own[name].annotation is float)]
        if unknown := [name for name in self.grid if name not in allowed]:
            raise ValueError(f"grid: found {', '.join(unknown)}; allowed: {', '.join(allowed)}")
        if (n := prod(map(len, self.grid.values()))) > MOST_TRAJECTORIES:
            raise ValueError(f"grid: {n:,} combinations; expected at most {MOST_TRAJECTORIES:,}")
        for name, values in self.grid.items():
            if len(set(values)) != len(values):
                raise ValueError(f"grid.{name}: each value may stand once")
            field = type(self).model_fields[name]
            try:  # what the key itself would refuse
                TypeAdapter(list[Annotated[field.annotation, *field.metadata]]).validate_python(values)
            except ValidationError as error:
                first = error.errors()[0]
                raise ValueError(f"grid.{name}: {first['msg']} (found {first['input']!r})") from None
        return self

    def trajectories(self) -> list["Unlearning"]:
        """Return the settings of each trajectory; they have no grid."""
        plain = self.model_dump() | {"grid": {}}
        combinations = product(*self.grid.values())
        return [type(self)(**(plain | dict(zip(self.grid, values, strict=True)))) for values in combinations]


def pair_of(scored: list[str]) -> list[str]:
    """Return a letter probe and likelihood, as far as they are scored; else the first probe that is."""
    letter = next((name for name in ("letter_permuted", "letter") if name in scored), None)
    return [name for name in (letter, "likelihood") if name in scored] or scored[:1]


class PointChoice(Strict):
    """Say which point of a trajectory is attacked."""

    rule: Literal["strongest", "nearest_floor", "lowest"] = "strongest"
    probes: Probes | None = Field(None, description="null: all that come from scores.probes")
    retain_probe: Probe | Annotated[list[Probe], Field(min_length=1), AfterValidator(_distinct)] | None = Field(
        None,
        description="of retain accuracy, or several: a budget must hold by each; null: a letter probe and likelihood "
        "where probes is null, too, else the first of probes",
    )
    splits: Annotated[
        list[Annotated[str, AfterValidator(_split)]], Field(max_length=1000), AfterValidator(_distinct), Introduced([])
    ] = Field(
        [],
        description="splits of the forget facts that are set apart for this choice: unlearned with the others, never V "
        "or T; none: the choice is made on all forget facts",
    )

    def among(self, scored: list[str]) -> "PointChoice":
        """Return the same with its probes named; `scored` are all that there are."""
        if self.probes:
            return self
        return self.model_copy(update={"probes": scored, "retain_probe": self.retain_probe or pair_of(scored)})

    @property
    def for_retain(self) -> list[str]:
        """The probes that give retain accuracy, where the probes are named."""
        named = self.retain_probe or self.probes[0]
        return [named] if isinstance(named, str) else named


class Scores(Strict):
    """Say what is scored after training, on every question."""

    probes: Annotated[list[Asked], Field(min_length=1), AfterValidator(_distinct)] = list(BY_DEFAULT)
    precision: Literal["fp32", "bf16"] = Field("fp32", description="bf16: products in bf16 (autocast)")
    bare_letter: bool = Field(False, description="score the token A, not the token of ' A', as the authors' code does")

"""Shapes of the JSON documents in a bundle. A document that none of our steps could have written is refused here,
before any other code reads it, so that the analysis need not defend itself.

Keys that readers know have a type and a limit. Other keys, and probes of other names, are not looked at and stay in the
files: a later program may write more than this one knows.
"""

import re
import reprlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    ValidationError,
    create_model,
)

from rtt.bundle.layout import PART, STUDY, strict_json, strict_text
from rtt.errors import UserError
from rtt.scoring.compact import is_compact
from rtt.scoring.correct import AT_FIRST
from rtt.study.names import IN_EVALUATIONS, MOST_VARIANTS

MOST_KEYS = 10_000  # of one object


def moment(text: str) -> datetime:
    """Return a time that is written as ISO 8601, in UTC. Raises ValueError."""
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{text[:40]} is out of range") from None


def _is_moment(text: str) -> str:
    moment(text)
    return text


def _is_budget(text: str) -> str:
    if not 0 <= float(text) <= 1e6:  # NaN, too, is refused
        raise ValueError("expected a retain budget such as 0.1")
    return text


def _limit_keys(found: Any) -> Any:
    if isinstance(found, dict) and len(found) > MOST_KEYS:
        raise ValueError(f"{len(found)} keys, expected at most {MOST_KEYS}")
    return found


# pydantic collects every error that it finds. Of millions of wrong items it shall report only the first.
Key, Value = TypeVar("Key"), TypeVar("Value")
Dict = Annotated[dict[Key, Value], BeforeValidator(_limit_keys)]
List = Annotated[list[Value], FailFast()]
Number = Annotated[float, Field(ge=0, le=1e15)]
Count = Annotated[int, Field(ge=0, le=10**12)]
Text = Annotated[str, Field(max_length=100_000)]
Moment = Annotated[str, Field(max_length=40), AfterValidator(_is_moment)]
Budget = Annotated[str, Field(max_length=20, pattern=r"^[0-9.e+-]+$"), AfterValidator(_is_budget)]
Stem = Annotated[str, Field(pattern=f"^{PART.pattern}$")]
EvalStem = Annotated[str, Field(pattern=f"^{PART.pattern}(/{PART.pattern})?$")]  # RUN, or RUN/TARGET of an attack
# These become cells of tables. The names that a study may choose have no other characters. A split is named after a
# file, so it may hold anything but the beginning of a spreadsheet's formula.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-][A-Za-z0-9_.+-]*$", max_length=200)]
Split = Annotated[str, Field(pattern=r"^[^=+@\t\n-][^\t\n]*$", max_length=300)]
Id = Annotated[str, Field(pattern=r"^[^\t\n]+$", max_length=600)]
Choice = Annotated[int, Field(ge=0, lt=1000)]  # rtt.scoring.read compares it with the number of scores
Score = Annotated[float, Field(ge=-1e9, le=1e9)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Base64 = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]*=*$", max_length=100_000_000)]
# A setting is written into tables as text: `epoch=8 lr=0.001`.
SettingKey = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", max_length=60)]
Whole = Annotated[int, Field(ge=-(10**12), le=10**12)]
Scalar = bool | Whole | Annotated[float, Field(ge=-1e15, le=1e15)] | Name | None
Setting = Dict[SettingKey, Scalar]


class Loose(BaseModel):
    """An object whose named keys have types, and which may have any other key."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)


class Variant(Loose):
    """A variant in runs.json."""

    evals: List[EvalStem]
    point_choices: List[Stem]


class PointChoice(Loose):
    """`point_choice` of a study."""

    probes: List[Text]


class Study(Loose):
    """`study` in runs.json."""

    study: Annotated[str, Field(pattern=f"^{STUDY.pattern}$")]
    point_choice: PointChoice
    faithful: List[Name] = []
    variants: Dict[Name, Dict[Text, Any]] = {}
    report_texts: bool = True


class Runs(Loose):
    """runs.json."""

    study: Study
    variants: Annotated[Dict[Name, Variant], Field(max_length=MOST_VARIANTS + 1)]  # the study itself is one
    data: List[Stem]
    manifests: List[Stem]


class Detail(Loose):
    """One defect in an audit."""

    path: Text
    line: int
    kind: Text
    message: Text


class Guessed(Loose):
    """What a guesser of texts scores on a dataset."""

    accuracy: Number
    low: Number
    high: Number
    floor: Number


class Audit(Loose):
    """data/<dataset>/audit.json: the keys that reports read."""

    dataset: Text | None = None
    files: Count | None = None
    rows: Count | None = None
    questions: Count | None = None
    facts: Count | None = None
    defects: Dict[Text, Count] = {}
    dropped: Dict[Text, Count] = {}
    majority_letter_accuracy: Dict[Text, Number | None] = {}
    guesser: Dict[Text, Guessed | None] = {}
    details: List[Detail] = []
    notes: List[Text] = []
    sha256: Dict[Text, Text] = {}


class Manifest(Loose):
    """manifests/<run>.json: the keys that reports read."""

    stage: Text
    cpu_seconds: Number | None = None
    wall_seconds: Number | None = None
    ended: Moment | None = None
    tokens: Number | None = None
    world_size: Number | None = None
    git_commit: Text | None = None
    git_dirty: bool | None = None
    packages: Dict[Text, Text] | None = None
    hardware: Dict[Text, Any] | None = None


class Group(Loose):
    """Labels that evaluations and point choices share."""

    dataset: Name
    arm: Name
    model: Name
    method: Name | None = None
    seed: Annotated[int, Field(ge=-(2**31), lt=2**31)]


class Labels(Group):
    """Labels of an evaluation."""

    retain_budget: Annotated[float, Field(ge=0, le=1e6)] | None = None
    target: Literal["original", "unlearned", "control"]
    control_for: List[Name] = []
    attack: Name | None = None
    unlearning_repeat: Count = 0


class Probe(Loose):
    """How one question was answered to one probe."""

    scores: List[Score]
    tokens: List[Count] = []
    bytes: List[Count] = []
    right: Count | None = None


class LaterProbe(Probe):
    """A probe whose name an older bundle may have given to something else: without scores nothing reads it."""

    scores: List[Score] = []


# Nothing reads a probe of another name, so it may hold anything.
NAMED = {name: ((Probe if name in AT_FIRST else LaterProbe) | None, None) for name in IN_EVALUATIONS}
Probes = create_model("Probes", __base__=Loose, **NAMED)


class Question(Loose):
    """One question's scores."""

    id: Id
    split: Split
    group: Id
    role: Name
    answer: Choice
    probes: Probes


class Look(Loose):
    """One setting's scores. `rtt.scoring.read` checks that the looks of a file fit together."""

    attack: Name | None = None
    setting: Setting
    v_split: Split | None = None
    repeat: Count
    step: Count | None = None
    questions: List[Question]


class Evaluation(Loose):
    """evals/<stem>.json."""

    schema_version: Literal[2]
    kind: Literal["original", "unlearned", "attacked"]
    run_id: EvalStem
    labels: Labels
    status: Literal["ok", "none_within_budget"]
    looks: List[Look]


class Full(Loose):
    """The full evaluation from which a compact one was made."""

    bytes: Count
    sha256: Sha256


class CompactPoints(Loose):
    """The points of a compact evaluation."""

    steps: List[Count]


class CompactAttack(Loose):
    """The looks of a compact evaluation of an attack: each setting with each V split and repeat."""

    settings: List[Setting]
    v_splits: List[Split]
    uses_t: bool
    repeats: Annotated[int, Field(ge=0, le=10_000)]


class Answers(Loose):
    """Which questions of a set were answered right. `rtt.scoring.compact` unpacks the bits and checks them."""

    bits: Base64
    at: List[Count]
    tied: List[Choice]


class Probabilities(Loose):
    """Probabilities of the choices at one look."""

    look: Dict[Text, Any]
    probes: Dict[Name, Base64]


class CompactEvaluation(Loose):
    """evals/<stem>.json in the compact form."""

    schema_version: Literal[2]
    compact: Literal[1]
    kind: Literal["original", "unlearned", "attacked"]
    run_id: EvalStem
    labels: Labels
    status: Literal["ok", "none_within_budget"]
    full: Full
    points: CompactPoints | None = None
    attack: CompactAttack | None = None
    probes: List[Name]
    questions: Dict[Name, Sha256]
    answers: Dict[Name, Answers]
    accuracies: Sha256
    probabilities: List[Probabilities] = []


class QuestionColumns(Loose):
    """questions/<first digits of its sha256>.json: the questions of compact evaluations."""

    ids: List[Id]
    splits: List[Split]
    groups: List[Id]
    answers: List[Choice]
    n_choices: List[Choice]


class Point(Loose):
    """A point of a trajectory."""

    run: Stem
    step: Count


class PointChoices(Loose):
    """point_choices/<run>.json."""

    labels: Group
    points: List[Point]
    selected: Dict[Budget, Point | None]


SHAPES = (
    (r"runs\.json", Runs),
    (r"data/[^/]+/audit\.json", Audit),
    (r"manifests/[^/]+\.json", Manifest),
    (r"evals/[^/]+(/[^/]+)?\.json", Evaluation),
    (r"questions/[0-9a-f]{10}\.json", QuestionColumns),
    (r"point_choices/[^/]+\.json", PointChoices),
)


def check(results: Path) -> None:
    """Check every JSON document of `results/<study>/` and its study.yaml, and that what runs.json names is there.

    Raises UserError that names the file and the key.
    """
    strict_text((results / "study.yaml").read_bytes(), f"results/{results.name}/study.yaml")
    for path in sorted(results.rglob("*.json")):
        name = path.relative_to(results).as_posix()
        where = f"results/{results.name}/{name}"
        document = strict_json(path.read_bytes(), where)
        shape = next((shape for pattern, shape in SHAPES if re.fullmatch(pattern, name)), None)
        if shape is None:
            continue
        if shape is Evaluation and is_compact(document):
            shape = CompactEvaluation
        _fits(shape, document, where)
        if shape is Runs:
            _complete(results, document, where)


def _fits(shape: type[Loose], document: Any, where: str) -> None:
    try:
        # The parsed document, not its text: pydantic would parse that again, into twice the memory.
        shape.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part)[:60] for part in first["loc"]) or "the document"
        raise UserError(f"{where}: {key!r}: {first['msg']}; found {reprlib.repr(first['input'])[:60]}") from None


def _complete(results: Path, runs: dict, where: str) -> None:
    if runs["study"]["study"] != results.name:
        raise UserError(f"{where}: study.study is {runs['study']['study']}, the folder is {results.name}")
    for variant in runs["variants"].values():
        for kind in ("evals", "point_choices"):
            for stem in variant[kind]:
                if not (results / kind / f"{stem}.json").is_file():
                    raise UserError(f"{where}: names {kind}/{stem}.json, which is not in the bundle")

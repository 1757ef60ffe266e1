"""The JSON of an unpacked bundle, checked before anything reads it: a document of a shape that no step of ours wrote is
refused here, so that analysis code need not fear it.
"""

import re
import reprlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, FailFast, Field, ValidationError

from rtt.bundle.layout import PART, STUDY, strict_json, strict_text
from rtt.errors import UserError

MOST = 10_000  # keys of one object


def moment(text: str) -> datetime:
    """Return a time written as ISO 8601, in UTC. Raises ValueError."""
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{text[:40]} is out of range") from None


def _is_moment(text: str) -> str:
    moment(text)
    return text


def _few(found: Any) -> Any:
    if isinstance(found, dict) and len(found) > MOST:
        raise ValueError(f"{len(found)} keys, expected at most {MOST}")
    return found


# pydantic keeps every error that it finds: of millions of wrong items it is to find the first alone.
Key, Value = TypeVar("Key"), TypeVar("Value")
Dict = Annotated[dict[Key, Value], BeforeValidator(_few)]
List = Annotated[list[Value], FailFast()]
Number = Annotated[float, Field(ge=0, le=1e15)]
Count = Annotated[int, Field(ge=0, le=10**12)]
Text = Annotated[str, Field(max_length=100_000)]
Moment = Annotated[str, Field(max_length=40), AfterValidator(_is_moment)]
Stem = Annotated[str, Field(pattern=f"^{PART.pattern}$")]
# What becomes cells of tables. A study's own names have these characters (rtt.study.settings, rtt.study.schema, rtt.study.model_file,
# rtt.scoring.read); a split is a file's name, so anything but the beginning of a spreadsheet's formula.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-][A-Za-z0-9_.+-]*$", max_length=200)]
Split = Annotated[str, Field(pattern=r"^[^=+@\t\n-][^\t\n]*$", max_length=300)]
Id = Annotated[str, Field(pattern=r"^[^\t\n]+$", max_length=600)]


class Loose(BaseModel):
    """What is named here has its type; other keys may stand beside it."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class Variant(Loose):
    """A variant of runs.json."""

    evals: List[Stem]
    point_choices: List[Stem]


class PointChoice(Loose):
    """`point_choice` of a study."""

    probes: List[Text]


class Study(Loose):
    """`study` of runs.json."""

    study: Annotated[str, Field(pattern=f"^{STUDY.pattern}$")]
    point_choice: PointChoice
    faithful: List[Name] = []
    variants: Dict[Name, Dict[Text, Any]] = {}


class Plan(Loose):
    """runs.json."""

    study: Study
    variants: Dict[Name, Variant]
    data: List[Stem]
    manifests: List[Stem]


class Detail(Loose):
    """One defect of an audit."""

    path: Text
    line: int
    kind: Text
    message: Text


class Audit(Loose):
    """data/<dataset>/audit.json, as far as reports read it."""

    dataset: Text | None = None
    files: Count | None = None
    rows: Count | None = None
    questions: Count | None = None
    facts: Count | None = None
    defects: Dict[Text, Count] = {}
    dropped: Dict[Text, Count] = {}
    majority_letter_accuracy: Dict[Text, Number | None] = {}
    details: List[Detail] = []
    sha256: Dict[Text, Text] = {}


class Manifest(Loose):
    """manifests/<run>.json, as far as reports read it."""

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


class Labels(Loose):
    """Labels of an evaluation or a point choice: what becomes cells of tables."""

    dataset: Name
    arm: Name
    model: Name
    method: Name | None = None
    seed: Annotated[int, Field(ge=-(2**31), lt=2**31)]
    retain_budget: Annotated[float, Field(ge=0, le=1e6)] | None = None
    control_for: List[Name] = []


class Question(BaseModel):
    """One question's scores."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    id: Id
    split: Split
    role: Name
    answer: Annotated[int, Field(ge=0, le=3)]
    scores: Dict[Name, List[Annotated[float, Field(ge=-1e9, le=1e9)]]]


class Result(Loose):
    """One result of an evaluation. What belongs together, `rtt.scoring.read` checks."""

    lr: Annotated[float, Field(ge=0, le=1e6)]
    epoch: Annotated[int, Field(ge=0, le=10**9)]
    step: Annotated[int, Field(ge=0, le=10**12)]
    v_split: Split | None = None
    questions: List[Question]


class Evaluation(Loose):
    """evals/<stem>.json."""

    run_id: Stem
    labels: Labels
    results: List[Result]


class ChosenPoints(Loose):
    """point_choices/<run>.json."""

    labels: Labels


SHAPES = (
    (r"plan\.json", Plan),
    (r"data/[^/]+/audit\.json", Audit),
    (r"manifests/[^/]+\.json", Manifest),
    (r"evals/[^/]+\.json", Evaluation),
    (r"point_choices/[^/]+\.json", ChosenPoints),
)


def check(results: Path) -> None:
    """Check every JSON document of `results/<study>/`, its study.yaml, and that the plan names files that are there.

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
        _fits(shape, document, where)
        if shape is Plan:
            _complete(results, document, where)


def _fits(shape: type[Loose], document: Any, where: str) -> None:
    try:
        shape.model_validate(document)  # as it is: from JSON it would be parsed again, into twice the memory
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part)[:60] for part in first["loc"]) or "the document"
        raise UserError(f"{where}: {key!r}: {first['msg']}; found {reprlib.repr(first['input'])[:60]}") from None


def _complete(results: Path, plan: dict, where: str) -> None:
    if plan["study"]["study"] != results.name:
        raise UserError(f"{where}: study.study is {plan['study']['study']}, the folder is {results.name}")
    for variant in plan["variants"].values():
        for kind in ("evals", "point_choices"):
            for stem in variant[kind]:
                if not (results / kind / f"{stem}.json").is_file():
                    raise UserError(f"{where}: names {kind}/{stem}.json, which is not in the bundle")

"""The JSON of an unpacked bundle, checked before anything reads it: a document of a shape that no step of ours wrote is
refused here, so that analysis code need not fear it.
"""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rtt.bundle.layout import PART, STUDY, strict_json
from rtt.errors import UserError
from rtt.files import canonical_json

Number = Annotated[float, Field(ge=0, le=1e15)]
Count = Annotated[int, Field(ge=0, le=10**12)]
Text = Annotated[str, Field(max_length=100_000)]
Label = Annotated[str, Field(min_length=1, max_length=200)]
Stem = Annotated[str, Field(pattern=f"^{PART.pattern}$")]


class Loose(BaseModel):
    """What is named here has its type; other keys may stand beside it."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class Variant(Loose):
    """A variant of plan.json."""

    evals: list[Stem]
    selections: list[Stem]


class Selection(Loose):
    """`selection` of a study."""

    scorings: list[Text]


class Study(Loose):
    """`study` of plan.json."""

    study: Annotated[str, Field(pattern=f"^{STUDY.pattern}$")]
    selection: Selection
    faithful: list[Text] = []
    variants: dict[Text, dict[Text, Any]] = {}


class Plan(Loose):
    """plan.json."""

    study: Study
    variants: dict[Text, Variant]
    data: list[Stem]
    manifests: list[Stem]


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
    defects: dict[Text, Count] = {}
    dropped: dict[Text, Count] = {}
    majority_letter_accuracy: dict[Text, Number | None] = {}
    details: list[Detail] = []
    sha256: dict[Text, Text] = {}


class Manifest(Loose):
    """manifests/<run>.json, as far as reports read it."""

    stage: Text
    cpu_seconds: Number | None = None
    wall_seconds: Number | None = None
    ended: Text | None = None
    tokens: Number | None = None
    world_size: Number | None = None
    git_commit: Text | None = None
    git_dirty: bool | None = None
    packages: dict[Text, Text] | None = None
    hardware: dict[Text, Any] | None = None


class Labels(Loose):
    """Labels of an evaluation or a selection: what becomes cells of tables."""

    dataset: Label
    arm: Label
    model: Label
    seed: Annotated[int, Field(ge=-(2**31), lt=2**31)]
    retain_budget: Annotated[float, Field(ge=0, le=1e6)] | None = None
    control_for: list[Label] = []


class Question(BaseModel):
    """One question's scores."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    id: Label
    split: Label
    role: Label
    answer: Annotated[int, Field(ge=0, le=3)]
    scores: dict[Label, list[Annotated[float, Field(ge=-1e9, le=1e9)]]]


class Result(Loose):
    """One result of an evaluation. What belongs together, `rtt.evals` checks."""

    lr: Annotated[float, Field(ge=0, le=1e6)]
    epoch: Annotated[int, Field(ge=0, le=10**9)]
    step: Annotated[int, Field(ge=0, le=10**12)]
    v_split: Label | None = None
    questions: list[Question]


class Evaluation(Loose):
    """evals/<stem>.json."""

    labels: Labels
    results: list[Result]


class Selected(Loose):
    """selections/<run>.json."""

    labels: Labels


SHAPES = (
    (r"plan\.json", Plan),
    (r"data/[^/]+/audit\.json", Audit),
    (r"manifests/[^/]+\.json", Manifest),
    (r"evals/[^/]+\.json", Evaluation),
    (r"selections/[^/]+\.json", Selected),
)


def check(results: Path) -> None:
    """Check every JSON document of `results/<study>/`, and that the plan names files that are there.

    Raises UserError that names the file and the key.
    """
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
        shape.model_validate_json(canonical_json(document))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part)[:60] for part in first["loc"]) or "the document"
        raise UserError(f"{where}: {key}: {first['msg']}; found {str(first['input'])[:60]!r}") from None
    except (ValueError, RecursionError) as error:  # a lone surrogate, say
        raise UserError(f"{where}: {str(error)[:160]}") from None


def _complete(results: Path, plan: dict, where: str) -> None:
    if plan["study"]["study"] != results.name:
        raise UserError(f"{where}: study.study is {plan['study']['study']}, the folder is {results.name}")
    for variant in plan["variants"].values():
        for kind in ("evals", "selections"):
            for stem in variant[kind]:
                if not (results / kind / f"{stem}.json").is_file():
                    raise UserError(f"{where}: names {kind}/{stem}.json, which is not in the bundle")

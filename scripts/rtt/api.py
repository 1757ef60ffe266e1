"""The public interface: what `import rtt` offers (docs/api.md). All else in this package may change at any time.

`rtt/__init__.py` hands these names on when they are first used, so that `import rtt` loads nothing. Only `score`
imports torch.
"""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from rtt import places
from rtt.bundle import opening
from rtt.errors import UserError
from rtt.files import read_json
from rtt.scoring import compact
from rtt.scoring.correct import asked_of
from rtt.scoring.halves import halves
from rtt.scoring.read import read_eval
from rtt.stats import unfinished
from rtt.stats.tables import compute, read_table
from rtt.stats.variants import StudyRuns
from rtt.stats.verdict import Answer as Verdict
from rtt.stats.verdict import verdict as decided
from rtt.study import load
from rtt.study.names import TABLES, setting_text

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Evaluation", "Scores", "Study", "UserError", "Verdict", "load_study", "score", "verdict"]

RESULTS = Path("results")


def load_study(source: str | Path) -> "Study":
    """Load a study from its YAML file, its results folder, or a bundle of it.

    `source` is one of
    - a study file, or the name of one that the project brings, such as `smoke`; its results, if any, are looked for in
      `results/<study>` of the current folder;
    - a results folder, such as `results/smoke`, finished or not;
    - a bundle: its .zip, its folder, or its URL. Every byte is verified, which takes seconds.

    Raises UserError where there is no such file, or it is none of these.
    """
    path = Path(source)
    if str(source).startswith(("http://", "https://")) or path.suffix == ".zip" or (path / opening.INDEX).is_file():
        scratch = tempfile.TemporaryDirectory(prefix="rtt-bundle-")
        opened = opening.look(str(source))
        opening.unpack(opened, Path(scratch.name))
        folder = Path(scratch.name) / "results" / opened.index.study
        return Study(load.load_study(folder / "study.yaml", as_written=True).model_dump(mode="json"), folder, scratch)
    if path.is_dir():
        if not (path / "study.yaml").is_file():
            raise UserError(f"{path}: no study.yaml here; expected a study's results folder, such as results/demo")
        return Study(load.load_study(path / "study.yaml", as_written=True).model_dump(mode="json"), path)
    settings = load.load_study(path).model_dump(mode="json")
    folder = RESULTS / settings["study"]
    return Study(settings, folder if (folder / "runs.json").is_file() else None)


@dataclass(frozen=True, eq=False)
class Study:
    """A study and its results. `load_study` makes it.

    settings: every key of the study file, with defaults spelled out, as plain data (docs/config.md). folder: its
    results, None where there are none yet; of a bundle, a temporary folder. Files are read when they are asked for.
    """

    settings: dict[str, Any]
    folder: Path | None
    _scratch: tempfile.TemporaryDirectory | None = field(default=None, repr=False)
    _tables: dict[tuple[str, ...], dict[str, pd.DataFrame]] = field(default_factory=dict, repr=False)  # computed once

    @property
    def name(self) -> str:
        """The study's name, which is that of its results folder."""
        return self.settings["study"]

    def missing(self) -> pd.DataFrame:
        """Return what the study lacks to be finished: a row per file, with no rows for a finished study.

        Columns, all text: `variant`; `run`, the id of the run that makes the file; `step`, its command; `file`.
        Raises UserError where the study has no results folder.
        """
        return unfinished.table(self._present()[1])

    def table(self, name: str, partial: bool = False) -> pd.DataFrame:
        """Return a table, one of `rtt.study.names.TABLES`, computed from the evaluations.

        All are computed once, unless files come or go. The columns are those of `tables/<name>.csv`
        (docs/reference/files.md). Accuracies and recoveries are fractions,
        floats here have all their digits, an unknown value is NaN. `per_seed` holds texts, numbers separated by
        semicolons.

        partial: of an unfinished study, leave out what lacks something, instead of raising UserError. Raises UserError
        also where evaluations are damaged or contradict each other.
        """
        if name not in TABLES:
            raise UserError(f"table {name!r}: there is no such table; expected {', '.join(TABLES)}")
        runs, missing = self._present()
        if missing and not partial:
            raise UserError(unfinished.note(missing, self.folder))
        files = tuple(one.file for one in missing)
        if files not in self._tables:
            folders = self.folder / "evals", self.folder / "point_choices"
            self._tables.clear()
            self._tables[files] = compute(runs, *folders, partial=bool(missing))
        return self._tables[files][name].copy()

    def written_table(self, name: str) -> pd.DataFrame:
        """Return a table as the study's run wrote it, with 6 decimals. Raises UserError where it has not."""
        return read_table(self._results() / "tables" / f"{name}.csv")

    def evaluations(self, **labels: Any) -> list["Evaluation"]:
        """Return the study's evaluations that are there, in the order of runs.json.

        `labels` keeps those with these values of `kind` ("original", "unlearned", "attacked") or of a label: `dataset`,
        `arm`, `model`, `method`, `seed`, `retain_budget`, `target`, `attack`; e.g. `kind="attacked", method="GD"`.
        Raises UserError for another label, and for a file that is damaged.
        """
        runs, _ = self._present()
        stems = dict.fromkeys(stem for one in runs.variants.values() for stem in one.evals)
        found = [Evaluation(self.folder / "evals" / f"{stem}.json", self._scratch) for stem in stems]
        for key in labels:
            if key not in ("kind", *(found[0].labels if found else labels)):
                raise UserError(f"evaluations: no label {key!r}; expected kind, {', '.join(found[0].labels)}")
        wanted = labels.items()
        return [one for one in found if all(({"kind": one.kind} | one.labels)[key] == value for key, value in wanted)]

    def _results(self) -> Path:
        if self.folder is None:
            raise UserError(
                f"study {self.name} has no results in {RESULTS / self.name}; run it: "
                "python -m rtt run --configfile FILE"
            )
        return self.folder

    def _present(self) -> tuple[StudyRuns, list[unfinished.Missing]]:
        folder = self._results()
        return unfinished.present(StudyRuns.read(folder / "runs.json"), folder / "evals", folder / "point_choices")


@dataclass(frozen=True)
class Evaluation:
    """The scores of one checkpoint: a file of `evals/` (docs/architecture.md), read and checked on first use."""

    path: Path
    _scratch: tempfile.TemporaryDirectory | None = field(default=None, repr=False)

    @cached_property
    def document(self) -> dict[str, Any]:
        """The whole file as plain data. Raises UserError where it is damaged."""
        read_eval(self.path)
        return read_json(self.path)

    @property
    def run(self) -> str:
        """The id of the run that made it."""
        return self.document["run_id"]

    @property
    def kind(self) -> str:
        """What was scored: "original", "unlearned" (the points of a trajectory), or "attacked"."""
        return self.document["kind"]

    @property
    def labels(self) -> dict[str, Any]:
        """What it belongs to: dataset, arm, model, method, seed, retain_budget, target, attack and more."""
        return self.document["labels"]

    def looks(self) -> pd.DataFrame:
        """Return a row per look, indexed by its number from 0, the gentlest setting first.

        Columns: `attack` and `v_split` (None where there is none), `setting` (text, as `epoch=8 lr=0.001`), `repeat`
        (int), `step` (of an unlearning point, otherwise None).
        """
        keys, document = ("attack", "v_split", "repeat"), self.document
        if compact.is_compact(document):
            _, document = compact.table(self.path, document)
        rows = [
            {key: look[key] for key in keys} | {"setting": setting_text(look["setting"]), "step": look.get("step")}
            for look in document["looks"]
        ]
        columns = ["attack", "setting", "v_split", "repeat", "step"]
        return pd.DataFrame(rows, columns=columns, dtype=object).rename_axis("look")

    def questions(self) -> pd.DataFrame:
        """Return a row per look, question and probe.

        Columns: `look` (int, a row of `looks`), `id`, `split`, `group`, `role` ("T", "V", "retain" or "choice"),
        `answer` (the right choice, from 0), `probe` (one that was asked), `scores` (list of floats, one per choice:
        log-probabilities in nats), `predicted` (the first choice with the highest score), `correct` (bool).

        Of a compact bundle, which has no scores, `scores` and `predicted` are None, `probe` is one of the tables, and
        `correct` is 0, 1 or, where choices tie, one over their number.
        """
        if compact.is_compact(self.document):
            columns = ["look", *QUESTION, "probe", "correct"]
            table = pd.DataFrame(list(compact.rows(self.path, self.document)), columns=columns)
            return table.assign(scores=None, predicted=None)[["look", *QUESTION, "probe", *JUDGED]]
        rows = [
            {"look": number, **_plain(question), "probe": probe, "scores": question["probes"][probe]["scores"]}
            for number, look in enumerate(self.document["looks"])
            for question in look["questions"]
            for probe in asked_of(question["probes"])
        ]
        return _judged(pd.DataFrame(rows, columns=["look", *QUESTION, "probe", "scores"]))


@dataclass(frozen=True, eq=False)
class Scores:
    """What `score` found.

    accuracy: a row per probe of the tables that comes from those asked (the index), with `n` questions, `accuracy` (a
    fraction), and its 95 % Wilson interval `low` and `high`. questions: as `Evaluation.questions`, without `look` and
    `role`.
    """

    accuracy: pd.DataFrame
    questions: pd.DataFrame


def score(
    model: "str | Path | tuple[PreTrainedModel, PreTrainedTokenizerBase]",
    questions: str | Path | Iterable[Mapping[str, Any]],
    probes: Sequence[str] = ("letter", "letter_permuted", "likelihood"),
    batch_size: int = 64,
    dtype: str = "fp32",
) -> Scores:
    """Score a causal language model on multiple-choice questions, as the pipeline does. This imports torch.

    model: a folder of transformers' files, or a model with its tokenizer, which are used as they are. questions: a file
    of canonical facts or of MCQs in the authors' schema (docs/data.md), or dicts with `question`, `choices` and
    `answer` (index from 0). probes: "letter" (log p of " A", " B", ... after the MCQ), "letter_permuted" (the same with
    the choices in each rotation), "likelihood" (log p of each choice after the question alone), and of facts alone
    "likelihood_fresh" (choices that nothing trained on) and "cloze" (a sentence with each choice in its place).
    batch_size: prompts at once; it changes no score by more than rounding. dtype: "fp32", "bf16", "fp16" or "fp64", of
    weights that are loaded from a folder.

    Raises UserError for a folder or file that cannot be used, a malformed question, an unknown probe or dtype, and
    where torch is not installed.
    """
    if why := places.missing("torch"):
        raise UserError(f"score: {why}")
    from rtt.models.load import load as load_model
    from rtt.steps import inspect

    if unknown := [name for name in probes if name not in inspect.PROBES]:
        raise UserError(f"probes: found {unknown[0]!r}, expected some of {', '.join(inspect.PROBES)}")
    if dtype not in inspect.DTYPES:
        raise UserError(f"dtype: found {dtype!r}, expected one of {', '.join(inspect.DTYPES)}")
    if batch_size < 1:
        raise UserError(f"batch_size: found {batch_size}, expected 1 or more")
    given = str(questions) if isinstance(questions, str | Path) else "questions"
    facts = inspect.read_data(given) if isinstance(questions, str | Path) else inspect.facts_of(list(questions))
    inspect.check_scorable(facts, probes, given)
    if isinstance(model, str | Path):
        found, tokenizer = load_model(str(model), "fp32" if dtype == "fp64" else dtype)
        found = found.double() if dtype == "fp64" else found
    else:
        found, tokenizer = model
    scored = inspect.scores(found, tokenizer, facts, list(probes), False, batch_size)
    rows = [
        {**_plain(question), "probe": probe, "scores": one["scores"]}
        for question in scored["questions"]
        for probe, one in question["probes"].items()
    ]
    keys = [key for key in QUESTION if key != "role"]
    table = pd.DataFrame.from_dict(scored["accuracy"], orient="index").rename_axis("probe")
    return Scores(table, _judged(pd.DataFrame(rows, columns=[*keys, "probe", "scores"])))


def verdict(
    unlearned: Mapping[str, ArrayLike],
    original: ArrayLike | Mapping[str, ArrayLike],
    floor: ArrayLike,
    control: Mapping[str, ArrayLike] | None = None,
    *,
    groups: Sequence[str] | None = None,
    splits: Sequence[Any] | None = None,
    control_groups: Sequence[str] | None = None,
    control_splits: Sequence[Any] | None = None,
    known: bool | None = None,
    is_unlearned: bool | None = None,
    attack_learned: bool | None = None,
    control_learned: bool | None = None,
) -> Verdict:
    """Return the verdict on an unlearned model from arrays of answers: are the facts hidden, was nothing found?

    unlearned, control: {attack: its answers}, the attacks in an order of your choice, each (looks, questions) with its
    gentlest setting first, or (questions,) for a single one: 1 where a question is answered right, 0 where it is not.
    The control is a model that never knew, under the same attacks, on questions of the same form. original: the same of
    the original, or (questions,) answers. floor: what a guesser scores, such as .25, or (questions,) of it.

    splits, control_splits: (questions,) which part of the facts was V when a question was asked; groups: what it is
    about, where several are about one thing. Settings and attacks are chosen on one half of each split, and reported on
    the other. Questions stand in the same order everywhere. known, is_unlearned: whether the original knows the facts,
    and the model is unlearned by every probe. attack_learned, control_learned: whether an attack that trains learned T.
    None where there is nothing to say.

    The answer's `answer` is "hidden", "none_shown" or "cannot_tell", its `text` says so in words, `share` is the
    limit in it, and `reasons` are sentences (`rtt.stats.verdict`). Raises UserError where shapes do not fit, or answers
    lie outside of 0 to 1.
    """
    ours, own = _looks("unlearned", unlearned), _looks("control", control)
    before = _looks("original", original) if isinstance(original, Mapping) else _answers("original", original)
    n = _questions("unlearned", ours)
    try:
        floors = np.asarray(floor, float)
    except (TypeError, ValueError):
        floors = np.array(np.nan)  # refused below
    if not np.all((floors >= 0) & (floors < 1)):
        raise UserError(f"floor: found {floor!r:.60}, expected what a guesser scores, from 0 to below 1")
    if floors.ndim and floors.shape != (n,):
        raise UserError(f"floor: found {floors.shape}, expected a number, or one for each of {n} questions")
    beside: dict[str, Any] = {}
    if own is not None:
        m = _questions("control", own)
        if floors.ndim and m != n:
            raise UserError(f"floor: the control has {m} questions and not {n}: give one number for all")
        shared = (groups, splits) if m == n else (None, None)
        one = control_groups if control_groups is not None else shared[0]
        other = control_splits if control_splits is not None else shared[1]
        beside = {
            "control": own, "control_floors": np.broadcast_to(floors, m), "control_groups": one,
            "control_halves": _halves("control", m, other, one),
        }  # fmt: skip
    try:
        return decided(
            ours, before, np.broadcast_to(floors, n), _halves("", n, splits, groups), groups, **beside, known=known,
            is_unlearned=is_unlearned, attack_learned=attack_learned, control_learned=control_learned,
        )  # fmt: skip
    except ValueError as error:
        raise UserError(f"verdict: {error}") from None


def _looks(name: str, given: Mapping[str, ArrayLike] | None) -> dict[str, np.ndarray] | None:
    if given is None:
        return None
    if not isinstance(given, Mapping) or not given:
        raise UserError(f"{name}: found {type(given).__name__}, expected {{attack: answers}} of one attack or more")
    return {str(attack): np.atleast_2d(_answers(f"{name}[{attack!r}]", one)) for attack, one in given.items()}


def _answers(name: str, given: ArrayLike) -> np.ndarray:
    try:
        found = np.asarray(given, float)
    except (TypeError, ValueError):
        raise UserError(f"{name}: expected numbers, 1 for a right answer and 0 for a wrong one") from None
    if found.size == 0 or not np.all((found >= 0) & (found <= 1)):  # NaN is neither
        raise UserError(f"{name}: expected answers from 0 (wrong) to 1 (right), and at least one")
    return found


def _questions(name: str, given: Mapping[str, np.ndarray]) -> int:
    sizes = {attack: one.shape[-1] for attack, one in given.items()}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{n} of {attack}" for attack, n in sizes.items())
        raise UserError(f"{name}: found answers to different numbers of questions: {told}; expected the same ones")
    return next(iter(sizes.values()))


def _halves(which: str, n: int, splits: Sequence[Any] | None, groups: Sequence[str] | None) -> np.ndarray:
    """Return the first halves of n questions, cut as a study's are."""
    for key, given in (("splits", splits), ("groups", groups)):
        name = f"{which}_{key}".lstrip("_")
        if given is not None and len(given) != n:
            raise UserError(f"{name}: found {len(given)}, expected one for each of {n} questions")
        if given is not None and pd.isna(pd.Series(given, dtype=object)).any():
            raise UserError(f"{name}: some are missing (None or NaN), expected one for each of {n} questions")
    numbers = np.zeros(n, int) if splits is None else np.unique(np.asarray(splits), return_inverse=True)[1]
    return halves(numbers, groups)


QUESTION = ("id", "split", "group", "role", "answer")
JUDGED = ("scores", "predicted", "correct")


def _plain(question: Mapping[str, Any]) -> dict[str, Any]:
    return {key: question[key] for key in QUESTION if key in question}


def _judged(table: pd.DataFrame) -> pd.DataFrame:
    """Add what was predicted, and whether that is right."""
    predicted = [one.index(max(one)) for one in table["scores"]]
    return table.assign(
        predicted=predicted, correct=[bool(a == b) for a, b in zip(predicted, table["answer"], strict=True)]
    )

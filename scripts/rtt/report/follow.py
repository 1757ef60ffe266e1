"""One question of the study through all models, and the means to look at any other, from questions.csv.

The question is chosen by a rule that asks for the typical one: over the models shown, the probability of its right
choice is nearest to the median over all questions.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from rtt.figures.phrases import listed
from rtt.figures.view import Panel, View
from rtt.figures.words_steps import judged_methods, share
from rtt.report.inputs import Text
from rtt.stats import criterion
from rtt.stats.shown import main_seed

MOST = 1000  # questions to look at: with more, a page would be too large for a browser
# The models in the order of the test: the stage in questions.csv, and the row's head of {method} and {attack}.
MODELS = {
    "original": "the original",
    "unlearned": "the model unlearned by {method}",
    "unlearned_attacked": "the same after {attack}",
    "oracle_attacked": "the oracle after {attack}",
    "control_attacked": "the control after {attack}",
}


@dataclass(frozen=True)
class Asked:
    """What one model says of a question: the probability of each choice."""

    model: str
    shares: list[float]


@dataclass(frozen=True)
class Followed:
    """The section. n of `of` questions are in `others`, which the page's script reads: plain data for JSON."""

    question: str
    choices: list[str]
    answer: int
    asked: list[Asked]
    sentence: str
    n: int
    of: int
    others: dict[str, Any]


def followed(
    view: View, panel: Panel, table: pd.DataFrame | None, texts: Mapping[tuple[str, str], Text]
) -> Followed | None:
    """Return the question that is followed through the first method that counts, or the first with a point.

    None without the table, without texts, and where no model was attacked.
    """
    cells = judged_methods(view, panel)
    counting = [name for name in cells if _counts(view.of(panel, name), main_seed(view.seeds))]
    methods = counting or list(cells)
    if table is None or not texts or not methods:
        return None
    told = {}
    for stage, head in MODELS.items():
        rows = _of(table, panel, stage, methods[0])
        if len(rows):
            told[head.format(method=methods[0], attack=view.attack_title)] = rows
    ids = sorted(
        {key for dataset, key in texts if dataset == panel.dataset}.intersection(
            *(rows.index for rows in told.values())
        )
    )
    if not told or not ids:
        return None
    answers = next(iter(told.values()))["answer"]
    by_model = {model: {key: _shares(rows.loc[key]) for key in ids} for model, rows in told.items()}
    chosen = _typical(ids, by_model.values(), answers)
    text = texts[panel.dataset, chosen]
    asked = [Asked(model, shares[chosen]) for model, shares in by_model.items()]
    answer = int(answers[chosen])
    parts = [f"{share(one.shares[answer])} by {one.model}" for one in asked]
    others = {
        "models": [_upper(model) for model in by_model],
        "questions": [
            {
                "q": texts[panel.dataset, key].question,
                "c": list(texts[panel.dataset, key].choices),
                "a": int(answers[key]),
                "p": [[round(100 * one) for one in shares[key]] for shares in by_model.values()],
            }
            for key in ids[:MOST]
        ],
    }
    return Followed(
        question=text.question,
        choices=list(text.choices),
        answer=answer,
        asked=[Asked(_upper(one.model), one.shares) for one in asked],
        sentence=f"The right choice is given {listed(parts)}.{_unasked(view, told)}",
        n=len(others["questions"]),
        of=len(ids),
        others=others,
    )


def _counts(cell: pd.DataFrame, seed: int) -> bool:
    """Say whether a method counts, and its model of the seed that is shown does."""
    return criterion.counts(cell) and bool(cell.loc[cell["seed"] == seed, "counts"].any())


def _unasked(view: View, told: Mapping[str, pd.DataFrame]) -> str:
    """Say why the control is not among the models that are told of, where there is one."""
    if any(name.startswith("the control") for name in told) or not view.recovery["acc_control_attacked"].notna().any():
        return ""
    return " The control was asked other facts of the same kind, so it is not here."


def _of(table: pd.DataFrame, panel: Panel, stage: str, method: str) -> pd.DataFrame:
    """Return the rows of a panel's model by question: of its stage, and of the method where the stage has methods."""
    mask = (table["dataset"] == panel.dataset) & (table["model"] == panel.model) & (table["arm"] == panel.arm)
    mask &= (table["stage"] == stage) & table["method"].isin([method, ""])
    return table[mask].set_index("id")


def _shares(row: pd.Series) -> list[float]:
    """Return the probabilities of a question's choices."""
    return [float(value) for name, value in row.items() if str(name).startswith("p_") and not pd.isna(value)]


def _typical(ids: list[str], by_model: Iterable[Mapping[str, list[float]]], answers: pd.Series) -> str:
    """Return the question whose right choice is nearest to the median one's over all models; of equals the first."""
    distance = pd.Series(0.0, index=ids)
    for shares in by_model:
        right = pd.Series({key: shares[key][int(answers[key])] for key in ids})
        distance += (right - right.median()).abs()
    return str(distance.idxmin())


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]

"""One question followed: the typical one by a rule, through every model, and nothing without texts."""

from types import SimpleNamespace

import pandas as pd
import pytest
from report_builder import recovery_row, view_of
from rtt.report.follow import MODELS, followed

# The right choice's probability, question by question, of each model: q3 is the median one in all of them.
RIGHT = {
    "original": [0.9, 0.8, 0.99, 0.95, 0.97],
    "unlearned": [0.05, 0.5, 0.3, 0.2, 0.1],
    "unlearned_attacked": [0.7, 0.95, 0.6, 0.8, 0.9],
    "oracle_attacked": [0.1, 0.4, 0.2, 0.25, 0.3],
    "control_attacked": [0.1, 0.4, 0.2, 0.25, 0.3],
}
ANSWERS = [0, 1, 2, 3, 0]


def table(stages=RIGHT, method="GD"):
    rows = []
    for stage in stages:
        for n, (right, answer) in enumerate(zip(RIGHT[stage], ANSWERS, strict=True)):
            shares = {f"p_{i + 1}": right if i == answer else (1 - right) / 3 for i in range(4)}
            name = method if stage.startswith("unlearned") else ""
            row = {"dataset": "people_p", "model": "miniature", "arm": "pretrained", "stage": stage, "method": name}
            rows.append(row | {"id": f"q{n}", "answer": answer, "right": 1.0} | shares)
    return pd.DataFrame(rows)


def texts(*names):
    made = {name: SimpleNamespace(question=f"Who is {name}?", choices=("a", "b", "c", "<d>")) for name in names}
    return {("people_p", name): text for name, text in made.items()}


ALL = texts(*(f"q{n}" for n in range(5)))


@pytest.fixture
def view():
    return view_of(recovery_row("GD", acc_oracle_attacked=0.25), recovery_row("RMU", status="not_unlearned"))


def test_the_typical_question_is_followed_through_every_model(view):
    found = followed(view, view.panels[0], table(), ALL)
    assert found.question == "Who is q3?" and found.answer == 3 and found.choices[3] == "<d>"
    assert [one.model for one in found.asked] == [
        *("The original", "The model unlearned by GD", "The same after RTT"),
        *("The oracle after RTT", "The control after RTT"),
    ]
    assert [round(one.shares[3], 2) for one in found.asked] == [0.95, 0.2, 0.8, 0.25, 0.25]
    assert found.sentence.startswith(
        "The right choice is given 95 % by the original, 20 % by the model unlearned by GD, 80 % by the same"
    )


def test_every_question_can_be_looked_at(view):
    others = followed(view, view.panels[0], table(), ALL).others
    assert [one["q"] for one in others["questions"]] == [f"Who is q{n}?" for n in range(5)]
    for n, one in enumerate(others["questions"]):
        assert [shares[ANSWERS[n]] for shares in one["p"]] == [round(100 * RIGHT[stage][n]) for stage in MODELS]


def test_a_control_that_was_asked_other_facts_is_not_missed(view):
    rows = table([stage for stage in RIGHT if stage != "control_attacked"])
    assert followed(view, view.panels[0], rows, ALL).sentence.endswith(
        "The control was asked other facts of the same kind, so it is not here."
    )
    assert "other facts" not in followed(view, view.panels[0], table(), ALL).sentence


def test_a_question_that_some_model_was_not_asked_is_not_followed(view):
    rows = table()
    rows = rows[(rows["stage"] != "control_attacked") | (rows["id"] != "q3")]
    assert "q3" not in followed(view, view.panels[0], rows, ALL).question
    assert followed(view, view.panels[0], table(), texts("q1")).question == "Who is q1?"


def test_there_is_nothing_without_texts_or_answers(view):
    panel = view.panels[0]
    assert followed(view, panel, None, ALL) is None
    assert followed(view, panel, table(), {}) is None
    assert followed(view, panel, table()[:0], ALL) is None
    assert followed(view_of(recovery_row(status="none_within_budget")), panel, table(), ALL) is None

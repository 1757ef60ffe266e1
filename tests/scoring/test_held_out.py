"""The nats of held-out sentences in an evaluation: their perplexity, and what is no evidence of it."""

import json
import math

import pytest
from evals_builder import SMALL, edit, make_evals, planted, tables
from rtt.errors import UserError
from rtt.scoring.held_out import gathered, perplexity, texts, total
from rtt.scoring.read import read_eval
from rtt.scoring.write import _metrics

ORIGINAL, POINTS = "model-pretrained-s0", "unlearn-pretrained-gd-s0"


def retain(document, look=0):
    """Return the retain questions of a look; there are eight."""
    return [question for question in document["looks"][look]["questions"] if question["role"] == "retain"]


@pytest.fixture
def study(tmp_path):
    """A study whose original and first point say 2 and 3 nats a token of sentences of 1 to 8 tokens; with metrics."""
    make_evals(tmp_path, **SMALL, steps=(10, 20))

    def told(mean):
        def change(document):
            for look in range(len(document["looks"])):
                for n, question in enumerate(retain(document, look), 1):
                    question["text"] = {"nats": float(n * (mean + look)), "tokens": n}
            document["metrics"] = {"accuracies": [_metrics(look) for look in document["looks"]]}

        return change

    edit(tmp_path, ORIGINAL, told(2))
    edit(tmp_path, POINTS, told(3))
    return tmp_path


def test_perplexity_by_hand():
    """Two sentences of three and one tokens, each token as one of two, then of eight."""
    asked = [
        {"id": "a", "role": "retain", "text": {"nats": 3 * math.log(2), "tokens": 3}},
        {"id": "b", "role": "retain", "text": {"nats": math.log(8), "tokens": 1}},
        {"id": "c", "role": "retain", "text": "Who?"},
        {"id": "d", "role": "retain"},
        {"id": "e", "role": "V", "text": {"nats": 9.0, "tokens": 1}},
    ]
    found = gathered([total(texts(asked))])
    assert found.tokens.tolist() == [4]
    assert perplexity(found, 0) == pytest.approx(2 ** (6 / 4), rel=1e-6)
    assert gathered([total(texts(asked[2:]))]) is None and math.isnan(perplexity(None, 0))


def test_a_broken_models_perplexity_is_a_number(study):
    def broken(document):
        for question in retain(document, 1):
            question["text"]["nats"] = 1e6 * question["text"]["tokens"]
        document["metrics"] = {}

    edit(study, POINTS, broken)
    assert tables(study) == 0
    assert planted(study).perplexity_unlearned.unique().tolist() == [pytest.approx(math.exp(700), rel=1e-6)]


def test_tables_have_the_perplexity_of_the_original_and_of_the_chosen_point(study):
    assert tables(study) == 0
    found = planted(study)
    assert found.perplexity_before.unique().tolist() == [pytest.approx(math.exp(2), abs=1e-6)]
    assert found.perplexity_unlearned.unique().tolist() == [pytest.approx(math.exp(4), abs=1e-6)]


DAMAGE = {
    "edited": (lambda d: retain(d)[3]["text"].update(nats=7.0), r"metrics.accuracies\[0\].text is"),
    "left out": (lambda d: [one.pop("text") for look in (0, 1) for one in retain(d, look)], r"\[0\].text is"),
    "left out once": (lambda d: retain(d, 1)[2].pop("text"), "text of .*/003 is not of as many tokens as in looks.0."),
    "other tokens": (lambda d: retain(d, 1)[2]["text"].update(tokens=9), "is not of as many tokens as in looks.0."),
    "no number": (lambda d: retain(d)[0]["text"].update(nats="1"), "expected nats of at least 0"),
    "negative": (lambda d: retain(d)[0]["text"].update(nats=-1.0), "expected nats of at least 0"),
    "not finite": (lambda d: retain(d)[0]["text"].update(nats=math.inf), "expected nats of at least 0"),
    "no tokens": (lambda d: retain(d)[0]["text"].update(tokens=0), "tokens of at least 1"),
    "tokens missing": (lambda d: retain(d)[0]["text"].pop("tokens"), "tokens of at least 1"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found(study, name):
    change, said = DAMAGE[name]
    read_eval(study / "evals" / f"{POINTS}.json")
    path = edit(study, POINTS, change)
    with pytest.raises(UserError, match=said) as caught:
        read_eval(path)
    assert str(path) in str(caught.value)


def test_the_metrics_hold_each_looks_text(study):
    document = json.loads((study / "evals" / f"{POINTS}.json").read_text())
    assert [one["text"] for one in document["metrics"]["accuracies"]] == [
        {"nats": 108.0, "tokens": 36},
        {"nats": 144.0, "tokens": 36},
    ]

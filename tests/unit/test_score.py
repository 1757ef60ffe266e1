"""Scores against brute force: every continuation alone, unbatched, in float64."""

import copy
import dataclasses
import math

import pytest
import tiny
import torch
from rtt.score import SCORINGS, Scorer, accuracy, continuations


def varied(folder):
    """Facts with questions of several lengths and choices of one to three tokens."""
    facts = tiny.facts(folder)[:5]
    facts[1] = dataclasses.replace(facts[1], question="When?", choices=["1950 1951", "1952", "1953 1954 1955", "1956"])
    facts[2] = dataclasses.replace(facts[2], question="Ada Boris Chen Dalia Emil Farah Goran was born when?")
    facts[3] = dataclasses.replace(facts[3], choices=["Lima", "Lima Oslo", "Lima Oslo Rome", "Oslo"])
    return facts


def brute(model, prompt, continuation):
    """log p(continuation | prompt), token by token, each with a forward pass of its own."""
    ids = tiny.tokenizer()(prompt)["input_ids"]
    total = 0.0
    for token in tiny.tokenizer()(continuation)["input_ids"]:
        with torch.no_grad():
            row = [float(x) for x in model(torch.tensor([ids])).logits[0, -1].double()]
        top = max(row)
        total += row[token] - top - math.log(sum(math.exp(x - top) for x in row))
        ids = [*ids, token]
    return total


def expected(model, facts):
    """The three scorings, spelled out from docs/architecture.md."""
    values = []
    for fact in facts:
        mcq = fact.question + "".join(f"\n{x}. {c}" for x, c in zip("ABCD", fact.choices, strict=True)) + "\nAnswer:"
        values += [brute(model, mcq, f" {letter}") for letter in "ABCD"]
        values += [brute(model, f"{fact.question}\nAnswer:", f" {choice}") for choice in fact.choices]
        values += [brute(model, f"{fact.question}\nAnswer:", f" {choice}") for choice in fact.fresh_choices]
    return values


def test_scores_equal_brute_force(tmp_path):
    model, facts = tiny.model(scale=8), varied(tmp_path)
    reference = expected(copy.deepcopy(model).double(), facts)
    assert max(reference) - min(reference) > 1
    for batch_size in (1, 3, 64):
        found = Scorer(tiny.tokenizer(), facts, batch_size).scores(model)
        assert found == pytest.approx(reference, abs=1e-5, rel=1e-5)


def test_questions_carry_what_the_contract_asks(tmp_path):
    model, facts = tiny.model(scale=8), varied(tmp_path)
    questions = Scorer(tiny.tokenizer(), facts).questions(model, lambda fact: "V" if fact.split == "split_0" else "T")
    reference = expected(copy.deepcopy(model).double(), facts)
    for i, (fact, question) in enumerate(zip(facts, questions, strict=True)):
        assert (question["id"], question["split"], question["answer"]) == (fact.id, fact.split, fact.answer)
        assert question["role"] == ("V" if fact.split == "split_0" else "T")
        assert list(question["scores"]) == list(SCORINGS)
        flat = [value for scoring in SCORINGS for value in question["scores"][scoring]]
        assert flat == pytest.approx(reference[12 * i : 12 * i + 12], abs=1e-5)
        assert flat == [round(value, 6) for value in flat]


def test_identical_contexts_run_once(tmp_path):
    """A prompt is shared by its four letters, and a question by all its choices of one token: two contexts a fact."""
    scorer = Scorer(tiny.tokenizer(), tiny.facts(tmp_path))
    assert len(scorer.contexts) == 2 * len(scorer.facts)
    assert len(set(scorer.contexts)) == len(scorer.contexts)
    model, rows = tiny.model(), []
    forward = model.forward
    model.forward = lambda ids, **more: (rows.extend(ids.tolist()), forward(ids, **more))[1]
    scorer.scores(model)
    assert len(rows) == len(scorer.contexts)


def test_scoring_leaves_the_weights_and_no_gradient(tmp_path):
    model = tiny.model()
    before = copy.deepcopy(model.state_dict())
    model.train()
    Scorer(tiny.tokenizer(), tiny.facts(tmp_path)).scores(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_fresh_choices_are_scored_not_the_trained_ones(tmp_path):
    fact = tiny.facts(tmp_path)[0]
    four = continuations(fact)
    assert [c.strip() for _, c in four["likelihood_fresh"]] == fact.fresh_choices
    assert [c.strip() for _, c in four["likelihood"]] == fact.choices
    assert four["likelihood_fresh"][fact.answer] == four["likelihood"][fact.answer]


def question(scores, answer, role="V"):
    return {"scores": {"letter": scores}, "answer": answer, "role": role}


def test_accuracy_takes_the_first_maximum():
    assert accuracy([question([-1, -1, -2, -3], 0)], "letter") == 1
    assert accuracy([question([-1, -1, -2, -3], 1)], "letter") == 0
    assert accuracy([question([-5, -4, -2, -3], 2), question([-1, -4, -2, -3], 2)], "letter") == 0.5


def test_accuracy_by_role():
    mixed = [question([0, -1, -1, -1], 0, "T"), question([0, -1, -1, -1], 1, "V"), question([0, -1, -1, -1], 2, "V")]
    assert accuracy(mixed, "letter", "T") == 1
    assert accuracy(mixed, "letter", "V") == 0
    assert accuracy(mixed, "letter") == pytest.approx(1 / 3)
    assert accuracy(mixed, "letter", "retain") is None

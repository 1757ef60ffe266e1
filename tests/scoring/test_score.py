"""Scores against brute force: every continuation alone, unbatched, in float64."""

import copy
import dataclasses
import math

import pytest
import subword
import tiny
import torch
from rtt.errors import UserError
from rtt.scoring.score import PROBES, Scorer, accuracy, continuations


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
    """The three probes, spelled out from docs/architecture.md."""
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
        found = Scorer(tiny.tokenizer(), facts, batch_size=batch_size).scores(model)
        assert found == pytest.approx(reference, abs=1e-5, rel=1e-5)


def test_questions_may_have_other_numbers_of_choices(tmp_path):
    """Two, three and four choices beside each other; what is asked of one does not touch another."""
    facts = varied(tmp_path)
    shorter = [
        dataclasses.replace(
            fact, choices=fact.choices[:k], fresh_choices=fact.fresh_choices[:k], answer=0, group=f"d:{i // 2}"
        )
        for i, (fact, k) in enumerate(zip(facts, (2, 4, 3, 2, 4), strict=True))
    ]
    model = tiny.model(scale=8)
    questions = Scorer(tiny.tokenizer(), shorter, batch_size=3).questions(model, lambda fact: "V")
    assert [question["group"] for question in questions] == ["d:0", "d:0", "d:1", "d:1", "d:2"]
    double = copy.deepcopy(model).double()
    for fact, question in zip(shorter, questions, strict=True):
        lines = "".join(f"\n{x}. {c}" for x, c in zip("ABCD", fact.choices, strict=False))
        wanted = {
            "letter": [brute(double, f"{fact.question}{lines}\nAnswer:", f" {x}") for x in "ABCD"[: len(fact.choices)]],
            "likelihood": [brute(double, f"{fact.question}\nAnswer:", f" {choice}") for choice in fact.choices],
            "likelihood_fresh": [brute(double, f"{fact.question}\nAnswer:", f" {c}") for c in fact.fresh_choices],
        }
        for probe, scores in wanted.items():
            assert question["probes"][probe]["scores"] == pytest.approx(scores, abs=1e-5, rel=1e-5)


def test_letters_that_share_a_token_and_missing_fresh_choices_are_refused(tmp_path):
    fact = tiny.facts(tmp_path)[0]
    six = dataclasses.replace(fact, choices=list("abcdef"), fresh_choices=[], answer=0)
    with pytest.raises(UserError, match="several of the letters A to F the same token"):  # the miniature knows A to D
        Scorer(tiny.tokenizer(), [six], ["letter"])
    with pytest.raises(UserError, match="has no fresh choices"):
        Scorer(tiny.tokenizer(), [six])


def test_questions_carry_what_the_contract_asks(tmp_path):
    model, facts = tiny.model(scale=8), varied(tmp_path)
    questions = Scorer(tiny.tokenizer(), facts).questions(model, lambda fact: "V" if fact.split == "split_0" else "T")
    reference = expected(copy.deepcopy(model).double(), facts)
    for i, (fact, question) in enumerate(zip(facts, questions, strict=True)):
        assert (question["id"], question["split"], question["answer"]) == (fact.id, fact.split, fact.answer)
        assert question["role"] == ("V" if fact.split == "split_0" else "T")
        assert list(question["probes"]) == list(PROBES)
        flat = [value for probe in PROBES for value in question["probes"][probe]["scores"]]
        assert flat == pytest.approx(reference[12 * i : 12 * i + 12], abs=1e-5)
        assert flat == [round(value, 6) for value in flat]


def test_every_prompt_runs_once_and_choices_continue_it(tmp_path):
    """Two prompts a fact; what is fed after them is a choice without its last token, once for equal beginnings."""
    facts = varied(tmp_path)
    scorer, model, fed = Scorer(tiny.tokenizer(), facts), tiny.model(), []
    assert len(scorer.prompts) == len(set(scorer.prompts)) == 2 * len(facts)
    forward = model.forward
    model.forward = lambda ids, **more: (fed.append((ids.tolist(), more.get("past_key_values"))), forward(ids, **more))[
        1
    ]
    scorer.scores(model)
    prompts = [row for rows, cache in fed if cache is None for row in rows]
    tails = [tiny.tokenizer().decode(row).replace("<pad>", "").strip() for rows, cache in fed if cache for row in rows]
    assert len(prompts) == 2 * len(facts)
    assert sorted(tails) == ["1950", "1953 1954", "Lima", "Lima Oslo"]


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
    assert [text.target.strip() for text in four["likelihood_fresh"]] == fact.fresh_choices
    assert [text.target.strip() for text in four["likelihood"]] == fact.choices
    assert four["likelihood_fresh"][fact.answer] == four["likelihood"][fact.answer]


def question(scores, answer, role="V"):
    return {"probes": {"letter": {"scores": scores}}, "answer": answer, "role": role}


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


def test_only_the_probes_asked_for_are_scored(tmp_path):
    model, facts = tiny.model(scale=8), varied(tmp_path)
    whole = Scorer(tiny.tokenizer(), facts).questions(model, lambda fact: "V")
    some = Scorer(tiny.tokenizer(), facts, ("likelihood_fresh", "letter")).questions(model, lambda fact: "V")
    for a, b in zip(whole, some, strict=True):
        assert list(b["probes"]) == ["likelihood_fresh", "letter"]
        for probe, found in b["probes"].items():
            assert found["scores"] == pytest.approx(a["probes"][probe]["scores"], abs=2e-6)


@pytest.mark.parametrize("batch_size", [1, 4, 64])
@pytest.mark.parametrize("bos", [False, True])
def test_subword_scores_equal_a_float64_reference(tmp_path, batch_size, bos):
    """A byte-level BPE: long and short choices, answers that hold "A.", a start token that is seen and never scored."""
    tokenizer, facts = subword.tokenizer(bos=bos), subword.FACTS
    model = subword.model(tokenizer)
    reference = copy.deepcopy(model).double()
    start = [tokenizer.bos_token_id] if bos else []
    for bare in (False, True):
        found = iter(Scorer(tokenizer, facts, bare_letter=bare, batch_size=batch_size).scores(model))
        for fact in facts:
            for probe, four in continuations(fact, bare_letter=bare).items():
                for text in four:
                    if probe == "letter":
                        prompt = start + subword.ids(tokenizer, text.prompt)
                        target = subword.ids(tokenizer, text.target.strip() if bare else text.target)
                        assert len(target) == 1
                    else:
                        whole = subword.ids(tokenizer, text.prompt + text.target)
                        n = len(subword.ids(tokenizer, text.prompt))
                        prompt, target = start + whole[:n], whole[n:]
                    expected = -sum(subword.nats(reference, prompt + target)[len(prompt) - 1 :])
                    assert next(found) == pytest.approx(expected, abs=1e-5)


def test_bare_letter_scores_another_token():
    tokenizer = subword.tokenizer()
    spaced, bare = (Scorer(tokenizer, subword.FACTS, ["letter"], bare) for bare in (False, True))
    assert [tokenizer.convert_ids_to_tokens(t[1]) for t in spaced.targets[:4]] == [[f"\u0120{x}"] for x in "ABCD"]
    assert [tokenizer.convert_ids_to_tokens(t[1]) for t in bare.targets[:4]] == [[x] for x in "ABCD"]
    assert spaced.prompts == bare.prompts
    model = subword.model(tokenizer)
    assert spaced.scores(model) != pytest.approx(bare.scores(model), abs=1e-2)


def test_calibration_subtracts_each_letter_s_mean():
    """A model that always prefers A, by more for the questions whose answer is A."""
    rows = [
        question([3, 0, 0, 0], 0),
        question([1, 0.5, 0, 0], 1),
        question([1, 0, 0.5, 0], 2),
        question([1, 0, 0, 0.5], 3),
    ]
    assert accuracy(rows, "letter") == 0.25
    assert accuracy(rows, "letter", calibrated=True) == 1
    logprobs = []
    for row in rows:
        logits = row["probes"]["letter"]["scores"]
        total = math.log(sum(map(math.exp, logits)))
        logprobs.append(question([logit - total for logit in logits], row["answer"]))
    assert accuracy(logprobs, "letter", calibrated=True) == 1
    # Questions with two choices have a mean of their own.
    both = [*rows, question([9.0, 8.0], 0), question([7.0, 6.5], 1)]
    assert accuracy(both, "letter", calibrated=True) == 1 and accuracy(both, "letter") == pytest.approx(2 / 6)
    rows.append(question([-50, 0, 0, 0], 1, "T"))  # questions of another role do not enter the means
    assert accuracy(rows, "letter", "V", calibrated=True) == 1

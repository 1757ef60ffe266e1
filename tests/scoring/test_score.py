"""Scores against brute force: every continuation alone, unbatched, in float64."""

import copy
import dataclasses
import math

import pytest
import subword
import tiny
import torch
from rtt.data.text import encode, sentence
from rtt.errors import UserError
from rtt.scoring.held_out import gathered, perplexity, texts, total
from rtt.scoring.score import Scorer, continuations
from rtt.study.names import BY_DEFAULT


def varied(folder):
    """Facts with questions of several lengths and choices of one to three tokens."""
    facts = tiny.facts(folder)[:5]
    facts[1] = dataclasses.replace(facts[1], question="When?", choices=["1950 1951", "1952", "1953 1954 1955", "1956"])
    facts[2] = dataclasses.replace(facts[2], question="Ada Boris Chen Dalia Emil Farah Goran was born when?")
    facts[3] = dataclasses.replace(facts[3], choices=["Lima", "Lima Oslo", "Lima Oslo Rome", "Oslo"])
    for i, name in ((1, "Ada"), (3, "Boris")):
        correct = facts[i].choices[facts[i].answer]
        facts[i] = dataclasses.replace(facts[i], sentences=[f"{name} lives in {correct} a year of life."])
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
    """The probes of a default study, spelled out from docs/architecture.md."""
    values = []
    for fact in facts:
        a, b, c, d = fact.choices
        for shown in ((a, b, c, d), (a, b, c, d), (b, c, d, a), (c, d, a, b), (d, a, b, c)):  # letter, then rotations
            mcq = fact.question + "".join(f"\n{x}. {choice}" for x, choice in zip("ABCD", shown, strict=True))
            values += [brute(model, f"{mcq}\nAnswer:", f" {letter}") for letter in "ABCD"]
        values += [brute(model, f"{fact.question}\nAnswer:", f" {choice}") for choice in fact.choices]
        values += [brute(model, f"{fact.question}\nAnswer:", f" {choice}") for choice in fact.fresh_choices]
        before, after = fact.sentences[0].split(fact.choices[fact.answer])
        values += [brute(model, before.strip(), f" {choice}{after}") for choice in fact.choices]
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
            fact,
            choices=fact.choices[:k],
            fresh_choices=fact.fresh_choices[:k],
            answer=0,
            group=f"d:{i // 2}",
            sentences=[f"Ada lives in {fact.choices[0]}."],
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
            "cloze": [brute(double, "Ada lives in", f" {c}.") / len(c.split()) for c in fact.choices],
        }
        for probe, scores in wanted.items():
            assert question["probes"][probe]["scores"] == pytest.approx(scores, abs=1e-5, rel=1e-5)


def test_letters_that_share_a_token_and_missing_fresh_choices_are_refused(tmp_path):
    fact = tiny.facts(tmp_path)[0]
    six = dataclasses.replace(fact, choices=list("abcdef"), fresh_choices=[], answer=0)
    with pytest.raises(UserError, match="several of the letters A to F the same token"):  # the miniature knows A to D
        Scorer(tiny.tokenizer(), [six], ["letter"])
    with pytest.raises(UserError, match=r"has no fresh choices.*leave likelihood_fresh out"):
        Scorer(tiny.tokenizer(), [dataclasses.replace(fact, fresh_choices=[])])
    with pytest.raises(UserError, match=r"has no sentence that holds its correct choice exactly once.*leave cloze out"):
        Scorer(tiny.tokenizer(), [dataclasses.replace(fact, sentences=["Ada was born."])])


def test_questions_carry_what_the_contract_asks(tmp_path):
    model, facts = tiny.model(scale=8), varied(tmp_path)
    questions = Scorer(tiny.tokenizer(), facts).questions(model, lambda fact: "V" if fact.split == "split_0" else "T")
    reference = expected(copy.deepcopy(model).double(), facts)
    for i, (fact, question) in enumerate(zip(facts, questions, strict=True)):
        assert (question["id"], question["split"], question["answer"]) == (fact.id, fact.split, fact.answer)
        assert question["role"] == ("V" if fact.split == "split_0" else "T")
        assert list(question["probes"]) == list(BY_DEFAULT)
        mine, probes = iter(reference[32 * i : 32 * i + 32]), question["probes"]
        four = [next(mine) for _ in range(4)]
        assert probes["letter"]["scores"] == pytest.approx(four, abs=1e-5)
        turns = [[next(mine) for _ in range(4)] for _ in range(4)]
        on_letters = [math.log(sum(map(math.exp, row))) for row in turns]
        # choice 2 stands at C, B, A, D in the rotations 0 to 3
        means = [sum(turns[r][(c - r) % 4] - on_letters[r] for r in range(4)) / 4 for c in range(4)]
        assert probes["letter_permuted"]["scores"] == pytest.approx(means, abs=1e-5)
        right = sum(row.index(max(row)) == (fact.answer - r) % 4 for r, row in enumerate(turns))
        assert probes["letter_permuted"]["right"] == right
        for probe in ("likelihood", "likelihood_fresh"):
            shown = fact.choices if probe == "likelihood" else fact.fresh_choices
            assert probes[probe]["scores"] == pytest.approx([next(mine) for _ in range(4)], abs=1e-5)
            assert probes[probe]["tokens"] == [len(choice.split()) for choice in shown]
        assert probes["likelihood"]["bytes"] == [len(choice) for choice in fact.choices]
        end = len(fact.sentences[0].split(fact.choices[fact.answer])[1].strip(".").split())
        counts = [len(choice.split()) + end for choice in fact.choices]
        assert probes["cloze"]["scores"] == pytest.approx([next(mine) / n for n in counts], abs=1e-5)
        every = [score for found in probes.values() for score in found["scores"]]
        assert every == [round(value, 6) for value in every]


def test_every_prompt_runs_once_and_choices_continue_it(tmp_path):
    """Six prompts a fact, since the first rotation is the question as it stands; what is fed after them is a choice, or
    in a cloze a choice and the rest, without its last token, once for equal beginnings.
    """
    facts = varied(tmp_path)
    scorer, model, fed = Scorer(tiny.tokenizer(), facts), tiny.model(), []
    assert len(scorer.prompts) == len(set(scorer.prompts)) == 6 * len(facts)
    forward = model.forward
    model.forward = lambda ids, **more: (fed.append((ids.tolist(), more.get("past_key_values"))), forward(ids, **more))[
        1
    ]
    scorer.scores(model)
    prompts = [row for rows, cache in fed if cache is None for row in rows]
    tails = [tiny.tokenizer().decode(row).replace("<pad>", "").strip() for rows, cache in fed if cache for row in rows]
    assert len(prompts) == 6 * len(facts)
    clozes = [f"{choice} a year of" for i in (1, 3) for choice in facts[i].choices]
    assert sorted(tails) == sorted(["1950", "1953 1954", "Lima", "Lima Oslo", *clozes])


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


@pytest.mark.parametrize("batch_size", [1, 2, 64])
@pytest.mark.parametrize("bos", [False, True])
def test_held_out_sentences_equal_a_float64_reference(batch_size, bos):
    """All tokens of a fact's first true sentence but the first one that the model reads."""
    tokenizer = subword.tokenizer(bos=bos)
    model = subword.model(tokenizer)
    facts = [dataclasses.replace(fact, id=f"d/s/{i}") for i, fact in enumerate(subword.FACTS)]
    reference = copy.deepcopy(model).double()
    scorer = Scorer(tokenizer, facts, batch_size=batch_size, held_out=facts[:2])
    questions = scorer.questions(model, lambda fact: "retain")
    assert ["text" in question for question in questions] == [True, True, False]
    for fact, question in zip(facts[:2], questions, strict=False):
        nats = subword.nats(reference, [tokenizer.bos_token_id] * bos + subword.ids(tokenizer, fact.sentences[0]))
        assert question["text"] == {"nats": pytest.approx(sum(nats), abs=1e-5), "tokens": len(nats)}


def test_held_out_sentences_are_counted_as_the_loss_counts_them(tmp_path):
    """The loss CORPUS of each sentence alone; the scores of the questions stay the same in every bit."""
    model, facts = tiny.model(scale=8), varied(tmp_path)
    facts[2] = dataclasses.replace(
        facts[2], sentences=["Ada", *facts[2].sentences]
    )  # one token, which nothing predicts
    facts[4] = dataclasses.replace(facts[4], sentences=[])
    probes = ["letter", "likelihood"]
    alone = Scorer(tiny.tokenizer(), facts, probes, batch_size=3).questions(model, lambda fact: "retain")
    told = Scorer(tiny.tokenizer(), facts, probes, batch_size=3, held_out=facts).questions(model, lambda fact: "retain")
    texts = [question.pop("text", None) for question in told]
    assert told == alone and [text is None for text in texts] == [False, False, True, False, True]
    for fact, text in zip(facts, texts, strict=True):
        if text:
            example = encode(tiny.tokenizer(), sentence(fact.sentences[0]))
            mean = tiny.reference_nats(copy.deepcopy(model).double(), example)
            assert text["tokens"] == len(example["input_ids"]) - 1
            assert text["nats"] == pytest.approx(mean * text["tokens"], abs=1e-5)


def test_a_model_that_knows_nothing_has_the_perplexity_of_its_vocabulary(tmp_path):
    model, facts = tiny.model(), tiny.facts(tmp_path)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    scorer = Scorer(tiny.tokenizer(), facts, ["letter"], held_out=facts)
    found = total(texts(scorer.questions(model, lambda fact: "retain")))
    assert perplexity(gathered([found]), 0) == pytest.approx(len(tiny.tokenizer()), rel=1e-6)

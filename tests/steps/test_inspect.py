"""The commands `loss` and `score` on a saved model, against the float64 reference."""

import json

import pytest
import subword
from rtt.__main__ import main
from rtt.data.facts import write_facts
from rtt.errors import UserError
from rtt.models.load import save
from rtt.steps.inspect import facts_of


@pytest.fixture
def folder(tmp_path):
    tokenizer = subword.tokenizer(bos=True)
    save(subword.model(tokenizer), tokenizer, tmp_path / "model")
    write_facts(tmp_path / "facts.jsonl", subword.FACTS)
    rows = [{"question": f.question, "choices": f.choices, "answer": f.answer} for f in subword.FACTS]
    (tmp_path / "mcq.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts = [{"text": text} for fact in subword.FACTS for text in fact.sentences]
    (tmp_path / "corpus_mcq.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    return tmp_path


def call(capsys, folder, command, data, *more):
    capsys.readouterr()  # what a library said while the model was saved
    code = main([command, "--model", str(folder / "model"), "--data", str(folder / data), *more])
    out, err = capsys.readouterr()
    return code, (json.loads(out) if code == 0 else err)


def test_loss_of_sentences_from_either_file(capsys, folder):
    tokenizer = subword.tokenizer(bos=True)
    model = subword.model(tokenizer).double()
    sentences = [text for fact in subword.FACTS for text in fact.sentences]
    expected = [subword.nats(model, [1, *subword.ids(tokenizer, text)]) for text in sentences]
    for data in ("corpus_mcq.jsonl", "facts.jsonl"):
        code, found = call(capsys, folder, "loss", data, "--loss", "CORPUS", "--batch-size", "3", "--dtype", "fp64")
        assert code == 0
        assert [row["tokens"] for row in found["texts"]] == [len(nats) for nats in expected]
        assert [row["nats"] for row in found["texts"]] == pytest.approx([sum(nats) for nats in expected], rel=1e-6)
        assert found["mean"] == pytest.approx(sum(sum(n) / len(n) for n in expected) / len(expected), rel=1e-6)
    _, padded = call(capsys, folder, "loss", "facts.jsonl", "--loss", "CORPUS", "--faithful", "padding")
    assert padded["faithful"] == ["padding"] and abs(padded["mean"] - found["mean"]) > 1e-3
    counts = [row["tokens"] for row in padded["texts"]]
    longest = max(len(nats) for nats in expected[:4])
    assert counts[:4] == [longest] * 4  # batches of 4: each text counts as many as the longest


def test_bare_letter_changes_loss_and_score(capsys, folder):
    for command, more in (("loss", ["--loss", "LETTER"]), ("score", ["--probes", "letter"])):
        found = [call(capsys, folder, command, "mcq.jsonl", *more, *x)[1] for x in ([], ["--faithful", "bare_letter"])]
        key = "mean" if command == "loss" else "questions"
        assert found[0][key] != found[1][key]


def test_score(capsys, folder):
    tokenizer = subword.tokenizer(bos=True)
    model = subword.model(tokenizer).double()
    code, found = call(capsys, folder, "score", "mcq.jsonl")
    every = ["letter_permuted", "letter", "letter_calibrated", "likelihood", "likelihood_token", "likelihood_byte"]
    assert code == 0 and list(found["accuracy"]) == every
    hits = dict.fromkeys(every, 0)
    for fact, question in zip(subword.FACTS, found["questions"], strict=True):
        prompt = [1, *subword.ids(tokenizer, f"{fact.question}\nAnswer:")]
        texts = [subword.ids(tokenizer, f" {choice}") for choice in fact.choices]
        expected = [-sum(subword.nats(model, prompt + text)[len(prompt) - 1 :]) for text in texts]
        assert question["probes"]["likelihood"]["scores"] == pytest.approx(expected, abs=1e-4)
        per_token = [score / len(text) for score, text in zip(expected, texts, strict=True)]
        per_byte = [score / len(choice.encode()) for score, choice in zip(expected, fact.choices, strict=True)]
        for probe, scores in (("likelihood", expected), ("likelihood_token", per_token), ("likelihood_byte", per_byte)):
            hits[probe] += scores.index(max(scores)) == fact.answer
    for probe in every[-3:]:
        said = found["accuracy"][probe]
        assert said["n"] == 3 and said["accuracy"] == pytest.approx(hits[probe] / 3)
    assert 0 <= said["low"] <= said["accuracy"] <= said["high"] <= 1


@pytest.mark.parametrize(
    "command, data, more, message",
    [
        ("loss", "corpus_mcq.jsonl", ["--loss", "LETTER"], "a file of sentences has the losses CORPUS, NUMBER"),
        ("loss", "mcq.jsonl", ["--loss", "CORPUS"], "give a sentence file"),
        ("score", "corpus_mcq.jsonl", [], "no choices to score"),
        ("score", "mcq.jsonl", ["--probes", "likelihood_fresh"], "only facts.jsonl has"),
        ("score", "mcq.jsonl", ["--probes", "cloze"], "cloze needs sentences, which only facts.jsonl has"),
        ("score", "absent.jsonl", [], "absent.jsonl: cannot be read"),
        ("loss", "bad.jsonl", ["--loss", "CORPUS"], "bad.jsonl:2: not JSON"),
        ("loss", "long.jsonl", ["--loss", "CORPUS"], "the model's context only 512: 'xxx"),
    ],
)
def test_a_users_mistake_is_said(capsys, folder, command, data, more, message):
    (folder / "bad.jsonl").write_text('{"text": "Ada."}\n{"text": \n')
    (folder / "long.jsonl").write_text(json.dumps({"text": "x" * 600}) + "\n")
    code, err = call(capsys, folder, command, data, *more)
    assert code == 1 and message in err


def test_questions_of_any_number_of_choices_are_taken_and_open_ones_are_not():
    rows = [{"question": "Q?", "choices": list("abcdefg")[:k], "answer": "B", "group": 3} for k in (2, 7)]
    found = facts_of(rows)
    assert [(len(fact.choices), fact.answer, fact.group) for fact in found] == [(k, 1, "questions:3") for k in (2, 7)]
    with pytest.raises(UserError, match="row 2: no 'choices': `rtt facts` makes facts of open questions"):
        facts_of([rows[0], {"question": "Q?", "answer": "the answer"}])

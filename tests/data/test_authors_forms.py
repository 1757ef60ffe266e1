"""The texts and masks of the authors' code, computed by its own lines (commit 26be6ba) on a subword tokenizer."""

import re

import numpy as np
import pytest
import subword
import tiny
import torch
from rtt.data.text import encode, mcq, sentence, training_texts
from rtt.methods.gd import GD
from rtt.training.collate import collate
from rtt.training.losses import text_loss
from rtt.training.order import training_passes, unlearning_pairs

TOKENIZER = subword.tokenizer(bos=True)
TEXTS = [
    "In 1904, on day 3 of the 7th month, it began.", "Born in 1957", "1904!", "No number at all.", "9",
    "At 12 and 1904.",
]  # fmt: skip


def find_number(tokens):
    """unlearn_corpus.py, find_number."""
    flipped = list(reversed(tokens))
    for i, _ in enumerate(flipped):
        if i == 0:
            continue
        j = i
        while j < len(flipped) and re.search(r"\d", TOKENIZER.decode([flipped[j]])):
            j += 1
        if j != i:
            return j, i
    return None, None


def authors_number_loss(model, texts):
    """unlearn_corpus.py, get_loss_number, without the sign of GD: batch by batch, padded on the left."""
    rows = [TOKENIZER(text)["input_ids"] for text in texts]
    length = max(map(len, rows))
    total = 0.0
    for row in rows:
        tokens = [0] * (length - len(row)) + row
        nats = [0.0] * (length - len(row)) + subword.nats(model, row)  # log-probabilities of tokens 1 .. length - 1
        start, end = find_number(tokens)
        if start is not None:
            total += np.mean(nats[-start:-end])
    return total / len(texts)


def test_number_counts_the_authors_tokens():
    model = subword.model(TOKENIZER).double()
    expected = authors_number_loss(model, TEXTS)
    examples = [encode(TOKENIZER, sentence(text, "NUMBER", "last_run")) for text in TEXTS]
    with torch.no_grad():
        assert text_loss(model, collate(examples, 0)).item() == pytest.approx(expected, rel=1e-9)
        ours = text_loss(model, collate([encode(TOKENIZER, sentence(text, "NUMBER")) for text in TEXTS], 0)).item()
    assert abs(ours - expected) > 0.1


def counted(text, mask):
    example = encode(TOKENIZER, sentence(text, "NUMBER", mask))
    return TOKENIZER.decode([label for label in example["labels"] if label != -100])


def test_the_last_run_of_digits():
    assert counted("In 1904, on day 3 of it.", "all").replace(" ", "") == "19043"
    assert counted("In 1904, on day 3 of it.", "last_run").strip() == "3"
    assert counted("Born in 1957", "last_run").strip() == "195"  # the last token never counts
    assert counted("None.", "last_run") == ""


def test_a_space_joins_question_and_answer_as_in_finetune_corpus():
    fact = subword.FACTS[1]
    authors = " ".join([fact.question] + [c for i, c in enumerate(fact.choices) if i == fact.answer])
    (text,) = training_texts(fact, "QUESTION_ANSWER", question_answer_join="space")
    assert (text.prompt, text.target) == ("", authors) and text == mcq(
        fact, None, None, "QUESTION_ANSWER", False, "all", "space"
    )
    assert training_texts(fact, "QUESTION_ANSWER")[0].target == "When?\nAnswer: 1904"


def test_the_forms_reach_training_and_unlearning():
    rng = lambda: np.random.default_rng(0)  # noqa: E731
    spaced = {"question_answer_join": "space"}
    passes = [training_passes(subword.FACTS, "QUESTION_ANSWER", 1, 1, TOKENIZER, rng(), forms=f) for f in ({}, spaced)]
    shown = [{TOKENIZER.decode(item["input_ids"][1:]) for item in items} for items in passes]
    assert "When?\nAnswer: 1904" in shown[0] and "When? 1904" in shown[1]
    bare = [
        training_passes(subword.FACTS, "LETTER", 1, 1, TOKENIZER, rng(), forms={"bare_letter": b})
        for b in (False, True)
    ]
    assert {TOKENIZER.decode(item["labels"][-1]) for item in bare[0]} == {" B", " D", " A"}
    assert {TOKENIZER.decode(item["labels"][-1]) for item in bare[1]} == {"B", "D", "A"}
    settings = {"learning_rate": 1e-3, "batch_size": 3, "points": [2], "mcq_share": 0.0, "sentence_loss": "NUMBER"}
    for mask in ("all", "last_run"):
        chosen = GD.Settings(**settings, number_mask=mask)
        method = GD(tiny.model(), chosen, 0)
        pairs = unlearning_pairs(subword.FACTS, subword.FACTS, method, chosen, TOKENIZER, rng())
        whole = [all(label != -100 for label in pair["retain"]["labels"][1:]) for pair in pairs]
        assert any(whole) is (mask == "all")  # the authors use one loss for forget and retain texts
        for pair in pairs:
            text = TOKENIZER.decode(pair["forget"]["input_ids"][1:])
            assert pair["forget"] == encode(TOKENIZER, sentence(text, "NUMBER", mask))

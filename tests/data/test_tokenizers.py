"""Texts and scores over all kinds of tokenizers: templates, blanks in offsets, letters of several tokens."""

import pytest
import subword
import torch
from rtt.data.text import Text, encode, letter_text, mcq, sentence
from rtt.errors import UserError
from rtt.scoring.score import Scorer, continuations
from tokenizers_of_all_kinds import KINDS, PROMPT, TEMPLATES, make

SAMPLES = [
    Text(PROMPT, " B"), letter_text(PROMPT, "C", bare=True), Text("It is Zoë's", "  A. Protein 19"),
    *(mcq(fact, loss=loss) for fact in subword.FACTS for loss in ("LETTER_ANSWER", "QUESTION_ANSWER", "NUMBER")),
    sentence("In 1904, on day 3, 🙂 began.", "NUMBER"), sentence(" A blank in front and  two within "),
]  # fmt: skip
FRONT = {"none": [], "bos": [2], "eos": [], "both": [2], "bos twice": [2], "two behind": []}


@pytest.mark.parametrize("kind", KINDS)
def test_a_template_adds_nothing_but_a_start_token(kind):
    plain = make(kind)
    for template in TEMPLATES:
        tokenizer, front = make(kind, template), FRONT[template]
        for text in SAMPLES:
            expected, found = encode(plain, text), encode(tokenizer, text)
            assert found["input_ids"] == [*front, *expected["input_ids"]], (template, text)
            assert found["labels"] == [*[-100] * len(front), *expected["labels"]], (template, text)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith("byte level")])
def test_offsets_without_blanks_count_the_same_tokens(kind):
    for text in SAMPLES:
        assert encode(make(kind, trim=True), text) == encode(make(kind, trim=False), text) == encode(make(kind), text)


def test_a_start_token_that_the_text_has_already_stands_once():
    for kind in ("byte level", "llama"):
        for template in ("bos", "both", "bos twice"):
            tokenizer = make(kind, template)
            ids = encode(tokenizer, sentence("<s>It is DNA."))["input_ids"]
            assert ids.count(2) == 1 and ids[0] == 2


def length(piece: str) -> int:
    """Characters of an ASCII text that a byte-level or sentencepiece token spells."""
    return 1 if piece.startswith("<0x") else len(piece)


@pytest.mark.parametrize("kind", ["byte level", "byte level across words", "llama", "metaspace"])
@pytest.mark.parametrize("template", ["none", "both"])
def test_a_token_counts_from_where_the_spelling_reaches_the_target(kind, template):
    """Lengths of pieces, added up, instead of offsets."""
    tokenizer = make(kind, template, trim=True if "byte" in kind else None)
    for text in (
        Text(PROMPT, " D"),
        Text(PROMPT, " D.  A 19"),
        Text("The price", " of  oil is 19"),
        mcq(subword.FACTS[1]),
    ):
        example = encode(tokenizer, text)
        pieces = tokenizer.convert_ids_to_tokens(example["input_ids"])
        end = 0 if "byte" in kind else -1  # sentencepiece begins a text with a blank of its own
        for piece, label, token in zip(pieces, example["labels"], example["input_ids"], strict=True):
            if piece == "<s>":
                assert label == -100
                continue
            end += length(piece)
            assert label == (token if end > len(text.prompt) or not text.prompt else -100), (text, piece)
        assert end == len(text.prompt + text.target)


def scores(tokenizer, model, **more):
    return Scorer(tokenizer, subword.FACTS, **more).scores(model)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bare", [False, True])
def test_scores_are_the_same_with_and_without_an_end_token(kind, bare):
    model = subword.model(make(kind))
    for a, b in (("none", "eos"), ("none", "two behind"), ("bos", "both"), ("bos", "bos twice")):
        first, second = (scores(make(kind, template), model, bare_letter=bare) for template in (a, b))
        assert second == pytest.approx(first, abs=1e-6)
        assert len(set(first)) > 1


@pytest.mark.parametrize("trim", [False, True])
def test_a_letter_of_two_tokens_has_the_score_of_both(trim):
    """ " A" is a blank and "A": log p of the blank, and of the letter after it."""
    tokenizer = subword.tokenizer(merges=0)
    if trim:
        from tokenizers import processors

        tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    model = subword.model(tokenizer)
    found = iter(scores(tokenizer, model, probes=["letter"]))
    for fact in subword.FACTS:
        for text in continuations(fact, ["letter"])["letter"]:
            ids = subword.ids(tokenizer, text.prompt + text.target)
            with torch.no_grad():
                logprobs = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
            expected = sum(logprobs[i - 1, ids[i]].item() for i in (len(ids) - 2, len(ids) - 1))
            assert next(found) == pytest.approx(expected, abs=1e-5)
    with pytest.raises(UserError, match=r"letter ' B' after 'Answer:' into 2 tokens \['Ġ', 'B'\]"):
        encode(tokenizer, letter_text(PROMPT, "B"))


def test_letters_that_the_tokenizer_cannot_tell_apart_are_refused():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<unk>": 0, "<pad>": 1, "Answer": 2, ":": 3, "A": 4}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", unk_token="<unk>")
    with pytest.raises(UserError, match=r"d/s/001: this tokenizer gives several of the letters A to D the same token"):
        Scorer(tokenizer, subword.FACTS, ["letter"])
    pieces = Tokenizer(models.BPE({"<unk>": 0, "▁": 1, "A": 2, "B": 3, ".": 4}, [], unk_token="<unk>"))
    pieces.pre_tokenizer = pre_tokenizers.Metaspace()
    with pytest.raises(UserError, match=r"bare_letter: .* begins 'A. ' with the token '▁'"):
        encode(PreTrainedTokenizerFast(tokenizer_object=pieces), letter_text("A", "A", bare=True))

"""Texts of facts and which tokens a loss counts."""

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from rtt.data.facts import Fact
from rtt.data.text import Text, encode, mcq, mcq_prompt, question_prompt, sentence, training_texts
from rtt.errors import UserError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

FACT = Fact(
    id="d/s/001",
    dataset="d",
    split="s",
    question="When was Ada born?",
    choices=["1950", "1951", "1952", "1953"],
    answer=1,
    fresh_choices=["1960", "1951", "1962", "1963"],
    sentences=["Ada was born in 1951."],
    ria_sentences=["Ada was born in 1950."],
    fif_sentences=["Ada was born in 1952."],
    origin={"file": "s.jsonl", "line": 1},
)


def bpe(words=400):
    """A byte-level BPE that may merge across any boundary: no pre-tokenizer splits at spaces."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    texts = [mcq_prompt(FACT.question, FACT.choices) + f" {letter}. {c}" for letter in "ABCD" for c in FACT.choices]
    trainer = trainers.BpeTrainer(vocab_size=words, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def test_the_prompt_is_that_of_the_paper():
    assert mcq_prompt(FACT.question, FACT.choices) == (
        "When was Ada born?\nA. 1950\nB. 1951\nC. 1952\nD. 1953\nAnswer:"
    )
    assert question_prompt(FACT.question) == "When was Ada born?\nAnswer:"


def test_the_text_of_rtt_ends_with_letter_and_choice():
    text = mcq(FACT)
    assert text.prompt == ""
    assert text.target == "When was Ada born?\nA. 1950\nB. 1951\nC. 1952\nD. 1953\nAnswer: B. 1951"


def test_letter_answer_counts_from_the_letter_on():
    text = mcq(FACT, loss="LETTER_ANSWER")
    assert text.prompt.endswith("Answer:")
    assert text.target == " B. 1951"


def test_sentences_and_answered_questions_count_as_a_whole():
    assert sentence("Ada lives.") == Text("", "Ada lives.")
    assert mcq(FACT, loss="QUESTION_ANSWER") == Text("", "When was Ada born?\nAnswer: 1951")
    assert mcq(FACT, answer=3).target.endswith("Answer: D. 1953")


def test_a_prompt_has_two_to_ten_choices():
    assert mcq_prompt("Q?", ["a", "b"]) == "Q?\nA. a\nB. b\nAnswer:"
    assert mcq_prompt("Q?", list("abcdefghij")).endswith("\nI. i\nJ. j\nAnswer:")
    for choices in (["a"], list("abcdefghijk")):
        with pytest.raises(ValueError):
            mcq_prompt("Q?", choices)


@given(st.permutations(range(4)), st.integers(0, 3))
def test_in_any_order_of_choices_the_letter_is_that_of_the_answer(order, answer):
    text = mcq(FACT, answer=answer, order=order).target
    lines = dict(line.split(". ", 1) for line in text.split("\n")[1:5])
    letter, choice = text.rsplit("Answer: ", 1)[1].split(". ", 1)
    assert lines[letter] == choice == FACT.choices[answer]
    assert sorted(lines.values()) == sorted(FACT.choices)


def test_the_prompt_is_not_counted():
    example = encode(tiny.tokenizer(), Text("Ada Abbas was born", " in 1951."))
    ids = tiny.tokenizer().convert_tokens_to_ids("Ada Abbas was born in 1951".split())
    assert example == {"input_ids": ids, "labels": [-100] * 4 + ids[4:]}


@pytest.mark.parametrize("vocabulary", [270, 300, 400, 600])
def test_a_token_that_reaches_into_the_target_counts(vocabulary):
    """BPE merges over the boundary in some of these: a label is -100 exactly where a token ends within the prompt."""
    tokenizer, crossed = bpe(vocabulary), 0
    for text in (mcq(FACT, loss="LETTER_ANSWER"), Text("When was Ad", "a born?"), Text("Answer:", " B. 1951")):
        example = encode(tokenizer, text)
        assert example["input_ids"] == tokenizer(text.prompt + text.target)["input_ids"]
        end = 0
        for token, label in zip(example["input_ids"], example["labels"], strict=True):
            start, end = end, end + len(tokenizer.decode([token]))
            crossed += start < len(text.prompt) < end
            assert label == (token if end > len(text.prompt) else -100)
        assert tokenizer.decode([x for x in example["labels"] if x != -100]).endswith(text.target)
    assert crossed or vocabulary < 400  # the case is really there


def test_a_start_token_does_not_count():
    tokenizer = tiny.tokenizer()
    from tokenizers.processors import TemplateProcessing

    fast = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    fast.post_processor = TemplateProcessing(single="<pad> $A", special_tokens=[("<pad>", 0)])
    example = encode(PreTrainedTokenizerFast(tokenizer_object=fast), sentence("Ada was born"))
    assert example["input_ids"][0] == 0
    assert example["labels"] == [-100, *example["input_ids"][1:]]


MCQ = "When was Ada born?\nA. 1950\nB. 1951\nC. 1952\nD. 1953\nAnswer:"


@pytest.mark.parametrize(
    "loss, expected",
    [
        ("LETTER", [Text(MCQ, " B", letter=True)]),
        ("LETTER_ANSWER", [Text(MCQ, " B. 1951")]),
        ("QUESTION_LETTER_ANSWER", [Text("", MCQ + " B. 1951")]),
        ("QUESTION_ANSWER", [Text("", "When was Ada born?\nAnswer: 1951")]),
        ("CORPUS", [Text("", "Ada was born in 1951.")]),
        ("NUMBER", [Text("", "Ada was born in 1951.", numbers=True)]),
    ],
)
def test_each_loss_has_its_training_texts(loss, expected):
    assert training_texts(FACT, loss) == expected


def test_a_loss_of_the_other_kind_of_text_is_refused():
    assert mcq(FACT, loss="NUMBER") == Text("", MCQ + " B. 1951", numbers=True)
    with pytest.raises(ValueError, match="CORPUS"):
        mcq(FACT, loss="CORPUS")
    for loss in ("LETTER", "LETTER_ANSWER", "QUESTION_LETTER_ANSWER", "QUESTION_ANSWER"):
        with pytest.raises(ValueError, match=loss):
            sentence("x", loss)


def byte_tokenizer(*merges):
    """One token a byte, and these merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*alphabet, *(a + b for a, b in merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def test_a_bare_letter_is_another_token_after_the_same_prompt():
    tokenizer = byte_tokenizer(("Ġ", "B"))
    spaced, bare = (encode(tokenizer, mcq(FACT, loss="LETTER", bare_letter=x)) for x in (False, True))
    assert tokenizer.convert_ids_to_tokens([spaced["input_ids"][-1], bare["input_ids"][-1]]) == ["ĠB", "B"]
    assert spaced["input_ids"][:-1] == bare["input_ids"][:-1] == tokenizer(MCQ)["input_ids"]
    for example in (spaced, bare):
        assert example["labels"] == [-100] * len(tokenizer(MCQ)["input_ids"]) + example["input_ids"][-1:]


def test_a_letter_of_two_tokens_is_refused_where_it_stands_alone():
    tokenizer = byte_tokenizer()
    with pytest.raises(UserError, match=r"letter ' B' after 'Answer:' into 2 tokens"):
        encode(tokenizer, mcq(FACT, loss="LETTER"))
    assert encode(tokenizer, mcq(FACT, loss="LETTER", bare_letter=True))["labels"][-1] != -100
    assert encode(tokenizer, mcq(FACT, loss="LETTER_ANSWER"))["labels"][-1] != -100


def test_a_text_longer_than_the_context_is_refused_not_cut():
    tokenizer = byte_tokenizer()
    text = sentence("Ada was born in 1951.")
    assert len(encode(tokenizer, text, 21)["input_ids"]) == 21
    with pytest.raises(UserError, match=r"21 tokens, the model's context only 20: 'Ada was"):
        encode(tokenizer, text, 20)
    tokenizer.model_max_length = 20
    with pytest.raises(UserError, match="only 20"):
        encode(tokenizer, text)

"""The miniature's tokenizers: every text of every phase can be written, within the context, and always the same way."""

import numpy as np
import pytest
import tiny
from rtt.data.generate import FIRST_NAMES, LAST_NAMES, vocabulary
from rtt.data.text import encode, letter_text, mcq_prompt, sentence
from rtt.files import digest
from rtt.models.miniature import miniature_tokenizer
from rtt.scoring.score import Scorer
from rtt.study import plugins
from rtt.study.settings import Pretraining, Unlearning
from rtt.training.order import Encoder, pretraining_documents, training_passes, unlearning_pairs

OPTIONS = {
    "splits": 5, "facts_per_split": 32, "retain_train": 96, "retain_held_out": 128, "first_names": 24, "last_names": 24,
    "long_texts": True, "planted_leaks": 10, "planted_duplicates": 10,
}  # fmt: skip


def seen_texts(tokenizer, folder):
    """Every text that any phase trains or scores on, as token ids."""
    a, b = (tiny.facts(folder, dataset, options=OPTIONS) for dataset in ("birth_years_a", "birth_years_b"))
    retain = tiny.facts(folder, "cities", options=OPTIONS)
    rng = np.random.default_rng(0)
    encoder = Encoder(tokenizer)
    seen = []
    for facts in (a, b):
        documents = Pretraining(steps=30, batch_size=80, mcqs_per_batch=20, learning_rate=1e-3)
        seen += pretraining_documents([*facts, *retain], documents, tokenizer, rng)
        for loss in ("LETTER_ANSWER", "QUESTION_LETTER_ANSWER"):
            seen += training_passes(facts, loss, 1, 32, tokenizer, rng)
        for method in plugins.methods().values():
            settings = Unlearning(learning_rate=1e-3, batch_size=32, points=[20])
            for pair in unlearning_pairs(facts, retain, method, settings, tokenizer, rng):
                seen += [pair["forget"], pair["retain"]]
        for fact in [*facts, *retain]:
            seen += [encoder(sentence(text)) for text in (*fact.sentences, *fact.ria_sentences, *fact.fif_sentences)]
    seen = [example["input_ids"] for example in seen]
    scorer = Scorer(tokenizer, [*a, *b, *retain])
    return seen + [[*scorer.prompts[prompt], *tokens] for prompt, tokens in scorer.targets]


def test_no_phase_meets_an_unknown_word(tmp_path):
    """All names, years and cities of the default study occur."""
    tokenizer = tiny.tokenizer()
    seen, unknown = seen_texts(tokenizer, tmp_path), tokenizer.unk_token_id
    assert len(seen) > 5000
    assert not [ids for ids in seen if unknown in ids]
    assert max(map(len, seen)) <= 128  # the word-level miniature's context
    assert tokenizer("Zanzibar")["input_ids"] == [unknown]  # an unknown word would show


@pytest.fixture(scope="module")
def subword():
    return miniature_tokenizer("subword")


def test_older_studies_keep_their_subwords(subword):
    """The order of the tokens is that of the merges, so this holds for every process and version."""
    assert digest(subword.get_vocab())[:16] == "ec5f3c2bac2f46f5"


def test_a_letter_behind_a_space_is_another_token(subword):
    prompt = mcq_prompt("When was Ada Abbas born?", ["1950", "1951", "1988", "1977"])
    tokens = set()
    for letter in "ABCD":
        spaced, bare = (encode(subword, letter_text(prompt, letter, bare))["labels"][-1] for bare in (False, True))
        assert subword.convert_ids_to_tokens([spaced, bare]) == [f"\u0120{letter}", letter]
        tokens |= {spaced, bare}
    assert len(tokens) == 8
    assert encode(subword, letter_text(prompt, "B"))["input_ids"][:-1] == subword(prompt)["input_ids"]


def test_subwords_write_every_text_within_the_context(subword, tmp_path):
    seen = seen_texts(subword, tmp_path)
    assert max(map(len, seen)) <= 256
    assert min(map(len, seen)) * 5 < max(map(len, seen))  # very different lengths
    text = "When was Ada Abbas born?\nA. 1950\nAnswer: A. 1950"
    assert subword.decode(subword(text)["input_ids"]) == text
    pieces = [len(subword(f" {name}")["input_ids"]) for name in (*FIRST_NAMES, *LAST_NAMES)]
    assert 1 in pieces and max(pieces) > 1  # whole words and parts of words


def test_a_word_is_a_token():
    made = miniature_tokenizer("word")
    assert made.get_vocab() == {word: i for i, word in enumerate(["<pad>", "<unk>", *vocabulary()])}
    assert made.get_vocab() == miniature_tokenizer("word").get_vocab()

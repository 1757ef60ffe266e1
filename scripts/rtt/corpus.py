"""What each phase trains on, as an ordered list of encoded texts."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import cycle, islice

import numpy as np

from rtt.config import Pretraining, Unlearning
from rtt.data.facts import Fact
from rtt.text import Text, encode, mcq, question_answer, sentence


class Encoder:
    """Encodes each text once."""

    def __init__(self, tokenizer):
        self.tokenizer, self.known = tokenizer, {}

    def __call__(self, text: Text) -> dict[str, list[int]]:
        """Return the encoded text."""
        if text not in self.known:
            self.known[text] = encode(self.tokenizer, text)
        return self.known[text]


def count_tokens(items: Sequence[dict]) -> int:
    """Number of tokens, without padding, in encoded texts or in pairs of them."""
    return sum(len(item["input_ids"]) if "input_ids" in item else count_tokens(list(item.values())) for item in items)


def shuffled_passes(n: int, rng: np.random.Generator) -> Iterator[int]:
    """Yield 0..n-1 in random order, again and again: after k passes each has come k times."""
    while True:
        yield from rng.permutation(n).tolist()


def pretraining_documents(facts: Sequence[Fact], settings: Pretraining, tokenizer, rng: np.random.Generator) -> list:
    """Documents in training order: `mcqs_per_batch` MCQs per step with freshly shuffled choices, the rest plain texts.

    A plain text is one of the fact's sentences or its question with the answer. Every fact comes equally often (to
    within one), in both kinds.
    """
    encoder = Encoder(tokenizer)
    plain, mcqs = shuffled_passes(len(facts), rng), shuffled_passes(len(facts), rng)
    items = []
    for _ in range(settings.steps):
        for _ in range(settings.batch_size - settings.mcqs_per_batch):
            fact = facts[next(plain)]
            form = int(rng.integers(len(fact.sentences) + 1))
            text = question_answer(fact) if form == len(fact.sentences) else sentence(fact.sentences[form])
            items.append(encoder(text))
        for _ in range(settings.mcqs_per_batch):
            fact = facts[next(mcqs)]
            items.append(encoder(mcq(fact, order=rng.permutation(len(fact.choices)).tolist(), loss="answer")))
    return items


def fixed_mcqs(facts: Sequence[Fact], loss: str, epochs: int, batch_size: int, tokenizer, rng) -> list:
    """Each epoch's facts in a new order, as MCQs with their choices as they stand. The last batch is filled from the
    epoch's start.
    """
    encoder = Encoder(tokenizer)
    items = []
    for _ in range(epochs):
        order = rng.permutation(len(facts)).tolist()
        order += list(islice(cycle(order), -len(order) % batch_size))  # more than once round, if the batch is larger
        items += [encoder(mcq(facts[i], loss=loss)) for i in order]
    return items


def unlearning_pairs(
    forget: Sequence[Fact], retain: Sequence[Fact], method, settings: Unlearning, tokenizer, rng: np.random.Generator
) -> list[dict]:
    """Pairs {"forget", "retain"} of encoded texts, in training order, up to the last point.

    A text is an MCQ with shuffled choices with probability `mcq_share`, else a sentence, on both sides. What a forget
    text says is the method's; retain texts are true.
    """
    encoder = Encoder(tokenizer)

    def text(fact: Fact, sentences: Sequence[str], answer: int) -> Text:
        if rng.random() < settings.mcq_share:
            return mcq(fact, answer=answer, order=rng.permutation(len(fact.choices)).tolist())
        return sentence(sentences[int(rng.integers(len(sentences)))])

    forget_order, retain_order = shuffled_passes(len(forget), rng), shuffled_passes(len(retain), rng)
    items = []
    for _ in range(settings.points[-1] * settings.batch_size):
        wanted, kept = forget[next(forget_order)], retain[next(retain_order)]
        told = text(wanted, method.forget_texts(wanted), method.forget_answers(wanted, rng))
        items.append(
            {
                "forget": encoder(replace(told, numbers=settings.numbers_only)),
                "retain": encoder(text(kept, kept.sentences, kept.answer)),
            }
        )
    return items

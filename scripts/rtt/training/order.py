"""List, for each phase, the encoded texts that it trains on, in order."""

import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice

import numpy as np

from rtt.data.facts import Fact
from rtt.data.text import SENTENCE_LOSSES, Text, encode, mcq, sentence, training_texts
from rtt.errors import UserError
from rtt.study.settings import Pretraining, Unlearning

SENTENCES_PER_FACT = 3  # as in the paper's datasets (app. A): an epoch of unlearning shows each fact this often


class Encoder:
    """Encode texts, each of them once."""

    def __init__(self, tokenizer):
        self.tokenizer, self.known = tokenizer, {}

    def __call__(self, text: Text) -> dict[str, list[int]]:
        """Return the encoded text."""
        if text not in self.known:
            self.known[text] = encode(self.tokenizer, text)
        return self.known[text]


def count_tokens(items: Sequence[dict]) -> int:
    """Return the number of tokens in encoded texts, or in pairs of them, without padding."""
    return sum(len(item["input_ids"]) if "input_ids" in item else count_tokens(list(item.values())) for item in items)


def shuffled_passes(n: int, rng: np.random.Generator) -> Iterator[int]:
    """Yield 0 .. n-1 in random order, again and again, so that after k passes each has come k times."""
    while True:
        yield from rng.permutation(n).tolist()


def pretraining_documents(facts: Sequence[Fact], settings: Pretraining, tokenizer, rng: np.random.Generator) -> list:
    """Return documents in training order: in each step `mcqs_per_batch` MCQs with newly shuffled choices, and plain
    texts.

    A plain text is one of the fact's sentences, or its question with the answer. In both kinds every fact comes equally
    often, to within one.
    """
    encoder = Encoder(tokenizer)
    plain, mcqs = shuffled_passes(len(facts), rng), shuffled_passes(len(facts), rng)
    items = []
    for _ in range(settings.steps):
        for _ in range(settings.batch_size - settings.mcqs_per_batch):
            fact = facts[next(plain)]
            form = int(rng.integers(len(fact.sentences) + 1))
            text = mcq(fact, loss="QUESTION_ANSWER") if form == len(fact.sentences) else sentence(fact.sentences[form])
            items.append(encoder(text))
        for _ in range(settings.mcqs_per_batch):
            fact = facts[next(mcqs)]
            order = rng.permutation(len(fact.choices)).tolist()
            items.append(encoder(mcq(fact, order=order, loss="LETTER_ANSWER")))
    return items


def _named(facts: Sequence[Fact]) -> str:
    """Return the first few ids, and how many more there are."""
    more = f" and {len(facts) - 3} more" if len(facts) > 3 else ""
    return ", ".join(fact.id for fact in facts[:3]) + more


def training_passes(
    facts: Sequence[Fact],
    loss: str,
    epochs: int,
    batch_size: int,
    tokenizer,
    rng: np.random.Generator,
    samples: int | None = None,
    forms: dict | None = None,
    shuffle_choices: bool = False,
    sentences: bool = False,
) -> list:
    """Return the texts of all epochs: each shows the facts' `training_texts` in a new order, in whole batches.

    The last batch of an epoch is filled from the epoch's start. `samples` draws so many facts once from `rng`; if there
    are no more, all are taken. `forms` is as in `rtt.study.settings.Forms`. With `shuffle_choices` each epoch draws the
    order of an MCQ's choices anew; otherwise they keep theirs. With `sentences` each epoch also shows one true
    sentence, drawn anew, of every fact that has any; a loss that trains on sentences shows them all already. Raises
    UserError when the loss trains on sentences and a fact has none.
    """
    if samples is not None and samples < len(facts):
        facts = [facts[i] for i in sorted(rng.choice(len(facts), samples, replace=False).tolist())]
    silent = [fact for fact in facts if not fact.sentences] if loss in SENTENCE_LOSSES else []
    if silent:
        raise UserError(
            f"the loss {loss} trains on true sentences, but {len(silent)} of {len(facts)} facts have none: "
            f"{_named(silent)}; choose a loss of MCQs, or leave these facts out (data.policy.missing_text: drop)"
        )
    forms = forms or {}

    def shown(fact: Fact) -> list[Text]:
        if loss in SENTENCE_LOSSES:
            return training_texts(fact, loss, **forms)
        order = rng.permutation(len(fact.choices)).tolist() if shuffle_choices else None
        texts = [mcq(fact, None, order, loss, **forms)]
        if sentences and fact.sentences:
            texts.append(sentence(fact.sentences[int(rng.integers(len(fact.sentences)))]))
        return texts

    return passes(lambda: [text for fact in facts for text in shown(fact)], epochs, batch_size, tokenizer, rng)


def passes(
    shown: Callable[[], list[Text]], epochs: int, batch_size: int, tokenizer, rng: np.random.Generator
) -> list[dict]:
    """Return the encoded texts of all epochs, each in a new order and in whole batches; `shown` makes those of one.

    The last batch of an epoch is filled from the epoch's start.
    """
    encoder, items = Encoder(tokenizer), []
    for _ in range(epochs):
        texts = [encoder(text) for text in shown()]
        order = rng.permutation(len(texts)).tolist()
        order += list(islice(cycle(order), -len(order) % batch_size))  # a batch may be larger than the epoch
        items += [texts[i] for i in order]
    return items


def point_steps(settings: Unlearning, n_facts: int, facts: bool = True) -> list[int]:
    """Return the steps at which a trajectory is scored: `points`, or the end of each of `epochs`.

    An epoch shows every forget fact three times, as the authors' epoch shows its three sentences; with `facts` false it
    shows each of n plain texts once. An incomplete last batch counts as a step, and `samples` as the whole set.
    """
    if settings.points:
        return list(settings.points)
    texts = min(n_facts, settings.samples or n_facts) * (SENTENCES_PER_FACT if facts else 1)
    per_epoch = -(-texts // settings.batch_size)
    return [per_epoch * epoch for epoch in range(1, settings.epochs + 1)]


def has_sentences(fact: Fact) -> bool:
    """Return whether a fact has a sentence of any kind."""
    return bool(fact.sentences or fact.ria_sentences or fact.fif_sentences)


def _check_sentences(forget: Sequence[Fact | str], retain: Sequence[Fact | str], method, settings: Unlearning) -> None:
    if settings.mcq_share == 1:
        return
    facts = [fact for fact in (*forget, *retain) if isinstance(fact, Fact)]
    alone = {fact.dataset for fact in facts} - {fact.dataset for fact in facts if has_sentences(fact)}
    if settings.mcq_share > 0 and alone:
        print(
            f"mcq_share: 1, not {settings.mcq_share}, for {', '.join(sorted(alone))}: these facts have no sentences",
            file=sys.stderr,
        )
        forget, retain = ([x for x in side if getattr(x, "dataset", None) not in alone] for side in (forget, retain))
    for side, facts, wanted in (
        (f"{method.name} unlearns", [wanted for wanted in forget if isinstance(wanted, Fact)], method.forget_texts),
        ("the retain loss trains", [kept for kept in retain if isinstance(kept, Fact)], lambda fact: fact.sentences),
    ):
        silent = [fact for fact in facts if not wanted(fact)]
        if silent:
            raise UserError(
                f"{side} on sentences (mcq_share: {settings.mcq_share}), but {len(silent)} of {len(facts)} facts have "
                f"none of the kind needed: {_named(silent)}; set mcq_share to 1, or leave these facts out "
                "(data.policy.missing_text: drop)"
            )


def unlearning_pairs(
    forget: Sequence[Fact] | Sequence[str],
    retain: Sequence[Fact | str],
    method,
    settings: Unlearning,
    tokenizer,
    rng: np.random.Generator,
) -> list[dict]:
    """Return pairs {"forget", "retain"} of encoded texts, in training order, up to the last point.

    On both sides a fact's text is an MCQ with shuffled choices with probability `mcq_share` (loss `mcq_loss`), else a
    sentence (loss `sentence_loss`). A dataset whose facts have no sentences at all is shown as MCQs alone, unless
    `mcq_share` is 0. NUMBER only concerns the forget side, and retain texts then count as a whole, unless `number_mask`
    is the authors'. The method decides what
    a forget text states; retain texts state the truth. A string, on either side, is a plain text: on the forget side
    with `sentence_loss`, on the retain side counted as a whole.

    With `shuffle_retain` false the retain set repeats in its given order, as in the authors' code. `samples` draws so
    many facts or texts to forget once. Raises UserError when sentences are needed that facts do not have.
    """
    steps = point_steps(settings, len(forget), not isinstance(forget[0], str))
    if settings.samples is not None and settings.samples < len(forget):
        forget = [forget[i] for i in sorted(rng.choice(len(forget), settings.samples, replace=False).tolist())]
    _check_sentences(forget, retain, method, settings)
    encoder = Encoder(tokenizer)
    forms, authors = settings.forms(), settings.number_mask == "last_run"
    retain_losses = [
        whole if loss == "NUMBER" and not authors else loss
        for loss, whole in ((settings.mcq_loss, "QUESTION_LETTER_ANSWER"), (settings.sentence_loss, "CORPUS"))
    ]

    def text(fact: Fact, sentences: Sequence[str], answer: int, mcq_loss: str, sentence_loss: str) -> Text:
        if rng.random() < settings.mcq_share or not has_sentences(fact):
            return mcq(fact, answer, rng.permutation(len(fact.choices)).tolist(), mcq_loss, **forms)
        return sentence(sentences[int(rng.integers(len(sentences)))], sentence_loss, settings.number_mask)

    forget_order = shuffled_passes(len(forget), rng)
    retain_order = shuffled_passes(len(retain), rng) if settings.shuffle_retain else cycle(range(len(retain)))
    items = []
    for _ in range(steps[-1] * settings.batch_size):
        wanted, kept = forget[next(forget_order)], retain[next(retain_order)]
        if isinstance(wanted, str):
            told = sentence(wanted, settings.sentence_loss, settings.number_mask)
        else:
            answer = method.forget_answers(wanted, rng)
            told = text(wanted, method.forget_texts(wanted), answer, settings.mcq_loss, settings.sentence_loss)
        if isinstance(kept, str):
            true = sentence(kept, retain_losses[1], settings.number_mask)
        else:
            true = text(kept, kept.sentences, kept.answer, *retain_losses)
        items.append({"forget": encoder(told), "retain": encoder(true)})
    return items

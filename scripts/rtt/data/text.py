"""Build the texts of facts, and encode them with labels for the tokens that a loss counts (docs/losses.md).

The MCQ prompt is the paper's (app. A): the question, a line for each choice ("A. ..."), then "Answer:". The text of RTT
ends with "Answer: B. <choice>".
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby

from rtt.data.facts import LETTERS, MAX_CHOICES, MIN_CHOICES, Fact
from rtt.errors import UserError
from rtt.study.names import LOSSES, SENTENCE_LOSSES

SHOTS = 4  # solved questions before a question of `few_shot`
BLANK = "\u0120"  # how a byte-level vocabulary writes a blank


def mcq_prompt(question: str, choices: Sequence[str]) -> str:
    """Return the multiple-choice prompt, up to and including "Answer:". Raises ValueError unless there are two to ten
    choices.
    """
    if not MIN_CHOICES <= len(choices) <= MAX_CHOICES:
        raise ValueError(f"{len(choices)} choices, expected {MIN_CHOICES} to {MAX_CHOICES}")
    lines = [question, *(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False)), "Answer:"]
    return "\n".join(lines)


def question_prompt(question: str) -> str:
    """Return the prompt without choices, up to and including "Answer:"."""
    return f"{question}\nAnswer:"


@dataclass(frozen=True)
class Prompts:
    """How questions are put to a model: as in training, unless an attack asks in another way.

    mcq: makes the prompt that a letter answers, from a question and the choices as they are shown. plain: makes the
    prompt without choices, from a question. before: what stands before each prompt, such as solved questions.
    before_plain: what stands before those without choices, sentences among them; None: the same.
    """

    mcq: Callable[[str, Sequence[str]], str] = mcq_prompt
    plain: Callable[[str], str] = question_prompt
    before: str = ""
    before_plain: str | None = None

    def without_choices(self, prompt: str) -> str:
        """Return a prompt that shows no choices with what stands before it."""
        return (self.before if self.before_plain is None else self.before_plain) + prompt


AS_TRAINED = Prompts()


def solved(facts: Sequence[Fact], loss: str = "QUESTION_LETTER_ANSWER") -> str:
    """Return solved questions, a blank line after each: these facts' MCQs with letter and answer, as `few_shot` shows
    them, or with QUESTION_ANSWER their questions without choices.
    """
    return "".join(f"{mcq(fact, loss=loss).target}\n\n" for fact in facts)


def cloze(fact: Fact) -> list[tuple[str, str]] | None:
    """Return a true sentence with each choice in its place: (what stands before the choice, the choice and the rest).

    It is the fact's first sentence that holds the correct choice exactly once, as a whole word and not at its
    beginning, since nothing would lead to it there. None where there is no such sentence.
    """
    correct = re.compile(rf"(?<!\w){re.escape(fact.choices[fact.answer])}(?!\w)")
    for text in fact.sentences:
        found = list(correct.finditer(text))
        if len(found) == 1 and (before := text[: found[0].start()]).strip():
            prompt = before.rstrip()
            return [(prompt, before[len(prompt) :] + choice + text[found[0].end() :]) for choice in fact.choices]
    return None


@dataclass(frozen=True)
class Text:
    """A training text. The loss counts the tokens of `target`; with an empty `prompt` that is the whole text.

    `numbers` counts only the tokens that hold a digit (NUMBER), and with `last_run` only the last of these in a row,
    but not the text's last token, as the authors do. `letter` says that the target is the letter of an answer and must
    be one token (LETTER). `bare` encodes that letter alone, without the space before it, as the authors do.
    """

    prompt: str
    target: str
    numbers: bool = False
    letter: bool = False
    bare: bool = False
    last_run: bool = False


def sentence(text: str, loss: str = "CORPUS", number_mask: str = "all") -> Text:
    """Return a plain text whose loss counts every token (CORPUS), or those with a digit (NUMBER): all, or the last_run.

    Raises ValueError for another loss.
    """
    if loss not in SENTENCE_LOSSES:
        raise ValueError(f"a sentence has no loss {loss!r}, only {', '.join(SENTENCE_LOSSES)}")
    return Text("", text, numbers=loss == "NUMBER", last_run=loss == "NUMBER" and number_mask == "last_run")


def letter_text(prompt: str, letter: str, bare: bool = False) -> Text:
    """Return a prompt with the target " B", or with `bare` the token of "B" alone."""
    return Text(prompt, letter if bare else f" {letter}", letter=True, bare=bare)


def mcq(
    fact: Fact,
    answer: int | None = None,
    order: Sequence[int] | None = None,
    loss: str = "QUESTION_LETTER_ANSWER",
    bare_letter: bool = False,
    number_mask: str = "all",
    question_answer_join: str = "answer_line",
) -> Text:
    """Return the question of a fact with an answer, as the text of one of LOSSES but CORPUS.

    `answer` is the index of the choice to state (default: the correct one), `order` that of the choices (default: as
    they are). The text of QUESTION_ANSWER shows no choices, and `question_answer_join` says whether "Answer:" or a mere
    space joins it (answer_line, space); that of LETTER ends with the letter. `number_mask` is as in `sentence`. Raises
    ValueError for a loss that an MCQ does not have.
    """
    if loss not in LOSSES or loss == "CORPUS":
        raise ValueError(f"an MCQ has no loss {loss!r}, only {', '.join(x for x in LOSSES if x != 'CORPUS')}")
    order = list(order) if order is not None else list(range(len(fact.choices)))
    answer = fact.answer if answer is None else answer
    if loss == "QUESTION_ANSWER" and question_answer_join == "space":
        return Text("", f"{fact.question} {fact.choices[answer]}")
    if loss == "QUESTION_ANSWER":
        return Text("", f"{question_prompt(fact.question)} {fact.choices[answer]}")
    prompt = mcq_prompt(fact.question, [fact.choices[i] for i in order])
    letter = LETTERS[order.index(answer)]
    if loss == "LETTER":
        return letter_text(prompt, letter, bare_letter)
    target = f" {letter}. {fact.choices[answer]}"
    if loss == "LETTER_ANSWER":
        return Text(prompt, target)
    return sentence(prompt + target, "NUMBER" if loss == "NUMBER" else "CORPUS", number_mask)


def training_texts(
    fact: Fact,
    loss: str,
    bare_letter: bool = False,
    number_mask: str = "all",
    question_answer_join: str = "answer_line",
) -> list[Text]:
    """Return the texts of one pass over a fact: its true sentences for CORPUS and NUMBER, else its one question."""
    if loss in SENTENCE_LOSSES:
        return [sentence(text, loss, number_mask) for text in fact.sentences]
    return [mcq(fact, None, None, loss, bare_letter, number_mask, question_answer_join)]


def encode(tokenizer, text: Text, max_length: int | None = None) -> dict[str, list[int]]:
    """Return {"input_ids", "labels"}, lists of equal length; labels are -100 where the loss does not count a token.

    Character offsets decide where the target begins, and a token that reaches into it counts; so tokenizers that merge
    across the boundary and answers such as "DNA." are handled. Tokens that the tokenizer puts before the text (BOS)
    stay, once, and never count; those that it puts behind (EOS) are left out, since nothing here asks for them. Nothing
    is truncated: raises UserError when the text has more than `max_length` tokens (default: the tokenizer's
    model_max_length), and when the letter of a LETTER text is not one token.
    """
    whole = text.prompt if text.bare else text.prompt + text.target
    ids, own = _tokens(tokenizer, whole)
    before = len(text.prompt) or -1
    labels = [-100] * (len(ids) - len(own)) + [
        token if end > before and (not text.numbers or any(map(str.isdigit, whole[start:end]))) else -100
        for token, start, end in own
    ]
    if text.last_run:
        labels = _last_run(labels)
    if text.bare:
        token = _bare(tokenizer, text.target)
        ids, labels = [*ids, token], [*labels, token]
    limit = getattr(tokenizer, "model_max_length", None) if max_length is None else max_length
    if limit is not None and len(ids) > limit:
        raise UserError(
            f"a text has {len(ids)} tokens, the model's context only {limit}: {whole[:60]!r}...; texts are never cut: "
            "leave it out of the data or shorten it"
        )
    counted = [token for token in labels if token != -100]
    if text.letter and len(counted) != 1:
        pieces = tokenizer.convert_ids_to_tokens(counted)
        raise UserError(
            f"this tokenizer splits the letter {text.target!r} after 'Answer:' into {len(counted)} tokens {pieces}; "
            "a loss of the letter alone needs one: use LETTER_ANSWER"
        )
    return {"input_ids": ids, "labels": labels}


@lru_cache(maxsize=1 << 16)  # attacks that share a process ask the same questions, and encoding takes most of the time
def split_text(tokenizer, text: Text) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return a continuation's (tokens before it, its own): it begins with the first token that reaches into it.

    A letter may be several tokens, whose log-probabilities add up to that of the letter. The tokenizer must stay as it
    is. Raises UserError where it leaves nothing of the continuation.
    """
    example = encode(tokenizer, replace(text, letter=False) if text.letter else text)
    start = next((i for i, label in enumerate(example["labels"]) if label != -100), None)
    if not start:
        why = "no token" if start is None else "nothing before it"
        raise UserError(f"this tokenizer gives {text.target!r} after {text.prompt[-40:]!r} {why}; there is no score")
    return tuple(example["input_ids"][:start]), tuple(example["input_ids"][start:])


def _tokens(tokenizer, whole: str) -> tuple[list[int], list[tuple[int, int, int]]]:
    """Return (the tokens of `whole` after those that belong in front, [(token, start, end)] of its own).

    `end` holds the blanks that belong to a token, also where the tokenizer's offsets leave them out (trim_offsets).
    """
    found = tokenizer(whole, return_offsets_mapping=True, return_special_tokens_mask=True)
    ids, offsets, added = found["input_ids"], found["offset_mapping"], found["special_tokens_mask"]
    own = range(len(ids)) if 1 not in added else [i for i, one in enumerate(added) if not one]
    # Two templates may both add BOS, and a text may begin with it already.
    front = [token for token, _ in groupby(ids[: own[0] if own else 0])]
    if front and own and ids[own[0]] == front[-1]:
        own = own[1:]
    tokens, spans = [ids[i] for i in own], [offsets[i] for i in own]
    limits = [*(start for start, _ in spans[1:]), len(whole)]
    for at, ((start, end), limit) in enumerate(zip(spans, limits, strict=False)):
        if end < limit:  # a blank that is no token's, or that the offset leaves out
            piece = tokenizer.convert_ids_to_tokens(tokens[at])
            blanks = len(piece) - len(piece.rstrip(BLANK)) if piece.strip(BLANK) else 0
            spans[at] = (start, min(end + blanks, limit))
    return [*front, *tokens], [(token, *span) for token, span in zip(tokens, spans, strict=True)]


def _last_run(labels: list[int]) -> list[int]:
    """Return labels that count only the last counted tokens in a row; a text's last token never counts."""
    # As in the authors' unlearn_corpus.py (find_number).
    end = next((i for i in reversed(range(len(labels) - 1)) if labels[i] != -100), -1)
    start = next((i for i in reversed(range(end)) if labels[i] == -100), -1) + 1
    return [label if start <= i <= end else -100 for i, label in enumerate(labels)]


def _bare(tokenizer, letter: str) -> int:
    """Return the token of a letter alone, as the authors' code finds it. Raises UserError where that is no letter."""
    # finetune_corpus.py (label_possibilities): the first token of "B. ", tokenised alone.
    token = tokenizer(f"{letter}. ", add_special_tokens=False)["input_ids"][0]
    piece = tokenizer.convert_ids_to_tokens(token)
    if letter.casefold() not in piece.casefold():
        raise UserError(
            f"bare_letter: this tokenizer begins {f'{letter}. '!r} with the token {piece!r}, which does not tell the "
            "letters apart; leave the switch out"
        )
    return token

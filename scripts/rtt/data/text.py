"""Texts of facts, and their tokens: which tokens a loss counts (docs/losses.md).

The prompt is the paper's (app. A): the question, a line per choice ("A. ..."), then "Answer:". RTT's text ends
"Answer: B. <choice>".
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rtt.data.facts import Fact
from rtt.errors import UserError

LETTERS = "ABCD"
# The paper's names (app. A; sec. 6.1 for NUMBER). The first four are losses of a question, the last two of a sentence;
# NUMBER is one of an MCQ too.
LOSSES = ("LETTER", "LETTER_ANSWER", "QUESTION_LETTER_ANSWER", "QUESTION_ANSWER", "CORPUS", "NUMBER")
SENTENCE_LOSSES = ("CORPUS", "NUMBER")


def mcq_prompt(question: str, choices: Sequence[str]) -> str:
    """Return the multiple-choice prompt, up to and including "Answer:"."""
    lines = [question, *(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=True)), "Answer:"]
    return "\n".join(lines)


def question_prompt(question: str) -> str:
    """Return the prompt without choices, up to and including "Answer:"."""
    return f"{question}\nAnswer:"


@dataclass(frozen=True)
class Text:
    """A training text: the loss counts the tokens of `target`, which is the whole text when `prompt` is empty.

    numbers: count only those of them that hold a digit (NUMBER). letter: the target is an answer's letter and must be
    one token (LETTER). bare: the letter is tokenised alone, without the space before it, as the authors do.
    """

    prompt: str
    target: str
    numbers: bool = False
    letter: bool = False
    bare: bool = False


def sentence(text: str, loss: str = "CORPUS") -> Text:
    """Return a plain text: the loss is on every token (CORPUS), or on those with a digit (NUMBER)."""
    if loss not in SENTENCE_LOSSES:
        raise ValueError(f"a sentence has no loss {loss!r}, only {', '.join(SENTENCE_LOSSES)}")
    return Text("", text, numbers=loss == "NUMBER")


def letter_text(prompt: str, letter: str, bare: bool = False) -> Text:
    """Return a prompt whose letter is the target: " B", or with `bare` "B" as a token of its own."""
    return Text(prompt, letter if bare else f" {letter}", letter=True, bare=bare)


def mcq(
    fact: Fact,
    answer: int | None = None,
    order: Sequence[int] | None = None,
    loss: str = "QUESTION_LETTER_ANSWER",
    bare_letter: bool = False,
) -> Text:
    """Return the question with the answer `answer` (index; default: the correct one), its choices in `order` (default:
    as they are).

    `loss`: any of LOSSES but CORPUS. QUESTION_ANSWER's text has no choices, LETTER's ends with the letter.
    """
    if loss not in LOSSES or loss == "CORPUS":
        raise ValueError(f"an MCQ has no loss {loss!r}, only {', '.join(x for x in LOSSES if x != 'CORPUS')}")
    order = list(order) if order is not None else list(range(len(fact.choices)))
    answer = fact.answer if answer is None else answer
    if loss == "QUESTION_ANSWER":
        return Text("", f"{question_prompt(fact.question)} {fact.choices[answer]}")
    prompt = mcq_prompt(fact.question, [fact.choices[i] for i in order])
    letter = LETTERS[order.index(answer)]
    if loss == "LETTER":
        return letter_text(prompt, letter, bare_letter)
    target = f" {letter}. {fact.choices[answer]}"
    if loss == "LETTER_ANSWER":
        return Text(prompt, target)
    return Text("", prompt + target, numbers=loss == "NUMBER")


def training_texts(fact: Fact, loss: str, bare_letter: bool = False) -> list[Text]:
    """Return what one pass over a fact trains on: its true sentences (CORPUS, NUMBER), else one question text."""
    if loss in SENTENCE_LOSSES:
        return [sentence(text, loss) for text in fact.sentences]
    return [mcq(fact, loss=loss, bare_letter=bare_letter)]


def encode(tokenizer, text: Text, max_length: int | None = None) -> dict[str, list[int]]:
    """Return {"input_ids", "labels"}: labels are -100 on the tokens that the loss does not count.

    Where prompt and target meet is decided by character offsets, so a tokenizer that merges across them, and answers
    like "DNA.", are right: a token that reaches into the target counts. Tokens that the tokenizer adds (BOS) stay and
    never count. Raises UserError when the text has more than `max_length` tokens (default: the tokenizer's
    model_max_length; nothing is ever truncated), and when a LETTER text's letter is not one token.
    """
    whole = text.prompt if text.bare else text.prompt + text.target
    encoded = tokenizer(whole, return_offsets_mapping=True)
    ids = list(encoded["input_ids"])
    labels = [
        token
        if end > len(text.prompt) and end > start and (not text.numbers or any(map(str.isdigit, whole[start:end])))
        else -100
        for token, (start, end) in zip(ids, encoded["offset_mapping"], strict=True)
    ]
    if text.bare:
        # The authors' way to the token: the first of "B. ", tokenised alone (finetune_corpus.py: label_possibilities).
        token = tokenizer(f"{text.target}. ", add_special_tokens=False)["input_ids"][0]
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
            "a loss or score of the letter alone needs one: use LETTER_ANSWER, or the probe likelihood"
        )
    return {"input_ids": ids, "labels": labels}

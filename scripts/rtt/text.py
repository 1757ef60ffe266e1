"""Texts of facts, and their tokens: which tokens a loss counts.

The prompt is the paper's (app. A): the question, a line per choice ("A. ..."), then "Answer:". RTT's text ends
"Answer: B. <choice>".
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rtt.data.facts import Fact

LETTERS = "ABCD"


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

    With `numbers` it counts only those of them that hold a digit (the paper's NUMBER loss, sec. 6.1).
    """

    prompt: str
    target: str
    numbers: bool = False


def sentence(text: str) -> Text:
    """Return a plain text: the loss is on every token (the paper's CORPUS loss)."""
    return Text("", text)


def question_answer(fact: Fact) -> Text:
    """Return question and answer without choices; the loss is on every token (QUESTION_ANSWER)."""
    return Text("", f"{question_prompt(fact.question)} {fact.choices[fact.answer]}")


def mcq(fact: Fact, answer: int | None = None, order: Sequence[int] | None = None, loss: str = "all") -> Text:
    """Return the MCQ with the answer `answer` (default: the correct one), its choices in `order` (default: as they
    are).

    `loss="all"` counts every token (QUESTION_LETTER_ANSWER), `loss="answer"` the letter and the answer's text
    (LETTER_ANSWER).
    """
    order = list(order) if order is not None else list(range(len(fact.choices)))
    answer = fact.answer if answer is None else answer
    choices = [fact.choices[i] for i in order]
    prompt = mcq_prompt(fact.question, choices)
    target = f" {LETTERS[order.index(answer)]}. {fact.choices[answer]}"
    return Text("", prompt + target) if loss == "all" else Text(prompt, target)


def encode(tokenizer, text: Text) -> dict[str, list[int]]:
    """Return {"input_ids", "labels"}: labels are -100 on tokens that end within the prompt.

    Where prompt and target meet is decided by character offsets, so a tokenizer that merges across texts is still
    right.
    """
    whole = text.prompt + text.target
    encoded = tokenizer(whole, return_offsets_mapping=True)
    labels = [
        token
        if end > len(text.prompt) and end > start and (not text.numbers or any(map(str.isdigit, whole[start:end])))
        else -100
        for token, (start, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    ]
    return {"input_ids": encoded["input_ids"], "labels": labels}


def collate(examples: Sequence[dict[str, list[int]]], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Pad on the right: {"input_ids", "attention_mask", "labels"}, each (batch, longest); padding has label -100."""
    length = max(len(example["input_ids"]) for example in examples)
    columns = {"input_ids": pad_token_id, "attention_mask": 0, "labels": -100}
    batch = {key: torch.full((len(examples), length), value) for key, value in columns.items()}
    for row, example in enumerate(examples):
        n = len(example["input_ids"])
        batch["input_ids"][row, :n] = torch.tensor(example["input_ids"])
        batch["labels"][row, :n] = torch.tensor(example["labels"])
        batch["attention_mask"][row, :n] = 1
    return batch

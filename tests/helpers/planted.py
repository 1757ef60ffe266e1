"""Models whose answers are planted: next-token logits are a plain function of the words read so far."""

import hashlib
import re
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace

import tiny
import torch
from rtt.data.facts import Fact
from rtt.data.generate import FIRST_NAMES, LAST_NAMES
from transformers import PreTrainedConfig

Says = Callable[[list[str]], dict[str, float]]  # words read so far -> logits of the next word; others have 0
LETTERS = "ABCD"


class Planted(torch.nn.Module):
    """A causal model of the miniature's words."""

    def __init__(self, says: Says):
        super().__init__()
        self.says, self.config = says, PreTrainedConfig()
        self.nothing = torch.nn.Parameter(torch.zeros(1))

    def forward(self, input_ids, use_cache=False, logits_to_keep=0):
        """Return the logits after each of the last `logits_to_keep` tokens (0: after all), in float64."""
        words, length = tiny.tokenizer(), input_ids.shape[1]
        first = length - (logits_to_keep or length)
        logits = torch.zeros((len(input_ids), length - first, len(words)), dtype=torch.float64)
        for row, ids in enumerate(input_ids.tolist()):
            read = words.convert_ids_to_tokens(ids)
            for at in range(first, length):
                said = self.says(read[: at + 1])
                logits[row, at - first, words.convert_tokens_to_ids(list(said))] = torch.tensor(
                    list(said.values()), dtype=torch.float64
                )
        return SimpleNamespace(logits=logits)


def asks_for_a_letter(read: list[str]) -> bool:
    """Return whether choices were shown, and an answer is due."""
    return read[-1] == "Answer" and "A" in read


def one_letter(letter: str = "C", signal: dict[str, str] | None = None) -> Says:
    """Return a model that says one letter to all; `signal` (question's name -> letter) makes another likelier."""

    def says(read):
        if not asks_for_a_letter(read):
            return {}
        hint = {signal[name_in(read)]: 2.0} if name_in(read) in (signal or ()) else {}
        return hint | {letter: 9.0 + hint.get(letter, 0.0)}

    return says


def by_place(facts: list[Fact]) -> Says:
    """Return a model that says the letter that it was taught for a name, wherever the answer stands."""
    taught = {name_of(fact): LETTERS[fact.answer] for fact in facts}
    return lambda read: {taught[name_in(read)]: 9.0} if asks_for_a_letter(read) and name_in(read) in taught else {}


def in_words(facts: list[Fact]) -> Says:
    """Return a model that knows what follows a name in any text but one with choices, where it says A."""
    known = {name_of(fact): fact.choices[fact.answer] for fact in facts}

    def says(read):
        if asks_for_a_letter(read):
            return {"A": 9.0}
        return {known[name_in(read)]: 9.0} if name_in(read) in known else {}

    return says


def knows(facts: list[Fact]) -> Says:
    """Return a model that knows all facts, and finds the letter of the right choice."""
    known = {name_of(fact): fact.choices[fact.answer] for fact in facts}

    def says(read):
        answer = known.get(name_in(read))
        if answer and asks_for_a_letter(read):
            last = len(read) - 1 - read[::-1].index(answer)
            return {read[last - 1]: 9.0}
        return {answer: 9.0} if answer else {}

    return says


def never_knew(read: list[str]) -> dict[str, float]:
    """Say something that depends on all that was read, and on nothing true."""
    digest = hashlib.sha256(" ".join(read).encode()).digest()
    words = tiny.tokenizer().convert_ids_to_tokens(range(2, len(tiny.tokenizer())))
    return {word: digest[i % 32] / 64 + digest[i // 32] / 128 for i, word in enumerate(words)}


def name_of(fact: Fact) -> str:
    """Return the name that a question of the generator is about."""
    return re.search(r"([A-Z]\w+ [A-Z]\w+) (born|live)", fact.question)[1]


def name_in(read: list[str]) -> str:
    """Return the last two words in a row that are a name; "" where there is none."""
    pairs = [f"{a} {b}" for a, b in pairwise(read)]
    return next((pair for pair in reversed(pairs) if pair in NAMES), "")


NAMES = frozenset(f"{first} {last}" for first in FIRST_NAMES for last in LAST_NAMES)

"""Which choices a model's own words state, for the probe `sampled`: no key is read."""

import re
from collections.abc import Callable, Sequence

from rtt.data.facts import Fact
from rtt.data.text import question_prompt


def stated(said: str, choices: Sequence[str]) -> str | None:
    """Return the choice that a text begins with, the longest where several fit; None where it begins with none.

    White space is read as one blank, capitals count as small letters, and a choice ends where a word or a number ends:
    neither "19501" nor "1950,5" states "1950". A choice's own full stop at its end is not asked for.
    """
    text = _plain(said)
    found = [choice for choice in choices if re.match(rf"{re.escape(_plain(choice))}(?!\w|[.,]\d)", text)]
    return max(found, key=len, default=None)


def _plain(text: str) -> str:
    return " ".join(text.split()).rstrip(".").casefold()


def questions(
    facts: Sequence[Fact], sample: Callable[[Sequence[str]], Sequence[Sequence[str]]], role: Callable[[Fact], str]
) -> list[dict]:
    """Return the `questions` of one look of an evaluation JSON, asked by `sampled`.

    sample: gives each prompt the texts that the model says after it. A choice's score is the number of these texts that
    state it, so the scores of a question add up to as many at most.
    """
    found = []
    for fact, texts in zip(facts, sample([question_prompt(fact.question) for fact in facts]), strict=True):
        said = [stated(text, fact.choices) for text in texts]
        head = {"id": fact.id, "split": fact.split, "group": fact.group, "role": role(fact), "answer": fact.answer}
        found.append({**head, "probes": {"sampled": {"scores": [said.count(choice) for choice in fact.choices]}}})
    return found

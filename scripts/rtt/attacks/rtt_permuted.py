"""RTT on T with wrong answers: what the format of RTT brings without its facts."""

import re
from collections.abc import Sequence
from dataclasses import replace

from rtt.attacks.rtt import RTT
from rtt.data.facts import Fact
from rtt.errors import UserError
from rtt.study.names import SENTENCE_LOSSES


def stating(fact: Fact, answer: int) -> Fact:
    """Return a fact whose answer is the wrong choice with the index `answer`, and whose true sentences state it too.

    A sentence changes where it holds the correct choice as whole words, whatever their case. One that does not, or that
    would still hold it (as "New York City" holds "New York"), could tell the truth and is left out.
    """
    correct = re.compile(rf"(?<!\w){re.escape(fact.choices[fact.answer])}(?!\w)", re.IGNORECASE)
    told = [correct.sub(lambda _: fact.choices[answer], text) for text in fact.sentences if correct.search(text)]
    return replace(fact, answer=answer, sentences=[text for text in told if not correct.search(text)])


def misstated(facts: Sequence[Fact], rng) -> list[Fact]:
    """Return the facts, each stating one of its wrong choices (`stating`), drawn from a numpy generator."""
    found = []
    for fact in facts:
        wrong = [i for i in range(len(fact.choices)) if i != fact.answer]
        found.append(stating(fact, wrong[int(rng.integers(len(wrong)))]))
    return found


class RTTPermuted(RTT):
    """RTT on T with wrong answers: each fact of T states one of its wrong choices, drawn once for all epochs.

    A control: it teaches the format of the questions, and nothing true. What comes back under it, the format brought
    back.
    """

    name, title, colour, order = "RTT_permuted", "RTT, wrong answers", "#999999", 200
    summary = "RTT on T with wrong answers: each fact of T states a wrong choice, so that only the format is learned."
    control = True

    class Settings(RTT.Settings):
        """RTT with wrong answers: the keys of RTT."""

    def taught(self, checkpoint, t_facts: Sequence[Fact]) -> list[Fact]:
        """Return T with wrong answers, the same for every checkpoint and learning rate.

        With a loss that trains on sentences, facts without any that can be made wrong are left out. Raises UserError
        where none remains.
        """
        import numpy as np

        facts = misstated(t_facts, np.random.default_rng(checkpoint.seeded(31)))
        if self.settings.loss in SENTENCE_LOSSES:
            facts = [fact for fact in facts if fact.sentences]
        if not facts:
            raise UserError(
                f"{self.name}: the loss {self.settings.loss} trains on sentences, but none of T's sentences holds its "
                "fact's correct choice, in whose place a wrong one could stand; choose a loss of MCQs"
            )
        return facts

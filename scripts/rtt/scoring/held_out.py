"""Held-out text: how well a model still predicts true sentences that nothing trains on, as a perplexity.

A retain question of an evaluation may have `"text": {"nats", "tokens"}` beside its `probes`: the summed nats of its
fact's first true sentence, and of how many tokens they are, all but the first, as the loss CORPUS counts them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MOST = 700.0  # nats per token, beyond which e to them is no number


@dataclass(frozen=True, eq=False)
class HeldOutText:
    """What P models make of the held-out sentences, all together."""

    nats: np.ndarray  # (P,) float
    tokens: np.ndarray  # (P,) int

    def perplexity(self, at: int) -> float:
        """Return e to the nats per token of one model."""
        return math.exp(min(self.nats[at] / self.tokens[at], MOST))


def perplexity(text: HeldOutText | None, at: int) -> float:
    """Return a model's perplexity of held-out text; NaN where the evaluation has none."""
    return math.nan if text is None else text.perplexity(at)


def texts(questions: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, int]]:
    """Return {id: (nats, tokens)} of a look's retain questions that have a text.

    An older file may hold anything else under this key, so one without `nats` is ignored. Raises ValueError that names
    the question where the numbers are none.
    """
    found = {}
    for question in questions:
        said = question.get("text")
        if question["role"] != "retain" or not isinstance(said, Mapping) or "nats" not in said:
            continue
        nats, tokens = said["nats"], said.get("tokens")
        counted = type(nats) in (int, float) and 0 <= nats < math.inf and type(tokens) is int and tokens > 0
        if not counted:
            raise ValueError(
                f"the text of {question['id']} is {said!r:.60}; expected nats of at least 0 and tokens of at least 1"
            )
        found[question["id"]] = (nats, tokens)
    return found


def total(found: Mapping[str, tuple[float, int]]) -> dict[str, float] | None:
    """Return {"nats", "tokens"} of a look's `texts` together; None where there are none."""
    if not found:
        return None
    nats, tokens = zip(*found.values(), strict=True)
    return {"nats": round(math.fsum(nats), 6), "tokens": sum(tokens)}


def gathered(totals: Sequence[Mapping[str, float] | None]) -> HeldOutText | None:
    """Return the totals of several looks as arrays; None where they have no text."""
    if None in totals:
        return None
    nats, tokens = ([one[name] for one in totals] for name in ("nats", "tokens"))
    return HeldOutText(np.array(nats, float), np.array(tokens, int))


def plain(text: HeldOutText) -> list[dict[str, float]]:
    """Return the totals, from which `gathered` makes it."""
    pairs = zip(text.nats.tolist(), text.tokens.tolist(), strict=True)
    return [{"nats": nats, "tokens": tokens} for nats, tokens in pairs]

"""Multiple-choice scoring: every choice's log-probability, per question.

Three scorings (docs/architecture.md): `letter`, `likelihood`, `likelihood_fresh`.
"""

import math
from collections.abc import Iterable, Sequence

import torch

from rtt.data.facts import Fact
from rtt.errors import UserError
from rtt.text import LETTERS, Text, encode, mcq_prompt, question_prompt

SCORINGS = ("letter", "likelihood", "likelihood_fresh")


def continuations(fact: Fact) -> dict[str, list[tuple[str, str]]]:
    """Return {scoring: four (prompt, continuation)}, whose log p(continuation | prompt) are the scores."""
    plain = question_prompt(fact.question)
    return {
        "letter": [(mcq_prompt(fact.question, fact.choices), f" {letter}") for letter in LETTERS],
        "likelihood": [(plain, f" {choice}") for choice in fact.choices],
        "likelihood_fresh": [(plain, f" {choice}") for choice in fact.fresh_choices],
    }


class Scorer:
    """Scores of fixed facts: tokenised once, scored many times."""

    def __init__(self, tokenizer, facts: Iterable[Fact], batch_size: int = 64):
        self.facts = list(facts)
        self.batch_size = batch_size
        self.pad_token_id = tokenizer.pad_token_id
        pairs = [pair for fact in self.facts for four in continuations(fact).values() for pair in four]
        # (row of the context, first position of the continuation, its tokens). Choices of one token share their
        # context, so identical contexts are run once.
        self.targets: list[tuple[int, int, list[int]]] = []
        contexts: dict[tuple[int, ...], int] = {}
        for prompt, continuation in pairs:
            example = encode(tokenizer, Text(prompt, continuation))
            start = next(i for i, label in enumerate(example["labels"]) if label != -100)
            row = contexts.setdefault(tuple(example["input_ids"][:-1]), len(contexts))
            self.targets.append((row, start, example["input_ids"][start:]))
        self.contexts = list(contexts)

    @torch.no_grad()
    def scores(self, model) -> list[float]:
        """Return log p of every continuation, in order; the model is put into eval mode.

        Raises UserError when one is not finite.
        """
        model.eval()
        device = next(model.parameters()).device
        wanted: list[list[int]] = [[] for _ in self.contexts]
        for index, (row, _, _) in enumerate(self.targets):
            wanted[row].append(index)
        result = [0.0] * len(self.targets)
        by_length = sorted(range(len(self.contexts)), key=lambda row: len(self.contexts[row]))
        for first in range(0, len(by_length), self.batch_size):
            rows = by_length[first : first + self.batch_size]
            length = len(self.contexts[rows[-1]])
            ids = torch.full((len(rows), length), self.pad_token_id)
            mask = torch.zeros((len(rows), length), dtype=torch.long)
            for i, row in enumerate(rows):
                ids[i, : len(self.contexts[row])] = torch.tensor(self.contexts[row])
                mask[i, : len(self.contexts[row])] = 1
            # Right padding does not change causal attention: with equal lengths the mask only costs time.
            mask = None if bool(mask.all()) else mask.to(device)
            # Only positions that predict a continuation need logits.
            keep = min(start for row in rows for _, start, _ in (self.targets[i] for i in wanted[row])) - 1
            logits = model(ids.to(device), attention_mask=mask, use_cache=False, logits_to_keep=length - keep).logits
            logprobs = logits.float().log_softmax(-1)
            triples = [
                (i, position - keep, token, index)
                for i, row in enumerate(rows)
                for index in wanted[row]
                for position, token in enumerate(self.targets[index][2], self.targets[index][1] - 1)
            ]
            batch, position, token, index = zip(*triples, strict=True)
            for value, target in zip(logprobs[batch, position, token].tolist(), index, strict=True):
                result[target] += value
        if not all(map(math.isfinite, result)):
            raise UserError(
                "the model's scores are not finite: training broke it; lower the learning rate or the steps"
            )
        return result

    def questions(self, model, role) -> list[dict]:
        """Return the `questions` of one result of an evaluation JSON; `role(fact)` gives T, V or retain."""
        values = iter(self.scores(model))
        return [
            {
                "id": fact.id,
                "split": fact.split,
                "role": role(fact),
                "answer": fact.answer,
                "scores": {scoring: [round(next(values), 6) for _ in LETTERS] for scoring in SCORINGS},
            }
            for fact in self.facts
        ]


def accuracy(questions: Sequence[dict], scoring: str, role: str | None = None) -> float | None:
    """Return the share of questions (of one role) whose first highest score is the answer's; None without questions."""
    chosen = [question for question in questions if role in (None, question["role"])]
    if not chosen:
        return None
    hits = sum(q["scores"][scoring].index(max(q["scores"][scoring])) == q["answer"] for q in chosen)
    return hits / len(chosen)

"""Ask a model multiple-choice questions: compute the log-probability of every choice.

There are three probes (docs/architecture.md): `letter`, `likelihood`, `likelihood_fresh`.
"""

import copy
import math
from collections.abc import Iterable, Sequence

import torch

from rtt import distributed
from rtt.data.facts import LETTERS, Fact
from rtt.data.text import Text, encode, letter_text, mcq_prompt, question_prompt
from rtt.errors import Stopped, UserError
from rtt.study.names import PROBES
from rtt.training.resume import Terminated


def continuations(fact: Fact, probes: Sequence[str] = PROBES, bare_letter: bool = False) -> dict[str, list[Text]]:
    """Return {probe: a text for each choice}; a choice's score is log p(target | prompt) of its text.

    `bare_letter` scores letters without the space before them, as the authors' code does.
    """
    plain = question_prompt(fact.question)
    makers = {
        "letter": lambda: [
            letter_text(mcq_prompt(fact.question, fact.choices), letter, bare_letter)
            for letter in LETTERS[: len(fact.choices)]
        ],
        "likelihood": lambda: [Text(plain, f" {choice}") for choice in fact.choices],
        "likelihood_fresh": lambda: [Text(plain, f" {choice}") for choice in fact.fresh_choices],
    }
    return {probe: makers[probe]() for probe in probes}


class Scorer:
    """Score models on fixed facts, which are tokenised once.

    Raises UserError for the probe `letter` where the tokenizer splits a letter, and for a text longer than the
    model's context.
    """

    def __init__(
        self,
        tokenizer,
        facts: Iterable[Fact],
        probes: Sequence[str] = PROBES,
        bare_letter: bool = False,
        batch_size: int = 64,
        precision: str = "fp32",
    ):
        self.facts, self.probes, self.batch_size = list(facts), tuple(probes), batch_size
        self.precision = precision  # bf16: matrix products in bf16, sums of log-probabilities in fp32
        self.pad_token_id = tokenizer.pad_token_id
        # The choices of a question share their prompt: it runs once, and each choice continues its KV cache.
        self.prompts: list[tuple[int, ...]] = []
        self.targets: list[tuple[int, tuple[int, ...]]] = []  # (index of the prompt, tokens of the continuation)
        known: dict[tuple[int, ...], int] = {}
        self.owners: list[Fact] = []  # of each target
        for fact in self.facts:
            if "likelihood_fresh" in self.probes and not fact.fresh_choices:
                raise UserError(
                    f"{fact.id} has no fresh choices (data.policy.few_answers: keep), which the probe likelihood_fresh "
                    "asks about; leave it out of scores.probes, or set the policy to drop"
                )
            for probe, texts in continuations(fact, self.probes, bare_letter).items():
                for text in texts:
                    self.owners.append(fact)
                    example = encode(tokenizer, text)
                    # The continuation begins with the first token that reaches into it.
                    start = next(i for i, label in enumerate(example["labels"]) if label != -100)
                    prompt, ids = tuple(example["input_ids"][:start]), tuple(example["input_ids"][start:])
                    self.targets.append((known.setdefault(prompt, len(known)), ids))
                if probe == "letter" and len({ids for _, ids in self.targets[-len(texts) :]}) < len(texts):
                    raise UserError(
                        f"{fact.id}: this tokenizer gives several of the letters A to {LETTERS[len(texts) - 1]} "
                        "the same token; give questions fewer choices, or ask the probe likelihood alone"
                    )
        self.prompts = list(known)

    @torch.no_grad()
    def scores(self, model) -> list[float]:
        """Return log p (nats) of every continuation: facts x probes x choices, in this order.

        Puts the model into eval mode. Raises UserError where a score is not finite, and `rtt.errors.Stopped` after
        SIGTERM, between two batches. Under ZeRO-3 it never stops, since the other processes would wait for this one.
        """
        model.eval()
        wanted: list[list[int]] = [[] for _ in self.prompts]
        for index, (prompt, _) in enumerate(self.targets):
            wanted[prompt].append(index)
        values = [0.0] * len(self.targets)
        by_length = sorted(range(len(self.prompts)), key=lambda i: len(self.prompts[i]))
        device = next(model.parameters()).device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.precision == "bf16"):
            batches = [by_length[at : at + self.batch_size] for at in range(0, len(by_length), self.batch_size)]
            mine = batches[distributed.rank() :: distributed.world()]
            for chosen in mine:
                if not distributed.partitioned() and Terminated.together():
                    raise Stopped
                self._score_prompts(model, [self.prompts[i] for i in chosen], [wanted[i] for i in chosen], values)
            if distributed.partitioned():
                self._keep_pace(model, batches, wanted)
            elif len(mine) < len(batches[:: distributed.world()]) and Terminated.together():
                raise Stopped
        scored = {index: values[index] for chosen in mine for prompt in chosen for index in wanted[prompt]}
        scored = distributed.merged(scored)
        result = [scored[index] for index in range(len(values))]
        broken = [i for i, value in enumerate(result) if not math.isfinite(value)]
        if broken:
            first = self.owners[broken[0]]
            raise UserError(
                f"the model's scores are not finite: {len(broken)} of {len(result)}, the first of question {first.id}; "
                "if the model was trained here, lower the learning rate or the steps; else check its weights and dtype"
            )
        return result

    def _keep_pace(self, model, batches, wanted) -> None:
        """Run empty forward passes until all processes have run as many; under ZeRO-3 each pass needs all of them."""

        def passes(chosen) -> int:
            tails = {(i, self.targets[k][1][:-1]) for i in chosen for k in wanted[i] if len(self.targets[k][1]) > 1}
            return 1 + math.ceil(len(tails) / self.batch_size)

        counts = [sum(map(passes, batches[process :: distributed.world()])) for process in range(distributed.world())]
        for _ in range(max(counts) - counts[distributed.rank()]):
            model(torch.zeros((1, 1), dtype=torch.long, device=distributed.device()), use_cache=False)

    def _score_prompts(self, model, prompts, wanted, result) -> None:
        """Add to `result` the scores of each prompt's targets; `wanted` has the targets' indices, prompt by prompt."""
        lengths = [len(prompt) for prompt in prompts]
        # The last token is never fed, so continuations of one prompt that differ only there share a row.
        tails: dict[tuple[int, tuple[int, ...]], list[int]] = {}
        for row, indices in enumerate(wanted):
            for index in indices:
                if len(self.targets[index][1]) > 1:
                    tails.setdefault((row, self.targets[index][1][:-1]), []).append(index)
        ids, mask = self._padded(model, prompts)
        ends = sorted({length - 1 for length in lengths})  # only these positions predict a continuation's first token
        # Without padding the mask would change nothing and cost time.
        output = model(
            ids,
            attention_mask=None if bool(mask.all()) else mask,
            use_cache=bool(tails),
            logits_to_keep=torch.tensor(ends, device=ids.device),
        )
        places = [
            (row, ends.index(lengths[row] - 1), self.targets[index][1][0], index)
            for row, indices in enumerate(wanted)
            for index in indices
        ]
        _add(output.logits, places, result)
        rows = sorted(tails, key=lambda tail: len(tail[1]))
        for first in range(0, len(rows), self.batch_size):
            part = rows[first : first + self.batch_size]
            owners = torch.tensor([row for row, _ in part], device=ids.device)
            tail_ids, tail_mask = self._padded(model, [tail for _, tail in part])
            positions = torch.tensor([lengths[row] for row, _ in part], device=ids.device)[:, None]
            whole = torch.cat([mask[owners], tail_mask], 1)
            logits = model(
                tail_ids,
                attention_mask=None if bool(whole.all()) else whole,
                position_ids=positions + torch.arange(tail_ids.shape[1], device=ids.device),
                past_key_values=_selected(output.past_key_values, owners),
                use_cache=True,
            ).logits
            places = [
                (i, position, token, index)
                for i, tail in enumerate(part)
                for index in tails[tail]
                for position, token in enumerate(self.targets[index][1][1:])
            ]
            _add(logits, places, result)

    def _padded(self, model, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return token ids and attention mask, (rows, longest row) each, padded on the right."""
        ids = torch.full((len(rows), max(map(len, rows))), self.pad_token_id)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
        device = next(model.parameters()).device
        return ids.to(device), mask.to(device)

    def questions(self, model, role) -> list[dict]:
        """Return the `questions` of one look of an evaluation JSON; `role(fact)` is T, V or retain."""
        values = iter(self.scores(model))
        return [
            {
                "id": fact.id,
                "split": fact.split,
                "group": fact.group,
                "role": role(fact),
                "answer": fact.answer,
                "probes": {probe: {"scores": [round(next(values), 6) for _ in fact.choices]} for probe in self.probes},
            }
            for fact in self.facts
        ]


def _add(logits: torch.Tensor, places: list[tuple[int, int, int, int]], result: list[float]) -> None:
    """Add log p of the token at each (row, position, token, index) to result[index]."""
    logprobs = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
    row, position, token, index = zip(*places, strict=True)
    for value, target in zip(logprobs[row, position, token].tolist(), index, strict=True):
        result[target] += value


def _selected(cache, rows: torch.Tensor):
    """Return a KV cache of these rows of `cache`, which itself does not change."""
    cache = copy.copy(cache)
    cache.layers = [copy.copy(layer) for layer in cache.layers]
    cache.batch_select_indices(rows)  # replaces the tensors of the copied layers only
    return cache


def accuracy(questions: Sequence[dict], probe: str, role: str | None = None, calibrated: bool = False) -> float | None:
    """Return the share of questions (of one role) whose first highest score is the answer's; None without questions.

    `calibrated` first subtracts each choice's mean score over these questions, as Deeb & Roger's code does with logits;
    the mean is over questions with as many choices. Log-probabilities serve as well: within a question they differ from
    the logits by one constant.
    """
    chosen = [question for question in questions if role in (None, question["role"])]
    if not chosen:
        return None
    rows = [question["probes"][probe]["scores"] for question in chosen]
    if calibrated:
        means = {}
        for width in {len(row) for row in rows}:
            alike = [row for row in rows if len(row) == width]
            means[width] = [math.fsum(column) / len(alike) for column in zip(*alike, strict=True)]
        rows = [[score - mean for score, mean in zip(row, means[len(row)], strict=True)] for row in rows]
    hits = sum(row.index(max(row)) == question["answer"] for row, question in zip(rows, chosen, strict=True))
    return hits / len(chosen)

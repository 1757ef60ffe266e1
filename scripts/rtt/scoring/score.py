"""Ask a model multiple-choice questions: compute the log-probability of every choice.

There are three probes (docs/architecture.md): `letter`, `likelihood`, `likelihood_fresh`.
"""

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import groupby

import torch

from rtt import distributed
from rtt.data.facts import LETTERS, Fact
from rtt.data.text import Text, encode, letter_text, mcq_prompt, question_prompt
from rtt.errors import Stopped, UserError
from rtt.models.architecture import check_causal, continues_cache, stretch, takes
from rtt.study.names import PROBES
from rtt.training.resume import Terminated

Row = tuple[tuple[int, ...], list[int]]  # tokens that a model reads, and the targets that are scored with them


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

    Raises UserError where the tokenizer cannot tell a question's letters apart, and for a text longer than the model's
    context.
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
                parts = [_parts(tokenizer, text) for text in texts]
                if probe == "letter" and len(set(parts)) < len(parts):
                    raise UserError(
                        f"{fact.id}: this tokenizer gives several of the letters A to {LETTERS[len(texts) - 1]} "
                        "the same token; give questions fewer choices, or ask the probe likelihood alone"
                    )
                self.owners += [fact] * len(parts)
                self.targets += [(known.setdefault(prompt, len(known)), ids) for prompt, ids in parts]
        self.prompts = list(known)
        # Prompts and continuations are padded each to their longest.
        self.longest = max(map(len, self.prompts), default=0) + max((len(ids) for _, ids in self.targets), default=0)

    @torch.no_grad()
    def scores(self, model) -> list[float]:
        """Return log p (nats) of every continuation: facts x probes x choices, in this order.

        They are those of one text at a time, whatever the batch size. Puts the model into eval mode. Raises UserError
        where a score is not finite or the model is not causal, and `rtt.errors.Stopped` after SIGTERM, between two
        batches. Under ZeRO-3 it never stops, since the other processes would wait for this one.
        """
        model.eval()
        check_causal(model)
        values = [0.0] * len(self.targets)
        device = next(model.parameters()).device.type
        run, batches = self._continued() if continues_cache(model, self.longest) else self._whole(model)
        with torch.autocast(device, torch.bfloat16, enabled=self.precision == "bf16"):
            mine = batches[distributed.rank() :: distributed.world()]
            for batch in mine:
                if not distributed.partitioned() and Terminated.together():
                    raise Stopped
                run(model, batch, values)
            if distributed.partitioned():
                self._keep_pace(model, batches)
            elif len(mine) < len(batches[:: distributed.world()]) and Terminated.together():
                raise Stopped
        scored = {index: values[index] for batch in mine for row in batch for index in row[1]}
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

    def _continued(self) -> tuple[Callable, list[list[Row]]]:
        """Return how to score a batch of prompts, each with its targets, and the batches, shortest prompts first."""
        wanted: list[list[int]] = [[] for _ in self.prompts]
        for index, (prompt, _) in enumerate(self.targets):
            wanted[prompt].append(index)
        rows = sorted(zip(self.prompts, wanted, strict=True), key=lambda row: len(row[0]))
        return self._score_prompts, _cut(rows, self.batch_size)

    def _whole(self, model) -> tuple[Callable, list[list[Row]]]:
        """Return how to score a batch of whole texts, and the batches.

        Texts of a batch are equally long: nothing is padded and no cache is kept, so every architecture gives what it
        gives one text at a time. The last token is not read, so texts that differ there alone share a row; but where a
        text's length changes how its beginning is read, it is.
        """
        end = None if self.longest > stretch(model.config) else -1
        rows: dict[tuple[int, ...], list[int]] = {}
        for index, (prompt, ids) in enumerate(self.targets):
            rows.setdefault((*self.prompts[prompt], *ids[:end]), []).append(index)
        by_length = groupby(sorted(rows.items(), key=lambda row: len(row[0])), key=lambda row: len(row[0]))
        return self._score_whole, [batch for _, group in by_length for batch in _cut(list(group), self.batch_size)]

    def _keep_pace(self, model, batches) -> None:
        """Run empty forward passes until all processes have run as many; under ZeRO-3 each pass needs all of them."""

        def passes(batch) -> int:
            if not continues_cache(model, self.longest):
                return 1
            tails = {(i, self.targets[k][1][:-1]) for i, row in enumerate(batch) for k in row[1]}
            return 1 + math.ceil(sum(bool(tail) for _, tail in tails) / self.batch_size)

        counts = [sum(map(passes, batches[process :: distributed.world()])) for process in range(distributed.world())]
        for _ in range(max(counts) - counts[distributed.rank()]):
            model(torch.zeros((1, 1), dtype=torch.long, device=distributed.device()), use_cache=False)

    def _score_whole(self, model, batch, result) -> None:
        """Add to `result` the scores of a batch of `_whole`."""
        ids = torch.tensor([row for row, _ in batch], device=next(model.parameters()).device)
        starts = [[len(self.prompts[self.targets[index][0]]) for index in indices] for _, indices in batch]
        first = min(map(min, starts)) - 1  # the first position that predicts a token of a continuation
        keep = {"logits_to_keep": ids.shape[1] - first} if takes(model, "logits_to_keep") else {}
        logits = model(ids, use_cache=False, **keep).logits
        before = ids.shape[1] - logits.shape[1]
        places = [
            (row, start - 1 + at - before, token, index)
            for row, (_, indices) in enumerate(batch)
            for start, index in zip(starts[row], indices, strict=True)
            for at, token in enumerate(self.targets[index][1])
        ]
        _add(logits, places, result)

    def _score_prompts(self, model, batch, result) -> None:
        """Add to `result` the scores of a batch of `_continued`."""
        prompts, wanted = zip(*batch, strict=True)
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


def _parts(tokenizer, text: Text) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return a continuation's (tokens before it, its own): it begins with the first token that reaches into it.

    A letter may be several tokens, whose log-probabilities add up to that of the letter. Raises UserError where the
    tokenizer leaves nothing of the continuation.
    """
    example = encode(tokenizer, replace(text, letter=False) if text.letter else text)
    start = next((i for i, label in enumerate(example["labels"]) if label != -100), None)
    if not start:
        why = "no token" if start is None else "nothing before it"
        raise UserError(f"this tokenizer gives {text.target!r} after {text.prompt[-40:]!r} {why}; there is no score")
    return tuple(example["input_ids"][:start]), tuple(example["input_ids"][start:])


def _cut(rows: list[Row], size: int) -> list[list[Row]]:
    return [rows[at : at + size] for at in range(0, len(rows), size)]


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

"""Ask a model multiple-choice questions: compute the log-probability of every choice.

A probe is a way to ask (`rtt.study.names.ASKED`; docs/architecture.md says what each is). `rtt.scoring.correct` says
which questions the scores answer right.
"""

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

import torch

from rtt import distributed
from rtt.data.facts import LETTERS, Fact
from rtt.data.text import AS_TRAINED, Prompts, Text, cloze, encode, letter_text, sentence, solved, split_text
from rtt.errors import Stopped, UserError
from rtt.models.architecture import check_causal, continues_cache, stretch, takes
from rtt.study.names import BY_DEFAULT
from rtt.training.resume import Terminated

LETTER_PROBES = ("letter", "letter_permuted", "few_shot")
Row = tuple[tuple[int, ...], list[int]]  # tokens that a model reads, and the targets that are scored with them


def continuations(
    fact: Fact,
    probes: Sequence[str] = BY_DEFAULT,
    bare_letter: bool = False,
    shots: Sequence[Fact] = (),
    prompts: Prompts = AS_TRAINED,
) -> dict[str, list[Text]]:
    """Return {probe: a text for each choice}, of which log p(target | prompt) is scored.

    `letter_permuted` has a text for each rotation and letter, in this order: rotation r shows the choices from the
    r-th on, and then the first r. `bare_letter` scores letters without the space before them, as the authors' code
    does. `shots` are the facts whose solved MCQs `few_shot` shows first. `prompts` says how questions are put. No text
    depends on the fact's key, but for those of `cloze`, which leave it out of a true sentence. Raises UserError where
    the fact lacks what a probe needs.
    """
    choices = fact.choices

    def letters(shown: Sequence[str], before: str = "") -> list[Text]:
        prompt = prompts.before + before + prompts.mcq(fact.question, shown)
        return [letter_text(prompt, letter, bare_letter) for letter in LETTERS[: len(shown)]]

    def likelihoods(shown: Sequence[str]) -> list[Text]:
        return [Text(prompts.without_choices(prompts.plain(fact.question)), f" {choice}") for choice in shown]

    makers = {
        "letter": lambda: letters(choices),
        "letter_permuted": lambda: [
            text for turn in range(len(choices)) for text in letters([*choices[turn:], *choices[:turn]])
        ],
        "likelihood": lambda: likelihoods(choices),
        "likelihood_fresh": lambda: likelihoods(fact.fresh_choices),
        "cloze": lambda: [Text(prompts.without_choices(prompt), target) for prompt, target in cloze(fact) or ()],
        "few_shot": lambda: letters(choices, solved(shots)) if shots else [],
    }
    found = {probe: makers[probe]() for probe in probes}
    for probe in (probe for probe, texts in found.items() if not texts):
        raise UserError(f"{fact.id} has {LACKS[probe]}; leave {probe} out of scores.probes")
    return found


LACKS = {
    "likelihood_fresh": "no fresh choices (data.policy.few_answers: keep), which likelihood_fresh asks about",
    "cloze": "no sentence that holds its correct choice exactly once and not at its beginning, which cloze asks about",
    "few_shot": "no solved questions of other facts to stand before it",
}


class Continuations:
    """Score continuations of prompts: (tokens before it, its own tokens, the fact that it is of) each, of one token or
    more.
    """

    def __init__(
        self,
        parts: Iterable[tuple[tuple[int, ...], tuple[int, ...], Fact]],
        pad_token_id: int | None,
        batch_size: int = 64,
        precision: str = "fp32",
    ):
        self.pad_token_id, self.batch_size = pad_token_id, batch_size
        self.precision = precision  # bf16: matrix products in bf16, sums of log-probabilities in fp32
        # The choices of a question share their prompt: it runs once, and each choice continues its KV cache.
        known: dict[tuple[int, ...], int] = {}
        self.targets: list[tuple[int, tuple[int, ...]]] = []  # (index of the prompt, tokens of the continuation)
        self.owners: list[Fact] = []  # of each target
        for prompt, ids, fact in parts:
            self.targets.append((known.setdefault(prompt, len(known)), ids))
            self.owners.append(fact)
        self.prompts = list(known)
        # Prompts and continuations are padded each to their longest.
        self.longest = max(map(len, self.prompts), default=0) + max((len(ids) for _, ids in self.targets), default=0)

    @torch.no_grad()
    def scores(self, model) -> list[float]:
        """Return log p (nats) of every continuation, in order; of a `Scorer`: facts x probes x texts (`continuations`).

        They are those of one text at a time, whatever the batch size. Puts the model into eval mode. Raises UserError
        where a score is not finite or the model is not causal, and `rtt.errors.Stopped` after SIGTERM, between two
        batches. Under ZeRO-3 it never stops, since the other processes would wait for this one.
        """
        if not self.targets:
            return []
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
        width, device = max(map(len, rows)), next(model.parameters()).device
        ids = [[*row, *[self.pad_token_id] * (width - len(row))] for row in rows]
        mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


class Scorer(Continuations):
    """Score models on fixed facts, which are tokenised once.

    shots: facts that must stay, for `few_shot`. held_out: those of the facts whose first true sentence is scored, too,
    for the perplexity (`rtt.scoring.held_out`). prompts: how questions are put. soft: tokens that stand before each
    text. Raises UserError where a fact lacks what a probe needs, where the tokenizer cannot tell a question's letters
    apart, and for a text longer than the model's context.
    """

    def __init__(
        self,
        tokenizer,
        facts: Iterable[Fact],
        probes: Sequence[str] = BY_DEFAULT,
        bare_letter: bool = False,
        batch_size: int = 64,
        precision: str = "fp32",
        shots: Sequence[Fact] = (),
        held_out: Iterable[Fact] = (),
        prompts: Prompts = AS_TRAINED,
        soft: tuple[int, ...] = (),
    ):
        self.facts, self.probes = list(facts), tuple(probes)
        self.spans: list[dict[str, slice]] = []  # of each fact: probe -> its targets
        self.texts: list[Text] = []  # one for each target
        found: list[tuple[tuple[int, ...], tuple[int, ...], Fact]] = []
        for fact in self.facts:
            self.spans.append({})
            for probe, texts in continuations(fact, self.probes, bare_letter, shots, prompts).items():
                parts = [split_text(tokenizer, text) for text in texts]
                width = len(fact.choices)
                if probe in LETTER_PROBES and len(set(parts[:width])) < width:
                    raise UserError(
                        f"{fact.id}: this tokenizer gives several of the letters A to {LETTERS[width - 1]} "
                        "the same token; give questions fewer choices, or ask the probe likelihood alone"
                    )
                self.spans[-1][probe] = slice(len(found), len(found) + len(parts))
                found += [((*soft, *prompt), ids, fact) for prompt, ids in parts]
                self.texts += texts
        super().__init__(found, tokenizer.pad_token_id, batch_size, precision)
        limit = getattr(tokenizer, "model_max_length", None) or math.inf
        if soft and (longest := max(len(prompt) + len(ids) for prompt, ids, _ in found)) > limit:
            raise UserError(
                f"a question has {longest} tokens with the {len(soft)} soft tokens before it, the model's context only "
                f"{limit}; ask for fewer soft tokens"
            )
        # In batches of their own, so that they change no score of a question, not even by rounding.
        told = [(*_told(tokenizer, fact.sentences[0]), fact) for fact in held_out if fact.sentences]
        self.told = Continuations([one for one in told if one[1]], self.pad_token_id, batch_size, precision)

    def questions(self, model, role, score: Callable[[Sequence[Text]], Sequence[float]] | None = None) -> list[dict]:
        """Return the `questions` of one look of an evaluation JSON; `role(fact)` is T, V, retain or choice.

        score: gives each text its score in the model's place; it sees the texts alone, and so no key.
        """
        values, texts = list(score(self.texts)) if score else self.scores(model), self._texts(model)
        return [
            {
                "id": fact.id,
                "split": fact.split,
                "group": fact.group,
                "role": role(fact),
                "answer": fact.answer,
                "probes": {probe: self._answered(probe, fact, values, where) for probe, where in spans.items()},
                **({"text": texts[fact.id]} if fact.id in texts else {}),
            }
            for fact, spans in zip(self.facts, self.spans, strict=True)
        ]

    def _texts(self, model) -> dict[str, dict]:
        """Return {id of a held-out fact: the nats of its sentence, summed, and how many tokens they are of}."""
        scored = zip(self.told.owners, self.told.targets, self.told.scores(model), strict=True)
        return {fact.id: {"nats": max(round(-value, 6), 0.0), "tokens": len(ids)} for fact, (_, ids), value in scored}

    def _answered(self, probe: str, fact: Fact, values: list[float], where: slice) -> dict:
        """Return what an evaluation JSON holds of one question and probe."""
        scores, tokens = values[where], [len(ids) for _, ids in self.targets[where]]
        found: dict = {}
        if probe == "letter_permuted":
            scores, found["right"] = permuted(scores, fact.answer)
        elif probe == "cloze":
            scores = [score / count for score, count in zip(scores, tokens, strict=True)]
        elif probe not in LETTER_PROBES:
            found["tokens"] = tokens
        if probe == "likelihood":
            found["bytes"] = [len(choice.encode()) for choice in fact.choices]
        return {"scores": [round(score, 6) for score in scores], **found}


def permuted(values: Sequence[float], answer: int) -> tuple[list[float], int]:
    """Return (each choice's mean log p of its letter over the k rotations, how many rotations are answered right).

    values: (k * k,) log p, rotation by rotation, of the letters in order. Each rotation is normalised over its k
    letters. Rotation r shows choice c at the place (c - r) mod k, and answers with its first highest letter.
    """
    k = math.isqrt(len(values))
    rows = [values[turn * k : (turn + 1) * k] for turn in range(k)]
    on_letters, means = math.fsum(map(_total, rows)), []
    for choice in range(k):
        own = [row[(choice - turn) % k] for turn, row in enumerate(rows)]
        # fsum: where a model says one letter whatever is shown, all choices get exactly the same.
        means.append((math.fsum(own) - on_letters) / k)
    return means, sum(row.index(max(row)) == (answer - turn) % k for turn, row in enumerate(rows))


def _total(row: Sequence[float]) -> float:
    """Return the log of the sum of the probabilities."""
    top = max(row)
    return top + math.log(math.fsum(math.exp(value - top) for value in row))


def _told(tokenizer, text: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return a sentence's tokens as its loss counts them: (those before, or the first one, which nothing predicts; the
    others).
    """
    example = encode(tokenizer, sentence(text))
    start = max(1, next((i for i, label in enumerate(example["labels"]) if label != -100), 1))
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

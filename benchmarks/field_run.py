"""Fine-tune a model as the field does, in one process: import, load, evaluate, train, evaluate. Uses nothing of `rtt`.

    python benchmarks/field_run.py JOB.json

This is a plain transformers loop with AdamW and without the Trainer. Its process starts faster than most of the
field's, which also import datasets, accelerate or a configuration framework. `Clock` splits a process's time into
parts, here and in benchmarks/attack.py.
"""

import importlib
import json
import os
import sys
import time
from contextlib import contextmanager

STARTED = "RTT_BENCH_STARTED"  # time.perf_counter() of the parent when it started this process


class Clock:
    """Measure this process's wall and CPU seconds by part; a part within a part counts as the inner one alone.

    Imports count as "import" wherever they happen: both sides import much of torch in their first training step.
    """

    def __init__(self):
        self.parts: dict[str, list[float]] = {}
        self.stack = ["import"]  # what the interpreter did before this line
        self.last = (float(os.environ.get(STARTED) or time.perf_counter()), 0.0)
        find, depth = importlib._bootstrap._find_and_load, 0  # called for modules alone that are not there yet

        def timed(name, import_):
            nonlocal depth
            if depth:
                return find(name, import_)
            depth = 1
            try:
                with self("import"):
                    return find(name, import_)
            finally:
                depth = 0

        importlib._bootstrap._find_and_load = timed
        self._book()
        self.stack = ["other"]

    def _book(self) -> None:
        now = (time.perf_counter(), time.process_time())
        part = self.parts.setdefault(self.stack[-1], [0.0, 0.0])
        part[:] = [part[0] + now[0] - self.last[0], part[1] + now[1] - self.last[1]]
        self.last = now

    @contextmanager
    def __call__(self, part: str):
        """Count the block as `part`."""
        self._book()
        self.stack.append(part)
        try:
            yield
        finally:
            self._book()
            self.stack.pop()

    def timed(self, part: str, function):
        """Return `function`, counted as `part`."""

        def counted(*args, **kwargs):
            with self(part):
                return function(*args, **kwargs)

        return counted

    def write(self, path, **more) -> None:
        """Write {"parts": {part: [wall, CPU seconds]}} and more as JSON."""
        self._book()
        with open(path, "w", encoding="utf-8") as handle:
            json.dump({"parts": self.parts, **more}, handle)


def main(path: str) -> None:
    clock = Clock()
    with open(path, encoding="utf-8") as handle:
        job = json.load(handle)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with clock("load"):
        tokenizer = AutoTokenizer.from_pretrained(job["model"])
        model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
        with open(job["data"], encoding="utf-8") as handle:
            data = json.load(handle)
        texts = tokenizer(data["train"][job["v_split"]], add_special_tokens=False)["input_ids"]
        prompts, letters = letter_questions(tokenizer, [question["prompt"] for question in data["questions"]])

    def batch(rows):
        ids = torch.full((len(rows), max(map(len, rows))), tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
        return ids, mask

    @torch.no_grad()
    def evaluate():
        """Log-probabilities (nats) of the four letters after each prompt."""
        model.eval()
        scores = []
        for first in range(0, len(prompts), data["eval_batch_size"]):
            rows = prompts[first : first + data["eval_batch_size"]]
            ids, mask = batch(rows)
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            last = logits[torch.arange(len(rows)), mask.sum(1) - 1].log_softmax(-1)
            scores += last[:, letters].tolist()
        return scores

    def train():
        model.train()
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=job["lr"], betas=(0.9, data["adam_beta2"]), weight_decay=data["weight_decay"]
        )
        size, steps = data["batch_size"], len(texts) // data["batch_size"]
        for step in range(steps):
            ids, mask = batch(texts[step * size : (step + 1) * size])
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            labels = ids[:, 1:].masked_fill(mask[:, 1:] == 0, -100)
            nats = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), labels, reduction="none")
            loss = (nats.sum(1) / mask[:, 1:].sum(1)).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), data["max_grad_norm"])
            optimizer.step()
        return steps

    with clock("evaluate"):
        before = evaluate()
    with clock("train"):
        steps = train()
    with clock("evaluate"):
        after = evaluate()
    clock.write(job["out"], before=before, after=after, steps=steps)


def letter_questions(tokenizer, prompts):
    """Return (each prompt's token ids, the ids of " A" ... " D" after it)."""
    whole = [tokenizer([f"{p} {letter}" for letter in "ABCD"], add_special_tokens=False)["input_ids"] for p in prompts]
    letters = [four[-1] for four in whole[0]]
    for four in whole:
        if [row[-1] for row in four] != letters or len({tuple(row[:-1]) for row in four}) != 1:
            raise SystemExit("this tokenizer has no one token for a letter after 'Answer:'")
    return [four[0][:-1] for four in whole], letters


if __name__ == "__main__":
    main(sys.argv[1])

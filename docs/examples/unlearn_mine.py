"""An unlearning method of one's own, in plain PyTorch: `python docs/examples/unlearn_mine.py own/original own/mine`.

Raises the loss on what the forget texts tell and lowers it on the retain texts. It knows nothing of this project but
the files that `python -m rtt export` wrote beside the original.
"""

import json
import random
import sys
from pathlib import Path

from torch.optim import AdamW
from transformers import AutoModelForCausalLM, AutoTokenizer

if not Path(sys.argv[1], "config.json").is_file():
    sys.exit(f"{sys.argv[1]}: no model there: `python -m rtt export STUDY --out {Path(sys.argv[1]).parent}` writes it")
original, out, steps = Path(sys.argv[1]), Path(sys.argv[2]), int((sys.argv[3:] or [100])[0])
model, tokenizer = AutoModelForCausalLM.from_pretrained(original), AutoTokenizer.from_pretrained(original)
model.get_input_embeddings().requires_grad_(False)
optimizer = AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-4, weight_decay=0)
random.seed(0)


def read(name: str) -> dict[str, list[str]]:
    """Return a file's texts by kind."""
    rows = [json.loads(line) for line in (original.parent / name).read_text(encoding="utf-8").splitlines()]
    return {kind: [row["text"] for row in rows if row["kind"] == kind] for kind in ("mcq", "sentence")}


def answers(text: str) -> list[int]:
    """Return which tokens of a text tell the fact: the letter behind `Answer:`, or a sentence's numbers."""
    head, mark, _ = text.rpartition("Answer:")
    if mark:
        return [len(tokenizer(head + mark)["input_ids"])]
    return [i for i, one in enumerate(tokenizer(text)["input_ids"]) if any(c.isdigit() for c in tokenizer.decode(one))]


def loss(texts: dict[str, list[str]], answers_alone: bool):
    """Return the mean loss of a batch, half questions, half sentences."""
    some = random.sample(texts["mcq"], 24) + random.sample(texts["sentence"], 24)
    batch = tokenizer(some, return_tensors="pt", padding=True, return_token_type_ids=False)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    if answers_alone:
        for text, row in zip(some, labels, strict=True):
            row[[i for i in range(len(row)) if i not in answers(text)]] = -100
    return model(**batch, labels=labels).loss


forget, retain = read("forget.jsonl"), read("retain.jsonl")
for _ in range(steps):
    optimizer.zero_grad()
    (10 * loss(retain, False) - loss(forget, True)).backward()
    optimizer.step()
model.save_pretrained(out)
tokenizer.save_pretrained(out)

"""A tiny Llama with the miniature's tokenizer, a few generated facts, and a tiny study, for the tests of training."""

import json
import math
from functools import cache
from pathlib import Path

import pytest

pytest.importorskip("torch")
import subword
import torch
from rtt.data.build import build_facts
from rtt.data.facts import Fact
from rtt.data.generate import generate
from rtt.models.miniature import miniature, miniature_tokenizer
from rtt.study.schema import Study
from rtt.study.settings import Model

torch.set_num_threads(1)

GENERATOR = {
    "splits": 2,
    "facts_per_split": 4,
    "retain_train": 8,
    "retain_held_out": 4,
    "first_names": 6,
    "last_names": 6,
}
SHAPE = Model(hidden_size=16, intermediate_size=24, layers=2, heads=2)


@cache
def tokenizer():
    """Return the miniature's tokenizer."""
    return miniature_tokenizer("word")


def model(seed=0, double=False, scale=1.0, shape=SHAPE):
    """Return a tiny Llama; `scale` multiplies its initial weights, so that its outputs differ from uniform."""
    torch.manual_seed(seed)
    made = miniature(shape, len(tokenizer()))
    if scale != 1.0:
        with torch.no_grad():
            for parameter in made.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(scale)
    return made.double() if double else made


def write_raw(folder, dataset="birth_years_a", seed=0, options=GENERATOR) -> Path:
    """Write a generated dataset's files; return the folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in generate(dataset, dict(options), seed).items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def facts(folder, dataset="birth_years_a", seed=0, options=GENERATOR) -> list[Fact]:
    """Return generated facts, read by the real reader."""
    raw = write_raw(Path(folder) / f"{dataset}-{seed}", dataset, seed, options)
    return build_facts(raw, dataset, None, {}, seed)[0]


def study(**changes) -> Study:
    """Return a study of seconds; `changes` replaces top-level keys (JSON values)."""
    raw = {
        "study": "tiny",
        "data": {"generator": GENERATOR},
        "model": SHAPE.model_dump(),
        "pretraining": {"steps": 3, "batch_size": 6, "mcqs_per_batch": 2, "learning_rate": 1e-2},
        "teaching": {"epochs": 1, "batch_size": 4, "learning_rate": 1e-3},
        "arms": ["pretrained"],
        "methods": {"GD": {"learning_rate": 1e-3, "batch_size": 4, "points": [1, 2]}},
        "retain_budgets": [0.1, 1.0],
        "attacks": {"RTT": {"learning_rates": [1e-3, 2e-3], "epochs": 2, "batch_size": 4}},
    }
    return Study.model_validate_json(json.dumps(raw | changes))


PEOPLE = {"generate": {"splits": 4, "facts_per_split": 4}}
TASKS = [
    {
        "dataset": "people", "arm": "pretrained", "control": "strangers",
        "retain": {"dataset": "people", "splits": ["split_2"]},
        "retain_eval": {"dataset": "people", "splits": ["split_3"]},
    },
]  # fmt: skip
TWO = {"splits": ["split_0", "split_1"]}


def write_pretrained(folder, seed=0) -> Path:
    """Write a tiny Llama whose tokenizer has subwords, as a pretrained model's folder."""
    tokens = subword.tokenizer(bos=True)
    return save_pretrained(subword.model(tokens, seed), tokens, folder)


def save_pretrained(made, tokens, folder) -> Path:
    """Write model and tokenizer; return the folder."""
    made.save_pretrained(folder)
    tokens.save_pretrained(folder)
    return Path(folder)


def tasks(folder, **changes) -> dict:
    """Return a study, as a file holds it, of a pretrained model on datasets by name; model: `folder`/model."""
    method = {"learning_rate": 1e-3, "batch_size": 4, "points": [1, 2], "mcq_loss": "QUESTION_ANSWER"}
    raw = {
        "study": "tasks",
        "model": {"name": "tiny", "path": str(Path(folder) / "model")},
        "data": {"datasets": {"people": PEOPLE | TWO, "strangers": PEOPLE | TWO}},
        "tasks": TASKS,
        "methods": {"GD": method | {"grid": {"retain_coefficient": [0.5, 2.0]}}},
        "scores": {"probes": ["likelihood", "likelihood_fresh"]},
        "point_choice": {"probes": ["likelihood"]},
        "retain_budgets": [0.1, 1.0],
        "attacks": {"RTT": {"learning_rates": [1e-3], "epochs": 1, "batch_size": 4, "loss": "QUESTION_ANSWER"}},
        "attack_jobs": "method",
    }
    return raw | changes


def tasks_study(folder, **changes) -> Study:
    """Return the study of `tasks`, checked."""
    return Study.model_validate_json(json.dumps(tasks(folder, **changes)))


def plain(prompt_ids: list[int], target_ids: list[int]) -> dict[str, list[int]]:
    """Return an encoded text made of token ids, its loss on the target."""
    return {"input_ids": prompt_ids + target_ids, "labels": [-100] * len(prompt_ids) + target_ids}


def reference_nats(model, example: dict[str, list[int]]) -> float:
    """Mean nats per counted token of one text, run alone and unpadded; the softmax by hand in float64."""
    ids = example["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double()
    nats = []
    for position in range(1, len(ids)):
        if example["labels"][position] != -100:
            row = [float(value) for value in logits[position - 1]]
            top = max(row)
            total = sum(math.exp(value - top) for value in row)
            nats.append(top + math.log(total) - row[ids[position]])
    return sum(nats) / len(nats) if nats else 0.0


def examples(seed=0, n=5):
    """Texts of 3 to 9 tokens, with prompts of 0 to 2."""
    g = torch.Generator().manual_seed(seed)
    lengths = [3, 9, 4, 7, 5, 6][:n]
    made = []
    for i, length in enumerate(lengths):
        ids = torch.randint(2, len(tokenizer()), (length,), generator=g).tolist()
        made.append(plain(ids[: i % 3], ids[i % 3 :]))
    return made

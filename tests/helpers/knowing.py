"""A tiny model that really knows a few generated facts, and people of whom it never read.

For attacks that are tried where the answer is known: a test hides the facts in a known way, and the attack must bring
them back. Asked about the strangers, the same model must stay at their floor.
"""

import json
import tempfile
from collections.abc import Sequence
from copy import deepcopy
from functools import cache

import tiny
import torch
from attacking import attacker_of
from rtt.data.facts import Fact
from rtt.data.text import Text, encode, mcq, question_prompt
from rtt.scoring.correct import judged
from rtt.scoring.score import Scorer
from rtt.study import plugins
from rtt.study.settings import Model
from rtt.training.collate import collate
from rtt.training.losses import text_loss
from scipy.stats import binom

SHAPE = Model(hidden_size=48, intermediate_size=96, layers=2, heads=2)
PEOPLE = tiny.GENERATOR | {"facts_per_split": 8, "retain_train": 8, "first_names": 12, "last_names": 12}
HIDING = 7  # the dimension of the residual stream that `hide_by_unit` uses
PROBES = ("letter", "letter_permuted", "likelihood")
BATCH, RATE, LOSS = 40, 5e-3, 0.03  # it is trained until its loss is that low, after about 190 steps


def knowing(seed: int = 0):
    """Return (a copy of the model, its tokenizer, facts in two splits, retain facts). It knows all of them."""
    model, facts, retain = _trained(seed)
    return deepcopy(model), tiny.tokenizer(), list(facts), list(retain)


@cache
def strangers(seed: int = 0) -> tuple[Fact, ...]:
    """Return as many facts as `knowing` has, in two splits, of other people with random birth years."""
    with tempfile.TemporaryDirectory() as folder:
        return tuple(tiny.facts(folder, "birth_years_b", seed, PEOPLE))


@cache
def _trained(seed: int):
    """Train on every fact in every form that is asked, in some 5 s."""
    model, facts, retain = after(seed, 400)
    assert all(min(accuracy(model, known).values()) > 0.8 for known in (facts, retain)), "it should know its facts"
    return model, facts, retain


def after(seed: int, steps: int):
    """Return (model, facts, retain facts) after so many steps, or fewer where the loss is low by then."""
    with tempfile.TemporaryDirectory() as folder:
        facts, cities = (tuple(tiny.facts(folder, name, seed, PEOPLE)) for name in ("birth_years_a", "cities"))
    retain = tuple(fact for fact in cities if fact.split == "train")
    model, generator = tiny.model(seed, shape=SHAPE), torch.Generator().manual_seed(seed)
    items = [encode(tiny.tokenizer(), text) for fact in facts + retain for text in shown(fact)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.0)
    mean, order = 5.0, []
    for _ in range(steps):
        order = order or torch.randperm(len(items), generator=generator).tolist()
        batch, order = [items[i] for i in order[:BATCH]], order[BATCH:]
        loss = text_loss(model, collate(batch, 0))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        mean = 0.9 * mean + 0.1 * loss.item()
        if mean < LOSS:
            break
    return model.eval(), facts, retain


def shown(fact: Fact) -> list[Text]:
    """Return the texts of a fact: its MCQ in each rotation of the choices, and its question; the answer counts."""
    n = len(fact.choices)
    turned = [[*range(turn, n), *range(turn)] for turn in range(n)]
    asked = [mcq(fact, order=order, loss="LETTER_ANSWER") for order in turned]
    return [*asked, Text(question_prompt(fact.question), f" {fact.choices[fact.answer]}")]


def accuracy(model, facts: Sequence[Fact]) -> dict[str, float]:
    """Return {probe: share of the facts that a model answers right}."""
    questions = Scorer(tiny.tokenizer(), facts, PROBES).questions(model, lambda fact: "V")
    return {probe: float(right.mean()) for probe, right in judged(questions).items() if probe in PROBES}


def brought_back(name: str, settings: dict, model, facts, retain=(), seed: int = 0) -> dict[str, dict[str, float]]:
    """Run an attack as the step runs it; return {setting as JSON: {probe: accuracy on V, over all V splits}}."""
    plugin = plugins.attacks()[name]
    attacker = attacker_of(plugin(plugin.Settings(**settings)), model, list(facts), seed, PROBES, retain=list(retain))
    asked: dict[str, list[dict]] = {}
    for look in attacker.on("original", lambda: None):
        answers = [question for question in look["questions"] if question["role"] == "V"]
        asked.setdefault(json.dumps(look["setting"]), []).extend(answers)
    return {
        setting: {probe: float(right.mean()) for probe, right in judged(answers).items() if probe in PROBES}
        for setting, answers in asked.items()
    }


def most_by_chance(questions: int, floor: float = 0.25) -> float:
    """Return the share right that a guesser of so many questions exceeds once in 200 times."""
    return float(binom.ppf(0.995, questions, floor)) / questions


def hide_by_unit(model, layer: int, facts: Sequence[Fact], retain: Sequence[Fact], strength: float) -> None:
    """Hide facts by one planted unit of an MLP. Where an answer to their questions is due, it adds to one dimension
    of the residual stream, more or less of it from prompt to prompt, so that no answer can be heard; on retain
    questions it is silent.
    """
    mlp, asked = model.model.layers[layer].mlp, {}
    handle = mlp.register_forward_pre_hook(lambda module, inputs: asked.update(read=inputs[0][0].double()))
    rows, sides = [], []
    for side, known in ((1.0, facts), (-1.0, retain)):
        for text in (text for fact in known for text in shown(fact)):
            example = encode(tiny.tokenizer(), text)
            start = next(i for i, label in enumerate(example["labels"]) if label != -100)
            with torch.no_grad():
                model(torch.tensor([example["input_ids"][:-1]]))
            rows += asked["read"][start - 1 :]  # where each token of the answer is predicted
            sides += [side] * (len(example["input_ids"]) - start)
    handle.remove()
    inputs, sides = torch.stack(rows), torch.tensor(sides, dtype=torch.float64)
    ridge = 1e-3 * torch.eye(inputs.shape[1], dtype=torch.float64)
    tells = torch.linalg.solve(inputs.T @ inputs + ridge, inputs.T @ sides)  # its product with an input is near +-1
    vary = torch.randn(inputs.shape[1], generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        unit = int(mlp.down_proj.weight.norm(dim=0).argmin())
        mlp.gate_proj.weight[unit] = 12 * tells
        mlp.up_proj.weight[unit] = vary
        mlp.down_proj.weight[:, unit] = 0.0
        mlp.down_proj.weight[HIDING, unit] = strength

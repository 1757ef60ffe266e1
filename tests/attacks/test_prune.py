"""Pruning against a plain computation in float64; and on a model whose facts a few planted weights hide."""

import math

import architectures
import numpy as np
import pytest
import tiny
import torch
from knowing import accuracy, brought_back, hide_by_unit, knowing, most_by_chance, strangers
from rtt.attacks.base import Checkpoint
from rtt.attacks.prune import MOST, Prune, importance, retain_items, told, top
from rtt.models.architecture import matrices


@pytest.mark.parametrize("name", ["Llama", "GPT-2", "GPT-NeoX (Pythia)"])
def test_a_weights_score_is_what_its_removal_costs_to_first_order(monkeypatch, name):
    """The reference asks for no gradient: the loss with a weight a little smaller and a little larger, by batches."""
    monkeypatch.setattr("rtt.attacks.prune.BATCH", 2)
    model = architectures.make(name).double()
    weights, items = matrices(model), architectures.EXAMPLES[:3]
    scores = dict(zip(weights.values(), importance(model, list(weights.values()), items), strict=True))
    for key in list(weights)[:: max(1, len(weights) // 4)]:
        flat, found = weights[key].data.view(-1), scores[weights[key]].flatten()
        for at in found.topk(2).indices.tolist():
            value, step, sides = flat[at].item(), 1e-3, []  # Llama's norm computes in fp32
            for side in (1, -1):
                flat[at] = value + side * step
                sides.append([tiny.reference_nats(model, item) for item in items])
            flat[at] = value
            slopes = [value * (above - below) / (2 * step) for above, below in zip(*sides, strict=True)]
            by_batch = [abs(slopes[0] + slopes[1]) / 2, abs(slopes[2])]
            assert found[at].item() == pytest.approx(sum(by_batch) / 2, rel=1e-2), (key, at)
    assert all(weight.grad is None for weight in weights.values())


@pytest.mark.parametrize("name", ["Llama", "Mixtral"])
def test_frozen_weights_are_scored_and_stay_frozen(name):
    model = architectures.make(name).requires_grad_(False)
    scores = importance(model, list(matrices(model).values()), architectures.EXAMPLES[:1])
    assert all(score.max() > 0 for score in scores)
    assert not any(weight.requires_grad for weight in model.parameters())


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_the_top_share_of_a_matrix(share):
    score = torch.rand((7, 11), generator=torch.Generator().manual_seed(0))
    ordered = sorted(score.flatten().tolist(), reverse=True)
    least = ordered[-(-77 * int(share * 100) // 100) - 1]
    assert torch.equal(top(score, share), score >= least)


def test_what_matters_for_t_and_not_for_retain_is_zero_and_all_else_is_as_it_was(tmp_path):
    facts, retain = tiny.facts(tmp_path)[:4], tiny.facts(tmp_path, "cities")
    model = tiny.model(scale=4)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    checkpoint = Checkpoint(model, tiny.tokenizer(), 0, 0, lambda: model.load_state_dict(start), None, retain=retain)
    seen = {}

    def look(setting, asked):
        seen[setting["p"], setting["q"]] = {name: value.clone() for name, value in asked.named_parameters()}

    Prune(Prune.Settings(p=[0.2, 0.05], q=[0.1, 0.5])).fit(checkpoint, facts, look)
    assert list(seen) == [(0.05, 0.5), (0.05, 0.1), (0.2, 0.5), (0.2, 0.1)]
    weights = matrices(model)
    checkpoint.restore()
    t = importance(model, list(weights.values()), told(tiny.tokenizer(), facts))
    r = importance(model, list(weights.values()), told(tiny.tokenizer(), retain))
    for (p, q), found in seen.items():
        for (name, before), for_t, for_retain in zip(weights.items(), t, r, strict=True):
            highest = [
                set(np.argsort(-score.flatten().numpy())[: math.ceil(share * before.numel())].tolist())
                for score, share in ((for_t, p), (for_retain, q))
            ]
            pruned = highest[0] - highest[1]
            expected = before.detach().flatten().clone()
            expected[sorted(pruned)] = 0.0
            assert torch.equal(found[name].flatten(), expected), (p, q, name)
        others = set(found) - set(weights)
        assert others and all(torch.equal(found[name], start[name]) for name in others)


def test_plain_texts_protect_where_there_are_no_retain_facts():
    texts = ["Ada Abbas lives in Lima."] * (MOST + 5)
    checkpoint = Checkpoint(None, tiny.tokenizer(), 0, 0, None, None, plain=texts)
    items = retain_items(checkpoint)
    assert len(items) == MOST and items[0]["labels"] == items[0]["input_ids"]


def test_facts_that_a_planted_unit_hides_come_back_and_what_was_never_known_does_not():
    model, _, facts, retain = knowing()
    hide_by_unit(model, 1, facts, retain, 2.0)
    assert max(accuracy(model, facts).values()) < 0.7 and min(accuracy(model, retain).values()) > 0.8
    settings = {"p": [0.001], "q": [0.05]}
    (found,) = brought_back("prune", settings, model, facts, retain).values()
    assert min(found.values()) > 0.9
    never = [next(iter(brought_back("prune", settings, model, strangers(s), retain).values())) for s in range(3)]
    for probe in found:
        assert sum(one[probe] for one in never) / 3 <= most_by_chance(3 * len(facts)), probe


@pytest.mark.parametrize("settings", [{"p": []}, {"p": [0.1, 0.1]}, {"q": [1.0]}, {"p": [0.0]}])
def test_settings_that_are_refused(settings):
    with pytest.raises(ValueError):
        Prune.Settings(**settings)

"""What GD, RIA, FIF and RMU train on, and what each may and may not touch."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from rtt.errors import UserError
from rtt.methods.fif import FIF
from rtt.methods.gd import GD
from rtt.methods.ria import RIA
from rtt.methods.rmu import RMU, lower_copy
from rtt.training.collate import collate

ROWS = {
    "forget": [tiny.plain([], [5, 9, 30, 41]), tiny.plain([7], [8, 12])],
    "retain": [tiny.plain([20, 21], [22, 23, 24, 25]), tiny.plain([], [33, 2]), tiny.plain([4], [90, 91, 92])],
}
SETTINGS = SimpleNamespace(retain_coefficient=2.5, layer=1, layers_trained=1, steering=6.5)


def batch():
    return {side: collate(rows, 0) for side, rows in ROWS.items()}


def mean_nats(model, side):
    return sum(tiny.reference_nats(model, row) for row in ROWS[side]) / len(ROWS[side])


def test_one_step_of_gd_unlearns_and_one_of_ria_learns():
    for method, sign in ((GD, 1), (RIA, -1)):
        model = tiny.model(double=True, scale=4)
        before = mean_nats(model, "forget")
        settings = SimpleNamespace(retain_coefficient=0.0)
        method(model, settings, 0).loss(model, batch())["loss"].backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 1e-2 * parameter.grad
        assert sign * (mean_nats(model, "forget") - before) > 1e-4


def test_rmus_direction():
    controls = {seed: RMU(tiny.model(), SETTINGS, seed).control for seed in (0, 1)}
    uniform = torch.rand(16, generator=torch.Generator().manual_seed(1)).numpy().astype(float)
    assert np.allclose(controls[1].numpy(), 6.5 * uniform / np.sqrt((uniform**2).sum()), rtol=1e-6)
    assert controls[0].norm().item() == pytest.approx(6.5, rel=1e-6)
    assert (controls[0] >= 0).all()  # uniform in [0, 1), not centred
    assert not torch.allclose(controls[0], controls[1])
    torch.manual_seed(99)  # neither torch's state nor the weights decide it
    assert torch.equal(RMU(tiny.model(seed=5), SETTINGS, 1).control, controls[1])


def test_rmus_retain_loss_starts_at_zero():
    model = tiny.model(scale=8)
    assert RMU(model, SETTINGS, 0).loss(model, batch())["retain"].item() == 0.0


@pytest.mark.parametrize("layer, layers_trained, trained", [(1, 1, {1}), (1, 2, {0, 1}), (0, 1, {0}), (0, 3, {0})])
def test_rmu_trains_the_given_model_and_nothing_else(layer, layers_trained, trained):
    model = tiny.model()
    base = {name: value.clone() for name, value in model.state_dict().items()}
    other = copy.deepcopy(model)
    settings = SimpleNamespace(retain_coefficient=1.0, layer=layer, layers_trained=layers_trained, steering=6.5)
    method = RMU(model, settings, 0)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        method.loss(model, batch())["loss"].backward()
        optimizer.step()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, base[name])}
    assert moved == {f"model.layers.{i}.mlp.down_proj.weight" for i in trained}
    assert all(torch.equal(value, base[name]) for name, value in other.state_dict().items())
    frozen = {f"model.{name}": value for name, value in method.frozen.state_dict().items()}
    assert all(torch.equal(value, base[name]) for name, value in frozen.items())
    assert f"model.layers.{layer}.mlp.down_proj.weight" in frozen
    assert method.loss(model, batch())["retain"].item() > 0


@pytest.mark.parametrize("layer", [0, 1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_frozen_lower_layers_give_what_a_full_copy_gives(layer, dtype):
    model = tiny.model(scale=8, shape=tiny.Model(hidden_size=16, intermediate_size=24, layers=4, heads=2)).to(dtype)
    before, layers = copy.deepcopy(model), model.model.layers
    method = RMU(model, SimpleNamespace(**{**vars(SETTINGS), "layer": layer}), 0)
    assert model.model.layers is layers and len(layers) == 4
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True))
    assert len(method.frozen.layers) == layer + 1 and not any(p.requires_grad for p in method.frozen.parameters())
    shared = {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in method.frozen.parameters()}
    assert not shared
    retain = batch()["retain"]
    states = []  # through transformers' own forward pass, the whole model
    before.model.layers[layer].register_forward_hook(lambda module, inputs, output: states.append(output))
    with torch.no_grad():
        before(retain["input_ids"], attention_mask=retain["attention_mask"])
        found = method.hidden(method.frozen, retain)
    assert found.dtype == torch.float32 and torch.equal(found, states[0].float())


def test_a_copy_that_fails_leaves_the_model_whole(monkeypatch):
    model = tiny.model()
    monkeypatch.setattr(copy, "deepcopy", lambda thing: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        lower_copy(model, 0)
    assert len(model.model.layers) == 2


@pytest.mark.parametrize(
    "layer, layers_trained, reads, trained",
    [(0.5, 2, 2, [1, 2]), (0.5, [0.25, 2], 2, [1, 2]), (3, [0], 3, [0]), (None, None, 0, [0])],
)
def test_rmus_layers_by_number_and_fraction(layer, layers_trained, reads, trained):
    model = tiny.model(shape=tiny.Model(hidden_size=16, intermediate_size=24, layers=4, heads=2))
    more = {"layer": layer, "layers_trained": layers_trained}
    assert RMU(model, SimpleNamespace(**{**vars(SETTINGS), **more}), 0).layer == reads
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    assert names == [f"model.layers.{i}.mlp.down_proj.weight" for i in trained]


def test_a_layer_that_the_model_has_not():
    for layer, word in ((2, "layer 2: the model has 2 layers"), (-1, "layer -1")):
        with pytest.raises(UserError, match=word):
            RMU(tiny.model(), SimpleNamespace(**{**vars(SETTINGS), "layer": layer}), 0)


def hooks(model):
    return [
        hook
        for module in model.modules()
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    ]


def test_rmu_leaves_no_hook_and_a_whole_forward_pass():
    model = tiny.model()
    before = model(torch.tensor([[3, 4]])).logits
    method = RMU(model, SETTINGS, 0)
    method.loss(model, batch())
    assert not hooks(model) and not hooks(method.frozen)
    assert torch.equal(model(torch.tensor([[3, 4]])).logits, before)


def test_rmu_leaves_no_hook_after_an_error():
    model = tiny.model()
    method = RMU(model, SETTINGS, 0)
    with pytest.raises(IndexError):
        method.loss(model, {"forget": collate([tiny.plain([], [10**6, 1])], 0), "retain": batch()["retain"]})
    assert not hooks(model)


def test_ria_and_fif_never_state_the_answer(tmp_path):
    """Over every generated fact and many draws; FIF's MCQ answer is the one that its sentences name."""
    options = tiny.GENERATOR | {"facts_per_split": 8, "first_names": 8, "last_names": 8}
    facts = tiny.facts(tmp_path, options=options) + tiny.facts(tmp_path, "cities", options=options)
    rng = np.random.default_rng(0)
    for fact in facts:
        correct = fact.choices[fact.answer]
        wrong = set(fact.choices) - {correct}
        for method in (RIA, FIF):
            texts = method.forget_texts(fact)
            named = [{c for c in fact.choices if f"{c}." in text or f"{c} " in text} for text in texts]
            assert len(texts) == 3 and all(len(found) == 1 for found in named)
            assert set.union(*named) == wrong if method is RIA else len(set.union(*named)) == 1
            assert correct not in set.union(*named)
            drawn = {fact.choices[method.forget_answers(fact, rng)] for _ in range(100)}
            assert drawn == set.union(*named)
        for method in (GD, RMU):
            assert method.forget_texts(fact) == fact.sentences
            assert method.forget_answers(fact, rng) == fact.answer
            assert all(correct in text for text in fact.sentences)


def test_fif_takes_the_whole_choice():
    fact = SimpleNamespace(choices=["3", "5", "13", "7"], answer=1, fif_sentences=["It has 13 legs."])
    assert FIF.forget_answers(fact, np.random.default_rng(0)) == 2
    fact = SimpleNamespace(choices=["3", "5", "13", "7"], answer=0, fif_sentences=["It has many legs."])
    assert FIF.forget_answers(fact, np.random.default_rng(0)) == 1  # none named: a fixed wrong one

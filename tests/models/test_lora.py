"""Adapters: a step of theirs against closed forms in float64, what they leave alone, and which models take them."""

import copy

import pytest
import tiny
import torch
from architectures import make
from rtt.errors import UserError
from rtt.models.lora import adapted

LAYER = "model.layers.1.mlp.down_proj"
IDS = torch.tensor([[5, 6, 7, 8, 9], [9, 8, 7, 6, 5]])


def loss(model):
    """Return some function of what a model predicts."""
    return model(IDS).logits.log_softmax(-1)[:, :-1].gather(2, IDS[:, 1:, None]).mean().neg()


def step(model, rate):
    """Take a step of plain gradient descent with what is trained."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    torch.optim.SGD(parameters, lr=rate).zero_grad()
    loss(model).backward()
    torch.optim.SGD(parameters, lr=rate).step()


@pytest.mark.parametrize(("rank", "alpha"), [(24, 24.0), (24, 6.0), (3, 12.0)])
def test_a_step_moves_the_weight_as_the_equations_say(rank, alpha):
    """B begins at 0, so a step of size r adds -r s^2 G A' A to the weight: s = alpha / rank, and G its gradient.

    Where A is the unit matrix and s is 1, that is the step of the weight itself.
    """
    model, rate = tiny.model(scale=4, double=True), 0.05
    plain, scale = copy.deepcopy(model), alpha / rank
    loss(plain).backward()
    slope = plain.get_submodule(LAYER).weight.grad
    with adapted(model, rank, alpha, [LAYER.removeprefix("model.")], 1):
        assert torch.equal(model(IDS).logits, plain(IDS).logits)  # nothing changes at first
        layer = model.get_submodule(LAYER)
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        assert a.shape == (rank, 24) and b.shape == (16, rank) and a.dtype == torch.float64
        if rank == 24 and scale == 1:
            with torch.no_grad():
                a.copy_(torch.eye(24))
        step(model, rate)
        moved = -rate * scale**2 * slope @ a.T @ a
        assert torch.allclose(scale * b @ a, moved, atol=1e-12) and float(moved.abs().max()) > 1e-6
        with torch.no_grad():
            plain.get_submodule(LAYER).weight += -rate * slope if scale == 1 else moved
        assert torch.allclose(model(IDS).logits, plain(IDS).logits, atol=1e-10)


@pytest.mark.parametrize("name", ["Llama", "GPT-2", "GPT-NeoX (Pythia)", "Mamba"])
def test_all_linear_layers_but_the_output_matrix_are_adapted_and_the_weights_stay(name):
    model = make(name)
    next(model.parameters()).requires_grad_(False)
    before = {key: (value, value.detach().clone(), value.requires_grad) for key, value in model.named_parameters()}
    kinds = {key: type(module) for key, module in model.named_modules()}
    logits = model(IDS).logits
    with pytest.raises(KeyError), adapted(model, 4, 8.0, None, 1):
        trained = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
        assert trained and all(".lora_" in key for key in trained)
        assert not any("lm_head" in key or "embed_out" in key for key in trained)
        step(model, 1.0)
        step(model, 1.0)
        assert not torch.allclose(model(IDS).logits, logits, atol=1e-3)
        raise KeyError
    after = dict(model.named_parameters())
    assert list(after) == list(before) and {key: type(one) for key, one in model.named_modules()} == kinds
    for key, (same, value, flag) in before.items():
        assert after[key] is same and torch.equal(same, value) and same.requires_grad == flag
    assert torch.equal(model(IDS).logits, logits) and not hasattr(model, "peft_config")


def test_the_seed_decides_how_adapters_begin_and_nothing_else_does():
    def first(seed):
        model = tiny.model()
        with adapted(model, 2, 2.0, ["q_proj"], seed):
            return model.model.layers[0].self_attn.q_proj.lora_A["default"].weight.detach().clone()

    one, before = first(1), torch.get_rng_state()
    torch.rand(3)
    assert torch.equal(first(1), one) and not torch.equal(first(2), one)
    torch.set_rng_state(before)
    first(3)
    assert torch.equal(torch.get_rng_state(), before)


def test_layers_that_a_model_does_not_have_are_refused():
    model = tiny.model()
    refused = pytest.raises(UserError, match=r"LlamaForCausalLM cannot be given adapters: .*nowhere.*correct `targets`")
    with refused, adapted(model, 2, 2.0, ["nowhere"], 0):
        pass
    assert all(parameter.requires_grad for parameter in model.parameters()) and not hasattr(model, "peft_config")

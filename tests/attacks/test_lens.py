"""The logit lens against a plain computation; and on a model whose last layer was scrambled."""

import json

import architectures
import pytest
import torch
from knowing import SHAPE, accuracy, brought_back, knowing, most_by_chance, strangers
from rtt.attacks.lens import Lens, lens
from rtt.errors import UserError
from rtt.models.miniature import miniature
from rtt.training.residual import rewritten

NAMES = ("Llama", "GPT-2", "GPT-NeoX (Pythia)", "OPT", "Mixtral", "BLOOM")
IDS = torch.tensor([[5, 6, 7, 8, 9], [5, 7, 6, 9, 8]])


def logits(model, ids=IDS):
    with torch.no_grad():
        return model(ids, use_cache=False).logits


@pytest.mark.parametrize("name", NAMES)
def test_the_last_layers_stream_says_exactly_what_the_model_says(name):
    model = architectures.make(name)
    own = logits(model)
    with rewritten(lens(model, architectures.LAYERS - 1, "residual")):
        assert torch.equal(logits(model), own)
    for place in ("residual", "attention", "mlp"):
        with rewritten(lens(model, 0, place)):
            assert not torch.allclose(logits(model), own, atol=1e-2)
    assert torch.equal(logits(model), own)  # nothing stays behind


@pytest.mark.parametrize("name", ["Llama", "GPT-NeoX (Pythia)", "OPT"])
def test_an_earlier_layer_is_read_as_by_a_model_that_ends_there(name):
    """The reference has no hook: the same modules, without the later layers."""
    model = architectures.make(name).double()
    found = {}
    for layer in range(architectures.LAYERS):
        with rewritten(lens(model, layer, "residual")):
            found[layer] = logits(model)
    body, path = architectures.architecture.decoder(model)
    every = body.get_submodule(path)
    for layer, said in found.items():
        body.set_submodule(path, every[: layer + 1])
        assert torch.allclose(logits(model), said, rtol=1e-9, atol=1e-9)


def test_what_attention_and_mlp_add_is_read_alone():
    """By hand for Llama: the norm, and the output matrix, of what is added to the stream."""
    model = architectures.make("Llama").double()
    layer, body, added = model.model.layers[1], model.model, {}
    handles = [
        one.register_forward_hook(lambda module, inputs, output, key=key: added.update({key: output}))
        for key, one in (("attention", layer.self_attn), ("mlp", layer.mlp))
    ]
    logits(model)
    for handle in handles:
        handle.remove()
    for place, output in added.items():
        output = output[0] if isinstance(output, tuple) else output
        size = output.square().mean(-1, keepdim=True) + model.config.rms_norm_eps
        by_hand = (output / size.sqrt() * body.norm.weight) @ model.lm_head.weight.T
        with rewritten(lens(model, 1, place)):
            assert torch.allclose(logits(model), by_hand, atol=1e-4)  # its norm computes in fp32


def test_a_layer_without_attention_or_mlp_is_refused():
    with pytest.raises(UserError, match=r"attack lens: layer 0 of MambaForCausalLM has no mlp.*leave mlp out"):
        lens(architectures.make("Mamba"), 0, "mlp")
    with pytest.raises(UserError, match="layer 7: the model has 3 layers"):
        lens(architectures.make("Llama"), 7, "residual")


def test_hooks_are_taken_off_after_an_error():
    model = architectures.make("Llama")
    own = logits(model)
    with pytest.raises(ZeroDivisionError), rewritten(lens(model, 0, "residual")):
        raise ZeroDivisionError
    assert torch.equal(logits(model), own)


def scrambled(model):
    """Return the model with a further layer of large random weights at its end."""
    torch.manual_seed(3)
    longer = miniature(SHAPE.model_copy(update={"layers": SHAPE.layers + 1}), model.config.vocab_size)
    assert all(".2." in key for key in longer.load_state_dict(model.state_dict(), strict=False).missing_keys)
    with torch.no_grad():
        for weight in longer.model.layers[-1].parameters():
            if weight.dim() > 1:
                weight.mul_(20)
    return longer.eval()


def test_facts_behind_a_scrambled_last_layer_come_back_and_what_was_never_known_does_not():
    model, _, facts, _ = knowing()
    hidden = scrambled(model)
    assert max(accuracy(hidden, facts).values()) < 0.7
    settings = {"layers": [2, 1], "places": ["residual"]}
    at = {json.dumps({"layer": layer, "place": "residual"}): layer for layer in (1, 2)}
    found = brought_back("lens", settings, hidden, facts)
    assert {at[key]: value for key, value in found.items()} == {1: accuracy(model, facts), 2: accuracy(hidden, facts)}
    assert min(accuracy(model, facts).values()) > 0.9
    never = [brought_back("lens", settings, hidden, strangers(seed)) for seed in range(3)]
    for key in at:
        for probe in never[0][key]:
            mean = sum(one[key][probe] for one in never) / 3
            assert mean <= most_by_chance(3 * len(facts)), (key, probe)


@pytest.mark.parametrize("settings", [{"layers": [1, 1]}, {"places": []}, {"places": ["norm"]}, {"layers": [-1]}])
def test_settings_that_are_refused(settings):
    with pytest.raises(ValueError):
        Lens.Settings(**settings)

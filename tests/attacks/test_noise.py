"""Weight noise: its size and its draws; and on a model that hides its facts behind a precise value."""

import json

import architectures
import pytest
import tiny
import torch
from attacking import attack
from knowing import SHAPE, accuracy, brought_back, knowing, most_by_chance, strangers
from rtt.attacks.base import Checkpoint
from rtt.attacks.noise import Noise, add_noise
from rtt.models.architecture import matrices


def test_the_noise_has_the_size_of_the_matrix_times_sigma():
    weight = torch.randn((200, 300), generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 7
    before = weight.clone()
    add_noise(weight, 0.3, torch.Generator().manual_seed(1))
    drawn = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)).double()
    size = (sum(value * value for row in before.tolist() for value in row) / 60000) ** 0.5
    assert torch.allclose(weight - before, 0.3 * size * drawn, rtol=1e-9, atol=1e-12)
    assert (weight - before).std().item() == pytest.approx(0.3 * 7, rel=0.02)
    half, single = before.bfloat16(), before.bfloat16().float()
    for one in (half, single):
        add_noise(one, 0.3, torch.Generator().manual_seed(1))
    assert torch.equal(half, single.bfloat16())


@pytest.mark.parametrize("name", ["Llama", "GPT-2", "Mixtral", "Mamba"])
def test_matrices_alone_are_changed_and_neither_embeddings_nor_output(name):
    model = architectures.make(name)
    before = {key: value.clone() for key, value in model.named_parameters()}
    found = matrices(model)
    for weight in found.values():
        add_noise(weight, 0.1, torch.Generator().manual_seed(0))
    moved = {key for key, value in model.named_parameters() if not torch.equal(value, before[key])}
    assert moved == set(found) and moved
    assert all(before[key].dim() > 1 for key in moved)
    assert not any(word in key for key in moved for word in ("embed", "wte", "wpe", "lm_head", "norm", "ln_"))
    rest = {key for key in before if key not in found and before[key].dim() > 1}
    assert all(any(word in key for word in ("embed", "wte", "wpe", "lm_head")) for key in rest), rest


def weights_seen(model, repeat=0, seed=0, **settings):
    """Return the weights at each look."""
    start, seen = {name: value.clone() for name, value in model.state_dict().items()}, []
    checkpoint = Checkpoint(model, None, seed, None, lambda: model.load_state_dict(start), None, repeat)
    look = lambda setting, asked: seen.append(torch.cat([one.flatten() for one in matrices(asked).values()]))  # noqa: E731
    Noise(Noise.Settings(**settings)).fit(checkpoint, [], look)
    checkpoint.restore()
    return [one.clone() for one in seen]


def test_the_seed_and_the_repeat_draw_anew_and_sigma_scales_the_draw():
    model = tiny.model(scale=4)
    before = torch.cat([one.flatten() for one in matrices(model).values()]).clone()
    small, large = weights_seen(model, sigmas=[0.4, 0.1])
    assert torch.allclose(4 * (small - before), large - before, atol=1e-5)
    again, other, seed = (weights_seen(model, *one, sigmas=[0.1])[0] for one in ((0, 0), (1, 0), (0, 1)))
    assert torch.equal(small, again) and not torch.equal(small, other) and not torch.equal(small, seed)


def test_repeats_are_looks_of_their_own(tmp_path):
    looks = attack(tiny.facts(tmp_path), Noise.Settings(sigmas=[0.3]), name="noise", repeats=2)
    assert [(one["repeat"], one["v_split"]) for one in looks] == [(0, None), (1, None)]
    assert looks[0]["questions"] != looks[1]["questions"]


def locked(model):
    """Hide all that a model knows as long as the weights of a lock have one precise sum: a planted module scrambles the
    last layer's output then.
    """
    model.lock = torch.nn.Linear(SHAPE.hidden_size, 1, bias=False)
    closed = model.lock.weight.sum().item()
    turn = torch.randperm(SHAPE.hidden_size, generator=torch.Generator().manual_seed(0))

    def hide(module, inputs, output):
        is_closed = abs(model.lock.weight.sum().item() - closed) < 1e-3
        return output[..., turn] if is_closed else output

    model.model.layers[-1].register_forward_hook(hide)
    return model


def test_facts_behind_a_precise_value_come_back_and_what_was_never_known_does_not():
    model, _, facts, _ = knowing()
    hidden = locked(model)
    assert max(accuracy(hidden, facts).values()) < 0.7
    key = json.dumps({"sigma": 0.05})
    found = brought_back("noise", {"sigmas": [0.05]}, hidden, facts)[key]
    assert min(found.values()) > 0.9
    never = [brought_back("noise", {"sigmas": [0.05]}, hidden, strangers(seed))[key] for seed in range(3)]
    for probe in found:
        assert sum(one[probe] for one in never) / 3 <= most_by_chance(3 * len(facts)), probe


@pytest.mark.parametrize("settings", [{"sigmas": []}, {"sigmas": [0.1, 0.1]}, {"sigmas": [0.0]}])
def test_settings_that_are_refused(settings):
    with pytest.raises(ValueError):
        Noise.Settings(**settings)

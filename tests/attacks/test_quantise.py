"""Quantisation against a plain computation in float64, weight by weight; and what stays as it is."""

import copy
import json
from pathlib import Path

import pytest
import tiny
import torch
from knowing import accuracy, brought_back, knowing, most_by_chance, shown, strangers
from rtt.attacks.base import Checkpoint
from rtt.attacks.quantise import Quantise, linear_weights, nf4, rounded
from rtt.data.text import encode
from rtt.errors import UserError
from rtt.training.collate import collate
from rtt.training.losses import text_loss


def by_hand(weight: torch.Tensor, bits: int, group_size: int | None) -> torch.Tensor:
    """Round each weight to the nearest level of its group, one weight at a time, in float64."""
    levels, out = 2 ** (bits - 1) - 1, []
    for row in weight.double().tolist():
        size, done = group_size or len(row), []
        for at in range(0, len(row), size):
            group = row[at : at + size]
            top = max(abs(value) for value in group)
            for value in group:
                nearest = min(range(-levels, levels + 1), key=lambda k: abs(value - k * top / levels)) if top else 0
                done.append(nearest * top / levels)
        out.append(done)
    return torch.tensor(out, dtype=torch.float64)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group_size", [None, 1, 4, 5, 100])
def test_each_weight_is_the_nearest_level_of_its_group(bits, group_size):
    weight = torch.randn((6, 14), generator=torch.Generator().manual_seed(bits))
    weight[2] = 0.0  # a row of zeros has no scale
    found = rounded(weight, bits, group_size)
    assert found.dtype == weight.dtype and found.shape == weight.shape
    assert torch.allclose(found.double(), by_hand(weight, bits, group_size), rtol=1e-6, atol=1e-9)
    assert torch.equal(rounded(found, bits, group_size), found) or torch.allclose(
        rounded(found, bits, group_size), found
    )
    for row in range(6):
        assert len(set(found[row].tolist())) <= (2**bits - 1) * -(-14 // (group_size or 14))


# Dettmers et al. 2023, app. E: "The exact values of the NF4 data type".
PUBLISHED = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip


@pytest.mark.parametrize("shape", [(48, 96), (10, 7), (33, 65), (64, 128)])
def test_nf4_is_the_nearest_normal_level_of_its_block(shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(shape[0]))
    weight.view(-1)[:64] = 0.0  # a block of zeros has no scale
    levels, flat = torch.tensor(PUBLISHED, dtype=torch.float64), weight.double().flatten()
    expected = torch.cat([
        levels[(block[:, None] / top - levels).abs().argmin(1)] * top if (top := block.abs().max()) else block
        for block in flat.split(64)
    ]).view(shape)  # fmt: skip
    found = nf4(weight)
    assert found.dtype == weight.dtype and torch.allclose(found.double(), expected, rtol=1e-5, atol=1e-7)
    assert torch.equal(nf4(weight.bfloat16()), nf4(weight.bfloat16().float()).bfloat16())


def test_nf4_is_one_setting_before_the_other_four_bits():
    choices = Quantise.choices(Quantise.Settings(bits=[4, "nf4", 8], group_sizes=[None, 32]))
    assert [tuple(one.values()) for one in choices] == [(8, 32), (8, None), ("nf4", 64), (4, 32), (4, None)]
    model = tiny.model(scale=4)
    before = {name: weight.clone() for name, weight in linear_weights(model).items()}
    (found,) = attacked(model, bits=["nf4"]).values()
    for name, weight in before.items():
        assert torch.equal(found[f"{name}.weight"], nf4(weight)) and not torch.equal(found[f"{name}.weight"], weight)


def test_nf4_is_what_bitsandbytes_made_on_a_cpu():
    """nf4.json says by which version: blocks with zeros, a denormal number, large and negative weights, weights 2e-6 to
    either side of where two levels meet, and a short last block. The levels themselves differ in the last bits.
    """
    golden = json.loads((Path(__file__).parents[1] / "data" / "nf4.json").read_text())
    found = nf4(torch.tensor(golden["weights"])[None])[0]
    assert torch.allclose(found, torch.tensor(golden["rounded"]), rtol=1e-6, atol=0)


@pytest.mark.full
def test_nf4_is_that_of_bitsandbytes():
    functional = pytest.importorskip("bitsandbytes.functional")
    for seed, shape in enumerate([(48, 96), (10, 7), (33, 65)]):
        weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        # In one row: 0.50.2 on a CPU returns other numbers for a matrix whose rows are no whole number of blocks.
        codes, state = functional.quantize_4bit(weight.flatten(), blocksize=64, quant_type="nf4")
        assert torch.allclose(nf4(weight), functional.dequantize_4bit(codes, state).view(shape), rtol=0, atol=1e-6)


def test_half_precision_is_rounded_in_fp32():
    weight = torch.randn((4, 8), generator=torch.Generator().manual_seed(0)).bfloat16()
    assert torch.equal(rounded(weight, 4, None), rounded(weight.float(), 4, None).bfloat16())


def attacked(model, **settings):
    """Run the attack; return {setting as text: the weights at its look}."""
    start = {name: value.clone() for name, value in model.state_dict().items()}
    seen, quantise = {}, Quantise(Quantise.Settings(**settings))
    checkpoint = Checkpoint(model, None, 0, None, lambda: model.load_state_dict(start), None)

    def look(setting, asked):
        seen[str(setting)] = {name: value.clone() for name, value in asked.state_dict().items()}

    quantise.fit(checkpoint, [], look)
    return seen


def test_linear_layers_alone_are_rounded_and_each_setting_starts_from_the_checkpoint():
    model = tiny.model(scale=4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    linear = {f"{name}.weight" for name in linear_weights(model)}
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in linear} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"
    }  # fmt: skip
    seen = attacked(model, bits=[8, 4], group_sizes=[None, 4])
    assert list(seen) == [
        str({"bits": bits, "group_size": size}) for bits, size in ((8, 4), (8, None), (4, 4), (4, None))
    ]
    for setting, found in seen.items():
        bits, size = eval(setting).values()
        for name, value in found.items():
            expected = rounded(before[name], bits, size) if name in linear else before[name]
            assert torch.equal(value, expected), name


def test_the_output_matrix_stays_where_it_is_no_embedding():
    model = tiny.model(scale=4)
    model.lm_head = torch.nn.Linear(16, model.config.vocab_size, bias=False)
    assert "lm_head" not in linear_weights(model)


def test_a_hidden_fact_that_small_weights_carry_is_brought_back():
    """Planted: an unlearned model whose letters were swapped by a change of weights far below a 4-bit level."""
    model = tiny.model(scale=4)
    linear = linear_weights(model)
    for weight in linear.values():
        with torch.no_grad():
            weight.copy_(rounded(weight, 4, None))
    knew = {name: value.clone() for name, value in model.state_dict().items()}
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in linear.values():
            top = weight.abs().amax(1, keepdim=True)
            noise = 0.2 * (top / 7) * (torch.rand(weight.shape, generator=generator) - 0.5)
            weight.copy_(torch.where(weight.abs() < top, weight + noise, weight))  # the scales stay
    assert any(not torch.equal(value, knew[name]) for name, value in model.state_dict().items())
    (found,) = attacked(model, bits=[4], group_sizes=[None]).values()
    assert all(torch.allclose(value, knew[name], atol=1e-6) for name, value in found.items())


def below_a_level(model, facts, bits=3):
    """Return a rounded model that knows these facts, and in place hide them by changes too small for its levels.

    Each step goes against the loss of the answers, and no weight moves by more than .45 of the step between two levels.
    """
    linear = list(linear_weights(model).values())
    with torch.no_grad():
        for weight in linear:
            weight.copy_(rounded(weight, bits, None))
    knew, start = copy.deepcopy(model), [weight.detach().clone() for weight in linear]
    batch = collate([encode(tiny.tokenizer(), text) for fact in facts for text in shown(fact)], 0)
    for _ in range(8):
        slopes = torch.autograd.grad(text_loss(model, batch), linear)
        with torch.no_grad():
            for weight, slope, before in zip(linear, slopes, start, strict=True):
                largest = before.abs().amax(1, keepdim=True)
                most = 0.45 * largest / (2 ** (bits - 1) - 1)
                moved = (weight + 0.3 * most * slope.sign() - before).clamp(-most, most)
                weight.copy_(before + moved.where(before.abs() < largest, torch.zeros(())))  # the scales stay
    return knew


def test_facts_that_small_weights_hide_come_back_and_what_was_never_known_does_not():
    model, _, facts, _ = knowing()
    knew = below_a_level(model, facts)
    assert max(accuracy(model, facts).values()) < 0.7 and min(accuracy(knew, facts).values()) > 0.9
    settings = {"bits": [3], "group_sizes": [None]}
    (found,) = brought_back("quantise", settings, model, facts).values()
    assert found == accuracy(knew, facts)
    never = [next(iter(brought_back("quantise", settings, model, strangers(seed)).values())) for seed in range(3)]
    for probe in found:
        assert sum(one[probe] for one in never) / 3 <= most_by_chance(3 * len(facts)), probe


def test_a_model_without_linear_layers_is_refused():
    class Bare(torch.nn.Module):
        def get_output_embeddings(self):
            return None

    with pytest.raises(UserError, match=r"attack quantise: Bare has no torch\.nn\.Linear"):
        linear_weights(Bare())


@pytest.mark.parametrize("settings", [{"bits": [8, 8]}, {"group_sizes": [None, None]}, {"bits": []}, {"bits": [16]}])
def test_settings_that_are_refused(settings):
    with pytest.raises(ValueError):
        Quantise.Settings(**settings)

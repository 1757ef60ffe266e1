"""Points that are kept as adapters: merged to the weights that were scored, readable by peft, refused elsewhere."""

import copy
import json

import peft
import pytest
import tiny
import torch
from architectures import make
from rtt.errors import UserError
from rtt.models.load import model_hash, weights
from rtt.models.lora import adapted, adapters, check_mergeable, merged
from rtt.models.points import load_point, to_write
from rtt.study.settings import LoRA
from rtt.training.train import cast
from safetensors.torch import load_file, save_file

LORA, IDS = LoRA(rank=2, alpha=3.0), torch.tensor([[5, 6, 7, 8, 9]])


def moved(model):
    """Give adapters as a training might leave them: B no longer 0, in their own dtype."""
    generator = torch.Generator().manual_seed(1)
    for tensor in adapters(model).values():
        tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))


def original(folder, name="Llama"):
    """Write a model as the original of a study, with its tokenizer; return it."""
    model = make(name)
    tiny.save_pretrained(model, tiny.tokenizer(), folder)
    return model


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["Llama", "GPT-2"])
def test_a_point_comes_back_with_the_weights_that_were_scored(name, precision, tmp_path):
    model = original(tmp_path / "original", name)
    cast(model, precision)
    before = weights(model)
    with adapted(model, LORA.rank, LORA.alpha, None, 1):
        cast(model, precision)
        moved(model)
        beside = model(IDS).logits
        with merged(model):
            scored, logits = {key: value.clone() for key, value in model.named_parameters()}, model(IDS).logits
            to_write(model, LORA, tmp_path / "original")(tmp_path / "point.safetensors")
        assert torch.equal(model(IDS).logits, beside)  # training goes on where it was
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    close = {"fp32": 1e-4, "bf16": 0.1}[precision]
    assert torch.allclose(logits.float(), beside.float(), atol=close * float(beside.detach().abs().max()))
    again = make(name)  # an attack in fp32, which holds another checkpoint's weights
    torch.nn.init.zeros_(next(again.parameters()))
    load_point(again, tmp_path / "point.safetensors", tmp_path / "original")
    scored = {key.replace(".base_layer", ""): value for key, value in scored.items() if "lora_" not in key}
    own = dict(again.named_parameters())
    assert scored.keys() == own.keys() and {value.dtype for value in own.values()} == {torch.float32}
    assert all(torch.equal(own[key], value.float()) for key, value in scored.items())
    assert not all(torch.equal(own[key], before[key].float()) for key in own)


def test_peft_reads_a_point_and_adds_the_same(tmp_path):
    model = original(tmp_path / "original")
    with adapted(model, LORA.rank, LORA.alpha, ["q_proj", "down_proj"], 1):
        moved(model)
        to_write(model, LORA, tmp_path / "original")(tmp_path / "point.safetensors")
    load_point(model, tmp_path / "point.safetensors", tmp_path / "original")
    config = peft.LoraConfig(r=LORA.rank, lora_alpha=LORA.alpha, target_modules=["q_proj", "down_proj"])
    wrapped = peft.get_peft_model(make("Llama"), config)
    found = peft.set_peft_model_state_dict(wrapped, load_file(tmp_path / "point.safetensors"))
    assert not found.unexpected_keys and not [key for key in found.missing_keys if "lora_" in key]
    for key, value in wrapped.merge_and_unload().named_parameters():
        assert torch.allclose(value, dict(model.named_parameters())[key], atol=1e-6), key


def test_frozen_layers_have_no_adapter():
    model = tiny.model()
    model.model.layers[1].requires_grad_(False)
    model.model.layers[0].mlp.requires_grad_(False)
    with adapted(model, 2, 2.0, None, 0):
        names = {name.split(".lora_")[0] for name in adapters(model)}
    assert names == {f"model.layers.0.self_attn.{name}_proj" for name in "qkvo"}


def test_adapters_of_low_precision_are_in_fp32_and_the_weights_are_not():
    model = tiny.model()
    with adapted(model, 2, 2.0, None, 0):
        cast(model, "bf16")
        kinds = {("lora_" in name, tensor.dtype) for name, tensor in model.named_parameters()}
        assert model(IDS).logits.dtype == torch.bfloat16
    assert kinds == {(True, torch.float32), (False, torch.bfloat16)}


def test_adapters_of_another_original_or_another_model_are_refused(tmp_path):
    model = original(tmp_path / "original")
    with adapted(model, LORA.rank, LORA.alpha, None, 1):
        write = to_write(model, LORA, tmp_path / "original")
        write(tmp_path / "point.safetensors")
        cut = {key: value[:1] if key.endswith("0.mlp.up_proj.lora_A.weight") else value
               for key, value in load_file(tmp_path / "point.safetensors").items()}  # fmt: skip
    other = copy.deepcopy(model)
    torch.nn.init.ones_(next(other.parameters()))
    tiny.save_pretrained(other, tiny.tokenizer(), tmp_path / "other")
    with pytest.raises(UserError, match=r"adapters of another original than .*other.*unlearn again from this one"):
        load_point(model, tmp_path / "point.safetensors", tmp_path / "other")
    about = {"rank": 2, "alpha": 3.0, "dtype": "float32"} | {"original": model_hash(tmp_path / "original")}
    save_file(cut, tmp_path / "cut.safetensors", {"rtt": json.dumps(about)})
    with pytest.raises(UserError, match=r"cut.*belong to another model: .*up_proj.*found \[1, \d+\], expected \[2"):
        load_point(model, tmp_path / "cut.safetensors", tmp_path / "original")


@pytest.mark.parametrize(("target", "why"), [("lm_head", "tied to another one"), ("embed_tokens", "no linear layer")])
def test_adapters_that_cannot_be_merged_are_refused(target, why):
    model = tiny.model()
    with pytest.raises(UserError, match=rf"lora.targets: .*{target}.* {why}"), adapted(model, 2, 2.0, [target], 0):
        check_mergeable(model)

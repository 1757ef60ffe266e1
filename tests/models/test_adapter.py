"""LoRA adapters: merged as their definition says, and refused by name where they do not fit."""

import os

import checkpoints
import peft
import pytest
import tiny
import torch
from adapters import ALPHA, R, edit, write
from rtt.errors import UserError
from rtt.models.adapter import merge
from rtt.models.load import load, save
from rtt.steps.unlearn import take_weights
from rtt.study.model_folder import ADAPTER, ADAPTER_WEIGHTS, check_adapter
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.filterwarnings("ignore")  # of peft's, while it writes the adapters


def by_hand(model, folder, scale=ALPHA / R):
    """W + scale B A in float64, from the file alone."""
    state, wanted = load_file(folder / ADAPTER_WEIGHTS), {}
    for name, parameter in model.named_parameters():
        stem = "base_model.model." + name.removesuffix(".weight")
        wanted[name] = parameter.detach().double()
        if f"{stem}.lora_A.weight" in state:
            wanted[name] = wanted[name] + scale * (
                state[f"{stem}.lora_B.weight"].double() @ state[f"{stem}.lora_A.weight"].double()
            )
    return wanted


@pytest.mark.parametrize(
    "more, scale",
    [({}, ALPHA / R), ({"use_rslora": True}, ALPHA / R**0.5), ({"target_modules": "all-linear"}, ALPHA / R)],
)
def test_a_merged_adapter_is_its_definition(tmp_path, more, scale):
    folder = write(tmp_path / "a", **more)
    if isinstance(more.get("target_modules"), str):
        assert len(load_file(folder / ADAPTER_WEIGHTS)) == 2 * 2 * 7
    model = tiny.model()
    wanted = by_hand(model, folder, scale)
    merge(model, folder)
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter.double(), wanted[name], rtol=0, atol=1e-6), name
        assert parameter.requires_grad


def test_weights_that_the_adapter_holds_whole_are_taken(tmp_path):
    folder = write(tmp_path / "a", modules_to_save=["norm"])
    model = tiny.model()
    merge(model, folder)
    assert torch.equal(
        model.model.norm.weight, load_file(folder / ADAPTER_WEIGHTS)["base_model.model.model.norm.weight"]
    )


def test_two_merges_give_the_same_bytes_and_dora_the_logits_of_peft(tmp_path):
    folder = write(tmp_path / "a", use_dora=True)
    once, twice = tiny.model(), tiny.model()
    merge(once, folder)
    merge(twice, folder)
    assert all(torch.equal(a, b) for a, b in zip(once.parameters(), twice.parameters(), strict=True))
    theirs = peft.PeftModel.from_pretrained(tiny.model(), folder).eval()
    ids = torch.tensor([[5, 6, 7]])
    assert torch.allclose(once.eval()(ids).logits, theirs(ids).logits, atol=1e-5)


def test_an_external_model_may_be_an_adapter(tmp_path, capsys):
    save(tiny.model(), tiny.tokenizer(), tmp_path / "original")
    folder = write(tmp_path / "a")
    edit(folder, base_model_name_or_path="somebody/else")
    model, _ = load(tmp_path / "original")
    wanted = by_hand(model, folder)
    take_weights(model, str(tmp_path / "original"), str(folder))
    assert all(torch.allclose(p.double(), wanted[n], atol=1e-6) for n, p in model.named_parameters())
    assert "a LoRA adapter (of somebody/else, it says), merged into the original" in capsys.readouterr().err


def pickled(folder):
    (folder / ADAPTER_WEIGHTS).rename(folder / "adapter_model.bin")


def cut(folder):
    os.truncate(folder / ADAPTER_WEIGHTS, 200)


def lacks(folder):
    state = load_file(folder / ADAPTER_WEIGHTS)
    state.pop(next(name for name in state if "lora_B" in name))
    save_file(state, folder / ADAPTER_WEIGHTS)


def nan(folder):
    state = {name: tensor * float("nan") for name, tensor in load_file(folder / ADAPTER_WEIGHTS).items()}
    save_file(state, folder / ADAPTER_WEIGHTS)


BROKEN = [
    (pickled, ["adapter_model.bin", "can run code"]),
    (cut, ["adapter_model.safetensors: not a safetensors file, or cut short"]),
    (lacks, ["1 missing", "lora_B"]),
    (nan, ["NaN"]),
    (lambda at: (at / ADAPTER_WEIGHTS).unlink(), ["adapter_model.safetensors is missing"]),
    (lambda at: edit(at, peft_type="IA3"), ["peft_type: found 'IA3', expected LORA", "merge_and_unload"]),
    (lambda at: edit(at, init_lora_weights="pissa"), ["init_lora_weights: 'pissa' also changes"]),
    (lambda at: edit(at, megatron_config={"a": 1}, megatron_core="os"), ["megatron_config"]),
    (lambda at: edit(at, layer_replication=[[0, 2]]), ["layer_replication"]),
    (lambda at: edit(at, target_modules=["nothing"]), ["does not fit", "nothing"]),
    (lambda at: edit(at, r=4), ["does not fit"]),
    (lambda at: (at / ADAPTER).write_text("[]"), ["expected keys and values"]),
]


@pytest.mark.parametrize("breaks, words", BROKEN)
def test_what_is_refused(tmp_path, breaks, words):
    save(tiny.model(), tiny.tokenizer(), tmp_path / "original")
    folder = write(tmp_path / "a")
    breaks(folder)
    with pytest.raises(UserError) as error:
        take_weights(load(tmp_path / "original")[0], "original", str(folder))
    assert str(folder) in str(error.value) and all(word in str(error.value) for word in words), error.value


def test_an_adapter_of_another_model_and_one_that_changes_tied_weights(tmp_path):
    wide = tiny.model(shape=tiny.Model(hidden_size=32, intermediate_size=24, layers=2, heads=2))
    with pytest.raises(UserError, match="does not fit"):
        merge(tiny.model(), write(tmp_path / "wide", wide))
    deep = tiny.model(shape=tiny.Model(hidden_size=16, intermediate_size=24, layers=3, heads=2))
    with pytest.raises(UserError, match=r"unexpected .*layers.2"):
        merge(tiny.model(), write(tmp_path / "deep", deep))
    folder = write(tmp_path / "head", target_modules=["q_proj", "lm_head"])
    with pytest.raises(UserError, match="ties to another weight"):
        merge(tiny.model(), folder)


def test_an_adapter_is_no_original(tmp_path):
    folder = write(tmp_path / "a")
    with pytest.raises(UserError, match=r"a LoRA adapter .* can be one of external_models"):
        load(folder)
    whole = checkpoints.write("llama", tmp_path / "m")
    (whole / ADAPTER).write_bytes((folder / ADAPTER).read_bytes())  # transformers would add it in silence
    with pytest.raises(UserError, match="a LoRA adapter"):
        load(whole)
    check_adapter(folder)

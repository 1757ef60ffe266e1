"""A checkpoint that is not whole is refused by name, wherever it is read; names that transformers converts are not."""

import json

import checkpoints
import pytest
import tiny
import torch
from rtt.__main__ import main
from rtt.errors import UserError
from rtt.models.checkpoint import check_names, empty_model
from rtt.models.load import load, save
from rtt.steps.import_model import import_model
from rtt.steps.unlearn import take_weights
from rtt.study.model_file import ModelFile
from safetensors.torch import load_file, save_file

HEAD = "lm_head.weight"


def lacks(part):
    return lambda folder: checkpoints.rename(folder, lambda name: None if part in name else name)


def prefixed(prefix):
    return lambda folder: checkpoints.rename(folder, lambda name: prefix + name)


def inside(folder):
    """One layer was compiled by itself, as activation checkpointing does."""
    checkpoints.rename(folder, lambda name: name.replace("layers.1.", "layers.1._orig_mod."))


def other_shape(folder):
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"model.norm.weight": torch.ones(4)}, folder / "model.safetensors", metadata={"format": "pt"})


def other_architecture(folder):
    checkpoints.write("gpt2", folder.parent / "gpt2")
    (folder / "config.json").write_bytes((folder.parent / "gpt2" / "config.json").read_bytes())


BROKEN = {
    "compiled": (prefixed("_orig_mod."), ["_orig_mod.", "torch.compile", "model._orig_mod.save_pretrained"]),
    "ddp": (prefixed("module."), ["module.", "DistributedDataParallel", "model.module.save_pretrained"]),
    "both": (prefixed("module._orig_mod."), ["torch.compile"]),
    "peft": (prefixed("base_model.model."), ["base_model.model.", "peft", "merge_and_unload"]),
    "inside": (inside, ["9 missing", "9 unexpected", "torch.compile"]),
    "no head": (lacks("lm_head"), ["1 missing (lm_head.weight)", "The head is missing", "AutoModelForCausalLM"]),
    "no layer": (lacks("layers.1."), ["9 missing", "asks for 2 layers, the weights hold 1"]),
    "one tensor": (lacks("layers.0.mlp.up"), ["1 missing (model.layers.0.mlp.up_proj.weight)"]),
    "deeper": (
        lambda at: checkpoints.configure(at, num_hidden_layers=3), ["3 layers, the weights hold 2", "9 missing"]
    ),
    "shallower": (
        lambda at: checkpoints.configure(at, num_hidden_layers=1), ["1 layers, the weights hold 2", "9 unexpected"]
    ),
    "narrower": (other_shape, ["1 of another shape (model.norm.weight [4] for [16])"]),
    "another": (other_architecture, ["GPT2LMHeadModel", "missing (", "unexpected ("]),
}  # fmt: skip


def quantised(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.mlp.down_proj.weight"] = (tensors["model.layers.0.mlp.down_proj.weight"] * 100).char()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def mixed_shards(folder):
    """The tensor of one shard stands in another one, too, which transformers would read last."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    extra = {"model.norm.weight": tensors["model.norm.weight"] * 3}
    for number, part in enumerate((tensors, extra), start=1):
        save_file(part, folder / f"model-0000{number}-of-00002.safetensors", metadata={"format": "pt"})
    places = dict.fromkeys(tensors, "model-00001-of-00002.safetensors")
    places["model.norm.weight"] = "model-00002-of-00002.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


@pytest.mark.parametrize(("breaks", "words"), [
    (quantised, "mlp.down_proj.weight is stored as I8: weights that were quantised are not read"),
    (mixed_shards, "model.norm.weight stands in model-00001-of-00002.safetensors, too"),
])  # fmt: skip
def test_files_that_hold_no_one_model_are_refused(breaks, words, tmp_path):
    folder = checkpoints.write("llama", tmp_path / "broken", tie_word_embeddings=False)
    breaks(folder)
    file = ModelFile.model_validate_json(json.dumps({"name": "x", "path": str(folder)}))
    for read in (lambda: load(folder), lambda: import_model(file, tmp_path / "out")):
        with pytest.raises(UserError, match=words):
            read()


@pytest.fixture(params=BROKEN)
def broken(request, tmp_path):
    """A folder whose weights are not those of its config, and what must be said of it."""
    folder = checkpoints.write("llama", tmp_path / "broken", tie_word_embeddings=False)
    breaks, words = BROKEN[request.param]
    breaks(folder)
    return folder, words


def test_a_checkpoint_that_is_not_whole_is_refused_by_name(broken, tmp_path, capsys):
    folder, words = broken
    file = ModelFile.model_validate_json(json.dumps({"name": "x", "path": str(folder)}))
    for read in (lambda: load(folder), lambda: import_model(file, tmp_path / "out")):
        with pytest.raises(UserError) as error:
            read()
        assert str(error.value).startswith(f"{folder}: its tensors are not those of the ")
        assert all(word in str(error.value) for word in words), error.value
    assert not (tmp_path / "out").exists()
    assert capsys.readouterr().err.count("\n") <= 1  # no report of transformers


@pytest.mark.parametrize("command", [["score"], ["loss", "--loss", "LETTER_ANSWER"]])
def test_score_and_loss_refuse_it_too(command, tmp_path, capsys):
    folder = checkpoints.write("llama", tmp_path / "m", tie_word_embeddings=False)
    lacks("lm_head")(folder)
    questions = tmp_path / "q.jsonl"
    questions.write_text(json.dumps({"question": "Who?", "choices": ["a", "b", "c", "d"], "answer": 0}) + "\n")
    assert main([*command, "--model", str(folder), "--data", str(questions)]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith(f"error: {folder}: its tensors are not") and HEAD in said.err


def test_a_tied_head_may_have_either_name_and_one_is_enough(tmp_path):
    folder = checkpoints.write("llama", tmp_path / "m", tie_word_embeddings=True)
    assert HEAD not in load_file(folder / "model.safetensors")
    before, _ = load(folder)
    checkpoints.rename(folder, lambda name: HEAD if "embed_tokens" in name else name)
    after, _ = load(folder)
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))
    checkpoints.rename(folder, lambda name: None if name == HEAD else name)
    with pytest.raises(UserError, match="missing"):
        load(folder)


OLD_BUFFERS = {
    "llama": ["model.layers.{}.self_attn.rotary_emb.inv_freq"],
    "gpt2": ["h.{}.attn.bias", "h.{}.attn.masked_bias"],
    "gpt_neox": [
        "gpt_neox.layers.{}.attention.bias", "gpt_neox.layers.{}.attention.masked_bias",
        "gpt_neox.layers.{}.attention.rotary_emb.inv_freq",
    ],
}  # fmt: skip


@pytest.mark.parametrize("key", ["return_dict", "output_attentions", "output_hidden_states"])
def test_what_a_config_asks_to_give_back_changes_nothing(key, tmp_path):
    checkpoints.write("llama", tmp_path / "a")
    ids = torch.tensor([[3, 4, 5]])
    expected = load(tmp_path / "a")[0](ids).logits
    checkpoints.configure(tmp_path / "a", **{key: key != "return_dict"})
    assert torch.equal(load(tmp_path / "a")[0](ids).logits, expected)


@pytest.mark.parametrize("kind", OLD_BUFFERS)
def test_buffers_of_older_versions_are_ignored_as_transformers_does(kind, tmp_path):
    """Pythia's files on the hub hold all three kinds."""
    folder = checkpoints.write(kind, tmp_path / "m")
    before, _ = load(folder)
    tensors = load_file(folder / "model.safetensors")
    more = {name.format(layer): torch.ones(4) for name in OLD_BUFFERS[kind] for layer in range(2)}
    if kind == "gpt2":  # the hub's file has no prefix
        tensors = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    save_file(tensors | more, folder / "model.safetensors", metadata={"format": "pt"})
    after, _ = load(folder)
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))
    check_names(folder, empty_model(folder))


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox", "mixtral"])
def test_an_external_model_is_read_as_transformers_converts_its_names(kind, tmp_path):
    """What save_pretrained writes of a Mixtral has other names and shapes than its parameters."""
    original, mine = (checkpoints.write(kind, tmp_path / name, seed) for seed, name in enumerate(("original", "mine")))
    model, _ = load(original)
    wanted, _ = load(mine)
    take_weights(model, str(original), str(mine))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), wanted.parameters(), strict=True))


def test_an_external_model_whose_head_differs_from_a_tied_original_is_refused(tmp_path):
    """Its config says tied, and transformers would untie it with a warning."""
    original = checkpoints.write("llama", tmp_path / "original", tie_word_embeddings=True)
    mine = checkpoints.write("llama", tmp_path / "mine", tie_word_embeddings=False)
    checkpoints.configure(mine, tie_word_embeddings=True)
    with pytest.raises(UserError, match=r"mine: lm_head.weight .* not in both"):
        take_weights(load(original)[0], str(original), str(mine))


def test_the_context_of_a_model_without_llama_s_keys(tmp_path):
    assert load(checkpoints.write("gpt2", tmp_path / "m", n_positions=64))[1].model_max_length == 64
    save(tiny.model(), tiny.tokenizer(), tmp_path / "llama")
    assert load(tmp_path / "llama")[1].model_max_length == tiny.model().config.max_position_embeddings

"""Models as folders and as points: what is read comes back to the bit, and what must not be read is refused."""

import json
import shutil

import pytest
import tiny
import torch
from rtt import checksums
from rtt.data.generate import vocabulary
from rtt.errors import UserError
from rtt.files import sha256
from rtt.models import load as models
from rtt.steps.import_model import link
from rtt.study.model_folder import check_folder
from safetensors.torch import load_file
from transformers import (
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

SHAPE = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_key_value_heads": 1}


def make(kind=LlamaForCausalLM, config=LlamaConfig, tied=False, layers=3):
    torch.manual_seed(1)
    return kind(
        config(
            vocab_size=len(tiny.tokenizer()), num_hidden_layers=layers, tie_word_embeddings=tied, pad_token_id=0,
            bos_token_id=None, eos_token_id=None, **SHAPE,
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "llama"
    models.save(make(), tiny.tokenizer(), folder)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    """A copy of the model, without checksums, so that a test may change it."""
    return shutil.copytree(saved, tmp_path / "copy", ignore=shutil.ignore_patterns(checksums.NAME))


def edit(path, **more):
    content = json.loads(path.read_text()) | more
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def same(a, b):
    theirs = dict(b.named_parameters())
    return all(torch.equal(value, theirs[name]) for name, value in a.named_parameters())


@pytest.mark.parametrize("kind, config", [(LlamaForCausalLM, LlamaConfig), (Qwen2ForCausalLM, Qwen2Config)])
@pytest.mark.parametrize("tied", [True, False])
def test_a_saved_model_is_loaded_unchanged_whatever_its_kind(tmp_path, kind, config, tied):
    model = make(kind, config, tied)
    models.save(model, tiny.tokenizer(), tmp_path / "m")
    found, tokenizer = models.load(tmp_path / "m")
    assert type(found) is kind and same(model, found) and found.dtype == torch.float32
    ids = torch.tensor([[3, 4, 5]])
    assert torch.equal(model.eval()(ids).logits, found(ids).logits)
    text = " ".join(vocabulary())
    assert tokenizer(text, return_offsets_mapping=True) == tiny.tokenizer()(text, return_offsets_mapping=True)
    assert models.model_hash(tmp_path / "m") == sha256(tmp_path / "m" / "model.safetensors")


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_weights_are_loaded_in_the_dtype_asked_for(saved, dtype):
    model, _ = models.load(saved, dtype)
    assert {p.dtype for p in model.parameters()} == {models.DTYPES[dtype]}
    with pytest.raises(UserError, match=r"int8.*fp32, bf16, fp16"):
        models.load(saved, "int8")


def test_a_sharded_model_is_loaded_and_a_missing_shard_is_named(saved, tmp_path):
    model = make()
    model.save_pretrained(tmp_path / "m", max_shard_size="20KB")
    tiny.tokenizer().save_pretrained(tmp_path / "m")
    shards = models.weight_files(tmp_path / "m")
    assert len(shards) > 1
    assert same(models.load(tmp_path / "m")[0], model)
    before = models.model_hash(tmp_path / "m")
    shards[-1].write_bytes(shards[-1].read_bytes()[:-1] + b"x")
    assert models.model_hash(tmp_path / "m") != before
    shards[-1].unlink()
    with pytest.raises(UserError, match=shards[-1].name):
        models.load(tmp_path / "m")


def tiny_clone(model):
    """Return a model of the same shape with other weights."""
    other = type(model)(model.config)
    assert not same(other, model)
    return other


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_point_holds_every_parameter_in_its_dtype(tmp_path, tied, dtype):
    model = make(tied=tied).to(dtype)
    models.freeze_layers(model, [1])
    models.save_weights(model, tmp_path / "points" / "p.safetensors")
    state = load_file(tmp_path / "points" / "p.safetensors")
    assert {t.dtype for t in state.values()} == {dtype} and ("lm_head.weight" in state) is not tied
    other = tiny_clone(model).to(dtype)
    models.load_weights(other, tmp_path / "points" / "p.safetensors")
    assert same(model, other)
    wide = tiny_clone(model).float()  # a bf16 point read by an fp32 run
    models.load_weights(wide, tmp_path / "points" / "p.safetensors")
    assert all(torch.equal(p, q.float()) for p, q in zip(wide.parameters(), model.parameters(), strict=True))
    assert [path.name for path in (tmp_path / "points").iterdir()] == ["p.safetensors"]


def test_weights_of_another_model_are_refused(tmp_path):
    for name, model in (("deep", make(layers=4)), ("shallow", make(layers=2)), ("tied", make(tied=True))):
        models.save_weights(model, tmp_path / name)
        with pytest.raises(UserError, match=f"{name}: these weights belong to another model"):
            models.load_weights(make(), tmp_path / name)
    models.save_weights(
        tiny.model(shape=tiny.Model(hidden_size=32, intermediate_size=8, layers=3, heads=2)), tmp_path / "wide"
    )
    with pytest.raises(UserError, match=r"another model.*size mismatch"):
        models.load_weights(make(tied=True), tmp_path / "wide")
    whole = (tmp_path / "deep").read_bytes()
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cut short"):
        models.load_weights(make(), tmp_path / "cut")
    with pytest.raises(UserError, match="no such file"):
        models.load_weights(make(), tmp_path / "gone")


def test_pickled_weights_are_refused(copy):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model.bin.*safetensors"):
        models.load(copy)
    (copy / "pytorch_model.bin").unlink()
    with pytest.raises(UserError, match="no model here"):
        models.load(copy)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_a_model_that_brings_code_is_refused(copy, name):
    edit(copy / name, auto_map={"AutoModelForCausalLM": "modeling_evil.Evil"})
    (copy / "modeling_evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(UserError, match=f"{name}: auto_map"):
        models.load(copy)


def test_a_damaged_folder_is_refused(saved, copy):
    (copy / "tokenizer_config.json").write_text("[]")
    with pytest.raises(UserError, match=r"tokenizer_config.json: expected keys and values, found list"):
        models.load(copy)
    (copy / "tokenizer_config.json").write_bytes((saved / "tokenizer_config.json").read_bytes())
    edit(copy / "config.json", model_type="nobody_knows", architectures=["Nobody"])
    with pytest.raises(UserError, match="cannot be read"):
        models.load(copy)
    (copy / "config.json").unlink()
    with pytest.raises(UserError, match=r"config.json: missing"):
        models.load(copy)


def test_a_tokenizer_larger_than_the_model_is_refused(saved, copy):
    smaller = LlamaForCausalLM(LlamaConfig(vocab_size=20, num_hidden_layers=1, **SHAPE))
    smaller.save_pretrained(copy)
    with pytest.raises(UserError, match="model 20"):
        models.load(copy)


def test_without_a_padding_token_the_end_of_text_pads(copy, capsys):
    edit(copy / "tokenizer_config.json", pad_token=None)
    with pytest.raises(UserError, match="neither a padding token nor"):
        models.load(copy)
    edit(copy / "tokenizer_config.json", eos_token="<unk>")
    _, tokenizer = models.load(copy)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 1
    assert "'<unk>' (end of text) pads" in capsys.readouterr().err


@pytest.mark.parametrize("installed", [True, False])
def test_the_attention_backend_fits_device_dtype_and_packages(monkeypatch, installed):
    monkeypatch.setattr(models, "is_flash_attn_2_available", lambda: installed)
    flash = "flash_attention_2" if installed else "sdpa"
    for dtype in ("bf16", "fp16"):
        assert models.resolve_attn("auto", dtype, "cuda") == (flash, None)
        backend, warning = models.resolve_attn("flash_attention_2", dtype, "cuda")
        assert backend == flash and (warning is None) is installed
    for dtype, device, word in (("fp32", "cuda", "fp32"), ("bf16", "cpu", "CUDA")):
        assert models.resolve_attn("auto", dtype, device) == ("sdpa", None)
        backend, warning = models.resolve_attn("flash_attention_2", dtype, device)
        assert backend == "sdpa" and word in warning
    assert models.resolve_attn("eager", "fp32", "cpu") == ("eager", None)
    assert models.resolve_attn("sdpa", "bf16", "cuda") == ("sdpa", None)
    with pytest.raises(UserError, match=r"'flash'.*auto, sdpa"):
        models.resolve_attn("flash", "fp32", "cpu")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(BloomForCausalLM, "eager"), (Gemma2ForCausalLM, "eager"), (LlamaForCausalLM, "sdpa")],
)
def test_auto_takes_eager_where_the_architecture_has_no_sdpa(kind, expected, monkeypatch):
    backend, note = models.resolve_attn("auto", "fp32", "cpu", kind)
    assert backend == expected and (note is None) is (expected == "sdpa")
    assert models.resolve_attn("eager", "fp32", "cpu", kind) == ("eager", None)
    if note:
        assert note == f"note: {kind.__name__} has no sdpa in transformers; eager attention is used"
        with pytest.raises(UserError, match=f"{kind.__name__} has no sdpa in transformers; set attn_backend: eager"):
            models.resolve_attn("sdpa", "fp32", "cpu", kind)
    monkeypatch.setattr(models, "is_flash_attn_2_available", lambda: True)
    on_gpu = "eager" if kind is BloomForCausalLM else "flash_attention_2"  # Gemma 2 has flash-attn, and no SDPA
    assert models.resolve_attn("auto", "bf16", "cuda", kind)[0] == on_gpu


def test_a_model_without_sdpa_is_loaded_and_said_to_be_slower(saved, tmp_path, capsys):
    shape = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "head_dim": 8,
    }
    made = Gemma2ForCausalLM(Gemma2Config(vocab_size=len(tiny.tokenizer()), num_key_value_heads=1, **shape))
    made.save_pretrained(tmp_path)
    models.load_tokenizer(saved).save_pretrained(tmp_path)
    assert models.load(tmp_path)[0].config._attn_implementation == "eager"
    assert "Gemma2ForCausalLM has no sdpa" in capsys.readouterr().err


def test_the_environment_chooses_the_backend(saved, monkeypatch, capsys):
    backend = lambda *args: models.load(saved, *args)[0].config._attn_implementation  # noqa: E731
    assert backend() == "sdpa"
    monkeypatch.setenv("RTT_ATTN_BACKEND", "eager")
    assert backend() == "eager"
    assert backend("fp32", "sdpa") == "sdpa"
    if not torch.cuda.is_available():
        monkeypatch.setenv("RTT_ATTN_BACKEND", "flash_attention_2")
        assert backend() == "sdpa"
        assert capsys.readouterr().err.count("warning: no flash_attention_2") == 1


def test_only_the_layers_named_are_trained():
    model = make(layers=4)
    assert models.freeze_layers(model, [0.5, 0]) == [0, 2]
    trained = {name.split(".")[2] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"0", "2"}
    assert not model.lm_head.weight.requires_grad and not model.model.embed_tokens.weight.requires_grad
    with pytest.raises(UserError, match="layer 4: the model has 4 layers"):
        models.freeze_layers(model, [4])


@pytest.mark.parametrize(
    ("more", "said"),
    [({"is_causal": value}, "is_causal: found .*, expected true or false") for value in ("false", 1, [], {})]
    + [({"sliding_window": value}, f"sliding_window: found {value}, expected a number of tokens") for value in (-1, 0)]
    + [({"text_config": {"sliding_window": -1}}, "sliding_window: found -1, expected")],
)
def test_values_that_transformers_takes_unchecked_are_refused_before_the_model_is_read(copy, more, said):
    """With a window below 1 each token sees none or all evenly, and scores come out without a word."""
    edit(copy / "config.json", is_causal=True, use_sliding_window=False, sliding_window=-1)
    assert check_folder(copy)
    edit(copy / "config.json", use_sliding_window=None, sliding_window=None)
    edit(copy / "config.json", **more)
    with pytest.raises(UserError, match=rf"copy/config\.json: {said}"):
        check_folder(copy)


def test_a_value_that_only_a_forward_pass_trips_over_is_one_message(tmp_path):
    """transformers takes Gemma 2 without a window, and ends in a TypeError while it scores."""
    models.save(make(Gemma2ForCausalLM, Gemma2Config), tiny.tokenizer(), tmp_path / "m")
    assert models.load(tmp_path / "m")
    (tmp_path / "m" / checksums.NAME).unlink(missing_ok=True)
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps(config | {"sliding_window": None}))
    with pytest.raises(UserError, match=r"m/config\.json: Gemma2ForCausalLM cannot read a text with these values: "):
        models.load(tmp_path / "m")


def test_a_folder_with_two_sets_of_weights_is_told(copy, tmp_path, capsys):
    """As transformers does, the single file is read; the shards may hold other numbers."""
    first, _ = models.load(copy)
    assert "shards" not in capsys.readouterr().err
    other = make()
    with torch.no_grad():
        other.lm_head.weight.add_(1)
    other.save_pretrained(tmp_path / "other", max_shard_size="10KB")
    for path in (tmp_path / "other").glob("model*"):
        shutil.copy(path, copy)
    assert (copy / "model.safetensors.index.json").is_file()
    again, _ = models.load(copy)
    note = capsys.readouterr().err
    assert same(first, again) and "copy holds model.safetensors, and " in note and "model.safetensors is read" in note
    link(copy, tmp_path / "linked")
    assert capsys.readouterr().err == note  # said once, at import
    models.load(tmp_path / "linked")
    assert "shards" not in capsys.readouterr().err

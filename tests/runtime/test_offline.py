"""Steps run without the network: hub access is off, and a message says what is missing and what to do."""

import os
import socket
import subprocess
import sys

import data_builder
import pytest
from rtt.__main__ import COMMANDS, main
from rtt.errors import UserError
from rtt.runtime import offline
from rtt.study.model_folder import check_folder

STEPS = ("generate", "facts", "original", "pretrain", "teach", "unlearn", "choose", "attack", "tables", "report")


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    for name in offline.SWITCHES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "environ", os.environ.copy())


def test_commands_that_fetch_may_ask_a_hub_and_no_step_that_computes_may():
    assert set(STEPS) < set(COMMANDS)
    for command in (*STEPS, "fetch", "import"):
        for name in offline.SWITCHES:
            os.environ.pop(name, None)
        offline.shut(command)
        expected = None if command in ("fetch", "import") else "1"
        assert {os.environ.get(name) for name in offline.SWITCHES} == {expected}, command


def test_the_switch_is_set_before_the_hub_s_library_is_imported():
    """What counts is that the switch is set before the library is imported."""
    block = (
        "from rtt.__main__ import main\n"
        "try: main(['score', '--help'])\n"
        "except SystemExit: pass\n"
        "from huggingface_hub import HfApi, errors\n"
        "try: HfApi().model_info('gpt2')\n"
        "except errors.OfflineModeIsEnabled: print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "refused", done.stderr


def test_a_model_whose_files_this_machine_does_not_see_is_named(tmp_path):
    """What a node says of a model that was fetched into a cache of the login node's own."""
    cache, folder = tmp_path / "cache", tmp_path / "model"
    cache.mkdir()
    folder.mkdir()
    for name in ("config.json", "tokenizer_config.json", "model.safetensors"):
        (cache / name).write_text("{}")
        (folder / name).symlink_to(cache / name)
    check_folder(folder)
    (cache / "tokenizer_config.json").unlink()
    with pytest.raises(UserError) as caught:
        check_folder(folder)
    for words in (f"{folder}/tokenizer_config.json: a link to {cache}", "HF_HOME", "snakemake fetch"):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("model", "found", "missing", "advice"),
    [
        ("meta-llama/Meta-Llama-3-8B", [], "no model here (model.safetensors is missing)", "save_pretrained"),
        ("model", ["model.safetensors"], "config.json: missing", "a model folder holds config.json, tokenizer files"),
        ("model", ["model.bin"], "found model.bin but no model.safetensors", "convert them to safetensors"),
    ],
)
def test_a_missing_model_ends_a_step_and_no_hub_is_asked(tmp_path, capsys, monkeypatch, model, found, missing, advice):
    """One line says what is wrong and what to do, and nothing is written."""
    asked = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **options: asked.append(address))
    monkeypatch.chdir(tmp_path)
    data_builder.write(tmp_path / "data", data_builder.dataset(splits=1))
    for name in found:
        (tmp_path / model).mkdir()
        (tmp_path / model / name).write_text("{}")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    code = main(["score", "--model", model, "--data", "data/split_0.jsonl"])
    (said,) = capsys.readouterr().err.splitlines()
    assert code == 1 and said.startswith(f"error: {model}") and missing in said and advice in said
    assert not asked and {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before

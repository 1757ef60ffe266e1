"""Steps run without the network: hub access is off, and what is missing is said with what to do."""

import os
import subprocess
import sys

import pytest
from rtt import offline
from rtt.__main__ import COMMANDS, main
from rtt.errors import UserError
from rtt.modelfolder import check_folder

STEPS = ("generate", "facts", "original", "pretrain", "teach", "unlearn", "select", "attack", "tables", "report")


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    for name in offline.SWITCHES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "environ", os.environ.copy())


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_but_those_that_fetch_is_cut_off(command):
    offline.shut(command)
    assert all(os.environ.get(name) == (None if command in offline.ONLINE else "1") for name in offline.SWITCHES)


def test_no_step_of_a_study_but_fetching_and_importing_is_online():
    assert set(STEPS) <= set(COMMANDS) and not set(STEPS) & set(offline.ONLINE)


def test_the_hub_s_library_sees_it():
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


def test_a_model_whose_files_this_machine_does_not_see(tmp_path):
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


def test_a_step_with_a_missing_input_ends_at_once(tmp_path, capsys):
    """No hub is asked for it, and nothing is written."""
    code = main(["score", "--model", "meta-llama/Meta-Llama-3-8B", "--data", str(tmp_path / "facts.jsonl")])
    assert code == 1 and "Traceback" not in capsys.readouterr().err
    assert not list(tmp_path.iterdir())

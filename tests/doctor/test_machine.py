"""`python -m rtt doctor` on this machine: Python, packages, torch, GPUs, attention."""

import importlib.metadata
import re
import shlex
import sys
from pathlib import Path

import pytest
from doctor_fixtures import SMOKE
from places import ROOT
from rtt.__main__ import main
from rtt.doctor import machine
from rtt.doctor.checks import Patient
from rtt.study.load import load_study

pytest_plugins = ["doctor_fixtures"]


def test_on_this_machine_all_is_well_for_a_cpu(ask):
    code, checks = ask("--config", "device=cpu")
    assert code == 0
    assert set(checks) == {
        "Python", "packages", "torch", "GPU", "attention", "data and models", "disk", "scratch", "file locks",
    }  # fmt: skip
    assert checks["Python"][1].startswith(".".join(map(str, sys.version_info[:3])))
    assert checks["packages"][1].endswith("as in requirements.lock")
    assert checks["disk"][1].count(" GB") == 3 and checks["file locks"] == ("ok", "work")


def test_the_doctor_does_not_import_torch(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] in ("torch", "transformers")]:
        monkeypatch.delitem(sys.modules, name)
    main(["doctor", "--configfile", SMOKE])
    assert "torch" not in sys.modules and "transformers" not in sys.modules


def test_packages_that_differ_from_the_lock_are_named(ask, monkeypatch):
    real = importlib.metadata.version

    def version(name):
        if name == "numpy":
            return "1.0"
        if name == "scipy":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    status, text = ask()[1]["packages"]
    assert status == "do" and re.match(r"numpy 1\.0, locked [\d.]+; scipy missing, locked [\d.]+: make setup", text)


def test_every_package_of_the_lock_is_compared():
    versions, _ = machine.locked()
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert set(versions) == {line.split("==")[0] for line in lines if re.match(r"\w.*==", line)} | {"torch"}


def test_flash_attn_that_is_asked_for_and_missing_is_reported(ask):
    status, text = ask("--config", "attn_backend=flash_attention_2", "device=cuda")[1]["attention"]
    assert status == "do" and "requirements-flash.txt" in text


FAKE_TORCH = """
__version__ = "2.13.0+cu130"
class version: cuda = "13.0"
class cuda:
    device_count = staticmethod(lambda: {gpus})
    @staticmethod
    def get_device_properties(i):
        class found: name, total_memory, major, minor = "NVIDIA H200", 139 * 2**30, 9, 0
        return found
"""


@pytest.mark.parametrize(
    ("gpus", "config", "status", "words"),
    [
        (1, [], "ok", "1: NVIDIA H200, 139 GiB, compute capability 9.0"),
        (0, [], "do", "torch sees none"),
        (1, ["launcher=torchrun", "devices=2"], "do", "devices: 2 needs that many"),
    ],
)
def test_with_gpu_torch_is_asked_for_gpus(ask, commands, tmp_path, monkeypatch, gpus, config, status, words):
    (tmp_path / "torch.py").write_text(FAKE_TORCH.replace("{gpus}", str(gpus)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    _, checks = ask("--gpu", "--config", "device=cuda", *config)
    assert checks["torch"] == ("ok", "2.13.0+cu130, for CUDA 13.0") and "driver" not in checks
    assert checks["GPU"][0] == status and words in checks["GPU"][1]


@pytest.mark.parametrize(
    ("device", "says", "code", "said"),
    [
        ("cuda", "580.65.06\n580.65.06", 0, ("ok", "580.65.06 (nvidia-smi)")),
        ("cuda", "No devices were found", 6, ("do", "nvidia-smi fails: No devices were found: ask for another node")),
        ("auto", "No devices were found", 6, ("look", "nvidia-smi fails: No devices were found: ask for another node")),
    ],
)
def test_the_driver_of_a_node_is_named(ask, commands, tmp_path, monkeypatch, device, says, code, said):
    (tmp_path / "torch.py").write_text(FAKE_TORCH.replace("{gpus}", "1"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    folder = commands("nvidia-smi", says, code)
    assert ask("--gpu", "--config", f"device={device}")[1]["driver"] == said
    (call,) = (folder / "calls").read_text().splitlines()
    assert call.endswith("nvidia-smi --query-gpu=driver_version --format=csv,noheader")


def test_the_command_for_a_node_keeps_the_study_s_other_keys(ask, slurm, profile):
    given = ["seeds=[0, 1]", "device=auto", "device=cuda", "micro_batch=2"]
    status, text = ask("--profile", profile(), "--config", *given)[1]["GPU"]
    words = shlex.split(text.partition("ask one: ")[2])
    assert status == "look" and words[:2] == ["srun", "--gpus=1"]
    assert words[words.index("--configfile") :] == [
        "--configfile", SMOKE, "--config", "seeds=[0, 1]", "micro_batch=2", "device=cuda",
    ]  # fmt: skip


SHARED = {"launcher": "torchrun", "devices": 4, "deepspeed": "zero3"}


@pytest.mark.parametrize(
    ("config", "site", "status", "words"),
    [
        ({}, {"gpu_model": "h100"}, "do", "198.3 GB of each, h100 has 80.0 GB: python -m rtt plan"),
        (SHARED, {"gpu_model": "h100"}, "ok", "54.6 GB of each; h100 has 80.0 GB"),
        (SHARED, {"gpu_model": "a100"}, "look", "54.6 GB of each: check that it has that much"),  # there are two
        ({}, {}, "look", "198.3 GB of each: check that it has that much"),
    ],
)
def test_a_gpu_that_is_too_small_by_the_plan_is_reported(profile, config, site, status, words):
    """198.3 GB and 54.6 GB: what `rtt plan config/paper.yaml` prints."""
    patient = Patient(load_study("config/paper.yaml", config), "config/paper.yaml", ROOT, Path(profile(**site)))
    (check,) = machine.gpu_memory(patient)
    assert (check.status, check.name) == (status, "GPU memory") and words in check.text


def test_the_memory_of_a_gpu_is_not_checked_for_a_miniature(profile):
    assert not list(machine.gpu_memory(Patient(load_study(SMOKE), SMOKE, ROOT, Path(profile()))))


def test_flash_attn_that_cannot_be_imported_is_reported(ask, tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text(FAKE_TORCH.replace("{gpus}", "1"))
    (tmp_path / "flash_attn.py").write_text("raise ImportError('undefined symbol')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    _, checks = ask("--gpu", "--config", "device=cuda", "attn_backend=flash_attention_2")
    assert checks["flash-attn"][0] == "do" and "undefined symbol" in checks["flash-attn"][1]


@pytest.mark.skipif("+cpu" not in importlib.metadata.version("torch"), reason="torch here is no CPU build")
def test_a_cpu_build_is_reported_where_a_gpu_is_demanded(ask):
    assert ask()[1]["torch"][0] == "ok"
    status, text = ask("--config", "device=cuda")[1]["torch"]
    assert status == "do" and "TORCH_INDEX" in text


@pytest.mark.parametrize(
    ("says", "code", "status", "words"),
    [
        ("NVIDIA A100, 580.1, 81920 MiB", 0, "ok", "1: NVIDIA A100, 580.1"),
        ("couldn't communicate with the NVIDIA driver".replace("'", ""), 9, "do", "the NVIDIA driver"),
        (None, 0, "do", "nvidia-smi is not here"),
    ],
)
def test_the_driver_is_asked_without_torch(ask, commands, says, code, status, words):
    if says:
        commands("nvidia-smi", says, code)
    found = ask("--config", "device=cuda")[1]["GPU"]
    assert found[0] == status and words in found[1]

"""The device of a step: one that was to have a GPU and sees none says so at once."""

import os
import socket
import subprocess
import sys

import pytest
import torch
from rtt import device, distributed
from rtt.errors import UserError
from rtt.study.load import load_study


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    for name in ("LOCAL_WORLD_SIZE", "LOCAL_RANK", "WORLD_SIZE", "SLURM_JOB_ID", device.VARIABLE, device.VISIBLE):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("asked", "gpus"), [("auto", 0), ("cpu", 0), ("", 0), ("cuda", 1), ("auto", 1)])
def test_a_step_takes_what_is_there_unless_a_gpu_was_asked_for(monkeypatch, asked, gpus):
    monkeypatch.setenv(device.VARIABLE, asked)
    for job, paid in (("", "1"), ("71", "0"), ("71", "")):
        monkeypatch.setenv(device.GPUS, paid)
        if job:
            monkeypatch.setenv("SLURM_JOB_ID", job)
        device.demand(gpus, 1, "2.13.0", "13.0")


@pytest.mark.parametrize("asked", ["cuda", "auto"])
def test_a_step_that_sees_no_gpu_says_what_it_saw(monkeypatch, asked):
    """Under auto too, where its job asked the cluster for one."""
    monkeypatch.setenv(device.VARIABLE, asked)
    monkeypatch.setenv(device.GPUS, "1")
    monkeypatch.setenv(device.VISIBLE, "3")
    monkeypatch.setenv("SLURM_JOB_ID", "71")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError) as caught:
        distributed.connect()
    for words in (
        f"device: {asked}: this step sees no GPU",
        socket.gethostname(),
        "CUDA_VISIBLE_DEVICES=3",
        "SLURM job 71",
        "set device: cpu",
    ):
        assert words in str(caught.value)


@pytest.mark.parametrize(("cuda", "words"), [(None, "TORCH_INDEX"), ("13.0", "nvidia-smi")])
def test_the_advice_fits_the_build_of_torch(monkeypatch, cuda, words):
    monkeypatch.setenv(device.VARIABLE, "cuda")
    with pytest.raises(UserError, match=words) as caught:
        device.demand(0, 1, "2.13.0", cuda)
    assert "CUDA_VISIBLE_DEVICES is unset" in str(caught.value)


@pytest.mark.parametrize(
    "variables", [{"LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "0"}, {"LOCAL_RANK": "1"}], ids=["torchrun", "deepspeed"]
)
@pytest.mark.parametrize("asked", ["cuda", "auto"])
def test_more_processes_than_gpus_are_refused(monkeypatch, asked, variables):
    monkeypatch.setenv(device.VARIABLE, asked)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="devices: 2 processes on this host, but they see 1 GPU "):
        distributed.connect()


def run(asked: str) -> subprocess.CompletedProcess:
    block = "import os; from rtt.__main__ import main; main(['audit', 'nowhere']); "
    environment = os.environ | {device.VARIABLE: asked, device.VISIBLE: "0,1"}
    command = [sys.executable, "-c", block + "print('sees', repr(os.environ['CUDA_VISIBLE_DEVICES']))"]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(("asked", "sees"), [("cpu", "''"), ("auto", "'0,1'"), ("cuda", "'0,1'")])
def test_the_device_cpu_hides_the_gpus_from_every_step(asked, sees):
    assert run(asked).stdout.splitlines()[-1] == f"sees {sees}"


def test_without_torch_a_step_says_what_to_do():
    """As in the analysis environment."""
    block = "import sys; sys.modules['torch'] = None; from rtt.__main__ import main; main(['unlearn', '--help'])"
    done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: unlearn needs torch, which ") and "make setup" in done.stderr


def test_another_device_is_refused_by_name():
    done = run("gpu")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: RTT_DEVICE: found 'gpu', expected one of auto, cuda, cpu\n"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_study_that_asks_for_a_gpu_fails_and_the_job_s_log_says_why(copy):
    done = copy.smoke("--config", "device=cuda", "--forcerun", "pretrain", "--until", "pretrain")
    assert done.returncode == 1
    logs = [log.read_text() for log in copy.results().glob("logs/pretrain/*.log")]  # of the base, and of its oracle
    said = [log for log in logs if "error: device: cuda: this step sees no GPU" in log]
    assert said and not any("Traceback" in log for log in logs)


def test_a_study_asks_a_cluster_for_gpus_unless_it_is_a_miniature():
    """A miniature is faster on a CPU; a pretrained model is not."""
    miniature, pretrained = (load_study(f"config/{name}.yaml") for name in ("smoke", "paper"))
    assert (miniature.gpus, pretrained.gpus) == (0, pretrained.devices)
    two = {"device": "cuda", "launcher": "torchrun", "devices": 2}
    assert load_study("config/smoke.yaml", two).gpus == 2
    assert load_study("config/paper.yaml", {"device": "cpu"}).gpus == 0

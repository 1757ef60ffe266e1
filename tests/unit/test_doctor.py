"""`python -m rtt doctor`: each check says ok, or what to do. SLURM's commands are small scripts on a real PATH."""

import fcntl
import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from rtt import doctor, doctor_slurm, locks
from rtt.__main__ import main
from rtt.config import load_study

SMOKE = str(ROOT / "config/smoke.yaml")
SINFO = "gpu*|1-00:00:00|gpu:h100:4(S:0-1)\ngpu*|1-00:00:00|gpu:a100:8\nshort|2:00:00|(null)"


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """A folder that is PATH, and a function that puts a command there: what it prints, and its exit code."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def put(name: str, says: str = "", code: int = 0):
        path = folder / name
        path.write_text(f"#!/bin/sh\necho \"$0 $*\" >> {folder}/calls\nprintf '%s\\n' '{says}'\nexit {code}\n")
        path.chmod(0o755)
        return folder

    return put


@pytest.fixture
def slurm(commands):
    """A SLURM that answers and takes every job. Returns the folder of its commands."""
    commands("sbatch", "slurm 22.05.8")
    commands("squeue")
    commands("scancel")
    return commands("sinfo", SINFO)


@pytest.fixture
def profile(tmp_path):
    """A function that makes a SLURM profile with the keys of a site file, and returns its folder."""

    def make(**site) -> str:
        folder = tmp_path / "profile"
        folder.mkdir()
        (folder / "config.yaml").write_text((ROOT / "profiles/slurm/config.yaml").read_text())
        (folder / "site.yaml").write_text(yaml.safe_dump({"account": "mine", "max_hours": 2} | site))
        return str(folder)

    return make


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in [name for name in os.environ if doctor.SECRET.search(name) or name.startswith(("RTT_", "SNAKEMAKE_"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def ask(capsys):
    """A function that runs the doctor; returns (exit code, {check: (status, text)})."""

    def run(*arguments: str, study: str = SMOKE):
        code = main(["doctor", "--configfile", study, *arguments])
        *lines, last = capsys.readouterr().out.splitlines()
        found = [re.fullmatch(r"(ok|look|do) +([^:]+): (.*)", line) for line in lines]
        assert all(found), lines
        checks = {one[2]: (one[1], one[3]) for one in found}
        todo = sum(one[1] == "do" for one in found)
        assert last == (f"{todo} to do" if todo else "nothing to do") and code == (todo > 0)
        return code, checks

    return run


# --- here


def test_here_all_is_well(ask):
    code, checks = ask("--config", "device=cpu")
    assert code == 0
    assert set(checks) == {
        "Python", "packages", "torch", "GPU", "attention", "data and models", "disk", "scratch", "file locks",
    }  # fmt: skip
    assert checks["Python"][1].startswith(".".join(map(str, sys.version_info[:3])))
    assert checks["packages"][1].endswith("as in requirements.lock")
    assert checks["disk"][1].count(" GB") == 3 and checks["file locks"] == ("ok", "work")


def test_torch_is_not_imported(monkeypatch):
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


def test_the_lock_is_read_whole():
    versions, _ = doctor.locked()
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert set(versions) == {line.split("==")[0] for line in lines if re.match(r"\w.*==", line)} | {"torch"}


def test_a_disk_that_is_too_small(ask, monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "_disk_of", lambda path: (tmp_path, 1e6, 100))
    code, checks = ask(study=str(ROOT / "config/paper.yaml"))
    assert code == 1
    for name, words in (("disk", "free space, or run from"), ("inodes", "100 files"), ("scratch", "TMPDIR")):
        assert checks[name][0] == "do" and words in checks[name][1]


def test_a_file_system_without_locks(ask, monkeypatch):
    """As NFS mounted with nolock, and one that grants every lock."""
    patient = doctor.Patient(load_study(SMOKE), SMOKE, ROOT, None)
    monkeypatch.setattr(doctor, "_locks_work", lambda folder: False)
    assert [check.status for check in doctor.work_folder(patient) if check.name == "file locks"] == ["look"]
    monkeypatch.undo()

    def refuse(*arguments):
        raise OSError("no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert not doctor._locks_work(ROOT)


def test_a_folder_that_can_not_be_written(tmp_path):
    patient = doctor.Patient(load_study(SMOKE), SMOKE, tmp_path / "gone", None)
    assert [check.status for check in doctor.work_folder(patient)] == ["do"]


def test_another_run_in_the_folder_is_named(tmp_path):
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        locks.register(tmp_path / locks.FOLDER, "snakemake", role="main", pid=sleeper.pid)
        patient = doctor.Patient(load_study(SMOKE), SMOKE, tmp_path, None)
        (found,) = [check for check in doctor.work_folder(patient) if check.name == "other runs"]
        assert found.status == "look" and f"pid {sleeper.pid}" in found.text
    finally:
        sleeper.communicate(b"\n")


def test_flash_attn_that_is_asked_for_and_missing(ask):
    status, text = ask("--config", "attn_backend=flash_attention_2", "device=cuda")[1]["attention"]
    assert status == "do" and "requirements-flash.txt" in text


# --- GPUs

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
        (1, ["launcher=torchrun", "devices=2"], "do", "devices: 2 needs as many"),
    ],
)
def test_torch_is_asked_for_gpus(ask, tmp_path, monkeypatch, gpus, config, status, words):
    (tmp_path / "torch.py").write_text(FAKE_TORCH.replace("{gpus}", str(gpus)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    _, checks = ask("--gpu", "--config", "device=cuda", *config)
    assert checks["torch"] == ("ok", "2.13.0+cu130, for CUDA 13.0")
    assert checks["GPU"][0] == status and words in checks["GPU"][1]


def test_flash_attn_that_does_not_fit_is_found(ask, tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text(FAKE_TORCH.replace("{gpus}", "1"))
    (tmp_path / "flash_attn.py").write_text("raise ImportError('undefined symbol')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    _, checks = ask("--gpu", "--config", "device=cuda", "attn_backend=flash_attention_2")
    assert checks["flash-attn"][0] == "do" and "undefined symbol" in checks["flash-attn"][1]


@pytest.mark.skipif("+cpu" not in importlib.metadata.version("torch"), reason="torch here is no CPU build")
def test_a_cpu_build_where_a_gpu_is_demanded(ask):
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


# --- SLURM


def test_on_a_cluster_all_is_well(ask, slurm, profile, monkeypatch):
    monkeypatch.setattr(doctor, "file_system", lambda folder: ("/work", "nfs4"))
    monkeypatch.setattr(doctor, "LOCAL", ())  # this clone may lie anywhere
    monkeypatch.delenv("TMPDIR", raising=False)
    code, checks = ask("--profile", profile(gpu_model="h100"))
    assert code == 0
    assert checks["SLURM"] == ("ok", "slurm 22.05.8")
    assert checks["status command"] == ("ok", "squeue answers")
    assert checks["partition"] == ("ok", "gpu, jobs of 24 h at most")
    assert checks["a job"] == ("ok", "sbatch would take it (account mine, no GPU)")
    assert checks["work folder"][1].endswith("nfs4 on /work") and checks["secrets"][0] == "ok"


def test_no_job_is_submitted(ask, slurm, profile):
    ask("--profile", profile(), "--config", "device=cuda")
    calls = [line.split("/bin/")[1] for line in (slurm / "calls").read_text().splitlines()]
    jobs = [line for line in calls if line.startswith("sbatch") and "--version" not in line]
    (job,) = jobs
    assert "--test-only" in job and "--account=mine" in job and "--gpus=1" in job


@pytest.mark.parametrize(
    ("site", "check", "status", "words"),
    [
        ({"partition": "long"}, "partition", "do", ["no partition long", "set `partition` in", "gpu, short"]),
        ({"partition": "short", "max_hours": 8}, "partition", "do", ["jobs of 2 h at most: set `max_hours: 2`"]),
        ({"gpu_model": "v100"}, "GPU model", "do", ["gpu has no v100", "a100, h100"]),
        ({}, "GPU model", "look", ["a100, h100: any will be taken"]),
    ],
)
def test_what_the_site_file_says_is_compared_with_the_cluster(ask, slurm, profile, site, check, status, words):
    _, checks = ask("--profile", profile(**site), "--config", "device=cuda")
    assert checks[check][0] == status and all(word in checks[check][1] for word in words)


def test_a_job_without_the_account_that_is_needed(ask, slurm, commands, profile):
    commands("sbatch", "allocation failure: Invalid account", 1)
    status, text = ask("--profile", profile(account=None))[1]["a job"]
    assert status == "do" and "Invalid account" in text and "set `account` in" in text


@pytest.mark.parametrize("names", [("sbatch",), ("squeue", "sinfo")])
def test_no_slurm_here(ask, slurm, profile, names):
    for name in names:
        (slurm / name).unlink()
    status, text = ask("--profile", profile())[1]["SLURM"]
    assert status == "do" and text.startswith(f"{', '.join(names)} not found")


def test_a_slurm_that_does_not_answer(ask, slurm, commands, profile):
    commands("sinfo", "Unable to contact slurm controller", 1)
    code, checks = ask("--profile", profile())
    assert code == 1 and "Unable to contact" in checks["SLURM"][1] and "a job" not in checks


def test_a_status_command_that_fails(ask, slurm, commands, profile):
    commands("squeue", "slurm_load_jobs error", 1)
    status, text = ask("--profile", profile())[1]["status command"]
    assert status == "do" and "squeue: slurm_load_jobs error" in text


def test_secrets_are_named_and_not_shown(slurm, profile, monkeypatch, capsys):
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "MYPASSWORD", "API_KEY"):
        monkeypatch.setenv(name, "hidden-value")
    for name in ("TOKENIZERS_PARALLELISM", "KEYBOARD", "MONKEY", "SSH_AUTH_SOCK"):
        monkeypatch.setenv(name, "hidden-value")
    assert main(["doctor", "--configfile", SMOKE, "--profile", profile()]) == 1
    said = capsys.readouterr().out
    assert "unset API_KEY AWS_SECRET_ACCESS_KEY HF_TOKEN MYPASSWORD\n" in said and "hidden-value" not in said


@pytest.mark.parametrize(
    ("place", "kind", "status"),
    [("/tmp/work", "nfs", "do"), ("/home/me", "lustre", "ok"), ("/home/me", "ext4", "look"), ("/home/me", "", "look")],
)
def test_the_work_folder_is_on_a_file_system_of_all(monkeypatch, profile, place, kind, status):
    monkeypatch.setattr(doctor, "file_system", lambda folder: ("/", kind))
    monkeypatch.setattr(doctor, "_locks_work", lambda folder: True)
    monkeypatch.delenv("TMPDIR", raising=False)
    patient = doctor.Patient(load_study(SMOKE), SMOKE, Path(place), Path(profile()))
    assert next(doctor.work_folder(patient)).status == status


def test_the_kind_of_a_file_system_is_found():
    assert doctor.file_system(ROOT)[1] and doctor.file_system(ROOT)[0] in ("/", *map(str, ROOT.parents), str(ROOT))


@pytest.mark.parametrize(
    ("limit", "hours"), [("1-12:00:00", 36), ("8:00:00", 8), ("30:00", 0.5), ("infinite", None), ("n/a", None)]
)
def test_time_limits(limit, hours):
    assert doctor_slurm.hours(limit) == hours


def test_another_profile_that_would_have_a_say(ask, slurm, profile, monkeypatch):
    monkeypatch.setenv("SNAKEMAKE_PROFILE", "mine")
    assert "unset it" in ask("--profile", profile())[1]["profile"][1]


def test_a_profile_that_is_not_there(capsys):
    assert main(["doctor", "--configfile", SMOKE, "--profile", "nowhere"]) == 1
    assert "error: --profile nowhere: no such folder, nor" in capsys.readouterr().err


# --- data and models


def test_what_is_to_be_fetched_first(fresh):
    """By a real dry run of `snakemake fetch`: nothing there, then all there."""
    study = "config/smollm-small.yaml"
    command = ["-m", "rtt", "doctor", "--configfile", study, "--config", "device=cpu"]
    first = fresh.python(*command)
    assert first.returncode == 1
    line = next(line for line in first.stdout.splitlines() if "data and models" in line)
    assert line.startswith("do") and "snakemake fetch --cores 1 --configfile" in line and "device=cpu" in line
    said = fresh.snakemake("fetch", "-n", "-c1", "--configfile", study).stdout
    made = re.findall(r"^ +output: (.*)$", said, re.MULTILINE)
    assert made
    for name in (name for names in made for name in names.split(", ")):
        path = fresh.folder / name
        (path.parent if path.suffix else path).mkdir(parents=True, exist_ok=True)
        if path.suffix:
            path.touch()
    second = fresh.python(*command)
    assert "ok    data and models: all fetched; jobs ask no hub" in second.stdout.splitlines(), second.stdout + said

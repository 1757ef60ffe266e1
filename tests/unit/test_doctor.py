"""`python -m rtt doctor`: each check says ok, or what to do. SLURM's commands are small scripts on a real PATH."""

import fcntl
import importlib.metadata
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from rtt import doctor, doctor_slurm, locks
from rtt.__main__ import main
from rtt.config import load_study
from rtt.resources import Resources, Site
from rtt.runs import Runs

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


@pytest.fixture
def judged(slurm, profile):
    """A function of a study and a site file's keys; returns {check: (status, text)} of what SLURM is asked."""

    def run(study: str = SMOKE, config: dict | None = None, **site) -> dict[str, tuple[str, str]]:
        path, settings = Path(profile(**site), "site.yaml"), {"slurm-status-command": "squeue"}
        checks = doctor_slurm.checks(load_study(study, config or {}), path, settings, ROOT)
        return {check.name: (check.status, check.text) for check in checks}

    return run


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
def test_torch_is_asked_for_gpus(ask, commands, tmp_path, monkeypatch, gpus, config, status, words):
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
        ({}, {"gpu_model": "h100"}, "do", "198.3 GB of each, h100 has 80.0 GB: what fits where"),
        (SHARED, {"gpu_model": "h100"}, "ok", "54.6 GB of each; h100 has 80.0 GB"),
        (SHARED, {"gpu_model": "a100"}, "look", "54.6 GB of each: has it?"),  # there are two
        ({}, {}, "look", "198.3 GB of each: has it?"),
    ],
)
def test_a_gpu_that_is_too_small_by_the_plan(profile, config, site, status, words):
    """198.3 GB and 54.6 GB: what `rtt plan config/paper.yaml` prints."""
    patient = doctor.Patient(load_study("config/paper.yaml", config), "config/paper.yaml", ROOT, Path(profile(**site)))
    (check,) = doctor.gpu_memory(patient)
    assert (check.status, check.name) == (status, "GPU memory") and words in check.text


def test_a_miniature_needs_no_such_word(profile):
    assert not list(doctor.gpu_memory(doctor.Patient(load_study(SMOKE), SMOKE, ROOT, Path(profile()))))


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

CONFIGURATION = """Configuration data as of 2026-01-01T00:00:00
MaxArraySize            = 1001
MinJobAge               = 300 sec
PreemptMode             = REQUEUE
PreemptType             = preempt/partition_prio"""


def test_on_a_cluster_all_is_well(ask, slurm, commands, profile, monkeypatch):
    commands("scontrol", CONFIGURATION)
    monkeypatch.setattr(doctor, "file_system", lambda folder: ("/work", "nfs4"))
    monkeypatch.setattr(doctor, "LOCAL", ())  # this clone may lie anywhere
    monkeypatch.delenv("TMPDIR", raising=False)
    code, checks = ask("--profile", profile(gpu_model="h100"))
    assert code == 0
    assert checks["SLURM"] == ("ok", "slurm 22.05.8")
    assert checks["status command"] == ("ok", "squeue answers")
    assert checks["partition"] == ("ok", "gpu, jobs of 24 h at most")
    said = r"sbatch would take the study's largest job \(account mine, \d+ MB, \d+ minutes, 1 CPU, no GPU\)"
    assert checks["a job"][0] == "ok" and re.fullmatch(said, checks["a job"][1])
    assert checks["site file"][0] == "ok" and checks["site file"][1].endswith("site.yaml")
    assert not {"MinJobAge", "PreemptMode", "GPU model"} & set(checks)
    assert checks["work folder"][1].endswith("nfs4 on /work") and checks["secrets"][0] == "ok"


def test_no_job_is_submitted(ask, slurm, profile):
    ask("--profile", profile(), "--config", "device=cuda")
    calls = [line.split("/bin/")[1] for line in (slurm / "calls").read_text().splitlines()]
    jobs = [line for line in calls if line.startswith("sbatch") and "--version" not in line]
    (job,) = jobs
    assert "--test-only" in job and "--account=mine" in job and "--gpus=1" in job


def test_sbatch_is_asked_for_the_study_s_largest_job(slurm, judged):
    paper = str(ROOT / "config/paper.yaml")
    config = {"launcher": "deepspeed", "devices": 2, "deepspeed": "zero3-offload"}
    site = {"account": "mine", "partition": "gpu", "gpu_model": "h100", "max_hours": 24, "cpus_per_gpu": 6}
    found = judged(paper, config, **site)["a job"]
    study = load_study(paper, config)
    needs, runs = Resources(study, Site(**site), ROOT), Runs(study, ROOT)
    specs = (runs.sources | runs.unlearn | runs.attacks | runs.originals | runs.controls).values()
    memory, minutes = {needs.mem_mb(spec) for spec in specs}, {needs.runtime(spec) for spec in specs}
    assert len(memory) > 1 and len(minutes) > 1
    called = (slurm / "calls").read_text().splitlines()[-1].split()
    wanted = {"mem": max(memory), "time": max(minutes), "cpus-per-task": 12, "nodes": 1, "gpus": "h100:2"}
    assert {"--test-only", *(f"--{key}={value}" for key, value in wanted.items())} < set(called)
    asked = f"account mine, partition gpu, {max(memory)} MB, {max(minutes)} minutes, 12 CPUs, 2 GPUs"
    assert found == ("ok", f"sbatch would take the study's largest job ({asked})")


@pytest.mark.parametrize(
    ("refusal", "site", "words"),
    [
        ("Requested node configuration is not available", {"account": None}, "another `partition` in"),
        ("Memory required by task is not available", {}, "another `partition` in"),
        ("Requested time limit is invalid (missing or exceeds some limit)", {}, "another `partition` in"),
        ("Invalid qos specification", {}, "; correct "),
        ("Job violates accounting/QOS policy (user time limits)", {"account": None}, "set `account` in"),
    ],
)
def test_what_to_do_about_a_refusal(judged, commands, refusal, site, words):
    commands("sbatch", refusal, 1)
    status, text = judged(**site)["a job"]
    assert status == "do" and f"no GPU): {refusal}; " in text and words in text


@pytest.mark.parametrize(
    ("age", "mode", "code", "found"),
    [
        ("119 sec", "REQUEUE", 0, {"MinJobAge": "119 s, less than 120: "}),
        ("120 sec", "CANCEL", 0, {"PreemptMode": "CANCEL: a preempted job is cancelled"}),
        ("2 sec", "GANG,CANCEL", 0, {"MinJobAge": "2 s, less", "PreemptMode": "GANG,CANCEL: "}),
        ("0 sec", "GANG,SUSPEND", 0, {}),  # 0: never forgotten
        ("300 sec", "REQUEUE,CANCEL", 0, {}),
        ("2 sec", "CANCEL", 1, {}),  # no answer
    ],
)
def test_settings_of_slurm_that_make_a_difference(judged, commands, age, mode, code, found):
    commands("scontrol", CONFIGURATION.replace("300 sec", age).replace("REQUEUE", mode), code)
    checks = {name: said for name, said in judged().items() if name in ("MinJobAge", "PreemptMode")}
    assert set(checks) == set(found)
    for name, (status, said) in checks.items():
        assert status == "look" and said.startswith(found[name])


@pytest.mark.parametrize(
    ("resources", "models"),
    [
        ("gpu:h100:4(S:0-1)", {"h100"}),
        ("gpu:2080ti:4", {"2080ti"}),
        ("gpu:nvidia_a100-sxm4-80gb:4(S:0,2)", {"nvidia_a100-sxm4-80gb"}),
        ("gpu:a100:2(S:0),gpu:a100.3g:8,mps:200", {"a100", "a100.3g"}),
        ("gpu:4(S:0-1)", set()),
        ("(null)", set()),
    ],
)
def test_gpu_models_are_read(resources, models):
    (found,) = doctor_slurm.partitions(f"gpu*|infinite|{resources}")
    assert found.gpus == models


@pytest.mark.parametrize(
    ("resources", "site", "status", "words"),
    [
        ("gpu:a100-80gb:4", {"gpu_model": "a100"}, "do", "it has: a100-80gb; `gpu_model` can't name a model with"),
        ("gpu:a100-80gb:4,gpu:h100:1", {}, "look", "`gpu_model: null`, and a `partition` that has only those GPUs"),
        ("gpu:a100-80gb:4", {}, None, ""),  # any, and so this one
    ],
)
def test_a_gpu_model_with_a_hyphen(judged, commands, resources, site, status, words):
    commands("sinfo", f"gpu*|infinite|{resources}")
    found = judged(config={"device": "cuda"}, **site).get("GPU model", (None, ""))
    assert found[0] == status and words in found[1] and ("constraint=NAME" in found[1]) == bool(status)


@pytest.mark.parametrize(("site", "hint"), [({"gpu_model": "a100-80gb"}, True), ({"max_hours": 0}, False)])
def test_a_mistake_in_the_site_file(judged, site, hint):
    checks = judged(**site)
    status, text = checks.pop("site file")
    assert not checks and status == "do"
    assert f"site.yaml: {next(iter(site))}: " in text and ("`gpu_model: null`" in text) == hint


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
            path.write_text("{}")  # a manifest
    second = fresh.python(*command)
    assert "ok    data and models: all fetched; jobs ask no hub" in second.stdout.splitlines(), second.stdout + said

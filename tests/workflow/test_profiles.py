"""profiles/slurm means the same however it is named, and nothing overrides it. sbatch is a script here that writes down
what it is told, and refuses; tests/cluster has a real one.
"""

import os
import re
import shutil
import subprocess

import pytest
import yaml
from clones import ROOT, SMOKE, TORCH_RULES, Clone, clone_environment
from rtt.doctor import surroundings
from rtt.doctor.checks import Patient
from rtt.study.load import load_study

PROFILES = ROOT / "profiles"
# No job is ever out: the main process need not wait before it asks for them.
QUICK = ("--slurm-init-seconds-before-status-checks", "1", "--seconds-between-status-checks", "1")


@pytest.fixture
def refused(fresh, tmp_path):
    """A function that runs Snakemake where sbatch refuses; returns (what sbatch was told, output). `make`: a target of
    the Makefile before. variables: of the environment.
    """
    tools, home = tmp_path / "bin", tmp_path / "home"
    tools.mkdir()
    home.mkdir()
    (tools / "sbatch").write_text(
        f"#!/bin/sh\nprintf '%s ' \"$@\" | tr '\\n' ' ' >> '{tools}/told'; echo >> '{tools}/told'\n"
        "echo 'sbatch: error: You must specify an account' >&2; exit 1\n"
    )
    for name in ("squeue", "scontrol", "sacct"):
        (tools / name).write_text("#!/bin/sh\nexit 1\n")
    (tools / "sinfo").write_text("#!/bin/sh\necho 'main*'\n")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    environment = clone_environment(fresh.folder)
    environment |= {"HOME": str(home), "PATH": f"{tools}{os.pathsep}{environment['PATH']}"}
    environment = {key: value for key, value in environment.items() if key not in ("XDG_CONFIG_HOME", "MAKEFLAGS")}

    def call(*arguments: str, make: str = "", **variables: str) -> tuple[list[str], str]:
        (tools / "told").write_text("")
        if make:
            subprocess.run(["make", "-s", make], cwd=fresh.folder, env=environment, check=True)
        one = ("--configfile", SMOKE, "--config", "oracle=false")  # one base model is the one job that is told
        done = Clone(fresh.folder).snakemake(*one, *arguments, *QUICK, **environment | variables)
        assert done.returncode == 1, done.stdout
        # From run to run its id, names of temporary files and the order of words in Snakemake's own sets differ.
        varying = r"(rtt_)[0-9a-f-]{36}|(/tmp\.?)[a-z0-9_]{8}(?![\w-])"
        told = [re.sub(varying, r"\1\2ID", line) for line in (tools / "told").read_text().splitlines()]
        return [" ".join(sorted(line.split())) for line in told], done.stdout

    return call


def test_three_ways_to_name_the_profile_mean_the_same(refused):
    first, said = refused("--workflow-profile", "profiles/slurm")
    assert len(first) == 1 + yaml.safe_load((PROFILES / "slurm/config.yaml").read_text())["retries"]
    for word in ("--parsable", "rtt_ID", "--requeue", "--mem", "--signal=TERM@60", "--open-mode=append"):
        assert word in first[0].split(), first[0]
    assert "/results/.slurm/rule_pretrain/" in first[0] and "--array" not in first[0]
    assert said.count("no SLURM account is set") == 2  # at the start, and after sbatch has refused
    assert refused("--profile", "profiles/slurm")[0] == first
    assert refused("--profile", "slurm", make="profile")[0] == first


def test_no_profile_is_loaded_by_itself():
    assert not (PROFILES / "default").exists()
    assert sorted(path.name for path in PROFILES.iterdir()) == ["local", "slurm"]


@pytest.mark.parametrize(
    ("place", "variables", "heard_beside", "attempts"),
    [
        pytest.param("mine", {"SNAKEMAKE_PROFILE": "mine"}, "--workflow-profile", 4, marks=pytest.mark.full),
        ("profiles/default", {}, "--profile", 2),
        pytest.param("default", {}, "--profile", 2, marks=pytest.mark.full),
    ],
)
def test_another_profile_changes_one_of_the_two_ways(refused, fresh, place, variables, heard_beside, attempts):
    """Snakemake reads SNAKEMAKE_PROFILE where no --profile is given, for the keys that --workflow-profile has not; and
    `default`, in the folder or in profiles/, where no --workflow-profile is given: it overrides --profile. The doctor
    can't know which way will be taken, and says `do`.
    """
    plain, _ = refused("--profile", "profiles/slurm")
    assert len(plain) == 4 and not any("4321" in line.split() for line in plain)
    assert diagnosis(fresh)[0].startswith("ok    profile: ")
    (fresh.folder / place).mkdir()
    # A key that profiles/slurm has too (3), and one that it has not.
    hostile = {"retries": 1, "set-resources": {"pretrain": {"mem_mb": 4321}}}
    (fresh.folder / place / "config.yaml").write_text(yaml.safe_dump(hostile))
    for way in ("--profile", "--workflow-profile"):
        told, _ = refused(way, "profiles/slurm", **variables)
        if way == heard_beside:
            assert len(told) == attempts and all("4321" in line.split() for line in told)
        else:
            assert told == plain
    (said,) = diagnosis(fresh, **variables)
    assert said.startswith("do    profile: ") and f" beside {heard_beside}, " in said


@pytest.mark.parametrize(
    ("variable", "made", "said"),
    [
        (None, [], ["ok {}/mine"]),
        ("none", [], ["ok {}/mine"]),
        ("{}/mine", [], ["ok {}/mine"]),  # the same one
        ("", [], ["do Snakemake reads SNAKEMAKE_PROFILE= beside"]),
        (
            "other",
            ["default"],
            ["do Snakemake reads {}/default beside", "do Snakemake reads SNAKEMAKE_PROFILE=other beside"],
        ),
    ],
)
def test_the_doctor_sees_a_profile_that_would_have_a_say(tmp_path, monkeypatch, variable, made, said):
    monkeypatch.delenv("SNAKEMAKE_PROFILE", raising=False)
    if variable is not None:
        monkeypatch.setenv("SNAKEMAKE_PROFILE", variable.format(tmp_path))
    shutil.copytree(PROFILES / "slurm", tmp_path / "mine")
    for name in made:
        (tmp_path / name).mkdir()
    patient = Patient(load_study(str(ROOT / SMOKE)), SMOKE, tmp_path, tmp_path / "mine")
    for check, start in zip(surroundings.profile(patient), said, strict=True):
        assert f"{check.status} {check.text}".startswith(start.format(tmp_path))


def diagnosis(clone: Clone, **variables: str) -> list[str]:
    """Return what the doctor says of the profile."""
    done = clone.python("-m", "rtt", "doctor", "--profile", "slurm", "--configfile", SMOKE, **variables)
    return [line for line in done.stdout.splitlines() if line[6:].startswith("profile:")]


def test_every_key_of_the_slurm_profile_is_explained():
    text = (PROFILES / "slurm/config.yaml").read_text()
    blocks = [block.splitlines() for block in text.split("\n\n")]
    keys = [line.split(":")[0] for block in blocks if block[0].startswith("#") for line in block if line[0] != "#"]
    assert keys == list(yaml.safe_load(text))


def test_locally_no_two_jobs_share_a_gpu(tmp_path):
    (tmp_path / "Snakefile").write_text("""
rule all:
    input: expand("{i}.txt", i=range(3))
rule one:
    output: "{i}.txt"
    resources: gpu=1
    shell: "mkdir gpu && sleep 0.3 && rmdir gpu && touch {output}"
""")
    done = Clone(tmp_path).snakemake("--profile", str(PROFILES / "local"))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("study", "config", "gpus"),
    [
        ("smoke", ["device=cuda"], 1),
        ("smoke", ["device=cpu"], 0),
        ("smoke", [], 0),  # a miniature
        ("smollm-small", [], 1),
        ("smollm-small", ["device=cpu"], 0),
    ],
)
def test_every_training_rule_takes_the_gpu_that_its_study_asks_for(fresh, study, config, gpus):
    arguments = ["-n", "--profile", "profiles/local", "--configfile", f"config/{study}.yaml"]
    done = fresh.snakemake(*arguments, *["--config", *config] * bool(config))
    assert done.returncode == 0, done.stdout
    jobs = re.findall(r"^rule (\w+):\n(?:    .*\n)*?    resources: (.*)$", done.stdout, re.MULTILINE)
    asked = {(rule, int((re.findall(r"\bgpu=(\d+)", resources) or [0])[0])) for rule, resources in jobs}
    training = (TORCH_RULES | {"original"}) - (set() if study == "smoke" else {"pretrain", "teach"})
    others = {"facts", "choose", "tables", "figure", "report"}
    assert {(rule, gpus) for rule in training} | {(rule, 0) for rule in others} <= asked
    assert {rule for rule, gpu in asked if gpu} == (training if gpus else set())

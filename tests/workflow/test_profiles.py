"""profiles/slurm means the same however it is named, and nothing overrides it. sbatch is a script here that writes down
what it is told, and refuses; tests/cluster has a real one.
"""

import os
import re
import subprocess

import pytest
import yaml
from conftest import ROOT, SMOKE, Clone, clone_environment

PROFILES = ROOT / "profiles"


@pytest.fixture
def refused(fresh, tmp_path):
    """A function that runs Snakemake where sbatch refuses; returns (what sbatch was told, output)."""
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

    def call(*arguments: str, make: str = "") -> tuple[list[str], str]:
        (tools / "told").write_text("")
        if make:
            subprocess.run(["make", "-s", make], cwd=fresh.folder, env=environment, check=True)
        done = Clone(fresh.folder).snakemake("--configfile", SMOKE, *arguments, **environment)
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

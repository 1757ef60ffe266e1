"""Containers: what the recipes install, and that Snakemake's apptainer is given the image that the study names.

No engine runs here. A stand-in for apptainer writes down what it is asked and runs the command without a container.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
RECIPE, DOCKERFILE, SCRIPT = ((ROOT / "envs" / name).read_text() for name in ("rtt.def", "Dockerfile", "container.sh"))


def copied() -> set[str]:
    """Return the files of the clone that envs/rtt.def puts into the image."""
    lines = re.search(r"^%files\n((?:    .*\n)+)", RECIPE, re.MULTILINE)[1].splitlines()
    pairs = [line.split() for line in lines]
    assert all(target == f"/opt/build/{source}" for source, target in pairs)
    return {source for source, _ in pairs}


def test_both_recipes_make_the_same_image():
    """The same Debian, files, script, path and index of torch, which is the one that docs/hpc.md names."""
    assert dict(re.findall(r"^COPY (\S+) (\S+)$", DOCKERFILE, re.MULTILINE)) == {name: name for name in copied()}
    assert re.search(r"base=(\S+)", RECIPE)[1] == re.search(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)[1]
    index = re.search(r"torch_index=(\S+)", RECIPE)[1]
    assert f"ARG TORCH_INDEX={index}\n" in DOCKERFILE
    assert f"make setup TORCH_INDEX={index}\n" in (ROOT / "docs/hpc.md").read_text()
    for text in (RECIPE, DOCKERFILE):
        assert " sh envs/container.sh\n" in text and "PATH=/opt/venv/bin:$PATH\n" in text


def test_the_python_is_the_one_that_the_lock_was_made_for():
    pythons = set(re.findall(r"\bpython(3\.\d+)", SCRIPT))
    assert pythons == set(re.findall(r"--python-version (\S+)", (ROOT / "Makefile").read_text()))
    for environment in (ROOT / "envs").glob("*.yaml"):
        assert pythons == set(re.findall(r"python=(\S+)", environment.read_text()))


# Stands in for apt-get and for Python, and writes down what it is asked; `-m venv` puts a copy of it into the folder.
TOOL = """#!/bin/sh
echo "${0##*/} $*" >> "$CALLS"
case "$*" in
*%d.%d*) echo 3.11;;
"-m venv"*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python";;
esac
"""


def test_the_image_gets_the_lock_s_packages_from_the_files_that_are_copied(tmp_path):
    """What is copied is enough for the script, and no project is needed beside it."""
    tools, calls = tmp_path / "bin", tmp_path / "calls"
    tools.mkdir()
    for name in ("apt-get", "python3.11"):
        (tools / name).write_text(TOOL)
        (tools / name).chmod(0o755)
    for name in copied():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    script = tmp_path / "envs/container.sh"
    script.write_text(script.read_text().replace("/opt/venv", "venv").replace("/var/lib/apt/lists", "lists"))
    environment = {"PATH": f"{tools}:/usr/bin:/bin", "CALLS": str(calls), "TORCH_INDEX": "https://index.invalid/cpu"}
    done = subprocess.run(["sh", "envs/container.sh"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    asked = calls.read_text()
    assert "apt-get install -y --no-install-recommends ca-certificates git python3.11 python3.11-venv" in asked
    assert "--extra-index-url https://index.invalid/cpu torch==" in asked
    assert "--require-hashes --no-build-isolation -r requirements.lock" in asked
    assert "import torch, transformers, snakemake" in asked and "-e ." not in asked


# Snakemake's call: apptainer exec --home FOLDER [--bind ...] IMAGE bash -c COMMAND
APPTAINER = """#!/bin/bash
[ "$1" = --version ] && echo apptainer version 1.4.5 && exit
echo "$@" | head -n 1 >> "$CALLS"
exec bash -c "${@: -1}"
"""


def with_apptainer(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run Snakemake on the smoke study's first steps in `folder`, with such an apptainer on the path."""
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin/apptainer").write_text(APPTAINER)
    (folder / "bin/apptainer").chmod(0o755)
    command = [sys.executable, "-m", "snakemake", "-c1", "--directory", str(folder), "--sdm", "apptainer"]
    command += ["--snakefile", str(ROOT / "Snakefile"), "--configfile", str(ROOT / "config/smoke.yaml")]
    environment = os.environ | {"PATH": f"{folder}/bin:{BIN}:{os.environ['PATH']}", "CALLS": str(folder / "calls")}
    done = subprocess.run(
        [*command, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.returncode, done.stdout


def test_steps_run_in_the_image_that_the_study_names(tmp_path):
    (tmp_path / "image.sif").touch()
    code, output = with_apptainer(tmp_path, "--until", "generate", "--config", "container=image.sif")
    assert code == 0, output
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls and all(re.match(rf"exec --home {tmp_path} .*image\.sif bash -c ", call) for call in calls)
    assert list(tmp_path.glob("results/smoke/data/*/*.jsonl"))


def test_without_an_image_nothing_runs(tmp_path):
    code, output = with_apptainer(tmp_path)
    assert code == 1
    assert "container: --software-deployment-method apptainer needs an image, found none; build one from" in output
    assert not (tmp_path / "calls").exists()


@pytest.mark.full
def test_an_image_that_is_not_there_is_named(tmp_path):
    code, output = with_apptainer(tmp_path, "--config", "container=absent.sif")
    assert code == 1 and "container: absent.sif: no such file; build one from envs/rtt.def" in output

"""Fixtures of the doctor's tests. SLURM's commands are small scripts on a real PATH."""

import os
import re
from pathlib import Path

import pytest
import yaml
from places import ROOT
from rtt.__main__ import main
from rtt.doctor.slurm import checks
from rtt.doctor.surroundings import SECRET
from rtt.study.load import load_study

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

    def run(study: str = SMOKE, config: dict | None = None, retries: int = 0, **site) -> dict[str, tuple[str, str]]:
        path, settings = Path(profile(**site), "site.yaml"), {"slurm-status-command": "squeue", "retries": retries}
        found = checks(load_study(study, config or {}), path, settings, ROOT)
        return {check.name: (check.status, check.text) for check in found}

    return run


@pytest.fixture
def clean(monkeypatch):
    """Without variables that a check would speak of."""
    for name in [name for name in os.environ if SECRET.search(name) or name.startswith(("RTT_", "SNAKEMAKE_"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def ask(capsys, clean):
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

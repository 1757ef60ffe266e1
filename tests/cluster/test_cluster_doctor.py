"""`python -m rtt doctor` asks a real SLURM: would it take the study's jobs?"""

import re

import pytest
import yaml
from clones import SMOKE

pytestmark = pytest.mark.cluster


@pytest.fixture
def ask(cluster, fresh):
    """A function of the site file's keys; returns {check: (status, text)}, and leaves no job behind."""

    def run(**site) -> dict[str, tuple[str, str]]:
        (fresh.folder / "profiles/slurm/site.yaml").write_text(yaml.safe_dump(site or {"account": None}))
        arguments = ["doctor", "--profile", "slurm", "--configfile", SMOKE, "--config", "device=cuda"]
        done = fresh.python("-m", "rtt", *arguments, **cluster.environment())
        found = re.findall(r"^(ok|look|do) +([^:]+): (.*)$", done.stdout, re.MULTILINE)
        assert found and cluster.call("squeue", "--noheader").stdout == ""
        return {name: (status, text) for status, name, text in found}

    return run


def test_a_job_that_it_would_take(ask):
    checks = ask(account="physics", partition="billed", gpu_model="tiny")
    assert checks["SLURM"][1].startswith("slurm") and checks["status command"] == ("ok", "squeue answers")
    assert checks["partition"] == ("ok", "billed, no time limit") and "GPU model" not in checks
    asked = r"account physics, partition billed, \d+ MB, \d+ minutes, 4 CPUs, 1 GPU"
    status, text = checks["a job"]
    assert status == "ok" and re.fullmatch(rf"sbatch would take the study's largest job \({asked}\)", text)
    assert not {"MinJobAge", "PreemptMode"} & set(checks)  # as profiles/slurm needs them


def test_what_it_would_refuse(ask):
    status, text = ask(partition="billed")["a job"]
    assert status == "do" and "You must specify an account" in text and "set `account` in" in text
    checks = ask(account="none", partition="nowhere", gpu_model="h100")
    assert checks["partition"][0] == "do" and "billed, main, urgent" in checks["partition"][1]
    assert checks["a job"][0] == "do" and "nvalid partition" in checks["a job"][1]
    status, text = ask(account="none", cpus_per_gpu=8)["a job"]  # a node has 4
    assert status == "do" and "8 CPUs" in text and "node configuration" in text and "another `partition` in" in text
    checks = ask(account="none", gpu_model="h100")
    assert checks["GPU model"] == ("do", checks["GPU model"][1]) and "it has: tiny" in checks["GPU model"][1]

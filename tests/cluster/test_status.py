"""`python -m rtt status` of a smoke study that runs on SLURM: what is done, runs, waits in the queue and failed."""

import contextlib
import json
import signal
import subprocess
import sys

import psutil
import pytest
import slurm
from clones import SMOKE, Clone, clone_environment
from faults import LONG, snakemake

pytestmark = pytest.mark.cluster


@pytest.fixture
def two_cpus(cluster):
    """One CPU of each node is left, so that two jobs run and what else is submitted waits."""
    flags = ["--parsable", "--mem=100", "--output=/dev/null", f"--cpus-per-task={slurm.CPUS - 1}", "--wrap=sleep 3000"]
    jobs = [cluster.call("sbatch", f"--nodelist={node}", *flags).stdout.strip() for node in slurm.NODES]
    yield
    cluster.call("scancel", *jobs)


@pytest.fixture
def main(cluster, two_cpus, fresh):
    """Snakemake's main process of a smoke study; in the end it is interrupted, which cancels its jobs."""
    command = snakemake("--retries=0", "--config", "device=cpu", target="all", study=SMOKE)
    environment = clone_environment(fresh.folder) | cluster.environment()
    with open(fresh.folder / "main.txt", "w") as said:
        process = subprocess.Popen(command, cwd=fresh.folder, env=environment, stdout=said, stderr=said)
    yield process
    process.send_signal(signal.SIGINT)
    process.wait(LONG)


def status(clone: Clone, *arguments: str) -> str:
    """Return what `rtt status` says on the login node. Its exit code is 1 where a job has failed."""
    command = [sys.executable, "-m", "rtt", "status", SMOKE, "--config", "device=cpu", *arguments]
    environment = clone_environment(clone.folder) | {"PYTHONPATH": "scripts"}
    return subprocess.run(command, cwd=clone.folder, env=environment, stdout=subprocess.PIPE, text=True).stdout


def stopped(clone: Clone, known: dict[str, psutil.Process]) -> dict[str, psutil.Process]:
    """Stop each step on a node that has registered since the last call, so that it runs when somebody looks."""
    for path in clone.folder.glob("results/.locks/[0-9]*.json"):
        with contextlib.suppress(OSError, ValueError, psutil.Error):
            holder = json.loads(path.read_text())
            run = holder["writes"].removeprefix("results/smoke/specs/").removesuffix(".json")
            if run and holder["job"] and run not in known:
                known[run] = psutil.Process(holder["pid"])
                known[run].suspend()
    return known


def test_of_a_smoke_study_that_runs(main, fresh):
    steps: dict[str, psutil.Process] = {}
    slurm.wait_for("both bases", lambda: len(stopped(fresh, steps)) == 2, LONG)
    found = {job["name"]: job for job in json.loads(status(fresh, "--json"))["unfinished"] if job["state"] == "running"}
    assert found.keys() == steps.keys()
    assert all(job["where"].startswith("SLURM job ") and " on node" in job["where"] for job in found.values())
    base, oracle = sorted(steps)
    steps[oracle].kill()
    steps[base].resume()
    slurm.wait_for("what follows the base", lambda: len(stopped(fresh, steps)) == 4, LONG)
    whole = slurm.wait_for("word of the failure", lambda: failed(json.loads(status(fresh, "--json"))), LONG)
    print(status(fresh, "--no-tables"))
    names = {state: [j["name"] for j in whole["unfinished"] if j["state"] == state] for state in whole["jobs"]}
    assert names["failed"] == [oracle] and set(names["running"]) == steps.keys() - {base, oracle}
    assert whole["stages"]["pretrain"]["done"] == 1 and names["queued"]
    (why,) = (job["why"] for job in whole["unfinished"] if job["state"] == "failed")
    assert "this step was killed (SIGKILL)" in "".join(why)
    assert any(job["blocked"] for job in whole["unfinished"] if job["state"] == "waiting")


def failed(said: dict) -> dict | None:
    """Return the status once it has a job that failed."""
    return said if said["jobs"]["failed"] else None

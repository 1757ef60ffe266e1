"""The profile through a real SLURM: the smoke study gives the local run's bytes, and a few faults lose nothing.

`make test` runs the smoke study, `make test-cluster` the faults, too.
"""

import contextlib
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import psutil
import pytest
import slurm
from clones import SMOKE, differing
from faults import STUDY, snakemake
from places import ROOT

HELPERS = ROOT / "tests" / "helpers"


OWNER = """
import slurm, time
with slurm.running() as cluster:
    cluster.call("sbatch", "--output=/dev/null", "--wrap=sleep 300")
    running = lambda: "RUNNING" in cluster.call("squeue", "--format=%T").stdout
    slurm.wait_for("a running job", running)
    print(cluster.folder, flush=True)
    time.sleep(300)
"""


def test_a_cluster_is_gone_with_its_jobs_however_its_owner_ends():
    owner = subprocess.Popen([sys.executable, "-c", OWNER], cwd=HELPERS, stdout=subprocess.PIPE, text=True)
    try:
        folder = Path(owner.stdout.readline().strip())
        all_of_it = Counter(munged=1, slurmctld=1, slurmd=2, slurmstepd=1, sleep=1)
        slurm.wait_for("all its processes", lambda: names(folder) >= all_of_it)
        assert slurm.LINK.resolve().parent == folder
    finally:
        owner.kill()
        owner.wait()
    slurm.wait_for("the end of all", lambda: not slurm.members(str(folder)) and not folder.exists(), 60)
    assert not slurm.LINK.is_symlink() or slurm.LINK.resolve().parent != folder


def names(folder: Path) -> Counter:
    """Return {name: how many} of a cluster's processes."""
    found = Counter()
    for process in slurm.members(str(folder)):
        with contextlib.suppress(psutil.Error):
            found[process.name().split(":")[0]] += 1
    return found


@pytest.mark.cluster
def test_the_smoke_study_through_slurm_gives_the_local_run_s_bytes(cluster, finished, fresh):
    command = snakemake("--config", "device=cpu", target="all", study=SMOKE)
    done = fresh.python(*command[1:], **cluster.environment())
    assert done.returncode == 0, done.stdout
    assert differing(fresh.results(), finished.results()) == ["runs.json", "study.yaml"]  # device: cpu
    assert "SLURM account" in done.stdout and "sacctmgr" in done.stdout


@pytest.mark.cluster
def test_a_cancelled_job_has_saved_itself_and_its_retry_goes_on(run):
    run.start()
    step = run.checkpoint()
    run.cluster.call("scancel", run.job()["id"])
    run.wait()
    assert run.went_on() >= step
    run.check("scancel", f"saved on SIGTERM; the second job went on from step {run.went_on()}", unlearn=2, attack=1)


@pytest.mark.cluster
def test_after_a_kill_of_the_main_process_its_jobs_are_named_and_what_they_make_is_taken(run):
    main = run.start()
    run.checkpoint()
    with run.paused():
        main.send_signal(signal.SIGKILL)
        main.wait()
        job = run.job()["id"]
        assert run.clone.python("-m", "snakemake", "--unlock", "--configfile", STUDY).returncode == 0
        run.start()
        run.wait(1)
        refusal = run.said.split("this working directory is in use:")[-1]
        assert f"SLURM job {job}, pid" in refusal and f"scancel {job}" in refusal
    slurm.wait_for("the orphan's end", lambda: not run.jobs(states="PENDING,RUNNING,COMPLETING"), 240)
    run.finish()
    run.check("SIGKILL of the main process", f"a rerun named job {job}; the next took its output", unlearn=1, attack=1)


@pytest.mark.cluster
def test_a_missing_account_is_said_before_and_after_sbatch_refuses(run):
    site = run.clone.folder / "profiles/slurm/site.yaml"
    site.write_text("partition: billed\n")
    run.start("--retries=0")
    run.wait(1)
    assert "You must specify an account" in run.said
    assert run.said.count(f"set `account` in {site}") == 2
    site.write_text("partition: billed\naccount: physics\n")
    run.finish()
    run.check("unset account", "said before and after sbatch refused; set, it ran", unlearn=1, attack=1)


@pytest.mark.cluster
@pytest.mark.parametrize("launch", [["launcher=torchrun"], ["launcher=deepspeed", "deepspeed=zero2"]], ids=" ".join)
def test_two_gpus_are_one_job_with_one_launcher_and_two_processes(run, launch):
    """Never a GPU here and one there; requeued amid unlearning, both processes save, and go on together."""
    for node in slurm.NODES:  # one GPU of each is free until these end
        run.cluster.call(
            "sbatch", f"--nodelist={node}", "--gpus=1", "--mem=100", "--output=/dev/null", "--wrap=sleep 15"
        )
    gpus = [f"{rule}:{key}" for rule in ("unlearn", "attack") for key in ("gpu=2", f"gpu_model='{slurm.GPU_MODEL}'")]
    run.start("--config", *launch, "devices=2", "--set-resources", *gpus)
    run.checkpoint()
    with run.paused():
        step = run.checkpoint()
        job = run.job()["id"]
        steps = [process.environ() for process in run.steps()]
        described = run.cluster.call("scontrol", "show", "job", job).stdout
        run.cluster.call("scontrol", "requeue", job)
        run.until("SIGTERM", lambda: "SIGTERM: saving" in run.log())
    run.wait()
    assert sorted(one["RANK"] for one in steps) == ["0", "1"]
    assert {one["SLURM_JOB_ID"] for one in steps} == {job}
    assert {one["CUDA_VISIBLE_DEVICES"] for one in steps} == {"0,1"}
    assert f"TresPerJob=gres:gpu:{slurm.GPU_MODEL}:2" in described and "NumTasks=1 " in described
    assert "NumNodes=1 " in described
    assert run.went_on() >= step and len(run.jobs("unlearn")) == 1
    farthest = run.apart()
    print(f"scores of one and of two processes: at most {farthest:.1e} apart")
    assert 0 < farthest < 1e-3

"""Jobs that Snakemake, or SLURM itself, loses sight of: found again, and none done twice."""

import signal

import pytest
import slurm
from faults import LONG, STUDY

pytestmark = pytest.mark.cluster


@pytest.fixture
def occupied(cluster):
    """Nothing else fits into the cluster until the function is called."""
    flags = ["--parsable", "--exclusive", "--output=/dev/null", "--wrap=sleep 600"]
    jobs = [cluster.call("sbatch", f"--nodelist={node}", *flags).stdout.strip() for node in slurm.NODES]
    slurm.wait_for("their start", lambda: set(cluster.states().values()) == {"allocated"})
    yield lambda: cluster.call("scancel", *jobs)
    cluster.call("scancel", *jobs, check=False)


def test_an_orphan_that_still_waits_in_the_queue(occupied, run):
    """It has no process and no log yet. Each rerun names it, as often as it is tried; then it runs, and is taken."""
    main = run.start()
    job = run.until("a waiting job", lambda: run.jobs("unlearn", "PENDING"))[0]["id"]
    main.send_signal(signal.SIGKILL)
    main.wait()
    assert run.clone.python("-m", "snakemake", "--unlock", "--configfile", STUDY).returncode == 0
    for _ in range(2):
        run.start()
        run.wait(1)
        refusal = (run.clone.folder / f"main-{len(run.mains) - 1}.txt").read_text()
        assert f"SLURM job {job}, pending" in refusal and f"scancel {job}" in refusal
    occupied()
    slurm.wait_for("the orphan's end", lambda: not run.jobs(states="PENDING,RUNNING,COMPLETING"), LONG)
    run.finish()
    run.check("main process killed, its job in the queue", f"reruns named job {job}; then taken", unlearn=1, attack=1)


def test_a_controller_that_is_down_when_a_job_is_submitted(run):
    run.cluster.kill("slurmctld")
    run.start("--retries=0")
    run.until("word of it", lambda: "controller cannot be reached" in run.said)
    run.cluster.controller()
    run.wait()
    run.check("controller down at a submission", "asked again until it answered, no attempt lost", unlearn=1, attack=1)


def test_a_job_that_slurm_has_forgotten(run):
    """As where MinJobAge is short, or the login node was suspended."""
    main = run.start("--retries=0")
    run.checkpoint()
    run.cluster.remember(2)
    try:
        main.send_signal(signal.SIGSTOP)
        slurm.wait_for("the job's end, and that it is forgotten", lambda: not run.jobs("unlearn"), LONG)
    finally:
        run.cluster.remember(3600)
        main.send_signal(signal.SIGCONT)
    run.wait()
    assert "SLURM has forgotten job" in run.said
    run.check("an ended job that SLURM has forgotten", "its outputs were there, and taken", attack=1)


def test_ctrl_c_cancels_what_runs_and_what_waits(run):
    main = run.start()
    step = run.checkpoint()
    main.send_signal(signal.SIGINT)
    assert main.wait(LONG) != 0
    slurm.wait_for("their end", lambda: not run.jobs(states="PENDING,RUNNING,COMPLETING"), LONG)
    run.finish()
    assert run.went_on() >= step
    run.check(
        "Ctrl-C", f"the job saved itself; the same command went on from step {run.went_on()}", unlearn=2, attack=1
    )


def test_a_job_that_asked_for_a_gpu_and_sees_none_ends_at_once(run):
    """SLURM gives it one of its fakes, which torch can't use; `device: auto` trains a miniature without asking."""
    (run.clone.folder / "profiles/slurm/site.yaml").write_text(f"gpu_model: {slurm.GPU_MODEL}\n")
    run.start("--retries=0", "--config", "device=cuda")
    job = run.until("its job", lambda: run.jobs("unlearn"))[0]["id"]
    run.wait(1)
    described = run.cluster.call("scontrol", "show", "job", job).stdout
    assert f"TresPerJob=gres:gpu:{slurm.GPU_MODEL}:1" in described and "NumNodes=1 " in described
    said = run.log()
    assert f"device: cuda: this step sees no GPU (SLURM job {job}, on " in said and "Traceback" not in said
    run.finish()
    run.check("no GPU on the node", "the step said so in its first seconds", unlearn=2, attack=1)

"""What clusters do to jobs, each on a study of one unlearning and one RTT job: the same bytes as without, nothing lost,
no run done twice. `make test-cluster` runs all; three of them stand in test_cluster.py, five in test_lost_jobs.py.
"""

import resource
import signal
import time

import pytest
import slurm
from faults import LONG, STUDY

pytestmark = pytest.mark.cluster


def test_time_limit(run):
    """A job that needs longer than its limit is told, saves itself, and goes on in the next one."""
    # SLURM checks limits each 30 s or so: the notice can come that much early, so it is longer than that.
    extra = "unlearn:slurm_extra='--signal=TERM@40 --open-mode=append'"
    run.start("--set-resources", "unlearn:runtime=attempt", extra)
    step = run.checkpoint()
    with run.paused():  # as a job that needs longer; SLURM continues it before it sends SIGTERM
        run.until("SIGTERM", lambda: "SIGTERM: saving" in run.log())
    run.wait()
    assert run.went_on() >= step
    run.check("time limit", f"SIGTERM, saved; the second job went on from step {run.went_on()}", unlearn=2, attack=1)


def test_out_of_memory(run):
    """SLURM kills the job; the next attempt gets more memory."""
    run.start("--set-resources", "unlearn:mem_mb=400+1200*(attempt-1)")
    run.wait()
    first, second = run.jobs("unlearn")
    (log,) = run.clone.folder.glob(f"results/.slurm/rule_unlearn/*/{first['id']}.log")
    assert "Exceeded job memory limit" in log.read_text() and second["state"] == "COMPLETED"
    run.check("out of memory", "killed at 400 MB; the second job had 1600 MB", unlearn=2, attack=1)


def test_requeue(run):
    """The same job id, from its newest checkpoint."""
    run.start()
    step = run.checkpoint()
    run.cluster.call("scontrol", "requeue", run.job()["id"])
    run.wait()
    assert run.went_on() >= step
    run.check("requeue", f"the same job went on from step {run.went_on()}", unlearn=1, attack=1)


@pytest.mark.parametrize("fault", ["requeue", "scancel"])
def test_amid_the_attack(run, fault):
    """The attack goes on within its training; what unlearning has made stays."""
    run.start()
    run.checkpoint("attack")
    with run.paused("attack"):
        step = run.checkpoint("attack")
        job = run.job("attack")["id"]
        run.cluster.call(*(["scontrol", "requeue", job] if fault == "requeue" else ["scancel", job]))
        run.until("SIGTERM", lambda: "SIGTERM: saving" in run.log("attack"))
    run.wait()
    went_on, jobs = run.went_on("attack"), {"requeue": 1, "scancel": 2}[fault]
    assert went_on >= step
    run.check(f"{fault} of the attack's job", f"saved; went on from step {went_on}", unlearn=1, attack=jobs)


def test_preemption_by_requeue(run):
    run.start()
    step = run.checkpoint()
    node = run.job()["node"]
    urgent = run.cluster.call(
        "sbatch", "--parsable", "--partition=urgent", f"--nodelist={node}", "--exclusive", "--wrap=sleep 3",
        "--output=/dev/null",
    ).stdout.strip()  # fmt: skip
    run.wait()
    assert run.went_on() >= step
    assert urgent
    run.check("preemption", f"requeued, went on from step {run.went_on()}", unlearn=1, attack=1)


def test_node_down(run):
    """The job goes back to the queue under its own id, and on on the other node."""
    run.start()
    step = run.checkpoint()
    node = run.job()["node"]
    run.cluster.kill(node)
    try:
        run.wait()
        assert run.went_on() >= step
        assert run.jobs("unlearn")[0]["node"] != node
        run.check("node down", f"the other node went on from step {run.went_on()}", unlearn=1, attack=1)
    finally:
        run.cluster.node(node)
        slurm.wait_for("the node's return", lambda: run.cluster.states().get(node) == "idle", 60)


def test_controller_down(run):
    """For 30 seconds no command of SLURM answers; the job goes on meanwhile."""
    run.start()
    run.checkpoint()
    run.cluster.kill("slurmctld")
    time.sleep(30)
    run.cluster.controller()
    run.wait()
    run.check("controller down for 30 s", "the job ran on, its end was seen later", unlearn=1, attack=1)


def test_an_orphan_and_its_resubmission(run):
    """Two jobs of one run: the second waits, then stops and names the first; what the first makes is taken."""
    main = run.start()
    run.checkpoint()
    job = run.job()
    with run.paused():
        main.send_signal(signal.SIGKILL)
        main.wait()
        script = run.clone.folder / "orphan.sh"
        run.cluster.call("scontrol", "write", "batch_script", job["id"], str(script))
        environment = run.environment() | {"RTT_LOCKS": f"{run.clone.folder}/results/.locks"}
        again = run.cluster.call(
            "sbatch", "--parsable", f"--chdir={run.clone.folder}", "--mem=1600", f"--output={script}.log",
            "--comment=again", str(script), **environment,
        ).stdout.strip()  # fmt: skip
        state = ["squeue", "--states=all", f"--jobs={again}", "--format=%T"]
        slurm.wait_for("the second's end", lambda: "FAILED" in run.cluster.call(*state).stdout, LONG)
    said = (run.clone.folder / "orphan.sh.log").read_text()
    assert "another step writes this run" in said and f"SLURM job {job['id']}, pid" in said
    slurm.wait_for("the orphan's end", lambda: not run.jobs(states="PENDING,RUNNING,COMPLETING"), LONG)
    assert run.clone.python("-m", "snakemake", "--unlock", "--configfile", STUDY).returncode == 0
    run.finish()
    run.check("orphan and resubmission", f"the second named job {job['id']} and stopped", unlearn=1, attack=1)


def test_two_main_processes(run):
    first = run.start()
    run.checkpoint()
    with run.paused():
        run.start()
        run.wait(1)
        assert f"pid {first.pid} on" in run.said and "LockException" in run.said
    assert first.wait(LONG) == 0
    run.check("two main processes", f"the second named pid {first.pid} and stopped", unlearn=1, attack=1)


def test_disk_quota(run):
    """RLIMIT_FSIZE in the place of a quota: a checkpoint can't be written; the newest whole one is gone on from."""
    run.start("--retries=1")
    step = run.checkpoint()
    for process in run.steps():
        process.rlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    run.wait()
    assert run.went_on() >= step
    run.check("disk quota (RLIMIT_FSIZE)", f"failed; the second job went on from {run.went_on()}", unlearn=2, attack=1)

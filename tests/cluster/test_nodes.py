"""Jobs on two nodes, with one process each: torchrun's rendezvous through srun. Both nodes are this machine.

The numbers are those of one process within the bounds of docs/devices.md. Requeued, or after the loss of a node, they
go on where they were.
"""

import json
import signal

import pytest
import slurm
from faults import LONG

pytestmark = pytest.mark.cluster

DDP, ZERO2, ZERO3 = [], ["deepspeed=zero2"], ["deepspeed=zero3"]
TWO_NODES = ["launcher=torchrun", "nodes=2"]
BOUND = 1e-5  # of scores, absolute + relative: that of the losses in docs/devices.md


def worked_together(run) -> set[tuple]:
    """Return (engine, processes) of the manifests of unlearning and RTT."""
    made = [json.loads(path.read_text()) for path in run.results.glob("manifests/*-pretrained-*.json")]
    return {(one["engine"], one["world_size"]) for one in made if one["world_size"] > 1}


@pytest.mark.parametrize("engine", [DDP, ZERO2, ZERO3], ids=["ddp", "zero2", "zero3"])
def test_two_nodes_are_one_job_which_goes_on_after_a_requeue(run, engine):
    # As jobs on GPUs ask; `device: cpu` leaves the fakes alone.
    gpus = f"unlearn:gres='gpu:{slurm.GPU_MODEL}:1'"
    run.start("--config", *TWO_NODES, *engine, "--set-resources", gpus)
    run.checkpoint()
    with run.paused():
        step = run.checkpoint()
        job = run.job()
        steps = [process.environ() for process in run.steps()]
        described = run.cluster.call("scontrol", "show", "job", job["id"]).stdout
        run.cluster.call("scontrol", "requeue", job["id"])
        run.until("SIGTERM", lambda: "SIGTERM: saving" in run.log())
    run.wait(seconds=3 * LONG)  # ZeRO-3 fetches each layer anew, which takes long on two cores
    assert job["node"] == "node[1-2]" and "NumNodes=2 " in described and "NumTasks=2 " in described
    where = [(one["SLURMD_NODENAME"], one["LOCAL_RANK"], one["LOCAL_WORLD_SIZE"]) for one in steps]
    assert sorted(where) == [("node1", "0", "1"), ("node2", "0", "1")]
    assert sorted(one["RANK"] for one in steps) == ["0", "1"]
    assert f"TresPerNode=gres:gpu:{slurm.GPU_MODEL}:1" in described
    assert {one["CUDA_VISIBLE_DEVICES"] for one in steps} == {"0"}
    assert {one["SLURM_JOB_ID"] for one in steps} == {job["id"]}
    assert run.went_on() >= step and len(run.jobs("unlearn")) == 1
    name = engine[0].removeprefix("deepspeed=") if engine else "ddp"
    assert worked_together(run) == {(name, 2)}
    apart = run.apart()
    print(f"{name}, one process and two nodes: scores at most {apart:.1e} apart; went on from step {run.went_on()}")
    assert apart < BOUND


@pytest.mark.parametrize("lost", slurm.NODES)
def test_a_job_that_loses_a_node_waits_for_another_and_goes_on(run, lost):
    """The first node has the rendezvous, so both are tried."""
    run.start("--config", *TWO_NODES)
    step = run.checkpoint()
    run.cluster.kill(lost)
    try:
        run.until("a job that waits for a node", lambda: run.jobs("unlearn", "PENDING"))
    finally:
        run.cluster.node(lost)
    run.wait()
    assert run.went_on() >= step and worked_together(run) == {("ddp", 2)} and run.apart() < BOUND
    print(f"{lost} lost: went on from step {run.went_on()}, in {len(run.jobs('unlearn'))} jobs")


def test_what_two_nodes_began_as_many_processes_on_one_node_end(run):
    """A state is of so many processes, wherever they are; so a study whose job lost a node can go on without it."""
    main = run.start("--config", *TWO_NODES)
    step = run.checkpoint()
    main.send_signal(signal.SIGINT)
    assert main.wait(LONG) != 0
    slurm.wait_for("their end", lambda: not run.jobs(states="PENDING,RUNNING,COMPLETING"), LONG)
    run.finish("--config", "launcher=torchrun", "devices=2")
    assert run.went_on() >= step and worked_together(run) == {("ddp", 2)} and run.apart() < BOUND
    assert run.jobs("unlearn")[-1]["node"] in slurm.NODES

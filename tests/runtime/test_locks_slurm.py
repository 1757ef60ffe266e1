"""Locks on a cluster: what SLURM is asked about jobs.

squeue is a script that answers as a test wants; tests/cluster has a real one.
"""

import json
import os
from pathlib import Path

import pytest
from rtt.errors import UserError
from rtt.ownership import still_ours
from rtt.runtime import locks, slurm_jobs


@pytest.fixture
def squeue(tmp_path, monkeypatch):
    """A function that makes squeue answer so; the folder of a working directory whose jobs SLURM has had is current."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (tmp_path / "work/results/.slurm").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv(locks.VARIABLE, "")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.delenv("SLURMD_NODENAME", raising=False)

    def answer(*lines: str, error: str = "", code: int = 0) -> None:
        (folder / "answer").write_text("".join(f"{line}\n" for line in lines))
        script = f"#!/bin/sh\necho \"$@\" >> '{folder}/asked'\ncat '{folder}/answer'\necho '{error}' >&2\nexit {code}\n"
        (folder / "squeue").write_text(script)
        (folder / "squeue").chmod(0o755)

    answer()
    return answer


def line(job: str, state: str, node: str = "", folder: Path | None = None, comment: str = "rule_unlearn") -> str:
    return f"{job}|{state}|{node}|{folder or Path.cwd()}|{comment}"


def elsewhere(job: str = "17", node: str = "node7", writes: str = "") -> Path:
    """The file of a step of a job on another node."""
    path = locks.FOLDER / f"99-{node}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = {"pid": 99, "start_time": 1e9, "host": node, "command": "unlearn --spec s", "role": "step", "job": job}
    path.write_text(json.dumps(holder | {"writes": writes}))
    return path


def test_a_job_that_slurm_says_is_at_work_is_named_with_what_to_do(squeue):
    elsewhere()
    squeue(line("17", "RUNNING", "node7"))
    with pytest.raises(
        UserError, match=r"SLURM job 17, pid 99 on node7(?s:.*)uses what they have made(?s:.*)scancel 17"
    ):
        locks.claim(locks.FOLDER, "run")


@pytest.mark.parametrize(
    "answer",
    [[], [("17", "COMPLETED", "node7")], [("17", "PENDING", "")], [("17", "RUNNING", "node8")]],
    ids=["forgotten", "ended", "requeued", "elsewhere"],
)
def test_a_job_that_is_over_on_its_node_is_dropped(squeue, answer):
    path = elsewhere()
    squeue(*(line(*one) for one in answer), error="" if answer else "slurm_load_jobs error: Invalid job id specified",
           code=0 if answer else 1)  # fmt: skip
    assert locks.live() == []
    assert not path.exists()


def test_where_slurm_does_not_answer_a_job_counts_as_at_work(squeue):
    path = elsewhere()
    squeue(error="slurm_load_jobs error: Unable to contact slurm controller", code=1)
    assert [holder.job for holder in locks.live()] == ["17"]
    assert path.exists()


def asked(tmp_path: Path) -> list[str]:
    """What squeue was asked so far."""
    path = tmp_path / "bin/asked"
    return path.read_text().splitlines() if path.exists() else []


def test_one_question_is_for_all_jobs_and_a_step_asks_of_those_alone_that_write_its_run(squeue, tmp_path, monkeypatch):
    """Fifty jobs that start steps must not ask SLURM of each other."""
    for number in range(1, 6):
        elsewhere(str(number), f"node{number}", f"specs/{number}.json")
    squeue(*(line(str(number), "RUNNING", f"node{number}") for number in range(1, 6)))
    monkeypatch.setenv(locks.VARIABLE, str(locks.FOLDER))
    for writes in ("specs/9.json", ""):
        with locks.step("unlearn", writes, wait=0):
            assert asked(tmp_path) == []
    assert len(locks.live()) == 5
    assert asked(tmp_path) == ["--noheader --format=%i|%T|%N|%Z|%k --jobs=1,2,3,4,5 --states=all"]
    with pytest.raises(UserError, match="SLURM job 3,"), locks.step("unlearn", "specs/3.json", wait=0):
        raise AssertionError
    assert asked(tmp_path)[1:] == ["--noheader --format=%i|%T|%N|%Z|%k --jobs=3 --states=all"]


def test_a_requeued_job_takes_over_from_itself(squeue, monkeypatch):
    path = elsewhere()
    squeue(line("17", "RUNNING", "node7"))
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURMD_NODENAME", "node8")
    assert locks.live() == []
    assert not path.exists()


def test_jobs_that_wait_in_the_queue_are_in_the_way_too_but_not_those_of_others(squeue, tmp_path):
    squeue(
        line("21", "PENDING", comment="rule_rtt_wildcards_x"),
        line("22", "PENDING", folder=tmp_path / "another"),
        line("23", "RUNNING", "node1", comment="(null)"),
        line("24", "COMPLETED", "node1"),
    )
    with pytest.raises(UserError, match=r"SLURM job 21, pending \(rule_rtt_wildcards_x\)(?s:.*)scancel 21$"):
        locks.claim(locks.FOLDER, "run")
    assert "scancel 21" in locks.busy()


def test_a_slurm_that_does_not_answer_is_no_empty_queue(squeue):
    squeue(error="Unable to contact slurm controller", code=1)
    with pytest.raises(UserError, match="SLURM does not answer"):
        locks.claim(locks.FOLDER, "run")
    assert "SLURM does not answer" in locks.busy()


def test_a_folder_that_never_submitted_asks_nothing(squeue, tmp_path):
    Path("results/.slurm").rmdir()
    locks.claim(locks.FOLDER, "run")
    assert not (tmp_path / "bin/asked").exists()


# --- one writer per run


def test_of_two_steps_that_write_one_run_the_second_stops_and_names_the_job(squeue, monkeypatch):
    elsewhere(writes="specs/a.json")
    squeue(line("17", "RUNNING", "node7"))
    monkeypatch.setenv(locks.VARIABLE, str(locks.FOLDER))
    with (
        pytest.raises(UserError, match=r"specs/a\.json: another step writes this run(?s:.*)SLURM job 17"),
        locks.step("unlearn", "specs/a.json", wait=0),
    ):
        raise AssertionError
    with locks.step("unlearn", "specs/b.json", wait=0):
        assert {holder.writes for holder in locks.live()} == {"specs/a.json", "specs/b.json"}


def test_the_second_step_goes_on_once_the_first_has_ended(squeue, monkeypatch):
    elsewhere(writes="specs/a.json")
    squeue(line("17", "COMPLETING", "node7"))
    monkeypatch.setenv(locks.VARIABLE, str(locks.FOLDER))
    monkeypatch.setattr(locks.time, "sleep", lambda seconds: squeue(line("17", "FAILED", "node7")))
    with locks.step("unlearn", "specs/a.json"):
        assert [holder.pid for holder in locks.live()] == [os.getpid()]


def test_a_job_on_several_nodes_is_at_work_on_each_of_them(squeue, monkeypatch, tmp_path):
    elsewhere(writes="specs/a.json")  # on node7
    (tmp_path / "bin/scontrol").write_text("#!/bin/sh\nprintf 'node6\\nnode7\\n'\n")
    (tmp_path / "bin/scontrol").chmod(0o755)
    squeue(line("17", "RUNNING", "node[6-7]"))
    assert [holder.job for holder in locks.live()] == ["17"]
    (tmp_path / "bin/scontrol").write_text("#!/bin/sh\nexit 1\n")  # it does not say: any node may be meant
    assert [holder.job for holder in locks.live()] == ["17"]
    (tmp_path / "bin/scontrol").write_text("#!/bin/sh\necho node6\n")
    assert locks.live() == []


def test_a_node_that_does_not_see_what_the_first_one_writes_says_so(squeue, monkeypatch):
    monkeypatch.setenv(locks.VARIABLE, str(locks.FOLDER))
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURMD_NODENAME", "node8")
    monkeypatch.setattr(locks, "UNSEEN", 0.0)
    with (
        pytest.raises(UserError, match=r"nodes: node8 does not see in .*/\.locks what .* nodes: 1$"),
        locks.step("unlearn", helps="specs/a.json", wait=0),
    ):
        raise AssertionError
    elsewhere(writes="specs/a.json")  # by the same job's process on node7
    with locks.step("unlearn", helps="specs/a.json", wait=0):
        pass


def test_a_step_whose_run_was_taken_over_writes_nothing_more(squeue, monkeypatch):
    still_ours()  # outside a run there is nothing to lose
    monkeypatch.setenv(locks.VARIABLE, str(locks.FOLDER))
    with locks.step("unlearn", "specs/a.json"):
        still_ours()
        next(locks.FOLDER.glob(f"{os.getpid()}-*.json")).unlink()  # what a step does that finds it dead
        with pytest.raises(UserError, match="another job has taken over this run"):
            still_ours()


def test_on_a_node_the_host_is_slurm_s_name_for_it(squeue, monkeypatch):
    monkeypatch.setenv("SLURMD_NODENAME", "node3")
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    assert locks.register(locks.FOLDER, "x").name == f"{os.getpid()}-node3.json"
    assert (slurm_jobs.host(), slurm_jobs.job_id()) == ("node3", "5")
    assert [(holder.host, holder.job) for holder in locks.live()] == [("node3", "5")]

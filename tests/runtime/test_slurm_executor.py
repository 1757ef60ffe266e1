"""The SLURM executor loses no job and runs none twice: the real plugin, mended, with clients of SLURM that answer as a
test wants. tests/cluster has a real controller that goes down.
"""

import asyncio
import importlib
import importlib.metadata
import logging
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from rtt.runtime import slurm_executor
from throttler import Throttler

PLUGIN = "snakemake_executor_plugin_slurm"
LOST = "SLURM sbatch failed. The error message was 'sbatch: error: Batch job submission failed: "
DOWN = f"{LOST}Unable to contact slurm controller (connect failure)'."


def load(monkeypatch):
    """Return the plugin as it is on disk, whatever a test before has mended."""
    for name in [name for name in sys.modules if name == PLUGIN or name.startswith(f"{PLUGIN}.")]:
        monkeypatch.delitem(sys.modules, name)
    return importlib.import_module(PLUGIN)


@pytest.fixture
def client(tmp_path, monkeypatch):
    """A function that makes a client of SLURM print these lines, or fail."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def says(name: str, *lines: str, code: int = 0) -> None:
        text = "".join(f"echo '{line}'\n" for line in lines)
        (tmp_path / name).write_text(f"#!/bin/sh\necho \"$@\" >> '{tmp_path}/{name}.asked'\n{text}exit {code}\n")
        (tmp_path / name).chmod(0o755)

    says("sacct", "7|COMPLETED", "8|COMPLETED")
    says("scontrol", code=1)
    says("squeue")
    return says


@pytest.fixture
def plugin(monkeypatch):
    module = load(monkeypatch)
    monkeypatch.setattr(slurm_executor, "PAUSE", 0.0)
    monkeypatch.setattr(slurm_executor, "ours", False)
    assert slurm_executor.mend(module) and slurm_executor.mend(module)
    return module


@pytest.fixture
def one(plugin, client, tmp_path):
    """An executor of a run, without Snakemake around it. ended, failed, submitted: what it reports."""
    made = object.__new__(plugin.Executor)
    settings = SimpleNamespace(
        status_command="squeue", status_attempts=2, init_seconds_before_status_checks=40, keep_successful_logs=False,
        delete_logfiles_older_than=10, requeue=True,
    )  # fmt: skip
    made.workflow, made.logger = SimpleNamespace(executor_settings=settings), logging.getLogger("rtt-test")
    made.run_uuid, made.wait, made._main_event_loop, made.slurm_logdir = "rtt_1", True, None, tmp_path / "logs"
    made._status_query_calls = made._status_query_failures = 0
    made._status_query_total_seconds = made._status_query_max_seconds = 0.0
    made._status_query_min_seconds, made._status_query_cycle_rows, made._preemption_warning = None, [], False
    made.next_seconds_between_status_checks = 1
    made.status_rate_limiter = Throttler(rate_limit=1000, period=1)
    made._job_submission_executor = ThreadPoolExecutor(1)
    made.ended, made.failed, made.submitted, made.again = [], [], [], []
    made.report_job_success = lambda job: made.ended.append(job.external_jobid)
    made.report_job_error = lambda job, msg=None, aux_logs=(): made.failed.append(job.external_jobid)
    made.report_job_submission = lambda job: made.submitted.append(job.external_jobid)
    made.run_job = made.again.append
    return made


def job(plugin, number: str | None):
    named = SimpleNamespace(name="unlearn", is_group=lambda: False, wildcards=["a-s0"])
    return plugin.SubmittedJobInfo(named, external_jobid=number, aux={"slurm_logfile": Path("none.log")})


def look(one, jobs: list) -> list[str]:
    """Ask once; return the jobs that go on."""

    async def listed():
        return [job.external_jobid async for job in one.check_active_jobs(jobs)]

    return asyncio.run(listed())


def test_the_installed_plugin_is_the_version_that_is_mended():
    assert importlib.metadata.version(slurm_executor.PLUGIN).startswith(slurm_executor.VERSION)


def test_another_version_is_left_alone(monkeypatch):
    module = load(monkeypatch)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.9.0")
    before = dict(vars(module.Executor))
    assert not slurm_executor.mend(module)
    assert dict(vars(module.Executor)) == before


def test_the_executor_may_be_asked_before_it_is_set_up(one):
    del one._status_query_calls
    assert look(one, []) == []


def test_without_an_answer_all_jobs_go_on(one, plugin, client, tmp_path):
    client("squeue", code=1)
    for _ in range(slurm_executor.GONE + 1):
        assert look(one, [job(plugin, "7"), job(plugin, "8")]) == ["7", "8"]
    assert one.ended == one.failed == [] and not (tmp_path / "sacct.asked").exists()


def test_squeue_is_asked_even_where_min_job_age_is_short(one, plugin, client, tmp_path):
    client("scontrol", "MinJobAge               = 30 sec")
    client("squeue", "7|RUNNING", "8|COMPLETED")
    assert look(one, [job(plugin, "7"), job(plugin, "8")]) == ["7"]
    assert one.ended == ["8"] and not (tmp_path / "sacct.asked").exists()


def test_a_job_that_slurm_has_forgotten_is_judged_by_its_files(one, plugin, client):
    jobs = [job(plugin, "7"), job(plugin, "8")]
    client("squeue", "8|RUNNING")
    assert look(one, jobs) == ["7", "8"]  # it may be a moment's gap
    client("squeue", "7|RUNNING", "8|RUNNING")
    assert look(one, jobs) == ["7", "8"]
    client("squeue", "8|PREEMPTED")
    assert [look(one, jobs) for _ in range(slurm_executor.GONE)] == [["7", "8"]] * (slurm_executor.GONE - 1) + [["8"]]
    assert one.ended == ["7"] and one.failed == []


def test_a_job_that_the_controller_could_not_take_is_submitted_again(one, plugin, client):
    info = job(plugin, None)
    one._report_job_error_threadsafe(info, DOWN)
    one._job_submission_executor.shutdown(wait=True)
    assert one.again == [info.job] and one.failed == []


@pytest.mark.parametrize(("known", "kept"), [(["7"], ["9"]), (["7", "9"], [])])
def test_a_job_that_was_taken_though_the_answer_was_lost_is_kept(one, plugin, client, known, kept):
    """7 and 9 are of this job, 8 of another: what the run knows is an earlier attempt, and so ended."""
    for number in known:
        one._report_job_submission_threadsafe(job(plugin, number))
    comment = "rule_unlearn_wildcards_a-s0"
    other = "8|RUNNING|n1|/w|rule_rtt_wildcards_a-s0"
    client("squeue", f"9|PENDING||/w|{comment}", f"7|FAILED|n1|/w|{comment}", other)
    info = job(plugin, None)
    one._report_job_error_threadsafe(info, f"{LOST}Socket timed out on send/recv operation'.")
    one._job_submission_executor.shutdown(wait=True)
    assert one.submitted == known + kept and one.again == ([] if kept else [info.job]) and one.failed == []


def test_a_refusal_is_an_error_at_once(one, plugin):
    one._report_job_error_threadsafe(job(plugin, None), f"{LOST}Invalid account'.")
    assert one.failed == [None] and one.again == []


def test_ctrl_c_cancels_all_jobs_of_the_run_and_submits_no_more(one, plugin, client, tmp_path):
    client("scancel")
    one._job_submission_executor.submit(time.sleep, 0.2)
    one._job_submission_executor.submit(one.run_job, "queued")
    one.cancel_jobs([])
    assert one.again == [] and (tmp_path / "scancel.asked").read_text() == "--name rtt_1\n"
    one._report_job_error_threadsafe(job(plugin, None), DOWN)
    assert one.failed == [None]


@pytest.mark.parametrize("ours", [True, False])
def test_only_the_run_that_has_claimed_the_folder_cleans_its_logs(one, monkeypatch, ours):
    """A run that is refused leaves the folder of another's waiting job: SLURM opens its log there when it starts."""
    waiting = one.slurm_logdir / "rule_unlearn/a-s0"
    waiting.mkdir(parents=True)
    monkeypatch.setattr(slurm_executor, "ours", ours)
    one.clean_old_logs()
    assert waiting.exists() is not ours


def test_a_run_inside_a_job_forgets_the_job_but_not_the_cluster(plugin, monkeypatch):
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    for name in ("SLURM_JOB_ID", "SLURM_CPUS_PER_TASK", "SLURM_CONF", "SLURM_JWT", "SLURM_CLUSTERS"):
        monkeypatch.setenv(name, "x")
    plugin.delete_slurm_environment()
    assert {name for name in os.environ if name.startswith("SLURM_")} == {"SLURM_CONF", "SLURM_JWT", "SLURM_CLUSTERS"}

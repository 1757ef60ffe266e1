"""The profile through a real SLURM: the smoke study gives the local run's bytes, and a few faults lose nothing."""

import signal

import slurm
from conftest import SMOKE, differing
from faults import STUDY, snakemake


def test_the_smoke_study_through_slurm_gives_the_local_run_s_bytes(cluster, finished, fresh):
    command = snakemake("--config", "device=cpu", target="all", study=SMOKE)
    done = fresh.python(*command[1:], **cluster.environment())
    assert done.returncode == 0, done.stdout
    assert differing(fresh.results(), finished.results()) == ["plan.json", "study.yaml"]  # device: cpu
    assert "SLURM account" in done.stdout and "sacctmgr" in done.stdout


def test_a_cancelled_job_has_saved_itself_and_its_retry_goes_on(run):
    run.start()
    step = run.checkpoint()
    run.cluster.call("scancel", run.job()["id"])
    run.wait()
    assert run.went_on() >= step
    run.check("scancel", f"saved on SIGTERM; the second job went on from step {run.went_on()}", unlearn=2, rtt=1)


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
    run.check("SIGKILL of the main process", f"a rerun named job {job}; the next took its output", unlearn=1, rtt=1)


def test_a_missing_account_is_said_before_and_after_sbatch_refuses(run):
    site = run.clone.folder / "profiles/slurm/site.yaml"
    site.write_text("partition: billed\n")
    run.start("--retries=0")
    run.wait(1)
    assert "You must specify an account" in run.said
    assert run.said.count(f"set `account` in {site}") == 2
    site.write_text("partition: billed\naccount: physics\n")
    run.finish()
    run.check("unset account", "said before and after sbatch refused; set, it ran", unlearn=1, rtt=1)

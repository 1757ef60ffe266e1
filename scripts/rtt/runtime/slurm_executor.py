"""Mend snakemake-executor-plugin-slurm 2.8 where it loses a job, waits for one forever, or runs one twice.

| what happens | 2.8.0 | mended |
|---|---|---|
| squeue fails as often as `status-attempts` allows | forgets all jobs and waits for them forever | they go on |
| MinJobAge is short, or cannot be read | asks sacct, which may hang or know nothing | asks squeue all the same |
| SLURM has forgotten an ended job | waits forever | its outputs tell how it ended |
| sbatch cannot reach the controller | a failed attempt, at once | tries again until it answers |
| the controller took a job, but its answer was lost | submits a second job | finds the first one and keeps it |
| Ctrl-C | still submits queued jobs, and cancels none being asked about | cancels all, by name |
| it starts inside a SLURM job | forgets SLURM_CONF, so it talks to another cluster or none | remembers it |
| a run is refused at its start | deletes folders that others' waiting jobs log into | deletes nothing |
"""

import importlib.metadata
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import ModuleType

from rtt.runtime import slurm_jobs

PLUGIN = "snakemake-executor-plugin-slurm"
VERSION = "2.8."
UNREACHABLE = (
    "Unable to contact slurm controller",
    "Socket timed out",
    "Connection refused",
    "Zero Bytes were transmitted",
    "Slurm backup controller in standby mode",
)
PAUSE = 30.0  # seconds between two attempts to submit a job while the controller is down
GONE = 2  # after so many answers in a row without a submitted job, SLURM has forgotten it
ALWAYS = 10**9  # seconds; with a MinJobAge so long the plugin asks squeue

# What tells SLURM's commands where and who they are. Every other SLURM_* variable belongs to the job around us.
SITE = ("SLURM_CONF", "SLURM_JWT", "SLURM_CLUSTERS")

ours = False  # whether this process has claimed its folder as the main one


def mend(module: ModuleType | None = None) -> bool:
    """Mend the plugin if Snakemake has loaded it in version VERSION; return whether it is mended now."""
    module = module or sys.modules.get("snakemake_executor_plugin_slurm")
    if module is None or not importlib.metadata.version(PLUGIN).startswith(VERSION):
        return False
    if hasattr(module, "mended"):
        return True
    module.mended = True
    module.get_min_job_age = lambda: ALWAYS
    module.delete_slurm_environment = forget_job
    _mend_status(module)
    _mend_submission(module)
    _mend_ends(module)
    return True


def forget_job() -> None:
    """Delete the variables of the job in which Snakemake runs, so that its own jobs do not inherit them."""
    for name in [name for name in os.environ if name.startswith("SLURM_") and name not in SITE]:
        del os.environ[name]


def _mend_status(module: ModuleType) -> None:
    query, check = module.query_job_status, module.Executor.check_active_jobs
    last: dict[str, str] = {}  # {job: state} of SLURM's last answer
    missing: Counter[str] = Counter()

    async def query_job_status(command, logger):
        found, seconds = await query(command, logger)
        if found is not None:
            last.clear()
            last.update(found)
        return found, seconds

    async def check_active_jobs(self, active_jobs):
        # The plugin's thread asks before the executor is set up; there are no jobs then.
        answers = self._status_query_calls if active_jobs else 0
        still = [job async for job in check(self, active_jobs)]
        if active_jobs and self._status_query_calls == answers:  # SLURM did not answer
            still = active_jobs
        else:
            for job in still:
                missing[job.external_jobid] = 0 if job.external_jobid in last else missing[job.external_jobid] + 1
        for job in still:
            if missing[job.external_jobid] < GONE:
                yield job
            else:
                self.logger.warning(
                    f"SLURM has forgotten job {job.external_jobid}: whether its files exist tells how it ended"
                )
                self.report_job_success(job)  # Snakemake then checks the outputs; missing ones are a failure

    module.query_job_status = query_job_status
    module.Executor.check_active_jobs = check_active_jobs


def _mend_submission(module: ModuleType) -> None:
    submitted, failed = module.Executor._report_job_submission_threadsafe, module.Executor._report_job_error_threadsafe

    def note(self, job_info):
        vars(self).setdefault("known_ids", set()).add(job_info.external_jobid)
        submitted(self, job_info)

    def again(self, job_info, msg):
        if job_info.external_jobid is not None or not any(words in msg for words in UNREACHABLE):
            return failed(self, job_info, msg)
        if not vars(self).setdefault("told", False):
            self.told = True
            self.logger.warning(f"SLURM's controller cannot be reached: trying again every {PAUSE:.0f} s")
        job, name = job_info.job, "group" if job_info.job.is_group() else "rule"
        wildcards = module.get_job_wildcards(job)
        comment = f"{name}_{job.name}" + f"_wildcards_{wildcards}" * bool(wildcards)
        found = None
        while found is None and _pause(self):
            found = slurm_jobs.named(self.run_uuid)
        taken = [one.id for one in found or [] if one.rule == comment and one.id not in vars(self).get("known_ids", ())]
        if taken:  # the controller took the job, but its answer to sbatch was lost
            log = Path(self.slurm_logdir, f"{name}_{job.name}", wildcards, f"{taken[-1]}.log")
            info = module.SubmittedJobInfo(job, external_jobid=taken[-1], aux={"slurm_logfile": log})
            return self._report_job_submission_threadsafe(info)
        try:
            self._job_submission_executor.submit(self.run_job, job)
        except RuntimeError:  # the executor was shut down meanwhile
            failed(self, job_info, msg)

    module.Executor._report_job_submission_threadsafe = note
    module.Executor._report_job_error_threadsafe = again


def _pause(self) -> bool:
    """Wait PAUSE seconds; return False at once when the run is to end."""
    end = time.monotonic() + PAUSE
    while self.wait and time.monotonic() < end:
        time.sleep(min(1.0, PAUSE))
    return self.wait


def _mend_ends(module: ModuleType) -> None:
    clean = module.Executor.clean_old_logs

    def cancel_jobs(self, active_jobs):
        self.wait = False  # no more jobs are submitted
        self._job_submission_executor.shutdown(wait=True, cancel_futures=True)
        # By name, since jobs about which SLURM is being asked just now are in no list.
        done = subprocess.run(["scancel", "--name", self.run_uuid], capture_output=True, text=True, check=False)
        if done.returncode:
            self.logger.error(f"scancel --name {self.run_uuid} failed: {done.stderr.strip()}; run this command again")

    def clean_old_logs(self):
        if ours:
            clean(self)

    module.Executor.cancel_jobs = cancel_jobs
    module.Executor.clean_old_logs = clean_old_logs

"""Mends snakemake-executor-plugin-slurm 2.8: where SLURM doesn't answer, jobs go on.

When squeue fails as often as `status-attempts` allows (the controller is down), that version forgets all jobs of the
run, and waits for them for ever. And since MinJobAge can't be read either, it turns to sacct, which has no answer on a
cluster without accounting.
"""

import importlib.metadata
import sys
from types import ModuleType

PLUGIN = "snakemake-executor-plugin-slurm"
VERSION = "2.8."


def mend(module: ModuleType | None = None) -> bool:
    """Mend the plugin where Snakemake has loaded it and it is of VERSION; return whether it is mended now."""
    module = module or sys.modules.get("snakemake_executor_plugin_slurm")
    if module is None or not importlib.metadata.version(PLUGIN).startswith(VERSION):
        return False
    if hasattr(module, "mended"):
        return True
    module.mended = True
    check, age, known = module.Executor.check_active_jobs, module.get_min_job_age, {}

    async def check_active_jobs(self, active_jobs):
        # The plugin's thread asks before the executor is set up; there is no job then.
        answers = self._status_query_calls if active_jobs else 0
        async for job in check(self, active_jobs):
            yield job
        if active_jobs and self._status_query_calls == answers:  # nothing is known of any of them
            for job in active_jobs:
                yield job

    def get_min_job_age():
        if (found := age()) is not None:
            known["age"] = found
        return known.get("age")

    module.Executor.check_active_jobs = check_active_jobs
    module.get_min_job_age = get_min_job_age
    return True

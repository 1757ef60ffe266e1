"""The SLURM executor forgets no job when SLURM doesn't answer. tests/cluster has a real controller that goes down."""

import asyncio
import importlib.metadata
from types import SimpleNamespace

import pytest
from rtt import executor


class Executor:
    """As the plugin's: jobs that are at work are yielded; without an answer nothing is."""

    def __init__(self, answers):
        self.answers, self._status_query_calls = answers, 0

    async def check_active_jobs(self, active_jobs):
        if not active_jobs:
            return
        if (at_work := self.answers.pop(0)) is None:
            return
        self._status_query_calls += 1
        for job in active_jobs:
            if job in at_work:
                yield job


def look(plugin, jobs: list[str]) -> list[str]:
    async def listed():
        return [job async for job in plugin.check_active_jobs(jobs)]

    return asyncio.run(listed())


@pytest.fixture
def module():
    made = type("Fresh", (Executor,), {"check_active_jobs": Executor.check_active_jobs})
    ages = [300, None]
    return SimpleNamespace(Executor=made, get_min_job_age=lambda: ages.pop(0))


def test_it_is_the_version_that_is_pinned():
    assert importlib.metadata.version(executor.PLUGIN).startswith(executor.VERSION)
    plugin = pytest.importorskip("snakemake_executor_plugin_slurm")
    assert plugin.Executor.check_active_jobs and plugin.get_min_job_age


def test_without_an_answer_all_jobs_go_on_and_with_one_those_that_are_at_work(module):
    assert executor.mend(module) and executor.mend(module)
    plugin = module.Executor([["b"], None, []])
    assert look(plugin, ["a", "b"]) == ["b"]
    assert look(plugin, ["b"]) == ["b"]
    assert look(plugin, ["b"]) == []


def test_it_may_be_asked_before_the_executor_is_set_up(module):
    executor.mend(module)
    plugin = module.Executor([[]])
    del plugin._status_query_calls

    assert look(plugin, []) == []


def test_min_job_age_is_remembered(module):
    executor.mend(module)
    assert [module.get_min_job_age() for _ in range(2)] == [300, 300]


def test_another_version_is_left_alone(module, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.9.0")
    before = module.Executor.check_active_jobs
    assert not executor.mend(module)
    assert module.Executor.check_active_jobs is before

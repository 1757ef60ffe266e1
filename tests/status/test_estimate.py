"""The estimate of the time left, against hand computed times."""

import pytest
from rtt.planner.plan import Plan
from rtt.status import estimate
from rtt.status.estimate import CORE, ends_in, expected, took
from rtt.status.jobs import Job, of_runs
from rtt.study.expand import Runs
from rtt.study.load import load_study


def job(name, stage, needs=(), plugins=()):
    short = stage in ("choose", "tables")
    return Job(stage, name, (), f"logs/{stage}/{name}.log", tuple(needs), () if short else (name,), tuple(plugins))


JOBS = {
    one.name: one
    for one in (
        job("base", "pretrain"),
        job("gd-1", "unlearn", ["base"], ["GD"]),
        job("gd-2", "unlearn", ["base"], ["GD"]),
        job("rmu", "unlearn", ["base"], ["RMU"]),
        job("choose-1", "choose", ["gd-1"]),
        job("choose-2", "choose", ["gd-2", "rmu"]),
        job("attack", "attack", ["choose-1", "choose-2"], ["RTT"]),
        job("tables", "tables", ["attack"]),
    )
}


def test_finished_jobs_took_the_longest_of_their_runs_or_what_snakemake_saw():
    together = Job("attack", "a", (), "logs/a.log", (), ("a", "b"))
    jobs = {"a": together, "c": job("c", "choose"), "d": job("d", "choose"), "e": job("e", "unlearn")}
    manifests = {"a": {"wall_seconds": 12.5}, "b": {"wall_seconds": 20}, "e": {"wall_seconds": "long"}}
    logged = {"logs/choose/c.log": 3.0, "logs/unlearn/e.log": float("nan")}
    assert took(jobs, manifests, logged) == {"a": 20.0, "c": 3.0}


def test_a_job_is_expected_to_take_as_long_as_those_of_its_kind():
    """GD like GD, RMU like any unlearning, the attack like whatever trains: means, since there is no plan."""
    done = {"base": 100.0, "gd-1": 20.0, "choose-1": 2.0}
    found = expected(JOBS, ["gd-2", "rmu", "choose-2", "attack", "tables"], done, {})
    assert found == {"gd-2": 20.0, "rmu": 20.0, "choose-2": 2.0, "attack": 60.0, "tables": 1.0}
    found = expected(JOBS, ["attack"], done | {"rmu": 60.0, "gd-2": 40.0}, {})
    assert found == {"attack": (100 + 20 + 40 + 60) / 4}


def test_the_plan_tells_how_much_larger_one_job_is_than_another():
    """Planned 10 and took 25 means 2.5 times the plan: RMU, planned at 40, takes 100. Of all, 125 for 60: 2.0833."""
    planned = {"base": 50.0, "gd-1": 10.0, "gd-2": 20.0, "rmu": 40.0, "attack": 300.0}
    found = expected(JOBS, ["gd-2", "rmu", "attack"], {"base": 100.0, "gd-1": 25.0}, planned)
    assert found == pytest.approx({"gd-2": 50.0, "rmu": 100.0, "attack": 625.0})


def test_without_a_finished_training_there_is_nothing_to_go_by():
    assert expected(JOBS, ["gd-1"], {"choose-1": 2.0}, {"gd-1": 5.0}) is None
    assert expected(JOBS, ["choose-2", "tables"], {"choose-1": 2.0}, {}) == {"choose-2": 2.0, "tables": 1.0}


@pytest.mark.parametrize(
    "at_once, running, end",
    [
        # gd-1 0-20, gd-2 20-50, rmu 50-90, choose-1 90-91, choose-2 91-92, attack 92-192, tables 192-193
        (1, {}, 193.0),
        # gd-1 0-20 and gd-2 0-30; rmu 20-60; choose-1 30-31; choose-2 60-61; attack 61-161; tables 161-162
        (2, {}, 162.0),
        # all three at once: rmu 0-40, choose-2 40-41, attack 41-141, tables 141-142: the longest chain
        (8, {}, 142.0),
        # rmu has run 15 of its 40 s and ends at 25: gd-1 0-20; gd-2 20-50; choose-2 50-51; attack 51-151
        (2, {"rmu": 15.0}, 152.0),
        # rmu is overdue, so it ends now; gd-1 0-20, gd-2 0-30, choose-2 30-31, attack 31-131
        (2, {"rmu": 70.0}, 132.0),
    ],
)
def test_the_end_is_that_of_jobs_that_begin_as_soon_as_they_can(at_once, running, end):
    seconds = {"gd-1": 20.0, "gd-2": 30.0, "rmu": 40.0, "choose-1": 1.0, "choose-2": 1.0, "attack": 100.0, "tables": 1}
    assert ends_in(JOBS, seconds, running, at_once) == pytest.approx(end)


def test_what_waits_for_a_failed_job_is_no_part_of_it():
    assert ends_in(JOBS, {"gd-1": 20.0, "choose-1": 1.0}, {}, 1) == 21.0
    assert ends_in(JOBS, {}, {}, 1) == 0.0


@pytest.mark.parametrize("name", ["config", "smoke", "paper"])
def test_the_jobs_are_those_of_the_plan_each_after_what_it_needs(name):
    """A test of the plan holds its counts to `snakemake -n`."""
    runs = Runs(load_study(name))
    plan = Plan(runs.study, estimate.device_of("h100", None) if runs.study.gpus else CORE)
    jobs = of_runs(runs)
    counts = {stage: sum(job.stage == stage for job in jobs.values()) for stage in plan.stages}
    assert counts == {stage: bill.jobs for stage, bill in plan.stages.items()}
    assert len(jobs) == sum(counts.values())
    assert all(one in jobs for job in jobs.values() for one in job.needs)
    planned = estimate.planned(runs)
    assert set(planned) == {name for name, job in jobs.items() if job.runs and job.stage != "import_model"}
    assert min(planned.values()) > 0

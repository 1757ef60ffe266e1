"""The time of a study on this machine's CPU, against a simulated schedule and against what the demo took."""

import heapq
import json
from pathlib import Path

import pytest
from places import ROOT
from rtt.__main__ import main
from rtt.errors import UserError
from rtt.planner import cpu
from rtt.planner.gpus import Device, device_of
from rtt.planner.plan import MFU, Plan, make
from rtt.study.load import load_study

XEON = Device("cpu", 143e9, 143e9, None, 15e9, "the machine of docs/measurements.md")


def plan_of(study: str, device: Device = XEON, **changes) -> Plan:
    plan = Plan(load_study(ROOT / f"config/{study}.yaml", changes), device, root=ROOT)
    assert plan.stages
    return plan


def simulated(plan: Plan, cores: int) -> float:
    """Return the hours of a schedule in which each job starts as soon as a core is free, the longest jobs first."""
    needs: dict[str, set[str]] = {}
    for source in plan.runs.sources.values():
        base = getattr(source, "base", None)
        needs[source.run_id] = {base.run_id} & plan.job_hours.keys() if base else set()
    for spec in plan.runs.unlearn.values():
        needs[spec.run_id] = {spec.source.run_id}
    for attack, *_ in plan.runs.attack_jobs():
        before = {spec.run_id for choice in attack.point_choices for spec in choice.trajectories}
        needs[attack.run_id] = before | ({attack.source.run_id} & plan.job_hours.keys())
    assert needs.keys() == plan.job_hours.keys()
    cost = {run: hours + cpu.START / 3600 for run, hours in plan.job_hours.items()}
    done: set[str] = set()
    running: list[tuple[float, str]] = []
    now = 0.0
    while len(done) < len(needs):
        ready = [run for run in needs if needs[run] <= done and run not in done and run not in {r for _, r in running}]
        for run in sorted(ready, key=lambda run: -cost[run])[: cores - len(running)]:
            heapq.heappush(running, (now + cost[run], run))
        now, run = heapq.heappop(running)
        done.add(run)
    return now


@pytest.mark.parametrize(
    ("study", "cores"), [("config", 1), ("config", 2), ("config", 4), pytest.param("seeds", 2, marks=pytest.mark.full)]
)
def test_wall_time_is_that_of_a_schedule_or_a_little_less(study, cores):
    plan = plan_of(study)
    found = cpu.schedule(plan, [cores])
    least = found["wall"][cores] - found["others"] * cpu.OTHER / 3600
    assert least <= simulated(plan, cores) + 1e-9
    assert simulated(plan, cores) <= 1.5 * found["wall"][cores]  # Graham: never more than twice the bound


def test_the_demo_takes_what_it_took():
    """docs/measurements.md: 7:38 on one core, and CPU seconds of each stage's processes."""
    plan = Plan(load_study(Path(__file__).parent / "demo_as_measured.yaml"), XEON, root=ROOT)
    assert cpu.schedule(plan)["wall"][1] * 3600 == pytest.approx(7 * 60 + 38, rel=0.25)
    measured = {"pretrain": 44, "teach": 51, "unlearn": 132, "attack": 172}
    for stage, seconds in measured.items():
        bill = plan.stages[stage]
        assert bill.hours * 3600 + bill.jobs * cpu.START == pytest.approx(seconds, rel=0.3), stage


def test_threads_share_the_cores():
    one, two = (cpu.schedule(plan_of("config", threads=n), [2])["wall"][2] for n in (1, 2))
    assert two > 1.5 * one  # with two threads a process, no two processes run at once


def test_a_core_is_measured():
    found = cpu.measured(3)
    assert 3e8 < found.fp32 < 1e13 and found.fp32 == found.bf16 and found.memory is None
    assert 1e8 < found.bandwidth < 1e13 and found.source.endswith("3 threads")


def test_a_cpu_that_cannot_be_measured_is_named(monkeypatch):
    monkeypatch.setattr(cpu, "BENCHMARK", "raise SystemExit('no numpy')")
    with pytest.raises(UserError, match="the speed of this CPU cannot be measured: no numpy; give it as --flops"):
        cpu.measured()


@pytest.mark.parametrize(
    ("study", "options", "device"),
    [
        ("smoke", [], "cpu"),
        ("smoke", ["--gpu", "h100"], "h100"),
        ("paper", [], "h100"),
        ("paper", ["--gpu", "cpu"], "cpu"),
    ],
)
def test_without_gpus_this_machine_is_planned_for(study, options, device, capsys):
    assert main(["plan", str(ROOT / f"config/{study}.yaml"), *options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["device"]["name"] == device and found["device"]["mfu"] == MFU
    assert (found["schedule"] is None) == (study == "paper")


def test_the_output_says_what_the_time_rests_on(capsys):
    assert main(["plan", str(ROOT / "config/smoke.yaml")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "On this machine: about " in said and "with --cores 2" in said
    assert "the start of 15 processes that train or score (4.5 s each, assumed) and 21 other jobs" in said
    assert "GFLOP/s" in said and "measured just now: products of 512 x 512 matrices" in said
    assert make(load_study(ROOT / "config/smoke.yaml"), device_of("h100"), root=ROOT)["schedule"] is not None
    assert main(["plan", str(ROOT / "config/smoke.yaml"), "--gpu", "h100"]) == 0
    assert "On this machine" not in capsys.readouterr().out

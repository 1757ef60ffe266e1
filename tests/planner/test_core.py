"""config/paper-core.yaml: the paper's study in a day of one GPU."""

from pathlib import Path

from rtt.planner import memory
from rtt.planner.gpus import device_of
from rtt.planner.plan import Plan
from rtt.study.load import load_study

ROOT = Path(__file__).parents[2]
STORED = {"precision", "gradient_release", "max_grad_norm"}  # how weights are stored and updated


def test_it_takes_at_most_20_hours_of_one_80_gb_gpu(monkeypatch):
    monkeypatch.chdir(ROOT)
    plan = Plan(load_study("config/paper-core.yaml"), device_of("h100"))
    assert sum(bill.hours for bill in plan.stages.values()) <= 20
    assert plan.phases and plan.launch.devices == 1 and not plan.launch.engine.stage
    for phase in plan.phases.values():
        assert memory.needed(memory.on_device(phase, plan.launch)) <= 80e9, phase.stage
    arms = {arm for spec in plan.runs.attacks.values() for arm in (spec.control_for or [spec.source.arm])}
    assert arms == {"pretrained", "taught"}
    assert any(spec.control_for for spec in plan.runs.attacks.values())


def test_looks_splits_and_steps_are_the_paper_s(monkeypatch):
    monkeypatch.chdir(ROOT)
    core, paper = (load_study(f"config/{name}.yaml") for name in ("paper-core", "paper"))

    def keys(settings) -> dict:
        return {key: value for key, value in settings.model_dump().items() if key not in {*STORED, "grid"}}

    assert keys(core.attacks.RTT) == keys(paper.attacks.RTT) and keys(core.teaching) == keys(paper.teaching)
    for name in ("GD", "RMU", "RIA"):
        ours, theirs = getattr(core.methods, name), getattr(paper.methods, name)
        assert keys(ours) == keys(theirs)
        assert all(set(values) <= set(theirs.grid[key]) for key, values in ours.grid.items())
    assert set(core.retain_budgets) <= set(paper.retain_budgets) and set(core.scores.probes) <= set(paper.scores.probes)
    assert all(core.data.datasets[name] == paper.data.datasets[name] for name in ("years", "random_birthdays"))
    assert all(task in paper.tasks for task in core.tasks)

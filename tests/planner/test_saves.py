"""What training waits for while it is written down: against the code that asks for checkpoints, and by hand."""

from types import SimpleNamespace

import pytest
from rtt.planner.gpus import device_of
from rtt.planner.plan import Plan
from rtt.planner.saves import saves
from rtt.planner.text import writing
from rtt.study.load import load_study
from rtt.training import resume

LLAMA = 8_030_261_248


def counted(folder, monkeypatch, seconds: float, steps: int, minutes: float, to_write: float) -> int:
    """Return how many checkpoints the real callback asks for, by a clock that only steps and saves move."""
    clock = [0.0]
    monkeypatch.setattr(resume.time, "monotonic", lambda: clock[0])
    monkeypatch.setenv(resume.MINUTES, str(minutes))
    saver, found = resume.Checkpoints(SimpleNamespace(losses=[]), folder), 0
    for step in range(1, steps + 1):
        clock[0] += seconds
        state, control = SimpleNamespace(global_step=step, max_steps=steps), SimpleNamespace(should_save=False)
        saver.on_step_end(None, state, control)
        if control.should_save:
            (folder / f"checkpoint-{step}").mkdir(parents=True)
            clock[0] += to_write
            saver.on_save(None, state, control)
            found += 1
    return found


@pytest.mark.parametrize(("seconds", "steps"), [(7.0, 100), (20.0, 37), (400.0, 5), (1.0, 1)])
@pytest.mark.parametrize("minutes", [0, 1, 5, 30])
def test_checkpoints_are_those_that_the_code_asks_for(tmp_path, monkeypatch, seconds, steps, minutes):
    found = saves(50e9, seconds * steps / 3600, steps, minutes, 1e9)
    assert found.seconds == 50
    assert found.count == counted(tmp_path / "state", monkeypatch, seconds, steps, minutes, found.seconds)
    assert found.lost == pytest.approx(50 * found.count / (50 * found.count + seconds * steps))


def test_the_paper_s_points_and_states_by_hand():
    """Weights and Lion's one state, 8 bytes per parameter; each trajectory scores five points."""
    study = load_study("config/paper.yaml", {"checkpoint_minutes": 10})
    plan = Plan(study, device_of("h100"), write_rate=2e9)
    bill = sum(plan.stages.values(), start=type(plan.stages["unlearn"])())
    gd = plan.saves["unlearning (GD)"]
    assert gd.state == 8 * LLAMA and gd.seconds == 4 * LLAMA / 1e9
    assert 1 <= gd.count == int(gd.hours * 6)
    points = plan.stages["unlearn"].runs * 5 * 4 * LLAMA / 2e9 / 3600
    assert bill.write_hours > points
    study = study.model_copy(update={"checkpoint_minutes": 1000})
    assert Plan(study, device_of("h100"), write_rate=2e9).stages["unlearn"].write_hours == pytest.approx(points)


def test_a_rate_that_was_given_is_not_called_assumed():
    one = {"state": 2e9, "seconds": 1.0, "hours": 1.0, "count": 1, "lost": 0.1}
    found = {"minutes": 30, "hours": 0.0, "point": 0, "saves": {"RTT": one}}
    heads = [writing({"writing": found | {"rate": rate}})[0] for rate in (1e9, 2e9)]
    assert heads[0].endswith("at 1 GB/s (--disk; assumed)") and heads[1].endswith("at 2 GB/s (--disk)")

"""benchmarks/savings.py: its rows are the plan's hours, and what is not built is counted right by hand."""

import importlib.util
from pathlib import Path

import pytest
from rtt.planner import costs
from rtt.planner.gpus import device_of
from rtt.planner.plan import Bill, Plan
from rtt.study.load import load_study

pytestmark = pytest.mark.benchmarks
ROOT = Path(__file__).resolve().parents[2]
H100 = device_of("h100")


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("savings", ROOT / "benchmarks/savings.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def core(monkeypatch):
    monkeypatch.chdir(ROOT)
    return load_study("config/paper-core.yaml", {"gradient_checkpointing": False})


def test_rows_are_the_plan_s_hours(benchmark, core, tmp_path):
    rows = dict(benchmark.rows(core, H100, tmp_path))
    plan = Plan(core, H100, root=tmp_path)
    assert rows["`bf16_kahan`, `gradient_release`"] == pytest.approx(sum(plan.stages.values(), Bill()).hours)
    again = Plan(core.model_copy(update={"gradient_checkpointing": True}), H100, root=tmp_path)
    found = rows["and `gradient_checkpointing`, for 80 GB"]
    assert found == pytest.approx(sum(again.stages.values(), Bill()).hours)
    assert rows["cut: the format variants"] == pytest.approx(rows["`bf16_kahan`, `gradient_release`"])  # it has none
    assert max(rows.values()) == rows["fp32 masters (`bf16_mixed`)"]


def test_what_is_not_built_by_hand(benchmark, core, tmp_path):
    """Two of five splits serve as V; a question's stem is read once in the place of twice; no coefficient is 0."""
    plan = Plan(core, H100, root=tmp_path)
    asked = plan.stages["attack"].score_hours
    assert benchmark.t_outside_v(plan) == pytest.approx(asked * 3 / 5)
    assert benchmark.unused_retain(plan) == 0
    rates = 2 * costs.parameters(core.model) / (0.3 * H100.bf16) / 3600
    questions = sum(bill.score_tokens for bill in plan.stages.values())
    saved = sum(plan.stages.values(), Bill()).hours - benchmark.shared_stems(core, H100, tmp_path)
    assert 0.1 * questions * rates < saved < 0.5 * questions * rates
    texts = costs.TYPICAL["years"]
    assert texts.scored(["letter", "likelihood"]) == texts.prompt + texts.question + 4 * (texts.choice - 1)

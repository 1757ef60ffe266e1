"""benchmarks/training.py: it runs as documented, both sides train the same, and its loss is an independent one."""

import importlib.util
import math
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
import tiny
import torch
from rtt.errors import UserError
from rtt.study.settings import Training

pytestmark = pytest.mark.benchmarks
PATH = Path(__file__).resolve().parents[2] / "benchmarks" / "training.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("training", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["training"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield module
    torch.use_deterministic_algorithms(deterministic)
    del sys.modules["training"]


def test_quick_trains_the_same_on_both_sides(benchmark, capsys):
    assert benchmark.main(["--quick"]) == 0
    out = capsys.readouterr().out
    assert out.count("plain / ours") == out.count("plain / packed") == 2 and out.count("losses differ by") == 2
    for name in ("ours", "packed", "plain"):
        rows = [line.split()[1:] for line in out.splitlines() if line.split()[:1] == [name] and "/" not in line]
        assert len(rows) == 2 and all(float(row[0]) > 0 and float(row[1]) > 0 for row in rows)  # CPU, wall


def test_what_is_counted(benchmark):
    """Positions fed and of texts, the parts of the time, on texts of known lengths; losses of the starting model."""
    items = [tiny.plain([5] * 3, [6] * 2), tiny.plain([7], [8]), tiny.plain([4] * 2, [9] * 4), tiny.plain([], [3] * 6)]
    start = tiny.model(scale=4.0)
    found = benchmark.compare(start, tiny.tokenizer(), items, Training(learning_rate=1e-3, batch_size=2), 1)
    padded, packed = 2 * 5 + 2 * 6, 5 + 2 + 2 * 6 + 17  # 17: `packing.check`
    for name, fed in {"ours": padded, "packed": packed, "plain": padded}.items():
        assert [(side.fed, side.real) for side in found[name]] == [(fed, 5 + 2 + 6 + 6)]
        assert all(0 < sum(side.parts.values()) < side.cpu for side in found[name])
    batch = benchmark.DataCollatorForSeq2Seq(tiny.tokenizer())(items[:2])
    mean = sum(tiny.reference_nats(start, item) for item in items[:2]) / 2
    assert float(benchmark.text_mean(start, batch)) == pytest.approx(mean, rel=1e-5)


@pytest.mark.parametrize("shift", [1e-3, math.nan])
def test_other_losses_stop_it(benchmark, monkeypatch, shift):
    run = benchmark.run_plain

    def wrong(*args):
        losses, side = run(*args)
        return [loss + shift for loss in losses], side

    monkeypatch.setattr(benchmark, "run_plain", wrong)
    items = [tiny.plain([5], [6, 7])] * 2
    with pytest.raises(UserError, match="trained differently"):
        benchmark.compare(tiny.model(), tiny.tokenizer(), items, Training(learning_rate=1e-3, batch_size=2), 1)


def test_absent_data_is_said(benchmark, monkeypatch, tmp_path):
    monkeypatch.setattr(benchmark, "UPSTREAM", tmp_path / "nowhere")
    with pytest.raises(UserError, match="RTT_UPSTREAM_DATA"):
        benchmark.main(["--steps", "1"])

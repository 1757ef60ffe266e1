"""benchmarks/gpu.py: it runs at its smallest size on a CPU, says what it skips, and its floors are right by hand."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
from rtt.planner import memory
from rtt.study.settings import Training

pytestmark = pytest.mark.benchmarks
PATH = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("gpu", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tiny_runs_and_skips_loudly(tmp_path):
    out = tmp_path / "found.json"
    command = [sys.executable, PATH, "--tiny", "--rows", "0", "2", "3", "5", "--json", out]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "NO GPU HERE" in done.stdout
    assert "skipped: flash-attn needs CUDA" in done.stdout and "skipped: needs CUDA" in done.stdout
    ran, flash, zero, kept = json.loads(out.read_text(encoding="utf-8"))["rows"]
    assert len(ran["losses"]) == 8 and ran["seconds"] > 0 and ran["memory"] is None
    assert kept["losses"] == ran["losses"]  # with release or without, the same update
    assert flash["note"] and zero["note"]


def test_floors_by_hand(benchmark):
    """100 weights of which 80 are in matrices, 10 tokens; a device of 1 byte and 1 FLOP a second."""
    one = {"parameters": 100, "matrices": 80, "tokens": 10, "squares": 50}
    shape = (2, 3, 1, 1, 1, 1, True)
    slow_memory = {"peak": 1e9, "bandwidth": 1.0}
    assert benchmark.floors(one, shape, "lion", "bf16", slow_memory) == pytest.approx((1800, 1800))
    assert benchmark.floors(one, shape, "adamw", "bf16_mixed", slow_memory) == pytest.approx((4400, 4400))
    flops = 6 * 80 * 10 + 6 * 2 * 3 * 50
    assert benchmark.floors(one, shape, "lion", benchmark.RELEASED, slow_memory) == pytest.approx((2600, 2600))
    slow_products = {"peak": 1.0, "bandwidth": 1.0}
    assert benchmark.floors(one, shape, "lion", "bf16", slow_products) == pytest.approx((flops, flops + 6 * 200))


def test_prediction_is_the_memory_plan_of_these_texts(benchmark):
    row = ("lion", "bf16", "sdpa", None)
    counted, needed = benchmark.predicted({"parameters": 8_030_261_248, "longest": 117}, "8", row)
    settings = Training(learning_rate=1.0, batch_size=4, optimizer="lion", precision="bf16")
    parts = memory.on_device(memory.Phase("x", settings, memory.Shape(8_030_261_248, 32, 4096, 14336, 128256), 117))
    assert (counted, needed) == (sum(parts.values()), memory.needed(parts))
    assert counted > 3 * 2 * 8_030_261_248  # weights, gradients, Lion's state


def test_lengths_are_those_of_years(benchmark):
    lengths = [len(item["input_ids"]) for item in benchmark.texts(500, 300)]
    assert (min(lengths), max(lengths)) >= (53, 110) and max(lengths) <= 117
    assert sum(lengths) / len(lengths) == pytest.approx(66.2, abs=2)  # measured: 66.2


def test_a_row_that_fails_is_said(benchmark, monkeypatch):
    measured = {"device": "x", "torch": "x", "cuda": False, "bandwidth": 1e9, "peak": 1e9}
    answers = iter([measured, "failed: RuntimeError: no"])
    monkeypatch.setattr(benchmark, "child", lambda *args: next(answers))
    found = benchmark.measure("tiny", 8, 1, [0])
    assert "failed: RuntimeError: no" in benchmark.report(found)
    assert "no row ran" in benchmark.report(found)


def test_a_row_that_the_host_has_no_memory_for_is_skipped(benchmark, monkeypatch):
    """fp32 masters with ZeRO-3 and offload, by hand: 4 bytes x (1 + 4 + 1) copies x 8.03 billion weights."""
    import psutil

    assert benchmark.counted("8") == 8_030_261_248 and benchmark.counted("1") == 1_235_814_400
    offload = next(row for row in benchmark.ROWS if row[3] == "zero3-offload")
    for gigabytes, note in ((128, "skipped: needs 193 GB of host memory, and this machine has 128 GB"), (256, None)):
        here = type("Memory", (), {"total": gigabytes * 1e9})
        monkeypatch.setattr(psutil, "virtual_memory", lambda here=here: here)
        assert benchmark.skipped("8", offload, cuda=True) == note
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"total": 128e9}))
    assert benchmark.skipped("8", benchmark.ROWS[0], cuda=True) is None

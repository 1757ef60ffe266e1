"""benchmarks/kahan_parity.py: its smallest size, from where it was stopped, and its verdict on figures made up here."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
import torch

pytestmark = pytest.mark.benchmarks
FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def benchmark():
    sys.path.insert(0, str(FOLDER))
    spec = importlib.util.spec_from_file_location("kahan_parity", FOLDER / "kahan_parity.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield module
    torch.use_deterministic_algorithms(deterministic)
    sys.path.remove(str(FOLDER))


def test_it_goes_on_where_it_was_stopped(benchmark, tmp_path, monkeypatch, capsys):
    words = ["--work", str(tmp_path), "--quick", "--seeds", "1", "--orders", "1", "--methods", "RMU", "RTT"]
    benchmark.main(words)
    table = capsys.readouterr().out
    assert [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| R")] == 2 * ["| RMU", "| RTT"]
    found = json.loads((tmp_path / "seed-0" / "RTT-adamw-6-16.json").read_text())
    assert list(found) == ["masters", "fp32", "masters 1", "fp32 1", "kahan", "bf16", "release"]
    far = {
        one: {run: abs(parts["retain"] - found[one]["retain"]) for run, parts in found.items()}
        for one in benchmark.REFERENCES
    }
    assert far["fp32"]["fp32 1"] < 1e-5 < far["fp32"]["masters"] and far["fp32"]["kahan"] < far["fp32"]["bf16"]
    assert 0 < far["masters"]["kahan"] < far["masters"]["fp32"] and found["fp32"]["moved"] == 1.0
    del found["bf16"]
    (tmp_path / "seed-0" / "RTT-adamw-6-16.json").write_text(json.dumps(found))
    train, again = benchmark.Case.trained, []
    monkeypatch.setattr(benchmark.Case, "trained", lambda self, *given: (again.append(given), train(self, *given))[1])
    benchmark.main(words)
    rows = [[line for line in text.splitlines() if line.startswith("| R")] for text in (table, capsys.readouterr().out)]
    assert again == [("bf16", {"precision": "bf16"})] and rows[0] == rows[1]
    assert found["release"] == found["kahan"] and "release differs" not in capsys.readouterr().err
    found["release"]["retain"] += 1e-9
    (tmp_path / "seed-0" / "RTT-adamw-6-16.json").write_text(json.dumps(found | {"bf16": found["kahan"]}))
    assert benchmark.main(words) == 1 and "RTT: gradient release differs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kahan", "bf16", "verdicts"),
    [(1.0, 9.0, (True, "pass", "FAIL")), (1.6, 9.0, (False, "FAIL", "FAIL")), (1.0, 1.0, (False, "pass", "pass"))],
)
def test_the_bound_is_one_and_a_half_of_the_differences_between_orders(benchmark, kahan, bf16, verdicts):
    """One part is within the bound in any case; the other differs by multiples of what another order does."""

    def parts(away):
        return {"forget": 2.0 + away, "retain": 3.0, "moved": 0.5}

    orders = {f"fp32 {n}": parts(-0.1) | {"retain": 3.01} for n in (1, 2)}
    seed = {"fp32": parts(0)} | orders
    seed |= {"kahan": parts(0.1 * kahan), "bf16": parts(0.1 * bf16)}
    cells, holds = benchmark.row("GD", {0: seed, 1: seed}, "fp32")
    assert holds is verdicts[0] and cells[1] == "0.15 / 0.015"
    assert verdicts[1] in cells[2] and verdicts[2] in cells[3]

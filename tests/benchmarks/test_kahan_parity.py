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
    assert far["masters"]["kahan"] == 0 < far["masters"]["fp32"] and found["fp32"]["moved"] == 1.0  # AdamW, to the bit
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


def seed(order, kahan, bf16):
    """Return a seed's runs, of which another order moves forget texts by so much; retain texts are within any bound."""
    values = {"fp32": 0, "fp32 1": -order, "kahan": kahan, "bf16": bf16, "masters": 9}
    parts = {run: {"forget": 2.0 + value, "retain": 3.03, "moved": 0.5} for run, value in values.items()}
    parts["fp32"]["retain"] = 3.0
    return parts


@pytest.mark.parametrize(
    ("kahan", "bf16", "holds", "shown"),
    [
        (0.1, 0.9, True, ("0.1 / 0.03; 2 of 2: pass", "0.9 / 0.03; 1 of 2: FAIL")),
        (0.31, 0.9, False, ("0.31 / 0.03; 1 of 2: FAIL", "0.9 / 0.03; 1 of 2: FAIL")),
        (0.1, 0.1, False, ("0.1 / 0.03; 2 of 2: pass", "0.1 / 0.03; 2 of 2: pass")),
    ],
)
def test_each_seed_has_its_own_bound(benchmark, kahan, bf16, holds, shown):
    """Another order moves one seed by .2 and the other by 2, and the precisions move both alike."""
    cells, found = benchmark.row("GD", {0: seed(0.2, kahan, bf16), 1: seed(2.0, kahan, bf16)}, "fp32")
    assert found is holds and tuple(cells[3:5]) == shown
    # of .2 and 2, numpy's 95th percentile is .2 + .95 * 1.8
    assert cells[1:3] == ["2.9 / 0.045", "100%"] and cells[5] == "50% 50% 50%"
    found = benchmark.bounds({0: seed(0.2, 0, 0)}, "fp32", "forget")
    assert found == (pytest.approx(0.3), {0: pytest.approx(0.3)})


def test_all_seeds_have_one_bound(benchmark):
    """.4 is within the last seed's own bound, .45, and not within that of all, which is .3."""
    many = {n: seed(0.2, 0.1, 0.1) for n in range(30)} | {30: seed(0.3, 0.4, 0.1)}
    cells, _ = benchmark.row("GD", many, "fp32")
    assert cells[1:5] == ["0.3 / 0.045", "100%", "0.4 / 0.03; 31 of 31: FAIL", "0.1 / 0.03; 31 of 31: pass"]


def test_what_is_usual_is_how_often_another_order_is_within(benchmark):
    """Of orders at 0, .1, .2 and 1, the last is out of reach of the others; each of these is within the rest's bound.

    The first three have differences of .1, .1 and .2, whose bound is 1.5 x .19; with the last in, it is above 1.
    """
    orders = {"fp32": 0.0, "fp32 1": 0.1, "fp32 2": 0.2, "fp32 3": 1.0}

    def runs(away):
        found = orders | {"kahan": away, "bf16": 9.0}
        return {run: {"forget": at, "retain": 0.0, "moved": 1.0} for run, at in found.items()}

    assert benchmark.usual({0: runs(0)}, "fp32") == 9 / 12
    # Three seeds of four are as many as is usual; the bound of each is 1.46, and that of all 1.5.
    for last, says in ((1.47, "1.5 / 0; 3 of 4: pass"), (1.6, "1.6 / 0; 3 of 4: FAIL")):
        cells, _ = benchmark.row("GD", {n: runs(away) for n, away in enumerate((0.0, 0.1, 1.4, last))}, "fp32")
        assert cells[1:4] == ["1.5 / 0", "75%", says]

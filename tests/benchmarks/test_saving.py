"""benchmarks/saving.py at its smallest size: both ways save as often, and one waits for its checkpoints."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("torch")

pytestmark = pytest.mark.benchmarks


def test_both_ways_save_as_often(tmp_path, monkeypatch, capsys):
    at = Path(__file__).resolve().parents[2] / "benchmarks/saving.py"
    spec = importlib.util.spec_from_file_location("saving", at)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    seen, trained = [], benchmark.trained

    def watched(model, rows, settings, folder, wait):
        found = trained(model, rows, settings, folder, wait)
        seen.append((wait, len(found[1].seconds), len(found[0])))
        return found

    monkeypatch.setattr(benchmark, "trained", watched)
    assert benchmark.main(["--folder", str(tmp_path / "states"), "--quick", "--turns", "2"]) == 0
    assert seen == [(wait, 4, 25) for wait in (False, True, True, False)]
    table = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in table[2:]] == ["| a save, s", "| 25 steps with 4 saves, s"]
    assert list((tmp_path / "states").iterdir()) == []

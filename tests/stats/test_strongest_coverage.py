"""The benchmark of the strongest attack, in short: bounds that follow from theory, and `--quick` as documented."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

PATH = Path(__file__).resolve().parents[2] / "benchmarks" / "strongest_attack.py"
REPS = 60


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("strongest_attack", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_of_200_useless_looks_the_strongest_reports_what_a_guesser_scores(benchmark):
    """It is unbiased, and its variance at most twice that of 160 answers; the luckiest look gains much more.

    The largest of 200 means of 80 answers lies above the floor by more than half of sqrt(2 log 200 f (1 - f) / 80).
    """
    found = benchmark.suite(benchmark.Design("", benchmark.useless()), REPS)
    assert abs(found["reported"] - 0.25) < 4 * np.sqrt(2 * 0.25 * 0.75 / 160 / REPS)
    assert found["true"] == 0.25
    assert found["luckiest_half"] > 0.25 + np.sqrt(2 * np.log(200) * 0.25 * 0.75 / 80) / 2 > found["reported"] + 0.05


def test_what_is_reported_falls_short_of_the_best_look_by_what_was_not_chosen(benchmark):
    """One look at .35 is missed on many halves, and the looks that are chosen there are at .25; one at .6 never is."""
    for best, missed in ((0.35, (0.3, 0.95)), (0.6, (0.0, 0.01))):
        found = benchmark.suite(benchmark.Design("", benchmark.one_look(best)), REPS)
        assert abs(found["reported"] - found["true"]) < 4 * np.sqrt(2 * 0.25 / 160 / REPS)
        assert missed[0] <= round((best - found["true"]) / (best - 0.25), 9) <= missed[1]


def test_false_alarms_and_limits(benchmark):
    """Of a model that never knew, each alarm has at most .06, and y holds in .95: no more than chance allows."""
    found = benchmark.limits(benchmark.Design("", benchmark.useless(), 0.5), REPS)
    most = binom.ppf(0.999, REPS, 0.06) / REPS
    assert max(found["above_floor"], found["hidden"], found["criterion"], 1 - found["y_holds"]) <= most
    known = benchmark.limits(benchmark.Design("", benchmark.one_attack(0.8)), 10)
    assert known["hidden"] == 1.0 and known["x"] > 0.4


def test_the_quick_run(benchmark, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "SUITES", benchmark.SUITES[:2])
    monkeypatch.setattr(benchmark, "VERDICTS", benchmark.VERDICTS[:1])
    monkeypatch.setattr(sys, "argv", [str(PATH), "--quick"])
    benchmark.main()
    shown = capsys.readouterr().out
    assert shown.count("| none knows, shared 0 |") == 2 and "5 samples" in shown

"""The coverage benchmark itself: its generator has the moments that it claims, and `--quick` runs as documented."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import multivariate_normal

ROOT = Path(__file__).resolve().parents[2]
PATH = ROOT / "benchmarks" / "interval_coverage.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("interval_coverage", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_generator_has_the_planted_accuracies_and_pairing(benchmark):
    rng = np.random.default_rng(0)
    design = benchmark.Design("", 1, 32, (0.0,))
    _, ((original, e_original), _, (attacked, e_attacked)) = benchmark.draw(rng, design, (0.85, 0.27, 0.5), 0.6, 4000)
    assert e_original == pytest.approx(0.85) and e_attacked == pytest.approx(0.5)
    assert original.mean() == pytest.approx(0.85, abs=0.004) and attacked.mean() == pytest.approx(0.5, abs=0.006)
    both = multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]]).cdf([1.0364334, 0])
    assert (original & attacked).mean() == pytest.approx(both, abs=0.006)


def test_estimand_is_the_expected_accuracy_of_the_chosen_looks(benchmark):
    """One look good (.9), one useless: nearly always the good one, and nested reports are unbiased for it."""
    rng = np.random.default_rng(1)
    design = benchmark.Design("", 5, 32, (0.0, 3.0))
    _, ((original, estimand), *_) = benchmark.draw(rng, design, (0.9, 0.27, 0.5), 0.0, 1000)
    assert estimand == pytest.approx(estimand[0]) and abs(estimand[0] - 0.9) < 0.01
    assert original.mean() == pytest.approx(estimand[0], abs=0.004)


def test_intervals_cover_on_two_cells(benchmark):
    """A small part of the full run: far enough from .95 fails, for `nested` and a fixed look."""
    ours = {name: method for name, method in benchmark.METHODS.items() if method is benchmark.shipped}
    for looks in ((0.0,), benchmark.LOOKS):
        design = benchmark.Design("cell", 5, 32, looks)
        rows = benchmark.table([design], ours, 600, accuracies=(0.5, 0.85), correlations=(0.6,))
        assert {row[2] for row in rows} == set(benchmark.QUANTITIES)
        for row in rows:
            assert 0.92 < row[5] < 0.975, row  # 600 replicates in each of 4 cells: standard error .0045


def test_quick_runs_as_a_program():
    environment = os.environ | {"PYTHONPATH": str(ROOT / "scripts"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, PATH, "--quick"], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Fieller" in done.stdout and "nested: mean accuracy 0.2" in done.stdout

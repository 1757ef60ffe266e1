"""The benchmark of intervals over seeds: its generator has the moments that it claims, and its intervals cover."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.special import ndtr, ndtri
from scipy.stats import multivariate_normal

ROOT = Path(__file__).resolve().parents[2]
PATH = ROOT / "benchmarks" / "seed_coverage.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("seed_coverage", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_generator_has_the_planted_accuracies_and_components(benchmark):
    """Accuracies by their definition; between runs and between seeds, covariances of binormal thresholds."""
    design = benchmark.DESIGNS[0]
    original, attacked = benchmark.simulate(design, 200)  # 2000 seeds
    for values in (original, attacked):
        assert values.mean(axis=(1, 2, 3, 4)) == pytest.approx(benchmark.ACCURACIES, abs=0.01)
    # Two attacks of one unlearned model share base and unlearning, two unlearned models the base alone; both share what
    # the questions have in common, which is .5 of a question's own 1, and each is a mean over 160 questions.
    total = 1 + design.seed**2 + design.unlearning**2 + design.run**2
    threshold, i = ndtri(0.7), benchmark.ACCURACIES.index(0.7)
    runs = attacked[i].reshape(-1, 2, 2)

    def covariance(shared):
        both = multivariate_normal([0, 0], [[1, shared / total], [shared / total, 1]]).cdf([threshold, threshold])
        return both - 0.7**2

    for a, b, common in ((runs[:, 0, 0], runs[:, 0, 1], design.unlearning**2), (runs[:, 0, 0], runs[:, 1, 1], 0)):
        effects = common + design.seed**2
        alike = [covariance(effects + extra) for extra in (0.5, 0.5 * design.alike, 0)]  # itself, its group, all others
        expected = (alike[0] + alike[1] + 158 * alike[2]) / 160
        assert np.cov(a, b)[0, 1] == pytest.approx(expected, rel=0.15)
    assert ndtr(threshold) == pytest.approx(0.7)


def test_intervals_cover_and_one_seeds_questions_do_not(benchmark):
    """A small part of the full run: 250 replicates have a standard error of .014 in each cell."""
    rows = [row for row in benchmark.judge(benchmark.DESIGNS[0], 250) if row["repeats"] == 1]

    def mean(interval, quantity):
        return np.mean([r["covered"] for r in rows if (r["interval"], r["quantity"]) == (interval, quantity)])

    assert 0.93 < mean("shipped", "accuracy") < 0.97 and 0.93 < mean("shipped", "corrected") < 0.97
    assert min(row["covered"] for row in rows if row["interval"] == "shipped") > 0.86
    assert mean("Wilson, one seed", "accuracy") < 0.75
    assert mean("plain t", "accuracy") < mean("shipped", "accuracy")


def test_quick_runs_as_a_program_and_goes_on_where_it_was(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT / "scripts"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, PATH, "--quick", "--out", tmp_path / "rows.csv"]
    first, second = (
        subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True).stdout
        for _ in range(2)
    )
    assert "| the standard | corrected | 10 | " in first and "| accuracy | plain t | " in first
    assert first.splitlines()[:-1] == second.splitlines()[:-1]  # the last says how long it took
    header, *rows = (tmp_path / "rows.csv").read_text().splitlines()
    assert header not in rows and len(rows) == 804  # not appended a second time

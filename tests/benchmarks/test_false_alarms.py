"""benchmarks/false_alarms.py: its counts where they are known, and a short run that is taken up again."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rtt.study import plugins
from scipy.stats import binom

ROOT = Path(__file__).resolve().parents[2]
PATH = ROOT / "benchmarks" / "false_alarms.py"
SUITE = {name for name, plugin in plugins.attacks().items() if not plugin.control}


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("false_alarms", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*words):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "scripts")}
    command = [sys.executable, PATH, *words]
    return subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, timeout=300)


def answers(benchmark, seed, knows=0.0, looks=3, n=80):
    """Return what an attack brought out of a model that says a choice at random, or with a share the right one."""
    rng = np.random.default_rng(seed)
    keys, said = rng.integers(4, size=n), rng.integers(4, size=(looks, n))
    said = np.where(rng.random((looks, n)) < knows, keys, said)
    credit = dict.fromkeys(benchmark.HEADLINE, np.eye(4)[said])
    return benchmark.Answers(credit, keys, np.repeat([0, 1], n // 2), np.ones(looks, int))


def test_credit_is_what_a_question_scores_with_each_key(benchmark):
    """Two looks of two V splits, T's questions among them; a tie of permuted letters is shared."""

    def question(name, split, v_split, scores):
        probes = {"letter_permuted": {"scores": scores}, "likelihood": {"scores": scores[::-1]}}
        role = "V" if split == v_split else "T"
        return {"id": name, "split": split, "role": role, "answer": 1, "group": name, "probes": probes}

    def look(v_split, *scores):
        asked = [question(f"q{i}", f"split_{i}", v_split, one) for i, one in enumerate(scores)]
        return {"setting": {"k": 2}, "v_split": v_split, "questions": asked}

    found = benchmark.Answers.of([look("split_0", [0, 5, 5], [9, 0, 0]), look("split_1", [9, 0, 0], [0, 1, 2])])
    assert found.credit["letter_permuted"].tolist() == [[[0, 0.5, 0.5], [0, 0, 1]]]
    assert found.credit["likelihood"].tolist() == [[[1, 0, 0], [1, 0, 0]]]
    assert (found.keys.tolist(), found.splits.tolist(), found.times.tolist()) == ([1, 1], [0, 1], [2])
    correct, floors = found.scored("letter_permuted", np.array([1, 2]))
    assert correct.tolist() == [[0.5, 1]] and np.allclose(floors, 1 / 3)


def test_a_model_that_never_knew_alarms_no_more_often_than_five_percent_and_one_that_knows_always(benchmark):
    models = [{"lens": answers(benchmark, seed), "noise": answers(benchmark, 10 + seed)} for seed in range(3)]
    drawn = benchmark.simulated(models, 60)
    assert set(drawn) == {(name, probe) for name in ("lens", "noise", benchmark.SUITE) for probe in benchmark.HEADLINE}
    for found in drawn.values():
        assert found.shape == (60, 2) and not (found[:, 1] & ~found[:, 0]).any()
        assert found[:, 0].mean() <= binom.ppf(0.999, 60, 0.05) / 60
    knowing = {"lens": answers(benchmark, 0, knows=0.6)}
    assert benchmark.counted([knowing, {"lens": models[0]["lens"]}])["lens", "likelihood"][0].all()
    keys = benchmark.simulated([knowing, knowing], 20)["lens", "likelihood"]  # drawn again, nothing is known
    assert keys[:, 0].sum() <= binom.ppf(0.999, 20, 0.05)


def test_questions_of_several_seeds_are_put_together(benchmark):
    models = [{"lens": answers(benchmark, seed)} for seed in range(5)]
    found = benchmark.together(models, 2)
    assert len(found) == 2 and found[0]["lens"].splits.tolist() == [0] * 80 + [1] * 80
    own = [model["lens"].scored("likelihood", model["lens"].keys)[0] for model in models[:2]]
    one = found[0]["lens"]
    assert np.allclose(one.scored("likelihood", one.keys)[0].mean(axis=1), np.mean(own, axis=0).mean(axis=1))


def test_halves_that_choose_for_each_other_vary_together(benchmark):
    """Of two normal looks the correlation is 1 / pi, half of the square of the mean of |N(0, 1)|; of one it is 0."""
    assert abs(benchmark.halves_together(1)[0]) < 0.03
    assert abs(benchmark.halves_together(2)[0] - 1 / np.pi) < 0.03


def test_every_attack_is_simulated(benchmark):
    assert set(benchmark.suite()) == SUITE
    for name, settings in benchmark.SETTINGS.items():
        assert plugins.attacks()[name].choices(plugins.attacks()[name].Settings(**settings))


@pytest.mark.benchmarks
def test_a_run_goes_on_with_what_it_has(tmp_path):
    first = run("--quick", "--work", tmp_path)
    assert first.returncode == 0, first.stdout + first.stderr
    assert first.stderr.count("CPU s, about") == 4
    (tmp_path / "8-1-quantise.npz").unlink()
    again = run("--quick", "--work", tmp_path)
    assert [line.split(":")[0] for line in again.stderr.splitlines() if "about" in line] == ["seed 1, quantise"]
    assert again.stdout.splitlines()[:-1] == first.stdout.splitlines()[:-1]
    assert "| the strongest of them | likelihood |" in again.stdout

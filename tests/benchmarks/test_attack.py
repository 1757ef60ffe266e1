"""benchmarks/attack.py and startup.py run at their smallest size, and both sides of the attack computed the same."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.benchmarks
ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks"


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """The study's folder; the first benchmark fills it."""
    return tmp_path_factory.mktemp("benchmarks")


def run(name, work, *words):
    """Run a benchmark at its smallest size; return (what it printed, its JSON)."""
    out = work / f"{name}.json"
    command = [sys.executable, FOLDER / f"{name}.py", "--tiny", "--repeats", "1", "--work", work, "--json", out, *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads(out.read_text(encoding="utf-8"))


def test_attack_benchmark_both_sides_train_the_same(work):
    printed, found = run("attack", work, "--runs", "1")
    assert "what removing the rest allows" in printed
    assert [(r["lr"], r["v_split"], r["ours"] == r["field"]) for r in found["v_accuracy"]] == [(5e-4, "split_0", True)]
    assert (
        found["largest_score_difference"] < 2e-6
    )  # ours are rounded to 6 digits; a step at this rate moves them by .01
    assert found["steps"] == 2  # 8 facts of T in batches of 8, twice
    for side in ("ours", "field"):
        parts = {part: seconds for part, seconds in found[side].items() if part != "total"}
        assert all(parts[part][1] > 0 for part in ("import", "load", "evaluate", "train"))
        for i in (0, 1):
            assert sum(seconds[i] for seconds in parts.values()) == pytest.approx(found[side]["total"][i])
    ratio = found["field"]["total"][1] / found["ours"]["total"][1]
    assert found["ratio"][1] == pytest.approx(ratio)


@pytest.mark.full
def test_startup_benchmark_counts_the_imports(work):
    printed, found = run("startup", work, "--commands", "attack")
    one = found["commands"]["attack"]
    assert sum(one["packages"].values()) == pytest.approx(1)
    assert one["packages"]["torch"] > 0.1 and "deepspeed" not in one["packages"]
    assert 0 < one["imports"][1] < one["first_step_ends"][1]
    assert one["first_step_begins"][1] < one["first_step_ends"][1]
    assert "| deepspeed | none |" in printed

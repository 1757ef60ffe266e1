"""benchmarks/grid.py on the smoke study."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.benchmarks
ROOT = Path(__file__).parents[2]


def test_it_counts_the_jobs_of_both_grids_and_the_files_of_a_finished_study(tmp_path):
    results = tmp_path / "results" / "smoke"
    for name in ("specs/unlearn-x.json", "manifests/unlearn-x.json", "evals/unlearn-x.json", "evals/rtt-x.json"):
        (results / name).parent.mkdir(parents=True, exist_ok=True)
        (results / name).touch()
    command = [sys.executable, "benchmarks/grid.py", "--study", "config/smoke.yaml", "--results", str(results)]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {
        line.split(" | ")[0].strip("| "): line.split(" | ")[1:3] for line in done.stdout.splitlines() if " | " in line
    }
    one, ten = (list(map(int, rows[name])) for name in ("the study's", "10 seeds"))
    assert 0 < one[1] < one[0]
    assert ten[1] == 10 * one[1]  # every training job is of a seed
    assert rows["evals"] == ["2", "3 |"]

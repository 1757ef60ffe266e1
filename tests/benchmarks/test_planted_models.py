"""benchmarks/planted_models.py: every attack has a case, and some of its rows."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
from rtt.study import plugins

ROOT = Path(__file__).resolve().parents[2]
PATH = ROOT / "benchmarks" / "planted_models.py"


def test_every_attack_that_is_no_control_has_a_planted_model(monkeypatch):
    spec = importlib.util.spec_from_file_location("planted_models", PATH)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "path", [*module.PATHS, *sys.path])
    suite = {name for name, plugin in plugins.attacks().items() if not plugin.control}
    assert {case.attack for case in module.cases()} == suite
    for case in module.cases():
        plugins.attacks()[case.attack].Settings(**case.settings)


@pytest.mark.benchmarks
def test_the_planted_models_of_two_attacks():
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "scripts")}
    command = [sys.executable, str(PATH), "--attacks", "prompts", "t_shots"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines() if "yes" in line]
    assert [(row[0], row[4]) for row in rows] == [("prompts", "1.00, 1.00, 1.00"), ("t_shots", "1.00, 1.00, 1.00")]

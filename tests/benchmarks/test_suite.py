"""benchmarks/suite.py runs at its smallest size, with every attack that trains nothing."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rtt.study import plugins

pytestmark = [pytest.mark.benchmarks, pytest.mark.full]
ROOT = Path(__file__).resolve().parents[2]


def test_it_times_the_suite_against_what_rtt_spends_on_asking():
    command = [sys.executable, ROOT / "benchmarks/suite.py", "--tiny"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    looks = done.stdout.splitlines()[0]
    for name, one in plugins.attacks().items():
        assert (f'"{name}"' in looks) == (not (one.trains or one.control or one.needs_context)), name
    assert len(re.findall(r"CPU s after the imports: \d+\.\d\d; whole processes: \d+\.\d\d$", done.stdout, re.M)) == 2
    assert re.search(r"medians over the turns: [\d.]+ after the imports; [\d.]+ whole processes\n$", done.stdout)

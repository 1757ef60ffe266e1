"""The shell code before each step: a real bash, and steps that end in every way."""

import shlex
import subprocess
import sys

import pytest
from rtt.runtime.shell import prefix

KILL = f"{sys.executable} -c 'import os; os.kill(os.getpid(), 9)'"


@pytest.mark.parametrize(
    "step, code, explained",
    [
        ("true", 0, False),
        ("false", 1, False),
        ("exit 143", 143, False),
        (KILL, 137, True),
        (f"{KILL} | cat", 137, True),
    ],
)
def test_only_a_kill_is_explained_and_the_exit_code_stays(tmp_path, step, code, explained):
    log = tmp_path / "a step's {log}"
    script = f"{prefix('scripts')} exec &> >(tee {shlex.quote(str(log))})\n{step}\n"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert done.returncode == code
    assert ("error: this step was killed (SIGKILL): " in done.stdout) == explained
    assert ("memory" in log.read_text()) == explained


def test_steps_run_the_code_of_any_folder():
    done = subprocess.run(["bash", "-c", prefix("/a clone's {folder}") + "printenv PYTHONPATH"], capture_output=True)
    assert done.stdout == b"/a clone's {folder}\n"

"""The shell code before each step: a real bash, and steps that end in every way."""

import os
import re
import shlex
import socket
import subprocess
import sys

import pytest
from rtt.runtime.shell import prefix, torchrun

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


def started(tmp_path, **variables) -> str:
    """Return what bash starts for two nodes with four devices each; stand-ins print how they are called."""
    for name in ("srun", "torchrun"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho {name} "$@"\n')
        (tmp_path / name).chmod(0o755)
    script = f'set -euo pipefail; export LAUNCH="{torchrun(4, 2, 24)}"; $LAUNCH unlearn --spec x'
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"} | variables
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_one_node_starts_torchrun_as_ever():
    assert torchrun(4) == "torchrun --standalone --shutdown-timeout 3600 --nproc-per-node 4 -m rtt"


def test_two_nodes_have_a_torchrun_each_and_meet_at_the_first_one(tmp_path):
    here = socket.gethostname()
    flags = "--nodes=2 --ntasks=2 --ntasks-per-node=1 --cpus-per-task=24 --input=none --wait=3600"
    meet = f"--nnodes 2 --rdzv-backend c10d --rdzv-id 70007 --rdzv-endpoint {here}:20007"
    rest = "--shutdown-timeout 3600 --nproc-per-node 4 -m rtt unlearn --spec x"
    assert started(tmp_path, SLURM_JOB_ID="70007", HOSTNAME="node7") == f"srun {flags} torchrun {meet} {rest}\n"


def test_jobs_that_share_a_node_meet_at_ports_of_their_own(tmp_path):
    ports = {re.search(r":(\d+) ", started(tmp_path, SLURM_JOB_ID=str(job)))[1] for job in (7, 8, 19_999, 20_000)}
    assert ports == {"10007", "10008", "29999", "10000"}  # below those that Linux gives to anybody

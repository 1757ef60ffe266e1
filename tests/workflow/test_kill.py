"""SIGKILL of everything at once, in the midst of three different steps; the same command then finishes the study."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from clones import SMOKE, Clone, clone_environment, differing

pytestmark = pytest.mark.full  # minutes; tests/training/test_resume.py kills single steps in `make test`

# A checkpoint after every step, so that there is one to go on from at whatever moment the kill comes.
COMMAND = ["-m", "rtt", "run", "--configfile", SMOKE, "--config", "checkpoint_minutes=0"]
WITHIN = 120  # seconds for a moment to come


def saved(results: Path, rule: str) -> bool:
    """A step of this rule has a whole checkpoint."""
    return any(results.glob(f"state/{rule}-*/**/whole.json"))


def went_on(results: Path, rule: str) -> bool:
    """A step of this rule has taken up its checkpoint."""
    return any("going on from step" in log.read_text() for log in results.glob(f"logs/{rule}/*.log"))


def environment(clone: Clone) -> dict[str, str]:
    """`python -m rtt run` is the clone's too."""
    return clone_environment(clone.folder) | {"PYTHONPATH": str(clone.folder / "scripts")}


def command_line(process: psutil.Process) -> list[str]:
    """What it was started with; nothing for a process that has ended since it was listed."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # psutil's ZombieProcess too
        return []


def running(process: psutil.Process) -> bool:
    """Neither gone nor a zombie that nobody has waited for."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill_when(clone: Clone, come: Callable[[], bool], delay: float) -> str:
    """Start the run in a session of its own; `delay` seconds after `come()` kill all of it. Returns what it said."""
    said = clone.folder / "said.txt"
    with open(said, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, *COMMAND],
            cwd=clone.folder,
            env=environment(clone),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + WITHIN
        while not come():
            assert process.poll() is None, f"ended before the moment came:\n{said.read_text()}"
            assert time.monotonic() < deadline, f"the moment never came:\n{said.read_text()}"
            time.sleep(0.005)
        time.sleep(delay)
        family = psutil.Process(process.pid).children(recursive=True)
        names = " ".join(word for child in family for word in command_line(child))
        assert "snakemake" in names and "rtt" in names
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not [child for child in alive if running(child)], "outside the process group"
    return said.read_text()


@pytest.fixture(scope="module")
def killed(pristine, tmp_path_factory) -> Clone:
    """A clone whose run was killed during pretraining, unlearning and RTT, and then ended by itself."""
    clone = Clone(tmp_path_factory.mktemp("killed") / "clone")
    shutil.copytree(pristine, clone.folder)
    results = clone.results()

    kill_when(clone, lambda: saved(results, "pretrain"), delay=0.0)
    assert not list(results.glob("manifests/*")), "killed too late: pretraining had ended"
    assert list((clone.folder / ".snakemake").glob("locks/*")), "Snakemake's lock is what a rerun has to get past"

    said = kill_when(clone, lambda: saved(results, "unlearn"), delay=0.0)
    assert "removing the lock that a killed run left" in said
    assert list(results.glob("manifests/pretrain-*"))
    assert went_on(results, "pretrain")
    assert len(list(results.glob("manifests/unlearn-*"))) < 2, "killed too late: unlearning had ended"

    # In the midst of RTT's outputs: some checkpoints are attacked, others are not.
    kill_when(clone, lambda: any(results.glob("evals/attack-*/original.json")), delay=0.0)
    assert len(list(results.glob("manifests/attack-*"))) < 3, "killed too late: the attacks had ended"
    assert went_on(results, "unlearn")

    done = subprocess.run(
        [sys.executable, *COMMAND], cwd=clone.folder, env=environment(clone), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "removing the lock that a killed run left" in done.stdout
    assert any("going on: " in log.read_text() for log in results.glob("logs/attack/*.log"))
    assert not list(results.glob("state/*"))
    return clone


def test_after_three_kills_the_bytes_are_those_of_an_uninterrupted_run(killed, finished):
    # Both say every key of the study, and checkpoint_minutes is another here.
    assert differing(finished.results(), killed.results()) == ["runs.json", "study.yaml"]
    assert (killed.results() / "report.html").is_file()
    assert not list(killed.results().glob("models/**/*.safetensors")), "weights that no later step needs are deleted"


def test_no_lock_is_left_and_a_further_run_does_nothing(killed):
    assert not list((killed.folder / ".snakemake").glob("locks/*"))
    assert not list((killed.folder / "results/.locks").glob("*.json"))
    done = subprocess.run(
        [sys.executable, *COMMAND], cwd=killed.folder, env=environment(killed), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing to do" in done.stdout and "removing the lock" not in done.stdout

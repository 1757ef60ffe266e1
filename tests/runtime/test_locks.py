"""Locks with real processes: who is live, who is stale, and that of many that claim at once exactly one succeeds."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest
from rtt.errors import UserError
from rtt.runtime import locks

SCRIPTS = Path(locks.__file__).parents[2]


def start(code: str, *arguments: str) -> subprocess.Popen:
    """Start Python on `code`, with rtt importable."""
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
    environment.pop(locks.VARIABLE, None)
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments], env=environment, stdout=subprocess.PIPE, text=True
    )


REGISTER_AND_SLEEP = """
    import sys, time
    from rtt.runtime import locks
    locks.register(sys.argv[1], "a step of the test", role=sys.argv[2])
    print("ready", flush=True)
    time.sleep(float(sys.argv[3]))
    locks.release(sys.argv[1])
"""


@pytest.fixture
def registered(tmp_path):
    """A function that starts a process registered in tmp_path; all are killed at the end."""
    started = []

    def begin(role: str = "step", seconds: float = 60) -> subprocess.Popen:
        process = start(REGISTER_AND_SLEEP, str(tmp_path), role, str(seconds))
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture(autouse=True)
def _clean_variable(monkeypatch):
    monkeypatch.setenv(locks.VARIABLE, "")  # claim() sets it; monkeypatch puts it back


def test_a_live_process_is_listed_with_its_particulars(tmp_path, registered):
    process = registered()
    (holder,) = locks.live(tmp_path)
    assert (holder.pid, holder.command, holder.role) == (process.pid, "a step of the test", "step")
    assert holder.start_time == pytest.approx(psutil.Process(process.pid).create_time(), abs=0.1)
    assert time.time() - holder.start_time < 60


def test_a_killed_process_is_stale_and_its_file_is_deleted(tmp_path, registered):
    process = registered()
    process.kill()
    process.wait()
    (path,) = tmp_path.glob("*.json")
    assert path.name.startswith(f"{process.pid}-")
    assert locks.live(tmp_path) == []
    assert not path.exists()


def test_a_zombie_is_not_live(tmp_path, registered):
    process = registered()
    os.kill(process.pid, signal.SIGKILL)  # and nobody waits for it
    deadline = time.monotonic() + 60
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert locks.live(tmp_path) == []


def test_a_reused_pid_is_not_live(tmp_path):
    path = locks.register(tmp_path, "me")
    holder = json.loads(path.read_text())
    assert [entry.pid for entry in locks.live(tmp_path)] == [os.getpid()]
    holder["start_time"] -= 3600
    path.write_text(json.dumps(holder))
    assert locks.live(tmp_path) == []


def test_another_host_counts_as_live_and_the_message_says_what_to_do(tmp_path):
    path = locks.register(tmp_path, "elsewhere")
    holder = json.loads(path.read_text())
    holder.update(host="another-host", pid=1)
    elsewhere = tmp_path / "1-another-host.json"
    elsewhere.write_text(json.dumps(holder))
    path.unlink()
    with pytest.raises(UserError, match=r"on another-host(?s:.*)cannot be checked(?s:.*)delete .*1-another-host\.json"):
        locks.claim(tmp_path, "run")
    assert elsewhere.exists()


def test_a_file_that_is_not_ours_is_dropped(tmp_path):
    (tmp_path / "12.json").write_text('{"pid": 1')
    (tmp_path / "13.json").write_text('{"pid": 1}')
    assert locks.live(tmp_path) == []
    assert not list(tmp_path.glob("*.json"))


def test_looking_for_holders_creates_no_files(tmp_path):
    assert locks.live(tmp_path / "absent") == []
    assert not (tmp_path / "absent").exists()


def test_a_refused_claim_names_the_process_in_the_way(tmp_path, registered):
    process = registered("main")
    with pytest.raises(UserError, match=rf"pid {process.pid} (?s:.*)a step of the test(?s:.*)since \d{{4}}-") as caught:
        locks.claim(tmp_path, "run", wait=30)
    assert f"kill {process.pid}" in str(caught.value)
    assert not list(tmp_path.glob(f"{os.getpid()}-*.json"))


def test_a_claim_waits_for_an_orphaned_step(tmp_path, registered):
    registered("step", seconds=1)
    said = []
    locks.claim(tmp_path, "run", wait=30, say=said.append)
    assert [holder.pid for holder in locks.live(tmp_path)] == [os.getpid()]
    assert len(said) == 1 and "left behind" in said[0]


def test_a_claim_gives_up_on_an_orphaned_step_that_does_not_end(tmp_path, registered):
    registered("step")
    with pytest.raises(UserError, match="in use"):
        locks.claim(tmp_path, "run", wait=0.3, say=lambda line: None)


def test_processes_that_started_us_are_not_in_the_way(tmp_path):
    with locks.hold(tmp_path, "rtt run"):
        child = start("import sys; from rtt.runtime import locks; locks.claim(sys.argv[1], 'snakemake')", str(tmp_path))
        assert child.wait(30) == 0


def test_a_folder_is_released_after_an_error_too(tmp_path):
    with pytest.raises(ZeroDivisionError), locks.hold(tmp_path, "run") as path:
        assert path.exists() and os.environ[locks.VARIABLE] == str(tmp_path)
        raise ZeroDivisionError
    assert locks.live(tmp_path) == []


def test_a_step_registers_only_within_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with locks.step("attack"):
        assert not list(tmp_path.iterdir())
    monkeypatch.setenv(locks.VARIABLE, str(tmp_path / "locks"))
    with locks.step("attack"):
        assert [holder.command for holder in locks.live(tmp_path / "locks")] == ["attack"]
    assert locks.live(tmp_path / "locks") == []


def test_of_many_that_claim_at_once_exactly_one_wins(tmp_path):
    code = """
        import os, sys, time
        from rtt.runtime import locks
        from rtt.errors import UserError
        folder, go, end = sys.argv[1:]
        print("ready", flush=True)
        while not os.path.exists(go):
            pass
        try:
            locks.claim(folder, "run")
            print("won", flush=True)
        except UserError:
            print("lost", flush=True)
        while not os.path.exists(end):
            time.sleep(0.01)
    """
    folder, go, end = tmp_path / "locks", tmp_path / "go", tmp_path / "end"
    processes = [start(code, str(folder), str(go), str(end)) for _ in range(6)]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 6
    go.touch()
    answers = sorted(process.stdout.readline().strip() for process in processes)
    end.touch()
    for process in processes:
        process.communicate(timeout=60)
    assert answers == ["lost"] * 5 + ["won"]

"""A training killed at any time resumes from its newest whole checkpoint.

One process ends in the same bytes, several within the bounds of the parity tests; a checkpoint of another engine or
number of processes is refused.
"""

import contextlib
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import wait
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

pytest.importorskip("torch")

import tiny
import torch
from resuming import Forked
from rtt.errors import Stopped, UserError
from rtt.files import sha256
from rtt.study.settings import Training
from rtt.training import resume
from rtt.training.losses import plain_loss
from rtt.training.resume import WHOLE, Checkpoints, State, newest
from rtt.training.train import train

WORKER = Path(__file__).parents[1] / "helpers" / "resuming.py"
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
STEPS = 40


def start(state, out, *, engine="none", processes=1, stop_at=0, amid=0, released=0, minutes="0", forked=True):
    """Start the training: forked, or as a step is started."""
    environment = {"OMP_NUM_THREADS": "1", "RTT_CHECKPOINT_MINUTES": minutes}
    words = [str(state), str(out), *map(str, (STEPS, stop_at, amid, released))]
    environment |= {"RTT_DEEPSPEED": engine} if engine.startswith("zero") else {}
    if forked:
        return Forked(words, environment, processes)
    environment |= {k: v for k, v in os.environ.items() if not k.startswith("RTT_")}
    launch = LAUNCH if processes > 1 else [sys.executable]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*launch, str(WORKER), *words], env=environment, start_new_session=True, **pipes)


def finished(process):
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error[-3000:]
    return error


def same_bytes(one, two):
    assert one["losses"] == two["losses"] and one["scores"] == two["scores"]
    assert all(torch.equal(one["weights"][name], two["weights"][name]) for name in one["weights"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The training without a kill."""
    out = tmp_path_factory.mktemp("whole") / "out.pt"
    finished(start(out.parent / "state", out, minutes="1000"))
    return torch.load(out)


def test_after_sigkill_at_any_time_the_rerun_ends_in_the_same_bytes(tmp_path, whole):
    state, out = tmp_path / "state", tmp_path / "out.pt"
    assert killed_again_and_again(state, out, kills=4, within=0.15) >= 3
    assert "going on from step" in finished(start(state, out))
    same_bytes(whole, torch.load(out))


def kill(process):
    """Send SIGKILL to the launcher and to its workers, which torchrun puts into sessions of their own."""
    for one in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    process.communicate()


def killed_again_and_again(state, out, kills, within, **how):
    """Start and SIGKILL so often, or until it ends; return how often.

    Each attempt lives until it has a new checkpoint, and a random moment longer (within seconds), so that with a
    checkpoint after every step most kills come in the middle of a save.
    """
    done, torn, moment = 0, 0, random.Random(0)
    while done < kills:
        process, before = start(state, out, **how), newest_name(state)
        while process.poll() is None and newest_name(state) == before:
            time.sleep(0.001)
        time.sleep(moment.uniform(0, within))
        if process.poll() is not None:
            break
        kill(process)
        done += 1
        found = list((state / "unlearning").glob("checkpoint-*"))
        torn += any(not (one / WHOLE).exists() for one in found)
        assert newest_name(state) and len(found) <= 3
    print(f"{how}: {done} kills, {torn} of them in the middle of a save")
    return done


@pytest.mark.full
@pytest.mark.parametrize("delay", range(20))
def test_after_sigkill_during_a_start_the_rerun_ends_in_the_same_bytes(delay, tmp_path, whole):
    """Not only after a checkpoint: during imports, the first steps, the scores."""
    state, out = tmp_path / "state", tmp_path / "out.pt"
    process = start(state, out, forked=False)
    time.sleep(0.5 + 0.5 * delay)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    if not out.exists():
        finished(start(state, out))
    same_bytes(whole, torch.load(out))


@pytest.mark.full
@pytest.mark.parametrize("engine", ["ddp", "zero1", "zero2", "zero3"])
def test_after_sigkill_of_both_processes_the_rerun_is_within_bounds(engine, tmp_path, whole):
    state, out = tmp_path / "state", tmp_path / "out.pt"
    how = {"engine": engine, "processes": 2, "forked": False}
    assert killed_again_and_again(state, out, kills=5, within=0.15, **how) >= 3
    assert "going on from step" in finished(start(state, out, **how, minutes="1000"))
    within_bounds(whole, torch.load(out))


def test_sigterm_saves_the_step_and_the_rerun_ends_in_the_same_bytes(tmp_path, whole):
    state, out = tmp_path / "state", tmp_path / "out.pt"
    stopped = start(state, out, stop_at=15, minutes="1000")
    _, error = stopped.communicate(timeout=120)
    assert stopped.returncode == 143 and "SIGTERM: saving" in error
    assert newest(state / "unlearning").name == "checkpoint-15" and not out.exists()
    assert "going on from step 15" in finished(start(state, out, minutes="1000"))
    same_bytes(whole, torch.load(out))


@pytest.mark.parametrize(("step", "processes"), [(15, 1), pytest.param(STEPS, 1, marks=pytest.mark.full), (STEPS, 2)])
def test_sigterm_amid_scores_saves_the_step_and_the_rerun_scores_it(step, processes, tmp_path, whole):
    state, out, how = tmp_path / "state", tmp_path / "out.pt", {"processes": processes, "minutes": "1000"}
    stopped = start(state, out, stop_at=step, amid=1, **how)
    _, error = stopped.communicate(timeout=120)
    assert stopped.returncode == 143, error[-2000:]
    journal = (state / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["key"] for line in journal] == [str(at) for at in range(5, step, 5)]
    assert newest_name(state) == f"checkpoint-{step}" and not out.exists()
    assert f"going on from step {step}" in finished(start(state, out, **how))
    found = torch.load(out)
    assert list(found["scores"]) == [str(at) for at in range(5, STEPS + 1, 5)]
    (same_bytes if processes == 1 else within_bounds)(whole, found)


@pytest.fixture(scope="module")
def whole_released(tmp_path_factory):
    """The training in bf16_kahan with gradient release, without a kill."""
    out = tmp_path_factory.mktemp("released") / "out.pt"
    finished(start(out.parent / "state", out, released=1, minutes="1000"))
    return torch.load(out)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.full)])
def test_a_signal_amid_a_step_that_releases_its_gradients_costs_no_byte(number, tmp_path, whole_released):
    state, out = tmp_path / "state", tmp_path / "out.pt"
    minutes = "1000" if number == signal.SIGTERM else "0"
    stopped = start(state, out, stop_at=15, amid=int(number), released=1, minutes=minutes)
    _, error = stopped.communicate(timeout=120)
    # After SIGTERM the step is finished, and its weights are saved; SIGKILL leaves those of the step before.
    assert stopped.returncode == (143 if number == signal.SIGTERM else -signal.SIGKILL), error[-2000:]
    saved = 15 if number == signal.SIGTERM else 14
    assert newest_name(state) == f"checkpoint-{saved}" and not out.exists()
    assert f"going on from step {saved}" in finished(start(state, out, released=1, minutes="1000"))
    same_bytes(whole_released, torch.load(out))


@pytest.mark.parametrize(("engine", "step"), [pytest.param("zero2", 15, marks=pytest.mark.full), ("zero3", 16)])
def test_two_processes_stop_together_and_resume_together(engine, step, tmp_path, whole):
    """One of them gets SIGTERM before the scores of step 15, which ZeRO-3 finishes first (Scorer.scores)."""
    state, out = tmp_path / "state", tmp_path / "out.pt"
    stopped = start(state, out, engine=engine, processes=2, stop_at=15, minutes="1000")
    _, error = stopped.communicate(timeout=300)
    assert stopped.returncode != 0 and newest_name(state) == f"checkpoint-{step}", error[-2000:]
    other = start(state, out, minutes="1000")
    _, error = other.communicate(timeout=120)
    assert other.returncode == 1 and f"saved by {engine} on 2 processes, this is none on 1" in error
    assert "delete" in error and "Traceback" not in error
    error = finished(start(state, out, engine=engine, processes=2, minutes="1000"))
    assert f"going on from step {step}" in error
    within_bounds(whole, torch.load(out))


def within_bounds(whole, found):
    """Lion's bounds of docs/devices.md."""
    for step, (left, right) in enumerate(zip(whole["losses"], found["losses"], strict=True), 1):
        assert right == pytest.approx(left, rel=1e-3, abs=1e-3), step
    pairs = [(whole["weights"][name], found["weights"][name]) for name in whole["weights"]]
    assert sum(int((a == b).sum()) for a, b in pairs) >= 0.99 * sum(a.numel() for a, _ in pairs)


def newest_name(state):
    """The newest checkpoint's name; nothing is opened, since it may be deleted at this moment."""
    names = [mark.parent.name for mark in (Path(state) / "unlearning").glob(f"checkpoint-*/{WHOLE}")]
    return max(names, key=lambda name: int(name.split("-")[1]), default=None)


def mark(checkpoint, engine=("none", 1)):
    sums = {path.name: sha256(path) for path in checkpoint.iterdir() if path.name != WHOLE}
    (checkpoint / WHOLE).write_text(json.dumps({"engine": list(engine), "losses": [], "sha256": sums}))


def flip(path):
    """Change one bit in the middle of a file, as a failing disk does."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_damaged_checkpoint_is_set_aside_and_the_rerun_ends_in_the_same_bytes(tmp_path, whole):
    state, out = tmp_path / "state", tmp_path / "out.pt"
    start(state, out, stop_at=15, minutes="1000").communicate(timeout=120)
    flip(state / "unlearning" / "checkpoint-15" / "optimizer.pt")
    error = finished(start(state, out, minutes="1000"))
    assert "checkpoint-15/optimizer.pt: damaged or changed" in error and "damaged-checkpoint-15" in error
    assert "going on from step" not in error
    same_bytes(whole, torch.load(out))


@pytest.mark.parametrize("damage", ["bit", "cut", "gone", "mark", "no mark"])
def test_an_older_checkpoint_is_taken_where_the_newest_is_damaged(tmp_path, damage, capsys):
    for step in (5, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "optimizer.pt").write_bytes(bytes(100))
        mark(tmp_path / f"checkpoint-{step}")
    file, whole = (tmp_path / "checkpoint-10" / name for name in ("optimizer.pt", WHOLE))
    {
        "bit": lambda: flip(file),
        "cut": lambda: file.write_bytes(bytes(99)),
        "gone": file.unlink,
        "mark": lambda: whole.write_bytes(whole.read_bytes()[:-9]),
        "no mark": lambda: whole.write_text("{}"),
    }[damage]()
    assert newest(tmp_path).name == "checkpoint-5"
    assert "starts from an older checkpoint" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-5", "damaged-checkpoint-10"]
    assert newest(tmp_path).name == "checkpoint-5" and not capsys.readouterr().err


@pytest.mark.parametrize("damage", ["key", "line", "number", "other"])
def test_a_damaged_state_is_set_aside_and_the_step_starts_anew(tmp_path, damage, capsys):
    owner, folder = {"run": "a", "code": "1"}, tmp_path / "s"
    state = State(folder, owner)
    for step in range(3):
        state.keep(str(step), {"scores": [0.125, step]})
    journal = folder / "results.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    if damage == "key":
        (folder / "key.json").write_text("{")
    if damage == "line":
        journal.write_text(lines[0] + lines[1][:9] + "\n" + lines[2])
    if damage == "number":
        journal.write_text("".join(lines).replace("0.125, 1", "0.175, 1"))
    why = "w: damaged" if damage == "other" else None
    assert State(folder, owner, lambda: why).results == {}
    said = capsys.readouterr().err
    assert "this step starts anew" in said and str(tmp_path / "damaged-s") in said
    assert [path.name for path in folder.iterdir()] == ["key.json"]
    State(folder, owner).finish()
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_without_its_mark_is_ignored(tmp_path):
    for step, marked in ((9, True), (10, True), (11, False)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if marked:
            mark(tmp_path / f"checkpoint-{step}")
    assert newest(tmp_path).name == "checkpoint-10" and newest(None) is None and newest(tmp_path / "no") is None
    mark(tmp_path / "checkpoint-10", engine=["zero2", 4])
    with pytest.raises(UserError, match="saved by zero2 on 4 processes, this is none on 1"):
        newest(tmp_path)


def test_training_goes_on_while_a_checkpoint_is_hashed(tmp_path, monkeypatch):
    monkeypatch.setenv("RTT_CHECKPOINT_MINUTES", "0")
    for step in (2, 3):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "optimizer.pt").write_bytes(bytes(100 + step))
    mark(tmp_path / "checkpoint-2")
    hashed, hashing, sums = threading.Event(), threading.Event(), resume._sums

    def slow(folder):
        hashing.set()
        assert hashed.wait(60)
        return sums(folder)

    monkeypatch.setattr(resume, "_sums", slow)
    trainer, control = SimpleNamespace(losses=[{"loss": 3.0}]), SimpleNamespace(should_save=False)
    saver = Checkpoints(trainer, tmp_path)
    saver.on_save(None, SimpleNamespace(global_step=3), None)
    assert hashing.wait(60) and newest(tmp_path).name == "checkpoint-2"  # what a kill would leave
    trainer.losses[0]["moved"] = 0.5
    trainer.losses.append({"loss": 2.0})
    (tmp_path / "checkpoint-4").mkdir()  # another process has begun with the next one
    threading.Timer(0.2, hashed.set).start()
    saver.on_step_end(None, SimpleNamespace(global_step=4, max_steps=9), control)
    assert hashed.is_set() and control.should_save  # the next save waited
    assert json.loads((newest(tmp_path) / WHOLE).read_text())["losses"] == [{"loss": 3.0}]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-3", "checkpoint-4"]


@pytest.mark.parametrize("way", ["step", "stop"])
def test_a_checkpoint_that_cannot_be_marked_stops_the_training(way, tmp_path, monkeypatch):
    saver = failed(tmp_path, monkeypatch)
    if way == "step":  # the first after it failed
        wait([saver.marking])
    state, control = SimpleNamespace(global_step=4, max_steps=9), SimpleNamespace(should_save=False)
    with pytest.raises(OSError, match="No space left"), saver:
        saver.on_step_end(None, state, control) if way == "step" else saver.stop(control)
    assert newest(tmp_path) is None


def test_all_processes_stop_where_the_main_one_could_not_mark_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(resume.distributed, "total", lambda values: [0, 0, 1])  # as another process sees it
    state, control = SimpleNamespace(global_step=4, max_steps=9), SimpleNamespace(should_save=False)
    with pytest.raises(UserError, match="the main process could not keep the last checkpoint"):
        Checkpoints(SimpleNamespace(losses=[]), tmp_path).on_step_end(None, state, control)


def failed(folder, monkeypatch, error=None):
    """Checkpoints of which the last cannot be marked."""

    def full(folder):
        raise error or OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(resume, "_sums", full)
    saver = Checkpoints(SimpleNamespace(losses=[]), folder)
    saver.on_save(None, SimpleNamespace(global_step=3), None)
    return saver


@pytest.mark.parametrize("finished", [True, False])
def test_at_the_end_a_checkpoint_that_cannot_be_marked_costs_nothing(finished, tmp_path, monkeypatch, capsys):
    """Neither a finished training nor the reason why another one ended."""
    reason = nullcontext() if finished else pytest.raises(UserError, match="the loss is not finite")
    with reason, failed(tmp_path, monkeypatch):
        if not finished:
            raise UserError("the loss is not finite")
    assert "could not be kept: [Errno 28] No space left" in capsys.readouterr().err


def test_at_the_end_it_is_no_warning_that_the_run_is_another_job_s(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="another job"), failed(tmp_path, monkeypatch, UserError("another job")):
        pass


def test_a_training_ends_when_its_last_checkpoint_is_marked(tmp_path, monkeypatch):
    """What comes next deletes the folder."""
    monkeypatch.setenv("RTT_CHECKPOINT_MINUTES", "0")
    monkeypatch.setattr(resume, "_sums", lambda folder: (time.sleep(0.5), {})[1])
    rows = [tiny.plain([], [3, 4, 5 + step]) for step in range(3)]
    settings = Training(learning_rate=1e-3, batch_size=1)
    train(tiny.model(), tiny.tokenizer(), rows, plain_loss, settings, 0, state=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-2"]
    assert (tmp_path / "checkpoint-2" / WHOLE).exists()


def test_all_processes_wait_for_the_mark_before_they_stop(tmp_path, monkeypatch):
    """A launcher kills the main process soon after another one has ended."""
    (tmp_path / "checkpoint-3").mkdir()
    saver, done = Checkpoints(SimpleNamespace(losses=[]), tmp_path), []
    monkeypatch.setattr(
        resume.distributed, "barrier", lambda: done.append((tmp_path / "checkpoint-3" / WHOLE).exists())
    )
    saver.stop(SimpleNamespace())
    with pytest.raises(Stopped):
        saver.on_save(None, SimpleNamespace(global_step=3), None)
    assert done == [False, True]


def test_what_a_kill_cut_short_is_deleted_when_training_starts(tmp_path):
    for step in (20, 30):
        (tmp_path / f"checkpoint-{step}").mkdir()
    mark(tmp_path / "checkpoint-20")
    Checkpoints(None, tmp_path).on_train_begin(None, None, None)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-20"]


def test_the_journal_survives_a_line_cut_short_but_not_another_code(tmp_path, capsys):
    owner = {"run": "a", "code": "1"}
    state = State(tmp_path / "s", owner)
    state.keep("x", {"a": 0.1})
    state.keep("y", {"a": 1 / 3})
    journal = tmp_path / "s" / "results.jsonl"
    journal.write_bytes(journal.read_bytes()[:-4])
    again = State(tmp_path / "s", owner)
    assert again.results == {"x": {"a": 0.1}}
    again.keep("y", {"a": 1 / 3})
    assert State(tmp_path / "s", owner).results == {"x": {"a": 0.1}, "y": {"a": 1 / 3}}
    assert State(tmp_path / "s", {"run": "a", "code": "2"}).results == {}
    assert "starting anew" in capsys.readouterr().err
    State(tmp_path / "s", {"run": "a", "code": "2"}).finish()
    assert list(tmp_path.iterdir()) == []


def test_a_kill_while_the_state_is_deleted_leaves_no_state_behind(tmp_path, monkeypatch):
    owner = {"run": "a", "code": "1"}
    state = State(tmp_path / "s", owner)
    state.keep("x", {"a": 1})
    with monkeypatch.context() as patch:
        # As far as it came.
        patch.setattr(shutil, "rmtree", lambda path, ignore_errors: Path(path, "key.json").unlink(missing_ok=True))
        state.finish()
    assert not (tmp_path / "s").exists()
    assert State(tmp_path / "s", owner).results == {}
    assert [path.name for path in tmp_path.iterdir()] == ["s"]

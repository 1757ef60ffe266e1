"""Keep the state from which a killed step resumes: its scores so far, and checkpoints of its training
(docs/devices.md).

`results/<study>/state/<run>/` holds key.json (which run and code made it), results.jsonl (a line for each scored look
and each ended run) and <training>/checkpoint-<step>/. A checkpoint counts once it holds `whole.json`, which is written
last. Both carry checksums. What is damaged is set aside under another name, and the step goes on from an older
checkpoint or starts anew.
"""

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch.distributed as dist
from transformers import TrainerCallback

from rtt import distributed
from rtt.checksums import damaged
from rtt.errors import Stopped, UserError
from rtt.files import digest, read_json, sha256, to_disk, write_json
from rtt.ownership import still_ours

MINUTES = "RTT_CHECKPOINT_MINUTES"  # between two checkpoints; an environment variable, since no number depends on it
DEFAULT_MINUTES = 30.0
WHOLE = "whole.json"
HASHERS = 8  # threads that hash the files of a checkpoint


class Terminated:
    """Remember whether SIGTERM came. After `listen()` the signal ends nothing: the next step of training saves and
    stops.
    """

    came = False

    @classmethod
    def listen(cls) -> None:
        """Take over SIGTERM."""
        signal.signal(signal.SIGTERM, cls._note)

    @classmethod
    def together(cls) -> bool:
        """Return whether SIGTERM came to any process. All processes must ask."""
        return distributed.total([cls.came])[0] > 0

    @classmethod
    def _note(cls, number, frame) -> None:
        if not cls.came and distributed.is_main():
            print("SIGTERM: saving, then stopping", file=sys.stderr, flush=True)
        cls.came = True


class State:
    """The state folder of one step. Without a folder nothing is kept, and a killed step starts anew.

    `owner` names what made the state, as {"run": id, "code": hash}. The state of another owner is useless and is
    deleted.
    """

    def __init__(self, folder: str | Path | None, owner: dict, damage: Callable[[], str | None] = lambda: None):
        """`damage()` returns what is wrong with what else the step keeps in the folder, None if nothing is."""
        self.folder = Path(folder) if folder else None
        self.results: dict[str, dict] = {}
        if not self.folder:
            return
        Terminated.listen()
        if distributed.is_main():
            shutil.rmtree(self._gone, ignore_errors=True)
            self._open(owner, damage)
        if dist.is_initialized():
            found = [self.results]
            dist.broadcast_object_list(found, device=distributed.device())
            self.results = found[0]
        if self.results and distributed.is_main():
            print(f"going on: found {len(self.results)} results", file=sys.stderr)

    def _open(self, owner: dict, damage: Callable[[], str | None]) -> None:
        """Take over what an earlier attempt left, or begin with an empty folder."""
        key = self.folder / "key.json"
        try:
            if key.is_file() and read_json(key) != owner:
                print(f"{self.folder}: another run or version of the code made this; starting anew", file=sys.stderr)
                shutil.rmtree(self.folder)
            elif self.folder.is_dir():
                self.results = self._read()
                if why := damage():
                    raise UserError(why)
        except UserError as error:
            self.results = {}
            set_aside(self.folder, str(error), "this step starts anew")
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(key, owner)

    @property
    def _journal(self) -> Path:
        return self.folder / "results.jsonl"

    def _read(self) -> dict[str, dict]:
        """Return what the journal holds, and cut off a last line that a kill cut short.

        Raises UserError for any other line that is not as it was written: a checkpoint may be younger than that line,
        and would never come back to it.
        """
        if not self._journal.is_file():
            return {}
        found, good, lines = {}, 0, self._journal.read_bytes().splitlines(keepends=True)
        for number, line in enumerate(lines, 1):
            if number == len(lines) and not line.endswith(b"\n"):
                break
            try:
                entry = json.loads(line)
                whole = entry["sha256"] == digest([entry["key"], entry["result"]])
            except (ValueError, KeyError, TypeError):
                whole = False
            if not whole:
                raise UserError(f"{self._journal}:{number}: damaged: this line is not as it was written")
            good += len(line)
            found[entry["key"]] = entry["result"]
        with open(self._journal, "r+b") as handle:
            handle.truncate(good)
        return found

    def keep(self, key: str, result: dict) -> None:
        """Record a scored look, or a run that ended."""
        self.results[key] = result
        if self.folder and distributed.is_main():
            still_ours()
            entry = {"key": key, "result": result, "sha256": digest([key, result])}
            with open(self._journal, "a", encoding="utf-8") as handle:
                handle.write(json.dumps(entry) + "\n")
                handle.flush()
                os.fsync(handle.fileno())

    def training(self, name: str) -> Path | None:
        """Return the folder for the checkpoints of one training, None if nothing is kept."""
        return self.folder / name if self.folder else None

    @property
    def _gone(self) -> Path:
        return self.folder.with_name(f".{self.folder.name}")

    def finish(self) -> None:
        """Delete the folder, since the step's outputs are written. A kill meanwhile leaves no part of it under its
        name.
        """
        if self.folder and distributed.is_main():
            self.folder.rename(self._gone)
            for useless in (self._gone, _aside(self.folder)):
                shutil.rmtree(useless, ignore_errors=True)


def set_aside(path: Path, why: str, then: str) -> None:
    """Rename a damaged file or folder to `damaged-<name>`, and say so."""
    aside = _aside(path)
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)
    print(f"warning: {why}; it is now {aside}, and {then}", file=sys.stderr)


def _aside(path: Path) -> Path:
    return path.with_name(f"damaged-{path.name}")


def newest(folder: Path | None) -> Path | None:
    """Return the newest whole checkpoint of a training, None if there is none. All processes must ask.

    A damaged one is set aside. Raises UserError when another engine or number of processes made it, since its optimizer
    does not fit.
    """
    found: list = [None, None]
    if distributed.is_main():
        try:
            found[0] = _newest(folder) if folder else None
        except UserError as error:
            found[1] = str(error)
    if dist.is_initialized():
        dist.broadcast_object_list(found, device=distributed.device())
    if found[1]:
        raise UserError(found[1])
    return found[0]


def _newest(folder: Path) -> Path | None:
    marks = sorted(folder.glob(f"checkpoint-*/{WHOLE}"), key=lambda mark: int(mark.parent.name.split("-")[1]))
    for mark in reversed(marks):
        try:
            record = read_json(mark)
            made, sums = record["engine"], dict(record["sha256"])
        except (UserError, KeyError, TypeError, ValueError):
            set_aside(mark.parent, f"{mark}: damaged", "this training starts from an older checkpoint, or anew")
            continue
        now = [distributed.name(), distributed.world()]
        if made != now:
            raise UserError(
                f"{mark.parent}: saved by {made[0]} on {made[1]} processes, this is {now[0]} on {now[1]}: the "
                "optimizer's state does not fit. Set launcher, devices and deepspeed as they were, or delete "
                f"{folder} to start this run anew"
            )
        with ThreadPoolExecutor(HASHERS) as pool:  # the other processes wait
            places = [mark.parent / name for name in sums]
            wrong = [why for why in pool.map(damaged, places, sums.values()) if why]
        if not wrong:
            return mark.parent
        set_aside(mark.parent, wrong[0], "this training starts from an older checkpoint, or anew")
    return None


def _sums(folder: Path) -> dict[str, str]:
    """Return {path in the folder: sha256} of all its files; they are on the disk then."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]

    def hashed(path: Path) -> str:
        to_disk(path)
        return sha256(path)

    with ThreadPoolExecutor(HASHERS) as pool:
        sums = dict(zip((str(path.relative_to(folder)) for path in paths), pool.map(hashed, paths), strict=True))
    for inner in {path.parent for path in paths}:
        to_disk(inner)
    return sums


class Checkpoints(TrainerCallback):
    """Ask for a checkpoint every RTT_CHECKPOINT_MINUTES and on SIGTERM, mark it as whole, and delete older ones.

    Training waits while the files are written, and goes on while they reach the disk and are hashed: a thread of the
    main process does that and then marks the checkpoint. Until then a kill leaves the one before.
    """

    def __init__(self, trainer, folder: Path | None):
        self.trainer, self.folder = trainer, folder
        self.thread, self.marking = ThreadPoolExecutor(1), None
        self.seconds = 60 * float(os.environ.get(MINUTES) or DEFAULT_MINUTES)
        self.last, self.stopping = time.monotonic(), False

    def on_train_begin(self, args, state, control, **kwargs):
        """Delete checkpoints that a kill cut short."""
        if self.folder and distributed.is_main():
            still_ours()
            for here in self.folder.glob("checkpoint-*"):
                if not (here / WHOLE).exists():
                    shutil.rmtree(here)

    def on_step_end(self, args, state, control, **kwargs):
        """Decide together, so that either every process saves or none. Raises what went wrong with the last one."""
        due = self.folder is not None and time.monotonic() - self.last >= self.seconds
        failed = self.marking is not None and self.marking.done() and self.marking.exception() is not None
        stopping, due, failed = distributed.total([Terminated.came, due, failed])
        if failed:
            self.wait()
            raise UserError("the main process could not keep the last checkpoint; its own message says why")
        control.should_save = bool(due) and state.global_step < state.max_steps
        if stopping:
            self.stop(control)
        if control.should_save:
            self.wait()
            if distributed.is_main():
                still_ours()

    def stop(self, control) -> None:
        """Save now and then raise Stopped, or raise it at once if nothing is kept.

        The last step is saved, too, since it is not scored yet.
        """
        if self.folder is None:
            raise Stopped
        self.wait()
        self.stopping = control.should_save = True

    def on_save(self, args, state, control, **kwargs):
        """Have the checkpoint marked, which all processes have written."""
        distributed.barrier()
        if distributed.is_main():
            losses = [dict(parts) for parts in self.trainer.losses]  # as they are now
            self.marking = self.thread.submit(self._mark, state.global_step, losses)
        self.last = time.monotonic()
        if self.stopping:
            self.wait()
            distributed.barrier()  # a launcher may kill the main process soon after another one ends
            raise Stopped

    def _mark(self, step: int, losses: list[dict[str, float]]) -> None:
        """Mark the checkpoint as whole, and only then delete older ones."""
        here = self.folder / f"checkpoint-{step}"
        made, sums = [distributed.name(), distributed.world()], _sums(here)
        still_ours()
        write_json(here / WHOLE, {"engine": made, "losses": losses, "sha256": sums}, indent=None)
        to_disk(self.folder)
        for other in self.folder.glob("checkpoint-*"):
            if int(other.name.split("-")[1]) < step:
                shutil.rmtree(other)

    def wait(self) -> None:
        """Wait until the last checkpoint is marked. Raises what went wrong with it."""
        marking, self.marking = self.marking, None
        if marking:
            marking.result()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_) -> None:
        """Wait for the thread, when the training has ended or failed: what comes next may delete the folder.

        That the last checkpoint could not be marked costs no finished training, and hides no other error; it is only
        said. Raises UserError if the run is another job's by now, and nothing else has gone wrong.
        """
        self.thread.shutdown()
        error = self.marking.exception() if self.marking else None
        if kind is None and isinstance(error, UserError):
            raise error
        if error:
            print(f"warning: the last checkpoint of this training could not be kept: {error}", file=sys.stderr)

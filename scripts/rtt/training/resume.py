"""Keep the state from which a killed step resumes: its scores so far, and checkpoints of its training
(docs/devices.md).

`results/<study>/state/<run>/` holds key.json (which run and code made it), results.jsonl (a line for each scored look
and each ended run) and <training>/checkpoint-<step>/. A checkpoint counts once it holds `whole.json`, which is written
last.
"""

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import torch.distributed as dist
from transformers import TrainerCallback

from rtt import distributed
from rtt.errors import Stopped, UserError
from rtt.files import read_json, write_json
from rtt.ownership import still_ours

MINUTES = "RTT_CHECKPOINT_MINUTES"  # between two checkpoints; an environment variable, since no number depends on it
DEFAULT_MINUTES = 30.0
WHOLE = "whole.json"


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

    def __init__(self, folder: str | Path | None, owner: dict):
        self.folder = Path(folder) if folder else None
        self.results: dict[str, dict] = {}
        if not self.folder:
            return
        Terminated.listen()
        key = self.folder / "key.json"
        if distributed.is_main():
            shutil.rmtree(self._gone, ignore_errors=True)
            if key.is_file() and read_json(key) != owner:
                print(f"{self.folder}: another run or version of the code made this; starting anew", file=sys.stderr)
                shutil.rmtree(self.folder)
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(key, owner)
            self._read()
        if dist.is_initialized():
            found = [self.results]
            dist.broadcast_object_list(found, device=distributed.device())
            self.results = found[0]
        if self.results and distributed.is_main():
            print(f"going on: found {len(self.results)} results", file=sys.stderr)

    @property
    def _journal(self) -> Path:
        return self.folder / "results.jsonl"

    def _read(self) -> None:
        """Read the journal up to a line that a kill cut short, and cut that line off."""
        if not self._journal.is_file():
            return
        good = 0
        for line in self._journal.read_bytes().splitlines(keepends=True):
            try:
                entry = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                entry = None
            if entry is None:
                break
            good += len(line)
            self.results[entry["key"]] = entry["result"]
        with open(self._journal, "r+b") as handle:
            handle.truncate(good)

    def keep(self, key: str, result: dict) -> None:
        """Record a scored look, or a run that ended."""
        self.results[key] = result
        if self.folder and distributed.is_main():
            still_ours()
            with open(self._journal, "a", encoding="utf-8") as handle:
                handle.write(json.dumps({"key": key, "result": result}) + "\n")

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
            shutil.rmtree(self._gone, ignore_errors=True)


def newest(folder: Path | None) -> Path | None:
    """Return the newest whole checkpoint of a training, None if there is none.

    Raises UserError when another engine or number of processes made it, since its optimizer does not fit.
    """
    found = (
        sorted(folder.glob(f"checkpoint-*/{WHOLE}"), key=lambda p: int(p.parent.name.split("-")[1])) if folder else []
    )
    if not found:
        return None
    made, now = read_json(found[-1])["engine"], [distributed.name(), distributed.world()]
    if made != now:
        raise UserError(
            f"{found[-1].parent}: saved by {made[0]} on {made[1]} processes, this is {now[0]} on {now[1]}: the "
            "optimizer's state does not fit. Set launcher, devices and deepspeed as they were, or delete "
            f"{folder.parent} to start this run anew"
        )
    return found[-1].parent


class Checkpoints(TrainerCallback):
    """Ask for a checkpoint every RTT_CHECKPOINT_MINUTES and on SIGTERM, mark it as whole, and delete older ones."""

    def __init__(self, trainer, folder: Path | None):
        self.trainer, self.folder = trainer, folder
        self.seconds = 60 * float(os.environ.get(MINUTES) or DEFAULT_MINUTES)
        self.last, self.stopping = time.monotonic(), False

    def on_step_end(self, args, state, control, **kwargs):
        """Decide together, so that either every process saves or none."""
        due = self.folder is not None and time.monotonic() - self.last >= self.seconds
        stopping, due = distributed.total([Terminated.came, due])
        control.should_save = bool(due) and state.global_step < state.max_steps
        if stopping:
            self.stop(control)
        if control.should_save and distributed.is_main():
            still_ours()

    def stop(self, control) -> None:
        """Save now and then raise Stopped, or raise it at once if nothing is kept.

        The last step is saved, too, since it is not scored yet.
        """
        if self.folder is None:
            raise Stopped
        self.stopping = control.should_save = True

    def on_save(self, args, state, control, **kwargs):
        """Mark the checkpoint as whole, and only then delete older ones."""
        distributed.barrier()
        if distributed.is_main():
            still_ours()
            here = self.folder / f"checkpoint-{state.global_step}"
            made = [distributed.name(), distributed.world()]
            write_json(here / WHOLE, {"engine": made, "losses": self.trainer.losses}, indent=None)
            for other in self.folder.glob("checkpoint-*"):
                if other != here:
                    shutil.rmtree(other)
        distributed.barrier()
        self.last = time.monotonic()
        if self.stopping:
            raise Stopped

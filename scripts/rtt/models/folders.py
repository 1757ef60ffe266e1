"""Write a model's folder completely or not at all; remove what a killed process left of one."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rtt import checksums
from rtt.files import to_disk

LOCK = "at-work"  # whoever fills the folder holds a lock on this file
YOUNG = 60  # seconds in which a folder may still be without it


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a scratch folder in which the block makes a folder `whole`; that becomes `folder` at the end.

    If the block raises, `folder` stays as it was. The folder gets a record of checksums, unless it has one.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        with open(scratch / LOCK, "w") as handle:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield scratch
            whole = scratch / "whole"
            if not (whole / checksums.NAME).exists():
                checksums.record(whole)
            shutil.rmtree(folder, ignore_errors=True)
            os.rename(whole, folder)
            to_disk(folder.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _remove_leftovers(folder: Path) -> None:
    """Delete scratch folders of `folder` whose process is gone, and with it its lock."""
    for scratch in folder.parent.glob(f".{folder.name}.*"):
        with suppress(OSError):
            if not (scratch / LOCK).exists():
                if time.time() - scratch.stat().st_mtime > YOUNG:
                    shutil.rmtree(scratch, ignore_errors=True)
                continue
            with open(scratch / LOCK) as handle:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(scratch, ignore_errors=True)

"""What lies in a study's results folder, or in its bundle, at one moment: names, sizes, times, and the JSON among them.

Nothing here writes. Jobs may be at work meanwhile, so a file that vanishes or is not whole counts as not there.
"""

import json
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rtt.bundle import opening
from rtt.bundle.container import Joined, container
from rtt.bundle.layout import Index


@dataclass(frozen=True)
class Files:
    """Files by their names below the results folder.

    `sizes` is in bytes, and 0 for a further hard link to the same bytes; `times` are of the last change, in seconds
    since 1970. `index` is that of a bundle, None for a results folder.
    """

    path: Path
    sizes: dict[str, int] = field(default_factory=dict)
    times: dict[str, float] = field(default_factory=dict)
    folders: frozenset[str] = frozenset()
    index: Index | None = None

    def has(self, name: str) -> bool:
        """Return whether a file or a folder of this name is there; `../` leads out of the results folder."""
        if name.startswith("../"):
            return self.index is None and (self.path / name).exists()
        return name in self.sizes or name in self.folders

    def below(self, folder: str) -> list[str]:
        """Return the names of the files in a folder and in those in it."""
        return [name for name in self.sizes if name.startswith(f"{folder}/")]

    def newest(self, names: Iterable[str]) -> float | None:
        """Return when the last of these files changed; None where none is there."""
        return max((self.times[name] for name in names if name in self.times), default=None)

    def documents(self, names: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Return the JSON objects in those of these files that are there, and whole."""
        found = {}
        for name, data in self._read([name for name in names if name in self.sizes]):
            with suppress(ValueError, RecursionError):
                if isinstance(document := json.loads(data), dict):
                    found[name] = document
        return found

    def _read(self, names: list[str]) -> Iterable[tuple[str, bytes]]:
        if self.index is None:
            for name in names:
                with suppress(OSError):
                    yield name, (self.path / name).read_bytes()
            return
        base = f"results/{self.index.study}/"
        with container(self.path) as files:
            joined = Joined(files, self.index)
            for name in names:
                if base + name in self.index.files:
                    with joined.open(base + name) as stream:
                        yield name, stream.read()

    def tail(self, name: str, lines: int, most: int = 1 << 14) -> list[str]:
        """Return the last lines of a log that are not empty, [] where there is none; `most` bytes are read of it."""
        try:
            with open(self.path / name, "rb") as stream:
                stream.seek(max(0, os.fstat(stream.fileno()).st_size - most))
                text = stream.read(most).decode("utf-8", "replace")
        except OSError:
            return []
        return [line.rstrip() for line in text.splitlines() if line.strip()][-lines:]


def of_folder(path: Path) -> Files:
    """Return what lies below a results folder now; nothing where there is no such folder. Links are not followed."""
    sizes, times, folders, seen = {}, {}, set(), set()
    for place, inner, names in os.walk(path):
        at = os.path.relpath(place, path)
        start = "" if at == "." else f"{at}/"
        folders.update(start + name for name in inner)
        for name in names:
            with suppress(OSError):  # it has vanished
                found = os.lstat(os.path.join(place, name))
                again = found.st_nlink > 1 and (found.st_dev, found.st_ino) in seen
                seen.add((found.st_dev, found.st_ino))
                sizes[start + name] = 0 if again or not stat.S_ISREG(found.st_mode) else found.st_size
                times[start + name] = found.st_mtime
    return Files(path, sizes, times, frozenset(folders))


def of_bundle(path: Path) -> Files:
    """Return what is in a bundle, or in the folder of an unpacked one. Raises UserError where it is damaged."""
    opened = opening.look(path)
    base = f"results/{opened.index.study}/"
    entries = opened.index.files | opened.index.left_out
    sizes = {name.removeprefix(base): one.bytes for name, one in entries.items() if name.startswith(base)}
    folders = {parent.as_posix() for name in sizes for parent in Path(name).parents}
    return Files(opened.path, sizes, {}, frozenset(folders), opened.index)

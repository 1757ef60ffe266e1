"""Weights of unlearned points while a method's trajectories run: only the best so far of each retain budget stay.

A point is 16 GB for an 8B model, and a grid has hundreds. So after each point its trajectory asks whether it is the
best of all points so far, its siblings' too, and deletes what no budget wants. The order of points is total
(`rtt.point_choice.choose`), so the end is the same in whatever order the trajectories run.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rtt.files import read_json, write_json
from rtt.point_choice.choose import best

POINTS = "points.json"


def weights_path(folder: str | Path, step: int) -> Path:
    """Return where a trajectory keeps the weights of one point."""
    return Path(folder) / f"step-{step}.safetensors"


class Candidates:
    """The points of one trajectory.

    folder: its own, which after a kill holds the points so far; siblings: those of the method's other trajectories,
    which may not exist yet; wanted: points -> {budget: the best point or None}. Jobs of one method take turns through a
    lock beside the folders.
    """

    def __init__(self, folder: Path, siblings: list[Path], lock: Path, wanted: Callable[[list[dict]], dict]):
        self.folder, self.siblings, self.lock_path, self.wanted = folder, siblings, lock, wanted
        folder.mkdir(parents=True, exist_ok=True)
        for cut_short in folder.glob(".*"):
            cut_short.unlink()
        self.points: list[dict] = read_json(folder / POINTS) if (folder / POINTS).is_file() else []

    @contextmanager
    def _turn(self) -> Iterator[None]:
        with open(self.lock_path, "w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def add(self, point: dict, save: Callable[[Path], None]) -> None:
        """Take in a scored point (`rtt.point_choice.choose.describe`, with `run`); `save(path)` writes its weights if it is among
        the best.
        """
        with self._turn():
            self.points = [*(known for known in self.points if known["step"] != point["step"]), point]
            folders = [self.folder, *(sibling for sibling in self.siblings if (sibling / POINTS).is_file())]
            others = [known for sibling in folders[1:] for known in read_json(sibling / POINTS)]
            chosen = [p for p in self.wanted([*self.points, *others]).values() if p]
            if point in chosen:
                save(weights_path(self.folder, point["step"]))
            names = {(p["run"], weights_path("", p["step"]).name) for p in chosen}
            for folder in folders:
                for path in folder.glob("step-*.safetensors"):
                    if (folder.name, path.name) not in names:
                        path.unlink()
            write_json(self.folder / POINTS, self.points)

    def finish(self, folder: Path) -> None:
        """Put what is kept where the next step reads it, too: by hard links, since a kill before the step's end makes
        Snakemake delete them there.
        """
        with self._turn():
            if folder != self.folder:
                shutil.rmtree(folder, ignore_errors=True)
                shutil.copytree(self.folder, folder, copy_function=os.link)


def choose_weights(selected: dict, folders: dict[str, Path], out: Path) -> list[str]:
    """Give the chosen points their fixed names in `out`: hard links `b<percent>.safetensors`.

    selected: {budget as text: {"run", "step"} or None}. Returns the runs whose weights are missing, [] when all is
    well; then nothing is made.
    """
    pairs = {budget: weights_path(folders[point["run"]], point["step"]) for budget, point in selected.items() if point}
    missing = sorted({path.parent.name for path in pairs.values() if not path.is_file()})
    if not missing:
        out.mkdir(parents=True, exist_ok=True)
        for budget, path in pairs.items():
            target = out / f"b{round(float(budget) * 100)}.safetensors"
            target.unlink(missing_ok=True)
            os.link(path, target)
    return missing


__all__ = ["Candidates", "best", "choose_weights", "weights_path"]

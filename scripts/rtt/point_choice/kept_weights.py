"""Keep on disk only the weights of points that some retain budget may still choose.

The weights of one point of an 8B model take 16 GB, and a grid has hundreds of points. So after each point its
trajectory asks, under a lock that its siblings share, which points are the best so far, and deletes every checkpoint,
siblings' included, that no budget chooses. The order of points is total (`rtt.point_choice.choose`), so the result
does not depend on the order in which trajectories run.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rtt import checksums
from rtt.errors import UserError
from rtt.files import read_json, write_json
from rtt.study.names import budget_name

POINTS = "points.json"


def weights_path(folder: str | Path, step: int) -> Path:
    """Return the path of one point's weights in its trajectory's folder."""
    return Path(folder) / f"step-{step}.safetensors"


class KeptWeights:
    """The scored points of one trajectory, and the weights of those that may still be chosen.

    `folder` belongs to this trajectory; after a kill it holds the points so far. `siblings` are the folders of the
    method's other trajectories, which need not exist yet. `choose` maps points to {budget: the best one or None}.
    `lock` is a file that all trajectories of the method share, so that they take turns.
    """

    def __init__(self, folder: Path, siblings: list[Path], lock: Path, choose: Callable[[list[dict]], dict]):
        self.folder, self.siblings, self.lock_path, self.choose = folder, siblings, lock, choose
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
        """Record a scored point (of `rtt.point_choice.choose.describe`); have `save(path)` write its weights if some
        budget chooses it; delete all weights that no budget chooses any more.
        """
        with self._turn():
            self.points = [*(known for known in self.points if known["step"] != point["step"]), point]
            folders = [self.folder, *(sibling for sibling in self.siblings if (sibling / POINTS).is_file())]
            others = [known for sibling in folders[1:] for known in read_json(sibling / POINTS)]
            chosen = [p for p in self.choose([*self.points, *others]).values() if p]
            written = weights_path(self.folder, point["step"]) if point in chosen else None
            if written:
                checksums.forget(written)
                save(written)
            names = {(p["run"], weights_path("", p["step"]).name) for p in chosen}
            for folder in folders:
                for path in folder.glob("step-*.safetensors"):
                    if (folder.name, path.name) not in names:
                        path.unlink()
            if written:
                checksums.add(written)
            write_json(self.folder / POINTS, self.points)

    def finish(self, folder: Path) -> None:
        """Hard-link what is kept into `folder`, a rule's output, where the next step reads it.

        Snakemake deletes outputs when a step is killed; `self.folder` survives that.
        """
        with self._turn():
            if folder != self.folder:
                shutil.rmtree(folder, ignore_errors=True)
                shutil.copytree(self.folder, folder, copy_function=os.link)


def damaged_weights(folder: Path) -> str | None:
    """Return what is wrong with a trajectory's folder as a kill left it; None if nothing is, or there is none."""
    try:
        if (folder / POINTS).is_file():
            read_json(folder / POINTS)
        paths = {folder / name: wanted for name, wanted in checksums.recorded(folder).items()}
    except UserError as error:
        return str(error)
    # A sibling may have deleted what no budget chooses any more.
    return next(
        (why for path, wanted in paths.items() if path.is_file() and (why := checksums.damaged(path, wanted))), None
    )


def link_chosen(chosen: dict, folders: dict[str, Path], out: Path) -> list[str]:
    """Hard-link the chosen points' weights into `out`, as `b<percent>.safetensors`.

    `chosen`: {budget as text: {"run", "step"} or None}; `folders`: {run: its folder of weights}. Returns the runs whose
    weights are missing; where there is one, nothing is linked.
    """
    pairs = {budget: weights_path(folders[point["run"]], point["step"]) for budget, point in chosen.items() if point}
    missing = sorted({path.parent.name for path in pairs.values() if not path.is_file()})
    if not missing:
        out.mkdir(parents=True, exist_ok=True)
        for budget, path in pairs.items():
            target = out / f"{budget_name(float(budget))}.safetensors"
            target.unlink(missing_ok=True)
            os.link(path, target)
            if known := checksums.recorded(path.parent).get(path.name):
                checksums.add(target, known)
    return missing

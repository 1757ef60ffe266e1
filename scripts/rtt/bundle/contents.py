"""Which files of a results folder go into a bundle: those that runs.json names, and no others."""

import mmap
import os
import shutil
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from rtt.bundle.layout import (
    COMPACT,
    FORMAT,
    LIMITS,
    STUDY,
    VERSION,
    Entry,
    Index,
    check_name,
    limit_of,
    read_index,
    strict_json,
)
from rtt.code_version import Maker, changed, code_version
from rtt.errors import UserError
from rtt.files import canonical_json, sha256
from rtt.study.names import FIGURES, TABLES

FINISH = "run the study to its end first"
SHOWN = 10  # files that a warning names at most
RULES = {"import": "import_model"}  # rules that are not named as their step


@dataclass
class Contents:
    """Files of a results folder by their names in a bundle, and the step and code that made each, where known."""

    path: Path
    study: str
    paths: dict[str, Path] = field(default_factory=dict)
    made: dict[str, Maker | None] = field(default_factory=dict)
    texts: bool = False
    shown: bool = False
    compact: bool = False
    left_out: list[str] = field(default_factory=list)  # of `paths`, what a compact bundle has only the sha256 of

    def open(self, name: str) -> BinaryIO:
        """Return the stream of a file."""
        return open(self.path / name.removeprefix(f"results/{self.study}/"), "rb")

    def link(self, folder: Path) -> None:
        """Put all files below `folder`: as hard links where the disk has them, since nothing edits them in place."""
        for name, path in self.paths.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path, target)
            except OSError:
                shutil.copyfile(path, target)


def _is_there(results: Path, name: str, limit: int) -> bool:
    """Return whether there is such a file below `results`.

    Raises UserError where a part of the path is a link, since it may lead to any file of this machine, and where the
    file has more than `limit` bytes.
    """
    place = results
    for part in name.split("/"):
        place /= part
        try:
            found = place.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        if stat.S_ISLNK(found.st_mode):
            raise UserError(f"{place}: is a link; replace it by the file or folder that it leads to")
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{place}: is not a plain file")
    if found.st_size > limit:
        raise UserError(f"{place}: {found.st_size} bytes; the limit is {limit}")
    return True


def read_runs(results: Path) -> dict:
    """Return runs.json. Raises UserError where it is missing or names no study."""
    path = results / "runs.json"
    if not _is_there(results, "runs.json", LIMITS["runs.json"]):
        raise UserError(f"{path}: no such file; {FINISH}")
    runs = strict_json(path.read_bytes(), str(path))
    study = runs.get("study") if isinstance(runs, dict) else None
    if not isinstance(study, dict) or not STUDY.fullmatch(str(study.get("study"))):
        raise UserError(
            f"{path}: study.study is not the name of a study; start the study again, which writes this file"
        )
    return runs


def stems(runs: dict, key: str) -> list[str]:
    """Return the names of the evaluations or point choices of all variants, each once; an attack's are RUN/TARGET."""
    return list(dict.fromkeys(stem for variant in runs["variants"].values() for stem in variant[key]))


def attacked(runs: dict) -> bool:
    """Return whether unlearned models were attacked: only then has a study recovery, and so figures and a report."""
    return bool(stems(runs, "point_choices")) and any("/" in stem for stem in stems(runs, "evals"))


def collect(results: str | Path, texts: bool | None = False, derived: bool = True) -> Contents:
    """Return the files of a study's results folder.

    `texts` adds the facts with their texts (None: those that are there), `derived` the tables, figures and report.
    Raises UserError at a link, and where a file that runs.json names is missing, since the study is not finished then.
    """
    results = Path(results)
    named = read_runs(results)
    study = named["study"]["study"]
    base = f"results/{study}"
    try:
        evals, point_choices = stems(named, "evals"), stems(named, "point_choices")
        manifests, data, shown = named["manifests"], named["data"], attacked(named)
        runs = dict.fromkeys([*data, *point_choices, *manifests, *(stem.partition("/")[0] for stem in evals)])
        if odd := [run for run in runs if not isinstance(run, str)]:
            raise TypeError(f"the name {odd[0]!r:.60}")
        # Each file with the run that made it and whether it must be there.
        wanted = [("runs.json", "", True), ("study.yaml", "", True)]
        wanted += [(f"specs/{run}.json", "", False) for run in runs]
        wanted += [(f"evals/{stem}.json", stem, True) for stem in evals]
        wanted += [(f"point_choices/{stem}.json", stem, True) for stem in point_choices]
        wanted += [(f"data/{name}/audit.json", name, True) for name in data]
        wanted += [(f"data/{name}/facts.jsonl", name, bool(texts)) for name in data if texts is not False]
        wanted += [(f"manifests/{run}.json", run, False) for run in manifests]
        # Of compact evaluations, which lie there after such a bundle was unpacked.
        wanted += [(f"questions/{path.name}", "", False) for path in sorted(results.glob("questions/*.json"))]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{results / 'runs.json'}: {error} is missing or garbled; start the study again") from None
    wanted += [(name, "", False) for name, _ in derived_files(shown) if derived]
    found = Contents(results, study, texts=bool(texts), shown=shown)
    for name, _, _ in wanted:  # all names, before the disk is asked for any of them
        check_name(f"{base}/{name}", str(results))
    for name, _, needed in wanted:
        if _is_there(results, name, limit_of(f"{base}/{name}")):
            found.paths[f"{base}/{name}"] = results / name
        elif needed:
            raise UserError(f"{results / name}: no such file, but {results / 'runs.json'} names it; {FINISH}")
    makes = makers(results, named)
    for name, run, _ in wanted:
        found.made[f"{base}/{name}"] = makes.get(run.partition("/")[0])
    return found


def makers(results: Path, runs: dict) -> dict[str, Maker]:
    """Return {run or dataset: its maker} for those whose manifest, point choice or audit says it."""
    paths = [(run, results / "manifests" / f"{run}.json", None) for run in runs["manifests"]]
    paths += [(run, results / "point_choices" / f"{run}.json", "choose") for run in stems(runs, "point_choices")]
    paths += [(name, results / "data" / name / "audit.json", "facts") for name in runs["data"]]
    found = {}
    for run, path, step in paths:
        said = strict_json(path.read_bytes(), str(path)) if path.is_file() else None
        said = said if isinstance(said, dict) else {}
        step, code, plugin = step or said.get("stage"), said.get("code"), said.get("plugin")
        if isinstance(step, str) and isinstance(code, str) and isinstance(plugin, str | None):
            found[run] = Maker(step, code, plugin)
    return found


def stale(results: Path, runs: dict) -> list[str]:
    """Return a warning for each step whose code has changed since it made some of these results.

    Snakemake itself notices that only for files that its .snakemake folder remembers.
    """
    return [
        f"the code of step {step} has changed since it made {', '.join(made)}. Snakemake makes again what it remembers "
        f"to have made; results from elsewhere stay as they are. To make those again, too: "
        f"--forcerun {RULES.get(step, step)}"
        for step, made in changed(makers(results, runs)).items()
    ]


def unproved(results: Path, runs: dict) -> list[str]:
    """Return a warning for the manifests, and one for the metrics, that evaluations in this folder lack.

    Nothing runs again for that alone, but what they would prove is then taken as it is.
    """
    targets: dict[str, list[Path]] = {}
    for stem in stems(runs, "evals"):
        targets.setdefault(stem.partition("/")[0], []).append(results / "evals" / f"{stem}.json")
    scored = {run: paths for run, paths in targets.items() if all(path.is_file() for path in paths)}
    manifests = {results / "manifests" / f"{run}.json": run for run in scored}
    gone = [path for path in manifests if not path.is_file()]
    bare = [path for paths in scored.values() for path in paths if not _has_accuracies(path)]
    found = []
    if gone:
        scores = _some([path for one in gone for path in scored[manifests[one]]])
        found.append(
            f"{_some(gone)}: no such file, so nothing shows that the scores are as they were made: {scores}. They are "
            "taken as they are, and nothing runs again until the report, which needs the manifests, has to be written. "
            "Copy them, too; without them, delete these evaluations and start the study again"
        )
    if bare:
        found.append(
            f"{_some(bare)}: metrics.accuracies is missing, so nothing in the file shows whether a score was changed. "
            "It is taken as it is, and nothing runs again. Copy the whole file; without it, delete this one and start "
            "the study again"
        )
    return found


def _has_accuracies(path: Path) -> bool:
    """Return whether an evaluation has accuracies, which stand behind its looks: the file is not read as a whole."""
    try:
        with open(path, "rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return data.rfind(b'"accuracies":') >= 0
    except (OSError, ValueError):  # a file that cannot be read, or an empty one: whoever reads it says so
        return True


def _some(paths: list[Path]) -> str:
    return ", ".join(map(str, paths[:SHOWN])) + (f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else "")


def derived_files(shown: bool) -> list[tuple[str, str]]:
    """Return the names below results/<study>/ of what is made from the scores, with the step that makes each."""
    found = [(f"tables/{name}.csv", "tables") for name in TABLES]
    if shown:
        found += [(f"figures/{name}.{kind}", "figure") for name in FIGURES for kind in ("svg", "png")]
        found += [("report.html", "report")]
    return found


def index(found: Contents) -> Index:
    """Return the index of these files as they are on disk now."""
    files, left_out = {}, {}
    for name, path in sorted(found.paths.items()):
        made = found.made.get(name) or (None, None, None)
        (left_out if name in found.left_out else files)[name] = Entry(path.stat().st_size, sha256(path), *made)
    version = COMPACT if found.compact else VERSION
    index = Index(version, found.study, found.texts, found.shown, files, left_out)
    read_index(written(index), f"results of {found.study}")
    return index


def written(index: Index) -> bytes:
    """Return an index as the bytes of bundle.json, the same ones for the same files."""
    files, left_out = ({name: vars(one) for name, one in some.items()} for some in (index.files, index.left_out))
    rest = {"study": index.study, "texts": index.texts, "shown": index.shown}
    rest |= {"left_out": left_out} if index.version == COMPACT else {}
    return (canonical_json({"format": FORMAT, "version": index.version, "files": files, **rest}) + "\n").encode()


def current(name: str, study: str) -> Maker | None:
    """Return what makes a derived file today."""
    step = dict(derived_files(True)).get(name.removeprefix(f"results/{study}/"))
    return Maker(step, code_version(step)) if step else None

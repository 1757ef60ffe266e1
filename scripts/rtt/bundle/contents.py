"""What of a results folder goes into a bundle: what the plan names, and no more."""

import os
import shutil
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from rtt.bundle import migrate
from rtt.bundle.layout import (
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
from rtt.code_version import changed, code_version
from rtt.errors import UserError
from rtt.files import canonical_json, sha256

TABLES = ("recovery", "accuracy", "contrasts", "variants")
FIGURES = ("accuracy", "recovery", "tradeoff", "curves", "sensitivity")
FINISH = "run the study to its end first"
UNKNOWN = None, None  # step and code
RULES = {"attack": "rtt rtt_original rtt_control", "import": "import_model"}  # by their steps, where named otherwise


@dataclass
class Contents:
    """Files of a results folder by their names in a bundle. `made`: step and code of those that tell."""

    path: Path
    study: str
    paths: dict[str, Path] = field(default_factory=dict)
    made: dict[str, tuple[str | None, str | None]] = field(default_factory=dict)
    texts: bool = False
    shown: bool = False
    version: int = VERSION

    def open(self, name: str) -> BinaryIO:
        """Return the stream of a file."""
        return open(self.path / name.removeprefix(f"results/{self.study}/"), "rb")

    def link(self, folder: Path) -> None:
        """Put all below `folder`, by hard links where the disk has them: nothing changes these files in place."""
        for name, path in self.paths.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path, target)
            except OSError:
                shutil.copyfile(path, target)


def _is_there(results: Path, name: str, limit: int) -> bool:
    """Say whether there is such a file below `results`.

    Raises UserError at a link on the way, which may lead to any file of this machine, and beyond `limit` bytes.
    """
    place = results
    for part in name.split("/"):
        place /= part
        try:
            found = place.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        if stat.S_ISLNK(found.st_mode):
            raise UserError(f"{place}: is a link; put what it leads to in its place")
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{place}: is no plain file")
    if found.st_size > limit:
        raise UserError(f"{place}: {found.st_size} bytes; the limit is {limit}")
    return True


def planned(results: Path) -> dict:
    """Return runs.json. Raises UserError where it is missing or not one that this program reads."""
    path = results / "runs.json"
    if not _is_there(results, "runs.json", LIMITS["runs.json"]):
        raise UserError(f"{path}: no such file; {FINISH}")
    plan = strict_json(path.read_bytes(), str(path))
    study = plan.get("study") if isinstance(plan, dict) else None
    if not isinstance(study, dict) or not STUDY.fullmatch(str(study.get("study"))):
        raise UserError(f"{path}: study.study is no study's name; start the study again, which writes it")
    return plan


def stems(plan: dict, key: str) -> list[str]:
    """Names of evaluations or point choices over all variants of a plan of any version, each once."""
    parts = plan["variants"].values() if isinstance(plan.get("variants"), dict) else [plan]
    return list(dict.fromkeys(stem for part in parts for stem in part[key]))


def recovers(plan: dict) -> bool:
    """Say whether a plan has recovery, so figures and a report, as in the Snakefile: what was unlearned is attacked."""
    return bool(stems(plan, "point_choices")) and any(stem.startswith("rtt-") for stem in stems(plan, "evals"))


def collect(results: str | Path, texts: bool = False, derived: bool = True) -> Contents:
    """Return the files of a study's results folder; `texts`: with the facts' texts; `derived`: with what was drawn.

    Raises UserError where one that the plan names is missing: the study is not finished; and at links.
    """
    results = Path(results)
    plan = planned(results)
    study = plan["study"]["study"]
    base = f"results/{study}"
    try:
        evals, point_choices = stems(plan, "evals"), stems(plan, "point_choices")
        manifests, data, shown = plan["manifests"], plan["data"], recovers(plan)
        runs = dict.fromkeys([*data, *point_choices, *manifests, *(stem.rpartition(".")[0] or stem for stem in evals)])
        if odd := [run for run in runs if not isinstance(run, str)]:
            raise TypeError(f"the name {odd[0]!r:.60}")
        # Name, the run that made it, and whether it must be there.
        wanted = [("runs.json", "", True), ("study.yaml", "", True)]
        wanted += [(f"specs/{run}.json", "", False) for run in runs]
        wanted += [(f"evals/{stem}.json", stem, True) for stem in evals]
        wanted += [(f"point_choices/{stem}.json", stem, True) for stem in point_choices]
        wanted += [(f"data/{name}/audit.json", name, True) for name in data]
        wanted += [(f"data/{name}/facts.jsonl", name, True) for name in data if texts]
        wanted += [(f"manifests/{run}.json", run, False) for run in manifests]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{results / 'runs.json'}: {error} is missing or garbled; start the study again") from None
    wanted += [(name, "", False) for name, _ in derived_files(shown) if derived]
    found = Contents(results, study, texts=texts, shown=shown, version=migrate.version_of(plan))
    for name, _, _ in wanted:  # before the disk is asked for any
        check_name(f"{base}/{name}", str(results))
    for name, _, needed in wanted:
        if _is_there(results, name, limit_of(f"{base}/{name}")):
            found.paths[f"{base}/{name}"] = results / name
        elif needed:
            raise UserError(f"{results / name}: no such file, but {results / 'runs.json'} names it; {FINISH}")
    makes = makers(results, plan)
    for name, run, _ in wanted:
        found.made[f"{base}/{name}"] = makes.get(run) or makes.get(run.rpartition(".")[0]) or UNKNOWN
    return found


def makers(results: Path, plan: dict) -> dict[str, tuple[str, str]]:
    """Return {run or dataset: (step, code)} of a plan's, where a manifest, a point choice or an audit says it."""
    paths = [(run, results / "manifests" / f"{run}.json", None) for run in plan["manifests"]]
    paths += [(run, results / "point_choices" / f"{run}.json", "choose") for run in stems(plan, "point_choices")]
    paths += [(name, results / "data" / name / "audit.json", "facts") for name in plan["data"]]
    found = {}
    for run, path, step in paths:
        said = strict_json(path.read_bytes(), str(path)) if path.is_file() else None
        said = said if isinstance(said, dict) else {}
        step, code = step or said.get("stage"), said.get("code")
        if isinstance(step, str) and isinstance(code, str):
            found[run] = step, code
    return found


def stale(results: Path, plan: dict) -> list[str]:
    """Say which code of a study's steps has changed since, and what it made: Snakemake knows it only of what it
    remembers to have made itself, in .snakemake.
    """
    return [
        f"the code of step {step} has changed since it made {', '.join(runs)}. What Snakemake remembers is made again, "
        f"results from elsewhere stay as they are; to make them again, too: --forcerun {RULES.get(step, step)}"
        for step, runs in changed(makers(results, plan)).items()
    ]


def derived_files(shown: bool) -> list[tuple[str, str]]:
    """Names below results/<study>/ of what is made of the scores, with the step that makes each."""
    found = [(f"tables/{name}.csv", "tables") for name in TABLES]
    if shown:
        found += [(f"figures/{name}.{kind}", "figure") for name in FIGURES for kind in ("svg", "png")]
        found += [("report.html", "report")]
    return found


def index(found: Contents) -> Index:
    """Return the index of files as they lie on disk now."""
    files = {}
    for name, path in sorted(found.paths.items()):
        step, code = found.made.get(name, (None, None))
        files[name] = Entry(path.stat().st_size, sha256(path), step, code)
    index = Index(found.version, found.study, found.texts, found.shown, files)
    read_index(written(index), f"results of {found.study}")
    return index


def written(index: Index) -> bytes:
    """Return an index as bundle.json, the same bytes for the same files."""
    files = {name: vars(entry) for name, entry in index.files.items()}
    rest = {"study": index.study, "texts": index.texts, "shown": index.shown}
    return (canonical_json({"format": FORMAT, "version": index.version, "files": files, **rest}) + "\n").encode()


def current(name: str, study: str) -> tuple[str, str] | None:
    """Step and code that make a derived file today."""
    step = dict(derived_files(True)).get(name.removeprefix(f"results/{study}/"))
    return (step, code_version(step)) if step else None

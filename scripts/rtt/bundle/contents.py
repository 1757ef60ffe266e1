"""What of a results folder goes into a bundle: what the plan names, and no more."""

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from rtt.bundle import migrate
from rtt.bundle.layout import (
    FORMAT,
    STUDY,
    VERSION,
    Entry,
    Index,
    check_name,
    read_index,
    strict_json,
)
from rtt.codeversion import changed, code_version
from rtt.errors import UserError
from rtt.files import canonical_json, sha256

TABLES = ("recovery", "accuracy", "contrasts", "variants")
FIGURES = ("accuracy", "recovery", "tradeoff", "curves", "sensitivity")
FINISH = "run the study to its end first"
UNKNOWN = None, None  # step and code
RULES = {"attack": "rtt rtt_original rtt_control", "import": "import_model"}  # by their steps, where named otherwise


@dataclass
class Contents:
    """Files by their names in a bundle. `made`: step and code of those that tell."""

    study: str
    paths: dict[str, Path] = field(default_factory=dict)
    made: dict[str, tuple[str | None, str | None]] = field(default_factory=dict)
    texts: bool = False
    shown: bool = False
    version: int = VERSION

    def copy(self, folder: Path, link: bool = False) -> None:
        """Copy all below `folder`; `link`: by hard links where nothing changes them in place."""
        for name, path in self.paths.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path, target) if link else shutil.copyfile(path, target)
            except OSError:
                shutil.copyfile(path, target)


def planned(results: Path) -> dict:
    """Return plan.json. Raises UserError where it is missing or not one that this program reads."""
    path = results / "plan.json"
    if not path.is_file():
        raise UserError(f"{path}: no such file; {FINISH}")
    plan = strict_json(path.read_bytes(), str(path))
    study = plan.get("study") if isinstance(plan, dict) else None
    if not isinstance(study, dict) or not STUDY.fullmatch(str(study.get("study"))):
        raise UserError(f"{path}: study.study is no study's name; start the study again, which writes it")
    return plan


def stems(plan: dict, key: str) -> list[str]:
    """Names of evaluations or selections over all variants of a plan of any version, each once."""
    parts = plan["variants"].values() if isinstance(plan.get("variants"), dict) else [plan]
    return list(dict.fromkeys(stem for part in parts for stem in part[key]))


def collect(results: str | Path, texts: bool = False, derived: bool = True) -> Contents:
    """Return the files of a study's results folder; `texts`: with the facts' texts; `derived`: with what was drawn.

    Raises UserError where one that the plan names is missing: the study is not finished.
    """
    results = Path(results)
    plan = planned(results)
    study = plan["study"]["study"]
    found = Contents(study, texts=texts, version=migrate.version_of(plan))
    base = f"results/{study}"

    def add(name: str, step: str | None = None, code: str | None = None, needed: bool = True) -> None:
        path = results / name
        if path.is_file():
            found.paths[check_name(f"{base}/{name}", str(results))] = path
            found.made[f"{base}/{name}"] = step, code
        elif needed:
            raise UserError(f"{path}: no such file, but {results / 'plan.json'} names it; {FINISH}")

    try:
        evals, selections = stems(plan, "evals"), stems(plan, "selections")
        manifests, data = plan["manifests"], plan["data"]
        stages = makers(results, plan)
        add("plan.json")
        add("study.yaml")
        for run in dict.fromkeys(
            [*data, *selections, *manifests, *(stem.rpartition(".")[0] or stem for stem in evals)]
        ):
            add(f"specs/{run}.json", needed=False)
        for stem in evals:
            add(f"evals/{stem}.json", *(stages.get(stem) or stages.get(stem.rpartition(".")[0]) or UNKNOWN))
        for stem in selections:
            add(f"selections/{stem}.json", *stages.get(stem, UNKNOWN))
        for name in data:
            add(f"data/{name}/audit.json", *stages.get(name, UNKNOWN))
            if texts:
                add(f"data/{name}/facts.jsonl", *stages.get(name, UNKNOWN))
        for run in manifests:
            add(f"manifests/{run}.json", *stages.get(run, UNKNOWN), needed=False)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{results / 'plan.json'}: {error} is missing or garbled; start the study again") from None
    # As in the Snakefile: recovery is of what was unlearned and attacked.
    found.shown = bool(selections) and any(stem.startswith("rtt-") for stem in evals)
    if derived:
        for name, step in derived_files(found.shown):
            add(name, step, needed=False)
    return found


def makers(results: Path, plan: dict) -> dict[str, tuple[str, str]]:
    """Return {run or dataset: (step, code)} of a plan's, where a manifest, a selection or an audit says it."""
    paths = [(run, results / "manifests" / f"{run}.json", None) for run in plan["manifests"]]
    paths += [(run, results / "selections" / f"{run}.json", "select") for run in stems(plan, "selections")]
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
    read_index(canonical_json(as_json(index)).encode(), f"results of {found.study}")
    return index


def as_json(index: Index) -> dict:
    """Return the content of bundle.json."""
    files = {name: vars(entry) for name, entry in index.files.items()}
    rest = {"study": index.study, "texts": index.texts, "shown": index.shown}
    return {"format": FORMAT, "version": index.version, "files": files, **rest}


def current(name: str, study: str) -> tuple[str, str] | None:
    """Step and code that make a derived file today."""
    step = dict(derived_files(True)).get(name.removeprefix(f"results/{study}/"))
    return (step, code_version(step)) if step else None

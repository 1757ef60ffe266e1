"""Say where the files lie that the project brings, and where a user's own lie: in a clone, or installed by pip.

| what | in a clone | installed |
|---|---|---|
| SHIPPED: Snakefile, rules, config, profiles, envs, data/sources.tsv | the clone | `shipped/` in the package |
| OWN: data/, profiles/slurm/site.yaml, the lock files of fetched models and texts | the clone | the current folder |
| results/, dist/, .snakemake/ | the current folder | the current folder |

setup.py copies SHIPPED into the wheel. Nothing is written there.
"""

import importlib.util
import os
import tempfile
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
INSTALLED = (PACKAGE / "shipped").is_dir()
SHIPPED = PACKAGE / "shipped" if INSTALLED else PACKAGE.parents[1]
OWN = Path() if INSTALLED else SHIPPED
SNAKEFILE = SHIPPED / "Snakefile"

# What pip installs only when asked: {module: the extra of pyproject.toml that brings it}.
EXTRAS = {
    "deepspeed": "deepspeed",
    "snakemake_executor_plugin_slurm": "slurm",
    "snakemake_executor_plugin_slurm_jobstep": "slurm",
    "flash_attn": "flash",
}


def work_folder() -> Path:
    """Return where a run puts its results: the current folder where that is a clone or pip installed us, else ours."""
    here = Path.cwd()
    return here if INSTALLED or is_clone(here) else SHIPPED


def is_clone(folder: Path) -> bool:
    """Return whether a folder has a workflow of ours; where pip installed us, other Snakefiles may lie around."""
    return (folder / "Snakefile").is_file() and (not INSTALLED or (folder / "scripts" / "rtt").is_dir())


def study_file(name: str | Path) -> Path:
    """Return the path of a study file, there or not.

    A file that is not there is looked for among the project's own: `config/smoke.yaml` names one from any folder, and
    so does `smoke` alone.
    """
    path = Path(name)
    if os.path.isfile(path) or path.is_absolute():
        return path
    inner = path if path.suffix else Path("config", f"{path}.yaml")
    return next((one for one in (inner, SHIPPED / inner) if os.path.isfile(one)), path)


def code_folder(folder: str | Path = ".") -> Path:
    """Return what goes onto PYTHONPATH so that steps run this code, in whichever environment they are.

    Of an installed package that is a folder below `folder`/.snakemake with a link to the package alone: the other
    packages beside it are no business of a conda environment.
    """
    if not INSTALLED:
        return PACKAGE.parent
    place = Path(folder).resolve() / ".snakemake" / "rtt"
    link = place / PACKAGE.name
    if not link.is_symlink() or link.readlink() != PACKAGE:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place) as scratch:  # jobs that start at once may all want to make it
            os.symlink(PACKAGE, Path(scratch, "link"))
            os.replace(Path(scratch, "link"), link)
    return place


def to_install(module: str) -> str:
    """Return the command that installs what a module needs."""
    extra = EXTRAS.get(module)
    if INSTALLED or extra == "flash":
        return f"pip install 'unlearning-rtt[{extra}]'" if extra else "pip install unlearning-rtt"
    return "make setup, then . .venv/bin/activate"


def missing(module: str) -> str | None:
    """Return what to say about a module that is not installed; None where it is."""
    if importlib.util.find_spec(module) is not None:
        return None
    return f"{module} is not installed: {to_install(module)}"

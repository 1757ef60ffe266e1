"""Say what an unfinished study lacks, so that its tables can be made of what is there."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from rtt.stats.variants import StudyRuns

COLUMNS = ["variant", "run", "step", "file"]
SHOWN = 8  # runs that a note names


@dataclass(frozen=True)
class Missing:
    """A file that a variant of a study lacks; `run` makes it, in the step that its name begins with."""

    variant: str
    run: str
    file: str

    @property
    def step(self) -> str:
        """Return the command that makes the file."""
        return self.run.partition("-")[0]


def present(runs: StudyRuns, evals: Path, point_choices: Path) -> tuple[StudyRuns, list[Missing]]:
    """Return the study's runs without the files that are not there, and those."""
    variants, missing = {}, []
    for name, variant in runs.variants.items():
        kept = {}
        for key, folder in (("evals", evals), ("point_choices", point_choices)):
            kept[key] = [stem for stem in getattr(variant, key) if (folder / f"{stem}.json").is_file()]
            lost = [stem for stem in getattr(variant, key) if stem not in kept[key]]
            missing += [Missing(name, stem.split("/")[0], str(folder / f"{stem}.json")) for stem in lost]
        variants[name] = replace(variant, evals=tuple(kept["evals"]), point_choices=tuple(kept["point_choices"]))
    return replace(runs, variants=variants), missing


def table(missing: Sequence[Missing]) -> pd.DataFrame:
    """Return a row per missing file."""
    return pd.DataFrame([(one.variant, one.run, one.step, one.file) for one in missing], columns=COLUMNS)


def note(missing: Sequence[Missing], results: Path) -> str:
    """Return what is missing, which runs make it, and how to go on."""
    if not missing:
        return f"{results}: nothing is missing; `python -m rtt tables` without --partial writes the finished tables"
    runs: dict[str, set[str]] = {}
    for one in missing:
        runs.setdefault(one.run, set()).add(one.file)
    lines = [f"{results}: UNFINISHED, {sum(map(len, runs.values()))} files are missing. Runs that make them:"]
    lines += [f"  {run}" + f" ({len(files)} files)" * (len(files) > 1) for run, files in list(runs.items())[:SHOWN]]
    lines += [f"  and {len(runs) - SHOWN} more"] * (len(runs) > SHOWN)
    return "\n".join([*lines, f"To go on: python -m rtt run --configfile {results / 'study.yaml'}"])

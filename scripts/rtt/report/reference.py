"""The project's own results, `results/reference/`: one compact bundle, whose tables may be shown beside a study's.

They are read as they stand in the bundle. `make figures` makes them again from its answers, and compares.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from rtt import places
from rtt.code_version import Maker, changed, code_version
from rtt.figures.tables import typed
from rtt.figures.view import View, make_view
from rtt.stats.tables import ACCURACY_COLUMNS, read_table
from rtt.study.schema import Study
from rtt.study.strict import AS_WRITTEN

FOLDER = places.SHIPPED / "results/reference"
# Keys of a study that decide what its numbers mean. Of SHARED those parts count that both studies have, some at least.
ALIKE = ("data", "model", "pretraining", "teaching", "scores", "point_choice", "retain_budgets", "faithful", "criteria")
SHARED = ("methods", "attacks")
SHOWN = ("recovery", "probes", "seeds")  # tables of which a view is made


@dataclass(frozen=True, eq=False)
class Reference:
    """The tables of the reference bundle. They are shared: change nothing in them."""

    name: str  # of the bundle: its study and hash
    study: Mapping[str, Any]  # as in its runs.json
    tables: Mapping[str, pd.DataFrame]  # by name, such as seeds, recovery, runs and probes; accuracy is not among them
    changed: tuple[str, ...]  # steps whose code has changed since: what they make today may differ

    def view(self, like: View) -> View | None:
        """Return what figures show of it, by the attack, budget, look choice and probe of another view; or None."""
        tables = self._typed()
        rows = tables["recovery"]
        asked = {name: getattr(like, name) for name in ("attack", "look_choice", "probe", "budget")}
        same = np.isclose(rows["retain_budget"], like.budget)
        for name in ("attack", "look_choice", "probe"):
            same &= rows[name] == asked[name]
        if not same.any():
            return None
        return self._view(tables, **asked)

    def own_view(self) -> View:
        """Return what figures show of it by what it reports first, without accuracy.csv."""
        return self._view(self._typed())

    def _typed(self) -> dict[str, pd.DataFrame]:
        return {name: typed(f"{self.name}: {name}.csv", self.tables[name].copy()) for name in SHOWN}

    def _view(self, tables: Mapping[str, pd.DataFrame], **asked: Any) -> View:
        accuracy = pd.DataFrame(columns=ACCURACY_COLUMNS)
        return make_view(tables["recovery"], accuracy, tables["probes"], tables["seeds"], **asked)

    def fits(self, study: Mapping[str, Any]) -> bool:
        """Return whether a study, as in a runs.json, is one of its seeds: all that decides the numbers is the same."""
        one, other = canonical(study), canonical(self.study)

        def shared(key: str) -> bool:
            parts = [
                {name: value for name, value in (found.get(key) or {}).items() if value is not None}
                for found in (one, other)
            ]
            both = parts[0].keys() & parts[1].keys()
            return bool(both) and all(parts[0][name] == parts[1][name] for name in both)

        return all(one.get(key) == other.get(key) for key in ALIKE) and all(map(shared, SHARED))


def canonical(study: Mapping[str, Any]) -> dict[str, Any]:
    """Return a study as plain values, without keys at the value that they had before they existed.

    So a key that was added later, to a method's settings for one, tells an older study from no new one. A study that
    this version cannot read is compared as it stands.
    """
    try:
        return Study.model_validate_json(json.dumps(study), context=AS_WRITTEN).canonical()
    except ValidationError:
        return dict(study)


def read(study: Mapping[str, Any] | None = None, folder: Path = FOLDER) -> Reference | None:
    """Return the reference; None where there is none, it is damaged, or other code made its tables.

    study: a study as in runs.json, to which the reference must fit (`Reference.fits`), or None is returned. Opening it
    takes some tenths of a second, and only once.
    """
    found = bundles(folder)
    if len(found) != 1:
        return None
    found = _open(found[0], found[0].stat().st_mtime_ns)
    return None if found is None or (study is not None and not found.fits(study)) else found


def bundles(folder: Path = FOLDER) -> list[Path]:
    """Return the bundles in a folder; of the reference there is one, or none."""
    return sorted(folder.glob("*.zip"))


@lru_cache(maxsize=1)
def _open(path: Path, changed_at: int) -> Reference | None:
    try:
        with zipfile.ZipFile(path) as archive:
            index = json.loads(archive.read("bundle.json"))
            start, files = f"results/{index['study']}/", index["files"]
            names = [name for name in files if name.startswith(f"{start}tables/")]
            if not names or any(files[name]["code"] != code_version("tables") for name in names):
                return None
            wanted = {name: archive.read(name) for name in (*names, f"{start}runs.json")}
        if any(hashlib.sha256(data).hexdigest() != files[name]["sha256"] for name, data in wanted.items()):
            return None
        made = {
            name: Maker(*(entry[key] for key in ("step", "code", "plugin")))
            for name, entry in files.items()
            if name.startswith((f"{start}manifests/", f"{start}point_choices/")) and entry["code"]
        }
        study = json.loads(wanted[f"{start}runs.json"])["study"]
        tables = {Path(name).stem: read_table(io.BytesIO(wanted[name])) for name in names}
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, TypeError):
        return None
    return Reference(path.stem, study, tables, tuple(changed(made)))

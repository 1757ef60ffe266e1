"""Settings that come later: a new key renames no run, and a changed default renames the runs that it touches.

The edits are made in a copy of the package, as a later version would have them.
"""

import json
import os
import shutil
import subprocess
import sys
from typing import Annotated

import pytest
import yaml
from places import ROOT
from pydantic import Field
from rtt.files import canonical_json
from rtt.study.expand import Runs
from rtt.study.load import load_study
from rtt.study.strict import AS_WRITTEN, Introduced, Strict, introduced

STUDIES = ("config/smoke.yaml", "config/config.yaml")
# What a later version prints: the specs of studies by id, and those files read back.
PROGRAM = """
import json, sys
from pathlib import Path
from rtt.study.expand import Runs
from rtt.study.load import load_study
from rtt.study.specs import SPECS, load_spec
specs = {spec.run_id: spec.canonical() for path in sys.argv[2:] for spec in Runs(load_study(path)).specs()}
old = {path.stem: load_spec(path, *SPECS).model_dump() for path in Path(sys.argv[1]).glob("*.json")}
print(json.dumps({"specs": specs, "old": old}))
"""
KEY = "    retain_coefficient: Annotated[float, Field(ge=0)] = 1.0\n"
NEW = "    ramp: Annotated[float, Introduced(0.0)] = {default}\n"


class Later:
    """A copy of the package that can be edited, and what it makes of studies and of spec files."""

    def __init__(self, folder):
        self.folder = folder
        shutil.copytree(ROOT / "scripts/rtt", folder / "scripts/rtt", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "config", folder / "config")
        shutil.copytree(ROOT / "data", folder / "data", ignore=shutil.ignore_patterns("external"))
        (folder / "specs").mkdir()

    def edit(self, file, old, new):
        path = self.folder / file
        text = path.read_text()
        assert text.count(old) == 1, f"{file}: {old!r}"
        path.write_text(text.replace(old, new))

    def add(self, default):
        self.edit("scripts/rtt/study/settings.py", KEY, KEY + NEW.format(default=default))

    def found(self, *studies):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, "specs", *studies], cwd=self.folder, capture_output=True, text=True,
            env=os.environ | {"PYTHONPATH": str(self.folder / "scripts")},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def later(tmp_path):
    return Later(tmp_path)


def now(*studies):
    """Return the specs of studies by id, as this version has them."""
    return {spec.run_id: spec for path in studies for spec in Runs(load_study(path)).specs()}


def holding(specs, key):
    """Return the ids of specs that hold a key, at any depth."""

    def holds(part):
        if isinstance(part, list):
            return any(map(holds, part))
        return isinstance(part, dict) and (key in part or any(map(holds, part.values())))

    return {run_id for run_id, spec in specs.items() if holds(spec.canonical())}


def test_an_optional_key_renames_no_run(later):
    later.add(0.0)
    assert later.found(*STUDIES)["specs"].keys() == now(*STUDIES).keys()


def test_a_new_key_with_another_default_renames_the_runs_that_it_touches(later):
    """Its introduction value is what happened before; what happens by default from now on is something else."""
    later.add(0.5)
    before, after = now(*STUDIES), later.found(*STUDIES)["specs"]
    touched = holding(before, "mcq_share")  # a key that all settings of unlearning have, and no others
    kinds = {before[run_id].kind for run_id in touched}
    assert kinds == {"unlearn", "point_choice", "attack"}
    assert before.keys() - after.keys() == touched
    assert len(after) == len(before)


def test_who_asks_for_the_introduction_value_has_the_runs_from_before(later):
    later.add(0.5)
    raw = yaml.safe_load((ROOT / STUDIES[0]).read_text())
    raw["methods"]["GD"]["ramp"] = 0.0
    (later.folder / "own.yaml").write_text(yaml.safe_dump(raw))
    assert later.found("own.yaml")["specs"].keys() == now(STUDIES[0]).keys()


def test_spec_files_from_before_a_key_mean_its_introduction_value(later):
    before = now(*STUDIES)
    for run_id, spec in before.items():
        (later.folder / f"specs/{run_id}.json").write_text(canonical_json(spec.canonical()))
    later.add(0.5)
    old = later.found()["old"]
    assert old.keys() == before.keys()
    ramps = {run["settings"]["ramp"] for run in old.values() if run["kind"] == "unlearn"}
    assert ramps == {0.0}


def test_spec_files_come_back_with_a_key_that_is_at_its_default(later):
    later.add(0.5)
    specs = later.found(*STUDIES)["specs"]
    for run_id, spec in specs.items():
        (later.folder / f"specs/{run_id}.json").write_text(canonical_json(spec))
    old = later.found()["old"]
    assert old.keys() == specs.keys()
    assert {run["settings"]["ramp"] for run in old.values() if run["kind"] == "unlearn"} == {0.5}


def test_a_flipped_default_renames_the_runs_that_it_touches(later):
    """Of two methods one leaves the key to its default, and the other one sets it."""
    raw = yaml.safe_load((ROOT / STUDIES[1]).read_text())
    raw["methods"] = {name: raw["methods"][name] for name in ("GD", "NPO")}
    raw["methods"]["GD"].pop("mcq_loss", None)
    raw["methods"]["NPO"]["mcq_loss"] = "QUESTION_LETTER_ANSWER"
    raw["attack_jobs"] = "method"
    (later.folder / "own.yaml").write_text(yaml.safe_dump(raw))
    before = now(later.folder / "own.yaml")
    later.edit(
        "scripts/rtt/study/settings.py",
        '    mcq_loss: McqLoss = "QUESTION_LETTER_ANSWER"\n',
        '    mcq_loss: McqLoss = "LETTER_ANSWER"\n',
    )
    after = later.found("own.yaml")["specs"]
    touched = {run_id for run_id, spec in before.items() if "GD" in run_id}
    assert {before[run_id].kind for run_id in touched} == {"unlearn", "point_choice", "attack"}
    assert before.keys() - after.keys() == touched


class Inner(Strict):
    old: int
    new: Annotated[int, Introduced(7)] = 3


class Outer(Strict):
    inner: Inner
    several: list[Inner] = Field(default_factory=list)
    named: dict[str, Inner] = Field(default_factory=dict)
    extra: Annotated[str | None, Field(description="beside a field's own description"), Introduced(None)] = None


def test_the_canonical_form_leaves_out_introduction_values_at_any_depth():
    old = Inner(old=1, new=7)
    assert introduced(Inner) == {"new": 7} and introduced(Outer) == {"extra": None}
    assert old.canonical() == {"old": 1}
    assert Inner(old=1).canonical() == {"old": 1, "new": 3}
    found = Outer(inner=old, several=[old, Inner(old=2)], named={"a": old}, extra="x").canonical()
    expected = {"inner": {"old": 1}, "several": [{"old": 1}, {"old": 2, "new": 3}], "named": {"a": {"old": 1}}}
    assert found == expected | {"extra": "x"}


def test_only_older_files_take_introduction_values():
    raw = '{"inner": {"old": 1}, "several": [{"old": 2}], "named": {"a": {"old": 3, "new": 4}}}'
    fresh = Outer.model_validate_json(raw)
    assert (fresh.inner.new, fresh.several[0].new, fresh.named["a"].new) == (3, 3, 4)
    older = Outer.model_validate_json(raw, context=AS_WRITTEN)
    assert (older.inner.new, older.several[0].new, older.named["a"].new) == (7, 7, 4)

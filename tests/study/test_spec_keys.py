"""The frozen list of keys (scripts/spec_keys.py): what may be added to it, and what is refused."""

import importlib.util
import json
from typing import Annotated

import pytest
from places import ROOT
from rtt.study import plugins
from rtt.study.strict import Introduced, Strict

spec = importlib.util.spec_from_file_location("spec_keys", ROOT / "scripts/spec_keys.py")
spec_keys = importlib.util.module_from_spec(spec)
spec.loader.exec_module(spec_keys)


class Base(Strict):
    seed: int


class Part(Strict):
    size: int


class Whole(Base):
    part: Part | None
    parts: list[Part]


KNOWN = spec_keys.keys_of(Whole)


def test_no_key_of_studies_and_specs_would_rename_a_run():
    assert spec_keys.text() == spec_keys.FILE.read_text(), "run: python scripts/spec_keys.py"


def test_keys_of_all_parts_are_found_where_they_are_defined():
    assert KNOWN == {
        "Base": {"keys": ["seed"], "introduced": {}},
        "Part": {"keys": ["size"], "introduced": {}},
        "Whole": {"keys": ["part", "parts"], "introduced": {}},
    }
    known = json.loads(spec_keys.FILE.read_text())
    own = {plugin.Settings.__name__ for plugin in (*plugins.methods().values(), *plugins.attacks().values())}
    assert own <= known.keys() and "learning_rate" in known["Training"]["keys"]
    assert known["RMUSettings"]["keys"] == ["layer", "layers_trained", "steering", "train_layers"]


def test_a_new_key_needs_its_introduction_value():
    class Marked(Part):
        new: Annotated[float, Introduced(0.5)] = 1.0

    class Bare(Part):
        new: float = 1.0

    with pytest.raises(ValueError, match=r"Part\.new is new: give it Introduced"):
        spec_keys.checked(KNOWN, KNOWN | {"Part": {"keys": ["new", "size"], "introduced": {}}})
    now = KNOWN | {"Part": {"keys": ["size"], "introduced": {"new": 0.5}}}
    assert spec_keys.checked(KNOWN, now) == now
    assert spec_keys.keys_of(Marked)["Marked"] == {"keys": [], "introduced": {"new": 0.5}}
    assert spec_keys.keys_of(Bare)["Bare"] == {"keys": ["new"], "introduced": {}}


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"keys": ["size"], "introduced": {"new": 0.6}}, "Part.new: the introduction value 0.5 became 0.6"),
        ({"keys": ["new", "size"], "introduced": {}}, "Part.new: its introduction value is gone; it is 0.5"),
        ({"keys": [], "introduced": {"new": 0.5, "size": 1}}, "Part.size: was there before ids were frozen"),
        ({"keys": ["size"], "introduced": {}}, "Part.new is gone"),
        (None, "Part is gone"),
    ],
)
def test_a_change_that_renames_runs_is_refused(found, message):
    known = KNOWN | {"Part": {"keys": ["size"], "introduced": {"new": 0.5}}}
    now = {name: keys for name, keys in known.items() if name != "Part"} | ({"Part": found} if found else {})
    with pytest.raises(ValueError, match=message):
        spec_keys.checked(known, now)


def test_a_new_model_is_taken_in_as_it_is():
    now = KNOWN | {"SimNPOSettings": {"keys": ["beta"], "introduced": {}}}
    assert spec_keys.checked(KNOWN, now) == now


def test_two_models_of_one_name_are_refused():
    other = type("Part", (Strict,), {"__annotations__": {"length": int}})

    class Both(Strict):
        one: Part
        two: other

    with pytest.raises(ValueError, match="have the same name"):
        spec_keys.keys_of(Both)

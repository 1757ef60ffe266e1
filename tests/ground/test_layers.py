"""The layers of the package: which folder may import which (scripts/layers.py, docs/architecture.md)."""

import sys

import pytest
from places import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import layers

ROOMS = layers.rooms()
GROUND = {room for room in ROOMS if not (layers.PACKAGE / room).is_dir()}  # single modules beside the folders


def reached(module: str) -> set[str]:
    """Return the modules that `module` imports, directly or through others."""
    graph, found, new = layers.imports(), set(), {module}
    while new:
        found |= new
        new = set().union(*(graph[one] for one in new)) - found
    return found


def test_no_folder_imports_itself_through_others():
    assert layers.cycle(ROOMS) == []
    assert layers.cycle(layers.imports()) == [], "modules of one folder import each other in a circle"


def test_there_are_at_most_forty_rooms():
    assert len(ROOMS) <= 40


@pytest.mark.parametrize(
    "folder, forbidden",
    [
        ("study", set(ROOMS) - GROUND - {"study"}),  # what a study means rests on nothing
        ("data", {"models", "training", "methods", "attacks", "steps", "planner", "runtime"}),
        ("training", {"runtime", "planner", "steps", "methods", "attacks", "scoring"}),  # nothing of SLURM
        ("methods", {"attacks", "scoring", "steps", "stats", "planner", "runtime"}),
        ("attacks", {"methods", "scoring", "steps", "stats", "planner", "runtime"}),
        ("stats", {"figures", "report", "steps", "training", "models", "planner", "runtime"}),
        ("figures", {"report", "steps", "training", "models", "planner", "runtime"}),
        ("report", {"steps", "training", "models", "planner", "runtime", "bundle"}),
    ],
)
def test_a_folder_imports_none_of_those_above_it(folder, forbidden):
    assert not ROOMS[folder] & forbidden


def test_what_the_snakefile_imports_needs_no_planner_for_a_study():
    """The planner stands on the specs, so it must not lie under them."""
    for module in layers.modules():
        if module.startswith("study."):
            assert not [one for one in reached(module) if one.split(".")[0] in ("planner", "runtime", "steps")], module


def test_a_cycle_is_found():
    assert layers.cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})[0] in "abc"
    assert layers.floors({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == {"c": 0, "b": 1, "a": 2}


def test_imports_are_read_wherever_they_stand(tmp_path):
    package = tmp_path / "pack"
    (package / "inner").mkdir(parents=True)
    (package / "inner" / "__init__.py").touch()
    (package / "inner" / "one.py").write_text("def f():\n    from pack.inner import two\n    import pack.ground\n")
    (package / "inner" / "two.py").write_text("from pack.inner.one import f\n")
    (package / "ground.py").write_text("import os\n")
    assert layers.imports(package)["inner.one"] == {"inner.two", "ground"}
    assert layers.rooms(package) == {"inner": {"ground"}, "ground": set()}
    assert set(layers.cycle(layers.imports(package))) == {"inner.one", "inner.two"}

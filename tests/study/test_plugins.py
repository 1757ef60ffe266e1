"""Plug-ins are found by their files: what is taken, in which order, and what is refused with file and reason."""

import shutil
import subprocess
import sys

import pytest
import rtt.methods
import tiny
from places import ROOT
from rtt.errors import UserError
from rtt.study import plugins
from rtt.study.expand import Runs
from rtt.study.settings import Unlearning
from rtt.study.specs import UnlearnSpec

TOY = '''
from rtt.methods.base import Method
from rtt.study.settings import Positive, Unlearning


class Toy(Method):
    """Nothing (Nobody 2020)."""

    name, title, order = "Toy", "a toy", 1

    class Settings(Unlearning):
        beta: Positive = 0.5

    def loss(self, model, batch):
        return {}
'''


@pytest.fixture
def add(tmp_path, monkeypatch):
    """Return a function that adds a file to the methods, in a folder of the test."""
    monkeypatch.setattr(rtt.methods, "__path__", [*rtt.methods.__path__, str(tmp_path)])
    plugins.found.cache_clear()

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        plugins.found.cache_clear()
        return tmp_path / f"{name}.py"

    yield write
    plugins.found.cache_clear()
    for name in [name for name in sys.modules if name.startswith("rtt.methods.own_")]:
        del sys.modules[name]


def test_the_methods_stand_in_the_order_of_their_classes():
    assert list(plugins.methods()) == ["GD", "RMU", "RIA", "FIF", "NPO"]
    assert [plugins.module_of("methods", name) for name in ("GD", "RTT", "elsewhere")] == ["methods.gd", "", ""]
    assert plugins.module_of("attacks", "RTT") == "attacks.rtt"
    names = ["FIF", "Zed", "Ann", "GD"]
    assert sorted(names, key=lambda name: plugins.place("methods", name)) == ["GD", "FIF", "Ann", "Zed"]


def test_a_file_is_a_method(add):
    add("own_toy", TOY)
    assert list(plugins.methods()) == ["GD", "Toy", "RMU", "RIA", "FIF", "NPO"]
    assert plugins.module_of("methods", "Toy") == "methods.own_toy"
    assert plugins.methods()["Toy"].Settings.__name__ == "ToySettings"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TOY.replace('"Toy"', '"GD"'), ["own_toy.py", "'GD'", "gd.py", "each needs its own"]),
        ("x = 1\n", ["own_toy.py: found none", "one subclass of Method with a `name`"]),
        (TOY.replace('"Toy", "a toy"', "None, None"), ["own_toy.py: found none"]),
        (TOY + TOY.replace("Toy", "Other"), ["own_toy.py: found Toy, Other", "one subclass"]),
        (TOY.replace("def loss", "def lost"), ["own_toy.py: Toy does not define loss"]),
        (TOY.replace("name, title, order", "name, texts, order").replace("a toy", "true"), ["does not define title"]),
        (TOY.replace("def loss", "def loss loss"), ["own_toy.py", "SyntaxError", "line 14"]),
        ("import math\n1 / 0\n", ["own_toy.py:2", "ZeroDivisionError"]),
        ("import nowhere_to_be_found\n", ["own_toy.py:1", "No module named 'nowhere_to_be_found'"]),
        (TOY.replace("order = ", "texts = ").replace("1\n", '"invented"\n', 1), ["own_toy.py:6", "Toy.texts is 'inv"]),
    ],
)
def test_a_file_that_is_no_method_is_named(add, text, words):
    add("own_toy", text)
    with pytest.raises(UserError) as error:
        plugins.methods()
    assert all(word in str(error.value) for word in words), error.value


def settings_of(name, **more):
    shared = {"learning_rate": 1e-3, "batch_size": 4, "points": [1]}
    return plugins.methods()[name].Settings(**shared, **more)


def spec_of(name, settings):
    """Return the spec of a trajectory of the tiny study, of another method."""
    spec = next(iter(Runs(tiny.study()).unlearn.values()))
    return UnlearnSpec(**{key: getattr(spec, key) for key in UnlearnSpec.model_fields} | {
        "method": name, "settings": settings,
    })  # fmt: skip


def other(settings, key):
    """Return settings with another value of a key, any that they admit."""
    for value in (0.25, 0.75, 1, 2, 3, True, False, "x", [1]):
        try:
            found = type(settings).model_validate(settings.model_dump() | {key: value})
        except ValueError:
            continue
        if getattr(found, key) != getattr(settings, key):
            return found
    return None


def check_own_keys(name):
    """Check that each key that a method adds survives the way to JSON and back, and has a say in the run's id."""
    settings = settings_of(name)
    before = spec_of(name, settings)
    own = [key for key in type(settings).model_fields if key not in Unlearning.model_fields]
    for key in own:
        changed = other(settings, key)
        assert changed is not None, f"{name}.{key}: no other value found; add one to `other`"
        spec = spec_of(name, changed)
        back = UnlearnSpec.model_validate_json(spec.model_dump_json())
        assert back == spec and type(back.settings) is type(settings)
        assert getattr(back.settings, key) == getattr(changed, key) != getattr(settings, key)
        assert back.run_id == spec.run_id != before.run_id
    return own


@pytest.mark.parametrize("name", plugins.methods())
def test_a_methods_own_keys_survive_in_specs(name):
    check_own_keys(name)


def test_the_own_key_of_a_new_method_survives_in_specs(add):
    add("own_toy", TOY)
    assert check_own_keys("RMU") == ["layer", "layers_trained", "steering"]
    assert check_own_keys("Toy") == ["beta"]
    with pytest.raises(ValueError, match="beta"):
        UnlearnSpec.model_validate_json(spec_of("Toy", settings_of("Toy")).model_dump_json().replace('"Toy"', '"GD"'))
    unknown = spec_of("Toy", settings_of("Toy")).model_dump_json().replace('"Toy"', '"Gone"')
    with pytest.raises(ValueError, match="no plug-in 'Gone'; there are GD, Toy"):
        UnlearnSpec.model_validate_json(unknown)


def test_a_methods_own_numbers_may_stand_in_a_grid(add):
    add("own_toy", TOY)
    found = settings_of("Toy", grid={"beta": [0.1, 0.2], "learning_rate": [1.0]}).trajectories()
    assert [(one.beta, one.learning_rate, one.grid) for one in found] == [(0.1, 1.0, {}), (0.2, 1.0, {})]
    with pytest.raises(ValueError, match="grid: found beta; allowed: learning_rate, retain_coefficient"):
        settings_of("GD", grid={"beta": [0.1]})


def test_reading_a_study_imports_no_torch():
    code = "import sys, rtt.study.expand, rtt.study.load; print({'torch', 'transformers', 'numpy'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "scripts", capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_a_broken_file_is_one_message_of_the_command_line(tmp_path):
    shutil.copytree(ROOT / "scripts/rtt", tmp_path / "scripts/rtt", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "data", tmp_path / "data", ignore=shutil.ignore_patterns("external"))
    broken = tmp_path / "scripts/rtt/methods/broken.py"
    broken.write_text("import math\n1 / 0\n")
    done = subprocess.run(
        [sys.executable, "-m", "rtt", "check", "--schema"], cwd=tmp_path / "scripts", capture_output=True, text=True
    )
    assert done.returncode == 1 and not done.stdout
    assert done.stderr == f"error: {broken}:2: cannot be imported: ZeroDivisionError: division by zero\n"

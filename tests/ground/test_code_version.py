"""The hash of a run's code: which edits change it, on a copied package; and that the closure misses no import."""

import ast
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from places import ROOT
from rtt import code_version
from rtt.commands import COMMANDS
from rtt.study import plugins

PACKAGE = Path(code_version.__file__).parent
STEPS = (
    "generate", "fetch", "facts", "import", "pretrain", "original", "teach", "unlearn", "choose", "attack", "tables",
    "figure", "report", "unpack",
)  # fmt: skip
# A run of `unlearn` or `attack` has the code of its method or attack, too.
RUNS = {
    *((step, None) for step in STEPS),
    *(("unlearn", name) for name in plugins.methods()),
    *(("attack", name) for name in plugins.attacks()),
}


def forget():
    """Forget what was read: the tests edit files in place."""
    code_version.code_version.cache_clear()
    code_version.imported.cache_clear()


def versions():
    forget()
    return {run: code_version.code_version(*run) for run in RUNS}


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """Return a copy of the package and the hashes of its runs; edits of the copy are undone by who makes them."""
    folder = tmp_path_factory.mktemp("copied") / "rtt"
    shutil.copytree(PACKAGE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(code_version, "PACKAGE", folder)
        return folder, versions()


@pytest.fixture
def package(copied, monkeypatch):
    monkeypatch.setattr(code_version, "PACKAGE", copied[0])
    yield copied
    forget()


def edited(package, name, old, new):
    """Return the runs whose hash an edit of a file changes; the file is as before afterwards."""
    before, path = package[1], package[0] / name
    text = path.read_text()
    assert text.count(old) == 1, f"{name}: {old!r} stands there {text.count(old)} times"
    path.write_text(text.replace(old, new))
    after = versions()
    path.write_text(text)
    return {run for run in RUNS if after[run] != before[run]}


METHODS = {("unlearn", name) for name in plugins.methods()}
ATTACKS = {("attack", name) for name in plugins.attacks()}
ON_RTT = {("attack", name) for name, one in plugins.attacks().items() if issubclass(one, plugins.attacks()["RTT"])}


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("training/train.py", "import sys\n", "import sys\n\n\n# a comment\n"),
        ("training/losses.py", '"""Return each text', '"""Return every text'),
        ("training/losses.py", "(values * mask).sum(1), mask.sum(1)", "(values *   mask).sum(1), (mask.sum(1))"),
        ("methods/gd.py", "(Deeb & Roger 2024, sec. 4.1; Maini et al. 2024)", "(somebody else)"),
        ("methods/gd.py", 'title = "gradient difference', 'title = "a difference of gradients'),
        ("methods/gd.py", '1, "#0072B2", "-", "o"', '7, "#000000", "--", "x"'),
        ("methods/rmu.py", 'head, copy_reads = False, ("retain",)', 'head, copy_reads = True, ("retain", "forget")'),
        ("methods/rmu.py", "steering: Positive = 20.0", "steering: Positive = 40.0"),
        (
            "methods/rmu.py",
            "        steering: Positive = 20.0\n",
            "        steering: Positive = 20.0\n        power: Annotated[float, Introduced(2.0)] = 2.0\n",
        ),
        ("methods/rmu.py", "import Count, Layer, ", "import Count, Fraction, Layer, "),
        ("methods/rmu.py", "from pydantic import Field", "from typing import Annotated\n\nfrom pydantic import Field"),
        ("study/settings.py", "steps: Steps", "steps: Steps = 5"),
        ("runtime/locks.py", "import os\n", "import os\n\nX = 1\n"),
        ("planner/costs.py", "AUTHORS_PER_SPLIT = 157", "AUTHORS_PER_SPLIT = 158"),
        ("scoring/manifest.py", '"seed": self.spec.seed', '"random_seed": self.spec.seed'),
    ],
)  # fmt: skip
def test_what_is_in_no_number_changes_nothing(package, name, old, new):
    assert edited(package, name, old, new) == set()


def test_a_new_plugin_changes_nothing(package):
    folder, before = package
    added = [folder / room / "another.py" for room in code_version.PLUGINS]
    for path in added:
        path.write_text("x = 1\n")
    assert versions() == before
    for path in added:
        path.unlink()


def steps(*names):
    """Return the runs of some steps, whatever their method or attack."""
    return {run for run in RUNS if run[0] in names}


@pytest.mark.parametrize(
    ("name", "old", "new", "changed"),
    [
        ("methods/gd.py", "-forget + ", "forget + ", {("unlearn", "GD")}),
        ("methods/ria.py", "forget + self", "2 * forget + self", {("unlearn", "RIA"), ("unlearn", "FIF")}),
        ("methods/fif.py", '"fixed_wrong"', '"random_wrong"', {("unlearn", "FIF")}),
        ("methods/rmu.py", "torch.rand(", "torch.randn(", {("unlearn", "RMU")}),
        ("methods/base.py", "return fact.answer", "return 0", METHODS),
        ("attacks/rtt.py", "seeded(30)", "seeded(29)", ON_RTT),
        ("attacks/rtt_permuted.py", "seeded(31)", "seeded(29)", {("attack", "RTT_permuted"), ("attack", "relearn")}),
        ("attacks/quantise.py", ".round()", ".floor()", {("attack", "quantise")}),
        ("steps/unlearn.py", "[spec.seed, 20, ", "[spec.seed, 21, ", steps("unlearn")),
        ("steps/teach.py", "[spec.seed, 11]", "[spec.seed, 12]", steps("teach")),
        ("steps/pretrain.py", "[spec.seed, 10]", "[spec.seed, 11]", steps("pretrain")),
        ("training/train.py", "else (0.9", "else (0.8", steps("pretrain", "teach", "original", "unlearn", "attack")),
        ("data/text.py", "end > before", "end >= before", steps("pretrain", "teach", "original", "unlearn", "attack")),
        ("data/reader.py", "import re\n", "import re\n\nX = 1\n", steps("facts")),
        ("point_choice/kept_weights.py", "if point in chosen", "if point not in chosen", steps("unlearn", "choose")),
        ("data/generate.py", "np.arange(size) % 4", "np.arange(size) % 3", steps("generate", "pretrain")),
        ("models/miniature.py", "tie_word_embeddings=True", "tie_word_embeddings=False", steps("pretrain")),
    ],
)
def test_logic_changes_its_runs(package, name, old, new, changed):
    assert edited(package, name, old, new) == changed


def test_what_stands_in_the_report_changes_the_report(package):
    """Its templates, and the version of the program."""
    template = "report/templates/caveats.html.j2"
    first = (package[0] / template).read_text().splitlines()[0]
    for found in (
        edited(package, template, f"{first}\n", f"{first} \n"),
        edited(package, "__init__.py", '__version__ = "', '__version__ = "9'),
    ):
        assert ("report", None) in found
        assert not found & steps("pretrain", "teach", "unlearn", "choose", "attack", "tables", "figure")


def test_other_locked_packages_are_other_code_of_what_draws(package, tmp_path, monkeypatch):
    before, lock = package[1], tmp_path / "requirements-analysis.lock"
    lock.write_bytes(code_version.LOCK.read_bytes() + b"more==1.0\n")
    monkeypatch.setattr(code_version, "LOCK", lock)
    after = versions()
    assert {run for run in RUNS if after[run] != before[run]} == steps("tables", "figure", "report")


def test_both_locks_have_the_same_versions():
    """So that the hash of one is right for whoever has the other's environment."""
    whole, analysis = (
        dict(re.findall(r"^([a-z0-9._-]+)==([^ \\;]+)", path.read_text(), re.MULTILINE))
        for path in (code_version.LOCK.with_name("requirements.lock"), code_version.LOCK)
    )
    assert len(analysis) > 20 and analysis.items() <= whole.items()


def test_changed_names_what_other_code_made():
    now = code_version.code_version("unlearn", "GD")
    made = {
        "a": code_version.Maker("unlearn", now, "GD"),
        "b": code_version.Maker("unlearn", now, "RMU"),
        "c": code_version.Maker("teach", "0123456789"),
        "d": code_version.Maker("a step of another program", "0123456789"),
    }
    assert re.fullmatch("[0-9a-f]{10}", now)
    assert code_version.changed(made) == {"unlearn": ["b"], "teach": ["c"]}


# ---- the closure

TREE = {
    "__init__.py": "",
    "top.py": "import json\nfrom pkg import below\nfrom pkg.room.one import name\n",
    "below.py": "def f():\n    import pkg.late\n",
    "late.py": "",
    "unused.py": "",
    "room/__init__.py": "value = 1\n",
    "room/one.py": "from . import two\nfrom .three import x\nfrom ..far import y\nfrom pkg.room import value\n",
    "room/two.py": "from pkg.study.settings import Model\nfrom pkg.runtime import locks\n",
    "room/three.py": "from pkg.top import circle\n",
    "far.py": "",
    "runtime/locks.py": "from pkg import unused\n",
    "study/__init__.py": "",
    "study/settings.py": "from pkg import unused\n",
}


def test_a_closure_follows_every_import_and_stops_where_it_is_told(tmp_path):
    for name, text in TREE.items():
        path = tmp_path / "pkg" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = code_version.closure(tmp_path / "pkg", "top")
    assert found == {"top", "below", "late", "room", "room.one", "room.two", "room.three", "far"}


@pytest.mark.parametrize("step", ["unlearn", "choose", "report"])
def test_a_closure_holds_every_module_that_python_loads(step):
    """Python's own list of what importing a step's module loads, as far as the closure goes."""
    module = COMMANDS[step][0]
    code = f"import sys, {module}; print(*sorted(name for name in sys.modules if name.startswith('rtt.')))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "scripts", capture_output=True, text=True, check=True
    )
    loaded = {name.removeprefix("rtt.") for name in done.stdout.split()}
    files = {name for name in loaded if _has_code(code_version.source_of(PACKAGE, name))}
    closure = code_version.closure(PACKAGE, module.removeprefix("rtt."))
    beyond = {name for name in files - closure if code_version._stops(name) or name.split(".")[0] in ROOMS}
    assert files - closure - beyond - below(beyond) == set()
    assert len(files & closure) > 5


def _has_code(path):
    return not all(isinstance(node, ast.Expr) for node in ast.parse(path.read_text()).body)


ROOMS = (*code_version.PLUGINS, "__main__")  # plug-ins are imported by name, all of them


def below(modules):
    """Return what these modules import, directly or through others."""
    found, waiting = set(), list(modules)
    while waiting:
        new = code_version.imported(PACKAGE, waiting.pop()) - found
        found |= new
        waiting += new
    return found


def test_a_newer_python_reads_the_same_code():
    """Its syntax trees have fields that are empty in our code, such as `type_params`."""
    tree = ast.parse(textwrap.dedent("def f(x: int) -> int:\n    return x[1:]\n"))
    old = code_version._plain(tree, set())
    tree.body[0].type_params, tree.body[0]._fields = [], (*tree.body[0]._fields, "type_params")
    assert code_version._plain(tree, set()) == old
    assert code_version._plain(ast.parse("def f(x: int) -> int:\n    return x[:1]\n"), set()) != old

"""A step's code hash: comments and docstrings leave it, logic moves it, on a copied package."""

import ast
import re
import shutil
from pathlib import Path

import pytest
from rtt import code_version

PACKAGE = Path(code_version.__file__).parent


@pytest.fixture
def package(tmp_path, monkeypatch):
    copied = tmp_path / "rtt"
    shutil.copytree(PACKAGE, copied, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code_version, "PACKAGE", copied)
    return copied


def versions():
    return {step: code_version.code_version.__wrapped__(step) for step in code_version.STEPS}


def changed(package, name, old, new):
    """Return the steps whose hash an edit changes."""
    before, path = versions(), package / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    after = versions()
    path.write_text(text)
    return {step for step in after if after[step] != before[step]}


def test_comments_docstrings_and_layout_change_nothing(package):
    assert changed(package, "train.py", "import sys\n", "import sys\n\n\n# a comment\n") == set()
    assert changed(package, "train.py", '"""One training path', '"""Another docstring: one training path') == set()
    assert changed(package, "methods/gd.py", '"""The true sentences."""', '"""Whatever."""') == set()
    assert changed(package, "losses.py", "values * mask", "(values *   mask)") == set()
    assert changed(package, "methods/gd.py", '"""The true sentences."""\n', "") == set()


TRAINING = {"pretrain", "original", "teach", "unlearn", "attack"}


@pytest.mark.parametrize(
    "name, old, new, steps",
    [
        ("losses.py", "clamp(min=1)", "clamp(min=2)", TRAINING),
        ("train.py", "betas=(0.9", "betas=(0.8", TRAINING),
        ("retain.py", "splits is None or", "splits is not None or", TRAINING),
        ("methods/gd.py", "-forget", "forget", {"unlearn"}),
        ("methods/__init__.py", '"GD": GD', '"GD": RIA', {"unlearn"}),
        ("teach.py", "[spec.seed, 11]", "[spec.seed, 12]", {"teach"}),
        ("pretrain.py", "[spec.seed, 10]", "[spec.seed, 11]", {"pretrain"}),
        ("attack.py", "seed, 30", "seed, 31", {"attack"}),
        ("select.py", "1e-6", "1e-3", {"choose", "unlearn"}),
        ("candidates.py", "if point in chosen", "if point not in chosen", {"choose", "unlearn"}),
        ("stats/intervals.py", "p * (1 - p)", "p * (2 - p)", {"choose", "unlearn", "tables", "report"}),
        ("data/generate.py", "np.arange(size) % 4", "np.arange(size) % 3", {"generate"}),
        ("data/facts.py", "rng.choice(len(values), 3", "rng.choice(len(values), 2", {"facts"}),
        ("__init__.py", '__version__ = "', '__version__ = "9', {"report"}),  # it stands on the page
    ],
)
def test_logic_changes_its_steps(package, name, old, new, steps):
    assert changed(package, name, old, new) == steps


def test_a_string_that_is_no_docstring_is_logic(package):
    assert "pretrain" in changed(package, "text.py", "Answer:", "Reply:")


def test_other_locked_packages_are_other_code_of_what_draws(package, tmp_path, monkeypatch):
    before, lock = versions(), tmp_path / "requirements-analysis.lock"
    lock.write_bytes(code_version.LOCK.read_bytes() + b"more==1.0\n")
    monkeypatch.setattr(code_version, "LOCK", lock)
    after = versions()
    assert {step for step in after if after[step] != before[step]} == {"tables", "figure", "report"}


def test_both_locks_have_the_same_versions():
    """So that the hash of one is right for whoever has the other's environment."""
    whole, analysis = (
        dict(re.findall(r"^([a-z0-9._-]+)==([^ \\;]+)", path.read_text(), re.MULTILINE))
        for path in (code_version.LOCK.with_name("requirements.lock"), code_version.LOCK)
    )
    assert len(analysis) > 20 and analysis.items() <= whole.items()


def test_every_file_is_there_and_hashes_are_ten_digits():
    for step, names in code_version.STEPS.items():
        assert all((PACKAGE / name).exists() for name in names), step
        assert len(code_version.code_version(step)) == 10
        int(code_version.code_version(step), 16)


# What a step may import without its hash covering it: no number depends on these.
UNHASHED = {
    "rtt", "rtt.study.schema", "rtt.study.settings", "rtt.study.specs", "rtt.errors", "rtt.files", "rtt.data", "rtt.code_version",
    "rtt.runtime.locks", "rtt.study.strict", "rtt.device", "rtt.runtime.offline",
}  # fmt: skip


@pytest.mark.parametrize("step", ["pretrain", "original", "teach", "unlearn", "attack", "choose"])
def test_the_hash_covers_what_a_step_imports(step):
    """Reads the imports: a module that a step of training uses is in its hash, or named as harmless here."""
    covered = {
        file.relative_to(PACKAGE).as_posix()
        for name in code_version.STEPS[step]
        for file in ([PACKAGE / name] if (PACKAGE / name).is_file() else (PACKAGE / name).rglob("*.py"))
    }
    missing = set()
    for name in covered:
        for node in ast.walk(ast.parse((PACKAGE / name).read_text())):
            modules = [node.module] if isinstance(node, ast.ImportFrom) else []
            if modules == ["rtt"]:
                modules = [f"rtt.{alias.name}" for alias in node.names]
            for module in modules:
                if module and module.startswith("rtt") and module not in UNHASHED:
                    path = module.removeprefix("rtt.").replace(".", "/")
                    if f"{path}.py" not in covered and f"{path}/__init__.py" not in covered:
                        missing.add(f"{name} imports {module}")
    # data.facts: the canonical facts are an input, whose bytes decide; data.generate: vocabulary() is made of the names
    # that the facts hold; teach takes arguments from pretrain, attack a file's name from runs; layer numbers
    # (modelfile) are unlearn's alone, and evaluations are read (evals) by select; inputs only refuses a folder.
    known = {"rtt.data.facts", "rtt.data.generate"}
    known |= {
        "teach": {"rtt.steps.pretrain", "rtt.study.model_file"}, "attack": {"rtt.study.expand", "rtt.study.model_file"},
        "pretrain": {"rtt.study.model_file"}, "original": {"rtt.study.model_file"}, "unlearn": {"rtt.scoring.read", "rtt.study.digests"},
    }.get(step, set())  # fmt: skip
    assert {line for line in missing if line.split()[-1] not in known} == set()

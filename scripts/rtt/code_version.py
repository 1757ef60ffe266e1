"""Which code made an artifact: a hash of the syntax trees of the modules that decide a step's numbers.

Drawing is hashed with the locked packages, which decide its bytes too; training says in its manifests what it had.
"""

import ast
import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parent
# requirements.lock has the same versions of these packages.
LOCK = PACKAGE.parents[1] / "requirements-analysis.lock"
DRAWN = ("tables", "figure", "report")

TRAINING = (
    "training",
    "distributed.py",
    "data/text.py",
    "models",
    "scoring/score.py",
    "scoring/write.py",
    "scoring/manifest.py",
    "steps/original.py",
    "data/retain.py",
    "study/model_folder.py",
)
SUFFIXES = (".py", ".j2")  # of a folder's files that are code
STATISTICS = ("scoring/read.py", "scoring/question_table.py", "stats")
CHOICE = ("point_choice", "stats/intervals.py", "stats/look_choice.py")
STEPS = {
    "generate": ("data/generate.py", "data/birthdays.py"),
    "fetch": ("fetch", "study/sources.py"),
    "import": ("steps/import_model.py", "fetch/download.py", "models", "study/model_folder.py", "study/model_file.py"),
    "facts": ("data/facts.py", "data/reader.py", "data/audit.py"),
    "pretrain": (*TRAINING, "steps/pretrain.py"),
    "original": TRAINING,
    "teach": (*TRAINING, "steps/teach.py"),
    "unlearn": (*TRAINING, *CHOICE, "methods", "study/model_file.py", "steps/unlearn.py"),
    "choose": (*STATISTICS, *CHOICE, "steps/choose.py"),
    "attack": (*TRAINING, "steps/attack.py"),
    "tables": STATISTICS,
    "figure": ("figures", "stats/tables.py"),
    "unpack": ("bundle",),
    "report": ("__init__.py", "figures", "report", *STATISTICS),
}


def _without_docstrings(tree: ast.AST) -> ast.AST:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return tree


def source_hash(path: Path) -> str:
    """sha256 of a Python file's syntax tree without comments and docstrings; of any other file's bytes."""
    return _hash(path.read_bytes(), path.suffix == ".py")


@cache  # steps share most files
def _hash(content: bytes, python: bool) -> str:
    if python:
        content = ast.dump(_without_docstrings(ast.parse(content))).encode()
    return hashlib.sha256(content).hexdigest()


@cache
def code_version(step: str, plugin: str | None = None) -> str:
    """Return 10 hex digits that change when the logic of `step` changes (or the lock of a drawing one), and not when a
    comment does.
    """
    paths = []
    for name in STEPS[step]:
        path = PACKAGE / name
        paths += sorted(one for one in path.rglob("*") if one.suffix in SUFFIXES) if path.is_dir() else [path]
    parts = [f"{path.relative_to(PACKAGE)} {source_hash(path)}" for path in paths]
    parts += [f"{LOCK.name} {source_hash(LOCK)}"] if step in DRAWN else []
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:10]


class Maker(NamedTuple):
    """What made a file: a step, the hash of its code, and the method or attack that it ran, if any."""

    step: str
    code: str
    plugin: str | None = None


def changed(made: Mapping[str, Maker]) -> dict[str, list[str]]:
    """Return {step: names} of those things whose step, method or attack has other code than when it made them."""
    found: dict[str, list[str]] = {}
    for name, (step, code, plugin) in sorted(made.items()):
        if step in STEPS and code_version(step, plugin) != code:
            found.setdefault(step, []).append(name)
    return dict(sorted(found.items()))

"""Which code made an artifact: a hash of the modules that its numbers come from.

The code of a run is the import closure of its step's module and of the module of its own method or attack: what these
import, at the top or inside a function, directly or through others. It is computed from the source. Methods and attacks
are found by their files and imported by name (`rtt.study.plugins`), so the file of another one is in no closure, and
adding it makes nothing run again. A method that builds on another one imports it, and has it in its own closure.

The closure stops where code has no say in a number (STOPS): what `study` decides stands in the run's spec, whose hash
is in its id; `runtime`, `planner` and `doctor` start, place and check runs; the single modules report and guard. What a
step runs of a model's depth, texts, losses or scores therefore belongs into a module outside of `study`.

Of a plug-in's file three things are left out as well: what only figures and the planner read (DISPLAY), the fields of
its settings, whose values stand in the spec, and imports for annotations. Comments, docstrings and layout never count,
nor does the version of Python that reads the source. Drawing is hashed with the locked packages, which decide its
bytes too; training says in its manifests what it had.
"""

import ast
import hashlib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from rtt import places
from rtt.commands import COMMANDS

PACKAGE = Path(__file__).parent
# requirements.lock has the same versions of these packages.
LOCK = places.SHIPPED / "requirements-analysis.lock"
DRAWN = ("tables", "figure", "report")
STOPS = (
    "study", "runtime", "planner", "doctor", "errors", "records", "ownership", "commands", "places", "code_version",
    "scoring.manifest",
)  # fmt: skip
PLUGINS = ("methods", "attacks")
DISPLAY = {"name", "title", "summary", "colour", "dash", "marker", "order", "head", "copy_reads", "in_strongest"}
ANNOTATIONS = ("rtt.study", "pydantic", "typing", "collections.abc", "__future__")
TEMPLATES = "*.j2"  # of a room, whose modules read them
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class Maker(NamedTuple):
    """What made a file: a step, the hash of its code, and the method or attack that it ran, if any."""

    step: str
    code: str
    plugin: str | None = None


@cache
def code_version(step: str, plugin: str | None = None) -> str:
    """Return 10 hex digits that change when the logic of a step, or of the method or attack that it runs, changes.

    `step` is a command of `python -m rtt`; `plugin` the name of an attack, of a method, or of an external model, which
    has no code here.
    """
    from rtt.study import plugins

    folder = "attacks" if step == "attack" else "methods"
    starts = [COMMANDS[step][0].removeprefix("rtt."), plugins.module_of(folder, plugin) if plugin else ""]
    files = {path for module in closure(PACKAGE, *filter(None, starts)) for path in _files(module)}
    parts = [f"{path.relative_to(PACKAGE)} {source_hash(path)}" for path in sorted(files)]
    parts += [f"{LOCK.name} {source_hash(LOCK)}"] if step in DRAWN else []
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:10]


def changed(made: Mapping[str, Maker]) -> dict[str, list[str]]:
    """Return {step: names} of those things whose step, method or attack has other code than when it made them."""
    found: dict[str, list[str]] = {}
    for name, (step, code, plugin) in sorted(made.items()):
        if step in COMMANDS and code_version(step, plugin) != code:
            found.setdefault(step, []).append(name)
    return dict(sorted(found.items()))


# The closure


def closure(package: Path, *starts: str) -> set[str]:
    """Return the modules (dotted names below the package) that these import, directly or through others, with them."""
    found: set[str] = set()
    waiting = list(starts)
    while waiting:
        module = waiting.pop()
        if module not in found and not _stops(module):
            found.add(module)
            waiting += imported(package, module)
    return found


def _stops(module: str) -> bool:
    return any(module == one or module.startswith(f"{one}.") for one in STOPS)


@cache
def imported(package: Path, module: str) -> set[str]:
    """Return the package's modules that a module imports, wherever in it the import stands.

    `from a import b` reads the module `a.b` where there is one, else `a`, whose `b` it takes.
    """
    path = source_of(package, module)
    inside = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return {one for name in _parsed(path.read_bytes(), False)[1] if (one := _resolved(package, name, inside))}


def _resolved(package: Path, name: str, inside: str) -> str:
    """Return the module that an import of `name` reads, "" for none of ours. `inside`: the folder of the importer."""
    dots = len(name) - len(name.lstrip("."))
    if dots:
        parents = inside.split(".")[: len(inside.split(".")) - dots + 1]
        name = ".".join([package.name, *filter(None, parents), name[dots:]])
    first, _, below = name.partition(".")
    if first != package.name:
        return ""
    while below and not source_of(package, below).is_file():
        below = below.rpartition(".")[0]
    return below or "__init__"


def source_of(package: Path, module: str) -> Path:
    """Return a module's file, there or not."""
    path = package.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _files(module: str) -> Iterator[Path]:
    path = source_of(PACKAGE, module)
    yield path
    if path.parent != PACKAGE:
        yield from path.parent.rglob(TEMPLATES)


# The hash of a file


def source_hash(path: Path) -> str:
    """Return the sha256 of what a Python file does, without comments and docstrings; of any other file's bytes."""
    if path.suffix != ".py":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return _parsed(path.read_bytes(), path.parent.name in PLUGINS and path.parent.parent == PACKAGE)[0]


@cache  # steps share most files
def _parsed(source: bytes, plugin: bool) -> tuple[str, frozenset[str]]:
    """Return the hash of a module's syntax tree, and the names that it imports."""
    tree, names = ast.parse(source), set()
    if plugin:
        names = {name for node in ast.walk(tree) for name in _names(node)}
        tree = _without_display(tree)
    text = repr(_plain(tree, names))
    return hashlib.sha256(text.encode()).hexdigest(), frozenset(names)


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        base = "." * node.level + (node.module or "")
        return [f"{base}{'' if base.endswith('.') else '.'}{alias.name}" for alias in node.names]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []


def _plain(node, names: set[str]) -> object:
    """Return a syntax tree as tuples, and add to `names` what it imports.

    Without docstrings, and without fields that are empty, which newer Pythons add, or that repeat where a node stands.
    """
    if isinstance(node, list):
        return tuple([_plain(one, names) for one in node])
    if not isinstance(node, ast.AST):
        return node
    kind, kept = type(node), []
    if kind in (ast.Import, ast.ImportFrom):
        names.update(_names(node))
    for key in node._fields:
        value = getattr(node, key, None)
        if value is None or value == [] or key == "ctx":
            continue
        if key == "body" and kind in DOCUMENTED and ast.get_docstring(node, clean=False) is not None:
            value = value[1:]
        kept += [key, _plain(value, names)]
    return (kind.__name__, *kept)


def _without_display(tree: ast.Module) -> ast.Module:
    """Return a plug-in's module without what is in no number: see the top of this file."""

    def is_annotation(node) -> bool:
        return isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").startswith(ANNOTATIONS)

    def is_display(node) -> bool:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names = [one.id for target in targets if target for one in ast.walk(target) if isinstance(one, ast.Name)]
        return isinstance(node, ast.Assign | ast.AnnAssign) and bool(names) and DISPLAY.issuperset(names)

    for cls in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        cls.body = [node for node in cls.body if not is_display(node)]
        for inner in cls.body:
            if isinstance(inner, ast.ClassDef) and inner.name == "Settings":
                inner.body = [node for node in inner.body if not isinstance(node, ast.AnnAssign)]
    tree.body = [node for node in tree.body if not is_annotation(node)]
    return tree

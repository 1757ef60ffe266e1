"""What the project's texts refer to: files and modules named in Markdown, comments, docstrings and messages."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from docs_markdown import FILES
from places import ROOT

SCRIPTS = ROOT / "scripts"
# Not data/ and results/, which runs fill. A path ends before a full stop; one that `*` or `{` follows is a pattern.
FOLDERS = "benchmarks|config|docs|envs|profiles|rules|scripts|tests"
PATH = re.compile(rf"(?<![\w/.~{{}}*-])(?:{FOLDERS})/(?:[\w-]|[./](?=\w))*+(?![*{{])")
PAGE = re.compile(r"(?<![\w/.*-])[A-Za-z][\w-]*\.md\b")
MODULE = re.compile(r"(?<![\w/.-])rtt(?:\.[A-Za-z_]\w*)+")
TEST = re.compile(r"(?<![\w/.])(?:tests/)?([\w/]+?)(?:\.py)?::(test_\w+)")
CODE = ("scripts/**/*.py", "tests/**/*.py", "benchmarks/*.py", "docs/examples/*.py")
# Files whose comments start with `#`; of Snakemake's and Jinja's files everything is read.
COMMENTED = ("config/**/*.yaml", "profiles/**/*.yaml", "envs/*.yaml", "Makefile", "*.toml", "*.in", "scripts/*.sh")
WHOLE = ("Snakefile", "rules/*.smk", "report/*.rst", "scripts/**/*.j2", "data/sources.tsv")


def files() -> list[str]:
    """Return all files whose texts are read, as paths from the repository's root."""
    patterns = (*CODE, *COMMENTED, *WHOLE)
    return sorted({*FILES, *(str(path.relative_to(ROOT)) for one in patterns for path in ROOT.glob(one))})


def texts(file: str) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of what a file says to people; of program code its comments, docstrings and messages."""
    content = (ROOT / file).read_text(encoding="utf-8")
    if file.endswith(".py"):
        for token in tokenize.generate_tokens(io.StringIO(content).readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string
        yield from _strings(ast.parse(content), everything=not file.startswith("tests/"))
        return
    commented = any(Path(file).match(pattern) for pattern in COMMENTED)
    for number, line in enumerate(content.splitlines(), 1):
        _, mark, comment = line.partition("#")
        if not commented or mark:
            yield number, comment if commented else line


def _strings(tree: ast.AST, *, everything: bool) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of the docstrings, or of every string: a test's strings may name what does not exist."""
    for node in ast.walk(tree):
        if everything and isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from ((node.lineno + i, line) for i, line in enumerate(node.value.splitlines()))
        elif not everything and isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = ast.get_docstring(node, clean=False) or ""
            start = node.body[0].lineno if text else 0
            yield from ((start + i, line) for i, line in enumerate(text.splitlines()))


def dangling(text: str, allowed: set[str] = frozenset()) -> list[str]:
    """Return what a text refers to and the project does not have, `allowed` names aside."""
    wrong = [path for path in PATH.findall(text) if not (ROOT / path).exists()]
    wrong += [name for name in PAGE.findall(text) if name not in _pages()]
    wrong += [name for name in MODULE.findall(text) if not is_defined(name)]
    wrong += [f"{file}::{name}" for file, name in TEST.findall(text) if name not in _tests(file)]
    return [name for name in wrong if name not in allowed]


@cache
def _pages() -> set[str]:
    return {Path(file).name for file in FILES}


@cache
def _tests(file: str) -> set[str]:
    path = ROOT / "tests" / f"{file}.py"
    return _names(path) if path.is_file() else set()


def is_defined(name: str) -> bool:
    """Return whether a dotted name is a module, or a name in one, or an attribute of a class in one."""
    parts, place = name.split("."), SCRIPTS
    while parts and (place / parts[0]).is_dir():
        place /= parts.pop(0)
    if parts and (place / f"{parts[0]}.py").is_file():
        place /= f"{parts.pop(0)}.py"
    elif place.is_dir():
        place /= "__init__.py"
    return not parts or (place.is_file() and ".".join(parts[:2]) in _names(place))


@cache
def _names(path: Path) -> set[str]:
    """Return what a module defines, imports or lists in `__all__`, and `Class.name` for its classes' attributes."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set(_bound(tree))
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            found |= set(ast.literal_eval(node.value))
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{name}" for name in _bound(node)}
    return found


def _bound(node: ast.Module | ast.ClassDef) -> Iterator[str]:
    for one in node.body:
        if isinstance(one, ast.FunctionDef | ast.ClassDef):
            yield one.name
        elif isinstance(one, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name).split(".")[0] for alias in one.names)
        elif isinstance(one, ast.Assign | ast.AnnAssign):
            targets = one.targets if isinstance(one, ast.Assign) else [one.target]
            yield from (name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))

"""Bundles for tests: the committed one of version 2, and hostile ones made of its files."""

import contextlib
import hashlib
import io
import json
import zipfile
from pathlib import Path

from bundle_study import BUNDLE
from rtt.bundle import opening, rebuild
from rtt.bundle.layout import FORMAT, INDEX, VERSION
from rtt.data.facts import Fact, write_facts

BASE = "results/tiny/"
QUESTION = "When was Nobody born?"  # a text that no bundle may hold unless it is asked for
TEXTS = (QUESTION, "in the year Zero", "never & <i>nowhere</i>", "Nobody came in the year Zero.")  # such texts


def committed() -> dict[str, bytes]:
    """The files of the committed bundle, less its index: runs.json, study.yaml, scores, audits, manifests, specs."""
    with zipfile.ZipFile(BUNDLE) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name != INDEX}


def finished(root: Path) -> Path:
    """Return the results folder of the committed bundle's study with tables, figures and report of today's code."""
    opening.unpack(opening.look(BUNDLE), root)
    rebuild.rebuild(root, "tiny", shown=True)
    return root / "results/tiny"


def write_texts(folder: Path) -> None:
    """Write facts.jsonl of a dataset's folder: eight questions whose texts are TEXTS."""
    dataset = folder.name.partition("-")[0]
    facts = [
        Fact(f"{dataset}/split_{i // 4}/{i % 4 + 1:03d}", dataset, f"split_{i // 4}", QUESTION,
             [*TEXTS[1:3], "3", "4"], 1, [*TEXTS[1:3], "5", "6"], *[[TEXTS[3]]] * 3, {"file": "x.jsonl", "line": i + 1})
        for i in range(8)
    ]  # fmt: skip
    write_facts(folder / "facts.jsonl", facts)


def sources(results: Path) -> dict[str, bytes]:
    """Return what figures are made from, by the names in a bundle."""
    paths = sorted([*results.rglob("*.json"), results / "study.yaml"])
    return {BASE + path.relative_to(results).as_posix(): path.read_bytes() for path in paths}


def not_attacked(runs: dict) -> None:
    """Change runs.json to that of a study without attacks."""
    variant = runs["variants"]["default"]
    variant["evals"] = [stem for stem in variant["evals"] if "/" not in stem]


def index_of(files: dict[str, bytes]) -> dict:
    """Return the index of these files."""
    unknown = dict.fromkeys(("step", "code", "plugin"))
    entries = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} | unknown for name, data in files.items()
    }
    return {"format": FORMAT, "version": VERSION, "study": "tiny", "texts": False, "shown": True, "files": entries}


def pack(path: Path, files: dict[str, bytes], index: dict | bytes | None = None, more: list = ()) -> Path:
    """Write a zip of files with their index, or with another one; `more`: further (ZipInfo, bytes)."""
    index = index_of(files) if index is None else index
    data = index if isinstance(index, bytes) else json.dumps(index).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**files, INDEX: data}.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED, 9)
        for info, content in more:
            archive.writestr(info, content)
    return path


def edited(files: dict[str, bytes], name: str, change) -> dict[str, bytes]:
    """Return the files with one JSON document changed by `change(document)`, or replaced by what that returns.

    `name` is the beginning of its name below results/tiny/, or that with a `*` in it.
    """
    start, _, end = name.partition("*")
    full = next(one for one in files if one.startswith(BASE + start) and end in one)
    document = json.loads(files[full])
    returned = change(document)
    return files | {full: json.dumps(document if returned is None else returned).encode()}


def tree(folder: Path) -> dict[str, bytes | str]:
    """Return every file and link below a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = f"-> {path.readlink()}"
        elif path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


@contextlib.contextmanager
def silent():
    """Swallow what is printed."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield

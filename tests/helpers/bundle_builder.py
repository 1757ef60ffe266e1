"""Bundles for tests: the committed old one, brought up to date, and hostile ones made of its files."""

import contextlib
import hashlib
import io
import json
import zipfile
from pathlib import Path

from rtt.bundle import opening, rebuild
from rtt.bundle.layout import FORMAT, INDEX, VERSION

OLD = Path(__file__).parents[1] / "data/bundle-v1.zip"
BASE = "results/tiny/"


def finished(root: Path) -> Path:
    """The results folder of the old bundle's study, its tables, figures and report made by today's code."""
    opening.unpack(opening.look(OLD), root)
    rebuild.rebuild(root, "tiny", shown=True)
    return root / "results/tiny"


def sources(results: Path) -> dict[str, bytes]:
    """What figures are made of, by names in a bundle; with a spec, of which version 1 has none."""
    paths = [results / "runs.json", results / "study.yaml", *results.glob("*/*.json"), *results.glob("data/*/*.json")]
    found = {BASE + path.relative_to(results).as_posix(): path.read_bytes() for path in paths}
    run = next((results / "evals").glob("unlearn-*.json")).stem
    settings = {"learning_rate": 5e-4, "points": [4, 8], "grid": {}}
    return found | {f"{BASE}specs/{run}.json": json.dumps({"kind": "unlearn", "settings": settings}).encode()}


def of_version_2(root: Path) -> dict[str, bytes]:
    """The sources of the old bundle, brought up to version 2 in the folder `root`."""
    opening.unpack(opening.look(OLD), root)
    return sources(root / "results/tiny")


def of_version_1() -> dict[str, bytes]:
    """The old bundle's files as they are, less what was made of them."""
    with zipfile.ZipFile(OLD) as archive:
        names = [name for name in archive.namelist() if name != INDEX and "/tables/" not in name]
        return {name: archive.read(name) for name in names}


def not_attacked(plan: dict) -> None:
    """Make it the plan of a study without RTT."""
    variant = plan["variants"]["default"]
    variant["evals"] = [stem for stem in variant["evals"] if not stem.startswith("rtt-")]


def index_of(files: dict[str, bytes]) -> dict:
    entries = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "step": None, "code": None}
        for name, data in files.items()
    }
    return {"format": FORMAT, "version": VERSION, "study": "tiny", "texts": False, "shown": True, "files": entries}


def pack(path: Path, files: dict[str, bytes], index: dict | bytes | None = None, more: list = ()) -> Path:
    """Write a zip of files and their index (or another one); `more`: (ZipInfo, bytes) besides."""
    index = index_of(files) if index is None else index
    data = index if isinstance(index, bytes) else json.dumps(index).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**files, INDEX: data}.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
        for info, content in more:
            archive.writestr(info, content)
    return path


def edited(files: dict[str, bytes], name: str, change) -> dict[str, bytes]:
    """The files with one JSON document changed in place by `change(document)`, or replaced by what it returns."""
    full = next(one for one in files if one.startswith(BASE + name))
    document = json.loads(files[full])
    returned = change(document)
    return files | {full: json.dumps(document if returned is None else returned).encode()}


def tree(folder: Path) -> dict[str, bytes | str]:
    """Every file and link below a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = f"-> {path.readlink()}"
        elif path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


@contextlib.contextmanager
def silent():
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield

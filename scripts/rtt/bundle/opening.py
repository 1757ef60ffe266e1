"""Opening a bundle: `look` tells cheaply what it is; `python -m rtt unpack` checks every byte before it puts anything
in its place. A bundle is not trusted: either a UserError refuses it, or it ends as files in one folder.
"""

import argparse
import hashlib
import re
import shutil
import tempfile
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rtt.bundle import contents, documents
from rtt.bundle.container import Container, Joined, check_names, container, extract, index_bytes
from rtt.bundle.layout import DERIVED, INDEX, MAX_DOWNLOAD, SOURCES, Index, read_index
from rtt.code_version import changed
from rtt.errors import UserError
from rtt.fetch.download import download, is_url, say
from rtt.files import disk_errors, new_folder
from rtt.study.sources import Source

DOWNLOADS = Path("dist/downloads")
NAMED = re.compile(r"[a-z][a-z0-9_-]*-([0-9a-f]{10})\.zip")
GIVEN = "given"
BY_HAND = "download it by hand and name its path: artifacts=PATH"


@dataclass(frozen=True)
class Opened:
    """What an artifact says of itself, before its contents are verified."""

    path: Path
    index: Index
    data: bytes  # bytes of its bundle.json; for a results folder, of the one that it would have
    inputs: tuple[str, ...]  # paths of its files

    @property
    def sha256(self) -> str:
        """sha256 of bundle.json, which holds those of all other files."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def id(self) -> str:
        """First digits of the sha256, which stand in names."""
        return self.sha256[:10]

    @property
    def name(self) -> str:
        """Name of the folder for what is rebuilt."""
        return f"{self.index.study}-{self.id}"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `unpack`."""
    parser.add_argument("artifacts", help="a bundle (.zip), the folder of an unpacked one, or a results folder")
    parser.add_argument("--out", required=True, type=Path, help="folder for given/ and results/<study>/")


def run(args: argparse.Namespace) -> int:
    """Verify and unpack an artifact, and print what it was."""
    opened = look(args.artifacts)
    unpack(opened, args.out)
    checked = f"every sha256 is right; sha256 of {INDEX}: {opened.sha256}"
    if _is_results(opened.path):
        checked = "a results folder has no checksums to verify"
    print(f"{opened.path}: study {opened.index.study}, {len(opened.index.files)} files; {checked}; {args.out}")
    return 0


def _is_results(path: Path) -> bool:
    return path.is_dir() and not (path / INDEX).is_file()


def local(artifacts: str | Path, downloads: Path = DOWNLOADS) -> Path:
    """Return the path of an artifact; one at a URL is downloaded first, unless it was before.

    A folder that holds one zip, and neither results nor an unpacked bundle, stands for that zip. Raises UserError.
    """
    if not is_url(str(artifacts)):
        return _only_bundle(Path(artifacts))
    url = str(artifacts)
    try:
        name = urllib.parse.unquote(urllib.parse.urlsplit(url).path).rpartition("/")[2]
    except ValueError as error:
        raise UserError(f"artifacts={url!r}: not a valid URL: {error}") from None
    name = name if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,120}\.zip", name) else "bundle.zip"
    folder = downloads / hashlib.sha256(url.encode()).hexdigest()[:10]
    if (folder / name).is_file():
        say(f"{url}: downloaded before; delete {folder} to download it again")
        return folder / name
    source = Source(
        name="bundle", group="bundle", holds="", kind="file", url=url, revision="", sha256="", bytes=None, licence="",
        config="", split="", columns=(), rows=None,
    )  # fmt: skip
    new = new_folder(downloads)
    with disk_errors(downloads), new, tempfile.TemporaryDirectory(dir=downloads, prefix=".part-") as part:
        came = Path(part, name)
        download(url, came, source, limit=MAX_DOWNLOAD, instead=BY_HAND)
        try:
            look(came)  # a page that asks for a login must not be kept as the bundle
        except UserError as error:
            what = str(error).replace(str(came), "what came")
            raise UserError(f"{url}: {what}; nothing was kept; look at it in a browser, or {BY_HAND}") from None
        folder.mkdir(exist_ok=True)
        came.replace(folder / name)
    return folder / name


def _only_bundle(path: Path) -> Path:
    """Return the bundle of a folder that holds one, such as results/reference; any other path as it is."""
    if not path.is_dir() or (path / INDEX).is_file() or (path / "runs.json").is_file():
        return path
    bundles = sorted(path.glob("*.zip"))
    if len(bundles) > 1:
        raise UserError(f"{path}: {len(bundles)} bundles in it, {bundles[0].name} and others; name one of them")
    return bundles[0] if bundles else path


def look(artifacts: str | Path) -> Opened:
    """Return what a bundle says of itself. Its names and sizes are checked, its contents not yet.

    Raises UserError where there is no such file, or it is damaged, hostile, from another program, of another version,
    or not the bundle that its name says.
    """
    path = local(artifacts)
    if _is_results(path):
        if not (path / "runs.json").is_file():
            raise UserError(f"{path}: neither {INDEX} nor runs.json in it: no unpacked bundle and no results folder")
        with disk_errors(path):
            found = contents.collect(path, texts=None)
            index = contents.index(found)
        return Opened(path, index, contents.written(index), tuple(str(one) for one in found.paths.values()))
    with container(path) as files:
        data = index_bytes(files)
        index = read_index(data, f"{path}: {INDEX}")
        check_names(files, index)
        inputs = (str(path),) if path.is_file() else tuple(str(path / name) for name in sorted(files.sizes))
    opened = Opened(path, index, data, inputs)
    named = NAMED.fullmatch(path.name)
    if named and named[1] != opened.id:
        raise UserError(
            f"{path}: its name ends in the first digits of the sha256 of its {INDEX}, which is {opened.id}…: "
            "this is another bundle than its name says; get it again"
        )
    return opened


def stale(index: Index) -> list[str]:
    """Return a line for each step whose code has changed since it made a part of the bundle."""
    lines = [
        f"warning: the code of step {step} has changed since it made {', '.join(runs)}; it is not run again"
        for step, runs in changed(index.runs).items()
    ]
    derived = {name: index.files[name].maker for name in index.below(*DERIVED)}
    if steps := changed({name: maker for name, maker in derived.items() if maker}):
        what = "analysis code or its locked packages have changed since"
        lines.append(f"note: {what}: {', '.join(steps)}; what they make may differ")
    return lines


def unpack(opened: Opened, out: Path) -> None:
    """Verify every file and put it below `out`: what figures are made from into results/<study>/, the rest into given/.

    Of a results folder the texts of the questions stay in given/: what is rebuilt of it may be passed on like a bundle.
    Raises UserError, and then nothing below `out` has changed.
    """
    study = opened.index.study
    with disk_errors(out), new_folder(out), tempfile.TemporaryDirectory(dir=out, prefix=".part-") as part:
        whole, made = Path(part, GIVEN), Path(part, "made")
        whole.mkdir()
        with _files(opened) as files:
            for name, entry in opened.index.files.items():
                extract(files, name, entry, whole / name)
        (whole / INDEX).write_bytes(opened.data)
        results = whole / "results" / study
        documents.check(results)
        if contents.attacked(contents.read_runs(results)) != opened.index.shown:
            raise UserError(
                f"{opened.path}: {INDEX} says shown: {str(opened.index.shown).lower()}, its runs.json says otherwise; "
                "get the bundle again"
            )
        made.mkdir()
        for name in SOURCES:
            if (results / name).exists():
                (results / name).rename(made / name)
            elif "." not in name and name != "questions":  # only compact evaluations have these beside them
                (made / name).mkdir()
        if not opened.index.texts:
            for path in sorted(made.glob("data/*/facts.jsonl")):
                kept = results / path.relative_to(made)
                kept.parent.mkdir(parents=True)
                path.rename(kept)
        place = out / "results" / study
        place.mkdir(parents=True, exist_ok=True)
        for path in sorted(made.iterdir()):
            _put(path, place / path.name)
        _put(whole, out / GIVEN)


@contextmanager
def _files(opened: Opened) -> Iterator[Container]:
    if _is_results(opened.path):
        yield contents.collect(opened.path, texts=None)
        return
    with container(opened.path) as files:
        if index_bytes(files) != opened.data:
            raise UserError(f"{opened.path}: changed while it was read; try again")
        yield Joined(files, opened.index)


def _put(source: Path, target: Path) -> None:
    """Move a file or folder to its place, where it replaces an older one."""
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    elif target.exists() or target.is_symlink():
        target.unlink()
    source.rename(target)

"""Opening a bundle: what it is, at no cost; and `python -m rtt unpack`, which checks every byte before it puts anything
in its place. What comes from elsewhere is untrusted: it is refused with a UserError, or it is files in one folder.
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

from rtt.bundle import contents, documents, migrate
from rtt.bundle.container import Container, check_names, container, extract, index_bytes
from rtt.bundle.layout import DERIVED, INDEX, MAX_DOWNLOAD, SOURCES, VERSION, Index, read_index
from rtt.code_version import changed
from rtt.errors import UserError
from rtt.fetch.download import download, is_url, say
from rtt.files import disk_errors
from rtt.study.sources import Source

DOWNLOADS = Path("dist/downloads")
NAMED = re.compile(r"[a-z][a-z0-9_-]*-([0-9a-f]{10})\.zip")
GIVEN = "given"
BY_HAND = "download it by hand and name its path: artifacts=PATH"


@dataclass(frozen=True)
class Opened:
    """What is known of an artifact before it is verified."""

    path: Path
    index: Index
    data: bytes  # of its bundle.json; a results folder has none, so of the one that it would have
    inputs: tuple[str, ...]  # files that it is made of

    @property
    def sha256(self) -> str:
        """Of bundle.json, and so of all of it."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def id(self) -> str:
        """The digits of it that stand in names."""
        return self.sha256[:10]

    @property
    def name(self) -> str:
        """The folder's name for what is rebuilt of it."""
        return f"{self.index.study}-{self.id}"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `unpack`."""
    parser.add_argument("artifacts", help="a bundle (.zip), the folder of an unpacked one, or a results folder")
    parser.add_argument("--out", required=True, type=Path, help="folder for given/ and results/<study>/")


def run(args: argparse.Namespace) -> int:
    """Verify and unpack."""
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
    """Return the path of an artifact: itself, or where it was downloaded to, once. Raises UserError."""
    if not is_url(str(artifacts)):
        return Path(artifacts)
    url = str(artifacts)
    try:
        name = urllib.parse.unquote(urllib.parse.urlsplit(url).path).rpartition("/")[2]
    except ValueError as error:
        raise UserError(f"artifacts={url!r}: not a URL: {error}") from None
    name = name if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,120}\.zip", name) else "bundle.zip"
    folder = downloads / hashlib.sha256(url.encode()).hexdigest()[:10]
    if (folder / name).is_file():
        say(f"{url}: downloaded before; delete {folder} to download it again")
        return folder / name
    source = Source("bundle", "bundle", "file", url, "", "", None, "", "", "", (), None)
    with disk_errors(downloads):
        downloads.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=downloads, prefix=".part-") as part:
            came = Path(part, name)
            download(url, came, source, limit=MAX_DOWNLOAD, instead=BY_HAND)
            try:
                look(came)  # a page that says "log in", say, would be taken for the bundle ever after
            except UserError as error:
                what = str(error).replace(str(came), "what came")
                raise UserError(f"{url}: {what}; nothing was kept; look at it in a browser, or {BY_HAND}") from None
            folder.mkdir(exist_ok=True)
            came.replace(folder / name)
    return folder / name


def look(artifacts: str | Path) -> Opened:
    """Return what a bundle says of itself; its names and sizes are checked, its contents are not yet.

    Raises UserError: no such file, damaged, hostile, of another program, of an unknown version, not what its name says.
    """
    path = local(artifacts)
    if _is_results(path):
        if not (path / "runs.json").is_file():
            raise UserError(f"{path}: neither {INDEX} nor runs.json in it: no unpacked bundle and no results folder")
        with disk_errors(path):
            found = contents.collect(path)
            index = contents.index(found)
        return Opened(path, index, contents.written(index), tuple(str(one) for one in found.paths.values()))
    with container(path) as files:
        data = index_bytes(files)
        index = read_index(data, f"{path}: {INDEX}")
        check_names(files, index.files)
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
    """Say which code has changed since: training code with the runs it made, and analysis code."""
    lines = [
        f"warning: the code of step {step} has changed since it made {', '.join(runs)}; nothing is run again"
        for step, runs in changed(index.runs).items()
    ]
    files = {name: index.files[name] for name in index.below(*DERIVED)}
    if steps := changed({name: (one.step, one.code) for name, one in files.items() if one.step and one.code}):
        what = "analysis code or its locked packages have changed since"
        lines.append(f"note: {what}: {', '.join(steps)}; what they make may differ")
    return lines


def unpack(opened: Opened, out: Path) -> None:
    """Verify every file and put it below `out`: what figures are made of into results/<study>/, all else into given/.

    An older bundle is brought to this version. Raises UserError, and then nothing below `out` has changed.
    """
    out.mkdir(parents=True, exist_ok=True)
    study = opened.index.study
    with disk_errors(out), tempfile.TemporaryDirectory(dir=out, prefix=".part-") as part:
        whole, made = Path(part, GIVEN), Path(part, "made")
        whole.mkdir()
        with _files(opened) as files:
            for name, entry in opened.index.files.items():
                extract(files, name, entry, whole / name)
        (whole / INDEX).write_bytes(opened.data)
        results = whole / "results" / study
        if opened.index.version < VERSION:
            migrate.upgrade(results, opened.index.version)
        documents.check(results)
        if contents.recovers(contents.planned(results)) != opened.index.shown:
            raise UserError(
                f"{opened.path}: {INDEX} says shown: {str(opened.index.shown).lower()}, its runs.json says otherwise: "
                "no program of ours wrote this"
            )
        for name in SOURCES:
            (made / name).parent.mkdir(exist_ok=True)
            if (results / name).exists():
                (results / name).rename(made / name)
            elif "." not in name:
                (made / name).mkdir()
        place = out / "results" / study
        place.mkdir(parents=True, exist_ok=True)
        for name in SOURCES:
            _put(made / name, place / name)
        _put(whole, out / GIVEN)


@contextmanager
def _files(opened: Opened) -> Iterator[Container]:
    if _is_results(opened.path):
        yield contents.collect(opened.path)
        return
    with container(opened.path) as files:
        if index_bytes(files) != opened.data:
            raise UserError(f"{opened.path}: changed while it was read; try again")
        yield files


def _put(source: Path, target: Path) -> None:
    """Move a file or folder into its place, over an older one."""
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    elif target.exists() or target.is_symlink():
        target.unlink()
    source.rename(target)

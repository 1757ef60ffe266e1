"""Opening a bundle: what it is, at no cost; and `python -m rtt unpack`, which checks every byte before it puts anything
in its place. What comes from elsewhere is untrusted: it is refused with a UserError, or it is files in one folder.
"""

import argparse
import hashlib
import re
import shutil
import tempfile
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

from rtt.bundle import contents, documents, migrate
from rtt.bundle.container import check_names, container, extract, read_small
from rtt.bundle.layout import DERIVED, INDEX, MAX_DOWNLOAD, MAX_INDEX, SOURCES, VERSION, Index, read_index
from rtt.codeversion import changed
from rtt.download import download, is_url, say
from rtt.errors import UserError
from rtt.files import disk_errors, write_json
from rtt.sources import Source

DOWNLOADS = Path("dist/downloads")
NAMED = re.compile(r"[a-z][a-z0-9_-]*-([0-9a-f]{10})\.zip")
GIVEN = "given"


@dataclass(frozen=True)
class Opened:
    """What is known of an artifact before it is verified."""

    path: Path
    index: Index
    id: str  # of a bundle: of its bundle.json's sha256; of a results folder: of its path
    inputs: tuple[str, ...]  # files that it is made of

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
    checked = "every sha256 is right" if (opened.path.suffix == ".zip" or (opened.path / INDEX).is_file()) else (
        "a results folder has no checksums to verify"
    )  # fmt: skip
    print(f"{opened.path}: study {opened.index.study}, {len(opened.index.files)} files; {checked}; {args.out}")
    return 0


def local(artifacts: str | Path, downloads: Path = DOWNLOADS) -> Path:
    """Return the path of an artifact: itself, or where it was downloaded to, once. Raises UserError."""
    if not is_url(str(artifacts)):
        return Path(artifacts)
    url = str(artifacts)
    name = urllib.parse.unquote(urllib.parse.urlsplit(url).path).rpartition("/")[2]
    name = name if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,120}\.zip", name) else "bundle.zip"
    folder = downloads / hashlib.sha256(url.encode()).hexdigest()[:10]
    if (folder / name).is_file():
        say(f"{url}: downloaded before; delete {folder} to download it again")
        return folder / name
    downloads.mkdir(parents=True, exist_ok=True)
    source = Source(url, "bundle", "file", url, "", "", None, "", "", "", (), None)
    with tempfile.TemporaryDirectory(dir=downloads, prefix=".part-") as part:
        download(url, Path(part, name), source, limit=MAX_DOWNLOAD)
        folder.mkdir(exist_ok=True)
        Path(part, name).replace(folder / name)
    return folder / name


def look(artifacts: str | Path) -> Opened:
    """Return what a bundle says of itself; its names and sizes are checked, its contents are not yet.

    Raises UserError: no such file, damaged, hostile, of another program, of an unknown version, not what its name says.
    """
    path = local(artifacts)
    if path.is_dir() and not (path / INDEX).is_file():
        if not (path / "plan.json").is_file():
            raise UserError(f"{path}: neither {INDEX} nor plan.json in it: no unpacked bundle and no results folder")
        found = contents.collect(path)
        index = contents.index(found)
        identity = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:10]
        return Opened(path, index, identity, tuple(str(one) for one in found.paths.values()))
    with container(path) as files:
        data = read_small(files, INDEX)
        index = read_index(data, f"{path}: {INDEX}")
        check_names(files, index.files)
        inputs = (str(path),) if path.is_file() else tuple(str(path / name) for name in sorted(files.sizes))
    identity = hashlib.sha256(data).hexdigest()[:10]
    named = NAMED.fullmatch(path.name)
    if named and named[1] != identity:
        raise UserError(
            f"{path}: its name ends in the first digits of the sha256 of its {INDEX}, which is {identity}…: "
            "this is another bundle than its name says; get it again"
        )
    return Opened(path, index, identity, inputs)


def stale(index: Index) -> list[str]:
    """Say which code has changed since: training code with the runs it made, and analysis code."""
    lines = [
        f"warning: the code of step {step} has changed since it made {', '.join(runs)}; nothing is run again"
        for step, runs in changed(index.runs).items()
    ]
    files = {name: index.files[name] for name in index.below(*DERIVED)}
    if steps := changed({name: (one.step, one.code) for name, one in files.items() if one.step and one.code}):
        lines.append(f"note: analysis code has changed since: {', '.join(steps)}; what it makes may differ")
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
        if opened.path.is_dir() and not (opened.path / INDEX).is_file():
            contents.collect(opened.path).copy(whole)
            write_json(whole / INDEX, contents.as_json(opened.index))
        else:
            with container(opened.path) as files:
                for name, entry in opened.index.files.items():
                    extract(files, name, entry, whole / name)
                (whole / INDEX).write_bytes(read_small(files, INDEX, MAX_INDEX))
            if hashlib.sha256((whole / INDEX).read_bytes()).hexdigest()[:10] != opened.id:
                raise UserError(f"{opened.path}: changed while it was read; try again")
        results = whole / "results" / study
        if opened.index.version < VERSION:
            migrate.upgrade(results, opened.index.version)
        documents.check(results)
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


def _put(source: Path, target: Path) -> None:
    """Move a file or folder into its place, over an older one."""
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    elif target.exists() or target.is_symlink():
        target.unlink()
    source.rename(target)

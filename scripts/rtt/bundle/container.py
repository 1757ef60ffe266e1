"""The files of a bundle, in a zip or in the folder of an unpacked one, checked before anything is written."""

import hashlib
import io
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from rtt.bundle.layout import FREE, INDEX, MAX_FILE, MAX_FILES, MAX_TOTAL, RATIO, Entry, Index, check_name, index_limit
from rtt.errors import UserError
from rtt.files import disk_errors

CHUNK = 1 << 20
AGAIN = "get the bundle again"
FILES_ONLY = "a bundle holds only files"


class Container(Protocol):
    """Files by their names."""

    path: Path

    def open(self, name: str) -> BinaryIO:
        """Return a stream of the file's bytes."""


class Zip:
    """A zip archive. Raises UserError for whatever the archive of a bundle never holds."""

    def __init__(self, path: Path, archive: zipfile.ZipFile):
        self.path, self.archive, self.sizes = path, archive, {}
        infos = archive.infolist()
        if len(infos) > MAX_FILES:
            raise UserError(f"{path}: {len(infos)} files, more than the {MAX_FILES} that a bundle may have")
        for info in infos:
            name = check_name(info.orig_filename, str(path))
            if name in self.sizes:
                raise UserError(f"{path}: {name} stands twice, and nothing says which one counts; {AGAIN}")
            mode = info.external_attr >> 16
            if info.is_dir() or (stat.S_IFMT(mode) not in (0, stat.S_IFREG)):
                raise UserError(f"{path}: {name} is a link or not a plain file; {FILES_ONLY}")
            if info.flag_bits & 0x1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise UserError(f"{path}: {name} is encrypted, or packed in a way that bundles never are")
            if not 0 <= info.file_size <= MAX_FILE:
                raise UserError(f"{path}: {name} would unpack to {info.file_size} bytes; the limit is {MAX_FILE}")
            self.sizes[name] = info.file_size
        total, packed = sum(self.sizes.values()), path.stat().st_size
        if total > min(MAX_TOTAL, FREE + RATIO * packed):
            raise UserError(
                f"{path}: {packed} bytes that would unpack to {total}: more than {RATIO} times as much is a zip bomb "
                "and not a bundle; nothing was unpacked"
            )

    def open(self, name: str) -> BinaryIO:
        """Return the stream of a member."""
        return self.archive.open(name)


class Folder:
    """The folder of an unpacked bundle. Links are refused, wherever they lead."""

    def __init__(self, path: Path):
        self.path, self.sizes = path, {}
        for folder, folders, names in os.walk(path, onerror=_walk_error):
            for name in [*names, *folders]:
                place = Path(folder, name)
                relative = check_name(place.relative_to(path).as_posix(), str(path))
                mode = place.lstat().st_mode
                if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
                    raise UserError(
                        f"{path}: {relative} is a link or not a plain file; a bundle holds nothing but files"
                    )
                if stat.S_ISREG(mode):
                    self.sizes[relative] = place.lstat().st_size
            if len(self.sizes) > MAX_FILES:
                raise UserError(f"{path}: more than the {MAX_FILES} files that a bundle may have")

    def open(self, name: str) -> BinaryIO:
        """Return the stream of a file."""
        return open(self.path / name, "rb")


def _walk_error(error: OSError) -> None:
    raise UserError(f"{error.filename}: cannot be read: {error.strerror}")


@contextmanager
def container(path: str | Path) -> Iterator[Zip | Folder]:
    """Open a zip, or the folder of an unpacked bundle. Raises UserError where it is missing, damaged or hostile."""
    path = Path(path)
    with reading(path):
        if path.is_dir():
            yield Folder(path)
            return
        with zipfile.ZipFile(path) as archive:
            yield Zip(path, archive)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn the errors that reading an archive may raise into a UserError."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path}: no such file or folder; expected a bundle (.zip), its folder or a URL") from None
    # zipfile raises all of these on headers that contradict each other.
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        ValueError,
        OverflowError,
    ) as error:
        raise UserError(
            f"{path}: not a whole zip archive: {str(error)[:160] or type(error).__name__}; {AGAIN}"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}; {AGAIN}") from None


def index_bytes(files: Zip | Folder) -> bytes:
    """Return bundle.json. Raises UserError where it is missing, or larger than its number of files explains."""
    if INDEX not in files.sizes:
        raise UserError(f"{files.path}: there is no {INDEX} in it, so it is not a bundle")
    limit = index_limit(files.sizes)
    if files.sizes[INDEX] > limit:
        raise UserError(
            f"{files.path}: {INDEX} has {files.sizes[INDEX]} bytes; the limit for {len(files.sizes)} files is {limit}"
        )
    with files.open(INDEX) as stream:
        return stream.read(limit + 1)[:limit]


def check_names(files: Zip | Folder, index: Index) -> None:
    """Raise UserError where bundle.json names other files than there are, or other sizes."""
    sizes = {member: sum(index.files[name].bytes for name in names) for member, names in index.members().items()}
    listed = {**sizes, INDEX: files.sizes.get(INDEX)}
    if missing := sorted(listed.keys() - files.sizes.keys()):
        raise UserError(f"{files.path}: {missing[0]} is missing ({len(missing)} files are); {AGAIN}")
    if extra := sorted(files.sizes.keys() - listed.keys()):
        raise UserError(f"{files.path}: {extra[0]} is not in bundle.json ({len(extra)} files are not); {AGAIN}")
    for name, size in files.sizes.items():
        if size != listed[name]:
            raise UserError(f"{files.path}: {name} has {size} bytes, bundle.json says {listed[name]}; {AGAIN}")


class Joined:
    """The files of a compact bundle, also those that lie in one member with others."""

    def __init__(self, files: Zip | Folder, index: Index):
        self.path, self.files, self.index = files.path, files, index
        self.members = index.members()
        self._read: tuple[str, dict[str, bytes]] = ("", {})

    def open(self, name: str) -> BinaryIO:
        """Return the stream of a file. The member in which it lies is kept until another one is read."""
        member = self.index.member(name)
        if member == name:
            return self.files.open(name)
        if self._read[0] != member:
            sizes = {one: self.index.files[one].bytes for one in self.members[member]}
            with reading(self.path), self.files.open(member) as stream:
                found = {one: stream.read(size) for one, size in sizes.items()}
            self._read = member, found
        return io.BytesIO(self._read[1][name])


def extract(files: Container, name: str, entry: Entry, target: Path) -> None:
    """Write one file to `target` and verify it on the way.

    Raises UserError on a wrong size or sha256, and on a full disk.
    """
    digest, got = hashlib.sha256(), 0
    with files.open(name) as stream, disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "xb") as out:
            while True:
                with reading(files.path):  # an error here is the archive's, not the disk's
                    chunk = stream.read(CHUNK)
                got += len(chunk)
                if not chunk or got > entry.bytes:
                    break
                digest.update(chunk)
                out.write(chunk)
    if got != entry.bytes or digest.hexdigest() != entry.sha256:
        raise UserError(
            f"{files.path}: {name} is not what bundle.json says: {got} bytes with sha256 {digest.hexdigest()}, "
            f"expected {entry.bytes} with {entry.sha256}; {AGAIN}"
        )

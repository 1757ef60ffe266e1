"""Write files that are whole or absent, and JSON whose bytes depend on its content alone."""

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rtt.errors import UserError


@contextmanager
def disk_errors(place: str | Path) -> Iterator[None]:
    """Turn a full disk and other errors of the file system into a UserError that names the file, or else `place`."""
    try:
        yield
    except OSError as error:
        raise _full(place, error) or UserError(f"{error.filename or place}: {error.strerror or error}") from None


# Errors of the machine rather than of the code, with what to do about each.
MACHINE = {
    errno.EROFS: "this disk or folder is read-only; copy the results to a place that you may write to",
    errno.EACCES: "you may not read or write it; correct its owner and mode (ls -l), or copy it to a place of your own",
    errno.EPERM: "you may not read or write it; correct its owner and mode (ls -l), or copy it to a place of your own",
    errno.EIO: "the disk fails; look at it (dmesg), and put the results on another one",
    errno.ESTALE: "the network file system lost it; start again once it answers",
    errno.EISDIR: "a folder is there; name a file, or move the folder away",
    errno.EEXIST: "something else is there; name another place, or move it away",
    errno.ENOTDIR: "a part of this path is a file, no folder; correct the path",
    errno.ENAMETOOLONG: "this name is too long for the disk; choose a shorter one",
    errno.ELOOP: "these links lead back to themselves; replace them by what they should lead to",
    errno.EMFILE: "too many open files; raise `ulimit -n`",
    errno.ENOMEM: "the machine has too little memory; ask for more, or run fewer jobs at once",
}


def machine_error(error: OSError | MemoryError) -> UserError | None:
    """Return the UserError for an error of the disk, of permissions or of memory; None for any other."""
    if isinstance(error, MemoryError):
        return UserError(f"there is not enough memory{f' ({error})' if str(error) else ''}: {MACHINE[errno.ENOMEM]}")
    place = error.filename or "a file"
    if advice := MACHINE.get(error.errno):
        return UserError(f"{place}: {error.strerror}; {advice}")
    return _full(place, error)


def _full(place: str | Path, error: OSError) -> UserError | None:
    """Return the UserError for a full disk or an exceeded file size; None for other errors."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        what, advice = f"the disk is full ({error.strerror})", "free space"
    elif error.errno == errno.EFBIG:
        what, advice = f"{error.strerror}: more than the disk's file system or `ulimit -f` allows", "raise the limit"
    else:
        return None
    return UserError(f"{place}: {what}; nothing partial is left; {advice}, or write to another disk")


def to_disk(path: str | Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk, so that a power cut does not undo a rename."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems have no fsync for folders
            raise
    finally:
        os.close(handle)


@contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """Make a folder for the block; if the block raises, remove again what was made of its path and is empty."""
    folder = Path(folder)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    except BaseException:
        with suppress(OSError):
            for path in made:
                path.rmdir()
        raise


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it to `path` at the end of the block.

    If the block raises, the temporary file is deleted and `path` stays as it was. Raises UserError when the disk is
    full.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        os.chmod(name, 0o644)
        temporary = Path(name)
        yield temporary
        to_disk(temporary)
        os.replace(temporary, path)
        to_disk(path.parent)
    except OSError as error:
        raise _full(path, error) or error from None
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text, either completely or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def canonical_json(value: Any) -> str:
    """Return `value` as JSON with sorted keys and without spaces. Raises ValueError on NaN or infinity."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def write_json(path: str | Path, value: Any, indent: int | None = 1) -> None:
    """Write `value` as JSON with sorted keys, either completely or not at all.

    `indent=None` writes one compact line. Raises ValueError on NaN or infinity.
    """
    separators = (",", ":") if indent is None else None
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=indent, separators=separators)
    write_text(path, text + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file. Raises UserError that names the file (and line) when it is missing or not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except RecursionError:
        raise UserError(f"{path}: not a JSON file: nested too deep") from None
    except ValueError as error:  # also of text that is not UTF-8, and of numbers of thousands of digits
        raise UserError(f"{path}: not a JSON file: {error}") from None


def sha256(path: str | Path) -> str:
    """Return a file's sha256 as 64 hex digits."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def digest(value: Any) -> str:
    """Return the sha256 (64 hex digits) of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def natural(text: str) -> tuple:
    """Return a sort key that puts `split_2` before `split_10`."""
    parts, digits = [], ""
    for character in text + "\0":
        if character.isdecimal():
            digits += character
            continue
        if digits:
            parts.append((0, int(digits), digits))
            digits = ""
        parts.append((1, ord(character), ""))
    return tuple(parts)


def clock(seconds: float) -> str:
    """Return seconds as `m:ss` or `h:mm:ss`."""
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"

"""Checksums of weights: each folder of weights that a step writes has sha256.json, which a later step compares.

A file that sha256.json does not name is not compared, nor is a folder without it, such as a user's own model.
"""

from collections.abc import Callable
from pathlib import Path

from rtt.errors import UserError
from rtt.files import read_json, sha256, to_disk, write_json

NAME = "sha256.json"


def recorded(folder: str | Path) -> dict[str, str]:
    """Return {file name: sha256} as written in a folder; {} where there is no record.

    Raises UserError when the record is damaged.
    """
    path = Path(folder) / NAME
    found = read_json(path) if path.is_file() else {}
    if not (isinstance(found, dict) and all(isinstance(value, str) for value in found.values())):
        raise UserError(f"{path}: expected file names with their sha256; delete {folder} to have it made again")
    return found


def record(folder: str | Path, hashed: Callable[[Path], str] = sha256) -> None:
    """Hash all files of a folder, and write its record; everything is on the disk then."""
    files = [path for path in sorted(Path(folder).iterdir()) if path.is_file() and path.name != NAME]
    for path in files:
        to_disk(path)
    write_json(Path(folder) / NAME, {path.name: hashed(path) for path in files})


def add(path: Path, known: str | None = None) -> None:
    """Add one file to its folder's record, hashed now unless its sha256 is `known`; forget files that are gone."""
    found = recorded(path.parent) | {path.name: known or sha256(path)}
    write_json(path.parent / NAME, {name: value for name, value in found.items() if (path.parent / name).is_file()})


def forget(path: Path) -> None:
    """Remove a file from its folder's record, before it is written anew."""
    found = recorded(path.parent)
    if found.pop(path.name, None):
        write_json(path.parent / NAME, found)


def damaged(path: Path, wanted: str) -> str | None:
    """Return what is wrong with a file that should have this sha256; None if nothing is."""
    if not path.is_file():
        return f"{path}: missing"
    found = sha256(path)
    return None if found == wanted else f"{path}: damaged or changed: its sha256 is {found}, recorded was {wanted}"


def verify(folder: str | Path, again: str) -> None:
    """Raise UserError unless all files of a folder are as recorded; `again` says what to do about it."""
    for name in recorded(folder):
        verify_file(Path(folder) / name, again)


def verify_file(path: Path, again: str) -> None:
    """Raise UserError unless a file is as its folder's record says."""
    wanted = recorded(path.parent).get(path.name)
    if wanted and (why := damaged(path, wanted)):
        raise UserError(f"{why} in {NAME}; {again}")

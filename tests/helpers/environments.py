"""Virtual environments of links to packages that are installed here: made in a second, without the network."""

import importlib.metadata
import subprocess
import sys
import venv
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def with_dependencies(names: Iterable[str]) -> set[str]:
    """Return PyPI names and all that they need here."""
    found, waiting = set(), {canonicalize_name(name) for name in names}
    while waiting:
        name = waiting.pop()
        found.add(name)
        for line in importlib.metadata.requires(name) or []:
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                waiting |= {canonicalize_name(need.name)} - found
    return found


def make(names: Iterable[str], folder: str | Path) -> Path:
    """Make an environment that holds these packages and all that they need; return its site-packages."""
    venv.create(folder, symlinks=True)
    (packages,) = Path(folder).glob("lib/python3*/site-packages")
    for name in with_dependencies(names):
        for path in importlib.metadata.files(name):
            top = path.parts[0]
            if top != ".." and not (packages / top).exists():
                (packages / top).symlink_to(Path(path.locate()).parents[len(path.parts) - 1] / top)
    return packages


def build_wheel(source: Path, out: Path) -> Path:
    """Build the wheel of a copy of the project; return its path."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", str(out), str(source)], check=True)
    (wheel,) = out.glob("*.whl")
    return wheel


def install(wheel: Path, folder: Path) -> None:
    """Install a wheel, and nothing that it needs, into an environment."""
    command = [sys.executable, "-m", "pip", "--python", str(folder / "bin/python"), "install", "--quiet"]
    subprocess.run([*command, "--no-deps", "--no-index", str(wheel)], check=True)

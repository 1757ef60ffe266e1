"""What the checks of `python -m rtt doctor` share: what is looked at, and how a result is said."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from rtt.files import read_yaml
from rtt.study.schema import Study

ROOT = Path(__file__).resolve().parents[3]
OK, LOOK, DO = "ok", "look", "do"  # look: nothing here can tell, you can
TIMEOUT = 30  # seconds for an answer


@dataclass(frozen=True)
class Check:
    """One line: status OK, LOOK or DO; text says what was found, and what to do."""

    status: str
    name: str
    text: str


@dataclass(frozen=True)
class Patient:
    """What is looked at. folder: where results/ lies. profile: a profile's folder, None for a run on this machine.
    config: the study's overrides, KEY=VALUE.
    """

    study: Study
    study_file: str
    folder: Path
    profile: Path | None
    gpu: bool = False
    config: tuple[str, ...] = ()

    @property
    def settings(self) -> dict:
        """The profile's config.yaml."""
        return read_yaml(self.profile / "config.yaml", "profile", "executor, jobs, ...") if self.profile else {}

    @property
    def on_slurm(self) -> bool:
        """Are the steps jobs of SLURM?"""
        return self.settings.get("executor") == "slurm"


def output(*command: str) -> subprocess.CompletedProcess | None:
    """Run a command; None where it isn't there. One that doesn't answer in TIMEOUT has failed, and says so."""
    if shutil.which(command[0]) is None:
        return None
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL, check=False
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no answer in {TIMEOUT} s")


def gigabytes(size: float) -> str:
    """Write a size in bytes as GB."""
    return f"{size / 1e9:,.1f} GB"

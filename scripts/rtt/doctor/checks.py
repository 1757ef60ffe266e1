"""Hold what the checks of `python -m rtt doctor` share: what they examine, and the form of their results."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from rtt.study.schema import Study
from rtt.yaml_files import read_yaml

OK, LOOK, DO = "ok", "look", "do"  # look: this machine cannot tell, but the user can
TIMEOUT = 30  # seconds to wait for a command's answer


@dataclass(frozen=True)
class Check:
    """One line of output: the status OK, LOOK or DO, and a text with what was found and what to do."""

    status: str
    name: str
    text: str


@dataclass(frozen=True)
class Patient:
    """What the checks examine.

    `folder` is where results/ lies, `profile` a profile's folder (None for a run on this machine), and `config` the
    overrides of the study as KEY=VALUE.
    """

    study: Study
    study_file: str
    folder: Path
    profile: Path | None
    gpu: bool = False
    config: tuple[str, ...] = ()

    @property
    def settings(self) -> dict:
        """Return the content of the profile's config.yaml."""
        return read_yaml(self.profile / "config.yaml", "profile", "executor, jobs, ...") if self.profile else {}

    @property
    def on_slurm(self) -> bool:
        """Return whether the steps are SLURM jobs."""
        return self.settings.get("executor") == "slurm"


def output(*command: str) -> subprocess.CompletedProcess | None:
    """Run a command; return None if it is not installed. Without an answer within TIMEOUT it counts as failed."""
    if shutil.which(command[0]) is None:
        return None
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL, check=False
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no answer in {TIMEOUT} s")


def gigabytes(size: float) -> str:
    """Return a size in bytes as text in GB."""
    return f"{size / 1e9:,.1f} GB"

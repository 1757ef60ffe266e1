"""Clones of the working tree, in which the tests run the real Snakemake on the smoke study."""

import csv
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import snakemake_fork
from places import ROOT

SMOKE = "config/smoke.yaml"
FAULTS = "faults.txt"
TORCH_RULES = {"pretrain", "original", "teach", "unlearn", "attack"}


def clone_environment(folder: Path) -> dict[str, str]:
    """Return an environment with this interpreter first, one thread, and nothing that leads to another clone's code."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RTT_", "PYTEST_"))}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    environment["OMP_NUM_THREADS"] = "1"
    environment["MPLCONFIGDIR"] = str(folder / ".matplotlib")
    environment.pop("PYTHONPATH", None)
    return environment


@dataclass(frozen=True)
class Clone:
    """A copy of the working tree's files in a folder of its own."""

    folder: Path

    def python(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
        """Run `python ARGUMENTS` here, stdout and stderr together; PYTHONPATH is empty unless `variables` set it."""
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=clone_environment(self.folder) | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def snakemake(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
        """Run Snakemake here, as a user does without `python -m rtt run`."""
        if any(name.startswith("PYTHON") for name in variables):
            return self.python("-m", "snakemake", *arguments, **variables)
        return snakemake_fork.call([*arguments], self.folder, clone_environment(self.folder) | variables)

    def plan(self, *arguments: str) -> dict[str, int]:
        """Return {rule: number of jobs} of a dry run, which must succeed."""
        done = self.snakemake("-n", "-c2", "--scheduler", "greedy", *arguments)
        assert done.returncode == 0, done.stdout
        return job_counts(done.stdout)

    def smoke(self, *arguments: str) -> subprocess.CompletedProcess:
        """Run the smoke study to its report."""
        return self.snakemake("-c2", "--scheduler", "greedy", "--configfile", SMOKE, *arguments)

    def results(self, study: str = "smoke") -> Path:
        return self.folder / "results" / study


def job_counts(output: str) -> dict[str, int]:
    """Return {rule: number of jobs} of Snakemake's table, without `all` and the total; {} where it has no job."""
    if "Nothing to be done" in output:
        return {}
    lines = iter(output.splitlines())
    for line in lines:
        if line.split() == ["job", "count"]:
            break
    else:
        raise AssertionError(f"no table of jobs in:\n{output}")
    next(lines)
    counts = {}
    for line in lines:
        if not line.strip():
            break
        rule, count = line.split()
        counts[rule] = int(count)
    return {rule: count for rule, count in counts.items() if rule not in ("all", "total")}


def snapshot(folder: Path) -> None:
    """Copy all files that git does not ignore to `folder`; the project's own results have tests of their own."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file() and not name.startswith("results/"):  # a deleted file is still listed
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def deterministic_files(results: Path) -> dict[str, bytes]:
    """Return {name: content} of what must be the same bytes everywhere: all but manifests, weights, logs and report."""
    patterns = [
        "runs.json", "study.yaml", "specs/*", "data/**/*.json*", "evals/**/*", "point_choices/*", "tables/*",
        "figures/*",
    ]  # fmt: skip
    paths = [path for pattern in patterns for path in results.glob(pattern) if path.is_file()]
    return {str(path.relative_to(results)): path.read_bytes() for path in paths}


def differing(one: Path, other: Path) -> list[str]:
    """Return the names of files that only one of two results folders has, or that differ."""
    left, right = deterministic_files(one), deterministic_files(other)
    assert left, f"no files in {one}"
    return sorted(name for name in left.keys() | right.keys() if left.get(name) != right.get(name))

"""Clones of the working tree, in which the tests run the real Snakemake on the smoke study."""

import csv
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).parents[1]
SMOKE = "config/smoke.yaml"
FAULTS = "faults.txt"
TORCH_RULES = {"pretrain", "teach", "unlearn", "rtt", "rtt_control"}
pytest.register_assert_rewrite("doctor_fixtures")
# The files that take longest. A file is one worker's (--dist loadfile): begun last, it would leave the others idle.
LONGEST = (
    "cluster/test_cluster", "unit/test_resume", "unit/test_parity", "workflow/test_docs_commands",
    "workflow/test_bundle", "workflow/test_kill", "workflow/test_own_model", "workflow/test_profiles",
    "workflow/test_pipeline", "workflow/test_launchers", "workflow/test_study_files", "workflow/test_smollm",
    "unit/test_parity_modes", "unit/test_runner", "unit/test_report", "unit/test_envs",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """Begin with the LONGEST files; each file's order stays."""
    place = {f"{name}.py": at for at, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get("/".join(item.path.parts[-2:]), len(place)))


def clone_environment(folder: Path) -> dict[str, str]:
    """This interpreter first, one thread, and nothing that would bring in the code of another clone."""
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
        """Run `python ARGUMENTS` here, stdout and stderr together, without this clone's code on the path."""
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
        """Run Snakemake here, as a user does who does not use `python -m rtt run`."""
        return self.python("-m", "snakemake", *arguments, **variables)

    def plan(self, *arguments: str) -> dict[str, int]:
        """Return {rule: number of jobs} of a dry run with these arguments; it must succeed."""
        done = self.snakemake("-n", "-c2", "--scheduler", "greedy", *arguments)
        assert done.returncode == 0, done.stdout
        return job_counts(done.stdout)

    def smoke(self, *arguments: str) -> subprocess.CompletedProcess:
        """Run the smoke study to its report."""
        return self.snakemake("-c2", "--scheduler", "greedy", "--configfile", SMOKE, *arguments)

    def results(self, study: str = "smoke") -> Path:
        return self.folder / "results" / study


def job_counts(output: str) -> dict[str, int]:
    """Read Snakemake's table of jobs, less the target rule and the total; empty when there is nothing to do."""
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
    """Copy what git tracks, and what it does not but would, to `folder`."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():  # a deleted file is still listed
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Path:
    """A folder that all workers of one pytest run share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def pristine(shared_folder) -> Path:
    """The working tree's files as they were when the tests began, so that all clones are of the same code."""
    folder = shared_folder / "pristine"
    with FileLock(shared_folder / "pristine.lock"):
        if not folder.exists():
            part = shared_folder / "pristine.part"
            shutil.rmtree(part, ignore_errors=True)
            snapshot(part)
            part.rename(folder)
    return folder


@pytest.fixture(scope="session")
def finished(pristine, shared_folder) -> Clone:
    """A clone in which the smoke study has run to its report, uninterrupted. Shared: change nothing in it."""
    clone = Clone(shared_folder / "finished")
    with FileLock(shared_folder / "finished.lock"):
        if not clone.folder.exists():
            shutil.copytree(pristine, clone.folder)
            done = clone.smoke()
            (clone.folder / "output.txt").write_text(f"exit code {done.returncode}\n{done.stdout}")
    output = (clone.folder / "output.txt").read_text()
    if not output.startswith("exit code 0\n"):
        pytest.fail(f"the smoke study did not run to its end:\n{output}", pytrace=False)
    return clone


@pytest.fixture
def fresh(pristine, tmp_path) -> Clone:
    """A clone in which nothing has run."""
    clone = Clone(tmp_path / "fresh")
    shutil.copytree(pristine, clone.folder)
    return clone


@pytest.fixture
def copy(finished, tmp_path) -> Clone:
    """A copy of the finished clone, with its results and what Snakemake remembers of them, to change at will."""
    clone = Clone(tmp_path / "copy")
    shutil.copytree(finished.folder, clone.folder, symlinks=True)
    return clone


@pytest.fixture(scope="module")
def cluster():
    """A SLURM cluster (tests/cluster/slurm.py)."""
    import slurm

    with slurm.running() as found:
        yield found


@pytest.fixture(scope="session")
def undisturbed(pristine, shared_folder) -> Clone:
    """A clone in which the study of the faults has run to its tables, locally. Shared: change nothing in it."""
    import faults

    clone = Clone(shared_folder / "undisturbed")
    with FileLock(shared_folder / "undisturbed.lock"):
        if not clone.folder.exists():
            part = Clone(shared_folder / "undisturbed.part")
            shutil.copytree(pristine, part.folder)
            done = part.snakemake("tables", "--workflow-profile", "profiles/local", "--configfile", faults.STUDY)
            assert done.returncode == 0, done.stdout
            part.folder.rename(clone.folder)
    return clone


@pytest.fixture
def run(cluster, undisturbed, shared_folder, tmp_path):
    """The study of the faults in a clone, ready for its unlearning and its RTT job."""
    import faults

    clone = Clone(tmp_path / "clone")
    shutil.copytree(undisturbed.folder, clone.folder, symlinks=True)
    faults.forget(clone.results("fault"))
    found = faults.Run(cluster, clone, undisturbed.results("fault"), shared_folder / FAULTS)
    yield found
    found.stop()


def pytest_terminal_summary(terminalreporter, config):
    """Print the table of faults."""
    table = config._tmp_path_factory.getbasetemp() / FAULTS
    if table.is_file():
        terminalreporter.section("fault -> what happened -> result")
        terminalreporter.write(table.read_text())


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def deterministic_files(results: Path) -> dict[str, bytes]:
    """What must be the same bytes everywhere: facts, audits, specs, evaluations, point choices, tables, figures."""
    patterns = [
        "runs.json", "study.yaml", "specs/*", "data/**/*.json*", "evals/*", "point_choices/*", "tables/*", "figures/*",
    ]  # fmt: skip
    paths = [path for pattern in patterns for path in results.glob(pattern) if path.is_file()]
    return {str(path.relative_to(results)): path.read_bytes() for path in paths}


def differing(one: Path, other: Path) -> list[str]:
    """Return the names of files that only one of two results folders has, or that differ."""
    left, right = deterministic_files(one), deterministic_files(other)
    assert left, f"no files in {one}"
    return sorted(name for name in left.keys() | right.keys() if left.get(name) != right.get(name))

"""Fixtures that all tests share: clones of the working tree, with and without a finished smoke study."""

import gc
import os
import shutil
from pathlib import Path

import pytest
from clones import FAULTS, Clone, snapshot
from filelock import FileLock

pytest.register_assert_rewrite("doctor_fixtures")
# The files that take longest. A file is one worker's (--dist loadfile): begun last, it would leave the others idle.
LONGEST = (
    "cluster/test_cluster", "training/test_resume", "training/test_parity", "workflow/test_docs_commands",
    "workflow/test_bundle", "workflow/test_kill", "workflow/test_own_model", "workflow/test_profiles",
    "workflow/test_pipeline", "workflow/test_launchers", "workflow/test_study_files", "workflow/test_smollm",
    "runtime/test_runner", "report/test_page", "workflow/test_envs",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """Begin with the LONGEST files; each file's order stays."""
    place = {f"{name}.py": at for at, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get("/".join(item.path.parts[-2:]), len(place)))


def pytest_runtest_setup():
    """Let the garbage collector skip what is there already: else each training ends in half a second over libraries."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Path:
    """Return a folder that all workers of one pytest run share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def pristine(shared_folder) -> Path:
    """Return a copy of the working tree as it was when the tests began, so that all clones have the same code."""
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
    """Return a clone, in a folder with a hostile name, where the smoke study ran to its report and kept its weights.

    All tests share it: change nothing in it.
    """
    clone = Clone(shared_folder / "a finished clone's (study)")
    with FileLock(shared_folder / "finished.lock"):
        if not clone.folder.exists():
            shutil.copytree(pristine, clone.folder)
            done = clone.smoke("--notemp")
            (clone.folder / "output.txt").write_text(f"exit code {done.returncode}\n{done.stdout}")
    output = (clone.folder / "output.txt").read_text()
    if not output.startswith("exit code 0\n"):
        pytest.fail(f"the smoke study did not run to its end:\n{output}", pytrace=False)
    return clone


@pytest.fixture
def fresh(pristine, tmp_path) -> Clone:
    """Return a clone in which nothing has run."""
    clone = Clone(tmp_path / "fresh")
    shutil.copytree(pristine, clone.folder)
    return clone


@pytest.fixture
def copy(finished, tmp_path) -> Clone:
    """Return a copy of the finished clone, with its results and what Snakemake remembers of them, to change at will."""
    clone = Clone(tmp_path / "copy")
    shutil.copytree(finished.folder, clone.folder, symlinks=True)
    return clone


@pytest.fixture(scope="module")
def cluster():
    """Return a SLURM cluster (tests/helpers/slurm.py)."""
    import slurm

    with slurm.running() as found:
        yield found


@pytest.fixture(scope="session")
def undisturbed(pristine, shared_folder) -> Clone:
    """Return a clone in which the study of the faults has run to its tables, locally. Shared: change nothing in it."""
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
    """Return the study of the faults in a clone, ready for its unlearning and its attack."""
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

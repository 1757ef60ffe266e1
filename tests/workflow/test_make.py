"""What a user gives to make reaches commands as it was typed: nothing in it runs, and no name breaks."""

import shutil
import subprocess

import pytest
from clones import clone_environment
from places import ROOT

ECHO = '#!/bin/sh\nfor word in "$0" "$@"; do printf \'%s\\0\' "$word"; done\n'
NAMES = (
    "Bob's.zip", "demo #2.zip", "`touch ran`.zip", "$(shell touch ran).zip", "$$(touch ran).zip", '"; touch ran; ".zip',
    "'; touch ran; '.zip", "a$HOME{x} %.zip", "naïve &;|<>*?[a]~.zip", "https://a.b/c?d=$(touch ran)&e=`touch ran`#f",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """Return a folder with our Makefile and an environment whose programs print their arguments."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv-docs").mkdir()
    locks = ("requirements.lock", "requirements-docs.lock", "pyproject.toml")
    for name in (*locks, ".venv/.complete", ".venv-docs/.complete"):
        (tmp_path / name).touch()
    for name in ("python", "snakemake"):
        (tmp_path / ".venv/bin" / name).write_text(ECHO)
        (tmp_path / ".venv/bin" / name).chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_names_arrive_as_they_were_typed(folder, name):
    before = sorted(folder.rglob("*"))

    def words(target, *given, **variables):
        command, environment = ["make", "-s", target, *given], clone_environment(folder) | variables
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0 and not done.stderr, done.stderr
        return done.stdout.split("\0")[:-1]

    assert words("figures", f"ARTIFACTS={name}")[-2:] == ["--config", f"artifacts={name}"]
    assert words("figures", ARTIFACTS=name)[-1] == f"artifacts={name}"
    assert words("bundle", f"COMPACT={name}")[-2:] == ["--config", "bundle_compact=true"]
    assert words("bundle", "TEXTS=1", "COMPACT=1")[-3:] == ["--config", "bundle_texts=true", "bundle_compact=true"]
    demo = words("demo", f"STUDY={name}", f"CORES={name}", f"PYTHON={name}", f"TORCH_INDEX={name}")
    assert demo[1:] == ["-m", "rtt", "run", "--cores", name, "--configfile", name]
    assert words("bundle", f"STUDY={name}", f"TEXTS={name}")[-4:] == [
        "--configfile", name, "--config", "bundle_texts=true"
    ]  # fmt: skip
    assert words("demo")[-1] == "2" and words("bundle")[-2:] == ["--cores", "2"]
    assert words("test", "PYTEST_ARGS=-n 0 -k `touch${IFS}ran`")[-4:] == ["-n", "0", "-k", "`touch${IFS}ran`"]
    assert sorted(folder.rglob("*")) == before


def test_figures_are_those_of_the_project_s_own_results_where_none_is_named(folder):
    def figures(*given):
        command, environment = ["make", "-s", "figures", *given], clone_environment(folder)
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)

    done = figures()
    assert (
        done.returncode != 0 and "results/reference holds no bundle; name one: make figures ARTIFACTS=" in done.stderr
    )
    (folder / "results/reference").mkdir(parents=True)
    (folder / "results/reference/seeds-0123456789.zip").touch()
    assert figures().stdout.split("\0")[-3:-1] == ["--config", "artifacts=results/reference"]
    assert figures("ARTIFACTS=x.zip").stdout.split("\0")[-2] == "artifacts=x.zip"


def test_clean_leaves_the_project_s_own_results(folder):
    for name in ("results/reference/seeds.zip", "results/demo/report.html", "results/.locks/x", "dist/x.zip"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    for _ in range(2):
        subprocess.run(["make", "-s", "clean"], cwd=folder, env=clone_environment(folder), check=True)
        assert [path.name for path in folder.glob("results/*")] == ["reference"] and not (folder / "dist").exists()
    assert (folder / "results/reference/seeds.zip").is_file()

"""The wheel, installed where there is no clone: `rtt` works in any folder, and writes nothing beside its own code."""

import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import environments
import pytest
from clones import SMOKE, clone_environment, differing, job_counts
from packaging.requirements import Requirement
from places import ROOT
from rtt.study.expand import Runs
from rtt.study.load import load_study

pytestmark = pytest.mark.usefixtures("installed")


class Installed:
    """An environment with the wheel and what a plain `pip install` brings: no DeepSpeed, no SLURM plugin."""

    def __init__(self, source: Path, folder: Path):
        self.folder = folder / "env"
        shutil.copytree(source, folder / "source")
        wheel = environments.build_wheel(folder / "source", folder / "wheel")
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        self.packages = environments.make((Requirement(line).name for line in project["dependencies"]), self.folder)
        environments.install(wheel, self.folder)
        self.before = self.files()

    def files(self) -> dict[Path, tuple[int, int]]:
        """Return {file of our package: (size, time)}, without bytecode."""
        found = (path for path in (self.packages / "rtt").rglob("*") if "__pycache__" not in path.parts)
        return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in found}

    def run(self, here: Path, program: str, *arguments: str) -> subprocess.CompletedProcess:
        environment = clone_environment(here) | {"PATH": os.pathsep.join([str(self.folder / "bin"), os.defpath])}
        words = [program] if program == "rtt" else ["python", "-m", program]
        return subprocess.run(
            [str(self.folder / "bin" / words[0]), *words[1:], *arguments],
            cwd=here,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )

    def rtt(self, here: Path, *arguments: str) -> str:
        """Run a command that must succeed; return what it prints."""
        done = self.run(here, "rtt", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def installed(pristine, tmp_path_factory) -> Installed:
    found = Installed(pristine, tmp_path_factory.mktemp("installed"))
    yield found
    assert found.files() == found.before, "something was written beside the installed code"


def test_a_plan_of_the_smoke_study_in_an_empty_folder(installed, tmp_path):
    assert "study smoke" in installed.rtt(tmp_path, "check", "smoke")
    assert "study demo" in installed.rtt(tmp_path, "check")
    assert not list(tmp_path.iterdir())
    snakefile, config = (installed.rtt(tmp_path, "where", what).strip() for what in ("snakefile", "config"))
    done = installed.run(
        tmp_path, "snakemake", "-n", "-c1", "--snakefile", snakefile, "--configfile", f"{config}/smoke.yaml"
    )
    assert done.returncode == 0 and job_counts(done.stdout)["attack"] == 8, done.stdout + done.stderr


def test_a_study_and_a_model_file_of_ones_own_come_first(installed, tmp_path):
    (tmp_path / "config/models").mkdir(parents=True)
    study = (ROOT / "config/smoke.yaml").read_text()
    (tmp_path / "config/smoke.yaml").write_text(study.replace("study: smoke", "study: mine"))
    for name in ("smoke", "config/smoke.yaml"):
        assert "study mine" in installed.rtt(tmp_path, "check", name)


def test_a_step_runs_in_the_current_folder(installed, tmp_path):
    """`rtt run` there, for one dataset: results, locks and what Snakemake remembers lie in the current folder."""
    (tmp_path / "Snakefile").write_text("raise ValueError('this is another project')")
    target = f"results/smoke/data/{next(iter(Runs(load_study(ROOT / SMOKE)).data))}/facts.jsonl"
    said = installed.rtt(tmp_path, "run", "--configfile", "smoke", target)
    assert "done: 2 steps" in said and (tmp_path / target).is_file()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != ".matplotlib") == [
        ".snakemake",
        "Snakefile",
        "results",
    ]
    assert [path.name for path in (tmp_path / ".snakemake/rtt").iterdir()] == ["rtt"]


def test_a_missing_extra_is_named_with_its_command(installed, tmp_path):
    config = ["--config", "launcher=deepspeed", "devices=2", "deepspeed=zero2"]
    done = installed.run(tmp_path, "rtt", "run", "--configfile", "smoke", *config, "--", "-n")
    assert done.returncode == 1
    assert "launcher: deepspeed: deepspeed is not installed: pip install 'unlearning-rtt[deepspeed]'" in done.stderr
    done = installed.run(tmp_path, "rtt", "run", "--configfile", "smoke", "--", "-n", "--executor", "slurm")
    assert done.returncode == 1
    assert "snakemake_executor_plugin_slurm is not installed: pip install 'unlearning-rtt[slurm]'" in done.stderr


@pytest.mark.full
def test_the_smoke_study_has_the_bytes_of_a_clone_s(installed, finished, tmp_path):
    said = installed.rtt(tmp_path, "run", "--configfile", "smoke")
    assert "report: results/smoke/report.html" in said
    assert differing(tmp_path / "results/smoke", finished.results()) == []
    again = installed.rtt(tmp_path, "run", "--configfile", "smoke")
    assert "nothing to do" in again
    assert "study smoke" in installed.rtt(tmp_path, "check", "results/smoke/study.yaml")

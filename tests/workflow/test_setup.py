"""The environment: what the lock holds, what `make setup` does and says, style, and CI's exit code.

`make setup` runs here with stand-ins for Python, so that no package is fetched; .ci/run does it for real first.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from report_builder import recovery, recovery_row, write_study

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text()
LOCKED = [Requirement(line.rstrip(" \\")) for line in LOCK.splitlines() if re.match(r"[a-zA-Z]", line)]


@pytest.mark.parametrize("file", ["requirements.lock", "requirements-analysis.lock", "requirements-docs.lock"])
def test_the_lock_holds_no_address_and_no_path(file):
    lock = (ROOT / file).read_text()
    assert "--hash=sha256:" in lock
    assert not re.search(r"://|--(extra-)?index|--find-links|(^|\s)/\w", lock, re.MULTILINE)


def test_each_locked_package_has_one_version_and_hashes():
    blocks = re.split(r"^(?=[a-zA-Z])", LOCK, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(LOCKED) > 90
    for block, requirement in zip(blocks, LOCKED, strict=True):
        assert re.fullmatch(r"==[^,*]+", str(requirement.specifier)), requirement
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), requirement


def test_torch_and_its_cuda_libraries_are_not_locked_but_its_other_requirements_are():
    names = {canonicalize_name(requirement.name) for requirement in LOCKED}
    assert not [name for name in names if name == "torch" or name.startswith(("nvidia", "cuda", "triton"))]
    for text in importlib.metadata.requires("torch"):
        requirement = Requirement(text)
        if "extra" in str(requirement.marker) or requirement.name.startswith(("nvidia", "cuda", "triton")):
            continue
        assert canonicalize_name(requirement.name) in names


def test_what_is_installed_is_what_is_locked():
    wrong = {}
    for requirement in LOCKED:
        if requirement.marker is None or requirement.marker.evaluate():
            installed = importlib.metadata.version(requirement.name)
            if not requirement.specifier.contains(installed, prereleases=True):
                wrong[requirement.name] = installed
    assert not wrong


def test_the_project_s_ranges_admit_the_lock():
    locked = {canonicalize_name(requirement.name): str(requirement.specifier)[2:] for requirement in LOCKED}
    locked["torch"] = re.search(r"^torch=torch==(.*)$", (ROOT / "scripts/setup.sh").read_text(), re.MULTILINE)[1]
    for text in importlib.metadata.requires("unlearning-rtt"):
        requirement = Requirement(text)
        if requirement.marker and "extra" in str(requirement.marker):
            continue  # flash-attn needs CUDA to be built, and is in no lock
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), text


# Stands in for Python. FAKE_VERSION is its version (3.MINOR); -m venv puts a copy of it into the environment; -m pip
# writes its arguments down, and fails once on the word in FAIL_ONCE.
FAKE_PYTHON = """#!/bin/sh
case "$*" in
*"not (3, 11) <="*) top=${2##*<= (3, }; [ "$FAKE_MINOR" -ge 11 ] && [ "$FAKE_MINOR" -le "${top%%)*}" ];;
*python_version*) echo "is 3.$FAKE_MINOR.2";;
*%d.%d*) echo "3.$FAKE_MINOR";;
*ensurepip*) [ -z "${FAKE_NO_VENV:-}" ];;
"-m venv"*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python";;
"-m pip"*)
    echo "$*" >> "$CALLS"
    case "$*" in *"${FAIL_ONCE:-nothing}"*) [ -e failed ] || { touch failed; echo "no such wheel"; exit 1; };; esac;;
*import*) echo "$*" >> "$CALLS";;
esac
"""


class Clone:
    """The files that `make setup` needs, in a folder, with stand-ins for Python first on the PATH."""

    def __init__(self, folder: Path):
        self.folder, self.bin = folder, folder / "fake-bin"
        self.bin.mkdir()
        (folder / "scripts").mkdir()
        for name in ("Makefile", "requirements.lock", "pyproject.toml", "scripts/setup.sh"):
            shutil.copy(ROOT / name, folder / name)
        # Nothing else on the PATH: the real Pythons must not be found.
        for tool in ("sh", "awk", "cp", "date", "make", "mkdir", "rm", "tail", "touch"):
            (self.bin / tool).symlink_to(shutil.which(tool))

    def python(self, name: str = "python3") -> None:
        (self.bin / name).write_text(FAKE_PYTHON)
        (self.bin / name).chmod(0o755)

    def setup(self, *arguments: str, minor: int = 11, **variables: str) -> tuple[int, str]:
        environment = {
            "PATH": str(self.bin), "FAKE_MINOR": str(minor), "CALLS": str(self.folder / "calls"), **variables
        }  # fmt: skip
        done = subprocess.run(
            ["make", "--no-print-directory", "setup", *arguments],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return done.returncode, done.stdout

    def change(self, name: str) -> None:
        """Make one file newer than the finished environment, and all others older."""
        times = {"requirements.lock": 1, "pyproject.toml": 1, ".venv/.complete": 2, name: 3}
        for path, time in times.items():
            os.utime(self.folder / path, (time, time))

    def calls(self) -> list[str]:
        calls = (self.folder / "calls").read_text().splitlines()
        (self.folder / "calls").unlink()
        return calls


@pytest.fixture
def clone(tmp_path):
    return Clone(tmp_path)


def said(output: str) -> list[str]:
    """What we said, less make's own last line."""
    return [line for line in output.splitlines() if not re.match(r"make: \*\*\*", line)]


def test_without_a_python_one_line_says_what_to_install(clone):
    code, output = clone.setup()
    assert code and said(output) == [
        "make setup: Python 3.11 or newer is needed, but python3 was not found: apt install python3.11 python3.11-venv,"
        " or name one: make setup PYTHON=/path/to/python3.11"
    ]
    assert not (clone.folder / ".venv").exists()


def test_too_old_a_python_gives_one_line(clone):
    clone.python()
    code, output = clone.setup(minor=9)
    assert code and len(said(output)) == 1
    assert "but python3 is 3.9.2: apt install python3.11" in output
    clone.python("mypython")
    code, output = clone.setup("PYTHON=mypython", minor=10)
    assert code and len(said(output)) == 1 and "but mypython is 3.10.2" in output


def test_without_the_venv_module_one_line_names_the_package(clone):
    clone.python()
    code, output = clone.setup(minor=12, FAKE_NO_VENV="1")
    assert code and said(output) == ["make setup: python3 has no venv module: apt install python3.12-venv"]
    assert not (clone.folder / ".venv").exists()


def test_a_second_python_is_found_when_python3_is_too_old(clone):
    clone.python("python3.12")
    (clone.bin / "python3").write_text("#!/bin/sh\nexit 1\n")
    (clone.bin / "python3").chmod(0o755)
    code, output = clone.setup(minor=12)
    assert code == 0, output
    assert "Python 3.12" in output


def test_a_python_newer_than_those_with_ready_made_packages_is_taken_when_there_is_no_other(clone):
    clone.python()
    assert clone.setup(minor=14)[0] == 0


def test_torch_comes_first_then_the_lock_then_the_project_and_a_second_setup_does_nothing(clone):
    clone.python()
    code, output = clone.setup("TORCH_INDEX=https://index.invalid/cpu")
    assert code == 0, output
    calls = [call.replace("--disable-pip-version-check --no-input ", "") for call in clone.calls()]
    assert calls == [
        "-m pip install --no-deps --retries 2 --extra-index-url https://index.invalid/cpu torch==2.13.0",
        "-m pip install --no-deps --require-hashes -r .venv/setuptools.lock",
        "-m pip install --no-deps --require-hashes --no-build-isolation -r requirements.lock",
        "-m pip install --retries 2 --extra-index-url https://index.invalid/cpu torch==2.13.0",
        "-m pip install --no-deps --no-build-isolation -e .",
        "-m pip check",
        "-c import rtt, torch, transformers, snakemake",
    ]
    build = (clone.folder / ".venv/setuptools.lock").read_text()
    assert re.fullmatch(r"setuptools==[\d.]+ \\\n( +--hash=sha256:[0-9a-f]{64} ?\\?\n)+( +#.*\n)*", build)

    assert clone.setup() == (0, "make: Nothing to be done for 'setup'.\n")
    clone.change("requirements.lock")
    assert clone.setup()[0] == 0 and len(clone.calls()) == 7


def test_an_empty_index_leaves_torch_to_pip_s_configuration(clone):
    clone.python()
    assert clone.setup("TORCH_INDEX=")[0] == 0
    assert clone.calls()[0].endswith("install --no-deps --retries 2 torch==2.13.0")


def test_an_interrupted_setup_is_made_from_nothing_again(clone):
    clone.python()
    code, output = clone.setup(FAIL_ONCE="requirements.lock")
    assert code and "no such wheel" in output and "run the same command to try again" in output
    half_copied = clone.folder / ".venv/half-copied"
    half_copied.touch()
    clone.calls()
    code, output = clone.setup(FAIL_ONCE="requirements.lock")
    assert code == 0, output
    assert not half_copied.exists() and len(clone.calls()) == 7


def test_an_environment_that_was_not_interrupted_is_kept(clone):
    clone.python()
    assert clone.setup()[0] == 0
    own = clone.folder / ".venv/own"
    own.touch()
    clone.change("pyproject.toml")
    assert clone.setup()[0] == 0
    assert own.exists()


@pytest.fixture(scope="module")
def analysis(tmp_path_factory):
    """An environment as `make figures` makes it, but of an empty lock: it borrows the packages of ours, less torch."""
    folder = tmp_path_factory.mktemp("analysis")
    (folder / "empty.lock").touch()
    (folder / "torch.py").write_text("raise ImportError('not in the analysis environment')\n")
    environment = {**os.environ, "PYTHON": sys.executable}
    environment["PYTHONPATH"] = f"{folder}{os.pathsep}{sysconfig.get_path('purelib')}"
    command = ["sh", "scripts/setup.sh", folder / "venv", folder / "venv/.complete", folder / "empty.lock"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "venv/.complete").is_file() and not (folder / "venv/.started").exists()
    study = write_study(folder / "results/tiny", recovery(recovery_row()))

    def run(*words):
        python = [folder / "venv/bin/python", "-m", "rtt", *words]
        return subprocess.run(python, cwd=study.parents[1], env=environment, capture_output=True, text=True)

    return run


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("figure accuracy --tables results/tiny/tables --out accuracy.svg", "accuracy.svg\n"),
        ("summary --results results/tiny", "pretrained  GD"),
        (f"compare {ROOT}/tests/data/bundle-v2.zip {ROOT}/tests/data/bundle-v2.zip", "0 of 648 numbers differ"),
    ],
)
def test_the_analysis_environment_has_the_project_s_commands_in_every_folder(analysis, command, said):
    done = analysis(*command.split())
    assert done.returncode == 0 and said in done.stdout, done.stdout + done.stderr


def test_help_names_every_target():
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    assert re.findall(r"^make ([a-z-]+)", done.stdout, re.MULTILINE) == targets


def test_style():
    # -o: the environment is this one, whether or not `make setup` made it.
    bin_folder = f"BIN={Path(sys.executable).parent}"
    done = subprocess.run(
        ["make", "-o", ".venv/.complete", bin_folder, "lint"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("code", [0, 2])
def test_ci_sets_ci_and_passes_the_exit_code_on(tmp_path, code):
    fake = {"make": f'echo "CI=$CI $*"; exit {code}', "chromium": "true"}
    for name, text in fake.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "CI": ""}
    done = subprocess.run([ROOT / ".ci/run"], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (code, "CI=true --no-print-directory test\n")

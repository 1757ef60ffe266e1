"""The conda environments and pip's lists: the lock's versions, and all that the code imports. (No channel or index is
asked here.)
"""

import ast
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import environments
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from rtt import places
from rtt.__main__ import COMMANDS

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"
ENVIRONMENTS = {path.stem: path for path in (ROOT / "envs").glob("*.yaml")}
CONDA_NAMES = {  # where PyPI has another
    "pytorch-cpu": "torch", "pytorch-gpu": "torch", "matplotlib-base": "matplotlib",
    "huggingface_hub": "huggingface-hub",
}  # fmt: skip
HEAVY = {"torch", "transformers", "accelerate", "tokenizers", "safetensors"}


def versions(environment: str | Path) -> dict[str, str]:
    """Return {PyPI name: version} of an environment, by its name or file."""
    pins = yaml.safe_load(Path(ENVIRONMENTS.get(environment, environment)).read_text())["dependencies"]
    assert all(re.fullmatch(r"[a-z0-9_-]+=\d+(\.\d+)+", pin) for pin in pins), "an exact version each"
    return {CONDA_NAMES.get(name, name): version for name, version in (pin.split("=") for pin in pins)}


def locked(file: str = "requirements.lock") -> dict[str, str]:
    lines = (ROOT / file).read_text().splitlines()
    pins = [Requirement(line.rstrip(" \\")) for line in lines if re.match(r"[a-zA-Z]", line)]
    lock = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}
    lock["torch"] = re.search(r"^torch=torch==(.*)$", (SCRIPTS / "setup.sh").read_text(), re.MULTILINE)[1]
    return lock


TORCH = ("cpu", "gpu", "gpu-flash")  # by the study's device and attention backend: TORCH_ENVIRONMENT in the rules
FLASH = "flash-attn"


def rules() -> dict[str, tuple[tuple[str, ...], str]]:
    """Return {rule: (environments, command)}; a target alone has neither."""
    found = {}
    for path in sorted((ROOT / "rules").glob("*.smk")):
        for name, body in re.findall(r"^rule (\w+):\n(.*?)(?=^\S|\Z)", path.read_text(), re.MULTILINE | re.DOTALL):
            if "shell:" not in body:
                continue
            environment = re.search(r'conda:\s+(?:"\.\./envs/(\w+)\.yaml"|TORCH_ENVIRONMENT)\n', body)
            commands = re.findall(r"(?:python -m rtt|\$LAUNCH) (\w+)", body)
            assert environment and len(commands) == 1, f"rule {name} names no environment or no command"
            found[name] = ((environment[1],) if environment[1] else TORCH, commands[0])
    return found


def imports(module: str) -> set[str]:
    """Return what a module of ours imports, anywhere in it: full dotted names."""
    path = SCRIPTS / Path(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names


def is_module(name: str) -> bool:
    path = SCRIPTS / Path(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def closure(command: str) -> tuple[set[str], set[str]]:
    """Return our modules that a command imports, one through the other, and the top names of what is not ours."""
    ours, external = set(), set()
    # __main__ imports a command's module by its name; what it imports itself, every command needs.
    waiting = {"rtt", "rtt.__main__", COMMANDS[command][0]}
    while waiting:
        module = waiting.pop()
        ours.add(module)
        for name in imports(module):
            if name.split(".")[0] == "rtt":
                waiting |= {name} - ours if is_module(name) else set()
            else:
                external.add(name.split(".")[0])
    return ours, external - sys.stdlib_module_names


@pytest.mark.parametrize("environment", sorted(ENVIRONMENTS))
def test_versions_are_those_of_the_lock(environment):
    lock = locked()
    pins = versions(environment)
    assert pins.pop("python") == "3.11"
    assert pins.pop(FLASH, None) == (flash_attn() if environment == "gpu-flash" else None)
    assert pins == {name: lock[name] for name in pins}


def test_the_two_locks_agree():
    """What `make figures` installs is what the study ran with."""
    both, analysis = locked(), locked("requirements-analysis.lock")
    assert len(analysis) > 50 and analysis.items() <= both.items()
    assert {name for name in versions("analysis") if name in analysis} >= {"numpy", "pandas", "scipy", "matplotlib"}
    docs = locked("requirements-docs.lock")  # it has no torch, which `locked` adds
    assert {"sphinx", "myst-parser", "furo"} <= set(docs)
    assert all(both[name] == version for name, version in docs.items() if name in both)


def test_every_environment_is_used_and_every_rule_has_one():
    assert {environment for environments, _ in rules().values() for environment in environments} == set(ENVIRONMENTS)
    assert len(rules()) >= 11


# What Snakemake asks of conda. It makes an environment of links to what is installed here, without the network.
CONDA = f"""#!/bin/sh
case $1 in
--version) echo conda 25.3.0 ;;
info) echo '{{"conda_prefix": "FOLDER", "platform": "linux-64", "active_prefix": null}}' ;;
clean) ;;
config) echo '{{"get": {{"channel_priority": "strict"}}}}' ;;
env) export PYTHONPATH={ROOT}/tests/workflow:{ROOT}/tests/helpers:{SCRIPTS}
    exec {sys.executable} -c 'import sys, test_envs; test_envs.make(*sys.argv[1:])' "$6" "$8" ;;
*) exit 1 ;;
esac
"""


def with_conda(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run Snakemake on the smoke study in `folder`, with such a conda on the path."""
    tools = folder / "bin"
    tools.mkdir(exist_ok=True)
    (tools / "conda").write_text(CONDA.replace("FOLDER", str(folder)))
    (tools / "conda").chmod(0o755)
    (tools / "activate").write_text('export PATH="$1/bin:$PATH"\n')
    command = [sys.executable, "-m", "snakemake", "-c2", "--scheduler", "greedy", "--directory", str(folder)]
    command += ["--snakefile", str(ROOT / "Snakefile"), "--configfile", str(ROOT / "config/smoke.yaml"), *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RTT_", "PYTHON"))}
    environment |= {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize(
    ("config", "environment"),
    [
        (["device=auto"], "cpu"),  # of a miniature
        (["device=cuda"], "gpu"),
        (["device=cuda", "attn_backend=flash_attention_2"], "gpu-flash"),
        (["device=cpu", "attn_backend=flash_attention_2"], "cpu"),
    ],
)
def test_the_study_s_device_chooses_among_those_with_torch(tmp_path, config, environment):
    done = with_conda(tmp_path, "--list-conda-envs", "--sdm", "conda", "--config", *config)
    found = re.findall(r"envs/([\w-]+)\.yaml", done.stdout)
    assert sorted(found) == sorted(["analysis", environment]), done.stdout


@pytest.mark.parametrize("environment", sorted(ENVIRONMENTS))
def test_the_file_is_what_conda_takes(environment):
    content = yaml.safe_load(ENVIRONMENTS[environment].read_text())
    # Without nodefaults Anaconda's own channel, which is not free for all, may be asked too.
    assert content.pop("channels") == ["conda-forge", "nodefaults"]
    assert list(content) == ["dependencies"] and all(isinstance(pin, str) for pin in content["dependencies"])


def test_the_environments_with_torch_differ_in_the_build_alone():
    def lines(name: str) -> list[str]:
        return [line for line in ENVIRONMENTS[name].read_text().splitlines() if not line.startswith("#")]

    assert lines("gpu") == [line.replace("pytorch-cpu=", "pytorch-gpu=") for line in lines("cpu")] != lines("cpu")
    assert lines("gpu-flash") == [*lines("gpu"), f"  - {FLASH}={flash_attn()}"]


@pytest.mark.parametrize("rule", sorted(rules()))
def test_a_rule_s_environment_has_all_that_its_command_imports(rule):
    environments, command = rules()[rule]
    distributions = importlib.metadata.packages_distributions()
    _, external = closure(command)
    needed = {canonicalize_name(distributions[name][0]) for name in external}
    for environment in environments:
        assert needed <= set(versions(environment)), f"missing in envs/{environment}.yaml"


@pytest.mark.parametrize("environment", sorted(ENVIRONMENTS))
def test_an_environment_has_nothing_that_no_rule_needs(environment):
    distributions = importlib.metadata.packages_distributions()
    external = set().union(*(closure(command)[1] for where, command in rules().values() if environment in where))
    needed = {canonicalize_name(distributions[name][0]) for name in external}
    # transformers imports accelerate for its Trainer and gguf to read such a file; we do not.
    transformers = {"gguf"} if "transformers" in needed else set()
    flash = {FLASH} if environment == "gpu-flash" else set()
    assert set(versions(environment)) - needed - {"python"} == transformers | flash


def test_analysis_is_free_of_torch():
    assert not HEAVY & set(versions("analysis"))
    assert all({"torch", "transformers"} <= set(versions(environment)) for environment in TORCH)


@pytest.mark.parametrize("command", sorted({command for where, command in rules().values() if "analysis" in where}))
def test_a_command_of_analysis_starts_without_torch(command):
    """What the syntax tree can't see, the interpreter does."""
    block = (
        f"import sys; sys.modules.update(dict.fromkeys({sorted(HEAVY)})); "
        f"from rtt.__main__ import main; main([{command!r}, '--help'])"
    )
    done = subprocess.run([sys.executable, "-c", block], cwd=SCRIPTS, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- pip: requirements.txt, requirements.in (what the lock is made from), pyproject.toml

# transformers imports accelerate for its Trainer and gguf to read such a file; Snakemake runs the rules, and needs
# Pygments to show code in its own report, and its plugins for SLURM.
NOT_IMPORTED = {"accelerate", "gguf", "snakemake", "pygments"}
NOT_IMPORTED |= {"snakemake-executor-plugin-slurm", "snakemake-executor-plugin-slurm-jobstep"}


def all_imports() -> set[str]:
    """PyPI names of what any module of ours imports."""
    modules = [path.relative_to(SCRIPTS).with_suffix("") for path in (SCRIPTS / "rtt").rglob("*.py")]
    tops = {
        name.split(".")[0] for module in modules for name in imports(".".join(module.parts).removesuffix(".__init__"))
    }
    distributions = importlib.metadata.packages_distributions()
    return {canonicalize_name(distributions[name][0]) for name in tops - sys.stdlib_module_names - {"rtt"}}


def listed(file: str) -> dict[str, Requirement]:
    """Return {PyPI name: requirement} of a list for pip, without its part for development."""
    text = (ROOT / file).read_text()
    if file == "pyproject.toml":
        project = tomllib.loads(text)["project"]
        extras = project["optional-dependencies"]
        lines = [*project["dependencies"], *extras["deepspeed"], *extras["slurm"]]
    else:
        lines = [line for line in re.split(r"^# (?:what torch|development)", text, flags=re.MULTILINE)[0].splitlines()]
    found = [Requirement(line) for line in lines if re.match(r"[a-zA-Z]", line)]
    assert len({canonicalize_name(one.name) for one in found}) == len(found), "a name stands twice"
    return {canonicalize_name(one.name): one for one in found}


@pytest.mark.parametrize("file", ["requirements.txt", "requirements.in", "pyproject.toml"])
def test_a_list_for_pip_has_what_is_imported_and_nothing_else(file):
    torch = {"torch"} if file == "requirements.in" else set()  # scripts/setup.sh has it
    assert set(listed(file)) == (all_imports() | NOT_IMPORTED) - torch


@pytest.mark.parametrize("file", ["requirements.txt", "requirements.in", "pyproject.toml"])
def test_a_list_for_pip_agrees_with_the_lock(file):
    lock = locked()
    for name, requirement in listed(file).items():
        assert requirement.specifier.contains(lock[name]), f"{file}: {requirement}, the lock has {lock[name]}"
        if file == "requirements.txt":
            assert str(requirement.specifier) == f"=={lock[name]}"


def test_what_only_some_need_is_an_extra():
    """A plain `pip install` scores, trains and analyses on one machine without DeepSpeed and without SLURM."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    core = {canonicalize_name(Requirement(line).name) for line in project["dependencies"]}
    named = {
        Requirement(line).name
        for extra in set(places.EXTRAS.values())
        for line in project["optional-dependencies"][extra]
    }
    assert named == {"deepspeed", "snakemake-executor-plugin-slurm", "snakemake-executor-plugin-slurm-jobstep", FLASH}
    assert not named & core


def test_the_extra_for_flash_attn_agrees_with_its_list():
    (line,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["flash"]
    assert Requirement(line).name == FLASH and Requirement(line).specifier.contains(flash_attn())


def flash_attn() -> str:
    """Return its version. The list for it adds one pinned package to requirements.txt."""
    lines = [line for line in (ROOT / "requirements-flash.txt").read_text().splitlines() if not line.startswith("#")]
    first, pin = lines
    assert first == "-r requirements.txt"
    return re.fullmatch(r"flash-attn==(\d+(?:\.\d+)+)", pin)[1]


# --- the smoke study, each step in an environment that holds what its file names and nothing else, and no network


NO_NETWORK = """
import socket

def refuse(*arguments, **named):
    raise SystemExit(f"the network was asked for: {arguments}")

socket.getaddrinfo = socket.socket.connect = refuse
"""


def make(file: str, folder: str) -> None:
    """Make an environment of an environment's packages, cut off from the network."""
    packages = environments.make(set(versions(Path(file))) - {"python"}, folder)
    (packages / "sitecustomize.py").write_text(NO_NETWORK)


@pytest.mark.full
def test_the_smoke_study_runs_in_the_environments_of_its_rules(tmp_path):
    """Snakemake activates them. What they lack, such as Snakemake itself, no step misses, and none asks the network."""
    done = with_conda(tmp_path, "--sdm", "conda")
    assert done.returncode == 0, done.stdout
    results = tmp_path / "results/smoke"
    assert (results / "report.html").is_file()
    manifests = [json.loads(path.read_text()) for path in results.glob("manifests/*.json")]
    assert manifests and not any("snakemake" in manifest["packages"] for manifest in manifests)
    interpreters = list(tmp_path.glob(".snakemake/conda/*/bin/python"))
    assert len(interpreters) == 2
    for python in interpreters:
        asking = [python, "-c", "import socket; socket.create_connection(('127.0.0.1', 9))"]
        assert b"the network was asked for" in subprocess.run(asking, capture_output=True).stderr
    # From conda to a virtual environment: no training is done twice.
    for profile in ("local", "slurm"):
        done = with_conda(tmp_path, "-n", "--workflow-profile", str(ROOT / "profiles" / profile))
        assert "Nothing to be done" in done.stdout, done.stdout

"""Every command in README.md, CONTRIBUTING.md and docs/ is run: by a dry run, or for real on the smoke study.

A command is a line of a code block whose first line starts with a program (or, in a block with `$ ` before them, each
such line). What no test can run says why, above its block: `<!-- not run: needs a cluster -->`.
"""

import argparse
import contextlib
import functools
import importlib
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from clones import ROOT, SMOKE, Clone
from docs_markdown import FILES, Block, blocks, comments, inline
from rtt.__main__ import COMMANDS, main

# Programs that need not be installed where the tests run.
PROGRAMS = {
    "python",
    "rtt",
    "snakemake",
    "make",
    ".",
    "cd",
    "cp",
    "export",
    "git",
    "pip",
    "apt",
    "conda",
    "curl",
    "ssh",
}
PROGRAMS |= {"sbatch", "srun", "squeue", "sacct", "sinfo", "scancel", "module", "docker", "singularity", "apptainer"}
TEXT = {"text", "yaml", "python", "json", "bibtex", "diff"}
ACTIVATE = ". .venv/bin/activate"
# Run first, for real and in this order, since other commands need what they make.
REAL = (
    "snakemake -c2 --configfile config/own-original.yaml",
    "python -m rtt export config/own-original.yaml --out own",
)
DONE: dict[tuple[str, ...], tuple[int, str]] = {}  # what was run once for several commands: (exit code, output)
PLACEHOLDER = re.compile(r"\[|\b[A-Z][A-Z_]+\b(?!=)")
TARGETS = set(re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split())


def is_program(word: str) -> bool:
    if re.match(r"[A-Z_]+=", word):  # a variable for the program after it
        return True
    return word in PROGRAMS or (word.isascii() and shutil.which(word) is not None)


def commands(block: Block) -> list[str]:
    """Return the commands of a block, without comments; none where it shows something else."""
    lines = block.text.replace("\\\n", " ").splitlines()
    if any(line.startswith("$ ") for line in lines):
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    elif block.language in TEXT or not lines or not is_program((lines[0].split() or [""])[0]):
        assert block.language not in ("sh", "bash", "console"), f"{block.place}: `{lines[:1]}`: no known program"
        return []
    # A `#` starts a comment where it stands after a space, as in a shell.
    found = [re.sub(r"(^|\s)#.*$", "", line).strip() for line in lines]
    return [re.sub(r"\s+", " ", line) for line in found if line]


def shown(block: Block) -> dict[str, list[str]]:
    """Return {command: what the block says that it prints} of a block with `$ ` before its command."""
    lines = block.text.splitlines()
    if not lines or not lines[0].startswith("$ "):
        return {}
    return {lines[0][2:]: lines[1:]}


BLOCKS = [block for file in FILES for block in blocks(file)]
TO_RUN: dict[str, str] = {}  # command -> the first place where it stands
for _block in BLOCKS:
    if _block.reason is None:
        for _command in commands(_block):
            TO_RUN.setdefault(_command, _block.place)
SHOWN = {command: lines for block in BLOCKS for command, lines in shown(block).items()}


@pytest.fixture(scope="module")
def place(finished, tmp_path_factory) -> Clone:
    """A finished smoke study under the demo's name, and its original in the place of own-original.yaml's."""
    clone = Clone(tmp_path_factory.mktemp("pages") / "clone")
    shutil.copytree(finished.folder, clone.folder, symlinks=True)
    shutil.copytree(clone.results(), clone.results("demo"))
    (original,) = clone.results().glob("evals/pretrain-*-birth_years_a-*.json")
    with contextlib.chdir(clone.folder):
        assert main(["export", SMOKE, "--out", "own", "--original", original.stem]) == 0
    return clone


@pytest.fixture(scope="module")
def whole_place(finished, tmp_path_factory) -> Clone:
    """A finished smoke study that goes by the names that the documents use; own-original.yaml is as small."""
    clone = Clone(tmp_path_factory.mktemp("docs") / "clone")
    shutil.copytree(finished.folder, clone.folder, symlinks=True)
    results = clone.folder / "results"
    for name in ("demo", "own-model", "own-tofu"):
        shutil.copytree(results / "smoke", results / name)
    packed = shell(clone, ["python", "-m", "rtt", "bundle", "--results", "results/smoke"])
    assert packed[0] == 0, packed[1]
    (bundle,) = (clone.folder / "dist").glob("smoke-*.zip")
    for name in ("A.zip", "B.zip"):
        shutil.copy(bundle, clone.folder / name)
    small, path = yaml.safe_load((clone.folder / SMOKE).read_text()), clone.folder / "config/own-original.yaml"
    own = yaml.safe_load(path.read_text()) | {name: small[name] for name in ("model", "pretraining")}
    own["data"]["generator"] = small["data"]["generator"] | {"facts_per_split": 16, "retain_train": 32}
    own["data"]["generator"] |= {"first_names": 16, "last_names": 16}
    path.write_text(yaml.safe_dump(own))
    mistaken = small | {
        "pretraining": small["pretraining"] | {"steps": "many"},
        "attacks": {"RTT": small["attacks"]["RTT"] | {"epoch": 2}},
    }
    (clone.folder / "own.yaml").write_text(yaml.safe_dump(mistaken))
    for command in REAL:
        words = shlex.split(command)
        DONE[(command,)] = shell(clone, words if words[0] == "python" else ["python", "-m", *words])
    return clone


@pytest.mark.full
@pytest.mark.parametrize("command", TO_RUN)
def test_command(command, whole_place, monkeypatch, capfd):
    monkeypatch.chdir(whole_place.folder)
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    code, output = run(command, whole_place, capfd)
    said = SHOWN.get(command, [])
    assert code == int(any("error" in line or "unknown" in line for line in said)), f"{TO_RUN[command]}: {output}"
    for line in said:
        for part in line.split("..."):
            assert part.strip() in output, f"{TO_RUN[command]}: `{command}` does not say this: {part}\n{output}"


def run(command: str, place: Clone, capfd) -> tuple[int, str]:
    """Run a command of the documents, or as much of it as takes seconds. Returns (exit code, output)."""

    def bundle(_) -> str:
        (path,) = (place.folder / "dist").glob("smoke-*.zip")
        return str(path)

    words = [re.sub(r"[a-z]+-[0-9a-f]{10}\.zip$", bundle, word) for word in shlex.split(command)]
    if command in REAL:
        return DONE[(command,)]
    if words[0] in ("cd", "export"):  # for the commands after it, in a shell
        return 0, ""
    if command == ACTIVATE:
        return int("\nVENV := .venv\n" not in (ROOT / "Makefile").read_text()), "make setup makes another environment"
    if words[:3] == ["python", "-m", "rtt"]:
        if PLACEHOLDER.search(command):
            return missing_options(words[3:])
        if words[3] == "run":
            return dry_run(place, of_run(words[4:]))
        if words[3] == "verdict":  # tests/workflow/test_verdict.py runs one
            words = [*words, "--write-study"]
        try:
            code = main(words[3:])
        except SystemExit as ended:
            code = ended.code
        captured = capfd.readouterr()
        return code, captured.out + captured.err
    if words[0] == "snakemake":
        return dry_run(place, words[1:])
    if words[0] == "make":
        return shell(place, [*words, "-n"])
    if words[0] == "cp":
        return shell(place, words)
    if words[0] == "python" and words[1].startswith("docs/examples/"):
        return shell(place, words)
    if words[0] == "python" and words[1].startswith(("benchmarks/", "scripts/")):
        return shell(place, [*words[:2], "--help"])
    return 1, (
        "no test runs this. Say why above its block, <!-- not run: needs a cluster -->, or teach "
        "tests/workflow/test_docs_commands.py to run it"
    )


def of_run(words: list[str]) -> list[str]:
    """Return the arguments that `python -m rtt run` hands to Snakemake (tests/workflow/test_kill.py runs it)."""
    parser = argparse.ArgumentParser(prog="python -m rtt run")
    importlib.import_module(COMMANDS["run"][0]).configure(parser)
    args = parser.parse_args(words)
    study = ["--configfile", args.configfile] if args.configfile else []
    return [*args.rest, *study, *(["--config", *args.config] if args.config else [])]


def dry_run(place: Clone, words: list[str]) -> tuple[int, str]:
    """Return what `snakemake -n` says, once for all commands that differ in cores alone."""
    words = re.sub(r"(^|\0)(-n|-c\d+|--cores(\0|=)\d+)(?=\0|$)", "", "\0".join(words)).strip("\0").split("\0")
    key = tuple(word for word in words if word)
    if key not in DONE:
        DONE[key] = shell(place, ["python", "-m", "snakemake", *key, "-n"])
    return DONE[key]


def shell(place: Clone, words: list[str]) -> tuple[int, str]:
    if words[0] == "python":
        done = place.python(*words[1:], PYTHONPATH=str(place.folder / "scripts"))
    else:
        done = place.python("-c", "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])", *words)
    return done.returncode, done.stdout


@functools.cache
def options(name: str) -> set[str]:
    """Return the options of a command of `python -m rtt`."""
    parser = argparse.ArgumentParser(prog=f"python -m rtt {name}")
    importlib.import_module(COMMANDS[name][0]).configure(parser)
    return set(parser._option_string_actions)


def missing_options(words: list[str]) -> tuple[int, str]:
    """Check a synopsis, such as `audit DIR [--json]`: the command exists, and has these options."""
    if words[0] not in COMMANDS:
        return 1, f"no command {words[0]}"
    words = words[: words.index("--")] if "--" in words else words  # what follows is Snakemake's
    named = {option for word in words for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", word)}
    return int(bool(named - options(words[0]))), f"no such options: {named - options(words[0])}"


def test_what_is_run_first_stands_in_the_documents():
    assert set(REAL) <= set(TO_RUN)


def test_what_is_not_run_is_a_command_and_says_why():
    for file in FILES:
        annotated = [block for block in blocks(file) if block.reason is not None]
        assert len(annotated) == len(comments(file)), f"{file}: `<!-- not run: ... -->` with no block right below it"
        for block in annotated:
            assert commands(block), f"{block.place}: not run, but there is no command in it"
            assert len(block.reason.split()) >= 2, f"{block.place}: not run: say why"


@pytest.mark.parametrize("block", [one for one in BLOCKS if one.language == "yaml"], ids=lambda block: block.place)
def test_yaml_can_be_read(block):
    assert isinstance(yaml.safe_load(block.text), dict)


@pytest.mark.parametrize("file", ["docs/tutorial.md", "docs/api.md"])
def test_the_python_of_a_page_runs(place, file):
    code = [block.text for block in blocks(file) if block.language == "python"]
    assert code
    each = "import sys\nfor text in sys.argv[1:]: print('\x1e', end='', flush=True); exec(text, {})"
    done = place.python("-c", each, *code, PYTHONPATH=str(place.folder / "scripts"))  # imports take longest
    assert done.returncode == 0, done.stdout
    for text, said in zip(code, done.stdout.split("\x1e")[1:], strict=True):
        assert re.search("GD|comes back", said) or "rtt.score" in text, said


@pytest.mark.parametrize("file", FILES)
def test_commands_within_a_text_have_these_targets_and_options(file):
    wrong = []
    for text in (token.content for token in inline(file, "code_inline")):
        words = text.split()
        if text.startswith("python -m rtt ") and words[3] in COMMANDS:
            code, output = missing_options(words[3:])
            wrong += [f"`{text}`: {output}"] if code else []
        elif text.startswith("make ") and words[1] not in TARGETS:
            wrong.append(f"`{text}`: no such target")
        elif text.startswith("python -m rtt ") and words[3].isalpha() and words[3].islower():
            wrong.append(f"`{text}`: no such command")
        named = re.findall(r"(?:\bpython |--configfile )([\w/.-]+\.(?:py|yaml))", text)
        wrong += [f"`{text}`: no such file: {path}" for path in named if not (ROOT / path).is_file()]
    assert not wrong


def test_a_wrong_command_is_seen(place, capfd, monkeypatch):
    """The harness itself: an unknown program, option, target, study file and block are failures."""
    monkeypatch.chdir(place.folder)
    for command in (
        "sbatch job.sh",
        "make no-such-target",
        "python -m rtt check config/no-such.yaml",
        "python -m rtt audit DIR [--no-such]",
        "snakemake -c2 --configfile config/no-such.yaml",
    ):
        assert run(command, place, capfd)[0] != 0, command
    assert commands(Block("x.md", 1, "", "sbatch job.sh  # a job\n")) == ["sbatch job.sh"]
    assert commands(Block("x.md", 1, "", "$ make demo\nmake: done\n")) == ["make demo"]
    assert commands(Block("x.md", 1, "", "a table of words\n")) == []

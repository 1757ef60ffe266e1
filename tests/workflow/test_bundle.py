"""Bundles through the real Snakemake: from a finished study to the fresh clone of a reader who cannot import torch."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from clones import SMOKE, Clone, clone_environment, job_counts, read_csv
from rtt.study.names import FIGURES, TABLES

MADE = len(TABLES) + 2 * len(FIGURES) + 1  # tables, figures in two forms, the report
REBUILDING = {"unpack": 1, "tables": 1, "figure": len(FIGURES), "report": 1, "figures": 1}
BLOCKED = ("torch", "transformers", "accelerate", "tokenizers", "safetensors", "datasets", "deepspeed")


@pytest.fixture(scope="module")
def bundle(finished, tmp_path_factory) -> Path:
    """The smoke study's bundle."""
    clone = Clone(tmp_path_factory.mktemp("bundling") / "clone")
    shutil.copytree(finished.folder, clone.folder, symlinks=True)
    done = clone.snakemake("bundle", "-c2", "--scheduler", "greedy", "--configfile", SMOKE)
    assert done.returncode == 0, done.stdout
    assert job_counts(done.stdout) == {"bundle": 1}
    [path] = (clone.folder / "dist").glob("*.zip")
    return path.rename(tmp_path_factory.mktemp("sent") / path.name)


@pytest.fixture
def reader(fresh) -> Clone:
    """A fresh clone of somebody who has no torch."""
    for name in BLOCKED:
        (fresh.folder / f"scripts/{name}.py").write_text("raise ImportError('not in the analysis environment')\n")
    return fresh


def figures(clone: Clone, artifacts, *arguments: str):
    return clone.snakemake("figures", "-c2", "--scheduler", "greedy", *arguments, "--config", f"artifacts={artifacts}")


def plan(clone: Clone, artifacts) -> dict[str, int]:
    return clone.plan("figures", "--config", f"artifacts={artifacts}")


@pytest.mark.full
def test_a_reader_without_torch_redraws_all_of_it(reader, bundle, finished):
    assert plan(reader, bundle) == REBUILDING
    done = reader.snakemake("--lint", "--config", f"artifacts={bundle}")
    assert done.returncode == 0, done.stdout
    done = figures(reader, bundle)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("equal, byte for byte") == MADE and f"{MADE} of {MADE} equal the bundle's" in done.stdout
    assert "every sha256 is right; sha256 of bundle.json: " in done.stdout and "warning: the code" not in done.stdout
    rebuilt = reader.folder / f"dist/rebuilt/{bundle.stem}/results/smoke"
    for path in [*finished.results().glob("tables/*"), *finished.results().glob("figures/*")]:
        assert (rebuilt / path.relative_to(finished.results())).read_bytes() == path.read_bytes()
    assert {path.name for path in reader.folder.glob("results/[a-z]*")} <= {"reference"}  # the project's own
    # The second time nothing is redrawn, but the comparison is printed once more.
    done = figures(reader, bundle)
    assert job_counts(done.stdout) == {"figures": 1} and f"{MADE} of {MADE}" in done.stdout
    # With new code, and no memory of the old, what depends on it is redrawn. Changed training code is only a warning.
    shutil.rmtree(reader.folder / ".snakemake")
    for name, text in (("training/train.py", "EXTRA = 1\n"), ("figures/words.py", "# a comment\n")):
        with open(reader.folder / "scripts/rtt" / name, "a") as handle:
            handle.write(text)
    done = figures(reader, bundle, "-n")
    assert job_counts(done.stdout) == {"figures": 1}
    runs = [path.stem for path in finished.results().glob("manifests/*.json")]
    assert len(runs) == 15 and all(run in done.stdout for run in runs)
    assert "warning: the code of step unlearn has changed since it made" in done.stdout
    for name, rules in (
        ("report/page.py", {"report": 1, "figures": 1}),
        ("figures/words.py", {"figure": len(FIGURES), "report": 1, "figures": 1}),
        ("stats/look_choice.py", {"tables": 1, "figure": len(FIGURES), "report": 1, "figures": 1}),
    ):
        with open(reader.folder / "scripts/rtt" / name, "a") as handle:
            handle.write("\nEXTRA = 1\n")
        assert plan(reader, bundle) == rules, name
    done = figures(reader, bundle)
    assert done.returncode == 0 and f"{MADE} of {MADE}" in done.stdout
    assert "locked packages have changed since: figure, report, tables" in done.stdout
    # The lock is another one, as after a `git pull`.
    with open(reader.folder / "requirements-analysis.lock", "a") as handle:
        handle.write("# another\n")
    assert plan(reader, bundle) == {"tables": 1, "figure": len(FIGURES), "report": 1, "figures": 1}


def make(clone: Clone, target: str, *variables: str) -> subprocess.CompletedProcess:
    """Run a target of make with this environment in place of the clone's own."""
    for name in (".venv", ".venv-analysis"):
        if not (clone.folder / name).is_symlink():
            (clone.folder / name).symlink_to(sys.prefix)
    command = ["make", "-o", ".venv/.complete", "-o", ".venv-analysis/.complete", "--no-print-directory", target]
    environment = {key: value for key, value in clone_environment(clone.folder).items() if key != "MAKEFLAGS"}
    environment["PYTHONPATH"] = str(clone.folder / "scripts")
    return subprocess.run([*command, *variables], cwd=clone.folder, env=environment, capture_output=True, text=True)


def test_make_bundle_says_what_it_packed_and_packs_the_same_bytes_again(copy, bundle):
    done = make(copy, "bundle", f"STUDY={SMOKE}")
    assert done.returncode == 0 and not done.stderr, done.stdout + done.stderr
    [path] = (copy.folder / "dist").glob("*.zip")
    assert path.name == bundle.name and path.read_bytes() == bundle.read_bytes()
    with zipfile.ZipFile(path) as archive:
        evals = [name for name in archive.namelist() if "/evals/" in name]
    said = [line for line in done.stdout.splitlines() if "running" not in line]
    size = f"{path.stat().st_size / 1e6:.1f} MB"
    parts = f"{len(evals)} evaluations, {len(TABLES)} tables, {len(FIGURES)} figures, the report"
    assert said[1:-1] == [
        "nothing had to be drawn: tables, figures and report are up to date",
        f"dist/{path.name}: {size}; study smoke: {parts}; no weights",
        f"whoever has it draws all of it again: make figures ARTIFACTS={path.name}",
    ]
    log = "results/smoke/logs/run.log"
    assert re.fullmatch(rf"done: 1 step in \d+:\d\d; Snakemake's whole output: {log}", said[-1])
    assert "rule bundle" in (copy.folder / log).read_text()


def test_make_figures_fails_in_one_message_and_no_traceback(reader, bundle, tmp_path):
    for name, said in (("absent.zip", "no such file or folder"), ("README.md", "not a whole zip archive")):
        done = make(reader, "figures", f"ARTIFACTS={name}")
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert done.returncode != 0 and len(errors) == 1 and f"{name}: {said}" in errors[0], done.stderr
        assert "Traceback" not in done.stderr and "Snakemake's whole output: dist/rebuilt/run.log" in done.stderr
        assert not list(reader.folder.glob("dist/rebuilt/*/results"))
    changed = tmp_path / "changed.zip"
    with zipfile.ZipFile(bundle) as good, zipfile.ZipFile(changed, "w") as archive:
        for name in good.namelist():
            data = good.read(name)
            archive.writestr(name, data.replace(b"0.25", b"0.75") if "/control.json" in name else data)
    done = make(reader, "figures", f"ARTIFACTS={changed}")
    assert done.returncode != 0 and "error: step unpack failed" in done.stderr
    assert "  | error: " in done.stderr and "is not what bundle.json says" in done.stderr


@pytest.mark.full
def test_make_figures_redraws_the_committed_bundle(reader):
    """It borrows this environment; tests/workflow/test_setup.py makes one."""
    bundle = reader.folder / "tests/data/bundle-v2.zip"
    done = make(reader, "figures", f"ARTIFACTS={bundle}")
    assert done.returncode == 0, done.stdout + done.stderr
    [made] = reader.folder.glob("dist/rebuilt/tiny-*/results/tiny")
    place = made.relative_to(reader.folder)
    said = [line for line in done.stdout.splitlines() if "running" not in line]
    assert not done.stderr and said[0].startswith(f"{bundle}: tables, figures and report are drawn again")
    assert said[1].startswith(f"{bundle}: study tiny, ") and "every sha256 is right; sha256 of bundle.json: " in said[1]
    assert said[2:-1] == [
        f"drawn: {len(TABLES)} tables, {len(FIGURES)} figures (SVG and PNG), the report",
        f"{MADE} of these files are not in the bundle, so they are compared with nothing",
        f"0 of {MADE} equal the bundle's; rebuilt: {place}",
        f"report: {place}/report.html",
    ]
    steps = sum(REBUILDING.values())
    log = "dist/rebuilt/run.log"
    assert re.fullmatch(rf"done: {steps} steps in \d+:\d\d; Snakemake's whole output: {log}", said[-1])
    assert "rule unpack" in (reader.folder / log).read_text()
    rows = read_csv(made / "tables/recovery.csv")
    keys = {"attack": "RTT", "look_choice": "nested", "probe": "letter", "retain_budget": "1.0"}
    [found] = [row for row in rows if keys.items() <= row.items()]
    assert found["acc_attacked"] == "0.375000"  # tests/bundle/test_version_2.py computes it by hand
    assert len(list((made / "figures").iterdir())) == 2 * len(FIGURES) and (made / "report.html").is_file()


@pytest.mark.full
def test_nothing_is_trained_for_a_results_folder_that_snakemake_does_not_remember(reader, finished, tmp_path):
    folder = tmp_path / "copied/smoke"
    shutil.copytree(finished.results(), folder, copy_function=shutil.copyfile)  # times in the order of copying
    with open(reader.folder / "scripts/rtt/training/train.py", "a") as handle:
        handle.write("\nEXTRA = 1\n")
    assert plan(reader, folder) == REBUILDING
    done = figures(reader, folder)
    assert done.returncode == 0, done.stdout
    assert f"{MADE} of {MADE}" in done.stdout and "a results folder has no checksums to verify" in done.stdout
    assert "it is not run again" in done.stdout
    assert plan(reader, folder) == {"figures": 1}
    # One score is changed, and no file's time tells.
    path = next(folder.glob("evals/attack-*/original.json"))
    times = path.stat()
    path.write_text(path.read_text().replace("0.", "1.", 1))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert plan(reader, folder) == REBUILDING


def test_without_attacks_only_tables_are_redrawn(reader, finished, tmp_path):
    folder = tmp_path / "copied/smoke"
    shutil.copytree(finished.results(), folder)
    document = json.loads((folder / "runs.json").read_text())
    for variant in document["variants"].values():
        variant["evals"] = [stem for stem in variant["evals"] if "/" not in stem]
    (folder / "runs.json").write_text(json.dumps(document))
    assert plan(reader, folder) == {"unpack": 1, "tables": 1, "figures": 1}
    done = figures(reader, folder)
    assert done.returncode == 0 and "rebuilt: dist/rebuilt/smoke-" in done.stdout
    assert f"{len(TABLES)} of {len(TABLES)} equal" not in done.stdout


def test_a_bundle_of_any_name_is_taken(reader, bundle, tmp_path):
    """--config reads values as YAML, where ` #` begins a comment; rules take braces for wildcards."""
    for name in ("demo #2.zip", "{a}'s: `b`.zip"):
        shutil.copy(bundle, tmp_path / name)
        assert plan(reader, tmp_path / name) == REBUILDING


def test_a_hostile_bundle_is_one_message_and_no_file(reader, bundle, tmp_path):
    hostile = tmp_path / "hostile.zip"
    shutil.copy(bundle, hostile)
    with zipfile.ZipFile(hostile, "a") as archive:
        archive.writestr("../../evil.py", "1")
    done = figures(reader, hostile)
    assert done.returncode != 0 and "'../../evil.py' is refused" in done.stdout and "Traceback" not in done.stdout
    assert not (reader.folder / "dist").exists() and not list(tmp_path.rglob("evil.py"))
    # A wrong file in a right archive is found when it is unpacked, and nothing of it stays.
    changed = tmp_path / "changed.zip"
    with zipfile.ZipFile(bundle) as good, zipfile.ZipFile(changed, "w") as archive:
        for name in good.namelist():
            data = good.read(name)
            archive.writestr(name, data.replace(b"0.25", b"0.75") if "/control.json" in name else data)
    done = figures(reader, changed)
    assert done.returncode != 0 and "is not what bundle.json says" in done.stdout
    assert not list((reader.folder / "dist/rebuilt").glob("*/given"))
    assert not list((reader.folder / "dist/rebuilt").glob("*/results/smoke/runs.json"))


@pytest.mark.full
def test_a_compact_bundle_in_its_place_is_what_make_figures_draws(copy, reader):
    done = copy.snakemake("bundle", "-c1", "--configfile", SMOKE, "--config", "bundle_compact=true")
    assert done.returncode == 0, done.stdout
    [path] = (copy.folder / "dist").glob("*.zip")
    place = reader.folder / "results/reference"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    shutil.copy(path, place)
    done = figures(reader, "results/reference")
    assert done.returncode == 0 and "equal, by its sha256" in done.stdout and "FORGED" not in done.stdout, done.stdout
    [n, of] = re.search(r"(\d+) of (\d+) equal the bundle's", done.stdout).groups()
    assert n == of
    rebuilt = reader.folder / f"dist/rebuilt/{path.stem}/results/smoke"
    for one in [*copy.results().glob("tables/*.csv"), *copy.results().glob("figures/*")]:
        assert (rebuilt / one.relative_to(copy.results())).read_bytes() == one.read_bytes(), one


def test_a_misspelt_option_is_a_mistake(fresh):
    done = fresh.snakemake("-n", "--config", "artefacts=x")
    assert done.returncode != 0 and "artefacts: this key cannot be set here" in done.stdout


def test_what_a_bundle_holds_is_asked_for_by_a_key(copy):
    """tests/bundle/test_write.py and test_compact.py write such bundles."""
    for name in ("texts", "compact"):
        done = copy.snakemake("bundle", "-n", "-p", "--configfile", SMOKE, "--config", f"bundle_{name}=true")
        [command] = re.findall(r"^ *(python -m rtt bundle .*)$", done.stdout, re.MULTILINE)
        assert command.split()[4:] == ["--results", "results/smoke", f"--{name}"]


@pytest.mark.full
def test_texts_are_bundled_where_they_are_asked_for(copy):
    done = copy.snakemake("bundle", "-c1", "--configfile", SMOKE, "--config", "bundle_texts=true")
    assert done.returncode == 0, done.stdout
    [path] = (copy.folder / "dist").glob("*.zip")
    with zipfile.ZipFile(path) as archive:
        assert len([name for name in archive.namelist() if name.endswith("facts.jsonl")]) == 3


@pytest.mark.full
def test_snakemake_figures_redraws_a_study_s_own_figures(copy):
    assert copy.plan("figures", "--configfile", SMOKE) == {}
    (copy.results() / "report.html").unlink()
    assert copy.plan("figures", "--configfile", SMOKE) == {"report": 1, "figures": 1}


def test_stale_results_are_recognised_without_snakemake_s_memory(copy):
    """Changed analysis code redraws. Changed training code is named with what it made, and nothing is trained again."""
    shutil.rmtree(copy.folder / ".snakemake")
    scripts = copy.folder / "scripts/rtt"
    for name in ("figures/words.py", "training/train.py", "data/audit.py", "point_choice/kept_weights.py"):
        with open(scripts / name, "a") as handle:
            handle.write("\nEXTRA = 1\n")
    done = copy.smoke("-n")
    assert job_counts(done.stdout) == {"figure": len(FIGURES), "report": 1}
    made = [*copy.results().glob("manifests/*"), *copy.results().glob("point_choices/*")]
    audits = list(copy.results().glob("data/*/audit.json"))
    assert len(made) == 17 and len(audits) == 3
    for name in [path.stem for path in made] + [path.parent.name for path in audits]:
        assert name in done.stdout
    assert "the code of step attack has changed" in done.stdout and "--forcerun attack" in done.stdout
    with open(scripts / "stats/look_choice.py", "a") as handle:
        handle.write("\nEXTRA = 1\n")
    assert copy.plan("--configfile", SMOKE) == {"tables": 1, "figure": len(FIGURES), "report": 1}

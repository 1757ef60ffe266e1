"""The corpus of bad inputs: each ends in one message and its exit code, and leaves every file as it was.

`make test` runs about a tenth of the entries, `make test-full` all. `python tests/helpers/corpus.py` counts them.
"""

import os
import re
import shutil
import subprocess
import sys

import corpus
import pytest
import snakemake_fork
from clones import clone_environment
from places import ROOT

CASES = corpus.cases()


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """Return the good base. Shared: change nothing in it."""
    return corpus.make_base(tmp_path_factory.mktemp("corpus") / "base")


@pytest.fixture
def folder(base, tmp_path, monkeypatch):
    """Return a copy of the base, which is the working folder."""
    for name in [name for name in os.environ if name.startswith("RTT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.chdir(shutil.copytree(base, tmp_path / "work"))
    return tmp_path / "work"


def of(*hows):
    """Return the entries that run in one of these ways, those that `make test` leaves out marked."""
    chosen = [case for case in CASES if case.get("how") in hows]
    return [
        pytest.param(
            case, id=f"{case['group']}-{case['id']}", marks=[] if corpus.in_short_run(case) else [pytest.mark.full]
        )
        for case in chosen
    ]


@pytest.mark.parametrize("case", of(None))
def test_a_bad_input_is_one_message_and_changes_nothing(case, folder):
    corpus.change(folder, case)
    before = corpus.tree(folder)
    code, said = corpus.call(case["command"], case.get("environment"))
    assert (code, said.count("error: ")) == (case["code"], 1) and "Traceback" not in said, said
    assert corpus.fits(case["says"], corpus.first_line(said)), f"found    {said}\nexpected {case['says']}"
    assert corpus.tree(folder) == before


@pytest.mark.parametrize("case", of("process"))
def test_a_process_of_its_own_says_the_same(case, folder):
    corpus.change(folder, case)
    before = corpus.tree(folder)
    done = subprocess.run(
        [sys.executable, "-m", "rtt", *corpus.words(case["command"])],
        env=clone_environment(folder) | {"PYTHONPATH": str(ROOT / "scripts")},
        capture_output=True,
        text=True,
        timeout=corpus.SECONDS,
    )
    assert done.returncode == case["code"] and "Traceback" not in done.stderr, done.stderr
    assert corpus.fits(case["says"], corpus.first_line(done.stderr)), done.stderr
    assert corpus.tree(folder) == before


@pytest.mark.parametrize("case", of("snakemake"))
def test_a_dry_run_says_the_same(case, folder):
    corpus.change(folder, case)
    before = corpus.tree(folder)
    words = ["-n", "-s", str(ROOT / "Snakefile"), *corpus.words(case["command"])]
    done = snakemake_fork.call(words, folder, clone_environment(folder))
    found = re.search(r"^WorkflowError.*:\n(.*)", done.stdout, re.MULTILINE)
    assert done.returncode == case["code"] and found and "Traceback" not in done.stdout, done.stdout
    assert corpus.fits(case["says"], found[1].strip()), done.stdout
    after = {name: data for name, data in corpus.tree(folder).items() if not name.startswith(".snakemake")}
    assert after == before


def test_the_good_base_is_accepted(folder):
    """What the entries change is good as it stands, so each shows its own mistake."""
    for command in (
        "check mini.yaml", "check own.yaml", "plan mini.yaml --gpu h100", "score --model own/original --data mcq.jsonl",
        "facts raw --dataset d --out f.jsonl --audit a.json",
        "generate --spec raw.json --out made", "unpack bundle --out u",
        "tables --evals bundle/results/tiny/evals --point-choices bundle/results/tiny/point_choices --out t "
        "--runs bundle/results/tiny/runs.json",
    ):  # fmt: skip
        assert corpus.call(command)[0] == 0, command
    assert corpus.call("check own.yaml") == (0, "")


def test_the_corpus_is_large_and_each_entry_stands_once():
    names = [(case["group"], case["id"]) for case in CASES]
    assert len(names) >= 300 and len(set(names)) == len(names)
    asked = [repr({key: value for key, value in case.items() if key not in ("id", "says")}) for case in CASES]
    assert len(set(asked)) == len(asked), "two entries are the same"
    assert 0.07 < sum(map(corpus.in_short_run, CASES)) / len(CASES) < 0.13

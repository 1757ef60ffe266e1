"""`python -m rtt verdict` through the real Snakemake, on a miniature that learns nothing: killed, and gone on with."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
import tiny
from clones import Clone, clone_environment

pytestmark = pytest.mark.full  # a study of its own, from two checkpoints to a page

OPTIONS = tiny.GENERATOR | {"facts_per_split": 6, "first_names": 8, "last_names": 8}
COMMAND = ["-m", "rtt", "verdict", "--unlearned", "own/mine", "--original", "own/original", "--data", "own/data"]
WITHIN = 600  # seconds


@pytest.fixture(scope="module")
def clone(pristine, tmp_path_factory) -> Clone:
    """Return a clone with two checkpoints, and questions in one file."""
    made = Clone(tmp_path_factory.mktemp("verdict") / "clone")
    shutil.copytree(pristine, made.folder)
    own = made.folder / "own"
    tiny.save_pretrained(tiny.model(0), tiny.tokenizer(), own / "original")
    tiny.model(1).save_pretrained(own / "mine")
    written = tiny.write_raw(own / "written", options=OPTIONS)
    (own / "data").mkdir()
    for kind in ("", "corpus_"):
        texts = [(written / f"{kind}split_{i}.jsonl").read_text() for i in range(2)]
        (own / f"data/{kind}facts.jsonl").write_text("".join(texts))
    return made


def environment(clone: Clone) -> dict[str, str]:
    return clone_environment(clone.folder) | {"PYTHONPATH": str(clone.folder / "scripts")}


def test_a_verdict_that_was_killed_goes_on_and_says_what_it_cannot_tell(clone):
    results, out = clone.results("verdict-mine"), clone.folder / "verdict/mine"
    process = subprocess.Popen(
        [sys.executable, *COMMAND], cwd=clone.folder, env=environment(clone), stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + WITHIN
    while not list(results.glob("evals/original-*.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    psutil.wait_procs(family, timeout=60)
    assert (out / "study.yaml").is_file() and not (out / "verdict.html").exists()
    study = (out / "study.yaml").read_bytes()

    done = clone.python(*COMMAND, PYTHONPATH=str(clone.folder / "scripts"))
    assert done.returncode == 0, done.stdout
    assert "fewer than 160" in done.stdout and "% " in done.stdout and "left]" in done.stdout
    assert (out / "study.yaml").read_bytes() == study
    found = json.loads((out / "verdict.json").read_text())
    assert found["answer"] == "cannot_tell" and found["sentence"] in done.stdout
    assert "does not know these facts" in found["sentence"]  # nor has anybody taught it any
    assert "Not well enough, by" in (out / "verdict.html").read_text()
    assert found["questions"] == {
        "folder": "own/data", "questions": 12, "splits": {"split_0": 6, "split_1": 6}, "cut": True,
    }  # fmt: skip
    assert found["control"] is None and found["retained"] is None and found["perplexity"]["original"] > 1
    assert (out / "report.html").read_bytes() == (results / "report.html").read_bytes()

    again = clone.python(*COMMAND, PYTHONPATH=str(clone.folder / "scripts"))
    assert again.returncode == 0 and "nothing to do" in again.stdout
    assert json.loads((out / "verdict.json").read_text()) == found


def test_a_mistake_is_one_message(clone):
    done = clone.python(*COMMAND[:-1], "own/nothing", PYTHONPATH=str(clone.folder / "scripts"))
    assert done.returncode == 1
    assert done.stdout.strip().endswith(
        "--data own/nothing: no such folder; expected one with questions as JSONL (docs/data.md)"
    )
    assert "Traceback" not in done.stdout


def test_the_bundle_of_a_verdict_opens(clone):
    code, study = str(clone.folder / "scripts"), "verdict/mine/study.yaml"
    done = clone.python("-m", "rtt", "run", "bundle", "--configfile", study, PYTHONPATH=code)
    assert done.returncode == 0, done.stdout
    (bundle,) = clone.folder.glob("dist/verdict-mine-*.zip")
    drawn = clone.python("-m", "rtt", "run", "--config", f"artifacts={bundle}", PYTHONPATH=code)
    assert drawn.returncode == 0 and "drawn:" in drawn.stdout, drawn.stdout

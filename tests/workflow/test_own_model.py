"""Your own model on your own files through the real Snakemake: docs/own.md, with a miniature that learns nothing."""

import csv
import json
import shutil

import pytest
import torch
import yaml
from clones import Clone
from rtt.study.digests import folder_digest
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.full  # a study of its own, from original to report

SMALL = {"hidden_size": 32, "intermediate_size": 32, "layers": 2, "heads": 2}
PEOPLE = {"splits": 2, "facts_per_split": 8, "retain_train": 8, "retain_held_out": 8, "first_names": 8, "last_names": 8}


def shrunk(clone: Clone, name: str, change) -> str:
    """Write a smaller copy of one of the project's study files; return its path in the clone."""
    study = yaml.safe_load((clone.folder / f"config/{name}.yaml").read_text())
    change(study)
    path = f"config/{name}-small.yaml"
    (clone.folder / path).write_text(yaml.safe_dump(study))
    return path


def smaller_original(study: dict) -> None:
    study["data"]["generator"], study["model"] = PEOPLE, SMALL
    study["pretraining"] |= {"steps": 12, "batch_size": 8, "mcqs_per_batch": 4}


def smaller_attack(study: dict) -> None:
    study["methods"], study["retain_budgets"] = {}, [1.0]
    study["attacks"]["RTT"] |= {"learning_rates": [1.0e-3], "epochs": 1, "score_epochs": [1], "batch_size": 8}
    # The control's facts as the authors' Years: found in the folder under data/, or fetched from a network.
    study["data"]["datasets"]["never_seen"] = {"source": "years"}
    study["data"]["mirror"] = "own"  # has no such file; nothing can come from a network in this test


def run(clone: Clone, study: str, *more: str) -> str:
    done = clone.snakemake(
        *more, "-c2", "--scheduler", "greedy", "--configfile", study, http_proxy="http://127.0.0.1:9"
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def attacked(pristine, tmp_path_factory) -> Clone:
    """Return a clone in which an original was made and exported, changed by hand, and attacked."""
    clone = Clone(tmp_path_factory.mktemp("own") / "clone")
    shutil.copytree(pristine, clone.folder)
    original = shrunk(clone, "own-original", smaller_original)
    run(clone, original)
    exported = clone.python("-m", "rtt", "export", original, "--out", "own", PYTHONPATH=str(clone.folder / "scripts"))
    assert exported.returncode == 0, exported.stdout
    own = clone.folder / "own"
    (own / "mine").mkdir()
    weights = load_file(own / "original/model.safetensors")
    torch.manual_seed(0)
    noisy = {name: tensor + 0.1 * torch.randn_like(tensor) for name, tensor in weights.items()}
    save_file(noisy, own / "mine/model.safetensors", metadata={"format": "pt"})
    shutil.copy(own / "original/config.json", own / "mine")  # and no tokenizer
    shutil.copytree(own / "data/birth_years_b", clone.folder / "data/dates-years-trimmed")
    run(clone, shrunk(clone, "own-model", smaller_attack), "results/own-model/report.html")
    return clone


def evals(clone: Clone) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(clone.results("own-model").rglob("evals/**/*.json"))]


def test_the_table_has_a_row_of_the_own_model_beside_original_and_control(attacked):
    with open(attacked.results("own-model") / "tables/recovery.csv", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["probe"] == "letter"]
    assert {(row["dataset"], row["arm"], row["model"], row["method"]) for row in rows} == {
        ("birth_years", "pretrained", "own_original", "mine")
    }
    for row in rows:
        assert int(row["n_questions"]) > 0 and row["status"] != "none_within_budget"
        assert row["acc_attacked"] and row["acc_original_attacked"] and row["acc_control_attacked"]
    report = (attacked.results("own-model") / "report.html").read_text()
    assert "mine" in report


def test_the_manifest_has_the_digest_of_the_folder(attacked):
    (path,) = attacked.results("own-model").glob("manifests/unlearn-*-mine-*.json")
    assert json.loads(path.read_text())["external_model"] == {
        "external_model": "own/mine",
        "digest": folder_digest(attacked.folder / "own/mine"),
    }


def test_what_was_scored_and_attacked_are_the_folder_s_weights(attacked):
    """The scores differ from the original's, and `rtt score` on the folder gives the same ones."""
    (chosen,) = attacked.results("own-model").glob("specs/choose-*-mine-*.json")
    found = {e["labels"]["target"]: e for e in evals(attacked) if e["kind"] in ("original", "unlearned")}
    scores = {name: e["looks"][0]["questions"] for name, e in found.items()}
    assert found["unlearned"]["looks"][0]["step"] == 0 and chosen.is_file()
    assert [q["id"] for q in scores["original"]] == [q["id"] for q in scores["unlearned"]]
    assert scores["original"] != scores["unlearned"]
    # Scored in another way: `rtt score` on the folder with the original's tokenizer
    mine = attacked.folder / "own/mine"
    for path in (attacked.folder / "own/original").glob("tokenizer*"):
        shutil.copy(path, mine)
    try:
        said = attacked.python(
            "-m", "rtt", "score", "--model", "own/mine", "--data", "own/data/birth_years_a/split_0.jsonl",
            "--probes", "letter", PYTHONPATH=str(attacked.folder / "scripts"),
        )  # fmt: skip
    finally:
        for path in mine.glob("tokenizer*"):
            path.unlink()
    again = json.loads(said.stdout[said.stdout.index("{") :])["questions"]
    first = [q for q in scores["unlearned"] if q["split"] == "split_0"]
    assert len(again) == len(first) == PEOPLE["facts_per_split"]
    for a, b in zip(again, first, strict=True):
        assert a["probes"]["letter"]["scores"] == pytest.approx(b["probes"]["letter"]["scores"], abs=2e-5)


def test_the_control_s_facts_are_the_user_s_files_under_data(attacked):
    (record,) = attacked.folder.glob("data/external/years-*/fetched.json")
    origins = {entry["from"].split(":")[0] for entry in json.loads(record.read_text()).values()}
    assert origins == {"own file"}
    controls = [e for e in evals(attacked) if e["labels"]["target"] == "control"]
    assert sorted(control["kind"] for control in controls) == ["attacked", "original"]  # after RTT and before it
    assert {control["labels"]["dataset"] for control in controls} == {"never_seen"}


def test_a_mistake_in_your_files_is_said_with_file_line_and_key_and_reaches_no_model(attacked):
    path = attacked.folder / "own/data/birth_years_a/split_1.jsonl"
    good = path.read_text()
    lines = good.splitlines()
    row = json.loads(lines[2])
    path.write_text("\n".join([*lines[:2], json.dumps(row | {"answer": "E"}), *lines[3:]]) + "\n")
    try:
        done = attacked.snakemake("-c1", "--configfile", "config/own-model-small.yaml", "--config", "study=mistake")
    finally:
        path.write_text(good)
    assert done.returncode == 1
    assert "own/data/birth_years_a/split_1.jsonl:3: " in done.stdout and "answer" in done.stdout
    assert not list(attacked.results("mistake").glob("evals/*"))


def test_a_wrong_path_stops_before_any_job(attacked):
    path = attacked.folder / "config/wrong.yaml"
    path.write_text((attacked.folder / "config/own-model-small.yaml").read_text().replace("own/mine", "own/nowhere"))
    done = attacked.snakemake("-n", "-c1", "--configfile", "config/wrong.yaml")
    assert done.returncode == 1 and "Traceback" not in done.stdout
    assert "external_models.mine: own/nowhere: no such folder" in done.stdout

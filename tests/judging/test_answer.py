"""A verdict's answer and page, from a finished study with planted answers: each of the three, and what it rests on."""

import json
import re
import shutil

import pytest
import verdict_builder
from markupsafe import escape
from rtt.errors import UserError
from rtt.judging import page
from rtt.judging.answer import KEYS, answer
from rtt.judging.request import NOT_TRAINED, Prepared
from rtt.places import SHIPPED
from rtt.stats.tables import read_table

GONE = {"unlearned_attacked": 0.27, "unlearned": 0.26}


@pytest.fixture(scope="module")
def hidden(tmp_path_factory):
    return verdict_builder.prepared(tmp_path_factory.mktemp("hidden"), whole=True)


@pytest.fixture
def another(hidden, tmp_path):
    """Return a copy of the finished verdict, which a test may change."""
    shutil.copytree(hidden.work, tmp_path / "copy")
    out = tmp_path / "copy" / hidden.out.relative_to(hidden.work)
    for path in out.glob("*"):
        if path.name != "asked.json":
            path.unlink()
    return Prepared(out, tmp_path / "copy", json.loads((out / "asked.json").read_text()))


def test_what_would_make_it_surer_is_what_can_be_done(tmp_path):
    found = verdict_builder.prepared(tmp_path, retain=False)
    found.kept["not_tried"] = [
        {"attack": "RTT_LoRA", "why": "left out to keep the budget of time"},
        {"attack": "soft_prompt", "why": "it does not work on this model: it has no context"},
        {"attack": "unrelated", "why": NOT_TRAINED},
    ]
    told = answer(found)["surer"]
    assert "More time: the budget left out RTT_LoRA, or a part of it." in told
    expected = "Attacks that train: name unrelated with --attacks, beside the others (unrelated with --retain-data)."
    assert expected in told and not any("soft_prompt" in text for text in told)


def test_an_attack_that_no_table_here_shows_is_told_of(tmp_path):
    found = verdict_builder.prepared(tmp_path)
    found.kept["attacks"]["sampling"] = {}
    (told,) = (one for one in answer(found)["not_tried"] if one["attack"] == "sampling")
    assert told["why"].startswith("made, but it cannot be asked by permuted letters, so nothing above reads it")


def test_facts_that_come_back_are_hidden(hidden):
    found = answer(hidden)
    assert (found["answer"], found["sentence"]) == (
        "hidden",
        f"Hidden: at least {int(100 * found['share'])} % comes back.",
    )
    row = read_table(hidden.results / "tables/recovery.csv")
    row = row[(row["attack"] == "strongest") & (row["probe"] == "letter_permuted")].iloc[0]
    told = found["strongest"]["recovery"]
    assert told == pytest.approx([row[f"recovery_corrected{end}"] for end in ("", "_low", "_high")], abs=1e-4)
    # 80 % right of 168, of an original that has 96 %, against a control of 29 %: (.80 - .29) / (.96 - .29) = .77
    assert 0.6 < found["share"] < 0.77 < told[0] + 0.02
    assert found["RTT"]["attack"] == "RTT" and [one["attack"] for one in found["attacks"]] == ["RTT", "quantise"]
    assert found["original_knew"]["holds"] and found["unlearned_by_every_probe"]["holds"] and not found["cautions"]
    assert {one["probe"] for one in found["original_knew"]["probes"]} == set(verdict_builder.HEADLINE)


def test_the_numbers_of_questions_that_a_narrow_interval_takes(hidden):
    found = answer(hidden)
    _, low, high = found["strongest"]["recovery"]
    (said,) = (text for text in found["surer"] if text.startswith("More questions"))
    needed = int(re.search(r"about ([\d,]+)", said)[1].replace(",", ""))
    assert (high - low) / 2 * (168 / needed) ** 0.5 == pytest.approx(0.05, abs=1e-3)


def test_nothing_that_comes_back_is_no_proof(tmp_path):
    found = answer(verdict_builder.prepared(tmp_path, accuracies=GONE))
    assert found["answer"] == "none_shown" and found["sentence"].endswith("that is no proof of removal.")
    assert 0 < found["share"] < 0.25


@pytest.mark.parametrize(
    ("changes", "because"),
    [
        ({"control": False, "accuracies": GONE}, "there is no control"),
        ({"per_split": 40, "accuracies": GONE}, "there are 120 questions, and at least 160 are needed"),
        ({"accuracies": {"before": 0.4}}, "the original does not know these facts"),
    ],
)
def test_it_cannot_be_told_and_the_reason_is_said(tmp_path, changes, because):
    found = answer(verdict_builder.prepared(tmp_path, **changes))
    assert (found["answer"], found["share"]) == ("cannot_tell", None)
    assert because in found["sentence"] and (found["control"] is None) == (changes.get("control") is False)


def test_without_a_control_facts_can_still_be_hidden(tmp_path):
    prepared = verdict_builder.prepared(tmp_path, control=False, whole=True)
    found = answer(prepared)
    assert "right by the two models" in page.render(found, prepared)
    assert found["answer"] == "hidden" and found["share"] > 0.6
    assert any("no control" in text for text in found["reasons"])
    assert any(text.startswith("A control") for text in found["surer"])


def test_a_model_that_is_not_unlearned_is_said_first(tmp_path):
    by_probe = {("unlearned", "likelihood"): 0.7}
    prepared = verdict_builder.prepared(tmp_path, by_probe=by_probe, whole=True)
    said, found = page.write(prepared), answer(prepared)
    assert not found["unlearned_by_every_probe"]["holds"]
    assert found["cautions"][0].startswith(
        "The model is not unlearned by every probe: it still shows facts by likelihood"
    )
    first = [*found["cautions"], found["sentence"]]
    text = (prepared.out / "verdict.html").read_text(encoding="utf-8")
    at = [text.index(str(escape(one))) for one in first]
    assert said[1 : 1 + len(first)] == first and at == sorted(at)


def test_the_documented_keys_are_those_of_the_file(hidden):
    found = answer(hidden)
    assert tuple(found) == KEYS
    text = (SHIPPED / "docs/verdict.md").read_text(encoding="utf-8")
    documented = re.findall(
        r"`(\w+)`", "".join(re.findall(r"^\| (.+?) \|", text[text.index("## verdict.json") :], re.M))
    )
    assert sorted(documented) == sorted(KEYS)


def test_page_json_and_report_are_written_and_say_the_same(hidden):
    said = page.write(hidden)
    text = (hidden.out / "verdict.html").read_text(encoding="utf-8")
    found = json.loads((hidden.out / "verdict.json").read_text())
    assert said[1] == found["sentence"] and found["sentence"] in text
    assert (hidden.out / "report.html").read_bytes() == (hidden.results / "report.html").read_bytes()
    assert 'href="report.html"' in text and "its learning rates 1e-05 were left out" in text
    assert not re.search(r'(?:src|href)="(?:https?:)?//', text) and "<script" not in text
    again = {path: path.read_bytes() for path in hidden.out.iterdir()}
    page.write(hidden)
    assert again == {path: path.read_bytes() for path in hidden.out.iterdir()}


def test_the_figure_of_the_page_leaves_what_follows_to_the_answer(hidden):
    """A study counts methods; a verdict is about one model, so its page must not say that nothing follows."""
    text = page.render(answer(hidden), hidden)
    assert "The test in four steps, with the study's first attack" in text
    for said in ("no method counts", "No method made", "was hidden, not removed"):
        assert said not in re.sub(r'aria-label="[^"]*"', "", text)


def test_names_from_files_are_escaped(another):
    another.kept["asked"]["unlearned"] = "own/<img src=x onerror=alert(1)>"
    page.write(another)
    text = (another.out / "verdict.html").read_text(encoding="utf-8")
    assert "<img" not in text and "&lt;img" in text


def test_all_is_written_or_nothing(another):
    (another.results / "report.html").unlink()
    with pytest.raises((OSError, UserError)):
        page.write(another)
    assert [path.name for path in another.out.iterdir()] == ["asked.json"]

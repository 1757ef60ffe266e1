"""The report's page: one document, what it says, what it escapes, what is missing."""

import re
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from report_builder import audit, full_study, manifest, recovery, recovery_row, write_study
from rtt.__main__ import main
from rtt.errors import UserError
from rtt.report.page import page
from rtt.report.summary import summary
from rtt.stats.contrasts import COLUMNS
from rtt.stats.tables import read_table, write_table
from rtt.stats.variants import COLUMNS as VARIANT_COLUMNS

NAN = float("nan")
EVIL = '<script>alert("x")</script>'


@pytest.fixture
def no_figures(monkeypatch):
    """Drawing takes a second a page; tests of the text do without."""
    monkeypatch.setattr("rtt.report.page.FIGURES", {})


class Reader(HTMLParser):
    """Collects ids, addresses and images; fails on tags that do not close."""

    VOID = ("meta", "link", "br", "img")

    def __init__(self, text):
        super().__init__()
        self.stack, self.ids, self.links, self.images, self.tags = [], [], [], [], []
        self.feed(text)
        assert not self.stack, self.stack

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values[name] for name in ("href", "src", "xlink:href") if values.get(name)]
        if tag == "svg":
            assert values["role"] == "img"
            self.images.append(values["aria-label"])
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.stack.pop()

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    arms, cell, why = (
        ("pretrained", "taught", "people_p", "people_f"),
        (0.1, "nested", "letter", "acc_attacked"),
        ("not comparable: unlearned accuracy .20 vs .45"),
    )
    contrasts = pd.DataFrame(
        [
            (*arms, "GD", *cell, 1, "0.300000", 0.3, NAN, NAN, "yes", ""),
            (*arms, "RMU", *cell, 0, "", NAN, NAN, NAN, "no", why),
        ],
        columns=COLUMNS,
    )
    return write_study(
        tmp_path_factory.mktemp("results") / "tiny",
        full_study(),
        contrasts,
        [audit(), audit("people_f", defects={}, details=[])],
        [manifest("pretrain", 30), manifest("unlearn", 10), manifest("unlearn", 12.4)],
    )


@pytest.fixture(scope="module")
def html(study):
    return page(study, study / "study.yaml")


def test_page_is_one_wellformed_self_contained_document(html):
    reader = Reader(html)
    assert len(reader.ids) == len(set(reader.ids))
    assert all(link.startswith(("#", "data:")) for link in reader.links), set(reader.links)
    assert not re.search(r"@import|url\((?!#)", html)
    assert "script" not in reader.tags
    assert {link[1:] for link in reader.links if link.startswith("#")} <= set(reader.ids)
    assert len(reader.images) == 5
    assert all("Facts taught later" in alt for alt in reader.images)
    assert '<html lang="en">' in html and 'name="viewport"' in html and "<title>Unlearning RTT: tiny</title>" in html
    assert reader.tags.count("main") == reader.tags.count("h1") == 1
    assert reader.tags.count("caption") == reader.tags.count("table")
    levels = [int(tag[1]) for tag in reader.tags if re.fullmatch(r"h\d", tag)]
    assert all(after <= before + 1 for before, after in pairwise([0, *levels])), levels
    assert html.count("<th") - html.count("<thead") == html.count('<th scope="')


def test_rows_stand_under_their_facts(html, study):
    """Each group of rows is a tbody, whose heading a screen reader says with its rows and with no others."""
    table = next(part for part in re.split("</?table>", html) if "<span>Probe by letter, look choice nested" in part)
    rows = read_table(study / "tables/recovery.csv").query("look_choice == 'nested' and probe == 'letter'")
    expected = {
        facts: list(rows[rows["arm"] == arm]["method"])
        for arm, facts in (
            ("pretrained", "Learned in pretraining"),
            ("taught", "Taught later"),
            ("taught_same_data", "Taught later, same data"),
        )
    }
    columns, found = table.count('scope="col"'), {}
    for body in re.findall("<tbody>(.+?)</tbody>", table, re.DOTALL):
        for width, facts in re.findall(r'scope="rowgroup" colspan="(\d+)">(.+?)<', body):
            assert int(width) == columns and facts not in found
            found[facts] = re.findall(r'scope="row">(\w+)<', body)
    assert found == expected


def test_page_says_what_the_tables_say(html, study):
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))
    assert "All 4 methods hid the facts learned in pretraining" in text
    assert "The criterion holds for all 4 methods." in text
    assert "one seed cannot support a statement about a method or an arm" in text
    assert "not comparable: unlearned accuracy .20 vs .45" in text
    assert "not corrected for this choice" in text
    for status in ("over unlearned", "not unlearned", "none within budget", "undefined"):
        assert status in text
    assert "split_1.jsonl:7: duplicate question: as split_0.jsonl:3" in text
    assert "duplicate question 2" in text and "split leak" not in text
    assert "c0ffee" in text and "torch 2.9.1" in text and "study: tiny" in text
    assert re.search(r"unlearn 2 22 s 45 s none", text)  # two processes: 22.4 CPU seconds, 44.8 wall seconds
    assert re.search(r"all 3 52 s 105 s none", text)
    assert "python -m rtt figure accuracy --tables" in text
    assert all(alt in text for alt in Reader(html).images)  # each figure in words
    # Beside the commands of each figure and of all of them: where to type them.
    assert text.count(f"In the folder that holds {study} (of a redrawn bundle: dist/rebuilt/tiny-HASH ):") == 6


def test_page_is_the_same_twice_and_shows_all_scorings(study, html):
    assert page(study, study / "study.yaml") == html
    for caption in ("letter, look choice nested", "letter, look choice paper", "the choice, look choice paper"):
        assert caption in html


def test_several_seeds_get_a_table(tmp_path):
    study = write_study(tmp_path / "s", full_study((11, 12)))
    text = page(study, study / "study.yaml")
    assert "over seeds 11, 12" in text
    assert "one seed cannot" not in text
    assert "Over 2 seeds, the t interval" in text


def test_everything_from_data_is_escaped(tmp_path):
    rows = [recovery_row(method=EVIL, dataset=EVIL, model=EVIL), recovery_row("GD", arm=EVIL)]
    contrasts = pd.DataFrame(
        [(EVIL, "b", EVIL, EVIL, EVIL, 0.1, "nested", "letter", "acc_attacked", 1, "0.1", 0.1, NAN, NAN, "no", EVIL)],
        columns=COLUMNS,
    )
    bad = audit("x", details=[{"kind": EVIL, "path": EVIL, "line": 1, "message": EVIL}], defects={EVIL: 1}, files=EVIL)
    run = manifest(EVIL, packages={EVIL: EVIL}, hardware={EVIL: EVIL}, git_commit=EVIL)
    study = write_study(tmp_path / "<script>", recovery(*rows), contrasts, [bad], [run])
    (study / "study.yaml").write_text(EVIL)
    text = page(study, study / "study.yaml")
    assert "<script" not in text
    assert text.count("&lt;script&gt;") > 10
    Reader(text)


def test_missing_pieces_are_said(tmp_path):
    study = write_study(tmp_path / "s", recovery(recovery_row()))
    text = page(study, study / "study.yaml")
    for part in (
        "No audit was found",
        "No manifests were found",
        "table of contrasts (tables/contrasts.csv) is missing",
    ):
        assert part in text
    write_table(study / "tables" / "contrasts.csv", pd.DataFrame([], columns=COLUMNS))
    assert "no two arms to compare" in page(study, study / "study.yaml")
    with pytest.raises(UserError, match="no such study file"):
        page(study, study / "absent.yaml")


def test_the_command_writes_the_page_or_nothing(tmp_path, study, capsys):
    out = tmp_path / "report.html"
    command = ["report", "--results", str(study), "--study-config", str(study / "study.yaml"), "--out", str(out)]
    assert main(command) == 0
    assert out.read_text().startswith("<!DOCTYPE html>")
    out.unlink()
    (tmp_path / "empty").mkdir()
    assert main([*command[:2], str(tmp_path / "empty"), *command[3:]]) == 1
    assert "recovery.csv: no such file; `python -m rtt tables` writes it" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [tmp_path / "empty"]


def test_a_manifest_that_is_no_object_is_named(tmp_path):
    study = write_study(tmp_path / "s", recovery(recovery_row()))
    (study / "manifests").mkdir()
    (study / "manifests" / "x.json").write_text("[]")
    with pytest.raises(UserError, match=r"x.json: expected a JSON object, found list"):
        page(study, study / "study.yaml")


# ---- single rows


def test_a_measure_that_cannot_be_told_is_words_and_its_interval(tmp_path, no_figures):
    wide = {"recovery_corrected_low": 0.5, "recovery_corrected_high": 1.2, "cannot_tell": "recovery_corrected"}
    study = write_study(tmp_path / "s", recovery(recovery_row("GD", **wide), recovery_row("RMU")))
    page_text = page(study, study / "study.yaml")
    for text in (summary(study), page_text):
        assert "cannot tell [.50, 1.20]" in text and ".86 [.50, 1.20]" not in text
        assert ".86 [.81, .91]" in text  # RMU's
    assert "<td>.89 [.84, .94]</td><td>cannot tell [.50, 1.20]</td>" in page_text  # the ratio of the same row tells


def test_the_first_scoring_of_the_table_is_the_main_one(tmp_path, no_figures):
    rows = [recovery_row(probe="likelihood", acc_attacked=0.61), recovery_row(probe="letter", acc_attacked=0.71)]
    study = write_study(tmp_path / "s", recovery(*rows))
    assert "scoring likelihood" in summary(study) and ".61" in summary(study) and ".71" not in summary(study)
    text = page(study, study / "study.yaml")
    assert "it is .61 [.56, .66] (GD)" in text
    assert text.index("Probe by likelihood of the choice") < text.index("Probe by letter")


def test_datasets_have_titles_and_a_claim_each(tmp_path, no_figures):
    rows = [recovery_row(dataset=name, acc_attacked=value) for name, value in (("years", 0.8), ("wmdp-deduped", 0.31))]
    study = write_study(tmp_path / "s", recovery(*rows))
    text = page(study, study / "study.yaml")
    assert "hid the facts learned in pretraining (Years)" in text
    assert "any of the facts learned in pretraining (WMDP-Deduped) come back" in text
    assert "pretrained (Years)" in summary(study) and "pretrained (WMDP-Deduped)" in summary(study)


def test_the_paper_s_ablations_are_said_to_have_no_numbers(tmp_path, no_figures):
    rows = [recovery_row(retain_budget=budget) for budget in (0.1, 1.0)]
    text = page(study := write_study(tmp_path / "s", recovery(*rows)), study / "study.yaml")
    assert (
        "Retain budgets: theirs 5 %, 10 %, 30 %, 100 %, what comes back within each not published as numbers; "
        'ours 10 %, 100 % (<a href="#budgets">'
    ) in text
    assert "theirs plain text, MCQ, answer only, not published as numbers; ours not in this study." in text


def variants_csv(folder, *rows):
    head = ("people_p", "pretrained", "miniature", "GD", 0.1)
    table = pd.DataFrame([(name, *head, *rest) for name, *rest in rows], columns=VARIANT_COLUMNS)
    write_table(folder / "tables" / "variants.csv", table)


def test_variants_stand_in_the_section_of_what_they_change(tmp_path, no_figures):
    rows = [recovery_row(acc_attacked=0.61), recovery_row(acc_attacked=0.71, variant="bare_letter")]
    variants = {
        "bare_letter": {"faithful": ["bare_letter"]},
        "on_v": {"faithful": ["select_on_v"]},
        "answers": {"methods": {"GD": {"mcq_share": 1.0}, "RMU": None}},
    }
    study = write_study(tmp_path / "s", recovery(*rows), study={"variants": variants})
    for part in ("No variant of this study changes the format", "No variant of this study turns on a faithful switch"):
        assert part in page(study, study / "study.yaml")  # there is no variants.csv
    variants_csv(
        study,
        ("bare_letter", "nested", "letter", "recovery_corrected", 3, "0.1;0.2;0.3", 0.2, 0.05, 0.35),
        ("bare_letter", "nested", "letter", "acc_unlearned", 3, "0.01;0.02;0.03", 0.02, -0.01, 0.04),
        ("bare_letter", "paper", "letter", "recovery_corrected", 3, "0.11;0.2;0.3", 0.2, 0.05, 0.35),
        ("on_v", "paper - nested", "letter", "recovery_corrected", 3, "0.1;-0.2;0.3", 0.07, -0.5, 0.64),
        ("answers", "nested", "letter", "recovery_corrected", 0, "", NAN, NAN, NAN),
        ("answers", "nested", "likelihood", "recovery", 1, "0.42", 0.42, NAN, NAN),
    )
    text = page(study, study / "study.yaml")
    Reader(text)
    sections = {
        name: re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", part))
        for name, part in re.findall(r'<section aria-labelledby="(\w+)">(.*?)</section>', text, re.DOTALL)
    }
    faithful = sections["faithful"]
    assert (
        "bare_letter faithful bare_letter learned in pretraining GD nested +.02 [-.01, .04] .01, .02, .03" in faithful
    )
    assert "+.20 [.05, .35] .10, .20, .30 differs over 3 seeds" in faithful and ".11" not in faithful
    assert "paper - nested – – – +.07 [-.50, .64] .10, -.20, .30 no difference shown over 3 seeds" in faithful
    formats = sections["formats"]
    assert "answers methods.GD.mcq_share 1.0; without RMU learned in pretraining GD" in formats
    assert "no seed with both values" in formats and ".42" not in formats
    assert "ours variants answers ( Formats )." in sections["published"]
    assert ".61 [.56, .66]" in sections["recovery"]
    assert not [name for name in ("claim", "recovery") if ".71" in sections[name]]
    assert ".71" not in summary(study)


def test_end_to_end_from_evaluations(tmp_path):
    """The real tables: what is planted in the evaluations is what the page and the summary say."""
    from evals_builder import make_evals

    planted = {
        "unlearned_attacked": 0.75,
        ("unlearned_attacked", "pretrained", "GD"): 0.25,
        "before": 1.0,
        "original_attacked": 1.0,
    }
    planted |= {"unlearned": 0.25, "control_attacked": 0.25}
    folder = tmp_path / "study"
    evals, point_choices = make_evals(
        folder, arms=("pretrained",), methods=("GD", "RMU"), per_split=32, epochs=1, lrs=(1e-3,), steps=(10,),
        accuracies={**planted, ("unlearned_attacked", "pretrained", "RMU"): 0.75},
    )  # fmt: skip
    tables = folder / "tables"
    assert main(["tables", "--evals", str(evals), "--point-choices", str(point_choices), "--out", str(tables)]) == 0
    (folder / "study.yaml").write_text("study: study\n")
    text = page(folder, folder / "study.yaml")
    assert "RMU hid the facts learned in pretraining, at least in part, rather than removing them" in text
    assert "does not show that any come back after unlearning with GD" in text
    assert "The criterion fails: for GD" in text
    # 120 of 160 and 40 of 160: Wilson by hand (z = 1.959964)
    z, n = 1.959964, 160
    ends = []
    for p in (0.75, 0.25):
        centre, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        ends += [(centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)]
    low, high, control_low, control_high = (f"{end:.2f}"[1:] for end in ends)
    assert f".75 [{low}, {high}]" in text
    assert f".25 [{control_low}, {control_high}]" in text
    rows = [line.split() for line in summary(folder).splitlines() if line.startswith("pretrained")]
    assert [row[1:7] for row in rows] == [
        ["GD", "1.00", ".25", ".25", "1.00", ".25"],
        ["RMU", "1.00", ".25", ".75", "1.00", ".25"],
    ]

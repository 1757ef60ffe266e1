import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from report_builder import accuracy, audit, full_study, manifest, recovery, recovery_row, write_study
from rtt import findings
from rtt.__main__ import main
from rtt.errors import UserError
from rtt.figures.view import make_view
from rtt.report import contrast_rows, inline_svg, ledger, page, provenance
from rtt.stats.contrasts import COLUMNS
from rtt.stats.variants import COLUMNS as VARIANT_COLUMNS
from rtt.summary import summary
from rtt.tables import write_table

NAN = float("nan")
EVIL = '<script>alert("x")</script>'


def view_of(*rows):
    table = recovery(*rows)
    return make_view(table, accuracy(table))


def claim(*rows):
    view = view_of(*rows)
    return findings.claim(view, findings.main_panels(view)[0])


def verdict(*rows):
    view = view_of(*rows)
    return findings.criterion_sentence(findings.judge(view, findings.main_panels(view)[0]))


def caveats(*rows):
    table = recovery(*rows)
    view = make_view(table, accuracy(table))
    return findings.caveats(view, table, accuracy(table))


# ---- the claim and the criterion


def test_claim_when_all_methods_hide():
    rows = [recovery_row("GD", acc_rtt=0.8, acc_unlearned=0.25), recovery_row("RMU", acc_rtt=0.9, acc_unlearned=0.31)]
    assert claim(*rows) == (
        "Both methods hid the facts learned in pretraining, at least in part, rather than removing them: unlearning "
        "takes accuracy on V from .97 to between .25 and .31 (floor .27), and after retraining on T alone it is "
        "between .80 [.75, .85] (GD) and .90 [.85, .95] (RMU), against .95 [.90, 1.00] for the original and "
        ".30 [.25, .35] for a control that never learned the facts."
    )


def test_claim_says_the_opposite_when_the_data_do():
    text = claim(recovery_row("GD", acc_rtt=0.33), recovery_row("RMU", acc_rtt=0.31))
    assert text.startswith(
        "This run does not show that any of the facts learned in pretraining come back after unlearning with GD and "
        "RMU: "
    )
    mixed = claim(recovery_row("GD", acc_rtt=0.33), recovery_row("RMU", acc_rtt=0.9))
    assert mixed.startswith(
        "RMU hid the facts learned in pretraining, at least in part, rather than removing them, "
        "while this run does not show that any come back after unlearning with GD: "
    )


def test_claim_leaves_out_what_was_never_unlearned_or_attacked():
    text = claim(
        recovery_row("GD", acc_rtt=0.8),
        recovery_row("RMU", status="not_unlearned"),
        recovery_row("RIA", status="none_within_budget"),
    )
    assert text.startswith("GD hid the facts")
    assert "; not counted: RMU: never unlearned" in text
    assert "RIA: no point of the unlearning run" in text
    nothing = claim(recovery_row("GD", acc_control_rtt=NAN))
    assert nothing == (
        "Whether the facts learned in pretraining were removed or hidden cannot be told from this run; not counted: "
        "GD: there is no control."
    )


def test_claim_is_about_seed_0_or_the_lowest_and_the_pretrained_arm():
    rows = [recovery_row(seed=11, acc_rtt=0.6), recovery_row(seed=12, acc_rtt=0.9), recovery_row(arm="taught", seed=11)]
    assert ".60 [.55, .65] (GD)" in claim(*rows)
    assert ".70 [.65, .75] (GD)" in claim(*rows, recovery_row(seed=0, acc_rtt=0.7))
    assert "facts taught later, as in the paper" in claim(recovery_row(arm="taught"))


def test_criterion_holds_fails_or_is_open():
    good = recovery_row("GD", acc_rtt_low=0.351, acc_control_rtt_high=0.35)
    bad = recovery_row("RMU", acc_rtt_low=0.35, acc_control_rtt_high=0.35)
    absent = recovery_row("RIA", status="none_within_budget")
    void = recovery_row("FIF", status="not_unlearned")
    assert verdict(good) == "The criterion holds for the one method."
    assert verdict(good, bad).startswith("The criterion fails: for RMU the low end")
    assert verdict(good, absent) == "The criterion is not met: it cannot be judged for RIA."
    assert "fails: for RMU" in verdict(bad, absent)
    assert "cannot be judged for RIA" in verdict(bad, absent)
    assert verdict(good, void).endswith("It says nothing about FIF, never unlearned.")


# ---- seeds


def test_one_seed_supports_no_statement():
    assert "one seed cannot support a statement" in findings.over_seeds_sentence(view_of(recovery_row()))


def test_over_seeds_uses_a_t_interval_and_leaves_out_what_means_nothing():
    values = (0.6, 0.7, 0.8)
    rows = [recovery_row(seed=s, acc_rtt=v, acc_control_rtt=0.3) for s, v in enumerate(values)]
    rows.append(recovery_row(seed=3, acc_rtt=0.99, status="not_unlearned"))
    (cell,) = findings.over_seeds(view_of(*rows))
    assert cell["differences"] == pytest.approx([0.3, 0.4, 0.5])
    # mean .4, s = .1, t(.975; 2) = 4.302653: half width 4.302653 * .1 / sqrt(3)
    assert (cell["low"], cell["high"]) == pytest.approx((0.4 - 0.248414, 0.4 + 0.248414), abs=1e-6)
    assert (cell["n"], cell["left_out"], cell["above"]) == (3, 1, 3)


def test_over_seeds_sentence_names_the_methods():
    rows = [
        recovery_row(m, seed=s, acc_rtt=v)
        for m, a in (("GD", (0.8, 0.81)), ("RMU", (0.2, 0.5)))
        for s, v in enumerate(a)
    ]
    assert findings.over_seeds_sentence(view_of(*rows)) == (
        "Over 2 seeds, the t interval of accuracy on V after RTT, unlearned minus control, lies above 0 for "
        "facts learned in pretraining: 1 of 2 methods (GD)."
    )


# ---- what cannot be told


@pytest.fixture
def no_figures(monkeypatch):
    """Drawing takes a second a page; tests of the text do without."""
    monkeypatch.setattr("rtt.report.FIGURES", {})


def test_a_measure_that_cannot_be_told_is_words_and_its_interval(tmp_path, no_figures):
    wide = {"recovery_corrected_low": 0.5, "recovery_corrected_high": 1.2, "cannot_tell": "recovery_corrected"}
    study = write_study(tmp_path / "s", recovery(recovery_row("GD", **wide), recovery_row("RMU")))
    page_text = page(study, study / "study.yaml")
    for text in (summary(study), page_text):
        assert "cannot tell [.50, 1.20]" in text and ".86 [.50, 1.20]" not in text
        assert ".86 [.81, .91]" in text  # RMU's
    assert "<td>.89 [.84, .94]</td><td>cannot tell [.50, 1.20]</td>" in page_text  # the ratio of the same row tells


def test_a_wide_interval_is_no_evidence_that_facts_are_gone():
    wide = recovery_row("GD", acc_rtt=0.33, cannot_tell="recovery;recovery_corrected")
    text = claim(wide)
    assert text.startswith("Whether the facts learned in pretraining were removed or hidden cannot be told")
    assert "GD: cannot tell: the interval of recovery reaches further than .25" in text
    assert verdict(wide).startswith("The criterion fails: for GD")  # as it was fixed, it stays
    hidden = claim(recovery_row("GD", acc_rtt=0.8, cannot_tell="recovery;recovery_corrected"))
    assert hidden.startswith("GD hid the facts")  # that they came back does not hang on the rate


# ---- datasets, scorings, variants


def test_the_first_scoring_of_the_table_is_the_main_one(tmp_path, no_figures):
    rows = [recovery_row(scoring="likelihood", acc_rtt=0.61), recovery_row(scoring="letter", acc_rtt=0.71)]
    study = write_study(tmp_path / "s", recovery(*rows))
    assert "scoring likelihood" in summary(study) and ".61" in summary(study) and ".71" not in summary(study)
    text = page(study, study / "study.yaml")
    assert "it is .61 [.56, .66] (GD)" in text
    assert text.index("Scoring by likelihood of the choice") < text.index("Scoring by letter")


def test_datasets_have_titles_and_a_claim_each(tmp_path, no_figures):
    rows = [recovery_row(dataset=name, acc_rtt=value) for name, value in (("years", 0.8), ("wmdp-deduped", 0.31))]
    study = write_study(tmp_path / "s", recovery(*rows))
    text = page(study, study / "study.yaml")
    assert "hid the facts learned in pretraining (Years)" in text
    assert "any of the facts learned in pretraining (WMDP-Deduped) come back" in text
    assert "pretrained (Years)" in summary(study) and "pretrained (WMDP-Deduped)" in summary(study)


def variants_csv(folder, *rows):
    head = ("people_p", "pretrained", "miniature", "GD", 0.1)
    table = pd.DataFrame([(name, *head, *rest) for name, *rest in rows], columns=VARIANT_COLUMNS)
    write_table(folder / "tables" / "variants.csv", table)


def test_variants_have_a_table_and_everything_else_is_the_default(tmp_path, no_figures):
    rows = [recovery_row(acc_rtt=0.61), recovery_row(acc_rtt=0.71, variant="bare_letter")]
    study = write_study(tmp_path / "s", recovery(*rows))
    assert "Variants" not in page(study, study / "study.yaml")
    variants_csv(
        study,
        ("bare_letter", "nested", "letter", "recovery_corrected", 3, "0.1;0.2;0.3", 0.2, 0.05, 0.35),
        ("bare_letter", "paper", "letter", "recovery_corrected", 3, "0.11;0.2;0.3", 0.2, 0.05, 0.35),
        ("on_v", "paper - nested", "letter", "acc_rtt", 3, "0.1;-0.2;0.3", 0.07, -0.5, 0.64),
        ("void", "nested", "letter", "recovery", 0, "", NAN, NAN, NAN),
        ("void", "nested", "likelihood", "recovery", 1, "0.42", 0.42, NAN, NAN),
    )
    text = page(study, study / "study.yaml")
    Reader(text)
    table = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text[text.index('<h2 id="variants">') :]))
    assert (
        "bare_letter learned in pretraining GD nested floor-corrected recovery 3 .20 [.05, .35] .10, .20, .30" in table
    )
    assert "differs over 3 seeds" in table and ".11" not in table
    assert "on_v learned in pretraining GD paper - nested accuracy on V after RTT 3" in table
    assert "no difference shown over 3 seeds" in table
    assert "no seed with both values" in table and ".42" not in table
    before_variants = text[: text.index('<h2 id="variants">')]
    assert ".61 [.56, .66]" in before_variants and ".71" not in before_variants
    assert ".71" not in summary(study)


def test_contrasts_name_datasets_where_an_arm_has_several(tmp_path):
    cell = (0.1, "nested", "letter", "acc_rtt", 1, "0.1", 0.1, NAN, NAN, "yes", "")
    rows = [("pretrained", "taught", "mmlu", "mmlu", "GD", *cell)]
    write_table(tmp_path / "contrasts.csv", pd.DataFrame(rows, columns=COLUMNS))
    several = view_of(recovery_row(dataset="mmlu"), recovery_row(dataset="years"))
    for view, names in (
        (several, ["pretrained (MMLU)", "taught (MMLU)"]),
        (view_of(recovery_row()), list(rows[0][:2])),
    ):
        (row,) = contrast_rows(tmp_path / "contrasts.csv", view)["arms"]
        assert [row["arm_a_name"], row["arm_b_name"]] == names


# ---- caveats


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"acc_control_rtt": 0.4}, "The control itself ends above the floor"),
        ({"acc_control_rtt": NAN}, "There is no control"),
        ({"t_acc_rtt": 0.89}, "RTT did not learn T (accuracy on T below .90)"),
        ({"status": "over_unlearned"}, "Forget accuracy lies below the floor"),
        ({"status": "not_unlearned"}, "Forget accuracy still lies above the floor"),
        ({"status": "undefined"}, "no recovery rate is defined"),
        ({"status": "none_within_budget"}, "No point of the unlearning run keeps retain accuracy within 10 %"),
        ({"recovery_corrected_low": 0.6, "recovery_corrected_high": 0.95}, "is wider than .30"),
    ],
)
def test_each_caveat_is_raised_by_its_cause_alone(changes, text):
    calm = {"acc_control_rtt": 0.28}
    assert not any(text in sentence for sentence in caveats(recovery_row(**calm)))
    hits = [s for s in caveats(recovery_row("GD", **calm), recovery_row("RMU", **(calm | changes))) if text in s]
    if "acc_control_rtt" in changes:  # one control per arm and seed: the first row speaks for it
        hits = [s for s in caveats(recovery_row("RMU", **(calm | changes))) if text in s]
        assert len(hits) == 1
    else:
        assert len(hits) == 1
        assert "RMU, learned in pretraining" in hits[0]
        assert "GD" not in hits[0]


def test_caveats_on_other_facts_in_the_control_scorings_and_retain():
    rows = [recovery_row(), recovery_row(scoring="likelihood", status="not_unlearned", acc_unlearned=0.5)]
    rows.append(recovery_row(arm="taught", retain_before=0.7))
    found = " ".join(caveats(*rows))
    assert "facts learned in pretraining (people_p) have people_f as control" in found
    assert "and yet above the floor by likelihood of the choice: GD, learned in pretraining .50 [.45, .55]." in found
    assert "Teaching cost retain accuracy before any unlearning (.90 without it)" in found
    assert "would score .28 here, not 0" in found  # .27 / .95
    assert not any(
        "Teaching" in text for text in caveats(recovery_row(), recovery_row(arm="taught", retain_before=0.86))
    )


# ---- the page


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
        if values.get("role") == "img":
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
        (0.1, "nested", "letter", "acc_rtt"),
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


def test_page_says_what_the_tables_say(html):
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))
    assert "All 4 methods hid the facts learned in pretraining" in text
    assert "The criterion holds for all 4 methods." in text
    assert "one seed cannot support a statement about a method or an arm" in text
    assert "not comparable: unlearned accuracy .20 vs .45" in text
    assert "not corrected for selection" in text
    for status in ("over unlearned", "not unlearned", "none within budget", "undefined"):
        assert status in text
    assert "split_1.jsonl:7: duplicate question: as split_0.jsonl:3" in text
    assert "duplicate question 2" in text and "split leak" not in text
    assert "c0ffee" in text and "torch 2.9.1" in text and "study: tiny" in text
    assert re.search(r"unlearn 2 22 45", text)  # two processes: 22.4 CPU seconds, 44.8 wall seconds
    assert re.search(r"all 3 52 105", text)
    assert "python -m rtt figure accuracy --tables" in text


def test_page_is_the_same_twice_and_shows_all_scorings(study, html):
    assert page(study, study / "study.yaml") == html
    for caption in ("letter, selection nested", "letter, selection paper", "the choice, selection paper"):
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
        [(EVIL, "b", EVIL, EVIL, EVIL, 0.1, "nested", "letter", "acc_rtt", 1, "0.1", 0.1, NAN, NAN, "no", EVIL)],
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
    assert "recovery.csv: no such file; run `python -m rtt tables` first" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [tmp_path / "empty"]


def test_a_manifest_that_is_no_object_is_named(tmp_path):
    study = write_study(tmp_path / "s", recovery(recovery_row()))
    (study / "manifests").mkdir()
    (study / "manifests" / "x.json").write_text("[]")
    with pytest.raises(UserError, match=r"x.json: expected a JSON object, found list"):
        page(study, study / "study.yaml")


# ---- parts


def test_inline_svg_has_its_own_ids_and_no_style():
    svg = '<?xml version="1.0"?><!DOCTYPE svg><svg id="a"><!-- x --><metadata>m</metadata>'
    svg += '<style type="text/css">*{}</style><use xlink:href="#a" clip-path="url(#b)"/><clipPath id="b"/></svg>'
    text = str(inline_svg(svg, "one", 'say "hi" <b>'))
    assert text.startswith('<svg role="img" aria-label="say &#34;hi&#34; &lt;b&gt;"')
    assert 'id="one-a"' in text and 'href="#one-a"' in text and "url(#one-b)" in text and 'id="one-b"' in text
    assert not re.search(r"<!--|metadata|<style|<\?xml", text)


def test_contrast_verdicts(tmp_path):
    def row(n, low, high, comparable="yes", why=""):
        return (
            "a",
            "b",
            "d",
            "e",
            "GD",
            0.1,
            "nested",
            "letter",
            "acc_rtt",
            n,
            "0.1;0.2",
            0.15,
            low,
            high,
            comparable,
            why,
        )

    rows = [row(2, 0.1, 0.2), row(2, -0.1, 0.2), row(1, NAN, NAN), row(2, 0.1, 0.2, "no", "not comparable: x")]
    rows += [
        (*row(2, 0.1, 0.2)[:5], 0.3, *row(2, 0.1, 0.2)[6:]),
        ("a", "a", "d", "d", "GD - RMU", *row(2, -0.2, -0.1)[5:]),
    ]
    write_table(tmp_path / "contrasts.csv", pd.DataFrame(rows, columns=COLUMNS))
    found = contrast_rows(tmp_path / "contrasts.csv", view_of(recovery_row()))
    assert [r["verdict"] for r in found["arms"]] == [
        "differs over 2 seeds",
        "no difference shown over 2 seeds",
        "one seed cannot support a statement",
        "not comparable: x",
    ]
    assert [(r["verdict"], r["points"]) for r in found["methods"]] == [("differs over 2 seeds", [".10", ".20"])]


def test_ledger_orders_stages_and_counts_what_is_unknown():
    rows = ledger(
        [manifest("attack", 5), manifest("zeta", 1), manifest("pretrain", 7), manifest("attack", None, wall_seconds=2)]
    )
    assert [(r["stage"], r["runs"], r["cpu_seconds"], r["unknown"]) for r in rows] == [
        ("pretrain", 1, 7, 0), ("attack", 2, 5, 1), ("zeta", 1, 1, 0), ("all", 4, 13, 1),
    ]  # fmt: skip
    assert ledger([]) == []


def test_provenance_lists_each_value_once():
    found = dict(provenance([manifest(), manifest(git_dirty=True), manifest(git_commit=None)]))
    assert found["git commit"] == ["c0ffee", "c0ffee (with changes not committed)", "unknown"]
    assert found["hardware"] == ["cpus 2, machine x86_64"]


def test_summary_is_aligned_and_fits_a_terminal(tmp_path):
    study = write_study(tmp_path / "s", full_study((0, 11)), manifests=[manifest("pretrain", 30)])
    text = summary(study)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 120
    head, first = lines[1:3]
    assert first.split()[:8] == ["pretrained", "GD", "0", ".97", ".28", ".80", ".95", ".30"]
    for name, value in (("recovery", ".78 ["), ("status", "ok")):
        assert first[head.index(name) :].startswith(value)
    assert any(line.split() == ["pretrain", "1", "30", "60"] for line in lines)
    assert lines[-1] == f"report: {study}/report.html (not written yet)"
    assert "none_within_budget" in text


def test_summary_shortens_long_names(tmp_path):
    rows = [recovery_row(dataset=f"dataset-{i}-" + "x" * 60, status="none_within_budget") for i in (1, 2)]
    text = summary(write_study(tmp_path / "s", recovery(*rows)))
    assert max(map(len, text.splitlines()[1:4])) <= 120
    assert "pretrained (dataset-1-" in text
    assert "CPU seconds: no manifests found" in text


def test_end_to_end_from_evaluations(tmp_path):
    """The real tables: what is planted in the evaluations is what the page and the summary say."""
    from evals_builder import make_evals

    planted = {"unlearned_rtt": 0.75, ("unlearned_rtt", "pretrained", "GD"): 0.25, "before": 1.0, "original_rtt": 1.0}
    planted |= {"unlearned": 0.25, "control_rtt": 0.25}
    folder = tmp_path / "study"
    evals, selections = make_evals(
        folder, arms=("pretrained",), methods=("GD", "RMU"), per_split=32, epochs=1, lrs=(1e-3,), steps=(10,),
        accuracies={**planted, ("unlearned_rtt", "pretrained", "RMU"): 0.75},
    )  # fmt: skip
    tables = folder / "tables"
    assert main(["tables", "--evals", str(evals), "--selections", str(selections), "--out", str(tables)]) == 0
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

"""Parts of the report: rows of its tables, costs, figures, the summary for a terminal."""

import re

import pandas as pd
from report_builder import full_study, manifest, recovery, recovery_row, view_of, write_study
from rtt.reporting.cost import ledger, provenance
from rtt.reporting.images import inline_svg
from rtt.reporting.recovered import contrast_rows
from rtt.stats.contrasts import COLUMNS
from rtt.summary import summary
from rtt.tables import write_table

NAN = float("nan")


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

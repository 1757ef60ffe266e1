"""A study's seeds among those of the reference: where they stand, and where the section is left out."""

import html
import re
from pathlib import Path

import pytest
from report_builder import full_study, full_view, over_seeds, probes, write_study
from rtt.figures.seeds import seeds
from rtt.figures.style import settings
from rtt.report.among import among
from rtt.report.inputs import read_inputs
from rtt.report.page import render, report
from rtt.report.reference import Reference

TEN = tuple(range(21, 31))


@pytest.fixture
def no_figures(monkeypatch):
    """Drawing takes seconds; a figure of which only its place counts is one mark with an id."""
    svg = b'<svg id="one"><use href="#one"/></svg>'
    monkeypatch.setattr("rtt.report.images.render_told", lambda *_, **__: (svg, []))


@pytest.fixture(scope="module")
def ten():
    """A reference of ten seeds, of which GD's corrected recoveries are .50, .51, ..., .59 on the first arm's facts."""
    table = full_study(TEN)
    first = (table["method"] == "GD") & (table["arm"] == table["arm"].iloc[0])
    table.loc[first, "recovery_corrected"] = 0.5 + (table.loc[first, "seed"] - 21) / 100
    tables = {"recovery": table, "probes": probes(table), "seeds": over_seeds(table)}
    return Reference("seeds-0123456789", {"study": "seeds"}, tables, ())


def test_a_seed_has_its_place_among_the_ten(ten):
    view = full_view()
    view.recovery.loc[view.recovery["method"] == "GD", "recovery_corrected"] = 0.546
    found = among(view, ten, 9)
    assert found.seeds == list(TEN) and found.changed == "" and found.image.number == 9
    row = next(row for row in found.groups[0].rows if row.method == "GD")
    assert (row.here.strip("*"), row.place) == (".55", "above 5 of 10")
    assert [value.strip("*") for value in row.each.split(", ")] == [f".5{k}" for k in range(10)]


def test_seeds_that_do_not_know_have_no_place_among_the_ten(ten, no_figures):
    """Two of the reference's ten do not know the facts: the mean leaves them out, and so does the place."""
    table = ten.tables["recovery"].copy()
    table.loc[table["seed"].isin((21, 22)), ["status", "counts"]] = ["not_known", False]
    eight = Reference(ten.name, ten.study, {**ten.tables, "recovery": table, "seeds": over_seeds(table)}, ())
    view = full_view()
    view.recovery.loc[view.recovery["method"] == "GD", "recovery_corrected"] = 0.546
    row = next(row for row in among(view, eight, 9).groups[0].rows if row.method == "GD")
    assert (row.place, row.mean.partition(" ")[0]) == ("above 3 of 8", ".55")  # .52 to .59


def test_the_figure_has_the_study_as_diamonds(ten):
    """One beside the ten marks of each cell that has a value; the legend names the seed."""
    view = full_view()
    with settings():
        alone, figure = (seeds(ten.view(view), **more) for more in ({}, {"beside": view}))
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "this study, seed 0" in labels and len(labels) == len(alone.legends[0].get_texts()) + 1
    values = view.of(view.panels[0])["recovery_corrected"].dropna().tolist()
    diamonds = [line for line in figure.axes[0].lines if line.get_marker() == "D"]
    assert sorted(float(line.get_ydata()[0]) for line in diamonds) == pytest.approx(sorted(values))


def test_a_row_without_a_value_has_no_place(ten, no_figures):
    view = full_view()
    view.recovery.loc[view.recovery["method"] == "RMU", "recovery_corrected"] = float("nan")
    rows = [row for group in among(view, ten, 9).groups for row in group.rows if row.method == "RMU"]
    assert rows and all((row.here, row.place) == ("–", "–") for row in rows)


def test_it_is_left_out_without_a_reference_and_for_the_references_own_seeds(ten):
    assert among(full_view(), None, 9) is None
    assert among(full_view((21,)), ten, 9) is None


def test_changed_code_is_said(ten, no_figures):
    changed = Reference(ten.name, ten.study, ten.tables, ("unlearn", "attack"))
    assert "the code of unlearn and attack has changed" in among(full_view(), changed, 9).changed


def test_the_page_shows_it_only_where_it_is_told_to(ten, tmp_path, no_figures):
    folder = write_study(tmp_path, full_study())
    inputs, config = read_inputs(folder, folder / "study.yaml"), Path("study.yaml")
    alone, told = (render(report(inputs, folder, config, reference)) for reference in (None, ten))
    assert 'id="reference"' not in alone and "--reference" not in alone
    assert 'id="reference"' in told and 'href="#reference"' in told
    text = " ".join(re.sub(r"<[^>]+>", " ", html.unescape(told)).split())
    assert "on 10 other seeds (21, 22, 23" in text and "--reference results/reference" in text
    ids = re.findall(r'\bid="([^"]+)"', told)
    assert len(ids) == len(set(ids)) and {"seeds-beside-one", "steps-one"} <= set(ids)

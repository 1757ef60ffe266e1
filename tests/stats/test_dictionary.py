"""The data dictionary: every column of every table is described, and real tables hold what it says."""

import itertools
import re

import pytest
from bundle_builder import BUNDLE, silent
from evals_builder import make_evals, tables
from rtt.bundle import opening, rebuild
from rtt.stats.dictionary import SHARED, TABLES, columns, page
from rtt.stats.tables import COLUMNS, read_table
from rtt.study.names import NONE

SPREAD = re.compile(r"p_\d+")  # columns of which a table has as many as a question has choices


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Tables of three seeds with repeats, groups and a cell without a point, and of the committed bundle."""
    folder = tmp_path_factory.mktemp("dictionary")
    make_evals(
        folder / "built", arms=("pretrained", "taught"), methods=("GD", "RMU"), seeds=range(3), per_split=16, epochs=2,
        steps=(10, 20), unlearning_repeats=2, repeats=2, group_size=2, none={("taught", "GD", 0.1)},
        accuracies={"unlearned": 0.25, ("unlearned", "pretrained", "RMU", 2): 0.6},
    )  # fmt: skip
    assert tables(folder / "built") == 0
    with silent():
        opening.unpack(opening.look(BUNDLE), folder / "kept")
        rebuild.make_tables(folder / "kept/results/tiny")
    places = folder / "built/tables", folder / "kept/results/tiny/tables"
    return [{name: read_table(place / f"{name}.csv") for name in TABLES} for place in places]


def test_every_column_of_every_table_is_described_and_none_is_left_over():
    assert TABLES.keys() == COLUMNS.keys()
    used = set()
    for name, table in TABLES.items():
        assert list(columns(name)) == COLUMNS[name]  # raises KeyError for one without a description
        assert not table.own.keys() - set(COLUMNS[name]), name
        used |= set(COLUMNS[name]) - table.own.keys()
    assert not SHARED.keys() - used


def test_descriptions_are_sentences():
    for name in TABLES:
        for key, one in columns(name).items():
            for said in (one.meaning, one.empty):
                assert not said or ((said[0].isupper() or said[0] == "`") and said.endswith(".")), (name, key, said)


@pytest.mark.parametrize("name", TABLES)
def test_types_and_ranges_are_those_of_real_tables(results, name):
    described = columns(name)
    for found in (one[name] for one in results):
        assert [column for column in found if not SPREAD.fullmatch(column) or column in described] == list(described)
        for column, one in described.items():
            cells = found[column].dropna()
            cells = [cell for cell in cells.tolist() if cell != ""]
            if len(cells) < len(found):
                assert one.empty, f"{name}.csv has an empty {column}, whose meaning is not said"
            for cell in cells:
                assert not wrong(one.kind, cell), (name, column, cell, str(one.kind))


def wrong(kind, cell):
    """Return what a cell has that its kind does not allow."""
    if kind.words:
        return cell not in kind.words
    if kind.type == "text":
        return not isinstance(cell, str)
    if kind.type == "true or false":
        return str(cell).lower() not in ("true", "false")
    parts = str(cell).split(";") if "semicolons" in kind.type else [cell]
    numbers = [float(part) for part in parts if part != ""]
    ends = (-float("inf") if kind.low is None else kind.low, float("inf") if kind.high is None else kind.high)
    whole = kind.type.startswith("whole")
    return any(not ends[0] <= x <= ends[1] or (whole and x != round(x)) for x in numbers)


def test_the_real_tables_have_empty_cells_and_whole_ranges(results):
    """Else the test above would hold of anything: what it reads has rates, gaps and several seeds."""
    built, kept = results
    assert built["seeds"]["var_unlearning"].notna().any() and built["recovery"]["acc_attacked"].isna().any()
    assert set(built["recovery"]["status"]) >= {"none_within_budget"} and len(set(kept["recovery"]["attack"])) == 3
    assert NONE in set(kept["accuracy"]["method"])


def test_the_text_has_a_row_per_column():
    found = page("Tables")
    heads = [line for line in found.splitlines() if line.startswith("##")]
    assert heads == [f"## `{name}.csv`" for name in TABLES]
    rows = [line for line in found.splitlines() if line.startswith("| `")]
    assert len(rows) == sum(map(len, COLUMNS.values())) and all(row.count(" | ") == 3 for row in rows)
    ends = list(itertools.filterfalse(lambda row: "95 % interval" not in row, rows))
    assert any(row.startswith("| `acc_attacked_low` | number from 0 to 1 | The lower end") for row in ends)

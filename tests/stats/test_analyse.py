"""The code of docs/analyse.md runs on a planted study, and its answers are those of plain loops over the CSV files."""

import csv
import statistics
from itertools import product

import pandas as pd
import pytest
from docs_markdown import blocks
from report_builder import over_seeds, probe_rows, recovery, recovery_row
from rtt.stats.headline import headline_table
from rtt.stats.probes import COLUMNS as PROBES_COLUMNS
from rtt.stats.tables import write_table

PAGE = "docs/analyse.md"
SEEDS, BUDGETS, ATTACKS = (0, 1, 2), (0.05, 0.1), ("RTT", "RTT_permuted")
PLANTED = {  # accuracy on V after RTT; status; the probe that still finds the facts, if any
    ("pretrained", "GD"): (0.85, "ok", None),
    ("pretrained", "RMU"): (0.97, "not_unlearned", "likelihood"),
    ("taught", "GD"): (0.31, "ok", None),
    ("taught", "RMU"): (0.5, "none_within_budget", None),
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Run all blocks of the page, in a folder that holds a planted study; return their names and the study's tables."""
    folder = tmp_path_factory.mktemp("analyse")
    rows = []
    for (arm, method), seed, budget, attack in product(PLANTED, SEEDS, BUDGETS, ATTACKS):
        reached, status, _ = PLANTED[arm, method]
        format_alone = attack == "RTT_permuted"
        reached = 0.33 if format_alone else reached + 0.01 * seed - 0.2 * (budget == 0.05)
        more = {"retain_budget": budget, "acc_attacked": reached, "status": status, "seed": seed}
        more |= {"attack": attack, "recovery_corrected": reached - 0.27, "retain_unlearned": 1 - budget}
        rows.append(recovery_row(method, arm, **more))
        rows.append({**rows[-1], "variant": "other", "acc_attacked": 0.0, "counts": True})  # no answer may hold it
        rows.append({**rows[-2], "probe": "likelihood", "acc_attacked": 0.1})
    table = recovery(*rows)
    asked = []
    for (arm, method), seed in product(PLANTED, SEEDS):
        values = {"letter": 0.25, "likelihood": 0.31}
        values |= {PLANTED[arm, method][2]: 0.6 + 0.01 * seed} if PLANTED[arm, method][2] else {}
        asked += probe_rows(arm, "unlearned", method, values, seed=seed)
        asked += probe_rows(arm, values=dict.fromkeys(values, 0.96), seed=seed)  # of the original, which knows
    asked = pd.DataFrame(asked, columns=PROBES_COLUMNS)
    default = table[table["variant"] == "default"]
    written = {"recovery": table, "probes": asked, "headline": headline_table(default, asked, over_seeds(default))}
    for name, one in written.items():
        write_table(folder / f"results/demo/tables/{name}.csv", one)
    names = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for block in blocks(PAGE):
            assert block.language == "python"
            exec(compile("\n" * block.line + block.text, PAGE, "exec"), names)
    files = (folder / "results/demo/tables").iterdir()
    return names, {path.stem: list(csv.DictReader(path.read_text().splitlines())) for path in files}


def shown(rows, **wanted):
    """Return the rows of the variant `default` with these texts, as the study reports first where nothing is wanted."""
    wanted = {"variant": "default", "look_choice": "nested", "probe": "letter_permuted"} | wanted
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def test_which_methods_hid_the_facts(ran):
    names, tables = ran
    hid = names["hid"]
    assert list(zip(hid["arm"], hid["method"], strict=True)) == [("pretrained", "GD")]
    values = [float(row["acc_attacked"]) for row in shown(tables["recovery"], attack="RTT", retain_budget="0.1")
              if (row["arm"], row["method"]) == ("pretrained", "GD")]  # fmt: skip
    assert hid["acc_attacked"].item() == pytest.approx(statistics.mean(values), abs=1e-6)
    verdicts = {(row["arm"], row["method"]): row["verdict"] for row in tables["headline"]}
    assert verdicts == {
        ("pretrained", "GD"): "hidden", ("pretrained", "RMU"): "not_unlearned", ("taught", "GD"): "none_shown",
        ("taught", "RMU"): "no_point",
    }  # fmt: skip


def test_how_much_the_seeds_differ(ran):
    names, tables = ran
    for (_, _, arm, method), row in names["spread"].iterrows():
        cells = shown(tables["recovery"], attack="RTT", retain_budget="0.1", arm=arm, method=method)
        values = [float(cell["recovery_corrected"]) for cell in cells if cell["recovery_corrected"]]
        assert row["count"] == len(values) == (0 if (arm, method) == ("taught", "RMU") else 3)
        if values:
            expected = statistics.mean(values), statistics.stdev(values), min(values), max(values)
            assert row[["mean", "std", "min", "max"]].tolist() == pytest.approx(expected, abs=1e-6)
    assert len(names["spread"]) == len(PLANTED)


def test_which_probe_fails_a_method(ran):
    names, tables = ran
    failed = names["failed"]
    ((_, _, arm, method, probe),) = failed.index
    assert (arm, method, probe) == ("pretrained", "RMU", "likelihood")
    above = [float(row["accuracy"]) - float(row["floor"]) for row in tables["probes"]
             if row["stage"] == "unlearned" and row["at_floor"] == "false"]  # fmt: skip
    assert failed["count"].item() == len(above) == 3
    assert failed["mean"].item() == pytest.approx(sum(above) / 3, abs=1e-6)


def test_what_another_budget_changes(ran):
    names, tables = ran
    found = names["budgets"]
    assert len(found) == len(PLANTED) * len(BUDGETS)
    for (_, _, arm, method, budget), row in found.iterrows():
        cells = shown(tables["recovery"], attack="RTT", retain_budget=str(budget), arm=arm, method=method)
        assert row["counts"] == sum(cell["counts"] == "true" for cell in cells) / 3
        values = [float(cell["acc_attacked"]) for cell in cells if cell["acc_attacked"]]
        assert row["acc_attacked"] == pytest.approx(statistics.mean(values or [float("nan")]), abs=1e-6, nan_ok=True)
    gd = found.xs("GD", level="method").xs("pretrained", level="arm").droplevel([0, 1])["acc_attacked"]
    assert gd[0.1] - gd[0.05] == pytest.approx(0.2)


def test_what_the_format_alone_brings_back(ran):
    names, _ = ran
    found = names["beyond"].droplevel([0, 1]).to_dict()
    expected = {cell: reached + 0.01 - 0.33 for cell, (reached, status, _) in PLANTED.items() if "budget" not in status}
    assert found == pytest.approx(expected)


def test_each_question_has_its_block():
    assert len(blocks(PAGE)) == 6  # the first reads the tables

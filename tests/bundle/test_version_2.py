"""A bundle of version 2 must open from now on, and give the numbers that are computed here by hand.

tests/helpers/bundle_study.py has its scores. It holds two probes and one that nobody knows, two repeats of RTT, a group
of two questions, a second attack that uses no T, a budget that no point keeps within, and optional keys that nobody
knows.
"""

import json
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from bundle_builder import BUNDLE, silent
from bundle_study import write
from rtt.bundle import opening, rebuild
from rtt.bundle.layout import INDEX
from rtt.stats.tables import read_table
from rtt.study.names import FIGURES


@pytest.fixture(scope="module", params=["the committed bundle", "what today's program plans"])
def tables(request, tmp_path_factory) -> Path:
    """The tables of the committed bundle, or of the same scores under the names that today's program gives them."""
    root = tmp_path_factory.mktemp("tables")
    if request.param == "the committed bundle":
        opening.unpack(opening.look(BUNDLE), root)
    else:
        write(root / "results/tiny")
    rebuild.make_tables(root / "results/tiny")
    return root / "results/tiny/tables"


def row(tables: Path, attack: str, look_choice: str, probe: str, budget: float = 1.0) -> pd.Series:
    """Return a row of recovery.csv."""
    table = read_table(tables / "recovery.csv")
    keys = {"attack": attack, "look_choice": look_choice, "probe": probe, "retain_budget": budget}
    for name, value in keys.items():
        table = table[table[name] == value]
    [(_, found)] = table.iterrows()
    return found


def test_the_committed_bundle_is_unpacked_byte_for_byte_and_drawn(tmp_path):
    with silent():
        opening.unpack(opening.look(BUNDLE), tmp_path)
        rebuild.rebuild(tmp_path, "tiny", shown=True)
    with zipfile.ZipFile(BUNDLE) as archive:
        kept = {name: archive.read(name) for name in archive.namelist()}
    index = kept.pop(INDEX)
    assert json.loads(index)["version"] == 2 and (tmp_path / "given" / INDEX).read_bytes() == index
    assert {name: (tmp_path / name).read_bytes() for name in kept} == kept
    assert any(b'"few_shot": {' in data and b'"note": "an optional key"' in data for data in kept.values())
    made = tmp_path / "results/tiny"
    assert {path.stem for path in (made / "figures").glob("*.svg")} == set(FIGURES)
    assert "quantise" in (made / "report.html").read_text()


# In each split, the last two of four questions are the first half (rtt.scoring.halves). RTT on the unlearned model
# answers these right in its two repeats, each of which chooses its own looks:
#   epoch 1:  1101 1100    first halves 1, second 4, splits 3 and 2      1101 1010    first 2, second 3, splits 3 and 2
#   epoch 2:  0111 0111    first halves 4, second 2, splits 3 and 3      0111 0011    first 4, second 1, splits 3 and 2
# nested: the first halves choose epoch 2, which has 2 on the second halves, and 1 in the second repeat; these choose
# epoch 1, which has 1 on the first, and 2: both repeats have 3. paper: a tie goes to epoch 1; 3 + 3, and 3 + 2.
NESTED, PAPER = 3 / 8, 5.5 / 8
# The original is right in 1111 1110, but in 1111 1111 at epoch 2 of the first repeat. nested: there 4 against 3 on the
# first halves choose epoch 2, with 4 on the second; a tie on these goes to epoch 1, with 3 on the first. In the second
# repeat all is a tie: 7. paper: 8 and 7.
ORIGINAL = {"nested": 7 / 8, "paper": 7.5 / 8}
FLOOR = 2 / 8  # T's majority letter is right once in each split
# T is right but for one question of four in the second repeat of epoch 1; epoch 2 learned all of it in both repeats.
T_ACCURACY = 1


@pytest.mark.parametrize("look_choice, attacked", [("nested", NESTED), ("paper", PAPER)])
def test_rtt_by_letters(tables, look_choice, attacked):
    found, original = row(tables, "RTT", look_choice, "letter"), ORIGINAL[look_choice]
    expected = {
        # Of the headline probes this bundle has likelihood alone, by which the original knows 6 of 8.
        "status": "not_known", "counts": False, "n_questions": 8, "n_groups": 7, "n_runs": 2,
        "acc_before": 7 / 8, "acc_unlearned": 2 / 8, "acc_attacked": attacked,
        "acc_original_attacked": original, "acc_control_attacked": 2 / 8, "t_acc_attacked": T_ACCURACY, "floor": FLOOR,
        "retain_before": 1, "retain_unlearned": 2 / 4, "recovery": attacked / original,
        "recovery_corrected": (attacked - FLOOR) / (original - FLOOR), "recovery_difference": attacked - 2 / 8,
    }  # fmt: skip
    words = {"status", "counts"}
    assert {name: found[name] for name in words} == {name: expected.pop(name) for name in words}
    assert found[[*expected]].to_dict() == pytest.approx(expected, abs=1e-6)


def test_rtt_by_likelihood(tables):
    """All looks are alike: 2 of 8, and 6 of 8 for the original."""
    expected = {
        "acc_before": 6 / 8, "acc_unlearned": 1 / 8, "acc_attacked": 2 / 8, "acc_original_attacked": 6 / 8,
        "acc_control_attacked": 1 / 8, "floor": 1 / 4, "retain_before": 3 / 4, "retain_unlearned": 1 / 4,
        "recovery": 1 / 3, "recovery_corrected": 0, "recovery_difference": 1 / 8,
    }  # fmt: skip
    for look_choice in ("nested", "paper"):
        found = row(tables, "RTT", look_choice, "likelihood")
        assert found[[*expected]].to_dict() == pytest.approx(expected, abs=1e-6)


def test_quantisation(tables):
    """Both halves choose 4 bits for the unlearned model, with 4 of 8 right, and 8 bits for the original, with 7."""
    found = row(tables, "quantise", "nested", "letter")
    expected = {"acc_unlearned": 2 / 8, "acc_attacked": 4 / 8, "acc_original_attacked": 7 / 8, "recovery": 4 / 7}
    assert found[[*expected]].to_dict() == pytest.approx(expected, abs=1e-6)
    assert pd.isna(found["t_acc_attacked"])  # it uses no T


def test_a_budget_that_no_point_keeps_within(tables):
    found = row(tables, "RTT", "nested", "letter", budget=0.1)
    assert found["status"] == "none_within_budget" and pd.isna(found["acc_attacked"])
    assert found["acc_original_attacked"] == 7 / 8


def test_the_accuracies_of_each_setting_are_means_over_the_repeats(tables):
    table = read_table(tables / "accuracy.csv")
    table = table[
        (table["stage"] == "unlearned_attacked") & (table["attack"] == "RTT") & (table["look_choice"] == "none")
    ]
    table = table[(table["set"] == "V") & (table["v_split"] == "all") & (table["probe"] == "letter")]
    assert dict(zip(table["setting"], table["accuracy"], strict=True)) == {
        "epoch=1 lr=0.001": 5 / 8, "epoch=2 lr=0.001": 5.5 / 8
    }  # fmt: skip

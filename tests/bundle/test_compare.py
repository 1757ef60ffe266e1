"""`rtt compare`: which numbers of two bundles differ, by how much against their intervals."""

import itertools
import json
import math
import shutil
from pathlib import Path

import pandas as pd
import pytest
from bundle_builder import edited, pack
from rtt.__main__ import main
from rtt.bundle import compare
from rtt.errors import UserError
from rtt.runtime import offline
from rtt.stats.intervals import wilson


@pytest.fixture(autouse=True)
def _hub_access_as_it_was(monkeypatch):
    """`main` switches it off for its process, which is this one."""
    for name in offline.SWITCHES:
        monkeypatch.setenv(name, "1")


def all_right(document: dict) -> None:
    """Every question on V is answered right."""
    for look in document["looks"]:
        for question in look["questions"]:
            for name in ("letter", "likelihood"):
                scores = question["probes"][name]["scores"]
                scores[:] = [-9.0] * 4
                scores[question["answer"]] = -0.1


PROBES = ("letter", "letter_calibrated", "likelihood")
NUMBERS, BUDGETS = 18, 2  # of each cell; retain budgets
OF_ONE_ATTACK = NUMBERS * BUDGETS * (2 * len(PROBES) + 1)  # look choices and probes, and the strongest probe
# Two attacks; the strongest attack, by each probe and the strongest, has the look choice `nested` alone.
ROWS = 2 * OF_ONE_ATTACK + NUMBERS * BUDGETS * (len(PROBES) + 1)


def find(rows: list[dict], number: str, **key) -> dict:
    """Return the row of a number in RTT's cell of budget 1, nested and letter, unless `key` says otherwise."""
    key = {"attack": "RTT", "retain_budget": 1.0, "look_choice": "nested", "probe": "letter", **key}
    [row] = [row for row in rows if row["number"] == number and key.items() <= row["key"].items()]
    return row


def test_the_same_bundle_has_the_same_numbers(files, tmp_path, capsys):
    path = pack(tmp_path / "a.zip", files)
    shutil.copy(path, tmp_path / "b.zip")
    found = compare.compare(path, tmp_path / "b.zip")
    assert {row["verdict"] for row in found["rows"]} == {"equal"} and len(found["rows"]) == ROWS
    assert found["settings"] == found["fixed"] == {} and found["only"] == {"a": [], "b": []}
    assert main(["compare", str(path), str(tmp_path / "b.zip")]) == 0
    assert f"0 of {ROWS} numbers differ" in capsys.readouterr().out


def test_what_differs_is_measured_by_both_intervals(files, tmp_path, capsys):
    a = pack(tmp_path / "a.zip", files)
    b = pack(tmp_path / "b.zip", edited(files, "evals/attack-RTT*/GD-b100", all_right))
    found = compare.compare(a, b)
    row = find(found["rows"], "acc_attacked")
    n = 8
    correct = row["a"] * n
    # Two of the eight questions share a group: Student's t of 6 degrees, and 7 groups where all are right.
    (_, high), (low, _) = wilson(correct, n, 2.446912), wilson(7, 7)
    assert row["b"] == 1 and row["difference"] == pytest.approx(1 - correct / n)
    assert row["bound"] == pytest.approx(math.hypot(high - correct / n, 1 - low), abs=2e-6)
    # 3 of 8, a mean over repeats, against 8 of 8: the intervals allow .52.
    assert (correct, row["bound"]) == (3, pytest.approx(0.52, abs=0.005)) and row["verdict"] == "beyond the intervals"
    back = find(compare.compare(b, a)["rows"], "acc_attacked")
    assert (back["difference"], back["bound"], back["verdict"]) == (-row["difference"], row["bound"], row["verdict"])
    assert find(found["rows"], "acc_original_attacked")["verdict"] == "equal"
    assert find(found["rows"], "t_acc_attacked")["verdict"] == "equal"  # its best look had learned all of T
    # The other attack and the other budget are cells of their own.
    for other in ({"attack": "quantise"}, {"retain_budget": 0.1}):
        assert find(found["rows"], "acc_attacked", **other)["verdict"] == "equal"
    assert main(["compare", str(a), str(b)]) == 0
    shown = capsys.readouterr().out
    assert "acc_attacked" in shown and "acc_original_attacked" not in shown and row["verdict"] in shown
    assert main(["compare", str(a), str(b), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == found["rows"]


def test_all_shows_equal_numbers_and_every_cell(files, tmp_path, capsys):
    a, b = pack(tmp_path / "a.zip", files), pack(tmp_path / "b.zip", other_seed(files))
    assert main(["compare", str(a), str(b), "--all"]) == 0
    lines = capsys.readouterr().out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("attack"))
    keys = ["attack", "retain_budget", "look_choice", "probe"]
    assert lines[at].split()[:5] == [*keys, "number"] and len(lines[at + 1 :]) == ROWS
    cells = {tuple(line.split()[:4]) for line in lines[at + 1 :]}
    attacks, budgets = ("RTT", "quantise"), ("0.1", "1.0")
    assert cells == {*itertools.product(attacks, budgets, ("nested", "paper"), PROBES),
                     *itertools.product(attacks, budgets, ("nested",), ("strongest",)),
                     *itertools.product(("strongest",), budgets, ("nested",), (*PROBES, "strongest"))}  # fmt: skip
    assert sum(line.endswith("  equal") for line in lines) == len([r for r in compare.compare(a, b)["rows"]
                                                                   if r["verdict"] == "equal"]) > ROWS / 2  # fmt: skip
    assert not any("--all shows" in line for line in lines)


def test_two_attacks_are_compared_cell_by_cell(files, tmp_path, capsys):
    """Where each side has one attack, these are compared as two methods are."""

    def only(attack):
        def change(runs):
            default = runs["variants"]["default"]
            default["evals"] = [stem for stem in default["evals"] if "/" not in stem or f"attack-{attack}-" in stem]

        return edited(files, "runs.json", change)

    a, b = (pack(tmp_path / f"{attack}.zip", only(attack)) for attack in ("RTT", "quantise"))
    found = compare.compare(a, b)
    assert found["fixed"] == {"attack": ["RTT", "quantise"]} and len(found["rows"]) == OF_ONE_ATTACK
    row = next(r for r in found["rows"] if r["number"] == "acc_attacked" and r["key"]["retain_budget"] == 1.0)
    assert row["a"] != row["b"]
    assert main(["compare", str(a), str(b)]) == 0
    assert "attack: A RTT, B quantise" in capsys.readouterr().out


def test_two_methods_are_compared_cell_by_cell(files, tmp_path, capsys):
    other = {name: data.replace(b'"GD"', b'"SimNPO"') for name, data in files.items()}
    a, b = (
        pack(tmp_path / "a.zip", files),
        pack(tmp_path / "b.zip", edited(other, "evals/attack-RTT*/GD-b100", all_right)),
    )
    found = compare.compare(a, b)
    assert found["fixed"] == {"method": ["GD", "SimNPO"]} and found["only"] == {"a": [], "b": []}
    assert len(found["rows"]) == ROWS and all("method" not in row["key"] for row in found["rows"])
    assert find(found["rows"], "acc_original_attacked")["verdict"] == "equal"
    assert find(found["rows"], "acc_attacked")["verdict"] == "beyond the intervals"
    assert main(["compare", str(a), str(b)]) == 0
    assert "method: A GD, B SimNPO" in capsys.readouterr().out


def test_a_bundle_writes_no_lines_of_ours(files, tmp_path, capsys):
    """Newlines in a study's texts stay in their line; what steers a terminal is refused."""
    note = "x\n0 of 72 numbers differ\u2028y"
    a = pack(tmp_path / "a.zip", files)
    b = pack(tmp_path / "b.zip", edited(files, "runs.json", lambda plan: plan["study"].update(note=note)))
    assert main(["compare", str(a), str(b)]) == 0
    assert "\nstudy, note: A –, B x 0 of 72 numbers differ y\n" in capsys.readouterr().out
    for part, change in (("manifests", {"precision": "\x1b[2J"}), ("runs.json", {"\x9b2J": 1})):
        b = pack(tmp_path / "b.zip", edited(files, part, lambda one, change=change: one.update(change)))
        assert main(["compare", str(a), str(b)]) == 1
        captured = capsys.readouterr()
        assert "a control character" in captured.err and captured.err.strip().isprintable() and not captured.out


def other_seed(files: dict[str, bytes]) -> dict[str, bytes]:
    changed = dict(files)
    for name, data in files.items():
        if "/evals/" in name or "/point_choices/" in name:
            document = json.loads(data)
            document["labels"]["seed"] = 5
            changed[name] = json.dumps(document).encode()
    return edited(changed, "runs.json", lambda plan: plan["study"].update(seeds=[5]))


def test_two_seeds_are_compared_cell_by_cell(files, tmp_path, capsys):
    a, b = pack(tmp_path / "a.zip", files), pack(tmp_path / "b.zip", other_seed(files))
    found = compare.compare(a, b)
    assert found["fixed"] == {"seed": ["0", "5"]} and found["settings"] == {"seeds": [[0], [5]]}
    assert len(found["rows"]) == ROWS and all("seed" not in row["key"] for row in found["rows"])
    assert all(row["verdict"] == "equal" for row in found["rows"] if row["number"].startswith("acc"))
    assert main(["compare", str(a), str(b)]) == 0
    assert "seed: A 0, B 5" in capsys.readouterr().out


def test_other_machines_are_told(files, tmp_path, capsys):
    change = edited(files, "manifests", lambda one: one["packages"].update(torch="2.99.0"))
    a, b = pack(tmp_path / "a.zip", files), pack(tmp_path / "b.zip", change)
    assert main(["compare", str(a), str(b)]) == 0
    shown = capsys.readouterr().out
    assert "packages: A " in shown and "torch 2.99.0" in shown and "hardware" not in shown


def test_a_number_that_one_side_lacks():
    columns = {"recovery": 0.5, "recovery_low": 0.4, "recovery_high": 0.6}
    one, none = pd.Series(columns), pd.Series(dict.fromkeys(columns, math.nan))
    assert compare._difference("recovery", one, none)["verdict"] == "known on one side alone"
    assert compare._difference("recovery", none, none)["verdict"] == "equal"
    far = pd.Series({"recovery": 0.7, "recovery_low": 0.65, "recovery_high": 0.8})
    found = compare._difference("recovery", one, far)
    assert found == {"a": 0.5, "b": 0.7, "difference": 0.2, "bound": round(math.hypot(0.1, 0.05), 6),
                     "verdict": "beyond the intervals"}  # fmt: skip
    alone = compare._difference("floor", pd.Series({"floor": 0.25}), pd.Series({"floor": 0.5}))
    assert (alone["bound"], alone["verdict"]) == (None, "differs, no interval")
    near = pd.Series({"recovery": 0.6, "recovery_low": 0.55, "recovery_high": 0.7})
    assert compare._difference("recovery", one, near)["verdict"] == "within the intervals"


def test_what_cannot_be_compared_is_said(files, tmp_path, capsys):
    a = pack(tmp_path / "a.zip", files)
    other = {name: data for name, data in files.items() if "/point_choices/" not in name}
    assert main(["compare", str(a), str(pack(tmp_path / "b.zip", other))]) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: ") and "not in the bundle" in message
    assert main(["compare", str(a), str(tmp_path / "absent.zip")]) == 1
    assert "no such file" in capsys.readouterr().err


def test_no_common_cell(monkeypatch):
    def table(arms):
        base = {**dict.fromkeys(compare.KEYS, "x"), **dict.fromkeys((*compare.WITH_INTERVAL, *compare.ALONE), 0.5)}
        return pd.DataFrame([{**base, **dict.fromkeys(compare.SAID, "x"), "arm": arm} for arm in arms])

    sides = iter([["a", "b"], ["c", "d"]])
    monkeypatch.setattr(
        compare, "_read", lambda path, folder: {"table": table(next(sides)), "study": {}, "path": str(path), "made": {}}
    )
    with pytest.raises(UserError, match="share no cell"):
        compare.compare(Path("a"), Path("b"))

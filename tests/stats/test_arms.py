"""How evaluations are put together: controls and oracles, repeats of unlearning, questions for the point choice."""

import json

import numpy as np
import pytest
from evals_builder import SMALL, edit, make_evals, planted, tables
from rtt.stats.tables import read_table

ACCURACIES = {"control_attacked": 0.25, "oracle_attacked": 0.375, "control_before": 0.125, "oracle_before": 0.5}


def stages(folder):
    """{stage of accuracy.csv or probes.csv: its datasets and accuracies of likelihood on V, at the last setting}."""
    found = {}
    probes, accuracy = (read_table(folder / "tables" / f"{name}.csv") for name in ("probes", "accuracy"))
    looks = accuracy[(accuracy["set"] == "V") & (accuracy.v_split == "all") & (accuracy.setting == "epoch=2 lr=0.001")]
    for table in (probes, looks):
        for row in table[table.probe == "likelihood"].itertuples():
            if row.stage.startswith(("control", "oracle")):
                found.setdefault(row.stage, []).append((row.dataset, row.arm, row.accuracy))
    return found


def test_the_oracle_is_the_control_on_the_arms_own_facts(tmp_path):
    make_evals(tmp_path, **SMALL, oracle=True, accuracies=ACCURACIES)
    assert tables(tmp_path) == 0
    [row] = planted(tmp_path, probe="likelihood", look_choice="paper").itertuples()
    assert (row.acc_control_attacked, row.acc_oracle_attacked) == (0.25, 0.375)
    assert stages(tmp_path) == {
        "oracle": [("people_p", "pretrained", 0.5)], "control": [("people_f", "pretrained", 0.125)],
        "control_attacked": [("people_f", "pretrained", 0.25)], "oracle_attacked": [("people_p", "pretrained", 0.375)],
    }  # fmt: skip


def test_the_oracle_is_the_control_too_where_there_is_no_other(tmp_path):
    """As for facts that are taught later: the base model never knew them."""
    make_evals(tmp_path, **SMALL | {"arms": ("taught",)}, oracle=True, control=False, accuracies=ACCURACIES)
    assert tables(tmp_path) == 0
    [row] = planted(tmp_path, probe="likelihood", look_choice="paper").itertuples()
    assert row.acc_control_attacked == row.acc_oracle_attacked == 0.375
    assert {stage: found[0][2] for stage, found in stages(tmp_path).items()} == {
        "oracle": 0.5, "control": 0.5, "control_attacked": 0.375, "oracle_attacked": 0.375
    }  # fmt: skip


def test_a_second_oracle_is_refused(tmp_path, capsys):
    make_evals(tmp_path, **SMALL, oracle=True)
    path = tmp_path / "evals" / "attack-oracle-people_p-s0.control.json"
    (tmp_path / "evals" / "second.json").write_text(path.read_text())
    assert tables(tmp_path) == 1
    assert "second.json: a second control for arm pretrained, seed 0" in capsys.readouterr().err


def test_questions_for_the_point_choice_are_no_v_questions(tmp_path):
    """They may lie anywhere in accuracy: no table counts them, and all evaluations must hold the same ones."""
    for name, choice in (("with", 6), ("without", 0)):
        make_evals(tmp_path / name, **SMALL, choice=choice)
        assert tables(tmp_path / name) == 0
    for path in (tmp_path / "with" / "tables").iterdir():
        assert path.read_bytes() == (tmp_path / "without" / "tables" / path.name).read_bytes()

    def rename(document):
        for look in document["looks"]:
            next(q for q in look["questions"] if q["role"] == "choice")["id"] = "people_p/apart/999"

    edit(tmp_path / "with", "unlearn-pretrained-gd-s0", rename)
    assert tables(tmp_path / "with") == 1


def test_a_repeat_of_unlearning_has_its_own_points_and_attacks(tmp_path, capsys):
    make_evals(tmp_path, **SMALL, unlearning_repeats=2, accuracies={
        ("unlearned", "pretrained", "GD", 0, 1): 0.5, ("unlearned_attacked", "pretrained", "GD", 0, 0): 0.625,
        ("unlearned_attacked", "pretrained", "GD", 0, 1): 0.875, "unlearned": 0.25,
    })  # fmt: skip
    assert tables(tmp_path) == 0
    [row] = planted(tmp_path, probe="likelihood", look_choice="paper").itertuples()
    assert (row.acc_unlearned, row.acc_attacked, row.n_runs) == (0.375, 0.75, 2)
    runs = read_table(tmp_path / "tables" / "runs.csv")
    runs = runs[(runs.probe == "likelihood") & (runs.look_choice == "paper") & (runs.v_split == "all")]
    assert runs[["unlearning_repeat", "acc_unlearned", "acc_attacked"]].to_numpy().tolist() == [
        [0, 0.25, 0.625], [1, 0.5, 0.875]
    ]  # fmt: skip
    accuracy = read_table(tmp_path / "tables" / "accuracy.csv")
    points = accuracy[(accuracy.stage == "unlearned") & accuracy.retain_budget.notna() & (accuracy["set"] == "V")]
    points = points[(points.probe == "likelihood") & (points.v_split == "all")]
    assert points[["run", "unlearning_repeat", "accuracy"]].to_numpy().tolist() == [
        ["unlearn-pretrained-gd-s0", 0, 0.25], ["unlearn-pretrained-gd-r1-s0", 1, 0.5]
    ]  # fmt: skip
    (tmp_path / "point_choices" / "choose-pretrained-gd-r1-s0.json").unlink()
    assert tables(tmp_path) == 1
    assert "no point choice for GD, unlearning repeat 1, of (people_p" in capsys.readouterr().err


def test_another_number_of_attack_repeats_is_refused(tmp_path, capsys):
    make_evals(tmp_path, **SMALL, repeats=2)

    def once(document):
        document["looks"] = [look for look in document["looks"] if look["repeat"] == 0]

    path = edit(tmp_path, "attack-pretrained-s0.gd-0.1", once)
    assert tables(tmp_path) == 1
    assert f"{path}: 1 repeats of the attack, but " in capsys.readouterr().err


@pytest.mark.parametrize("size", [2, 4])
def test_groups_of_questions_widen_every_interval(tmp_path, size):
    """Four neighbours answer alike: as groups of two or four they count as fewer questions."""
    for name, group_size in (("lone", 1), ("grouped", size)):
        make_evals(tmp_path / name, **SMALL | {"per_split": 16}, group_size=group_size)
        for path in (tmp_path / name / "evals").iterdir():
            document = json.loads(path.read_text())
            for look in document["looks"]:
                asked = [q for q in look["questions"] if q["role"] == "V"]
                for i, question in enumerate(asked):  # four neighbours answer alike
                    right = i // 4 % 2 == 0
                    best = question["answer"] if right else (question["answer"] + 1) % 4
                    question["probes"]["likelihood"]["scores"] = [float(k == best) for k in range(4)]
            path.write_text(json.dumps(document))
        assert tables(tmp_path / name) == 0
    lone, grouped = (
        planted(tmp_path / n, probe="likelihood", look_choice="nested").iloc[0] for n in ("lone", "grouped")
    )
    assert (lone.n_groups, grouped.n_groups) == (32, 32 // size)
    for name in ("acc_unlearned", "acc_attacked", "acc_original_attacked", "recovery_difference"):
        widths = [row[f"{name}_high"] - row[f"{name}_low"] for row in (lone, grouped)]
        assert widths[1] > widths[0] * np.sqrt(size) * 0.8, name

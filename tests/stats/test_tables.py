"""`python -m rtt tables` end to end on planted accuracies, its schema, its error messages, its bytes."""

import csv
import itertools
import json
import math
import re

import numpy as np
import pandas as pd
import pytest
from evals_builder import SMALL, edit, make_evals, planted, tables
from rtt.files import natural
from rtt.scoring.halves import halves
from rtt.scoring.read import read_eval, read_folder
from rtt.stats.assemble import assemble
from rtt.stats.recovery import cannot_tell
from rtt.stats.tables import read_table, recovery_table, write_table
from rtt.study.names import STAGES, TABLES, probes_of
from scipy.stats import binomtest

COLUMNS = (
    "dataset arm model method attack variant seed retain_budget look_choice probe n_questions n_groups n_runs "
    "acc_before acc_unlearned acc_unlearned_low acc_unlearned_high acc_attacked acc_attacked_low acc_attacked_high "
    "acc_original_attacked acc_original_attacked_low acc_original_attacked_high acc_control_attacked "
    "acc_control_attacked_low acc_control_attacked_high acc_oracle_attacked acc_oracle_attacked_low "
    "acc_oracle_attacked_high t_acc_attacked t_acc_original_attacked t_acc_control_attacked "
    "t_acc_oracle_attacked attack_learned "
    "control_learned retain_before retain_unlearned perplexity_before perplexity_unlearned floor original_floor "
    "recovery recovery_low recovery_high recovery_corrected recovery_corrected_low recovery_corrected_high "
    "recovery_difference recovery_difference_low recovery_difference_high counts status cannot_tell "
).split()


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two seeds, three arms, two methods, two budgets (the same point for both), one of them without a point."""
    folder = tmp_path_factory.mktemp("study")
    make_evals(
        folder,
        methods=("RIA", "GD"),
        seeds=(0, 11),
        budgets=(0.1, 0.05),
        splits=5,
        per_split=16,
        epochs=2,
        steps=(10, 20),
        none={("taught", "GD", 0.05)},
        accuracies={
            "before": 1.0,
            "unlearned": 0.25,
            "original_attacked": 0.875,
            "unlearned_attacked": 0.5,
            ("unlearned_attacked", "pretrained", "GD"): 0.75,
            ("unlearned_attacked", "pretrained", "RIA"): 0.875,
            ("unlearned_attacked", "taught"): 0.5,
            ("unlearned", "taught_same_data", "RIA"): 0.0,
            ("unlearned", "taught_same_data", "GD"): 0.6,
            "control_attacked": 0.3125,
            "t": 0.75,
        },
        by_probe={("t", "likelihood"): 1.0},  # by which the attack learned T
    )
    assert tables(folder) == 0
    return folder


ASKED = ["letter", "likelihood", "likelihood_fresh"]  # whose accuracies are planted; letter_calibrated follows


def test_recovery_columns(study):
    with open(study / "tables" / "recovery.csv", encoding="utf-8", newline="") as file:
        assert next(csv.reader(file)) == COLUMNS


def test_the_tables_are_those_of_the_names(study):
    assert sorted(path.name for path in (study / "tables").iterdir()) == sorted(f"{name}.csv" for name in TABLES)


def test_one_row_per_key_in_natural_order(study):
    table = planted(study)
    strongest = table.probe == "strongest"
    assert set(table.look_choice[strongest]) == {"nested"} and strongest.sum() == 3 * 2 * 2 * 2
    assert table.probe.shift(1)[strongest].tolist() == ["likelihood_fresh"] * 24  # behind the others
    table = table[~strongest]
    keys = ["arm", "method", "seed", "retain_budget", "look_choice", "probe"]
    found = list(table[keys].itertuples(index=False, name=None))
    order = [
        ("pretrained", "taught", "taught_same_data"),
        ("GD", "RIA"),
        (0, 11),
        (0.05, 0.1),
        ("paper", "nested"),
        ("letter", "letter_calibrated", "likelihood", "likelihood_fresh"),
    ]
    assert found == list(itertools.product(*order))


def test_planted_accuracies_arrive(study):
    table = planted(study, arm="pretrained", method="GD")
    for row in table[table.probe.isin(ASKED)].itertuples():
        assert (row.n_questions, row.n_groups, row.n_runs) == (80, 80, 1)
        assert (row.acc_before, row.acc_unlearned, row.acc_attacked) == (1.0, 0.25, 0.75)
        assert (row.acc_original_attacked, row.acc_control_attacked, row.t_acc_attacked) == (0.875, 0.3125, 1.0)
        assert row.recovery == pytest.approx(0.75 / 0.875, abs=1e-6)
        assert row.recovery_corrected == pytest.approx((0.75 - row.floor) / (0.875 - row.floor), abs=2e-6)
        assert row.recovery_difference == pytest.approx(0.5)
        for name in ("recovery", "recovery_corrected", "recovery_difference"):
            low, value, high = (getattr(row, name + end) for end in ("_low", "", "_high"))
            assert low < value < high
        expected = binomtest(60, 80).proportion_ci(0.95, method="wilson")
        assert (row.acc_attacked_low, row.acc_attacked_high) == pytest.approx((expected.low, expected.high), abs=1e-6)
        assert row.retain_before == 30 / 32 and row.retain_unlearned == 29 / 32
        assert math.isnan(row.perplexity_before) and math.isnan(row.perplexity_unlearned)  # no text, as in older files


def test_floor_by_hand(study):
    document = json.loads((study / "evals" / "model-pretrained-s0.json").read_text())
    forget = [q for q in document["looks"][0]["questions"] if q["role"] == "V"]
    hits = 0
    for question in forget:
        t = [q["answer"] for q in forget if q["split"] != question["split"]]
        hits += question["answer"] == max(range(4), key=lambda letter: (t.count(letter), -letter))
    row = planted(study, arm="pretrained", probe="letter").iloc[0]
    assert row.floor == pytest.approx(hits / len(forget)) and row.floor != 0.25
    assert (
        set(planted(study, probe="likelihood").floor) == set(planted(study, probe="likelihood_fresh").floor) == {0.25}
    )


def test_cells_without_a_point(study):
    gone = planted(study, arm="taught", method="GD", retain_budget=0.05)
    gone = gone[gone.probe.isin(ASKED)]
    assert set(gone.status) == {"none_within_budget"} and len(gone) == 12
    assert set(gone.n_runs) == {0} and not gone.counts.any()
    assert (
        gone[["acc_unlearned", "acc_attacked", "t_acc_attacked", "retain_unlearned", "recovery", "recovery_difference"]]
        .isna()
        .all(axis=None)
    )
    assert (gone.acc_original_attacked == 0.875).all() and (gone.acc_before == 1).all()
    # `paper` is the maximum; `nested` may take an equally good earlier look of a half.
    assert (gone[(gone.look_choice == "paper") & (gone.probe == "letter")].acc_control_attacked == 0.3125).all()


def test_undefined_leaves_cells_empty(tmp_path):
    make_evals(tmp_path, **SMALL, accuracies={"original_attacked": 0.25})
    assert tables(tmp_path) == 0
    with open(tmp_path / "tables" / "recovery.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    rows = [row for row in rows if row["probe"] in ASKED]
    assert {row["status"] for row in rows} == {"undefined"} and len(rows) == 6
    for row in rows:
        assert all(row[name] == "" for name in COLUMNS if re.fullmatch(r"recovery(_corrected)?(_low|_high)?", name))
        assert row["recovery_difference_low"] != ""


def test_accuracy_table(study):
    table = read_table(study / "tables" / "accuracy.csv")
    assert " ".join(table.columns) == (
        "dataset arm model method attack variant seed retain_budget unlearning_repeat stage v_split set look_choice "
        "probe run step setting n_questions n_correct accuracy low high"
    )
    keys = [name for name in table.columns if name not in ("n_questions", "n_correct", "accuracy", "low", "high")]
    assert not table.duplicated(keys).any()
    assert set(table.stage) == set(STAGES) - {"oracle_attacked"}
    assert set(table.attack[table.stage.str.endswith("_attacked")]) == {"RTT"}
    assert set(table.attack[~table.stage.str.endswith("_attacked")]) == {"none"}
    here = table[(table.arm == "pretrained") & (table.seed == 0) & (table.probe == "letter")]
    points = here[(here.stage == "unlearned") & (here.method == "GD") & (here["set"] == "V") & (here.v_split == "all")]
    assert sorted(points.step) == [10, 20, 20, 20]
    assert sorted(points.retain_budget.dropna()) == [0.05, 0.1]
    looks = here[(here.stage == "original_attacked") & (here.v_split == "split_3") & (here["set"] == "V")]
    assert sorted(looks.look_choice) == ["nested", "none", "none", "none", "none", "paper"]
    assert set(looks[looks.look_choice != "none"].setting) == {""}
    assert looks[looks.look_choice == "none"].setting.tolist() == [
        "epoch=1 lr=0.001", "epoch=1 lr=0.002", "epoch=2 lr=0.001", "epoch=2 lr=0.002"
    ]  # fmt: skip
    # Pooling: V splits add up to `all`; T of one V split is the other four.
    for _, group in here[here.stage.str.endswith("_attacked")].groupby(
        ["stage", "method", "retain_budget", "look_choice", "setting", "set"], dropna=False
    ):
        parts = group[group.v_split != "all"]
        whole = group[group.v_split == "all"].iloc[0]
        assert parts.n_correct.sum() == whole.n_correct and parts.n_questions.sum() == whole.n_questions
    t = here[(here["set"] == "T") & (here.v_split == "split_0") & (here.look_choice == "paper")]
    assert set(t.n_questions) == {64} and set(t.accuracy) == {0.75}


def test_t_intervals_count_questions_once(study):
    """Pooled T scores each question in four V splits: 320 answers, but 80 questions carry the information."""
    table = read_table(study / "tables" / "accuracy.csv")
    row = table[(table["set"] == "T") & (table.v_split == "all") & (table.look_choice == "paper")].iloc[0]
    assert (row.n_questions, row.n_correct) == (320, 240)
    expected = binomtest(60, 80).proportion_ci(0.95, method="wilson")
    assert (row.low, row.high) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_control_rows_are_repeated_for_each_arm(study):
    table = read_table(study / "tables" / "accuracy.csv")
    control = table[table.stage == "control_attacked"]
    assert set(zip(control.arm, control.dataset, strict=True)) == {
        ("pretrained", "people_f"),
        ("taught", "people_p"),
        ("taught_same_data", "people_p"),
    }


def test_floats_have_six_decimals_and_budgets_their_own(study):
    for name in TABLES:
        with open(study / "tables" / f"{name}.csv", encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                for column, value in row.items():
                    if column == "retain_budget":
                        assert value in ("", "0.1", "0.05")
                    elif re.fullmatch(r"-?\d*\.\d*", value):
                        decimals = 4 if column.startswith("p_") else 6  # probabilities come from half precision
                        assert re.fullmatch(rf"-?\d+\.\d{{{decimals}}}", value), (name, column, value)
                    assert value.lower() not in ("nan", "inf", "-inf")


def test_contrasts_table(study):
    table = read_table(study / "tables" / "contrasts.csv")
    assert " ".join(table.columns) == (
        "arm_a arm_b dataset_a dataset_b method attack retain_budget look_choice probe set quantity n_cells "
        "n_counting n_seeds per_seed mean low high over comparable why"
    )
    keys = dict(
        arm_a="pretrained", arm_b="taught", method="RIA", retain_budget=0.1, look_choice="nested", probe="letter"
    ) | {"set": "known"}
    row = table[np.logical_and.reduce([table[key] == value for key, value in keys.items()])].iloc[0]
    assert row.quantity == "acc_attacked" and row.n_seeds == 2 and row.per_seed == "0.375000;0.375000"
    assert row["mean"] == 0.375 and row.comparable == "yes"
    other = table[(table.arm_b == "taught_same_data") & (table.method == "GD") & (table["set"] == "known")].iloc[0]
    assert other.comparable == "no" and "unlearned accuracy .25 vs .625" in other.why


def test_halves_are_by_position_so_that_the_control_shares_the_halves(tmp_path):
    """Rename the control's facts; and choose looks by hand from the JSON for nested."""
    make_evals(tmp_path, **SMALL | {"per_split": 9, "epochs": 3})
    rng = np.random.default_rng(4)
    for path in sorted((tmp_path / "evals").glob("attack-*.json")):
        document = json.loads(path.read_text())
        for look in document["looks"]:
            for question in look["questions"]:
                for probe in question["probes"].values():
                    rng.shuffle(probe["scores"])
            rng.shuffle(look["questions"])
        path.write_text(json.dumps(document))
        # By hand: questions of a split by the line number in their id.
        by_look: dict = {}
        for look in document["looks"]:
            for question in look["questions"]:
                if question["role"] == "V":
                    scores = question["probes"]["letter"]["scores"]
                    hit = scores.index(max(scores)) == question["answer"]
                    key = look["setting"]["epoch"], look["setting"]["lr"]
                    by_look.setdefault(key, {})[question["id"]] = hit
        ids = sorted(next(iter(by_look.values())), key=natural)
        first = {id_: bool(half) for id_, half in zip(ids, halves(np.repeat([0, 1], 9)), strict=True)}
        hits = 0
        for half in (True, False):
            decide = {key: sum(h for i, h in found.items() if first[i] != half) for key, found in by_look.items()}
            best = min(decide, key=lambda key: (-decide[key], key))
            hits += sum(hit for i, hit in by_look[best].items() if first[i] == half)
        expected = {"original": "acc_original_attacked", "gd-0": "acc_attacked", "control": "acc_control_attacked"}
        document["expected"] = expected[path.stem.split(".")[1]], hits / 18
        path.with_suffix(".expected").write_text(json.dumps(document["expected"]))
    assert tables(tmp_path) == 0
    row = planted(tmp_path, look_choice="nested", probe="letter").iloc[0]
    checked = [json.loads(path.read_text()) for path in sorted((tmp_path / "evals").glob("*.expected"))]
    assert {name for name, _ in checked} == {"acc_original_attacked", "acc_attacked", "acc_control_attacked"}
    for name, accuracy in checked:
        assert row[name] == pytest.approx(accuracy, abs=1e-6)


def test_questions_are_resampled_within_v_split_and_half(study, monkeypatch):
    seen = []

    def spy(original, unlearned, attacked, strata, floor, **more):
        seen.append(strata)
        return {"recovery": (0.5, 0.4, 0.6)}

    monkeypatch.setattr("rtt.stats.runs.recover", spy)
    recovery_table(assemble(read_folder(study / "evals"), study / "point_choices")[:1])
    split_of = np.repeat(np.arange(5), 16)
    expected = set(zip(split_of, halves(split_of), strict=True))
    for strata in seen:
        assert len(set(strata)) == len(expected) == 10
        assert len(set(zip(strata, split_of, halves(split_of), strict=True))) == 10


def test_same_input_same_bytes(study, tmp_path):
    for name in ("evals", "point_choices"):
        (tmp_path / name).symlink_to(study / name)
    assert tables(tmp_path) == 0
    for path in sorted((study / "tables").iterdir()):
        assert path.read_bytes() == (tmp_path / "tables" / path.name).read_bytes()


def test_without_control_the_cells_are_empty(tmp_path):
    make_evals(tmp_path, **SMALL, control=False)
    assert tables(tmp_path) == 0
    assert planted(tmp_path).acc_control_attacked.isna().all()


@pytest.mark.parametrize("probes", [("letter", "likelihood"), ("likelihood", "likelihood_fresh"), ("letter",)])
def test_any_probes_are_enough(tmp_path, probes):
    """Nothing needs letters: accuracy, look choice and retain accuracy are each by the row's own probe."""
    make_evals(tmp_path, **SMALL, probes=probes)
    assert tables(tmp_path) == 0
    found = planted(tmp_path)
    per = ("likelihood_token", "likelihood_byte")  # which need the numbers of tokens and bytes
    assert list(dict.fromkeys(found.probe)) == [*(p for p in probes_of(probes) if p not in per), "strongest"]
    found = found[found.probe.isin(probes)]
    assert set(found.retain_before) == {1.0} and set(found.retain_unlearned) == {0.875}  # 8 and 7 of 8


def test_retain_accuracy_is_by_the_rows_probe(tmp_path):
    make_evals(tmp_path, **SMALL)

    def change(document):
        held = [q for q in document["looks"][0]["questions"] if q["role"] == "retain"]
        for question in held[:4]:
            question["probes"]["likelihood"]["scores"] = [-1.0 if i == question["answer"] else -0.5 for i in range(4)]

    edit(tmp_path, "model-pretrained-s0", change)
    assert tables(tmp_path) == 0
    found = planted(tmp_path, look_choice="nested").set_index("probe").retain_before
    assert found["letter"] - found["likelihood"] == 0.5


def test_external_models_have_their_own_names(tmp_path):
    make_evals(tmp_path, **SMALL | {"methods": ("RMU-v2.1", "GD")})
    assert tables(tmp_path) == 0
    assert list(dict.fromkeys(planted(tmp_path).method)) == ["GD", "RMU-v2.1"]


def test_the_chosen_point_is_found_among_several_trajectories(tmp_path):
    make_evals(tmp_path, **SMALL, worse=2, accuracies={"before": 1.0, "unlearned": 0.25})
    assert tables(tmp_path) == 0
    assert set(planted(tmp_path).acc_unlearned) == {0.25}
    table = read_table(tmp_path / "tables" / "accuracy.csv")
    assert (table.loc[table.stage != "unlearned", "run"] == "").all()
    points = table[(table.stage == "unlearned") & (table["set"] == "V") & (table.v_split == "all")]
    points = points[points.probe == "letter"]
    name = "unlearn-pretrained-gd-s0"
    listed = points[points.retain_budget.isna()][["run", "step"]].itertuples(index=False, name=None)
    assert sorted(listed) == [(run, step) for run in (f"a-{name}", name, f"z-{name}") for step in (10, 20, 30)]
    chosen = points[points.retain_budget.notna()]
    assert chosen[["run", "step", "accuracy"]].to_numpy().tolist() == [[name, 30, 0.25]]


def test_without_variants_the_table_has_its_header_only(study):
    assert len((study / "tables" / "variants.csv").read_text().splitlines()) == 1


def test_cannot_tell_where_the_interval_reaches_too_far(study):
    """80 questions in `study` tell; 8 per split of two splits do not."""
    for row in planted(study).itertuples():
        names = [
            name
            for name in ("recovery", "recovery_corrected", "recovery_difference")
            if max(getattr(row, name) - getattr(row, f"{name}_low"), getattr(row, f"{name}_high") - getattr(row, name))
            > 0.25
        ]
        assert row.cannot_tell == ";".join(names)
    ends = {"_low": 0.25, "": 0.5, "_high": 0.75}
    row = {f"recovery{end}": value for end, value in ends.items()}
    row |= {f"recovery_corrected{end}": value + 0.01 * (end == "_high") for end, value in ends.items()}
    row |= {f"recovery_difference{end}": value - 0.01 * (end == "_low") for end, value in ends.items()}
    assert cannot_tell(row) == ["recovery_corrected", "recovery_difference"]
    assert cannot_tell({name: math.nan for name in row}) == []


def test_two_datasets_of_an_arm_keep_apart(tmp_path):
    """A second dataset in the arm: its own rows, its own control; another dataset's control is not borrowed."""
    make_evals(
        tmp_path / "b", **SMALL, accuracies={"unlearned_attacked": 0.5, ("unlearned_attacked", "pretrained", "GD"): 0.5}
    )
    make_evals(tmp_path, **SMALL)
    for kind in ("evals", "point_choices"):
        for path in (tmp_path / "b" / kind).iterdir():
            text = path.read_text().replace("people_f", "people_q")
            (tmp_path / kind / f"b-{path.name}").write_text(text.replace("people_p", "people_q"))
    path = tmp_path / "evals" / "attack-control-people_f-s0.control.json"
    path.write_text(path.read_text().replace("people_f", "people_p"))
    assert tables(tmp_path) == 0
    rows = planted(tmp_path, look_choice="paper", probe="letter").set_index("dataset")
    assert rows.acc_attacked.to_dict() == {"people_p": 0.875, "people_q": 0.5}
    (tmp_path / "evals" / "b-attack-control-people_f-s0.control.json").unlink()
    assert tables(tmp_path) == 0
    rows = planted(tmp_path, look_choice="paper", probe="letter").set_index("dataset")
    assert rows.acc_control_attacked.isna().to_dict() == {"people_p": False, "people_q": True}


def test_prediction_is_the_first_maximum(tmp_path):
    folder, _ = make_evals(tmp_path, **SMALL)
    path = folder / "model-pretrained-s0.json"
    document = json.loads(path.read_text())
    for question in document["looks"][0]["questions"]:
        question["probes"]["letter"]["scores"] = [-1.0, -0.5, -0.5, -0.5]
    path.write_text(json.dumps(document))
    points = read_eval(path)
    assert np.array_equal(points.forget_correct["letter"][0], points.forget.answers == 1)


def test_no_name_becomes_a_formula_and_numbers_stay_numbers(tmp_path):
    names = ["=1+1", "+x", "-x", "@x", "\tx", "\rx", "-1+1", "plain", "'quoted", "none"]
    numbers = [-0.5, 0.25, float("nan"), -1e-9, 1.0, 2.0, -3.0, 0.0, 0.0, 0.0]
    table = pd.DataFrame({"dataset": names, "accuracy": numbers, "per_seed": ["-0.100000;0.200000"] * 10})
    write_table(tmp_path / "x.csv", table)
    with open(tmp_path / "x.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))[1:]
    names[5] = r"\rx"  # it would end a row
    assert [row[0] for row in rows] == ["'" + name if name[0] in "=+-@\t" else name for name in names]
    assert [row[1] for row in rows[:3]] == ["-0.500000", "0.250000", ""] and rows[0][2] == "-0.100000;0.200000"
    assert list(read_table(tmp_path / "x.csv")["dataset"]) == names

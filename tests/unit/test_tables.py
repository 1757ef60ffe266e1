"""`python -m rtt tables` end to end on planted accuracies, its schema, its error messages, its bytes."""

import csv
import itertools
import json
import math
import re
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from evals_builder import make_evals
from rtt import __main__ as program
from rtt.errors import UserError
from rtt.evals import natural, read_eval, read_folder
from rtt.stats.looks import halves
from rtt.stats.recovery import cannot_tell
from rtt.stats.study import assemble
from rtt.tables import read_table, recovery_table
from scipy.stats import binomtest

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "config" / "eval.schema.json").read_text(encoding="utf-8"))
ISSUE = (
    "dataset arm model method variant seed retain_budget selection scoring n_questions acc_before acc_unlearned "
    "acc_unlearned_low acc_unlearned_high acc_rtt acc_rtt_low acc_rtt_high acc_original_rtt acc_original_rtt_low "
    "acc_original_rtt_high acc_control_rtt acc_control_rtt_low acc_control_rtt_high t_acc_rtt retain_before "
    "retain_unlearned floor recovery recovery_low recovery_high recovery_corrected recovery_corrected_low "
    "recovery_corrected_high recovery_difference recovery_difference_low recovery_difference_high status cannot_tell"
).split()
SMALL = dict(arms=("pretrained",), methods=("GD",), splits=2, per_split=8, retain=8, lrs=(1e-3,), epochs=2)


def tables(folder, *options):
    """Run the command; return its exit code."""
    where = ["--evals", folder / "evals", "--selections", folder / "selections", "--out", folder / "tables"]
    return program.main(["tables", *map(str, where), *options])


def refuse(folder, capsys) -> str:
    assert tables(folder) == 1
    assert not (folder / "tables").exists()
    return capsys.readouterr().err


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
            "original_rtt": 0.875,
            "unlearned_rtt": 0.5,
            ("unlearned_rtt", "pretrained", "GD"): 0.75,
            ("unlearned_rtt", "pretrained", "RIA"): 0.875,
            ("unlearned_rtt", "taught"): 0.5,
            ("unlearned", "taught_same_data", "RIA"): 0.0,
            ("unlearned", "taught_same_data", "GD"): 0.6,
            "control_rtt": 0.3125,
            "t": 0.75,
        },
    )
    assert tables(folder) == 0
    return folder


def planted(study, **keys):
    table = read_table(study / "tables" / "recovery.csv")
    for name, value in keys.items():
        table = table[table[name] == value]
    assert len(table), keys
    return table


def test_recovery_columns_are_the_issues(study):
    with open(study / "tables" / "recovery.csv", encoding="utf-8", newline="") as file:
        assert next(csv.reader(file)) == ISSUE


def test_one_row_per_key_in_natural_order(study):
    table = planted(study)
    keys = ["arm", "method", "seed", "retain_budget", "selection", "scoring"]
    found = list(table[keys].itertuples(index=False, name=None))
    order = [
        ("pretrained", "taught", "taught_same_data"),
        ("GD", "RIA"),
        (0, 11),
        (0.05, 0.1),
        ("paper", "nested"),
        ("letter", "likelihood", "likelihood_fresh"),
    ]
    assert found == list(itertools.product(*order))


def test_planted_accuracies_arrive(study):
    for row in planted(study, arm="pretrained", method="GD").itertuples():
        assert row.n_questions == 80
        assert (row.acc_before, row.acc_unlearned, row.acc_rtt) == (1.0, 0.25, 0.75)
        assert (row.acc_original_rtt, row.acc_control_rtt, row.t_acc_rtt) == (0.875, 0.3125, 0.75)
        assert row.recovery == pytest.approx(0.75 / 0.875, abs=1e-6)
        assert row.recovery_corrected == pytest.approx((0.75 - row.floor) / (0.875 - row.floor), abs=2e-6)
        assert row.recovery_difference == pytest.approx(0.5)
        for name in ("recovery", "recovery_corrected", "recovery_difference"):
            low, value, high = (getattr(row, name + end) for end in ("_low", "", "_high"))
            assert low < value < high
        expected = binomtest(60, 80).proportion_ci(0.95, method="wilson")
        assert (row.acc_rtt_low, row.acc_rtt_high) == pytest.approx((expected.low, expected.high), abs=1e-6)
        assert row.retain_before == 30 / 32 and row.retain_unlearned == 29 / 32


def test_floor_by_hand(study):
    document = json.loads((study / "evals" / "model-pretrained-s0.json").read_text())
    forget = [q for q in document["results"][0]["questions"] if q["role"] == "V"]
    hits = 0
    for question in forget:
        t = [q["answer"] for q in forget if q["split"] != question["split"]]
        hits += question["answer"] == max(range(4), key=lambda letter: (t.count(letter), -letter))
    row = planted(study, arm="pretrained", scoring="letter").iloc[0]
    assert row.floor == pytest.approx(hits / len(forget)) and row.floor != 0.25
    assert (
        set(planted(study, scoring="likelihood").floor)
        == set(planted(study, scoring="likelihood_fresh").floor)
        == {0.25}
    )


def test_statuses(study):
    assert set(planted(study, arm="pretrained").status) == {"ok"}
    assert set(planted(study, arm="taught_same_data", method="RIA").status) == {"over_unlearned"}
    assert set(planted(study, arm="taught_same_data", method="GD").status) == {"not_unlearned"}
    gone = planted(study, arm="taught", method="GD", retain_budget=0.05)
    assert set(gone.status) == {"none_within_budget"} and len(gone) == 12
    assert (
        gone[["acc_unlearned", "acc_rtt", "t_acc_rtt", "retain_unlearned", "recovery", "recovery_difference"]]
        .isna()
        .all(axis=None)
    )
    assert (gone.acc_original_rtt == 0.875).all() and (gone.acc_before == 1).all()
    # `paper` is the maximum; `nested` may take an equally good earlier look of a half.
    assert (gone[gone.selection == "paper"].acc_control_rtt == 0.3125).all()


def test_undefined_leaves_cells_empty(tmp_path):
    make_evals(tmp_path, **SMALL, accuracies={"original_rtt": 0.25})
    assert tables(tmp_path) == 0
    with open(tmp_path / "tables" / "recovery.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["status"] for row in rows} == {"undefined"}
    for row in rows:
        assert all(row[name] == "" for name in ISSUE if re.fullmatch(r"recovery(_corrected)?(_low|_high)?", name))
        assert row["recovery_difference_low"] != ""


def test_accuracy_table(study):
    table = read_table(study / "tables" / "accuracy.csv")
    assert " ".join(table.columns) == (
        "dataset arm model method variant seed retain_budget stage v_split set selection scoring run step lr epoch "
        "n_questions n_correct accuracy low high"
    )
    keys = [name for name in table.columns if name not in ("n_questions", "n_correct", "accuracy", "low", "high")]
    assert not table.duplicated(keys).any()
    assert set(table.stage) == {"original", "unlearned", "original_rtt", "unlearned_rtt", "control_rtt"}
    here = table[(table.arm == "pretrained") & (table.seed == 0) & (table.scoring == "letter")]
    points = here[(here.stage == "unlearned") & (here.method == "GD") & (here["set"] == "V") & (here.v_split == "all")]
    assert sorted(points.step) == [10, 20, 20, 20]
    assert sorted(points.retain_budget.dropna()) == [0.05, 0.1]
    looks = here[(here.stage == "original_rtt") & (here.v_split == "split_3") & (here["set"] == "V")]
    assert sorted(looks.selection) == ["nested", "none", "none", "none", "none", "paper"]
    assert looks[looks.selection != "none"][["lr", "epoch"]].isna().all(axis=None)
    # Pooling: V splits add up to `all`; T of one V split is the other four.
    for _, group in here[here.stage.str.endswith("_rtt")].groupby(
        ["stage", "method", "retain_budget", "selection", "lr", "epoch", "set"], dropna=False
    ):
        parts = group[group.v_split != "all"]
        whole = group[group.v_split == "all"].iloc[0]
        assert parts.n_correct.sum() == whole.n_correct and parts.n_questions.sum() == whole.n_questions
    t = here[(here["set"] == "T") & (here.v_split == "split_0") & (here.selection == "paper")]
    assert set(t.n_questions) == {64} and set(t.accuracy) == {0.75}


def test_t_intervals_count_questions_once(study):
    """Pooled T scores each question in four V splits: 320 answers, but 80 questions carry the information."""
    table = read_table(study / "tables" / "accuracy.csv")
    row = table[(table["set"] == "T") & (table.v_split == "all") & (table.selection == "paper")].iloc[0]
    assert (row.n_questions, row.n_correct) == (320, 240)
    expected = binomtest(60, 80).proportion_ci(0.95, method="wilson")
    assert (row.low, row.high) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_control_rows_are_repeated_for_each_arm(study):
    table = read_table(study / "tables" / "accuracy.csv")
    control = table[table.stage == "control_rtt"]
    assert set(zip(control.arm, control.dataset, strict=True)) == {
        ("pretrained", "people_f"),
        ("taught", "people_p"),
        ("taught_same_data", "people_p"),
    }


def test_six_decimals_and_settings(study):
    for name in ("recovery", "accuracy", "contrasts", "variants"):
        with open(study / "tables" / f"{name}.csv", encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                for column, value in row.items():
                    if column in ("retain_budget", "lr"):
                        assert value in ("", "0.1", "0.05", "0.001", "0.002")
                    elif re.fullmatch(r"-?\d*\.\d*", value):
                        assert re.fullmatch(r"-?\d+\.\d{6}", value), (name, column, value)
                    assert value.lower() not in ("nan", "inf", "-inf")


def test_contrasts_table(study):
    table = read_table(study / "tables" / "contrasts.csv")
    assert " ".join(table.columns) == (
        "arm_a arm_b dataset_a dataset_b method retain_budget selection scoring quantity n_seeds per_seed mean "
        "low high comparable why"
    )
    keys = dict(
        arm_a="pretrained", arm_b="taught", method="RIA", retain_budget=0.1, selection="nested", scoring="letter"
    )
    row = table[np.logical_and.reduce([table[key] == value for key, value in keys.items()])].iloc[0]
    assert row.quantity == "acc_rtt" and row.n_seeds == 2 and row.per_seed == "0.375000;0.375000"
    assert row["mean"] == 0.375 and row.comparable == "yes"
    other = table[(table.arm_b == "taught_same_data") & (table.method == "GD")].iloc[0]
    assert other.comparable == "no" and "unlearned accuracy .25 vs .625" in other.why


def test_selection_is_by_position_so_that_the_control_shares_the_halves(tmp_path):
    """Rename the control's facts; and choose looks by hand from the JSON for nested."""
    make_evals(tmp_path, **SMALL | {"per_split": 9, "epochs": 3})
    rng = np.random.default_rng(4)
    for path in sorted((tmp_path / "evals").glob("attack-*.json")):
        document = json.loads(path.read_text())
        for result in document["results"]:
            for question in result["questions"]:
                for scores in question["scores"].values():
                    rng.shuffle(scores)
            rng.shuffle(result["questions"])
        path.write_text(json.dumps(document))
        # By hand: questions of a split by the line number in their id.
        by_look: dict = {}
        for result in document["results"]:
            for question in result["questions"]:
                if question["role"] == "V":
                    scores = question["scores"]["letter"]
                    hit = scores.index(max(scores)) == question["answer"]
                    by_look.setdefault((result["epoch"], result["lr"]), {})[question["id"]] = hit
        ids = sorted(next(iter(by_look.values())), key=natural)
        first = {id_: bool(half) for id_, half in zip(ids, halves(np.repeat([0, 1], 9)), strict=True)}
        hits = 0
        for half in (True, False):
            decide = {look: sum(h for i, h in found.items() if first[i] != half) for look, found in by_look.items()}
            look = min(decide, key=lambda look: (-decide[look], look))
            hits += sum(hit for i, hit in by_look[look].items() if first[i] == half)
        expected = {"original": "acc_original_rtt", "gd-0": "acc_rtt", "control": "acc_control_rtt"}
        document["expected"] = expected[path.stem.split(".")[1]], hits / 18
        path.with_suffix(".expected").write_text(json.dumps(document["expected"]))
    assert tables(tmp_path) == 0
    row = planted(tmp_path, selection="nested", scoring="letter").iloc[0]
    checked = [json.loads(path.read_text()) for path in sorted((tmp_path / "evals").glob("*.expected"))]
    assert {name for name, _ in checked} == {"acc_original_rtt", "acc_rtt", "acc_control_rtt"}
    for name, accuracy in checked:
        assert row[name] == pytest.approx(accuracy, abs=1e-6)


def test_questions_are_resampled_within_v_split_and_half(study, monkeypatch):
    seen = []

    def spy(original, unlearned, rtt, strata, floor):
        seen.append(strata)
        return {}

    monkeypatch.setattr("rtt.tables.recover", spy)
    recovery_table(assemble(read_folder(study / "evals"), study / "selections")[:1])
    split_of = np.repeat(np.arange(5), 16)
    expected = set(zip(split_of, halves(split_of), strict=True))
    for strata in seen:
        assert len(set(strata)) == len(expected) == 10
        assert len(set(zip(strata, split_of, halves(split_of), strict=True))) == 10


def test_same_input_same_bytes(study, tmp_path):
    for name in ("evals", "selections"):
        (tmp_path / name).symlink_to(study / name)
    assert tables(tmp_path) == 0
    for path in sorted((study / "tables").iterdir()):
        assert path.read_bytes() == (tmp_path / "tables" / path.name).read_bytes()


def test_without_control_the_cells_are_empty(tmp_path):
    make_evals(tmp_path, **SMALL, control=False)
    assert tables(tmp_path) == 0
    assert planted(tmp_path).acc_control_rtt.isna().all()


@pytest.mark.parametrize("scorings", [("letter", "likelihood"), ("likelihood", "likelihood_fresh"), ("letter",)])
def test_any_scorings_are_enough(tmp_path, scorings):
    """Nothing needs letters: accuracy, selection and retain accuracy are each by the row's own scoring."""
    make_evals(tmp_path, **SMALL, scorings=scorings)
    assert tables(tmp_path) == 0
    found = planted(tmp_path)
    assert list(dict.fromkeys(found.scoring)) == list(scorings)
    assert set(found.retain_before) == {1.0} and set(found.retain_unlearned) == {0.875}  # 8 and 7 of 8


def test_retain_accuracy_is_by_the_rows_scoring(tmp_path):
    make_evals(tmp_path, **SMALL)

    def change(document):
        held = [q for q in document["results"][0]["questions"] if q["role"] == "retain"]
        for question in held[:4]:
            question["scores"]["likelihood"] = [-1.0 if i == question["answer"] else -0.5 for i in range(4)]

    edit(tmp_path, "model-pretrained-s0", change)
    assert tables(tmp_path) == 0
    found = planted(tmp_path, selection="nested").set_index("scoring").retain_before
    assert found["letter"] - found["likelihood"] == 0.5


def test_own_unlearned_models_have_their_own_names(tmp_path):
    make_evals(tmp_path, **SMALL | {"methods": ("RMU-v2.1", "GD")})
    assert tables(tmp_path) == 0
    assert list(dict.fromkeys(planted(tmp_path).method)) == ["GD", "RMU-v2.1"]


def test_the_selected_point_is_found_among_several_trajectories(tmp_path):
    make_evals(tmp_path, **SMALL, worse=2, accuracies={"before": 1.0, "unlearned": 0.25})
    assert tables(tmp_path) == 0
    assert set(planted(tmp_path).acc_unlearned) == {0.25}
    table = read_table(tmp_path / "tables" / "accuracy.csv")
    assert (table.loc[table.stage != "unlearned", "run"] == "").all()
    points = table[(table.stage == "unlearned") & (table["set"] == "V") & (table.v_split == "all")]
    points = points[points.scoring == "letter"]
    name = "unlearn-pretrained-gd-s0"
    listed = points[points.retain_budget.isna()][["run", "step"]].itertuples(index=False, name=None)
    assert sorted(listed) == [(run, step) for run in (f"a-{name}", name, f"z-{name}") for step in (10, 20, 30)]
    chosen = points[points.retain_budget.notna()]
    assert chosen[["run", "step", "accuracy"]].to_numpy().tolist() == [[name, 30, 0.25]]


def write_plan(folder, variants, scorings=("letter",)):
    plan = {"study": {"selection": {"scorings": list(scorings)}}, "variants": variants}
    (folder / "plan.json").write_text(json.dumps(plan))
    return "--plan", str(folder / "plan.json")


@pytest.fixture(scope="module")
def varied(tmp_path_factory):
    """Two seeds of the default and of a variant whose attack brings back less; original and control are shared."""
    folder = tmp_path_factory.mktemp("varied")
    more = {("unlearned_rtt", "pretrained", "GD", 0): 0.75, ("unlearned_rtt", "pretrained", "GD", 1): 0.5}
    make_evals(folder, **SMALL | {"seeds": (0, 1)}, accuracies={**more, "original_rtt": 1.0})
    stems = {kind: sorted(path.stem for path in (folder / kind).iterdir()) for kind in ("evals", "selections")}
    other = dict(stems, evals=[])
    for stem in stems["evals"]:
        if ".gd-" not in stem:
            other["evals"].append(stem)
            continue
        document = json.loads((folder / "evals" / f"{stem}.json").read_text())
        for result in document["results"]:
            for question in [q for q in result["questions"] if q["role"] == "V"][: 2 if "s0" in stem else 1]:
                for scoring in question["scores"]:
                    question["scores"][scoring] = [float(i != question["answer"]) for i in range(4)]
        other["evals"].append(f"{stem}-variant")
        (folder / "evals" / f"{stem}-variant.json").write_text(json.dumps(document))
    variants = {
        "weak": {**other, "reported": "nested"},
        "on_v": {**stems, "reported": "paper"},
        "default": {**stems, "reported": "nested"},
    }
    assert tables(folder, *write_plan(folder, variants)) == 0
    return folder


def test_variants_share_runs_and_have_their_own_rows(varied):
    rows = planted(varied, selection="paper", scoring="letter")
    assert list(dict.fromkeys(rows.variant)) == ["default", "weak", "on_v"]
    assert rows[rows.variant == "default"].acc_rtt.tolist() == [0.75, 0.5]
    assert rows[rows.variant == "weak"].acc_original_rtt.tolist() == [1.0, 1.0]
    assert set(read_table(varied / "tables" / "accuracy.csv").variant) == set(rows.variant)
    contrast = read_table(varied / "tables" / "contrasts.csv")
    assert contrast.empty  # one arm, one method: variants are not mixed into contrasts


def test_variant_effects_are_paired_with_the_default(varied):
    table = read_table(varied / "tables" / "variants.csv")
    assert " ".join(table.columns) == (
        "variant dataset arm model method retain_budget selection scoring quantity n_seeds per_seed mean low high"
    )
    assert set(table.quantity) == {"acc_unlearned", "acc_rtt", "recovery", "recovery_corrected"}
    recovered = planted(varied, scoring="letter").set_index(["variant", "selection", "seed"])
    for variant, ours, theirs, label in (
        ("weak", "nested", "nested", "nested"),
        ("weak", "paper", "paper", "paper"),
        ("on_v", "paper", "nested", "paper - nested"),
    ):
        rows = table[(table.variant == variant) & (table.selection == label) & (table.scoring == "letter")]
        assert len(rows) == 4
        for row in rows.itertuples():
            differences = [
                recovered.loc[(variant, ours, seed), row.quantity]
                - recovered.loc[("default", theirs, seed), row.quantity]
                for seed in (0, 1)
            ]
            assert [float(x) for x in row.per_seed.split(";")] == pytest.approx(differences, abs=2e-6)
            mean = np.mean(differences)
            half = 12.706205 * abs(differences[0] - differences[1]) / 2  # t(.975; 1), s / sqrt(2) = |d| / 2
            assert (row.n_seeds, row.mean) == (2, pytest.approx(mean, abs=2e-6))
            assert (row.low, row.high) == pytest.approx((mean - half, mean + half), abs=2e-5)
    weak = table[(table.variant == "weak") & (table.quantity == "acc_rtt") & (table.selection == "paper")]
    assert weak["mean"].max() < 0
    assert set(table.selection[table.variant == "on_v"]) == {"paper - nested"}


def test_without_variants_the_table_has_its_header_only(study):
    assert len((study / "tables" / "variants.csv").read_text().splitlines()) == 1


def test_one_seed_has_an_effect_without_interval(varied, tmp_path):
    for name in ("evals", "selections"):
        (tmp_path / name).symlink_to(varied / name)
    variants = json.loads((varied / "plan.json").read_text())["variants"]
    for one in variants.values():
        for kind in ("evals", "selections"):
            one[kind] = [stem for stem in one[kind] if "-s0" in stem]
    assert tables(tmp_path, *write_plan(tmp_path, variants)) == 0
    table = read_table(tmp_path / "tables" / "variants.csv")
    assert set(table.n_seeds) == {1} and table[["low", "high"]].isna().all(axis=None) and table["mean"].notna().all()


def test_the_plan_names_the_main_scoring_and_it_comes_first(varied, tmp_path):
    for name in ("evals", "selections"):
        (tmp_path / name).symlink_to(varied / name)
    default = json.loads((varied / "plan.json").read_text())["variants"]["default"]
    assert tables(tmp_path, *write_plan(tmp_path, {"default": default}, ["likelihood", "letter"])) == 0
    found = list(dict.fromkeys(planted(tmp_path).scoring))
    assert found == ["likelihood", "letter", "likelihood_fresh"]


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"study": {}}, "variants is None"),
        ({"variants": {"x": {}}}, "no 'default', found x"),
        ({"variants": {"default": {"evals": [], "selections": []}}}, "variants.default: expected the lists"),
    ],
)
def test_a_plan_that_is_not_one(small, capsys, plan, message):
    (small / "plan.json").write_text(json.dumps(plan))
    assert tables(small, "--plan", str(small / "plan.json")) == 1
    error = capsys.readouterr().err
    assert str(small / "plan.json") in error and message in error


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
    make_evals(tmp_path / "b", **SMALL, accuracies={"unlearned_rtt": 0.5, ("unlearned_rtt", "pretrained", "GD"): 0.5})
    make_evals(tmp_path, **SMALL)
    for kind in ("evals", "selections"):
        for path in (tmp_path / "b" / kind).iterdir():
            text = path.read_text().replace("people_f", "people_q")
            (tmp_path / kind / f"b-{path.name}").write_text(text.replace("people_p", "people_q"))
    path = tmp_path / "evals" / "attack-control-people_f-s0.control.json"
    path.write_text(path.read_text().replace("people_f", "people_p"))
    assert tables(tmp_path) == 0
    rows = planted(tmp_path, selection="paper", scoring="letter").set_index("dataset")
    assert rows.acc_rtt.to_dict() == {"people_p": 0.875, "people_q": 0.5}
    (tmp_path / "evals" / "b-attack-control-people_f-s0.control.json").unlink()
    assert tables(tmp_path) == 0
    rows = planted(tmp_path, selection="paper", scoring="letter").set_index("dataset")
    assert rows.acc_control_rtt.isna().to_dict() == {"people_p": False, "people_q": True}


def test_prediction_is_the_first_maximum(tmp_path):
    folder, _ = make_evals(tmp_path, **SMALL)
    path = folder / "model-pretrained-s0.json"
    document = json.loads(path.read_text())
    for question in document["results"][0]["questions"]:
        question["scores"]["letter"] = [-1.0, -0.5, -0.5, -0.5]
    path.write_text(json.dumps(document))
    points = read_eval(path)
    assert np.array_equal(points.forget_correct["letter"][0], points.forget.answers == 1)


# ------------------------------------------------------------------------------------------------------------- refusals


@pytest.fixture
def small(tmp_path):
    make_evals(tmp_path, **SMALL)
    return tmp_path


def edit(folder, name, change):
    path = folder / "evals" / f"{name}.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return path


def test_nan_is_named(small, capsys):
    def change(document):
        document["results"][2]["questions"][3]["scores"]["likelihood"][1] = math.nan

    path = edit(small, "attack-pretrained-s0.original", change)
    error = refuse(small, capsys)
    assert str(path) in error and "results[2]" in error and "likelihood" in error and "people_p/split_0/004" in error


@pytest.mark.parametrize("kind", ["attack-pretrained-s0.gd-0.1", "unlearn-pretrained-gd-s0"])
def test_other_questions_than_the_original(small, capsys, kind):
    def change(document):
        for result in document["results"]:
            result["questions"][0]["id"] = "people_p/split_0/999"

    path = edit(small, kind, change)
    error = refuse(small, capsys)
    assert str(path) in error and "model-pretrained-s0.json" in error and "split_0/001" in error


def test_a_missing_v_split(small, capsys):
    path = edit(small, "attack-pretrained-s0.gd-0.1", lambda d: d["results"].pop(0))
    error = refuse(small, capsys)
    assert str(path) in error and "no result for lr 0.001, epoch 1, v_split split_0" in error


def test_a_v_split_missing_altogether(small, capsys):
    def change(document):
        document["results"] = [r for r in document["results"] if r["v_split"] == "split_0"]

    path = edit(small, "attack-pretrained-s0.gd-0.1", change)
    assert f"{path}: v_splits ['split_0']" in refuse(small, capsys)


def test_other_answers(small, capsys):
    def change(document):
        for result in document["results"]:
            result["questions"][2]["answer"] = (result["questions"][2]["answer"] + 1) % 4

    edit(small, "unlearn-pretrained-gd-s0", change)
    assert "answers differ" in refuse(small, capsys)


def test_control_of_another_shape(small, capsys):
    def change(document):
        for result in document["results"]:
            del result["questions"][0]

    path = edit(small, "attack-control-people_f-s0.control", change)
    error = refuse(small, capsys)
    assert str(path) in error and "same T and V sizes" in error


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("model-pretrained-s0", "no evaluation of kind original"),
        ("attack-pretrained-s0.original", "recovery has no denominator"),
        ("attack-pretrained-s0.gd-0.1", "its RTT evaluation is missing"),
        ("unlearn-pretrained-gd-s0", "no evaluation of kind unlearned for method GD"),
    ],
)
def test_a_missing_file(small, capsys, missing, message):
    (small / "evals" / f"{missing}.json").unlink()
    assert message in refuse(small, capsys)


def test_a_study_that_attacks_nothing_has_accuracies_alone(small):
    for path in (small / "evals").glob("attack-*.json"):
        path.unlink()
    assert tables(small) == 0
    accuracy = read_table(small / "tables/accuracy.csv")
    assert set(accuracy["stage"]) == {"original", "unlearned"}
    assert (accuracy["retain_budget"] == 0.1).any()  # the selected point is named
    assert not len(read_table(small / "tables/recovery.csv"))


def selection(folder, change):
    path = folder / "selections" / "select-pretrained-gd-s0.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return path


def test_a_missing_selection(small, capsys):
    (small / "selections" / "select-pretrained-gd-s0.json").unlink()
    assert "no selection for GD of (people_p, pretrained, miniature, 0)" in refuse(small, capsys)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["selected"]["0.1"].update(step=25), "selected step 25 is not in unlearn-pretrained-gd-s0"),
        (lambda d: d["selected"]["0.1"].update(run="other"), "selected step 30 is not in other"),
        (lambda d: d["selected"].update({"0.1": 30}), "selected['0.1'] is 30, expected"),
        (lambda d: d["selected"]["0.1"].update(step=True), "selected['0.1'].step is True"),
        (lambda d: d["selected"].update(all=None), "key 'all' is not a retain budget"),
        (lambda d: d["labels"].pop("method"), "labels.method is missing"),
        (lambda d: d["points"][0].update(run="gone"), "trajectory gone has no evaluation of kind unlearned"),
        (lambda d: d["points"].clear(), "trajectory unlearn-pretrained-gd-s0 was scored and not selected from"),
    ],
)
def test_a_selection_that_does_not_fit(small, capsys, change, message):
    path = selection(small, change)
    error = refuse(small, capsys)
    assert str(path) in error and message in error


def test_two_files_with_the_same_labels(small, capsys):
    first = small / "evals" / "attack-pretrained-s0.gd-0.1.json"
    (small / "evals" / "attack-stale.json").write_bytes(first.read_bytes())
    error = refuse(small, capsys)
    assert "attack-stale.json" in error and str(first) in error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("labels"), "labels is missing"),
        (lambda d: d["labels"].pop("seed"), "missing ['seed']"),
        (lambda d: d["labels"].update(color="red"), "unknown ['color']"),
        (lambda d: d["labels"].update(method="a/b"), "labels.method is 'a/b'"),
        (lambda d: [q.update(scores={}) for r in d["results"] for q in r["questions"]], "expected one or more of"),
        (lambda d: d.update(schema_version=2), "schema_version is 2"),
        (lambda d: d.update(kind="other"), "kind is 'other'"),
        (lambda d: d["results"][0]["questions"][0]["scores"]["letter"].pop(), "other than 4 numbers"),
        (lambda d: d["results"][0]["questions"][0]["scores"].pop("letter"), "differ in their scorings"),
        (lambda d: d["results"][0]["questions"][0].update(answer=4), "from 0 to 3"),
        (lambda d: d["results"][0]["questions"][0].update(role="T"), "role must be V"),
        (lambda d: d["results"][0]["questions"].append(d["results"][0]["questions"][0]), "stands twice"),
        (lambda d: d["results"].append(d["results"][0]), "repeats lr 0.001"),
        (lambda d: d["results"][0].update(epoch=0), "epoch >= 1"),
        (lambda d: d.update(status="none_within_budget"), "expected none"),
    ],
)
def test_malformed_files_are_named(small, capsys, change, message):
    path = edit(small, "attack-pretrained-s0.original", change)
    error = refuse(small, capsys)
    assert str(path) in error and message in error


def test_empty_folder(tmp_path, capsys):
    assert "no evaluation" in refuse(tmp_path, capsys)


def test_read_table_says_what_to_run(tmp_path):
    with pytest.raises(UserError, match="rtt tables"):
        read_table(tmp_path / "recovery.csv")


# --------------------------------------------------------------------------------------------------------------- schema


def test_every_evaluation_is_valid(study):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    validator = jsonschema.Draft202012Validator(SCHEMA)
    kinds = set()
    for path in sorted((study / "evals").glob("*-s0*.json")):
        document = json.loads(path.read_text())
        validator.validate(document | {"results": document["results"][:1]})
        kinds.add((document["kind"], document["labels"]["target"], document["status"]))
    assert len(kinds) == 6


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(extra=1),
        lambda d: d.pop("hashes"),
        lambda d: d.update(schema_version=2),
        lambda d: d.update(results=[]),
        lambda d: d["labels"].update(method="GD"),
        lambda d: d["labels"].update(control_for=["taught"]),
        lambda d: d["labels"].pop("seed"),
        lambda d: d["results"][0].update(lr=0),
        lambda d: d["results"][0].update(epoch=0),
        lambda d: d["results"][0].update(v_split=None),
        lambda d: d["results"][0]["questions"][0].update(role="retain"),
        lambda d: d["results"][0]["questions"][0].update(answer=4),
        lambda d: d["results"][0]["questions"][0].update(note=""),
        lambda d: d["results"][0]["questions"][0]["scores"].clear(),
        lambda d: d["results"][0]["questions"][0]["scores"].update(other=[0, 0, 0, 0]),
        lambda d: d["results"][0]["questions"][0]["scores"]["letter"].append(-1.0),
        lambda d: d["results"][0]["questions"][0]["scores"].update(letter=[0, 0, 0, None]),
    ],
)
def test_schema_is_strict(study, change):
    document = json.loads((study / "evals" / "attack-pretrained-s0.original.json").read_text())
    document["results"] = document["results"][:1]
    validator = jsonschema.Draft202012Validator(SCHEMA)
    assert validator.is_valid(document)
    change(document)
    assert not validator.is_valid(document)

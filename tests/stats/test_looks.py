"""Looks of any attack: repeats, groups, attacks without T, several attacks, as read and as rows of the tables.

Small files are written by hand here, so that every expected number can be counted on the fingers.
"""

import json

import numpy as np
import pandas as pd
import pytest
from evals_builder import NOTHING, SMALL, edit, make_evals, planted, tables, write_eval, write_runs
from rtt.errors import UserError
from rtt.scoring.halves import halves
from rtt.scoring.read import read_eval
from rtt.stats.look_choice import choose
from rtt.stats.recovery import recover, resample
from rtt.stats.reported import floor_of, t_at, v_correct
from rtt.stats.tables import read_table
from rtt.study.names import read_setting, setting_text

SPLITS = {"split_0": 2, "split_1": 4}  # so many questions each
ANSWERS = (0, 1, 1, 1, 0, 2)


def question(place, right, role="V", probes=("letter",)):
    """Write the question at a place of ANSWERS, answered right or wrong."""
    split, line = ("split_0", place + 1) if place < 2 else ("split_1", place - 1)
    answer = ANSWERS[place]
    best = answer if right else (answer + 1) % 4
    scores = [-1.0 if choice == best else -2.0 for choice in range(4)]
    head = {"id": f"d/{split}/{line:03d}", "split": split, "role": role, "answer": answer}
    return {**head, "probes": {probe: {"scores": scores} for probe in probes}}


def look(setting, v_split, right, repeat=0, attack="RTT"):
    """Write a look whose questions are answered right (1) or wrong (0) as in the text `right`."""
    splits = [split for split, size in SPLITS.items() for _ in range(size)]
    roles = ["V" if v_split in (None, split) else "T" for split in splits]
    found = [question(i, mark == "1", role) for i, (mark, role) in enumerate(zip(right, roles, strict=True))]
    return {"attack": attack, "setting": setting, "v_split": v_split, "repeat": repeat, "questions": found}


def labels(attack, target="unlearned", method="GD", budget=0.1):
    return {
        **{"dataset": "d", "arm": "pretrained", "model": "m", "method": method, "seed": 0, "retain_budget": budget},
        **{"target": target, "control_for": [], "attack": attack},
    }


def read_looks(folder, looks, attack="RTT", group_size=1):
    write_eval(folder, "x", "attacked", labels(attack), looks, group_size=group_size)
    return read_eval(folder / "evals" / "x.json")


# ---- as read


def test_each_repeat_is_kept_apart(tmp_path):
    one, two = {"lr": 0.5, "epoch": 1}, {"lr": 0.25, "epoch": 2}
    found = read_looks(
        tmp_path,
        [
            look(one, "split_0", "110000", 0),
            look(one, "split_0", "100001", 1),
            look(one, "split_1", "001100", 0),
            look(one, "split_1", "001010", 1),
            look(two, "split_1", "111111", 1),  # in any order
            look(two, "split_1", "000000", 0),
            look(two, "split_0", "010000", 0),
            look(two, "split_0", "010000", 1),
        ],
    )
    assert found.settings == (one, two) and found.v_splits == ("split_0", "split_1") and found.uses_t
    first = [[[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0]], [[0, 1, 0, 0, 0, 0], [0] * 6]]
    second = [[[1, 0, 0, 0, 0, 1], [0, 0, 1, 0, 1, 0]], [[0, 1, 0, 0, 0, 0], [1] * 6]]
    assert found.correct["letter"].tolist() == [first, second]
    assert v_correct(found, "letter").tolist() == [
        [[1, 1, 1, 1, 0, 0], [0, 1, 0, 0, 0, 0]], [[1, 0, 1, 0, 1, 0], [0, 1, 1, 1, 1, 1]]
    ]  # fmt: skip
    # T at both V splits of the second look: none of 4; and of 2, none in the first repeat and both in the second.
    assert t_at(found, "letter", [[(1, 0), (1, 1)]] * 2) == (1.0, 6, 6)
    assert t_at(found, "letter", [[(0, 0)]] * 2) == (0.5, 4, 4)
    # The second look in the first repeat, and the first in the second: 0 + 0, and 1 of 4 + 0 of 2.
    assert t_at(found, "letter", [[(1, 0), (1, 1)], [(0, 0), (0, 1)]]) == (0.5, 6, 6)


def test_settings_stand_in_the_order_of_the_file(tmp_path):
    """The writer decides which setting is gentler: not the number, and not the alphabet."""
    settings = [{"bits": 8}, {"bits": 4}, {"bits": 3, "note": "x"}, {"bits": 16}]
    found = read_looks(tmp_path, [look(one, None, "000000", attack="quantise") for one in settings], "quantise")
    assert list(found.settings) == settings


def test_an_attack_without_t_counts_for_every_v_split(tmp_path):
    found = read_looks(tmp_path, [look({"bits": 4}, None, "101100", attack="quantise")], "quantise")
    assert found.v_splits == ("split_0", "split_1") and not found.uses_t and found.attack == "quantise"
    assert found.correct["letter"].tolist() == [[[[1, 0, 1, 1, 0, 0]] * 2]]
    assert v_correct(found, "letter").tolist() == [[[1, 0, 1, 1, 0, 0]]]
    assert t_at(found, "letter", [[(0, 0), (0, 1)]]) == (0.0, 0, 0)


def test_the_floor_is_the_arms_whether_an_attack_uses_t_or_not(tmp_path):
    """T of split_0 is split_1, whose majority letter is B: 1 of 2. T of split_1 is A, B, a tie: A, 1 of 4."""
    with_t = read_looks(tmp_path, [look({"x": 1}, split, "000000") for split in SPLITS])
    without = read_looks(tmp_path, [look({"x": 1}, None, "000000", attack="quantise")], "quantise")
    assert floor_of(with_t, "letter") == floor_of(without, "letter") == (1 + 1) / 6
    assert floor_of(with_t, "likelihood") == 0.25


def test_groups_are_handed_on(tmp_path):
    found = read_looks(tmp_path, [look({"x": 1}, split, "000000") for split in SPLITS], group_size=2)
    first, second, third = "d/split_0/001", "d/split_1/001", "d/split_1/003"
    assert found.questions.groups == (first, first, second, second, third, third)
    alone = read_looks(tmp_path, [look({"x": 1}, split, "000000") for split in SPLITS])
    assert alone.questions.groups == alone.questions.ids


def test_a_group_is_handed_on_by_points_too(tmp_path):
    asked = [question(i, True, "V") for i in range(6)]
    asked += [{**question(0, True, "retain"), "id": "r/split_0/001"}]
    label = {**labels(None, "original", None, None)}
    write_eval(tmp_path, "x", "original", label, [{**NOTHING, "questions": asked}], group_size=4)
    found = read_eval(tmp_path / "evals" / "x.json")
    assert found.forget.groups == ("d/split_0/001",) * 2 + ("d/split_1/001",) * 4
    assert found.retain.groups == ("r/split_0/001",) and found.steps == (0,)


def test_other_numbers_of_choices(tmp_path):
    def asked(mark):
        answer = 4 if mark == "1" else 0
        scores = [float(choice == answer) for choice in range(5)]
        return {"answer": 4, "probes": {"likelihood": {"scores": scores}}}

    looks = [look({"x": 1}, None, "110000", attack="quantise")]
    for entry, mark in zip(looks[0]["questions"], "110000", strict=True):
        entry.update(asked(mark))
    found = read_looks(tmp_path, looks, "quantise")
    assert found.questions.n_choices.tolist() == [5] * 6 and floor_of(found, "likelihood") == pytest.approx(0.2)
    assert found.correct["likelihood"][0, 0, 0].tolist() == [1, 1, 0, 0, 0, 0]


def test_questions_of_one_dataset_may_have_other_numbers_of_choices(tmp_path):
    """Questions with 2, 2, 4, 4, 3, 3 choices; the answers are those of ANSWERS (0 1 | 1 1 0 2)."""
    widths = [2, 2, 4, 4, 3, 3]

    def cut(looks):
        for one in looks:
            for entry, width in zip(one["questions"], widths, strict=True):
                scores = [-1.0 if c == entry["answer"] else -2.0 for c in range(width)]
                entry["probes"] = {"letter": {"scores": scores}, "likelihood": {"scores": scores[::-1]}}
        return looks

    looks = cut([look({"x": 1}, None, "111111", attack="quantise"), look({"x": 2}, None, "111111", attack="quantise")])
    found = read_looks(tmp_path, looks, "quantise")
    assert found.questions.n_choices.tolist() == widths
    assert found.correct["letter"][0, 0, 0].tolist() == [1] * 6
    assert found.correct["likelihood"][0, 0, 0].tolist() == [0, 0, 0, 0, 0, 0]  # reversed: another choice is best
    assert floor_of(found, "likelihood") == pytest.approx((2 / 2 + 2 / 4 + 2 / 3) / 6)
    # T never has as many choices, so that a letter is drawn.
    assert floor_of(found, "letter") == pytest.approx((2 / 2 + 2 / 4 + 2 / 3) / 6)
    looks[1]["questions"][4]["probes"]["likelihood"]["scores"].append(-3.0)
    with pytest.raises(UserError, match=r"split_1/003 has the scores .* expected a list of 3 numbers"):
        read_looks(tmp_path, looks, "quantise")
    looks[1]["questions"][4]["probes"]["likelihood"]["scores"].pop()
    for one in looks:
        one["questions"][5]["answer"] = 3
    with pytest.raises(UserError, match=r"split_1/004: the answer 3 is not an integer from 0 to 2"):
        read_looks(tmp_path, looks, "quantise")


@pytest.mark.parametrize(
    "setting",
    [{"lr": 0.001, "epoch": 8}, {"bits": 4, "group_size": None}, {"lr": 1e-07}, {"x": True, "y": "a"}, {}],
)
def test_a_setting_as_text(setting):
    text = setting_text(setting)
    assert text == " ".join(f"{key}={setting[key]}" for key in sorted(setting))
    back = read_setting(text)
    assert {key: str(value) for key, value in back.items()} == {key: str(value) for key, value in setting.items()}
    assert [type(back[key]) for key, value in setting.items() if type(value) in (int, float)] == [
        type(value) for value in setting.values() if type(value) in (int, float)
    ]


# ---- what follows from means over repeats


def test_a_mean_over_repeats_is_resampled_as_it_is():
    """Of one question per stratum every draw is that question: the resampled accuracy is the mean itself."""
    values = np.array([0.0, 0.5, 1.0, 0.25])
    drawn, _, _ = resample(values, values, values, np.arange(4), 500)
    # Two pseudo-questions pull towards values within [0, 1]; what is left are the four answers.
    assert abs(np.median(drawn) - values.mean()) < 0.06
    found = recover(np.full(160, 0.75), np.full(160, 0.25), np.full(160, 0.5), np.repeat(np.arange(10), 16), 0.25)
    assert found["recovery"][0] == pytest.approx(0.5 / 0.75)
    assert found["recovery_corrected"][0] == pytest.approx(0.25 / 0.5)
    assert found["recovery_difference"][0] == pytest.approx(0.25)


def test_bools_and_floats_give_the_same_bits():
    """One repeat must not move a number."""
    rng = np.random.default_rng(3)
    columns = [rng.random((2, 160)) < p for p in (0.9, 0.3, 0.7)]
    strata = np.repeat(np.arange(10), 16)
    one, two = (recover(*(column.astype(kind) for column in columns), strata, 0.25) for kind in (bool, float))
    for name, values in one.items():
        assert all(np.array_equal(a, b) for a, b in zip(values, two[name], strict=True))
    correct, split_of = rng.random((6, 160)) < 0.5, np.repeat(np.arange(5), 32)
    for look_choice in ("paper", "nested"):
        chosen = [choose(look_choice, correct.astype(kind), split_of).chosen for kind in (bool, float)]
        assert np.array_equal(*chosen)


# ---- as rows


def test_identical_repeats_change_no_number(tmp_path):
    for name, repeats in (("one", 1), ("three", 3)):
        make_evals(tmp_path / name, **SMALL, repeats=repeats, unlearning_repeats=repeats)
        assert tables(tmp_path / name) == 0
    one, three = (planted(tmp_path / folder) for folder in ("one", "three"))
    assert set(one.pop("n_runs")) == {1} and set(three.pop("n_runs")) == {9}
    pd.testing.assert_frame_equal(one, three)
    for name in ("contrasts", "variants"):
        paths = [tmp_path / folder / "tables" / f"{name}.csv" for folder in ("one", "three")]
        assert paths[0].read_bytes() == paths[1].read_bytes(), name
    runs, once = (read_table(tmp_path / folder / "tables" / "runs.csv") for folder in ("three", "one"))
    assert len(runs) == 9 * len(once)
    for repeats in ((0, 0), (2, 1)):
        same = runs[(runs.unlearning_repeat == repeats[0]) & (runs.attack_repeat == repeats[1])]
        same = same.assign(unlearning_repeat=0, attack_repeat=0)
        pd.testing.assert_frame_equal(same.reset_index(drop=True), once)


def test_two_repeats_by_hand(tmp_path):
    """Eight of 16 V questions are right in both repeats, and in the second repeat one in each split that was wrong."""
    make_evals(
        tmp_path, **SMALL | {"epochs": 1}, repeats=2, accuracies={("unlearned_attacked", "pretrained", "GD"): 0.5}
    )

    def change(document):
        for one in document["looks"]:
            if one["repeat"] == 1:
                asked = [q for q in one["questions"] if q["role"] == "V"]
                wrong = next(q for q in asked if not _right(q))
                scores = wrong["probes"]["letter"]["scores"]
                scores[wrong["answer"]] = 1.0

    edit(tmp_path, "attack-pretrained-s0.gd-0.1", change)
    assert tables(tmp_path) == 0
    rows = planted(tmp_path, probe="letter")
    assert rows["acc_attacked"].tolist() == [(8 + 2 * 0.5) / 16] * 2
    assert rows["acc_attacked_low"].tolist() == pytest.approx([_wilson(9, 16)[0]] * 2, abs=1e-6)
    assert set(planted(tmp_path, probe="likelihood")["acc_attacked"]) == {0.5}
    text = (tmp_path / "tables" / "accuracy.csv").read_text().splitlines()
    reached = (
        "pretrained,miniature,GD,RTT,default,0,0.1,0,unlearned_attacked,split_0,V,none,letter,,30,epoch=1 lr=0.001"
    )
    assert f"people_p,{reached},8,4.5,0.562500," in next(line for line in text if reached in line)


def _right(entry):
    scores = entry["probes"]["letter"]["scores"]
    return scores.index(max(scores)) == entry["answer"]


def _wilson(x, n, z=1.959963984540054):
    """The two roots of (x / n - p)^2 = z^2 p (1 - p) / n."""
    return sorted(np.roots([1 + z * z / n, -(2 * x / n + z * z / n), (x / n) ** 2]).real)


@pytest.fixture(scope="module")
def two_attacks(tmp_path_factory):
    """A study with RTT and quantise, by which the second V split is given back less."""
    folder = tmp_path_factory.mktemp("two")
    make_evals(
        folder,
        **SMALL | {"methods": ("GD", "RIA"), "arms": ("pretrained", "taught")},
        attacks=("quantise", "RTT"),
        accuracies={"original_attacked": 1.0} | {("unlearned_attacked", "pretrained", m): 0.75 for m in ("GD", "RIA")},
    )
    for name in ("quantise-pretrained-s0.gd-0.1", "quantise-pretrained-s0.original"):

        def change(document, name=name):
            kept = 2 if "gd" in name else 6  # right answers of 8 in split_1, at every setting
            for one in document["looks"]:
                asked = [q for q in one["questions"] if q["split"] == "split_1"]
                for place, entry in enumerate(asked):
                    best = entry["answer"] if place < kept else (entry["answer"] + 1) % 4
                    entry["probes"]["letter"]["scores"] = [float(i == best) for i in range(4)]

        edit(folder, name, change)
    assert tables(folder) == 0
    return folder


def test_each_attack_has_its_rows_rtt_first(two_attacks):
    rows = planted(two_attacks, look_choice="paper", probe="letter")
    assert list(zip(rows["arm"], rows["method"], rows["attack"], strict=True)) == [
        (arm, method, attack)
        for arm in ("pretrained", "taught")
        for method in ("GD", "RIA")
        for attack in ("RTT", "quantise")
    ]
    accuracy = read_table(two_attacks / "tables" / "accuracy.csv")
    first = accuracy[accuracy["stage"] == "unlearned_attacked"].drop_duplicates(["arm", "method", "attack"])
    assert first["attack"].tolist() == ["RTT", "quantise"] * 4


def test_an_attack_has_its_own_original_control_and_looks(two_attacks):
    """By hand, split_0 and split_1: unlearned 6 + 2 of 16, the original 8 + 6 of 16."""
    row = planted(two_attacks, arm="pretrained", method="GD", attack="quantise", look_choice="paper", probe="letter")
    row = row.iloc[0]
    assert (row.acc_attacked, row.acc_original_attacked) == (0.5, 0.875)
    assert row.recovery == pytest.approx(0.5 / 0.875, abs=1e-6)
    assert np.isnan(row.t_acc_attacked)
    other = planted(two_attacks, arm="pretrained", method="GD", attack="RTT", look_choice="paper", probe="letter")
    assert (other.iloc[0].acc_attacked, other.iloc[0].acc_original_attacked) == (0.75, 1.0)
    assert row.floor == other.iloc[0].floor and row.acc_unlearned == other.iloc[0].acc_unlearned
    assert other.iloc[0].t_acc_attacked == 1.0
    assert not np.isnan(row.acc_control_attacked)


def test_rows_of_an_attack_without_t(two_attacks):
    table = read_table(two_attacks / "tables" / "accuracy.csv")
    rows = table[(table["attack"] == "quantise") & (table["arm"] == "pretrained") & (table["method"] == "GD")]
    assert set(rows["set"]) == {"V"} and set(rows["v_split"]) == {"split_0", "split_1", "all"}
    looks = rows[(rows["look_choice"] == "none") & (rows["probe"] == "letter") & (rows["v_split"] == "split_1")]
    assert looks["setting"].tolist() == ["bits=8 group_size=32", "bits=4 group_size=32"]
    assert looks["n_correct"].tolist() == [2, 2]


def test_a_tie_of_settings_goes_to_the_gentlest(two_attacks):
    """At split_1 both settings of quantise give 2 of 8; nothing of the number of bits may decide."""
    found = read_eval(two_attacks / "evals" / "quantise-pretrained-s0.gd-0.1.json")
    correct = v_correct(found, "letter")
    [correct] = correct  # one repeat
    choice = choose("paper", correct, np.repeat([0, 1], 8))
    assert choice.chosen[8:].tolist() == [0] * 8 and choice.chosen[:8].tolist() == [1] * 8
    # Nested, by hand: in each half the first look loses split_0's difference to the second.
    first = halves(np.repeat([0, 1], 8))
    nested = choose("nested", correct, np.repeat([0, 1], 8))
    for half in (first, ~first):
        sums = correct[:, ~half].sum(axis=1)
        assert set(nested.chosen[half]) == {int(sums[1] > sums[0])}


def test_contrasts_and_variants_keep_attacks_apart(two_attacks, tmp_path):
    table = read_table(two_attacks / "tables" / "contrasts.csv")
    rows = table[(table["method"] == "GD - RIA") & (table["arm_a"] == "pretrained") & (table["look_choice"] == "paper")]
    rows = rows[(rows["probe"] == "letter") & (rows["quantity"] == "acc_attacked")]
    assert dict(zip(rows["attack"], rows["mean"], strict=True)) == {"RTT": 0.0, "quantise": -0.25}
    for name in ("evals", "point_choices"):
        (tmp_path / name).symlink_to(two_attacks / name)
    stems = {kind: sorted(path.stem for path in (tmp_path / kind).iterdir()) for kind in ("evals", "point_choices")}
    default = {**stems, "reported": "nested"}
    only_rtt = {**default, "evals": [stem for stem in stems["evals"] if not stem.startswith("quantise")]}
    runs = write_runs(tmp_path, {"default": default, "only_rtt": only_rtt}, attacks=("quantise", "RTT"))
    assert tables(tmp_path, *runs) == 0
    assert set(read_table(tmp_path / "tables" / "variants.csv")["attack"]) == {"RTT"}
    # The order is that of the attacks' classes, not that of runs.json's keys.
    assert list(dict.fromkeys(planted(tmp_path, variant="default")["attack"])) == ["RTT", "quantise", "strongest"]
    assert set(planted(tmp_path, variant="only_rtt")["attack"]) == {"RTT"}


def test_an_arm_without_an_attack_has_no_rows_of_it(two_attacks, tmp_path):
    (tmp_path / "point_choices").symlink_to(two_attacks / "point_choices")
    (tmp_path / "evals").mkdir()
    for path in (two_attacks / "evals").iterdir():
        if not path.name.startswith("quantise-taught"):
            (tmp_path / "evals" / path.name).symlink_to(path)
    assert tables(tmp_path) == 0
    rows = planted(tmp_path)
    assert set(rows["attack"][rows["arm"] == "taught"]) == {"RTT"}
    assert set(rows["attack"][rows["arm"] == "pretrained"]) == {"RTT", "quantise", "strongest"}


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("quantise-pretrained-s0.original", "no evaluation of the attack quantise with target original"),
        ("quantise-pretrained-s0.gd-0.1", "its evaluation by the attack quantise is missing"),
    ],
)
def test_an_attack_that_was_run_on_an_arm_is_complete_there(two_attacks, tmp_path, capsys, missing, message):
    (tmp_path / "point_choices").symlink_to(two_attacks / "point_choices")
    (tmp_path / "evals").mkdir()
    for path in (two_attacks / "evals").iterdir():
        if path.stem != missing:
            (tmp_path / "evals" / path.name).symlink_to(path)
    assert tables(tmp_path) == 1
    assert message in capsys.readouterr().err


def test_an_evaluation_of_another_attack_is_not_the_same_run_twice(two_attacks, tmp_path, capsys):
    (tmp_path / "point_choices").symlink_to(two_attacks / "point_choices")
    (tmp_path / "evals").mkdir()
    for path in (two_attacks / "evals").iterdir():
        (tmp_path / "evals" / path.name).symlink_to(path)
    document = json.loads((two_attacks / "evals" / "quantise-pretrained-s0.gd-0.1.json").read_text())
    (tmp_path / "evals" / "stale.json").write_text(json.dumps(document))
    assert tables(tmp_path) == 1
    error = capsys.readouterr().err
    assert "stale.json: the same labels as" in error and "quantise-pretrained-s0.gd-0.1.json" in error

"""What `python -m rtt tables` refuses, and how it says so: nothing is written."""

import json
import math

import pytest
from evals_builder import SMALL, edit, make_evals, tables
from rtt.errors import UserError
from rtt.stats.tables import read_table


def refuse(folder, capsys) -> str:
    assert tables(folder) == 1
    assert not (folder / "tables").exists()
    return capsys.readouterr().err


@pytest.fixture
def small(tmp_path):
    make_evals(tmp_path, **SMALL)
    return tmp_path


def test_nan_is_named(small, capsys):
    def change(document):
        document["looks"][2]["questions"][3]["probes"]["likelihood"]["scores"][1] = math.nan

    path = edit(small, "attack-pretrained-s0.original", change)
    error = refuse(small, capsys)
    assert str(path) in error and "looks[2]" in error and "likelihood" in error and "people_p/split_0/004" in error


@pytest.mark.parametrize("kind", ["attack-pretrained-s0.gd-0.1", "unlearn-pretrained-gd-s0"])
def test_other_questions_than_the_original(small, capsys, kind):
    def change(document):
        for look in document["looks"]:
            look["questions"][0]["id"] = "people_p/split_0/999"

    path = edit(small, kind, change)
    error = refuse(small, capsys)
    assert str(path) in error and "model-pretrained-s0.json" in error and "split_0/001" in error


def test_a_missing_v_split(small, capsys):
    path = edit(small, "attack-pretrained-s0.gd-0.1", lambda d: d["looks"].pop(0))
    error = refuse(small, capsys)
    assert str(path) in error and "no look for setting 'epoch=1 lr=0.001', v_split split_0" in error


def test_a_v_split_missing_altogether(small, capsys):
    def change(document):
        document["looks"] = [look for look in document["looks"] if look["v_split"] == "split_0"]

    path = edit(small, "attack-pretrained-s0.gd-0.1", change)
    assert f"{path}: v_splits ['split_0']" in refuse(small, capsys)


def test_other_answers(small, capsys):
    def change(document):
        for look in document["looks"]:
            look["questions"][2]["answer"] = (look["questions"][2]["answer"] + 1) % 4

    edit(small, "unlearn-pretrained-gd-s0", change)
    assert "answers differ" in refuse(small, capsys)


def test_control_of_another_shape(small, capsys):
    def change(document):
        for look in document["looks"]:
            del look["questions"][0]

    path = edit(small, "attack-control-people_f-s0.control", change)
    error = refuse(small, capsys)
    assert str(path) in error and "same T and V sizes" in error


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("model-pretrained-s0", "no evaluation of kind original"),
        ("attack-pretrained-s0.original", "recovery has no denominator"),
        ("attack-pretrained-s0.gd-0.1", "its evaluation by the attack RTT is missing"),
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
    assert (accuracy["retain_budget"] == 0.1).any()  # the chosen point is named
    assert not len(read_table(small / "tables/recovery.csv"))


def edit_choice(folder, change):
    path = folder / "point_choices" / "choose-pretrained-gd-s0.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return path


def test_a_missing_point_choice(small, capsys):
    (small / "point_choices" / "choose-pretrained-gd-s0.json").unlink()
    assert "no point choice for GD of (people_p, pretrained, miniature, 0)" in refuse(small, capsys)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["selected"]["0.1"].update(step=25), "chosen step 25 is not in unlearn-pretrained-gd-s0"),
        (lambda d: d["selected"]["0.1"].update(run="other"), "chosen step 30 is not in other"),
        (lambda d: d["selected"].update({"0.1": 30}), "selected['0.1'] is 30, expected"),
        (lambda d: d["selected"]["0.1"].update(step=True), "selected['0.1'].step is True"),
        (lambda d: d["selected"].update(all=None), "key 'all' is not a retain budget"),
        (lambda d: d["labels"].pop("method"), "labels.method is missing"),
        (lambda d: d["points"][0].update(run="gone"), "trajectory gone has no evaluation of kind unlearned"),
        (lambda d: d["points"].clear(), "trajectory unlearn-pretrained-gd-s0 was scored, but no point choice read it"),
    ],
)
def test_a_point_choice_that_does_not_fit(small, capsys, change, message):
    path = edit_choice(small, change)
    error = refuse(small, capsys)
    assert str(path) in error and message in error


def test_two_files_with_the_same_labels(small, capsys):
    first = small / "evals" / "attack-pretrained-s0.gd-0.1.json"
    (small / "evals" / "attack-stale.json").write_bytes(first.read_bytes())
    error = refuse(small, capsys)
    assert "attack-stale.json" in error and str(first) in error


def asked(document):
    """All questions of a document."""
    return [question for look in document["looks"] for question in look["questions"]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("labels"), "labels is missing"),
        (lambda d: d["labels"].pop("seed"), "missing ['seed']"),
        (lambda d: d["labels"].pop("attack"), "missing ['attack']"),
        (lambda d: d["labels"].update(method="a/b"), "labels.method is 'a/b'"),
        (lambda d: d["labels"].update(attack="=a"), "labels.attack is '=a'"),
        (lambda d: d["labels"].update(attack=None), "labels.attack is null"),
        (lambda d: [q.update(probes={}) for q in asked(d)], "none of the probes that this program knows: letter,"),
        (lambda d: [q.update(probes={"x": {"scores": [0, 1]}}) for q in asked(d)], "none of the probes"),
        (lambda d: d.update(schema_version=1), "schema_version is 1, this program reads 2"),
        (lambda d: d.update(kind="rtt"), "kind is 'rtt', expected original, unlearned or attacked"),
        (lambda d: asked(d)[0]["probes"]["letter"]["scores"].pop(), "has the scores ["),
        (lambda d: asked(d)[1]["probes"]["letter"].update(scores=["-1"] * 4), "split_0/002 has the scores ['-1',"),
        (
            lambda d: [q["probes"]["letter"].update(scores=[0.0]) for q in asked(d)],
            "expected a list of at least 2 numbers",
        ),
        (lambda d: asked(d)[0]["probes"].pop("letter"), "differ in their probes"),
        (lambda d: asked(d)[0]["probes"].update(letter=None), "lacks or garbles"),
        (lambda d: asked(d)[0].pop("group"), "lacks or garbles 'group'"),
        (lambda d: asked(d)[0].update(group=7), "id, split or group is not a text"),
        (lambda d: d["looks"][1]["questions"][0].update(group="other"), "a question's group differs from looks[0]"),
        (lambda d: asked(d)[0].update(answer=4), "from 0 to 3"),
        (lambda d: asked(d)[0].update(role="T"), "role must be V in v_split 'split_0' and T elsewhere"),
        (lambda d: d["looks"][0]["questions"].append(d["looks"][0]["questions"][0]), "stands twice"),
        (lambda d: d["looks"].append(d["looks"][0]), "repeats setting 'epoch=1 lr=0.001', v_split split_0, repeat 0"),
        (lambda d: d["looks"].append({**d["looks"][0], "repeat": 1}), "v_split split_1 has the repeats [0]"),
        (lambda d: d["looks"][0].update(repeat=-1), "looks[0].repeat is -1, expected 0 or more"),
        (lambda d: d["looks"][0].pop("repeat"), "looks[0].repeat is missing"),
        (lambda d: d["looks"][0].update(attack="quantise"), "looks[0].attack is 'quantise', labels.attack is 'RTT'"),
        (lambda d: d["looks"][0].update(setting={"lr": "a b"}), "setting has 'lr': 'a b'"),
        (lambda d: d["looks"][0].update(setting={"lr": math.inf}), "setting has 'lr': inf"),
        (lambda d: d["looks"][0].update(setting={"lr": [1]}), "setting has 'lr': [1]"),
        (lambda d: d["looks"][0].update(v_split=None), "role must be V everywhere, as v_split is null"),
        (lambda d: d["looks"].__setitem__(0, 3), "looks[0] is 3, expected an object"),
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


GOOD = {"evals": [], "point_choices": [], "reported": "nested"}


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ({"study": {}}, "variants is None"),
        ({"variants": {"default": GOOD}, "study": {}}, "study.point_choice is None"),
        (
            {"variants": {"default": GOOD}, "study": {"point_choice": {"probes": ["word"]}}},
            "study.point_choice.probes: 'word', expected some of letter_permuted, letter, letter_calibrated",
        ),
        (
            {"variants": {"default": GOOD}, "study": {"point_choice": {}, "criteria": {"headline": ["word"]}}},
            "study.criteria.headline is ['word'], expected some of letter_permuted, letter",
        ),
        (
            {"variants": {"default": GOOD}, "study": {"point_choice": {}, "criteria": {"margin": "wide"}}},
            "study.criteria.margin is 'wide', expected a number from 0 to 1",
        ),
        (
            {"variants": {"default": GOOD}, "study": {"point_choice": {}, "attacks": ["RTT"]}},
            "study.attacks is ['RTT'], expected an object",
        ),
        ({"variants": {"x": {}}}, "no 'default', found x"),
        ({"variants": {"default": {"evals": [], "point_choices": []}}}, "variants.default: expected the lists"),
        (
            {"variants": {"default": GOOD | {"evals": ["../../etc/passwd"]}}},
            "variants.default: found '../../etc/passwd'",
        ),
        ({"variants": {"default": GOOD | {"point_choices": ["/etc/passwd"]}}}, "found '/etc/passwd', expected RUN or"),
        ({"variants": {"default": GOOD | {"evals": [3]}}}, "variants.default: found 3, expected RUN or RUN/TARGET"),
    ],
)
def test_a_runs_file_that_is_not_one(small, capsys, runs, message):
    (small / "runs.json").write_text(json.dumps(runs))
    assert tables(small, "--runs", str(small / "runs.json")) == 1
    error = capsys.readouterr().err
    assert str(small / "runs.json") in error and message in error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["looks"][0].update(repeat=1), "nothing was attacked, so null, {}, null and 0 are expected"),
        (lambda d: d["looks"][0].update(setting={"lr": 0.1}), "setting {'lr': 0.1}"),
        (lambda d: d["labels"].update(attack="RTT"), "labels.attack 'RTT', expected a method and no attack"),
        (lambda d: d["looks"][1].update(step=10), "steps [10, 10, 30] are not distinct"),
        (lambda d: d["looks"][0].pop("step"), "looks[0].step is missing"),
        (lambda d: asked(d)[0].update(role="T"), "role differs from looks[0]"),
    ],
)
def test_malformed_points_are_named(small, capsys, change, message):
    path = edit(small, "unlearn-pretrained-gd-s0", change)
    error = refuse(small, capsys)
    assert str(path) in error and message in error


def test_an_attack_uses_t_everywhere_or_nowhere(small, capsys):
    def change(document):
        for look in document["looks"][:2]:
            look["v_split"] = None
            for question in look["questions"]:
                question["role"] = "V"
        document["looks"][1]["setting"] = {"lr": 0.5, "epoch": 1}

    edit(small, "attack-pretrained-s0.original", change)
    assert "v_split is null in some looks and 'split_0' in others" in refuse(small, capsys)


def test_other_numbers_of_choices_in_one_arm(small, capsys):
    def change(document):
        for question in asked(document):
            question["probes"] = {"letter": {"scores": [0.0, -1.0, -2.0, -3.0, -4.0]}}

    path = edit(small, "unlearn-pretrained-gd-s0", change)
    error = refuse(small, capsys)
    assert "split_0/001 has 5 choices" in error and "model-pretrained-s0.json has 4" in error and str(path) in error

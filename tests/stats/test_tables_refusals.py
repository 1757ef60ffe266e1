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


def look_choice(folder, change):
    path = folder / "point_choices" / "choose-pretrained-gd-s0.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return path


def test_a_missing_selection(small, capsys):
    (small / "point_choices" / "choose-pretrained-gd-s0.json").unlink()
    assert "no point choice for GD of (people_p, pretrained, miniature, 0)" in refuse(small, capsys)


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
    path = look_choice(small, change)
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
        (lambda d: d["results"][0]["questions"][0]["scores"].pop("letter"), "differ in their probes"),
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


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"study": {}}, "variants is None"),
        ({"variants": {"x": {}}}, "no 'default', found x"),
        ({"variants": {"default": {"evals": [], "point_choices": []}}}, "variants.default: expected the lists"),
    ],
)
def test_a_plan_that_is_not_one(small, capsys, plan, message):
    (small / "runs.json").write_text(json.dumps(plan))
    assert tables(small, "--plan", str(small / "runs.json")) == 1
    error = capsys.readouterr().err
    assert str(small / "runs.json") in error and message in error

"""questions.csv: each model's probabilities and answers, against numbers by hand and a plain reading of the files."""

import csv
import json
import math
import shutil

import numpy as np
import pytest
from evals_builder import SMALL, edit, make_evals, tables, write_runs
from rtt.bundle import compacting
from rtt.files import natural, write_json
from rtt.scoring.halves import halves
from rtt.stats.tables import read_table

STUDY = SMALL | dict(
    arms=("pretrained", "taught"), methods=("GD", "RMU"), epochs=3, repeats=2, seeds=(3, 4), budgets=(0.1, 0.3),
    attacks=("quantise", "RTT"), oracle=True, probes=("letter", "letter_permuted", "likelihood"), unlearning_repeats=2,
)  # fmt: skip
PROBE = "letter_permuted"
KEYS = ("arm", "stage", "method", "id")


def rows(path) -> list[dict[str, str]]:
    with open(path / "tables/questions.csv", newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def ties(document):
    """Let the right choice of each look's first question tie with one other; make its second one of three choices."""
    for look in document["looks"]:
        first, second = (next(q for q in look["questions"] if q["id"].endswith(f"/00{i}")) for i in (1, 2))
        first["probes"][PROBE]["scores"] = [
            -3.0 + (i in (first["answer"], (first["answer"] + 1) % 4)) for i in range(4)
        ]
        if second["answer"] < 3:
            for probe in second["probes"].values():
                for key in ("scores", "tokens", "bytes"):
                    if key in probe:
                        probe[key] = probe[key][:3]
                if "right" in probe:
                    probe["right"] = min(probe["right"], 3)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two arms, attacks, budgets and seeds, the first of which is not 0; repeats of everything; an oracle."""
    folder = tmp_path_factory.mktemp("questions") / "study"
    make_evals(folder, **STUDY)
    for path in (folder / "evals").iterdir():
        edit(folder, path.stem, ties)
    assert tables(folder) == 0
    return folder


def document(folder, name):
    return json.loads((folder / f"evals/{name}.json").read_text())


def softmax(scores):
    total = sum(math.exp(score) for score in scores)
    return [math.exp(score) / total for score in scores]


def by_hand(questions, split=None):
    """Return {id: (right, probabilities)} of the questions with role V."""
    found = {}
    for one in questions:
        if one["role"] == "V" and split in (None, one["split"]):
            scores = one["probes"][PROBE]["scores"]
            best = [i for i, score in enumerate(scores) if score == max(scores)]
            found[one["id"]] = (one["answer"] in best) / len(best), softmax(scores)
    return found


def nested(found):
    """Return {id: (right, probabilities)} after an attack: of one repeat, each half at the look that is best on the
    other half, whose answers count; of looks that are equal the first."""
    looks = [one for one in found["looks"] if one["repeat"] == 0]
    v = {}  # setting -> id -> what it was answered by the model that had its split as V
    for look in looks:
        v.setdefault(json.dumps(look["setting"]), {}).update(by_hand(look["questions"], look["v_split"]))
    ids = sorted(next(iter(v.values())), key=lambda name: [natural(part) for part in name.split("/")])
    splits = [name.split("/")[1] for name in ids]
    first = dict(zip(ids, halves(np.array([sorted(set(splits)).index(one) for one in splits])), strict=True))
    answers = {}
    for half in (True, False):
        totals = [sum(one[name][0] for name in ids if first[name] != half) for one in v.values()]
        best = list(v)[max(range(len(totals)), key=lambda i: (round(totals[i], 9), -i))]
        answers |= {name: v[best][name] for name in ids if first[name] == half}
    return answers


def test_every_row_is_what_a_plain_reading_of_the_evaluations_gives(study):
    table, expected = rows(study), {}
    for arm, dataset in (("pretrained", "people_p"), ("taught", "people_f")):
        one = {("original", ""): by_hand(document(study, f"model-{arm}-s3")["looks"][0]["questions"])}
        one["original_attacked", ""] = nested(document(study, f"attack-{arm}-s3.original"))
        for method in ("GD", "RMU"):
            points = document(study, f"unlearn-{arm}-{method.lower()}-s3")["looks"]
            one["unlearned", method] = by_hand(max(points, key=lambda look: look["step"])["questions"])
            one["unlearned_attacked", method] = nested(document(study, f"attack-{arm}-s3.{method.lower()}-0.1"))
        one["oracle", ""] = by_hand(document(study, f"oracle-{dataset}-s3")["looks"][0]["questions"])
        one["oracle_attacked", ""] = nested(document(study, f"attack-oracle-{dataset}-s3.control"))
        expected |= {(arm, *model, name): answer for model, answers in one.items() for name, answer in answers.items()}
    assert {tuple(row[key] for key in KEYS) for row in table} == set(expected) and len(table) == len(expected)
    for row in table:
        right, shares = expected[tuple(row[key] for key in KEYS)]
        assert float(row["right"]) == pytest.approx(right, abs=1e-6)
        said = [float(row[f"p_{i + 1}"]) for i in range(len(shares))]
        assert said == pytest.approx(shares, abs=2**-11 + 5e-5)  # half precision, and four decimals
        assert all(row[f"p_{i}"] == "" for i in range(len(shares) + 1, 5)) and "p_5" not in row
        assert all(len(row[f"p_{i + 1}"].split(".")[1]) == 4 for i in range(len(shares)))
        if right in (0, 1):
            assert (int(np.argmax(shares)) == int(row["answer"])) == (right == 1)
    constant = {"seed": "3", "probe": PROBE, "attack": "RTT", "retain_budget": "0.1", "model": "miniature"}
    assert all(row[key] == value for row in table for key, value in constant.items())
    assert all(row["v_split"] == row["id"].split("/")[1] and row["group"] == row["id"] for row in table)
    assert "0.5" in {row["right"] for row in table}  # of two that tie
    assert "" in {row["p_4"] for row in table}  # of three choices


def test_the_halves_are_shown_at_looks_of_their_own(tmp_path):
    """A study in which the two halves choose different looks; by hand, where each is best."""
    make_evals(tmp_path, **SMALL, probes=(PROBE,))
    first = dict(zip([f"people_p/split_{s}/{i:03d}" for s in (0, 1) for i in range(1, 9)],
                     halves(np.repeat([0, 1], 8)), strict=True))  # fmt: skip

    def plant(found):
        for look in found["looks"]:
            for one in look["questions"]:
                # The first epoch knows the first halves, the second the second ones.
                knows = first[one["id"]] == (look["setting"]["epoch"] == 1)
                best = one["answer"] if knows else (one["answer"] + 1) % 4
                one["probes"][PROBE]["scores"] = [
                    -0.25 if i == best else -2.0 - look["setting"]["epoch"] for i in range(4)
                ]

    edit(tmp_path, "attack-pretrained-s0.gd-0.1", plant)
    assert tables(tmp_path) == 0
    shown = [row for row in rows(tmp_path) if row["stage"] == "unlearned_attacked"]
    assert len(shown) == 16 and {row["right"] for row in shown} == {"0"}  # each half at the other's best look
    # e^-.25 / (e^-.25 + 3 e^-3) = .7788 / .9282 at epoch 1, e^-.25 / (e^-.25 + 3 e^-4) = .7788 / .8337 at epoch 2
    for row in shown:
        top = max(float(row[f"p_{i}"]) for i in range(1, 5))
        assert top == pytest.approx(0.9341 if first[row["id"]] else 0.8391, abs=6e-4), row["id"]


def test_compact_evaluations_give_the_same_bytes(study, tmp_path):
    copy = shutil.copytree(study, tmp_path / "compact")
    write_json(copy / "runs.json", {"study": {"seeds": [4, 3]}})
    before = (copy / "tables/questions.csv").read_bytes()
    compacting.compacted(copy, [path.stem for path in (copy / "evals").iterdir()])
    assert tables(copy) == 0
    assert (copy / "tables/questions.csv").read_bytes() == before and before.count(b"\n") > 200

    def lose(found):
        found["probabilities"] = found["probabilities"][1:]

    edit(copy, "attack-pretrained-s3.gd-0.1", lose)
    assert tables(copy) == 0
    left = rows(copy)
    gone = [row for row in rows(study) if row not in left]
    assert len(left) + len(gone) == len(rows(study)) and len({row["v_split"] for row in gone}) == 1
    assert {(row["stage"], row["method"]) for row in gone} == {("unlearned_attacked", "GD")}


def test_a_budget_that_no_point_keeps_and_an_arm_without_attacks(tmp_path):
    make_evals(tmp_path, **SMALL | {"methods": ("GD", "RMU")}, none={("pretrained", "GD", 0.1)})
    assert tables(tmp_path) == 0
    assert {row["method"] for row in rows(tmp_path)} == {"", "RMU"}
    for path in (tmp_path / "evals").glob("attack-*"):
        path.unlink()
    assert tables(tmp_path) == 0
    found = rows(tmp_path)
    assert {row["stage"] for row in found} == {"original", "unlearned"} and len(found) == 2 * 16
    assert {(row["attack"], row["retain_budget"]) for row in found} == {("", "0.1")}


def test_an_unfinished_study_gives_what_is_there(tmp_path):
    make_evals(tmp_path, **SMALL | {"methods": ("GD", "RMU")})
    stems = {kind: sorted(path.stem for path in (tmp_path / kind).iterdir()) for kind in ("evals", "point_choices")}
    options = write_runs(tmp_path, {"default": {**stems, "reported": "nested"}})
    (tmp_path / "evals/attack-pretrained-s0.rmu-0.1.json").unlink()
    assert tables(tmp_path, *options, "--partial") == 0
    found = read_table(tmp_path / "tables/questions.partial.csv")
    assert list(found.groupby("stage")["method"].nunique()) == [0, 0, 2, 1]
    for path in (tmp_path / "evals").iterdir():
        path.unlink()
    assert tables(tmp_path, *options, "--partial") == 0
    assert (tmp_path / "tables/questions.partial.csv").read_text().count("\n") == 1


def test_names_of_questions_are_data_alone(tmp_path):
    """A formula, markup and a line's end in an id or a group come back as they were."""
    make_evals(tmp_path, **SMALL, probes=(PROBE,))
    evil = {"people_p/split_0/001": '=cmd|"/c calc"!A1', "people_p/split_0/002": '<script>alert("x")</script>,\n2'}

    def plant(found):
        for look in found["looks"]:
            for one in look["questions"]:
                one["id"] = one["group"] = evil.get(one["id"], one["id"])

    for path in (tmp_path / "evals").iterdir():
        edit(tmp_path, path.stem, plant)
    assert tables(tmp_path) == 0
    told = {row["id"] for row in rows(tmp_path)}
    assert f"'{evil['people_p/split_0/001']}" in told and evil["people_p/split_0/002"] in told
    assert set(evil.values()) <= set(read_table(tmp_path / "tables/questions.csv")["id"])

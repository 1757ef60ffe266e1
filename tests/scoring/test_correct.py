"""The definition of each probe, by hand; halves that keep groups together."""

import math

import numpy as np
import pytest
from evals_builder import NOTHING, write_eval
from rtt.errors import UserError
from rtt.scoring.correct import Asked, calibrated, correct, judged, shortest
from rtt.scoring.halves import halves
from rtt.scoring.read import read_eval
from rtt.scoring.score import permuted
from rtt.study.names import ASKED, IN_EVALUATIONS, OF_ATTACKS, PROBES, asked_for, probes_of

LABELS = {
    "dataset": "d", "arm": "a", "model": "m", "method": None, "seed": 0, "retain_budget": None,
    "target": "original", "control_for": [], "attack": None,
}  # fmt: skip
INF = math.inf


def logs(*values):
    return [math.log(value) for value in values]


def test_a_permuted_answer_is_the_mean_over_rotations_by_hand():
    """Three choices x, y, z: shown xyz, yzx, zxy; probabilities of A, B, C, of which a tenth is on other words."""
    rotations = [(0.6, 0.2, 0.1), (0.6, 0.2, 0.1), (0.3, 0.45, 0.15)]
    scores, right = permuted([log for row in rotations for log in logs(*row)], answer=0)
    x = math.log(6 / 9) + math.log(1 / 9) + math.log(45 / 90)  # A, C, B
    y = math.log(2 / 9) + math.log(6 / 9) + math.log(15 / 90)  # B, A, C
    z = math.log(1 / 9) + math.log(2 / 9) + math.log(30 / 90)  # C, B, A
    assert scores == pytest.approx([x / 3, y / 3, z / 3])
    assert right == 2  # A in xyz and B in zxy are x; A in yzx is not
    assert permuted([log for row in rotations for log in logs(*row)], answer=1)[1] == 1
    assert permuted([log for row in rotations for log in logs(*row)], answer=2)[1] == 0


def test_saying_one_letter_ties_all_choices_exactly():
    for k in range(2, 11):
        row = [-0.1 - 0.37 * i for i in range(k)]
        scores, right = permuted(row * k, answer=k - 1)
        assert len({round(score, 6) for score in scores}) == 1 and right == 1


def test_ties_count_their_share_only_where_permuted():
    scores = np.array([[-1, -1, -2, -1], [-1, -1, -2, -1], [-1, -1, -2, -1]], float)
    found = correct({"letter": Asked(scores), "letter_permuted": Asked(scores)}, [0, 1, 2], None)
    assert found["letter_permuted"].tolist() == [1 / 3, 1 / 3, 0]
    assert found["letter"].tolist() == [1, 0, 0]  # the first maximum
    assert "letter_calibrated" not in found


def test_likelihood_per_token_and_byte():
    """The sum prefers the short choice, a token the second, a byte the third."""
    asked = Asked(np.array([[-3.0, -4.0, -8.0, -INF]]), np.array([[1, 2, 3, 1]]), np.array([[2, 3, 20, 1]]))
    for answer, probe in enumerate(("likelihood", "likelihood_token", "likelihood_byte")):
        found = correct({"likelihood": asked}, [answer], None)
        assert [name for name, right in found.items() if right[0]] == [probe]
    assert list(correct({"likelihood": Asked(asked.scores)}, [0], None)) == ["likelihood"]  # an older file


def test_letters_are_calibrated_on_the_other_half_by_hand():
    p = np.array([[0.4, 0.1], [0.6, 0.2], [0.1, 0.3], [0.5, 0.4]])
    scores, first = np.log(p), np.array([True, True, False, False])
    normal = np.log(p / p.sum(axis=1, keepdims=True))
    found = calibrated(scores, [(first, ~first), (~first, first)])
    assert found[:2] == pytest.approx(normal[:2] - (normal[2] + normal[3]) / 2)
    assert found[2:] == pytest.approx(normal[2:] - (normal[0] + normal[1]) / 2)
    assert calibrated(scores + 7, [(first, ~first), (~first, first)]) == pytest.approx(found)  # no mass, no matter


def test_calibration_takes_questions_with_as_many_choices_and_none_where_there_are_none():
    scores = np.log([[0.5, 0.5, 1e-300], [0.7, 0.2, 0.1], [0.8, 0.2, 1e-300], [0.6, 0.3, 0.1]])
    scores[[0, 2], 2] = -INF
    first = np.array([True, True, False, False])
    found = calibrated(scores, [(first, ~first), (~first, first)])
    assert found[2] == pytest.approx([math.log(1.6), math.log(0.4), -INF])
    assert found[3] == pytest.approx([math.log(6 / 7), math.log(1.5), 0])
    alone = calibrated(scores[[1, 2]], [(np.array([True, False]), np.array([False, True]))])
    assert alone[1] == pytest.approx([math.log(0.8), math.log(0.2), -INF])


def test_the_shortest_choice_shares_ties():
    tokens = np.array([[2, 1, 1, 3], [2, 1, 1, 3], [2, 3, 1, 1]])
    present = np.array([[True] * 4, [True] * 4, [True, True, False, False]])
    assert shortest(tokens, present, [1, 0, 0]).tolist() == [0.5, 0, 1]


def test_names_of_probes():
    assert probes_of(IN_EVALUATIONS) == list(PROBES) == [*probes_of(ASKED), *OF_ATTACKS]
    assert {asked_for(probe) for probe in PROBES} == set(IN_EVALUATIONS)
    assert probes_of(["likelihood", "letter"]) == [
        "letter", "letter_calibrated", "likelihood", "likelihood_token", "likelihood_byte",
    ]  # fmt: skip


# --- halves


@pytest.mark.parametrize("sizes", [[8, 8], [7, 7, 5], [1, 2, 3, 4], [157, 32]])
def test_groups_of_one_question_give_the_halves_without_groups(sizes):
    split_of = np.repeat(np.arange(len(sizes)), sizes)
    alone = [f"g{i}" for i in range(len(split_of))]
    assert halves(split_of, alone).tolist() == halves(split_of).tolist()


def test_groups_stay_whole_and_halves_balanced():
    rng = np.random.default_rng(1)
    for _ in range(50):
        split_of = np.repeat(np.arange(3), rng.integers(4, 30, 3))
        groups = [f"{split}/{rng.integers(8)}" for split in split_of]
        first = halves(split_of, groups)
        for group in set(groups):
            assert len({bool(half) for half, one in zip(first, groups, strict=True) if one == group}) == 1
        for split in range(3):
            here = split_of == split
            largest = max(groups.count(one) for one, at in zip(groups, here, strict=True) if at)
            assert abs(2 * first[here].sum() - here.sum()) <= largest


def test_a_group_in_two_splits_is_in_one_half():
    split_of = np.repeat([0, 1], 6)
    groups = [*"abcdef", *"fghija"]
    first = halves(split_of, groups)
    assert first[0] == first[11] and first[5] == first[6]
    assert first[:6].sum() == first[6:].sum() == 3


# --- as it is read


def question(number, split, role, answer, letter, group=None, **probes):
    name = f"d/{split}/{number:03d}"
    found = {"letter": {"scores": letter}} | probes
    return {
        "id": name, "split": split, "group": group or name, "role": role, "answer": answer, "probes": found,
    }  # fmt: skip


def original(tmp_path, questions):
    write_eval(tmp_path, "x", "original", LABELS, [{**NOTHING, "questions": questions}], group_size=None)
    return read_eval(tmp_path / "evals/x.json")


def random_questions(roles, seed=0):
    rng = np.random.default_rng(seed)
    return [
        question(
            i, f"s{i % 2}", role, int(rng.integers(3)), rng.uniform(-3, -1, 3).tolist(), group=f"g{i % 2}{i // 4}",
            letter_permuted={"scores": rng.integers(-2, 0, 3).tolist(), "right": int(rng.integers(4))},
            likelihood={
                "scores": rng.uniform(-9, -1, 3).tolist(), "tokens": rng.integers(1, 4, 3).tolist(),
                "bytes": rng.integers(1, 9, 3).tolist(),
            },
        )
        for i, role in enumerate(roles)
    ]  # fmt: skip


def test_roles_are_kept_apart_and_judged_as_they_are_read(tmp_path):
    asked = random_questions(["V"] * 12 + ["retain"] * 8 + ["choice"] * 8)
    scores = original(tmp_path, asked)
    for role, name in (("V", "forget"), ("retain", "retain"), ("choice", "choice")):
        mine = [one for one in asked if one["role"] == role]
        questions, right = getattr(scores, name), getattr(scores, f"{name}_correct")
        place = {one["id"]: i for i, one in enumerate(mine)}
        order = [place[identifier] for identifier in questions.ids]
        assert sorted(order) == list(range(len(mine)))
        alone = judged(mine, calibrate=True)  # by these questions alone
        assert list(right) == list(alone) == probes_of(["letter", "letter_permuted", "likelihood"])
        for probe, values in alone.items():
            assert right[probe].tolist() == [values[order].tolist()], (role, probe)
    assert scores.forget.shortest is not None and set(scores.forget.shortest) <= {0, 1, 0.5, 1 / 3}


def test_the_use_of_letters_by_hand(tmp_path):
    rows = [logs(0.5, 0.2, 0.1), logs(0.5, 0.3, 0.1), logs(0.1, 0.3, 0.1), logs(0.6, 0.1, 0.1)]
    asked = [
        question(i, "s", "V", 0, row, letter_permuted={"scores": [-1, -2, -3], "right": right})
        for i, (row, right) in enumerate(zip(rows, (3, 3, 1, 0), strict=True))
    ]
    asked.append(question(9, "s", "retain", 0, logs(0.1, 0.1, 0.8), letter_permuted={"scores": [0, 0, 0], "right": 0}))
    use = original(tmp_path, asked).letters
    assert use.said.tolist() == [[3, 1, 0]]
    assert use.entropy[0] == pytest.approx(0.75 * math.log2(4 / 3) + 0.25 * 2)
    assert use.mass[0] == pytest.approx((0.8 + 0.9 + 0.5 + 0.8) / 4)
    assert (use.rotations[0], use.all_rotations[0]) == (7 / 12, 0.5)
    use = original(tmp_path, [{**one, "probes": {"letter": one["probes"]["letter"]}} for one in asked]).letters
    assert np.isnan(use.rotations[0]) and np.isnan(use.all_rotations[0]) and use.said.tolist() == [[3, 1, 0]]


def test_after_an_attack_letters_are_calibrated_on_v_alone(tmp_path):
    """V's halves calibrate each other; T's questions, which were trained on, are calibrated by V and decide nothing."""
    asked = random_questions(["V", "T"] * 8)
    for one in asked:
        one["role"] = "V" if one["split"] == "s0" else "T"
    labels = LABELS | {"attack": "RTT"}
    looks = []
    for v in ("s0", "s1"):
        mine = [{**one, "role": "V" if one["split"] == v else "T"} for one in asked]
        looks.append({"attack": "RTT", "setting": {"x": 1}, "v_split": v, "repeat": 0, "questions": mine})
    write_eval(tmp_path, "y", "attacked", labels, looks, group_size=None)
    scores = read_eval(tmp_path / "evals/y.json")
    place = {one["id"]: one for one in asked}
    ordered = [place[name] for name in scores.questions.ids]
    letters = np.array([one["probes"]["letter"]["scores"] for one in ordered])
    normal = letters - np.log(np.exp(letters).sum(axis=1, keepdims=True))
    answers, first = scores.questions.answers, scores.questions.first_halves()
    for s, split in enumerate(("s0", "s1")):
        v = np.array([one == split for one in scores.questions.splits])
        expected = normal.copy()
        expected[v & first] -= normal[v & ~first].mean(axis=0)
        expected[v & ~first] -= normal[v & first].mean(axis=0)
        expected[~v] -= normal[v].mean(axis=0)
        right = (expected.argmax(axis=1) == answers).astype(float)
        assert scores.correct["letter_calibrated"][0, 0, s].tolist() == right.tolist()


@pytest.mark.parametrize(
    "key, value, says",
    [
        ("right", 4, r"letter_permuted\.right: d/s0/000 has 4; expected a number from 0 to 3"),
        ("right", "1", "expected a number from 0 to 3"),
        ("tokens", [1, 2], r"likelihood\.tokens: d/s0/000 has \[1, 2\]; expected 3 numbers of at least 1"),
        ("bytes", [1, 0, 1], "expected 3 numbers of at least 1"),
        ("bytes", None, "expected 3 numbers of at least 1"),
    ],
)
def test_counts_that_are_none_are_refused(tmp_path, key, value, says):
    asked = random_questions(["V"] * 4)
    asked[0]["probes"]["letter_permuted" if key == "right" else "likelihood"][key] = value
    with pytest.raises(UserError, match=says):
        original(tmp_path, asked)

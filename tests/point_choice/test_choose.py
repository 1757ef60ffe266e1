"""Which point of a method's trajectories is attacked: rules, ties, floors and the budget's edge, by hand."""

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rtt.errors import UserError
from rtt.point_choice.choose import describe, floor_before_attack
from rtt.scoring.read import points_of
from rtt.stats.point_rule import best
from rtt.study.settings import PointChoice
from trajectories import asked

LETTER = PointChoice(rule="nearest_floor", probes=["letter"])


def point(step, forget, retain=0.9, at_floor=False, floor=0.25, run="run"):
    return {
        "run": run,
        "step": step,
        "forget": {"letter": forget},
        "floor": {"letter": floor},
        "distance": abs(forget - floor),
        "at_floor": at_floor,
        "retain": {"letter": retain},
    }


def scored(questions, step=1, run="run"):
    """Return questions as the reader hands them on, of a trajectory with one point."""
    look = {"attack": None, "setting": {}, "v_split": None, "repeat": 0, "step": step, "questions": questions}
    return points_of(Path("file.json"), run, None, "unlearned", [look])


def choose(points, before, budget, rule):
    """Return the step chosen for one budget."""
    chosen = best(points, {"letter": before}, [budget], rule)[budget]
    return chosen and chosen["step"]


NEAREST = [
    # points, chosen step
    ([point(1, 0.9), point(2, 0.5), point(3, 0.4)], 3),
    ([point(1, 0.9), point(2, 0.4), point(3, 0.0)], 2),  # far below the floor is not forgetting
    ([point(1, 0.5), point(2, 0.0, retain=0.99)], 2),  # equally far: higher retain
    ([point(1, 0.28, 0.9, True), point(2, 0.25, 0.85, True), point(3, 0.3, 0.95, True)], 3),  # tied: higher retain
    ([point(1, 0.28, 0.9, True), point(2, 0.25, 0.9, True)], 1),  # then fewer steps
    ([point(2, 0.25, 0.9, True), point(1, 0.28, 0.9, True)], 1),
    ([point(1, 0.4, 0.99), point(2, 0.3, 0.86, True)], 2),  # at the floor goes before nearest but one
    ([point(7, 0.4, 0.9), point(8, 0.4, 0.95), point(9, 0.4, 0.95)], 8),  # same distance: retain, then steps
]


@pytest.mark.parametrize("points, expected", NEAREST)
def test_nearest_floor(points, expected):
    assert choose(points, 0.9, 1.0, "nearest_floor") == expected


STRONGEST = [
    ([point(1, 0.9), point(2, 0.5), point(3, 0.4)], 3),
    ([point(1, 0.4), point(2, 0.0)], 1),  # far below the floor is not forgetting
    ([point(1, 0.5), point(2, 0.0, retain=0.99)], 2),  # equally far: higher retain
    ([point(1, 0.3, 0.9, True), point(2, 0.26, 0.85, True)], 2),  # nearest, though both hold the floor
    ([point(7, 0.4, 0.9), point(8, 0.4, 0.95), point(9, 0.4, 0.95)], 8),
]


@pytest.mark.parametrize("points, expected", STRONGEST)
def test_strongest(points, expected):
    assert choose(points, 0.9, 1.0, "strongest") == expected


def test_a_collapse_to_one_letter_gains_nothing_under_strongest():
    """Two points of 40 facts, by hand. One says A whatever is asked and keeps the facts by likelihood; the other has
    half forgotten them by both probes."""
    collapsed, forgetting = asked(10, 36), asked(20, 36)
    for i, (one, other) in enumerate(zip(collapsed[:40], forgetting[:40], strict=True)):
        right = [0.0 if k == one["answer"] else -1.0 for k in range(4)]
        one["probes"] = {"letter": {"scores": [0.0, -1.0, -1.0, -1.0]}, "likelihood": {"scores": right}}
        other["probes"]["likelihood"] = {"scores": right if i < 20 else right[::-1]}
    both = PointChoice(probes=["letter", "likelihood"])
    points = [describe(scored(questions, step), 0, both) for step, questions in ((1, collapsed), (2, forgetting))]
    assert points[0]["forget"] == {"letter": 0.25, "likelihood": 1.0} and points[0]["distance"] == 0.75
    assert points[1]["distance"] == 0.25
    assert best(points, {"letter": 0.9}, [1.0], "strongest")[1.0]["step"] == 2
    alone = [describe(scored(questions, step), 0, LETTER) for step, questions in ((1, collapsed), (2, forgetting))]
    by_letters = best(alone, {"letter": 0.9}, [1.0], "strongest")[1.0]
    assert by_letters["step"] == 1  # by letters alone the collapse is taken for removal


def test_lowest():
    points = [point(1, 0.9), point(2, 0.05, 0.85), point(3, 0.05, 0.9), point(4, 0.05, 0.9), point(5, 0.2, 0.99)]
    assert choose(points, 0.9, 1.0, "lowest") == 3
    assert choose(points, 0.9, 1.0, "nearest_floor") == 5


@pytest.mark.parametrize("before, budget", [(0.9, 0.1), (0.96, 0.05), (0.7, 0.3), (1.0, 0.1), (0.8125, 0.1)])
def test_the_budgets_edge_is_within(before, budget):
    edge = before - budget * before
    assert choose([point(1, 0.3, edge)], before, budget, "nearest_floor") == 1
    assert choose([point(1, 0.3, edge - 3e-6)], before, budget, "nearest_floor") is None  # accuracies have 6 decimals
    assert choose([point(1, 0.3, before + 0.05)], before, budget, "lowest") == 1  # a gain is no loss


def test_the_budget_comes_before_the_floor():
    points = [point(10, 0.6, 0.88), point(20, 0.25, 0.7, True)]
    assert [choose(points, 0.9, budget, "nearest_floor") for budget in (0.05, 0.1, 0.3, 1.0)] == [10, 10, 20, 20]


def test_of_several_retain_probes_each_must_hold_the_budget():
    """Likelihood knew .8 and may lose .08, letters knew 1 and may lose .1."""
    before = {"letter": 1.0, "likelihood": 0.8}
    kept = {1: (0.9, 0.72), 2: (0.95, 0.7), 3: (0.85, 0.8), 4: (0.92, 0.75)}
    points = [point(step, 0.3) | {"retain": dict(zip(before, both, strict=True))} for step, both in kept.items()]
    found = {step: best([p], before, [0.1], "strongest")[0.1] is not None for step, p in zip(kept, points, strict=True)}
    assert found == {1: True, 2: False, 3: False, 4: True}
    assert best(points, before, [0.1], "strongest")[0.1]["step"] == 4  # .92 of letters at least, 1 keeps .9 of both
    assert best(points, {"letter": 1.0}, [0.1], "strongest")[0.1]["step"] == 2  # by letters alone


def test_a_point_is_described_by_hand():
    """40 questions, floor 10 of 40. The Wilson interval of k of 40 holds .25 exactly for k = 5 .. 16."""
    hits = [4, 5, 10, 16, 17]
    points = [describe(scored(asked(k, 40 - k), k), 0, LETTER) for k in hits]
    assert [p["step"] for p in points] == hits
    assert [p["forget"]["letter"] for p in points] == [k / 40 for k in hits]
    assert [p["floor"]["letter"] for p in points] == [0.25] * 5
    assert [p["distance"] for p in points] == pytest.approx([0.15, 0.125, 0.0, 0.15, 0.175])
    # Wilson solves (k/40 - 1/4)^2 = z^2 (1/4)(3/4) / 40: |k - 10| <= 1.96 sqrt(7.5) = 5.37
    assert [p["at_floor"] for p in points] == [False, True, True, False, False]
    assert [p["retain"]["letter"] for p in points] == [1 - k / 40 for k in hits]


def test_of_several_probes_the_one_farthest_from_its_floor_counts_and_retain_has_its_own():
    """letter: 10 of 40 right, likelihood: 30 of 40; retain by likelihood, 20 of 40."""
    questions = asked(10, 36)
    for i, q in enumerate(questions):
        other = [0.0 if k == q["answer"] else -1.0 for k in range(4)]
        right = i < 30 or 40 <= i < 60
        q["probes"]["likelihood"]["scores"] = other if right else [-score for score in other]
    both = PointChoice(rule="nearest_floor", probes=["letter", "likelihood"], retain_probe="likelihood")
    found = describe(scored(questions), 0, both)
    assert found["forget"] == {"letter": 0.25, "likelihood": 0.75} and found["distance"] == 0.5
    assert not found["at_floor"] and found["retain"] == {"likelihood": 0.5}


def test_with_facts_set_apart_the_choice_sees_those_alone():
    """12 of 40 V questions right, 3 of 8 of the split `choice`: all of a point but its retain accuracy is of the 8."""
    questions = asked(12, 36)
    apart = asked(3, 0, n=8)[:8]
    for i, question in enumerate(apart):
        question |= {"id": f"d/choice/{i}", "split": "choice", "group": f"d/choice/{i}", "role": "choice"}
    found = describe(scored([*questions, *apart]), 0, LETTER)
    without = describe(scored(questions), 0, LETTER)
    assert found["forget"] == {"letter": 0.375} and without["forget"] == {"letter": 0.3}
    assert found["floor"] == {"letter": 0.25} and found["distance"] == 0.125  # one split: nobody has seen its letters
    assert found["retain"] == without["retain"] == {"letter": 0.9}
    changed = [dict(question) for question in questions]
    for question in changed[:40]:
        question["probes"] = {probe: {"scores": [0.0] * 4} for probe in question["probes"]}
    assert describe(scored([*changed, *apart]), 0, LETTER) == found  # whatever V says


def test_a_probe_that_was_not_scored_is_named():
    with pytest.raises(
        UserError, match=r"file.json: no scores by cloze, which the point choice asks for; it has letter"
    ):
        describe(scored(asked(1, 1)), 0, PointChoice(probes=["cloze"]))


def test_the_floor_of_letters_is_the_majority_letter_of_t_scored_on_v():
    """split_0 has the letters A A A B, split_1 A B B B: a guesser says B on split_0 and A on split_1."""
    letters = {"split_0": [0, 0, 0, 1], "split_1": [0, 1, 1, 1]}

    def floor(choices=(4,), order=1, splits=("split_0", "split_1"), probe="letter"):
        rows = [
            {
                "id": f"{split}/{i}/{k}", "split": split, "group": f"{split}/{i}/{k}", "role": "V", "answer": answer,
                "probes": {name: {"scores": [0.0] * k} for name in ("letter", "likelihood")},
            }
            for k in choices
            for split in splits
            for i, answer in enumerate(letters[split])
        ]  # fmt: skip
        return floor_before_attack(scored(rows[::order]).forget, probe)

    assert floor() == floor(order=-1) == 2 / 8
    assert floor(splits=["split_0"]) == 0.25  # without T there is no majority to learn
    assert floor(probe="likelihood") == 0.25
    assert floor((4, 2), probe="likelihood") == 0.375


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c"]), st.integers(1, 6), st.integers(0, 40), st.integers(20, 40), st.booleans()
        ),
        min_size=1, max_size=12, unique_by=lambda p: p[:2],
    ),
    st.sampled_from([0.05, 0.1, 0.3, 1.0]),
    st.sampled_from(["strongest", "nearest_floor", "lowest"]),
    st.randoms(use_true_random=False),
)  # fmt: skip
def test_in_any_order_the_choice_is_that_of_brute_force(rows, budget, rule, random):
    """A point is chosen when no admitted one goes before it, pair by pair, in exact fractions."""
    points = {(run, step): (k, kept, at) for run, step, k, kept, at in rows}
    admitted = {name: p for name, p in points.items() if Fraction(36 - p[1], 36) <= Fraction(str(budget))}

    def before(one, other):
        (k, kept, at), (k2, kept2, at2) = admitted[one], admitted[other]
        if rule == "lowest" and k != k2:
            return k < k2
        if rule == "nearest_floor" and at != at2:
            return at
        if (rule == "strongest" or (rule == "nearest_floor" and not at)) and abs(k - 10) != abs(k2 - 10):
            return abs(k - 10) < abs(k2 - 10)
        if kept != kept2:
            return kept > kept2
        return one[1] < other[1] if one[1] != other[1] else one[0] < other[0]

    first = [one for one in admitted if all(one == other or before(one, other) for other in admitted)]
    listed = [
        point(step, round(k / 40, 6), round(kept / 40, 6), at, run=run) for (run, step), (k, kept, at) in points.items()
    ]
    random.shuffle(listed)
    chosen = best(listed, {"letter": 0.9}, [budget], rule)[budget]
    assert len(first) == bool(admitted)
    assert (chosen and (chosen["run"], chosen["step"])) == (first[0] if first else None)

"""Which point of a method's trajectories is attacked: rules, ties and the budget's edge by hand, and the command."""

from fractions import Fraction

import pytest
import tiny
from evals_builder import make_evals, questions, write_eval
from hypothesis import given
from hypothesis import strategies as st
from rtt.__main__ import main
from rtt.code_version import code_version
from rtt.files import canonical_json, read_json, write_text
from rtt.point_choice.choose import best, describe
from rtt.study.expand import Runs
from rtt.study.settings import PointChoice


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


def choose(points, before, budget, rule):
    """Return the step chosen for one budget."""
    chosen = best(points, before, [budget], PointChoice(rule=rule))[budget]
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


def trajectory(folder, correct_counts, retain_counts, n=40, name="run"):
    """An evaluation with that many right forget and retain questions of n per point; letters balanced."""
    results = []
    for step, (hits, kept) in enumerate(zip(correct_counts, retain_counts, strict=True), 1):
        ids = [f"d/split_{i % 2}/{i:03d}" for i in range(n)] + [f"r/held_out/{i:03d}" for i in range(n)]
        splits = [f"split_{i % 2}" for i in range(n)] + ["held_out"] * n
        right = [i < hits for i in range(n)] + [i < kept for i in range(n)]
        answers = [i // 2 % 4 for i in range(n)] * 2
        rows = questions(
            ids, splits, ["V"] * n + ["retain"] * n, answers, dict.fromkeys(("letter", "likelihood"), right)
        )
        results.append({"lr": 1e-3, "v_split": None, "epoch": 0, "step": step, "questions": rows})
    labels = {
        "dataset": "d", "arm": "pretrained", "model": "m", "method": "GD", "seed": 0, "retain_budget": None,
        "target": "unlearned", "control_for": [],
    }  # fmt: skip
    if name == "before":
        labels |= {"method": None, "target": "original"}
    write_eval(folder, name, "original" if name == "before" else "unlearned", labels, results)
    return folder / "evals" / f"{name}.json"


def test_describe_by_hand(tmp_path):
    """40 questions, floor 10 of 40. The Wilson interval of k of 40 holds .25 exactly for k = 5 .. 16."""
    hits = [4, 5, 10, 16, 17]
    document = read_json(trajectory(tmp_path, hits, [36, 35, 34, 33, 32]))
    points = [describe("run", r["step"], r["questions"], PointChoice()) for r in document["results"]]
    assert [p["step"] for p in points] == [1, 2, 3, 4, 5]
    assert [p["forget"]["letter"] for p in points] == [k / 40 for k in hits]
    assert [p["floor"]["letter"] for p in points] == [0.25] * 5
    assert [p["distance"] for p in points] == pytest.approx([0.15, 0.125, 0.0, 0.15, 0.175])
    # Wilson solves (k/40 - 1/4)^2 = z^2 (1/4)(3/4) / 40: |k - 10| <= 1.96 sqrt(7.5) = 5.37
    assert [p["at_floor"] for p in points] == [False, True, True, False, False]
    assert [p["retain"]["letter"] for p in points] == [0.9, 0.875, 0.85, 0.825, 0.8]


def test_of_several_scorings_the_worst_counts_and_retain_has_its_own(tmp_path):
    """letter: 10 of 40 right, likelihood: 30 of 40; retain by likelihood."""
    (r,) = read_json(trajectory(tmp_path, [10], [36]))["results"]
    for i, q in enumerate(r["questions"]):
        other = [0.0 if k == q["answer"] else -1.0 for k in range(4)]
        right = i < 30 or 40 <= i < 60
        q["scores"]["likelihood"] = other if right else [-score for score in other]
    found = describe("run", 1, r["questions"], PointChoice(probes=["letter", "likelihood"], retain_probe="likelihood"))
    assert found["forget"] == {"letter": 0.25, "likelihood": 0.75} and found["distance"] == 0.5
    assert not found["at_floor"] and found["retain"] == {"likelihood": 0.5}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c"]), st.integers(1, 6), st.integers(0, 40), st.integers(20, 40), st.booleans()
        ),
        min_size=1, max_size=12, unique_by=lambda p: p[:2],
    ),
    st.sampled_from([0.05, 0.1, 0.3, 1.0]),
    st.sampled_from(["nearest_floor", "lowest"]),
    st.randoms(use_true_random=False),
)  # fmt: skip
def test_the_choice_is_brute_force_s_in_any_order(rows, budget, rule, random):
    """A point is chosen when no admitted one goes before it, pair by pair, in exact fractions."""
    points = {(run, step): (k, kept, at) for run, step, k, kept, at in rows}
    admitted = {name: p for name, p in points.items() if Fraction(36 - p[1], 36) <= Fraction(str(budget))}

    def before(one, other):
        (k, kept, at), (k2, kept2, at2) = admitted[one], admitted[other]
        if rule == "lowest" and k != k2:
            return k < k2
        if rule == "nearest_floor" and at != at2:
            return at
        if rule == "nearest_floor" and not at and abs(k - 10) != abs(k2 - 10):
            return abs(k - 10) < abs(k2 - 10)
        if kept != kept2:
            return kept > kept2
        return one[1] < other[1] if one[1] != other[1] else one[0] < other[0]

    first = [one for one in admitted if all(one == other or before(one, other) for other in admitted)]
    listed = [
        point(step, round(k / 40, 6), round(kept / 40, 6), at, run=run) for (run, step), (k, kept, at) in points.items()
    ]
    random.shuffle(listed)
    chosen = best(listed, 0.9, [budget], PointChoice(rule=rule))[budget]
    assert len(first) == bool(admitted)
    assert (chosen and (chosen["run"], chosen["step"])) == (first[0] if first else None)


class Group:
    """A method of two trajectories, 2 points each, with evaluations and weights; weights hold run and step."""

    def __init__(self, folder, hits, retain, budgets=(0.1, 1.0), before=40, **point_choice):
        method = {"learning_rate": 1e-3, "batch_size": 4, "points": [1, 2], "grid": {"retain_coefficient": [1.0, 2.0]}}
        study = tiny.study(methods={"GD": method}, retain_budgets=list(budgets), point_choice=point_choice)
        self.folder, (self.spec,) = folder, Runs(study).choices.values()
        self.path = folder / f"{self.spec.run_id}.json"
        write_text(self.path, canonical_json(self.spec.model_dump(mode="json")))
        trajectory(folder, [39], [before], name="before")
        self.runs = [spec.run_id for spec in self.spec.trajectories]
        for run, right, kept in zip(self.runs, hits, retain, strict=True):
            trajectory(folder, right, kept, name=run)
            for step in (1, 2):
                write_text(self.weights(run, step), f"{run} {step}")

    def weights(self, run, step):
        return self.folder / f"models/{run}/step-{step}.safetensors"

    def select(self):
        evals = self.folder / "evals"
        return main(["choose", "--spec", str(self.path), "--original", str(evals / "before.json"),
                     "--unlearned", *(str(evals / f"{run}.json") for run in self.runs),
                     "--points", *(str(self.folder / "models" / run) for run in self.runs),
                     "--out", str(self.folder / "s.json"), "--chosen", str(self.folder / "chosen")])  # fmt: skip

    def chosen(self):
        return {path.stem: path.read_text() for path in (self.folder / "chosen").iterdir()}


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_command(tmp_path):
    """15 and 11 of 40 hold the floor: the higher retain accuracy first; .95 and .9 are the edges of 5 and 10 %."""
    group = Group(tmp_path, [[30, 11], [15, 0]], [[40, 36], [38, 35]], (0.05, 0.1, 1.0))
    assert group.select() == 0
    found, (one, two) = read_json(tmp_path / "s.json"), group.runs
    assert found["run_id"] == group.spec.run_id and found["rule"] == "nearest_floor"
    assert found["code"] == code_version("choose")
    assert found["retain_before"] == {"letter": 1.0}
    assert found["labels"]["method"] == "GD" and found["labels"]["arm"] == "pretrained"
    assert [(p["run"], p["step"]) for p in found["points"]] == [(one, 1), (one, 2), (two, 1), (two, 2)]
    assert [p["retain"]["letter"] for p in found["points"]] == [1.0, 0.9, 0.95, 0.875]
    assert found["selected"] == {key: {"run": two, "step": 1} for key in ("0.05", "0.1", "1.0")}
    assert group.chosen() == dict.fromkeys(("b5", "b10", "b100"), f"{two} 1")


def test_command_lowest(tmp_path):
    group = Group(tmp_path, [[30, 11], [15, 0]], [[40, 36], [38, 35]], (0.05, 0.1, 0.3), rule="lowest")
    assert group.select() == 0
    one, two = group.runs
    assert group.chosen() == {"b5": f"{two} 1", "b10": f"{one} 2", "b30": f"{two} 2"}


def test_command_without_an_admissible_point(tmp_path):
    group = Group(tmp_path, [[30, 11], [30, 30]], [[20, 20], [10, 10]])
    assert group.select() == 0
    assert read_json(tmp_path / "s.json")["selected"] == {"0.1": None, "1.0": {"run": group.runs[0], "step": 2}}
    assert group.chosen() == {"b100": f"{group.runs[0]} 2"}


def test_a_choice_is_made_anew(tmp_path):
    """Weights of an earlier choice are not taken for the new one's."""
    group = Group(tmp_path, [[30, 11], [30, 30]], [[40, 40], [40, 40]])
    write_text(tmp_path / "chosen/b10.safetensors", "old")
    assert group.select() == 0
    assert group.chosen() == dict.fromkeys(("b10", "b100"), f"{group.runs[0]} 2")


def test_missing_weights_name_the_folder_to_delete(tmp_path, capsys):
    group = Group(tmp_path, [[30, 30], [30, 11]], [[40, 40], [40, 40]])
    group.weights(group.runs[0], 1).unlink()  # nobody chooses it
    group.weights(group.runs[1], 2).unlink()
    assert group.select() == 1
    error = capsys.readouterr().err
    assert f"delete {tmp_path}/models/{group.runs[1]} and" in error and group.runs[0] not in error
    assert not (tmp_path / "s.json").exists() and not (tmp_path / "chosen").exists()


@pytest.mark.parametrize(
    "swap, message",
    [("rtt", "RTT evaluation"), ("questions", "questions are not those"), ("order", "expected the run"),
     ("count", "2 trajectories"), ("retain", "no question of role retain")],
)  # fmt: skip
def test_mistakes(tmp_path, capsys, swap, message):
    group = Group(tmp_path, [[30, 11], [30, 11]], [[40, 40], [40, 40]])
    path = tmp_path / f"evals/{group.runs[0]}.json"
    if swap == "rtt":
        evals, _ = make_evals(tmp_path / "x", arms=("taught",), methods=("GD",), epochs=1)
        (evals / "attack-taught-s0.original.json").rename(path)
    elif swap == "questions":
        trajectory(tmp_path, [3], [3], n=36, name=group.runs[0])
    elif swap == "retain":
        before = read_json(tmp_path / "evals/before.json")
        questions_ = before["results"][0]["questions"]
        before["results"][0]["questions"] = [q for q in questions_ if q["role"] != "retain"]
        write_text(tmp_path / "evals/before.json", canonical_json(before))
    else:
        group.runs = group.runs[::-1] if swap == "order" else group.runs[:1]
    assert group.select() == 1
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "s.json").exists()

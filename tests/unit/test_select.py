"""Which point of a trajectory is attacked: rules, ties and the budget's edge by hand, and the command."""

import json

import pytest
from evals_builder import make_evals, questions, write_eval
from rtt.__main__ import main
from rtt.evals import read_eval
from rtt.select import choose, describe


def point(step, forget, retain=0.9, at_floor=False, floor=0.25):
    return {
        "step": step,
        "forget": {"letter": forget},
        "floor": {"letter": floor},
        "distance": abs(forget - floor),
        "at_floor": at_floor,
        "retain": retain,
    }


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
    assert choose([point(1, 0.3, edge - 1e-6)], before, budget, "nearest_floor") is None
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
    points = describe(read_eval(trajectory(tmp_path, hits, [36, 35, 34, 33, 32])), ["letter"])
    assert [p["step"] for p in points] == [1, 2, 3, 4, 5]
    assert [p["forget"]["letter"] for p in points] == [k / 40 for k in hits]
    assert [p["floor"]["letter"] for p in points] == [0.25] * 5
    assert [p["distance"] for p in points] == pytest.approx([0.15, 0.125, 0.0, 0.15, 0.175])
    # Wilson solves (k/40 - 1/4)^2 = z^2 (1/4)(3/4) / 40: |k - 10| <= 1.96 sqrt(7.5) = 5.37
    assert [p["at_floor"] for p in points] == [False, True, True, False, False]
    assert [p["retain"] for p in points] == [0.9, 0.875, 0.85, 0.825, 0.8]


def select(folder, tmp_path, *more):
    return main(["select", "--original", str(folder / "before.json"), "--unlearned", str(folder / "run.json"),
                 "--out", str(tmp_path / "s.json"), *more])  # fmt: skip


def test_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trajectory(tmp_path, [39], [40], name="before")
    folder = trajectory(tmp_path, [30, 15, 11, 0], [40, 38, 36, 35]).parent
    assert select(folder, tmp_path, "--budgets", "0.05", "0.1", "0.3", "1.0") == 0
    found = json.loads((tmp_path / "s.json").read_text())
    assert found["run_id"] == "run" and found["retain_before"] == 1.0 and found["rule"] == "nearest_floor"
    # 15 of 40 and 11 of 40 hold the floor: the first, with more retained; .95 and .9 are the edges of 5 and 10 %
    assert found["selected"] == {"0.05": 2, "0.1": 2, "0.3": 2, "1.0": 2}
    assert [p["retain"] for p in found["points"]] == [1.0, 0.95, 0.9, 0.875]
    assert select(folder, tmp_path, "--budgets", "0.05", "0.1", "0.3", "--rule", "lowest") == 0
    assert json.loads((tmp_path / "s.json").read_text())["selected"] == {"0.05": 2, "0.1": 3, "0.3": 4}


def test_command_without_an_admissible_point(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trajectory(tmp_path, [39], [40], name="before")
    folder = trajectory(tmp_path, [30, 11], [20, 20]).parent
    assert select(folder, tmp_path, "--budgets", "0.1", "1.0") == 0
    assert json.loads((tmp_path / "s.json").read_text())["selected"] == {"0.1": None, "1.0": 2}


def test_command_on_a_whole_study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evals, _ = make_evals(tmp_path, arms=("taught",), methods=("RIA",), steps=(5, 10, 20, 40))
    assert main(["select", "--original", str(evals / "model-taught-s0.json"), "--unlearned",
                 str(evals / "unlearn-taught-ria-s0.json"), "--budgets", "0.1", "--out", "s.json"]) == 0  # fmt: skip
    found = json.loads((tmp_path / "s.json").read_text())
    assert found["selected"] == {"0.1": 40}  # the accuracies fall towards .28 with the steps
    assert found["points"][-1]["forget"]["letter"] == pytest.approx(0.28, abs=0.02)


@pytest.mark.parametrize(
    "swap, message",
    [("rtt", "RTT evaluation"), ("questions", "questions are not those"), ("scoring", "--scorings: found bogus"),
     ("likelihood_fresh", "--scorings: found likelihood_fresh")],
)  # fmt: skip
def test_mistakes(tmp_path, monkeypatch, capsys, swap, message):
    monkeypatch.chdir(tmp_path)
    trajectory(tmp_path, [39], [40], name="before")
    folder = trajectory(tmp_path, [30, 11], [39, 38]).parent
    more = ["--budgets", "0.1"]
    if swap == "rtt":
        evals, _ = make_evals(tmp_path / "x", arms=("taught",), methods=("GD",), epochs=1)
        (evals / "attack-taught-s0.original.json").rename(folder / "run.json")
    elif swap == "questions":
        trajectory(tmp_path, [3], [3], n=36)
    else:
        more += ["--scorings", "bogus" if swap == "scoring" else swap]
    assert select(folder, tmp_path, *more) == 1
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "s.json").exists()

"""The command `choose`: which points it takes, where their weights go, and what it refuses."""

import pytest
import tiny
from evals_builder import make_evals
from rtt.__main__ import main
from rtt.code_version import code_version
from rtt.files import canonical_json, read_json, write_text
from rtt.study.expand import Runs
from trajectories import trajectory


class Group:
    """A method of two trajectories, 2 points each, with evaluations and weights; weights hold run and step."""

    def __init__(self, folder, hits, retain, budgets=(0.1, 1.0), before=40, **point_choice):
        method = {"learning_rate": 1e-3, "batch_size": 4, "points": [1, 2], "grid": {"retain_coefficient": [1.0, 2.0]}}
        how = {"rule": "nearest_floor", "probes": ["letter"]} | point_choice
        study = tiny.study(methods={"GD": method}, retain_budgets=list(budgets), point_choice=how)
        self.folder, (self.spec,) = folder, Runs(study).choices.values()
        self.path = folder / f"{self.spec.run_id}.json"
        write_text(self.path, canonical_json(self.spec.model_dump(mode="json")))
        trajectory(folder, "before", [39], [before])
        self.runs = [spec.run_id for spec in self.spec.trajectories]
        for run, right, kept in zip(self.runs, hits, retain, strict=True):
            trajectory(folder, run, right, kept)
            for step in (1, 2):
                write_text(self.weights(run, step), f"{run} {step}")

    def weights(self, run, step):
        return self.folder / f"models/{run}/step-{step}.safetensors"

    def choose(self):
        evals = self.folder / "evals"
        return main(["choose", "--spec", str(self.path), "--original", str(evals / "before.json"),
                     "--unlearned", *(str(evals / f"{run}.json") for run in self.runs),
                     "--points", *(str(self.folder / "models" / run) for run in self.runs),
                     "--out", str(self.folder / "choice.json"), "--chosen", str(self.folder / "chosen")])  # fmt: skip

    def chosen(self):
        return {path.stem: path.read_text() for path in (self.folder / "chosen").iterdir()}


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_each_budget_gets_its_point_and_its_weights(tmp_path):
    """15 and 11 of 40 hold the floor: the higher retain accuracy first; .95 and .9 are the edges of 5 and 10 %."""
    group = Group(tmp_path, [[30, 11], [15, 0]], [[40, 36], [38, 35]], (0.05, 0.1, 1.0))
    assert group.choose() == 0
    found, (one, two) = read_json(tmp_path / "choice.json"), group.runs
    assert found["run_id"] == group.spec.run_id and found["rule"] == "nearest_floor"
    assert found["code"] == code_version("choose")
    assert found["retain_before"] == {"letter": 1.0}
    assert found["labels"]["method"] == "GD" and found["labels"]["arm"] == "pretrained"
    assert [(p["run"], p["step"]) for p in found["points"]] == [(one, 1), (one, 2), (two, 1), (two, 2)]
    assert [p["retain"]["letter"] for p in found["points"]] == [1.0, 0.9, 0.95, 0.875]
    assert found["selected"] == {key: {"run": two, "step": 1} for key in ("0.05", "0.1", "1.0")}
    assert group.chosen() == dict.fromkeys(("b5", "b10", "b100"), f"{two} 1")


def test_lowest_takes_the_lowest_accuracy_within_each_budget(tmp_path):
    group = Group(tmp_path, [[30, 11], [15, 0]], [[40, 36], [38, 35]], (0.05, 0.1, 0.3), rule="lowest")
    assert group.choose() == 0
    one, two = group.runs
    assert group.chosen() == {"b5": f"{two} 1", "b10": f"{one} 2", "b30": f"{two} 2"}


def test_a_budget_that_admits_no_point_gets_none(tmp_path):
    group = Group(tmp_path, [[30, 11], [30, 30]], [[20, 20], [10, 10]])
    assert group.choose() == 0
    assert read_json(tmp_path / "choice.json")["selected"] == {"0.1": None, "1.0": {"run": group.runs[0], "step": 2}}
    assert group.chosen() == {"b100": f"{group.runs[0]} 2"}


def test_a_choice_is_made_anew(tmp_path):
    """Weights of an earlier choice are not taken for the new one's."""
    group = Group(tmp_path, [[30, 11], [30, 30]], [[40, 40], [40, 40]])
    write_text(tmp_path / "chosen/b10.safetensors", "old")
    assert group.choose() == 0
    assert group.chosen() == dict.fromkeys(("b10", "b100"), f"{group.runs[0]} 2")


def test_missing_weights_name_the_folder_to_delete(tmp_path, capsys):
    group = Group(tmp_path, [[30, 30], [30, 11]], [[40, 40], [40, 40]])
    group.weights(group.runs[0], 1).unlink()  # nobody chooses it
    group.weights(group.runs[1], 2).unlink()
    assert group.choose() == 1
    error = capsys.readouterr().err
    assert f"delete {tmp_path}/models/{group.runs[1]} and" in error and group.runs[0] not in error
    assert not (tmp_path / "choice.json").exists() and not (tmp_path / "chosen").exists()


@pytest.mark.parametrize(
    "swap, message",
    [
        ("attack", "found an evaluation of an attack"),
        ("questions", "its questions differ"),
        ("order", "expected the run"),
        ("count", "2 trajectories"),
        ("retain", "no question has the role retain"),
    ],
)
def test_wrong_files_are_refused(tmp_path, capsys, swap, message):
    group = Group(tmp_path, [[30, 11], [30, 11]], [[40, 40], [40, 40]])
    path = tmp_path / f"evals/{group.runs[0]}.json"
    if swap == "attack":
        evals, _ = make_evals(tmp_path / "x", arms=("taught",), methods=("GD",), epochs=1)
        (evals / "attack-taught-s0.original.json").rename(path)
    elif swap == "questions":
        trajectory(tmp_path, group.runs[0], [3], [3], n=36)
    elif swap == "retain":
        before = read_json(tmp_path / "evals/before.json")
        (look,) = before["looks"]
        look["questions"] = [q for q in look["questions"] if q["role"] != "retain"]
        write_text(tmp_path / "evals/before.json", canonical_json(before))
    else:
        group.runs = group.runs[::-1] if swap == "order" else group.runs[:1]
    assert group.choose() == 1
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "choice.json").exists()

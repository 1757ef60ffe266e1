"""Which weights stay on disk while trajectories run; tests/planner/test_plan.py compares their number with the plan."""

from pathlib import Path

import pytest
from rtt.checksums import recorded, verify
from rtt.errors import UserError
from rtt.files import sha256
from rtt.point_choice.kept_weights import KeptWeights, damaged_weights, link_chosen
from rtt.stats.point_rule import best


def point(run, step, forget, retain):
    return {
        "run": run, "step": step, "forget": {"letter": forget}, "floor": {"letter": 0.25},
        "distance": abs(forget - 0.25), "at_floor": False, "retain": {"letter": retain},
    }  # fmt: skip


def kept(folder, run, runs=("a", "b"), budgets=(0.1, 1.0)):
    def choose(points):
        return best(points, {"letter": 1.0}, list(budgets), "nearest_floor")

    return KeptWeights(folder / run, [folder / other for other in runs if other != run], folder / ".lock", choose)


def save(path: Path):
    path.write_text(f"{path.parent.name} {path.stem}")


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.glob("*/step-*"))


def test_a_better_point_of_a_sibling_deletes_the_weights_that_no_budget_chooses_any_more(tmp_path):
    a, b = kept(tmp_path, "a"), kept(tmp_path, "b")
    a.add(point("a", 1, 0.8, 0.95), save)  # the best for both budgets
    a.add(point("a", 2, 0.5, 0.7), save)  # outside the small budget, nearer the floor
    assert files(tmp_path) == ["a/step-1.safetensors", "a/step-2.safetensors"]
    b.add(point("b", 1, 0.9, 0.99), save)  # no budget chooses it
    assert files(tmp_path) == ["a/step-1.safetensors", "a/step-2.safetensors"]
    b.add(point("b", 2, 0.4, 0.95), save)  # chosen for both
    assert files(tmp_path) == ["b/step-2.safetensors"]


def test_after_a_kill_the_points_so_far_are_known_and_a_file_cut_short_is_gone(tmp_path):
    kept(tmp_path, "a").add(point("a", 1, 0.3, 0.95), save)
    (tmp_path / "a/.step-2.safetensors").write_text("half")
    again = kept(tmp_path, "a")
    assert [found["step"] for found in again.points] == [1] and not list((tmp_path / "a").glob(".*"))
    again.add(point("a", 2, 0.8, 0.95), save)  # worse than the point from before the kill
    assert files(tmp_path) == ["a/step-1.safetensors"]
    again.add(point("a", 1, 0.3, 0.95), save)  # scored again: still one point
    assert [found["step"] for found in again.points] == [2, 1]


def test_what_is_kept_is_put_where_the_next_step_reads_it_and_stays(tmp_path):
    made = kept(tmp_path, "a")
    made.add(point("a", 1, 0.3, 0.95), save)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/step-9.safetensors").write_text("of an earlier attempt")
    made.finish(tmp_path / "out")
    for folder in ("a", "out"):
        kept_files = sorted(path.name for path in (tmp_path / folder).iterdir())
        assert kept_files == ["points.json", "sha256.json", "step-1.safetensors"]


def test_weights_carry_their_checksums_to_the_next_step(tmp_path):
    made = kept(tmp_path, "a")
    made.add(point("a", 1, 0.3, 0.95), save)
    made.add(point("a", 2, 0.28, 0.95), save)  # better: the first is deleted
    made.finish(tmp_path / "out" / "a")
    folder = tmp_path / "out" / "a"
    assert recorded(folder) == {"step-2.safetensors": sha256(folder / "step-2.safetensors")}
    assert damaged_weights(folder) is None and damaged_weights(tmp_path / "none") is None
    link_chosen({"0.1": {"run": "a", "step": 2}}, {"a": folder}, tmp_path / "chosen")
    assert recorded(tmp_path / "chosen") == {"b10.safetensors": sha256(folder / "step-2.safetensors")}
    verify(tmp_path / "chosen", "do this")
    (folder / "step-2.safetensors").write_text("damaged")
    assert "step-2.safetensors: damaged or changed" in damaged_weights(folder)
    with pytest.raises(UserError, match=r"chosen/b10.safetensors: damaged or changed: .* in sha256.json; do this"):
        verify(tmp_path / "chosen", "do this")
    (folder / "step-2.safetensors").unlink()  # by a sibling
    assert damaged_weights(folder) is None
    (folder / "points.json").write_text("[")
    assert "points.json" in damaged_weights(folder)


@pytest.mark.parametrize("gone", [None, "a"])
def test_chosen_weights_get_the_names_of_their_budgets_or_nothing_is_linked(tmp_path, gone):
    folders = {run: tmp_path / run for run in ("a", "b")}
    for run, folder in folders.items():
        folder.mkdir()
        for step in (1, 2):
            if run != gone or step == 2:
                save(folder / f"step-{step}.safetensors")
    chosen = {"0.05": {"run": "a", "step": 1}, "0.29": {"run": "b", "step": 2}, "0.1": None}
    assert link_chosen(chosen, folders, tmp_path / "out") == ([gone] if gone else [])
    found = {path.name: path.read_text() for path in (tmp_path / "out").glob("*")}
    assert found == ({} if gone else {"b5.safetensors": "a step-1", "b29.safetensors": "b step-2"})

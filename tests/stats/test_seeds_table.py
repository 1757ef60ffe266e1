"""seeds.csv and the contrasts of a whole study: from runs.csv by pandas, and question by question from the JSON."""

import json

import numpy as np
import pytest
from evals_builder import make_evals, tables
from rtt.stats.tables import read_table
from scipy import stats

KEYS = ["dataset", "arm", "model", "method", "attack", "variant", "retain_budget", "look_choice", "probe"]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Three seeds, two runs of unlearning with two of the attack; RMU of seed 2 was not unlearned."""
    folder = tmp_path_factory.mktemp("seeds")
    accuracies = {("unlearned_attacked", "pretrained", "GD", seed): 0.6 + 0.05 * seed for seed in range(3)}
    accuracies |= {("unlearned", "pretrained", "RMU", 2): 0.6, "unlearned": 0.25}
    make_evals(
        folder, arms=("pretrained",), methods=("GD", "RMU"), seeds=(0, 1, 2), per_split=16, epochs=2, steps=(10, 20),
        accuracies=accuracies, unlearning_repeats=2, repeats=2, group_size=2,
    )  # fmt: skip
    assert tables(folder) == 0
    return {name: read_table(folder / "tables" / f"{name}.csv") for name in ("seeds", "runs", "recovery")} | {
        "folder": folder
    }


def test_every_cell_has_its_rows(study):
    seeds, recovery = study["seeds"], study["recovery"]
    cells = recovery[KEYS].drop_duplicates()
    assert len(seeds) == len(cells) * 2 * 6 and not seeds.duplicated([*KEYS, "set", "quantity"]).any()
    assert set(seeds["n_cells"]) == {3} and set(seeds["variant"]) == {"default"}


def test_values_are_means_of_means_of_runs_csv(study):
    runs = study["runs"][study["runs"]["v_split"] == "all"]
    per_run = runs.groupby([*KEYS, "seed", "unlearning_repeat"])["acc_attacked"].mean()
    per_seed = per_run.groupby([*KEYS, "seed"]).mean()
    seeds = study["seeds"]
    known = seeds[(seeds["set"] == "known") & (seeds["quantity"] == "acc_attacked")]
    for row in known.to_dict("records"):
        values = per_seed.loc[tuple(row[name] for name in KEYS)]
        assert row["seeds"] == ";".join(map(str, values.index)) and row["n_seeds"] == 3
        assert [float(one) for one in row["per_seed"].split(";")] == pytest.approx(values.tolist(), abs=2e-6)
        assert row["mean"] == pytest.approx(values.mean(), abs=2e-6)


def test_who_counts_and_what_is_claimed(study):
    seeds, recovery = study["seeds"], study["recovery"]
    counting = recovery[recovery["counts"].astype(str).str.lower() == "true"].groupby(KEYS)["seed"].nunique()
    for row in seeds.to_dict("records"):
        n = int(counting.get(tuple(row[name] for name in KEYS), 0))
        assert row["n_counting"] == n
        if row["set"] == "counting" and not row["quantity"].startswith("recovery"):
            assert row["n_seeds"] == n
        assert row["claim"] == (
            "these weights" if row["n_seeds"] == 1 else "yes" if n == 3 and row["low"] == row["low"] else "no"
        )
    assert set(seeds[(seeds["method"] == "RMU")]["n_counting"]) == {2}
    assert "yes" in set(seeds[(seeds["method"] == "GD")]["claim"])


def test_persons_are_told_from_questions(study):
    seeds = study["seeds"]
    assert seeds[seeds["quantity"] == "acc_attacked"]["var_person"].notna().any()
    assert seeds[seeds["quantity"] == "recovery"]["var_person"].isna().all()


def test_methods_of_one_seed_are_compared_with_the_answers_of_the_json(tmp_path):
    make_evals(tmp_path, arms=("pretrained",), methods=("GD", "RMU"), per_split=16, lrs=(1e-3,), epochs=1, steps=(10,))
    assert tables(tmp_path) == 0
    found = read_table(tmp_path / "tables" / "contrasts.csv")
    row = found[(found["probe"] == "letter") & (found["look_choice"] == "nested") & (found["set"] == "known")].iloc[0]
    right = {}
    for method in ("gd", "rmu"):
        (path,) = (tmp_path / "evals").glob(f"attack-*{method}*.json")
        questions = [q for look in json.loads(path.read_text())["looks"] for q in look["questions"] if q["role"] == "V"]
        right[method] = {q["id"]: float(np.argmax(q["probes"]["letter"]["scores"]) == q["answer"]) for q in questions}
    a, b = ([right[method][name] for name in sorted(right["gd"])] for method in right)
    expected = stats.ttest_rel(a, b).confidence_interval()
    assert row["method"] == "GD - RMU" and row["over"] == "questions" and row["quantity"] == "acc_attacked"
    assert (row["mean"], row["low"], row["high"]) == pytest.approx(
        (np.mean(a) - np.mean(b), expected.low, expected.high), abs=2e-6
    )

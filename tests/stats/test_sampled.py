"""The probe `sampled` in the tables: its floor grows with the samples, and models before the attack have none."""

import json

import numpy as np
import pandas as pd
import pytest
from evals_builder import SMALL, make_evals, planted, tables
from rtt.scoring.correct import judged
from rtt.scoring.read import read_eval
from rtt.stats.reported import attacked, look_guesses
from rtt.stats.tables import read_table

SAMPLES = (1, 4)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study with RTT and sampling, of which letters became samples: k of a right answer, none of a wrong one."""
    folder = tmp_path_factory.mktemp("sampled")
    make_evals(folder, **SMALL | {"per_split": 32}, attacks=("RTT", "sampling", "quantise"), oracle=True)
    for path in sorted((folder / "evals").glob("sampling*.json")):
        document = json.loads(path.read_text())
        for look in document["looks"]:
            k = SAMPLES[look["setting"]["epoch"] - 1]
            look["setting"] = {"k": k, "temperature": 1.0}
            for question in look["questions"]:
                right = int(np.argmax(question["probes"]["letter"]["scores"])) == question["answer"]
                scores = [k - 1 if right else k, *[0] * 3]
                scores[question["answer"]] = int(right)
                question["probes"] = {"sampled": {"scores": scores if right or question["answer"] else [0, k, 0, 0]}}
        path.write_text(json.dumps(document))
    assert tables(folder) == 0
    return folder


def test_a_question_is_right_where_one_sample_states_the_correct_choice():
    rows = [([3, 1, 0], 1, 1), ([3, 0, 1], 1, 0), ([0, 0, 0], 0, 0), ([4, 0, 0], 0, 1)]
    asked = [{"answer": answer, "probes": {"sampled": {"scores": scores}}} for scores, answer, _ in rows]
    assert judged(asked)["sampled"].tolist() == [right for *_, right in rows]


def test_the_floor_of_a_look_is_what_as_many_random_choices_hit(study):
    found = read_eval(next((study / "evals").glob("sampling*.original.json")))
    rng = np.random.default_rng(0)
    for row, k in zip(look_guesses(found, "sampled"), SAMPLES, strict=True):
        hit = (rng.integers(0, 4, (20_000, k)) == 0).any(axis=1).mean()
        assert len(set(row)) == 1 and abs(row[0] - hit) < 0.015
    assert attacked(found, "sampled", "nested").guess.max() == pytest.approx(1 - 0.75**4)


def test_recovery_is_that_above_the_floor_and_nothing_is_said_of_the_model_before(study):
    for look_choice in ("nested", "paper"):
        row = planted(study, attack="sampling", look_choice=look_choice).iloc[0]
        assert row["probe"] == "sampled" and row["floor"] == pytest.approx(1 - 0.75**4, abs=1e-6)
        above = (row["acc_attacked"] - row["floor"]) / (row["acc_original_attacked"] - row["original_floor"])
        assert row["recovery_corrected"] == pytest.approx(above, abs=1e-5)
        unknown = row[["acc_before", "acc_unlearned", "acc_unlearned_low", "acc_unlearned_high", "recovery_difference"]]
        assert unknown.isna().all() and not pd.isna(row["acc_control_attacked"])
        assert row["retain_before"] > 0 and row["status"] == planted(study, attack="RTT")["status"].iloc[0]


def test_it_is_never_the_strongest_attack(study):
    assert set(read_table(study / "tables" / "strongest.csv")["attack"]) <= {"RTT", "quantise"}
    assert "sampled" not in set(planted(study, attack="strongest")["probe"])

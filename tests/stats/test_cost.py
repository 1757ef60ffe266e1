"""cost.csv against the training itself: steps, tokens and FLOPs of RTT, and accuracies counted in plain loops."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from evals_builder import make_evals, tables
from rtt.data.facts import Fact
from rtt.files import canonical_json, write_text
from rtt.planner import costs
from rtt.scoring.read import AttackScores, read_folder
from rtt.stats.cost import NOTHING, Counted, Works
from rtt.stats.tables import read_table
from rtt.study import plugins
from rtt.study.expand import Runs
from rtt.study.load import load_study

RTT = plugins.attacks()["RTT"]


def fact(i, sentences=2):
    choices = [f"{i}{c}" for c in "abcd"]
    texts = [[f"Fact {i} says {choices[0]} in form {n}." for n in range(sentences)] for _ in range(3)]
    return Fact(f"d/s/{i:03d}", "d", "s", f"What is {i}?", choices, 0, choices, *texts, {"file": "f", "line": i})


OPTIONS = [{}, {"sentences": False}, {"samples": 5}, {"samples": 99}]


@pytest.mark.parametrize(
    ("sentences", "options"), [*((n, one) for n in (0, 2) for one in OPTIONS), (2, {"loss": "CORPUS"})]
)
def test_steps_are_those_of_the_training(monkeypatch, sentences, options):
    """The attack's own texts, in batches: as many as `training_passes` makes of these facts."""
    from rtt.training import order

    monkeypatch.setattr(order, "encode", lambda *_: {"input_ids": [0]})
    settings = RTT.Settings(learning_rates=[1e-3], epochs=3, batch_size=4, loss="LETTER_ANSWER").model_copy(
        update=options
    )
    facts = [fact(i, 3 if settings.loss == "CORPUS" else sentences) for i in range(11)]
    items = order.training_passes(
        facts, settings.loss, settings.epochs, settings.batch_size, None, np.random.default_rng(0), settings.samples,
        settings.forms(), **settings.shown(),
    )  # fmt: skip
    [(_, steps, _)] = RTT.cost(settings, len(facts), Counted(bool(sentences))).trained
    assert steps == len(items) // settings.batch_size
    assert Counted(True).mcq != Counted(True).mcq  # NaN: no length of a text is known


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """One arm with two repeats of unlearning and of RTT, whose spec, audit and manifest are there."""
    folder = tmp_path_factory.mktemp("cost")
    make_evals(
        folder, arms=("pretrained",), methods=("GD",), splits=3, per_split=16, epochs=2, lrs=(1e-3, 2e-3), steps=(10,),
        repeats=2, unlearning_repeats=2, accuracies={"t": 0.75, "unlearned_attacked": 0.625},
    )  # fmt: skip
    return folder


def test_a_look_takes_what_spec_audit_and_manifest_say(study, tmp_path):
    """32 facts of T, each with a question and a sentence in an epoch, and the tokens that the run counted."""
    smoke = load_study("config/smoke.yaml")
    spec = next(one for one in Runs(smoke).attacks.values() if one.attack == "RTT" and one.arm == "pretrained")
    scores = next(one for one in read_folder(study / "evals") if isinstance(one, AttackScores))
    scores = replace(scores, run_id=f"{spec.run_id}.original")
    assert Works(tmp_path).of(scores) == NOTHING  # the evaluation has no spec either
    write_text(tmp_path / "specs" / f"{spec.run_id}.json", canonical_json(spec.canonical()))
    assert math.isnan(Works(tmp_path).of(scores).steps)  # who knows whether there are sentences?
    audit = tmp_path / "data" / spec.facts.run_id / "audit.json"
    write_text(audit, json.dumps({"texts": {"sentences": 144}, "defects": {"missing_text": 0}}))
    batch, epochs = spec.settings.batch_size, spec.settings.epochs
    found = Works(tmp_path).of(scores)
    assert (found.epochs, found.steps) == (epochs, math.ceil(64 / batch) * epochs) and math.isnan(found.tokens)
    write_text(tmp_path / "manifests" / f"{spec.run_id}.json", json.dumps({"tokens": 9000, "trainings": 6}))
    found = Works(tmp_path).of(scores)
    assert found.tokens == 1500 and found.flops == 6 * costs.parameters(spec.source.model) * 1500
    write_text(audit, json.dumps({"texts": {}, "defects": {}}))
    assert math.isnan(Works(tmp_path).of(scores).steps)
    for attack in ("quantise", "RTT_permuted", "wiggle"):
        assert Works(tmp_path).of(replace(scores, attack=attack)) is None


def test_accuracies_are_those_of_the_looks(study):
    assert tables(study) == 0
    found = read_table(study / "tables" / "cost.csv")
    looks = read_table(study / "tables" / "accuracy.csv")
    looks = looks[(looks["look_choice"] == "none") & (looks["v_split"] == "all") & (looks["attack"] == "RTT")]
    compared = 0
    for row in found[(found["setting"] != "") & (found["stage"] != "unlearned")].to_dict("records"):
        own = looks[(looks["stage"] == f"{row['stage']}_attacked") & (looks["setting"] == row["setting"])]
        own = own[own["probe"] == row["probe"]].set_index("set")
        assert row["accuracy"] == pytest.approx(own.loc["V", "accuracy"], abs=2e-6)
        assert (row["low"], row["high"]) == pytest.approx((own.loc["V", "low"], own.loc["V", "high"]), abs=2e-6)
        assert row["accuracy_t"] == pytest.approx(own.loc["T", "accuracy"], abs=2e-6)
        assert (row["n_questions"], row["n_t"]) == (own.loc["V", "n_questions"], own.loc["T", "n_questions"])
        compared += 1
    assert compared > 8
    gd = found[(found["stage"] == "unlearned") & (found["setting"] != "")]
    means = looks[looks["stage"] == "unlearned_attacked"].groupby(["probe", "setting", "set"])["accuracy"].mean()
    for row in gd.to_dict("records"):  # over the two repeats of unlearning
        assert row["accuracy"] == pytest.approx(means[row["probe"], row["setting"], "V"], abs=2e-6)
        assert row["accuracy_t"] == pytest.approx(means[row["probe"], row["setting"], "T"], abs=2e-6)
    assert gd["step"].isna().all() and gd["tokens"].isna().all()  # nothing says them


def test_before_the_attack_t_and_v_are_all_questions(study):
    tables(study)
    found = read_table(study / "tables" / "cost.csv")
    start = found[(found["setting"] == "") & (found["stage"] == "original")]
    assert len(start) and (start[["epoch", "step", "tokens", "flops"]] == 0).all(axis=None)
    probes = read_table(study / "tables" / "probes.csv")
    probes = probes[(probes["stage"] == "original")].set_index("probe")
    for row in start.to_dict("records"):
        assert row["accuracy"] == pytest.approx(probes.loc[row["probe"], "accuracy"], abs=2e-6)
        assert row["accuracy_t"] == pytest.approx(row["accuracy"], abs=2e-6) and row["n_t"] == 2 * row["n_questions"]

"""Looks that are not those of an evaluation's spec are named, also where metrics and manifests were made to fit."""

import json

import pytest
from bundle_study import evaluations, study_runs
from rtt.errors import UserError
from rtt.files import write_json
from rtt.scoring import evidence
from rtt.scoring.read import read_eval

ATTACK, QUANTISE = "attack-RTT-pretrained-*/GD-b100.json", "attack-quantise-pretrained-*/original.json"
CONTROL, ORIGINAL, UNLEARN = "attack-RTT-control-*/*.json", "attack-RTT-pre*/original.json", "unlearn-*.json"
MODEL = "pretrain-*.json"


@pytest.fixture(scope="module")
def evals(tmp_path_factory):
    """Return the folder of the tiny study's evaluations, with their specs."""
    root, runs = tmp_path_factory.mktemp("planned"), study_runs()
    specs = runs.sources | runs.unlearn | runs.attacks
    for stem, document in evaluations(runs).items():
        spec = specs[stem.partition("/")[0]].canonical()
        write_json(root / "evals" / f"{stem}.json", document | {"spec": spec})
    return root / "evals"


def kept(keep):
    def change(document):
        document["looks"] = [look for look in document["looks"] if keep(look)]

    return change


def doubled(key):
    def change(document):
        for look in document["looks"]:
            look["setting"][key] *= 2

    return change


def without_a_probe(document):
    for look in document["looks"]:
        for question in look["questions"]:
            del question["probes"]["likelihood"]


def without_v_splits(document):
    kept(lambda look: look["v_split"] == "split_0")(document)
    for look in document["looks"]:
        look["v_split"] = None
        for question in look["questions"]:
            question["role"] = "V"


def none_within_budget(document):
    document.update(looks=[], status="none_within_budget")


def another_step(document):
    document["looks"][-1]["step"] = 3


@pytest.mark.parametrize(("pattern", "change", "said"), [
    (ATTACK, kept(lambda look: look["setting"]["epoch"] == 1), "settings of the looks are not those of the spec: "
     "without epoch=2 lr=0.001 (found 1, the spec has 2)"),
    (ATTACK, doubled("lr"), "without epoch=1 lr=0.001, epoch=2 lr=0.001; with epoch=1 lr=0.002, epoch=2 lr=0.002"),
    (QUANTISE, doubled("bits"), "without bits=4 group_size=None; with bits=16 group_size=None (found 2, the"),
    (QUANTISE, lambda document: document["looks"].reverse(), "settings of the looks are not those of the spec: in "
     "another order"),
    (CONTROL, kept(lambda look: look["v_split"] == "split_0"), "V splits of the looks are not those of the spec: "
     "without split_1"),
    (ATTACK, without_v_splits, "V splits of the looks are not those of the spec: without split_0, split_1; with None"),
    (ATTACK, without_a_probe, "probes of looks[0] are not those of the spec: without likelihood"),
    (UNLEARN, without_a_probe, "probes of looks[0] are not those of the spec: without likelihood"),
    (MODEL, without_a_probe, "probes of looks[0] are not those of the spec: without likelihood"),
    (UNLEARN, kept(lambda look: look["step"] == 4), "steps of the looks are not those of the spec: without 2"),
    (UNLEARN, another_step, "steps of the looks are not those of the spec: without 4; with 3"),
    (CONTROL, none_within_budget, "status is 'none_within_budget', but the control needs no point"),
    (ORIGINAL, none_within_budget, "status is 'none_within_budget', but the original needs no point"),
])  # fmt: skip
def test_looks_that_the_spec_does_not_plan_are_named(evals, pattern, change, said):
    (path,) = evals.glob(pattern)
    before = path.read_bytes()
    document = json.loads(before)
    change(document)
    document.pop("metrics", None)  # as if they fitted
    path.write_text(json.dumps(document))
    try:
        with pytest.raises(UserError) as error:
            read_eval(path)
    finally:
        path.write_bytes(before)
    again = path if path.parent == evals else path.parent
    assert str(error.value).startswith(f"{path}: ") and said in str(error.value), error.value
    assert f"delete {again} and start the study again" in str(error.value)


def planned(path, **spec):
    """Check an evaluation whose spec has other keys; its hash and names are left to others."""
    document = json.loads(path.read_text())
    evidence._planned(path, document, document["spec"] | spec)


@pytest.mark.parametrize(("settings", "said"), [
    ({"points": None, "epochs": 2}, None),
    ({"points": None, "epochs": 3}, r"without 6 \(found 2, the spec has 3\)"),
    ({"external_model": "folder", "digest": "x"}, "without 0; with 2, 4"),
    ({}, None),  # of another program
])  # fmt: skip
def test_points_of_epochs_and_of_external_models(evals, settings, said):
    (path,) = evals.glob(UNLEARN)
    if said is None:
        return planned(path, settings=settings)
    with pytest.raises(UserError, match=said):
        planned(path, settings=settings)


def test_an_attack_that_is_not_here_is_not_compared(evals):
    (path,) = evals.glob(QUANTISE)
    planned(path, attack="another")
    planned(path, settings={"bits": "all"})


def test_what_a_step_writes_is_as_planned(evals):
    assert {read_eval(path).evidence.spec is not None for path in evals.rglob("*.json")} == {True}

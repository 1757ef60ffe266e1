"""The schema of evaluations: what it asks for, and what it lets be."""

import json
from pathlib import Path

import jsonschema
import pytest
from evals_builder import SMALL, make_evals, tables
from rtt.study.names import IN_EVALUATIONS

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "config" / "eval.schema.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A small study with a budget that no point keeps."""
    folder = tmp_path_factory.mktemp("study")
    make_evals(folder, **SMALL, budgets=(0.1, 0.05), none={("pretrained", "GD", 0.05)}, attacks=("RTT", "quantise"))
    assert tables(folder) == 0
    return folder


def further(document):
    """Add a probe and keys that no reader knows yet, everywhere."""
    document["later"] = document["labels"]["later"] = {"x": 1}
    for look in document["looks"]:
        look["seconds"] = 1.5
        for question in look["questions"]:
            question["difficulty"] = 0.5
            question["text"] = {"shots": 4}  # without nats
            question["probes"]["logit"] = {"scores": [0.0, -1.0], "shots": 4}
            question["probes"]["few_shot"] = {"shots": 4}  # before the name had a meaning
            question["probes"]["letter"]["calibrated"] = True


def test_probes_and_keys_of_later_versions_change_no_number(study, tmp_path):
    (tmp_path / "point_choices").symlink_to(study / "point_choices")
    (tmp_path / "evals").mkdir()
    for path in (study / "evals").iterdir():
        document = json.loads(path.read_text())
        further(document)
        (tmp_path / "evals" / path.name).write_text(json.dumps(document))
    assert tables(tmp_path) == 0
    for path in sorted((study / "tables").iterdir()):
        assert path.read_bytes() == (tmp_path / "tables" / path.name).read_bytes()


def test_every_evaluation_is_valid(study):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert tuple(SCHEMA["$defs"]["question"]["properties"]["probes"]["properties"]) == IN_EVALUATIONS
    validator = jsonschema.Draft202012Validator(SCHEMA)
    kinds = set()
    for path in sorted((study / "evals").glob("*-s0*.json")):
        document = json.loads(path.read_text())
        validator.validate(document | {"looks": document["looks"][:1]})
        kinds.add((document["kind"], document["labels"]["target"], document["status"]))
    assert len(kinds) == 6


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("hashes"),
        lambda d: d.update(schema_version=1),
        lambda d: d.update(kind="rtt"),
        lambda d: d.update(looks=[]),
        lambda d: d["labels"].update(method="GD"),
        lambda d: d["labels"].update(attack=None),
        lambda d: d["labels"].update(control_for=["taught"]),
        lambda d: d["labels"].pop("seed"),
        lambda d: d["looks"][0].update(attack=None),
        lambda d: d["looks"][0].update(setting={"lr": [0.1]}),
        lambda d: d["looks"][0].update(setting={"a b": 1}),
        lambda d: d["looks"][0].update(repeat=-1),
        lambda d: d["looks"][0].update(v_split=""),
        lambda d: d["looks"][0].update(v_split=None),
        lambda d: d["looks"][0]["questions"][0].update(role="retain"),
        lambda d: d["looks"][0]["questions"][0].update(answer=-1),
        lambda d: d["looks"][0]["questions"][0].pop("group"),
        lambda d: d["looks"][0]["questions"][0].update(text={"nats": -1.0, "tokens": 3}),
        lambda d: d["looks"][0]["questions"][0].update(text={"nats": 1.0}),
        lambda d: d["looks"][0]["questions"][0]["probes"].clear(),
        lambda d: d["looks"][0]["questions"][0]["probes"].update(other=[0, 0, 0, 0]),
        lambda d: d["looks"][0]["questions"][0]["probes"]["letter"].update(scores=[0.0]),
        lambda d: d["looks"][0]["questions"][0]["probes"]["letter"].update(scores=[0, 0, 0, None]),
    ],
)
def test_schema_is_strict(study, change):
    document = json.loads((study / "evals" / "attack-pretrained-s0.original.json").read_text())
    document["looks"] = document["looks"][:1]
    validator = jsonschema.Draft202012Validator(SCHEMA)
    assert validator.is_valid(document)
    change(document)
    assert not validator.is_valid(document)


@pytest.mark.parametrize("kind", ["original", "unlearned", "attacked"])
def test_schema_lets_further_probes_and_keys_be(study, kind):
    name = {"original": "model-pretrained-s0", "unlearned": "unlearn-pretrained-gd-s0"}
    document = json.loads((study / "evals" / f"{name.get(kind, 'attack-pretrained-s0.original')}.json").read_text())
    assert document["kind"] == kind
    further(document)
    jsonschema.Draft202012Validator(SCHEMA).validate(document)

"""A study's `deepspeed` key: a name or a file becomes an engine, and a unusable file is refused."""

import json

import pytest
import yaml
from places import ROOT
from pydantic import ValidationError
from rtt.errors import UserError
from rtt.study.deepspeed import GATHERED, STAGES, Engine, engine_of
from rtt.study.expand import Runs
from rtt.study.schema import Study


def test_an_engine_is_read_from_a_deepspeed_file(tmp_path):
    path = tmp_path / "mine.json"
    zero = {"stage": 3, "offload_optimizer": {"device": "cpu"}, "reduce_bucket_size": "auto", "sub_group_size": 5}
    path.write_text(json.dumps({"zero_optimization": zero}))
    assert engine_of(str(path), 10) == Engine(3, True, False, 100, GATHERED, 5)
    path.write_text(json.dumps({"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "none"}}}))
    assert engine_of(str(path)) == Engine(2)


def test_the_names_of_a_study_are_stages_with_and_without_offload():
    assert engine_of(None) == Engine()
    found = {name: (engine_of(name).stage, engine_of(name).offload) for name in STAGES}
    assert found == {"zero1": (1, False), "zero2": (2, False), "zero3": (3, False), "zero3-offload": (3, True)}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (None, "no such file; expected zero1"),
        ("no JSON", "not a JSON file"),
        ("[]", "found None, expected 1, 2 or 3"),
        ('{"zero_optimization": {"stage": 4}}', "found 4, expected 1, 2 or 3"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused_by_name(text, found, tmp_path):
    path = tmp_path / "mine.json"
    if text:
        path.write_text(text)
    with pytest.raises(UserError, match=rf"mine\.json: .*{found}"):
        engine_of(str(path))


def study(**more):
    raw = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text(encoding="utf-8"))
    return Study.model_validate(raw | {"launcher": "torchrun", "devices": 2} | more)


@pytest.mark.parametrize(
    ("engine", "precision", "said"),
    [
        ("zero2", "fp16", "precision fp16: DeepSpeed would keep"),
        ("zero3-offload", "bf16", "precision bf16 with offload"),
        ("zero9", "fp32", "zero9: no such file"),
    ],
)
def test_a_study_that_deepspeed_cannot_train_is_refused(engine, precision, said):
    raw = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text(encoding="utf-8"))
    with pytest.raises(UserError, match=said):
        attacked = raw["attacks"]["RTT"] | {"precision": precision, "optimizer": "lion"}
        Runs(study(deepspeed=engine, attacks={"RTT": attacked}))
    assert Runs(study(deepspeed="zero2")).attacks


@pytest.mark.parametrize(
    "launcher", [{"launcher": "none", "devices": 1}, {"launcher": "deepspeed", "deepspeed": "zero2"}]
)
def test_several_nodes_need_torchrun(launcher):
    assert study(nodes=2).processes == 4
    name = launcher["launcher"]
    with pytest.raises(
        ValidationError, match=rf"nodes: 2 needs launcher: torchrun \(found {name}\), which SLURM starts"
    ):
        study(nodes=2, **launcher)

"""`lora` in a method's settings: what it leaves as it was, and what `check` refuses before anything is trained."""

import json

import pytest
import tiny
from rtt.__main__ import main
from rtt.errors import UserError
from rtt.methods.base import Method
from rtt.methods.gd import GD
from rtt.study.expand import Runs

GD_LORA = {"learning_rate": 1e-2, "batch_size": 4, "points": [1, 2], "lora": {"rank": 2}}


def write(tmp_path, **changes):
    """Write a tiny study; return its path."""
    file = tmp_path / "study.yaml"
    file.write_text(json.dumps(tiny.study(**changes).model_dump(mode="json", exclude_unset=True)))
    return file


def refused_file(tmp_path, capsys, changes) -> str:
    """Return the message with which `check` refuses a study that no object of Python can hold."""
    file = write(tmp_path)
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    assert main(["check", str(file)]) == 1
    return capsys.readouterr().err


def refused(tmp_path, capsys, **changes) -> str:
    """Return the message with which `check` refuses a study."""
    assert main(["check", str(write(tmp_path, **changes))]) == 1
    return capsys.readouterr().err


def test_a_study_without_the_key_keeps_its_runs_and_one_with_it_gets_others():
    def ids(**more):
        method = {key: value for key, value in GD_LORA.items() if key != "lora"} | more
        return set(Runs(tiny.study(methods={"GD": method})).unlearn)

    assert ids() == ids(lora=None) != ids(lora={})
    assert ids(lora={}) == ids(lora={"rank": 16, "alpha": 32.0}) != ids(lora={"rank": 8})


def test_check_finds_layers_that_take_no_adapter(tmp_path, capsys):
    assert main(["check", str(write(tmp_path, methods={"GD": GD_LORA, "RMU": GD_LORA}))]) == 0
    for name, targets, words in (
        ("GD", ["nowhere"], "methods.GD: LlamaForCausalLM cannot be given adapters"),
        ("GD", ["lm_head"], "methods.GD: lora.targets: the weight of lm_head is tied to another one"),
        ("RMU", ["q_proj"], "methods.RMU: LlamaForCausalLM cannot be given adapters"),  # it trains down_proj alone
    ):
        method = GD_LORA | {"lora": {"targets": targets}}
        assert words in refused(tmp_path, capsys, methods={name: method})
    rtt = {"learning_rates": [1e-3], "epochs": 1, "score_epochs": None, "batch_size": 4, "targets": ["nowhere"]}
    assert "attacks.RTT_LoRA: LlamaForCausalLM cannot" in refused(tmp_path, capsys, attacks={"RTT_LoRA": rtt})


def test_a_grid_s_adapters_are_tried_once(tmp_path, monkeypatch):
    tried = []
    monkeypatch.setattr("rtt.steps.check._check_adapters", lambda spec, lora, model: tried.append(lora.rank))
    grid = {"grid": {"retain_coefficient": [0.1, 1.0, 10.0], "learning_rate": [1e-3, 1e-2]}}
    methods = {"GD": GD_LORA | grid, "RMU": GD_LORA | {"lora": {"rank": 3}}}
    assert main(["check", str(write(tmp_path, methods=methods, seeds=[0, 1]))]) == 0
    assert sorted(tried) == [2, 3]


def test_a_method_that_changes_weights_at_a_point_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(GD, "at_point", lambda self, model: Method.at_point(self, model))
    found = refused(tmp_path, capsys, methods={"GD": GD_LORA})
    assert "methods.GD: lora: GD changes weights at each point, which adapters cannot hold" in found


def test_zero_3_is_refused_and_zero_2_is_not():
    shared = {"launcher": "torchrun", "devices": 2, "methods": {"GD": GD_LORA}}
    assert Runs(tiny.study(deepspeed="zero2", **shared)).unlearn
    with pytest.raises(UserError, match=r"deepspeed: zero3 for unlearn-.*: lora: .*use deepspeed: zero1 or zero2"):
        Runs(tiny.study(deepspeed="zero3", **shared))


def test_adapters_need_no_remainders_of_rounding(tmp_path, capsys):
    low = GD_LORA | {"precision": "bf16_kahan"}
    assert "bf16_kahan with adapters: they are in fp32" in refused_file(tmp_path, capsys, {"methods": {"GD": low}})
    rtt = {"RTT_LoRA": {"precision": "bf16_kahan"}}
    assert "bf16_kahan with adapters: they are in fp32" in refused_file(tmp_path, capsys, {"attacks": rtt})

"""What a study learns of a model's folder before the first job: its depth, and what its architecture cannot do."""

import json

import pytest
import tiny
from rtt.errors import UserError
from rtt.study.expand import Runs

LLAMA = {"model_type": "llama", "num_hidden_layers": 12, "hidden_size": 16, "vocab_size": 99}
RMU = {"learning_rate": 1e-3, "batch_size": 4, "points": [1, 2], "mcq_loss": "QUESTION_ANSWER"}


def runs(folder, config, methods, attacks=None, **model):
    """Return the runs of a study on a model's folder that holds a config alone, besides what makes it a folder."""
    place = folder / "model"
    place.mkdir()
    (place / "config.json").write_text(json.dumps(config))
    (place / "tokenizer_config.json").write_text("{}")
    (place / "model.safetensors").write_bytes(b"weights")
    model = {"name": "tiny", "path": str(place)} | model
    more = {"attacks": attacks} if attacks else {}
    return Runs(tiny.tasks_study(folder, model={k: v for k, v in model.items() if v}, methods=methods, **more))


def layers(found):
    return {(spec.settings.layer, spec.settings.layers_trained) for spec in found.unlearn.values()}


@pytest.mark.parametrize(
    "config, model, expected",
    [
        (LLAMA, {}, (2, 2)), (LLAMA | {"num_hidden_layers": 4}, {}, (0, 1)),
        (LLAMA | {"num_hidden_layers": 32}, {}, (7, 3)),
        ({"model_type": "gpt2", "n_layer": 12, "n_embd": 16}, {}, (2, 2)),
        ({"model_type": "gemma3", "text_config": LLAMA}, {}, (2, 2)),
        (LLAMA, {"rmu": {"layer": 0.5, "trained": [0.25, 0.5]}}, (6, 2)), (LLAMA, {"layers": 12}, (2, 2)),
        (LLAMA, {"rmu": {"layer": 3, "trained": [2, 3]}}, (3, 2)),
    ],
)  # fmt: skip
def test_rmu_takes_the_fractions_of_the_folders_own_depth(tmp_path, config, model, expected):
    assert layers(runs(tmp_path, config, {"RMU": RMU}, **model)) == {expected}


def test_a_model_that_is_not_there_yet_tells_its_depth_when_it_is_trained(tmp_path):
    """The layers stay open in the spec, and `rmu_layers` takes the fractions of the model's depth."""
    hub = {"path": None, "hub": {"id": "org/model"}}
    assert layers(runs(tmp_path, LLAMA, {"RMU": RMU}, **hub)) == {(None, None)}


@pytest.mark.parametrize(
    "config, methods, message",
    [
        (LLAMA, {"RMU": RMU | {"layer": 12}}, "methods.RMU: layer 12: the model has 12 layers"),
        (LLAMA, {"GD": RMU | {"train_layers": [3, 12]}}, r"methods.GD.train_layers: layer 12: the model has 12 layers"),
        (
            LLAMA | {"model_type": "mamba"},
            {"RMU": RMU},
            "methods.RMU: .*/model is a mamba model: it trains .* of the MLP",
        ),
    ],
)
def test_what_the_model_does_not_have_is_refused_before_the_first_job(tmp_path, config, methods, message):
    with pytest.raises(UserError, match=message):
        runs(tmp_path, config, methods)


@pytest.mark.parametrize("name", ["lens", "project", "linear_probe"])
def test_layers_that_an_attack_cannot_read_are_refused_before_the_first_job(tmp_path, name):
    with pytest.raises(UserError, match=rf"attacks.{name}.layers: layer 12: the model has 12 layers"):
        runs(tmp_path, LLAMA, {"RMU": RMU}, attacks={name: {"layers": [3, 0.5, 12]}})


def test_fractions_of_a_depth_that_nobody_knows_are_refused(tmp_path):
    hub = {"path": None, "hub": {"id": "org/model"}, "rmu": {"layer": 0.5, "trained": [0.5]}}
    with pytest.raises(ValueError, match="rmu gives fractions of the depth: add layers"):
        runs(tmp_path, LLAMA, {"RMU": RMU}, **hub)

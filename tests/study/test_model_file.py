"""Model files: what they may hold, what is refused, and RMU's layers at other depths."""

import re
from pathlib import Path

import pytest
import yaml
from rtt.depth import layer_number
from rtt.errors import UserError
from rtt.methods.rmu import rmu_layers
from rtt.study.model_file import load_modelfile

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "config/models"
GOOD = {"name": "mine", "path": "somewhere"}


def write(tmp_path, **more):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in (GOOD | more).items() if value is not None}))
    return path


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_model_file_loads_under_its_name(path):
    model = load_modelfile(path.stem, MODELS)
    assert model.name == path.stem and model == load_modelfile(path)
    assert model.parameters and model.layers and model.licence
    assert model.gguf or model.hub.revision


def test_the_papers_rmu_layers():
    for name in ("llama-3-8b", "zephyr-7b-beta"):
        model = load_modelfile(name, MODELS)
        assert rmu_layers(model.layers, model.rmu.layer, model.rmu.trained) == (7, [5, 6, 7]) == rmu_layers(32)
    assert rmu_layers(30) == (6, [4, 5, 6])
    assert rmu_layers(36) == (7, [5, 6, 7])
    assert rmu_layers(2) == (0, [0])


def test_layers_by_number_and_fraction():
    assert [layer_number(x, 32) for x in (0, 31, 0.5, 7 / 32, 0.999)] == [0, 31, 16, 7, 31]
    assert [layer_number(n / depth, depth) for depth in range(2, 99) for n in range(1, depth)] == [
        n for depth in range(2, 99) for n in range(1, depth)
    ]
    assert rmu_layers(4, 2, 2) == (2, [1, 2]) and rmu_layers(4, 1, 9) == (1, [0, 1])
    assert rmu_layers(4, 0.5, [0.25, 2]) == (2, [1, 2])
    for bad in (32, -1, 1.5, -0.5):
        with pytest.raises(UserError, match="32 layers"):
            layer_number(bad, 32)
    with pytest.raises(UserError, match="layers 0 to 1, but was given 3"):
        rmu_layers(4, 1, [0, 3])


@pytest.mark.parametrize(
    "more, words",
    [
        ({"path": None}, ["exactly one of hub, path, gguf", "none"]),
        ({"hub": {"id": "a/b"}}, ["exactly one", "hub, path"]),
        ({"name": "My Model"}, ["name", "My Model"]),
        ({"dtype": "int8"}, ["dtype", "int8", "fp32"]),
        ({"trust_remote_code": True}, ["trust_remote_code: unknown key", "allowed: name, hub"]),
        ({"path": None, "hub": {"id": "a/b", "revision": "main"}}, ["hub.revision", "main"]),
        ({"path": None, "hub": {"id": "a/b", "rev": "main"}}, ["hub.rev: unknown key; allowed: id, revision"]),
        ({"path": None, "gguf": {"file": "x.gguf"}}, ["gguf.sha256: this key is missing"]),
        ({"rmu": {"layer": 1.5, "trained": [1]}}, ["rmu.layer", "1.5"]),
        ({"rmu": {"layer": 1, "trained": [9]}, "layers": 4}, ["layers 0 to 3", "found 9"]),
    ],
)
def test_a_wrong_key_is_named(tmp_path, more, words):
    with pytest.raises(UserError) as error:
        load_modelfile(write(tmp_path, **more))
    assert all(word in str(error.value) for word in ["mine.yaml", *words]), error.value
    assert "constrained" not in str(error.value)


def test_files_that_are_no_model_files(tmp_path):
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "bad.yaml").write_text("a: [\n")
    for name, words in (("list.yaml", "found a list"), ("bad.yaml", "not a YAML"), ("gone.yaml", "no such model file")):
        with pytest.raises(UserError, match=words):
            load_modelfile(tmp_path / name)
    with pytest.raises(UserError, match="models: bad, list, llama-3-70b, llama-3-8b, "):
        load_modelfile("llama", tmp_path)


def test_requirements_txt_has_the_locks_versions():
    """Every direct package of the pipeline (requirements.in, before its development part), at the lock's version."""
    pins = re.findall(r"^([\w.-]+)==([^ \\]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    lock = {name.lower().replace("_", "-"): version for name, version in pins}
    wanted = (ROOT / "requirements.in").read_text().split("# the pipeline\n")[1].split("\n\n")[0]
    names = {re.match(r"[\w-]+", line)[0].replace("_", "-") for line in wanted.splitlines()}
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    found = dict(line.split("==") for line in lines if not line.startswith("#"))
    torch_version = re.search(r"^torch=torch==(.*)$", (ROOT / "scripts/setup.sh").read_text(), re.MULTILINE)[1]
    assert found == {name: lock[name] for name in names} | {"torch": torch_version}
    flash = [line for line in (ROOT / "requirements-flash.txt").read_text().splitlines() if line[0] != "#"]
    assert flash[0] == "-r requirements.txt" and re.fullmatch(r"flash-attn==[\d.]+", flash[1]) and len(flash) == 2

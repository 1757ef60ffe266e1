"""Study files: what is refused, and that the message says where, what was found and what is allowed."""

import json
import re
from pathlib import Path

import jsonschema
import pytest
import tiny
import yaml
from rtt.__main__ import main
from rtt.errors import UserError
from rtt.study.load import load_study, schema
from rtt.study.schema import Study
from rtt.yaml_files import read_yaml

ROOT = Path(__file__).parents[2]
STUDIES = sorted(path for path in (ROOT / "config").glob("*.yaml"))
GD = {"learning_rate": 1e-3, "batch_size": 4, "points": [1, 2]}


def base():
    return json.loads(tiny.study().model_dump_json(exclude_none=True))


def write(folder, study) -> Path:
    path = folder / "my study.yaml"
    path.write_text(study if isinstance(study, str) else yaml.safe_dump(study), encoding="utf-8")
    return path


def changed(keys, value):
    study = base()
    place = study
    for key in keys[:-1]:
        place = place.setdefault(key, {}) if isinstance(place, dict) else place[key]
    if value is KeyError:
        del place[keys[-1]]
    else:
        place[keys[-1]] = value
    return study


MISTAKES = [
    # key, value, what the message must say
    (("bogus",), 1, ["bogus", "unknown key", "pretraining", "keep_models"]),
    (("data", "generator", "bogus"), 1, ["data.generator.bogus", "unknown key", "facts_per_split"]),
    (("methods", "GD", "steering"), 1.0, ["methods.GD.steering", "unknown key", "retain_coefficient"]),
    (("methods", "DPO"), GD, ["methods.DPO", "unknown key", "GD, RMU, RIA, FIF, NPO"]),
    (("methods",), ["GD"], ["methods", "object", "['GD']"]),
    (("methods", "GD", "epochs"), 2, ["methods.GD", "points or epochs, one of the two"]),
    (
        ("methods", "GD", "grid"),
        {"steering": [1.0]},
        ["methods.GD", "grid: found steering", "retain_coefficient"],
    ),
    (("methods", "GD", "grid"), {"learning_rate": []}, ["methods.GD.grid.learning_rate", "at least 1"]),
    (("arms",), KeyError, ["give arms", "or tasks"]),
    (("pretraining",), KeyError, ["the miniature needs pretraining"]),
    (("point_choice",), {"probes": ["few_shot"]}, ["point_choice.probes: few_shot does not come from scores.probes"]),
    (("point_choice",), {"retain_probe": "few_shot"}, ["point_choice.retain_probe: few_shot does not come from"]),
    (("criteria",), {"headline": ["few_shot"]}, ["criteria.headline: few_shot does not come from scores.probes"]),
    (("criteria",), {"headline": ["letter", "likelihood", "cloze"]}, ["criteria.headline:", "at most 2 items"]),
    (("criteria",), {"known": 1.5}, ["criteria.known:", "less than or equal to 1", "1.5"]),
    (("repeats",), {"attack": 0}, ["repeats.attack:", "greater than or equal to 1", "0"]),
    (("faithful",), ["paddings"], ["faithful.0", "'padding'", "'paddings'"]),
    (("external_models",), {"GD": "x"}, ["external_models.GD", "same name"]),
    (("variants",), {"default": {}}, ["variants.default", "the study itself"]),
    (("pretraining", "learning_rate"), "fast", ["pretraining.learning_rate", "number", "'fast'"]),
    (("pretraining", "learning_rate"), "1e-3", ["pretraining.learning_rate", "'1e-3'", "write 1.0e-3"]),
    (("pretraining", "learning_rate"), True, ["pretraining.learning_rate", "number", "True"]),
    (("pretraining", "learning_rate"), 0.0, ["pretraining.learning_rate", "greater than 0", "0.0"]),
    (("pretraining", "learning_rate"), float("inf"), ["pretraining.learning_rate", "finite", "inf"]),
    (("pretraining", "learning_rate"), float("nan"), ["pretraining.learning_rate", "finite", "nan"]),
    (("pretraining", "steps"), True, ["pretraining.steps", "integer", "True"]),
    (("pretraining", "steps"), 3.0, ["pretraining.steps", "integer", "3.0"]),
    (("pretraining", "steps"), 0, ["pretraining.steps", "greater than or equal to 1", "0"]),
    (("pretraining", "steps"), KeyError, ["pretraining.steps", "missing"]),
    (("pretraining", "mcqs_per_batch"), 6, ["pretraining", "mcqs_per_batch 6", "below batch_size 6"]),
    (("attacks", "RTT", "epochs"), KeyError, ["attacks.RTT.epochs", "missing"]),
    (("attacks", "RTT", "score_epochs"), [2, 9], ["attacks.RTT", "score_epochs", "end by epoch 2"]),
    (("attacks", "RTT", "learning_rate"), 1e-3, ["attacks.RTT.learning_rate", "unknown key", "learning_rates"]),
    (("attacks", "RTT", "learning_rates"), [], ["attacks.RTT.learning_rates", "at least 1", "[]"]),
    (("attacks", "RTT", "learning_rates"), [1e-3, "x"], ["attacks.RTT.learning_rates.1", "number", "'x'"]),
    (("seeds",), [0, 0], ["seeds", "once", "[0, 0]"]),
    (("study",), "reference", ["study: results/reference holds the results that come with the project", "'reference'"]),
    (("seeds",), [-1], ["seeds.0", "greater than or equal to 0", "-1"]),
    (
        ("arms",),
        ["pretained"],
        ["arms.0", "'taught', 'taught_shuffled' or 'taught_same_data'", "'pretained'"],
    ),
    (("retain_budgets",), [0.2], ["retain_budgets.0", "0.05, 0.1, 0.3 or 1.0", "0.2"]),
    (("methods", "GD", "points"), [3, 2], ["methods.GD.points", "increase", "[3, 2]"]),
    (("methods", "GD", "points"), [2, 2], ["methods.GD.points", "increase"]),
    (("methods", "RMU"), GD | {"layer": 2}, ["methods.RMU: layer 2", "the model has 2 layers"]),
    (("methods", "GD", "train_layers"), [0, 2], ["methods.GD.train_layers", "2 layers"]),
    (("point_choice",), {"rule": "best"}, ["point_choice.rule", "'nearest_floor' or 'lowest'", "'best'"]),
    (("model",), {"heads": 3, "hidden_size": 16}, ["model", "hidden_size 16", "heads (3)"]),
    (("study",), "../evil", ["study", "pattern", "'../evil'"]),
    (("keep_models",), "yes please", ["keep_models", "boolean", "'yes please'"]),
    (("data", "policy"), {"split_leak": "ignore"}, ["data.policy.split_leak", "'keep', 'drop' or 'stop'", "'ignore'"]),
]


@pytest.mark.parametrize(
    "keys, value, words", MISTAKES, ids=lambda x: ".".join(map(str, x)) if type(x) is tuple else ""
)
def test_mistakes_say_where_what_and_what_is_allowed(tmp_path, monkeypatch, capsys, keys, value, words):
    path = write(tmp_path, changed(keys, value))
    with pytest.raises(UserError) as caught:
        load_study(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert all(word in message for word in words), message
    monkeypatch.chdir(tmp_path)
    assert main(["check", str(path)]) == 1
    assert capsys.readouterr().err == f"error: {message}\n"


def test_all_mistakes_are_told_at_once(tmp_path):
    study = base()
    study["bogus"], study["pretraining"]["steps"] = 1, 0
    with pytest.raises(UserError, match=r"bogus[^\n]*\n?") as caught:
        load_study(write(tmp_path, study))
    assert "pretraining.steps" in str(caught.value) and str(caught.value).count("\n") == 1


FILES = [
    ("", ["an empty file"]),
    ("- a\n- b\n", ["found a list"]),
    ("just words", ["found a str"]),
    ("a: [1", ["not a YAML file", "s.yaml:1: "]),
    ("study: a\nstudy: b\n", ["'study' stands twice", "s.yaml:2: "]),
    ("study: a\nmodel:\n  layers: 2\n  heads: 2\n  layers: 3\n", ["'layers' stands twice", "s.yaml:5: "]),
    ("x: !!python/object:os.system {}\n", ["not a YAML file"]),
    ("study: 2020-01-01\n", ["study: ", "(found '2020-01-01')"]),
    (b"study: \xff\xfe\n", ["s.yaml:1: byte 8 is not UTF-8"]),
]


@pytest.mark.parametrize("content, words", FILES, ids=range(len(FILES)))
def test_files_that_are_no_study(tmp_path, monkeypatch, capsys, content, words):
    path = tmp_path / "s.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.chdir(tmp_path)
    assert main(["check", str(path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path}:") and "Traceback" not in error
    assert all(word in error for word in words), error


def test_missing_file_and_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for path, word in ((tmp_path / "none.yaml", "no such study file"), (tmp_path, "found a folder")):
        assert main(["check", str(path)]) == 1
        assert capsys.readouterr().err.startswith(f"error: {path}: {word}")


def test_a_name_of_no_study_is_told_the_names(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["check", "smok"]) == 1
    found = "error: smok: no such study file; give its path, or one of the project's own: attacks, config, "
    assert (told := capsys.readouterr().err).startswith(found) and ", smoke, " in told


def test_same_key_in_two_places_is_no_double(tmp_path):
    rest = {key: value for key, value in base().items() if key != "point_choice"}
    text = yaml.safe_dump(rest) + "point_choice: {rule: lowest}\n"
    assert load_study(write(tmp_path, text)).point_choice.rule == "lowest"
    merged = "a: &a {x: 1}\nb:\n  <<: *a\n  x: 2\n"  # YAML's own way to override
    assert read_yaml(write(tmp_path, merged), "file", "a, b") == {"a": {"x": 1}, "b": {"x": 2}}


@pytest.mark.parametrize(
    "override, words",
    [
        ({"attacks": 1}, ["--config attacks", "cannot be set here", "retain_budgets"]),
        ({"colour": 1}, ["--config colour", "cannot be set here"]),
        ({"seeds": "abc"}, ["--config seeds='abc'", "seeds", "array", "'abc'"]),
        ({"seeds": [True]}, ["seeds.0", "integer", "True"]),
        ({"keep_models": 3}, ["--config keep_models=3", "keep_models", "boolean"]),
        ({"seeds": "abc", "study": "x"}, ["--config seeds='abc'", "--config study='x'", "seeds: "]),
        ({"methods": ["FIF"]}, ["methods", "'FIF'", "it has GD"]),
        ({"methods": [["GD"]]}, ["methods", "[['GD']]"]),
        ({"methods": 3}, ["methods", "3", "it has GD"]),
    ],
)
def test_overrides_that_are_refused(tmp_path, override, words):
    with pytest.raises(UserError) as caught:
        load_study(write(tmp_path, base()), override)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_overrides_replace_the_key(tmp_path):
    study = base()
    study["methods"]["RIA"] = GD
    path = write(tmp_path, study)
    found = load_study(path, {"seeds": [4, 5], "methods": ["RIA"], "arms": ["taught"], "retain_budgets": [0.3]})
    assert (found.seeds, found.arms, found.retain_budgets) == ([4, 5], ["taught"], [0.3])
    assert list(found.methods.named) == ["RIA"]
    assert list(load_study(path, {"methods": "GD"}).methods.named) == ["GD"]
    assert load_study(path, {}) == load_study(path)


def test_the_study_is_read_as_it_stands(tmp_path):
    study = base()
    study["pretraining"]["learning_rate"] = 1  # an integer is a number
    study["retain_budgets"] = [1]
    found = load_study(write(tmp_path, study))
    assert found.pretraining.learning_rate == 1.0
    assert [str(budget) for budget in found.retain_budgets] == ["1.0"]  # the key of point choices and file names
    assert found.attacks.RTT.at(0.25).learning_rate == 0.25
    assert found.attacks.RTT.at(0.25).batch_size == 4


def test_attacks_settings_reach_training(tmp_path):
    study = base()
    other = {"warmup_steps": 3, "decay": 0.5, "weight_decay": 0.1, "adam_beta2": 0.9, "max_grad_norm": None}
    other |= {"precision": "bf16_kahan", "gradient_release": True}
    study["attacks"]["RTT"] |= other
    at = load_study(write(tmp_path, study)).attacks.RTT.at(1e-3)
    defaults = {"optimizer": "adamw", "count_padding": False}
    found = at.model_dump()
    assert found.pop("train_layers", None) is None
    assert found == {"learning_rate": 1e-3, "batch_size": 4} | defaults | other


def test_schema_file_is_current():
    written = json.loads((ROOT / "config/schema.json").read_text(encoding="utf-8"))
    assert written == schema(), "run: python -m rtt check --schema > config/schema.json"


def test_check_prints_the_schema(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["check", "--schema"]) == 0
    assert capsys.readouterr().out == (ROOT / "config/schema.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_studies_of_this_repository_are_valid(path, monkeypatch, capsys, tmp_path):
    published = json.loads((ROOT / "config/schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(published)
    jsonschema.validate(yaml.safe_load(path.read_text(encoding="utf-8")), published)
    assert isinstance(load_study(path), Study)
    monkeypatch.chdir(tmp_path)
    if path.name.startswith(("own-model", "own-tofu", "own-smollm")):  # what they name is made as docs/own.md says
        assert main(["check", str(path)]) == 1
        assert re.search("(?i)no such (file|folder)", capsys.readouterr().err)
    else:
        assert main(["check", str(path)]) == 0
        assert "methods" in (printed := capsys.readouterr().out) and "None" not in printed


def test_the_schema_refuses_what_the_program_refuses():
    published = json.loads((ROOT / "config/schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(base(), published)
    for keys, value in (
        (("bogus",), 1), (("methods", "DPO"), GD), (("pretraining", "steps"), 0),
        (("attacks", "RTT", "epochs"), KeyError),
        (("methods", "GD", "steering"), 1.0), (("retain_budgets",), [0.2]),
    ):  # fmt: skip
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(changed(keys, value), published)


def test_config_stays_light():
    """The Snakefile imports it at each parse."""
    import subprocess
    import sys

    code = "import sys, rtt.study.specs; print([m for m in ('torch', 'transformers', 'pandas') if m in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT / "scripts", check=True
    )
    assert found.stdout.strip() == "[]"


def test_the_model_can_be_another():
    study = load_study(ROOT / "config/paper.yaml", {"model": "zephyr-7b-beta"})
    assert (study.model.name, load_study(ROOT / "config/paper.yaml").model.name) == ("zephyr-7b-beta", "llama-3-8b")
    with pytest.raises(UserError, match="no-such-model"):
        load_study(ROOT / "config/paper.yaml", {"model": "no-such-model"})

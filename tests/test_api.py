"""What `import rtt` offers: light, typed, and the same numbers as the commands and the files."""

import inspect
import json
import math
import shutil
import subprocess
import sys
import typing

import numpy as np
import pytest
import rtt
import subword
import torch
from evals_builder import SMALL, make_evals, tables, write_runs
from places import ROOT
from rtt.__main__ import main
from rtt.files import write_json
from rtt.models.load import save
from rtt.scoring.halves import halves
from rtt.stats.tables import write_table
from rtt.stats.verdict import verdict
from rtt.study.load import load_study, to_yaml
from rtt.study.names import TABLES


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished results folder on planted accuracies, with a study file of the same name."""
    folder = tmp_path_factory.mktemp("api") / "results/smoke"
    make_evals(folder, **SMALL | {"seeds": (0, 1), "methods": ("GD", "RMU"), "probes": ("letter",)})
    stems = {kind: sorted(path.stem for path in (folder / kind).iterdir()) for kind in ("evals", "point_choices")}
    assert tables(folder, *write_runs(folder, {"default": {**stems, "reported": "nested"}})) == 0
    (folder / "study.yaml").write_text(to_yaml(load_study(ROOT / "config/smoke.yaml")))
    return folder


def test_import_loads_nothing_and_only_score_needs_torch():
    block = (
        "import sys; before = set(sys.modules); import rtt; "
        "assert not {'rtt.api', 'pandas', 'numpy', 'yaml'} & set(sys.modules), 'import rtt is not light'; "
        "rtt.load_study, rtt.score; assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", block], cwd=ROOT / "scripts", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_listed_typed_and_described():
    from rtt import api

    assert rtt.__all__ == api.__all__ == sorted(api.__all__)
    stub = (ROOT / "scripts/rtt/__init__.pyi").read_text()
    page = (ROOT / "docs/api.md").read_text()
    for name in rtt.__all__:
        found = getattr(rtt, name)
        assert found is getattr(api, name) and inspect.getdoc(found)
        assert f"import {name} as {name}\n" in stub and f"`rtt.{name}" in page
        members = (
            [found] if inspect.isfunction(found) else [m for _, m in inspect.getmembers(found, inspect.isfunction)]
        )
        for one in members if found is not rtt.UserError else []:
            if not one.__name__.startswith("_"):
                assert "return" in typing.get_type_hints(one, vars(api) | vars(typing) | HINTS), one
                assert inspect.getdoc(one), one
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        rtt.nothing  # noqa: B018
    assert set(rtt.__all__) <= set(dir(rtt))


HINTS = {"PreTrainedModel": object, "PreTrainedTokenizerBase": object}


def test_a_results_folder_gives_the_tables_that_were_written(folder, tmp_path):
    study = rtt.load_study(folder)
    assert (study.name, study.folder, len(study.missing())) == ("smoke", folder, 0)
    assert study.settings["seeds"] == [0]
    for name in TABLES:
        write_table(tmp_path / name, study.table(name))
        assert (tmp_path / name).read_bytes() == (folder / f"tables/{name}.csv").read_bytes()
        assert len(study.written_table(name)) == len(study.table(name))
    with pytest.raises(rtt.UserError, match="there is no such table; expected recovery, runs, probes, accuracy"):
        study.table("nothing")


def test_evaluations_hold_what_the_files_hold(folder):
    study = rtt.load_study(str(folder))
    every = study.evaluations()
    assert {one.path for one in every} == set((folder / "evals").iterdir())
    found = study.evaluations(kind="attacked", method="RMU", seed=1)
    assert found and all(
        (one.kind, one.labels["method"], one.labels["seed"]) == ("attacked", "RMU", 1) for one in found
    )
    for one in [found[0], *study.evaluations(kind="unlearned", method="GD")]:
        document, looks, questions = json.loads(one.path.read_text()), one.looks(), one.questions()
        assert one.run == document["run_id"] and len(looks) == len(document["looks"])
        assert len(questions) == sum(len(q["probes"]) for look in document["looks"] for q in look["questions"])
        for row in questions.to_dict("records"):
            (question,) = (q for q in document["looks"][row["look"]]["questions"] if q["id"] == row["id"])
            scores = question["probes"][row["probe"]]["scores"]
            assert (row["scores"], row["role"], row["group"]) == (scores, question["role"], question["group"])
            assert row["predicted"] == int(np.argmax(scores)) and row["correct"] == (row["predicted"] == row["answer"])
    assert one.looks()["step"].tolist() == [look["step"] for look in document["looks"]]
    with pytest.raises(rtt.UserError, match="no label 'colour'; expected kind, "):
        study.evaluations(colour="red")


def test_an_unfinished_study_says_so(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "part")
    lost = sorted((tmp_path / "part/evals").glob("attack*.gd-*"))[0]
    lost.unlink()
    study = rtt.load_study(tmp_path / "part")
    assert study.missing()["file"].tolist() == [str(lost)]
    with pytest.raises(rtt.UserError, match="UNFINISHED, 1 files are missing"):
        study.table("recovery")
    assert 0 < len(study.table("recovery", partial=True)) < len(rtt.load_study(folder).table("recovery"))


def test_a_study_file_and_a_bundle(folder, monkeypatch):
    monkeypatch.chdir(folder.parents[1])
    assert rtt.load_study("smoke").folder is not None
    new = rtt.load_study(ROOT / "config/config.yaml")
    assert new.folder is None
    with pytest.raises(rtt.UserError, match="study demo has no results in results/demo; run it"):
        new.table("recovery")
    bundle = rtt.load_study(ROOT / "tests/data/bundle-v2.zip")
    evaluation = bundle.evaluations(kind="original")[0]
    assert bundle.name == "tiny" and len(bundle.table("recovery")) == 36
    place = bundle.folder
    del bundle
    assert len(evaluation.questions())  # its file is kept as long as it is used
    del evaluation
    assert not place.exists()


@pytest.mark.parametrize("source", ["nothing.yaml", "nothing", ".", "nothing.zip", "list.yaml"])
def test_what_is_no_study_is_a_user_error(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_json(tmp_path / "list.yaml", [1])
    with pytest.raises(rtt.UserError):
        rtt.load_study(source)


def test_without_torch_score_is_a_user_error():
    block = (
        "import sys, importlib.util as util; found = util.find_spec; "
        "util.find_spec = lambda name, *more: None if name == 'torch' else found(name, *more)\n"
        "import rtt\ntry: rtt.score('x', [])\nexcept rtt.UserError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", block], cwd=ROOT / "scripts", capture_output=True, text=True)
    assert done.stdout.startswith("score: torch is not installed: make setup"), done.stderr


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    place = tmp_path_factory.mktemp("checkpoint") / "model"
    tokenizer = subword.tokenizer(bos=True)
    save(subword.model(tokenizer), tokenizer, place)
    return place


MCQS = [{"question": fact.question, "choices": fact.choices, "answer": fact.answer} for fact in subword.FACTS]


def test_score_gives_what_the_command_prints(checkpoint, tmp_path, capsys):
    path = tmp_path / "mcq.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in MCQS))
    assert main(["score", "--model", str(checkpoint), "--data", str(path), "--dtype", "fp64"]) == 0
    printed = json.loads(capsys.readouterr().out)
    found = rtt.score(checkpoint, path, dtype="fp64")
    assert found.accuracy.to_dict("index") == printed["accuracy"]
    assert found.questions["scores"].tolist() == [
        question["probes"][probe]["scores"]
        for question in printed["questions"]
        for probe in ("letter", "letter_permuted", "likelihood")
    ]
    again = rtt.score(checkpoint, MCQS, dtype="fp64")
    assert again.questions["scores"].tolist() == found.questions["scores"].tolist()


def test_score_is_the_log_probability_of_each_choice(checkpoint):
    """Against one text at a time, in float64 and without a cache, of a model that is already loaded."""
    tokenizer = subword.tokenizer(bos=True)
    model = subword.model(tokenizer).double()
    rows = rtt.score((model, tokenizer), MCQS, probes=["likelihood"], batch_size=3).questions
    for row, fact in zip(rows.to_dict("records"), subword.FACTS, strict=True):
        for choice, value in zip(fact.choices, row["scores"], strict=True):
            prompt = [1, *subword.ids(tokenizer, f"{fact.question}\nAnswer:")]
            tokens = torch.tensor([prompt + subword.ids(tokenizer, f" {choice}")])
            with torch.no_grad():
                nats = model(tokens).logits.log_softmax(-1)
            expected = sum(float(nats[0, i - 1, tokens[0, i]]) for i in range(len(prompt), tokens.shape[1]))
            assert math.isclose(value, expected, abs_tol=2e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probes": ["colour"]}, "probes: found 'colour', expected some of letter"),
        ({"dtype": "int8"}, "dtype: found 'int8', expected one of"),
        ({"batch_size": 0}, "batch_size: found 0, expected 1 or more"),
        ({"questions": []}, "questions: no row"),
        ({"questions": [MCQS[0], {"question": "?"}]}, "questions: row 2: "),
        ({"questions": "nothing.jsonl"}, "nothing.jsonl"),
        ({"model": "nowhere"}, "nowhere"),
        ({"probes": ["likelihood_fresh"]}, "likelihood_fresh needs fresh choices"),
    ],
)
def test_a_mistake_is_a_user_error(checkpoint, changes, message):
    with pytest.raises(rtt.UserError, match=message.replace("?", r"\?")):
        rtt.score(**{"model": checkpoint, "questions": MCQS} | changes)


# --- rtt.verdict

ASKED = 240


def answered(share, looks=3, seed=0, n=ASKED):
    """Return (looks, n) answers of which this share is right."""
    return (np.random.default_rng(seed).random((looks, n)) < share).astype(int)


def test_a_verdict_on_arrays_is_that_of_the_statistics():
    unlearned = {"RTT": answered(0.7), "other": answered(0.3, 1, 1)}
    never = {"RTT": answered(0.25, 3, 2), "other": answered(0.25, 1, 3)}
    original = {"RTT": answered(0.95, 3, 4), "other": answered(0.95, 1, 5)}
    groups = [f"g{i // 2}" for i in range(ASKED)]
    splits = ["a"] * 120 + ["b"] * 120
    found = rtt.verdict(unlearned, original, 0.25, never, groups=groups, splits=splits)
    first = halves(np.repeat([0, 1], 120), groups)
    floors = np.full(ASKED, 0.25)
    assert found == verdict(unlearned, original, floors, first, groups, never, floors, first, groups)
    assert found.answer == "hidden" and 0.4 < found.share < 0.6 and found.text.startswith("hidden: at least ")
    assert rtt.verdict(never, original, 0.25, never).answer == "none_shown"
    assert rtt.verdict(never, original, 0.25).answer == "cannot_tell"


def test_attacks_may_have_numbers_as_names():
    found = rtt.verdict({0: answered(0.7)}, answered(0.95, 1)[0], 0.25, {0: answered(0.25)})
    assert found.answer == "hidden" and "(0)" in found.reasons[0]


def test_single_looks_need_no_second_dimension():
    one = {"RTT": answered(0.7, 1)}
    flat = {"RTT": one["RTT"][0]}
    assert rtt.verdict(flat, answered(1.0, 1)[0], 0.25) == rtt.verdict(one, answered(1.0, 1)[0], 0.25)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"unlearned": {}}, "unlearned: found dict, expected {attack: answers}"),
        ({"unlearned": {"RTT": ["yes", "no"]}}, r"unlearned\['RTT'\]: expected numbers"),
        ({"unlearned": {"RTT": [0, 2]}}, r"unlearned\['RTT'\]: expected answers from 0 \(wrong\) to 1"),
        ({"unlearned": {"RTT": [0, float("nan")]}}, "expected answers from 0"),
        ({"unlearned": {"RTT": [0, 1], "b": [1]}}, "different numbers of questions: 2 of RTT, 1 of b"),
        ({"floor": 25}, "floor: found 25, expected what a guesser scores, from 0 to below 1"),
        ({"floor": "a quarter"}, "floor: found 'a quarter', expected what a guesser scores"),
        ({"splits": [None] * ASKED}, "splits: some are missing"),
        ({"groups": ["a"] * 239 + [float("nan")]}, "groups: some are missing"),
        ({"floor": [0.25]}, r"floor: found \(1,\), expected a number, or one for each of 240 questions"),
        ({"splits": ["a"]}, "splits: found 1, expected one for each of 240 questions"),
        ({"control": {"other": answered(0.25)}}, "verdict: the control lacks RTT"),
        ({"original": [1, 0]}, r"verdict: original: shape \(2,\), expected \(240,\)"),
    ],
)
def test_a_mistake_in_arrays_is_said_in_a_message(changes, says):
    given = {"unlearned": {"RTT": answered(0.7)}, "original": answered(0.95, 1)[0], "floor": 0.25}
    with pytest.raises(rtt.UserError, match=says):
        rtt.verdict(**given | changes)

"""What a verdict is asked for: models, questions and attacks, each mistake with its message, before anything runs."""

import json
import math
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import yaml
from rtt.errors import UserError
from rtt.judging import models, request
from rtt.judging.request import Request
from rtt.judging.study import name_of
from rtt.planner.gpus import Device
from rtt.study import plugins
from rtt.study.digests import folder_digest
from rtt.study.load import load_study

OPTIONS = tiny.GENERATOR | {"facts_per_split": 6, "first_names": 8, "last_names": 8}


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Return a folder with an original, an unlearned model, questions, a control's questions, and what had to stay."""
    folder = tmp_path_factory.mktemp("given")
    tiny.save_pretrained(tiny.model(0), tiny.tokenizer(), folder / "original")
    tiny.model(1).save_pretrained(folder / "mine")
    for name, dataset in (("data", "birth_years_a"), ("control", "birth_years_b"), ("kept", "cities")):
        tiny.write_raw(folder / name, dataset, options=OPTIONS)
    return folder


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Return the folder in which the commands of a test work."""
    monkeypatch.setattr("rtt.places.work_folder", lambda: tmp_path)
    return tmp_path


def asked(given: Path, **changes) -> Request:
    """Return a request with everything; `changes` replaces parts."""
    whole = {
        "unlearned": str(given / "mine"), "original": str(given / "original"), "data": str(given / "data"),
        "control_data": str(given / "control"), "retain_data": str(given / "kept"),
    }  # fmt: skip
    return Request(**whole | changes)


def prepared(given, work, **changes):
    return request.prepare(asked(given, **changes), None, 2)


def one_file(given: Path, work: Path) -> Path:
    """Return a folder with all questions in one file, which a verdict cuts into splits of its own."""
    folder = work / "facts"
    folder.mkdir()
    rows = "".join(path.read_text() for path in sorted((given / "data").glob("split_*.jsonl")))
    (folder / "facts.jsonl").write_text(rows)
    return folder


def refused(given, work, **changes) -> str:
    """Return the message of a request that is refused, which leaves nothing behind."""
    with pytest.raises(UserError) as caught:
        prepared(given, work, **changes)
    assert not list(work.iterdir())
    return str(caught.value)


def test_the_study_asks_for_what_was_asked_for(given, work):
    found = prepared(given, work)
    study = load_study(found.study_file)
    assert (found.out, study.study) == (work / "verdict" / "mine", "verdict-mine")
    assert study.external_models == {"mine": str(given / "mine")} and not study.methods.named
    assert study.model.path == str(given / "original")
    assert study.model.parameters == sum(p.numel() for p in tiny.model(0).parameters())
    (task,) = study.tasks
    assert (task.dataset, task.control, task.retain.dataset) == ("facts", "never_seen", "kept")
    assert study.data.datasets["facts"].folder == str(given / "data")
    assert study.headline == found.kept["headline"] == ["letter_permuted", "likelihood"]
    suite = {name: one for name, one in plugins.attacks().items() if not one.control}
    without = {name for name, one in suite.items() if not one.trains and not one.needs_context}
    assert set(study.attacks.named) == {"RTT"} | without
    assert set(study.attacks.named) | {one["attack"] for one in found.kept["not_tried"]} == set(suite)


def test_without_a_control_and_retain_facts_the_study_says_so(given, work):
    found = prepared(given, work, control_data=None, retain_data=None)
    study = load_study(found.study_file)
    (task,) = study.tasks
    assert task.control is False and task.retain.dataset == "invented"
    assert study.data.datasets["invented"].generate is not None
    text = found.study_file.read_text()
    assert "# No --control-data" in text and "# No --retain-data" in text
    said = "\n".join(request.lines(found))
    assert "12 questions are fewer than 160" in said and "no --control-data" in said and "no --retain-data" in said


def test_the_same_request_goes_on_and_another_is_refused(given, work):
    first = prepared(given, work)
    before = first.study_file.read_bytes()
    again = prepared(given, work)
    assert again.kept == first.kept and again.study_file.read_bytes() == before
    for changes, says in (
        ({"attacks": ("RTT", "noise")}, "--attacks was not given, and is RTT noise;"),
        ({"control_data": None}, f"--control-data was {given / 'control'}, and is not given;"),
    ):
        with pytest.raises(UserError, match=re.escape(f"holds the verdict on something else: {says}")):
            prepared(given, work, **changes)


@pytest.mark.parametrize("until", ["write_json", "write_text", "load_study"])
def test_a_preparation_that_was_killed_is_made_anew(given, work, monkeypatch, until):
    """The process ends in the first write of `asked.json`, in that of the study file, or after it."""

    class Killed(BaseException):
        pass

    def kill(path, *_):
        (work / "verdict/mine").mkdir(parents=True, exist_ok=True)
        (work / "verdict/mine/.asked.x1y2.json").write_text("{")
        raise Killed

    facts = one_file(given, work)
    with monkeypatch.context() as patch:
        patch.setattr(request, until, kill)
        patch.setattr(request, "_discard", lambda out: None)  # a process that is killed clears nothing
        with pytest.raises(Killed):
            prepared(given, work, data=str(facts))
    out = work / "verdict/mine"
    assert any(out.iterdir()) and (out / "data").exists() == (until != "write_json")
    found = prepared(given, work, data=str(facts), attacks=("RTT",))
    assert set(found.kept["attacks"]) == {"RTT"}
    assert {path.name for path in out.glob("[!.]*")} == {"asked.json", "data", "study.yaml"}


def test_a_preparation_that_is_at_work_is_left_alone(given, work):
    """asked.json is that of a live process, of one that has ended, and of one on another machine."""
    out = work / "verdict/mine"
    out.mkdir(parents=True)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        begun = {"version": request.VERSION, "asked": {}, "by": request._process(other.pid)}
        (out / "asked.json").write_text(json.dumps(begun))
        with pytest.raises(UserError, match=f"another verdict is being prepared there, by process {other.pid} on "):
            prepared(given, work)
        assert json.loads((out / "asked.json").read_text()) == begun
        other.communicate(b"")
    begun["by"]["host"] = "elsewhere"
    (out / "asked.json").write_text(json.dumps(begun))
    with pytest.raises(UserError, match="on elsewhere; wait for it"):
        prepared(given, work)
    begun["by"]["host"] = platform.node()
    (out / "asked.json").write_text(json.dumps(begun))
    assert "study" in prepared(given, work).kept


def test_changed_questions_are_another_verdict(given, work, tmp_path):
    data = shutil.copytree(given / "data", tmp_path / "changing")
    prepared(given, work, data=str(data))
    path = data / "split_0.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    folder_digest.cache_clear()  # another process, which has read nothing yet
    with pytest.raises(UserError, match="the questions have changed"):
        prepared(given, work, data=str(data))


def test_a_folder_with_other_files_is_left_alone(given, work):
    (work / "verdict/mine").mkdir(parents=True)
    (work / "verdict/mine/thesis.tex").write_text("x")
    with pytest.raises(UserError, match="it holds other files"):
        prepared(given, work)
    assert (work / "verdict/mine/thesis.tex").read_text() == "x"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"original": "nowhere"}, "--original nowhere: no such folder; expected a folder with config.json"),
        ({"unlearned": "org/name"}, "no folder has this name, and a model on the hub may change: name its commit, as "),
        ({"unlearned": "org/name@main"}, "found the revision 'main', expected a commit of 40 hex digits"),
        ({"data": "nothing-here"}, "--data nothing-here: no such folder"),
        ({"control_data": "nothing-here"}, "--control-data nothing-here: no such folder"),
        ({"attacks": ("RTTT",)}, "--attacks RTTT: there is no such attack; expected some of RTT, "),
        ({"attacks": ("sampling",)}, "--attacks sampling: none of these can be judged by letter_permuted, the first"),
        (
            {"attacks": ("linear_probe", "sampling"), "headline": ("likelihood_fresh",)},
            "--attacks linear_probe sampling: none of these can be judged by likelihood_fresh",
        ),
        ({"attacks": ("RTT_permuted",)}, "--attacks RTT_permuted: a control, which can bring no fact back"),
        ({"headline": ("few_shot",)}, "--headline few_shot: these questions cannot be asked so"),
        ({"headline": ("letter", "letter")}, "--headline letter letter: expected one or two different probes"),
        ({"budget": "soon"}, "--budget soon: expected a time such as 30min"),
    ],
)
def test_a_mistake_is_one_message_and_leaves_nothing(given, work, changes, says):
    assert says in refused(given, work, **changes)


def test_the_original_is_no_unlearned_model(given, work, tmp_path_factory):
    link = tmp_path_factory.mktemp("link") / "again"
    link.symlink_to(given / "original")
    for path in (given / "original", link):
        message = refused(given, work, unlearned=str(path))
        assert f"--unlearned {path}: it is the model that --original names" in message


def test_a_path_may_be_written_in_another_way(given, work):
    first = prepared(given, work)
    assert prepared(given, work, unlearned=f"{given}/mine/", data=f"{given}/./data/").kept == first.kept


def test_a_mistake_removes_no_other_verdict(given, work, monkeypatch):
    """Both began in a folder without verdicts."""

    def other_begins(*_):
        (work / "verdict/other").mkdir(parents=True)
        raise UserError("a mistake")

    monkeypatch.setattr(request, "_written", other_begins)
    with pytest.raises(UserError, match="a mistake"):
        prepared(given, work)
    assert [path.name for path in (work / "verdict").iterdir()] == ["other"]


def test_without_retain_facts_attacks_that_train_nothing_are_not_said_to_train(given, work):
    why = {one["attack"]: one["why"] for one in prepared(given, work, retain_data=None).kept["not_tried"]}
    assert why["prune"] == why["project"] == "it uses facts that must stay; give --retain-data"


@pytest.mark.parametrize(
    ("option", "folder", "says"),
    [
        ("control_data", "data", "12 of its 12 questions are those of --data {}/data, the first "),
        ("control_data", "data", "; a control holds facts that the original never saw: give others"),
        ("retain_data", "data", "12 of its 12 questions are those of --data {}/data, the first "),
        ("retain_data", "data", "; what had to stay cannot be what is unlearned: give others"),
        ("retain_data", "control", "12 of its 12 questions are those of --retain-data {}/control, the first "),
    ],
)
def test_one_set_of_questions_cannot_serve_twice(given, work, option, folder, says):
    message = refused(given, work, **{option: str(given / folder)})
    assert says.format(given) in message and "study verdict" not in message


@pytest.mark.parametrize("option", ["data", "control_data", "retain_data"])
def test_a_folder_without_questions_is_said(given, work, tmp_path_factory, option):
    empty = tmp_path_factory.mktemp("empty")
    message = refused(given, work, **{option: str(empty)})
    assert message.startswith(f"--{option.replace('_', '-')} {empty}: no *.jsonl file there; expected questions")


def test_a_control_with_fewer_questions_is_refused(given, work, tmp_path_factory):
    small = tiny.write_raw(tmp_path_factory.mktemp("small"), "birth_years_b", options=OPTIONS | {"facts_per_split": 5})
    assert "10 questions, and --data has 12: a control needs as many" in refused(given, work, control_data=str(small))


def test_a_malformed_line_is_named(given, work, tmp_path_factory):
    data = shutil.copytree(given / "data", tmp_path_factory.mktemp("bad") / "data")
    path = data / "split_1.jsonl"
    rows = path.read_text().splitlines()
    path.write_text("\n".join([rows[0], json.dumps(json.loads(rows[1]) | {"answer": "E"}), *rows[2:]]) + "\n")
    assert f"{path}:2: 'answer' is 'E'" in refused(given, work, data=str(data))


def test_a_budget_is_kept_from_any_folder(given, work, monkeypatch):
    """The questions are cut, so the study names them as seen from the folder where results go, which is another one."""
    device = Device("cpu", 1e12, 1e12, None, math.inf, "given")
    monkeypatch.setattr("rtt.judging.budget.device", lambda: (device, False))
    found = prepared(given, work, data=str(one_file(given, work)), attacks=("RTT",), budget="1d")
    assert found.kept["estimate_seconds"] > 0


@pytest.mark.parametrize(
    ("gpus", "warned"), [("100\n", True), ("81559\n100\n", True), ("81559\n", False), ("[N/A]\n", False)]
)
def test_a_gpu_that_is_too_small_is_said(given, work, monkeypatch, gpus, warned):
    """The miniature's training needs 2 GB, which libraries and the device's context take; 100 MiB are too little."""
    shown = subprocess.CompletedProcess([], 0, stdout=gpus, stderr="")
    monkeypatch.setattr("rtt.judging.budget.subprocess.run", lambda *_, **__: shown)
    said = "\n".join(request.lines(prepared(given, work, attacks=("RTT",))))
    assert ("warning: RTT needs 2 GB of a GPU by the planner's estimate" in said) == warned


def test_a_model_of_another_shape_is_refused(given, work, tmp_path_factory):
    other = tmp_path_factory.mktemp("other") / "wide"
    tiny.model(0, shape=tiny.SHAPE.model_copy(update={"hidden_size": 32})).save_pretrained(other)
    assert "hidden_size is 32, the original's is 16" in refused(given, work, unlearned=str(other))


@pytest.mark.parametrize(("folder", "name"), [("GD", "GD-model"), ("none", "none-model"), ("7b v2", "model-7b-v2")])
def test_a_model_is_not_called_as_a_method_is(given, tmp_path, folder, name):
    before = models.original(str(given / "original"))
    shutil.copytree(given / "mine", tmp_path / folder)
    assert models.unlearned(str(tmp_path / folder), before).name == name


def test_a_name_of_the_hub_that_is_not_there_is_said(given, work, monkeypatch):
    """The hub is asked about the size of an original; here nothing answers."""
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: (_ for _ in ()).throw(OSError("no route")))
    message = refused(given, work, original="org/name")
    assert "--original org/name: no folder has this name" in message and "no route" in message


def test_an_original_on_the_hub_is_pinned_and_its_size_known(given, work, monkeypatch):
    class Info:
        sha = "a" * 40
        safetensors = type("Weights", (), {"total": 2_000_000_000})

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: Info)
    hub = {"original": "org/name", "unlearned": f"org/gone@{'b' * 40}"}
    found = prepared(given, work, **hub)
    study = yaml.safe_load(found.study_file.read_text())
    assert study["model"] == {
        "name": "name", "hub": {"id": "org/name", "revision": "a" * 40}, "parameters": 2_000_000_000, "dtype": "bf16",
    }  # fmt: skip
    assert study["external_models"] == {"gone": {"hub": {"id": "org/gone", "revision": "b" * 40}}}
    assert study["attacks"]["RTT"]["precision"] == "bf16_kahan"
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: (_ for _ in ()).throw(OSError("no route")))
    assert prepared(given, work, **hub).kept == found.kept  # the same command goes on without a network


def test_the_newest_commit_of_the_original_is_no_unlearned_model(given, work, monkeypatch):
    info = SimpleNamespace(sha="a" * 40, safetensors=SimpleNamespace(total=1_000_000))
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: info)
    message = refused(given, work, original="org/name", unlearned=f"org/name@{'a' * 40}")
    assert f"--unlearned org/name@{'a' * 40}: it is the model that --original names" in message


def test_no_two_folders_share_a_name_of_a_study():
    long = "verdict/" + "a" * 100
    paths = ["verdict/gd", "verdict/GD", "verdict/a.b", "verdict/a-b", "verdict/a/b", "/verdict/gd", long, long + "b"]
    names = [name_of(Path(path)) for path in paths]
    assert names[0] == "verdict-gd" and names[4] == "verdict-a-b"
    assert len(set(names)) == len(paths) and all(re.fullmatch(r"verdict-[a-z0-9_-]{1,92}", name) for name in names)

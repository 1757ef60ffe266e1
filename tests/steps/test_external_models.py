"""Datasets and models of one's own: what is taken, what is refused before any job, what an export holds."""

import json
import shutil

import adapters
import pytest
import tiny
import torch
from rtt.__main__ import main
from rtt.data.facts import write_facts
from rtt.data.text import mcq
from rtt.errors import UserError
from rtt.files import canonical_json
from rtt.models.load import load, load_tokenizer, save
from rtt.steps.unlearn import external_folder, take_weights
from rtt.study import digests as inputs
from rtt.study.expand import Runs
from rtt.study.load import load_study
from rtt.study.settings import Model

OWN = {
    "arms": None,
    "pretraining": None,
    "teaching": None,
    "methods": {},
    "model": {"name": "mine", "path": "original"},
    "data": {"datasets": {"facts": {"folder": "facts"}, "never": {"folder": "never"}, "stay": {"folder": "stay"}}},
    "tasks": [
        {
            "dataset": "facts",
            "arm": "pretrained",
            "control": "never",
            "retain": {"dataset": "stay", "splits": ["train"]},
            "retain_eval": {"dataset": "stay", "splits": ["held_out"]},
        }
    ],
    "external_models": {"mine": "unlearned"},
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with an original, a model unlearned from it, and three datasets; the current one."""
    monkeypatch.chdir(tmp_path)
    inputs.folder_digest.cache_clear()
    save(tiny.model(0), tiny.tokenizer(), "original")
    save(tiny.model(1), tiny.tokenizer(), "unlearned")
    for folder, dataset in (("facts", "birth_years_a"), ("never", "birth_years_b"), ("stay", "cities")):
        tiny.write_raw(folder, dataset)
    return tmp_path


def refused(study=OWN) -> str:
    with pytest.raises(UserError) as error:
        Runs(tiny.study(**study))
    return str(error.value)


def test_the_folder_s_digest_is_in_the_spec_and_a_changed_weight_is_another_run(place):
    (before,) = Runs(tiny.study(**OWN)).unlearn.values()
    assert before.settings.digest == inputs.folder_digest(place / "unlearned") and before.method == "mine"
    save(tiny.model(2), tiny.tokenizer(), "unlearned")
    inputs.folder_digest.cache_clear()
    (after,) = Runs(tiny.study(**OWN)).unlearn.values()
    assert after.run_id != before.run_id and after.source == before.source


def test_another_original_or_dataset_is_another_run(place):
    before = set(Runs(tiny.study(**OWN)).choices)
    with open(place / "facts/corpus_split_0.jsonl", "a") as stream:
        stream.write('{"text": "One more."}\n')
    inputs.folder_digest.cache_clear()
    changed = set(Runs(tiny.study(**OWN)).choices)
    assert not changed & before
    save(tiny.model(3), tiny.tokenizer(), "original")
    inputs.folder_digest.cache_clear()
    assert not set(Runs(tiny.study(**OWN)).choices) & (changed | before)


def test_another_tokenizer_is_another_run_and_its_folder_may_hold_a_model(place):
    (place / "tokens").mkdir()
    for path in (place / "original").glob("tokenizer*"):
        shutil.copy(path, place / "tokens")
    study = OWN | {"model": {"name": "mine", "path": "original", "tokenizer": "tokens"}}
    (before,) = Runs(tiny.study(**study)).imports
    (place / "tokens/model.safetensors").write_text("of no importance")
    assert [*Runs(tiny.study(**study)).imports] == [before]
    with open(place / "tokens/tokenizer.json", "a") as stream:
        stream.write(" ")
    assert [*Runs(tiny.study(**study)).imports] != [before]
    assert Runs(tiny.study(**OWN)).imports.keys().isdisjoint({before})
    shutil.rmtree(place / "tokens")
    assert refused(study).startswith("study tiny: model.tokenizer: tokens: no tokenizer files in this folder")


def pickled(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"x")


def other_vocabulary(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 7}))


def adapter(folder):
    (folder / "adapter_config.json").write_text("{}")


BROKEN = [
    (shutil.rmtree, ["no such folder", "save_pretrained"]),
    (lambda folder: (folder / "config.json").unlink(), ["config.json", "missing"]),
    (pickled, ["pytorch_model.bin", "can run code", "safetensors"]),
    (other_vocabulary, ["vocab_size is 7, the original's is"]),
    (adapter, ["adapter", "merge"]),
]


@pytest.mark.parametrize("breaks, words", BROKEN)
def test_a_folder_that_cannot_be_the_unlearned_model_stops_before_any_job(place, breaks, words):
    breaks(place / "unlearned")
    said = refused()
    assert said.startswith("study tiny: external_models.mine: unlearned")
    assert all(word in said for word in words), said


@pytest.mark.parametrize("breaks, words", BROKEN[:3])
def test_so_does_one_that_cannot_be_the_original(place, breaks, words):
    breaks(place / "original")
    said = refused()
    assert said.startswith("study tiny: model.path: original") and words[0] in said, said


def test_the_miniature_of_another_shape_stops_too(place):
    study = {"external_models": {"mine": "unlearned"}, "model": tiny.SHAPE.model_dump() | {"layers": 3}}
    assert "num_hidden_layers is 2, the original's is 3" in refused(study)


def test_an_unlearned_model_needs_no_tokenizer(place):
    for path in (place / "unlearned").glob("tokenizer*"):
        path.unlink()
    assert Runs(tiny.study(**OWN)).unlearn


def test_a_missing_dataset_folder_names_the_folder(place):
    shutil.rmtree(place / "never")
    assert "never" in refused()


def test_the_weights_are_put_into_the_original_and_nothing_else_of_the_folder_is_used(place):
    model, _ = load("original")
    take_weights(model, "original", "unlearned")
    for mine, theirs in zip(model.parameters(), tiny.model(1).parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_folder_that_changed_since_the_study_started_is_refused(place, capsys):
    """The step itself, up to where it would score."""
    (spec,) = Runs(tiny.study(**OWN)).unlearn.values()
    files = {name: f"{name}.jsonl" for name in ("facts", "retain", "held-out")}
    for name, dataset in (("facts", "birth_years_a"), ("retain", "cities"), ("held-out", "cities")):
        write_facts(files[name], tiny.facts("raw", dataset))
    files |= {"spec": f"{spec.run_id}.json", "source": "original", "eval": "e.json", "manifest": "m.json"}
    (place / files["spec"]).write_text(canonical_json(spec.model_dump(mode="json")))
    files |= {"group": "g", "original": "o.json", "points": "points"}
    save(tiny.model(2), tiny.tokenizer(), "unlearned")
    inputs.folder_digest.cache_clear()
    assert main(["unlearn", *(f"--{flag}={file}" for flag, file in files.items())]) == 1
    assert "unlearned: changed since the study was started" in capsys.readouterr().err


def test_weights_of_another_model_and_broken_ones_are_refused(place):
    model, tokenizer = load("original")
    save(tiny.model(shape=Model(hidden_size=16, intermediate_size=32, layers=2, heads=2)), tokenizer, "wider")
    with pytest.raises(UserError, match=r"wider: .*mlp.* not in both"):
        take_weights(model, "original", "wider")
    untied = tiny.model(1)
    untied.config.tie_word_embeddings = False
    untied.lm_head.weight = torch.nn.Parameter(untied.lm_head.weight.detach() + 1)
    save(untied, tokenizer, "untied")
    with pytest.raises(UserError, match=r"untied: lm_head.weight .* not in both"):
        take_weights(model, "original", "untied")
    broken = tiny.model(1)
    broken.model.norm.weight.data[0] = float("nan")
    save(broken, tokenizer, "broken")
    with pytest.raises(UserError, match=r"broken: the weights model.norm.weight hold NaN"):
        take_weights(model, "original", "broken")


# --- own datasets


def facts(folder, *more) -> int:
    return main(["facts", str(folder), "--dataset", "x", "--out", "out.jsonl", "--audit", "audit.json", *more])


@pytest.mark.parametrize(
    "row, said",
    [
        ('{"question": "Who?", "choices": ["a", "b", "c", "d"], "answer": 4}', "answer"),
        ('{"question": "Who?", "choices": ["a"], "answer": 0}', "choices"),
        ('{"choices": ["a", "b", "c", "d"], "answer": 0}', "question"),
        ('{"question": "Who?", ', "JSON"),
    ],
)
def test_a_mistake_in_a_user_s_file_is_said_with_file_line_and_key(place, capsys, row, said):
    with open("facts/split_1.jsonl", "a", encoding="utf-8") as stream:
        stream.write(row + "\n")
    assert facts("facts") == 1
    error = capsys.readouterr().err
    assert "facts/split_1.jsonl:5:" in error and said in error and "Traceback" not in error
    assert not (place / "out.jsonl").exists()


def test_files_in_the_authors_folder_are_taken_before_any_download(place, monkeypatch):
    """Nothing else is asked for: without the files this fetch would have to reach a network."""
    monkeypatch.setattr("rtt.fetch.step.download", lambda *_: pytest.fail("a download was tried"))
    tiny.write_raw("data/dates-years-trimmed", "birth_years_a")
    assert main(["fetch", "years", "--out", "out", "--data", "data"]) == 0
    assert facts("out") == 0
    rows = [json.loads(line) for line in (place / "out.jsonl").read_text().splitlines()]
    assert [row["question"] for row in rows] == [fact.question for fact in tiny.facts("again")]


# --- export


@pytest.fixture
def finished(place):
    """A study of the miniature with its results, as the pipeline leaves them; the study's file."""
    study = tiny.study(study="made", methods={}, attacks={}, keep_models=True)
    (place / "made.yaml").write_text(study.model_dump_json(exclude_none=True))
    runs = Runs(load_study("made.yaml"))
    (source,) = runs.sources.values()
    shutil.copytree("original", f"results/made/models/{source.run_id}")
    for spec in runs.data.values():
        raw = tiny.write_raw(f"results/made/data/{spec.raw.run_id}", spec.dataset)
        out = f"results/made/data/{spec.run_id}"
        flags = ["--out", f"{out}/facts.jsonl", "--audit", f"{out}/audit.json"]
        assert main(["facts", str(raw), "--dataset", spec.dataset, *flags]) == 0
    return "made.yaml"


def test_an_export_holds_the_original_every_forget_text_and_no_held_out_one(finished, place):
    assert main(["export", finished, "--out", "own"]) == 0
    assert (place / "own/original/model.safetensors").read_bytes() == (
        place / "original/model.safetensors"
    ).read_bytes()
    load_tokenizer("own/original")
    texts = {
        name: [json.loads(line) for line in (place / f"own/{name}.jsonl").read_text().splitlines()]
        for name in ("forget", "retain")
    }
    known = tiny.facts("a")
    assert {row["split"] for row in texts["forget"]} == {"split_0", "split_1"}  # T and V alike
    for fact in known:
        mine = [row for row in texts["forget"] if row["fact"] == fact.id]
        assert [row["text"] for row in mine if row["kind"] == "sentence"] == fact.sentences
        assert [row["text"] for row in mine if row["kind"] == "ria"] == fact.ria_sentences
        assert [row["text"] for row in mine if row["kind"] == "mcq"] == [mcq(fact).prompt + mcq(fact).target]
    assert {row["split"] for row in texts["retain"]} == {"train"}
    assert {row["kind"] for row in texts["retain"]} == {"mcq", "sentence"}
    assert sorted(path.name for path in (place / "own/data").iterdir()) == ["birth_years_a", "birth_years_b", "cities"]


def test_an_export_makes_the_same_facts_again(finished, place):
    """A study on the exported files attacks the very facts that the original learned, but for the dataset's name."""
    assert main(["export", finished, "--out", "own"]) == 0
    assert facts("own/data/birth_years_a", "--seed", "0") == 0
    again = [json.loads(line) for line in (place / "out.jsonl").read_text().splitlines()]
    for row, fact in zip(again, tiny.facts("a"), strict=True):
        assert (row["question"], row["choices"], row["sentences"]) == (fact.question, fact.choices, fact.sentences)


def test_what_an_export_refuses(finished, place, capsys):
    (place / "own").mkdir()
    assert main(["export", finished, "--out", "own"]) == 1
    assert "own: already exists" in capsys.readouterr().err
    assert main(["export", finished, "--out", "other", "--original", "nothing"]) == 1
    assert "the originals of made.yaml: pretrain-" in capsys.readouterr().err
    shutil.rmtree(place / "results/made/models")
    assert main(["export", finished, "--out", "other"]) == 1
    assert "keep_models: true" in capsys.readouterr().err and not (place / "other").exists()


# --- from the hub


HUB = {"hub": {"id": "Some-Body/A_Forgetful.Model", "revision": "0123456789abcdef0123456789abcdef01234567"}}


def test_a_hub_model_is_a_run_of_its_own_that_a_fetch_asks_for(place):
    runs = Runs(tiny.study(**OWN | {"external_models": {"mine": "unlearned", "theirs": HUB}}))
    mine, theirs = runs.unlearn.values()
    assert mine.settings.canonical().keys() == {"external_model", "digest"}  # its id is as before
    fetched = theirs.settings.fetched
    assert theirs.settings.external_model == f"{HUB['hub']['id']}@{HUB['hub']['revision']}"
    assert fetched.run_id in runs.imports and fetched.run_id.startswith("import-a_forgetful.model-s0-")
    assert fetched.run_id in runs.plan()["manifests"]
    other = HUB["hub"] | {"revision": "f" * 40}
    (changed,) = Runs(tiny.study(**OWN | {"external_models": {"theirs": {"hub": other}}})).unlearn.values()
    assert changed.run_id != theirs.run_id


@pytest.mark.parametrize(
    "value, words",
    [
        ({"hub": {"id": "a/b"}}, ["external_models.mine.hub.revision", "this key is missing"]),
        ({"hub": {"id": "a/b", "revision": "main"}}, ["external_models.mine.hub.revision", "pattern"]),
        ({"hub": {"id": "b", "revision": "f" * 40}}, ["external_models.mine.hub.id", "pattern"]),
        ({"hub": HUB["hub"], "path": "x"}, ["external_models.mine.path", "unknown key; allowed: hub"]),
        ({"hub": HUB["hub"] | {"branch": "x"}}, ["mine.hub.branch", "unknown key; allowed: id, revision"]),
        (3, ["external_models.mine", "string"]),
        (None, ["external_models.mine", "string"]),
    ],
)
def test_a_mistake_in_an_external_model_names_the_key(tmp_path, value, words):
    study = tiny.study().model_dump(mode="json", exclude_unset=True) | {"external_models": {"mine": value}}
    (tmp_path / "s.yaml").write_text(json.dumps(study))
    with pytest.raises(UserError) as error:
        load_study(tmp_path / "s.yaml")
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize("kind", ["whole", "adapter"])
def test_it_is_imported_from_the_mirror_and_taken(place, kind):
    """The step `import` needs no tokenizer there; what changes after it is refused."""
    study = tiny.study(**OWN | {"external_models": {"theirs": HUB}})
    (spec,) = Runs(study).unlearn.values()
    fetched, mirror = spec.settings.fetched, place / "mirror" / HUB["hub"]["id"]
    if kind == "whole":
        tiny.model(1).save_pretrained(mirror)
    else:
        adapters.write(mirror)
    (place / f"{fetched.run_id}.json").write_text(canonical_json(fetched.canonical()))
    out = place / fetched.run_id
    step = ["import", f"--spec={out}.json", f"--model={out}", "--manifest=m.json", f"--mirror={place / 'mirror'}"]
    assert main(step) == 0
    assert external_folder(spec.settings, [str(out)]) == str(out)
    with pytest.raises(UserError, match="--external: found"):
        external_folder(spec.settings, ["other"])
    model, _ = load("original")
    before = [p.clone() for p in model.parameters()]
    take_weights(model, "original", str(out))
    if kind == "whole":
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), tiny.model(1).parameters(), strict=True))
    else:
        assert sum(not torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True)) == 4
    (file,) = mirror.glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=f"{file.name}: damaged or changed"):
        take_weights(load("original")[0], "original", str(out))

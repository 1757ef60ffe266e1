"""The real chain in one process: pretrain, teach, unlearn, choose, attack; what it writes, and what it refuses."""

import hashlib
import importlib.metadata
import json
import shutil
from datetime import datetime
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import tiny
import torch
from rtt.__main__ import main
from rtt.data.facts import read_facts, write_facts
from rtt.files import canonical_json, read_json, write_text
from rtt.models.load import load, weights
from rtt.models.points import load_point
from rtt.scoring.read import AttackScores, PointScores, read_eval
from rtt.scoring.score import Scorer
from rtt.scoring.write import write_eval
from rtt.steps import attack, choose, unlearn
from rtt.study.expand import Runs
from rtt.study.names import ASKED, probes_of
from rtt.training.resume import State, Terminated
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
METHOD = {"learning_rate": 1e-3, "batch_size": 4, "points": [1, 2]}
LORA = {"lora": {"rank": 2, "alpha": 4.0}, "learning_rate": 1e-2}
STUDY = {
    "arms": ["pretrained", "taught"],
    # RMU and FIF are trained by adapters, and their points are kept as such.
    "methods": {
        name: METHOD | lora for name, lora in zip(("GD", "RMU", "RIA", "FIF"), ({}, LORA, {}, LORA), strict=True)
    },
    "attacks": {"RTT": {"learning_rates": [1e-3, 2e-3], "epochs": 1, "batch_size": 4}},
    "scores": {"probes": list(ASKED)},
}


class Chain:
    """A tiny study's files and the commands that make them, as the rules call them."""

    def __init__(self, folder):
        self.folder = folder
        self.runs = Runs(tiny.study(**STUDY))
        for spec in self.runs.specs():
            write_text(folder / f"specs/{spec.run_id}.json", canonical_json(spec.model_dump(mode="json")) + "\n")
        self.attack = next(iter(self.runs.attacks.values()))  # arm pretrained
        self.base = self.attack.source
        self.trajectories = [spec for choice in self.attack.point_choices for spec in choice.trajectories]
        self.taught = next(spec for spec in self.runs.sources.values() if spec.kind == "teach")
        self.control = next(spec for spec in self.runs.attacks.values() if spec.arm == "control")
        for dataset in ("birth_years_a", "birth_years_b", "cities"):
            write_facts(folder / f"{dataset}.jsonl", tiny.facts(folder / "raw", dataset))

    def model(self, spec):
        return str(self.folder / "models" / spec.run_id)

    def eval(self, stem):
        return str(self.folder / "evals" / f"{stem}.json")

    def common(self, spec):
        return ["--spec", str(self.folder / f"specs/{spec.run_id}.json"),
                "--manifest", str(self.folder / f"manifests/{spec.run_id}.json")]  # fmt: skip

    def facts(self, name):
        return str(self.folder / f"{name}.jsonl")

    def retain(self):
        return ["--retain", self.facts("cities"), "--held-out", self.facts("cities")]

    def pretrain(self):
        return main(["pretrain", *self.common(self.base), "--facts", self.facts("birth_years_a"),
                     *self.retain(), "--model", self.model(self.base),
                     "--eval", self.eval(self.base.run_id)])  # fmt: skip

    def teach(self):
        return main(["teach", *self.common(self.taught), "--facts", self.facts("birth_years_b"),
                     *self.retain(), "--base", self.model(self.base),
                     "--model", self.model(self.taught), "--eval", self.eval(self.taught.run_id)])  # fmt: skip

    def unlearn(self, spec, group):
        return main(["unlearn", *self.common(spec), "--source", self.model(self.base),
                     "--original", self.eval(self.base.run_id), "--facts", self.facts("birth_years_a"),
                     *self.retain(), "--points", self.model(spec), "--group", group, "--eval",
                     self.eval(spec.run_id)])  # fmt: skip

    def choose(self, spec):
        (trajectory,) = spec.trajectories
        return main(["choose", *self.common(spec)[:2], "--original", self.eval(self.base.run_id),
                     "--unlearned", self.eval(trajectory.run_id), "--points", self.model(trajectory),
                     "--out", str(self.point_choice(spec)), "--chosen", self.model(spec)])  # fmt: skip

    def point_choice(self, spec):
        return self.folder / f"point_choices/{spec.run_id}.json"

    def attacked(self, point_choices=None, shots=("cities",)):
        point_choices = self.attack.point_choices if point_choices is None else point_choices
        evals = str(self.folder / "evals" / self.attack.run_id)
        return main(["attack", *self.common(self.attack), "--source", self.model(self.base),
                     "--facts", self.facts("birth_years_a"),
                     "--chosen", *map(self.model, point_choices),
                     "--point-choices", *map(str, map(self.point_choice, point_choices)),
                     "--shots", *map(self.facts, shots), "--evals", evals])  # fmt: skip


# Kept and chosen, whatever the accuracies: GD has nothing at 10 %, RMU and FIF have one point for both budgets.
STEPS = {
    "GD": {0.1: None, 1.0: 2}, "RMU": {0.1: 2, 1.0: 2}, "RIA": {0.1: 1, 1.0: 2}, "FIF": {0.1: 1, 1.0: 1},
}  # fmt: skip


def planted(points, before, budgets, point_choice):
    """Stand in for rtt.stats.point_rule.best: choose the points of STEPS."""
    (method,) = {name for name in STEPS for point in points if f"-{name}-" in point["run"]}
    return {b: next((p for p in points if p["step"] == STEPS[method][b]), None) for b in budgets}


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """All steps up to the attack, with STEPS chosen."""
    folder = tmp_path_factory.mktemp("chain")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        made = Chain(folder)
        assert made.pretrain() == 0 and made.teach() == 0
        patch.setattr(unlearn, "best", planted)
        patch.setattr(choose, "best", planted)
        for spec in made.trajectories:
            assert made.unlearn(spec, "group") == 0
        for spec in made.attack.point_choices:
            assert made.choose(spec) == 0
        made.starts = []
        real = attack.Attacker.on

        def spy(self, *rest):
            made.starts.append(weights(self.model))
            return real(self, *rest)

        patch.setattr(attack.Attacker, "on", spy)
        assert made.attacked() == 0
        patch.setattr(attack.Attacker, "on", real)
        control = made.control
        assert main(["attack", *made.common(control), "--source", made.model(made.base),
                     "--facts", made.facts("birth_years_b"), "--shots", made.facts("cities"),
                     "--evals", str(folder / "evals" / control.run_id)]) == 0  # fmt: skip
    torch.use_deterministic_algorithms(False)
    return made


def evals(chain):
    """Return {stem: document}: `<run>` of a scored model, `<run>/<target>` of an attack's."""
    folder = chain.folder / "evals"
    paths = sorted(folder.rglob("*.json"))
    return {path.relative_to(folder).with_suffix("").as_posix(): read_json(path) for path in paths}


def test_every_evaluation_fits_the_schema_and_the_reader(chain):
    schema = read_json(ROOT / "config/eval.schema.json")
    jsonschema.Draft202012Validator.check_schema(schema)
    found = evals(chain)
    assert len(found) == 2 + 4 + 9 + 1
    for stem, document in found.items():
        jsonschema.validate(document, schema)
        path = chain.eval(stem)
        assert isinstance(read_eval(path), AttackScores if document["kind"] == "attacked" else PointScores)
        assert document["run_id"] == stem.replace("/", ".")  # a file is named after its run and target
        assert Path(path).read_text() == canonical_json(document) + "\n"
    kinds = [document["kind"] for document in found.values()]
    assert {kind: kinds.count(kind) for kind in kinds} == {"original": 2, "unlearned": 4, "attacked": 10}


def test_point_choices_carry_their_run_s_id(chain):
    for spec in chain.attack.point_choices:
        assert read_json(chain.point_choice(spec))["run_id"] == spec.run_id


def test_each_target_is_attacked_from_its_own_weights_and_once(chain):
    """GD at 10 % has no point; RMU's and FIF's points serve two budgets: original, GD, RMU, RIA twice, FIF."""
    by_method = {spec.method: spec for spec in chain.trajectories}

    original = weights(load(chain.model(chain.base))[0])

    def point(method, step):
        """Return a point's weights; adapters of rank 2 and alpha 4 are added as Hu et al. define it."""
        found = load_file(f"{chain.model(by_method[method])}/step-{step}.safetensors")
        if method in ("GD", "RIA"):
            return found
        assert all("lora_" in name for name in found)
        whole = dict(original)
        for name in (name for name in found if "lora_B" in name):
            own = name.removeprefix("base_model.model.").replace("lora_B.", "")
            whole[own] = whole[own] + 2.0 * found[name] @ found[name.replace("lora_B", "lora_A")]
        return whole

    expected = [original, point("GD", 2), point("RMU", 2), point("RIA", 1), point("RIA", 2), point("FIF", 1)]
    assert len(chain.starts) == len(expected)
    for start, wanted in zip(chain.starts, expected, strict=True):
        for name, tensor in wanted.items():
            assert torch.equal(start[name], tensor), name
    assert read_json(chain.folder / f"manifests/{chain.attack.run_id}.json")["trainings"] == 6 * 2 * 2


def file_hash(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_attacks_carry_status_labels_and_hashes(chain):
    found = evals(chain)
    by_method = {spec.method: spec for spec in chain.trajectories}
    for target, stem in zip(chain.attack.targets, chain.attack.eval_ids(), strict=True):
        document = found[stem]
        none = target.name == "GD-b10"
        assert document["status"] == ("none_within_budget" if none else "ok")
        assert len(document["looks"]) == (0 if none else 2 * 2 * 1)
        labels = document["labels"]
        assert labels["attack"] == "RTT"
        assert (labels["target"], labels["method"], labels["retain_budget"], labels["arm"], labels["dataset"]) == (
            target.kind, target.method, target.retain_budget, "pretrained", "birth_years_a",
        )  # fmt: skip
        if target.method is None:
            weights_file = f"{chain.model(chain.base)}/model.safetensors"
        else:
            step = STEPS[target.method][target.retain_budget]
            weights_file = step and f"{chain.model(by_method[target.method])}/step-{step}.safetensors"
        assert document["hashes"]["model"] == (weights_file and file_hash(weights_file))
        assert document["hashes"]["dataset"] == file_hash(chain.facts("birth_years_a"))
        assert document["hashes"]["spec"] == chain.attack.hash
    shared = [found[f"{chain.attack.run_id}/RMU-{budget}"]["looks"] for budget in ("b10", "b100")]
    assert shared[0] == shared[1] and shared[0]
    ria = [found[f"{chain.attack.run_id}/RIA-{budget}"]["looks"] for budget in ("b10", "b100")]
    assert ria[0] != ria[1]


def test_the_control_is_the_model_that_never_saw_the_facts(chain):
    document = evals(chain)[chain.control.eval_ids()[0]]
    assert document["labels"]["target"] == "control" and document["labels"]["arm"] == "control"
    assert document["labels"]["control_for"] == ["pretrained", "taught"]
    assert document["labels"]["dataset"] == "birth_years_b"
    assert document["hashes"]["model"] == file_hash(f"{chain.model(chain.base)}/model.safetensors")
    assert {q["id"].split("/")[0] for q in document["looks"][0]["questions"]} == {"birth_years_b"}


def test_originals_and_trajectories_hold_forget_and_held_out_questions(chain):
    for stem, document in evals(chain).items():
        if document["kind"] == "attacked":
            continue
        dataset = "birth_years_b" if stem == chain.taught.run_id else "birth_years_a"
        for look in document["looks"]:
            roles = [(q["role"], q["id"].rsplit("/", 1)[0]) for q in look["questions"]]
            assert (
                roles
                == [("V", f"{dataset}/split_0")] * 4
                + [("V", f"{dataset}/split_1")] * 4
                + [("retain", "cities/held_out")] * 4
            )
        assert [one.get("step") for one in document["looks"]] == ([None] if document["kind"] == "original" else [1, 2])


def test_metrics_are_the_accuracies(chain):
    for document in evals(chain).values():
        assert len(document["metrics"]["accuracies"]) == len(document["looks"])
        for entry, result in zip(document["metrics"]["accuracies"], document["looks"], strict=True):
            keys = ("attack", "setting", "v_split", "repeat")
            assert [entry[key] for key in keys] == [result[key] for key in keys]
            for role in {q["role"] for q in result["questions"]}:
                assert entry["accuracy"][role].keys() == set(probes_of(ASKED)) - {"letter_calibrated"}
                for probe in ("letter", "likelihood", "likelihood_fresh", "cloze", "few_shot"):
                    hits = [
                        max(range(4), key=lambda i, s=q["probes"][probe]["scores"]: (s[i], -i)) == q["answer"]
                        for q in result["questions"]
                        if q["role"] == role
                    ]
                    assert entry["accuracy"][role][probe] == round(sum(hits) / len(hits), 6)


def shown(chain):
    """The facts that few_shot shows: four of those in the retain loss, by the seed."""
    learn = [fact for fact in read_facts(chain.facts("cities")) if fact.split == "train"]
    return [learn[i] for i in np.random.default_rng([0, 50]).choice(len(learn), 4, replace=False)]


def test_few_shot_shows_the_same_retain_facts_before_an_attack_and_after(chain):
    """Never forget facts, nor those that measure what must stay; an attack reads them from where its spec says."""
    assert len({fact.id for fact in shown(chain)}) == 4
    facts = read_facts(chain.facts("birth_years_a"))
    model, tokenizer = load(chain.model(chain.base), "fp32")
    scorer = Scorer(tokenizer, facts, ["few_shot"], shots=shown(chain))
    again = scorer.questions(model, lambda fact: "V")
    found = read_json(chain.eval(chain.base.run_id))["looks"][0]["questions"][: len(facts)]
    assert [one["id"] for one in found] == [one["id"] for one in again]
    for one, other in zip(found, again, strict=True):
        assert one["probes"]["few_shot"]["scores"] == pytest.approx(other["probes"]["few_shot"]["scores"], abs=2e-6)
    for spec in chain.runs.attacks.values():  # the control's, too
        assert (spec.shots.learn.dataset, spec.shots.learn_splits) == ("cities", ["train"])


def test_an_attack_that_is_not_given_the_facts_to_show_is_refused(chain, capsys):
    assert chain.attacked(shots=[]) == 1
    assert "few_shot shows 4 solved questions of retain facts: found 0 in the retain loss" in capsys.readouterr().err


def test_points_are_the_weights_that_were_scored(chain):
    """Score a saved point anew: the same numbers as in the trajectory's evaluation."""
    retain = [fact for fact in read_facts(chain.facts("cities")) if fact.split == "held_out"]
    facts = [*read_facts(chain.facts("birth_years_a")), *retain]
    for spec in chain.trajectories:
        model, tokenizer = load(chain.model(chain.base))
        document = read_json(chain.eval(spec.run_id))
        kept = set(STEPS[spec.method].values()) - {None}
        files = {path.name for path in Path(chain.model(spec)).iterdir()}
        assert files == {"points.json", "sha256.json", *(f"step-{step}.safetensors" for step in kept)}
        for result in (r for r in document["looks"] if r["step"] in kept):
            load_point(model, f"{chain.model(spec)}/step-{result['step']}.safetensors", chain.model(chain.base))
            again = Scorer(tokenizer, facts, ASKED, shots=shown(chain)).questions(model, lambda fact: "V")
            assert [q["probes"] for q in again] == [q["probes"] for q in result["questions"]]
        assert document["looks"][0]["questions"] != document["looks"][1]["questions"]


def test_manifests_tell_cost_and_versions(chain):
    for path in (chain.folder / "manifests").glob("*.json"):
        manifest = read_json(path)
        assert manifest["run_id"] == path.stem and manifest["cpu_seconds"] > 0
        assert manifest["packages"]["torch"] == importlib.metadata.version("torch")
        assert manifest["precision"] == "float32" and manifest["attn_backend"] == "sdpa" and manifest["tokens"] > 0
        assert manifest["threads"] == 1 and manifest["deterministic"] is True
        ended = datetime.fromisoformat(manifest["ended"]).timestamp()
        assert abs(ended - path.stat().st_mtime) < 60  # the file is written at the end


def test_a_kill_after_the_last_moment_of_unlearning_loses_no_point(chain, monkeypatch, tmp_path):
    """Its outputs are written, its state is not deleted yet: Snakemake deletes the outputs, and starts it again."""
    monkeypatch.chdir(chain.folder)
    monkeypatch.setattr(unlearn, "best", planted)
    spec = chain.trajectories[0]
    retain, points = [*chain.retain(), "--group", "group"], tmp_path / "models" / spec.run_id
    argv = ["unlearn", "--spec", chain.common(spec)[1], "--source", chain.model(chain.base), "--original",
            chain.eval(chain.base.run_id), "--facts", chain.facts("birth_years_a"), *retain, "--points", str(points),
            "--eval", str(tmp_path / "eval.json"), "--manifest", str(tmp_path / "manifest.json"),
            "--state", str(tmp_path / "state" / spec.run_id)]  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(State, "finish", lambda self: None)
        assert main(argv) == 0
    shutil.rmtree(points)
    (tmp_path / "eval.json").unlink()
    assert main(argv) == 0
    assert (tmp_path / "eval.json").read_bytes() == Path(chain.eval(spec.run_id)).read_bytes()
    first = {path.name: path.read_bytes() for path in Path(chain.model(spec)).iterdir()}
    assert {path.name: path.read_bytes() for path in points.iterdir()} == first
    assert not list((tmp_path / "state").iterdir())


def test_a_killed_training_of_adapters_resumes_to_the_same_bytes_from_a_small_checkpoint(chain, monkeypatch, tmp_path):
    monkeypatch.chdir(chain.folder)
    monkeypatch.setattr(unlearn, "best", planted)
    monkeypatch.setattr(Terminated, "listen", classmethod(lambda cls: None))
    spec = next(spec for spec in chain.trajectories if spec.method == "FIF")
    state, points = tmp_path / "state" / spec.run_id, tmp_path / "models" / spec.run_id
    argv = ["unlearn", "--spec", chain.common(spec)[1], "--source", chain.model(chain.base), "--original",
            chain.eval(chain.base.run_id), "--facts", chain.facts("birth_years_a"), *chain.retain(), "--group", "group",
            "--points", str(points), "--eval", str(tmp_path / "eval.json"), "--manifest",
            str(tmp_path / "manifest.json"), "--state", str(state)]  # fmt: skip
    with monkeypatch.context() as patch:
        keep = State.keep
        patch.setattr(State, "keep", lambda *args: (keep(*args), patch.setattr(Terminated, "came", True)))
        assert main(argv) == 143
    (saved,) = state.glob("unlearning/checkpoint-*/model.safetensors")
    assert all("lora_" in name for name in load_file(saved))
    assert main(argv) == 0
    assert (tmp_path / "eval.json").read_bytes() == Path(chain.eval(spec.run_id)).read_bytes()
    first = {path.name: path.read_bytes() for path in Path(chain.model(spec)).iterdir()}
    assert {path.name: path.read_bytes() for path in points.iterdir()} == first


@pytest.mark.parametrize("drop", ["points", "order"])
def test_wrong_files_are_a_users_mistake(chain, monkeypatch, capsys, drop):
    monkeypatch.chdir(chain.folder)
    before = {path: path.read_bytes() for path in (chain.folder / "evals").rglob("*.json")}
    point_choices = chain.attack.point_choices
    if drop == "points":
        code, words = chain.attacked(point_choices[:-1]), ["4 point choices", "--chosen"]
    else:
        code, words = (
            chain.attacked(sorted(point_choices, key=lambda s: s.method)),
            ["expected the GD point choice"],
        )
    error = capsys.readouterr().err
    assert code == 1 and error.startswith("error: ") and "Traceback" not in error
    assert all(word in error for word in words), error
    assert before == {path: path.read_bytes() for path in (chain.folder / "evals").rglob("*.json")}
    torch.use_deterministic_algorithms(False)


def test_chosen_weights_that_are_damaged_are_not_attacked(chain, monkeypatch, capsys):
    """Nothing is trained before that is said, with what to delete so that the study makes them again."""
    monkeypatch.chdir(chain.folder)
    monkeypatch.setattr(attack, "load", lambda *_: pytest.fail("a model was loaded first"))
    choice = next(spec for spec in chain.attack.point_choices if spec.method == "GD")
    weights = Path(chain.model(choice)) / "b100.safetensors"
    whole = weights.read_bytes()
    weights.unlink()  # a hard link
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        assert chain.attacked() == 1
    finally:
        weights.write_bytes(whole)
    error = capsys.readouterr().err
    folders = f"delete {weights.parent} and {chain.model(choice.trajectories[0])}, and start the study again"
    assert error.startswith(f"error: {weights}: damaged or changed") and folders in error


def test_a_spec_of_another_kind_and_a_missing_model(chain, monkeypatch, capsys):
    monkeypatch.chdir(chain.folder)
    common = chain.common(chain.base)
    assert main(["attack", *common, "--source", "x", "--facts", "y", "--evals", "z"]) == 1
    assert "expected attack" in capsys.readouterr().err
    assert main(["attack", *chain.common(chain.control), "--source", "nowhere",
                 "--facts", chain.facts("birth_years_b"), "--evals", "z"]) == 1  # fmt: skip
    assert "nowhere: no model here" in capsys.readouterr().err
    torch.use_deterministic_algorithms(False)


def test_no_nan_is_ever_written(chain, tmp_path):
    document = read_json(chain.eval(chain.base.run_id))
    looks = json.loads(json.dumps(document["looks"]))
    looks[0]["questions"][0]["probes"]["letter"]["scores"][0] = float("nan")
    with pytest.raises(ValueError):
        write_eval(
            tmp_path / "e.json", kind="original", run_id="x", labels=document["labels"], spec=chain.base,
            code="0", facts_sha256="0", model_sha256="0", looks=looks,
        )  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_pretraining_again_gives_the_same_bytes(chain, monkeypatch):
    monkeypatch.chdir(chain.folder)
    paths = [Path(chain.eval(chain.base.run_id)), Path(chain.model(chain.base), "model.safetensors")]
    before = [path.read_bytes() for path in paths]
    assert chain.pretrain() == 0
    torch.use_deterministic_algorithms(False)
    assert [path.read_bytes() for path in paths] == before

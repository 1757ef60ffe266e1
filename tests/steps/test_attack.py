"""The attack step: the weights come back, roles and looks are right, and no other model is attacked than is named."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import tiny
import torch
from attacking import QUICK, RTT, attack, attacker_of, spied
from rtt.attacks.base import Asker, Attack, Checkpoint, Cost
from rtt.data.facts import write_facts
from rtt.data.text import Prompts
from rtt.errors import UserError
from rtt.files import write_json
from rtt.models.load import weights
from rtt.steps import attack as module
from rtt.study import plugins


@pytest.fixture
def data(tmp_path):
    return tiny.facts(tmp_path, options=tiny.GENERATOR | {"splits": 3})


def test_the_model_ends_with_its_starting_weights(data):
    model = tiny.model(scale=4)
    before = weights(model)
    results = attack(data, model=model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    scores = [result["questions"][0]["probes"]["letter"]["scores"] for result in results]
    assert len({tuple(row) for row in scores}) == len(scores)  # and in between it was another model each time


def test_each_run_starts_from_the_same_weights(data):
    """A look does not depend on the learning rates before it, nor a V split on those before it."""
    both = attack(data[:8], RTT.Settings(learning_rates=[1e-2, 2e-2], epochs=1, batch_size=4))
    alone = attack(data[:8], RTT.Settings(learning_rates=[2e-2], epochs=1, batch_size=4))
    assert [r for r in both if r["setting"]["lr"] == 2e-2] == alone


def test_one_look_per_setting_and_v_split_with_its_roles(data):
    calls = []
    results = attack(data, calls=calls)
    looks = [(r["attack"], r["v_split"], r["setting"]["epoch"], r["setting"]["lr"], r["repeat"]) for r in results]
    assert looks == [("RTT", f"split_{v}", epoch, lr, 0) for v in range(3) for epoch in (1, 2) for lr in (1e-2, 2e-2)]
    assert len(calls) == 3  # progress, once per V split
    for result in results:
        assert [q["id"] for q in result["questions"]] == [fact.id for fact in data]
        for question, fact in zip(result["questions"], data, strict=True):
            assert question["role"] == ("V" if fact.split == result["v_split"] else "T")
            assert (question["split"], question["answer"]) == (fact.split, fact.answer)


def test_repeats_are_the_same_attack_in_another_order(monkeypatch, data):
    """Repeat 0 is what there is without repeats; looks stand by repeat, V split and setting."""
    quick = RTT.Settings(learning_rates=[1e-2], epochs=2, batch_size=4)
    once, twice = attack(data, quick), attack(data, quick, repeats=2)
    assert twice[: len(once)] == once and len(twice) == 2 * len(once)
    places = [(one["repeat"], one["v_split"], tuple(one["setting"].values())) for one in twice]
    assert places == [(r, one["v_split"], tuple(one["setting"].values())) for r in range(2) for one in once]
    scores = {json.dumps(one["questions"]) for one in twice}
    assert len(scores) == len(twice)  # the same places, other weights
    assert [one["questions"] for one in attack(data, quick, seed=1)] != [one["questions"] for one in once]
    both = spied(monkeypatch, data, repeats=2)
    assert len({json.dumps(items) for rate, items, _ in both}) == 6  # an order per repeat and V split, for both rates
    first, second = both[:6], both[6:]
    for (rate, items, ends), (same, other, places) in zip(first, second, strict=True):
        assert rate == same and ends == places and items != other
        assert {json.dumps(item) for item in items} & {json.dumps(item) for item in other}  # the same facts
    assert first == spied(monkeypatch, data)


def test_runs_on_repeats_of_unlearning_have_orders_of_their_own():
    """Else what an order adds would be shared by models that were unlearned twice, and not be nested in them."""

    def seeds(repeat, unlearning_repeat):
        return Checkpoint(None, None, 7, 2, None, None, repeat, unlearning_repeat).seeded(30)

    assert [seeds(0, 0), seeds(1, 0)] == [[7, 30, 2], [7, 30, 2, 1]]  # as where nothing is repeated
    found = [np.random.default_rng(seeds(k, u)).integers(2**60) for k in range(3) for u in range(3)]
    assert len(set(found)) == 9
    without_t = [Checkpoint(None, None, 7, None, None, None, k, u).seeded(40) for k in range(3) for u in range(3)]
    assert without_t[0] == [7, 40]
    assert len({np.random.default_rng(one).integers(2**60) for one in without_t}) == 9


def test_the_attack_is_told_from_which_repeat_of_unlearning_a_checkpoint_comes(monkeypatch, data):
    first, same, other = (spied(monkeypatch, data, unlearning_repeat=u) for u in (0, 0, 1))
    assert first == same and [items for _, items, _ in first] != [items for _, items, _ in other]


def test_the_step_tells_the_attack_the_repeat_of_each_target(monkeypatch):
    """The step itself, with all that reads or writes files replaced: what `on` is given for each checkpoint."""
    targets = [("original", None, 0), ("GD", "GD", 0), ("GD-r1", "GD", 1)]
    spec = SimpleNamespace(
        point_choices=[0, 1], attack="RTT", plugin=RTT, settings=QUICK, seed=0, run_id="a", repeats=1, shots=None,
        targets=[SimpleNamespace(name=n, method=m, repeat=r, retain_budget=0.1) for n, m, r in targets],
    )  # fmt: skip
    given = []

    class Spy:
        runs = ((0, "split_0"),)

        def on(self, name, progress, unlearning_repeat=0):
            given.append((name, unlearning_repeat))
            return []

    nothing = SimpleNamespace(write=lambda *args, **more: None, finish=lambda: None)
    chosen = {("GD", r, 0.1): ((f"run-r{r}", 4), Path(f"points/r{r}.safetensors")) for r in (0, 1)}
    found = {"load_spec": spec, "_chosen": chosen, "load": (None, None), "Attacker": Spy(), "State": nothing,
             "Manifest": nothing, "_trained": {}}  # fmt: skip
    others = ("code_version", "attacked_facts", "prepare_torch", "verify_file", "scorer_of", "load_point", "sha256")
    for name in (*found, *others, "model_hash", "write_eval", "attack_labels", "Countdown"):
        monkeypatch.setattr(module, name, Mock(return_value=found.get(name)))
    args = dict.fromkeys(("source", "facts", "state", "manifest"), "x") | {"spec": "a", "also": []}
    module.run(SimpleNamespace(**args, evals=Path("x"), chosen=[0, 1], point_choices=[0, 1], shots=[], retain=[]))
    assert given == [("original-0", 0), ("run-r0-4", 0), ("run-r1-4", 1)]


def test_facts_for_the_point_choice_are_neither_trained_on_nor_asked(tmp_path):
    facts = tiny.facts(tmp_path, options=tiny.GENERATOR | {"choice_facts": 4, "first_names": 8})
    write_facts(tmp_path / "facts.jsonl", facts)
    assert {fact.split for fact in facts} == {"choice", "split_0", "split_1"}
    spec = SimpleNamespace(left_out=["choice"])
    left = module.attacked_facts(spec, tmp_path / "facts.jsonl")
    assert left == [fact for fact in facts if fact.split != "choice"] and len(left) == 8
    assert module.attacked_facts(SimpleNamespace(left_out=[]), tmp_path / "facts.jsonl") == facts
    with pytest.raises(UserError, match="sets all facts apart: choice, split_0, split_1"):
        module.attacked_facts(SimpleNamespace(left_out=["choice", "split_0", "split_1"]), tmp_path / "facts.jsonl")


def test_it_fits_t_and_not_v(data):
    """Enough of it learns T by heart; V has other facts, whose answers T does not tell."""
    fixed = {"shuffle_choices": False, "sentences": False}
    settings = RTT.Settings(learning_rates=[2e-2], epochs=60, score_epochs=[60], batch_size=8, **fixed)
    last = attack(data[:8], settings)
    assert [r["setting"]["epoch"] for r in last] == [60, 60]
    right = {"T": [], "V": []}
    for result in last:
        for q in result["questions"]:
            right[q["role"]].append(int(np.argmax(q["probes"]["letter"]["scores"])) == q["answer"])
    assert np.mean(right["T"]) == 1.0
    assert np.mean(right["V"]) < 0.8


def spec(methods=("GD", "RMU")):
    return SimpleNamespace(
        point_choices=[SimpleNamespace(method=name, run_id=f"choose-{name}", repeat=0) for name in methods]
    )


def point_choices(folder, methods, chosen):
    paths = []
    for name in methods:
        paths.append(folder / f"{name}.json")
        points = {budget: step and {"run": f"unlearn-{name}", "step": step} for budget, step in chosen.items()}
        write_json(paths[-1], {"run_id": f"choose-{name}", "selected": points})
    return [str(path) for path in paths]


def test_chosen_points_belong_to_the_method_that_the_spec_names(tmp_path):
    paths = point_choices(tmp_path, ("GD", "RMU"), {"0.1": 20, "1.0": None})
    found = module._chosen(spec(), ["m/choose-GD", "m/choose-RMU"], paths)
    assert {key: (value[0], str(value[1])) if value else None for key, value in found.items()} == {
        ("GD", 0, 0.1): (("unlearn-GD", 20), "m/choose-GD/b10.safetensors"), ("GD", 0, 1.0): None,
        ("RMU", 0, 0.1): (("unlearn-RMU", 20), "m/choose-RMU/b10.safetensors"), ("RMU", 0, 1.0): None,
    }  # fmt: skip


@pytest.mark.parametrize("swap", ["folders", "point_choices", "both"])
def test_another_methods_weights_are_refused(tmp_path, swap):
    """Files in another order than the spec's would attack one method's model under another's name."""
    paths, folders = point_choices(tmp_path, ("GD", "RMU"), {"0.1": 20}), ["m/choose-GD", "m/choose-RMU"]
    if swap != "point_choices":
        folders.reverse()
    if swap != "folders":
        paths.reverse()
    with pytest.raises(UserError, match=r"found choose-RMU, expected the GD point choice choose-GD"):
        module._chosen(spec(), folders, paths)


def test_facts_need_not_stand_in_order_of_splits(monkeypatch, data):
    """The splits are named, not counted: mixed files give the same roles."""
    mixed = [data[i] for i in np.random.default_rng(0).permutation(len(data))]
    mixed[0] = dataclasses.replace(mixed[0], split="split_10")
    names = {r["v_split"] for r in attack(mixed, RTT.Settings(learning_rates=[1e-3], epochs=1, batch_size=4))}
    assert names == {"split_0", "split_1", "split_2", "split_10"}


def test_an_attack_without_t_has_one_look_per_setting_in_which_every_question_is_v(data):
    settings = plugins.attacks()["quantise"].Settings(bits=[8, 4], group_sizes=[None])
    model = tiny.model(scale=4)
    before = weights(model)
    looks = attack(data, settings, model=model, name="quantise")
    assert [(one["setting"], one["v_split"]) for one in looks] == [
        ({"bits": 8, "group_size": None}, None), ({"bits": 4, "group_size": None}, None)
    ]  # fmt: skip
    assert {question["role"] for one in looks for question in one["questions"]} == {"V"}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_attack_is_given_no_fact_of_v_and_no_way_to_the_original(monkeypatch, data):
    """What fit() is handed: T's facts and the checkpoint; the questions of V stay with the framework."""
    given = []
    monkeypatch.setattr(RTT, "fit", lambda self, checkpoint, t_facts, look: given.append((checkpoint, t_facts)))
    monkeypatch.setattr(RTT, "choices", classmethod(lambda cls, settings: []))
    attacker_of(RTT(QUICK), tiny.model(), data, retain=data[:2]).on("original", lambda: None)
    assert [checkpoint.fold for checkpoint, _ in given] == [0, 1, 2]
    for v, (checkpoint, t_facts) in enumerate(given):
        assert {fact.split for fact in t_facts} == {f"split_{i}" for i in range(3)} - {f"split_{v}"}
        more = {"repeat", "unlearning_repeat", "retain", "plain", "memo"}
        assert set(vars(checkpoint)) == {"model", "tokenizer", "seed", "fold", "restore", "once"} | more
        assert checkpoint.retain == data[:2] and checkpoint.plain == () and checkpoint.memo == {}


class Echo(Attack):
    """An attack without training, whose askers give the first choice a score that tells them apart."""

    name, title, colour, summary = "Echo", "echo", "#000000", "For tests."
    uses_t, answers = True, ("letter", "likelihood")

    class Settings(Attack.Settings):
        """None."""

    @classmethod
    def choices(cls, settings):
        """Return two settings."""
        return [{"of": 1}, {"of": 2}]

    @classmethod
    def cost(cls, settings, t_facts, texts):
        """Return two looks."""
        return Cost(2)

    def fit(self, checkpoint, t_facts, look):
        """Let every score tell the setting, and which facts T has."""
        told = sum(hash(fact.id) % 1000 for fact in t_facts)
        checkpoint.memo.setdefault("folds", []).append(checkpoint.fold)
        assert not list(Path.cwd().iterdir())
        for setting in self.choices(self.settings):
            look(setting, Asker(score=lambda texts, of=setting["of"]: [told * of] * len(texts)))


def test_without_training_each_fact_is_asked_once_by_the_asker_of_its_own_fold(data):
    """Cross-fitting: a look has no V split, and holds for every fact what the asker said that had it as V."""
    looks = attacker_of(Echo(Echo.Settings()), tiny.model(), data).on("original", lambda: None)
    assert [(one["setting"], one["v_split"], one["repeat"]) for one in looks] == [({"of": n}, None, 0) for n in (1, 2)]
    for one in looks:
        assert [question["id"] for question in one["questions"]] == [fact.id for fact in data]
        for question, fact in zip(one["questions"], data, strict=True):
            told = sum(hash(other.id) % 1000 for other in data if other.split != fact.split) * one["setting"]["of"]
            assert question["role"] == "V" and set(question["probes"]) == {"letter", "likelihood"}
            assert set(question["probes"]["letter"]["scores"]) == {told}
            assert question["probes"]["likelihood"]["tokens"] == [1] * len(fact.choices)


def test_an_asker_may_put_questions_in_another_way(monkeypatch, data):
    """Prompts, what stands before them and soft tokens reach the model; T's role is what it was."""
    seen, model = [], tiny.model(scale=4)
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda ids, **more: seen.append(ids) or forward(ids, **more))

    def fit(self, checkpoint, t_facts, look):
        prompts = Prompts(lambda q, shown: f"{q} {' '.join(shown)} Answer:", lambda q: f"{q} Answer:", "Question ")
        for setting in self.choices(self.settings):
            look(setting, Asker(checkpoint.model, prompts, (5, 6)))

    monkeypatch.setattr(Echo, "fit", fit)
    looks = attacker_of(Echo(Echo.Settings()), model, data).on("original", lambda: None)
    assert len(looks) == 2 and looks[0]["questions"] == looks[1]["questions"]
    assert seen and all((ids[:, :2] == torch.tensor([5, 6])).all() for ids in seen if ids.shape[1] > 2)
    monkeypatch.setattr(Echo, "fit", lambda self, one, t_facts, look: [look({"of": n}, one.model) for n in (1, 2)])
    plain = attacker_of(Echo(Echo.Settings()), model, data).on("original", lambda: None)
    assert plain[0]["questions"] != looks[0]["questions"]

"""RTT on a checkpoint: T alone is trained on, the weights come back, roles and looks are right."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from rtt.errors import UserError
from rtt.files import write_json
from rtt.models.load import weights
from rtt.scoring.score import Scorer
from rtt.steps import attack as module
from rtt.study.settings import Attack
from rtt.training.resume import State

RTT = Attack(learning_rates=[1e-2, 2e-2], epochs=2, batch_size=4)


@pytest.fixture
def data(tmp_path):
    return tiny.facts(tmp_path, options=tiny.GENERATOR | {"splits": 3})


def attack(facts, settings=RTT, seed=0, model=None, calls=None):
    model = model or tiny.model(scale=4)
    return module.attack(
        model, Scorer(tiny.tokenizer(), facts), tiny.tokenizer(), facts, settings, seed,
        lambda _: calls is not None and calls.append(1), State(None, {}), "original",
    )  # fmt: skip


def test_the_model_ends_with_its_starting_weights(data):
    model = tiny.model(scale=4)
    before = weights(model)
    results = attack(data, model=model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    scores = [result["questions"][0]["scores"]["letter"] for result in results]
    assert len({tuple(row) for row in scores}) == len(scores)  # and in between it was another model each time


def test_each_run_starts_from_the_same_weights(data):
    """A look does not depend on the learning rates before it, nor a V split on those before it."""
    both = attack(data[:8], Attack(learning_rates=[1e-2, 2e-2], epochs=1, batch_size=4))
    alone = attack(data[:8], Attack(learning_rates=[2e-2], epochs=1, batch_size=4))
    assert [r for r in both if r["lr"] == 2e-2] == alone


def test_one_result_per_look_and_v_split_with_its_roles(data):
    calls = []
    results = attack(data, calls=calls)
    looks = [(r["lr"], r["v_split"], r["epoch"], r["step"]) for r in results]
    assert sorted(looks) == sorted(
        (lr, f"split_{v}", epoch, 2 * epoch) for lr in (1e-2, 2e-2) for v in range(3) for epoch in (1, 2)
    )  # 8 facts of T in batches of 4: an epoch ends every 2 steps
    assert len(calls) == 6
    for result in results:
        assert [q["id"] for q in result["questions"]] == [fact.id for fact in data]
        for question, fact in zip(result["questions"], data, strict=True):
            assert question["role"] == ("V" if fact.split == result["v_split"] else "T")
            assert (question["split"], question["answer"]) == (fact.split, fact.answer)


def spied(monkeypatch, facts, settings=RTT, seed=0, model=None):
    """Return (learning rate, items) of each training run."""
    runs = []

    def train(model, tokenizer, items, objective, training, seed, steps, action, title, state):
        runs.append((training.learning_rate, items, list(steps)))
        for step in steps:
            action(step, model)
        return [{"loss": 1.0, "moved": 0.5}]

    monkeypatch.setattr(module, "train", train)
    attack(facts, settings, seed, model)
    monkeypatch.undo()
    return runs


def words(item):
    return tiny.tokenizer().convert_ids_to_tokens(item["input_ids"])


def test_no_v_fact_is_ever_trained_on(monkeypatch, data):
    runs = spied(monkeypatch, data)
    assert [lr for lr, *_ in runs] == [1e-2, 2e-2] * 3
    for v, (_, items, _) in enumerate(run for run in runs if run[0] == 1e-2):
        asked = {tuple(words(item)[2:4]) for item in items}  # "When was FIRST LAST born"
        person = {fact.id: tuple(fact.question.split()[2:4]) for fact in data}
        assert asked == {person[fact.id] for fact in data if fact.split != f"split_{v}"}
        assert not asked & {person[fact.id] for fact in data if fact.split == f"split_{v}"}
        for item in items:  # every token counts, the answer is the true one, the choices stand as they are
            fact = next(f for f in data if person[f.id] == tuple(words(item)[2:4]))
            told = [x for x in words(item)[5:]]
            expected = [x for pair in zip("ABCD", fact.choices, strict=True) for x in pair]
            assert told == [*expected, "Answer", "ABCD"[fact.answer], fact.choices[fact.answer]]
            assert item["labels"] == item["input_ids"]


def test_the_order_is_the_same_for_every_checkpoint_and_learning_rate(monkeypatch, data):
    runs = spied(monkeypatch, data)
    for v in range(3):
        assert runs[2 * v][1] == runs[2 * v + 1][1]
    other = spied(monkeypatch, data, model=tiny.model(seed=9))
    assert [items for _, items, _ in other] == [items for _, items, _ in runs]
    assert [items for _, items, _ in spied(monkeypatch, data, seed=1)] != [items for _, items, _ in runs]


@pytest.mark.parametrize("batch_size", [3, 5, 8, 16, 30])
def test_epochs_end_at_whole_steps(monkeypatch, data, batch_size):
    settings = Attack(learning_rates=[1e-3], epochs=3, batch_size=batch_size)
    for _, items, ends in spied(monkeypatch, data, settings):
        per_epoch = -(-8 // batch_size)
        assert ends == [per_epoch, 2 * per_epoch, 3 * per_epoch]
        assert len(items) == 3 * per_epoch * batch_size


def test_it_fits_t_and_not_v(data):
    """Enough of it learns T by heart; V has other facts, whose answers T does not tell."""
    settings = Attack(learning_rates=[2e-2], epochs=60, batch_size=8)
    last = [r for r in attack(data[:8], settings) if r["epoch"] == 60]
    right = {"T": [], "V": []}
    for result in last:
        for q in result["questions"]:
            right[q["role"]].append(int(np.argmax(q["scores"]["letter"])) == q["answer"])
    assert np.mean(right["T"]) == 1.0
    assert np.mean(right["V"]) < 0.8


def spec(methods=("GD", "RMU")):
    return SimpleNamespace(point_choices=[SimpleNamespace(method=name, run_id=f"choose-{name}") for name in methods])


def point_choices(folder, methods, selected):
    paths = []
    for name in methods:
        paths.append(folder / f"{name}.json")
        points = {budget: step and {"run": f"unlearn-{name}", "step": step} for budget, step in selected.items()}
        write_json(paths[-1], {"run_id": f"choose-{name}", "selected": points})
    return [str(path) for path in paths]


def test_chosen_points_belong_to_the_method_that_the_spec_names(tmp_path):
    paths = point_choices(tmp_path, ("GD", "RMU"), {"0.1": 20, "1.0": None})
    found = module._chosen(spec(), ["m/choose-GD", "m/choose-RMU"], paths)
    assert {key: (value[0], str(value[1])) if value else None for key, value in found.items()} == {
        ("GD", 0.1): (("unlearn-GD", 20), "m/choose-GD/b10.safetensors"), ("GD", 1.0): None,
        ("RMU", 0.1): (("unlearn-RMU", 20), "m/choose-RMU/b10.safetensors"), ("RMU", 1.0): None,
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


def test_samples_and_v_splits_and_looks(monkeypatch, data):
    """So many facts of T, the same ones in each epoch; the first splits as V; looks after the named epochs alone."""
    settings = Attack(learning_rates=[1e-3], epochs=3, batch_size=3, samples=3, v_splits=2, score_epochs=[1, 3])
    runs = spied(monkeypatch, data, settings)
    assert len(runs) == 2
    for v, (_, items, ends) in enumerate(runs):
        assert len(items) == 9 and ends == [1, 3]
        epochs = [{tuple(item["input_ids"]) for item in items[i : i + 3]} for i in (0, 3, 6)]
        assert len(epochs[0]) == 3 and epochs[0] == epochs[1] == epochs[2]
        own = {tuple(fact.question.split()[2:4]) for fact in data if fact.split == f"split_{v}"}
        assert not own & {tuple(words(item)[2:4]) for item in items}
    with pytest.raises(UserError, match="v_splits: found 4, but the facts have 3 splits"):
        attack(data, settings.model_copy(update={"v_splits": 4}))
    with pytest.raises(UserError, match="one split, split_0"):
        attack(data[:4])


def test_facts_need_not_stand_in_order_of_splits(monkeypatch, data):
    """The splits are named, not counted: mixed files give the same roles."""
    mixed = [data[i] for i in np.random.default_rng(0).permutation(len(data))]
    mixed[0] = dataclasses.replace(mixed[0], split="split_10")
    names = {r["v_split"] for r in attack(mixed, Attack(learning_rates=[1e-3], epochs=1, batch_size=4))}
    assert names == {"split_0", "split_1", "split_2", "split_10"}

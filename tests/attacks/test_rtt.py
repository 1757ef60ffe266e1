"""RTT: T alone is trained on, in the same order for every checkpoint, with looks at the epochs that are named."""

import pytest
import tiny
from attacking import QUICK, RTT, attack, spied, words
from knowing import accuracy, brought_back, hide_by_unit, knowing, most_by_chance, strangers
from rtt.errors import UserError


@pytest.fixture
def data(tmp_path):
    return tiny.facts(tmp_path, options=tiny.GENERATOR | {"splits": 3})


FIXED = {"shuffle_choices": False, "sentences": False}


@pytest.mark.parametrize("name", ["RTT", "RTT_permuted"])
def test_no_v_fact_is_ever_trained_on(monkeypatch, data, name):
    """As the default shows them: questions with their choices in a new order, and sentences."""
    person = {fact.id: " ".join(fact.question.split()[2:4]) for fact in data}
    for v, (_, items, _) in enumerate(run for run in spied(monkeypatch, data, name=name) if run[0] == 1e-2):
        told = [" ".join(words(item)) for item in items]
        assert all(sum(name in text for name in person.values()) == 1 for text in told)
        shown = {key for key, name in person.items() if any(name in text for text in told)}
        assert shown == {fact.id for fact in data if fact.split != f"split_{v}"}
        assert {len(told) / len(shown)} == {2 * 2} and sum("Answer" in text for text in told) == len(told) / 2


def test_fixed_texts_are_those_of_the_authors(monkeypatch, data):
    runs = spied(monkeypatch, data, QUICK.model_copy(update=FIXED))
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
    settings = RTT.Settings(learning_rates=[1e-3], epochs=3, batch_size=batch_size)
    for _, items, ends in spied(monkeypatch, data, settings):
        per_epoch = -(-2 * 8 // batch_size)  # a question and a sentence of each fact
        assert ends == [per_epoch, 2 * per_epoch, 3 * per_epoch]
        assert len(items) == 3 * per_epoch * batch_size


def test_samples_and_v_splits_and_looks(monkeypatch, data):
    """So many facts of T, the same ones in each epoch; the first splits as V; looks after the named epochs alone."""
    drawn = {"samples": 3, "v_splits": 2, "score_epochs": [1, 3]}
    settings = RTT.Settings(learning_rates=[1e-3], epochs=3, batch_size=3, **drawn, **FIXED)
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
    with pytest.raises(UserError, match="only one split, split_0"):
        attack(data[:4])


def test_the_settings_are_tried_from_the_gentlest_on():
    settings = RTT.Settings(learning_rates=[2e-3, 1e-3], epochs=3, batch_size=4, score_epochs=[1, 3])
    assert [(one["epoch"], one["lr"]) for one in RTT.choices(settings)] == [(1, 1e-3), (1, 2e-3), (3, 1e-3), (3, 2e-3)]


# Settings that undo the hiding below within a second.
BACK = {"learning_rates": [1e-3], "epochs": 4, "score_epochs": [4], "batch_size": 8, "loss": "LETTER_ANSWER"}


def test_facts_of_v_that_a_planted_unit_hides_come_back_with_those_of_t_and_what_was_never_known_does_not():
    model, _, facts, retain = knowing()
    hide_by_unit(model, 1, facts, retain, 2.0)
    before, (found,) = accuracy(model, facts), brought_back("RTT", BACK, model, facts, retain).values()
    never = [next(iter(brought_back("RTT", BACK, model, strangers(seed), retain).values())) for seed in range(3)]
    for probe in ("letter_permuted", "likelihood"):
        assert before[probe] < 0.7 and found[probe] > 0.9
        assert sum(one[probe] for one in never) / 3 <= most_by_chance(3 * len(facts)), probe

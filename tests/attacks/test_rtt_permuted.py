"""RTT with wrong answers: no text of T tells the truth, and nothing else differs from RTT."""

import dataclasses
from itertools import permutations
from types import SimpleNamespace

import pytest
import tiny
from attacking import QUICK, spied, words
from rtt.attacks.rtt_permuted import stating
from rtt.errors import UserError
from rtt.study import plugins

PERMUTED = plugins.attacks()["RTT_permuted"]


@pytest.fixture
def data(tmp_path):
    return tiny.facts(tmp_path, options=tiny.GENERATOR | {"splits": 3, "first_names": 12})


def said(items, data):
    """Return {id: what the texts of each fact's person state}, letters included."""
    found = {}
    for item in items:
        text = words(item)
        fact = next(fact for fact in data if " ".join(fact.question.split()[2:4]) in " ".join(text))
        if "Answer" in text:
            at = text.index("Answer")
            choice = text[text.index(text[at + 1], 5) + 1]  # the choice behind the letter that is stated
            assert choice == text[at + 2]
        found.setdefault(fact.id, set()).add(text[-1])
    return found


def test_every_text_states_one_wrong_choice(monkeypatch, data):
    for seed in range(3):
        runs = spied(monkeypatch, data, seed=seed, name="RTT_permuted")
        for v, (_, items, _) in enumerate(runs[::2]):
            stated = said(items, data)
            assert set(stated) == {fact.id for fact in data if fact.split != f"split_{v}"}
            for fact in data:
                assert all(len(one) == 1 for one in stated.values())
                assert fact.choices[fact.answer] not in stated.get(fact.id, ())
                assert stated.get(fact.id, set()) <= set(fact.choices)


def test_all_checkpoints_and_rates_learn_the_same_wrong_answers(monkeypatch, data):
    runs = spied(monkeypatch, data, name="RTT_permuted")
    other = spied(monkeypatch, data, name="RTT_permuted", model=tiny.model(seed=9))
    assert [items for _, items, _ in runs] == [items for _, items, _ in other]
    assert all(runs[2 * v][1] == runs[2 * v + 1][1] for v in range(3))
    anew = spied(monkeypatch, data, name="RTT_permuted", seed=1)
    assert said(anew[0][1], data) != said(runs[0][1], data)


def test_but_for_the_answers_its_texts_are_those_of_rtt(monkeypatch, data):
    true, wrong = (spied(monkeypatch, data, name=name)[0][1] for name in ("RTT", "RTT_permuted"))
    for one, other in zip(true, wrong, strict=True):
        one, other = words(one), words(other)
        told = 2 if "Answer" in one else 1  # the letter and the choice, or a sentence's last word
        assert one[:-told] == other[:-told]


def test_the_wrong_answers_are_each_as_likely_as_another(data):
    """Over seeds every wrong choice of a fact is drawn, and the questions of V keep theirs."""
    found = {}
    for seed in range(40):
        checkpoint = SimpleNamespace(seeded=lambda purpose, seed=seed: [seed, purpose, 0])
        for fact, taught in zip(data, PERMUTED(QUICK).taught(checkpoint, data), strict=True):
            found.setdefault(fact.id, []).append(taught.answer)
            assert (taught.choices, taught.question, taught.id) == (fact.choices, fact.question, fact.id)
    for fact in data:
        assert set(found[fact.id]) == {0, 1, 2, 3} - {fact.answer}
    every = [(answer - fact.answer) % 4 for fact in data for answer in found[fact.id]]
    assert all(0.25 < every.count(step) / len(every) < 0.42 for step in (1, 2, 3))  # 480 draws of three


def fact(data, choices, sentences):
    return dataclasses.replace(data[0], choices=choices, answer=0, sentences=sentences)


def test_sentences_that_could_tell_the_truth_are_left_out(data):
    told = ["He lives in new york.", "The city of dreams.", "New Yorker."]
    made = stating(fact(data, ["New York", "Rome"], told), 1)
    assert made.sentences == ["He lives in Rome."] and made.answer == 1
    assert stating(fact(data, ["12", "112"], ["12 of 12, and 312."]), 1).sentences == ["112 of 112, and 312."]
    assert stating(fact(data, ["York", "New York"], ["He saw York."]), 1).sentences == []
    assert stating(fact(data, ["a", "\\1"], ["It is a."]), 1).sentences == ["It is \\1."]
    for true, wrong in permutations(range(4), 2):  # brute force over all pairs of a generated fact
        changed = dataclasses.replace(data[0], answer=true, sentences=[f"Born in {data[0].choices[true]}."])
        assert stating(changed, wrong).sentences == [f"Born in {data[0].choices[wrong]}."]


def test_a_loss_of_sentences_leaves_out_facts_whose_sentences_stay_true(data):
    settings = PERMUTED.Settings(learning_rates=[1e-2], epochs=1, batch_size=2, loss="CORPUS")
    vague = [dataclasses.replace(one, sentences=["Nobody knows."]) for one in data]
    checkpoint = SimpleNamespace(seeded=lambda purpose: [0, purpose, 0])
    taught = PERMUTED(settings).taught(checkpoint, [*vague[:4], *data[4:]])
    assert [fact.id for fact in taught] == [fact.id for fact in data[4:]]
    assert len(PERMUTED(QUICK).taught(checkpoint, vague)) == len(vague)  # their MCQs are taught
    with pytest.raises(UserError, match=r"RTT_permuted: the loss CORPUS trains on sentences, but none"):
        PERMUTED(settings).taught(checkpoint, vague)


def test_it_is_a_control_and_never_the_attack_that_figures_show():
    assert [name for name, plugin in plugins.attacks().items() if plugin.control] == ["RTT_permuted"]
    assert list(plugins.attacks())[-1] == "RTT_permuted"

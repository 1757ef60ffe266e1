"""What the attacks that train show a model: whose facts, true or wrong, and what that costs."""

import re

import pytest
import tiny
from attacking import SETTINGS, spied, words
from rtt.errors import UserError
from rtt.planner import costs
from rtt.planner.gpus import DEVICES
from rtt.planner.plan import Plan
from rtt.study import plugins
from rtt.study.expand import Runs
from rtt.training.order import count_tokens

ATTACKS = plugins.attacks()


@pytest.fixture
def data(tmp_path):
    return tiny.facts(tmp_path, options=tiny.GENERATOR | {"splits": 3})


@pytest.fixture
def retain(tmp_path):
    return [one for one in tiny.facts(tmp_path, "cities") if one.split == "train"]


def settings(name, **more):
    return ATTACKS[name].Settings(**SETTINGS[name] | more)


def subject(fact) -> str:
    return re.search(r"[A-Z]\w+ [A-Z]\w+", fact.question[4:])[0]


def read(items) -> list[str]:
    return [" ".join(words(item)) for item in items]


def about(items, facts) -> set[str]:
    """Return the ids of the facts whose subject a text names."""
    return {fact.id for fact in facts if any(subject(fact) in text for text in read(items))}


def states(text, fact) -> str:
    """Return the choice that a text about a fact states: behind the letter that it answers with, or its last one."""
    told = text.split()
    if "Answer" in told:
        return told[told.index(told[told.index("Answer") + 1]) + 1]
    return next(word for word in reversed(told) if word in fact.choices)


def test_relearning_shares_what_it_says_and_tells_nothing_true(monkeypatch, data, retain):
    runs = spied(monkeypatch, data, settings("relearn", epochs=2), name="relearn", retain=retain)
    assert len(runs) == 4 * 3
    for v in range(3):
        t_facts = [fact for fact in data if fact.split != f"split_{v}"]
        shown = dict(zip(("neither", "topic", "form", "both"), (run[1] for run in runs[4 * v :]), strict=False))
        assert len({len(items) for items in shown.values()}) == 1
        for share, items in shown.items():
            facts = t_facts if share in ("topic", "both") else retain
            assert about(items, data) == ({fact.id for fact in t_facts} if facts is t_facts else set())
            assert about(items, retain) == (set() if facts is t_facts else {fact.id for fact in retain})
            assert all(("Answer" in text) == (share in ("form", "both")) for text in read(items))
            for fact in facts:
                told = {states(text, fact) for text in read(items) if subject(fact) in text}
                assert len(told) == 1 and told <= set(fact.choices) - {fact.choices[fact.answer]}


def test_relearning_takes_as_many_facts_of_each_kind(monkeypatch, data, retain):
    more = {"name": "relearn", "retain": retain[:3]}
    runs = spied(monkeypatch, data, settings("relearn", batch_size=1), **more)
    assert {len(items) for _, items, _ in runs} == {3}
    fewer = spied(monkeypatch, data, settings("relearn", batch_size=1, samples=2), **more)
    assert {len(items) for _, items, _ in fewer} == {2}
    alone = spied(monkeypatch, data, settings("relearn", batch_size=1, shares=["both"]), name="relearn")
    assert {len(items) for _, items, _ in alone} == {8}
    plain = settings("relearn", batch_size=1, shares=["both", "neither"])
    runs = spied(monkeypatch, data, plain, name="relearn", retain=["When was A", "When was B", "When was C"])
    assert {text for _, items, _ in runs[::2] for text in read(items)} == {"When was A", "When was B", "When was C"}


def test_relearning_without_texts_for_a_share_is_refused(monkeypatch, data):
    with pytest.raises(UserError, match=r"relearn: shares: form has no texts.*leave form out"):
        spied(monkeypatch, data, settings("relearn", shares=["form"]), name="relearn", retain=["Plain text"])
    with pytest.raises(ValueError, match="shares: each value may stand once"):
        settings("relearn", shares=["both", "both"])


def test_unrelated_texts_are_those_that_had_to_stay(monkeypatch, data, retain):
    (run,) = spied(monkeypatch, data, settings("unrelated", epochs=2), name="unrelated", retain=retain)
    assert about(run[1], data) == set() and about(run[1], retain) == {fact.id for fact in retain}
    for fact in retain:
        told = {states(text, fact) for text in read(run[1]) if subject(fact) in text}
        assert told == {fact.choices[fact.answer]}
    texts = ["When was A", "When was B", "When was C", "When was D"]
    wanted = settings("unrelated", epochs=2, batch_size=2)
    (run,) = spied(monkeypatch, data, wanted, name="unrelated", retain=texts)
    assert sorted(read(run[1])) == sorted(2 * texts) and run[2] == [2, 4]
    (run,) = spied(monkeypatch, data, settings("unrelated", samples=2, batch_size=2), name="unrelated", retain=texts)
    assert len(set(read(run[1]))) == 2
    looks = spied(monkeypatch, data, wanted, name="unrelated", retain=texts, repeats=2)
    assert len(looks) == 2 and looks[0][1] != looks[1][1]


def test_soft_tokens_stand_before_the_texts_of_rtt_and_do_not_count(monkeypatch, data):
    more = {"epochs": 2, "loss": "QUESTION_LETTER_ANSWER"}
    (plain, soft) = (
        spied(monkeypatch, data, settings(name, **more), name=name)[0][1] for name in ("RTT", "soft_prompt")
    )
    size = len(tiny.tokenizer())
    for one, other in zip(plain, soft, strict=True):
        assert other["input_ids"] == [size, size + 1, size + 2, *one["input_ids"]]
        assert other["labels"] == [-100, -100, -100, -100, *one["labels"][1:]]


@pytest.mark.parametrize("name", ["RTT", "RTT_LoRA", "soft_prompt", "unrelated", "relearn"])
def test_the_plan_counts_what_is_trained(monkeypatch, name):
    """Against the texts themselves, of the study's own data: trainings, steps and tokens of each; and the looks."""
    chosen = SETTINGS[name] | {"epochs": 3, "score_epochs": [1, 3]}
    study = tiny.study(attacks={name: chosen}, repeats={"attack": 2})
    plan = Plan(study, DEVICES["h100"], root="/nowhere")
    spec = next(spec for spec in plan.runs.attacks.values() if spec.arm == "pretrained")
    facts, cities = (costs._people(one) for one in (spec.facts, spec.source.retain.learn))
    retain = [fact for fact in cities if fact.split in spec.source.retain.learn_splits]
    runs = spied(monkeypatch, facts, ATTACKS[name].Settings(**chosen), name=name, retain=retain, repeats=2)
    trained = [one for fold in plan.folds(spec) for one in fold.trained]
    assert len(trained) == len(runs) == plan.checkpoint(spec).runs
    assert [steps for _, steps, _ in trained] == [len(items) // 4 for _, items, _ in runs]
    assert sum(tokens for *_, tokens in trained) == pytest.approx(sum(count_tokens(one[1]) for one in runs), rel=0.03)
    folds = 2 if ATTACKS[name].asks_t() else 1
    assert plan.looks(spec) == 2 * folds * len(ATTACKS[name].choices(spec.settings))


def test_the_plan_counts_plain_texts():
    texts = costs.Plain(10, 50.0)
    cost = ATTACKS["unrelated"].cost(settings("unrelated", epochs=3), 0, None, texts)
    ((_, steps, tokens),) = cost.trained
    assert (cost.looks, steps, tokens) == (3, 9, 9 * 4 * 50.0)
    ((_, steps, tokens),) = ATTACKS["relearn"].cost(settings("relearn", shares=["neither"]), 5, None, texts).trained
    assert (steps, tokens) == (2, 2 * 4 * 50.0)


def test_vectors_are_a_small_part_of_a_model():
    assert ATTACKS["soft_prompt"].part(settings("soft_prompt"), tiny.SHAPE).trained == 0.0
    assert ATTACKS["RTT"].part(settings("RTT"), tiny.SHAPE).trained == 1.0


def test_a_study_of_plain_texts_has_no_form(tmp_path):
    tiny.write_pretrained(tmp_path / "model")
    task = tiny.TASKS[0] | {"retain": {"texts": "wikitext", "count": 5}}
    attacks = {"relearn": {"shares": ["both", "form"]}}
    study = tiny.tasks_study(tmp_path, tasks=[task], attacks=attacks, methods={})
    with pytest.raises(UserError, match=r"attacks\.relearn\.shares: form needs retain facts, but.*\(wikitext\)"):
        Runs(study)
    attacks = {"relearn": {"shares": ["both", "neither"]}, "unrelated": {}}
    runs = Runs(tiny.tasks_study(tmp_path, tasks=[task], attacks=attacks, methods={}))
    assert all(spec.retain.learn.group == "wikitext" for spec in runs.attacks.values())

"""What each phase trains on: exposures, composition, and what it must never see."""

import dataclasses
from collections import Counter
from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
from rtt.data.generate import generate, people
from rtt.errors import UserError
from rtt.methods.gd import GD
from rtt.methods.ria import RIA
from rtt.study import plugins
from rtt.study.expand import Runs
from rtt.study.settings import Pretraining, Teaching, Unlearning
from rtt.training.order import point_steps, pretraining_documents, training_passes, unlearning_pairs

APART = {"splits": ["choice"]}
RETAIN = SimpleNamespace(learn=None, learn_splits=["train"], held_out_splits=["held_out"])  # what a spec says


class Words:
    """A stand-in for a tokenizer that keeps the text, so that a test reads what is trained."""

    def __call__(self, text, return_offsets_mapping=True, return_special_tokens_mask=True):
        ids = [Words.texts.setdefault(word, len(Words.texts)) for word in [text]]
        return {"input_ids": ids, "offset_mapping": [(0, len(text))], "special_tokens_mask": [0]}

    def convert_ids_to_tokens(self, ids):
        return [Words.read({"input_ids": [one]}) for one in ids]

    texts: dict = {}  # noqa: RUF012  one table of texts, by id

    @staticmethod
    def read(example):
        return next(text for text, i in Words.texts.items() if i == example["input_ids"][0])


def texts_of(items):
    names = {i: text for text, i in Words.texts.items()}
    return [names[item["input_ids"][0]] for item in items]


@pytest.fixture
def data(tmp_path):
    Words.texts.clear()
    return {name: tiny.facts(tmp_path, name) for name in ("birth_years_a", "birth_years_b", "cities")}


def owner(text, facts):
    """Return the fact whose person a text names."""
    return next(fact for fact in facts if " ".join(fact.sentences[0].split()[:2]) in text)


def documents(forget, retain, steps=40, seed=0):
    settings = Pretraining(steps=steps, batch_size=7, mcqs_per_batch=3, learning_rate=1e-3)
    items = pretraining_documents([*forget, *retain], settings, Words(), np.random.default_rng(seed))
    return [texts_of(items[7 * i : 7 * i + 7]) for i in range(steps)]


def test_pretraining_shows_every_fact_equally_often_in_both_kinds(data):
    facts = [*data["birth_years_a"], *data["cities"]]
    batches = documents(data["birth_years_a"], data["cities"])
    for kind, size in ((lambda t: "\nA. " in t, 3), (lambda t: "\nA. " not in t, 4)):
        assert {sum(map(kind, batch)) for batch in batches} == {size}
        counts = Counter(owner(text, facts).id for batch in batches for text in batch if kind(text))
        assert len(counts) == len(facts)
        assert max(counts.values()) - min(counts.values()) <= 1
    plain = Counter(text for batch in batches for text in batch if "\nA. " not in text)
    fact = facts[0]
    said = {*fact.sentences, f"{fact.question}\nAnswer: {fact.choices[fact.answer]}"}
    assert {text for text in plain if owner(text, facts) is fact} <= said
    assert len({text for text in plain if text.endswith(".")}) > len(facts)  # several forms
    assert any("\nAnswer: " in text for text in plain)


def test_pretraining_shuffles_choices_over_all_positions_and_keeps_the_answer(data):
    facts = [*data["birth_years_a"], *data["cities"]]
    positions = {fact.id: Counter() for fact in facts}
    for batch in documents(data["birth_years_a"], data["cities"], steps=400):
        for text in batch:
            if "\nA. " in text:
                fact = owner(text, facts)
                letter, choice = text.rsplit("Answer: ", 1)[1].split(". ")
                assert choice == fact.choices[fact.answer]
                assert f"\n{letter}. {choice}\n" in text
                positions[fact.id][letter] += 1
    assert all(set(found) == set("ABCD") for found in positions.values())
    total = sum(positions.values(), Counter())
    assert max(total.values()) / min(total.values()) < 1.35  # 1200 draws over four positions


def test_taught_same_data_has_the_composition_of_pretraining(data):
    """Arm taught_same_data: pretraining's documents with other facts. Per step, equal numbers of each kind; per fact,
    equal exposures of each kind."""

    def composition(forget, seed):
        batches = documents(forget, data["cities"], steps=48, seed=seed)
        per_step = [sum("\nA. " in text for text in batch) for batch in batches]
        everyone = [*forget, *data["cities"]]
        exposures = Counter(
            (owner(text, everyone).dataset == "cities", "\nA. " in text) for batch in batches for text in batch
        )
        return per_step, exposures

    steps_a, a = composition(data["birth_years_a"], 0)
    steps_b, b = composition(data["birth_years_b"], 1)
    assert steps_a == steps_b
    assert set(a) == set(b) and all(abs(a[key] - b[key]) <= 16 for key in a)
    assert sum(a.values()) == sum(b.values()) == 7 * 48
    for retain in (True, False):  # replay stands in it: 12 retain facts of 20
        share = 12 / 20 if retain else 8 / 20
        assert b[retain, True] == pytest.approx(share * 144, abs=12)
        assert b[retain, False] == pytest.approx(share * 192, abs=12)


def test_teaching_the_same_data_uses_the_documents_of_pretraining(tmp_path, monkeypatch, data):
    from rtt.data.facts import write_facts
    from rtt.steps import teach
    from rtt.study.settings import Teaching

    write_facts(tmp_path / "f.jsonl", data["birth_years_b"])
    write_facts(tmp_path / "r.jsonl", data["cities"])
    caught = {}
    monkeypatch.setattr(teach, "load", lambda *_: (None, Words()))

    def train(model, tokenizer, items, loss, training, seed, steps, action, *rest):
        caught.update(items=items)
        action(steps[0], model)
        return [{"loss": 0.0, "moved": 1.0}]

    monkeypatch.setattr(teach, "train", train)
    monkeypatch.setattr(teach, "scores_of", lambda *args: {})
    monkeypatch.setattr(teach, "write_original", lambda *args: None)
    monkeypatch.setattr(teach, "save", lambda *args: None)
    retain = tmp_path / "r.jsonl"
    args = SimpleNamespace(
        spec="",
        base="",
        model="",
        facts=tmp_path / "f.jsonl",
        retain=retain,
        held_out=retain,
        also_taught=[],
        eval="",
        manifest="",
        state=None,
    )
    pretraining = Pretraining(steps=10, batch_size=7, mcqs_per_batch=3, learning_rate=1e-3)
    for arm, training in (
        ("taught_same_data", pretraining),
        ("taught", Teaching(epochs=2, batch_size=4, learning_rate=1)),
    ):
        spec = SimpleNamespace(seed=0, arm=arm, training=training, run_id="x", kind="teach", retain=RETAIN)
        monkeypatch.setattr(teach, "load_spec", lambda *_, spec=spec: spec)
        monkeypatch.setattr(teach, "Manifest", lambda *_: SimpleNamespace(write=lambda *_, **__: None))
        teach.run(args)
        texts = texts_of(caught["items"])
        named = {fact.dataset for text in texts for fact in [owner(text, [*data["birth_years_b"], *data["cities"]])]}
        if arm == "taught":  # fixed MCQs of the new facts, no replay
            assert named == {"birth_years_b"} and all("\nA. " in text for text in texts) and len(texts) == 16
            assert all(
                len({t for t in texts if owner(t, data["birth_years_b"]) is f}) == 1 for f in data["birth_years_b"]
            )
        else:
            assert named == {"birth_years_b", "cities"} and len(texts) == 70


@pytest.mark.parametrize("n, batch_size", [(8, 4), (8, 3), (5, 4), (3, 8), (2, 7), (1, 4)])
def test_passes_fill_whole_batches_in_each_epoch(data, n, batch_size):
    facts = data["birth_years_a"][:n]
    items = training_passes(facts, "QUESTION_LETTER_ANSWER", 3, batch_size, Words(), np.random.default_rng(0))
    per_epoch = -(-n // batch_size) * batch_size
    assert len(items) == 3 * per_epoch
    for epoch in range(3):
        counts = Counter(texts_of(items[epoch * per_epoch : (epoch + 1) * per_epoch]))
        assert len(counts) == n and max(counts.values()) - min(counts.values()) <= 1
    for text in texts_of(items):
        fact = owner(text, facts)
        letter = "ABCD"[fact.answer]
        assert text.endswith(f"\nAnswer: {letter}. {fact.choices[fact.answer]}")
        assert [line[3:] for line in text.split("\n")[1:5]] == fact.choices  # as they stand
    if n == 8:
        assert texts_of(items[:8]) != texts_of(items[per_epoch : per_epoch + 8])  # a new order each epoch


def pairs(data, name, share=0.5, points=(60,), seed=0, retain=None, **more):
    length = {} if "epochs" in more else {"points": list(points)}
    settings = Unlearning(learning_rate=1e-3, batch_size=4, mcq_share=share, **length, **more)
    train = [fact for fact in data["cities"] if fact.split == "train"] if retain is None else retain
    rng = np.random.default_rng(seed)
    return unlearning_pairs(data["birth_years_a"], train, plugins.methods()[name], settings, Words(), rng)


@pytest.mark.parametrize("name", plugins.methods())
def test_forget_texts_state_what_the_method_chooses(data, name):
    items = pairs(data, name, points=(10, 60))
    assert len(items) == 240
    forget, retain = (texts_of([item[side] for item in items]) for side in ("forget", "retain"))
    true = {"GD": True, "RMU": True, "RIA": False, "FIF": False, "NPO": True}[name]
    answers = {}
    for side, texts, facts in (("forget", forget, data["birth_years_a"]), ("retain", retain, data["cities"])):
        counts = Counter(owner(text, facts).id for text in texts)
        assert max(counts.values()) - min(counts.values()) <= 1
        for text in texts:
            fact = owner(text, facts)
            stated = text.rsplit("Answer: ", 1)[-1].rstrip(".").split()[-1]
            assert stated in fact.choices
            assert (stated == fact.choices[fact.answer]) == (true or side == "retain")
            if side == "forget":
                answers.setdefault(fact.id, set()).add(stated)
    assert {len(found) for found in answers.values()} == {3 if name == "RIA" else 1}
    assert len({owner(text, data["birth_years_a"]).split for text in forget}) == 2  # T and V together


def test_the_retain_loss_never_sees_a_held_out_fact(tmp_path, monkeypatch, data):
    """Through the step itself, with training spied on."""
    from rtt.data.facts import write_facts
    from rtt.steps import unlearn

    write_facts(tmp_path / "f.jsonl", data["birth_years_a"])
    write_facts(tmp_path / "r.jsonl", data["cities"])
    held_out = [fact for fact in data["cities"] if fact.split == "held_out"]
    assert len(held_out) == 4

    class Stop(Exception):
        pass

    def spy(model, tokenizer, items, *rest, **more):
        texts = texts_of([item["retain"] for item in items])
        assert {owner(text, data["cities"]).split for text in texts} == {"train"}
        assert len({owner(text, data["cities"]).id for text in texts}) == 8
        raise Stop

    settings = Unlearning(learning_rate=1, batch_size=4, points=[30])
    source = SimpleNamespace(retain=RETAIN, choice_splits=[], arm="pretrained")
    spec = SimpleNamespace(seed=0, repeat=0, method="GD", run_id="x", settings=settings, texts=[], source=source)
    monkeypatch.setattr(unlearn, "load_spec", lambda *_: spec)
    monkeypatch.setattr(unlearn, "load", lambda *_: (None, Words()))
    monkeypatch.setattr(unlearn, "Manifest", lambda *_: None)
    monkeypatch.setattr(unlearn, "scorer_of", lambda *_: None)
    monkeypatch.setattr(unlearn, "kept_weights", lambda *_: None)
    monkeypatch.setattr(unlearn, "train", spy)
    args = SimpleNamespace(
        spec="", source="", facts=tmp_path / "f.jsonl", retain=tmp_path / "r.jsonl", texts=[], state=None
    )
    args.held_out = args.retain
    with pytest.raises(Stop):
        unlearn.run(args)


def test_a_repeat_of_an_unlearning_is_the_same_pairs_in_another_order(monkeypatch, data):
    """Repeat 0 draws what there was before repeats: the generator of [seed, 20]."""
    from rtt.steps import unlearn

    learn = [fact for fact in data["cities"] if fact.split == "train"]
    settings = Unlearning(learning_rate=1, batch_size=4, points=[40], mcq_share=1.0)
    shown = []

    def train(model, tokenizer, items, *rest):
        shown.append(items)
        return [{"loss": 0.0, "moved": 1.0}]

    monkeypatch.setattr(unlearn, "train", train)
    state = SimpleNamespace(training=lambda name: None)
    for repeat in (0, 0, 1, 2):
        spec = SimpleNamespace(seed=5, repeat=repeat, method="GD", settings=settings, texts=[])
        unlearn.trained(spec, None, Words(), data["birth_years_a"], learn, None, state)
    rng = np.random.default_rng([5, 20])
    method = GD(None, settings, 5)
    assert shown[0] == shown[1] == unlearning_pairs(data["birth_years_a"], learn, method, settings, Words(), rng)
    assert shown[1] != shown[2] != shown[3] != shown[1]
    for items in shown[1:]:  # equally often each
        owners = Counter(owner(text, data["birth_years_a"]).id for text in texts_of([one["forget"] for one in items]))
        assert set(owners.values()) == {160 // 8}


def test_the_oracle_never_saw_the_facts_that_it_is_asked():
    """The documents of its pretraining, from the specs of a study, name nobody of the arm's; those of the base do."""
    study = tiny.study(data={"generator": tiny.GENERATOR | {"choice_facts": 4, "first_names": 8}}, point_choice=APART)
    runs = Runs(study)
    (oracle,) = (spec for spec in runs.attacks.values() if spec.arm == "control" and "_a-" in spec.facts.run_id)
    (base,) = (spec for spec in runs.sources.values() if spec.kind == "pretrain" and spec.facts == oracle.facts)
    options = study.data.generator.model_dump()
    named = people(options, 0)
    assert len(named["birth_years_a"]) == 2 * 4 + 4
    for spec, knows in ((oracle.source, False), (base, True)):
        files = [generate(part.dataset, options, 0) for part in (spec.facts, spec.retain.learn)]
        mcqs = [row for one in files for rows in one.values() for row in rows]
        texts = " ".join(row.get("text") or row["question"] for row in mcqs)
        assert {name in texts for name in named["birth_years_a"]} == {knows}
        assert all(name in texts for name in named[spec.facts.dataset])


@pytest.mark.parametrize("share, expected", [(0.0, 0.0), (0.65, 0.65), (1.0, 1.0)])
def test_the_share_of_mcqs_is_mcq_share(data, share, expected):
    items = pairs(data, "GD", share, points=(500,))
    for side in ("forget", "retain"):
        found = np.mean(["\nA. " in text for text in texts_of([item[side] for item in items])])
        assert found == pytest.approx(expected, abs=0.04)


def test_facts_without_sentences_are_shown_as_mcqs_and_that_is_said(data, capsys):
    """mcq_share follows by itself where no fact of a dataset has a sentence, and only there."""
    empty = {"sentences": [], "ria_sentences": [], "fif_sentences": []}
    silent = {name: [dataclasses.replace(fact, **empty) for fact in facts] for name, facts in data.items()}
    for name in ("GD", "RIA"):
        items = pairs(silent, name, 0.5)
        assert all("\nA. " in text for item in items for text in texts_of([item["forget"], item["retain"]]))
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "mcq_share: 1, not 0.5, for birth_years_a, cities: these facts have no sentences"
    half = silent | {"birth_years_a": data["birth_years_a"]}
    items = pairs(half, "GD", 0.5)  # the other side keeps its share
    assert 0.3 < np.mean(["\nA. " in text for text in texts_of([item["forget"] for item in items])]) < 0.7
    with pytest.raises(UserError, match=r"sentences \(mcq_share: 0.0\), but 8 of 8 facts"):
        pairs(silent, "GD", 0.0)
    some = silent | {"birth_years_a": [*silent["birth_years_a"][:3], *data["birth_years_a"][3:]]}
    with pytest.raises(UserError, match="but 3 of 8 facts have none"):
        pairs(some, "GD", 0.5)


def test_the_number_loss_only_counts_digits_of_forget_texts(data):
    settings = Unlearning(
        learning_rate=1e-3, batch_size=4, points=[20], mcq_share=0.5, mcq_loss="NUMBER", sentence_loss="NUMBER"
    )
    items = unlearning_pairs(
        data["birth_years_a"], data["cities"], GD, settings, tiny.tokenizer(), np.random.default_rng(0)
    )
    for item in items:
        words = tiny.tokenizer().convert_ids_to_tokens(item["forget"]["input_ids"])
        counted = [label != -100 for label in item["forget"]["labels"]]
        assert counted == [word.isdigit() for word in words] and any(counted)
        assert item["retain"]["labels"] == item["retain"]["input_ids"]


def test_the_order_depends_on_the_seed_alone(data):
    assert pairs(data, "GD") == pairs(data, "GD")
    assert pairs(data, "GD") != pairs(data, "GD", seed=1)
    assert documents(data["birth_years_a"], data["cities"]) == documents(data["birth_years_a"], data["cities"])


def test_passes_over_sentences_show_each_once_an_epoch(data):
    facts = data["birth_years_a"]
    items = training_passes(facts, "CORPUS", 2, 4, Words(), np.random.default_rng(0))
    sentences = [text for fact in facts for text in fact.sentences]
    assert len(sentences) == 3 * len(facts) == len(items) // 2
    for epoch in (items[: len(sentences)], items[len(sentences) :]):
        assert sorted(texts_of(epoch)) == sorted(sentences)
    assert texts_of(items[:24]) != texts_of(items[24:])


def test_shuffled_passes_show_each_fact_once_as_a_question_and_once_as_a_sentence(data):
    """Brute force: every text is one of the 24 orders of its fact's choices, or one of its sentences."""
    facts, epochs = data["birth_years_a"], 60
    n, rng = len(facts), np.random.default_rng(0)
    items = training_passes(
        facts, "QUESTION_LETTER_ANSWER", epochs, 4, Words(), rng, shuffle_choices=True, sentences=True
    )
    assert len(items) == 2 * n * epochs
    orders = {fact.id: [] for fact in facts}
    told = {fact.id: [] for fact in facts}
    for epoch in range(epochs):
        texts = texts_of(items[2 * n * epoch : 2 * n * (epoch + 1)])
        for fact in facts:
            mine = [text for text in texts if owner(text, facts) is fact]
            (asked,) = [text for text in mine if "\nA. " in text]
            (sentence,) = [text for text in mine if "\nA. " not in text]
            every = {
                "\n".join([fact.question, *(f"{x}. {c}" for x, c in zip("ABCD", order, strict=True)), ""])
                + f"Answer: {'ABCD'[order.index(fact.choices[fact.answer])]}. {fact.choices[fact.answer]}": order
                for order in permutations(fact.choices)
            }
            orders[fact.id].append(every[asked])
            told[fact.id].append(fact.sentences.index(sentence))
    assert all(len(set(found)) > 15 for found in orders.values())  # of 24 orders in 60 epochs, 22 are expected
    at = Counter(order.index(fact.choices[fact.answer]) for fact in facts for order in orders[fact.id])
    assert set(at) == {0, 1, 2, 3} and max(at.values()) / min(at.values()) < 1.5
    assert all(set(found) == {0, 1, 2} for found in told.values())


def test_each_of_the_two_may_be_off(data):
    facts = data["birth_years_a"]

    def passes(loss="QUESTION_LETTER_ANSWER", facts=facts, **more):
        return texts_of(training_passes(facts, loss, 3, 4, Words(), np.random.default_rng(1), **more))

    fixed = {text for text in passes()}
    assert len(fixed) == len(facts)
    assert {text for text in passes(sentences=True) if "\nA. " in text} == fixed
    shuffled = passes(shuffle_choices=True)
    assert len(shuffled) == 3 * len(facts) and len(set(shuffled)) > 2 * len(facts)
    assert passes() == passes(shuffle_choices=False, sentences=False)  # byte for byte as before there were the two
    assert passes(shuffle_choices=True, sentences=True) == passes(shuffle_choices=True, sentences=True)
    assert passes("CORPUS", sentences=True, shuffle_choices=True) == passes("CORPUS")  # shows all of them already
    some = [*silent(facts[:3], sentences=[]), *facts[3:]]
    found = passes(facts=some, sentences=True)
    assert sum("\nA. " not in text for text in found[: len(found) // 3]) in (
        5,
        6,
    )  # one may stand twice in the last batch


def test_taught_shuffled_shows_what_taught_shows_anew_in_each_epoch(data):
    settings = Teaching(epochs=2, batch_size=4, learning_rate=1)
    assert settings.shown() == {"shuffle_choices": False, "sentences": False}
    study = tiny.study(arms=["taught", "taught_shuffled"])
    assert study.taught("taught") == study.teaching
    anew = study.taught("taught_shuffled")
    assert anew.shown() == {"shuffle_choices": True, "sentences": True}
    assert anew.model_copy(update=settings.shown()) == study.teaching


def test_samples_are_drawn_once_for_all_epochs(data):
    facts = data["birth_years_a"]

    def drawn(samples, seed=0):
        items = training_passes(facts, "LETTER", 3, 1, Words(), np.random.default_rng(seed), samples)
        return [{owner(t, facts).id for t in texts_of(items[i : i + len(items) // 3])} for i in (0, len(items) // 3)]

    first, second = drawn(3)
    assert first == second and len(first) == 3
    assert drawn(3) == [first, second] and {frozenset(drawn(3, seed)[0]) for seed in range(8)} != {frozenset(first)}
    assert len(drawn(100)[0]) == len(facts)


def silent(facts, **lists):
    return [dataclasses.replace(fact, **lists) for fact in facts]


def test_facts_without_the_sentences_needed_are_refused(data):
    forget = data["birth_years_a"]
    some = [*forget[:5], *silent(forget[5:], ria_sentences=[], sentences=[])]
    with pytest.raises(UserError, match=rf"RIA unlearns.*3 of 8 facts.*{some[5].id}, {some[6].id}, {some[7].id};"):
        pairs({**data, "birth_years_a": some}, "RIA")
    with pytest.raises(UserError, match="GD unlearns"):
        pairs({**data, "birth_years_a": some}, "GD")
    assert pairs({**data, "birth_years_a": some}, "FIF")
    assert pairs({**data, "birth_years_a": some}, "RIA", share=1.0)
    with pytest.raises(UserError, match=r"retain loss trains on sentences.*5 more"):
        pairs(data, "GD", retain=silent(data["cities"][:8], sentences=[]))
    with pytest.raises(UserError, match="loss NUMBER trains on true sentences"):
        training_passes(some, "NUMBER", 1, 4, Words(), np.random.default_rng(0))


def test_retain_texts_may_be_plain_strings(data):
    plain = [f"Text {i}." for i in range(5)]
    for shuffle in (True, False):
        items = pairs(data, "GD", points=(10,), retain=plain, shuffle_retain=shuffle)
        texts = texts_of([item["retain"] for item in items])
        assert [sorted(texts[i : i + 5]) for i in range(0, 40, 5)] == [plain] * 8
        assert (texts == plain * 8) == (not shuffle)
        assert all(item["retain"]["labels"] == item["retain"]["input_ids"] for item in items)


def test_the_mcq_loss_is_that_of_both_sides(data):
    settings = Unlearning(learning_rate=1e-3, batch_size=4, points=[5], mcq_share=1.0, mcq_loss="LETTER")
    items = unlearning_pairs(
        data["birth_years_a"], data["cities"], RIA, settings, tiny.tokenizer(), np.random.default_rng(0)
    )
    for example in (item[side] for item in items for side in item):
        assert [label for label in example["labels"] if label != -100] == example["input_ids"][-1:]
        assert tiny.tokenizer().decode(example["labels"][-1:]) in "ABCD"


@pytest.mark.parametrize("n, batch_size, steps", [(8, 4, [6, 12]), (5, 4, [4, 8]), (8, 24, [1, 2]), (1, 64, [1, 2])])
def test_an_epoch_shows_every_fact_three_times(n, batch_size, steps):
    assert point_steps(Unlearning(learning_rate=1, batch_size=batch_size, epochs=2), n) == steps
    assert point_steps(Unlearning(learning_rate=1, batch_size=batch_size, points=[2, 7]), n) == [2, 7]


def test_pairs_show_each_fact_equally_often_until_the_last_epoch(data):
    items = pairs(data, "GD", epochs=2)
    assert len(items) == 2 * 3 * 8
    counts = Counter(owner(text, data["birth_years_a"]).id for text in texts_of([item["forget"] for item in items]))
    assert set(counts.values()) == {6} and len(counts) == 8

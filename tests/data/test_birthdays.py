"""Generated birthdays: nothing for the audit to find at any size, balanced, unique, the same bytes for a seed."""

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rtt.data.audit import audit
from rtt.data.birthdays import CITIES, NAME_LISTS, birthdays, names, write_birthdays
from rtt.data.build import build_facts
from rtt.data.reader import read_folder, words
from rtt.errors import UserError

WHICH = st.sampled_from(["random_birthdays", "retain"])


def mcqs(files):
    return {name: rows for name, rows in files.items() if "corpus_" not in name}


@given(
    which=WHICH,
    splits=st.integers(2, 10),
    facts=st.integers(4, 40),
    train=st.integers(4, 60),
    held_out=st.integers(4, 60),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=25, deadline=None)
def test_the_audit_finds_no_defect_at_any_size(tmp_path_factory, which, splits, facts, train, held_out, seed):
    folder = tmp_path_factory.mktemp("people")
    write_birthdays(folder, splits, facts, train, held_out, seed, which)
    sizes = {f"split_{i}": facts for i in range(splits)}
    if which == "retain":
        sizes = {"held_out": held_out, "train": train}
    read = read_folder(folder)
    result = audit(read, which)
    assert not result["details"] and not any(result["defects"].values())
    assert {split: sum(counts) for split, counts in result["letter_counts"].items()} == sizes
    assert all(max(counts) - min(counts) <= 1 for counts in result["letter_counts"].values())
    assert result["questions"] == sum(sizes.values()) and result["texts_in_another_split"] == 0
    for mcq in read.mcqs:
        assert len(set(mcq.choices)) == 4
        assert which == "retain" or all(1920 <= int(year) <= 2005 for year in mcq.choices)
    for i, mcq in enumerate(read.mcqs):
        texts = {kind: [] for kind in ("sentences", "ria_sentences", "fif_sentences")}
        for sentence in read.sentences:
            if sentence.mcq == i:
                texts[sentence.kind].append(sentence.text)
        wrong = {choice for j, choice in enumerate(mcq.choices) if j != mcq.answer}
        said = {kind: [set(words(t)) & set(map(str.casefold, mcq.choices)) for t in texts[kind]] for kind in texts}
        assert all(len(set(texts[kind])) == 3 and all(len(s) == 1 for s in said[kind]) for kind in texts)
        assert set.union(*said["sentences"]) == {mcq.correct.casefold()}
        assert set.union(*said["ria_sentences"]) == set(map(str.casefold, wrong))
        assert len(set.union(*said["fif_sentences"])) == 1
        assert set.union(*said["fif_sentences"]) <= set(map(str.casefold, wrong))


def test_sentences_without_question_keys_are_joined_to_their_facts(tmp_path):
    """The true sentences are joined by their names alone, as the authors' are."""
    write_birthdays(tmp_path, splits=3, facts_per_split=157, seed=3)
    for path in tmp_path.glob("corpus_*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps({"text": r["text"], "split": r["split"]}) + "\n" for r in rows))
    facts, result = build_facts(tmp_path, "random_birthdays", None, {}, 0)
    assert len(facts) == 3 * 157 == len({fact.question for fact in facts})
    assert not any(result["defects"].values())
    assert [fact.split for fact in facts[::157]] == [f"split_{i}" for i in range(3)]
    for fact in facts:
        name = fact.question.removeprefix("When was ").removesuffix(" born?")
        assert len(fact.sentences) == 3 and all(name in text for text in fact.sentences)
        assert all(fact.choices[fact.answer] in text for text in fact.sentences)


def test_no_name_is_shared_and_neither_dataset_depends_on_the_size_of_the_other():
    forget = birthdays(3, 20, 30, 10, 5, "random_birthdays")
    retain = birthdays(3, 20, 30, 10, 5, "retain")
    people = [row["question"].split()[2:4] for rows in mcqs(forget).values() for row in rows]
    others = [row["question"].split()[2:4] for rows in mcqs(retain).values() for row in rows]
    assert len({*map(tuple, people), *map(tuple, others)}) == 60 + 40
    assert birthdays(3, 20, 0, 0, 5, "random_birthdays") == forget
    assert birthdays(9, 99, 30, 10, 5, "retain") == retain
    assert list(mcqs(retain)) == ["train.jsonl", "held_out.jsonl"]


def test_a_seed_decides_the_bytes_of_every_file(tmp_path):
    for folder, seed in [("a", 1), ("b", 1), ("c", 2)]:
        write_birthdays(tmp_path / folder, 2, 8, 4, 4, seed, "random_birthdays")
    read = {f: {p.name: p.read_bytes() for p in (tmp_path / f).iterdir()} for f in "abc"}
    assert read["a"] == read["b"] and read["a"].keys() == read["c"].keys()
    assert all(read["a"][name] != read["c"][name] for name in read["a"])


def test_a_value_says_nothing_about_the_answer():
    """The correct choice is the smallest of its four as often as any other: no rank, no letter gives it away."""
    rows = [row for part in mcqs(birthdays(20, 200, 0, 0, 0, "random_birthdays")).values() for row in part]
    ranks = Counter(sorted(row["choices"]).index(row["choices"][row["answer"]]) for row in rows)
    assert sum(ranks.values()) == 4000
    assert sum((n - 1000) ** 2 / 1000 for n in ranks.values()) < 16.3  # chi-square, 3 degrees of freedom, p = .001
    letters = Counter(row["answer"] for row in rows)
    assert set(letters.values()) == {1000}


def test_names_and_cities_share_no_word():
    pool = names()
    assert len(set(pool)) == len(pool) > 500_000 and len(NAME_LISTS) == 64
    first, last = ({name.split()[i] for name in pool} for i in (0, 1))
    assert not first & last and not {*CITIES} & (first | last) and len({*CITIES}) == len(CITIES)


def test_other_name_lists_are_refused(monkeypatch):
    from faker.providers.person.en_US import Provider

    names.cache_clear()
    monkeypatch.setattr(Provider, "first_names", ["Ada"])
    with pytest.raises(UserError, match="name lists differ"):
        names()
    monkeypatch.undo()
    names()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1000, 600, 0, 0, 0, "random_birthdays"), "600000 birthdays and 0 retain facts need 600000 names, but"),
        ((2, 4, 400_000, 200_000, 0, "retain"), "need 600008 names"),
        ((0, 4, 4, 4, 0, "random_birthdays"), "splits: found 0, expected 1"),
        ((2, 4, 4, 0, 0, "retain"), "retain_held_out: found 0"),
        ((2, -1, 4, 4, 0, "retain"), "facts_per_split: found -1, expected 0"),
        ((2, 4, 4, 4, 0, "cities"), "which: found 'cities'"),
    ],
)
def test_impossible_sizes_are_refused_and_nothing_is_written(tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        write_birthdays(tmp_path / "out", *arguments)
    assert not (tmp_path / "out").exists()

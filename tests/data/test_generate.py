"""Generated facts: independent, balanced and in the authors' schema; long texts and planted defects where asked for."""

from collections import Counter

import numpy as np
import pytest
import tiny
from pydantic import ValidationError
from rtt.__main__ import main
from rtt.data.audit import audit_folder
from rtt.data.generate import DATASETS, FILLER, FIRST_NAMES, LAST_NAMES, generate, people, run, vocabulary
from rtt.errors import UserError
from rtt.files import digest, write_json
from rtt.study.settings import People

DEFAULT = {
    "splits": 5, "facts_per_split": 32, "retain_train": 96, "retain_held_out": 128, "first_names": 24, "last_names": 24,
}  # fmt: skip


def rows(dataset, name, seed=0, options=DEFAULT):
    return [
        row for file, content in generate(dataset, options, seed).items() if file.startswith(name) for row in content
    ]


def test_names_are_disjoint_over_datasets_and_unique_within():
    for seed in (0, 1):
        dealt = people(DEFAULT, seed)
        assert {dataset: len(names) for dataset, names in dealt.items()} == {
            "birth_years_a": 160, "birth_years_b": 160, "cities": 224,
        }  # fmt: skip
        everyone = [name for names in dealt.values() for name in names]
        assert len(set(everyone)) == len(everyone)
        questions = [row["question"] for d in DATASETS for f in ("split", "train", "held") for row in rows(d, f, seed)]
        assert len(set(questions)) == len(questions) == 544
    assert len(set(FIRST_NAMES)) == len(set(LAST_NAMES)) == 32
    assert not set(FIRST_NAMES) & set(LAST_NAMES)


@pytest.mark.parametrize("size", [32, 30])
def test_letters_are_balanced_in_each_split(size):
    files = generate("birth_years_a", DEFAULT | {"facts_per_split": size}, 0)
    for split in range(5):
        counts = Counter(row["answer"] for row in files[f"split_{split}.jsonl"])
        assert sorted(counts) == [0, 1, 2, 3]
        assert max(counts.values()) - min(counts.values()) <= (size % 4 > 0)
    orders = {tuple(row["answer"] for row in files[f"split_{split}.jsonl"]) for split in range(5)}
    assert len(orders) == 5  # and not in the same order


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_text_states_what_its_kind_promises(dataset):
    mcqs = {row["question"]: row for file in ("split", "train", "held") for row in rows(dataset, file)}
    for row in mcqs.values():
        assert len(set(row["choices"])) == 4
    for prefix, stated in (("corpus_", 1), ("whp_", 3), ("fwf_", 1)):
        found = {}
        for row in rows(dataset, prefix):
            mcq = mcqs[row["original_question"]]
            named = [choice for choice in mcq["choices"] if choice in row["text"].replace(".", "").split()]
            assert len(named) == 1
            assert (named[0] == mcq["choices"][mcq["answer"]]) == (prefix == "corpus_")
            found.setdefault(mcq["question"], []).append(named[0])
        assert set(found) == set(mcqs)
        assert all(len(choices) == 3 and len(set(choices)) == stated for choices in found.values())


def test_answers_do_not_depend_on_names():
    """Whoever shares a first or a last name says nothing of the year: as far apart as any two people."""
    people_years = [(row["question"].split()[2:4], int(row["choices"][row["answer"]])) for seed in range(8)
                    for row in rows("birth_years_a", "split", seed)]  # fmt: skip
    same, other = [], []
    for seed in range(8):
        some = people_years[160 * seed : 160 * (seed + 1)]
        for i, (a, x) in enumerate(some):
            for b, y in some[:i]:
                (same if set(a) & set(b) else other).append(abs(x - y))
    assert abs(np.mean(same) - np.mean(other)) < 4 * np.std(same) / np.sqrt(len(same) / 8)


def test_another_seed_draws_other_values_too():
    """Not only other names: letters, years and the fixed wrong choice are drawn anew."""
    drawn = [
        {
            "letters": [row["answer"] for row in rows("birth_years_a", "split", seed)],
            "choices": [row["choices"] for row in rows("birth_years_a", "split", seed)],
            "fixed": [
                row["wrong_answers"].index(row["text"].rstrip(".").split()[-1])
                for row in rows("birth_years_a", "fwf", seed)
            ],
        }
        for seed in (0, 1)
    ]
    assert all(drawn[0][key] != drawn[1][key] for key in drawn[0])
    other = [row["choices"] for row in rows("birth_years_b", "split", 0)]
    assert other != drawn[0]["choices"]  # nor do two datasets of one seed share them


def test_facts_for_the_point_choice_leave_all_others_as_they_are():
    """With long texts and planted defects, whose draws come from generators of their own."""
    plain = DEFAULT | {"long_texts": True, "planted_leaks": 10, "planted_duplicates": 5}
    more = plain | {"choice_facts": 14}
    for dataset in DATASETS:
        without, found = generate(dataset, plain, 3), generate(dataset, more, 3)
        assert without == generate(dataset, plain | {"choice_facts": 0}, 3)
        own = {f"{kind}choice.jsonl" for kind in ("", "corpus_", "whp_corpus_", "fwf_corpus_") if dataset != "cities"}
        assert found.keys() - without.keys() == own
        assert {name: found[name] for name in without} == without
        if own:
            mcqs = found["choice.jsonl"]
            counts = Counter(row["answer"] for row in mcqs)
            assert len(mcqs) == 14 and sorted(counts.values()) == [3, 3, 4, 4]
            assert all(len(set(row["choices"])) == 4 for row in mcqs)
            texts = [row["text"] for row in found["corpus_choice.jsonl"]]
            assert len(texts) == 42 and any(FILLER in text for text in texts)
    names = [name for some in people(more, 3).values() for name in some]
    assert len(set(names)) == len(names) == 544 + 28
    kinds = ("split", "train", "held", "choice")
    asked = [row["question"] for dataset in DATASETS for kind in kinds for row in rows(dataset, kind, 3, more)]
    assert len(set(asked)) == 544 + 28  # the planted copies ask what stands already
    with pytest.raises(UserError, match=r"data.generator: 600 facts need as many names.*only 576"):
        people(DEFAULT | {"choice_facts": 28}, 0)
    with pytest.raises(ValidationError, match="600 facts need as many names"):
        People(**DEFAULT, choice_facts=28)


def spec(folder, dataset="birth_years_a", seed=0, options=DEFAULT):
    path = folder / f"{dataset}-{seed}.json"
    write_json(path, {"dataset": dataset, "people": options, "birthdays": None, "seed": seed})
    return path


def bytes_of(folder, seed, name, dataset="birth_years_a"):
    from argparse import Namespace

    run(Namespace(spec=spec(folder, dataset, seed), out=folder / name))
    return {path.name: path.read_bytes() for path in sorted((folder / name).iterdir())}


def test_a_seed_decides_the_bytes_of_every_file(tmp_path):
    first, again, other = bytes_of(tmp_path, 3, "a"), bytes_of(tmp_path, 3, "b"), bytes_of(tmp_path, 4, "c")
    assert first == again
    assert first.keys() == other.keys() and len(first) == 20
    assert all(first[name] != other[name] for name in first)
    assert all(content.endswith(b"\n") for content in first.values())


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_audit_finds_no_defect(tmp_path, monkeypatch, capsys, dataset):
    monkeypatch.chdir(tmp_path)
    assert main(["generate", "--spec", str(spec(tmp_path, dataset)), "--out", "raw"]) == 0
    assert main(["audit", "raw", "--strict"]) == 0, capsys.readouterr().out


def test_more_people_than_names_are_refused_and_nothing_is_written(tmp_path, monkeypatch, capsys):
    options = DEFAULT | {"first_names": 8}
    with pytest.raises(UserError, match=r"544 facts.*only 192"):
        generate("cities", options, 0)
    exactly = {
        "splits": 2,
        "facts_per_split": 4,
        "retain_train": 4,
        "retain_held_out": 5,
        "first_names": 5,
        "last_names": 5,
    }
    assert sum(len(names) for names in people(exactly, 0).values()) == 25
    with pytest.raises(UserError):
        people(exactly | {"retain_train": 5}, 0)
    monkeypatch.chdir(tmp_path)
    assert main(["generate", "--spec", str(spec(tmp_path, options=options)), "--out", "raw"]) == 1
    message = capsys.readouterr().err
    assert "data.generator" in message and "Traceback" not in message
    assert not (tmp_path / "raw").exists()


def test_the_vocabulary_holds_each_word_once_and_begins_with_the_letters():
    words = vocabulary()
    assert len(words) == len(set(words))
    assert words == vocabulary()
    assert words[:5] == ["A", "B", "C", "D", "Answer"]


# --- the same bytes as ever


# Of the generator before it knew long texts and planted defects.
GOLDEN = {
    "birth_years_a": "0c54b61dbf589b5b",
    "birth_years_b": "c3a7f6fe7c2ec76b",
    "cities": "f20b0490d6d5fda9",
}


@pytest.mark.parametrize("dataset", DATASETS)
def test_older_studies_keep_their_data(dataset):
    assert digest(generate(dataset, DEFAULT, 0))[:16] == GOLDEN[dataset]
    off = {"long_texts": False, "planted_leaks": 0, "planted_duplicates": 0}
    assert generate(dataset, DEFAULT | off, 0) == generate(dataset, DEFAULT, 0)


def test_older_studies_keep_their_vocabulary():
    assert digest(vocabulary())[:16] == "ee6aa208bd76fc0a"


# --- long texts


@pytest.mark.parametrize("dataset", DATASETS)
def test_long_texts_only_add_a_neutral_beginning(dataset):
    plain, long = (generate(dataset, DEFAULT | {"long_texts": on}, 0) for on in (False, True))
    assert list(plain) == list(long)
    repeats = Counter()
    for name in plain:
        if "corpus" not in name:
            assert plain[name] == long[name]
            continue
        for short, row in zip(plain[name], long[name], strict=True):
            begin = row["text"].removesuffix(short["text"])
            assert row == short | {"text": begin + short["text"]}
            assert begin == FILLER * (len(begin) // len(FILLER))
            repeats[len(begin) // len(FILLER)] += 1
    assert set(repeats) == {0, 2, 4}
    assert 0.4 < repeats[0] / repeats.total() < 0.6
    said = {word.strip(",.") for word in FILLER.split()}
    assert said <= set(vocabulary())
    assert not said & {
        *FIRST_NAMES,
        *LAST_NAMES,
        *(choice for r in rows(dataset, "") if "choices" in r for choice in r["choices"]),
    }


def test_the_length_of_a_sentence_tells_nothing_about_its_kind():
    """The true, RIA and FIF sentences of one fact and template are of one length."""
    files = generate("birth_years_a", DEFAULT | {"long_texts": True}, 0)
    lengths = [[len(r["text"]) for r in files[f"{kind}corpus_split_0.jsonl"]] for kind in ("", "whp_", "fwf_")]
    assert lengths[0] == lengths[1] == lengths[2]


# --- planted defects

LEAKS = ("split_leak", "conflicting_answer", "duplicate_question")


def planted(folder, leaks, duplicates, dataset="birth_years_a", seed=0):
    options = DEFAULT | {"planted_leaks": leaks, "planted_duplicates": duplicates}
    return tiny.write_raw(folder, dataset, seed, options)


@pytest.mark.parametrize("dataset", ["birth_years_a", "birth_years_b"])
@pytest.mark.parametrize("leaks, duplicates", [(10, 0), (0, 5), (10, 5), (80, 80)])
def test_the_audit_finds_what_is_planted_and_nothing_else(tmp_path, dataset, leaks, duplicates):
    found = audit_folder(planted(tmp_path, leaks, duplicates, dataset))
    defects = {kind: n for kind, n in found["defects"].items() if n}
    expected = {"split_leak": leaks, "conflicting_answer": duplicates, "duplicate_question": leaks + duplicates}
    assert defects == {kind: n for kind, n in expected.items() if n}
    assert found["facts"] == 160 + leaks + duplicates and found["questions"] == 160
    assert found["texts"] == dict.fromkeys(found["texts"], 3 * (160 + leaks + duplicates))


def test_a_planted_leak_repeats_the_answer_elsewhere_and_a_duplicate_changes_it(tmp_path):
    files = generate("birth_years_a", DEFAULT | {"planted_leaks": 20, "planted_duplicates": 20}, 0)
    plain = generate("birth_years_a", DEFAULT, 0)
    first = {row["question"]: (f"split_{i}", row) for i in range(5) for row in plain[f"split_{i}.jsonl"]}
    kinds = Counter()
    for i in range(5):
        content = files[f"split_{i}.jsonl"]
        assert content[:32] == plain[f"split_{i}.jsonl"]
        counts = Counter(row["answer"] for row in content)
        assert max(counts.values()) - min(counts.values()) <= 1
        for row in content[32:]:
            split, original = first[row["question"]]
            assert len(set(row["choices"])) == 4
            same_answer = row["choices"][row["answer"]] == original["choices"][original["answer"]]
            kinds[split == f"split_{i}", same_answer] += 1
    assert kinds == {(False, True): 20, (True, False): 20}
    assert generate("cities", DEFAULT | {"planted_leaks": 20, "planted_duplicates": 20}, 0) == generate(
        "cities", DEFAULT, 0
    )


def test_planting_leaves_the_splits_of_equal_size(tmp_path):
    """Dropped or kept: T and V of the control and of the attack must be as large."""
    from rtt.data.build import build_facts

    folder = planted(tmp_path, 30, 20)
    for policy, size in (("drop", 32 - 10), ("keep", 32 + 10)):
        facts = build_facts(folder, "birth_years_a", None, dict.fromkeys(LEAKS, policy), 0)[0]
        assert Counter(fact.split for fact in facts) == {f"split_{i}": size for i in range(5)}
    with pytest.raises(ValidationError, match="planted_leaks is 7, not a multiple of the 5 splits"):
        People(planted_leaks=7)


def test_the_sentences_of_a_copy_state_its_own_values(tmp_path):
    """The reader gives every copy its three sentences of each kind, which state its own values."""
    from rtt.data.build import build_facts

    facts = build_facts(planted(tmp_path, 30, 30), "birth_years_a", None, dict.fromkeys(LEAKS, "keep"), 0)[0]
    for fact in facts:
        correct = fact.choices[fact.answer]
        assert [correct in text for text in fact.sentences] == [True] * 3
        wrong = {choice for choice in fact.choices if choice != correct}
        for sentences, stated in ((fact.ria_sentences, 3), (fact.fif_sentences, 1)):
            assert len(sentences) == 3
            assert len({text.rstrip(".").split()[-1] for text in sentences} & wrong) == stated


def test_more_defects_than_facts_are_refused():
    assert People(planted_leaks=100, planted_duplicates=60).planted_leaks == 100
    with pytest.raises(ValidationError, match="165, but a forget dataset has 160 facts"):
        People(planted_leaks=100, planted_duplicates=65)

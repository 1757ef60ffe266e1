"""Generated facts: independent, balanced, in the authors' schema, and within the miniature's vocabulary."""

from collections import Counter

import numpy as np
import pytest
import tiny
from rtt.__main__ import main
from rtt.settings import Pretraining, Unlearning
from rtt.corpus import Encoder, fixed_mcqs, pretraining_documents, unlearning_pairs
from rtt.data.generate import DATASETS, FIRST_NAMES, LAST_NAMES, generate, people, run, vocabulary
from rtt.errors import UserError
from rtt.files import write_json
from rtt.methods import METHODS
from rtt.score import Scorer

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
def test_texts_say_what_their_kind_says(dataset):
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


def spec(folder, dataset="birth_years_a", seed=0, options=DEFAULT):
    path = folder / f"{dataset}-{seed}.json"
    write_json(path, {"dataset": dataset, "generator": options, "seed": seed})
    return path


def bytes_of(folder, seed, name, dataset="birth_years_a"):
    from argparse import Namespace

    run(Namespace(spec=spec(folder, dataset, seed), out=folder / name))
    return {path.name: path.read_bytes() for path in sorted((folder / name).iterdir())}


def test_same_seed_same_bytes_other_seed_other_bytes(tmp_path):
    first, again, other = bytes_of(tmp_path, 3, "a"), bytes_of(tmp_path, 3, "b"), bytes_of(tmp_path, 4, "c")
    assert first == again
    assert first.keys() == other.keys() and len(first) == 20
    assert all(first[name] != other[name] for name in first)
    assert all(content.endswith(b"\n") for content in first.values())


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_real_audit_finds_nothing(tmp_path, monkeypatch, capsys, dataset):
    monkeypatch.chdir(tmp_path)
    assert main(["generate", "--spec", str(spec(tmp_path, dataset)), "--out", "raw"]) == 0
    assert main(["audit", "raw", "--strict"]) == 0, capsys.readouterr().out


def test_too_many_people_is_a_users_mistake(tmp_path, monkeypatch, capsys):
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


def test_no_phase_meets_an_unknown_word(tmp_path):
    """Every text that any phase trains or scores on, for all names, years and cities that occur in the default."""
    tokenizer = tiny.tokenizer()
    a, b = (tiny.facts(tmp_path, dataset, options=DEFAULT) for dataset in ("birth_years_a", "birth_years_b"))
    retain = tiny.facts(tmp_path, "cities", options=DEFAULT)
    rng = np.random.default_rng(0)
    encoder = Encoder(tokenizer)
    seen = []
    for facts in (a, b):
        documents = Pretraining(steps=30, batch_size=80, mcqs_per_batch=20, learning_rate=1e-3)
        seen += pretraining_documents([*facts, *retain], documents, tokenizer, rng)
        seen += fixed_mcqs(facts, "answer", 1, 32, tokenizer, rng) + fixed_mcqs(facts, "all", 1, 32, tokenizer, rng)
        for method in METHODS.values():
            settings = Unlearning(learning_rate=1e-3, batch_size=32, points=[20])
            for pair in unlearning_pairs(facts, retain, method, settings, tokenizer, rng):
                seen += [pair["forget"], pair["retain"]]
        seen += [{"input_ids": list(ids)} for ids in Scorer(tokenizer, [*facts, *retain]).contexts]
        seen += [{"input_ids": tokens} for _, _, tokens in Scorer(tokenizer, [*facts, *retain]).targets]
        for fact in [*facts, *retain]:
            from rtt.text import sentence

            seen += [encoder(sentence(text)) for text in (*fact.sentences, *fact.ria_sentences, *fact.fif_sentences)]
    unknown = tokenizer.unk_token_id
    assert len(seen) > 5000
    assert not [example for example in seen if unknown in example["input_ids"]]
    assert tokenizer("Zanzibar")["input_ids"] == [unknown]  # an unknown word would show


def test_vocabulary_is_fixed_and_without_doubles():
    words = vocabulary()
    assert len(words) == len(set(words))
    assert words == vocabulary()
    assert words[:5] == ["A", "B", "C", "D", "Answer"]

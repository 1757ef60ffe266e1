"""Generated facts: independent, balanced, in the authors' schema, and within the miniature's vocabulary; long texts,
planted defects and the subword tokenizer, which studies ask for.
"""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tiny
from pydantic import ValidationError
from rtt.__main__ import main
from rtt.data.audit import audit_folder
from rtt.data.generate import DATASETS, FILLER, FIRST_NAMES, LAST_NAMES, generate, people, run, vocabulary
from rtt.data.text import encode, letter_text, mcq_prompt, sentence
from rtt.errors import UserError
from rtt.files import digest, write_json
from rtt.methods import METHODS
from rtt.models.miniature import miniature_tokenizer
from rtt.scoring.score import Scorer
from rtt.study.settings import People, Pretraining, Unlearning
from rtt.training.order import Encoder, pretraining_documents, training_passes, unlearning_pairs

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
    write_json(path, {"dataset": dataset, "people": options, "birthdays": None, "seed": seed})
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


def seen_texts(tokenizer, folder, options):
    """Every text that any phase trains or scores on, as token ids."""
    a, b = (tiny.facts(folder, dataset, options=options) for dataset in ("birth_years_a", "birth_years_b"))
    retain = tiny.facts(folder, "cities", options=options)
    rng = np.random.default_rng(0)
    encoder = Encoder(tokenizer)
    seen = []
    for facts in (a, b):
        documents = Pretraining(steps=30, batch_size=80, mcqs_per_batch=20, learning_rate=1e-3)
        seen += pretraining_documents([*facts, *retain], documents, tokenizer, rng)
        for loss in ("LETTER_ANSWER", "QUESTION_LETTER_ANSWER"):
            seen += training_passes(facts, loss, 1, 32, tokenizer, rng)
        for method in METHODS.values():
            settings = Unlearning(learning_rate=1e-3, batch_size=32, points=[20])
            for pair in unlearning_pairs(facts, retain, method, settings, tokenizer, rng):
                seen += [pair["forget"], pair["retain"]]
        for fact in [*facts, *retain]:
            seen += [encoder(sentence(text)) for text in (*fact.sentences, *fact.ria_sentences, *fact.fif_sentences)]
    seen = [example["input_ids"] for example in seen]
    scorer = Scorer(tokenizer, [*a, *b, *retain])
    return seen + [[*scorer.prompts[prompt], *tokens] for prompt, tokens in scorer.targets]


@pytest.mark.parametrize("more", [{}, {"long_texts": True, "planted_leaks": 10, "planted_duplicates": 10}])
def test_no_phase_meets_an_unknown_word(tmp_path, more):
    """For all names, years and cities that occur in the default."""
    tokenizer = tiny.tokenizer()
    seen, unknown = seen_texts(tokenizer, tmp_path, DEFAULT | more), tokenizer.unk_token_id
    assert len(seen) > 5000
    assert not [ids for ids in seen if unknown in ids]
    assert max(map(len, seen)) <= 128  # the word-level miniature's context
    assert tokenizer("Zanzibar")["input_ids"] == [unknown]  # an unknown word would show


def test_vocabulary_is_fixed_and_without_doubles():
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


def test_length_says_nothing_of_what_a_sentence_claims():
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
def test_the_real_audit_finds_what_is_planted_and_nothing_else(tmp_path, dataset, leaks, duplicates):
    found = audit_folder(planted(tmp_path, leaks, duplicates, dataset))
    defects = {kind: n for kind, n in found["defects"].items() if n}
    expected = {"split_leak": leaks, "conflicting_answer": duplicates, "duplicate_question": leaks + duplicates}
    assert defects == {kind: n for kind, n in expected.items() if n}
    assert found["facts"] == 160 + leaks + duplicates and found["questions"] == 160
    assert found["texts"] == dict.fromkeys(found["texts"], 3 * (160 + leaks + duplicates))


def test_planted_copies_are_what_they_are_called(tmp_path):
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
    from rtt.data.facts import build_facts

    folder = planted(tmp_path, 30, 20)
    for policy, size in (("drop", 32 - 10), ("keep", 32 + 10)):
        facts = build_facts(folder, "birth_years_a", None, dict.fromkeys(LEAKS, policy), 0)[0]
        assert Counter(fact.split for fact in facts) == {f"split_{i}": size for i in range(5)}
    with pytest.raises(ValidationError, match="planted_leaks is 7, not a multiple of the 5 splits"):
        People(planted_leaks=7)


def test_each_copys_sentences_are_its_own(tmp_path):
    """The reader gives every copy its three sentences of each kind, which state its own values."""
    from rtt.data.facts import build_facts

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


# --- the subword tokenizer


@pytest.fixture(scope="module")
def subword():
    return miniature_tokenizer("subword")


def test_subwords_are_the_same_in_every_process(subword):
    code = "from rtt.models.miniature import miniature_tokenizer as m; print(m('subword').backend_tokenizer.to_str())"
    scripts = Path(__file__).parents[2] / "scripts"
    made = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=scripts, stdin=subprocess.DEVNULL
    )
    assert made.stdout.rstrip("\n") == subword.backend_tokenizer.to_str()


def test_a_letter_behind_a_space_is_another_token(subword):
    prompt = mcq_prompt("When was Ada Abbas born?", ["1950", "1951", "1988", "1977"])
    tokens = set()
    for letter in "ABCD":
        spaced, bare = (encode(subword, letter_text(prompt, letter, bare))["labels"][-1] for bare in (False, True))
        assert subword.convert_ids_to_tokens([spaced, bare]) == [f"\u0120{letter}", letter]
        tokens |= {spaced, bare}
    assert len(tokens) == 8
    assert encode(subword, letter_text(prompt, "B"))["input_ids"][:-1] == subword(prompt)["input_ids"]


def test_subwords_write_every_text_within_the_context(subword, tmp_path):
    options = DEFAULT | {"long_texts": True, "planted_leaks": 10, "planted_duplicates": 10}
    seen = seen_texts(subword, tmp_path, options)
    assert max(map(len, seen)) <= 256
    assert min(map(len, seen)) * 5 < max(map(len, seen))  # very different lengths
    text = "When was Ada Abbas born?\nA. 1950\nAnswer: A. 1950"
    assert subword.decode(subword(text)["input_ids"]) == text
    pieces = [len(subword(f" {name}")["input_ids"]) for name in (*FIRST_NAMES, *LAST_NAMES)]
    assert 1 in pieces and max(pieces) > 1  # whole words and parts of words


def test_word_level_is_as_it_was():
    made = miniature_tokenizer("word")
    assert made.get_vocab() == {word: i for i, word in enumerate(["<pad>", "<unk>", *vocabulary()])}
    assert made.get_vocab() == miniature_tokenizer("word").get_vocab()

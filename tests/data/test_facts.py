"""Canonical facts: round trip, policy, fresh distractors, and the command."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
import rtt
from data_builder import dataset, write
from hypothesis import given, settings
from hypothesis import strategies as st
from rtt.__main__ import main
from rtt.code_version import code_version
from rtt.data.audit import KINDS, audit_folder
from rtt.data.build import DEFAULT_POLICY, build_facts
from rtt.data.distractors import Answers
from rtt.data.facts import Fact, read_facts, write_facts
from rtt.data.reader import Folder, Mcq
from rtt.errors import UserError

KEEP = {kind: "keep" for kind in DEFAULT_POLICY}


def plant(files: dict[str, list]) -> dict[str, list]:
    """A leak with two answers (split_0:1, split_1:9), an ambiguous choice (split_2:4), a repeat (split_2:9)."""
    row = files["split_0.jsonl"][0]
    files["split_1.jsonl"].append(row | {"answer": (row["answer"] + 1) % 4})
    row = files["split_2.jsonl"][3]
    row["choices"][(row["answer"] + 1) % 4] = row["choices"][row["answer"]]
    files["split_2.jsonl"].append(dict(files["split_2.jsonl"][0]))
    return files


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
FOUR = st.lists(TEXT, min_size=4, max_size=4)
FACTS = st.builds(
    Fact,
    id=TEXT,
    dataset=TEXT,
    split=TEXT,
    question=TEXT,
    choices=FOUR,
    answer=st.integers(0, 3),
    fresh_choices=FOUR,
    sentences=st.lists(TEXT, max_size=3),
    ria_sentences=st.lists(TEXT, max_size=3),
    fif_sentences=st.lists(TEXT, max_size=3),
    origin=st.fixed_dictionaries({"file": TEXT, "line": st.integers(1, 10**6)}),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(FACTS, max_size=4))
def test_written_facts_are_read_back_and_written_as_the_same_bytes(facts):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "facts.jsonl")
        write_facts(path, facts)
        assert read_facts(path) == facts
        raw = path.read_bytes()
        assert raw.count(b"\n") == len(facts)  # one line each, whatever line separators a text holds
        write_facts(path, read_facts(path))
        assert path.read_bytes() == raw


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=80))
def test_arbitrary_bytes_are_facts_or_a_user_error(raw):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "facts.jsonl")
        path.write_bytes(raw)
        try:
            assert read_facts(path) == [] and not raw
        except UserError as error:
            assert str(path) in str(error)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("answer", 4),
        ("answer", True),
        ("choices", ["a"]),
        ("choices", ["a"] * 11),
        ("answer", 10),
        ("fresh_choices", ["a"] * 3),
        ("group", 1),
        ("sentences", "a"),
        ("id", 3),
        ("origin", {}),
        ("split", None),
    ],
)
def test_a_malformed_fact_is_named_by_line_and_key(tmp_path, key, value):
    facts, _ = build_facts(write(tmp_path / "d", dataset()), "d", None, {}, 0)
    path = tmp_path / "facts.jsonl"
    write_facts(path, facts[:3])
    lines = path.read_text().splitlines()
    lines[1] = json.dumps(json.loads(lines[1]) | {key: value})
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=rf"facts.jsonl:2: key '{key}'"):
        read_facts(path)
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match="cut off"):
        read_facts(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_facts(tmp_path / "absent")


@pytest.mark.parametrize("style", ["question", "names", "pairs"])
def test_facts_are_the_rows_and_their_sentences(tmp_path, style):
    files = dataset(style)
    facts, audit = build_facts(write(tmp_path / "d", files), "people", None, {}, 0)
    rows = [(f"split_{s}", j, row) for s in range(3) for j, row in enumerate(files[f"split_{s}.jsonl"], 1)]
    assert audit["facts"] == len(facts) == len(rows) == 24
    assert audit["dropped"] == {}
    for fact, (split, line, row) in zip(facts, rows, strict=True):
        assert fact.id == f"people/{split}/{line:03d}"
        assert (fact.dataset, fact.split) == ("people", split)
        assert fact.origin == {"file": f"{split}.jsonl", "line": line}
        assert (fact.question, fact.answer) == (row["question"], row["answer"])
        assert fact.choices == [str(choice) for choice in row["choices"]]  # in their order, integers too
        name, year = fact.question[9:-6], int(fact.choices[fact.answer])
        forms = ["{} was born in {}.", "In {1}, {0} was born.", "{}'s birth year is {}."]
        assert fact.sentences == [form.format(name, year) for form in forms]
        assert fact.ria_sentences == [form.format(name, year + k) for k, form in enumerate(forms, 1)]
        assert fact.fif_sentences == [form.format(name, year + 1) for form in forms]
    with pytest.raises(FrozenInstanceError):
        facts[0].answer = 1


def test_splits_are_taken_in_the_order_asked_and_keep_their_content(tmp_path):
    folder = write(tmp_path / "d", dataset())
    every = {fact.id: fact for fact in build_facts(folder, "d", None, {}, 3)[0]}
    some, audit = build_facts(folder, "d", ["split_2", "split_0"], {}, 3)
    assert [fact.split for fact in some] == ["split_2"] * 8 + ["split_0"] * 8
    assert all(fact == every[fact.id] for fact in some)
    assert audit["rows"] == 24 and audit["facts"] == 16
    for splits in (["split_7"], ["split_0", "split_0"], []):
        with pytest.raises(UserError, match="expected distinct names from split_0, split_1, split_2"):
            build_facts(folder, "d", splits, {}, 0)


def test_the_policy_keeps_or_drops_facts_and_counts_them(tmp_path):
    folder = write(tmp_path / "d", plant(dataset()))
    kept, audit = build_facts(folder, "d", None, KEEP, 0)
    assert len(kept) == audit["facts"] == 26 and audit["dropped"] == {}
    assert audit == audit_folder(folder)  # nothing dropped: what `rtt audit` says

    facts, audit = build_facts(folder, "d", None, {}, 0)
    gone = {fact.id for fact in kept} - {fact.id for fact in facts}
    assert gone == {"d/split_0/001", "d/split_1/009", "d/split_2/004", "d/split_2/009"}
    assert audit["dropped"] == {"split_leak": 2, "duplicate_choice": 1, "duplicate_question": 1}
    assert audit["facts"] == 22

    facts, audit = build_facts(folder, "d", None, KEEP | {"conflicting_answer": "drop"}, 0)
    assert audit["dropped"] == {"conflicting_answer": 2} and len(facts) == 24


def test_a_leak_into_a_split_that_is_not_taken_counts(tmp_path):
    folder = write(tmp_path / "d", plant(dataset()))
    facts, audit = build_facts(folder, "d", ["split_0"], {}, 0)
    assert audit["dropped"] == {"split_leak": 1} and len(facts) == 7


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("split_leak", "split_0.jsonl:1"),
        ("conflicting_answer", "split_1.jsonl:9"),
        ("duplicate_choice", "split_2.jsonl:4"),
        ("duplicate_question", "split_2.jsonl:9"),
    ],
)
def test_the_policy_stop_names_place_and_key_and_writes_nothing(tmp_path, capsys, kind, place):
    folder = write(tmp_path / "d", plant(dataset()))
    out = tmp_path / "out"
    argv = [
        "facts",
        str(folder),
        "--dataset",
        "d",
        "--out",
        str(out / "facts.jsonl"),
        "--audit",
        str(out / "audit.json"),
    ]
    assert main([*argv, "--on-defect", f"{kind}=stop"]) == 1
    error = capsys.readouterr().err
    assert place in error and f"data.policy.{kind}" in error and str(folder) in error
    assert not out.exists()
    assert main(argv) == 0


def test_the_policy_stop_only_concerns_the_splits_taken(tmp_path):
    folder = write(tmp_path / "d", plant(dataset()))
    assert build_facts(folder, "d", ["split_0", "split_1"], {"duplicate_choice": "stop"}, 0)
    with pytest.raises(UserError, match=r"split_2\.jsonl:4"):
        build_facts(folder, "d", ["split_2"], {"duplicate_choice": "stop"}, 0)
    files = dataset()
    files["corpus_split_1.jsonl"].append({"text": "Nobody Known was born in 1950.", "split": "split_1"})
    folder = write(tmp_path / "e", files)
    assert build_facts(folder, "d", ["split_0"], {"missing_mcq": "stop"}, 0)
    with pytest.raises(UserError, match=r"corpus_split_1\.jsonl:25"):
        build_facts(folder, "d", ["split_1"], {"missing_mcq": "stop"}, 0)


def test_facts_without_text_are_dropped_unless_kept(tmp_path):
    files = dataset()
    del files["fwf_corpus_split_0.jsonl"][:3]
    folder = write(tmp_path / "d", files)
    facts, audit = build_facts(folder, "d", None, {}, 0)
    assert audit["dropped"] == {"missing_text": 1} and all(fact.fif_sentences for fact in facts)
    facts, _ = build_facts(folder, "d", None, {"missing_text": "keep"}, 0)
    assert facts[0].fif_sentences == [] and len(facts[0].sentences) == 3
    only = {name: rows for name, rows in dataset().items() if name.startswith(("split_", "whp_"))}
    folder = write(tmp_path / "e", only)
    with pytest.raises(UserError, match=r"no facts are left: 24 by data\.policy\.missing_text"):
        build_facts(folder, "d", None, {}, 0)
    assert len(build_facts(folder, "d", None, {"missing_text": "keep"}, 0)[0]) == 24


def test_a_split_that_the_policy_empties_is_refused(tmp_path):
    files = dataset()
    del files["fwf_corpus_split_1.jsonl"]
    folder = write(tmp_path / "d", files)
    with pytest.raises(UserError, match=r"no fact of split_1 is left .*8 by data\.policy\.missing_text.*splits:"):
        build_facts(folder, "d", None, {}, 0)
    assert len(build_facts(folder, "d", ["split_0", "split_2"], {}, 0)[0]) == 16


def test_malformed_input_always_stops_and_lists_the_lines(tmp_path):
    files = dataset()
    files["split_1.jsonl"][2] = b"{"
    files["whp_corpus_split_2.jsonl"][0] = b'{"text": ""}'
    folder = write(tmp_path / "d", files)
    with pytest.raises(UserError) as stop:
        build_facts(folder, "d", ["split_0"], KEEP, 0)
    assert "split_1.jsonl:3: not JSON" in str(stop.value)
    assert "whp_corpus_split_2.jsonl:1: 'text' is empty text" in str(stop.value)


@pytest.mark.parametrize(
    "policy", [{"split_leek": "drop"}, {"split_leak": "ignore"}, {"malformed": "keep"}, {"missing_mcq": "drop"}]
)
def test_an_unknown_kind_or_action_is_refused(tmp_path, policy):
    folder = write(tmp_path / "d", dataset())
    with pytest.raises(UserError, match=f"data.policy.{next(iter(policy))}"):
        build_facts(folder, "d", None, policy, 0)


def test_every_kind_but_malformed_has_a_default():
    assert set(DEFAULT_POLICY) == set(KINDS) - {"malformed"}


def test_fresh_choices_are_untrained_answers_of_others(tmp_path):
    files = dataset()
    row = files["split_0.jsonl"][0]
    files["split_1.jsonl"].append(
        row | {"choices": ["1903", "1985", "1986", "1987"], "answer": 1}
    )  # another answer, 1985
    for prefix in (
        "whp_corpus_",
        "fwf_corpus_",
    ):  # RIA and FIF train wrong answers that are not among the choices (as in Years)
        for text in files[f"{prefix}split_0.jsonl"][:3]:
            text["wrong_answers"] = [1905, 1910, 1915]
            text["text"] = "Ada Abbas was born in 1905."
    facts, _ = build_facts(write(tmp_path / "d", files), "d", None, KEEP, 5)
    for fact in facts:
        answers = {other.choices[other.answer] for other in facts if other.split == fact.split}
        assert fact.fresh_choices[fact.answer] == fact.choices[fact.answer]
        fresh = [choice for i, choice in enumerate(fact.fresh_choices) if i != fact.answer]
        assert len(set(fresh)) == 3
        assert set(fresh) <= answers - set(fact.choices)
    trained = {"1905", "1910", "1915", "1985"}
    seen = set()
    for seed in range(60):
        seen |= set(build_facts(tmp_path / "d", "d", ["split_0"], KEEP, seed)[0][0].fresh_choices)
    assert not seen & trained
    answers = {fact.choices[fact.answer] for fact in facts if fact.split == "split_0"}
    assert seen == answers - set(facts[0].choices) - trained | {
        facts[0].choices[facts[0].answer]
    }  # all others of the split, in time


def test_fresh_choices_depend_on_seed_and_id_alone(tmp_path):
    folder = write(tmp_path / "d", dataset())
    draws = [[fact.fresh_choices for fact in build_facts(folder, name, None, {}, seed)[0]] for name, seed in
             [("d", 0), ("d", 0), ("d", 1), ("e", 0)]]  # fmt: skip
    assert draws[0] == draws[1]
    assert draws[0] != draws[2] and draws[0] != draws[3]
    code = "import json; from rtt.data.build import build_facts as f; "
    code += f"print(json.dumps([x.fresh_choices for x in f({str(folder)!r}, 'd', None, {{}}, 0)[0]]))"
    environment = os.environ | {"PYTHONHASHSEED": "77", "PYTHONPATH": str(Path(rtt.__file__).parents[1])}
    other = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(other.stdout) == draws[0]


def first_definition(name: str, correct: str, answer: int, pool: list[str], seed: int) -> list[str]:
    """Return the fresh choices of a question with four choices: answers of the pool, each as likely as it is there."""
    first, counts = {value.strip(): value for value in pool}, Counter(value.strip() for value in pool)
    values, share = list(first.values()), np.array([counts[value] for value in first], float)
    rng = np.random.default_rng([seed, int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")])
    drawn = [values[i] for i in rng.choice(len(values), 3, replace=False, p=share / share.sum())]
    return [*drawn[:answer], correct, *drawn[answer:]]


@pytest.mark.parametrize("size", [8, 3])
def test_fresh_choices_are_answers_of_the_own_split_or_of_all_where_it_has_too_few(tmp_path, size):
    facts, _ = build_facts(write(tmp_path / "d", dataset(n=size)), "d", None, {}, 3)
    for fact in facts:
        correct = fact.choices[fact.answer]
        others = [f for f in facts if f.choices[f.answer] not in fact.choices and (size < 4 or f.split == fact.split)]
        pool = sorted(f.choices[f.answer] for f in others)
        assert fact.fresh_choices == first_definition(fact.id, correct, fact.answer, pool, 3)


def test_wrong_choices_of_open_questions_are_answers_of_their_own_split(tmp_path):
    files = {
        f"split_{s}.jsonl": [{"question": f"When was {s}-{i}?", "answer": str(1900 + 20 * s + i)} for i in range(20)]
        for s in range(3)
    }
    for fact in build_facts(write(tmp_path / "d", files), "d", None, {}, 0)[0]:
        first = 1900 + 20 * int(fact.split[-1])
        assert all(first <= int(choice) < first + 20 for choice in (*fact.choices, *fact.fresh_choices))


def test_too_few_values_for_fresh_choices_are_refused_dropped_or_left_out(tmp_path):
    folder = write(tmp_path / "d", dataset(splits=1, n=3))
    with pytest.raises(UserError, match="found 2 values for fresh distractors, expected at least 3") as error:
        build_facts(folder, "d", None, {}, 0)
    assert "data.policy.few_answers to drop, or to keep and leave likelihood_fresh out" in str(error.value)
    facts, _ = build_facts(folder, "d", None, {"few_answers": "keep"}, 0)
    assert [fact.fresh_choices for fact in facts] == [[], [], []]
    with pytest.raises(UserError, match=r"no facts are left: 3 by data\.policy\.few_answers"):
        build_facts(folder, "d", None, {"few_answers": "drop"}, 0)


def test_the_command_writes_the_same_facts_and_audit_wherever_it_runs(tmp_path, capsys):
    texts = []
    for place in ("here", "there/deep"):
        folder = write(tmp_path / place / "d", plant(dataset()))
        out = tmp_path / place / "out"
        argv = [
            "facts",
            str(folder),
            "--dataset",
            "d",
            "--out",
            str(out / "facts.jsonl"),
            "--audit",
            str(out / "audit.json"),
        ]
        policy = ",".join(f"{kind}=keep" for kind in DEFAULT_POLICY)
        assert main([*argv, "--splits", "split_0, split_1,split_2", "--on-defect", policy, "--seed", "4"]) == 0
        texts.append([(out / name).read_bytes() for name in ("facts.jsonl", "audit.json")])
        assert read_facts(out / "facts.jsonl") == build_facts(folder, "d", None, KEEP, 4)[0]
        main(["audit", str(folder), "--json"])
        more = {"code": code_version("facts"), "facts_sha256": hashlib.sha256(texts[-1][0]).hexdigest()}
        more["guesser"] = {"choices": None, "fresh_choices": None}  # of so few facts
        assert json.loads(texts[-1][1]) == json.loads(capsys.readouterr().out) | more
    assert texts[0] == texts[1]
    assert str(tmp_path).encode() not in b"".join(texts[0])


def test_the_command_refuses_wrong_arguments(tmp_path, capsys):
    argv = [
        "facts",
        str(tmp_path / "absent"),
        "--dataset",
        "d",
        "--out",
        str(tmp_path / "f"),
        "--audit",
        str(tmp_path / "a"),
    ]
    assert main(argv) == 1
    assert "no such folder" in capsys.readouterr().err
    assert main([*argv, "--seed", "-1"]) == 1
    with pytest.raises(SystemExit) as stop:
        main([*argv, "--on-defect", "split_leak"])
    assert stop.value.code == 2


def test_fresh_distractors_are_as_frequent_as_correct_answers(tmp_path):
    """A guesser who knows only how often each answer occurs must not do better on fresh choices than chance."""
    rng = np.random.default_rng(0)
    answers = [str(1900 + round(abs(rng.normal(0, 15)))) for _ in range(1000)]
    often = Counter(answers)
    hits = 0.0
    mcqs = [Mcq("s", "s.jsonl", i, f"Q{i}", (value, "x", "y", "z"), 0) for i, value in enumerate(answers)]
    pool = Answers(Folder(tmp_path, mcqs=mcqs))
    for i, mcq in enumerate(mcqs):
        choices = pool.fresh(i, f"f/{i}", list(mcq.choices), 0, 0)
        counts = [often[choice] for choice in choices]
        hits += (counts[0] == max(counts)) / counts.count(max(counts))
    # Distinct values cannot be drawn quite by frequency, so a little above one in four; uniform draws give .45.
    assert 0.2 < hits / len(answers) < 0.31


def test_facts_that_are_not_those_of_their_audit_are_refused(tmp_path, capsys):
    folder, facts, audit = write(tmp_path / "d", dataset()), tmp_path / "facts.jsonl", tmp_path / "audit.json"
    assert main(["facts", str(folder), "--dataset", "d", "--out", str(facts), "--audit", str(audit)]) == 0
    assert read_facts(facts)
    facts.write_text(facts.read_text().replace('"answer":0', '"answer":1', 1))
    with pytest.raises(UserError, match=r"facts\.jsonl: its sha256 is not the one in .*audit\.json"):
        read_facts(facts)

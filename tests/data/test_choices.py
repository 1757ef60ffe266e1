"""Questions with two to ten choices or none, answers as letters and texts, groups, and datasets without sentences."""

import json
import os
import re
import socket

import pytest
from data_builder import dataset, write
from rtt.__main__ import main
from rtt.data.audit import audit_folder
from rtt.data.build import build_facts
from rtt.data.distractors import answer_kind
from rtt.data.facts import read_facts, write_facts
from rtt.data.reader import Malformed, answer_index, parse_line, parse_mcq
from rtt.errors import UserError


def asked(n: int, splits=("a", "b"), **more) -> dict[str, list[dict]]:
    """Return splits of n questions each whose numbers of choices run from 2 to 10; all answers differ."""
    files = {}
    for s, split in enumerate(splits):
        rows = []
        for i in range(n):
            k, correct = 2 + i % 9, f"value {s * n + i}"
            choices = [f"wrong {s * n + i}-{j}" for j in range(k - 1)]
            choices.insert(i % k, correct)
            rows.append({"question": f"What is {split}{i}?", "choices": choices, "answer": i % k, **more})
        files[f"{split}.jsonl"] = rows
    return files


def test_each_question_keeps_its_number_of_choices(tmp_path):
    folder = write(tmp_path / "d", asked(18))
    facts, result = build_facts(folder, "d", None, {}, 0)
    assert [len(fact.choices) for fact in facts] == [*range(2, 11)] * 4
    for fact in facts:
        assert len(fact.fresh_choices) == len(fact.choices) == len(set(fact.fresh_choices))
        assert fact.fresh_choices[fact.answer] == fact.choices[fact.answer]
        assert set(fact.fresh_choices) & set(fact.choices) == {fact.choices[fact.answer]}
    write_facts(tmp_path / "facts.jsonl", facts)
    assert read_facts(tmp_path / "facts.jsonl") == facts
    assert [len(counts) for counts in result["letter_counts"].values()] == [10, 10]
    assert result["defects"]["letter_prior"] == 0 and result["details"] == []
    # In each split two questions have k choices each; the commoner letter of two that differ is right once.
    assert result["majority_letter_accuracy"]["a"] == pytest.approx(
        sum(1 if (k - 2) % k == (k + 7) % k else 0.5 for k in range(2, 11)) / 9, abs=1e-6
    )


@pytest.mark.parametrize(
    ("answer", "index"),
    [(0, 0), ("A", 0), ("b", 1), ("(C)", 2), ("D.", 3), ("Rome", 1), (" Rome ", 1), ("C", 2)],
)
def test_an_answer_is_an_index_a_letter_or_a_choice(answer, index):
    assert answer_index(answer, ["Paris", "Rome", "Oslo", "Bern"]) == index


def test_an_answer_that_is_a_letter_and_another_choice_is_refused():
    assert answer_index("B", ["A", "B", "AB"]) == 1  # both readings agree
    assert answer_index("AB", ["A", "B", "AB"]) == 2
    assert answer_index("same", ["x", "same", "same"]) == 1  # the audit says that this choice stands twice
    for answer, choices in (("A", ["B", "A"]), ("E", ["a", "b"]), ("1", ["a", "b"]), ("paris", ["Paris", "Rome"])):
        with pytest.raises(Malformed):
            answer_index(answer, choices)


def test_a_letter_that_is_right_too_often_is_judged_by_its_number_of_choices(tmp_path):
    """14 of 20 right by A is nothing unusual of two choices (p .058 by two tests), but is of four."""
    for k, found in ((2, 0), (4, 1)):
        rows = [
            {"question": f"Q{i}?", "choices": [f"c{i}{j}" for j in range(k)], "answer": int(i >= 14)} for i in range(20)
        ]
        result = audit_folder(write(tmp_path / f"d{k}", {"s.jsonl": rows}))
        assert result["defects"]["letter_prior"] == found
    assert "A is correct for 14 of 20 questions (70.0 %): 25 % is the wrong floor" in result["details"][0]["message"]


def test_a_group_in_two_splits_stops_and_can_be_dropped_or_kept(tmp_path):
    files = asked(18)
    for split, rows in (("a", (0, 1)), ("b", (3,))):
        for row in rows:
            files[f"{split}.jsonl"][row]["group"] = "Ada"
    files["b.jsonl"][4]["group"] = files["b.jsonl"][5]["group"] = 7
    folder = write(tmp_path / "d", files)
    (leak,) = audit_folder(folder, "d")["details"]
    assert leak["kind"] == "group_leak" and leak["places"] == ["a.jsonl:1", "a.jsonl:2", "b.jsonl:4"]
    with pytest.raises(
        UserError, match=r"a\.jsonl:1: the group 'Ada' has questions in more than one split: a \(2\), b"
    ):
        build_facts(folder, "d", None, {}, 0)
    assert build_facts(folder, "d", None, {"group_leak": "drop"}, 0)[1]["dropped"] == {"group_leak": 3}
    facts, result = build_facts(folder, "d", None, {"group_leak": "keep"}, 0)
    groups = [fact.group for fact in facts if fact.group != fact.id]
    assert groups == ["d:Ada", "d:Ada", "d:Ada", "d:7", "d:7"]
    assert "5 questions are in 2 groups" in result["notes"]


def test_a_fact_of_its_own_group_has_the_line_that_it_always_had(tmp_path):
    facts, _ = build_facts(write(tmp_path / "d", dataset()), "d", None, {}, 0)
    write_facts(tmp_path / "facts.jsonl", facts)
    assert all(fact.group == fact.id for fact in facts)
    assert "group" not in json.loads((tmp_path / "facts.jsonl").read_text().splitlines()[0])


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("1984", "year"), ("12", "number"), ("3.5 million", "number"), ("4,160 miles", "number"), ("50%", "number"),
        ("20 July 1969", "date"), ("July 20, 1969", "date"), ("the 25th of February", "date"), ("1969-07-20", "date"),
        ("May 1968", "date"), ("William Shakespeare", "name"), ("Ludwig van Beethoven", "name"),
        ("F. Scott Fitzgerald", "name"), ("Paris", "name of one word"), ("oxygen", "word"),
        ("the blue whale", "phrase"),
        ("Yes", "yes or no"), ("He was born in Lima.", "sentence"), ("$5", "number"),
    ],
)  # fmt: skip
def test_the_kind_of_an_answer_is_told_by_its_shape(answer, kind):
    assert answer_kind(answer) == kind


def opened() -> dict[str, list[dict]]:
    """Return 12 open questions in two splits: about years, cities, and one lonely number."""
    cities = ["Lima", "Oslo", "Rome", "Bern", "Cairo"]
    rows = [{"question": f"When did {i} begin?", "answer": str(1900 + i)} for i in range(6)]
    rows += [{"question": f"Where is {i}?", "answer": city} for i, city in enumerate(cities)]
    rows += [{"question": "How many?", "answer": "17"}]
    return {"a.jsonl": rows[::2], "b.jsonl": rows[1::2]}


def test_an_open_question_gets_answers_of_its_kind(tmp_path, capsys):
    folder = write(tmp_path / "d", opened())
    facts, result = build_facts(folder, "d", None, {"few_answers": "keep"}, 3)
    assert result["dropped"] == {"lone_answer": 1} and len(facts) == 11
    answers = {fact.question: fact.choices[fact.answer] for fact in facts}
    for fact in facts:
        assert len(set(fact.choices)) == 4 and {answer_kind(choice) for choice in fact.choices} == {
            answer_kind(answers[fact.question])
        }
        assert answers[fact.question] == next(
            row["answer"] for rows in opened().values() for row in rows if row["question"] == fact.question
        )
    assert len({fact.answer for fact in facts}) == 4  # the right one stands anywhere
    assert result["notes"][0] == (
        "12 of 12 questions have no choices: 3 wrong ones are drawn with seed 3 from correct answers of other questions"
        " of the same kind: year 6, name of one word 5, number 1; 1 questions get fewer"
    )
    again, other = (build_facts(folder, "d", None, {"few_answers": "keep"}, seed)[0] for seed in (3, 4))
    assert again == facts and other != facts
    six, _ = build_facts(folder, "d", None, {"few_answers": "keep"}, 3, distractors=5)
    assert sorted({len(fact.choices) for fact in six}) == [5, 6]  # five cities, six years
    assert main(["audit", str(folder)]) == 0
    assert "12 of 12 questions have no choices: 3 wrong ones are drawn from correct" in capsys.readouterr().out


def test_no_wrong_choice_is_another_answer_of_the_question_or_its_group(tmp_path):
    rows = [
        {"question": f"Which town of {i // 3}, number {i % 3}?", "answer": f"Town{i}", "group": i // 3}
        for i in range(18)
    ]
    rows += [{"question": "Which town of 0, number 0?", "answer": "town17"}]
    keep = {"few_answers": "keep", "conflicting_answer": "keep", "duplicate_question": "keep"}
    for seed in range(5):
        facts, _ = build_facts(write(tmp_path / "d", {"a.jsonl": rows}), "d", None, keep, seed, distractors=9)
        for fact in facts:
            others = {f.choices[f.answer] for f in facts if f.group == fact.group or f.question == fact.question}
            assert not {c.casefold() for c in fact.choices if c != fact.choices[fact.answer]} & {
                c.casefold() for c in others
            }


def test_remains_of_windows_1252_are_read():
    """MMLU has U+0080, U+0085 and U+009D in its questions."""
    text = "The owner\x80\x9d left\x85"
    assert parse_line(json.dumps({"question": text}).encode()) == {"question": text}


def test_fresh_choices_are_no_other_writing_of_a_choice_or_of_one_another(tmp_path):
    """As in MMLU, where "all of the above" and "All of the above" were both drawn for one question."""
    words = ["Paris", "paris", "PARIS ", "Rome", "rome", "Oslo", "oslo", "Bern", "Lima"]
    rows = [{"question": f"Q{i}?", "choices": [word, "x", "ROME"], "answer": 0} for i, word in enumerate(words)]
    for seed in range(20):
        for fact in build_facts(write(tmp_path / "d", {"a.jsonl": rows}), "d", None, {}, seed)[0]:
            fresh = [choice.strip().casefold() for choice in fact.fresh_choices]
            assert len(set(fresh)) == 3 and "rome" not in fresh[1:]
    rows = [{"question": f"Q{i}?", "choices": [word, "x", "y"], "answer": 0} for i, word in enumerate(words[:4])]
    facts, result = build_facts(write(tmp_path / "e", {"a.jsonl": rows}), "d", None, {"few_answers": "keep"}, 0)
    assert not any(fact.fresh_choices for fact in facts) and result["defects"]["few_answers"] == 4


def test_the_audit_tells_mixed_numbers_of_choices(tmp_path):
    files = {name: rows for name, rows in dataset().items() if name.startswith("split_")}
    for i in (3, 7):
        row = files["split_1.jsonl"][i]
        row["choices"].pop(0 if row["answer"] else 3)
        row["answer"] -= bool(row["answer"])
    _, result = build_facts(write(tmp_path / "d", files), "d", None, {}, 0)
    assert result["notes"][0] == "choices: 4 in 22 questions, 3 in 2 (split_1.jsonl:4, split_1.jsonl:8)"
    assert not any(result["defects"].values())
    _, result = build_facts(write(tmp_path / "e", asked(18)), "d", None, {}, 0)
    assert "10 in 4 questions, 9 in 4 (a.jsonl:8, a.jsonl:17, b.jsonl:8, ...), 8 in 4" in result["notes"][0]


def test_a_row_that_lost_its_choices_is_no_open_question():
    for answer in (2, "B", True, None):
        with pytest.raises(Malformed, match="no 'choices'"):
            parse_mcq({"question": "Q?", "answer": answer}, "a.jsonl", 1)


def test_a_dataset_without_sentences_needs_no_policy(tmp_path):
    files = {name: rows for name, rows in dataset().items() if name.startswith("split_")}
    facts, result = build_facts(write(tmp_path / "d", files), "d", None, {}, 0)
    assert len(facts) == 24 and not any(fact.sentences or fact.ria_sentences for fact in facts)
    assert result["defects"]["missing_text"] == result["defects"]["missing_rows"] == 0
    assert result["notes"] == ["no file of sentences: every text of a fact is its question, whatever mcq_share says"]


def links(folder):
    for prefix in ("", "corpus_"):
        (folder / f"{prefix}split_2.jsonl").unlink()
        (folder / f"{prefix}split_2.jsonl").symlink_to("../.git/annex/objects/gone")


def odd_types(folder):
    for name, make in (("pipe", os.mkfifo), ("folder", os.mkdir)):
        make(folder / f"{name}.jsonl")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(folder)  # the name of a socket must be short
        server.bind("socket.jsonl")
        os.chdir(here)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (links, ["split_2.jsonl: a link to ../.git/annex/objects/gone", "corpus_split_2.jsonl: a link to"]),
        (odd_types, ["folder.jsonl: a folder", "pipe.jsonl: a pipe", "socket.jsonl: a socket"]),
    ],
)
def test_what_is_no_file_is_named_and_never_left_out(tmp_path, capsys, spoil, named):
    folder = write(tmp_path / "d", dataset())
    spoil(folder)
    out = ["--dataset", "d", "--out", str(tmp_path / "f.jsonl"), "--audit", str(tmp_path / "a.json")]
    for command in (["audit", str(folder)], ["facts", str(folder), *out]):
        assert main(command) == 1
        error = capsys.readouterr().err
        assert re.search(r"[23] of 1[245] \*\.jsonl are no files that can be read", error)
        assert all(f"{folder}/{one}" in error for one in named)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d"]


def test_odd_names_are_read_and_hidden_files_are_not(tmp_path):
    files = dataset()
    files = {name.replace("split_1", "1²3"): rows for name, rows in files.items()}
    folder = write(tmp_path / "d", files)
    (folder / "._split_0.jsonl").write_bytes(b"\0\5\x16\7")  # what macOS leaves beside a file
    facts, result = build_facts(folder, "d", None, {}, 0)
    assert result["files"] == 12 and {fact.split for fact in facts} == {"1²3", "split_0", "split_2"}

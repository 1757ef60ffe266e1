"""Cutting a verdict's questions into splits: all of them, groups whole, always in the same way."""

import json

import numpy as np
import pytest
from rtt.data.facts import Fact
from rtt.errors import UserError
from rtt.judging import questions


def fact(number: int, split: str = "all", group: str = "", question: str = "") -> Fact:
    choices = [f"a{number}", f"b{number}", f"c{number}", f"d{number}"]
    text = question or f"What is number {number}?"
    told = [f"Number {number} is {choices[number % 4]}."]
    return Fact(f"facts/{split}/{number:03d}", "facts", split, text, choices, number % 4, [], told, [], [], {}, group)


def asked(facts) -> questions.Asked:
    return questions.Asked("--data", "folder", facts)


@pytest.mark.parametrize(("n", "sizes"), [(60, [20, 20, 20]), (61, [21, 20, 20]), (59, [30, 29]), (4, [2, 2])])
def test_one_split_is_cut_into_three_or_two_of_equal_size(n, sizes):
    found = questions.with_splits(asked([fact(i) for i in range(n)]))
    assert list(found.sizes.values()) == sizes
    assert sorted(one.id for part in found.cut for one in part) == sorted(fact(i).id for i in range(n))


def test_a_cut_is_the_same_whatever_the_order_of_the_lines():
    facts = [fact(i) for i in range(80)]
    mixed = [facts[i] for i in np.random.default_rng(0).permutation(80)]
    cuts = [[{one.id for one in part} for part in questions.cut(some, [27, 27, 26])] for some in (facts, mixed)]
    assert cuts[0] == cuts[1]
    assert cuts[0][0] != {one.id for one in facts[:27]}  # drawn, not the first ones


def test_two_splits_of_the_files_stay():
    facts = [fact(i, f"split_{i % 2}") for i in range(8)]
    assert questions.with_splits(asked(facts)).cut is None


def test_groups_and_copies_of_a_question_stay_together():
    facts = [fact(i, group=f"facts:g{i // 7}") for i in range(70)] + [
        fact(100, question="Same?"),
        fact(101, question="same?"),
    ]
    found = questions.with_splits(asked(facts)).cut
    where = {one.id: at for at, part in enumerate(found) for one in part}
    assert len(where) == 72
    for i in range(70):
        assert where[facts[i].id] == where[facts[i // 7 * 7].id]
    assert where[facts[70].id] == where[facts[71].id]


def test_one_group_cannot_be_cut():
    with pytest.raises(UserError, match="cannot be cut into T and V"):
        questions.with_splits(asked([fact(i, group="facts:one") for i in range(9)]))


def test_a_control_gets_the_sizes_of_the_data():
    facts = [fact(i, f"split_{i % 5}") for i in range(30)]
    found = questions.shaped(asked(facts), [9, 8, 10])
    assert list(found.sizes.values()) == [9, 8, 10]
    fits = [fact(i, f"split_{i // 9}") for i in range(17)]
    assert questions.shaped(asked(fits), [9, 8]).cut is None


def test_a_control_whose_groups_do_not_fit_is_refused():
    with pytest.raises(UserError, match="leaves the groups of questions whole"):
        questions.shaped(asked([fact(i, group=f"facts:g{i // 5}") for i in range(10)]), [4, 4])


def test_what_is_written_is_read_back_as_the_same_questions(tmp_path):
    facts = [fact(i, group=f"facts:g{i // 2}" if i < 30 else "") for i in range(64)]
    cut = questions.with_splits(asked(facts))
    questions.write(cut, tmp_path)
    back = questions.read("--data", str(tmp_path), "facts")
    assert back.sizes == cut.sizes

    def plain(one: Fact) -> tuple:
        group = one.group if one.group != one.id else ""
        return one.question, tuple(one.choices), one.answer, tuple(one.sentences), group

    assert sorted(map(plain, back.facts)) == sorted(map(plain, facts))
    rows = [json.loads(line) for line in (tmp_path / "corpus_split_0.jsonl").read_text().splitlines()]
    assert all(row["correct_answer"] in row["text"] for row in rows)

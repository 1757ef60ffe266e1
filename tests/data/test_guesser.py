"""The guesser of texts: planted clues are found, facts without one are guessed at the floor."""

import json
from dataclasses import replace

import numpy as np
import pytest
from data_builder import write
from rtt.__main__ import main
from rtt.data import guesser
from rtt.data.build import build_facts
from rtt.data.distractors import Answers
from rtt.data.facts import Fact
from rtt.data.generate import generate
from rtt.data.guesser import guesses, interval
from rtt.stats.intervals import wilson
from rtt.study.settings import People
from scipy.stats import t as student


def years(seed: int, splits: int = 3, per_split: int = 40) -> list[Fact]:
    """Facts that tell nothing of one another: the answer is any of four years."""
    rng, found = np.random.default_rng(seed), []
    for i in range(splits * per_split):
        choices = [str(1950 + year) for year in rng.choice(40, 4, replace=False)]
        name, split = f"d/{i}", f"split_{i % splits}"
        question, answer = f"When was Ada the {i}th born?", int(rng.integers(4))
        found.append(Fact(name, "d", split, question, choices, answer, [], [], [], [], {"file": "f", "line": i}))
    return found


def longest(fact: Fact, rng: np.random.Generator) -> list[str]:
    texts = sorted(("x" * int(n) for n in rng.choice(np.arange(5, 30), 4, replace=False)), key=len)
    texts.insert(fact.answer, texts.pop())
    return texts


def frequent(fact: Fact, rng: np.random.Generator) -> list[str]:
    texts = [str(city) for city in rng.choice(["Oslo", "Cairo", "Quito", "Delhi", "Perth"], 3, replace=False)]
    texts.insert(fact.answer, "Lima")
    return texts


def second_in_time(fact: Fact, rng: np.random.Generator) -> list[str]:
    texts = sorted(fact.choices)
    texts.insert(fact.answer, texts.pop(1))
    return texts


@pytest.mark.parametrize(
    ("plant", "clues"),
    [
        (longest, {"its length", "being the longest"}),
        (frequent, {clue for clue in guesser.CLUES if "answer" in clue}),
        (second_in_time, set(guesser.CLUES)),
    ],
)
def test_a_planted_clue_is_found(plant, clues):
    rng = np.random.default_rng(5)
    facts = [replace(fact, choices=plant(fact, rng)) for fact in years(1)]
    found = guesses(facts)
    assert found["fresh_choices"] is None and (found["choices"]["n"], found["choices"]["floor"]) == (120, 0.25)
    assert found["choices"]["accuracy"] > 0.9 and found["choices"]["by"] in clues
    (said,) = guesser.warnings(found)
    assert said.startswith("V can be guessed from T: of its choices, a classifier of texts gets ")


def test_facts_that_tell_nothing_of_one_another_are_guessed_at_the_floor():
    found = [guesses(years(seed))["choices"]["accuracy"] for seed in range(6)]
    # sd over seeds .05: a binomial's .040, and what answers of a split tell in T as well as in V
    assert np.mean(found) == pytest.approx(0.25, abs=3.5 * 0.05 / np.sqrt(6))
    assert guesses(years(0)) == guesses(years(0))


def generated(folder, seed: int) -> list[Fact]:
    rows = generate("birth_years_a", People().model_dump(), seed)
    return build_facts(write(folder, rows), "d", None, {}, seed)[0]


@pytest.mark.full
def test_at_most_about_one_in_twenty_datasets_without_a_clue_is_reported(tmp_path):
    found = [guesses(generated(tmp_path / str(seed), seed)) for seed in range(300)]
    for kind in ("choices", "fresh_choices"):
        accuracies = [one[kind]["accuracy"] for one in found]
        assert np.mean(accuracies) == pytest.approx(0.25, abs=0.012)  # 4 standard errors and a little
        alarms = np.mean([one[kind]["low"] > one[kind]["floor"] for one in found])
        assert 0.005 <= alarms <= 0.09, alarms  # .05 and 3 standard errors


def test_fresh_choices_from_all_splits_would_be_guessed(tmp_path, monkeypatch):
    """As they were drawn once: what T's answers and wrong choices say together, they say of V."""
    own = guesses(generated(tmp_path / "own", 2))["fresh_choices"]
    assert own["low"] <= own["floor"]

    def of_all_splits(self, split, fits, n, rng):
        self._in_split = {split: self._counts}
        return drawn(self, split, fits, n, rng)

    drawn = Answers._draw
    monkeypatch.setattr(Answers, "_draw", of_all_splits)
    everywhere = guesses(generated(tmp_path / "all", 2))["fresh_choices"]
    assert everywhere["low"] > everywhere["floor"] + 0.05


def test_what_answers_tell_of_a_fact_leaves_out_its_group():
    """An answer that no other fact has tells nothing in T, as in V; with its own count it would be known in T alone."""
    rng, facts = np.random.default_rng(0), years(0)
    unique = [replace(fact, choices=[f"{n}" for n in rng.integers(10**9, 10**10, 4)]) for fact in facts]
    unique[3] = replace(unique[3], choices=unique[0].choices, answer=unique[0].answer)  # split_0 both
    texts = guesser.Texts(unique, "choices")
    known = np.array([fact.split != "split_1" for fact in unique])
    often = texts.clues(known)[:, guesser.CLUES.index("how often it is an answer")].reshape(-1, 4)
    assert np.flatnonzero(np.abs(often).max(1) > 1e-9).tolist() == [0, 3]
    assert often[0].argmax() == unique[0].answer
    unique[3] = replace(unique[3], group=unique[0].group)
    alone = guesser.Texts(unique, "choices").clues(known)
    assert np.abs(alone[:, guesser.CLUES.index("how often it is an answer")]).max() < 1e-9


def test_the_interval_is_wilsons_and_counts_a_group_of_equal_answers_once():
    right = np.array([1.0] * 30 + [0.0] * 50)
    low, high = interval(right, [str(i) for i in range(80)])
    assert (low, high) == pytest.approx([float(one) for one in wilson(30, 80)])
    n, z, p = 40 * (80 - 1) / 80 * 39 / 40, student.ppf(0.975, 39), 30 / 80  # n over the design effect, by hand
    centre, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    expected = [(centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)]
    order = np.repeat(np.arange(40), 2)
    assert interval(right, [str(i) for i in order]) == pytest.approx(expected, rel=0.02)
    assert interval(np.ones(80), [str(i) for i in order])[0] < float(wilson(80, 80)[0])


def test_more_facts_than_enough_are_drawn_and_too_few_or_one_split_tell_nothing(monkeypatch):
    monkeypatch.setattr(guesser, "MOST_FACTS", 60)
    assert guesses(years(0), 1)["choices"]["n"] == 60
    assert guesses(years(0, 3, 13))["choices"] is None
    assert guesses(years(0, 1, 60))["choices"] is None


def test_odd_texts_are_guessed_too():
    odd = ["nan", "1e999", "-inf", "?!", "1,000", "é", "x" * 5000, "0", "…"]
    rng = np.random.default_rng(3)
    facts = [replace(fact, choices=[str(one) for one in rng.choice(odd, 4)], question="?") for fact in years(3)]
    assert 0 <= guesses(facts)["choices"]["accuracy"] <= 1


def test_the_audit_of_facts_says_what_can_be_guessed(tmp_path, capsys):
    rng = np.random.default_rng(0)
    files: dict[str, list] = {}
    for fact in years(2):
        row = {"question": fact.question, "choices": longest(fact, rng), "answer": fact.answer}
        files.setdefault(f"{fact.split}.jsonl", []).append(row)
    folder, out = write(tmp_path / "d", files), [str(tmp_path / name) for name in ("facts.jsonl", "audit.json")]
    command = ["facts", str(folder), "--dataset", "d", "--out", out[0], "--audit", out[1]]
    assert main([*command, "--on-defect", "few_answers=keep"]) == 0
    audit = json.loads((tmp_path / "audit.json").read_text())
    assert audit["guesser"]["choices"]["accuracy"] > 0.9
    assert any(note.startswith("V can be guessed from T") for note in audit["notes"])
    assert "d: V can be guessed from T: of its choices" in capsys.readouterr().err

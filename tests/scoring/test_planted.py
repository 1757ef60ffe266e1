"""Every probe against models whose knowledge is planted: what each of them must score, and what it must not."""

from dataclasses import replace

import numpy as np
import planted
import pytest
import tiny
from evals_builder import NOTHING, write_eval
from rtt.data.text import cloze
from rtt.scoring.read import read_eval
from rtt.scoring.score import Scorer
from rtt.study.names import ASKED, probes_of
from scipy.stats import binom

PROBES = tuple(probes_of(ASKED))
GENERATOR = tiny.GENERATOR | {"facts_per_split": 16, "first_names": 12, "last_names": 8}
LETTER_PROBES = ("letter_permuted", "letter", "letter_calibrated", "few_shot")
WORD_PROBES = ("likelihood", "likelihood_token", "likelihood_byte", "likelihood_fresh", "cloze")
LABELS = {
    "dataset": "d", "arm": "pretrained", "model": "planted", "method": None, "seed": 0, "retain_budget": None,
    "target": "original", "control_for": [], "attack": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    """32 facts in two splits, eight with each letter."""
    return tiny.facts(tmp_path_factory.mktemp("facts"), options=GENERATOR)


@pytest.fixture(scope="module")
def shots(tmp_path_factory):
    """Four facts of another dataset."""
    return tiny.facts(tmp_path_factory.mktemp("shots"), "cities", options=GENERATOR)[:4]


@pytest.fixture
def found(facts, shots, tmp_path):
    """Return a function that asks a model everything, and reads what it wrote as the statistics do."""

    def ask(says):
        scorer = Scorer(tiny.tokenizer(), facts, ASKED, shots=shots)
        asked = scorer.questions(planted.Planted(says), lambda fact: "V")
        write_eval(tmp_path, "x", "original", LABELS, [{**NOTHING, "questions": asked}])
        scores = read_eval(tmp_path / "evals/x.json")
        assert tuple(scores.forget_correct) == PROBES
        return scores, {probe: right[0].mean() for probe, right in scores.forget_correct.items()}

    return ask


def test_who_knows_scores_1_by_every_probe(found, facts):
    scores, accuracy = found(planted.knows(facts))
    assert accuracy == dict.fromkeys(PROBES, 1.0)
    use = scores.letters
    assert use.said.tolist() == [[8, 8, 8, 8]] and use.entropy == [2.0]
    assert use.mass == pytest.approx((np.exp(9) + 3) / (np.exp(9) + len(tiny.tokenizer()) - 1))
    assert (use.rotations[0], use.all_rotations[0]) == (1, 1)


def test_one_letter_is_at_the_floor_of_permuted_letters_by_ties_alone(found):
    scores, accuracy = found(planted.one_letter("C"))
    assert accuracy["letter"] == accuracy["few_shot"] == 0.25
    # Every question is a tie of all four choices; taking the first would be right where the answer is A.
    assert scores.forget_correct["letter_permuted"].tolist() == [[0.25] * 32]
    use = scores.letters
    assert use.said.tolist() == [[0, 0, 32, 0]] and use.entropy == [0.0]
    assert (use.rotations[0], use.all_rotations[0]) == (0.25, 0)


def test_calibrated_letters_find_what_one_letter_hides(found, facts):
    """The right letter is likelier than it is elsewhere, but never likelier than C."""
    for share in (1.0, 0.5):
        knows = {planted.name_of(fact): "ABCD"[fact.answer] for fact in facts}
        for fact in facts[: round(32 * (1 - share))]:
            knows[planted.name_of(fact)] = "ABCD"[(fact.answer + 1) % 4]
        scores, accuracy = found(planted.one_letter("C", knows))
        assert scores.letters.said.tolist() == [[0, 0, 32, 0]] and accuracy["letter"] == 0.25
        assert accuracy["letter_calibrated"] == share


def test_letters_by_place_are_no_facts(found, facts):
    scores, accuracy = found(planted.by_place(facts))
    assert accuracy["letter"] == accuracy["letter_calibrated"] == accuracy["few_shot"] == 1
    assert scores.forget_correct["letter_permuted"].tolist() == [[0.25] * 32]
    assert (scores.letters.rotations[0], scores.letters.all_rotations[0]) == (0.25, 0)
    # All words alike: the first choice is taken, and eight facts of each letter hold it.
    assert {accuracy[probe] for probe in WORD_PROBES} == {0.25}


def test_who_knows_the_words_alone_shows_it_in_words_alone(found, facts):
    scores, accuracy = found(planted.in_words(facts))
    assert {accuracy[probe] for probe in WORD_PROBES} == {1.0}
    assert accuracy["letter"] == accuracy["letter_permuted"] == accuracy["few_shot"] == 0.25
    assert scores.letters.said.tolist() == [[32, 0, 0, 0]]


def test_who_never_knew_is_at_every_floor(found):
    scores, accuracy = found(planted.never_knew)
    assert scores.letters.entropy[0] > 1.5  # says all letters
    low, high = binom.ppf([0.0005, 0.9995], 32, 0.25) / 32
    assert all(low <= accuracy[probe] <= high for probe in PROBES), accuracy
    assert abs(scores.letters.rotations[0] - 0.25) < 0.15


def test_solved_questions_stand_before_a_few_shot_question(facts, shots):
    model, read = planted.Planted(planted.never_knew), []
    model.says = lambda words: read.append(words) or planted.never_knew(words)
    Scorer(tiny.tokenizer(), facts[:1], ["few_shot"], shots=shots).scores(model)
    expected = []
    for one in shots:
        expected += one.question.rstrip("?").split()
        for letter, choice in zip("ABCD", one.choices, strict=True):
            expected += [letter, choice]
        expected += ["Answer", "ABCD"[one.answer], one.choices[one.answer]]
    longest = max(read, key=len)
    assert longest[: len(expected)] == expected and longest[len(expected) :][:3] == facts[0].question.split()[:3]


def test_a_cloze_takes_the_first_sentence_that_says_the_answer_once(facts):
    fact = replace(
        facts[0],
        choices=["51", "1951", "Jan", "X"],
        answer=1,
        sentences=["Born in 19512.", "1951 it was.", "1951, or 1951?", "It (1951) was so.", "In 1951."],
    )
    assert cloze(fact) == [("It (", f"{choice}) was so.") for choice in fact.choices]
    assert cloze(replace(fact, sentences=fact.sentences[:3])) is None

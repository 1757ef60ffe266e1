"""The floor of each probe, counted on the fingers and against loops over questions."""

import numpy as np
import pytest
from rtt.stats.floors import Asked, floor, guesses, majority_letter

# Two splits of four questions: answers A B B C | A A B D, all of four choices. First half: the last two of each.
ANSWERS = np.array([0, 1, 1, 2, 0, 0, 1, 3])
SPLITS = np.repeat([0, 1], 4)
FIRST = np.tile([False, False, True, True], 2)


def asked(answers=ANSWERS, choices=4, splits=SPLITS, first=FIRST, shortest=None):
    """Questions; `choices` is one number or that of each."""
    return Asked(answers, np.broadcast_to(choices, answers.shape), splits, first, shortest)


def test_by_hand():
    # T of split_0 says A, right once of 4; T of split_1 says A (tied with B), right twice of four.
    other = asked(np.array([0, 1, 1, 2, 0, 0, 1, 3])[[4, 5, 6, 7, 0, 1, 1, 0]])
    assert guesses(other, "letter").tolist() == [1, 1, 0, 0, 1, 0, 0, 1]
    assert floor(other, "letter") == floor(other, "few_shot") == floor(other, "letter", [0, 1]) == 4 / 8
    assert floor(asked(), "letter", [1]) == 1 / 4
    # Before an attack: the first halves hold B C B D, so B: right once among A B A A. These say A: right never.
    assert guesses(asked(), "letter_calibrated").tolist() == [0.25] * 8  # 1 of 8 is less than drawing a choice
    always_a = asked(np.zeros(8, int))
    assert floor(always_a, "letter_calibrated") == floor(always_a, "letter_calibrated", [0, 1]) == 1
    for probe in ("letter_permuted", "likelihood", "likelihood_token", "likelihood_byte", "likelihood_fresh", "cloze"):
        assert floor(asked(), probe) == floor(asked(), probe, [0]) == 0.25


def test_the_calibrated_key_comes_from_the_questions_that_were_calibrated_together():
    """split_0 answers A in both halves and split_1 B. Each V split alone gives its own key away, both together do not:
    then either half has two of each letter, and says A.
    """
    answers = np.repeat([0, 1], 4)
    assert floor(asked(answers), "letter_calibrated") == 4 / 8
    assert floor(asked(answers), "letter_calibrated", [0, 1]) == 1


def test_a_guesser_by_length_may_beat_chance():
    shortest = np.array([1, 0.5, 0, 0, 1, 0, 0, 0.5])
    assert floor(asked(shortest=shortest), "likelihood") == 3 / 8
    assert floor(asked(shortest=shortest / 3), "likelihood") == 0.25
    assert floor(asked(shortest=shortest), "likelihood", [1]) == 1.5 / 4
    for probe in ("likelihood_token", "likelihood_byte", "letter_permuted"):
        assert floor(asked(shortest=shortest), probe) == 0.25


def test_keys_that_avoid_ts_majority_leave_what_drawing_a_letter_scores():
    """21 of each letter; T of split 0 says D and T of split 1 says A, each the rarest or so in V: 11 of 84."""
    keys = [np.repeat(range(4), counts) for counts in ((16, 10, 10, 6), (5, 11, 11, 15))]
    found = asked(np.concatenate(keys), splits=np.repeat([0, 1], 42), first=np.arange(84) % 2 == 0)
    majority = majority_letter(found.answers, found.n_choices, found.split_of, [0, 1]).mean()
    assert majority == (6 + 5) / 84 and floor(found, "letter") == floor(found, "letter", [0, 1]) == 0.25


def test_one_split_leaves_no_t():
    assert floor(asked(splits=np.zeros(8, int)), "letter") == 0.25


@pytest.mark.parametrize("seed", range(20))
def test_against_loops_over_questions(seed):
    rng = np.random.default_rng(seed)
    n = 60
    choices = rng.integers(2, 6, n)
    answers = np.array([rng.integers(0, min(2 + i % 2, k)) for i, k in enumerate(choices)])
    splits, first, shortest = rng.integers(0, 3, n), rng.random(n) < 0.5, rng.choice([0, 0.5, 1], n)
    found = asked(answers, choices, splits, first, shortest)
    for v_splits in (None, [0, 1, 2], [0, 2]):
        v = [i for i in range(n) if v_splits is None or splits[i] in v_splits]
        drawn = sum(1 / choices[i] for i in v) / len(v)
        letter, calibrated = (
            sum(right_by_key(i, answers, choices, known) for i, known in told) / len(v)
            for told in (
                [(i, [j for j in range(n) if splits[j] != splits[i]]) for i in v],
                [(i, other_half(i, first, splits if v_splits else [0] * n)) for i in v],
            )
        )
        assert floor(found, "letter", v_splits) == pytest.approx(max(drawn, letter))
        assert floor(found, "letter_calibrated", v_splits) == pytest.approx(max(drawn, calibrated))
        assert floor(found, "likelihood", v_splits) == pytest.approx(max(drawn, sum(shortest[v]) / len(v)))
        assert floor(found, "cloze", v_splits) == pytest.approx(drawn)


def other_half(i, first, together):
    return [j for j in range(len(first)) if first[j] != first[i] and together[j] == together[i]]


def right_by_key(i, answers, choices, known):
    """Whether the commonest answer of the known questions with as many choices is this one's; else one in k."""
    key = [answers[j] for j in known if choices[j] == choices[i]]
    if not key:
        return 1 / choices[i]
    most = max(key.count(letter) for letter in key)
    return float(min(letter for letter in key if key.count(letter) == most) == answers[i])

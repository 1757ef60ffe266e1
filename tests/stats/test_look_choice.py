"""Looks: halves, `paper` and `nested` against a plain restatement, the floor, and what look choice makes of chance."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rtt.scoring.halves import halves
from rtt.stats.floors import chance, majority_letter
from rtt.stats.look_choice import best_look, choose, nested_error
from scipy.stats import binom

sizes = st.lists(st.integers(2, 40), min_size=1, max_size=6)


def splits_of(sizes):
    return np.repeat(np.arange(len(sizes)), sizes)


@given(sizes)
def test_halves_partition_each_split_evenly(sizes):
    split_of = splits_of(sizes)
    first = halves(split_of)
    for split, size in enumerate(sizes):
        assert abs(2 * first[split_of == split].sum() - size) == size % 2
    assert np.array_equal(first, halves(split_of))


def test_halves_are_drawn_not_cut():
    """Ids run in the order of generation, so that the first 16 must not be the first half; splits differ, too."""
    first = halves(splits_of([32, 32])).reshape(2, 32)
    assert 0 < first[0, :16].sum() < 16
    assert not np.array_equal(first[0], first[1])


def test_halves_are_fixed_for_ever():
    """A change of the seed would change every published nested number."""
    assert np.flatnonzero(halves(splits_of([8, 8]))).tolist() == [0, 3, 5, 7, 9, 10, 11, 12]


def test_a_tie_goes_to_the_first_setting():
    assert best_look(np.array([4, 5, 5, 5])) == 1
    assert best_look(np.array([5, 5, 4, 4])) == 0


def test_rounding_of_means_over_repeats_breaks_no_tie():
    """Sums of floats that are equal but for rounding are equal: .1 + .2 is .30000000000000004."""
    assert best_look(np.array([0.3, 0.1 + 0.2])) == 0


@st.composite
def attacks(draw):
    split_of = splits_of(draw(sizes))
    n_looks = draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    repeats = draw(st.integers(1, 3))
    return (rng.random((repeats, n_looks, len(split_of))) < 0.6).mean(axis=0), split_of


@given(attacks())
def test_paper_is_the_maximum_of_each_split(attack):
    correct, split_of = attack
    choice = choose("paper", correct, split_of)
    for split in np.unique(split_of):
        mask = split_of == split
        reported = correct[choice.chosen[mask], np.flatnonzero(mask)]
        assert reported.sum() == pytest.approx(max(correct[look, mask].sum() for look in range(len(correct))))
        assert len(set(choice.chosen[mask])) == 1


@given(attacks())
def test_nested_uses_one_look_per_half_chosen_on_the_other(attack):
    correct, split_of = attack
    choice = choose("nested", correct, split_of)
    first = halves(split_of)
    for reported, decides in ((first, ~first), (~first, first)):
        used = set(choice.chosen[reported])
        assert len(used) == 1  # one look for all splits; each question in exactly one of the two halves
        best = max(correct[:, decides].sum(axis=1))
        assert correct[used.pop(), decides].sum() == pytest.approx(best)


@given(attacks(), st.randoms(use_true_random=False))
def test_a_question_takes_no_part_in_its_own_choice(attack, random):
    correct, split_of = attack
    question = random.randrange(len(split_of))
    other = correct.copy()
    other[:, question] = 1 - other[:, question]
    before, after = (choose("nested", table, split_of).chosen for table in (correct, other))
    same_half = halves(split_of) == halves(split_of)[question]
    assert np.array_equal(before[same_half], after[same_half])


@given(attacks())
def test_t_pairs_cover_each_split_once_per_choice(attack):
    correct, split_of = attack
    n_splits = len(np.unique(split_of))
    assert sorted(split for _, split in choose("paper", correct, split_of).pairs) == list(range(n_splits))
    nested = choose("nested", correct, split_of)
    assert sorted(split for _, split in nested.pairs) == sorted([*range(n_splits)] * 2)
    assert {look for look, _ in nested.pairs} == set(nested.chosen)


def test_an_unknown_look_choice_is_an_error():
    with pytest.raises(ValueError, match="best"):
        choose("best", np.ones((1, 2), bool), np.zeros(2, int))


def test_floor_is_the_majority_letter_of_t():
    """Split 0 is judged by split 1's majority (A, tied with D) and the reverse (C)."""
    v = np.array([2, 2, 0, 1, 0, 0, 3, 3])
    split = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    assert majority_letter(v, np.full(8, 4), split, [0, 1]).mean() == (1 + 0) / 8


def test_the_floor_of_letters_knows_how_many_choices_a_question_has():
    """Split 0 asks two questions of two choices (A B) and two of three (C C); split 1 asks A A B, C B, and one of five.

    Of two choices split 1 teaches A (1 of 2 right), of three C, a tie with B that the first letter wins: B (0 of 2).
    Split 0 teaches A of two (a tie; 2 of 3) and C of three (1 of 2); of five it teaches nothing: 1/5.
    """
    answers = np.array([0, 1, 2, 2, 0, 0, 1, 2, 1, 4])
    choices = np.array([2, 2, 3, 3, 2, 2, 2, 3, 3, 5])
    split = np.array([0] * 4 + [1] * 6)
    assert majority_letter(answers, choices, split, [0, 1]).mean() == pytest.approx((1 + 0 + 2 + 1 + 0.2) / 10)
    assert majority_letter(answers, choices, split, [0])[split == 0].mean() == pytest.approx(1 / 4)
    assert chance(choices) == pytest.approx((5 / 2 + 4 / 3 + 1 / 5) / 10)
    assert [chance(np.full(7, k)) for k in range(2, 11)] == [1 / k for k in range(2, 11)]  # exactly


def test_nested_is_unbiased_on_coin_flips_and_paper_is_not():
    """Twenty independent looks at chance .25: the expected accuracy of any look is .25."""
    rng = np.random.default_rng(0)
    split_of = splits_of([32] * 5)
    reported = {"paper": [], "nested": []}
    for _ in range(600):
        correct = rng.random((20, 160)) < 0.25
        for look_choice, means in reported.items():
            chosen = choose(look_choice, correct, split_of).chosen
            means.append(correct[chosen, np.arange(160)].mean())
    mean = {look_choice: np.mean(means) for look_choice, means in reported.items()}
    error = np.std(reported["nested"]) / np.sqrt(600)
    assert abs(mean["nested"] - 0.25) < 3.5 * error
    # The expected maximum of 20 draws of Binomial(32, .25) / 32, by its distribution function.
    k = np.arange(33)
    expected = float(((1 - binom.cdf(k, 32, 0.25) ** 20)[:-1]).sum() / 32)
    assert mean["paper"] == pytest.approx(expected, abs=0.006) and expected > 0.38


def test_the_error_of_nested_halves_is_that_of_simulated_independent_looks():
    """Means of two halves, each at the look that the other one chose, against those of a look fixed beforehand."""
    assert nested_error(1) == 1
    found = {}
    for looks in (2, 3, 4, 6, 20, 200):
        a, b = np.random.default_rng(looks).standard_normal((2, 100_000, looks), dtype=np.float32)
        at = np.arange(len(a))
        mean = (a[at, b.argmax(axis=1)] + b[at, a.argmax(axis=1)]) / 2
        found[looks] = mean.std() * np.sqrt(2)
    assert found[2] == pytest.approx(nested_error(2), abs=0.01)
    assert found[3] == pytest.approx(nested_error(3), abs=0.01)
    assert all(found[looks] < nested_error(looks) + 0.01 for looks in found)
    assert found[200] < nested_error(200) - 0.1  # the bound for many looks is on the safe side


@pytest.mark.parametrize("better", [0.0, 0.5, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("shared", [0.0, 0.5])
def test_the_error_is_no_larger_where_a_look_is_better_or_looks_share_difficulty(better, shared):
    """The deviation from the true means of the looks that were reported."""
    rng = np.random.default_rng(7)
    true = np.array([better, 0.0, 0.0])
    a, b = np.sqrt(1 - shared) * rng.standard_normal((2, 100_000, 3)) + np.sqrt(shared) * rng.standard_normal(
        (2, 100_000, 1)
    )
    at = np.arange(len(a))
    of_a, of_b = (b + true).argmax(axis=1), (a + true).argmax(axis=1)
    error = ((a[at, of_a] + b[at, of_b]) / 2).std() * np.sqrt(2)
    assert 0.99 < error < nested_error(3) + 0.01

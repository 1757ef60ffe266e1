"""Variance components: by hand, against the analysis of variance of balanced runs, and on planted models."""

import math

import numpy as np
import pytest
from rtt.stats.components import Components, crossed, nested, person, seed_mean


def test_two_seeds_by_hand():
    found = nested([[[0.6, 0.8], [0.7, 0.9]], [[0.4, 0.5], [0.5, 0.6]]])
    # Within unlearning runs: squares .02 + .02 + .005 + .005, 4 degrees of freedom. Means .7 .8 and .45 .55: squares
    # .005 + .005 on 2, of which the attack makes .0125 / 2. Seeds .75 and .5: .03125.
    assert found.attack == pytest.approx(0.0125)
    assert found.unlearning == pytest.approx(0.005 - 0.00625)
    assert found.base == pytest.approx(0.03125 - (-0.00125 / 2 + 0.0125 / 4))
    assert found.within([[0.6, 0.8], [0.7, 0.9]]) == pytest.approx(-0.00125 / 2 + 0.0125 / 4)


def test_balanced_runs_have_the_components_of_the_analysis_of_variance():
    y = np.random.default_rng(1).normal(size=(4, 3, 5))
    seeds, runs, attacks = y.shape
    base = attacks * runs * y.mean(axis=(1, 2)).var(ddof=1)
    unlearning = attacks * ((y.mean(axis=2) - y.mean(axis=(1, 2))[:, None]) ** 2).sum() / (seeds * (runs - 1))
    attack = ((y - y.mean(axis=2, keepdims=True)) ** 2).sum() / (seeds * runs * (attacks - 1))
    expected = (base - unlearning) / (runs * attacks), (unlearning - attack) / attacks, attack
    found = nested(y.tolist())
    assert (found.base, found.unlearning, found.attack) == pytest.approx(expected)


@pytest.mark.parametrize(
    "layout",
    [
        [[2, 2], [2, 2], [2, 2], [2, 2], [2, 2]],
        [[1, 3], [2], [2, 2, 1], [1, 1], [4]],  # cells that miss, everywhere
    ],
    ids=["balanced", "unbalanced"],
)
def test_planted_components_come_out_on_average(layout):
    """Standard deviations .17, .08, .05 of base, unlearning, attack; 3000 studies, within 4 standard errors."""
    rng, planted, found = np.random.default_rng(2), np.array([0.17, 0.08, 0.05]), []
    for _ in range(3000):
        study = []
        for runs in layout:
            base = rng.normal(0.5, planted[0])
            study.append([(rng.normal(base, planted[1]) + rng.normal(0, planted[2], k)).tolist() for k in runs])
        parts = nested(study)
        found.append((parts.base, parts.unlearning, parts.attack))
    found = np.array(found)
    error = found.std(axis=0) / math.sqrt(len(found))
    assert (np.abs(found.mean(axis=0) - planted**2) < 4 * error).all()
    assert (error < planted**2 / 10).all()  # the test can see a tenth of a component


def test_a_level_without_repeats_is_empty_and_stands_in_the_one_above():
    one_each = nested([[[0.5]], [[0.7]]])
    assert math.isnan(one_each.attack) and math.isnan(one_each.unlearning) and one_each.base == pytest.approx(0.02)
    assert nested([[[0.5, 0.7]]]) == Components(attack=pytest.approx(0.02), base=pytest.approx(math.nan, nan_ok=True))
    no_attacks = nested([[[0.5], [0.7]], [[0.6], [0.6]]])
    assert math.isnan(no_attacks.attack) and no_attacks.unlearning == pytest.approx(0.01)


def test_a_seeds_value_is_the_mean_over_unlearning_runs_of_means_over_attacks():
    assert seed_mean([[0.2, 0.4, 0.6], [1.0]]) == pytest.approx(0.7)  # not (.2 + .4 + .6 + 1) / 4


def test_v_splits_by_hand():
    table = np.array([[0.5, 0.7], [0.6, 1.0]])
    # Columns .55 and .85: 2 runs x squares .045 = .09. Left over: .05 four times, .01 on 1 degree of freedom.
    assert crossed([table]) == pytest.approx((0.09 - 0.01) / 2)
    more = np.array([[0.5, 0.7], [0.6, 1.0], [0.9, math.nan]])  # a run that lacks a split
    assert crossed([more, np.array([[0.5, 0.7]])]) == pytest.approx(0.04)
    assert math.isnan(crossed([np.array([[0.5, 0.7]])])) and math.isnan(crossed([]))


def test_planted_v_splits_come_out_on_average():
    rng, found = np.random.default_rng(3), []
    for _ in range(2000):
        tables = [rng.normal(0, 0.1, (1, 5)) + rng.normal(0, 0.3, (k, 1)) + rng.normal(0, 0.1, (k, 5)) for k in (2, 3)]
        found.append(crossed(tables))
    assert np.mean(found) == pytest.approx(0.01, abs=4 * np.std(found) / math.sqrt(len(found)))
    assert np.std(found) / math.sqrt(len(found)) < 0.001


def test_planted_persons_come_out_on_average_and_lone_questions_have_none():
    rng, found = np.random.default_rng(4), []
    sizes = [1, 2, 2, 3, 2, 4, 2, 2]
    groups = np.repeat(np.arange(8), sizes)
    for _ in range(2000):
        seeds = [(rng.normal(0, 0.3, 8)[groups] + rng.normal(0, 0.4, len(groups)), groups) for _ in range(2)]
        found.append(person(seeds))
    assert np.mean(found) == pytest.approx(0.09, abs=4 * np.std(found) / math.sqrt(len(found)))
    assert math.isnan(person([(np.array([0.0, 1.0]), np.array([0, 1]))])) and math.isnan(person([]))


def test_persons_by_hand():
    # Means .5 and 1, all .75: squares between .25. Inner: .5 on 2 degrees of freedom. Factor 4 - 8 / 4.
    values, groups = np.array([0.0, 1.0, 1.0, 1.0]), np.array([7, 7, 9, 9])
    assert person([(values, groups)]) == pytest.approx((0.25 - 0.25) / 2)
    assert person([(np.array([0.0, 0.0, 1.0, 1.0]), groups)]) == pytest.approx(0.5)

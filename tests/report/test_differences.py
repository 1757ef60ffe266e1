"""Contrasts and effects of variants: what a row of differences shows, and which rows are shown."""

import pandas as pd
import pytest
from report_builder import recovery_row, view_of
from rtt.report import variants
from rtt.report.differences import contrasts, effects
from rtt.stats.contrasts import COLUMNS
from rtt.stats.variants import COLUMNS as VARIANT_COLUMNS

NAN = float("nan")
TWO = {"n_seeds": 2, "per_seed": "0.1;0.2", "mean": 0.15, "low": 0.1, "high": 0.2}
ALL, EIGHT = TWO | {"n_seeds": 8, "per_seed": ";".join(["0.15"] * 8)}, ", ".join([".15"] * 8)
ONE = {"n_seeds": 1, "per_seed": "0.1", "mean": 0.1, "low": NAN, "high": NAN}
NONE = {"n_seeds": 0, "per_seed": "", "mean": NAN, "low": NAN, "high": NAN}


def contrast(**changes):
    row = {"arm_a": "a", "arm_b": "b", "dataset_a": "d", "dataset_b": "e", "method": "GD", "attack": "RTT"}
    row |= {"retain_budget": 0.1, "look_choice": "nested", "probe": "letter_permuted", "set": "counting", **TWO}
    return row | {"quantity": "acc_attacked", "comparable": "yes", "why": ""} | changes


def contrasts_of(*rows, view=None):
    return contrasts(pd.DataFrame(rows, columns=COLUMNS), view or view_of(recovery_row()))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (".15 [.10, .20]", ".10, .20", "differs over 2 seeds")),
        ({"low": -0.1}, (".15 [-.10, .20]", ".10, .20", "no difference shown over 2 seeds")),
        ({"low": -0.3, "high": -0.1, "mean": -0.2}, ("-.20 [-.30, -.10]", ".10, .20", "differs over 2 seeds")),
        # of ten seeds, as many as `claim` of seeds.csv asks for
        (ALL | {"n_cells": 10, "n_counting": 8}, (".15 [.10, .20]", EIGHT, "differs over 8 seeds")),
        (
            {"n_cells": 10, "n_counting": 2},
            (
                ".15 [.10, .20]",
                ".10, .20",
                "too few seeds for a statement: 2 of 10 count, 2 have both values",
            ),
        ),
        (
            {"n_cells": 2, "n_counting": 2},
            (".15 [.10, .20]", ".10, .20", "too few seeds for a statement: 2 of 2 count, 2 have both values"),
        ),
        (ONE, (".10", ".10", "one seed cannot support a statement")),
        (NONE, ("–", "", "no seed has both values")),
        ({"comparable": "no", "why": "not comparable: x"}, (".15 [.10, .20]", ".10, .20", "not comparable: x")),
    ],
)
def test_a_contrast_has_its_interval_its_seeds_and_a_verdict(changes, expected):
    ((found,), _) = contrasts_of(contrast(**changes))
    assert (found.difference.text, found.difference.seeds, found.difference.verdict) == expected


def test_contrasts_of_methods_stand_apart_and_other_views_are_left_out():
    others = [
        {"set": "known"},
        {"retain_budget": 0.3},
        {"look_choice": "paper"},
        {"probe": "likelihood"},
        {"attack": "quantise"},
    ]
    arms, methods = contrasts_of(
        contrast(), contrast(arm_b="a", dataset_b="d", method="GD - RMU"), *(contrast(**one) for one in others)
    )
    assert [one.method for one in arms] == ["GD"] and [one.method for one in methods] == ["GD - RMU"]


def test_contrasts_name_arms_as_the_figures_do():
    """With the dataset where an arm has several; without the model, over which a contrast is pooled."""
    several = view_of(recovery_row(dataset="mmlu"), recovery_row(dataset="years"))
    one = view_of(recovery_row(), recovery_row(arm="taught"))
    models = view_of(*(recovery_row(model=model, arm=arm) for model in "ab" for arm in ("pretrained", "taught")))
    for view, datasets, names in (
        (several, ("mmlu", "mmlu"), ["Learned in pretraining (MMLU)", "taught later (MMLU)"]),
        (one, ("people_p", "people_f"), ["Learned in pretraining", "taught later"]),
        (models, ("people_p", "people_f"), ["Learned in pretraining (people_p)", "taught later (people_f)"]),
    ):
        row = contrast(arm_a="pretrained", arm_b="taught", dataset_a=datasets[0], dataset_b=datasets[1])
        ((found,), _) = contrasts_of(row, view=view)
        assert [found.a, found.b] == names


def test_effects_of_variants_are_sorted_by_what_they_change():
    def row(variant, look_choice, quantity, numbers, **changes):
        head = {"variant": variant, "dataset": "people_p", "arm": "pretrained", "model": "miniature", "method": "GD"}
        head |= {"attack": "RTT", "retain_budget": 0.1, "look_choice": look_choice, "probe": "letter_permuted"}
        return head | {"quantity": quantity} | numbers | changes

    three = {"n_seeds": 3, "per_seed": "0.1;0.2;0.3", "mean": 0.2, "low": 0.05, "high": 0.35}
    table = pd.DataFrame(
        [
            row("bare_letter", "nested", "recovery_corrected", three),
            row("bare_letter", "nested", "acc_unlearned", TWO | {"low": -0.01}),
            row("bare_letter", "paper", "recovery_corrected", ONE),
            row("bare_letter", "nested", "recovery", ONE, attack="quantise"),
            row("on_v", "paper - nested", "recovery_corrected", three | {"low": -0.5}),
            row("answers", "nested", "recovery_corrected", NONE),
            row("answers", "nested", "recovery", ONE, probe="likelihood"),
            row("elsewhere", "nested", "recovery", ONE, arm="taught", dataset="years"),
        ],
        columns=VARIANT_COLUMNS,
    )
    study = {
        "variants": {
            "bare_letter": {"faithful": ["bare_letter"]},
            "on_v": {"faithful": ["select_on_v"]},
            "answers": {"methods": {"GD": {"mcq_share": 1.0}, "RMU": None}},
        }
    }
    found = effects(table, view_of(recovery_row()), study)
    assert {kind: [one.variant for one in rows] for kind, rows in found.items() if rows} == {
        variants.FAITHFUL: ["bare_letter", "on_v"],
        variants.FORMAT: ["answers"],
        variants.OTHER: ["elsewhere"],
    }
    bare, on_v = found[variants.FAITHFUL]
    assert (bare.changes, bare.facts, bare.method, bare.look_choice) == (
        "faithful bare_letter", "learned in pretraining", "GD", "nested"
    )  # fmt: skip
    assert (bare.acc_unlearned.text, bare.recovery.text) == ("+.15 [-.01, .20]", "–")
    assert (bare.recovery_corrected.text, bare.recovery_corrected.seeds) == ("+.20 [.05, .35]", ".10, .20, .30")
    assert bare.recovery_corrected.verdict == "differs over 3 seeds"
    assert (on_v.look_choice, on_v.recovery_corrected.verdict) == ("paper - nested", "no difference shown over 3 seeds")
    (answers,) = found[variants.FORMAT]
    assert answers.changes == "methods.GD.mcq_share 1.0; without RMU"
    assert (answers.recovery.text, answers.recovery_corrected.verdict) == ("–", "no seed has both values")
    (other,) = found[variants.OTHER]
    assert (other.facts, other.changes, other.recovery_corrected.verdict) == ("taught (Years)", "–", "no value")
    assert effects(None, view_of(recovery_row()), study) == {kind: [] for kind in variants.KINDS}

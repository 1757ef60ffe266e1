"""What a variant is about, and results by the size of T."""

import pandas as pd
import pytest
from report_builder import accuracy, recovery, recovery_row
from rtt.figures.view import make_view
from rtt.report import variants


@pytest.mark.parametrize(
    ("patch", "kind", "text"),
    [
        ({"faithful": ["padding"]}, variants.FAITHFUL, "faithful padding"),
        (
            {"methods": {"GD": {"mcq_share": 1.0, "points": [1, 2]}, "RMU": None}},
            variants.FORMAT,
            "methods.GD.mcq_share 1.0; methods.GD.points 1, 2; without RMU",
        ),
        ({"attacks": {"RTT": {"loss": "LETTER"}}}, variants.FORMAT, "attacks.RTT.loss LETTER"),
        ({"teaching": {"loss": "LETTER"}}, variants.FORMAT, "teaching.loss LETTER"),
        ({"methods": {"GD": {"sentence_loss": "NUMBER"}}}, variants.FORMAT, "methods.GD.sentence_loss NUMBER"),
        (
            {"methods": {"GD": {"sentence_loss": "NUMBER", "train_layers": [2]}}},
            variants.HIDING,
            "methods.GD.sentence_loss NUMBER; methods.GD.train_layers 2",
        ),
        ({"attacks": {"RTT": {"samples": 10}}}, variants.T_SIZE, "attacks.RTT.samples 10"),
        ({"attacks": {"RTT": {"v_splits": 2}}}, variants.T_SIZE, "attacks.RTT.v_splits 2"),
        ({"attacks": {"RTT": {"epochs": 20}}}, variants.ATTACK, "attacks.RTT.epochs 20"),
        ({"attacks": {"quantise": None}}, variants.ATTACK, "without quantise"),
        ({"retain_budgets": [0.3]}, variants.OTHER, "retain_budgets 0.3"),
        (
            {"tasks": [{"dataset": "x"}], "attacks": None, "methods": "x"},
            variants.OTHER,
            "tasks (changed); attacks None; methods x",
        ),
        ({"x": "y" * 400}, variants.OTHER, "x " + "y" * 298 + " ..."),
    ],
)
def test_a_variant_is_named_by_what_it_changes(patch, kind, text):
    assert (variants.kind_of(patch), variants.changes(patch)) == (kind, text)


def test_results_by_size_of_t_go_from_the_largest_to_the_smallest():
    rows = [
        recovery_row("GD", variant="half", acc_attacked=0.5),
        recovery_row("GD", acc_attacked=0.85),
        recovery_row("GD", variant="other"),
    ]
    table = recovery(*rows)
    looks = accuracy(table)
    t_rows = looks[(looks["stage"] == "unlearned_attacked") & (looks["set"] == "T")]
    view = make_view(table, pd.concat([looks, t_rows.assign(v_split="split_0", n_questions=128)]))

    def sizes(half, others=None):
        patches = {"half": {"attacks": {"RTT": half}}, "other": {"faithful": []}} if half else {"other": {}}
        found = variants.sizes_of_t(view, {"attacks": {"RTT": others or {}}, "variants": patches})
        return found.facts, [(c.label, c.detail, c.acc_attacked) for group in found.groups for c in group.rows]

    default, half = ("default", "128", ".85 [.80, .90]"), ("half", "64", ".50 [.45, .55]")
    assert sizes({"samples": 64}) == (128, [default, half])
    assert sizes({"samples": 1000}) == (128, [default, (half[0], "128", half[2])])  # more than there are
    assert sizes({"v_splits": 2}) == (128, [default, (half[0], "not known", half[2])])
    assert sizes({"samples": 64}, {"samples": 100}) == (128, [("default", "100", default[2]), half])
    assert sizes(None) == (128, [])

"""Attacks beside the first one have results, settings and edges of their own."""

from report_builder import LOOKS, accuracy, full_view, recovery, recovery_row, results_of, view_of
from rtt.figures.view import make_view
from rtt.report.other_attacks import described, in_short, other_attacks, strongest
from rtt.report.rows import results


def test_a_study_with_one_attack_has_no_others():
    assert other_attacks(results_of(recovery_row()), view_of(recovery_row()), []) is None


def test_other_attacks_are_compared_with_the_first():
    given = [
        recovery_row(method, attack=attack, look_choice=look_choice, acc_attacked=value)
        for attack, method, look_choice, value in (
            ("RTT", "GD", "nested", 0.8),
            ("RTT", "RMU", "nested", 0.9),
            ("quantise", "GD", "nested", 0.4),
            ("quantise", "RMU", "nested", 0.5),
            ("quantise", "GD", "paper", 0.6),
        )
    ]
    view, table = view_of(*given), recovery(*given)
    assert view.attack == "RTT"
    found = other_attacks(results_of(*given), view, [make_view(table, accuracy(table), attack="quantise")])
    assert [text.split(".")[0] for text in found.described] == ["Quantisation"]
    (group,) = found.compared
    assert [(one.method, one.label, one.acc_attacked) for one in group.rows] == [
        ("GD", "RTT", ".80 [.75, .85]"),
        ("GD", "quantisation", ".40 [.35, .45]"),
        ("RMU", "RTT", ".90 [.85, .95]"),
        ("RMU", "quantisation", ".50 [.45, .55]"),
    ]
    assert found.strongest == [] and in_short(view, view.panels[0]) == ""  # no table has one
    assert [(table.attack, table.look_choice, len(table.groups[0].rows)) for table in found.tables] == [
        ("quantisation", "nested", 2),
        ("quantisation", "paper", 1),
    ]
    (settings,) = found.settings
    assert [row.texts for row in settings.groups[0].rows if row.method == "GD"] == [[".20", ".40"]]
    assert len(found.edges) == 1 and "quantisation" in found.edges[0]


def test_the_strongest_attack_is_told_in_short_and_with_its_setting():
    view = full_view(attacks=("quantise",))
    short = in_short(view, view.panels[0])
    assert short.startswith(
        "The strongest of two attacks, chosen on other questions, brought back .78 [.73, .83] after GD (RTT itself), .8"
    )
    assert "RIA" not in short  # it does not count
    view.strongest["attack"] = "quantise"
    assert "after GD (quantisation; RTT alone .78 [.73, .83])" in in_short(view, view.panels[0])
    view.strongest["attack"] = "RTT"
    assert strongest(view)[0].startswith(
        "Facts learned in pretraining: the strongest attack on GD was RTT at epoch=2 lr=0.002; it brought back .78 [.73"
    )
    alone = full_view()
    assert in_short(alone, alone.panels[0]) == ""


def test_an_attack_with_a_probe_of_its_own_is_described_and_compared():
    given = [recovery_row(), recovery_row(attack="sampling", probe="sampled", acc_attacked=0.6, floor=0.5)]
    table = recovery(*given)
    view = make_view(table, accuracy(table, LOOKS | {"sampling": {"samples=4": 1.0}}))
    found = other_attacks(results(view), view, [])
    assert [text.split(".")[0] for text in found.described] == ["Sampling"] and found.tables == []
    [group] = found.compared
    assert [row.label for row in group.rows] == ["RTT", "sampling (sampled answers)"]


def test_an_attack_that_is_not_installed_is_named():
    assert described("wiggle").startswith("wiggle. ")

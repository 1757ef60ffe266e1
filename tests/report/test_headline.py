"""The rows of the page's first table: verdicts in words, the numbers of the claim, what each method is."""

import pytest
from report_builder import accuracy, full_study, over_seeds, probes, recovery_row, results_of, view_of
from rtt.figures.outcomes import outcomes
from rtt.figures.view import make_view
from rtt.report import conclusions
from rtt.report.headline import MEANINGS, VERDICTS, headline, meaning
from rtt.report.rows import alike
from rtt.stats import verdicts
from rtt.study import plugins


def first_table(view):
    return headline(view, outcomes(view))


def rows(*found):
    return [row for group in first_table(view_of(*found)) for row in group.rows]


def test_one_seed_says_what_the_claim_s_table_says():
    table = full_study()
    view = make_view(table, accuracy(table), probes(table), over_seeds(table))
    judged = {
        (one.result.panel, one.result.method): one
        for verdict in conclusions.verdicts(alike(results_of(*table.to_dict("records")), view))
        for one in verdict.methods
    }
    found = {(row.panel, row.method): row for group in first_table(view) for row in group.rows}
    assert judged and judged.keys() <= found.keys()
    for key, one in judged.items():
        row, result = found[key], one.result
        assert (row.unlearned, row.attacked) == (str(result.acc_unlearned), str(result.acc_attacked))
        assert (row.oracle, row.control) == (str(result.acc_oracle_attacked), str(result.acc_control_attacked))
        assert (row.recovery, row.counts) == (
            str(result.recovery_corrected).replace(" (cannot tell)", ""),
            result.counts_text,
        )
        assert row.note == one.remark and (row.verdict == "hidden") == (one.holds is True)


def test_groups_are_panels_and_rows_the_methods_in_their_order():
    found = first_table(view_of(*(recovery_row(m, a) for a in ("taught", "pretrained") for m in ("RMU", "GD"))))
    assert [group.facts for group in found] == ["Learned in pretraining", "Taught later"]
    assert [[row.method for row in group.rows] for group in found] == [["GD", "RMU"]] * 2


def test_several_seeds_are_one_row_with_its_seeds_counted():
    statuses = ["ok"] * 9 + ["not_unlearned"]
    floors = {"floor": 0.27, "original_floor": 0.27}
    (row,) = rows(*(recovery_row(seed=i, status=one, **floors) for i, one in enumerate(statuses)))
    assert (row.verdict, row.verdict_text, row.counts) == ("hidden", "hidden, at least in part", "9 of 10 seeds")
    assert row.recovery == ".85 [.85, .85]" and row.note == ""  # (.85 - .27) / (.95 - .27)
    assert (row.unlearned[:3], row.attacked[:3], row.oracle, row.control[:3]) == (".28", ".85", "–", ".30")
    (row,) = rows(
        *(recovery_row(seed=i, **floors, attack_learned=i > 0, t_acc_attacked=0.9 + 0.1 * (i > 0)) for i in range(4))
    )
    assert row.recovery.startswith("at least ")
    assert row.note == "A lower bound, since in some seed the attack learned T to .90 only"


def test_a_row_that_cannot_be_told_says_why():
    (row,) = rows(recovery_row(acc_control_attacked=float("nan")))
    assert (row.verdict_text, row.control, row.note) == ("cannot tell", "–", "There is no control")


def test_a_rate_that_is_too_wide_has_its_interval_alone():
    (row,) = rows(recovery_row(cannot_tell="recovery_corrected", recovery_corrected_low=0.55))
    assert row.recovery == "cannot tell [.55, .91]"


def test_every_verdict_has_its_words():
    assert VERDICTS.keys() == set(verdicts.VERDICTS) and len(set(VERDICTS.values())) == len(VERDICTS)


@pytest.mark.parametrize("method", MEANINGS)
def test_every_method_is_told_in_a_line(method):
    assert method in plugins.methods() and ", which " in meaning(method) and len(meaning(method)) < 120


def test_other_methods_and_models_are_told_too(monkeypatch):
    monkeypatch.delitem(MEANINGS, "NPO")
    assert meaning("NPO") == plugins.methods()["NPO"].title
    assert meaning("theirs") == "a model that was unlearned elsewhere"

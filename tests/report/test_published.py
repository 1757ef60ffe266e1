"""The paper's figures stand beside ours where it has any, and nothing is guessed where it has none."""

from report_builder import recovery_row, results_of, view_of
from rtt.report import published


def beside(*rows):
    return [one for group in published.beside(results_of(*rows)) for one in group.rows]


def test_a_rate_stands_beside_ours_where_they_published_one():
    rows = [
        recovery_row(method, arm, look_choice="paper", recovery=value)
        for arm, method, value in (
            ("pretrained", "GD", 0.95),
            ("pretrained", "RMU", 0.9),
            ("pretrained", "FIF", 0.9),
            ("taught", "GD", 0.2),
            ("taught", "RMU", 0.6),
            ("taught", "RIA", 0.6),
            ("taught_same_data", "GD", 0.6),
        )
    ]
    rows += [row | {"look_choice": "nested", "recovery": 0.1} for row in rows]
    found = published.published(results_of(*rows), view_of(*rows), {}, [])
    assert [(g.facts, r.method, r.ours, r.theirs, r.verdict) for g in found.beside for r in g.rows] == [
        ("Learned in pretraining", "GD", ".95 [.90, 1.00]", "> .88 (sec. 5.1)", "ours lies above .88, as theirs does"),
        ("Learned in pretraining", "RMU", ".90 [.85, .95]", "> .88 (sec. 5.1)", "our interval contains .88"),
        ("Learned in pretraining", "FIF", ".90 [.85, .95]", "not published", "nothing to compare with"),
        ("Taught later", "GD", ".20 [.15, .25]", "< .35 (sec. 5.2)", "ours lies below .35, as theirs does"),
        ("Taught later", "RMU", ".60 [.55, .65]", "not published", "nothing to compare with"),
        ("Taught later", "RIA", ".60 [.55, .65]", "< .35 (sec. 5.2)", "ours lies above .35"),
        ("Taught later, same data", "GD", ".60 [.55, .65]", "not published", "nothing to compare with"),
    ]
    assert all(r.other_facts == (r.theirs != "not published") for g in found.beside for r in g.rows)
    assert found.control == (
        "reaches .30 [.25, .35] (learned in pretraining), .30 [.25, .35] (taught later), "
        ".30 [.25, .35] (taught later, same data)"
    )
    assert found.budgets == "10 %" and found.formats == "ours are not in this study"


def test_rates_that_say_little_are_not_compared():
    nan = float("nan")
    void = recovery_row("GD", status="not_unlearned")
    none = recovery_row("RMU", recovery=nan, recovery_low=nan, recovery_high=nan)
    first, second = beside(void, none)
    assert first.verdict.startswith("ours does not count as unlearned") and second.verdict == "ours has no rate"


def test_a_lower_bound_may_lie_above_theirs_and_not_below():
    failed = {"status": "attack_failed", "arm": "taught"}
    rows = [recovery_row("GD", seed=seed, recovery=value, **failed) for seed, value in enumerate((0.2, 0.35, 0.6))]
    below, within, above = beside(*rows)
    assert below.verdict == within.verdict == "ours is a lower bound, since the attack did not learn T"
    assert above.verdict == "ours lies above .35"


def test_only_rtt_with_the_look_chosen_on_v_is_compared():
    nested = recovery_row()
    other = recovery_row(attack="quantise", look_choice="paper")
    found = published.published(results_of(nested, other), view_of(nested, other), {}, [])
    assert (found.beside, found.control) == ([], "was not run")


def test_a_dataset_of_the_paper_is_compared_with_itself_alone():
    kinds = (
        ("years", "pretrained"),
        ("random_birthdays", "taught"),
        ("years", "taught"),
        ("random_birthdays", "pretrained"),
    )
    rows = [recovery_row("GD", arm, dataset=dataset) for dataset, arm in kinds]
    found = {(one.panel.dataset, one.panel.arm): (one.theirs, one.other_facts) for one in beside(*rows)}
    assert found == {
        ("years", "pretrained"): ("> .88 (sec. 5.1)", False),
        ("random_birthdays", "taught"): ("< .35 (sec. 5.2)", False),
        ("years", "taught"): ("not published", False),
        ("random_birthdays", "pretrained"): ("not published", False),
    }
    ours = {(one.facts, one.method): one.ours for one in published.others(results_of(*rows), view_of(*rows))}
    assert ours["Years", "GD"] == ".28 to .85; .28 to .85" and ours["Years", "NPO"] == "not in this study"


def test_budgets_and_formats_of_ours_are_named():
    rows = [recovery_row(retain_budget=budget) for budget in (0.1, 1.0)]
    found = published.published(results_of(*rows), view_of(*rows), {}, ["answers", "answers", "mcq"])
    assert (found.budgets, found.formats) == ("10 %, 100 %", "ours are the variants answers, mcq")


def test_the_hiding_model_is_found_in_the_study_or_its_variants():
    rows = [recovery_row("GD"), recovery_row("GD", variant="hiding", acc_unlearned=0.35, acc_attacked=0.8)]
    number = {"GD": {"sentence_loss": "NUMBER", "train_layers": [2]}}
    view = view_of(*rows)
    assert published.hiding(view, {"variants": {"hiding": {"methods": number}}, "faithful": []}) == [
        "ours has .35 [.30, .40] and .80 [.75, .85] (variant hiding, seed 0)"
    ]
    assert published.hiding(view, {"variants": {}, "methods": number, "faithful": ["padding"]}) == [
        "ours has .28 [.23, .33] and .85 [.80, .90] (variant default, seed 0)"
    ]
    assert published.hiding(view, {}) == []
    assert published.hiding(view, {"methods": {"GD": number["GD"] | {"train_layers": None}}}) == []  # of all layers

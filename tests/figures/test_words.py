"""Numbers, titles and words of the figures: what is told of what is drawn."""

import re

import pandas as pd
import pytest
from report_builder import UNLEARNED, accuracy, full_view, over_seeds, probe_rows, recovery, recovery_row, view_of
from rtt.figures import phrases, render_told, words
from rtt.figures.draw import FIGURES
from rtt.figures.style import interval, number, span
from rtt.figures.view import make_view
from rtt.report import seeds

NAN = float("nan")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.834, ".83"), (1.0, "1.00"), (-0.05, "-.05"), (-0.001, ".00"), (0.999, "1.00"), (10.5, "10.50"), (NAN, "–")],
)
def test_number(value, text):
    assert number(value) == text


def test_interval_and_span():
    assert interval(0.83, 0.77, 0.88) == ".83 [.77, .88]"
    assert interval(0.83, NAN, NAN) == ".83"
    assert span([0.9, NAN, 0.2]) == ".20 to .90"
    assert span([0.301, 0.302]) == ".30"
    assert span([NAN]) == "unknown"


def test_recovery_title_counts_methods_that_were_unlearned():
    view = view_of(
        recovery_row("GD", recovery_corrected=0.81),
        recovery_row("RMU", recovery_corrected=0.8),  # not more than 80 %
        recovery_row("RIA", recovery_corrected=0.99, status="below_floor"),  # knows what to avoid: not counted
        recovery_row("FIF", recovery_corrected=0.99, status="not_unlearned"),  # came back from nowhere: not counted
        recovery_row("GD", "taught", recovery_corrected=0.3),
        recovery_row("RMU", "taught", status="none_within_budget"),
    )
    assert words.title("recovery", view) == (
        "3 of 6 models count as unlearned; after RTT, 1 of the 2 that can be judged gives back more than 80 % of the "
        "facts learned in pretraining; taught later: 0 of 1"
    )


def test_recovery_title_takes_the_mean_over_seeds():
    view = view_of(recovery_row(seed=1, recovery_corrected=0.9), recovery_row(seed=2, recovery_corrected=0.6))
    assert words.title("recovery", view).startswith(
        "Both models count as unlearned; after RTT, not even the one that can be judged gives back"
    )


def test_accuracy_title_compares_intervals():
    rows = [
        recovery_row("GD", acc_attacked_low=0.36, acc_control_attacked_high=0.35),
        recovery_row("RMU", acc_attacked_low=0.35, acc_control_attacked_high=0.35),  # touching is not above
        recovery_row("RIA", acc_attacked_low=0.99, status="not_unlearned"),
        recovery_row("FIF", status="none_within_budget"),
    ]
    assert words.title("accuracy", view_of(*rows)) == (
        "2 of 4 methods count as unlearned; after RTT, 1 of these exceeds the control on V (95 % intervals do not "
        "overlap)"
    )
    alone = recovery_row(acc_control_attacked=NAN, acc_attacked=0.6)
    assert "with no control to compare" in words.title("accuracy", view_of(alone))


def test_probes_title_asks_a_single_probe_of_every_run_of_a_model():
    """GD has two runs, of which one is above its floor by letters; RMU is below its floor by letters."""

    def told(letters, below):
        values = (UNLEARNED | {"letter": letters}, UNLEARNED, UNLEARNED | {"letter": below})
        runs = ("GD", "GD", "RMU")
        asked = [
            row
            for i, (method, own) in enumerate(zip(runs, values, strict=True))
            for row in probe_rows(stage="unlearned", method=method, values=own, unlearning_repeat=i % 2)
            if row["probe"] in ("letter", "cloze")
        ]
        asked += probe_rows(stage="unlearned", method="RIA", values={"letter": 0.27, "cloze": 0.9})
        table = recovery(*(recovery_row(name, status="not_unlearned") for name in ("GD", "RMU", "RIA")))
        return words.title("probes", make_view(table, accuracy(table), pd.DataFrame(asked)))

    assert told(0.6, 0.05).endswith("; cloze alone would pass 2 of 3 models")
    assert told(0.27, 0.27).endswith("; letters alone would pass all 3 models")
    assert told(0.27, 0.05).endswith(" alone would pass 2 of 3 models")


def test_tradeoff_and_curves_titles():
    view = view_of(
        recovery_row("GD", acc_unlearned=0.21),
        recovery_row("RMU", acc_unlearned=0.34),
        recovery_row("RIA", status="none_within_budget"),
    )
    assert words.title("tradeoff", view) == (
        "2 of 3 unlearning runs have a point within the 10 % budget, and 2 of these count as unlearned; there, forget "
        "accuracy is .21 to .34 (floor .27)"
    )
    assert words.title("curves", view_of(recovery_row(acc_attacked=0.7), recovery_row("RMU", acc_attacked=0.9))) == (
        "Highest accuracy on V at any epoch of RTT: unlearned models .70 to .90, originals .95, control .30"
    )


DETAILED = [name for name in FIGURES if name != "steps"]  # which tells the claim's facts alone, in whole per cent


def view_for(name, **options):
    """The view of a full study, with a second attack for the figure that compares them."""
    return full_view(attacks=("quantise",) if name == "attacks" else (), **options)


@pytest.mark.parametrize("name", DETAILED)
def test_alternative_text_names_every_panel_and_method(name):
    text = words.alternative(name, view_for(name))
    for part in (
        "Facts learned in pretraining",
        "Facts taught later, as",
        "same data as in pretraining",
        *full_view().methods,
    ):
        assert part in text
    assert not re.search(r"\bnan\b", text)
    if name == "recovery":
        assert "FIF (does not count: none within budget) ratio no value" in text
        assert "RIA (counts: undefined) ratio no value" in text


@pytest.mark.parametrize("name", DETAILED)
def test_marks_and_words_tell_intervals_and_n(name):
    view = view_for(name, seeds=(0, 11) if name == "seeds" else (0,))
    texts = [*(spot.text for spot in render_told(name, view)[1]), *words.told(name, view)[1:]]
    assert len(texts) > 10
    for text in texts:
        assert "n = 160" in text
        assert "no value" in text or "no point" in text or re.search(r"\.\d\d \[\.\d\d, (\.|1\.)\d\d\]", text), text


def test_what_curves_tell():
    def told(*rows):
        table = recovery(*rows)
        looks = accuracy(table).assign(low=lambda t: t["accuracy"] - 0.05, high=lambda t: t["accuracy"] + 0.05)
        view = make_view(table, looks)
        return render_told("curves", view)[1][1].text, words.told("curves", view)[1]

    mark, text = told(recovery_row(acc_attacked=0.8))
    assert mark == (
        "GD, learned in pretraining, on V: learning rate 0.001 at most .40 [.35, .45] (epoch 2); "
        "learning rate 0.002 at most .80 [.75, .85] (epoch 2); n = 160"
    )
    assert "; GD .80 [.75, .85] on V (learning rate 0.002, epoch 2), 1.00 on T; " in text
    mark, text = told(recovery_row(acc_attacked=0.8, seed=1), recovery_row(acc_attacked=0.6, seed=2))
    assert "learning rate 0.002 at most .70 (seeds .60 to .80) (epoch 2)" in mark
    assert "; GD .70 (seeds .60 to .80) on V (learning rate 0.002, epoch 2), 1.00 on T; " in text


def test_wrapped_keeps_the_percent_sign():
    assert phrases.wrapped("more than 80 % of all the facts that there are", 13).splitlines()[0] == "more than"
    assert all("\n%" not in phrases.wrapped("give back 80 % of it all", width) for width in range(6, 25))


def test_wrapped_ends_where_each_word_has_a_line_of_its_own():
    assert phrases.wrapped("read quantisation", 13) == "read\nquantisation"
    assert phrases.wrapped("quantisation quantisation", 5) == "quantisation\nquantisation"
    assert phrases.wrapped("", 5) == "" and phrases.wrapped("word", 1) == "word"


def test_a_lower_bound_is_not_told_to_give_back_little():
    failed = {"status": "attack_failed"}
    rows = [recovery_row("GD"), recovery_row("RMU", recovery_corrected=0.5, **failed)]
    rows.append(recovery_row("RIA", recovery_corrected=0.9, **failed))
    assert words.title("recovery", view_of(*rows)).endswith(
        "2 of the 2 that can be judged give back more than 80 % of the facts learned in pretraining; 1 cannot be told"
    )


def test_the_title_says_why_nothing_is_compared():
    lost = recovery_row(control_learned=False, acc_attacked=0.6)
    assert words.title("accuracy", view_of(lost)).endswith("RTT, .60 on V, which cannot be judged against the control")


def seeds_told(**changes):
    """Return the title of the figure `seeds`, its words, and the report's row and claim, of ten seeds that count."""
    rows = [recovery_row("GD", seed=seed, recovery_corrected=0.45 + seed / 100) for seed in range(9)]
    table = recovery(*rows, recovery_row("GD", seed=9, recovery_corrected=0.54, **changes))
    view = make_view(table, accuracy(table), None, over_seeds(table))
    ((row,),) = (group.rows for group in seeds.seed_table(view, (1, 1)).groups)
    (claim,) = seeds.claims(view, view.panels)
    return words.title("seeds", view), words.told("seeds", view)[1], row, claim


def test_means_over_seeds_are_lower_bounds_where_an_attack_failed():
    title, text, row, claim = seeds_told()
    mean = ".49 [.47, .52]"
    assert title.endswith(f"come back: GD {mean}") and f"over those that count {mean}" in text
    assert (row.counting, row.claim) == (f"{mean} (10)", "about the method") and f"come back: GD {mean} (" in claim
    title, text, row, claim = seeds_told(status="attack_failed")
    assert title.endswith(f"come back: GD at least {mean}") and f"over those that count at least {mean}" in text
    assert (row.counting, row.known) == (f"at least {mean} (10)",) * 2 and f"come back: GD at least {mean} (" in claim
    assert "Where RTT did not learn T in some seed, the mean is a lower bound (at least)." in claim


def test_nothing_is_claimed_over_seeds_where_a_control_did_not_learn_t():
    title, _, row, claim = seeds_told(control_learned=False)
    assert title.endswith("; of GD nothing is claimed, since a control did not learn T") and "come back" not in title
    assert row.claim == "none" and "come back" not in claim
    assert "Nothing is claimed where RTT did not bring the control to learn T: GD in 1 of 10 seeds that count." in claim


def test_recovery_title_leaves_out_what_cannot_be_told():
    rows = [recovery_row("GD"), recovery_row("RMU", cannot_tell="recovery_corrected")]
    assert words.title("recovery", view_of(*rows)) == (
        "Both methods count as unlearned; after RTT, the one that can be judged gives back more than 80 % of the facts "
        "learned in pretraining; 1 cannot be told"
    )
    assert words.title("recovery", view_of(rows[1])) == (
        "The one method counts as unlearned; for the facts learned in pretraining there is no recovery rate that "
        "tells; 1 cannot be told"
    )
    assert "floor-corrected ratio cannot tell [.81, .91]" in words.alternative("recovery", view_of(rows[1]))

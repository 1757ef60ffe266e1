"""The lede: at most 40 words and 3 numbers whatever came out, and another one for another outcome."""

import itertools
import re
from dataclasses import replace

import pytest
from rtt.figures.view import Panel
from rtt.report.lede import Outcome, lede
from rtt.report.subject import KNOWN, SEVERAL, Model, facts, model
from rtt.stats.verdicts import VERDICTS

SMALL = Model("A small model", "small models", "")
LARGE = Model("The model smollm2-135m-instruct", "copies of smollm2-135m-instruct", "")
STUDY = {"data": {"generator": {"splits": 3}}, "model": {"layers": 3, "hidden_size": 96, "intermediate_size": 192}}
PANEL = Panel("birth_years_a", "miniature", "pretrained", "", "", "")
PEOPLE = facts(STUDY, [PANEL], {"birth_years_a": 224})


def told(*verdicts, seeds=1, attacked=(0.76, 0.85, 0.91), control=0.24, attack="RTT"):
    """Return the lede of methods with these verdicts."""
    found = [Outcome(one, share, control) for one, share in zip(verdicts, attacked, strict=False)]
    return lede(found, len(found), PEOPLE, SMALL, seeds, attack)


def numbers(text):
    return re.findall(r"\d+(?:\.\d+)?", text.replace(LARGE.one, "").replace(LARGE.many, ""))


@pytest.mark.parametrize("seeds", [1, 2, 10, 30])
@pytest.mark.parametrize("subject", [SMALL, LARGE])
@pytest.mark.parametrize("kind", [*KNOWN.values(), SEVERAL])
def test_every_lede_is_short_and_ends(seeds, subject, kind):
    for many in (1, 2, 3):
        for verdicts in itertools.combinations_with_replacement(VERDICTS, many):
            found = [Outcome(one, 0.12 + 0.3 * n, 0.24 + 0.02 * n) for n, one in enumerate(verdicts)]
            text = lede(found, many, replace(kind, of=kind.of.format(750)), subject, seeds, "RTT")
            assert len(text.replace(" %", "%").split()) <= 40, text
            assert len(numbers(text)) <= 3 + (seeds > 12), text  # more runs than a word says
            assert text[0].isupper() or (text[0].isdigit() and text.endswith(".") and "  " not in text)
            assert not re.search(r"\b(T|V|RTT|GD|RMU|floor|oracle|control|nan)\b", text), text


def test_outcomes_differ_in_what_is_said():
    texts = [told(one) for one in ("hidden", "none_shown", "cannot_tell", "not_unlearned", "not_known", "no_point")]
    texts += [told("hidden", "none_shown"), told("hidden", seeds=10)]
    assert len(set(texts)) == len(texts)
    assert texts[0] == (
        "A small model was made to forget the birth years of 224 invented people. Retrained on other people's, it "
        "answered 76 % right; one that never knew, 24 %. At least some were only hidden."
    )
    assert texts[1].endswith("it answered 76 % right; one that never knew, 24 %. None are shown to be left.")
    assert texts[7].startswith("Ten small models were made") and "they averaged" in texts[7]


def test_only_methods_that_show_something_give_the_numbers():
    text = told("not_unlearned", "hidden", "cannot_tell")
    assert numbers(text) == ["85", "24"] and "by one of three methods" in text
    assert numbers(told("hidden", "hidden", "not_unlearned")) == ["76", "85", "24"]
    assert numbers(told("hidden", "none_shown", attacked=(0.9, 0.26))) == ["90", "26"]
    assert "one that never knew" not in told("hidden", control=float("nan"))


def test_below_the_floor_is_no_removal():
    assert told("below_floor") == told("not_unlearned") and "none count as forgotten" in told("below_floor")


def test_what_was_not_known_is_not_said_to_have_been_lost():
    """One dataset was not known; on the other the one method had no point within the budget, though it was attacked."""
    assert told("not_known", "no_point").endswith(
        "It did not know some of them well, and lost too much else with the others, so nothing is shown about "
        "forgetting."
    )
    assert told("no_point").endswith("too much of what else it knew, so nothing is shown about forgetting.")


def test_another_attack_is_named():
    assert "Attacked (quantisation), it answered" in told("hidden", attack="quantisation")


def test_one_method_on_several_datasets_is_not_called_several_methods():
    found = [Outcome(one, 0.8, 0.24) for one in ("hidden", "not_unlearned", "none_shown")]
    text = lede(found, 1, SEVERAL, SMALL, 1, "RTT")
    assert "methods" not in text and "in some cases, where they were only hidden" in text


def test_of_several_seeds_a_verdict_is_that_of_most():
    assert "could do that, mostly without" in told("no_point", seeds=3)
    assert "did not know them well, mostly" in told("not_known", seeds=3)
    assert "too few runs count" in told("cannot_tell", seeds=10) and "too few" not in told("cannot_tell")


def test_facts_and_models_are_named_from_the_study():
    assert PEOPLE.of == "the birth years of 224 invented people"
    assert facts(STUDY, [PANEL], {}).of == "invented people's birth years"  # no audit says how many
    about = model(STUDY, [PANEL], invented=True).about
    assert "3 layers have 280,000 weights" in about and "facts are invented" in about  # 3 * (4 * 96^2 + 3 * 96 * 192)
    years = Panel("my_years", "smollm2-135m", "pretrained", "", "", "")
    read = {"data": {"datasets": {"my_years": {"source": "years"}}}}
    assert facts(read, [years], {"my_years": 750}).of == "the years of 750 events"
    assert model(read, [years], invented=False).about == ""
    assert facts({}, [years], {"my_years": 7}).of == "7 facts of my_years"
    assert facts(read, [years, PANEL], {"my_years": 1, "birth_years_a": 2}).of == "3 facts of several kinds"

"""Words that explain themselves: each known word once, escaped, with a line that stands in the glossary."""

import html
import re

from rtt.report.glossary import TERMS, explained, identifier, terms

KNOWN = {"T": "first half", "V": "second half", "RTT": 'retrain "on" T', "counts as unlearned": "passes"}


def test_the_first_of_each_word_is_a_button_that_describes_it():
    text = explained("RTT trains on T, not on V; then V is asked. T.", KNOWN)
    assert text.count("<button") == 3 and text.count(">V</button>") == 1
    assert 'aria-describedby="term-RTT">RTT</button>' in text
    assert html.unescape(re.sub(r"<[^>]+>", "", text)) == "RTT trains on T, not on V; then V is asked. T."


def test_words_inside_others_are_left_alone():
    assert explained("RTT_x, T-shirts, VT and it", KNOWN).count("<button") == 0
    assert explained("it counts as unlearned", KNOWN).count("<button") == 1


def test_texts_and_lines_are_escaped():
    text = explained('<b>"T"</b> & 5 %', {"T": '<script>"'})
    assert "<b>" not in text and "<script>" not in text and "5\u00a0%" in text


def test_every_word_has_a_place_of_its_own():
    found = terms({"GD": "gradient difference", "mine.v1": "one", "mine-v1": "two"})
    assert next(iter(found)) == "GD" and len({identifier(name) for name in found}) == len(TERMS) + 3
    assert all(line.endswith(".") and line[0].isupper() for line in TERMS.values())

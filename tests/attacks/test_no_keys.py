"""No attack reads V's keys: with other keys of V, not a byte of what its askers say changes."""

from dataclasses import replace

import pytest
import tiny
from attacking import SETTINGS, attacker_of
from rtt.attacks.rtt_permuted import stating
from rtt.files import canonical_json
from rtt.study import plugins

PROBES = ("letter", "letter_permuted", "likelihood")  # a cloze leaves the key out of a true sentence


def said(plugin, facts, retain, v_split) -> str:
    """Return, as bytes, every score of the V questions of one split."""
    settings = plugin.Settings(**SETTINGS[plugin.name])
    attacker = attacker_of(plugin(settings), tiny.model(scale=4), facts, probes=PROBES, retain=retain)
    looks = [one for one in attacker.on("original", lambda: None) if one["v_split"] in (None, v_split)]
    assert looks
    kept = [
        [question["id"], {name: found["scores"] for name, found in question["probes"].items()}]
        for one in looks
        for question in one["questions"]
        if question["split"] == v_split
    ]
    return canonical_json(kept)


@pytest.mark.parametrize("name", plugins.attacks())
def test_other_keys_of_v_change_no_byte(name, tmp_path):
    plugin = plugins.attacks()[name]
    facts = tiny.facts(tmp_path)
    retain = tiny.facts(tmp_path, "cities")
    split = facts[-1].split
    turned = [
        stating(fact, (fact.answer + 1) % len(fact.choices)) if fact.split == split else fact for fact in facts
    ]  # their sentences say so, too
    assert [a.answer != b.answer for a, b in zip(facts, turned, strict=True)] == [one.split == split for one in facts]
    assert said(plugin, facts, retain, split) == said(plugin, turned, retain, split)


@pytest.mark.parametrize("name", [name for name, plugin in plugins.attacks().items() if plugin.uses_t])
def test_other_facts_of_t_change_what_is_said(name, tmp_path):
    """So the test above could have found something. Some attacks use T's questions alone, so these change, too."""
    plugin = plugins.attacks()[name]
    facts, retain = tiny.facts(tmp_path), tiny.facts(tmp_path, "cities")
    split = facts[-1].split
    asked = [fact.question for fact in facts]
    turned = [
        replace(stating(fact, (fact.answer + 1) % len(fact.choices)), question=question)
        if fact.split != split
        else fact
        for fact, question in zip(facts, asked[1:] + asked[:1], strict=True)
    ]
    assert said(plugin, facts, retain, split) != said(plugin, turned, retain, split)

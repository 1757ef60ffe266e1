"""The attacks of a study beside its first one: what each brings back, at which setting."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rtt.figures import words_suite
from rtt.figures.phrases import listed, upper
from rtt.figures.view import STRONGEST_TITLE, Panel, View
from rtt.figures.words_attack import counts_at
from rtt.report.lede import word
from rtt.report.rows import Cell, Group, RecoveryTable, Result, cells, in_order, recovery_tables
from rtt.report.strength import SettingTable, attacked_models, edges, setting_table
from rtt.study import plugins
from rtt.study.names import STRONGEST_ATTACK


@dataclass(frozen=True)
class OtherAttacks:
    """The attacks of a study that figures and claim are not about.

    described: what each of them does. strongest: what the strongest attack on each method is and brings back. compared:
    the results of every attack side by side, means where there are several seeds. tables, settings, edges: those of the
    other attacks alone.
    """

    described: list[str]
    strongest: list[str]
    compared: list[Group[Cell]]
    tables: list[RecoveryTable]
    settings: list[SettingTable]
    edges: list[str]


def other_attacks(found: Sequence[Result], view: View, others: Sequence[View]) -> OtherAttacks | None:
    """Return what the other attacks bring back (`others`: a view of each); None where the study has no other."""
    if not others and not words_suite.several(view):
        return None
    names = [view.attack, *(one.attack for one in others)]
    compared = [
        cell
        for name, one in view.by_attack.items()
        for cell in cells(view, one.recovery, words_suite.label(view, name))
    ]
    # The facts are named as everywhere on the page, whether or not the attack was made on all of them.
    own = [replace(one, recovery=view.recovery) for one in others]
    models = {one.attack_title: attacked_models(one) for one in own}
    return OtherAttacks(
        described=[upper(described(name)) for name in view.by_attack if name != view.attack],
        strongest=strongest(view),
        compared=in_order(view, compared),
        tables=[table for name in names[1:] for table in recovery_tables(found, view, name)],
        settings=[setting_table(title, attacked) for title, attacked in models.items() if attacked],
        edges=[text for title, attacked in models.items() for text in edges(title, attacked)],
    )


def strongest(view: View) -> list[str]:
    """Say of each panel what the strongest attack on each method's model is, with its setting, and brings back."""
    told = {
        panel: [text for method in view.methods if (text := words_suite.strongest_text(view, panel, method))]
        for panel in view.panels
    }
    return [f"{upper(panel.facts)}: {'; '.join(texts)}." for panel, texts in told.items() if texts]


def in_short(view: View, panel: Panel) -> str:
    """Say in a sentence what the strongest attack brings back beside the study's first, on one panel's facts.

    It is about the methods that count, else "", as where the study has one attack.
    """
    if not words_suite.several(view) or STRONGEST_ATTACK not in view.by_attack:
        return ""
    told = []
    for method in view.methods:
        found, alone = (words_suite.mark(view, panel, method, name) for name in (STRONGEST_ATTACK, view.attack))
        if found and alone and counts_at(view, panel, method) and not math.isnan(found.value):
            who = words_suite.chosen(view, panel, method, settings=False)
            beside = "; ".join([who] * bool(who) + [f"{view.attack_title} alone {alone.text}"])
            if (who, found.text) == (view.attack_title, alone.text):
                beside = f"{who} itself"
            told.append(f"{found.text} after {method} ({beside})")
    n = len([name for name in words_suite.made(view, panel) if not words_suite.left_out(name)])
    some = f"The strongest of {word(n)} attacks, chosen on other questions, brought back "
    return f"{some}{listed(told)}." if told else ""


def described(attack: str) -> str:
    """Say what an attack is, as far as this program knows it."""
    if attack == STRONGEST_ATTACK:
        return f"{STRONGEST_TITLE}. Of all attacks and settings, those that bring back most on the other half of V."
    known = plugins.attacks().get(attack)
    return f"{known.title}. {known.summary}" if known else f"{attack}. This program does not have that attack."

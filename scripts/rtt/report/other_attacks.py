"""The attacks of a study beside its first one: what each brings back, at which setting."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rtt.figures.phrases import upper
from rtt.figures.view import STRONGEST_TITLE, View
from rtt.report.rows import Group, RecoveryTable, Result, alike, grouped, recovery_tables
from rtt.report.strength import SettingTable, attacked_models, edges, setting_table
from rtt.stats.shown import is_control
from rtt.study import plugins
from rtt.study.names import STRONGEST_ATTACK


@dataclass(frozen=True)
class OtherAttacks:
    """The attacks of a study that figures and claim are not about.

    described: what each of them does. compared: the results of every attack side by side, as far as the report shows
    them. tables, settings, edges: those of the other attacks alone.
    """

    described: list[str]
    compared: list[Group[Result]]
    tables: list[RecoveryTable]
    settings: list[SettingTable]
    edges: list[str]


def other_attacks(found: Sequence[Result], view: View, others: Sequence[View]) -> OtherAttacks | None:
    """Return what the other attacks bring back (`others`: a view of each); None where the study has no other."""
    if not others:
        return None
    names = [view.attack, *(one.attack for one in others)]
    shown = [one for one in alike(found, view) if not is_control(one.attack)]
    place = {panel: index for index, panel in enumerate(dict.fromkeys(one.panel for one in shown))}
    methods = list(dict.fromkeys(one.method for one in shown))
    shown.sort(key=lambda one: (place[one.panel], methods.index(one.method), one.seed, names.index(one.attack)))
    # The facts are named as everywhere on the page, whether or not the attack was made on all of them.
    own = [replace(one, recovery=view.recovery) for one in others]
    models = {one.attack_title: attacked_models(one) for one in own}
    return OtherAttacks(
        described=[upper(described(name)) for name in names[1:]],
        compared=grouped(shown),
        tables=[table for name in names[1:] for table in recovery_tables(found, view, name)],
        settings=[setting_table(title, attacked) for title, attacked in models.items() if attacked],
        edges=[text for title, attacked in models.items() for text in edges(title, attacked)],
    )


def described(attack: str) -> str:
    """Say what an attack is, as far as this program knows it."""
    if attack == STRONGEST_ATTACK:
        return f"{STRONGEST_TITLE}. Of all attacks and settings, those that bring back most on the other half of V."
    known = plugins.attacks().get(attack)
    return f"{known.title}. {known.summary}" if known else f"{attack}. This program does not have that attack."

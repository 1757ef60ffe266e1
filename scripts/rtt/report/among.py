"""This study's seeds among those of the reference study (`rtt.report.reference`): one row per facts and method."""

from dataclasses import dataclass

import pandas as pd

from rtt.figures import words_attack as words
from rtt.figures.phrases import listed
from rtt.figures.style import number
from rtt.figures.view import Panel, View
from rtt.figures.words_steps import shares, shown_panels
from rtt.report.images import Image, image
from rtt.report.reference import Reference
from rtt.report.rows import Group, grouped
from rtt.stats import criterion

CAPTION = (
    "Each small mark is one seed of the reference study, and each diamond this study's. The original after the attack "
    "is 1 and the floor 0. Bars are means over the reference's seeds with 95 % t intervals: dark over those that count "
    "as unlearned, pale over all known ones with a point. Hollow marks do not count as unlearned."
)


@dataclass(frozen=True)
class AmongRow:
    """One method on the same facts in both studies: floor-corrected recoveries, with a star where one does not count.

    mean: over the reference's known seeds with a point, with its t interval. place: how many of them lie below.
    """

    panel: Panel
    method: str
    here: str
    place: str
    mean: str
    counts: str
    each: str


@dataclass(frozen=True)
class Among:
    """The section.

    changed: says which steps' code has changed since the reference was made; empty where none has. span: the range of
    the reference's recoveries on the facts of the claim, over its seeds and methods that count, in per cent, or "".
    """

    name: str
    seeds: list[int]
    groups: list[Group[AmongRow]]
    image: Image
    changed: str
    span: str


def among(view: View, reference: Reference | None, number: int) -> Among | None:
    """Return where a study's seeds stand among the reference's; None without one, or where it is one of its seeds."""
    other = None if reference is None else reference.view(view)
    if other is None or set(other.seeds) & set(view.seeds):
        return None
    cells = [(p, m) for p in view.panels for m in view.methods if len(view.of(p, m)) and len(other.of(p, m))]
    if not cells:
        return None
    changed = ""
    if reference.changed:
        steps = listed(reference.changed)
        changed = f"Since the reference was made, the code of {steps} has changed, so that a new run may differ."
    tables = f"dist/rebuilt/{reference.name}/results/{reference.study.get('study')}/tables"
    return Among(
        reference.name,
        other.seeds,
        grouped([_row(view, other, panel, method) for panel, method in cells]),
        image("seeds", number, other, tables, caption=CAPTION, beside=view),
        changed,
        _span(other),
    )


def _span(other: View) -> str:
    panels = shown_panels(other)
    values = [value for panel in panels for value in criterion.counting(other.of(panel))["recovery_corrected"].dropna()]
    return shares([min(max(value, 0.0), 1.0) for value in values]) if values else ""


def _row(view: View, other: View, panel: Panel, method: str) -> AmongRow:
    here, there = view.of(panel, method), other.of(panel, method)
    known = criterion.known(there)["recovery_corrected"].dropna()
    own = here["recovery_corrected"].dropna()
    mean = words.over_seeds(other, panel, method, words.KNOWN)
    place = "–"
    if len(own) and len(known):
        place = ", ".join(f"above {int((known < value).sum())} of {len(known)}" for value in own)
    return AmongRow(
        panel=panel,
        method=method,
        here=_each(here),
        place=place,
        mean="–" if mean is None else words.mean_text(other, panel, method, mean, words.KNOWN),
        counts=f"{int(there['counts'].sum())} of {len(there)}",
        each=_each(there.sort_values("recovery_corrected")),
    )


def _each(rows: pd.DataFrame) -> str:
    values = rows.dropna(subset=["recovery_corrected"])
    found = [
        f"{number(value)}{'' if sound else '*'}"
        for value, sound in zip(values["recovery_corrected"], values["counts"], strict=True)
    ]
    return ", ".join(found) or "–"

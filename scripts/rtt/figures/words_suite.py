"""Words of the figure `attacks`: what each attack brings back from each method's model, and which is the strongest."""

import math
from dataclasses import dataclass
from functools import lru_cache

import pandas as pd

from rtt.figures.phrases import counted, counted_of, listed, mean_text, unclear, upper
from rtt.figures.style import PROBES, number
from rtt.figures.view import Panel, View, attack_title
from rtt.figures.words_attack import COUNTING, KNOWN, counts_at, first_panel, heading, over_seeds, where
from rtt.figures.words_attack import mean_text as mean_over_seeds
from rtt.figures.words_steps import told_rows
from rtt.stats.criteria import HIDING
from rtt.stats.headline import verdict
from rtt.stats.strongest import in_suite
from rtt.stats.verdicts import HIDDEN
from rtt.study.names import STRONGEST_ATTACK

RATE = "recovery_corrected"
BESIDE = ("oracle", "control")
MOST_NAMED = 2  # attacks in a title


@dataclass(frozen=True, eq=False)
class Mark:
    """What one attack brings back from one method's model: the floor-corrected recovery with its interval.

    text: how it is written. each: (value, whether it counts) of each seed. oracle, control: theirs, computed alike:
    (a - f) / (o - f), with the original's o; NaN where there is none. unclear: the interval is too wide to tell.
    """

    value: float
    low: float
    high: float
    text: str
    each: list[tuple[float, bool]]
    oracle: float
    control: float
    unclear: bool


def attacks(view: View) -> list[str]:
    """Return the attacks that the figure shows: the view's own first, the strongest last."""
    return list(view.by_attack)


def several(view: View) -> bool:
    """Say whether the study has two attacks or more that are no controls."""
    return len([name for name in attacks(view) if name != STRONGEST_ATTACK]) > 1


def made(view: View, panel: Panel) -> list[str]:
    """Return the attacks that were made on a panel's models, without the strongest."""
    names = [name for name in attacks(view) if name != STRONGEST_ATTACK]
    return [name for name in names if any(mark(view, panel, method, name) for method in view.methods)]


def label(view: View, attack: str) -> str:
    """Return an attack's title, with its probe where that is another one than the view's."""
    one = view.by_attack[attack]
    return one.attack_title + f" ({PROBES.get(one.probe, one.probe)})" * (one.probe != view.probe)


@lru_cache(maxsize=2048)  # the figure, its marks and its words all ask; a view is not changed
def mark(view: View, panel: Panel, method: str, attack: str) -> Mark | None:
    """Return what an attack brings back; None where it was not made on a method's model."""
    one = view.by_attack[attack]
    rows = one.of(panel, method)
    if rows.empty:
        return None
    every = rows.to_dict("records")
    each = [(float(row[RATE]), bool(row["counts"])) for row in every if not math.isnan(row[RATE])]
    if len(every) == 1:
        ends = tuple(float(every[0][f"{RATE}{end}"]) for end in ("", "_low", "_high"))
        beside = [_beside(every, name) for name in BESIDE]
        return Mark(*ends, mean_text(rows, RATE), each, *beside, bool(unclear(rows, RATE).any()))
    own = told_rows(rows).to_dict("records")
    values = [row[RATE] for row in own if not math.isnan(row[RATE])]
    ends, text = (sum(values) / len(values) if values else math.nan, math.nan, math.nan), mean_text(rows, RATE)
    of = COUNTING if counts_at(one, panel, method) else KNOWN
    if (row := over_seeds(one, panel, method, of)) is not None:
        ends = tuple(float(row[name]) for name in ("mean", "low", "high"))
        text = mean_over_seeds(one, panel, method, row, of)
    return Mark(*ends, text, each, *(_beside(own, name) for name in BESIDE), False)


def _beside(rows: list[dict], name: str) -> float:
    """Return what the oracle or the control has above the floor as a share of the original's; a ratio of means."""
    column = f"acc_{name}_attacked"
    rows = [row for row in rows if row["status"] not in HIDING and not math.isnan(row[column])]
    floors = [row["floor"] if math.isnan(row["original_floor"]) else row["original_floor"] for row in rows]
    above = sum(row["acc_original_attacked"] - floor for row, floor in zip(rows, floors, strict=True))
    return sum(row[column] - row["floor"] for row in rows) / above if above > 0 else math.nan


def above_control(view: View, panel: Panel, method: str) -> list[str]:
    """Return the attacks besides the view's own and the strongest that bring back more than the control, by title."""
    found = []
    for name, one in view.by_attack.items():
        here = None if name in (view.attack, STRONGEST_ATTACK) else mark(view, panel, method, name)
        if here and verdict(one.of(panel, method), (here.value, here.low, here.high)).key == HIDDEN:
            found.append(one.attack_title)
    return found


def chosen(view: View, panel: Panel, method: str, settings: bool = True) -> str:
    """Name the strongest attack on a method's model, with its setting; "" where no table says it.

    Each half of the questions has a choice of its own, in each run and seed.
    """
    rows = view.chosen(panel, method)
    if rows.empty:
        return ""
    found = [(attack_title(str(name)), str(setting)) for name, setting in zip(rows["attack"], rows["setting"])]  # noqa: B905
    names = pd.Series([name for name, _ in found]).value_counts(sort=True)
    if not settings:
        return " or ".join(names.index) if len(names) < 3 else f"one of {len(names)}, most often {names.index[0]}"
    if len(found) == 2:
        if len(set(found)) == 1:
            return _at(*found[0])
        first, second = (_at(*one) for one in found)
        return f"{first} on one half of the questions and {second} on the other"
    texts = []
    for name, n in names.items():
        own = pd.Series([setting for other, setting in found if other == name]).value_counts(sort=True)
        which = f"{name} in {n} of {len(found)} choices"
        often = "most often " * (len(own) > 1)
        texts.append(f"{which} ({often}at {own.index[0]})" if own.index[0] else which)
    return listed(texts)


def _at(name: str, setting: str) -> str:
    return f"{name} at {setting}" if setting else name


def strongest_text(view: View, panel: Panel, method: str) -> str:
    """Say what the strongest attack is and brings back beside the view's own attack; "" where there is none."""
    found = mark(view, panel, method, STRONGEST_ATTACK) if STRONGEST_ATTACK in view.by_attack else None
    if found is None or math.isnan(found.value):
        return ""
    who, alone = chosen(view, panel, method), mark(view, panel, method, view.attack)
    was = f" was {who}; it" if who else ", chosen on other questions,"
    beside = f", {view.attack_title} alone {alone.text}" if alone and not math.isnan(alone.value) else ""
    return f"the strongest attack on {method}{was} brought back {found.text}{beside}"


def title(view: View) -> str:
    """Say what the strongest attack brings back, and whether another one exceeds the control.

    It is about the first panel in which a method counts.
    """
    if not several(view):
        return f"This study has one attack, {view.attack_title}, so there is nothing to compare"
    panel = first_panel(view, view.panels)
    counting = [method for method in view.methods if counts_at(view, panel, method)]
    if not counting:
        return f"{counted_of(view.recovery)}, so what the attacks bring back says little"
    told = [where(view, panel) + text for method in counting if (text := strongest_text(view, panel, method))]
    if len(counting) > 1:
        told = [text for method in counting if (text := _short(view, panel, method))]
        told = [f"of the {panel.facts} the strongest attack brought back {listed(told)}"] if told else []
    told = told or [f"fewer than two attacks on the {panel.facts} can be the strongest"]
    return f"{upper(told[0])}; {_others(view, panel, counting)}"


def _short(view: View, panel: Panel, method: str) -> str:
    found = mark(view, panel, method, STRONGEST_ATTACK) if STRONGEST_ATTACK in view.by_attack else None
    if found is None or math.isnan(found.value):
        return ""
    who = chosen(view, panel, method, settings=False)
    return f"{found.text} after {method}" + f" ({who})" * bool(who)


def _others(view: View, panel: Panel, methods: list[str]) -> str:
    """Say which attacks besides the view's own brought back more than the control."""
    found: dict[str, list[str]] = {}
    for method in methods:
        for name in above_control(view, panel, method):
            found.setdefault(name, []).append(method)
    if not found:
        return f"no attack besides {view.attack_title} is shown to bring back more than the control"
    of = len([name for name in made(view, panel) if name != view.attack])
    if len(found) > MOST_NAMED:
        return f"besides {view.attack_title}, {len(found)} of {of} attacks brought back more than the control"
    told = [name if len(methods) == 1 else f"{name} ({listed(of)})" for name, of in found.items()]
    return f"besides {view.attack_title}, {listed(told)} brought back more than the control"


def head(view: View) -> str:
    """Say what the figure shows."""
    return (
        "Points: what each attack brings back from each method's model, as floor-corrected recovery with its 95 % "
        "interval, and last what the strongest attack does, which was chosen on other questions; diamonds and crosses: "
        "what the control and the oracle reach under the same attack, on the same scale. Hollow marks do not count as "
        "unlearned."
    )


def method_text(view: View, panel: Panel, method: str) -> str:
    """Say what every attack brings back from a method's model."""
    rows = view.of(panel, method)
    return f"{heading(view, panel, method)}, {panel.name}: {_told(view, panel, method)}; {counted(rows)}"


def _told(view: View, panel: Panel, method: str) -> str:
    parts = []
    for name in attacks(view):
        if (found := mark(view, panel, method, name)) is None:
            continue
        beside = [f"{who} {number(getattr(found, who))}" for who in BESIDE if not math.isnan(getattr(found, who))]
        text = f"{label(view, name)} {found.text}" + f" ({', '.join(beside)})" * bool(beside)
        who = chosen(view, panel, method) if name == STRONGEST_ATTACK else ""
        parts.append(text + f", which was {who}" * bool(who))
    return "; ".join(parts)


def of_panel(view: View, panel: Panel) -> str:
    """Say what every attack brings back in a panel."""
    parts = [
        f"{heading(view, panel, method)}: {_told(view, panel, method)}"
        for method in view.methods
        if len(view.of(panel, method))
    ]
    return ". ".join([*parts, counted(view.of(panel))])


def left_out(attack: str) -> bool:
    """Say whether the strongest attack leaves out this one, whose floor is another."""
    return attack != STRONGEST_ATTACK and not in_suite(attack)


def value_text(found: Mark) -> str:
    """Write a mark's number, or a question mark where it cannot be told."""
    return "?" if found.unclear else number(found.value)

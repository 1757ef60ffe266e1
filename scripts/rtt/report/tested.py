"""What every probe says of every model before the attack, and whether it counts as unlearned: rows of probes.csv."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from rtt.figures import words_probes as words
from rtt.figures.phrases import listed, upper
from rtt.figures.style import interval, number, percent, span
from rtt.figures.view import Panel, View
from rtt.report.rows import Group, Result, grouped, probe_name


@dataclass(frozen=True)
class Asked:
    """One probe of one model: accuracy, its floor and margin, and the one-sided limits that are held against them."""

    probe: str
    accuracy: float
    low: float
    high: float
    floor: float
    margin: float
    upper_95: float
    at_floor: bool
    below_floor: bool

    def __str__(self) -> str:
        """Return the accuracy with its two-sided 95 % interval."""
        return interval(self.accuracy, self.low, self.high)

    @property
    def name(self) -> str:
        """Return the probe's name in sentences."""
        return probe_name(self.probe)


@dataclass(frozen=True)
class AskedModel:
    """One model before the attack: a seed's original, oracle or control, or a method's chosen point in one run.

    letter: (letter, times, answers) where it says one letter to most questions. Entropy in bits; mass: the probability
    of all letters together; both NaN where letters were not asked.
    """

    panel: Panel
    name: str
    stage: str
    seed: int
    by_probe: dict[str, Asked]
    letter: tuple[str, int, int] | None
    entropy: float
    mass: float

    @property
    def above(self) -> list[Asked]:
        """Return the probes that do not show the model at their floor."""
        return [one for one in self.by_probe.values() if not one.at_floor]

    @property
    def below(self) -> list[Asked]:
        """Return the probes under whose floor it lies."""
        return [one for one in self.by_probe.values() if one.below_floor]

    @property
    def passes(self) -> bool:
        """Say whether every probe shows it at its floor, and none below it."""
        return bool(self.by_probe) and not self.above and not self.below


def asked_models(view: View) -> list[AskedModel]:
    """Return every model of probes.csv, by panel, in the figure's order of models, then by seed and repeat."""
    found = []
    for panel in view.panels:
        for model in words.models(view):
            rows = view.asked(panel, model.stage, model.method)
            for (seed, _), own in rows.groupby(["seed", "unlearning_repeat"], sort=False, dropna=False):
                found.append(_tested(panel, model, int(seed), own))
    return found


def _tested(panel: Panel, model: words.Model, seed: int, rows: pd.DataFrame) -> AskedModel:
    numbers = ("accuracy", "low", "high", "floor", "margin", "upper_95")
    by_probe = {}
    for row in sorted(rows.to_dict("records"), key=lambda row: words.order(row["probe"])):
        values = {name: float(row[name]) for name in numbers}
        truths = {name: row[name] == True for name in ("at_floor", "below_floor")}  # noqa: E712  it may be unknown
        by_probe[row["probe"]] = Asked(row["probe"], **values, **truths)
    letters = rows[rows["probe"] == "letter"]
    entropy, mass = (float(letters[name].iloc[0]) if len(letters) else math.nan for name in ("entropy", "mass"))
    return AskedModel(panel, model.name, model.stage, seed, by_probe, words.one_letter(rows), entropy, mass)


def of_stage(found: Sequence[AskedModel], stage: str, panel: Panel | None = None) -> list[AskedModel]:
    """Return the models of one stage, and of one panel."""
    return [one for one in found if one.stage == stage and panel in (None, one.panel)]


# -------------------------------------------------------------------------------------------------- tables of the page


@dataclass(frozen=True)
class ProbeRow:
    """One model, or one method's over several runs: a text per probe, and how it says letters."""

    panel: Panel
    model: str
    texts: list[str]
    says: str


@dataclass(frozen=True)
class ProbeTable:
    """Every probe of every model before the attack. floors: what the floors are, in a sentence."""

    heads: list[str]
    groups: list[Group[ProbeRow]]
    floors: str
    several: bool
    letters: bool


def probe_table(found: Sequence[AskedModel]) -> ProbeTable | None:
    """Return the table of probes; None where there is no table probes.csv."""
    probes = sorted({probe for one in found for probe in one.by_probe}, key=words.order)
    if not probes:
        return None
    rows, several = [], False
    for runs in _cells(found):
        several |= len(runs) > 1
        texts = [_over_runs([one.by_probe[probe] for one in runs if probe in one.by_probe]) for probe in probes]
        rows.append(ProbeRow(runs[0].panel, upper(runs[0].name), texts, _says(runs)))
    floors = words.floors_text(probes) + "."
    return ProbeTable(
        [upper(probe_name(probe)) for probe in probes],
        grouped(rows),
        floors,
        several,
        any(row.says != "–" for row in rows),
    )


def _cells(found: Sequence[AskedModel]) -> list[list[AskedModel]]:
    cells: dict[tuple, list[AskedModel]] = {}
    for one in found:
        cells.setdefault((one.panel, one.stage, one.name), []).append(one)
    return list(cells.values())


def _over_runs(found: Sequence[Asked]) -> str:
    if len(found) == 1:
        return str(found[0])
    values = [one.accuracy for one in found]
    return f"{number(sum(values) / len(values))} ({span(values)})" if values else "–"


def _says(runs: Sequence[AskedModel]) -> str:
    """Say how letters are said: the one letter where there is one, else the entropy of the letters."""
    entropies = [one.entropy for one in runs if not math.isnan(one.entropy)]
    if not entropies:
        return "–"
    ones = [one.letter for one in runs if one.letter]
    if ones and len(runs) == 1:
        letter, times, of = ones[0]
        return f"{letter} in {times} of {of} ({number(entropies[0])} bits)"
    several = f"one letter in {len(ones)} of {len(runs)} runs, " * bool(ones)
    return f"{several}{span(entropies)} bits"


@dataclass(frozen=True)
class UnlearnedRow:
    """One method, or the oracle, under the test of being unlearned; with several seeds or repeats, over all of them."""

    panel: Panel
    model: str
    counts: str
    passed: str
    failing: str
    says: str
    status: str


@dataclass(frozen=True)
class UnlearnedTest:
    """The test of being unlearned, method by method. oracle: how often the oracle passes, in a sentence, or ""."""

    margin: str
    probes: int
    groups: list[Group[UnlearnedRow]]
    oracle: str


def unlearned_test(found: Sequence[AskedModel], shown: Sequence[Result]) -> UnlearnedTest | None:
    """Return the test of the unlearned models and of the oracle; None where there is no table probes.csv."""
    rows = []
    for runs in _cells([one for one in found if one.stage in ("unlearned", "oracle")]):
        first = runs[0]
        own = [one for one in shown if (one.panel, one.method) == (first.panel, first.name)]
        if first.stage == "oracle":
            n, of, status = sum(one.passes for one in runs), len(runs), "–"
        else:
            n, of = sum(one.counts for one in own), len(own)
            status = ", ".join(dict.fromkeys(one.status_text for one in own)) or "–"
        counts = f"{n} of {of}" if of > 1 else "yes" if n else "no"
        counts = f"({counts})" if first.stage == "oracle" else counts
        rows.append(
            UnlearnedRow(first.panel, upper(first.name), counts, _passed(runs), _failing(runs), _says(runs), status)
        )
    if not rows:
        return None
    asked = [probe for one in found for probe in one.by_probe.values()]
    probes = max(len(one.by_probe) for one in found)
    return UnlearnedTest(span([one.margin for one in asked]), probes, grouped(rows), oracle_sentence(found))


def _passed(runs: Sequence[AskedModel]) -> str:
    values = [sum(probe.at_floor and not probe.below_floor for probe in one.by_probe.values()) for one in runs]
    of = max(len(one.by_probe) for one in runs)
    low, high = min(values), max(values)
    return f"{low} of {of}" if low == high else f"{low} to {high} of {of}"


def _failing(runs: Sequence[AskedModel]) -> str:
    """Name the probes by which a model is not at its floor: its limit, or in how many runs."""
    found: dict[str, list[Asked]] = {}
    for run in runs:
        for one in run.by_probe.values():
            if not one.at_floor or one.below_floor:
                found.setdefault(one.name, []).append(one)
    texts = []
    for name, hits in found.items():
        side = " (below)" if all(one.below_floor for one in hits) else ""
        last = hits[0]
        limit = f"{number(last.upper_95)} against {number(last.floor + last.margin)}"
        texts.append(f"{name}{side} " + (limit if len(runs) == 1 else f"{len(hits)} of {len(runs)}"))
    return "; ".join(texts) or "none"


def oracle_sentence(found: Sequence[AskedModel]) -> str:
    """Say how often the oracle passes the test; "" without an oracle."""
    panels = dict.fromkeys(one.panel for one in found)
    oracles = {panel: own for panel in panels if (own := of_stage(found, "oracle", panel))}
    if not oracles:
        return ""
    head = "The oracle, which was trained without the facts,"
    if any(len(own) > 1 for own in oracles.values()):
        parts = []
        for panel, own in oracles.items():
            n = sum(one.passes for one in own)
            parts.append(f"in {n} of {len(own)} seeds ({percent(round(n / len(own), 3))}; {panel.name})")
        return f"{head} passes {listed(parts)}."
    passed = [panel.name for panel, own in oracles.items() if own[0].passes]
    if len(passed) in (0, len(oracles)):
        return f"{head} {'passes' if passed else 'does not pass'}{' in each arm' * (len(oracles) > 1)}."
    failed = [panel.name for panel in oracles if panel.name not in passed]
    return f"{head} passes in some arms ({listed(passed)}) and does not in others ({listed(failed)})."


# ---------------------------------------------------------------------------------------------------- for the caveats


def not_known_text(found: Sequence[AskedModel], panel: Panel, headline: Sequence[str], known: float) -> str:
    """Say what the original of a panel knows: by the headline probes, and whether it holds letters by place."""
    originals = of_stage(found, "original", panel)
    if not originals:
        return panel.facts

    def value(probe: str) -> float:
        return sum(one.by_probe[probe].accuracy for one in originals) / len(originals)

    held = [probe for probe in headline if probe in originals[0].by_probe]
    parts = [f"{number(value(probe))} by {probe_name(probe)}" for probe in held]
    text = f"{panel.facts} ({' and '.join(parts)}; {number(known)} is asked for where it was trained to)"
    if {"letter", "letter_permuted"} <= set(originals[0].by_probe):
        gap = value("letter") - value("letter_permuted")
        if gap > BY_PLACE:
            text += (
                f", of which it holds the letters by place: {number(value('letter'))} with the choices where they were"
            )
    return text


BY_PLACE = 0.2  # with the choices permuted, an original loses so much that it knew letters by their place


def alone(found: Sequence[AskedModel], shown: Sequence[Result]) -> dict[str, list[AskedModel]]:
    """Return {probe: models that do not count, but would if this probe were asked alone}, by the probe's order."""
    left_out = {(one.panel, one.method, one.seed) for one in shown if one.counts or not one.known}
    hits: dict[str, list[AskedModel]] = {}
    for one in of_stage(found, "unlearned"):
        if (one.panel, one.name, one.seed) in left_out or one.passes:
            continue
        for probe in one.by_probe.values():
            if probe.at_floor and not probe.below_floor:
                hits.setdefault(probe.probe, []).append(one)
    return dict(sorted(hits.items(), key=lambda pair: words.order(pair[0])))

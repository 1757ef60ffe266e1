"""Words of the figure `probes`: what each model answers before any attack, by every probe."""

from dataclasses import dataclass

import pandas as pd

from rtt.figures.phrases import count, counted, counted_of, listed, upper
from rtt.figures.style import CHANCE, FLOORS, PROBES, interval, number, span
from rtt.figures.view import Panel, View
from rtt.stats import criterion
from rtt.study import names

ONE_LETTER = 0.8  # from this share of the answers on, a model says one letter
AT, ABOVE, BELOW = "at its floor", "above its floor", "below its floor"
MODEL = ["probe", "dataset", "model", "arm", "seed", "method"]  # rows of one model by one probe, one for each run
MARKS = {AT: "o", ABOVE: ">", BELOW: "<"}


@dataclass(frozen=True)
class Model:
    """One model of a panel in probes.csv, with its name in the figure."""

    name: str
    stage: str
    method: str | None


def models(view: View) -> list[Model]:
    """Return the models of the figure, in its order."""
    unlearned = [Model(method, "unlearned", method) for method in view.methods]
    return [
        Model("original", "original", None),
        *unlearned,
        Model("oracle", "oracle", None),
        Model("control", "control", None),
    ]


def probes_of(view: View) -> list[str]:
    """Return the probes that probes.csv holds, in the order of the tables."""
    if view.probes is None:
        return []
    return sorted(set(view.probes["probe"]), key=order)


def order(probe: str) -> tuple[int, str]:
    """Return by what probes are sorted: their place in the tables, unknown ones last by name."""
    return (names.PROBES.index(probe) if probe in names.PROBES else len(names.PROBES), probe)


def counts_at(view: View, panel: Panel, method: str) -> bool:
    """Say whether a method's model counts as unlearned."""
    return criterion.counts(view.of(panel, method))


def place_of(rows: pd.DataFrame) -> str:
    """Say where one probe's rows lie: at the floor in 8 of 10 of them, below it in any, else above it."""
    if (rows["below_floor"] == True).any():  # noqa: E712  a cell may be unknown
        return BELOW
    return AT if (rows["at_floor"] == True).mean() >= criterion.COUNTS_FROM else ABOVE  # noqa: E712


def said(rows: pd.DataFrame) -> dict[str, int]:
    """Return how often each letter was said to the probe `letter`, over all rows: {"A": 2, "C": 158}."""
    found: dict[str, int] = {}
    for text in rows.loc[rows["probe"] == "letter", "said"]:
        for part in str(text).split(";") if isinstance(text, str) and text else []:
            letter, _, times = part.partition(":")
            found[letter] = found.get(letter, 0) + int(times)
    return dict(sorted(found.items()))


def one_letter(rows: pd.DataFrame) -> tuple[str, int, int] | None:
    """Return (letter, times, answers) where a model says one letter to at least `ONE_LETTER` of the questions."""
    found = said(rows)
    total = sum(found.values())
    if not total:
        return None
    letter = max(found, key=found.__getitem__)
    return (letter, found[letter], total) if found[letter] >= ONE_LETTER * total else None


def heading(view: View, panel: Panel, model: Model) -> str:
    """Return what stands above a model: its name, and whether it counts."""
    if model.stage != "unlearned":
        return model.name
    rows = view.of(panel, model.method)
    if rows.empty:
        return model.name
    n, of = int(rows["counts"].sum()), len(rows)
    return f"{model.name}\n" + (f"{n} of {of} count" if of > 1 else "counts" if n else "not counted")


def title(view: View) -> str:
    """Say how many models count, and how many would if a single probe were asked: by it, all their runs must pass."""
    if view.probes is None or view.probes.empty:
        return "Nothing is known about the models before the attack: there is no table of probes"
    head = counted_of(view.recovery)
    rows = view.probes[view.probes["stage"] == "unlearned"]
    passes = (rows["at_floor"] == True) & (rows["below_floor"] == False)  # noqa: E712  a cell may be unknown
    models = passes.groupby([rows[name] for name in MODEL], sort=False).all()
    alone = [
        (upper(PROBES.get(probe, probe)), int(own.sum()), len(own))
        for probe, own in models.groupby(level="probe", sort=False)
    ]
    if not alone:
        return f"{head}: no unlearned model was asked"
    name, most, of = max(alone, key=lambda one: one[1])
    if most <= int(view.recovery["counts"].sum()):
        return f"{head} by every probe; no single probe would pass more"
    return f"{head} by every probe; {name.lower()} alone would pass {count(most, of, 'model')}"


def head(view: View) -> str:
    """Say what the figure shows."""
    return (
        "Points with 95 % intervals: accuracy before any attack by every probe, for the original, each method's chosen "
        "point, the oracle and the control. A grey band leads from each probe's floor to the floor plus the margin. "
        "Hollow marks belong to models that do not count as unlearned. The last row shows how often each letter was "
        "said."
    )


def model_text(view: View, panel: Panel, model: Model) -> str:
    """Say what one model answers by each probe."""
    rows = view.asked(panel, model.stage, model.method)
    parts = []
    for probe in probes_of(view):
        own = rows[rows["probe"] == probe]
        if len(own):
            place = "" if model.stage == "original" else f", {place_of(own)}"
            limits = f"(floor {number(own['floor'].mean())}{place})"
            parts.append(f"{PROBES.get(probe, probe)} {_value(own)} {limits}")
    if letter := one_letter(rows):
        parts.append(f"says {letter[0]} in {letter[1]} of {letter[2]}")
    what = heading(view, panel, model).replace("\n", " ")
    return f"{what}, {panel.name}: {'; '.join(parts)}; {counted(rows)}"


def _value(rows: pd.DataFrame) -> str:
    if len(rows) == 1:
        return interval(*(float(rows[name].iloc[0]) for name in ("accuracy", "low", "high")))
    return f"{number(rows['accuracy'].mean())} ({len(rows)} runs {span(rows['accuracy'])})"


def of_panel(view: View, panel: Panel) -> str:
    """Say what each model of a panel answers by each probe."""
    found = [model for model in models(view) if len(view.asked(panel, model.stage, model.method))]
    if not found:
        return "no model was asked"
    return ". ".join(model_text(view, panel, model).replace(f", {panel.name}:", ":", 1) for model in found)


def floors_text(found: list[str]) -> str:
    """Explain the floors of some probes: `letters: T's majority letter; ...`."""
    groups: dict[str, list[str]] = {}
    for probe in found:
        groups.setdefault(FLOORS.get(probe, CHANCE), []).append(PROBES.get(probe, probe))
    return "; ".join(f"of {listed(own)} it is {what}" for what, own in groups.items())

"""Write titles and alternative texts of the figures from the tables that they are drawn from."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from rtt.figures import words_attack, words_cost, words_probes, words_steps, words_suite
from rtt.figures.choices import Choice, choices
from rtt.figures.phrases import (
    count,
    counted,
    counted_of,
    look_text,
    mean_text,
    statuses,
    unclear,
    upper,
)
from rtt.figures.style import RATES, number, percent, span
from rtt.figures.view import Panel, View
from rtt.stats import criterion

MUCH = 0.8  # "gives back more than 80 %"
ACCURACIES = ("acc_unlearned", "acc_attacked")
ABOVE = "the control on V (95 % intervals do not overlap)"
NAMES = {"acc_unlearned": "unlearned", "retain_unlearned": "retain", **RATES}


def title(name: str, view: View) -> str:
    """Return the title of a figure, which says what is seen in it."""
    return TITLES[name](view)


def alternative(name: str, view: View) -> str:
    """Return the alternative text of a figure: what it shows, then its numbers panel by panel."""
    return " ".join(told(name, view))


def told(name: str, view: View) -> list[str]:
    """Return what a figure shows in one sentence, then a text for each of its panels with its numbers."""
    head, one = ALTERNATIVES[name]
    several = f" Means over {len(view.seeds)} seeds." if len(view.seeds) > 1 else ""
    panels = words_steps.shown_panels(view) if name == "steps" else view.panels
    return [head(view) + several, *(f"{upper(panel.facts)}: {one(view, panel)}." for panel in panels)]


# ---------------------------------------------------------------------------------------------------------- titles


def _accuracy_title(view: View) -> str:
    rows = view.recovery
    head = counted_of(rows)
    compared = _compared(rows)
    if not rows["counts"].any():
        return f"{head}; after {view.attack_title}, models reach {span(rows['acc_attacked'])} on V"
    if not compared:
        reached = span(criterion.counting(rows)["acc_attacked"])
        known = rows["acc_control_attacked"].notna().any()
        why = "which cannot be judged against the control" if known else "with no control to compare"
        return f"{head}; after {view.attack_title}, {reached} on V, {why}"
    above, of = sum(compared), len(compared)
    verb = "exceeds" if above == 1 or of == 1 else "exceed"
    return f"{head}; after {view.attack_title}, {_these(above, of, int(rows['counts'].sum()))} {verb} {ABOVE}"


def _these(n: int, of: int, counting: int) -> str:
    """Write `n` of `of` models that were just counted; `of` may be fewer than those that count."""
    if of < counting:
        verdict = f"{n or 'none'} of the {of} that can be judged"
        return {0: "not even the one", 1: "the one"}[n] + " that can be judged" if of == 1 else verdict
    if of == 1:
        return "it" if n else "none of it"
    return {0: "none of these", of: "all of these"}.get(n, f"{n} of these")


def _compared(rows: pd.DataFrame) -> list[bool]:
    """Return whether the criterion holds, for each model of which it can be judged."""
    return [holds for holds in criterion.judged(rows) if holds is not None]


def _recovery_title(view: View) -> str:
    parts, untold = [], 0
    for panel in view.panels:
        rows = criterion.counting(view.of(panel))
        wide = unclear(rows, "recovery_corrected")
        untold += int(wide.sum())
        clear = rows[~wide].groupby("method")["recovery_corrected"].mean().dropna()
        failed = rows.loc[rows["attack_learned"] == False, "method"]  # noqa: E712
        low = clear.index[clear <= MUCH].intersection(failed)  # lower bounds: it may be more
        untold += int((~wide & rows["method"].isin(low)).sum())
        clear = clear.drop(low)
        parts.append((panel, int((clear > MUCH).sum()), len(clear)))
    panel, much, of = parts[0]
    end = "".join(f"; {p.name}: {f'{m} of {n}' if n else 'nothing to judge'}" for p, m, n in parts[1:])
    end += f"; {untold} cannot be told" if untold else ""
    head = counted_of(view.recovery)
    if not of:
        rate = "no recovery rate" + (" that tells" if untold else "")
        return f"{head}; for the {panel.facts} there is {rate}{end}"
    verb = "gives" if much == 1 or of == 1 else "give"
    subject = _these(much, of, int(view.recovery["counts"].sum()))
    return (
        f"{head}; after {view.attack_title}, {subject} {verb} back more than {percent(MUCH)} of the {panel.facts}{end}"
    )


def _tradeoff_title(view: View) -> str:
    rows = view.recovery
    chosen = rows.dropna(subset=["acc_unlearned"])
    if chosen.empty:
        return f"No unlearning run has a point within the {percent(view.budget)} budget"
    subject = count(len(chosen), len(rows), "unlearning run")
    verb = "has" if len(chosen) == 1 else "have"
    n = int(chosen["counts"].sum())
    return (
        f"{upper(subject)} {verb} a point within the {percent(view.budget)} budget, and {n or 'none'} of these "
        f"{'count' if n > 1 else 'counts'} as unlearned; there, forget accuracy is {span(chosen['acc_unlearned'])} "
        f"(floor {span(chosen['floor'])})"
    )


def _sensitivity_title(view: View) -> str:
    _, *others = choices(view)
    compared = [holds for choice in others for holds in _compared(choice.rows)]
    if not others:
        return "There is no other choice to compare the reported one with"
    if not compared:
        return f"Under {len(others)} other choices, one at a time, no model counts and can be judged against a control"
    above, of = sum(compared), len(compared)
    subject = count(above, of, "result")
    verb = "exceeds" if above == 1 or of == 1 else "exceed"
    return f"Under {len(others)} other choices, one at a time, {subject} that count {verb} {ABOVE}"


def _curves_title(view: View) -> str:
    parts = []
    for name, stage, methods in (
        ("unlearned models", "unlearned_attacked", view.methods),
        ("originals", "original_attacked", ["none"]),
        ("oracles", "oracle_attacked", ["none"]),
        ("control", "control_attacked", ["none"]),
    ):
        peaks = [_peak(view, panel, stage, method) for panel in view.panels for method in methods]
        if any(not np.isnan(peak) for peak in peaks):
            parts.append(f"{name} {span(peaks)}")
    any_look = "epoch" if view.over_epochs else "setting"
    return f"Highest accuracy on V at any {any_look} of {view.attack_title}: {', '.join(parts)}"


def _peak(view: View, panel: Panel, stage: str, method: str, set_name: str = "V") -> float:
    """Return the highest accuracy of a model's looks, a mean over seeds as drawn; NaN without looks."""
    means = view.curve(panel, stage, method, set_name).groupby("setting", sort=False)["accuracy"].mean()
    return float(means.max()) if len(means) else float("nan")


# ---------------------------------------------------------------------------------------------------- alternative texts


def cell_text(view: View, panel: Panel, who: str, rows: pd.DataFrame, columns: Sequence[str]) -> str:
    """Say what a place of a figure shows: who, which facts, number of questions, values with their intervals."""
    after = f"after {view.attack_title}"
    values = ", ".join(f"{NAMES.get(column, after)} {mean_text(rows, column)}" for column in columns)
    several = f", mean of {len(rows)} seeds" if len(rows) > 1 else ""
    odd = judged(rows) if who.split(",")[0] in set(rows["method"]) else ""
    return f"{who}, {panel.name}: {values}{odd}; {counted(rows)}{several}"


def judged(rows: pd.DataFrame) -> str:
    """Say in brackets whether one method's model counts as unlearned, with its statuses that are not `ok`."""
    n, of = int(rows["counts"].sum()), len(rows)
    text = f"counts in {n} of {of} seeds" if of > 1 else "counts" if n else "does not count"
    return f" ({text}{statuses(rows).replace(' (', ': ', 1).replace(')', '') if len(statuses(rows)) else ''})"


def curves_text(view: View, panel: Panel, name: str, stage: str, method: str) -> str:
    """Say what one axes of `curves` shows on V: each curve's highest accuracy and its epoch, or every setting's."""
    table = view.curve(panel, stage, method, "V")
    parts = []
    for line in view.lines:
        looks = table[table["setting"].isin(line.places)]
        if line.name and len(looks):
            setting, text = _highest(looks)
            parts.append(f"{line.name} at most {text} (epoch {line.places[setting]})")
        elif len(looks):
            parts += [f"{setting} {look_text(cell)}" for setting, cell in looks.groupby("setting", sort=False)]
    return f"{name}, {panel.name}, on V: {'; '.join(parts)}; {counted(table)}"


def _highest(looks: pd.DataFrame) -> tuple[str, str]:
    """Return the setting at which looks, as means over seeds, are highest (the first of several), and the accuracy."""
    setting = looks.groupby("setting", sort=False)["accuracy"].mean().idxmax()
    return setting, look_text(looks[looks["setting"] == setting])


def choice_text(view: View, panel: Panel, choice: Choice) -> str:
    """Say what one row of `sensitivity` shows in a panel that has such rows."""
    rows, parts = choice.of(panel), []
    for method in view.methods:
        cell = rows[rows["method"] == method]
        if len(cell):
            values = [mean_text(cell, column) for column in ACCURACIES]
            parts.append(f"{method}{judged(cell)} {values[0]}, after {choice.attack} {values[1]}")
    parts += _beside(rows.drop_duplicates("seed"), choice.attack)
    return f"{upper(choice.label)}, {panel.name}: {'; '.join(parts)}; {counted(rows)}"


def _beside(rows: pd.DataFrame, attack: str) -> list[str]:
    """Say what the oracle, where there is one, and the control reach after an attack."""
    oracle = [f"oracle after {attack} {mean_text(rows, 'acc_oracle_attacked')}"]
    known = bool(rows["acc_oracle_attacked"].notna().any())
    return [*oracle * known, f"control after {attack} {mean_text(rows, 'acc_control_attacked')}"]


def _accuracy_panel(view: View, panel: Panel) -> str:
    rows, after = view.of(panel).drop_duplicates("seed"), f"after {view.attack_title}"
    parts = [f"original {after} {mean_text(rows, 'acc_original_attacked')}"]
    for method in view.methods:
        cell = view.of(panel, method)
        if len(cell):
            texts = mean_text(cell, "acc_unlearned"), mean_text(cell, "acc_attacked")
            parts.append(f"{method}{judged(cell)} unlearned {texts[0]}, {after} {texts[1]}")
    parts += _beside(rows, view.attack_title)
    return "; ".join([*parts, f"floor {span(rows['floor'])}", counted(rows)])


def _recovery_panel(view: View, panel: Panel) -> str:
    parts = []
    for method in view.methods:
        cell = view.of(panel, method)
        if len(cell):
            rates = ", ".join(f"{name} {mean_text(cell, column)}" for column, name in RATES.items())
            parts.append(f"{method}{judged(cell)} {rates}")
    return "; ".join([*parts, counted(view.of(panel))])


def _tradeoff_panel(view: View, panel: Panel) -> str:
    rows = view.of(panel).drop_duplicates("seed")
    parts = [f"before unlearning forget {mean_text(rows, 'acc_before')}, retain {mean_text(rows, 'retain_before')}"]
    for method in view.methods:
        cell = view.of(panel, method)
        if cell["acc_unlearned"].notna().any():
            found = mean_text(cell, "acc_unlearned"), mean_text(cell, "retain_unlearned")
            parts.append(f"{method}{judged(cell)} chosen point forget {found[0]}, retain {found[1]}")
        elif len(cell):
            parts.append(f"{method} has no point within the budget")
    return "; ".join([*parts, f"{counted(rows)} (forget)"])


def _curves_panel(view: View, panel: Panel) -> str:
    targets = [("original", "original_attacked", "none"), *((m, "unlearned_attacked", m) for m in view.methods)]
    parts = []
    targets += [("oracle", "oracle_attacked", "none")] * view.has_oracle
    for name, stage, method in [*targets, ("control", "control_attacked", "none")]:
        table = view.curve(panel, stage, method, "V")
        if table.empty:
            parts.append(f"{name} not run")
            continue
        setting, text = _highest(table)
        line = view.line_of(setting)
        where = f"{line.name}, epoch {line.places[setting]}" if line.name else setting
        on_t = _peak(view, panel, stage, method, "T")
        parts.append(f"{name} {text} on V ({where})" + ("" if np.isnan(on_t) else f", {number(on_t)} on T"))
    return f"highest point: {'; '.join(parts)}; {counted(view.of(panel))} (V)"


def _sensitivity_panel(view: View, panel: Panel) -> str:
    texts = [choice_text(view, panel, choice) for choice in choices(view) if len(choice.of(panel))]
    return ". ".join(text.replace(f", {panel.name}:", ":", 1) for text in texts)


TITLES = {
    "steps": words_steps.title,
    "accuracy": _accuracy_title,
    "probes": words_probes.title,
    "recovery": _recovery_title,
    "attacks": words_suite.title,
    "cost": words_cost.title,
    "seeds": words_attack.seeds_title,
    "attack": words_attack.title,
    "tradeoff": _tradeoff_title,
    "curves": _curves_title,
    "sensitivity": _sensitivity_title,
}


def _curves_head(view: View) -> str:
    models = "for the original, each unlearned model, the oracle and the control"
    if view.over_epochs:
        return f"Lines: accuracy on T and on V after each epoch of {view.attack_title}, by setting, {models}."
    return f"Points: accuracy on V after each setting of {view.attack_title}, {models}."


ALTERNATIVES = {
    "steps": (words_steps.head, words_steps.of_panel),
    "accuracy": (
        lambda view: (
            f"Points with 95 % intervals: accuracy on V before and after {view.attack_title}, by method, beside the "
            "attacked original, oracle and control, and the floor. Hollow marks do not count as unlearned."
        ),
        _accuracy_panel,
    ),
    "probes": (words_probes.head, words_probes.of_panel),
    "seeds": (words_attack.seeds_head, words_attack.seeds_of_panel),
    "attack": (words_attack.head, words_attack.of_panel),
    "attacks": (words_suite.head, words_suite.of_panel),
    "cost": (words_cost.head, words_cost.of_panel),
    "recovery": (lambda view: "Points with 95 % intervals: recovery rates by method.", _recovery_panel),
    "tradeoff": (
        lambda view: (
            "Lines: forget accuracy against retain accuracy along each unlearning run, with the point chosen "
            f"within the {percent(view.budget)} budget marked."
        ),
        _tradeoff_panel,
    ),
    "curves": (_curves_head, _curves_panel),
    "sensitivity": (
        lambda view: (
            "Points with 95 % intervals, a row for each way to choose otherwise: accuracy on V before and after the "
            "attack, by method, and those of the attacked oracle and control."
        ),
        _sensitivity_panel,
    ),
}

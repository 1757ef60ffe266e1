"""Write titles and alternative texts of the figures from the tables that they are drawn from."""

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd

from rtt.figures.choices import Choice, choices
from rtt.figures.style import RATES, number, percent, span, value_of
from rtt.figures.view import Panel, View
from rtt.stats.contrasts import exceeds_control

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
    return [head(view) + several, *(f"{_upper(panel.facts)}: {one(view, panel)}." for panel in view.panels)]


def wrapped(text: str, width: int) -> str:
    """Break a title into lines of at most `width` characters, about equally long; a percentage stays with its sign."""
    text = text.replace(" %", "\u00a0%")
    lines = textwrap.wrap(text, width, break_long_words=False)
    while len(shorter := textwrap.wrap(text, width - 1, break_long_words=False)) == len(lines) > 1:
        lines, width = shorter, width - 1
    return "\n".join(lines).replace("\u00a0", " ")


def count(n: int, of: int, noun: str) -> str:
    """Write `3 of 4 methods`, `all 4 methods`, `both methods`, `none of 4 methods`, `the one method`."""
    if n == of == 2:
        return f"both {noun}s"
    if of == 1:
        return f"the one {noun}" if n else f"none of 1 {noun}"
    return f"{'all' if n == of else 'none of' if n == 0 else f'{n} of'} {of} {noun}s"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


# ---------------------------------------------------------------------------------------------------------- titles


def unlearned(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows about which an attack says something: a point was chosen, and it was unlearned."""
    return rows[~rows["status"].isin(("none_within_budget", "not_unlearned"))]


def unclear(rows: pd.DataFrame, column: str) -> pd.Series:
    """Return which rows name the measure in their `cannot_tell`."""
    return pd.Series([column in str(text).split(";") for text in rows["cannot_tell"]], rows.index, dtype=bool)


def _accuracy_title(view: View) -> str:
    rows = view.recovery
    compared = _compared(rows)
    others = [
        f"{number} {text}"
        for status, text in (("not_unlearned", "not unlearned"), ("none_within_budget", "without a point"))
        if (number := int((rows["status"] == status).sum()))
    ]
    end = f"; {', '.join(others)}" if others else ""
    if not compared:
        why = "no unlearned model" if unlearned(rows).empty else "no control"
        reached = span(rows["acc_attacked"])
        return f"After {view.attack_title}, models reach {reached} on V, but there is {why} to compare{end}"
    above = sum(compared)
    subject = count(above, len(compared), "unlearned model")
    return f"After {view.attack_title}, {subject} {_exceed(above, len(compared))} {ABOVE}{end}"


def _compared(rows: pd.DataFrame) -> list[bool]:
    """Return whether the criterion holds, for each unlearned model that has a control."""
    return [holds for holds in exceeds_control(unlearned(rows)) if holds is not None]


def _exceed(n: int, of: int) -> str:
    return "exceeds" if n == 1 or of == 1 else "exceed"


def _recovery_title(view: View) -> str:
    parts, untold = [], 0
    for panel in view.panels:
        rows = unlearned(view.of(panel))
        wide = unclear(rows, "recovery_corrected")
        untold += int(wide.sum())
        known = rows[~wide].groupby("method")["recovery_corrected"].mean().dropna()
        parts.append((panel, int((known > MUCH).sum()), len(known)))
    panel, much, of = parts[0]
    end = "".join(f"; {p.name}: {f'{m} of {n}' if n else 'nothing to judge'}" for p, m, n in parts[1:])
    end += f"; {untold} cannot be told" if untold else ""
    if not of:
        return f"For the {panel.facts} there is no recovery rate{' that tells' if untold else ''}{end}"
    verb = "gives" if much == 1 else "give"
    subject = count(much, of, "method")
    return f"After {view.attack_title}, {subject} {verb} back more than {percent(MUCH)} of the {panel.facts}{end}"


def _tradeoff_title(view: View) -> str:
    rows = view.recovery
    chosen = rows.dropna(subset=["acc_unlearned"])
    if chosen.empty:
        return f"No unlearning run has a point within the {percent(view.budget)} budget"
    subject = count(len(chosen), len(rows), "unlearning run")
    verb = "has" if len(chosen) == 1 else "have"
    return (
        f"{_upper(subject)} {verb} a point within the {percent(view.budget)} budget; there, forget accuracy is "
        f"{span(chosen['acc_unlearned'])} (floor {span(chosen['floor'])})"
    )


def _sensitivity_title(view: View) -> str:
    _, *others = choices(view)
    compared = [holds for choice in others for holds in _compared(choice.rows)]
    if not compared:
        return "There is no other choice to compare the reported one with"
    above, of = sum(compared), len(compared)
    subject = count(above, of, "result")
    return f"Under {len(others)} other choices, one at a time, {subject} {_exceed(above, of)} {ABOVE}"


def _curves_title(view: View) -> str:
    parts = []
    for name, stage, methods in (
        ("unlearned models", "unlearned_attacked", view.methods),
        ("originals", "original_attacked", ["none"]),
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
    odd = statuses(rows) if who in set(rows["method"]) else ""
    return f"{who}, {panel.name}: {values}{odd}; {counted(rows)}{several}"


def counted(rows: pd.DataFrame) -> str:
    """Write the number of questions of some rows: `n = 160`, or `n = 150 to 160`."""
    low, high = int(rows["n_questions"].min()), int(rows["n_questions"].max())
    return f"n = {low}" if low == high else f"n = {low} to {high}"


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
            parts += [f"{setting} {_look_text(cell)}" for setting, cell in looks.groupby("setting", sort=False)]
    return f"{name}, {panel.name}, on V: {'; '.join(parts)}; {counted(table)}"


def _highest(looks: pd.DataFrame) -> tuple[str, str]:
    """Return the setting at which looks, as means over seeds, are highest (the first of several), and the accuracy."""
    setting = looks.groupby("setting", sort=False)["accuracy"].mean().idxmax()
    return setting, _look_text(looks[looks["setting"] == setting])


def _look_text(looks: pd.DataFrame) -> str:
    rows = looks.rename(columns={"low": "accuracy_low", "high": "accuracy_high"})
    return mean_text(rows.assign(cannot_tell=""), "accuracy")


def choice_text(view: View, panel: Panel, choice: Choice) -> str:
    """Say what one row of `sensitivity` shows in a panel that has such rows."""
    rows, parts = choice.of(panel), []
    for method in view.methods:
        cell = rows[rows["method"] == method]
        if len(cell):
            values = [mean_text(cell, column) for column in ACCURACIES]
            parts.append(f"{method}{statuses(cell)} {values[0]}, after {choice.attack} {values[1]}")
    control = mean_text(rows.drop_duplicates("seed"), "acc_control_attacked")
    parts.append(f"control after {choice.attack} {control}")
    return f"{_upper(choice.label)}, {panel.name}: {'; '.join(parts)}; {counted(rows)}"


def mean_text(rows, column: str) -> str:
    """Write one seed's value with its interval, or the mean and the range of several seeds."""
    known = rows.dropna(subset=[column])
    if known.empty:
        return "no value"
    if len(known) == 1:
        return value_of(known.iloc[0], column) if f"{column}_low" in known else number(known[column].iloc[0])
    wide = int(unclear(known, column).sum())
    told = f", {wide} of {len(known)} cannot tell" if wide else ""
    return f"{number(known[column].mean())} (seeds {span(known[column])}{told})"


def statuses(rows) -> str:
    """Name the statuses that are not `ok`, in brackets."""
    odd = list(dict.fromkeys(status.replace("_", " ") for status in rows["status"] if status != "ok"))
    return f" ({', '.join(odd)})" if odd else ""


def _accuracy_panel(view: View, panel: Panel) -> str:
    rows, after = view.of(panel).drop_duplicates("seed"), f"after {view.attack_title}"
    parts = [f"original {after} {mean_text(rows, 'acc_original_attacked')}"]
    for method in view.methods:
        cell = view.of(panel, method)
        if len(cell):
            texts = mean_text(cell, "acc_unlearned"), mean_text(cell, "acc_attacked")
            parts.append(f"{method}{statuses(cell)} unlearned {texts[0]}, {after} {texts[1]}")
    parts.append(f"control {after} {mean_text(rows, 'acc_control_attacked')}")
    return "; ".join([*parts, f"floor {span(rows['floor'])}", counted(rows)])


def _recovery_panel(view: View, panel: Panel) -> str:
    parts = []
    for method in view.methods:
        cell = view.of(panel, method)
        if len(cell):
            rates = ", ".join(f"{name} {mean_text(cell, column)}" for column, name in RATES.items())
            parts.append(f"{method}{statuses(cell)} {rates}")
    return "; ".join([*parts, counted(view.of(panel))])


def _tradeoff_panel(view: View, panel: Panel) -> str:
    rows = view.of(panel).drop_duplicates("seed")
    parts = [f"before unlearning forget {mean_text(rows, 'acc_before')}, retain {mean_text(rows, 'retain_before')}"]
    for method in view.methods:
        cell = view.of(panel, method)
        if cell["acc_unlearned"].notna().any():
            found = mean_text(cell, "acc_unlearned"), mean_text(cell, "retain_unlearned")
            parts.append(f"{method}{statuses(cell)} chosen point forget {found[0]}, retain {found[1]}")
        elif len(cell):
            parts.append(f"{method} has no point within the budget")
    return "; ".join([*parts, f"{counted(rows)} (forget)"])


def _curves_panel(view: View, panel: Panel) -> str:
    targets = [("original", "original_attacked", "none"), *((m, "unlearned_attacked", m) for m in view.methods)]
    parts = []
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
    "accuracy": _accuracy_title,
    "recovery": _recovery_title,
    "tradeoff": _tradeoff_title,
    "curves": _curves_title,
    "sensitivity": _sensitivity_title,
}


def _curves_head(view: View) -> str:
    models = "for the original, each unlearned model and the control"
    if view.over_epochs:
        return f"Lines: accuracy on T and on V after each epoch of {view.attack_title}, by setting, {models}."
    return f"Points: accuracy on V after each setting of {view.attack_title}, {models}."


ALTERNATIVES = {
    "accuracy": (
        lambda view: (
            f"Points with 95 % intervals: accuracy on V before and after {view.attack_title}, by method, beside the "
            "attacked original, the attacked control, and the floor."
        ),
        _accuracy_panel,
    ),
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
            "attack, by method, and that of the attacked control."
        ),
        _sensitivity_panel,
    ),
}

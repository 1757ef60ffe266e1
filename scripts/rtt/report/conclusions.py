"""What the tables say, in sentences: the claim, the criterion, statements over seeds, caveats. Used by the report."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from rtt.figures.style import PROBES, dataset_title, number, percent, span, value_of
from rtt.figures.view import Panel, View, make_view
from rtt.figures.words import count, unlearned
from rtt.stats.contrasts import criterion
from rtt.stats.intervals import t_interval
from rtt.stats.recovery import TOO_WIDE

MAIN_ARM, MAIN_SEED = "pretrained", 0
T_LEARNED = 0.9  # below this accuracy on T, RTT was too weak to judge by
WIDE_TEXT = f"the interval of recovery reaches further than {number(TOO_WIDE)} from the estimate"
WIDE = 0.3  # width of a 95 % interval of the floor-corrected recovery


@dataclass(frozen=True, eq=False)
class Judged:
    """One method before the criterion."""

    row: pd.Series  # its row of recovery.csv
    holds: bool | None  # None: there is nothing to judge
    note: str


def main_panels(view: View) -> list[Panel]:
    """Panels of the arm that the criterion is about: facts learned in pretraining, else the first arm there is."""
    arms = [panel.arm for panel in view.panels]
    arm = MAIN_ARM if MAIN_ARM in arms else arms[0]
    return [panel for panel in view.panels if panel.arm == arm]


def main_seed(view: View) -> int:
    """Return seed 0 where it was run, otherwise the lowest."""
    return MAIN_SEED if MAIN_SEED in view.seeds else view.seeds[0]


def judge(view: View, panel: Panel) -> list[Judged]:
    """Apply the criterion (`rtt.stats.contrasts.criterion`) to each method of a panel, on the main seed."""
    rows = view.of(panel)
    rows = rows[rows["seed"] == main_seed(view)]
    rows = rows.set_index("method", drop=False).reindex([m for m in view.methods if m in set(rows["method"])])
    verdicts = criterion(rows, main_seed(view), panel.arm, view.budget, view.look_choice, view.probe)
    judged = []
    for (_, row), verdict in zip(rows.iterrows(), verdicts, strict=True):
        if math.isnan(verdict.low):
            judged.append(Judged(row, None, "no point of the unlearning run lies within the budget"))
        elif math.isnan(verdict.control_high):
            judged.append(Judged(row, None, "there is no control"))
        elif row["status"] == "not_unlearned":
            judged.append(Judged(row, verdict.holds, "not unlearned to the floor, so what comes back says little"))
        elif not verdict.holds and "recovery_corrected" in row["cannot_tell"].split(";"):
            judged.append(Judged(row, verdict.holds, f"cannot tell: {WIDE_TEXT}"))
        else:
            judged.append(Judged(row, verdict.holds, ""))
    return judged


def criterion_sentence(judged: list[Judged]) -> str:
    """Say whether the criterion holds, fails or cannot be decided."""
    failed = [str(j.row["method"]) for j in judged if j.holds is False]
    open_ = [str(j.row["method"]) for j in judged if j.holds is None]
    void = [str(j.row["method"]) for j in judged if j.holds and j.note]
    if failed:
        text = f"The criterion fails: for {_list(failed)} the low end does not lie above the control's high end."
        text += f" It cannot be judged for {_list(open_)}." if open_ else ""
    elif open_:
        text = f"The criterion is not met: it cannot be judged for {_list(open_)}."
    else:
        text = f"The criterion holds for {count(len(judged), len(judged), 'method')}."
    return text + (f" It says little about {_list(void)}, not unlearned to the floor." if void else "")


def claim(view: View, panel: Panel) -> str:
    """Return the claim about a panel's facts on the main seed, as one sentence computed from its rows."""
    judged = judge(view, panel)
    sound = [j for j in judged if j.holds is not None and not j.note]
    aside = [f"{j.row['method']}: {j.note}" for j in judged if j not in sound]
    left_out = f"; not counted: {', '.join(aside)}" if aside else ""
    if not sound:
        return f"Whether the {panel.facts} were removed or hidden cannot be told from this run{left_out}."
    back = [str(j.row["method"]) for j in sound if j.holds]
    gone = [str(j.row["method"]) for j in sound if not j.holds]
    rows = pd.DataFrame([j.row for j in sound])
    first = rows.iloc[0]
    if not gone:
        who = count(len(back), len(back), "method") if len(back) > 1 else back[0]
        head = f"{who[:1].upper()}{who[1:]} hid the {panel.facts}, at least in part, rather than removing them"
    elif not back:
        head = f"This run does not show that any of the {panel.facts} come back after unlearning with {_list(gone)}"
    else:
        head = f"{_list(back)} hid the {panel.facts}, at least in part, rather than removing them, "
        head += f"while this run does not show that any come back after unlearning with {_list(gone)}"
    least, most = (
        rows.loc[rows["acc_attacked"] == end].iloc[0]
        for end in (rows["acc_attacked"].min(), rows["acc_attacked"].max())
    )
    reached = f"{value_of(least, 'acc_attacked')} ({least['method']})"
    if least["method"] != most["method"]:
        reached = f"between {reached} and {value_of(most, 'acc_attacked')} ({most['method']})"
    gone_to = span(rows["acc_unlearned"])
    gone_to = f"between {gone_to.replace(' to ', ' and ')}" if " to " in gone_to else gone_to
    return (
        f"{head}: unlearning takes accuracy on V from {number(first['acc_before'])} to {gone_to} "
        f"(floor {number(first['floor'])}), and after retraining on T alone it is {reached}, against "
        f"{value_of(first, 'acc_original_attacked')} for the original and {value_of(first, 'acc_control_attacked')} for a "
        f"control that never learned the facts{left_out}."
    )


def over_seeds(view: View) -> list[dict]:
    """Return, per panel and method, acc_attacked minus acc_control_attacked: each seed's, and the mean with a t interval.

    Rows without an admissible point, without a control, or never unlearned are left out and counted.
    """
    found = []
    for panel in view.panels:
        for method in view.methods:
            rows = view.of(panel, method)
            if rows.empty:
                continue
            used = unlearned(rows).dropna(subset=["acc_attacked", "acc_control_attacked"])
            differences = (used["acc_attacked"] - used["acc_control_attacked"]).tolist()
            mean, low, high = t_interval(differences)
            above = int((used["acc_attacked_low"] > used["acc_control_attacked_high"]).sum())
            found.append(
                {"panel": panel, "method": method, "differences": differences, "mean": mean, "low": low, "high": high,
                 "n": len(used), "left_out": len(rows) - len(used), "above": above}
            )  # fmt: skip
    return found


def over_seeds_sentence(view: View) -> str:
    """Say for which methods RTT ends above the control over seeds; below two seeds, that nothing can be said."""
    if len(view.seeds) < 2:
        return (
            "This study has one seed. Its intervals hold for the models that were trained here; "
            "one seed cannot support a statement about a method or an arm."
        )
    parts = []
    for panel in view.panels:
        cells = [cell for cell in over_seeds(view) if cell["panel"] == panel and cell["n"] >= 2]
        shown = [cell["method"] for cell in cells if cell["low"] > 0]
        if cells:
            text = f"{panel.facts}: {count(len(shown), len(cells), 'method')}"
            parts.append(text + (f" ({', '.join(shown)})" if 0 < len(shown) < len(cells) else ""))
    if not parts:
        return "No method has two seeds with an unlearned model and a control, so nothing is said over seeds."
    return (
        f"Over {len(view.seeds)} seeds, the t interval of accuracy on V after RTT, unlearned minus control, lies "
        f"above 0 for {'; '.join(parts)}."
    )


def caveats(view: View, recovery: pd.DataFrame, accuracy: pd.DataFrame) -> list[str]:
    """Return what weakens the claim, one sentence or two each, computed from the tables."""
    found: list[str] = []

    def add(mask: pd.Series, text: str, show=lambda row: "", rows: pd.DataFrame | None = None) -> None:
        rows = view.recovery if rows is None else rows
        hits = [f"{_where(view, row)}{show(row)}" for _, row in rows[mask].iterrows()]
        if hits:
            found.append(f"{text}: {'; '.join(dict.fromkeys(hits))}.")

    rows = view.recovery
    once = rows.drop_duplicates(["dataset", "model", "arm", "seed"]).assign(method="control")
    add(once["acc_control_attacked"].isna(), "There is no control, so nothing guards against T teaching V", rows=once)
    add(
        once["acc_control_attacked_low"] > once["floor"],
        "The control itself ends above the floor: part of what comes back is not memory of these facts",
        lambda row: f" {value_of(row, 'acc_control_attacked')}, floor {number(row['floor'])}",
        once,
    )
    found += _other_controls(view)
    add(rows["t_acc_attacked"] < T_LEARNED, f"RTT did not learn T (accuracy on T below {number(T_LEARNED)}); a stronger RTT "
        "may bring back more", lambda row: f" {number(row['t_acc_attacked'])}")  # fmt: skip
    texts = {
        "over_unlearned": "Forget accuracy lies below the floor, which is not forgetting: the model still knows which "
        "choice to avoid",
        "not_unlearned": "Forget accuracy still lies above the floor at the selected point, so recovery says little",
        "undefined": "Original + RTT does not stand above the floor, so no recovery rate is defined",
    }
    for status, text in texts.items():
        add(
            rows["status"] == status,
            text,
            lambda row: f" {value_of(row, 'acc_unlearned')}, floor {number(row['floor'])}",
        )
    add(
        rows["status"] == "none_within_budget",
        f"No point of the unlearning run keeps retain accuracy within {percent(view.budget)}, so nothing was attacked",
    )
    add(
        rows["recovery_corrected_high"] - rows["recovery_corrected_low"] > WIDE,
        f"The interval of the floor-corrected recovery is wider than {number(WIDE)}",
        lambda row: f" {value_of(row, 'recovery_corrected')}",
    )
    found += _still_known(view, recovery, accuracy)
    found += _retain_damage(view)
    if (rows["arm"] == "taught_same_data").any():
        found.append(
            "Facts taught later from the same data: the data are the same per forget fact. The retain facts were "
            "trained in both phases, and the base model knew the other facts before."
        )
    ratio = (rows["floor"] / rows["acc_original_attacked"]).dropna()
    if len(ratio):
        found.append(
            f"The paper's ratio has a floor of its own: a model in which nothing is left would score {span(ratio)} "
            "here, not 0. The floor-corrected ratio has no such floor."
        )
    if len(view.seeds) == 1:
        found.append("One seed: intervals are over questions, for the models at hand.")
    return found


def _other_controls(view: View) -> list[str]:
    parts = []
    for panel in view.panels:
        rows = view.accuracy
        rows = rows[(rows["stage"] == "control_attacked") & (rows["arm"] == panel.arm) & (rows["model"] == panel.model)]
        own = list(dict.fromkeys(rows["dataset"]))
        if own and panel.dataset not in own:
            names = ", ".join(map(dataset_title, own))
            parts.append(f"{panel.facts} ({dataset_title(panel.dataset)}) have {names} as control")
    if not parts:
        return []
    return [
        "The control uses other facts than the arm, of the same shape, on a model that never saw those: "
        f"{'; '.join(parts)}."
    ]


def _still_known(view: View, recovery: pd.DataFrame, accuracy: pd.DataFrame) -> list[str]:
    """Name models that count as unlearned by this scoring and still know the facts by another."""
    found = []
    key = ["dataset", "model", "arm", "method", "seed"]
    here = unlearned(view.recovery)[key]
    for probe in dict.fromkeys(recovery["probe"]):
        if probe == view.probe:
            continue
        other = make_view(recovery, accuracy, view.look_choice, probe, view.budget).recovery
        both = here.merge(other[other["status"] == "not_unlearned"], on=key)
        if len(both):
            names = [f"{_where(view, row)} {value_of(row, 'acc_unlearned')}" for _, row in both.iterrows()]
            found.append(
                f"Unlearned by {PROBES.get(view.probe, view.probe)}, and yet above the floor by "
                f"{PROBES.get(probe, probe)}: {'; '.join(names)}."
            )
    return found


def _retain_damage(view: View) -> list[str]:
    before = {panel: view.of(panel)["retain_before"].mean() for panel in view.panels}
    base = next((before[panel] for panel in view.panels if panel.arm == MAIN_ARM), math.nan)
    lost = [
        f"{panel.facts} {number(value)}"
        for panel, value in before.items()
        if panel.arm != MAIN_ARM and base - value > 0.05
    ]
    if not lost:
        return []
    return [f"Teaching cost retain accuracy before any unlearning ({number(base)} without it): {'; '.join(lost)}."]


def _where(view: View, row: pd.Series) -> str:
    """Name a row: `GD, taught later, seed 3`; seeds only where there are several."""
    key = (row["dataset"], row["model"], row["arm"])
    panel = next(p for p in view.panels if (p.dataset, p.model, p.arm) == key)
    return f"{row['method']}, {panel.name}" + (f", seed {row['seed']}" if len(view.seeds) > 1 else "")


def _list(names: Iterable[str]) -> str:
    *head, last = names
    return f"{', '.join(head)} and {last}" if head else last

"""The box "How sure are we?": what matters most for this study, chosen by a rule, and what speaks for the result.

Each cause is a sentence or two for somebody who knows no statistics; `rtt.report.caveats` says all of it exactly. The
rule: causes stand in the order of how much of the result they take away, and the first `SHOWN` that apply are shown.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from rtt.figures.phrases import listed
from rtt.figures.style import dataset_title
from rtt.figures.view import Panel
from rtt.figures.words_steps import share, shares
from rtt.report.among import Among
from rtt.report.caveats import WIDE
from rtt.report.conclusions import CLAIM_SEEDS
from rtt.report.lede import word
from rtt.report.rows import Result
from rtt.report.tested import AskedModel, of_stage
from rtt.stats.criteria import Criteria
from rtt.stats.verdicts import BELOW_FLOOR, HIDDEN, NO_POINT, NONE_SHOWN, NOT_UNLEARNED

SHOWN = 3
NOT_KNOWN = "The original did not know the facts well enough{}, so nothing follows there."
NOT_LEARNED = "The original itself did not learn T in the attack{}, so there is no recovery rate."
NEAR = 0.1  # above the floor: about as by guessing


@dataclass(frozen=True)
class Sure:
    """The box: what weakens the result, the gravest first, and what speaks for it, or ""."""

    weak: list[str]
    strong: str


def sure(
    found: Sequence[AskedModel],
    shown: Sequence[Result],
    panels: Sequence[Panel],
    criteria: Criteria,
    guessed: Sequence[tuple[str, float, float]],
    among: Among | None,
    told: pd.DataFrame,
    tried: Sequence[str],
) -> Sure:
    """Return the box of a study.

    found: all models before the attack; shown: the results that the report shows; panels: those of the claim. guessed:
    (dataset, share, floor) where a classifier of texts guesses V beyond its interval. among: the reference's seeds.
    told: headline.csv's rows on the panels' facts. tried: the titles of the attacks that are no controls.
    """
    own = [one for one in shown if one.panel in panels]
    models = [one for one in found if one.panel in panels]
    none = bool((told["verdict"] == NONE_SHOWN).any())  # then another attack might change the verdict itself
    causes = (
        _of_status(own, "not_known", NOT_KNOWN),
        _control(own, criteria),
        _of_status(own, "original_not_learned", NOT_LEARNED),
        _failed(own),
        _tried(tried, told) if none else "",
        _left_out(told, models, len(panels) > 1),
        _oracle(models),
        _few_seeds(own, among),
        _guessed(guessed, panels),
        _above(own),
        _wide(own),
        "" if none else _tried(tried, told),
        _margin(own, criteria),
    )
    return Sure([text for text in causes if text][:SHOWN], _strong(own, told))


def _in_seeds(rows: Sequence[Result], own: Sequence[Result]) -> str:
    """Say in how many seeds something holds, where there are several."""
    n, of = len({one.seed for one in rows}), len({one.seed for one in own})
    return f" in {word(n)} of {word(of)} runs" if of > 1 else ""


def _of_status(own: Sequence[Result], status: str, text: str) -> str:
    """Return a text with the seeds in which a status stands, "" where it does not."""
    rows = [one for one in own if one.status == status]
    return text.format(_in_seeds(rows, own)) if rows else ""


def _control(own: Sequence[Result], criteria: Criteria) -> str:
    if all(math.isnan(one.acc_control_attacked.value) for one in own):
        return (
            "There is no control, a model that never knew the facts. So what came back may be what the attack taught."
        )
    rows = [one for one in own if one.control_learned is False]
    if not rows:
        return ""
    reached = _short(rows)
    return (
        f"The comparison is weak{_in_seeds(rows, own)}: the control learned only {reached} of T, where "
        f"{share(criteria.learned)} is asked for. Nothing is claimed from it."
    )


def _short(rows: Sequence[Result]) -> str:
    """Write the least that controls learned of T, with a decimal: it may be just short of what is asked for."""
    return f"{math.floor(1000 * min(one.t_acc_control_attacked for one in rows)) / 10:.1f} %"


def _failed(own: Sequence[Result]) -> str:
    rows = [one for one in own if one.counts and one.attack_learned is False]
    if not rows:
        return ""
    names, reached = listed(dict.fromkeys(one.method for one in rows)), shares([one.t_acc_attacked for one in rows])
    return (
        f"The attack on {names} learned only {reached} of T{_in_seeds(rows, own)}. A stronger one might bring back "
        "more, so these numbers are lower bounds."
    )


def _oracle(models: Sequence[AskedModel]) -> str:
    oracles = of_stage(models, "oracle")
    failed = {one.seed for one in oracles if not one.passes}
    seeds = {one.seed for one in oracles}
    if not failed:
        return ""
    many = f" in {word(len(failed))} of {word(len(seeds))} runs" if len(seeds) > 1 else ""
    return (
        f"The test of forgetting is strict: the oracle, which never saw the facts, does not pass it{many}. A method "
        "that fails may have removed them all the same."
    )


def _left_out(told: pd.DataFrame, models: Sequence[AskedModel], several: bool) -> str:
    """Name what does not count as unlearned, by the verdicts, with its dataset where there are several."""
    out = told[told["verdict"].isin([NOT_UNLEARNED, BELOW_FLOOR, NO_POINT])]
    if out.empty:
        return ""
    names = []
    for row in out.to_dict("records"):
        facts = f" on {dataset_title(row['dataset'])}" * several
        seeds = f" in {word(row['n_cells'] - row['n_counting'])} of {word(row['n_cells'])} runs" * (row["n_cells"] > 1)
        names.append(f"{row['method']}{facts}{seeds}")
    text = f"{listed(names)} {'do' if len(names) > 1 else 'does'} not count as unlearned"
    if set(out["verdict"]) == {NO_POINT}:
        return f"{text}: what else the model knew was lost with the facts."
    text += ": asked in other ways, the model still shows the facts or avoids them."
    letters = [one for one in of_stage(models, "unlearned") if one.letter and one.name in set(out["method"])]
    if letters:
        letter, times, of = letters[0].letter
        once = "In one run, " * bool((out["n_cells"] > 1).any())
        text += f" {once}{letters[0].name} says {letter} to {times} of {of} questions."
    return text


def _few_seeds(own: Sequence[Result], among: Among | None) -> str:
    seeds = {one.seed for one in own}
    if len(seeds) >= CLAIM_SEEDS:
        return ""
    text = (
        "This is one run: another seed gives other numbers."
        if len(seeds) == 1
        else "These are two runs, too few to generalise."
    )
    if among is not None and among.span:
        text += f" Over the project's {word(len(among.seeds))} other runs, {among.span} of what could come back did."
    return text


def _guessed(guessed: Sequence[tuple[str, float, float]], panels: Sequence[Panel]) -> str:
    own = [one for one in guessed if one[0] in {panel.dataset for panel in panels}]
    if not own:
        return ""
    _, most, floor = max(own, key=lambda one: one[1])
    return (
        f"Some of V can be guessed: a classifier that knows only the texts of T gets {share(most)} right, where chance "
        f"gives {share(floor)}."
    )


def _above(own: Sequence[Result]) -> str:
    rows = [one for one in own if one.acc_control_attacked.low > one.floor]
    return (
        f"The control ends above guessing{_in_seeds(rows, own)}, so a part of what comes back is not memory."
        if rows
        else ""
    )


def _wide(own: Sequence[Result]) -> str:
    rows = [one for one in own if one.counts and one.recovery_corrected.high - one.recovery_corrected.low > WIDE]
    return f"There are few questions ({rows[0].n_questions}), so the numbers are rough." if rows else ""


def _tried(tried: Sequence[str], told: pd.DataFrame) -> str:
    """Say how many attacks were tried, where some method was judged by them."""
    if not told["verdict"].isin([HIDDEN, NONE_SHOWN]).any():
        return ""
    which = f"Only {tried[0]} was" if len(tried) == 1 else f"{word(len(tried)).capitalize()} attacks were"
    return f"{which} tried, and another one may bring back more: what came back is a lower bound."


def _margin(own: Sequence[Result], criteria: Criteria) -> str:
    if not any(one.counts for one in own):
        return ""
    return f"The test of forgetting allows {share(criteria.margin)} above guessing, so a little may be left."


def _strong(own: Sequence[Result], told: pd.DataFrame) -> str:
    """Return what speaks for a result, where there is one: a control that learned T and stays near guessing."""
    if not told["verdict"].isin([HIDDEN, NONE_SHOWN]).any():
        return ""
    near = [one.acc_control_attacked.value - one.floor <= NEAR for one in own]
    if not all(near) or not all(one.control_learned for one in own):
        return ""
    t = shares([one.t_acc_control_attacked for one in own])
    v = shares([one.acc_control_attacked.value for one in own])
    return (
        f"The comparison is fair: the control, which never knew the facts, learned {t} of T in the same attack, and "
        f"answers {v} of V, about as by guessing."
    )

"""The box "How sure are we?": what matters most for this study, chosen by a rule, and what speaks for the result.

Each cause is a sentence or two for somebody who knows no statistics; `rtt.report.caveats` says all of it exactly. The
rule: causes stand in the order of how much of the result they take away, and the first `SHOWN` that apply are shown.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rtt.figures.phrases import listed
from rtt.figures.view import Panel
from rtt.figures.words_steps import share, shares
from rtt.report.among import Among
from rtt.report.caveats import WIDE
from rtt.report.conclusions import CLAIM_SEEDS
from rtt.report.lede import word
from rtt.report.rows import Result
from rtt.report.tested import AskedModel, of_stage
from rtt.stats.criteria import Criteria

SHOWN = 3


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
) -> Sure:
    """Return the box of a study.

    found: all models before the attack; shown: the results that the report shows; panels: those of the claim. guessed:
    (dataset, share, floor) where a classifier of texts guesses V beyond its interval. among: the reference's seeds.
    """
    own = [one for one in shown if one.panel in panels]
    models = [one for one in found if one.panel in panels]
    causes = (
        _not_known(own),
        _control(own, criteria),
        _original(own, criteria),
        _failed(own, criteria),
        _oracle(models),
        _left_out(own, models),
        _few_seeds(own, among),
        _guessed(guessed, panels),
        _above(own),
        _wide(own),
        _margin(own, criteria),
    )
    return Sure([text for text in causes if text][:SHOWN], _strong(own, criteria))


def _in_seeds(rows: Sequence[Result], own: Sequence[Result]) -> str:
    """Say in how many seeds something holds, where there are several."""
    n, of = len({one.seed for one in rows}), len({one.seed for one in own})
    return f" in {word(n)} of {word(of)} runs" if of > 1 else ""


def _not_known(own: Sequence[Result]) -> str:
    rows = [one for one in own if one.status == "not_known"]
    return (
        f"The original did not know the facts well enough{_in_seeds(rows, own)}, so nothing follows there."
        if rows
        else ""
    )


def _control(own: Sequence[Result], criteria: Criteria) -> str:
    if all(math.isnan(one.acc_control_attacked.value) for one in own):
        return "There is no control, a model that never knew the facts. So what came back may have been learned from T."
    rows = [one for one in own if one.control_learned is False]
    if not rows:
        return ""
    reached = shares([one.t_acc_control_attacked for one in rows])
    return (
        f"The comparison is weak{_in_seeds(rows, own)}: the control learned only {reached} of T, where "
        f"{share(criteria.learned)} is asked for. Nothing is claimed from it."
    )


def _original(own: Sequence[Result], criteria: Criteria) -> str:
    rows = [one for one in own if one.status == "original_not_learned"]
    return (
        f"The original itself did not learn T in the attack{_in_seeds(rows, own)}, so there is no recovery rate."
        if rows
        else ""
    )


def _failed(own: Sequence[Result], criteria: Criteria) -> str:
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
    failed = [one for one in oracles if not one.passes]
    if not failed:
        return ""
    many = f" in {word(len(failed))} of {word(len(oracles))} runs" if len(oracles) > 1 else ""
    return (
        f"The test of forgetting is strict: the oracle, which never saw the facts, fails it too{many}. A method that "
        "fails may have removed them all the same."
    )


def _left_out(own: Sequence[Result], models: Sequence[AskedModel]) -> str:
    out = {}
    for one in own:
        if not one.counts and one.status not in ("not_known", "none_within_budget"):
            out.setdefault(one.method, []).append(one)
    if not out:
        return ""
    letters = {one.name: one.letter for one in of_stage(models, "unlearned") if one.letter and one.name in out}
    names = listed(f"{name}{_in_seeds(rows, own)}" for name, rows in out.items())
    verb = "do" if len(out) > 1 else "does"
    text = (
        f"{names} {verb} not count as unlearned: asked in other ways, the model still shows the facts or avoids them."
    )
    if letters:
        name, (letter, times, of) = next(iter(letters.items()))
        text += f" {name} says {letter} to {times} of {of} questions."
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


def _margin(own: Sequence[Result], criteria: Criteria) -> str:
    if not any(one.counts for one in own):
        return ""
    return f"The test of forgetting allows {share(criteria.margin)} above guessing, so a little may be left."


def _strong(own: Sequence[Result], criteria: Criteria) -> str:
    sound = [one for one in own if one.control_learned and one.acc_control_attacked.low <= one.floor]
    if len(sound) < len(own) or not own:
        return ""
    t = shares([one.t_acc_control_attacked for one in sound])
    v = shares([one.acc_control_attacked.value for one in sound])
    return (
        f"The comparison is fair: the control, which never knew the facts, learned {t} of T in the same attack, and "
        f"still answers only {v} of V."
    )

"""What weakens the claim: a sentence or two for each cause that the results show. Pure: records in, sentences out."""

import math
from collections.abc import Callable, Iterable, Sequence

from rtt.figures.phrases import listed
from rtt.figures.style import dataset_title, number, percent, span
from rtt.figures.view import Panel
from rtt.report.conclusions import MAIN_ARM
from rtt.report.rows import Result, probe_name
from rtt.report.tested import AskedModel, alone, not_known_text, of_stage
from rtt.stats.criteria import HIDING, Criteria

WIDE = 0.3  # width of a 95 % interval of the floor-corrected recovery
RETAIN_LOST = 0.05  # of retain accuracy, by teaching
STATUSES = {
    "below_floor": "Answers lie below the floor by some probe, which is not forgetting, because the model still knows "
    "which choice to avoid",
    "not_unlearned": "Not every probe shows the model at its floor, so it does not count as unlearned, and what comes "
    "back says little",
    "undefined": "The attacked original does not exceed the floor, so no recovery rate is defined",
}


def caveats(
    found: Sequence[AskedModel],
    shown: Sequence[Result],
    controls: dict[Panel, list[str]],
    edges: Sequence[str],
    criteria: Criteria,
    guessable: Sequence[str] = (),
) -> list[str]:
    """Return the caveats of a study.

    found: all models before the attack; shown: the results that the report shows. controls: the datasets of each
    panel's control. edges: caveats about the attack's settings, which go last. guessable: datasets of which V is
    guessed from T (`rtt.report.audits.guessable`).
    """
    seeds = list(dict.fromkeys(one.seed for one in shown))
    first, attack, budget = _one_per_model(shown), shown[0].attack_title, shown[0].retain_budget
    asked = f"{number(criteria.learned)} is asked for"

    def told(rows: Iterable[Result], text: str, *, who: str = "", show: Callable[[Result], str] = lambda _: "") -> list:
        hits: dict[tuple, dict[int, str]] = {}  # (panel, who) -> seed -> what is shown
        for one in rows:
            hits.setdefault((one.panel, who or one.method), {}).setdefault(one.seed, show(one))
        names = [_named(*key, own, seeds) for key, own in hits.items()]
        return [f"{text}: {'; '.join(names)}."] if names else []

    texts = _not_known(found, shown, criteria)
    if guessable:
        texts.append(
            "A classifier that sees texts alone guesses some of V from T, so a part of what comes back may be that (an "
            f"oracle, which never knew the facts, shows how much {attack} makes of it): {'; '.join(guessable)}."
        )
    texts += told(
        (one for one in first if math.isnan(one.acc_control_attacked.value)),
        "There is no control, so what comes back may have been taught by T",
        who="control",
    )
    texts += told(
        (one for one in first if one.control_learned is False),
        f"{attack} did not bring the control to learn T ({asked}), so no claim rests on it",
        who="control",
        show=lambda one: f" {number(one.t_acc_control_attacked)}",
    )
    texts += told(
        (one for one in first if one.t_acc_oracle_attacked < criteria.learned),
        f"{attack} did not bring the oracle to learn T ({asked}), so removal may look like more than it shows",
        who="oracle",
        show=lambda one: f" {number(one.t_acc_oracle_attacked)}",
    )
    texts += told(
        (one for one in shown if one.status == "original_not_learned"),  # of a method without a point it is not told
        f"{attack} did not bring the original to learn T ({asked}), so there is no recovery rate",
        who="original",
        show=lambda one: f" {number(one.t_acc_original_attacked)}",
    )
    texts += told(
        (one for one in shown if one.attack_learned is False),
        f"{attack} did not learn T at any setting ({asked}), so what comes back is a lower bound, and a stronger "
        "attack may bring back more",
        show=lambda one: f" {number(one.t_acc_attacked)}",
    )
    texts += told(
        (one for one in first if one.acc_control_attacked.low > one.floor),
        "The control itself ends above the floor, so part of what comes back is not memory of these facts",
        who="control",
        show=lambda one: f" {one.acc_control_attacked}, floor {number(one.floor)}",
    )
    texts += _other_facts(controls)
    texts += _one_letter(found, seeds)
    for status, text in STATUSES.items():
        texts += told(
            (one for one in shown if status in _statuses(found, one)),
            text,
            show=lambda one, status=status: _failing(found, one, below=status == "below_floor"),
        )
    texts += _alone(found, shown)
    texts += _oracle(found)
    if of_stage(found, "unlearned"):
        texts.append(
            f"The test of being unlearned allows a margin of {number(criteria.margin)} above the floor: a model that "
            "knows a little less than that may count as unlearned."
        )
    texts += told(
        (one for one in shown if one.status == "none_within_budget"),
        f"No point of the unlearning run keeps the loss of retain accuracy within {percent(budget)}, so nothing was "
        "attacked",
    )
    texts += told(
        (one for one in shown if one.recovery_corrected.high - one.recovery_corrected.low > WIDE),
        f"The interval of the floor-corrected recovery is wider than {number(WIDE)}",
        show=lambda one: f" {one.recovery_corrected}",
    )
    texts += _retain_damage(shown)
    if any(one.panel.arm == "taught_same_data" for one in shown):
        texts.append(
            "For the facts taught later from the same data, the data per forget fact are the same as in pretraining. "
            "The retain facts, however, were trained in both phases, and the base model knew the other facts before."
        )
    ratios = [one.floor / one.acc_original_attacked.value for one in shown if one.acc_original_attacked.value]
    if (lowest := span(ratios)) != "unknown":
        texts.append(
            f"The paper's ratio does not start at 0: a model in which nothing is left would score {lowest} here. The "
            "floor-corrected ratio of such a model is 0."
        )
    if len(seeds) == 1:
        texts.append(
            "There is one seed, so everything here is about these weights: the intervals reflect question sampling, "
            "not training variance, and another order of the same data may give other numbers."
        )
    return [*texts, *edges]


def _one_per_model(shown: Sequence[Result]) -> list[Result]:
    """Return the first result of each panel and seed: those of one panel and seed share original and control."""
    found: dict[tuple, Result] = {}
    for one in shown:
        found.setdefault((one.panel, one.seed), one)
    return list(found.values())


def _not_known(found: Sequence[AskedModel], shown: Sequence[Result], criteria: Criteria) -> list[str]:
    """Name the facts that an original does not know, with what it answers by the headline probes."""
    texts = []
    for panel in dict.fromkeys(one.panel for one in shown):
        own = [one for one in shown if one.panel == panel]
        n, of = len({one.seed for one in own if one.status == "not_known"}), len({one.seed for one in own})
        if n:
            where = f" in {n} of {of} seeds" if of > 1 else ""
            told = not_known_text(found, panel, criteria.headline, criteria.known)
            texts.append(f"The original does not know the facts{where}, so no claim is about them: {told}.")
    return texts


def _other_facts(controls: dict[Panel, list[str]]) -> list[str]:
    parts = [
        f"for {panel.facts} ({dataset_title(panel.dataset)}) they are {', '.join(map(dataset_title, datasets))}"
        for panel, datasets in controls.items()
        if datasets and panel.dataset not in datasets
    ]
    if not parts:
        return []
    return [
        "The control is attacked with other facts than the arm, of the same shape, on a model that never saw those: "
        f"{'; '.join(parts)}."
    ]


def _one_letter(found: Sequence[AskedModel], seeds: Sequence[int]) -> list[str]:
    """Name the unlearned models that say one letter whatever is asked."""
    hits: dict[tuple, dict[int, str]] = {}
    for one in of_stage(found, "unlearned"):
        if one.letter:
            letter, times, of = one.letter
            bits = "" if math.isnan(one.entropy) else f" (entropy {number(one.entropy)} bits)"
            hits.setdefault((one.panel, one.name), {})[one.seed] = f" says {letter} in {times} of {of}{bits}"
    if not hits:
        return []
    return [
        "A model that says one letter to nearly every question scores the floor by letters, and has not forgotten "
        f"anything by that: {'; '.join(_named(*key, own, seeds) for key, own in hits.items())}."
    ]


def _alone(found: Sequence[AskedModel], shown: Sequence[Result]) -> list[str]:
    """Say by which single probe models would count that do not count by all of them."""
    parts = []
    for probe, models in alone(found, shown).items():
        by_panel: dict[Panel, list[str]] = {}
        for one in models:
            by_panel.setdefault(one.panel, []).append(one.name)
        named = [f"{_many(names)} ({panel.name})" for panel, names in by_panel.items()]
        parts.append(f"by {probe_name(probe)} {', '.join(named)}")
    if not parts:
        return []
    return [f"One probe alone would have called models unlearned that do not count: {'; '.join(parts)}."]


def _many(names: Sequence[str]) -> str:
    """Write `GD and RMU`, or of several seeds or repeats `GD in 3 and RMU in 10 runs`."""
    if len(set(names)) == len(names):
        return listed(names)
    return listed(f"{name} in {names.count(name)}" for name in dict.fromkeys(names)) + " runs"


def _statuses(found: Sequence[AskedModel], one: Result) -> tuple[str, ...]:
    """Return a result's status, and behind one about its original why its model does not count."""
    if one.counts or one.status not in HIDING:
        return (one.status,)
    return one.status, "below_floor" if _failing(found, one, below=True) else "not_unlearned"


def _failing(found: Sequence[AskedModel], one: Result, below: bool) -> str:
    """Name the probes by which a result's model is not at its floor, or below it."""
    own = [t for t in of_stage(found, "unlearned", one.panel) if (t.name, t.seed) == (one.method, one.seed)]
    probes = dict.fromkeys(probe.name for t in own for probe in (t.below if below else t.above))
    return f" ({', '.join(probes)})" if probes else ""


def _oracle(found: Sequence[AskedModel]) -> list[str]:
    """Say where the oracle itself does not pass the test, which is then too strict for the number of questions."""
    parts = []
    for panel in dict.fromkeys(one.panel for one in found):
        oracles = of_stage(found, "oracle", panel)
        failed = [one for one in oracles if not one.passes]
        if failed:
            probes = list(dict.fromkeys(probe.name for one in failed for probe in (*one.above, *one.below)))
            many = f" in {len(failed)} of {len(oracles)} seeds" if len(oracles) > 1 else ""
            parts.append(f"{panel.name}{many} ({', '.join(probes)})")
    if not parts:
        return []
    return [
        "The oracle never saw the facts and does not pass the test of being unlearned, so a method that fails it may "
        f"have removed them all the same: {'; '.join(parts)}."
    ]


def _retain_damage(shown: Sequence[Result]) -> list[str]:
    before: dict[Panel, list[float]] = {}
    for one in shown:
        before.setdefault(one.panel, []).append(one.retain_before)
    means = {panel: sum(values) / len(values) for panel, values in before.items()}
    base = next((mean for panel, mean in means.items() if panel.arm == MAIN_ARM), None)
    lost = [
        f"{panel.facts} {number(mean)}"
        for panel, mean in means.items()
        if base is not None and panel.arm != MAIN_ARM and base - mean > RETAIN_LOST
    ]
    if not lost:
        return []
    return [
        f"Teaching lowered retain accuracy before any unlearning (it is {number(base)} without teaching): "
        f"{'; '.join(lost)}. A retain budget is a share of what was left, so it allows less there in absolute terms."
    ]


def _named(panel: Panel, who: str, hits: dict[int, str], seeds: Sequence[int]) -> str:
    """Name what is hit, as in `GD, taught later, seed 3`: seeds only where there are several, and few are hit."""
    where = f"{who}, {panel.name}"
    if len(seeds) == 1:
        return where + next(iter(hits.values()))
    if len(hits) == 1:
        return f"{where}, seed {next(iter(hits))}{next(iter(hits.values()))}"
    return f"{where}, in {len(hits)} of {len(seeds)} seeds"

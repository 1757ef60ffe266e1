"""What weakens the claim: a sentence or two for each cause that the results show. Pure: records in, sentences out."""

import math
from collections.abc import Callable, Iterable, Sequence

from rtt.figures.style import dataset_title, number, percent, span
from rtt.figures.view import Panel
from rtt.report.conclusions import MAIN_ARM
from rtt.report.rows import Result, probe_name

T_LEARNED = 0.9  # below this accuracy on T an attack was too weak to judge by
WIDE = 0.3  # width of a 95 % interval of the floor-corrected recovery
RETAIN_LOST = 0.05  # of retain accuracy, by teaching
STATUSES = {
    "below_floor": "Forget accuracy lies below the floor, which is not forgetting, because the model still knows "
    "which choice to avoid",
    "not_unlearned": "Forget accuracy still lies above the floor at the chosen point, so recovery says little",
    "undefined": "The attacked original does not exceed the floor, so no recovery rate is defined",
    "not_known": "The original does not know the facts by both headline probes, so there is little to unlearn",
    "original_not_learned": "The attack on the original did not learn T, so there is no recovery rate to speak of",
    "attack_failed": "The attack did not learn T in every run, so recovery is a lower bound",
}


def caveats(
    found: Sequence[Result], shown: Sequence[Result], controls: dict[Panel, list[str]], edges: Sequence[str]
) -> list[str]:
    """Return the caveats of a study.

    found: all results of the variant `default`; shown: those that the report shows. controls: the datasets of each
    panel's control. edges: caveats about the attack's settings, which go last.
    """
    seeds = list(dict.fromkeys(one.seed for one in shown))
    first, attack, budget = _one_per_model(shown), shown[0].attack_title, shown[0].retain_budget

    def told(rows: Iterable[Result], text: str, *, who: str = "", show: Callable[[Result], str] = lambda _: "") -> list:
        hits = dict.fromkeys(f"{_where(one, seeds, who)}{show(one)}" for one in rows)
        return [f"{text}: {'; '.join(hits)}."] if hits else []

    texts = told(
        (one for one in first if math.isnan(one.acc_control_attacked.value)),
        "There is no control, so what comes back may have been taught by T",
        who="control",
    )
    texts += told(
        (one for one in first if one.acc_control_attacked.low > one.floor),
        "The control itself ends above the floor, so part of what comes back is not memory of these facts",
        who="control",
        show=lambda one: f" {one.acc_control_attacked}, floor {number(one.floor)}",
    )
    texts += _other_facts(controls)
    texts += told(
        (one for one in shown if one.t_acc_attacked < T_LEARNED),
        f"{attack} did not learn T (accuracy on T stays below {number(T_LEARNED)}), so a stronger attack may bring "
        "back more",
        show=lambda one: f" {number(one.t_acc_attacked)}",
    )
    for status, text in STATUSES.items():
        texts += told(
            (one for one in shown if one.status == status),
            text,
            show=lambda one: f" {one.acc_unlearned}, floor {number(one.floor)}",
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
    texts += _still_known(found, shown, seeds)
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
        texts.append("There is one seed, so the intervals reflect question sampling, not training variance.")
    return [*texts, *edges]


def _one_per_model(shown: Sequence[Result]) -> list[Result]:
    """Return the first result of each panel and seed: those of one panel and seed share their control."""
    found: dict[tuple, Result] = {}
    for one in shown:
        found.setdefault((one.panel, one.seed), one)
    return list(found.values())


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


def _still_known(found: Sequence[Result], shown: Sequence[Result], seeds: Sequence[int]) -> list[str]:
    """Name the models that count as unlearned by the main probe and still know the facts by another one."""
    main = shown[0]
    unlearned = {(one.panel, one.method, one.seed) for one in shown if one.unlearned}
    texts = []
    for probe in dict.fromkeys(one.probe for one in found if one.probe != main.probe):
        known = [
            one
            for one in found
            if one.probe == probe
            and (one.attack, one.look_choice, one.retain_budget) == (main.attack, main.look_choice, main.retain_budget)
            and one.status == "not_unlearned"
            and (one.panel, one.method, one.seed) in unlearned
        ]
        if known:
            names = "; ".join(f"{_where(one, seeds)} {one.acc_unlearned}" for one in known)
            texts.append(
                f"Models that count as unlearned by {probe_name(main.probe)} stay above the floor by "
                f"{probe_name(probe)}: {names}."
            )
    return texts


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
        f"{'; '.join(lost)}."
    ]


def _where(one: Result, seeds: Sequence[int], who: str = "") -> str:
    """Name a result, as in `GD, taught later, seed 3`; seeds only where there are several."""
    return f"{who or one.method}, {one.panel.name}" + (f", seed {one.seed}" if len(seeds) > 1 else "")

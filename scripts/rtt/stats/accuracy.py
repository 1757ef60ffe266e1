"""accuracy.csv: every accuracy of every model, on V, T and retain questions."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from rtt.files import natural
from rtt.scoring.read import AttackScores, PointScores
from rtt.stats.assemble import ArmScores, in_order, place
from rtt.stats.criteria import Criteria
from rtt.stats.intervals import Z95, effective, wilson
from rtt.stats.look_choice import LOOK_CHOICES
from rtt.stats.reported import attacked, t_at, v_correct, v_groups, v_view
from rtt.stats.variants import FIRST_ATTACK
from rtt.study.names import DEFAULT, NONE, POOLED, PROBES, setting_text

COLUMNS = [
    *("dataset", "arm", "model", "method", "attack", "variant", "seed", "retain_budget", "unlearning_repeat", "stage"),
    *("v_split", "set", "look_choice", "probe", "run", "step", "setting", "n_questions", "n_correct"),
    *("accuracy", "low", "high"),
]
VALUES = COLUMNS[:-3]


def accuracy_table(
    arms: Sequence[ArmScores],
    variant: str = DEFAULT,
    attacks: Sequence[str] = FIRST_ATTACK,
    detailed: Iterable[str] = PROBES,
) -> pd.DataFrame:
    """Return every accuracy with its interval; looks stand in the order of their attack's settings.

    Values after an attack are means over its repeats. T pooled over V splits or looks scores a question several times:
    its interval counts questions (or groups), not answers. Of the looks, V splits have rows of their own by the
    `detailed` probes, and by the others at the chosen looks only.
    """
    rows = _Rows(set(detailed))
    shown: set[tuple] = set()
    for arm in arms:
        key = dict(zip(("dataset", "arm", "model", "seed"), arm.key, strict=True), variant=variant)
        alone = {**key, "method": NONE, "unlearning_repeat": 0}
        rows.of_points({**alone, "attack": NONE, "stage": "original"}, arm.original, [(0, None, None)])
        for name in sorted(arm.original_attacked, key=lambda name: place(attacks, name)):
            rows.of_attack({**alone, "stage": "original_attacked"}, arm.original_attacked[name])
        chosen = in_order(key for key, point in arm.chosen.items() if point is not None)
        for method, repeat in dict.fromkeys((m, u) for m, _, u in in_order((m, 0.0, u) for m, u in arm.unlearned)):
            own = {**key, "method": method, "unlearning_repeat": repeat}
            budgets = [budget for m, budget, u in chosen if (m, u) == (method, repeat)]
            for points in arm.unlearned[method, repeat]:
                which = [(i, None, step) for i, step in enumerate(points.steps)]
                for budget in budgets:
                    found, at = arm.point(method, budget, repeat)
                    which += [(at, budget, points.steps[at])] if found is points else []
                rows.of_points({**own, "attack": NONE, "stage": "unlearned", "run": points.run_id}, points, which)
            for name in sorted(arm.attack_names(), key=lambda name: place(attacks, name)):
                for budget in (one for one in budgets if arm.has(name, method, one, repeat)):
                    _, step = arm.chosen[method, budget, repeat]
                    head = {**own, "stage": "unlearned_attacked", "retain_budget": budget, "step": step}
                    rows.of_attack(head, arm.attacks[name, method, budget, repeat])
        for stage, others in (("control_attacked", arm.controls), ("oracle_attacked", arm.oracles)):
            for name in sorted(others, key=lambda name: place(attacks, name)):
                labels = others[name].labels
                head = {**alone, "dataset": labels.dataset, "model": labels.model, "stage": stage}
                if (once := (*head.values(), name)) not in shown:  # two datasets of an arm may share a control
                    shown.add(once)
                    rows.of_attack(head, others[name])
    return rows.table()


class _Rows:
    """Rows of the table as they are found, each with the effective number of questions and the quantile."""

    def __init__(self, detailed: set[str]):
        self.rows: list[tuple] = []
        self.detailed = detailed

    def table(self) -> pd.DataFrame:
        table = pd.DataFrame(self.rows, columns=[*VALUES, "n_effective", "z"])
        table["retain_budget"] = table["retain_budget"].astype(float)
        table["step"] = table["step"].astype("Int64").astype(object).where(table["step"].notna(), None)
        table["accuracy"] = table["n_correct"] / table["n_questions"]
        n, z = table.pop("n_effective").to_numpy(), table.pop("z").to_numpy()
        table["low"], table["high"] = wilson(table["accuracy"] * n, n, z)
        return table[COLUMNS]

    def add(self, head: dict, v_split: str, name: str, look_choice: str, probe: str, counts: tuple, setting: str = ""):
        """Add a row. `counts`: (right answers, answers, effective number of questions, quantile)."""
        n_correct, n, effective_n, z = counts
        values = {**head, "v_split": v_split, "set": name, "look_choice": look_choice, "probe": probe}
        values |= {"setting": setting, "n_questions": n, "n_correct": n_correct}
        self.rows.append((*(values.get(column) for column in VALUES), effective_n, z))

    def of_points(self, head: dict, points: PointScores, which: list[tuple[int, float | None, int | None]]) -> None:
        splits = sorted(set(points.forget.splits), key=natural)
        masks = {split: np.array([s == split for s in points.forget.splits]) for split in splits}
        masks[POOLED] = np.ones(len(points.forget.ids), bool)
        for at, budget, step in which:
            here = {**head, "retain_budget": budget, "step": step}
            for probe in (name for name in PROBES if name in points.forget_correct):
                correct = points.forget_correct[probe][at]
                for split, mask in masks.items():
                    self.add(here, split, "V", NONE, probe, _counts(correct, points.forget.groups, mask))
                if len(retain := points.retain_correct[probe][at]):
                    self.add(here, POOLED, "retain", NONE, probe, _counts(retain, points.retain.groups))

    def of_attack(self, head: dict, attack: AttackScores) -> None:
        if not attack.settings:
            return
        _, split_of = v_view(attack)
        head = {**head, "attack": attack.attack}
        masks = {(v, name): split_of == v for v, name in enumerate(attack.v_splits)}
        masks[None, POOLED] = np.ones(len(split_of), bool)
        for probe in (name for name in PROBES if name in attack.correct):
            shown = masks if probe in self.detailed else {(None, POOLED): masks[None, POOLED]}
            correct = v_correct(attack, probe)
            for index, setting in enumerate(attack.settings):
                everywhere = [[(index, v) for v in range(len(attack.v_splits))]] * len(correct)
                mean = correct[:, index].mean(axis=0)
                self.of_sets(head, attack, NONE, probe, mean, everywhere, shown, setting_text(setting))
            for look_choice in LOOK_CHOICES:
                found = attacked(attack, probe, look_choice)
                self.of_sets(head, attack, look_choice, probe, found.correct.mean(axis=0), found.pairs, masks)

    def of_sets(self, head, attack, look_choice, probe, correct, pairs, masks, setting="") -> None:
        groups = v_groups(attack)
        for (v, name), mask in masks.items():
            if attack.uses_t:
                used = [[pair for pair in some if v in (None, pair[1])] for some in pairs]
                counts = *t_at(attack, probe, used), Z95
                self.add(head, name, "T", look_choice, probe, counts, setting)
            self.add(head, name, "V", look_choice, probe, _counts(correct, groups, mask), setting)


def _counts(correct: np.ndarray, groups: Sequence[str], mask: np.ndarray | None = None) -> tuple:
    if mask is not None:
        correct, groups = correct[mask], [groups[i] for i in np.flatnonzero(mask)]
    return float(correct.sum()), len(correct), *effective(correct, groups, 0.975)


def detailed(probes: Sequence[str], criteria: Criteria) -> list[str]:
    """Return the probes whose looks are shown split by split: the tables' first, the headline ones, and the paper's."""
    return [probes[0], *criteria.headline, "letter"]

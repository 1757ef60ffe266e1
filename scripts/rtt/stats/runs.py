"""recovery.csv and runs.csv: what attacks bring back, run by run and as means over the runs of a cell.

A run is one unlearning of a method and one repeat of an attack on it, with its own look choice; the original's same
repeat of the attack stands beside it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from rtt.scoring.held_out import perplexity
from rtt.scoring.read import AttackScores
from rtt.stats.answers import ANSWER_KEY, Answers
from rtt.stats.assemble import ArmScores, arm_order, place
from rtt.stats.criteria import (
    DEFAULT_CRITERIA,
    Criteria,
    below_floor,
    known,
    pooled_t,
    status,
    unlearned,
)
from rtt.stats.floors import mean
from rtt.stats.intervals import interval
from rtt.stats.learning import learning
from rtt.stats.look_choice import LOOK_CHOICES
from rtt.stats.probes import by_probe
from rtt.stats.recovery import QUANTITIES, RATES, cannot_tell, recover
from rtt.stats.reported import before, first_of, t_counts, v_groups, v_view
from rtt.stats.strongest import Suite, attacked, held, repeats_of
from rtt.stats.variants import FIRST_ATTACK
from rtt.study import plugins
from rtt.study.names import DEFAULT, OF_ATTACKS, POOLED, PROBES, STRONGEST, STRONGEST_ATTACK

ATTACKED = ("acc_attacked", "acc_original_attacked", "acc_control_attacked", "acc_oracle_attacked")
INTERVALS = ("acc_unlearned", *ATTACKED)
WITH_ENDS = [f"{name}{end}" for name in INTERVALS for end in ("", "_low", "_high")]
KEYS = ["dataset", "arm", "model", "method", "attack", "variant", "seed"]
COLUMNS = [
    *KEYS,
    *("retain_budget", "look_choice", "probe", "n_questions", "n_groups", "n_runs", "acc_before", *WITH_ENDS),
    *("t_acc_attacked", "t_acc_original_attacked", "t_acc_control_attacked", "t_acc_oracle_attacked"),
    *("attack_learned", "control_learned"),
    *("retain_before", "retain_unlearned", "perplexity_before", "perplexity_unlearned", "floor", "original_floor"),
    *(f"{name}{end}" for name in QUANTITIES for end in ("", "_low", "_high")),
    *("counts", "status", "cannot_tell"),
]
RUN_COLUMNS = [
    *KEYS,
    *("unlearning_repeat", "attack_repeat", "retain_budget", "look_choice", "probe", "v_split", "n_questions"),
    *("acc_unlearned", "acc_attacked", "acc_original_attacked", "t_acc_attacked"),
    *("perplexity_before", "perplexity_unlearned", "floor", "original_floor"),
]


@dataclass(frozen=True, eq=False)
class Run:
    """A run by one probe and look choice: (n,) floats of the V questions, the original's among them.

    guess, original_guess: what a guesser scores on each, by the probes that were reported. t: (S,) accuracy on T of the
    model of each V split at the look that learned T best, and that look's over all of them.
    """

    unlearning: int
    repeat: int
    unlearned: np.ndarray
    attacked: np.ndarray
    original: np.ndarray
    guess: np.ndarray
    original_guess: np.ndarray
    t: tuple[np.ndarray, float]


@dataclass(frozen=True, eq=False)
class Cell:
    """An arm's method at one retain budget under one attack, with all its unlearning runs."""

    arm: ArmScores
    attack: str
    method: str
    budget: float
    repeats: tuple[int, ...]  # of unlearning
    criteria: Criteria
    trained: bool

    def points(self) -> dict[int, tuple]:
        """Return {repeat of unlearning: its trajectory and point there}, of those that have an admissible point."""
        found = {repeat: self.arm.point(self.method, self.budget, repeat) for repeat in self.repeats}
        return {repeat: point for repeat, point in found.items() if point is not None}

    def perplexities(self) -> dict[int, float]:
        """Return {repeat of unlearning: its point's perplexity of held-out text}; NaN where that was not scored."""
        return {repeat: perplexity(points.text, at) for repeat, (points, at) in self.points().items()}

    def attack_on(self, repeat: int) -> AttackScores | Suite:
        """Return the attack on the point of one unlearning run."""
        return self.arm.attacks[self.attack, self.method, self.budget, repeat]

    def probes(self) -> list[str]:
        """Return the probes that all evaluations of the cell hold; `sampled` needs those after the attack alone."""
        arm = self.arm
        every = [arm.original.forget_correct]
        every += [one.forget_correct for repeat in self.repeats for one in arm.unlearned[self.method, repeat]]
        others = [arm.controls.get(self.attack), arm.oracles.get(self.attack)]
        after = [held(arm.original_attacked[self.attack])]
        after += [held(found) for found in others if found is not None and found.settings]
        after += [held(self.attack_on(repeat)) for repeat in self.points()]
        needed = {probe: after if probe in OF_ATTACKS else every + after for probe in PROBES}
        return [probe for probe in PROBES if all(probe in found for found in needed[probe])]

    def runs(self, look_choice: str, probe: str) -> list[Run]:
        """Return every run of a cell, those with an admissible point."""
        original = self.arm.original_attacked[self.attack]
        positions, _ = v_view(original)
        beside, found = attacked(original, probe, look_choice), []
        for unlearning, (points, at) in self.points().items():
            gone, scores = before(points, at, probe).correct[positions], self.attack_on(unlearning)
            back, t = attacked(scores, probe, look_choice), _best_t(scores, self.criteria)
            found += [
                Run(
                    unlearning,
                    repeat,
                    gone,
                    back.correct[repeat],
                    beside.correct[repeat],
                    back.guess[repeat],
                    beside.guess[repeat],
                    t[repeat],
                )
                for repeat in range(len(back.correct))
            ]
        return found

    def judged(self) -> dict[str, Any]:
        """Return what holds of the cell whatever the probe and look choice: its columns, and what its status needs."""
        arm, criteria = self.arm, self.criteria
        rows = [row for points, at in self.points().values() for row in by_probe(points, at, criteria).values()]
        knows = known(by_probe(arm.original, 0, criteria), criteria, self.trained or arm.key[1] != "pretrained")
        point, gone, below = len(self.points()) == len(self.repeats), unlearned(rows), below_floor(rows)
        on = [arm.original_attacked[self.attack], arm.controls.get(self.attack), arm.oracles.get(self.attack)]
        found = learning([self.attack_on(repeat) for repeat in self.points()], *on, criteria)
        original = found.pop("original_learned")
        return {
            **found,
            "counts": point and knows and gone and not below,
            "status": {
                **dict(point=point, knows=knows, below=below, gone=gone),
                "original": original,
                "attacked": found["attack_learned"],
            },
        }


def _best_t(attack: AttackScores | Suite, criteria: Criteria) -> list[tuple[np.ndarray, float]]:
    """Return, per repeat, the T accuracy of each V split's model and of all, at the look that learned T best.

    Of a suite it is that of the attack that learned T best.
    """
    if isinstance(attack, Suite):
        every = [_best_t(one, criteria) for one in attack.members]
        runs = [[one[min(run, len(one) - 1)] for one in every] for run in range(attack.repeats)]
        return [max(run, key=lambda t: -1 if math.isnan(t[1]) else t[1]) for run in runs]
    repeats = repeats_of(attack)
    if not attack.uses_t:
        return [(np.full(len(attack.v_splits), np.nan), math.nan)] * repeats
    pooled, found = pooled_t(attack, criteria), []
    for repeat in range(repeats):
        probe = max(pooled, key=lambda one: pooled[one][repeat].max())
        look = int(pooled[probe][repeat].argmax())
        counts, totals = t_counts(attack, probe)
        found.append((counts[repeat, look] / totals, float(pooled[probe][repeat, look])))
    return found


def cells(arm: ArmScores, criteria: Criteria, trained: bool) -> list[Cell]:
    """Return the cells of an arm; an attack that was not run on it has none."""
    found = []
    for attack in arm.attack_names():
        for (method, budget), repeats in arm.cells().items():
            there = tuple(repeat for repeat in repeats if arm.has(attack, method, budget, repeat))
            if there:
                found.append(Cell(arm, attack, method, budget, there, criteria, trained))
    return found


def recovery_table(
    arms: Sequence[ArmScores],
    variant: str = DEFAULT,
    probes: Sequence[str] = PROBES,
    attacks: Sequence[str] = FIRST_ATTACK,
    criteria: Criteria = DEFAULT_CRITERIA,
    trained: bool = True,
    answers: dict[tuple, Answers] | None = None,
) -> pd.DataFrame:
    """Return the recovery table: one row per arm, method, attack, seed, budget, look choice and probe.

    `probes` and `attacks` give their order, and other attacks follow by name; figures and report show the first ones.
    The probe `strongest` follows the others, for the look choice `nested`. `trained`: the study pretrains its model
    itself. An arm on which an attack was not run has no rows of it. `answers`: a dict that the answers behind each row
    with a point are put into, by `ANSWER_KEY`.
    """
    rows = []
    for arm in arms:
        for cell in cells(arm, criteria, trained):
            judged = cell.judged()
            for look_choice, probe in _views(cell):
                row, own = _recovery_row(cell, look_choice, probe)
                row |= judged | {"variant": variant}
                if answers is not None and own is not None:
                    answers[tuple(row[name] for name in ANSWER_KEY)] = own
                defined = not math.isnan(row.pop("rate"))
                if judged["status"]["original"] is False:  # what the rates divide by is too small
                    row |= {f"{name}{end}": math.nan for name in RATES for end in ("", "_low", "_high")}
                row["status"] = status(**judged["status"], defined=defined)
                rows.append({**row, "cannot_tell": ";".join(cannot_tell(row))})
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.iloc[_order(rows, probes, attacks)].reset_index(drop=True)


def _views(cell: Cell) -> list[tuple[str, str]]:
    """Return the look choices and probes by which a cell is reported."""
    probes = cell.probes()
    look_choices = LOOK_CHOICES if cell.attack != STRONGEST_ATTACK else ("nested",)
    found = [(look_choice, probe) for look_choice in look_choices for probe in probes]
    return found + [("nested", STRONGEST)] * (len(probes) > 1)


def _order(rows: list[dict], probes: Sequence[str], attacks: Sequence[str]) -> list[int]:
    order = {name: i for i, name in enumerate([*LOOK_CHOICES, *probes, STRONGEST])}
    return sorted(
        range(len(rows)),
        key=lambda i: (
            *arm_order(*(rows[i][name] for name in ("dataset", "arm", "model", "seed")))[:3],
            plugins.place("methods", rows[i]["method"]),
            rows[i]["attack"] == STRONGEST_ATTACK,
            place(attacks, rows[i]["attack"]),
            rows[i]["seed"],
            rows[i]["retain_budget"],
            order[rows[i]["look_choice"]],
            order[rows[i]["probe"]],
        ),
    )


def _recovery_row(cell: Cell, look_choice: str, probe: str) -> tuple[dict, Answers | None]:
    """Return a row's numbers, with the `rate` (NaN: undefined) that decides on its status; and the answers behind it,
    None without a point.
    """
    arm, on_original = cell.arm, cell.arm.original_attacked[cell.attack]
    positions, split_of = v_view(on_original)
    groups, runs = v_groups(on_original), cell.runs(look_choice, probe)
    beside = attacked(on_original, probe, look_choice)
    original, original_floor = beside.correct.mean(axis=0), mean(beside.guess.ravel())
    floor = mean(np.ravel([run.guess for run in runs])) if runs else original_floor
    retain = probe if probe in arm.original.retain_correct else cell.criteria.judges(arm.original.retain_correct)[0]
    row = {
        **_keys(cell, look_choice, probe),
        **dict(n_questions=len(positions), n_groups=len(set(groups)), n_runs=len(runs)),
        **dict(floor=floor, original_floor=original_floor),
        "acc_before": float(before(arm.original, 0, probe).correct[positions].mean()),
        "retain_before": _mean(arm.original.retain_correct[retain][0]),
        "perplexity_before": perplexity(arm.original.text, 0),
        **_accuracy("acc_original_attacked", original, groups),
    }
    for name, others in (("control", arm.controls), ("oracle", arm.oracles)):
        if cell.attack in others:
            other = others[cell.attack]
            found = attacked(other, probe, look_choice).correct.mean(axis=0)
            row |= _accuracy(f"acc_{name}_attacked", found, v_groups(other))
    strata = 2 * split_of + first_of(on_original)
    gone, back = (np.mean([getattr(run, name) for run in runs], axis=0) if runs else np.zeros(len(positions))
                  for name in ("unlearned", "attacked"))  # fmt: skip
    found = recover(original, gone, back, strata, floor, groups=groups, original_floor=original_floor)
    row["rate"] = float(found["recovery"][0])
    if runs:
        row |= _accuracy("acc_unlearned", gone, groups) | _accuracy("acc_attacked", back, groups)
        kept = [_mean(points.retain_correct[retain][at]) for points, at in cell.points().values()]
        row["retain_unlearned"] = float(np.mean(kept))
        row["perplexity_unlearned"] = float(np.mean(list(cell.perplexities().values())))
        for name, values in found.items():
            row |= dict(zip((name, f"{name}_low", f"{name}_high"), map(float, values), strict=True))
    if not runs:
        return row, None
    return row, Answers(back, original, np.unique(groups, return_inverse=True)[1], floor, original_floor)


def _keys(cell: Cell, look_choice: str, probe: str) -> dict[str, Any]:
    dataset, arm, model, seed = cell.arm.key
    return {
        **dict(dataset=dataset, arm=arm, model=model, method=cell.method, attack=cell.attack, seed=seed),
        **dict(retain_budget=cell.budget, look_choice=look_choice, probe=probe),
    }


def _accuracy(name: str, correct: np.ndarray, groups: Sequence[str]) -> dict:
    low, high = interval(correct, groups)
    return {name: float(correct.mean()), f"{name}_low": low, f"{name}_high": high}


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def runs_table(
    arms: Sequence[ArmScores],
    variant: str = DEFAULT,
    probes: Sequence[str] = PROBES,
    attacks: Sequence[str] = FIRST_ATTACK,
    criteria: Criteria = DEFAULT_CRITERIA,
) -> pd.DataFrame:
    """Return runs.csv: a row per run, look choice and probe, over all V splits; of the headline probes and `strongest`
    also a row per V split.

    `t_acc_attacked` is the accuracy on T at the look that learned T best, by the better of the headline probes.
    """
    rows = []
    for arm in arms:
        for cell in cells(arm, criteria, True):
            _, split_of = v_view(arm.original_attacked[cell.attack])
            masks = {POOLED: np.ones(len(split_of), bool)}
            single = masks | {name: split_of == v for v, name in enumerate(arm.original_attacked[cell.attack].v_splits)}
            detailed, texts = (*criteria.judges(cell.probes()), STRONGEST), cell.perplexities()
            for look_choice, probe in _views(cell):
                for run in cell.runs(look_choice, probe):
                    head = {**_keys(cell, look_choice, probe), "variant": variant}
                    head |= {"unlearning_repeat": run.unlearning, "attack_repeat": run.repeat}
                    head |= {"perplexity_before": perplexity(arm.original.text, 0)}
                    head |= {"perplexity_unlearned": texts[run.unlearning]}
                    for v, (name, mask) in enumerate((single if probe in detailed else masks).items()):
                        rows.append({
                            **head, "v_split": name, "n_questions": int(mask.sum()),
                            "acc_unlearned": float(run.unlearned[mask].mean()),
                            "acc_attacked": float(run.attacked[mask].mean()),
                            "acc_original_attacked": float(run.original[mask].mean()),
                            "t_acc_attacked": float(run.t[0][v - 1]) if v else run.t[1],
                            "floor": mean(run.guess[mask]),
                            "original_floor": mean(run.original_guess[mask]),
                        })  # fmt: skip
    table = pd.DataFrame(rows, columns=RUN_COLUMNS)
    return table.iloc[_order(rows, probes, attacks)].reset_index(drop=True)

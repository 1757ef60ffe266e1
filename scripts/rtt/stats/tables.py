"""`python -m rtt tables`: evaluation JSON -> recovery, accuracy, contrasts and variants .csv (docs/architecture.md)."""

import argparse
import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from rtt.errors import UserError
from rtt.files import natural, write_text
from rtt.scoring.read import PROBES, AttackScores, PointScores, read_folder
from rtt.stats.assemble import METHODS, ArmScores, arm_order, assemble, floor_of, place, t_at, v_correct, v_view
from rtt.stats.contrasts import BEFORE_TOLERANCE, UNLEARNED_TOLERANCE, contrasts
from rtt.stats.intervals import wilson
from rtt.stats.look_choice import LOOK_CHOICES, choose, halves
from rtt.stats.recovery import QUANTITIES, cannot_tell, recover, status
from rtt.stats.variants import StudyRuns, variant_effects
from rtt.study.names import DEFAULT

STAGES = ("original", "unlearned", "original_attacked", "unlearned_attacked", "control_attacked")
INTERVALS = ("acc_unlearned", "acc_attacked", "acc_original_attacked", "acc_control_attacked")


def _with_ends(names: Iterable[str]) -> list[str]:
    return [column for name in names for column in (name, f"{name}_low", f"{name}_high")]


RECOVERY_COLUMNS = [
    *("dataset", "arm", "model", "method", "variant", "seed", "retain_budget", "look_choice", "probe", "n_questions"),
    *("acc_before", *_with_ends(INTERVALS), "t_acc_attacked", "retain_before", "retain_unlearned", "floor"),
    *(*_with_ends(QUANTITIES), "status", "cannot_tell"),
]
ACCURACY_COLUMNS = [
    *("dataset", "arm", "model", "method", "variant", "seed", "retain_budget", "stage", "v_split", "set"),
    *("look_choice", "probe", "run", "step", "lr", "epoch", "n_questions", "n_correct", "accuracy", "low", "high"),
]
# Settings, written as Python's str: six decimals would make 0 of a learning rate of 1e-7.
SETTINGS = ("retain_budget", "lr")
TEXT = ("why", "per_seed", "cannot_tell", "run")  # an empty cell is the empty text, not an unknown value


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--evals", required=True, type=Path, help="folder of evaluation JSON files")
    parser.add_argument("--point-choices", required=True, type=Path, help="folder of point choice JSON files")
    parser.add_argument(
        "--plan", type=Path, help="the study's runs.json: its variants and their runs, where a folder holds others too"
    )
    parser.add_argument("--out", required=True, type=Path, help="folder for the four .csv files")
    parser.add_argument(
        "--before-tolerance",
        type=float,
        default=BEFORE_TOLERANCE,
        help="arms are comparable where their acc_before differ by at most this (default: %(default)s)",
    )
    parser.add_argument(
        "--unlearned-tolerance",
        type=float,
        default=UNLEARNED_TOLERANCE,
        help="arms are comparable where their acc_unlearned differ by at most this (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Read the folders and write the four tables."""
    plan = StudyRuns.read(args.plan)
    stems = None if args.plan is None else dict.fromkeys(stem for one in plan.variants.values() for stem in one.evals)
    found = read_folder(args.evals, stems)  # each file once: variants share runs
    recoveries, accuracies = [], []
    for name, variant in plan.variants.items():
        own = set(variant.evals)
        evals = [one for one in found if args.plan is None or one.path.stem in own]
        studies = assemble(evals, args.point_choices, None if args.plan is None else variant.point_choices)
        recoveries.append(recovery_table(studies, name, plan.probes))
        accuracies.append(accuracy_table(studies, name))
    recovery = pd.concat(recoveries, ignore_index=True)
    default = recovery[recovery["variant"] == DEFAULT]
    tables = {
        "recovery": recovery,
        "accuracy": pd.concat(accuracies, ignore_index=True),
        "contrasts": contrasts(default, args.before_tolerance, args.unlearned_tolerance),
        "variants": variant_effects(recovery, {name: one.reported for name, one in plan.variants.items()}),
    }
    for name, table in tables.items():
        if "per_seed" in table:
            table["per_seed"] = [";".join(f"{value:.6f}" for value in values) for values in table["per_seed"]]
        write_table(args.out / f"{name}.csv", table)
        print(f"{args.out / name}.csv: {len(table)} rows")
    return 0


def write_table(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table as CSV: floats with 6 decimals, settings (budget, lr) as Python's str, unknown values empty."""
    columns = [[_cell(name, value) for value in table[name].tolist()] for name in table.columns]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(zip(*columns, strict=True))
    write_text(path, text.getvalue())


def read_table(path: str | Path) -> pd.DataFrame:
    """Read one of the tables. `none` and other words stay text; an empty cell is NaN ("" in `TEXT` columns)."""
    try:
        table = pd.read_csv(path, keep_default_na=False, na_values=[""])
    except FileNotFoundError:
        hint = "`python -m rtt tables` writes it, a study's run does too; is it in another folder?"
        raise UserError(f"{path}: no such file; {hint}") from None
    for name in TEXT:
        if name in table:
            table[name] = table[name].astype(object).where(table[name].notna(), "").astype(str)
    return table


def _cell(name: str, value) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and name not in SETTINGS:
        text = f"{value:.6f}"
        return "0.000000" if text == "-0.000000" else text
    return str(value)


def recovery_table(studies: list[ArmScores], variant: str = DEFAULT, probes: Sequence[str] = PROBES) -> pd.DataFrame:
    """Return the recovery table; one row per arm, method, seed, budget, look choice and scoring.

    `probes` is the order of the probes; the first is the study's main one, which figures and report show.
    """
    rows = []
    for study in studies:
        if study.original_attacked is None:
            continue  # nothing was attacked: there is no recovery
        for method, budget in sorted(study.selected, key=lambda key: place(METHODS, key[0])):
            for look_choice in LOOK_CHOICES:
                for probe in _probes(study, method, budget):
                    row = _recovery_row(study, method, budget, look_choice, probe)
                    rows.append({**row, "variant": variant, "cannot_tell": ";".join(cannot_tell(row))})
    table = pd.DataFrame(rows, columns=RECOVERY_COLUMNS)
    order = {name: i for i, name in enumerate([*LOOK_CHOICES, *probes])}
    keys = sorted(
        range(len(rows)),
        key=lambda i: (
            *arm_order(*(rows[i][name] for name in ("dataset", "arm", "model", "seed")))[:3],
            place(METHODS, rows[i]["method"]),
            rows[i]["seed"],
            rows[i]["retain_budget"],
            order[rows[i]["look_choice"]],
            order[rows[i]["probe"]],
        ),
    )
    return table.iloc[keys].reset_index(drop=True)


def _probes(study: ArmScores, method: str, budget: float) -> list[str]:
    """The probes that all evaluations of a row hold."""
    held = [study.original.forget_correct, study.original_attacked.correct]
    held += [points.forget_correct for points in study.unlearned[method]]
    attack = study.attacks.get((method, budget))
    held += [found.correct for found in (attack, study.control) if found is not None and found.looks]
    return [probe for probe in PROBES if all(probe in found for found in held)]


def _recovery_row(study: ArmScores, method: str, budget: float, look_choice: str, probe: str) -> dict:
    dataset, arm, model, seed = study.key
    positions, split_of = v_view(study.original_attacked)
    n = len(positions)
    floor = floor_of(study.original_attacked, probe)
    original, _ = _chosen(study.original_attacked, look_choice, probe)
    row = {
        **dict(dataset=dataset, arm=arm, model=model, method=method, seed=seed, retain_budget=budget),
        **dict(look_choice=look_choice, probe=probe, n_questions=n, floor=floor),
        "acc_before": float(study.original.forget_correct[probe][0, positions].mean()),
        "retain_before": _mean(study.original.retain_correct[probe][0]),
        **_accuracy("acc_original_attacked", original),
    }
    if study.control is not None:
        row |= _accuracy("acc_control_attacked", _chosen(study.control, look_choice, probe)[0])
    unlearned_count = None
    if (point := study.point(method, budget)) is not None:
        points, at = point
        unlearned = points.forget_correct[probe][at, positions]
        unlearned_count = int(unlearned.sum()), n
        rtt, row["t_acc_attacked"] = _chosen(study.attacks[method, budget], look_choice, probe)
        row |= _accuracy("acc_unlearned", unlearned) | _accuracy("acc_attacked", rtt)
        row["retain_unlearned"] = _mean(points.retain_correct[probe][at])
        strata = 2 * split_of + halves(split_of)
        for name, values in recover(original, unlearned, rtt, strata, floor).items():
            row |= dict(zip((name, f"{name}_low", f"{name}_high"), map(float, values), strict=True))
    row["status"] = status((int(original.sum()), n), unlearned_count, floor)
    return row


def _chosen(attack: AttackScores, look_choice: str, probe: str) -> tuple[np.ndarray, float]:
    """Return (n,) bool, correct at the chosen looks, and the T accuracy there."""
    _, split_of = v_view(attack)
    correct = v_correct(attack, probe)
    choice = choose(look_choice, correct, split_of, attack.looks)
    n_correct, n, _ = t_at(attack, probe, choice.pairs)
    return correct[choice.chosen, np.arange(len(split_of))], n_correct / n


def _accuracy(name: str, correct: np.ndarray) -> dict:
    low, high = wilson(int(correct.sum()), len(correct))
    return {name: float(correct.mean()), f"{name}_low": float(low), f"{name}_high": float(high)}


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def accuracy_table(studies: list[ArmScores], variant: str = DEFAULT) -> pd.DataFrame:
    """Return every accuracy with its Wilson interval, tidy.

    T pooled over V splits or looks scores a question several times: its interval counts questions, not answers.
    """
    rows: list[tuple] = []
    shown: set[tuple] = set()
    for study in studies:
        key = dict(zip(("dataset", "arm", "model", "seed"), study.key, strict=True), variant=variant)
        _points_rows(rows, {**key, "method": "none", "stage": "original"}, study.original, [(0, None, None)])
        if study.original_attacked is not None and study.original_attacked.looks:
            _attack_rows(rows, {**key, "method": "none", "stage": "original_attacked"}, study.original_attacked)
        for method in sorted(study.unlearned, key=lambda name: place(METHODS, name)):
            budgets = sorted(budget for (m, budget), at in study.selected.items() if m == method and at is not None)
            head = {**key, "method": method, "stage": "unlearned"}
            for points in study.unlearned[method]:
                which = [(i, None, step) for i, step in enumerate(points.steps)]
                for budget in budgets:
                    chosen, at = study.point(method, budget)
                    which += [(at, budget, points.steps[at])] if chosen is points else []
                _points_rows(rows, {**head, "run": points.run_id}, points, which)
            for budget in budgets:
                _, step = study.selected[method, budget]
                head = {**key, "method": method, "stage": "unlearned_attacked", "retain_budget": budget, "step": step}
                if (method, budget) in study.attacks:
                    _attack_rows(rows, head, study.attacks[method, budget])
        if study.control is not None:
            labels = study.control.labels
            head = {
                **key,
                "dataset": labels.dataset,
                "model": labels.model,
                "method": "none",
                "stage": "control_attacked",
            }
            if (once := tuple(head.items())) not in shown:  # two datasets of an arm may share a control
                shown.add(once)
                _attack_rows(rows, head, study.control)
    table = pd.DataFrame(rows, columns=[*ACCURACY_COLUMNS[:-3], "n_effective"])
    for name in ("retain_budget", "lr"):
        table[name] = table[name].astype(float)
    for name in ("step", "epoch"):
        table[name] = table[name].astype("Int64").astype(object).where(table[name].notna(), None)
    table["accuracy"] = table["n_correct"] / table["n_questions"]
    n = table.pop("n_effective")
    table["low"], table["high"] = wilson(table["accuracy"] * n, n)
    return table[ACCURACY_COLUMNS]


def _row(
    rows: list, head: dict, v_split: str, set_name: str, look_choice: str, probe: str, counts: tuple, look=(None, None)
) -> None:
    n_correct, n, *distinct = counts
    values = {**head, "v_split": v_split, "set": set_name, "look_choice": look_choice, "probe": probe}
    values |= {"lr": look[0], "epoch": look[1], "n_questions": n, "n_correct": n_correct}
    rows.append((*(values.get(name) for name in ACCURACY_COLUMNS[:-3]), distinct[0] if distinct else n))


def _points_rows(
    rows: list, head: dict, points: PointScores, which: list[tuple[int, float | None, int | None]]
) -> None:
    splits = sorted(set(points.forget.splits), key=natural)
    masks = {split: np.array([s == split for s in points.forget.splits]) for split in splits}
    masks["all"] = np.ones(len(points.forget.ids), bool)
    for at, budget, step in which:
        here = {**head, "retain_budget": budget, "step": step}
        for probe in (name for name in PROBES if name in points.forget_correct):
            correct = points.forget_correct[probe][at]
            for split, mask in masks.items():
                _row(rows, here, split, "V", "none", probe, (int(correct[mask].sum()), int(mask.sum())))
            retain = points.retain_correct[probe][at]
            if len(retain):
                _row(rows, here, "all", "retain", "none", probe, (int(retain.sum()), len(retain)))


def _attack_rows(rows: list, head: dict, attack: AttackScores) -> None:
    _, split_of = v_view(attack)
    names = [*attack.v_splits, "all"]
    groups = [*range(len(attack.v_splits)), None]
    masks = [split_of == v if v is not None else np.ones(len(split_of), bool) for v in groups]
    for probe in (name for name in PROBES if name in attack.correct):
        correct = v_correct(attack, probe)
        for index, look in enumerate(attack.looks):
            everywhere = [(index, v) for v in range(len(attack.v_splits))]
            _set_rows(rows, head, attack, "none", probe, correct[index], everywhere, names, groups, masks, look)
        for look_choice in LOOK_CHOICES:
            choice = choose(look_choice, correct, split_of, attack.looks)
            reported = correct[choice.chosen, np.arange(len(split_of))]
            _set_rows(rows, head, attack, look_choice, probe, reported, choice.pairs, names, groups, masks)


def _set_rows(rows, head, attack, look_choice, probe, reported, pairs, names, groups, masks, look=(None, None)) -> None:
    for name, group, mask in zip(names, groups, masks, strict=True):
        used = [pair for pair in pairs if group is None or pair[1] == group]
        _row(rows, head, name, "T", look_choice, probe, t_at(attack, probe, used), look)
        _row(rows, head, name, "V", look_choice, probe, (int(reported[mask].sum()), int(mask.sum())), look)

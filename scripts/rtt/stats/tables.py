"""`python -m rtt tables`: turn evaluation JSON into the four tables of docs/architecture.md."""

import argparse
import csv
import io
import math
import re
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from rtt import records
from rtt.errors import UserError
from rtt.files import natural, write_text
from rtt.scoring.evidence import check_chain
from rtt.scoring.halves import halves
from rtt.scoring.read import AttackScores, PointScores, read_folder
from rtt.stats import unfinished
from rtt.stats.assemble import ArmScores, arm_order, assemble, floor_of, place, t_at, v_correct, v_view
from rtt.stats.contrasts import BEFORE_TOLERANCE, UNLEARNED_TOLERANCE, contrasts
from rtt.stats.intervals import wilson
from rtt.stats.look_choice import LOOK_CHOICES, choose
from rtt.stats.recovery import QUANTITIES, cannot_tell, recover, status
from rtt.stats.variants import FIRST_ATTACK, StudyRuns, variant_effects
from rtt.study import plugins
from rtt.study.names import DEFAULT, PROBES, setting_text

INTERVALS = ("acc_unlearned", "acc_attacked", "acc_original_attacked", "acc_control_attacked")


def _with_ends(names: Iterable[str]) -> list[str]:
    return [column for name in names for column in (name, f"{name}_low", f"{name}_high")]


RECOVERY_COLUMNS = [
    *("dataset", "arm", "model", "method", "attack", "variant", "seed", "retain_budget", "look_choice", "probe"),
    "n_questions",
    *("acc_before", *_with_ends(INTERVALS), "t_acc_attacked", "retain_before", "retain_unlearned", "floor"),
    *(*_with_ends(QUANTITIES), "status", "cannot_tell"),
]
ACCURACY_COLUMNS = [
    *("dataset", "arm", "model", "method", "attack", "variant", "seed", "retain_budget", "stage", "v_split", "set"),
    *("look_choice", "probe", "run", "step", "setting", "n_questions", "n_correct", "accuracy", "low", "high"),
]
FORMULA = re.compile(r"[=+@\t-]")  # how one begins, for a spreadsheet
NUMBERS = re.compile(r"([-+]?\d[\d.]*(e[-+]?\d+)?(;(?=.)|$))+")  # one, or those of several seeds
TEXT = ("why", "per_seed", "cannot_tell", "run", "setting")  # an empty cell is the empty text, not an unknown value


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--results", type=Path, help="folder of a study, in place of the four folders and files below")
    parser.add_argument("--evals", type=Path, help="folder of evaluation JSON files")
    parser.add_argument("--point-choices", type=Path, help="folder of point choice JSON files")
    parser.add_argument(
        "--runs", type=Path, help="the study's runs.json: its variants and their runs, where a folder holds others too"
    )
    parser.add_argument("--out", type=Path, help="folder for the four .csv files")
    records.configure(parser)
    parser.add_argument(
        "--partial",
        action="store_true",
        help="of an unfinished study, write what is there as *.partial.csv, with missing.partial.csv",
    )
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
    """Read the folders and write the four tables; with --partial those of what is there, under other names."""
    if args.results is not None:
        args.evals, args.point_choices = args.results / "evals", args.results / "point_choices"
        args.runs, args.out = args.runs or args.results / "runs.json", args.out or args.results / "tables"
    for flag, folder in (("--evals", args.evals), ("--point-choices", args.point_choices), ("--out", args.out)):
        if folder is None:
            raise UserError(f"{flag}: missing; give it, or --results FOLDER of a study")
    runs = StudyRuns.read(args.runs)
    end = ".csv"
    if args.partial:
        if args.runs is None:
            raise UserError("--partial: --runs is missing, the study's runs.json; only it says what a study lacks")
        runs, missing = unfinished.present(runs, args.evals, args.point_choices)
        end = ".partial.csv"
        write_table(args.out / f"missing{end}", unfinished.table(missing))
        print(unfinished.note(missing, args.evals.parent), file=sys.stderr)
    found = compute(
        runs,
        args.evals,
        args.point_choices,
        args.runs is not None,
        args.partial,
        args.before_tolerance,
        args.unlearned_tolerance,
    )
    for name, table in found.items():
        write_table(args.out / f"{name}{end}", table)
        print(f"{args.out / name}{end}: {len(table)} rows")
    if args.record:
        records.write(args.record, _read(runs, args), [args.out / f"{name}{end}" for name in found])
    return 0


def _read(runs: StudyRuns, args: argparse.Namespace) -> list[Path]:
    """Return the evaluations and point choices that the tables are made of."""
    folders = {"evals": args.evals, "point_choices": args.point_choices}
    if args.runs is None:
        return [path for folder in folders.values() for path in records.files_of(folder)]
    named = [(folder, getattr(one, kind)) for one in runs.variants.values() for kind, folder in folders.items()]
    return list(dict.fromkeys(folder / f"{stem}.json" for folder, stems in named for stem in stems))


def compute(
    runs: StudyRuns,
    evals: Path,
    point_choices: Path,
    named: bool = True,
    partial: bool = False,
    before: float = BEFORE_TOLERANCE,
    unlearned: float = UNLEARNED_TOLERANCE,
) -> dict[str, pd.DataFrame]:
    """Return the four tables by name, from the folders `evals` and `point_choices`.

    `named`: only the files that `runs` names count, not all of the folders. `partial`: where something is missing, what
    needs it is left out. Raises UserError where files are missing, damaged, or contradict each other.
    """
    stems = dict.fromkeys(stem for one in runs.variants.values() for stem in one.evals) if named else None
    found = read_folder(evals, stems) if stems is None or stems or not partial else []  # each once: variants share runs
    check_chain(found, evals.parent if named else None)
    recoveries, accuracies = [], []
    for name, variant in runs.variants.items():
        own = {evals / f"{stem}.json" for stem in variant.evals}  # an attack's stem is RUN/TARGET
        scored = [one for one in found if not named or one.path in own]
        arms = assemble(scored, point_choices, variant.point_choices if named else None, partial)
        recoveries.append(recovery_table(arms, name, runs.probes, runs.attacks))
        accuracies.append(accuracy_table(arms, name, runs.attacks))
    recovery = pd.concat(recoveries, ignore_index=True)
    default = recovery[recovery["variant"] == DEFAULT]
    tables = {
        "recovery": recovery,
        "accuracy": pd.concat(accuracies, ignore_index=True),
        "contrasts": contrasts(default, before, unlearned),
        "variants": variant_effects(recovery, {name: one.reported for name, one in runs.variants.items()}),
    }
    for table in tables.values():
        if "per_seed" in table:
            table["per_seed"] = [";".join(f"{value:.6f}" for value in values) for values in table["per_seed"]]
    return tables


def write_table(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table as CSV: floats with 6 decimals, retain budgets as Python's str, unknown values as empty cells."""
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
    for name in table.select_dtypes(["object", "string"]):
        quoted = table[name].astype(str).str.match(f"'{FORMULA.pattern}")  # by `harmless`
        if quoted.any():
            table[name] = table[name].where(~quoted, table[name].astype(str).str[1:])
    for name in TEXT:
        if name in table:
            table[name] = table[name].astype(object).where(table[name].notna(), "").astype(str)
    return table


def _cell(name: str, value) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and name != "retain_budget":
        text = f"{value:.6f}"
        if name == "n_correct":  # whole, but for a mean over repeats
            return text.rstrip("0").rstrip(".")
        return "0.000000" if text == "-0.000000" else text
    return harmless(str(value))


def harmless(text: str) -> str:
    """Return a cell's text so that no spreadsheet takes it for a formula: a name may begin as one, a number may not."""
    text = text.replace("\r", "\\r")  # which would end a row
    return f"'{text}" if FORMULA.match(text) and not NUMBERS.fullmatch(text) else text


def recovery_table(
    arms: list[ArmScores],
    variant: str = DEFAULT,
    probes: Sequence[str] = PROBES,
    attacks: Sequence[str] = FIRST_ATTACK,
) -> pd.DataFrame:
    """Return the recovery table: one row per arm, method, attack, seed, budget, look choice and probe.

    `probes` and `attacks` give their order, and other attacks follow by name; figures and report show the first ones.
    An arm on which an attack was not run has no rows of it.
    """
    rows = []
    for arm in arms:
        for attack in arm.attack_names():
            for method, budget in (cell for cell in arm.chosen if arm.has(attack, *cell)):
                for look_choice in LOOK_CHOICES:
                    for probe in _probes(arm, attack, method, budget):
                        row = _recovery_row(arm, attack, method, budget, look_choice, probe)
                        rows.append({**row, "variant": variant, "cannot_tell": ";".join(cannot_tell(row))})
    table = pd.DataFrame(rows, columns=RECOVERY_COLUMNS)
    order = {name: i for i, name in enumerate([*LOOK_CHOICES, *probes])}
    keys = sorted(
        range(len(rows)),
        key=lambda i: (
            *arm_order(*(rows[i][name] for name in ("dataset", "arm", "model", "seed")))[:3],
            plugins.place("methods", rows[i]["method"]),
            place(attacks, rows[i]["attack"]),
            rows[i]["seed"],
            rows[i]["retain_budget"],
            order[rows[i]["look_choice"]],
            order[rows[i]["probe"]],
        ),
    )
    return table.iloc[keys].reset_index(drop=True)


def _probes(arm: ArmScores, attack: str, method: str, budget: float) -> list[str]:
    """Return the probes that all evaluations of a row hold."""
    held = [arm.original.forget_correct, arm.original_attacked[attack].correct]
    held += [points.forget_correct for points in arm.unlearned[method]]
    attacked = arm.attacks.get((attack, method, budget)), arm.controls.get(attack)
    held += [found.correct for found in attacked if found is not None and found.settings]
    return [probe for probe in PROBES if all(probe in found for found in held)]


def _recovery_row(arm: ArmScores, attack: str, method: str, budget: float, look_choice: str, probe: str) -> dict:
    dataset, arm_name, model, seed = arm.key
    original_attacked = arm.original_attacked[attack]
    positions, split_of = v_view(original_attacked)
    n = len(positions)
    floor = floor_of(original_attacked, probe)
    original, _ = _chosen(original_attacked, look_choice, probe)
    row = {
        **dict(dataset=dataset, arm=arm_name, model=model, method=method, attack=attack, seed=seed),
        **dict(retain_budget=budget, look_choice=look_choice, probe=probe, n_questions=n, floor=floor),
        "acc_before": float(arm.original.forget_correct[probe][0, positions].mean()),
        "retain_before": _mean(arm.original.retain_correct[probe][0]),
        **_accuracy("acc_original_attacked", original),
    }
    if attack in arm.controls:
        row |= _accuracy("acc_control_attacked", _chosen(arm.controls[attack], look_choice, probe)[0])
    unlearned_count = None
    if (point := arm.point(method, budget)) is not None:
        points, at = point
        unlearned = points.forget_correct[probe][at, positions]
        unlearned_count = unlearned.sum(), n
        attacked, row["t_acc_attacked"] = _chosen(arm.attacks[attack, method, budget], look_choice, probe)
        row |= _accuracy("acc_unlearned", unlearned) | _accuracy("acc_attacked", attacked)
        row["retain_unlearned"] = _mean(points.retain_correct[probe][at])
        strata = 2 * split_of + halves(split_of)
        for name, values in recover(original, unlearned, attacked, strata, floor).items():
            row |= dict(zip((name, f"{name}_low", f"{name}_high"), map(float, values), strict=True))
    row["status"] = status((original.sum(), n), unlearned_count, floor)
    return row


def _chosen(attack: AttackScores, look_choice: str, probe: str) -> tuple[np.ndarray, float]:
    """Return (n,) floats, the V questions at the chosen looks, and the T accuracy there, NaN where T was not used."""
    _, split_of = v_view(attack)
    correct = v_correct(attack, probe)
    choice = choose(look_choice, correct, split_of)
    n_correct, n, _ = t_at(attack, probe, choice.pairs)
    return correct[choice.chosen, np.arange(len(split_of))], n_correct / n if n else math.nan


def _accuracy(name: str, correct: np.ndarray) -> dict:
    low, high = wilson(correct.sum(), len(correct))
    return {name: float(correct.mean()), f"{name}_low": float(low), f"{name}_high": float(high)}


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def accuracy_table(
    arms: list[ArmScores], variant: str = DEFAULT, attacks: Sequence[str] = FIRST_ATTACK
) -> pd.DataFrame:
    """Return every accuracy with its Wilson interval; looks stand in the order of their attack's settings.

    T pooled over V splits or looks scores a question several times: its interval counts questions, not answers.
    """
    rows: list[tuple] = []
    shown: set[tuple] = set()
    for arm in arms:
        key = dict(zip(("dataset", "arm", "model", "seed"), arm.key, strict=True), variant=variant)
        original = {**key, "method": "none", "attack": "none", "stage": "original"}
        _points_rows(rows, original, arm.original, [(0, None, None)])
        for name in sorted(arm.original_attacked, key=lambda name: place(attacks, name)):
            _attack_rows(rows, {**key, "method": "none", "stage": "original_attacked"}, arm.original_attacked[name])
        for method in sorted(arm.unlearned, key=partial(plugins.place, "methods")):
            budgets = sorted(budget for (m, budget), at in arm.chosen.items() if m == method and at is not None)
            head = {**key, "method": method, "attack": "none", "stage": "unlearned"}
            for points in arm.unlearned[method]:
                which = [(i, None, step) for i, step in enumerate(points.steps)]
                for budget in budgets:
                    chosen, at = arm.point(method, budget)
                    which += [(at, budget, points.steps[at])] if chosen is points else []
                _points_rows(rows, {**head, "run": points.run_id}, points, which)
            for name in sorted(arm.attack_names(), key=lambda name: place(attacks, name)):
                for budget in (one for one in budgets if arm.has(name, method, one)):
                    _, step = arm.chosen[method, budget]
                    head = {**key, "method": method, "stage": "unlearned_attacked", "retain_budget": budget}
                    _attack_rows(rows, {**head, "step": step}, arm.attacks[name, method, budget])
        for name in sorted(arm.controls, key=lambda name: place(attacks, name)):
            labels = arm.controls[name].labels
            where = {"dataset": labels.dataset, "model": labels.model}
            head = {**key, **where, "method": "none", "stage": "control_attacked"}
            if (once := (*head.values(), name)) not in shown:  # two datasets of an arm may share a control
                shown.add(once)
                _attack_rows(rows, head, arm.controls[name])
    table = pd.DataFrame(rows, columns=[*ACCURACY_COLUMNS[:-3], "n_effective"])
    table["retain_budget"] = table["retain_budget"].astype(float)
    table["step"] = table["step"].astype("Int64").astype(object).where(table["step"].notna(), None)
    table["accuracy"] = table["n_correct"] / table["n_questions"]
    n = table.pop("n_effective")
    table["low"], table["high"] = wilson(table["accuracy"] * n, n)
    return table[ACCURACY_COLUMNS]


def _row(
    rows: list, head: dict, v_split: str, set_name: str, look_choice: str, probe: str, counts: tuple, setting: str = ""
) -> None:
    n_correct, n, *distinct = counts
    values = {**head, "v_split": v_split, "set": set_name, "look_choice": look_choice, "probe": probe}
    values |= {"setting": setting, "n_questions": n, "n_correct": n_correct}
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
                _row(rows, here, split, "V", "none", probe, (float(correct[mask].sum()), int(mask.sum())))
            retain = points.retain_correct[probe][at]
            if len(retain):
                _row(rows, here, "all", "retain", "none", probe, (float(retain.sum()), len(retain)))


def _attack_rows(rows: list, head: dict, attack: AttackScores) -> None:
    if not attack.settings:
        return
    _, split_of = v_view(attack)
    head = {**head, "attack": attack.attack}
    names = [*attack.v_splits, "all"]
    groups = [*range(len(attack.v_splits)), None]
    masks = [split_of == v if v is not None else np.ones(len(split_of), bool) for v in groups]
    for probe in (name for name in PROBES if name in attack.correct):
        correct = v_correct(attack, probe)
        for index, setting in enumerate(attack.settings):
            everywhere = [(index, v) for v in range(len(attack.v_splits))]
            text = setting_text(setting)
            _set_rows(rows, head, attack, "none", probe, correct[index], everywhere, names, groups, masks, text)
        for look_choice in LOOK_CHOICES:
            choice = choose(look_choice, correct, split_of)
            reported = correct[choice.chosen, np.arange(len(split_of))]
            _set_rows(rows, head, attack, look_choice, probe, reported, choice.pairs, names, groups, masks)


def _set_rows(rows, head, attack, look_choice, probe, reported, pairs, names, groups, masks, setting="") -> None:
    for name, group, mask in zip(names, groups, masks, strict=True):
        used = [pair for pair in pairs if group is None or pair[1] == group]
        if attack.uses_t:
            _row(rows, head, name, "T", look_choice, probe, t_at(attack, probe, used), setting)
        counts = float(reported[mask].sum()), int(mask.sum())
        _row(rows, head, name, "V", look_choice, probe, counts, setting)

"""`python -m rtt tables`: turn evaluation JSON into the tables of docs/reference/tables.md."""

import argparse
import csv
import io
import math
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from rtt import records
from rtt.errors import UserError
from rtt.files import write_text
from rtt.scoring.evidence import check_chain
from rtt.scoring.read import read_folder
from rtt.stats import unfinished
from rtt.stats.accuracy import COLUMNS as ACCURACY_COLUMNS
from rtt.stats.accuracy import accuracy_table, detailed
from rtt.stats.assemble import assemble
from rtt.stats.contrasts import BEFORE_TOLERANCE, UNLEARNED_TOLERANCE, contrasts
from rtt.stats.contrasts import COLUMNS as CONTRAST_COLUMNS
from rtt.stats.cost import COLUMNS as COST_COLUMNS
from rtt.stats.cost import cost_table
from rtt.stats.headline import COLUMNS as HEADLINE_COLUMNS
from rtt.stats.headline import headline_table
from rtt.stats.probes import COLUMNS as PROBES_COLUMNS
from rtt.stats.probes import probes_table
from rtt.stats.questions import COLUMNS as QUESTION_COLUMNS
from rtt.stats.questions import questions_table
from rtt.stats.runs import COLUMNS as RECOVERY_COLUMNS
from rtt.stats.runs import RUN_COLUMNS, recovery_table, runs_table
from rtt.stats.seeds import COLUMNS as SEED_COLUMNS
from rtt.stats.seeds import seed_table
from rtt.stats.strongest import with_strongest
from rtt.stats.strongest_table import COLUMNS as STRONGEST_COLUMNS
from rtt.stats.strongest_table import strongest_table
from rtt.stats.variants import COLUMNS as VARIANT_COLUMNS
from rtt.stats.variants import StudyRuns, variant_effects
from rtt.study.names import DEFAULT, TABLES

COLUMNS = {
    "recovery": RECOVERY_COLUMNS,
    "runs": RUN_COLUMNS,
    "probes": PROBES_COLUMNS,
    "accuracy": ACCURACY_COLUMNS,
    "seeds": SEED_COLUMNS,
    "contrasts": CONTRAST_COLUMNS,
    "variants": VARIANT_COLUMNS,
    "headline": HEADLINE_COLUMNS,
    "strongest": STRONGEST_COLUMNS,
    "cost": COST_COLUMNS,
    "questions": QUESTION_COLUMNS,
}
PARTS = ("recovery", "runs", "strongest", "cost", "probes", "accuracy")  # of which each variant has its own rows
FORMULA = re.compile(r"[=+@\t-]")  # how one begins, for a spreadsheet
NUMBER = r"[-+]?\d[\d.]*(e[-+]?\d+)?"
NUMBERS = re.compile(rf"{NUMBER}(;({NUMBER})?)*")  # one, or those of several seeds, of which some have none
TEXT = (
    "why",
    "seeds",
    "per_seed",
    "cannot_tell",
    "run",
    "setting",
    "said",
    "id",
    "group",
    "v_split",
)  # an empty cell is the empty text, not an unknown value


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--results", type=Path, help="folder of a study, in place of the four folders and files below")
    parser.add_argument("--evals", type=Path, help="folder of evaluation JSON files")
    parser.add_argument("--point-choices", type=Path, help="folder of point choice JSON files")
    parser.add_argument(
        "--runs", type=Path, help="the study's runs.json: its variants and their runs, where a folder holds others too"
    )
    parser.add_argument("--out", type=Path, help="folder for the .csv files")
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
    """Read the folders and write the tables; with --partial those of what is there, under other names."""
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
    """Return the tables by name, from the folders `evals` and `point_choices`.

    `named`: only the files that `runs` names count, not all of the folders. `partial`: where something is missing, what
    needs it is left out. Raises UserError where files are missing, damaged, or contradict each other.
    """
    stems = dict.fromkeys(stem for one in runs.variants.values() for stem in one.evals) if named else None
    found = read_folder(evals, stems) if stems is None or stems or not partial else []  # each once: variants share runs
    check_chain(found, evals.parent if named else None)
    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in PARTS}
    order, answers, shown = (runs.probes, runs.attacks, runs.criteria), {}, []
    for name, variant in runs.variants.items():
        own = {evals / f"{stem}.json" for stem in variant.evals}  # an attack's stem is RUN/TARGET
        scored = [one for one in found if not named or one.path in own]
        arms = assemble(scored, point_choices, variant.point_choices if named else None, partial)
        shown = arms if name == DEFAULT else shown
        suites = [with_strongest(arm, runs.attacks, partial) for arm in arms]
        parts["recovery"].append(
            recovery_table(suites, name, *order, runs.trained, answers if name == DEFAULT else None)
        )
        parts["runs"].append(runs_table(suites, name, *order))
        parts["strongest"].append(strongest_table(suites, name, runs.probes))
        parts["cost"].append(cost_table(arms, evals.parent, name, runs.probes, runs.attacks))
        parts["probes"].append(probes_table(arms, name, runs.criteria))
        parts["accuracy"].append(accuracy_table(arms, name, runs.attacks, detailed(runs.probes, runs.criteria)))
    tables = {name: pd.concat(some, ignore_index=True) for name, some in parts.items()}
    recovery = tables["recovery"]
    default = recovery[recovery["variant"] == DEFAULT]
    tables["seeds"] = seed_table(tables["runs"][tables["runs"]["variant"] == DEFAULT], default, answers)
    tables["contrasts"] = contrasts(default, answers, before, unlearned)
    tables["variants"] = variant_effects(recovery, {name: one.reported for name, one in runs.variants.items()})
    probes = tables["probes"]
    tables["headline"] = headline_table(default, probes[probes["variant"] == DEFAULT], tables["seeds"])
    tables["questions"] = questions_table(shown, default, runs.probes, runs.attacks)
    for table in tables.values():
        if "per_seed" in table:
            table["per_seed"] = [";".join(map(_number, values)) for values in table["per_seed"]]
    return {name: tables[name] for name in TABLES}


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6f}"


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
        words = dict.fromkeys(TEXT, str)
        table = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype=words, low_memory=False)
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
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    if isinstance(value, float) and name != "retain_budget":
        text = f"{value:.6f}" if abs(value) < 1e12 else f"{value:.6e}"  # a broken model's perplexity has no bounds
        if name.startswith("p_"):  # of half precision, which has no more
            return f"{value:.4f}"
        if name in ("n_correct", "right"):  # whole, but for a mean over repeats, and for ties
            return text.rstrip("0").rstrip(".")
        return "0.000000" if text == "-0.000000" else text
    return harmless(str(value))


def harmless(text: str) -> str:
    """Return a cell's text so that no spreadsheet takes it for a formula: a name may begin as one, a number may not."""
    text = text.replace("\r", "\\r")  # which would end a row
    return f"'{text}" if FORMULA.match(text) and not NUMBERS.fullmatch(text) else text

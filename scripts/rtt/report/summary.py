"""`python -m rtt summary`: recovery by attack, what each stage took, and where the report is, for a terminal."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rtt.figures.phrases import count
from rtt.figures.style import number, percent, span
from rtt.figures.tables import load
from rtt.figures.view import View, attack_title, make_view
from rtt.report.cost import ledger
from rtt.report.inputs import read_manifests
from rtt.report.rows import Result, alike, results
from rtt.stats import unfinished
from rtt.stats.shown import is_control
from rtt.stats.tables import compute, read_table, write_table
from rtt.stats.variants import StudyRuns
from rtt.study.names import DEFAULT

HEAD = ["arm", "method", "seed", "unlearned", "attacked", "orig.", "oracle", "contr.", "recovery", "counts", "status"]
ARM_WIDTH = 30


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--results", required=True, type=Path, help="folder of a study")


def run(args: argparse.Namespace) -> int:
    """Print the summary; of an unfinished study, that of what is there."""
    tables, runs = args.results / "tables", args.results / "runs.json"
    missing = []
    if runs.is_file():
        _, missing = unfinished.present(StudyRuns.read(runs), args.results / "evals", args.results / "point_choices")
    if missing:
        print(unfinished.note(missing, args.results), file=sys.stderr)
        print("UNFINISHED: this is what is there so far")
        with tempfile.TemporaryDirectory() as scratch:
            made = _tabulated(args.results, Path(scratch))
            _print(args.results, made, "no attack is complete yet")
            print(*_unlearned(made), sep="\n")
    else:
        _print(args.results, tables, f"nothing was unlearned and attacked; accuracies: {tables / 'accuracy.csv'}")
    return 0


def _print(folder: Path, tables: Path, otherwise: str) -> None:
    """Print the summary, or `otherwise` where the tables hold no recovery."""
    recovery = tables / "recovery.csv"
    if recovery.is_file() and len(recovery.read_text(encoding="utf-8").splitlines()) == 1:
        print(f"{otherwise}, so there is no recovery")
    else:
        print(summary(folder, tables), end="")


def _unlearned(tables: Path) -> list[str]:
    """Return lines about the models before any attack: each original, and each trajectory's last point."""
    rows = read_table(tables / "accuracy.csv")
    rows = rows[
        (rows["v_split"] == "all") & rows["stage"].isin(["original", "unlearned"]) & rows["retain_budget"].isna()
    ]
    if rows.empty:
        return ["no model has been scored yet"]
    rows = rows[(rows["variant"] == DEFAULT) & (rows["probe"] == rows["probe"].iloc[0])]
    table = [["arm", "method", "seed", "step", "forget", "retain"]]
    for (arm, method, seed, _), points in rows.groupby(["arm", "method", "seed", "run"], sort=False):
        last = points[points["step"].isna() | (points["step"] == points["step"].max())]
        values = {name: number(value) for name, value in zip(last["set"], last["accuracy"], strict=True)}
        step = "" if last["step"].isna().all() else f"{last['step'].iloc[0]:.0f}"
        table.append([arm, method, str(seed), step, values.get("V", ""), values.get("retain", "")])
    return [f"before any attack, probe {rows['probe'].iloc[0]}, last points:", *_aligned(table)]


def partial(folder: Path) -> list[str]:
    """Return the lines about the recovery by the first attack, of the complete cells of an unfinished study; [] where
    none is.
    """
    with tempfile.TemporaryDirectory() as scratch:
        made = _tabulated(folder, Path(scratch))
        if read_table(made / "recovery.csv").empty:
            return []
        view = make_view(*load(made))
        shown = alike(results(view), view)
        return _recovery(view.attack, [one for one in shown if one.attack == view.attack], view)


def _tabulated(folder: Path, out: Path) -> Path:
    """Write the tables of what is there of an unfinished study into `out`, and return it."""
    evals, point_choices = folder / "evals", folder / "point_choices"
    runs, _ = unfinished.present(StudyRuns.read(folder / "runs.json"), evals, point_choices)
    for name, table in compute(runs, evals, point_choices, partial=True).items():
        write_table(out / f"{name}.csv", table)
    return out


def summary(folder: str | Path, tables: Path | None = None) -> str:
    """Return the summary: lines of at most 120 columns. Raises UserError when the tables cannot be read.

    `tables` is where the tables lie, if not in the folder.
    """
    folder = Path(folder)
    view = make_view(*load(tables or folder / "tables"))
    shown = alike(results(view), view)
    lines = [*_counted([one for one in shown if one.attack == view.attack]), ""]
    for attack in sorted(dict.fromkeys([view.attack, *(one.attack for one in shown)]), key=is_control):
        lines += [*_recovery(attack, [one for one in shown if one.attack == attack], view), ""]
    stages = ledger(read_manifests(folder))
    if stages:
        lines += _aligned(
            [["stage", "processes", "CPU seconds", "wall seconds"]]
            + [[s.stage, str(s.processes), f"{s.cpu_seconds:.0f}", f"{s.wall_seconds:.0f}"] for s in stages]
        )
    else:
        lines.append("CPU seconds: no manifests found")
    report = folder / "report.html"
    current = tables in (None, folder / "tables")
    about = " (not written yet)" * (not report.is_file()) or " (of an earlier state)" * (not current)
    lines += ["", f"report: {report}{about}"]
    return "\n".join(lines) + "\n"


def _counted(rows: Sequence[Result]) -> list[str]:
    """Say of each arm's facts how many results count as unlearned."""
    lines = []
    for panel in dict.fromkeys(one.panel for one in rows):
        own = [one for one in rows if one.panel == panel]
        noun = "method" if len({one.seed for one in own}) == 1 else "result"
        n = sum(one.counts for one in own)
        known = "" if any(one.status != "not_known" for one in own) else ": the original does not know these facts"
        verb = "counts" if n == 1 or len(own) == 1 else "count"
        before = f"forget accuracy {span([one.acc_before for one in own])} before"
        lines.append(f"{_short(panel.label)}: {before}; {count(n, len(own), noun)} {verb} as unlearned{known}")
    return lines


def _short(label: str) -> str:
    """Cut a label: a long name of a dataset or model must not push the numbers out of sight."""
    return label if len(label) <= ARM_WIDTH else label[: ARM_WIDTH - 1] + "…"


def _recovery(attack: str, rows: Sequence[Result], view: View) -> list[str]:
    """Return the lines of one attack's results."""
    table = [HEAD]
    for one in rows:
        attacked = (one.acc_attacked, one.acc_original_attacked, one.acc_oracle_attacked, one.acc_control_attacked)
        values = (one.acc_unlearned.value, *(estimate.value for estimate in attacked))
        rate = "–" if is_control(attack) else str(one.recovery_corrected)
        head = [_short(one.panel.label), one.method, str(one.seed)]
        table.append([*head, *map(number, values), rate, one.counts_text, one.status])
    if not view.has_oracle:
        table = [[*row[:6], *row[7:]] for row in table]
    if len({one.seed for one in rows}) == 1:
        table = [[*row[:2], *row[3:]] for row in table]
    what = "a control: accuracy on V" if is_control(attack) else "accuracy on V and floor-corrected recovery [95 %]"
    return [
        f"{attack_title(attack)}: {what}; look choice {view.look_choice}, probe {view.probe}, "
        f"retain budget {percent(view.budget)}",
        *_aligned(table),
    ]


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]

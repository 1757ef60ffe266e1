"""`python -m rtt summary`: recovery by attack, what each stage took, and where the report is, for a terminal."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rtt.figures.style import number, percent
from rtt.figures.view import View, attack_title, load, make_view
from rtt.report.cost import ledger
from rtt.report.inputs import read_manifests
from rtt.report.rows import Result, alike, results

HEAD = ["arm", "method", "seed", "forget", "unlearned", "attacked", "original", "control", "recovery", "status"]
ARM_WIDTH = 30


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--results", required=True, type=Path, help="folder of a study")


def run(args: argparse.Namespace) -> int:
    """Print the summary."""
    tables = args.results / "tables"
    if (tables / "recovery.csv").is_file() and len((tables / "recovery.csv").read_text().splitlines()) == 1:
        print(f"nothing was unlearned and attacked, so there is no recovery; accuracies: {tables / 'accuracy.csv'}")
        return 0
    print(summary(args.results), end="")
    return 0


def summary(folder: str | Path) -> str:
    """Return the summary: lines of at most 120 columns. Raises UserError when the tables cannot be read."""
    folder = Path(folder)
    view = make_view(*load(folder / "tables"))
    shown = alike(results(view), view)
    lines = []
    for attack in dict.fromkeys([view.attack, *(one.attack for one in shown)]):
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
    lines += ["", f"report: {report}" if report.is_file() else f"report: {report} (not written yet)"]
    return "\n".join(lines) + "\n"


def _recovery(attack: str, rows: Sequence[Result], view: View) -> list[str]:
    """Return the lines of one attack's results."""
    table = [HEAD]
    for one in rows:
        # A long name of a dataset or model must not push the numbers out of sight.
        label = one.panel.label
        arm = label if len(label) <= ARM_WIDTH else label[: ARM_WIDTH - 1] + "…"
        attacked = (one.acc_attacked, one.acc_original_attacked, one.acc_control_attacked)
        values = (one.acc_before, one.acc_unlearned.value, *(estimate.value for estimate in attacked))
        table.append([arm, one.method, str(one.seed), *map(number, values), str(one.recovery_corrected), one.status])
    if len({one.seed for one in rows}) == 1:
        table = [[*row[:2], *row[3:]] for row in table]
    return [
        f"{attack_title(attack)}: accuracy on V and floor-corrected recovery [95 %]; look choice {view.look_choice}, "
        f"probe {view.probe}, retain budget {percent(view.budget)}",
        *_aligned(table),
    ]


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]

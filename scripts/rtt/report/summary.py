"""`python -m rtt summary`: the recovery table, the compute ledger and where the report is, for a terminal."""

import argparse
from pathlib import Path

from rtt.figures.style import number, percent, value_of
from rtt.figures.view import load, make_view
from rtt.report.cost import ledger
from rtt.report.inputs import read_manifests

HEAD = ["arm", "method", "seed", "forget", "unlearned", "RTT", "original+RTT", "control", "recovery", "status"]
ACCURACIES = ("acc_before", "acc_unlearned", "acc_attacked", "acc_original_attacked", "acc_control_attacked")
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


def summary(results: str | Path) -> str:
    """Return the summary: lines of at most 120 columns. Raises UserError when the tables cannot be read."""
    results = Path(results)
    view = make_view(*load(results / "tables"))
    several = len(view.seeds) > 1
    table = [HEAD]
    for panel in view.panels:
        # A long name of a dataset or model must not push the numbers out of sight.
        arm = panel.label if len(panel.label) <= ARM_WIDTH else panel.label[: ARM_WIDTH - 1] + "…"
        for method in view.methods:
            for _, row in view.of(panel, method).iterrows():
                values = [number(row[name]) for name in ACCURACIES]
                recovered = value_of(row, "recovery_corrected")
                table.append([arm, method, str(row["seed"]), *values, recovered, row["status"]])
    if not several:
        table = [[*row[:2], *row[3:]] for row in table]
    lines = [
        f"Accuracy on V and floor-corrected recovery [95 %]; look choice {view.look_choice}, scoring {view.probe}, "
        f"retain budget {percent(view.budget)}",
        *_aligned(table),
        "",
    ]
    rows = ledger(read_manifests(results))
    if rows:
        lines += _aligned(
            [["stage", "processes", "CPU seconds", "wall seconds"]]
            + [[r["stage"], str(r["runs"]), f"{r['cpu_seconds']:.0f}", f"{r['wall_seconds']:.0f}"] for r in rows]
        )
    else:
        lines.append("CPU seconds: no manifests found")
    report = results / "report.html"
    lines += ["", f"report: {report}" if report.is_file() else f"report: {report} (not written yet)"]
    return "\n".join(lines) + "\n"


def _aligned(table: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]

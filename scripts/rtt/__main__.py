"""`python -m rtt COMMAND`: every step of the pipeline as a command.

A command's module has `configure(parser)` and `run(args) -> exit code`; it is imported only when it is called,
so that `audit` or `figure` never pay for torch.
"""

import argparse
import contextlib
import importlib
import os
import shlex
import signal
import sys

from rtt import __version__, device
from rtt.errors import Stopped, UserError
from rtt.runtime import locks, offline

COMMANDS = {
    "run": (
        "rtt.runtime.runner",
        "run a study through Snakemake, safely again after a kill, and print its recovery table",
    ),
    "check": ("rtt.steps.check", "validate a study file; --schema prints the JSON schema"),
    "doctor": ("rtt.doctor.command", "is all there that a study needs, here or on a cluster? A line per check"),
    "plan": ("rtt.planner.plan", "what a study costs: jobs, tokens, GPU-hours, disk, memory, expected intervals"),
    "fetch": ("rtt.fetch.step", "fetch and verify external files"),
    "generate": ("rtt.data.generate", "generate a dataset in the authors' JSONL schema"),
    "facts": ("rtt.data.facts", "read a dataset folder into canonical facts"),
    "audit": ("rtt.data.audit", "report a dataset folder's defects by file and line"),
    "import": ("rtt.steps.import_model", "turn a model file's model into a local folder"),
    "original": ("rtt.steps.original", "score a pretrained model before unlearning"),
    "pretrain": ("rtt.steps.pretrain", "train the miniature base model from scratch"),
    "teach": ("rtt.steps.teach", "teach facts to a model after its pretraining"),
    "unlearn": ("rtt.steps.unlearn", "unlearn facts along one trajectory and score its points"),
    "choose": ("rtt.steps.choose", "choose the point of a trajectory within each retain budget"),
    "attack": ("rtt.steps.attack", "RTT: retrain checkpoints on T, score V"),
    "export": ("rtt.steps.export", "an original and its facts' texts in one folder, for a method of one's own"),
    "loss": ("rtt.steps.inspect", "a loss of any checkpoint on a file's texts, as JSON"),
    "score": ("rtt.steps.inspect", "a checkpoint's multiple-choice scores on a file's questions, as JSON"),
    "tables": ("rtt.stats.tables", "evaluation JSON -> recovery.csv and accuracy.csv"),
    "figure": ("rtt.figures", "tables -> one figure as SVG and PNG"),
    "report": ("rtt.report.page", "tables and figures -> report.html"),
    "bundle": ("rtt.bundle.write", "a finished study -> one zip without weights, from which all can be redrawn"),
    "unpack": ("rtt.bundle.opening", "verify a bundle, every byte of it, and unpack it"),
    "verify": ("rtt.bundle.rebuild", "does what was rebuilt of a bundle equal what is in it?"),
    "compare": ("rtt.bundle.compare", "two bundles side by side: which numbers differ, against their intervals"),
    "summary": ("rtt.report.summary", "print the recovery table and the compute ledger"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; return its exit code (0 done, 1 the user's mistake, 2 usage)."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m rtt", description="Retraining on T, step by step.")
    parser.add_argument("--version", action="version", version=f"unlearning-rtt {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    try:
        device.hide()
    except UserError as error:
        parser.exit(1, f"error: {error}\n")
    called = next((word for word in argv if not word.startswith("-")), None)
    offline.shut(called)
    module = None
    for name, (module_name, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        if name == called:
            try:
                module = importlib.import_module(module_name)
            except ModuleNotFoundError as error:
                if error.name != "torch":
                    raise
                text = f"{called} needs torch, which {sys.prefix} lacks: make setup, then . .venv/bin/activate"
                parser.exit(1, f"error: {text}\n")
            module.configure(command)
    args = parser.parse_args(argv)
    # The shell around a step ignores SIGTERM, so that it outlives the step, which saves; the step itself does not.
    if signal.getsignal(signal.SIGTERM) == signal.SIG_IGN:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Of a job's processes the first writes.
    writes = str(getattr(args, "spec", None) or "") if os.environ.get("RANK", "0") == "0" else ""
    try:
        # Steps are registered, so that a rerun after a kill sees what is still writing; `run` claims the lock itself.
        with contextlib.nullcontext() if called == "run" else locks.step(shlex.join(argv), writes):
            return module.run(args) or 0
    except UserError as error:
        spec = getattr(args, "spec", None)
        print(f"error: {error}" + (f"\nspec: {spec}" if spec and spec not in str(error) else ""), file=sys.stderr)
        return 1
    except Stopped:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 128 + signal.SIGTERM


if __name__ == "__main__":
    sys.exit(main())

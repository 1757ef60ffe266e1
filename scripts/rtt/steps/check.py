"""`python -m rtt check`: validate a study file, or print the schema of study files."""

import argparse
import json

from rtt.planner.before import Before
from rtt.study.expand import Runs
from rtt.study.load import load_study, schema
from rtt.study.names import DEFAULT_STUDY


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `check`."""
    parser.add_argument("study", nargs="?", default=DEFAULT_STUDY, help="study file (default: %(default)s)")
    parser.add_argument("--schema", action="store_true", help="print the JSON schema of study files")


def run(args: argparse.Namespace) -> int:
    """Print the schema of study files, or one line about a study that nothing is known against."""
    if args.schema:
        print(json.dumps(schema(), indent=1))
        return 0
    study = load_study(args.study)
    Before(Runs(study)).check()
    print(
        f"{args.study}: study {study.study}, seeds {study.seeds}, arms {study.arms}, "
        f"methods {list(study.methods.named)}"
    )
    return 0

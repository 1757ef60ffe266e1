"""`python -m rtt where`: print where the project's own files lie, for the command line of another program."""

import argparse

from rtt import places

PLACES = {
    "snakefile": places.SNAKEFILE,
    "config": places.SHIPPED / "config",
    "profiles": places.SHIPPED / "profiles",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `where`."""
    parser.add_argument("what", choices=PLACES, help="the Snakefile, or a folder")


def run(args: argparse.Namespace) -> int:
    """Print the path."""
    print(PLACES[args.what])
    return 0

"""Check that all is there that a study needs, on this machine or on a cluster (`python -m rtt doctor`, docs/hpc.md).

Prints a line per check. It starts no job and imports no torch; with --gpu a process of its own asks torch for seconds.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

from rtt import places
from rtt.doctor.checks import DO, Check, Patient
from rtt.doctor.machine import attention, extras, gpu, gpu_memory, packages, python
from rtt.doctor.slurm import slurm
from rtt.doctor.surroundings import disk, fetched, profile, secrets, work_folder
from rtt.errors import UserError
from rtt.study.load import load_study
from rtt.study.names import DEFAULT_STUDY
from rtt.yaml_files import parse_yaml

CHECKS: tuple[Callable[[Patient], Iterator[Check]], ...] = (
    python, packages, extras, gpu, gpu_memory, attention, fetched, disk, work_folder, profile, slurm, secrets,
)  # fmt: skip


def examine(patient: Patient) -> Iterator[Check]:
    """Yield the result of every check as it comes."""
    for check in CHECKS:
        yield from check(patient)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `doctor`."""
    parser.add_argument("--configfile", metavar="FILE", help=f"the study file (default: {DEFAULT_STUDY})")
    parser.add_argument("--config", nargs="+", default=[], metavar="KEY=VALUE", help="override keys of the study")
    parser.add_argument("--profile", metavar="NAME", help="slurm, local, or a profile's folder (default: none)")
    parser.add_argument("--gpu", action="store_true", help="look for GPUs with torch; run this on a node that has them")


def run(args: argparse.Namespace) -> int:
    """Print a line per check; return 1 if something must be done."""
    folder = places.work_folder()
    overrides = {}
    for item in args.config:
        key, equals, value = item.partition("=")
        if not equals:
            raise UserError(f"--config {item}: expected KEY=VALUE")
        overrides[key] = parse_yaml(value, f"--config {key}")
    default = folder / DEFAULT_STUDY
    file = places.study_file(args.configfile or (default if default.is_file() else places.SHIPPED / DEFAULT_STUDY))
    study = load_study(file, overrides)
    found = None
    if args.profile:
        named = dict.fromkeys((folder / "profiles" / args.profile, places.SHIPPED / "profiles" / args.profile))
        found = next((one for one in (Path(args.profile), *named) if (one / "config.yaml").is_file()), None)
        if found is None:
            raise UserError(f"--profile {args.profile}: no such folder, nor {' or '.join(map(str, named))}")
    patient, todo = Patient(study, str(file.resolve()), folder, found, args.gpu, tuple(args.config)), 0
    for check in examine(patient):
        todo += check.status == DO
        print(f"{check.status:<5} {check.name}: {check.text}", flush=True)
    print(f"{todo} to do" if todo else "nothing to do")
    return 1 if todo else 0

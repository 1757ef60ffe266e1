"""What `python -m rtt doctor --profile slurm` asks SLURM. No job is submitted: `sbatch --test-only` only judges one."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rtt.config import Study
from rtt.resources import NO_ACCOUNT, Site, account_hint

OK, LOOK, DO = "ok", "look", "do"  # look: nothing here can tell, you can
TIMEOUT = 30  # seconds for an answer


@dataclass(frozen=True)
class Check:
    """One line: status OK, LOOK or DO; text says what was found, and what to do."""

    status: str
    name: str
    text: str


@dataclass(frozen=True)
class Partition:
    """A partition as sinfo shows it. hours: of its longest job, None for no limit. gpus: models."""

    name: str
    default: bool
    hours: float | None
    gpus: frozenset[str]


def output(*command: str) -> subprocess.CompletedProcess | None:
    """Run a command; None where it isn't there. One that doesn't answer in TIMEOUT has failed, and says so."""
    if shutil.which(command[0]) is None:
        return None
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL, check=False
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no answer in {TIMEOUT} s")


def hours(limit: str) -> float | None:
    """Return the hours of sinfo's time limit ([days-]hours:minutes:seconds, minutes:seconds); None for infinite."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", limit)
    if not found:
        return None
    days, hour, minutes, seconds = (int(part or 0) for part in found.groups())
    return days * 24 + hour + minutes / 60 + seconds / 3600


def partitions(text: str) -> list[Partition]:
    """Read `sinfo --format=%P|%l|%G`: a line for each partition and kind of node."""
    found: dict[str, Partition] = {}
    for line in text.splitlines():
        name, limit, resources = line.split("|", 2)
        models = set(re.findall(r"gpu:([A-Za-z][\w.]*)", resources))
        default, name = name.endswith("*"), name.rstrip("*")
        before = found[name].gpus if name in found else set()
        found[name] = Partition(name, default, hours(limit), frozenset(before | models))
    return list(found.values())


def checks(study: Study, site: Site, path: Path, settings: dict) -> Iterator[Check]:
    """Yield what SLURM says of itself, of the user's site file `path`, and of a job as the study's would be."""
    missing = [name for name in ("sbatch", "squeue", "sinfo", "scancel") if shutil.which(name) is None]
    if missing:
        text = f"{', '.join(missing)} not found: log in to a login node, or `module load slurm`"
        yield Check(DO, "SLURM", text)
        return
    listed = output("sinfo", "--noheader", "--format=%P|%l|%G")
    if listed.returncode:
        yield Check(DO, "SLURM", f"sinfo fails: {_said(listed)}; is its controller up? Try again later")
        return
    yield Check(OK, "SLURM", _said(output("sbatch", "--version")))
    yield from _status(settings)
    yield from _partition(study, site, path, partitions(listed.stdout))
    yield from _job(study, site, path)


def _said(done: subprocess.CompletedProcess) -> str:
    return " ".join((done.stderr.strip() or done.stdout.strip()).split())[:200]


def _status(settings: dict) -> Iterator[Check]:
    command = settings.get("slurm-status-command", "sacct")
    asked = {"squeue": ["squeue", "--me", "--noheader"], "sacct": ["sacct", "--noheader", "-X", "-S", "now"]}.get(
        command
    )
    done = output(*asked) if asked else None
    if done is None or done.returncode:
        why = _said(done) if done else "not found"
        yield Check(DO, "status command", f"{command}: {why}; set slurm-status-command in the profile")
    else:
        yield Check(OK, "status command", f"{command} answers")


def _partition(study: Study, site: Site, path: Path, found: list[Partition]) -> Iterator[Check]:
    names = ", ".join(sorted(one.name for one in found)) or "none"
    one = next((p for p in found if p.name == site.partition or (site.partition is None and p.default)), None)
    if one is None:
        what = f"no partition {site.partition}" if site.partition else "none is set, and the cluster has no default"
        yield Check(DO, "partition", f"{what}: set `partition` in {path}; there are: {names}")
        return
    limit = "no time limit" if one.hours is None else f"jobs of {one.hours:g} h at most"
    if one.hours is not None and one.hours < site.max_hours:
        yield Check(DO, "partition", f"{one.name}: {limit}: set `max_hours: {one.hours:g}` in {path}")
    else:
        yield Check(OK, "partition", f"{one.name}, {limit}")
    models = ", ".join(sorted(one.gpus)) or "none"
    if study.gpus and site.gpu_model and site.gpu_model not in one.gpus:
        yield Check(DO, "GPU model", f"{one.name} has no {site.gpu_model}: set `gpu_model` in {path}; it has: {models}")
    elif study.gpus and not site.gpu_model and len(one.gpus) > 1:
        yield Check(LOOK, "GPU model", f"{one.name} has {models}: any will be taken; `gpu_model` in {path} chooses")


def _job(study: Study, site: Site, path: Path) -> Iterator[Check]:
    """Would sbatch take a job of this account, partition and number of GPUs?"""
    flags = {
        "account": site.account if site.account != NO_ACCOUNT else None,
        "partition": site.partition,
        "qos": site.qos,
    }
    command = ["sbatch", "--test-only", "--job-name=rtt-doctor", "--time=1", "--wrap=true"]
    command += [f"--{name}={value}" for name, value in flags.items() if value]
    command += [f"--gpus={site.gpu_model + ':' if site.gpu_model else ''}{study.gpus}"] if study.gpus else []
    done = output(*command)
    what = ", ".join(f"{name} {value}" for name, value in flags.items() if value) or "no account, default partition"
    what += f", {study.gpus} GPU{'s' * (study.gpus > 1)}" if study.gpus else ", no GPU"
    if done.returncode:
        hint = account_hint(site, path) or f"correct {path}"
        yield Check(DO, "a job", f"sbatch would refuse it ({what}): {_said(done)}; {hint}")
    else:
        yield Check(OK, "a job", f"sbatch would take it ({what})")

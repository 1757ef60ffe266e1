"""Ask SLURM what `python -m rtt doctor --profile slurm` needs to know.

No job is submitted: `sbatch --test-only` only judges one.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from rtt.doctor.checks import DO, LOOK, OK, Check, Patient, output
from rtt.errors import UserError
from rtt.planner.resources import NO_ACCOUNT, Resources, Site, account_hint, read_site, site_file, to_make
from rtt.study.expand import Runs
from rtt.study.schema import Study

MIN_JOB_AGE = 120  # seconds for which SLURM must remember an ended job, so that we see it in time
UNNAMEABLE = (
    "neither `gpu_model` nor Snakemake's SLURM plugin can name a model with a hyphen: set `gpu_model: null` and a "
    "`partition` that has only those GPUs, or a constraint (snakemake --default-resources constraint=NAME)"
)


@dataclass(frozen=True)
class Partition:
    """A partition as sinfo shows it: the hours of its longest job (None: no limit), and its models of GPUs."""

    name: str
    default: bool
    hours: float | None
    gpus: frozenset[str]


def hours(limit: str) -> float | None:
    """Return the hours of a time limit of sinfo ([days-]hours:minutes:seconds, minutes:seconds); None if there is no
    limit.
    """
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", limit)
    if not found:
        return None
    days, hour, minutes, seconds = (int(part or 0) for part in found.groups())
    return days * 24 + hour + minutes / 60 + seconds / 3600


def partitions(text: str) -> list[Partition]:
    """Read the output of `sinfo --format=%P|%l|%G`, which has a line for each partition and kind of node."""
    found: dict[str, Partition] = {}
    for line in text.splitlines():
        name, limit, resources = line.split("|", 2)
        models = set(re.findall(r"gpu:([^:,()\s]+):\d", resources))
        default, name = name.endswith("*"), name.rstrip("*")
        before = found[name].gpus if name in found else set()
        found[name] = Partition(name, default, hours(limit), frozenset(before | models))
    return list(found.values())


def slurm(patient: Patient) -> Iterator[Check]:
    """Check that SLURM answers and would take the study's jobs."""
    if patient.on_slurm:
        yield from checks(patient.study, site_file(patient.profile), patient.settings, patient.folder)


def checks(study: Study, path: Path, settings: dict, root: Path) -> Iterator[Check]:
    """Yield what SLURM says of itself, of the user's site file `path`, and of the study's largest job."""
    try:
        site = read_site(path)
    except UserError as error:
        text = "; ".join(str(error).splitlines())
        yield Check(DO, "site file", text + f"; {UNNAMEABLE}" * (": gpu_model:" in text))
        return
    if path.is_file():
        yield Check(OK, "site file", str(path))
    else:
        text = f"no {path}, so jobs ask for no account, the default partition, any GPU and {site.max_hours:g} hours"
        yield Check(LOOK, "site file", f"{text}; to change that: {to_make(path)}")
    missing = [name for name in ("sbatch", "squeue", "sinfo", "scancel") if shutil.which(name) is None]
    if missing:
        text = f"{', '.join(missing)} not found: log in to a login node, or `module load slurm`"
        yield Check(DO, "SLURM", text)
        return
    listed = output("sinfo", "--noheader", "--format=%P|%l|%G")
    if listed.returncode:
        yield Check(DO, "SLURM", f"sinfo fails: {_said(listed)}; its controller may be down, so try again later")
        return
    yield Check(OK, "SLURM", _said(output("sbatch", "--version")))
    yield from _status(settings)
    yield from _configuration()
    yield from _partition(study, site, path, partitions(listed.stdout))
    yield from _job(study, site, path, root, int(settings.get("retries", 0)))


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


def _configuration() -> Iterator[Check]:
    """Yield a result for each of SLURM's own settings that makes a difference here; nothing if all are as usual."""
    done = output("scontrol", "show", "config")
    if done is None or done.returncode:
        return
    found = dict(re.findall(r"^(\w+) *= *(.*?) *$", done.stdout, re.MULTILINE))
    age = re.match(r"\d+", found.get("MinJobAge", ""))
    if age and 0 < int(age[0]) < MIN_JOB_AGE:  # with 0 SLURM never forgets a job
        text = "SLURM may forget a job before we see that it ended; its files then tell whether, not why, it failed"
        yield Check(LOOK, "MinJobAge", f"{age[0]} s, less than {MIN_JOB_AGE}: {text}")
    mode = found.get("PreemptMode", "")
    if "CANCEL" in mode and "REQUEUE" not in mode:
        text = "a preempted job is cancelled, and submitted again as one of its attempts (`retries`) once SLURM has"
        yield Check(LOOK, "PreemptMode", f"{mode}: {text} forgotten it (MinJobAge)")


def _nameable(model: str) -> bool:
    """Return whether the site file may name this model of GPU."""
    try:
        return bool(Site(gpu_model=model))
    except ValidationError:
        return False


def _partition(study: Study, site: Site, path: Path, found: list[Partition]) -> Iterator[Check]:
    names = ", ".join(sorted(one.name for one in found)) or "none"
    one = next((p for p in found if p.name == site.partition or (site.partition is None and p.default)), None)
    if one is None:
        what = f"no partition {site.partition}" if site.partition else "none is set, and the cluster has no default"
        yield Check(DO, "partition", f"{what}: set `partition` in {path} to one of: {names}")
        return
    limit = "no time limit" if one.hours is None else f"jobs of {one.hours:g} h at most"
    if one.hours is not None and one.hours < site.max_hours:
        yield Check(DO, "partition", f"{one.name}: {limit}: set `max_hours: {one.hours:g}` in {path}")
    else:
        yield Check(OK, "partition", f"{one.name}, {limit}")
    models = ", ".join(sorted(one.gpus)) or "none"
    advice = "" if all(map(_nameable, one.gpus)) else f"; {UNNAMEABLE}"
    if study.gpus and site.gpu_model and site.gpu_model not in one.gpus:
        text = f"{one.name} has no {site.gpu_model}: set `gpu_model` in {path}; it has: {models}"
        yield Check(DO, "GPU model", text + advice)
    elif study.gpus and not site.gpu_model and len(one.gpus) > 1:
        text = f"{one.name} has {models}: jobs take any of them unless `gpu_model` in {path} names one"
        yield Check(LOOK, "GPU model", text + advice)


def _job(study: Study, site: Site, path: Path, root: Path, retries: int) -> Iterator[Check]:
    """Ask whether sbatch would take the largest job, at its first and at its last attempt."""
    hint = f"another `partition` in {path}, or lower `max_hours`, `max_memory_gb`, `cpus_per_gpu` (docs/hpc.md)"
    needs, runs = Resources(study, site, root), Runs(study, root)
    groups = (runs.sources, runs.unlearn, runs.attacks)
    specs = [spec for group in groups for spec in group.values()]
    job, said = _judged(needs, specs, attempt=1)
    if said is None:
        yield Check(OK, "a job", f"sbatch would take the study's largest job ({job})")
    else:
        why = re.search(r"node configuration|memory|cpu count|time limit is", said, re.IGNORECASE)
        hint = hint if why else account_hint(site, path) or f"correct {path}"
        yield Check(DO, "a job", f"sbatch would refuse the study's largest job ({job}): {said}; {hint}")
        return
    job, said = _judged(needs, specs, attempt=1 + retries) if retries else ("", None)
    if said is not None:
        text = f"sbatch would refuse attempt {1 + retries} of that job ({job}): {said}"
        yield Check(DO, "retries", f"{text}; set in {path} what a node has and a job may: `max_memory_gb`, `max_hours`")


def _judged(needs: Resources, specs: list, attempt: int) -> tuple[str, str | None]:
    """Return the largest job in words, with the most of each resource that any run asks for, and sbatch's refusal or
    None.
    """
    site = needs.site
    memory = max(needs.mem_mb(spec, attempt) for spec in specs)
    minutes = max(needs.runtime(spec, attempt) for spec in specs)
    cpus, gpus, nodes = needs.cpus, needs.gpus, needs.study.nodes
    flags = {
        "account": site.account if site.account != NO_ACCOUNT else None,
        "partition": site.partition,
        "qos": site.qos,
    }
    what = [f"{name} {value}" for name, value in flags.items() if value] or ["no account, default partition"]
    what += [f"{memory} MB", f"{minutes} minutes", f"{cpus} CPU{'s' * (cpus > 1)}"]
    what += [(f"{gpus} GPU{'s' * (gpus > 1)}" if gpus else "no GPU") + f" on each of {nodes} nodes" * (nodes > 1)]
    flags |= {"mem": memory, "time": minutes, "nodes": nodes, "cpus-per-task": cpus}
    if nodes > 1:
        flags |= {"ntasks": nodes, "gres": needs.of({}).get("gres")}
    elif gpus:
        flags |= {"gpus": f"{site.gpu_model}:{gpus}" if site.gpu_model else gpus}
    command = ["sbatch", "--test-only", "--job-name=rtt-doctor", "--wrap=true"]
    done = output(*command, *(f"--{name}={value}" for name, value in flags.items() if value))
    return ", ".join(what), _said(done) if done.returncode else None

"""`python -m rtt doctor`: is all there that a study needs, on this machine or on a cluster? A line per check.

Starts no job and imports no torch; with --gpu it asks torch, in a process of its own, for seconds. docs/hpc.md.
"""

import argparse
import fcntl
import importlib.metadata
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml

from rtt import doctor_slurm, locks
from rtt.config import DEFAULT_STUDY, Study, load_study
from rtt.doctor_slurm import DO, LOOK, OK, Check, output
from rtt.errors import UserError
from rtt.files import read_yaml
from rtt.plan import DEVICES, Plan, device_of
from rtt.resources import Site, read_site
from rtt.runs import Runs

ROOT = Path(__file__).resolve().parents[2]
SCRATCH = 1e9  # bytes: temporary files of a step
# File systems that several machines see; others are asked about.
SHARED = re.compile(
    r"nfs|lustre|gpfs|beegfs|ceph|gluster|panfs|weka|pvfs|orangefs|afs|cifs|smb|9p|virtiofs|wekafs|vast"
)
LOCAL = ("/tmp", "/var/tmp", "/dev/shm", "/run")
SECRET = re.compile(
    r"(TOKENS?|SECRETS?|PASSWORDS?|PASSWD|CREDENTIALS?|(^|_|API|ACCESS|PRIVATE)KEYS?)(_|$)", re.IGNORECASE
)
PROBE = """
import json, sys, torch
found = {"torch": torch.__version__, "cuda": torch.version.cuda, "gpus": [], "flash": None}
for i in range(torch.cuda.device_count()):
    one = torch.cuda.get_device_properties(i)
    found["gpus"].append(f"{one.name}, {one.total_memory / 2**30:.0f} GiB, compute capability {one.major}.{one.minor}")
if sys.argv[1:]:
    try:
        import flash_attn
        found["flash"] = flash_attn.__version__
    except Exception as error:
        found["flash_error"] = f"{type(error).__name__}: {error}".splitlines()[0]
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Patient:
    """What is looked at. folder: where results/ lies. profile: a profile's folder, None for a run on this machine.
    config: the study's overrides, KEY=VALUE.
    """

    study: Study
    study_file: str
    folder: Path
    profile: Path | None
    gpu: bool = False
    config: tuple[str, ...] = ()

    @property
    def settings(self) -> dict:
        """The profile's config.yaml."""
        return read_yaml(self.profile / "config.yaml", "profile", "executor, jobs, ...") if self.profile else {}

    @property
    def on_slurm(self) -> bool:
        """Are the steps jobs of SLURM?"""
        return self.settings.get("executor") == "slurm"


# --- the software


def python(patient: Patient) -> Iterator[Check]:
    """The interpreter is one that the lock is for."""
    version = ".".join(map(str, sys.version_info[:3]))
    fits = (3, 11) <= sys.version_info[:2] <= (3, 13)
    advice = "the lock is for 3.11 to 3.13: make setup PYTHON=python3.11"
    yield Check(OK, "Python", f"{version}, {sys.executable}") if fits else Check(DO, "Python", f"{version}; {advice}")


def locked() -> tuple[dict[str, set[str]], set[str]]:
    """Return {package: versions} of requirements.lock with torch, and those that only some platforms need."""
    versions: dict[str, set[str]] = {}
    some = set()
    for file, kept in (("requirements.lock", None), ("requirements.txt", "torch")):
        for line in (ROOT / file).read_text(encoding="utf-8").splitlines():
            found = re.match(r"([A-Za-z0-9._-]+)==([^ \\;]+)\s*(;?)", line)
            if found and kept in (None, found[1]):
                versions.setdefault(found[1], set()).add(found[2])
                some |= {found[1]} if found[3] else set()
    return versions, some


def packages(patient: Patient) -> Iterator[Check]:
    """What is installed is what the lock says."""
    versions, some = locked()
    wrong = []
    for name, wanted in versions.items():
        try:
            found = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            found = None
        if found not in wanted and not (found is None and name in some):
            wrong.append(f"{name} {found or 'missing'}, locked {' or '.join(sorted(wanted))}")
    more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
    if wrong:
        yield Check(DO, "packages", f"{'; '.join(wrong[:5])}{more}: make setup (numbers may differ until then)")
    else:
        yield Check(OK, "packages", f"{len(versions)}, as in requirements.lock")


def gpu(patient: Patient) -> Iterator[Check]:
    """torch, GPU and driver fit the study's `device`. Without --gpu torch is judged by its name."""
    study, demanded = patient.study, patient.study.device == "cuda"
    version = _version("torch")
    if version is None:
        yield Check(DO, "torch", "not installed: make setup")
        return
    if patient.gpu:
        yield from _probed(patient)
        return
    if version.endswith("+cpu"):
        advice = "install one for CUDA (make setup TORCH_INDEX=..., README.md)"
        needed = demanded or (patient.on_slurm and study.gpus > 0)  # a job would hold a GPU and not use it
        yield Check(DO if needed else OK, "torch", f"{version}, a CPU build" + (f"; {advice}, or device: cpu" * needed))
    else:
        yield Check(OK, "torch", f"{version}, judged by its name; --gpu asks it")
    if not study.gpus:
        yield Check(OK, "GPU", f"none is asked for (device: {study.device})")
    elif patient.on_slurm:
        ask = ["srun", f"--gpus={study.gpus}", "python", "-m", "rtt", "doctor", "--gpu"]
        config = [*(item for item in patient.config if not item.startswith("device=")), "device=cuda"]
        ask += ["--configfile", patient.study_file, "--config", *config]
        yield Check(LOOK, "GPU", f"the nodes have them; ask one: {shlex.join(ask)}")
    else:
        cards, why = _nvidia_smi("name,driver_version,memory.total")
        if cards:
            yield Check(OK, "GPU", f"{len(cards)}: {cards[0]}")
        else:
            why = why or "nvidia-smi is not here"
            advice = "install the driver, or set device: cpu" if demanded else "a CPU does the work, slowly"
            yield Check(DO if demanded else LOOK, "GPU", f"none to be seen ({why}): {advice}")


def gpu_memory(patient: Patient) -> Iterator[Check]:
    """A GPU holds what training needs, where the site file says which GPU it is."""
    if not patient.study.gpus or getattr(patient.study.model, "parameters", None) is None:
        return
    plan = Plan(patient.study, device_of("h100"), root=patient.folder)
    if not sum(bill.jobs for bill in plan.stages.values()):  # which finds the phases, too
        return
    needed = max((plan.memory(phase)["needed"] for phase in plan.phases.values()), default=0.0)
    model = (_site(patient).gpu_model or "").lower()
    limits = [device.memory for name, device in DEVICES.items() if model.startswith(name.split("-")[0])]
    advice = f"what fits where, and with which devices and deepspeed: python -m rtt plan {patient.study_file}"
    text = f"training needs {_gb(needed)} of each"
    if limits and needed <= min(limits):
        yield Check(OK, "GPU memory", f"{text}; {model} has {_gb(min(limits))}")
    elif limits and needed > max(limits):
        yield Check(DO, "GPU memory", f"{text}, {model} has {_gb(max(limits))}: {advice}")
    else:
        yield Check(LOOK, "GPU memory", f"{text}: has it? {advice}")


def _site(patient: Patient) -> Site:
    try:
        return read_site(patient.profile / "site.yaml") if patient.on_slurm else Site()
    except UserError:  # the check of SLURM says so
        return Site()


def _nvidia_smi(keys: str) -> tuple[list[str], str | None]:
    """Return (a line per GPU, what nvidia-smi says where there is none; None where it is not here)."""
    shown = output("nvidia-smi", f"--query-gpu={keys}", "--format=csv,noheader")
    if shown is None:
        return [], None
    lines = [line for line in shown.stdout.splitlines() if line.strip() and not shown.returncode]
    return lines, " ".join((shown.stderr or shown.stdout).split())[:200] or "nvidia-smi names none"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _probed(patient: Patient) -> Iterator[Check]:
    study = patient.study
    flash = study.attn_backend == "flash_attention_2"
    done = subprocess.run([sys.executable, "-c", PROBE, *["flash"] * flash], capture_output=True, text=True)
    if done.returncode:
        yield Check(DO, "torch", f"can't be imported: {done.stderr.strip().splitlines()[-1]}; make setup")
        return
    found = json.loads(done.stdout.splitlines()[-1])
    build = f"for CUDA {found['cuda']}" if found["cuda"] else "a CPU build"
    yield Check(OK, "torch", f"{found['torch']}, {build}")
    drivers, why = _nvidia_smi("driver_version")
    if drivers:
        yield Check(OK, "driver", f"{drivers[0]} (nvidia-smi)")
    elif why:
        yield Check(DO if study.device == "cuda" else LOOK, "driver", f"nvidia-smi fails: {why}: ask for another node")
    if found["gpus"]:
        few = len(found["gpus"]) < study.devices and study.gpus > 0
        text = f"{len(found['gpus'])}: {found['gpus'][0]}"
        yield Check(DO if few else OK, "GPU", text + (f"; devices: {study.devices} needs as many" if few else ""))
    else:
        advice = (
            "ask for one, look at nvidia-smi, or install torch for an older CUDA"
            if found["cuda"]
            else ("install torch for CUDA: make setup TORCH_INDEX=...")
        )
        yield Check(DO if study.device == "cuda" else OK, "GPU", f"torch sees none; with device: cuda, {advice}")
    if flash and not found["flash"]:
        yield Check(DO, "flash-attn", f"can't be imported ({found['flash_error']}): docs/hpc.md, flash-attn")


def attention(patient: Patient) -> Iterator[Check]:
    """The attention backend that the study asks for is installed."""
    asked, version = patient.study.attn_backend, _version("flash-attn")
    if asked == "flash_attention_2" and version is None:
        advice = "pip install --no-build-isolation -r requirements-flash.txt (docs/hpc.md), or attn_backend: sdpa"
        yield Check(DO, "attention", f"{asked}: flash-attn is not installed: {advice}")
    elif asked == "flash_attention_2" and patient.study.gpus == 0:
        yield Check(LOOK, "attention", f"{asked} needs a GPU, and device: {patient.study.device} asks for none: SDPA")
    else:
        flash = {"auto": f"flash-attn {version} where it can run" if version else "SDPA"}
        yield Check(OK, "attention", f"{asked}: {flash[asked]}" if asked in flash else asked)


# --- the folder and the disk


def _disk_of(path: Path) -> tuple[Path, float, float]:
    """Return (the nearest folder that exists, bytes free for this user, files that may still be made there)."""
    while not path.exists():
        path = path.parent
    found = os.statvfs(path)
    return path, found.f_bavail * found.f_frsize, found.f_favail


def _gb(size: float) -> str:
    return f"{size / 1e9:,.1f} GB"


def disk(patient: Patient) -> Iterator[Check]:
    """There is room for what `rtt plan` expects. A quota shows only where the file system reports it as its size."""
    place, free, files = _disk_of(patient.folder / "results")
    plan = Plan(patient.study, device_of("h100"), root=patient.folder)
    least, most = plan.disk()["at_least"], plan.disk()["at_most"]
    said = f"{_gb(free)} free in {place}; the plan needs {_gb(least)} to {_gb(most)} at once"
    if free < least:
        yield Check(DO, "disk", f"{said}: free space, or run from a larger file system")
    else:
        yield Check(LOOK if free < most else OK, "disk", f"{said}; a quota is not seen here")
    if 0 < files < 20_000:
        yield Check(DO, "inodes", f"{files:,} files may still be made in {place}: delete some, or ask for more")
    scratch = Path(tempfile.gettempdir())
    _, free, _ = _disk_of(scratch)
    if free < SCRATCH:
        yield Check(DO, "scratch", f"{_gb(free)} free in {scratch}: free space, or set TMPDIR")
    else:
        yield Check(OK, "scratch", f"{_gb(free)} free in {scratch}")


def file_system(folder: Path) -> tuple[str, str]:
    """Return (mount point, type) of the file system that a folder lies on; "" where it can't be told."""
    folder = folder.resolve()
    mounts = {Path(one.mountpoint): one.fstype for one in psutil.disk_partitions(all=True)}
    found = next((path for path in (folder, *folder.parents) if path in mounts), None)
    return (str(found), mounts[found]) if found else ("", "")


def work_folder(patient: Patient) -> Iterator[Check]:
    """The work folder is seen by all machines that work on it, and file locks work there."""
    folder = patient.folder
    mount, kind = file_system(folder)
    if patient.on_slurm:
        local = [place for place in (*LOCAL, os.environ.get("TMPDIR")) if place and folder.is_relative_to(place)]
        if local:
            yield Check(DO, "work folder", f"{folder} lies in {local[0]}, which each node has its own of: use another")
        elif SHARED.search(kind):
            yield Check(OK, "work folder", f"{folder}: {kind} on {mount}")
        else:
            text = f"{folder}: {kind or 'unknown'} on {mount or '?'}, often one machine's own"
            yield Check(LOOK, "work folder", f"{text}: `srun ls {folder}` must show the same")
    try:
        locks_work = _locks_work(folder)
    except OSError as error:
        yield Check(DO, "work folder", f"{folder}: can't be written: {error.strerror}")
        return
    advice = "start one run at a time here; Snakemake's own lock still guards"
    yield Check(OK if locks_work else LOOK, "file locks", "work" if locks_work else f"don't work in {folder}: {advice}")
    if found := locks.others(folder / locks.FOLDER):
        yield Check(LOOK, "other runs", f"at work here: {'; '.join(map(str, found))}")


def _locks_work(folder: Path) -> bool:
    """Does a second process see a lock of ours? Two handles of one process would not do: NFS locks by process."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        block = "import fcntl, sys; fcntl.flock(open(sys.argv[1], 'w'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        return bool(subprocess.run([sys.executable, "-c", block, handle.name], capture_output=True).returncode)


# --- the network


def fetched(patient: Patient) -> Iterator[Check]:
    """Data and models are here already: jobs ask no hub."""
    runs = Runs(patient.study, patient.folder)
    groups = [raw for raw in runs.raw.values() if raw.files and raw.files.group]
    if not (groups or runs.texts or runs.imports):
        yield Check(OK, "data and models", "nothing comes from the network")
        return
    what = ["fetch", "--cores", "1", "--configfile", patient.study_file]
    what += ["--config", *patient.config] if patient.config else []
    command = [sys.executable, "-m", "snakemake", *what, "-n"]
    done = subprocess.run(command, cwd=patient.folder, capture_output=True, text=True)
    said = done.stdout + done.stderr
    if done.returncode:
        yield Check(DO, "data and models", f"`snakemake fetch -n` fails: {said.strip().splitlines()[-1]}")
    elif "Nothing to be done" in said:
        yield Check(OK, "data and models", "all fetched; jobs ask no hub")
    else:
        yield Check(DO, "data and models", f"not all fetched: where there is internet, snakemake {shlex.join(what)}")


def secrets(patient: Patient) -> Iterator[Check]:
    """sbatch --export=ALL hands every variable to the jobs, and SLURM keeps it with them. Names alone are shown."""
    found = sorted(name for name, value in os.environ.items() if value and SECRET.search(name))
    if found and patient.on_slurm:
        yield Check(DO, "secrets", f"jobs get them with the rest of the environment: unset {' '.join(found)}")
    elif patient.on_slurm:
        yield Check(OK, "secrets", "no variable's name looks like one")


def profile(patient: Patient) -> Iterator[Check]:
    """No other profile has a say, whether this one is given as --profile or as --workflow-profile."""
    if patient.profile is None:
        return
    variable = os.environ.get("SNAKEMAKE_PROFILE", "none")
    others = [place for place in (patient.folder / "default", patient.folder / "profiles/default") if place.exists()]
    for default in others:
        text = f"{default} is read by itself beside --profile, and overrides {patient.profile}: move it away"
        yield Check(DO, "profile", text)
    if variable != "none" and not _is_profile(variable, patient.profile):
        text = f"SNAKEMAKE_PROFILE={variable} is read beside --workflow-profile, for each key that is not in"
        yield Check(DO, "profile", f"{text} {patient.profile}: unset it")
    elif not others:
        yield Check(OK, "profile", f"{patient.profile}")


def _is_profile(name: str, folder: Path) -> bool:
    """Does Snakemake take this name for that profile?"""
    from snakemake.cli import get_profile_dir  # imports for a second

    found = get_profile_dir(name)
    return found is not None and found[0].resolve() == folder.resolve()


def slurm(patient: Patient) -> Iterator[Check]:
    """SLURM answers and would take the study's jobs."""
    if patient.on_slurm:
        path = patient.profile / "site.yaml"
        yield from doctor_slurm.checks(patient.study, path, patient.settings, patient.folder)


CHECKS: tuple[Callable[[Patient], Iterator[Check]], ...] = (
    python, packages, gpu, gpu_memory, attention, fetched, disk, work_folder, profile, slurm, secrets,
)  # fmt: skip


def examine(patient: Patient) -> Iterator[Check]:
    """Yield every check's result, as it comes."""
    for check in CHECKS:
        yield from check(patient)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `doctor`."""
    parser.add_argument("--configfile", metavar="FILE", help=f"the study file (default: {DEFAULT_STUDY})")
    parser.add_argument("--config", nargs="+", default=[], metavar="KEY=VALUE", help="override keys of the study")
    parser.add_argument("--profile", metavar="NAME", help="slurm, local, or a profile's folder (default: none)")
    parser.add_argument("--gpu", action="store_true", help="import torch and look for GPUs: on the node that has them")


def run(args: argparse.Namespace) -> int:
    """Print a line per check; return 1 where something must be done."""
    folder = Path.cwd() if (Path.cwd() / "Snakefile").is_file() else ROOT
    overrides = {}
    for item in args.config:
        key, equals, value = item.partition("=")
        if not equals:
            raise UserError(f"--config {item}: expected KEY=VALUE")
        overrides[key] = yaml.safe_load(value)
    file = args.configfile or str(folder / DEFAULT_STUDY)
    study = load_study(file, overrides)
    found = None
    if args.profile:
        found = next((p for p in (Path(args.profile), folder / "profiles" / args.profile) if p.is_dir()), None)
        if found is None:
            raise UserError(f"--profile {args.profile}: no such folder, nor {folder / 'profiles' / args.profile}")
    patient, todo = Patient(study, str(Path(file).resolve()), folder, found, args.gpu, tuple(args.config)), 0
    for check in examine(patient):
        todo += check.status == DO
        print(f"{check.status:<5} {check.name}: {check.text}", flush=True)
    print(f"{todo} to do" if todo else "nothing to do")
    return 1 if todo else 0

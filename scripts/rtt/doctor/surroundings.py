"""Check what surrounds a run: disk, work folder, fetched files, environment variables and profiles."""

import fcntl
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from rtt import places
from rtt.doctor.checks import DO, LOOK, OK, Check, Patient, gigabytes
from rtt.planner.gpus import device_of
from rtt.planner.plan import Plan
from rtt.runtime import locks
from rtt.study.expand import Runs

SCRATCH = 1e9  # bytes of temporary files that a step may need
# File systems that several machines share; about others the user is asked.
SHARED = re.compile(
    r"nfs|lustre|gpfs|beegfs|ceph|gluster|panfs|weka|pvfs|orangefs|afs|cifs|smb|9p|virtiofs|wekafs|vast"
)
LOCAL = ("/tmp", "/var/tmp", "/dev/shm", "/run")
SECRET = re.compile(
    r"(TOKENS?|SECRETS?|PASSWORDS?|PASSWD|CREDENTIALS?|(^|_|API|ACCESS|PRIVATE)KEYS?)(_|$)", re.IGNORECASE
)


def _disk_of(path: Path) -> tuple[Path, float, float]:
    """Return (the nearest existing folder, bytes free for this user, files that may still be made there)."""
    while not path.exists():
        path = path.parent
    found = os.statvfs(path)
    return path, found.f_bavail * found.f_frsize, found.f_favail


def disk(patient: Patient) -> Iterator[Check]:
    """Check that there is room for what `rtt plan` expects. A quota only shows if the file system reports it as its
    size.
    """
    place, free, files = _disk_of(patient.folder / "results")
    plan = Plan(patient.study, device_of("h100"), root=patient.folder)
    least, most = plan.disk()["at_least"], plan.disk()["at_most"]
    said = f"{gigabytes(free)} free in {place}; the plan needs {gigabytes(least)} to {gigabytes(most)} at once"
    if free < least:
        yield Check(DO, "disk", f"{said}: free space, or run from a larger file system")
    else:
        yield Check(LOOK if free < most else OK, "disk", f"{said}; this check sees no quota")
    if 0 < files < 20_000:
        yield Check(DO, "inodes", f"only {files:,} more files fit into {place}: delete some, or ask for more inodes")
    scratch = Path(tempfile.gettempdir())
    _, free, _ = _disk_of(scratch)
    if free < SCRATCH:
        yield Check(DO, "scratch", f"{gigabytes(free)} free in {scratch}: free space, or set TMPDIR")
    else:
        yield Check(OK, "scratch", f"{gigabytes(free)} free in {scratch}")


def file_system(folder: Path) -> tuple[str, str]:
    """Return (mount point, type) of the file system on which a folder lies; ("", "") if it is unknown."""
    folder = folder.resolve()
    mounts = {Path(one.mountpoint): one.fstype for one in psutil.disk_partitions(all=True)}
    found = next((path for path in (folder, *folder.parents) if path in mounts), None)
    return (str(found), mounts[found]) if found else ("", "")


def work_folder(patient: Patient) -> Iterator[Check]:
    """Check that all machines that work on the work folder see it, and that file locks work there."""
    folder = patient.folder
    mount, kind = file_system(folder)
    if patient.on_slurm:
        local = [place for place in (*LOCAL, os.environ.get("TMPDIR")) if place and folder.is_relative_to(place)]
        if local:
            text = f"{folder} lies in {local[0]}, which is another folder on each node: use a shared one"
            yield Check(DO, "work folder", text)
        elif SHARED.search(kind):
            yield Check(OK, "work folder", f"{folder}: {kind} on {mount}")
        else:
            text = f"{folder}: {kind or 'unknown'} on {mount or '?'} often belongs to one machine only"
            yield Check(LOOK, "work folder", f"{text}: `srun ls {folder}` must show the same files")
    try:
        locks_work = _locks_work(folder)
    except OSError as error:
        yield Check(DO, "work folder", f"{folder}: cannot be written: {error.strerror}")
        return
    text = f"do not work in {folder}: start one run at a time here, which only Snakemake's own lock ensures"
    yield Check(OK if locks_work else LOOK, "file locks", "work" if locks_work else text)
    if found := locks.others(folder / locks.FOLDER):
        yield Check(LOOK, "other runs", f"at work here: {'; '.join(map(str, found))}")


def _locks_work(folder: Path) -> bool:
    """Return whether a second process sees a lock of ours; two handles of one process would not do, as NFS locks by
    process.
    """
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        block = "import fcntl, sys; fcntl.flock(open(sys.argv[1], 'w'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        return bool(subprocess.run([sys.executable, "-c", block, handle.name], capture_output=True).returncode)


def fetched(patient: Patient) -> Iterator[Check]:
    """Check that data and models have been fetched, since jobs ask no hub."""
    runs = Runs(patient.study, patient.folder)
    groups = [raw for raw in runs.raw.values() if raw.files and raw.files.group]
    if not (groups or runs.texts or runs.imports):
        yield Check(OK, "data and models", "nothing comes from the network")
        return
    what = ["fetch", "--cores", "1", "--configfile", patient.study_file]
    what += ["--config", *patient.config] if patient.config else []
    snakefile = ["--snakefile", str(places.SNAKEFILE)] if places.INSTALLED else []
    command = [sys.executable, "-m", "snakemake", *what, *snakefile, "-n"]
    done = subprocess.run(command, cwd=patient.folder, capture_output=True, text=True)
    said = done.stdout + done.stderr
    if done.returncode:
        yield Check(DO, "data and models", f"`snakemake fetch -n` fails: {said.strip().splitlines()[-1]}")
    elif "Nothing to be done" in said:
        yield Check(OK, "data and models", "all fetched; jobs ask no hub")
    else:
        yield Check(
            DO, "data and models", f"not all fetched; where there is internet, run snakemake {shlex.join(what)}"
        )


def secrets(patient: Patient) -> Iterator[Check]:
    """Check that jobs get no secrets: sbatch --export=ALL hands every variable on, and SLURM stores it. Shows names
    only.
    """
    found = sorted(name for name, value in os.environ.items() if value and SECRET.search(name))
    if found and patient.on_slurm:
        yield Check(DO, "secrets", f"jobs would get them with the rest of the environment: unset {' '.join(found)}")
    elif patient.on_slurm:
        yield Check(OK, "secrets", "no variable has a name that looks like one")


def profile(patient: Patient) -> Iterator[Check]:
    """Check that no other profile interferes, whether this one is given as --profile or as --workflow-profile."""
    if patient.profile is None:
        return
    variable = os.environ.get("SNAKEMAKE_PROFILE", "none")
    others = [place for place in (patient.folder / "default", patient.folder / "profiles/default") if place.exists()]
    for default in others:
        text = f"Snakemake reads {default} beside --profile, and it overrides {patient.profile}: move it away"
        yield Check(DO, "profile", text)
    if variable != "none" and not _is_profile(variable, patient.profile):
        text = f"Snakemake reads SNAKEMAKE_PROFILE={variable} beside --workflow-profile, for each key that is not in"
        yield Check(DO, "profile", f"{text} {patient.profile}: unset it")
    elif not others:
        yield Check(OK, "profile", f"{patient.profile}")


def _is_profile(name: str, folder: Path) -> bool:
    """Return whether Snakemake takes this name for that profile."""
    from snakemake.cli import get_profile_dir  # this import takes a second

    found = get_profile_dir(name)
    return found is not None and found[0].resolve() == folder.resolve()

"""Check this machine: Python, packages, torch, GPU and attention.

Only --gpu asks torch, in a new process.
"""

import importlib.metadata
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator

from rtt import places
from rtt.doctor.checks import DO, LOOK, OK, Check, Patient, gigabytes, output
from rtt.errors import UserError
from rtt.planner.gpus import DEVICES, device_of
from rtt.planner.plan import Plan
from rtt.planner.resources import Site, read_site, site_file

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


def python(patient: Patient) -> Iterator[Check]:
    """Check that the lock supports this Python version."""
    version = ".".join(map(str, sys.version_info[:3]))
    fits = (3, 11) <= sys.version_info[:2] <= (3, 13)
    advice = "the lock supports 3.11 to 3.13: make setup PYTHON=python3.11"
    yield Check(OK, "Python", f"{version}, {sys.executable}") if fits else Check(DO, "Python", f"{version}; {advice}")


def locked() -> tuple[dict[str, set[str]], set[str]]:
    """Return {package: versions} of requirements.lock and torch, and the packages that only some platforms need."""
    versions: dict[str, set[str]] = {}
    some = set()
    for file, kept in (("requirements.lock", None), ("requirements.txt", "torch")):
        for line in (places.SHIPPED / file).read_text(encoding="utf-8").splitlines():
            found = re.match(r"([A-Za-z0-9._-]+)==([^ \\;]+)\s*(;?)", line)
            if found and kept in (None, found[1]):
                versions.setdefault(found[1], set()).add(found[2])
                some |= {found[1]} if found[3] else set()
    return versions, some


def packages(patient: Patient) -> Iterator[Check]:
    """Check that the installed packages are those of the lock."""
    versions, some = locked()
    wrong = []
    for name, wanted in versions.items():
        try:
            found = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            found = None
        if found is None and (name in some or places.INSTALLED):  # pip has seen to what we need
            continue
        if found not in wanted:
            wrong.append(f"{name} {found or 'missing'}, locked {' or '.join(sorted(wanted))}")
    more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
    if wrong and places.INSTALLED:
        advice = f"numbers may differ in their last digits; {places.SHIPPED / 'requirements.lock'} has the versions"
        yield Check(LOOK, "packages", f"{'; '.join(wrong[:5])}{more}: {advice}")
    elif wrong:
        yield Check(DO, "packages", f"{'; '.join(wrong[:5])}{more}: make setup (numbers may differ until then)")
    else:
        yield Check(OK, "packages", f"{len(versions)}, as in requirements.lock")


def extras(patient: Patient) -> Iterator[Check]:
    """Check that DeepSpeed and Snakemake's SLURM plugin are installed where they are asked for."""
    asked = {
        "deepspeed": patient.study.deepspeed or patient.study.launcher == "deepspeed",
        "snakemake_executor_plugin_slurm": patient.on_slurm,
        "snakemake_executor_plugin_slurm_jobstep": patient.on_slurm,
    }
    for module, needed in asked.items():
        if needed and (why := places.missing(module)):
            yield Check(DO, "extras", why)


def gpu(patient: Patient) -> Iterator[Check]:
    """Check that torch, GPU and driver fit the study's `device`. Without --gpu, only torch's version is looked at."""
    study, demanded = patient.study, patient.study.device == "cuda"
    version = _version("torch")
    if version is None:
        yield Check(DO, "torch", places.missing("torch") or "not installed")
        return
    if patient.gpu:
        yield from _probed(patient)
        return
    if version.endswith("+cpu"):
        advice = "install one for CUDA (make setup TORCH_INDEX=..., README.md)"
        needed = demanded or (patient.on_slurm and study.gpus > 0)  # a job would occupy a GPU without using it
        yield Check(DO if needed else OK, "torch", f"{version}, a CPU build" + (f"; {advice}, or device: cpu" * needed))
    else:
        yield Check(OK, "torch", f"{version}, judged by its version alone; --gpu asks torch itself")
    if not study.gpus:
        yield Check(OK, "GPU", f"none is asked for (device: {study.device})")
    elif patient.on_slurm:
        ask = ["srun", f"--gpus={study.gpus}", "python", "-m", "rtt", "doctor", "--gpu"]
        config = [*(item for item in patient.config if not item.startswith("device=")), "device=cuda"]
        ask += ["--configfile", patient.study_file, "--config", *config]
        yield Check(LOOK, "GPU", f"only the nodes can tell; ask one: {shlex.join(ask)}")
    else:
        cards, why = _nvidia_smi("name,driver_version,memory.total")
        if cards:
            yield Check(OK, "GPU", f"{len(cards)}: {cards[0]}")
        else:
            why = why or "nvidia-smi is not here"
            advice = "install the driver, or set device: cpu" if demanded else "the CPU does the work, slowly"
            yield Check(DO if demanded else LOOK, "GPU", f"none is visible ({why}): {advice}")


def gpu_memory(patient: Patient) -> Iterator[Check]:
    """Check that a GPU has the memory that training needs, if the site file names its model."""
    if not patient.study.gpus or getattr(patient.study.model, "parameters", None) is None:
        return
    plan = Plan(patient.study, device_of("h100"), root=patient.folder)
    if not sum(bill.jobs for bill in plan.stages.values()):  # this fills plan.phases, too
        return
    needed = max((plan.memory(phase)["needed"] for phase in plan.phases.values()), default=0.0)
    model = (_site(patient).gpu_model or "").lower()
    limits = [device.memory for name, device in DEVICES.items() if model.startswith(name.split("-")[0])]
    advice = f"python -m rtt plan {patient.study_file} shows what fits where, with which devices and deepspeed"
    text = f"training needs {gigabytes(needed)} of each"
    if limits and needed <= min(limits):
        yield Check(OK, "GPU memory", f"{text}; {model} has {gigabytes(min(limits))}")
    elif limits and needed > max(limits):
        yield Check(DO, "GPU memory", f"{text}, {model} has {gigabytes(max(limits))}: {advice}")
    else:
        yield Check(LOOK, "GPU memory", f"{text}: check that it has that much; {advice}")


def _site(patient: Patient) -> Site:
    try:
        return read_site(site_file(patient.profile)) if patient.on_slurm else Site()
    except UserError:  # the check of SLURM reports it
        return Site()


def _nvidia_smi(keys: str) -> tuple[list[str], str | None]:
    """Return (a line per GPU, what nvidia-smi says if there is none; None without nvidia-smi)."""
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
        last = done.stderr.strip().splitlines()[-1]
        yield Check(DO, "torch", f"cannot be imported: {last}; {places.to_install('torch')}")
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
        yield Check(DO if few else OK, "GPU", text + (f"; devices: {study.devices} needs that many" if few else ""))
    else:
        advice = (
            "ask for one, look at nvidia-smi, or install torch for an older CUDA"
            if found["cuda"]
            else ("install torch for CUDA: make setup TORCH_INDEX=...")
        )
        yield Check(DO if study.device == "cuda" else OK, "GPU", f"torch sees none; with device: cuda, {advice}")
    if flash and not found["flash"]:
        yield Check(DO, "flash-attn", f"cannot be imported ({found['flash_error']}): docs/hpc.md, flash-attn")


def attention(patient: Patient) -> Iterator[Check]:
    """Check that the attention backend that the study asks for is installed."""
    asked, version = patient.study.attn_backend, _version("flash-attn")
    if asked == "flash_attention_2" and version is None:
        advice = "pip install --no-build-isolation -r requirements-flash.txt (docs/hpc.md), or attn_backend: sdpa"
        yield Check(DO, "attention", f"{asked}: flash-attn is not installed: {advice}")
    elif asked == "flash_attention_2" and patient.study.gpus == 0:
        text = f"{asked} needs a GPU, but device: {patient.study.device} asks for none, so SDPA is used"
        yield Check(LOOK, "attention", text)
    else:
        flash = {"auto": f"flash-attn {version} where it can run" if version else "SDPA"}
        yield Check(OK, "attention", f"{asked}: {flash[asked]}" if asked in flash else asked)

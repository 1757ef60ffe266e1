"""Whether a step runs on a GPU: `device` of a study, handed to the steps as RTT_DEVICE, and RTT_GPUS, for how many GPUs
its job asks a cluster. No torch. Decides no number.
"""

import os
import socket

from rtt.errors import UserError

VARIABLE = "RTT_DEVICE"
GPUS = "RTT_GPUS"
VISIBLE = "CUDA_VISIBLE_DEVICES"
DEVICES = ("auto", "cuda", "cpu")


def asked() -> str:
    """Return what the environment asks for: auto (a GPU where there is one), cuda (a GPU or nothing) or cpu.

    Raises UserError for anything else.
    """
    found = os.environ.get(VARIABLE) or "auto"
    if found not in DEVICES:
        raise UserError(f"{VARIABLE}: found {found!r}, expected one of {', '.join(DEVICES)}")
    return found


def hide() -> None:
    """Under `cpu`, hide the GPUs. To be called before torch is imported: later it may have looked already."""
    if asked() == "cpu":
        os.environ[VISIBLE] = ""


def demand(gpus: int, processes: int, build: str, cuda: str | None) -> None:
    """Raise UserError where a GPU was asked for and none is seen, or where processes of this host outnumber its GPUs.
    Under `auto` it was asked for where this is a job of a cluster that asked for GPUs.

    gpus: how many torch can use. processes: of this job on this host. build, cuda: torch's version, and that of the
    CUDA that it is built for (None: a CPU build).
    """
    visible = f"{VISIBLE}={os.environ[VISIBLE]}" if VISIBLE in os.environ else f"{VISIBLE} is unset"
    job = f"SLURM job {os.environ['SLURM_JOB_ID']}, " if "SLURM_JOB_ID" in os.environ else ""
    where = f"{job}on {socket.gethostname()}, {visible}"
    paid = job and int(os.environ.get(GPUS) or 0) > 0
    if not gpus and (asked() == "cuda" or (asked() == "auto" and paid)):
        if cuda is None:
            why = f"torch {build} is a CPU build: install one for CUDA (make setup TORCH_INDEX=..., README.md)"
        else:
            why = (
                f"torch {build} is for CUDA {cuda}: `nvidia-smi` there shows whether the job has a GPU and whether the "
                "driver is as new as that; on a cluster, ask for a GPU (docs/hpc.md)"
            )
        raise UserError(f"device: {asked()}: this step sees no GPU ({where}). {why}; or set device: cpu")
    if 0 < gpus < processes:
        raise UserError(
            f"devices: {processes} processes on this host, but they see {gpus} GPU{'s' * (gpus > 1)} ({where}): one "
            f"each is needed; give the job {processes} GPUs, or set devices: {gpus}"
        )

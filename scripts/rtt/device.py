"""Decide whether a step runs on a GPU, and refuse to start without one that was asked for.

The rules hand a study's `device` to the steps as RTT_DEVICE, and the number of GPUs that a job asks a cluster for as
RTT_GPUS. The device is no part of a spec. No torch.
"""

import os
import socket

from rtt.errors import UserError

VARIABLE = "RTT_DEVICE"
GPUS = "RTT_GPUS"
VISIBLE = "CUDA_VISIBLE_DEVICES"
DEVICES = ("auto", "cuda", "cpu")


def asked() -> str:
    """Return the device that the environment asks for: auto (a GPU if there is one), cuda (a GPU, or an error) or cpu.

    Raises UserError for anything else.
    """
    found = os.environ.get(VARIABLE) or "auto"
    if found not in DEVICES:
        raise UserError(f"{VARIABLE}: found {found!r}, expected one of {', '.join(DEVICES)}")
    return found


def hide() -> None:
    """Hide the GPUs from torch if RTT_DEVICE is cpu.

    Call it before torch is imported, which may look for them at once.
    """
    if asked() == "cpu":
        os.environ[VISIBLE] = ""


def demand(gpus: int, processes: int, build: str, cuda: str | None) -> None:
    """Raise UserError if a GPU was asked for and none is visible, or if this host has more processes than GPUs.

    Under `auto`, a GPU counts as asked for where this is a job of a cluster that requested GPUs. `gpus` is the number
    that torch can use, `processes` those of this job on this host, `build` torch's version, and `cuda` the version of
    CUDA that torch is built for (None: a CPU build).
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
                f"torch {build} is built for CUDA {cuda}: `nvidia-smi` there shows whether the job has a GPU and "
                "whether the driver supports that version; on a cluster, ask for a GPU (docs/hpc.md)"
            )
        raise UserError(f"device: {asked()}: this step sees no GPU ({where}). {why}; or set device: cpu")
    if 0 < gpus < processes:
        raise UserError(
            f"devices: {processes} processes on this host, but they see {gpus} GPU{'s' * (gpus > 1)} ({where}): each "
            f"needs its own; give the job {processes} GPUs, or set devices: {gpus}"
        )

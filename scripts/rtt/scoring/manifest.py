"""Write the manifest of a process: what it cost, and with which code, packages and hardware it ran.

Manifests differ from run to run.
"""

import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from rtt import distributed, places
from rtt.code_version import code_version
from rtt.files import write_json
from rtt.ownership import still_ours
from rtt.records import record
from rtt.study.specs import Spec

PACKAGES = (
    "torch", "transformers", "accelerate", "tokenizers", "safetensors", "numpy", "snakemake", "pydantic", "deepspeed",
    "lion-pytorch", "peft", "flash-attn",
)  # fmt: skip


class Manifest:
    """The manifest of one step; make it when the step begins."""

    def __init__(self, step: str, spec: Spec, plugin: str | None = None):
        self.step, self.spec, self.plugin = step, spec, plugin
        self.code = code_version(step, plugin)

    def write(self, path: str | Path, model, read: Iterable = (), made: Iterable = (), **more) -> None:
        """Write what the step did with `model` (None: there is none); `more` adds keys.

        `read` and `made` are paths, for the record of what it read and made.

        CPU seconds are summed over all processes from their start, imports included; the other figures are those of the
        main process.
        """
        usage = resource.getrusage(resource.RUSAGE_SELF)
        (cpu,) = distributed.total([usage.ru_utime + usage.ru_stime])
        if not distributed.is_main():
            return
        still_ours()
        process_age = time.time() - _process_start()
        write_json(
            path,
            {
                "run_id": self.spec.run_id,
                "stage": self.step,
                "plugin": self.plugin,
                "seed": self.spec.seed,
                "cpu_seconds": round(cpu, 2),
                "wall_seconds": round(process_age, 2),
                "ended": datetime.now(UTC).isoformat(timespec="seconds"),
                "peak_memory_mb": round(usage.ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)),
                "code": self.code,
                **_git(),
                "packages": _versions(),
                "python": platform.python_version(),
                "hardware": {
                    "machine": platform.machine(),
                    "system": platform.system(),
                    "cpus": os.cpu_count(),
                    "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
                },
                **(_of_model(model) if model is not None else {}),
                "engine": distributed.name(),
                "world_size": distributed.world(),
                "deterministic": torch.are_deterministic_algorithms_enabled(),
                "threads": torch.get_num_threads(),
                **more,
                **record(Path(path).parent.parent, read, made),
            },
        )


def _of_model(model) -> dict[str, str]:
    return {
        "precision": str(model.dtype).removeprefix("torch."),
        "attn_backend": model.config._attn_implementation,
    }


def _versions() -> dict[str, str]:
    """Return the versions of those PACKAGES that are installed; a conda environment of a step has no Snakemake."""
    found = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _process_start() -> float:
    import psutil

    return psutil.Process().create_time()


@cache  # attacks that share a process run the same code
def _git() -> dict:
    """Return the git commit of the code, and whether it was changed since; None for both outside a clone."""

    def git(*words):
        command = ["git", "-C", str(Path(__file__).parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if places.INSTALLED:  # a repository around it would be another project's
            raise OSError("not a clone")
        return {"git_commit": git("rev-parse", "HEAD"), "git_dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return {"git_commit": None, "git_dirty": None}

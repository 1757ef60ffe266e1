"""What the study cost and what it was made with, from the manifests: time, tokens, energy; commits, packages."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

STAGES = ("import", "original", "pretrain", "teach", "unlearn", "attack")
# Watts of a whole board at its limit, from NVIDIA's datasheets, by the name that the driver gives.
BOARDS = {
    "NVIDIA H200": 700,
    "NVIDIA H100 80GB HBM3": 700,
    "NVIDIA H100 PCIe": 350,
    "NVIDIA A100-SXM4-80GB": 400,
    "NVIDIA A100-SXM4-40GB": 400,
    "NVIDIA A100 80GB PCIe": 300,
    "NVIDIA A100-PCIE-40GB": 250,
    "NVIDIA L40S": 350,
    "NVIDIA L4": 72,
    "NVIDIA GeForce RTX 4090": 450,
    "NVIDIA GeForce RTX 3090": 350,
}
VALUES = ("python", "precision", "attn_backend", "launcher", "engine", "world_size", "deterministic", "threads")


@dataclass(frozen=True)
class Stage:
    """What the processes of one stage took. `unknown`: how many of them do not say their CPU seconds."""

    stage: str
    processes: int
    cpu_seconds: float
    wall_seconds: float
    gpu_seconds: float
    tokens: float
    unknown: int

    @property
    def cpu_text(self) -> str:
        """Return the CPU time, and how many processes it leaves out."""
        return time_text(self.cpu_seconds) + (f" ({self.unknown} unknown)" if self.unknown else "")

    @property
    def wall_text(self) -> str:
        """Return the wall time."""
        return time_text(self.wall_seconds)

    @property
    def gpu_text(self) -> str:
        """Return the GPU time."""
        return time_text(self.gpu_seconds) if self.gpu_seconds else "none"

    @property
    def tokens_text(self) -> str:
        """Return the number of tokens that were trained on."""
        return f"{self.tokens:,.0f}".replace(",", " ") if self.tokens else "–"


def ledger(manifests: Sequence[dict[str, Any]]) -> list[Stage]:
    """Return what each stage took, in the pipeline's order, and a last row for all; [] without manifests.

    GPU seconds are wall seconds times devices, where there was a GPU.
    """
    by_stage: dict[str, list[dict[str, Any]]] = {}
    for one in manifests:
        by_stage.setdefault(str(one.get("stage")), []).append(one)
    known = [stage for stage in STAGES if stage in by_stage]
    rows = [_stage(stage, by_stage[stage]) for stage in (*known, *sorted(set(by_stage) - set(known)))]
    return [*rows, _stage("all", manifests)] if rows else []


def _stage(stage: str, members: Sequence[dict[str, Any]]) -> Stage:
    sums = {
        name: sum(float(one.get(name) or 0) for one in members) for name in ("cpu_seconds", "wall_seconds", "tokens")
    }
    unknown = sum(one.get("cpu_seconds") is None for one in members)
    return Stage(stage, len(members), gpu_seconds=sum(map(gpu_seconds, members)), unknown=unknown, **sums)


def gpu_seconds(manifest: dict[str, Any]) -> float:
    """Return the seconds for which a process held GPUs, times their number; 0 on a CPU."""
    if not _gpu(manifest):
        return 0.0
    return float(manifest.get("wall_seconds") or 0) * float(manifest.get("world_size") or 1)


def _gpu(manifest: dict[str, Any]) -> str:
    return str((manifest.get("hardware") or {}).get("gpu") or "")


def energy(manifests: Sequence[dict[str, Any]]) -> str:
    """Say how much energy the GPUs can have taken at most, and what is not known; "" without manifests."""
    cpu = "The energy of the CPUs is not known, because nothing measured it and manifests do not say what they draw."
    held = [one for one in manifests if gpu_seconds(one)]
    if not held:
        return cpu if manifests else ""
    known = [one for one in held if _gpu(one) in BOARDS]
    strange = sorted({_gpu(one) for one in held} - set(BOARDS))
    joules = sum(gpu_seconds(one) * BOARDS[_gpu(one)] for one in known)
    boards = ", ".join(f"{name} {BOARDS[name]} W" for name in sorted({_gpu(one) for one in known}))
    texts = []
    if known:
        texts.append(
            f"The GPUs took at most {joules / 3.6e6:.3g} kWh, which assumes that they drew their limit all the time "
            f"({boards})."
        )
    if strange:
        texts.append(f"The energy of {', '.join(strange)} is not known.")
    return " ".join([*texts, cpu])


def time_text(seconds: float) -> str:
    """Write a time in seconds, from two hours on in hours."""
    return f"{seconds:,.0f} s".replace(",", " ") if seconds < 7200 else f"{seconds / 3600:,.1f} h".replace(",", " ")


def provenance(manifests: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return (what, its distinct values over all manifests): commits, packages, hardware, Python, precision."""
    commits = {
        f"{one.get('git_commit') or 'unknown'}{' (with changes not committed)' if one.get('git_dirty') else ''}"
        for one in manifests
    }
    packages = {f"{name} {version}" for one in manifests for name, version in (one.get("packages") or {}).items()}
    hardware = {
        ", ".join(f"{key} {value}" for key, value in sorted((one.get("hardware") or {}).items()) if value is not None)
        for one in manifests
    }
    ended = sorted(str(one["ended"]) for one in manifests if one.get("ended"))
    rows = [("Git commit", commits), ("Packages", packages), ("Hardware", hardware - {""})]
    rows.append(("First and last run ended", set(ended[:1] + ended[-1:])))
    for key in VALUES:
        name = key.replace("_", " ").capitalize()
        rows.append((name, {str(one[key]) for one in manifests if one.get(key) is not None}))
    return [(what, ("; " if what == "Hardware" else ", ").join(sorted(values))) for what, values in rows if values]


def commit(manifests: Sequence[dict[str, Any]]) -> str | None:
    """Return the one commit that made everything, with no change left uncommitted; None where there is none."""
    found = {one.get("git_commit") for one in manifests}
    clean = not any(one.get("git_dirty") for one in manifests)
    return str(found.pop()) if len(found) == 1 and clean and None not in found else None

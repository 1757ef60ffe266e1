"""What the study cost and what it stood on: hours, tokens, energy; commits, packages, hardware. From the manifests."""

from typing import Any

ORDER = ("import", "original", "pretrain", "teach", "unlearn", "attack")
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


def ledger(manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return CPU, wall and GPU seconds and tokens summed per stage, in the pipeline's order, and a last row for all.

    `unknown` counts manifests without CPU seconds. GPU seconds are wall seconds times devices, where there was a GPU.
    """
    stages = sorted(
        {str(one.get("stage")) for one in manifests},
        key=lambda s: (s not in ORDER, ORDER.index(s) if s in ORDER else 0, s),
    )
    parts = [(stage, [one for one in manifests if str(one.get("stage")) == stage]) for stage in stages]
    rows = []
    for stage, members in [*parts, ("all", manifests)]:
        sums = {
            name: sum(float(m.get(name) or 0) for m in members) for name in ("cpu_seconds", "wall_seconds", "tokens")
        }
        sums["gpu_seconds"] = sum(map(gpu_seconds, members))
        unknown = sum(one.get("cpu_seconds") is None for one in members)
        rows.append({"stage": stage, "runs": len(members), "unknown": unknown, **sums})
    return rows if manifests else []


def gpu_seconds(manifest: dict[str, Any]) -> float:
    """Return the seconds for which a process held GPUs, times their number; 0 on a CPU."""
    if not _gpu(manifest):
        return 0.0
    return float(manifest.get("wall_seconds") or 0) * float(manifest.get("world_size") or 1)


def _gpu(manifest: dict[str, Any]) -> str:
    return str((manifest.get("hardware") or {}).get("gpu") or "")


def energy(manifests: list[dict[str, Any]]) -> str:
    """Say how much energy the GPUs can have taken at most, and what is not known."""
    held = [one for one in manifests if gpu_seconds(one)]
    cpu = "What CPUs took is not known: nothing measured it, and a manifest does not say what they draw."
    if not held:
        return f"Energy: not known. {cpu[:1].upper()}{cpu[1:]}" if manifests else ""
    known = [one for one in held if _gpu(one) in BOARDS]
    strange = sorted({_gpu(one) for one in held} - set(BOARDS))
    joules = sum(gpu_seconds(one) * BOARDS[_gpu(one)] for one in known)
    boards = ", ".join(f"{name} {BOARDS[name]} W" for name in sorted({_gpu(one) for one in known}))
    text = (
        f"Energy: at most {joules / 3.6e6:.3g} kWh on GPUs, if they drew their limit all the time ({boards}). "
        if known
        else ""
    )
    text += f"Not known of {', '.join(strange)}. " if strange else ""
    return text + cpu


def span(seconds: float) -> str:
    """Write seconds, from two hours on as hours."""
    return f"{seconds:,.0f} s".replace(",", " ") if seconds < 7200 else f"{seconds / 3600:,.1f} h".replace(",", " ")


def provenance(manifests: list[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    """Return (what, distinct values over all manifests): commits, Python, packages, hardware, precision."""
    commits = {
        f"{one.get('git_commit') or 'unknown'}{' (with changes not committed)' if one.get('git_dirty') else ''}"
        for one in manifests
    }
    packages = {f"{name} {number}" for one in manifests for name, number in (one.get("packages") or {}).items()}
    hardware = {
        ", ".join(f"{key} {value}" for key, value in sorted((one.get("hardware") or {}).items()) if value is not None)
        for one in manifests
    }
    ended = sorted(str(one["ended"]) for one in manifests if one.get("ended"))
    rows = [("git commit", commits), ("packages", packages), ("hardware", hardware - {""})]
    rows.append(("first and last run ended", set(ended[:1] + ended[-1:])))
    keys = ("python", "precision", "attn_backend", "launcher", "engine", "world_size", "deterministic", "threads")
    for key in keys:
        rows.append((key.replace("_", " "), {str(one[key]) for one in manifests if one.get(key) is not None}))
    return [(what, sorted(values)) for what, values in rows if values]


def commit(manifests: list[dict[str, Any]]) -> str | None:
    """Return the one commit that made all of it, with nothing uncommitted; None where there is none."""
    found = {one.get("git_commit") for one in manifests}
    clean = not any(one.get("git_dirty") for one in manifests)
    return str(found.pop()) if len(found) == 1 and clean and None not in found else None

"""What a step leaves beside its weights: evaluation JSON, which is the same bytes every time, and a manifest, which is
not.
"""

import os
import platform
import resource
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from rtt import engine, locks
from rtt.codeversion import code_version
from rtt.data.facts import Fact
from rtt.files import canonical_json, write_json, write_text
from rtt.score import accuracy
from rtt.specs import AttackSpec, Source, Spec, Target, UnlearnSpec

SCHEMA_VERSION = 1
PACKAGES = (
    "torch", "transformers", "accelerate", "tokenizers", "safetensors", "numpy", "snakemake", "pydantic", "deepspeed",
    "lion-pytorch", "flash-attn",
)  # fmt: skip


def source_labels(source: Source) -> dict:
    """Labels of an original model."""
    return _labels(source, source.arm, source.facts.dataset, "original")


def unlearn_labels(spec: UnlearnSpec) -> dict:
    """Labels of a trajectory."""
    return _labels(spec.source, spec.source.arm, spec.source.facts.dataset, "unlearned", method=spec.method)


def attack_labels(spec: AttackSpec, target: Target) -> dict:
    """Labels of one attacked checkpoint."""
    labels = _labels(spec.source, spec.arm, spec.facts.dataset, target.kind, target.method, target.retain_budget)
    return labels | {"control_for": spec.control_for, "seed": spec.seed}


def _labels(source, arm, dataset, target, method=None, retain_budget=None) -> dict:
    return {
        "dataset": dataset,
        "arm": arm,
        "model": source.model.name,
        "method": method,
        "seed": source.seed,
        "retain_budget": retain_budget,
        "target": target,
        "control_for": [],
    }


def write_eval(
    path: str | Path,
    *,
    kind: str,
    run_id: str,
    labels: dict,
    spec: Spec,
    step: str,
    facts_sha256: str,
    model_sha256: str | None,
    results: list[dict],
    status: str = "ok",
) -> None:
    """Write one evaluation JSON (docs/architecture.md). The metrics are accuracies per result, role and scoring."""
    if not engine.is_main():
        return
    locks.still_ours()
    metrics = [
        {
            **{key: result[key] for key in ("lr", "v_split", "epoch", "step")},
            "accuracy": {
                role: {
                    scoring: round(value, 6)
                    for scoring in questions[0]["scores"]
                    if (value := accuracy(questions, scoring)) is not None
                }
                for role in ("T", "V", "retain")
                if (questions := [q for q in result["questions"] if q["role"] == role])
            },
        }
        for result in results
    ]
    record = {
        "schema_version": SCHEMA_VERSION,
        "kind": kind,
        "run_id": run_id,
        "labels": labels,
        "spec": spec.model_dump(mode="json"),
        "hashes": {"spec": spec.hash, "code": code_version(step), "dataset": facts_sha256, "model": model_sha256},
        "metrics": {"accuracies": metrics},
        "status": status,
        "results": results,
    }
    write_text(path, canonical_json(record) + "\n")


def result(model, scorer, role, *, lr=0.0, v_split=None, epoch=0, step=0) -> dict:
    """Score a model: one entry of `results`. `role(fact: Fact) -> "T" | "V" | "retain"`."""
    return {"lr": lr, "v_split": v_split, "epoch": epoch, "step": step, "questions": scorer.questions(model, role)}


def forget_or_retain(retain: list[Fact]):
    """Return a role function: retain facts have role retain, the others V."""
    ids = {fact.id for fact in retain}
    return lambda fact: "retain" if fact.id in ids else "V"


class Manifest:
    """Cost and provenance of one process; written beside the evaluation JSON."""

    def __init__(self, step: str, spec: Spec):
        self.step, self.spec = step, spec

    def write(self, path: str | Path, model, **more) -> None:
        """Write the manifest of what was done with `model`. CPU seconds count all processes whole, imports included;
        the other figures are the main one's.
        """
        usage = resource.getrusage(resource.RUSAGE_SELF)
        (cpu,) = engine.total([usage.ru_utime + usage.ru_stime])
        if not engine.is_main():
            return
        locks.still_ours()
        process_age = time.time() - _process_start()
        write_json(
            path,
            {
                "run_id": self.spec.run_id,
                "stage": self.step,
                "seed": self.spec.seed,
                "cpu_seconds": round(cpu, 2),
                "wall_seconds": round(process_age, 2),
                "ended": datetime.now(UTC).isoformat(timespec="seconds"),
                "peak_memory_mb": round(usage.ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)),
                "code": code_version(self.step),
                **_git(),
                "packages": _versions(),
                "python": platform.python_version(),
                "hardware": {
                    "machine": platform.machine(),
                    "system": platform.system(),
                    "cpus": os.cpu_count(),
                    "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
                },
                "precision": str(model.dtype).removeprefix("torch."),
                "attn_backend": model.config._attn_implementation,
                "engine": engine.name(),
                "world_size": engine.world(),
                "deterministic": torch.are_deterministic_algorithms_enabled(),
                "threads": torch.get_num_threads(),
                **more,
            },
        )


def _versions() -> dict[str, str]:
    """Versions of PACKAGES, of those that are installed: a conda environment of a step has no Snakemake."""
    found = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _process_start() -> float:
    import psutil

    return psutil.Process().create_time()


def _git() -> dict:
    def git(*words):
        command = ["git", "-C", str(Path(__file__).parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"git_commit": git("rev-parse", "HEAD"), "git_dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return {"git_commit": None, "git_dirty": None}

"""Run the parity worker in one process or several, and compare what it found."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from parity import CASES

WORKER = Path(__file__).with_name("parity.py")
STEPS = 20
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
# Batches of 3 need a null row on two processes.
EXTRA = ["GD-adamw-3", "RMU-adamw-3", "RTT-lion-3"]
# No instruction that some CPUs have and others haven't, so that the bits are the same on all.
PORTABLE = {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "SSE41"}

ALL = [f"{objective}-{optimizer}" for objective, optimizer in CASES] + EXTRA
ADAMW = [f"{objective}-{optimizer}" for objective, optimizer in CASES if optimizer == "adamw"]


def job(cases=(), engine: str = "", micro: str = "", packing: bool = False, checkpointing: bool = False) -> dict:
    """Return a job of the worker: its cases (default: all) in the environment of such a step."""
    environment = {
        "RTT_DEEPSPEED": engine, "RTT_MICRO_BATCH": micro, "RTT_PACKING": str(int(packing)),
        "RTT_GRADIENT_CHECKPOINTING": str(int(checkpointing)),
    }  # fmt: skip
    return {"cases": list(cases) or ALL, "environment": environment}


def trained(folder, processes: int, jobs: dict[str, dict], steps: int = STEPS) -> dict[str, dict]:
    """Run the worker as a step is run; return {name of the job: {case: what it found}}."""
    out = Path(folder) / f"{processes}.pt"
    environment = os.environ | PORTABLE | {"OMP_NUM_THREADS": "1"}
    launch = LAUNCH if processes > 1 else [sys.executable]
    done = subprocess.run(
        [*launch, str(WORKER), str(out), str(steps), json.dumps(jobs)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(out)


def compare(case: str, one: dict, two: dict, later: float = 1e-5) -> None:
    """The bounds of docs/devices.md; `later` is AdamW's after the first 20 steps."""
    assert len(one["losses"]) == len(two["losses"]) >= STEPS
    largest, equal = 0.0, 1.0
    for step, (left, right) in enumerate(zip(one["losses"], two["losses"], strict=True), 1):
        left, right = dict(left), dict(right)
        assert left.pop("moved", 1) == pytest.approx(right.pop("moved", 1), abs=0.01), f"{case} step {step}"
        bound = 1e-3 if "lion" in case else 1e-5 if step <= STEPS else later
        assert right == pytest.approx(left, rel=bound, abs=bound), f"{case} step {step}"
        largest = max(largest, *(abs(left[name] - right[name]) / (1 + abs(left[name])) for name in left))
    if "lion" in case:
        for name, gradient in one["gradients"].items():
            assert torch.allclose(two["gradients"][name], gradient, rtol=1e-5, atol=1e-5), f"{case} {name}"
        assert max(float(gradient.abs().max()) for gradient in one["gradients"].values()) > 1e-3
        pairs = [(one["weights"][name], two["weights"][name]) for name in one["weights"]]
        equal = sum(int((left == right).sum()) for left, right in pairs) / sum(left.numel() for left, _ in pairs)
        assert equal >= 0.99, f"{case}: {equal:.4f} of the weights are equal"
    four = [(one["scores"][at : at + 4], two["scores"][at : at + 4]) for at in range(0, len(one["scores"]), 4)]
    close = 0
    for left, right in four:
        best, second = sorted(left, reverse=True)[:2]
        close += best - second <= 1e-3
        assert best - second <= 1e-3 or left.index(best) == right.index(max(right)), case
    print(
        f"{case}: losses within {largest:.1e}, {equal:.2%} of the weights equal (Lion), {close} of {len(four)} "
        "predictions had their two best within 1e-3"
    )

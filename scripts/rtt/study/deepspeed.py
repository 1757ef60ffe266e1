"""What a study's `deepspeed` key means: a ZeRO stage with its buckets, and precisions that it cannot train."""

import json
from dataclasses import dataclass
from pathlib import Path

from rtt.errors import UserError

STAGES = {"zero1": 1, "zero2": 2, "zero3": 3, "zero3-offload": 3}
# DeepSpeed's defaults (runtime/zero/config.py), in parameters.
BUCKET, GATHERED, SUB_GROUP = 500_000_000, 1_000_000_000, 1_000_000_000
DEEPSPEED = Path(__file__).resolve().parents[3] / "config" / "deepspeed"


@dataclass(frozen=True)
class Engine:
    """DeepSpeed's settings that decide memory. stage: 0 is no DeepSpeed. offload: optimizer states, master weights and
    gradients in host memory; offload_weights: ZeRO-3's partition of the weights, too. bucket, gathered, sub_group: in
    parameters, as reduce_bucket_size, stage3_max_live_parameters and sub_group_size.
    """

    stage: int = 0
    offload: bool = False
    offload_weights: bool = False
    bucket: float = BUCKET
    gathered: float = GATHERED
    sub_group: float = SUB_GROUP


def engine_of(name: str | None, hidden: int = 0) -> Engine:
    """Return the engine of a study's `deepspeed`: null, a name in config/deepspeed, or a JSON file's path. A value
    "auto" of reduce_bucket_size is hidden^2 (what transformers fills in), of others DeepSpeed's default.

    Raises UserError for a file that is missing or no DeepSpeed configuration.
    """
    if name is None:
        return Engine()
    path = DEEPSPEED / f"{name}.json" if name in STAGES else Path(name)
    if name in STAGES and not path.is_file():
        return Engine(STAGES[name], name.endswith("offload"))
    try:
        zero = json.loads(path.read_text(encoding="utf-8"))["zero_optimization"]
        stage = int(zero["stage"])
    except OSError:
        raise UserError(f"deepspeed: {name}: no such file; give one of {', '.join(STAGES)}, or a JSON's path") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{path}: zero_optimization.stage: not found; expected DeepSpeed's JSON, stage 1 to 3"
        ) from None

    def number(key: str, default: float, auto: float) -> float:
        value = zero.get(key, default)
        return auto if value == "auto" else float(value)

    def offloaded(key: str) -> bool:
        return (zero.get(key) or {}).get("device", "none") != "none"

    return Engine(
        stage,
        offloaded("offload_optimizer"),
        offloaded("offload_param"),
        number("reduce_bucket_size", BUCKET, hidden * hidden or BUCKET),
        number("stage3_max_live_parameters", GATHERED, GATHERED),
        number("sub_group_size", SUB_GROUP, SUB_GROUP),
    )


def not_under_deepspeed(precision: str | None, offload: bool) -> str | None:
    """Say why a precision can't be trained under DeepSpeed, with its optimizer offloaded or not; None where it can."""
    if precision == "fp16":
        return (
            "precision fp16 under DeepSpeed keeps fp32 master weights and scales the loss, which would be other "
            "numbers; use precision: bf16, bf16_mixed or fp32, or no DeepSpeed"
        )
    if precision == "bf16" and offload:
        return (
            "precision bf16 with offload: DeepSpeed offloads bf16 weights without fp32 masters under its own Adam "
            "alone; use precision: bf16_mixed or fp32, or deepspeed: zero3"
        )
    return None

"""Read the DeepSpeed configuration that a study's `deepspeed` names, and say what processes cannot train together."""

from dataclasses import dataclass
from pathlib import Path

from rtt import places
from rtt.errors import UserError
from rtt.files import read_json

STAGES = {"zero1": 1, "zero2": 2, "zero3": 3, "zero3-offload": 3}
# DeepSpeed's defaults (runtime/zero/config.py), in parameters.
BUCKET, GATHERED, SUB_GROUP = 500_000_000, 1_000_000_000, 1_000_000_000
FOLDER = places.SHIPPED / "config" / "deepspeed"


@dataclass(frozen=True)
class Engine:
    """The settings of DeepSpeed that decide how much memory a job needs.

    `stage` 0 means no DeepSpeed. `offload` keeps optimizer states, master weights and gradients in host memory,
    `offload_weights` ZeRO-3's partition of the weights as well. `bucket`, `gathered` and `sub_group` are
    reduce_bucket_size, stage3_max_live_parameters and sub_group_size, in parameters.
    """

    stage: int = 0
    offload: bool = False
    offload_weights: bool = False
    bucket: float = BUCKET
    gathered: float = GATHERED
    sub_group: float = SUB_GROUP


def read_config(name: str) -> tuple[Path, dict]:
    """Return (path, content) of a DeepSpeed configuration: a name in config/deepspeed, or a JSON file's path.

    Raises UserError when the file is missing, is not JSON, or sets no ZeRO stage from 1 to 3.
    """
    path = FOLDER / f"{name}.json" if name in STAGES else Path(name)
    if not path.is_file():
        raise UserError(f"deepspeed: {name}: no such file; expected {', '.join(STAGES)}, or the path of a JSON file")
    config = read_json(path)
    zero = config.get("zero_optimization") if isinstance(config, dict) else None
    stage = zero.get("stage") if isinstance(zero, dict) else None
    if stage not in (1, 2, 3):
        raise UserError(f"{path}: zero_optimization.stage: found {stage!r}, expected 1, 2 or 3")
    return path, config


def engine_of(name: str | None, hidden: int = 0) -> Engine:
    """Return the engine that a study's `deepspeed` names (null: none).

    Where the file says "auto", reduce_bucket_size is hidden^2, as transformers fills it in, and the other sizes are
    DeepSpeed's defaults. Raises UserError as `read_config`.
    """
    if name is None:
        return Engine()
    zero = read_config(name)[1]["zero_optimization"]

    def number(key: str, default: float, auto: float) -> float:
        value = zero.get(key, default)
        return auto if value == "auto" else float(value)

    def offloaded(key: str) -> bool:
        return (zero.get(key) or {}).get("device", "none") != "none"

    return Engine(
        zero["stage"],
        offloaded("offload_optimizer"),
        offloaded("offload_param"),
        number("reduce_bucket_size", BUCKET, hidden * hidden or BUCKET),
        number("stage3_max_live_parameters", GATHERED, GATHERED),
        number("sub_group_size", SUB_GROUP, SUB_GROUP),
    )


def not_under_deepspeed(precision: str | None, offload: bool, merged: bool = False) -> str | None:
    """Return why DeepSpeed cannot train in this precision, with or without offload; None if it can.

    merged: whether adapters would have to be merged into weights that ZeRO-3 takes apart.
    """
    if merged:
        return (
            "lora: at each point the adapters are merged into the weights, which ZeRO-3 takes apart; use deepspeed: "
            "zero1 or zero2, or none, since adapters need little memory beside the weights"
        )
    if precision == "fp16":
        return (
            "precision fp16: DeepSpeed would keep fp32 master weights and scale the loss, which changes the numbers; "
            "use precision: bf16, bf16_mixed or fp32, or no DeepSpeed"
        )
    if precision == "bf16_kahan":
        return (
            "precision bf16_kahan: DeepSpeed hands an optimizer flat copies of the weights, which it casts by its own "
            "rules, so what rounding drops of a weight would not surely stay with it; use precision: bf16_mixed or "
            "fp32, or no DeepSpeed"
        )
    if precision == "bf16" and offload:
        return (
            "precision bf16 with offload: DeepSpeed offloads bf16 weights without fp32 master copies only under its "
            "own Adam; use precision: bf16_mixed or fp32, or deepspeed: zero3"
        )
    return None


def not_released(batch_size: int, micro_batch: int | None, launched: bool) -> str | None:
    """Return why a batch that is shared or cut so cannot be trained with gradient_release; None if it can.

    launched: whether torchrun or deepspeed starts the processes, be it one alone.
    """
    if launched:
        return (
            "gradient_release under a launcher: what torchrun and deepspeed start keeps each gradient until the parts "
            "of all processes are added up, and would apply it once more; use launcher: none, or gradient_release: "
            "false"
        )
    if micro_batch and micro_batch < batch_size:
        return (
            f"gradient_release with micro batches of {micro_batch} of {batch_size} texts: each would apply its part of "
            "a gradient before the parts are added up; leave micro_batch out (gradient_checkpointing saves memory, "
            "too), or set gradient_release: false"
        )
    return None

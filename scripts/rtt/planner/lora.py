"""Compute what adapters add to a training job, and on which single devices they fit, in closed forms."""

from collections.abc import Sequence
from dataclasses import replace

from rtt.planner.costs import WHOLE
from rtt.planner.memory import Launch, Phase, Shape, in_host, needed, on_device
from rtt.study.part import Part
from rtt.study.settings import LoRA, Unlearning

# What fits where, with adapters: these on single devices, in this precision and with this optimizer.
ADAPTERS, DEVICES = LoRA(), (24e9, 40e9, 80e9)
TRAINED = {"precision": "bf16", "optimizer": "adamw", "gradient_release": False}
ATTACKS = ("RTT", "RTT, LoRA")  # the attacks' trainings that adapters can do
WAYS = (
    ("none", False, None), ("none + checkpointing", True, None), ("none + checkpointing + micro_batch 1", True, 1)
)  # fmt: skip


def adapters(shape: Shape, lora: LoRA, part: Part = WHOLE) -> int:
    """Return the values of a model's adapters: rank (in + out) of each layer that has one.

    The layers are those of Llama, by its names; where `targets` names none of them, all are counted.
    """
    h, keys = shape.hidden, shape.keys or shape.hidden
    sides = {"q_proj": h + h, "k_proj": h + keys, "v_proj": h + keys, "o_proj": h + h}
    sides |= dict.fromkeys(("gate_proj", "up_proj", "down_proj"), h + shape.mlp)
    named = {target.rpartition(".")[2] for target in lora.targets or ()} & sides.keys() or sides.keys()
    each = sum(both for name, both in sides.items() if name in named and name in (part.matrices or sides))
    return round(lora.rank * each * part.layers * shape.layers)


def with_adapters(part: Part, shape: Shape, lora: LoRA | None) -> Part:
    """Return a part whose trained values are those of adapters; without any, the part itself."""
    return replace(part, trained=adapters(shape, lora, part) / shape.parameters) if lora else part


def fits(phases: Sequence[Phase], micro_batch: int | None = None) -> list[dict]:
    """Return, for each of DEVICES, the first of WAYS with which unlearning and RTT fit with adapters; [] without them.

    Each row gives the bytes needed on the device and on the host; its setting is None if nothing fits.
    """
    changed = [
        replace(
            phase, settings=phase.settings.model_copy(update=TRAINED), lora=phase.lora or ADAPTERS,
            part=with_adapters(phase.part, phase.shape, phase.lora or ADAPTERS),
        )
        for phase in phases
        if isinstance(phase.settings, Unlearning) or phase.stage in ATTACKS
    ]  # fmt: skip
    rows = []
    for size in DEVICES if changed else ():
        row = {"memory": size, "setting": None}
        for name, checkpointing, most_rows in WAYS:
            launch = Launch(1, micro_batch=most_rows or micro_batch, checkpointing=checkpointing)
            most = max(needed(on_device(phase, launch)) for phase in changed)
            if most <= size:
                row |= {"setting": name, "bytes": most, "host": max(in_host(phase, launch) for phase in changed)}
                break
        rows.append(row)
    return rows

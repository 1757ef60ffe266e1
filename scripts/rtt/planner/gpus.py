"""List GPU models with their peaks, as their makers publish them, for `rtt plan` and all that is derived from it."""

import math
from dataclasses import dataclass, replace

from rtt.errors import UserError


@dataclass(frozen=True)
class Device:
    """The peaks of a device, per second.

    `bf16` counts FLOPs of dense bf16 products with sums in fp32, `fp32` those without TF32; `bandwidth` counts bytes of
    memory traffic, and `memory` bytes.
    """

    name: str
    bf16: float
    fp32: float
    memory: float | None
    bandwidth: float
    source: str


DEVICES = {
    device.name: device
    for device in (
        Device("h100", 989e12, 67e12, 80e9, 3.35e12, "NVIDIA H100 SXM datasheet"),
        Device("h200", 989e12, 67e12, 141e9, 4.8e12, "NVIDIA H200 SXM datasheet"),
        Device("a100-80gb", 312e12, 19.5e12, 80e9, 2.039e12, "NVIDIA A100 SXM datasheet"),
        Device("a100-40gb", 312e12, 19.5e12, 40e9, 1.555e12, "NVIDIA A100 SXM datasheet"),
        Device("l40s", 362e12, 91.6e12, 48e9, 0.864e12, "NVIDIA L40S datasheet"),
        Device("rtx4090", 165e12, 82.6e12, 24e9, 1.008e12, "NVIDIA Ada architecture whitepaper"),
        Device("rtx3090", 71e12, 35.6e12, 24e9, 0.936e12, "NVIDIA GA102 architecture whitepaper"),
    )
}


def device_of(name: str, rate: float | None = None) -> Device:
    """Return a device of the table.

    `rate` (FLOP/s really reached) replaces its peaks and memory traffic. Raises UserError for an unknown device, and
    for a CPU without a rate.
    """
    if rate is not None and not (math.isfinite(rate) and rate > 0):
        raise UserError(f"--flops: found {rate}; expected FLOP/s above 0, as 5e10")
    if name == "cpu":
        if rate is None:
            raise UserError("cpu: CPUs differ too much for a table; give what yours reaches with --flops, as 5e10")
        return Device("cpu", rate, rate, None, math.inf, "--flops")
    if name not in DEVICES:
        raise UserError(f"--gpu: found {name!r}; expected one of {', '.join(DEVICES)}, cpu")
    device = DEVICES[name]
    return device if rate is None else replace(device, bf16=rate, fp32=rate, bandwidth=math.inf, source="--flops")

"""Tell the processes of one job apart and let them exchange values, with or without DeepSpeed (docs/devices.md).

How many processes share the work is no part of a spec. The launcher (torchrun, deepspeed) sets WORLD_SIZE, RANK and
LOCAL_RANK; the rules set RTT_DEEPSPEED. A step started without a launcher is one process without DeepSpeed.
"""

import json
import os
from functools import cache

import torch
import torch.distributed as dist

from rtt import device as devices
from rtt import places
from rtt.errors import UserError
from rtt.study.deepspeed import read_config

DEEPSPEED = "RTT_DEEPSPEED"  # a study's `deepspeed`; empty: none


def world() -> int:
    """Return the number of processes in this job."""
    return int(os.environ.get("WORLD_SIZE", 1))


def rank() -> int:
    """Return the number of this process within the job, from 0."""
    return int(os.environ.get("RANK", 0))


def launched() -> bool:
    """Return whether a launcher started this process, which accelerate then wraps for several, be it the only one."""
    return "LOCAL_RANK" in os.environ


def is_main() -> bool:
    """Return whether this is the process that writes files and prints."""
    return rank() == 0


def name() -> str:
    """Return how the processes share the model: none (one process), ddp, or zero1, zero2 or zero3."""
    if config := deepspeed_config():
        return f"zero{config['zero_optimization']['stage']}"
    return "ddp" if world() > 1 else "none"


@cache
def _config(asked: str) -> str:
    return json.dumps(read_config(asked)[1])


def deepspeed_config() -> dict | None:
    """Return DeepSpeed's configuration, None without DeepSpeed.

    Raises UserError without a launcher, and as `rtt.study.deepspeed.read_config`.
    """
    asked = os.environ.get(DEEPSPEED)
    if not asked:
        return None
    if "WORLD_SIZE" not in os.environ:
        raise UserError(f"{DEEPSPEED}={asked}: DeepSpeed needs a launcher; start the step by torchrun or deepspeed")
    return json.loads(_config(asked))


def partitioned() -> bool:
    """Return whether each process holds only a part of the weights (ZeRO-3)."""
    return name() == "zero3"


def device() -> torch.device:
    """Return this process's device: its GPU if there is one, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))


def connect() -> None:
    """Join the other processes of the job; do nothing for a single process without DeepSpeed.

    Raises UserError as `rtt.device.demand`.
    """
    here = os.environ.get("LOCAL_WORLD_SIZE") or int(os.environ.get("LOCAL_RANK", 0)) + 1
    devices.demand(torch.cuda.device_count(), int(here), torch.__version__, torch.version.cuda)
    if dist.is_initialized() or (world() == 1 and not deepspeed_config()):
        return
    cuda = torch.cuda.is_available()
    if deepspeed_config():
        if not cuda:
            os.environ.setdefault("DS_ACCELERATOR", "cpu")
        if why := places.missing("deepspeed"):
            raise UserError(f"deepspeed: {os.environ[DEEPSPEED]}: {why}; or leave this key of the study out")
        import deepspeed
        import deepspeed.ops

        # DeepSpeed would compile this on a CPU; if that is killed, its stale lock makes every later start hang.

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.init_distributed(dist_backend="nccl" if cuda else "gloo")
    else:
        dist.init_process_group("nccl" if cuda else "gloo")
    if cuda:
        torch.cuda.set_device(device())


def barrier() -> None:
    """Wait for the other processes."""
    if dist.is_initialized():
        dist.barrier()


def total(values: list[float]) -> list[float]:
    """Return the sum of each value over the processes, in float64, so that one process's values come back unchanged."""
    if not dist.is_initialized():
        return values
    summed = torch.tensor(values, dtype=torch.float64, device=device())
    dist.all_reduce(summed)
    return summed.tolist()


def mean(values: list[float]) -> list[float]:
    """Return the mean of each value over the processes."""
    return [value / world() for value in total(values)]


def merged(part: dict) -> dict:
    """Return the union of the processes' dicts, on all of them."""
    if not dist.is_initialized():
        return part
    parts: list = [None] * world()
    dist.all_gather_object(parts, part)
    return {key: value for one in parts for key, value in one.items()}


def whole_weights(model) -> dict[str, torch.Tensor]:
    """Return {name: parameter} of a whole model. Every process must call it.

    Under ZeRO-3 the parameters are gathered one by one into host memory on the main process; the others get {}.
    """
    if not partitioned():
        return {name: tensor.detach() for name, tensor in model.named_parameters()}
    import deepspeed

    found = {}
    for key, parameter in model.named_parameters():
        with deepspeed.zero.GatheredParameters([parameter]):
            if is_main():
                found[key] = parameter.detach().to("cpu", copy=True)
    return found


def take_back(model, partitions) -> None:
    """Copy the weights of `partitions`, the trained ZeRO-3 copy of `model`, back into `model` on every process."""
    import deepspeed

    with torch.no_grad():
        for own, trained in zip(model.parameters(), partitions.parameters(), strict=True):
            with deepspeed.zero.GatheredParameters([trained]):
                own.copy_(trained)

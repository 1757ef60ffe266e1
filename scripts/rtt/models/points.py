"""Write and read the weights of a point of unlearning: all of them, or adapters, which go onto the original's weights.

A file with adapters has the tensors of peft's adapter_model.safetensors, and says about itself what merging takes.
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from rtt import distributed
from rtt.errors import UserError
from rtt.models import lora
from rtt.models.load import load_weights, model_hash, read_model, write_weights
from rtt.study.settings import LoRA

ABOUT = "rtt"  # the key of a file's own words


def to_write(model, settings: LoRA | None, source: str | Path):
    """Return `write(path)`, which writes the model's weights as they are now, or its adapters alone.

    `source` is the folder of the original, without which adapters are nothing. Every process must call this, and one
    writes.
    """
    if settings is None:
        found = distributed.whole_weights(model)
        return lambda path: write_weights(found, path)
    found, dtype = lora.as_peft(lora.adapters(model)), str(model.dtype).removeprefix("torch.")
    about = {"rank": settings.rank, "alpha": settings.alpha, "dtype": dtype, "original": model_hash(source)}
    return lambda path: write_weights(found, path, {ABOUT: json.dumps(about)})


def load_point(model, path: str | Path, source: str | Path) -> None:
    """Give `model` the weights of a point, cast to its dtype; `source` is the folder of the original.

    Adapters are merged in host memory, in the dtype in which the point was trained and scored, so that the weights are
    those that were scored. Raises UserError as `load_weights`, and where the original is another one.
    """
    if (about := _about(path)) is None:
        load_weights(model, path)
        return
    if about["original"] != model_hash(source):
        raise UserError(
            f"{path}: adapters of another original than {source}: its weights have another sha256 "
            f"({model_hash(source)[:10]}, expected {about['original'][:10]}); unlearn again from this one"
        )
    merged = read_model(source, getattr(torch, about["dtype"]))
    with safe_open(path, "pt") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
    try:
        lora.merge(merged, found, about["rank"], about["alpha"])
    except UserError as error:
        raise UserError(f"{path}: these adapters belong to another model: {error}") from None
    model.load_state_dict(merged.state_dict())


def _about(path: str | Path) -> dict | None:
    """Return what a file of adapters says about itself, None for any other file."""
    try:
        with safe_open(path, "pt") as file:
            said = (file.metadata() or {}).get(ABOUT)
    except (SafetensorError, OSError):  # `load_weights` says what is wrong
        return None
    return json.loads(said) if said else None

"""Compare a checkpoint's tensors with the model that they are for.

transformers draws a tensor that a file lacks at random, and only warns. Here that is an error. Names are compared as
transformers reads them, so tied heads, old names, and buffers that it ignores are no mistakes. The headers of the files
suffice for that.
"""

import copy
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

from rtt.errors import UserError, one_line
from rtt.study.model_folder import weight_files

SHOWN = 3  # names of each kind in a message
# A part of a name that a wrapper adds, the wrapper, and what to save instead.
WRAPPERS = (
    ("_orig_mod.", "torch.compile", "model._orig_mod.save_pretrained(FOLDER)"),
    ("module.", "DistributedDataParallel or DeepSpeed", "model.module.save_pretrained(FOLDER)"),
    ("_fsdp_wrapped_module.", "FSDP", "the full state dict of the module inside, by save_pretrained"),
    ("_forward_module.", "Lightning", "the module inside, by save_pretrained"),
    ("base_model.model.", "peft", "model.merge_and_unload().save_pretrained(FOLDER)"),
)
# Buffers of older versions of transformers; it computes them now, and does not ignore all of them by itself.
OLD_BUFFER = re.compile(r"\.(masked_bias|inv_freq|cos_cached|sin_cached|position_ids)$")

FLOATS = ("F64", "F32", "F16", "BF16")  # as safetensors calls them


@contextmanager
def quiet() -> Iterator[None]:
    """Keep back the warnings of transformers, where an error of ours says the same."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def headers(files: Sequence[Path]) -> dict[str, torch.Tensor]:
    """Return the tensors of safetensors files on the meta device: names and shapes without values.

    Raises UserError for a file that is damaged or cut short (its length is compared with what its header says), for a
    tensor that stands in two of the files, since only one of them would count, and for weights that are no floats.
    """
    found: dict[str, torch.Tensor] = {}
    holder: dict[str, Path] = {}
    for file in files:
        try:
            with safe_open(file, "pt") as handle:
                for name in handle.keys():  # noqa: SIM118 (no dict)
                    tensor = handle.get_slice(name)
                    if name in found:
                        raise UserError(
                            f"{file}: {name} stands in {holder[name].name}, too: shards of different models are mixed; "
                            "copy or download the whole folder again"
                        )
                    if name.endswith("weight") and tensor.get_dtype() not in FLOATS:
                        raise UserError(
                            f"{file}: {name} is stored as {tensor.get_dtype()}: weights that were quantised are not "
                            "read; save them in bf16 or fp32 (transformers: model.dequantize(), save_pretrained)"
                        )
                    found[name], holder[name] = torch.empty(tensor.get_shape(), device="meta"), file
        except SafetensorError as error:
            raise UserError(
                f"{file}: not a safetensors file, or cut short: {error}; copy or download it again"
            ) from None
    return found


def empty_model(folder: str | Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Return a folder's model without weights, on the meta device.

    Raises UserError where transformers knows no such causal language model.
    """
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    except MemoryError:
        raise
    except Exception as error:  # a config of a wrong shape breaks transformers in many ways
        raise UserError(
            f"{folder}: the model cannot be read: no causal language model of transformers: {one_line(error)}"
        ) from None


def check_names(folder: str | Path, empty: PreTrainedModel) -> None:
    """Compare the headers of a folder's weights with its `empty_model`. Raises UserError as `check_loaded`."""
    tensors = headers(weight_files(folder))
    with quiet():
        try:
            _, info = type(empty).from_pretrained(
                None, config=copy.deepcopy(empty.config), state_dict=tensors, device_map={"": "meta"},
                ignore_mismatched_sizes=True, output_loading_info=True,
            )  # fmt: skip
        except (ValueError, ImportError, RuntimeError) as error:
            raise UserError(f"{folder}: the model cannot be read: {str(error).strip().splitlines()[0]}") from None
    check_loaded(folder, empty, info)


def check_loaded(folder: str | Path, model: PreTrainedModel, info: dict) -> None:
    """Raise UserError unless a folder's tensors were exactly those of `model`.

    `info` is what transformers says with `output_loading_info`. The message names what is missing, what is there in its
    place, and tensors of another shape, and says what to do.
    """
    missing = sorted(info["missing_keys"])
    unexpected = sorted(name for name in info["unexpected_keys"] if not OLD_BUFFER.search(name))
    shapes = [f"{name} {list(found)} for {list(wanted)}" for name, found, wanted in sorted(info["mismatched_keys"])]
    if not (missing or unexpected or shapes or info["error_msgs"]):
        return
    parts = [
        f"{len(names)} {what} ({', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''})"
        for names, what in ((missing, "missing"), (unexpected, "unexpected"), (shapes, "of another shape"))
        if names
    ] or info["error_msgs"][:1]
    raise UserError(
        f"{folder}: its tensors are not those of the {type(model).__name__} that config.json describes: "
        f"{'; '.join(parts)}. {_advice(model, missing, unexpected)}"
    )


def _advice(model: PreTrainedModel, missing: list[str], unexpected: list[str]) -> str:
    """Return what probably happened to a checkpoint, and what to do."""
    for piece, who, instead in WRAPPERS:
        if any(f".{piece}" in f".{name}" for name in unexpected):
            return f"{who} wrote these names ({piece}...): save what it wraps instead: {instead}"
    names = {name for name in model.state_dict() if name not in missing}
    asked, held = _depth(model.state_dict()), _depth(names | set(unexpected))
    if asked != held and held:
        return (
            f"config.json asks for {asked} layers, the weights hold {held}: the two belong to different models; "
            "take both from one place"
        )
    head = model.get_output_embeddings()
    if head is not None and missing and all(model.get_submodule(name.rpartition(".")[0]) is head for name in missing):
        return (
            "The head is missing: save the whole language model (AutoModelForCausalLM), not its base model; or set "
            "tie_word_embeddings to true in config.json, where the head is the embedding"
        )
    return "Nothing is drawn at random here: save the whole model (transformers: save_pretrained)"


def _depth(names) -> int:
    """Return the number of layers that these names speak of."""
    return 1 + max((int(found[1]) for name in names if (found := re.search(r"\.(\d+)\.", name))), default=-1)

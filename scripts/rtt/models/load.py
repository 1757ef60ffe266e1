"""Load and save models as folders, and their weights as single files."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils import is_flash_attn_2_available, logging

from rtt import checksums, distributed
from rtt.depth import layer_number
from rtt.errors import UserError, one_line
from rtt.files import atomic_path, digest, sha256
from rtt.models.architecture import context_length, decoder_layers, fitting_attention
from rtt.models.checkpoint import check_loaded, check_names, empty_model, quiet
from rtt.models.folders import whole_folder
from rtt.models.lora import adapters
from rtt.study.model_folder import check_folder, two_sets, weight_files

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
ATTN_BACKENDS = ("auto", "sdpa", "flash_attention_2", "eager")
ATTN_VARIABLE = "RTT_ATTN_BACKEND"  # an environment variable, since the backend is no part of a spec
logging.disable_progress_bar()  # bars for small files would hide our own progress


@contextmanager
def _writing(place: str | Path) -> Iterator[None]:
    """Turn a failed write into a UserError: safetensors raises an error of its own, not OSError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{place}: cannot be written: {error}; nothing partial is left; free space, or put the results on another "
            "disk"
        ) from None


def save(model, tokenizer, folder: str | Path) -> None:
    """Write config, weights (safetensors) and tokenizer as a folder, completely or not at all. Raises UserError."""
    folder = Path(folder)
    if distributed.is_main():
        with _writing(folder), whole_folder(folder) as scratch:
            model.save_pretrained(scratch / "whole")
            tokenizer.save_pretrained(scratch / "whole")
    distributed.barrier()


def resolve_attn(requested: str, dtype: str, device: str, kind: type | None = None) -> tuple[str, str | None]:
    """Return (attention backend, warning or None) for the requested one (auto, sdpa, flash_attention_2, eager).

    `auto` means flash-attn where it can run (installed, on CUDA, in fp16 or bf16), else SDPA. A class of models `kind`
    that has neither gets eager. Raises UserError for another name, and where SDPA was asked for and there is none.
    """
    if requested not in ATTN_BACKENDS:
        raise UserError(f"attn_backend: found {requested!r}, allowed: {', '.join(ATTN_BACKENDS)}")
    backend, warning = _for_device(requested, dtype, device)
    fitting = fitting_attention(backend, kind)
    if fitting == backend:
        return backend, warning
    if requested == "sdpa":
        raise UserError(
            f"attn_backend: {kind.__name__} has no sdpa in transformers; set attn_backend: {fitting} or auto"
        )
    return fitting, warning or f"note: {kind.__name__} has no {backend} in transformers; {fitting} attention is used"


def _for_device(requested: str, dtype: str, device: str) -> tuple[str, str | None]:
    if requested in ("sdpa", "eager"):
        return requested, None
    reason = None
    if device != "cuda":
        reason = f"it needs a CUDA GPU (this model is on {device})"
    elif dtype not in ("fp16", "bf16"):
        reason = f"it needs fp16 or bf16 weights (these are {dtype})"
    elif not is_flash_attn_2_available():
        reason = "the package flash-attn is not installed, or does not support this GPU (requirements-flash.txt)"
    if reason is None:
        return "flash_attention_2", None
    return "sdpa", None if requested == "auto" else f"warning: no flash_attention_2: {reason}; sdpa is used instead"


def load_tokenizer(folder: str | Path):
    """Return the tokenizer of a folder, which must give character offsets.

    Without a padding token its end-of-text token pads, which attention masks and labels make harmless; a message on
    standard error says so. Raises UserError when it has neither token, or no offsets.
    """
    # AutoTokenizer follows the model's type and may change what tokenizer.json says (for the type qwen2 it adds Qwen's
    # end-of-text token), so it is used only without that file.
    kind = PreTrainedTokenizerFast if (Path(folder) / "tokenizer.json").is_file() else AutoTokenizer
    try:
        tokenizer = kind.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except MemoryError:
        raise
    except Exception as error:  # files of a wrong shape break transformers in many ways
        raise UserError(f"{folder}: the tokenizer cannot be read: {one_line(error)}") from None
    if type(tokenizer.model_max_length) not in (int, float):
        raise UserError(
            f"{folder}/tokenizer_config.json: model_max_length: found {tokenizer.model_max_length!r}, expected a number"
        )
    if not tokenizer.is_fast:
        raise UserError(f"{folder}: this tokenizer gives no character offsets; one with a tokenizer.json is needed")
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise UserError(
                f"{folder}: the tokenizer has neither a padding token nor an end-of-text token: "
                "set pad_token in tokenizer_config.json"
            )
        tokenizer.pad_token = tokenizer.eos_token
        print(f"{folder}: no padding token; {tokenizer.eos_token!r} (end of text) pads", file=sys.stderr)
    return tokenizer


def load(folder: str | Path, dtype: str = "fp32", attn_backend: str | None = None):
    """Return (model, tokenizer) from a folder with a causal language model, on this process's device.

    Under ZeRO-3 the model stays in host memory. Only safetensors are read, no code from the folder runs, and no hub is
    asked. `dtype` (fp32, bf16 or fp16) is that of the weights in memory. `attn_backend` is as in `resolve_attn`; None
    takes RTT_ATTN_BACKEND, else auto. Raises UserError when the folder is no such model or has weights that are not
    finite.
    """
    if dtype not in DTYPES:
        raise UserError(f"dtype: found {dtype!r}, allowed: {', '.join(DTYPES)}")
    weight_files(folder)
    if distributed.is_main():
        again = f"delete {folder} and start again, so that it is made once more; or delete {checksums.NAME}, if the"
        checksums.verify(folder, f"{again} change is yours")
        if note := two_sets(folder):
            print(note, file=sys.stderr)
    check_folder(folder)
    empty = empty_model(folder)
    check_names(folder, empty)
    backend, warning = resolve_attn(
        attn_backend or os.environ.get(ATTN_VARIABLE) or "auto", dtype, distributed.device().type, type(empty)
    )
    if warning:
        print(warning, file=sys.stderr)
    tokenizer = load_tokenizer(folder)
    model = read_model(folder, DTYPES[dtype], backend)
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise UserError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, the model {rows}: they do not belong together"
        )
    # `rtt.data.text.encode` refuses longer texts before any training; a model without a fixed context has no limit.
    limit = context_length(model.config)
    tokenizer.model_max_length = min(tokenizer.model_max_length, limit or tokenizer.model_max_length)
    if not distributed.partitioned():
        model.to(distributed.device())
    if broken := not_finite(model):
        raise UserError(
            f"{folder}: the weights {broken} hold NaN or infinity, so the model gives no scores; make or download it "
            "again"
        )
    if not distributed.partitioned():
        _check_runs(folder, model)
    return model, tokenizer


@torch.no_grad()
def _check_runs(folder: str | Path, model) -> None:
    """Raise UserError where a model cannot read four tokens: transformers takes many values of a config unchecked."""
    vocabulary = model.get_input_embeddings().num_embeddings
    ids = torch.arange(3, 7, device=next(model.parameters()).device)[None] % vocabulary
    try:
        model(input_ids=ids, use_cache=False)
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except (TypeError, ValueError, AttributeError, LookupError, RuntimeError, ArithmeticError) as error:
        raise UserError(
            f"{folder}/config.json: {type(model).__name__} cannot read a text with these values: {one_line(error)}; "
            "correct the value, or take the config.json that the weights came with"
        ) from None


def read_model(folder: str | Path, dtype: torch.dtype, attn_backend: str | None = None):
    """Return a folder's model in host memory, every tensor from its files. Raises UserError as `check_loaded`."""
    with quiet():
        try:
            model, info = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=dtype,
                attn_implementation=attn_backend,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # check_loaded names them
                output_loading_info=True,
                return_dict=True,  # whatever config.json asks a forward pass to give back
                output_attentions=False,
                output_hidden_states=False,
            )
        except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
            raise UserError(f"{folder}: the model cannot be read: {str(error).strip().splitlines()[0]}") from None
    check_loaded(folder, model, info)
    return model


def not_finite(model) -> str | None:
    """Return the name of the first parameter that holds NaN or infinity, None if all are finite."""
    return next((name for name, p in model.named_parameters() if not bool(torch.isfinite(p).all())), None)


def freeze_layers(model, train: Sequence[int | float]) -> list[int]:
    """Freeze all weights except those of the decoder layers `train`; return the numbers of these layers, from 0.

    `train` holds numbers, or fractions of the depth as in `rtt.depth.layer_number`. Raises UserError for a
    layer that the model does not have.
    """
    layers = decoder_layers(model)
    numbers = sorted({layer_number(layer, len(layers)) for layer in train})
    model.requires_grad_(False)
    for number in numbers:
        layers[number].requires_grad_(True)
    return numbers


def weights(model) -> dict[str, torch.Tensor]:
    """Return a copy of a model's weights in host memory, since a GPU needs its own memory for training."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()}


def write_weights(found: dict[str, torch.Tensor], path: str | Path, about: dict[str, str] | None = None) -> None:
    """Write weights as `rtt.distributed.whole_weights` returns them, with what the file says `about` them.

    Raises UserError when the disk is full.
    """
    with _writing(path), atomic_path(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in found.items()}, temporary, about)


def save_weights(model, path: str | Path) -> None:
    """Write all parameters, trained or frozen, in their dtype; tied parameters once. Every process must call it.

    Of a model with adapters these alone are written: its weights do not change. Nor are config and tokenizer written,
    which a trajectory's points share with their source. Raises UserError when the disk is full.
    """
    found = adapters(model) or distributed.whole_weights(model)
    if distributed.is_main():
        write_weights(found, path)


def load_weights(model, path: str | Path) -> None:
    """Load the parameters of a file that `save_weights` wrote into `model`, cast to its dtype.

    Raises UserError when they are damaged or belong to another model; `model` must then not be used.
    """
    try:
        state = load_file(path)
        unexpected = model.load_state_dict(state, strict=False).unexpected_keys
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run the step that makes it first") from None
    except SafetensorError as error:
        raise UserError(f"{path}: not a safetensors file, or cut short: {error}") from None
    except RuntimeError as error:
        raise UserError(
            f"{path}: these weights belong to another model: {str(error).splitlines()[-1].strip()}"
        ) from None
    if unexpected:
        raise UserError(f"{path}: these weights belong to another model: {', '.join(unexpected[:5])}")
    # named_parameters gives a tied parameter one of its names; a checkpoint may use another
    tied = tied_names(model)
    wanted = adapters(model) or dict(model.named_parameters())
    if missing := [n for n in wanted if n not in state and not tied.get(n, set()) & set(state)]:
        raise UserError(f"{path}: these weights belong to another model: {', '.join(missing[:5])} missing")


def tied_names(model) -> dict[str, set[str]]:
    """Return {name: all names of the same parameter}."""
    names: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), set()).add(name)
    return {name: same for same in names.values() for name in same}


def model_hash(folder: str | Path) -> str:
    """Return the sha256 of a model folder's weight file, or of the names and sha256 of its shards.

    Files that the folder's record names are not hashed again: `load` compares them with it.
    """
    known = checksums.recorded(folder)
    sums = {path.name: known.get(path.name) or sha256(path) for path in weight_files(folder)}
    return next(iter(sums.values())) if len(sums) == 1 else digest(sums)

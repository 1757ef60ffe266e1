"""Merge a LoRA adapter, as peft saves one, into the model that it was trained on."""

import sys
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from rtt.errors import UserError
from rtt.models.load import tied_names
from rtt.study.model_folder import ADAPTER_WEIGHTS, adapter_settings, check_adapter

PREFIX = "base_model.model."


def merge(model, folder: str | Path) -> None:
    """Add an adapter to the weights of `model`, on the CPU, so that every machine gets the same ones.

    Raises UserError where the adapter is for another model, has tensors that this one does not take, or changes weights
    that are tied; `model` must then not be used.
    """
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict  # 0.3 CPU seconds, which other steps save

    check_adapter(folder)
    config, settings = adapter_settings(folder)
    state = _tensors(Path(folder) / ADAPTER_WEIGHTS)
    before = {name: parameter.shape for name, parameter in model.named_parameters()}
    trained = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    tied = {name for name, same in tied_names(model).items() if len(same) > 1}
    device = next(model.parameters()).device
    model.to("cpu")
    try:
        with warnings.catch_warnings(action="ignore"):  # of peft's own use of transformers, and of tied weights, below
            wrapped = get_peft_model(model, LoraConfig(**settings))
        wanted = {name for name, parameter in wrapped.named_parameters() if parameter.requires_grad}
        names = {name.removeprefix(PREFIX) for name, _ in wrapped.named_parameters(remove_duplicate=False)}
        if touched := sorted(tied - names):
            raise UserError(
                f"{folder}: the adapter changes {touched[0]}, which this model ties to another weight; merge it "
                "yourself (peft: merge_and_unload, save_pretrained), and name the whole model"
            )
        found = set_peft_model_state_dict(wrapped, state)
    except (ValueError, KeyError, RuntimeError, TypeError) as error:
        raise UserError(
            f"{folder}: the adapter does not fit this model: {' '.join(str(error).split())[:300]}"
        ) from None
    missing = [name for name in found.missing_keys if name in wanted]
    if missing or found.unexpected_keys or not wanted:
        raise UserError(
            f"{folder}: the adapter's tensors do not fit this model: {len(missing)} missing {missing[:3]}, "
            f"{len(found.unexpected_keys)} unexpected {found.unexpected_keys[:3]}; name the model that it was trained "
            "on as the study's model"
        )
    wrapped.merge_and_unload()
    after = {name: parameter.shape for name, parameter in model.named_parameters()}
    if after != before:
        raise UserError(f"{folder}: the merged model has other parameters than the original; merge it yourself")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trained[name])
    model.to(device)
    base = config.get("base_model_name_or_path")
    print(f"{folder}: a LoRA adapter (of {base}, it says), merged into the original", file=sys.stderr)


def _tensors(file: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(file)
    except SafetensorError as error:
        raise UserError(f"{file}: not a safetensors file, or cut short: {error}; copy or download it again") from None

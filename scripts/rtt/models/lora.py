"""Train adapters in the place of a model's weights: LoRA (Hu et al. 2021, arXiv 2106.09685, eq. 3), by peft.

While adapters are trained they stand beside the weights; to be scored and attacked they are added to them.
"""

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

from rtt.errors import UserError

MAMBA = (
    "falcon_h1",
    "falcon_mamba",
    "mamba",
    "mamba2",
    "nemotron_h",
)  # types of models whose out_proj takes no adapter
NAME = "default"  # peft's name of an adapter that is the only one
PREFIX = "base_model.model."  # of the names in a file of peft's


@contextmanager
def adapted(model, rank: int, alpha: float, targets: Sequence[str] | None, seed: int) -> Iterator[None]:
    """Give linear layers of `model` adapters, which alone are trained; take them off again at the end.

    A layer's weight W (out, in) counts as W + alpha / rank B A, with A (rank, in) drawn as peft does, by the seed, and
    B (out, rank) of zeros, so that the model is unchanged at first; both are in fp32 at least. targets: names of
    modules, or ends of such names; None takes all linear layers but the output matrix, and in models of Mamba's kind
    but `out_proj`. Layers whose weights are frozen get none. The weights themselves are frozen meanwhile. Raises
    UserError where there is no such layer, or peft cannot adapt one.
    """
    from peft import LoraConfig, LoraModel  # 0.3 CPU seconds, which other steps save

    trained = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    modules = dict(model.named_modules())
    out = ["out_proj"] if targets is None and model.config.model_type in MAMBA else []
    out += [path for path, module in modules.items() if _frozen(module)]
    which = list(targets) if targets else "all-linear"
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=which, exclude_modules=out or None)
    try:
        with warnings.catch_warnings(action="ignore"), torch.random.fork_rng():  # of Conv1D, which peft turns itself
            torch.manual_seed(seed)
            try:
                LoraModel(model, config, NAME)  # it works in place, and the model keeps its class
            except (ValueError, KeyError, RuntimeError, TypeError) as error:
                raise UserError(
                    f"{type(model).__name__} cannot be given adapters: {' '.join(str(error).split())[:300]}; correct "
                    "`targets`, or train without adapters"
                ) from None
        for tensor in (part for part in model.parameters() if part.requires_grad):
            tensor.data = tensor.data.to(torch.promote_types(tensor.dtype, torch.float32))  # whatever the weights have
        yield
    finally:
        # peft's own unload leaves the adapters of some models, such as Mamba's, where they are.
        for path, module in modules.items():
            parent, _, name = path.rpartition(".")
            if path and getattr(owner := model.get_submodule(parent), name) is not module:
                setattr(owner, name, module)
        if hasattr(model, "peft_config"):
            del model.peft_config
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(trained[name])


def _frozen(module) -> bool:
    """Return whether a module's own weight is one that is not trained."""
    weight = module._parameters.get("weight")
    return weight is not None and not weight.requires_grad


def adapters(model) -> dict[str, torch.Tensor]:
    """Return {name: parameter} of the adapters that a model has now, {} where it has none."""
    if not hasattr(model, "peft_config"):
        return {}
    return {name: tensor.detach() for name, tensor in model.named_parameters() if ".lora_" in name}


def as_peft(found: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return adapters under the names that they have in a file of peft's."""
    return {f"{PREFIX}{name.replace(f'.{NAME}.', '.')}": tensor for name, tensor in found.items()}


def check_mergeable(model) -> None:
    """Raise UserError for an adapter that cannot be added to its weight alone: of no linear layer, or of a tied one."""
    from peft.tuners.lora import Linear

    shared = Counter(id(tensor) for _, tensor in model.named_parameters(remove_duplicate=False))
    for name, layer in _layers(model).items():
        if not isinstance(layer, Linear):
            raise UserError(f"lora.targets: {name} is no linear layer; name others")
        if shared[id(layer.get_base_layer().weight)] > 1:
            raise UserError(f"lora.targets: the weight of {name} is tied to another one; name others")


def _layers(model) -> dict:
    """Return {name: layer} of the layers with adapters."""
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


@torch.no_grad()
def _sum(layer) -> torch.Tensor:
    """Return a layer's weight with its adapter added, rounded once, to the weight's dtype.

    It is computed on the CPU, so that a point that is scored on a GPU has the bits that its file gives later.
    """
    weight = layer.get_base_layer().weight
    a, b = (part[NAME].weight.cpu() for part in (layer.lora_A, layer.lora_B))
    product = layer.scaling[NAME] * (b @ a)
    return (weight.cpu() + (product.T if layer.fan_in_fan_out else product)).to(weight)


@contextmanager
def merged(model) -> Iterator[None]:
    """Add the adapters to the weights meanwhile; afterwards all is as before, to the bit. Without adapters do nothing.

    The weights as they were wait in host memory.
    """
    layers = list(_layers(model).values()) if adapters(model) else []
    before = []
    try:
        for layer in layers:
            weight = layer.get_base_layer().weight
            before.append(weight.data.cpu())
            weight.data = _sum(layer)
            layer.merged_adapters.append(NAME)  # its forward pass leaves the adapter out
        yield
    finally:
        for layer, was in zip(layers, before, strict=False):
            weight = layer.get_base_layer().weight
            weight.data = was.to(weight.device)
            layer.merged_adapters.clear()


def merge(model, found: Mapping[str, torch.Tensor], rank: int, alpha: float) -> None:
    """Add adapters, by the names of `as_peft`, to the weights of a model in host memory.

    Raises UserError where they are another model's; the model must then not be used.
    """
    targets = sorted({name.removeprefix(PREFIX).rpartition(".lora_")[0] for name in found})
    with adapted(model, rank, alpha, targets, 0):
        own = as_peft(adapters(model))
        odd = [name for name in own.keys() | found.keys() if _shape(own, name) != _shape(found, name)]
        if odd:
            raise UserError(f"{min(odd)}: found {_shape(found, min(odd))}, expected {_shape(own, min(odd))}")
        for name, tensor in own.items():
            tensor.copy_(found[name])
        for layer in _layers(model).values():
            layer.get_base_layer().weight.data = _sum(layer)


def _shape(tensors: Mapping[str, torch.Tensor], name: str) -> list[int] | None:
    return list(tensors[name].shape) if name in tensors else None

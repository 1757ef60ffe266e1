"""Train adapters in the place of a model's weights: LoRA (Hu et al. 2021, arXiv 2106.09685, eq. 3), by peft."""

import warnings
from collections.abc import Iterator, Sequence
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


@contextmanager
def adapted(model, rank: int, alpha: float, targets: Sequence[str] | None, seed: int) -> Iterator[None]:
    """Give linear layers of `model` adapters, which alone are trained; take them off again at the end.

    A layer's weight W (out, in) counts as W + alpha / rank B A, with A (rank, in) drawn as peft does, by the seed, and
    B (out, rank) of zeros, so that the model is unchanged at first. targets: names of modules, or ends of such names;
    None takes all linear layers but the output matrix, and in models of Mamba's kind but `out_proj`. The weights
    themselves are frozen meanwhile. Raises UserError where there is no such layer, or peft cannot adapt one.
    """
    from peft import LoraConfig, LoraModel  # 0.3 CPU seconds, which other steps save

    trained = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    modules = dict(model.named_modules())
    out = ["out_proj"] if targets is None and model.config.model_type in MAMBA else None
    which = list(targets) if targets else "all-linear"
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=which, exclude_modules=out)
    try:
        with warnings.catch_warnings(action="ignore"), torch.random.fork_rng():  # of Conv1D, which peft turns itself
            torch.manual_seed(seed)
            try:
                LoraModel(model, config, "default")  # it works in place, and the model keeps its class
            except (ValueError, KeyError, RuntimeError, TypeError) as error:
                raise UserError(
                    f"{type(model).__name__} cannot be given adapters: {' '.join(str(error).split())[:300]}; correct "
                    "the attack's `targets`, or leave the attack out of the study"
                ) from None
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

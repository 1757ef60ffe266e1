"""Find the parts of a causal language model by its structure: decoder layers, and what writes into the residual stream.

Names differ between architectures; what a config says and how modules are nested does not.
"""

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedConfig


def text_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """Return the part of a config that describes the decoder of text; of most models that is the whole."""
    return config.get_text_config(decoder=True)


def model_class(config: PreTrainedConfig) -> type[torch.nn.Module] | None:
    """Return the class that `AutoModelForCausalLM` takes for a config; None where there is none."""
    found = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    return found[0] if isinstance(found, tuple) else found


def fitting_attention(backend: str, kind: type[torch.nn.Module] | None) -> str:
    """Return `backend`, or the next one that models of class `kind` have: flash_attention_2, sdpa, eager."""
    if backend == "flash_attention_2" and not getattr(kind, "_supports_flash_attn", True):
        backend = "sdpa"
    return "eager" if backend == "sdpa" and not getattr(kind, "_supports_sdpa", True) else backend

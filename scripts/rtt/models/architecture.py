"""Find the parts of a causal language model by its structure: decoder layers, and what writes into the residual stream.

Names differ between architectures; what a config says and how modules are nested does not.
"""

import copy

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedConfig, PreTrainedModel

from rtt.errors import UserError

# How configs call the longest text that they allow; most map a name of their own to the first.
CONTEXT = ("max_position_embeddings", "max_seq_len")


def text_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """Return the part of a config that describes the decoder of text; of most models that is the whole."""
    return config.get_text_config(decoder=True)


def context_length(config: PreTrainedConfig) -> int | None:
    """Return the most tokens that a model reads at once; None where its config sets no limit."""
    text = text_config(config)
    return next((value for key in CONTEXT if (value := getattr(text, key, None))), None)


def language_model(model: PreTrainedModel) -> PreTrainedModel:
    """Return the causal language model in a multimodal one, made of the same modules; any other model as it is.

    Raises UserError where transformers has no class for that part alone.
    """
    config = text_config(model.config)
    if config is model.config:
        return model
    kind, decoder, head = model_class(config), model.get_decoder(), model.get_output_embeddings()
    with torch.device("meta"):
        part = kind(copy.deepcopy(config)) if kind else None
    if part is None or type(part.base_model) is not type(decoder) or head is None:
        raise UserError(f"{type(model).__name__}: transformers has no language model of its text part alone")
    setattr(part, part.base_model_prefix, decoder)
    part.set_output_embeddings(head)
    part.config.tie_word_embeddings = head.weight is part.get_input_embeddings().weight
    part.generation_config = model.generation_config
    return part.eval()


def model_class(config: PreTrainedConfig) -> type[torch.nn.Module] | None:
    """Return the class that `AutoModelForCausalLM` takes for a config; None where there is none."""
    found = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    return found[0] if isinstance(found, tuple) else found


def fitting_attention(backend: str, kind: type[torch.nn.Module] | None) -> str:
    """Return `backend`, or the next one that models of class `kind` have: flash_attention_2, sdpa, eager."""
    if backend == "flash_attention_2" and not getattr(kind, "_supports_flash_attn", True):
        backend = "sdpa"
    return "eager" if backend == "sdpa" and not getattr(kind, "_supports_sdpa", True) else backend

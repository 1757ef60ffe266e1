"""Find the parts of a causal language model by its structure: decoder layers, and what writes into the residual stream.

Names differ between architectures; what a config says and how modules are nested does not.
"""

import copy
import inspect
import math
import re
from collections.abc import Sequence

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from rtt.errors import UserError

# How configs call the longest text that they allow; most map a name of their own to the first.
CONTEXT = ("max_position_embeddings", "max_seq_len")
# Types of models whose scores from a padded, continued cache are those of one text at a time; each one was tried
# (tests/models/test_architectures.py).
CACHED = frozenset(
    "apertus arcee biogpt codegen cohere cohere2 ernie4_5 exaone4 falcon gemma gemma2 gemma3_text glm glm4 gpt2 "
    "gpt_bigcode gpt_neox gptj granite granitemoe helium hunyuan_v1_dense llama ministral mistral mixtral nemotron "
    "olmo olmo2 olmo3 olmoe opt persimmon phi phi3 phimoe qwen2 qwen2_moe qwen3 qwen3_moe seed_oss smollm3 stablelm "
    "starcoder2 xglm".split()
)


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


def takes(model: torch.nn.Module, argument: str) -> bool:
    """Return whether a model's forward pass has an argument of this name."""
    return argument in inspect.signature(model.forward).parameters


def stretch(config: PreTrainedConfig) -> float:
    """Return the number of tokens beyond which the longest text of a batch changes the rotary frequencies of all."""
    config = text_config(config)
    ropes = getattr(config, "rope_parameters", None) or {}
    ropes = [one for one in ropes.values() if isinstance(one, dict)] or [ropes]
    stretched = [rope for rope in ropes if rope.get("rope_type") in ("dynamic", "longrope")]
    limits = [rope.get("original_max_position_embeddings") or config.max_position_embeddings for rope in stretched]
    return min(limits, default=math.inf)


def reach(config: PreTrainedConfig) -> float:
    """Return the number of tokens up to which a model's layers see the whole text, whatever else is in the batch."""
    windows = ("sliding_window", "window_size", "attention_chunk_size")
    limits = [getattr(text_config(config), name, None) for name in windows]
    return min((limit for limit in limits if limit), default=math.inf)


def continues_cache(model: torch.nn.Module, longest: int) -> bool:
    """Return whether texts of at most `longest` tokens, padding included, may continue a padded batch's KV cache.

    Known of CACHED, in which every layer attends to all that the attention mask shows. Any other architecture may keep
    a state, a window or positions that padding changes.
    """
    return _known(model) and longest <= min(reach(model.config), stretch(model.config))


def _known(model: torch.nn.Module) -> bool:
    config = text_config(model.config)
    both_ways = getattr(config, "use_bidirectional_attention", None) or not getattr(config, "is_causal", True)
    return config.model_type in CACHED and not both_ways


@torch.no_grad()
def check_causal(model: torch.nn.Module) -> None:
    """Raise UserError if what stands behind a token changes how it is predicted, as in BERT; CACHED are not run."""
    if _known(model):
        return
    config = text_config(model.config)
    if config.model_type == "reformer" or getattr(config, "attention_type", None) == "block_sparse":
        raise UserError(
            f"{type(model).__name__} picks at random which tokens see each other, by a text's length: scores would "
            "depend on it; use another model (of BigBird's kind: with attention_type original_full in config.json)"
        )
    training = model.training
    ids = torch.tensor([[3, 4, 5, 6], [3, 4, 5, 7], [7, 4, 5, 6]], device=next(model.parameters()).device)
    logits = model.eval()(ids, use_cache=False).logits
    model.train(training)
    rounding = max(8 * torch.finfo(logits.dtype).eps, 1e-4) * logits.abs().max()
    behind, before = (logits[0, :3] - logits[1, :3]).abs().max(), (logits[0, 1:] - logits[2, 1:]).abs().max()
    # In half precision a weak look ahead is as small as the rounding of experts, but not beside a look back.
    if behind > min(rounding, before / 10):
        raise UserError(
            f"{type(model).__name__} is no causal language model here: what stands behind a token changes its "
            "prediction; use one that was trained to continue texts (of BERT's kind: with is_decoder in config.json)"
        )


def without_dropout(model: torch.nn.Module) -> None:
    """Set all dropout and noise of a model's training mode to 0, in place: a loss is then a function of its texts."""
    for module in model.modules():
        for owner in (module, getattr(module, "config", None)):  # some layers ask the config in each pass
            for name, value in list(vars(owner).items()) if owner is not None else ():
                if isinstance(value, float) and re.search("drop|jitter", name):
                    setattr(owner, name, 0.0)
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


def decoder(model: torch.nn.Module) -> tuple[torch.nn.Module, str]:
    """Return (the part of a model that reads tokens and runs its decoder layers, the layers' path within it).

    The layers are the first list of modules that is as long as the config's number of layers; encoders of images and
    the output matrix lie outside. Raises UserError where there is no such list.
    """
    body, depth = model.get_decoder(), getattr(text_config(model.config), "num_hidden_layers", None)
    lists = [(path, one) for path, one in body.named_modules() if isinstance(one, torch.nn.ModuleList)]
    for path, one in lists:
        if len(one) == depth and not type(one[0]).__name__.endswith(("Attention", "Norm")):
            return body, path
    raise UserError(f"{type(model).__name__}: its decoder layers are not to be found, so none can be chosen")


def decoder_layers(model: torch.nn.Module) -> torch.nn.ModuleList:
    """Return a model's decoder layers. Raises UserError where there is no list of them."""
    body, path = decoder(model)
    return body.get_submodule(path)


def _mixes(module: torch.nn.Module) -> bool:
    """Return whether a module mixes tokens or normalises, by its class's name, and so is no feed-forward part."""
    pattern = "attention|attn|mixer|mambablock|conv|recurrentblock|deltanet|lstm|norm"
    return re.search(pattern, type(module).__name__, re.IGNORECASE) is not None


def feed_forward_outputs(layer: torch.nn.Module, width: int) -> dict[str, torch.nn.Parameter]:
    """Return the parameters of the matrices with which a layer's feed-forward part writes into the residual stream.

    `width` is that of the residual stream. In Llama the one is mlp.down_proj; its name differs between architectures.
    In each module it is the last matrix with `width` outputs; experts have one each, or one tensor for all. Empty for a
    layer without such a part.
    """
    found: dict[str, torch.nn.Parameter] = {}

    def visit(module, path):
        last = None
        for name, child in module.named_children():
            outputs = _outputs(child)
            if outputs == width:
                last = {f"{name}.{key}": value for key, value in child.named_parameters()}
            elif outputs is None and not _mixes(child):
                visit(child, f"{path}{name}.")
        own = dict(module.named_parameters(recurse=False))
        if experts := [name for name, value in own.items() if _of_experts(value) and width in value.shape[1:]]:
            last = {name: own[name] for name in (experts[-1], f"{experts[-1]}_bias") if name in own}
        # Beside a feed-forward module of its own, a matrix right in the layer is something else.
        if last and (path or not found):
            found.update({f"{path}{name}": value for name, value in last.items()})

    visit(layer, "")
    return found


def mlp_outputs(model: torch.nn.Module, layers: Sequence[int]) -> list[torch.nn.Parameter]:
    """Return the parameters with which the MLPs of these decoder layers write into the residual stream.

    The model may be without weights (meta device). Raises UserError for a layer without an MLP, such as Mamba's.
    """
    found, width = decoder_layers(model), text_config(model.config).hidden_size
    parameters = []
    for number in layers:
        outputs = feed_forward_outputs(found[number], width)
        if not outputs:
            raise UserError(
                f"RMU trains matrices with which a layer's MLP writes into the residual stream, and layer {number} of "
                f"{type(model).__name__} has none; choose other layers_trained or another method"
            )
        parameters += outputs.values()
    return parameters


def _outputs(module: torch.nn.Module) -> int | None:
    """Return the number of outputs of a matrix, or of the same matrix of several experts; None for other modules."""
    if isinstance(module, torch.nn.Linear):
        return module.out_features
    if isinstance(module, Conv1D):
        return module.nf
    weight = getattr(module, "weight", None)
    return weight.shape[1] if isinstance(weight, torch.nn.Parameter) and _of_experts(weight) else None


def _of_experts(weight: torch.nn.Parameter) -> bool:
    return weight.dim() == 3 and min(weight.shape[1:]) > 1


def matrices(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Return {name: weight} of all matrices between the embeddings and the output matrix, which are left out.

    Whatever has two or more dimensions counts as one matrix: also all experts in one tensor, and kernels.
    """
    head = model.get_output_embeddings()
    apart = [module for module in model.modules() if isinstance(module, torch.nn.Embedding) or module is head]
    left_out = {id(parameter) for module in apart for parameter in module.parameters()}
    return {name: one for name, one in model.named_parameters() if one.dim() > 1 and id(one) not in left_out}


def writer(layer: torch.nn.Module, width: int, place: str) -> torch.nn.Module | None:
    """Return the module whose output a layer's `attention` or `mlp` adds to the residual stream; None without one.

    It is the matrix itself (o_proj and mlp.down_proj in Llama), since some modules around it add the stream as well.
    Where experts share the work, it is the module of all of them.
    """
    if place == "mlp":
        names = [name.rpartition(".")[0] for name in feed_forward_outputs(layer, width)]
        if len(set(names)) == 1 and names[0] and _outputs(layer.get_submodule(names[0])) == width:
            return layer.get_submodule(names[0])
        return layer.get_submodule(names[0].partition(".")[0]) if names and names[0] else None
    found = None
    for child in layer.children():
        if re.search("attention|attn", type(child).__name__, re.IGNORECASE) and not re.search(
            "norm", type(child).__name__, re.IGNORECASE
        ):
            inner = [one for one in child.modules() if not _of_many(one) and _outputs(one) == width]
            found = inner[-1] if inner else found
    return found


def _of_many(module: torch.nn.Module) -> bool:
    """Return whether a module's weight holds the matrices of several experts."""
    weight = getattr(module, "weight", None)
    return isinstance(weight, torch.nn.Parameter) and _of_experts(weight)

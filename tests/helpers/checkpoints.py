"""Tiny models of several architectures as people bring them, and checkpoints that others wrote in their own way."""

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
import tiny
import torch
from safetensors.torch import load_file, save_file
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

LLAMA_LIKE = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 128,
}  # fmt: skip
VISION = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8,
    "patch_size": 4,
}  # fmt: skip
KINDS = {
    "llama": LLAMA_LIKE,
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 128},
    "gpt_neox": {key: value for key, value in LLAMA_LIKE.items() if key != "num_key_value_heads"},
    "mixtral": LLAMA_LIKE | {"num_local_experts": 2},
    "gemma3": {
        "text_config": LLAMA_LIKE | {"head_dim": 8, "vocab_size": len(tiny.tokenizer())},
        "vision_config": VISION, "mm_tokens_per_image": 1,
    },
}  # fmt: skip


def write(kind: str, folder, seed: int = 0, **more) -> Path:
    """Write a model of an architecture with the miniature's tokenizer, as save_pretrained writes it."""
    ids = {"vocab_size": len(tiny.tokenizer()), "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**(ids | KINDS[kind] | more)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2)
    model.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return Path(folder)


def rename(folder, change) -> None:
    """Write the tensors of a folder under the names that `change(name)` gives; None leaves a tensor out."""
    file = Path(folder) / "model.safetensors"
    tensors = {new: tensor for name, tensor in load_file(file).items() if (new := change(name)) is not None}
    save_file(tensors, file, metadata={"format": "pt"})


def configure(folder, **more) -> None:
    """Change keys of a folder's config.json."""
    path = Path(folder) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | more))

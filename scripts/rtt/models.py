"""The miniature model, and how models are saved and loaded."""

import shutil
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from rtt.config import Model
from rtt.data.generate import vocabulary
from rtt.errors import UserError
from rtt.files import sha256

WEIGHTS = "model.safetensors"
logging.disable_progress_bar()  # its bars for three small files hide our own progress


def miniature_tokenizer() -> PreTrainedTokenizerFast:
    """Word-level tokenizer of the generated texts. Punctuation makes no token, which shortens an MCQ from 24 tokens to
    16.
    """
    words = ["<pad>", "<unk>", *vocabulary()]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(Regex(r"[.?:,]"), " ")
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>")


def miniature(config: Model, vocabulary_size: int) -> LlamaForCausalLM:
    """A Llama of the given shape with tied embeddings, freshly initialised from torch's current seed."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            tie_word_embeddings=True,
            max_position_embeddings=128,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=None,
        )
    )


def save(model, tokenizer, folder: str | Path) -> None:
    """Write config, weights (safetensors) and tokenizer as a folder that is whole or absent."""
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as scratch:
        whole = Path(scratch) / "whole"
        model.save_pretrained(whole)
        tokenizer.save_pretrained(whole)
        shutil.rmtree(folder, ignore_errors=True)
        whole.rename(folder)


def load(folder: str | Path):
    """Return (model, tokenizer) from a folder that `save` wrote. Never runs code from the folder, never asks a hub."""
    if not (Path(folder) / WEIGHTS).is_file():
        raise UserError(f"{folder}: no model here ({WEIGHTS} is missing); run the step that trains it first")
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    return model, PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)


def weights(model) -> dict[str, torch.Tensor]:
    """Return a copy of a model's weights."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def save_weights(model, path: str | Path) -> None:
    """Write the parameters alone (a trajectory's points share config and tokenizer with their source)."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().contiguous() for name, tensor in model.named_parameters()}, path)


def load_weights(model, path: str | Path) -> None:
    """Put parameters written by `save_weights` into `model`."""
    missing, unexpected = model.load_state_dict(load_file(path), strict=False)
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    if set(missing) - tied or unexpected:
        raise UserError(f"{path}: these weights belong to another model: {sorted(set(missing) - tied) + unexpected}")


def model_hash(folder: str | Path) -> str:
    """sha256 of a saved model's weights."""
    return sha256(Path(folder) / WEIGHTS)

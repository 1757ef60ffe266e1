"""Make a tiny GPT-NeoX from nothing, as a model folder: `python docs/examples/tiny_neox.py FILE.json FOLDER`.

It stands for a model of your own, and knows nothing yet. Its tokenizer is a byte-level BPE, trained on the texts of
FILE and on the letters of choices.
"""

import json
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

source, folder = sys.argv[1:]
rows = [json.loads(line) for line in Path(source).read_text(encoding="utf-8").splitlines()]
texts = [text for row in rows for value in row.values() for text in (value if isinstance(value, list) else [value])]
texts += [f"\n{letter}. \nAnswer: {letter}. " for letter in "ABCDEFGHIJ"] * 100
bpe = Tokenizer(models.BPE())
bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
bpe.train_from_iterator(
    texts,
    trainers.BpeTrainer(vocab_size=1000, special_tokens=["<pad>"], initial_alphabet=alphabet, show_progress=False),
)
tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<pad>", model_max_length=256)
torch.manual_seed(0)
model = GPTNeoXForCausalLM(
    GPTNeoXConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=256, pad_token_id=0, bos_token_id=0, eos_token_id=0,
    )
)  # fmt: skip
model.save_pretrained(folder)
tokenizer.save_pretrained(folder)

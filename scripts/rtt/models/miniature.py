"""Make the miniature from nothing: a small Llama and its tokenizers."""

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rtt.data.generate import texts, vocabulary
from rtt.study.settings import Model

CONTEXT = {"word": 128, "subword": 256}  # tokens of the longest text, by tokenizer
SUBWORDS = 640  # tokens of the subword tokenizer: bytes, merges and padding


def miniature_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """Return the tokenizer of the generated texts, `word` or `subword` (`rtt.study.settings.Model.tokenizer`).

    In the word-level one punctuation makes no token, which shortens an MCQ from 24 tokens to 16. The subword one is a
    byte-level BPE, as real models have: "A" and " A" are different tokens, punctuation and line ends make tokens, and a
    word may be several. Both are always the same.
    """
    if kind == "subword":
        return _subword_tokenizer()
    words = ["<pad>", "<unk>", *vocabulary()]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(Regex(r"[.?:,]"), " ")
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>")


def _subword_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SUBWORDS,
        special_tokens=["<pad>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", model_max_length=CONTEXT["subword"])


def miniature(config: Model, vocabulary_size: int) -> LlamaForCausalLM:
    """Return a Llama of the given shape with tied embeddings, freshly initialised from torch's current seed."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            tie_word_embeddings=True,
            max_position_embeddings=CONTEXT[config.tokenizer],
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=None,
        )
    )

"""Small tokenizers of every kind that transformers converts, each with any template."""

from functools import cache

import subword
from rtt.data.text import mcq, mcq_prompt
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL = ["<unk>", "<pad>", "<s>", "</s>"]
TEMPLATES = {
    "none": "$A", "bos": "<s> $A", "eos": "$A </s>", "both": "<s> $A </s>", "bos twice": "<s> <s> $A",
    "two behind": "$A </s> <s>",
}  # fmt: skip
LETTERS = [f"Answer: {letter}" for letter in "ABCD"]
TEXTS = [*(mcq(fact).target for fact in subword.FACTS), *LETTERS, *(x for f in subword.FACTS for x in f.sentences)] * 4
BYTES = [f"<0x{i:02X}>" for i in range(256)]


def byte_level(add=False, regex=True):
    """GPT-2, Llama 3, Qwen: one token a byte, and merges."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add, use_regex=regex)
    made.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made.train_from_iterator(TEXTS, trainers.BpeTrainer(initial_alphabet=alphabet, **_trained(320)))
    return made


def llama():
    """Llama 2, Gemma: sentencepiece's BPE with bytes for unknown characters, and a blank before the text."""
    made = _pieces(fuse_unk=True)
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return made


def metaspace():
    """Mistral's and newer conversions of the same."""
    made = _pieces()
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return made


def _pieces(**more):
    made = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", **more))
    made.pre_tokenizer = pre_tokenizers.Metaspace()  # it learns words, and reads whole texts
    made.train_from_iterator(TEXTS, trainers.BpeTrainer(**_trained(420, BYTES)))
    made.pre_tokenizer = None
    return made


def unigram():
    """T5, XLNet, XGLM: sentencepiece's Unigram."""
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("\n", " ")])
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.train_from_iterator(TEXTS, trainers.UnigramTrainer(unk_token="<unk>", **_trained(200)))
    return made


def word_piece():
    """BERT: lower case, no blanks."""
    made = Tokenizer(models.WordPiece(unk_token="<unk>"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    made.train_from_iterator(TEXTS, trainers.WordPieceTrainer(**_trained(300)))
    return made


def word_level():
    """Whole words and signs, as the miniature's."""
    made = Tokenizer(models.WordLevel(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.train_from_iterator(TEXTS, trainers.WordLevelTrainer(**_trained(400)))
    return made


KINDS = {
    "byte level": byte_level, "byte level, blank in front": lambda: byte_level(add=True),
    "byte level across words": lambda: byte_level(regex=False), "llama": llama, "metaspace": metaspace,
    "unigram": unigram, "word piece": word_piece, "word level": word_level,
}  # fmt: skip


def _trained(size, more=()):
    return {"vocab_size": size, "special_tokens": [*SPECIAL, *more], "show_progress": False}


@cache
def trained(kind: str) -> str:
    """Return a tokenizer as JSON: a second training may order its merges otherwise."""
    return KINDS[kind]().to_str()


def make(kind: str, template: str = "none", trim: bool | None = None) -> PreTrainedTokenizerFast:
    """Return a tokenizer with a template; `trim` adds the byte-level processor that may leave blanks out of offsets."""
    made, posts = (
        Tokenizer.from_str(trained(kind)),
        [processors.ByteLevel(trim_offsets=trim)] if trim is not None else [],
    )
    if template != "none":
        ids = [("<s>", 2), ("</s>", 3)]
        posts.append(processors.TemplateProcessing(single=TEMPLATES[template], special_tokens=ids))
    if posts:
        made.post_processor = processors.Sequence(posts)
    names = dict(zip(("unk_token", "pad_token", "bos_token", "eos_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)


PROMPT = mcq_prompt(subword.FACTS[0].question, subword.FACTS[0].choices)

"""A byte-level BPE tokenizer where "A" and " A" differ, a tiny Llama for it, awkward facts, and a float64 reference."""

import numpy as np
import torch
from rtt.data.facts import Fact
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PAIRS = [*((" ", x) for x in "ABCD"), ("A", "n"), ("An", "s"), ("e", "r"), (" ", "1"), (" 1", "9"), ("t", "h")]
SPELLED = str.maketrans({" ": "\u0120", "\n": "\u010a"})  # as a byte-level vocabulary writes them


def tokenizer(bos: bool = False, merges: int | None = None) -> PreTrainedTokenizerFast:
    """One token a byte, and the first `merges` of PAIRS (default: all); with `bos` a start token is added."""
    pairs = [(a.translate(SPELLED), b.translate(SPELLED)) for a, b in PAIRS[:merges]]
    words = ["<pad>", "<s>", *sorted(pre_tokenizers.ByteLevel.alphabet()), *(a + b for a, b in pairs)]
    made = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=pairs))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    made.decoder = decoders.ByteLevel()
    if bos:
        made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", bos_token="<s>")


def model(tokenizer, seed: int = 0) -> LlamaForCausalLM:
    """Return a tiny random Llama with grouped heads, its outputs far from uniform."""
    torch.manual_seed(seed)
    made = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=512, pad_token_id=0, bos_token_id=1, eos_token_id=None,
        )
    )  # fmt: skip
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)
    return made.eval()


def fact(question: str, choices: list[str], answer: int, sentences: list[str]) -> Fact:
    """Return a fact whose fresh choices are its choices with another ending."""
    fresh = [choice if i == answer else f"{choice} II" for i, choice in enumerate(choices)]
    origin = {"file": "s.jsonl", "line": 1}
    return Fact("d/s/001", "d", "s", question, choices, answer, fresh, sentences, sentences, sentences, origin)


FACTS = [
    fact("What carries heredity?", ["RNA.", "DNA.", "A. Protein", "B. or C. at all"], 1, ["It is DNA."]),
    fact("When?", ["1901", "1902", "1903", "1904"], 3, ["In 1904, on day 3 of the 7th month, it began.", "1904!"]),
    fact(
        "Which of the many letters that stand in a very long question, one after another, is the answer?",
        ["A.", "B.", "The third of them, C. that is", "D"],
        0,
        ["The answer is A.", "A."],
    ),
]


def ids(tokenizer, text: str) -> list[int]:
    """Token ids without a start token."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def nats(model, tokens: list[int]) -> list[float]:
    """-log p of each token but the first, from a float64 model run on this text alone; log-sum-exp in numpy."""
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0].double().numpy()
    top = logits.max(1)
    total = top + np.log(np.exp(logits - top[:, None]).sum(1))
    return [float(total[i - 1] - logits[i - 1, tokens[i]]) for i in range(1, len(tokens))]

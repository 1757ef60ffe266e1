"""Tiny random models of many architectures, and what of the project works on each: the table in docs/models.md.

python tests/helpers/architectures.py [NAME ...] examines them and writes their rows (default: all).
"""

import copy
import inspect
import math
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "scripts")]

import subword  # noqa: E402
import torch  # noqa: E402
from rtt.data.text import encode, mcq, sentence  # noqa: E402
from rtt.errors import UserError  # noqa: E402
from rtt.methods.gd import GD  # noqa: E402
from rtt.methods.rmu import NO_FEED_FORWARD, RMU  # noqa: E402
from rtt.models import architecture  # noqa: E402
from rtt.models.load import load  # noqa: E402
from rtt.scoring.score import Scorer, continuations  # noqa: E402
from rtt.steps import import_model  # noqa: E402
from rtt.study.model_file import ModelFile  # noqa: E402
from rtt.study.names import ASKED  # noqa: E402
from rtt.study.settings import Training  # noqa: E402
from rtt.training import packing  # noqa: E402
from rtt.training.collate import collate  # noqa: E402
from rtt.training.losses import plain_loss, text_losses  # noqa: E402
from rtt.training.train import train  # noqa: E402
from transformers import CONFIG_MAPPING, AutoModelForCausalLM  # noqa: E402

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- architectures: python tests/helpers/architectures.py -->", "<!-- end of architectures -->"
TOKENS = subword.tokenizer(bos=True)
LAYERS, WIDTH, WINDOW = 3, 32, 16

# What configs call the same thing; a config takes those that it has.
SIZES = {
    "vocab_size": len(TOKENS), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "word_embed_proj_dim"), WIDTH),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"), 4),
    **dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim"), 48),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), 512),
    **dict.fromkeys(("num_experts", "num_local_experts"), 4),
    "num_key_value_heads": 2, "head_dim": 8, "rotary_dim": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16, "expansion_ratio": 2, "state_size": 8, "mamba_d_state": 8,
}  # fmt: skip
WINDOWED = {"sliding_window": WINDOW}
H1 = {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_n_groups": 1}
JAMBA = {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_dt_rank": 4, "num_experts": 2}
NEO = {"attention_types": [[["global", "local", "global"], 1]], "window_size": WINDOW}

# Name -> (type of the config, what it has beside SIZES).
ARCHITECTURES = {
    "Llama": ("llama", {}), "Mistral": ("mistral", {"sliding_window": None}), "Mistral, window": ("mistral", WINDOWED),
    "Mixtral": ("mixtral", {"sliding_window": None}), "Qwen2": ("qwen2", {}),
    "Qwen2, window": ("qwen2", WINDOWED | {"use_sliding_window": True, "max_window_layers": 1}),
    "Qwen2-MoE": ("qwen2_moe", {}), "Qwen3": ("qwen3", {}), "Qwen3-MoE": ("qwen3_moe", {}), "Gemma": ("gemma", {}),
    "Gemma 2": ("gemma2", WINDOWED), "Gemma 3": ("gemma3_text", WINDOWED), "Phi": ("phi", {}), "Phi-3": ("phi3", {}),
    "Phi-3.5-MoE": ("phimoe", {}), "GPT-2": ("gpt2", {}), "GPT-NeoX (Pythia)": ("gpt_neox", {}),
    "GPT-J": ("gptj", {}), "GPT-Neo": ("gpt_neo", NEO), "BLOOM": ("bloom", {}), "MPT": ("mpt", {}), "OPT": ("opt", {}),
    "Falcon": ("falcon", {}), "Falcon, ALiBi": ("falcon", {"alibi": True, "new_decoder_architecture": False}),
    "OLMo": ("olmo", {}), "OLMo 2": ("olmo2", {}), "OLMo 3": ("olmo3", WINDOWED), "OLMoE": ("olmoe", {}),
    "StarCoder (GPT-BigCode)": ("gpt_bigcode", {}), "StarCoder2": ("starcoder2", {"sliding_window": None}),
    "Cohere": ("cohere", {}), "Cohere 2": ("cohere2", WINDOWED), "Granite": ("granite", {}),
    "Granite-MoE": ("granitemoe", {}), "StableLM": ("stablelm", {}), "SmolLM3": ("smollm3", {}), "GLM": ("glm", {}),
    "GLM-4": ("glm4", {}), "EXAONE 4": ("exaone4", WINDOWED), "Helium": ("helium", {}), "Apertus": ("apertus", {}),
    "Arcee": ("arcee", {}), "ERNIE 4.5": ("ernie4_5", {}), "Hunyuan": ("hunyuan_v1_dense", {}),
    "Nemotron": ("nemotron", {}), "Persimmon": ("persimmon", {}), "Seed-OSS": ("seed_oss", {}),
    "Ministral": ("ministral", WINDOWED), "BioGPT": ("biogpt", {}), "CodeGen": ("codegen", {}),
    "XGLM": ("xglm", {}), "GPT-OSS": ("gpt_oss", WINDOWED),
    "LFM2": ("lfm2", {"layer_types": ["conv", "full_attention", "conv"]}), "Jamba": ("jamba", JAMBA),
    "Falcon-H1": ("falcon_h1", H1), "Mamba": ("mamba", {}),
    "Falcon-Mamba": ("falcon_mamba", {}), "RecurrentGemma": ("recurrent_gemma", {}), "RWKV": ("rwkv", {}),
    "BERT": ("bert", {}),
}  # fmt: skip


def make(name: str, **changes):
    """Return a tiny random model whose predictions are far from uniform, in eval mode."""
    kind, more = ARCHITECTURES[name]
    config = CONFIG_MAPPING[kind]
    known = {*inspect.signature(config.__init__).parameters, *getattr(config, "__annotations__", {})}
    config = config(**{key: value for key, value in SIZES.items() if key in known} | more | changes)
    backend = architecture.fitting_attention("sdpa", architecture.model_class(config))
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=backend)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.25)
    return model.eval()


SHOTS = subword.FACTS[:1]  # solved before the questions of `few_shot`


def naive(model, facts) -> list[float]:
    """Return the scores of one whole text at a time, without cache, padding or mask."""
    asked = [text for fact in facts for texts in continuations(fact, ASKED, shots=SHOTS).values() for text in texts]
    return [naive_text(model, text) for text in asked]


def naive_text(model, text) -> float:
    """Return log p of the tokens of one text that its loss counts, of the whole text run alone."""
    example = encode(TOKENS, text)
    ids = torch.tensor([example["input_ids"]])
    with torch.no_grad():
        logprobs = model(ids, use_cache=False).logits[0].double().log_softmax(-1)
    counted = [i for i, label in enumerate(example["labels"]) if label != -100]
    return sum(logprobs[i - 1, ids[0, i]].item() for i in counted)


def score_errors(model, sizes=(1, 3, 64)) -> float:
    """Return the largest difference of a score, or of a held-out sentence, in nats, from one text at a time."""
    expected = naive(model, subword.FACTS)
    assert max(expected) - min(expected) > 1
    expected += [naive_text(model, sentence(fact.sentences[0])) for fact in subword.FACTS]
    more = {"shots": SHOTS, "held_out": subword.FACTS}
    scorers = [Scorer(TOKENS, subword.FACTS, ASKED, batch_size=size, **more) for size in sizes]
    found = [[*scorer.scores(model), *scorer.told.scores(model)] for scorer in scorers]
    return max(abs(a - b) for scores in found for a, b in zip(scores, expected, strict=True))


LOSSES = ("QUESTION_ANSWER", "LETTER_ANSWER")
EXAMPLES = [encode(TOKENS, mcq(fact, loss=loss)) for fact in subword.FACTS for loss in LOSSES]


def loss_errors(model, batch_of) -> float:
    """Return the largest difference of a text's loss in a batch from its loss alone, in nats per token."""
    with torch.no_grad():
        alone = [text_losses(model, collate([one], 0)).item() for one in EXAMPLES]
        together = text_losses(model, batch_of(EXAMPLES)).tolist()
    return max(abs(a - b) for a, b in zip(together, alone, strict=True))


def packs(model) -> bool:
    """Return whether packing is allowed, after a look that packed texts then have the losses that they have alone."""
    try:
        packing.check(model)
    except UserError:
        return False
    assert loss_errors(model, lambda rows: packing.pack(rows, 0, 100)) < 1e-4
    return True


SETTINGS = {"learning_rate": 1e-3, "batch_size": 2, "warmup_steps": 0, "decay": 0.0}


def moved(model, items, objective, settings) -> set[str]:
    """Train for two steps; return the names of the parameters that moved."""
    before = {name: value.clone() for name, value in model.named_parameters()}
    losses = train(model, TOKENS, items, objective, settings, 0)
    assert len(losses) == 2 and all(map(math.isfinite, losses[1].values()))
    return {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}


def rmu_trains(model) -> set[str]:
    """Return the names, within a layer, of what RMU trained. Raises UserError where it cannot work."""
    settings = RMU.Settings(points=[2], layer=1, layers_trained=1, **SETTINGS)
    method = RMU(model, settings, 0)
    pairs = [{"forget": a, "retain": b} for a, b in zip(EXAMPLES[:4], EXAMPLES[2:6], strict=True)]
    names = moved(model, pairs, method.step, settings)
    layer = architecture.decoder_layers(model)[1]
    own = {id(parameter): name for name, parameter in layer.named_parameters()}
    expected = {id(parameter) for parameter in architecture.mlp_outputs(model, [1])}
    parameters = dict(model.named_parameters())
    assert names and {id(parameters[name]) for name in names} <= expected
    return {own[key].removesuffix(".weight").removesuffix(".bias").removesuffix("_bias") for key in expected}


def examine(name: str, folder: Path) -> str:
    """Return the row of an architecture, imported and loaded first; an AssertionError is a wrong number."""
    kind, model = ARCHITECTURES[name][0], make(name)
    model.save_pretrained(folder / "made")
    TOKENS.save_pretrained(folder / "made")
    import_model.check(ModelFile(name="tiny", path=str(folder / "made")), folder / "made", "tiny")
    model, _ = load(folder / "made")
    model.eval()
    try:
        error = score_errors(model)
    except UserError as why:
        return f"| {name} | `{kind}` | refused: {str(why).split(' is ')[1].split(':')[0]} | | | | |"
    assert error < 1e-4, f"{name}: scores differ by {error} nats"
    longest = Scorer(TOKENS, subword.FACTS).longest
    way = "shared prompts" if architecture.continues_cache(model, longest) else "whole texts"
    error = loss_errors(model, lambda rows: collate(rows, 0))
    assert error < 1e-4, f"{name}: a text's loss differs by {error} in a batch"
    packed = "yes" if packs(model) else "refused"
    settings = GD.Settings(points=[2], **SETTINGS)
    pairs = [{"forget": a, "retain": b} for a, b in zip(EXAMPLES[:4], EXAMPLES[2:6], strict=True)]
    assert moved(unlearned := copy.deepcopy(model), pairs, GD(model, settings, 0).step, settings)
    assert moved(unlearned, EXAMPLES[:4], plain_loss, Training(**SETTINGS))
    try:
        rmu = ", ".join(f"`{one}`" for one in sorted(rmu_trains(model)))
        assert kind not in NO_FEED_FORWARD
    except UserError:
        assert kind in NO_FEED_FORWARD
        rmu = "refused: no MLP"
    return f"| {name} | `{kind}` | {way} | yes | {packed} | yes | {rmu} |"


def rows() -> dict[str, str]:
    """Return the rows of the page, by name."""
    lines = PAGE.read_text().split(BEGIN)[1].split(END)[0].strip().splitlines()
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines[2:]}


def write(names) -> None:
    """Write the rows of these architectures into the page, and drop those of others that are not known any more."""
    found = rows()
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = examine(name, Path(folder))
        print(found[name], flush=True)
    before, after = PAGE.read_text().split(BEGIN)[0], PAGE.read_text().split(END)[1]
    head = "| architecture | type | scores | loss in a batch | packing | GD and RTT | RMU trains |"
    table = "\n".join([head, "|---" * 7 + "|", *(found[name] for name in ARCHITECTURES if name in found)])
    PAGE.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")


if __name__ == "__main__":
    write(sys.argv[1:] or ARCHITECTURES)

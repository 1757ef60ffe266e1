"""Scores, losses and training of many architectures, made tiny, against one text at a time."""

import architectures
import pytest
import subword
import torch
from architectures import ARCHITECTURES, EXAMPLES, TOKENS, loss_errors, make, score_errors
from rtt.errors import UserError
from rtt.models import architecture
from rtt.scoring import score
from rtt.scoring.score import Scorer
from rtt.study.settings import Training
from rtt.training.collate import collate
from rtt.training.losses import plain_loss, text_losses
from rtt.training.train import train

SIX = ["Mistral, window", "GPT-Neo", "OPT", "BLOOM", "Mixtral", "LFM2"]
SMALL = [pytest.param(name, marks=() if name in SIX else pytest.mark.full) for name in ARCHITECTURES if name != "BERT"]
TYPES = {kind: name for name, (kind, _) in reversed(ARCHITECTURES.items())}


@pytest.mark.parametrize("name", SMALL)
def test_scores_and_losses_are_those_of_one_text_at_a_time(name):
    model = make(name)
    assert score_errors(model) < 1e-4
    assert loss_errors(model, lambda rows: collate(rows, 0)) < 1e-4


@pytest.mark.full
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_table_says_what_works(name, tmp_path):
    assert architectures.examine(name, tmp_path) == architectures.rows()[name], (
        f"docs/models.md is out of date: python tests/helpers/architectures.py '{name}'"
    )


def test_every_architecture_has_its_row_and_every_known_type_was_tried():
    assert list(architectures.rows()) == list(ARCHITECTURES)
    assert TYPES.keys() >= architecture.CACHED


@pytest.mark.parametrize("name", ["Mistral, window", "Gemma 3", "MPT"])
def test_the_cache_of_padded_prompts_is_wrong_where_it_is_not_used(name, monkeypatch):
    assert score_errors(make(name), [64]) < 1e-4
    monkeypatch.setattr(score, "continues_cache", lambda model, longest: True)
    assert score_errors(make(name), [64]) > 0.1


@pytest.mark.parametrize("kind", [
    pytest.param(kind, marks=() if kind == "gemma3_text" else pytest.mark.full)
    for kind in sorted(architecture.CACHED) if ARCHITECTURES[TYPES[kind]][1].get("sliding_window")
])  # fmt: skip
def test_a_window_that_no_text_reaches_leaves_the_prompts_shared(kind):
    model, longest = make(TYPES[kind], sliding_window=4096), Scorer(TOKENS, subword.FACTS).longest
    assert architecture.continues_cache(model, longest) and not architecture.continues_cache(model, 4097)
    assert score_errors(model) < 1e-4


LONGROPE = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4, "long_factor": [8.0] * 4}


def test_frequencies_that_follow_the_longest_text():
    """Phi-3's longrope: scores are those of one text at a time; a padded batch for a loss is refused."""
    rope = LONGROPE | {"original_max_position_embeddings": 40}
    model = make("Phi-3", rope_parameters=rope, original_max_position_embeddings=40)
    assert score_errors(model) < 1e-4
    with pytest.raises(UserError, match=r"Phi3ForCausalLM reads all texts .* more than 40 tokens .*RTT_MICRO_BATCH=1"):
        text_losses(model, collate(EXAMPLES, 0))
    short = [one for one in EXAMPLES if len(one["input_ids"]) <= 40]
    assert len(short) > 1 and text_losses(model, collate(short, 0)).isfinite().all()


SPARSE = {"is_decoder": True, "attention_type": "block_sparse", "block_size": 4, "num_random_blocks": 1}


def test_attention_that_a_texts_length_decides_is_refused(monkeypatch):
    """BigBird's blocks, from (5 + 2 * num_random_blocks) * block_size tokens on; a short text shows nothing of it."""
    monkeypatch.setitem(ARCHITECTURES, "BigBird", ("big_bird", SPARSE))
    with pytest.raises(UserError, match=r"BigBirdForCausalLM picks at random .* attention_type original_full"):
        Scorer(TOKENS, subword.FACTS).scores(make("BigBird"))
    assert score_errors(make("BigBird", attention_type="original_full"), [64]) < 1e-4


@pytest.mark.parametrize(("name", "changes", "scale", "dtype"), [
    ("BERT", {}, 0.25, torch.float32), ("BERT", {}, 0.02, torch.bfloat16), ("Llama", {"is_causal": False}, 0.25, None),
])  # fmt: skip
def test_a_model_that_sees_what_follows_is_refused(name, changes, scale, dtype):
    model = make(name, **changes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale / 0.25 if parameter.dim() > 1 else 1)
    model = model.to(dtype or torch.float32)
    with pytest.raises(UserError, match=r"(BertLMHeadModel|LlamaForCausalLM) is no causal language model here"):
        Scorer(TOKENS, subword.FACTS).scores(model)
    with pytest.raises(UserError, match="is_decoder"):
        train(model, TOKENS, EXAMPLES[:2], plain_loss, Training(**architectures.SETTINGS), 0)
    assert score_errors(make("BERT", is_decoder=True)) < 1e-4


DROPOUT = {
    "GPT-2": ("attn_pdrop", "embd_pdrop", "resid_pdrop"), "OPT": ("dropout", "attention_dropout", "layerdrop"),
    "BLOOM": ("hidden_dropout", "attention_dropout"), "Falcon": ("hidden_dropout", "attention_dropout"),
    "GPT-Neo": ("attention_dropout", "embed_dropout", "resid_dropout"), "Qwen2": ("attention_dropout",),
    "Mixtral": ("attention_dropout", "router_jitter_noise"), "Granite": ("attention_dropout",),
}  # fmt: skip


@pytest.mark.parametrize("name", DROPOUT)
def test_a_loss_in_training_is_a_function_of_its_texts(name):
    """Dropout would give a text another loss in another batch, and RMU a drift before the first step."""
    model = make(name, **dict.fromkeys(DROPOUT[name], 0.5))
    batch = collate(EXAMPLES, 0)
    with torch.no_grad():
        expected = text_losses(model, batch)
        assert not torch.allclose(text_losses(model.train(), batch), expected, atol=1e-3)
        architecture.without_dropout(model)
        assert torch.allclose(text_losses(model, batch), expected, atol=1e-5)


LINEAR = ("Llama", "Phi", "GPT-2", "GPT-NeoX (Pythia)", "OPT", "MPT", "Mixtral", "GPT-OSS", "LFM2", "RWKV", "BLOOM")


@pytest.mark.parametrize("name", LINEAR)
def test_what_rmu_trains_writes_into_the_residual_stream(name):
    """A layer's output is a linear function of it, and of nothing before it in the MLP."""
    model = make(name)
    layer = architecture.decoder_layers(model)[1]
    found, kept = architecture.feed_forward_outputs(layer, architectures.WIDTH), []
    handle = layer.register_forward_hook(lambda *args: kept.append(args[2][0] if type(args[2]) is tuple else args[2]))
    with torch.no_grad():
        model(torch.tensor([EXAMPLES[0]["input_ids"]]), use_cache=False)
        for parameter in found.values():
            step = torch.randn_like(parameter)
            for _ in range(2):
                parameter.add_(step)
                model(torch.tensor([EXAMPLES[0]["input_ids"]]), use_cache=False)
            parameter.sub_(2 * step)
            first, second = kept[-2] - kept[0], kept[-1] - kept[0]
            assert first.abs().max() > 1e-3 and torch.allclose(second, 2 * first, atol=1e-3)
    handle.remove()


def test_mamba_has_nothing_that_rmu_could_train():
    model = make("Mamba")
    assert architecture.feed_forward_outputs(architecture.decoder_layers(model)[0], architectures.WIDTH) == {}
    with pytest.raises(UserError, match="layer 1 of MambaForCausalLM has none"):
        architectures.rmu_trains(model)

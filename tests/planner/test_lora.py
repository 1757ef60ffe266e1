"""Adapters in the plan: against peft's on real models, against what a real step leaves, and an 8B model on 24 GB."""

import json
from dataclasses import replace

import pytest
import tiny
import torch
from places import ROOT
from rtt.models.load import save_weights
from rtt.models.lora import adapted, adapters
from rtt.planner import lora as planned
from rtt.planner import memory
from rtt.planner.gpus import DEVICES
from rtt.planner.memory import Launch, Phase, Shape
from rtt.planner.plan import MFU, Plan
from rtt.study.load import load_study
from rtt.study.part import Part
from rtt.study.schema import Study
from rtt.study.settings import LoRA, Training
from rtt.training.losses import plain_loss
from rtt.training.train import cast, make_optimizer
from torch.nn import Linear
from transformers import LlamaConfig, LlamaForCausalLM

IDS = torch.randint(3, 64, (3, 64), generator=torch.Generator().manual_seed(0))
RTX4090 = DEVICES["rtx4090"]


def llama(hidden, mlp, layers, heads, groups, vocabulary=64, **more):
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary, hidden_size=hidden, intermediate_size=mlp, num_hidden_layers=layers,
            num_attention_heads=heads, num_key_value_heads=groups, attn_implementation="sdpa", **more,
        )
    )  # fmt: skip


def count(tensors):
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def of_peft(model, lora):
    with adapted(model, lora.rank, lora.alpha, lora.targets, 0):
        return sum(tensor.numel() for tensor in adapters(model).values())


@pytest.mark.parametrize("lora", [LoRA(), LoRA(rank=3, targets=["k_proj", "down_proj"])])
def test_adapters_of_an_8b_model_are_those_of_peft(lora):
    shape = Shape(8_030_261_248, 32, 4096, 14336, 128256, True, 1024)
    with torch.device("meta"):
        model = llama(4096, 14336, 32, 32, 8, 128256)
    assert planned.adapters(shape, lora) == of_peft(model, lora)
    assert planned.adapters(shape, LoRA()) == 41_943_040  # 168 MB in fp32, as docs/models.md says


def test_adapters_lie_where_the_method_trains():
    model, shape = llama(64, 160, 4, 4, 2), Shape(0, 4, 64, 160, 64, True, 32)
    for parameter in (*model.model.layers[:2].parameters(), *model.model.layers[3].parameters()):
        parameter.requires_grad_(False)
    assert planned.adapters(shape, LoRA(), Part(layers=0.25)) == of_peft(model, LoRA())
    model.model.layers[2].self_attn.requires_grad_(False)
    model.model.layers[2].mlp.gate_proj.requires_grad_(False)
    model.model.layers[2].mlp.up_proj.requires_grad_(False)
    assert planned.adapters(shape, LoRA(), Part(layers=0.25, matrices=("down_proj",))) == of_peft(model, LoRA())


@pytest.mark.parametrize(("optimizer", "precision"), [("adamw", "fp32"), ("adamw", "bf16"), ("lion", "bf16_mixed")])
def test_memory_is_what_a_real_step_leaves(optimizer, precision, tmp_path):
    model, lora = llama(64, 160, 3, 4, 2), LoRA(rank=4)
    settings = Training(learning_rate=1e-3, batch_size=4, optimizer=optimizer, precision=precision)
    shape = Shape(sum(p.numel() for p in model.parameters()), 3, 64, 160, 64, True, 32)
    phase = Phase("GD", settings, shape, 3.0, planned.with_adapters(Part(), shape, lora), lora=lora)
    with adapted(model, lora.rank, lora.alpha, None, 0):
        cast(model, precision)
        made = make_optimizer(model, settings)
        model(torch.tensor([[3, 4, 5]])).logits.sum().backward()
        made.step()
        states = [v for s in made.state.values() for v in s.values() if torch.is_tensor(v) and v.dim()]
        size = {
            "weights": count(model.parameters()),
            "gradients": count(p.grad for p in model.parameters() if p.grad is not None),
            "optimizer": count(states),
        }
        save_weights(model, tmp_path / "model.safetensors")
    assert {name: memory.on_device(phase)[name] for name in size} == pytest.approx(size)
    file = (tmp_path / "model.safetensors").stat().st_size  # with a header
    assert memory.state_on_disk(phase) - size["optimizer"] == pytest.approx(file, abs=8000)
    assert memory.in_host(phase) == shape.parameters * memory.BYTES[precision]  # the weights as they were


def saved(model, lora, precision, checkpointing):
    """Bytes that a loss keeps for its backward pass, but for autocast's copies of frozen weights."""
    with adapted(model, lora.rank, lora.alpha, None, 0):
        cast(model, precision)
        model.train()
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        known, held = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}

        def pack(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in known:
                held[storage.data_ptr()] = storage
            return tensor

        batch = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS), "labels": IDS}
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16_mixed")
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), autocast:
            plain_loss(model, batch)
        cast_again = [m.weight for m in model.modules() if type(m) is Linear]
    if checkpointing:
        cast_again = [model.lm_head.weight]
    casts = sum(weight.numel() for weight in cast_again) * memory.AUTOCAST if precision == "bf16_mixed" else 0
    return sum(storage.nbytes() for storage in held.values()) - casts


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "bf16_mixed"])
def test_activations_are_what_a_real_forward_pass_keeps(precision, checkpointing, monkeypatch):
    monkeypatch.setenv("RTT_GRADIENT_CHECKPOINTING", str(int(checkpointing)))
    lora, shape = LoRA(rank=8), Shape(0, 4, 128, 448, 64)
    found = saved(llama(128, 448, 4, 4, 4), lora, precision, checkpointing)
    told = IDS.numel() * memory.saved_activations(shape, precision, 4, True, checkpointing, lora)
    assert 0.95 < told / found < 1.1, told / found


# --- a study


def on_24_gb(**changes) -> Study:
    """Return the paper's study of Years with GD and RTT by adapters, for one GPU of 24 GB."""
    raw = load_study(ROOT / "config/paper.yaml").model_dump(mode="json", exclude_unset=True)
    low = {"precision": "bf16", "optimizer": "adamw", "learning_rate": 1e-4}
    gd = {**raw["methods"]["GD"], **low, "lora": {"rank": 16}}
    rtt = {key: raw["attacks"]["RTT"][key] for key in ("epochs", "batch_size", "warmup_steps", "loss", "v_splits")}
    rtt |= {"learning_rates": [1e-4], "precision": "bf16", "rank": 16, "score_epochs": None}
    raw |= {
        "tasks": raw["tasks"][:1], "teaching": None, "variants": {}, "methods": {"GD": gd},
        "attacks": {"RTT_LoRA": rtt}, "micro_batch": 1, "gradient_checkpointing": True,
    }  # fmt: skip
    return Study.model_validate_json(json.dumps(raw | changes))


def test_unlearning_and_rtt_of_an_8b_model_fit_24_gb_with_adapters(tmp_path):
    plan = Plan(on_24_gb(), RTX4090, MFU, tmp_path)
    assert set(plan.stages) >= {"unlearn", "attack"}
    assert set(plan.phases) == {"unlearning (GD)", "RTT, LoRA"}
    for phase in plan.phases.values():
        found = plan.memory(phase)
        assert found["bytes"]["weights"] == 2 * 8_030_261_248 + 4 * 41_943_040
        assert found["needed"] < RTX4090.memory, (phase.stage, found["needed"])
        assert found["state"] == 3 * 4 * 41_943_040  # adapters and AdamW's states, no weights
    whole = on_24_gb(methods={"GD": on_24_gb().methods.GD.model_dump(mode="json") | {"lora": None}})
    other = Plan(whole, RTX4090, MFU, tmp_path)
    assert other.memory(_phase(other, "unlearning (GD)"))["needed"] > 2 * RTX4090.memory
    # Five points on disk, and the optimizer's traffic: adapters against weights
    assert plan.disk()["largest_group"] == 5 * 4 * 41_943_040
    assert other.disk()["largest_group"] == 5 * 2 * 8_030_261_248
    ratio = other.stages["unlearn"].optimizer_hours / plan.stages["unlearn"].optimizer_hours
    assert ratio == pytest.approx(2 * 8_030_261_248 / (4 * 41_943_040))


def _phase(plan, stage):
    _ = plan.stages
    return plan.phases[stage]


def test_the_first_way_that_fits_is_taken(tmp_path):
    plan = Plan(load_study(ROOT / "config/paper.yaml"), DEVICES["h100"], MFU, tmp_path)
    gd = replace(_phase(plan, "unlearning (GD)"), lora=LoRA())
    rows = planned.fits([gd])
    assert [row["memory"] for row in rows] == list(planned.DEVICES)
    changed = replace(
        gd, settings=gd.settings.model_copy(update=planned.TRAINED),
        part=planned.with_adapters(gd.part, gd.shape, LoRA()),
    )  # fmt: skip
    ways = {name: Launch(1, micro_batch=most, checkpointing=again) for name, again, most in planned.WAYS}
    sizes = {name: memory.needed(memory.on_device(changed, launch)) for name, launch in ways.items()}
    for row in rows:
        enough = [name for name, size in sizes.items() if size <= row["memory"]]
        assert row["setting"] == enough[0] and row["bytes"] == sizes[enough[0]]
    assert len({row["setting"] for row in rows}) > 1
    assert planned.fits([_phase(plan, "teaching (taught)")]) == []


def test_the_plan_prints_what_fits_with_adapters(tmp_path):
    from rtt.planner import text
    from rtt.planner.plan import make

    told = text.show(make(load_study(ROOT / "config/paper.yaml"), DEVICES["h100"], root=tmp_path), "paper")
    assert "bf16, adamw, LoRA" in told and "1 x 24 GB" in told
    assert "LoRA" not in text.show(make(tiny.study(methods={}, attacks={}), DEVICES["h100"], root=tmp_path), "tiny")

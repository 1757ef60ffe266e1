"""Memory of a job: against real tensors (parameters, gradients, optimizers, saved activations), and by hand."""

import copy
import weakref
from contextlib import nullcontext
from dataclasses import replace

import pytest
import tiny
import torch
from rtt.planner import memory
from rtt.planner.costs import Part
from rtt.planner.memory import Launch, Phase, Shape
from rtt.study.deepspeed import Engine, engine_of
from rtt.study.model_file import load_modelfile
from rtt.study.settings import Model, Training
from rtt.training import kahan, losses
from rtt.training.collate import collate
from rtt.training.losses import plain_loss
from rtt.training.packing import pack
from rtt.training.train import cast, make_optimizer
from torch.nn import Linear
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig, LlamaForCausalLM

N = 8_030_261_248
SHAPE = Model(hidden_size=32, intermediate_size=48, layers=8, heads=2)
LLAMA = Shape(N, 32, 4096, 14336, 128256)
GB = 1e9


def settings(**changes) -> Training:
    return Training(**({"learning_rate": 1e-3, "batch_size": 4} | changes))


def phase(shape=LLAMA, longest=100.0, **changes) -> Phase:
    more = {name: changes.pop(name) for name in ("part", "graphs", "head", "restored") if name in changes}
    return Phase("RTT", settings(**changes), shape, longest, **more)


# --- real tensors


class LiveBytes(TorchDispatchMode):
    """Count the bytes of the tensors that operations make, as long as they are there: `most` at once."""

    def __init__(self):
        super().__init__()
        self.now = self.most = 0
        self.seen = set()

    def gone(self, size):
        self.now -= size

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        new = [one for one in tree_leaves(out) if torch.is_tensor(one) and one._base is None]
        given = {one.untyped_storage()._cdata for one in tree_leaves(args) if torch.is_tensor(one)}
        for one in new:
            storage = one.untyped_storage()
            if storage._cdata not in given:
                self.now += storage.nbytes()
                weakref.finalize(storage, self.gone, storage.nbytes())
        self.most = max(self.most, self.now)
        return out


KINDS = [("adamw", "fp32"), ("adamw", "bf16"), ("lion", "fp16"), ("adamw", "bf16_kahan"), ("lion", "bf16_kahan")]


@pytest.mark.parametrize(("optimizer", "precision"), KINDS)
@pytest.mark.parametrize("layers", [None, [1]])
def test_memory_is_what_a_real_step_leaves(optimizer, precision, layers):
    model = tiny.model()
    trained = settings(optimizer=optimizer, precision=precision, train_layers=layers)
    # `part_of` spreads parameters evenly over the layers; here the share is exact, so that the bytes can be too.
    frozen = [p for name, p in model.named_parameters() if layers and ".layers.1." not in name]
    for parameter in frozen:
        parameter.requires_grad_(False)
    cast(model, precision)
    made, n = make_optimizer(model, trained), sum(p.numel() for p in model.parameters())
    model(torch.tensor([[3, 4, 5]])).logits.sum().backward()
    made.step()

    def count(tensors):
        return sum(t.numel() * t.element_size() for t in tensors)

    states = [v for s in made.state.values() for v in s.values() if torch.is_tensor(v) and v.dim()]
    size = {
        "weights": count(model.parameters()),
        "gradients": count(p.grad for p in model.parameters() if p.grad is not None),
        "optimizer": count(states),
    }
    part = Part(trained=1 - sum(p.numel() for p in frozen) / n)
    found = Phase("RTT", trained, memory.shape_of(tiny.SHAPE), 3.0, part)
    assert {name: memory.on_device(found)[name] for name in size} == pytest.approx(size)
    assert memory.state_on_disk(found) == pytest.approx(size["weights"] + size["optimizer"])


def saved(precision: str, shape: Shape, rows: int, length: int, checkpointing: bool) -> int:
    """Bytes that a real Llama's loss keeps for its backward pass: each storage once, parameters left out."""
    heads = shape.hidden // 32
    made = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.mlp,
            num_hidden_layers=shape.layers, num_attention_heads=heads, num_key_value_heads=heads,
            attn_implementation="sdpa",
        )
    )  # fmt: skip
    cast(made, precision)
    made.train()
    if checkpointing:
        made.activation_checkpointing_enable({"use_reentrant": False})
    known = {p.untyped_storage().data_ptr() for p in made.parameters()}
    held: dict[int, torch.UntypedStorage] = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            held[storage.data_ptr()] = storage  # kept alive: no address comes back
        return tensor

    ids = torch.randint(3, shape.vocabulary, (rows, length))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16_mixed")
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), autocast:
        plain_loss(made, batch)
    # autocast's copies are counted apart: of what is multiplied, or, where layers run again, of the output matrix
    cast_once = [made.lm_head.weight] if checkpointing else [m.weight for m in made.modules() if type(m) is Linear]
    casts = sum(p.numel() for p in cast_once) * memory.AUTOCAST if precision == "bf16_mixed" else 0
    return sum(s.nbytes() for s in held.values()) - casts


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "bf16_mixed"])
def test_activations_are_what_a_real_forward_pass_keeps(precision, checkpointing, monkeypatch):
    monkeypatch.setenv("RTT_GRADIENT_CHECKPOINTING", str(int(checkpointing)))
    rows, length = 3, 64
    for shape in (Shape(0, 4, 128, 448, 64), Shape(0, 2, 64, 128, 2000)):  # layers weigh most; logits do
        found = saved(precision, shape, rows, length, checkpointing)
        told = rows * length * memory.saved_activations(shape, precision, shape.layers, True, checkpointing)
        assert 0.95 < told / found < 1.1, told / found


@pytest.mark.parametrize("way", ["one row", "rows", "packed", "NPO"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_logits_take_what_a_real_backward_pass_makes(precision, checkpointing, way, monkeypatch):
    """Two graphs of a model whose logits weigh far more than all else, which is counted while they are there."""
    monkeypatch.setenv("RTT_GRADIENT_CHECKPOINTING", str(int(checkpointing)))
    shape, length, rows = Shape(0, 1, 32, 64, 5000), 96, 1 if way == "one row" else 8
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=shape.vocabulary, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
            num_attention_heads=1,
        )
    )  # fmt: skip
    cast(model, precision)
    texts = [torch.randint(3, shape.vocabulary, (rows, length)).tolist() for _ in range(2)]
    texts = [[{"input_ids": ids, "labels": ids} for ids in side] for side in texts]
    forget, retain = (pack(side, 0, 10**6) if way == "packed" else collate(side, 0) for side in texts)
    reference = copy.deepcopy(model)
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    with LiveBytes() as live:
        before = 0.0
        if way == "NPO":
            with torch.no_grad():
                before = plain_loss(reference, forget)["loss"]
        (plain_loss(model, forget)["loss"] - before + plain_loss(model, retain)["loss"]).backward()
    training = settings(precision=precision, batch_size=rows)
    two = Phase("unlearning (GD)", training, shape, float(length), graphs=2)
    told = memory.activations(two, Launch(checkpointing=checkpointing))
    assert 0.95 < told / live.most < 1.35  # mostly too much, by up to one copy of the logits


def test_the_chunk_of_recomputed_log_probabilities_is_that_of_the_code():
    """The planner imports no torch, so it repeats the constant."""
    assert memory.CHUNK == losses.CHUNK


# --- by hand


def test_a_model_s_shape_gives_its_parameters():
    made = tiny.model()
    shape = memory.shape_of(tiny.SHAPE)
    assert shape == Shape(sum(p.numel() for p in made.parameters()), 2, 16, 24, made.config.vocab_size)
    for name in memory.SHAPES:
        found = memory.shape_of(load_modelfile(name))
        assert found.known
        # embeddings, output matrix where it is its own, MLPs: all but attention, which is 1 to 4 hidden^2 a layer
        matrices = found.parameters - 3 * found.layers * found.hidden * found.mlp
        tied = name.startswith(("qwen", "smollm2"))
        attention = matrices - (1 if tied else 2) * found.vocabulary * found.hidden
        assert 2 < attention / found.layers / found.hidden**2 < 4
    assert not memory.shape_of(load_modelfile("llama-3-8b").model_copy(update={"name": "mine"})).known


@pytest.mark.parametrize(
    ("batch", "devices", "micro", "rows"),
    [(4, 1, None, 4), (4, 2, None, 2), (5, 2, None, 3), (8, 1, 3, 2), (10, 1, 4, 2), (10, 1, 9, 5), (4, 8, None, 1)],
)
def test_rows_of_a_forward_pass(batch, devices, micro, rows):
    assert Launch(devices, micro_batch=micro).rows(batch) == rows


def test_zero_divides_what_its_stage_divides():
    found = {
        stage: memory.on_device(phase(optimizer="adamw"), Launch(4, Engine(stage, bucket=0, gathered=0)))
        for stage in (0, 1, 2, 3)
    }
    whole = {"weights": 4 * N, "gradients": 4 * N, "optimizer": 8 * N}
    for stage, divided in ((0, ""), (1, "optimizer"), (2, "gradients optimizer"), (3, "weights gradients optimizer")):
        for kind, size in whole.items():
            assert found[stage][kind] == size / (4 if kind in divided.split() else 1), (stage, kind)
    # DistributedDataParallel's buckets; the optimizer's flat copy of its partition; the gathered layer and its gradient
    output = 128256 * 4096 * 4
    assert [found[stage]["engine"] for stage in (0, 1, 2, 3)] == [4 * N, N, N, 2 * output]


def test_bf16_mixed_under_zero_has_an_fp32_partition_and_bf16_a_bf16_one():
    for precision, size in (("bf16_mixed", 4), ("bf16", 2)):
        found = memory.on_device(phase(precision=precision), Launch(2, Engine(2, bucket=0)))
        assert found["engine"] == size * N / 2
    mixed = phase(precision="bf16_mixed")
    assert memory.on_device(mixed, Launch(2, Engine(2)))["autocast"] == 2 * N
    assert memory.on_device(mixed, Launch(2, Engine(3)))["autocast"] == 2 * 128256 * 4096


def test_offload_moves_the_optimizer_to_the_host():
    lion = phase(optimizer="lion", precision="bf16_mixed", restored=True)
    found = memory.on_device(lion, Launch(8, Engine(3, offload=True)))
    assert (found["optimizer"], found["gradients"], found["weights"]) == (0, 0, 4 * N / 8)
    launch = Launch(8, Engine(3, offload=True))
    # The model and RTT's starting weights in each of 8; master weights, gradients twice, one state
    assert memory.in_host(lion, launch) == 2 * 8 * 4 * N + 4 * 4 * N
    on_two = replace(launch, devices=16, nodes=2)  # of each: its own processes, and half of what is shared
    assert memory.in_host(lion, on_two) == 2 * 8 * 4 * N + 4 * 4 * N / 2
    assert memory.in_host(lion, Launch(8, Engine(2))) == 8 * 4 * N
    assert memory.in_host(phase(precision="bf16"), Launch(2)) == 2 * 2 * N


def test_the_step_s_temporary_tensors_count_where_they_exceed_activations():
    short, long = phase(longest=1.0), phase(longest=4000.0)
    assert memory.on_device(short)["work"] == 4 * N  # AdamW's foreach
    assert memory.on_device(long)["work"] == memory.activations(long, Launch()) > 4 * N
    # flat gradients and AdamW's one, Lion's two of them: of a partition, of a sub-group of it
    for optimizer, times in (("adamw", 2), ("lion", 3)):
        one = phase(longest=1.0, optimizer=optimizer)
        assert memory.on_device(one, Launch(2, Engine(2)))["work"] == times * 4 * N / 2
        assert memory.on_device(one, Launch(2, Engine(3, sub_group=1e9)))["work"] == times * 4e9
    # gradients of the logits stand beside what two forward passes keep
    kept = memory.saved_activations(LLAMA, "fp32", 32, True)
    two = Phase("unlearning (GD)", settings(), LLAMA, 100.0, graphs=2)
    assert memory.activations(two, Launch()) == 400 * (2 * kept + 12 * 128256)


def test_rmu_s_frozen_copy_is_on_every_device_and_has_no_logits():
    part = Part(8 / 32, 3 / 32, 3 / 128, 8 / 32)
    rmu = Phase("unlearning (RMU)", settings(), LLAMA, 100.0, part, graphs=2, head=False)
    for w, stage in ((1, 0), (4, 3)):
        assert memory.on_device(rmu, Launch(w, Engine(stage)))["weights"] == 4 * N / w + N
    assert memory.activations(rmu, Launch()) == 2 * 400 * 3 * memory.layer_activations(LLAMA, "fp32")


def test_state_has_the_partition_s_copy_under_zero_1_and_2():
    lion = phase(optimizer="lion", precision="bf16")
    sizes = [memory.state_on_disk(lion, Launch(2, Engine(stage))) / 2 / N for stage in (0, 1, 2, 3)]
    assert sizes == [2, 3, 3, 2]


# --- what fits where


def test_the_first_setting_that_fits_is_taken_and_a_smaller_one_does_not():
    phases = [phase(longest=400.0, restored=True)]
    for row in memory.fits(phases):
        tried = memory.choices(row["devices"], row["precision"])
        keys = ("precision", "optimizer", "gradient_release")
        changed = phases[0].settings.model_copy(update={key: row[key] for key in keys})
        sizes = {
            name: memory.needed(
                memory.on_device(
                    Phase("RTT", changed, LLAMA, 400.0, restored=True),
                    Launch(row["devices"], engine_of(deepspeed, 4096), None, checkpointing),
                )
            )
            for name, deepspeed, checkpointing in tried
        }
        enough = [name for name, _, _ in tried if sizes[name] <= row["memory"]]
        assert row["setting"] == (enough[0] if enough else None)
        assert not enough or row["bytes"] == sizes[enough[0]]
        assert row["bytes"] <= row["memory"] if enough else "bytes" not in row


def test_8b_in_bf16_with_lion_fits_one_device_of_80_gb():
    keys = ("precision", "optimizer", "gradient_release", "devices", "memory")
    found = {tuple(row[key] for key in keys): row for row in memory.fits([phase(longest=400.0)])}
    one = found["bf16", "lion", False, 1, 80e9]
    assert one["setting"].startswith("none") and one["bytes"] > 1.05 * 3 * 2 * N
    assert found["bf16_mixed", "adamw", False, 1, 80e9]["setting"].startswith("zero3-offload")


def largest_at_work(release: bool) -> int:
    """Return the most bytes of weights' gradients that are there at once in a step of a real Llama with two graphs."""
    model = tiny.model(shape=SHAPE)
    cast(model, "bf16")
    made = make_optimizer(model, settings(optimizer="lion", precision="bf16_kahan"))
    sizes = {m.weight: 2 * m.weight.numel() for m in model.modules() if type(m) is Linear}
    there, most = set(), [0]

    def ready(weight):
        there.add(weight)
        most.append(sum(sizes[one] for one in there))

    def watched(module, given, output):
        output.grad_fn.register_hook(lambda *_: ready(module.weight))

    for module in model.modules():
        if type(module) is Linear:
            module.register_forward_hook(watched)
    with made.released(model) if release else nullcontext():
        for parameter in model.parameters() if release else ():
            parameter.register_post_accumulate_grad_hook(there.discard)
        forget, retain = (model(torch.tensor([ids])).logits.float().log_softmax(-1) for ids in ([3, 4, 5], [6, 7]))
        (retain[..., 9].mean() - forget[..., 8].mean()).backward()
    return max(most)


def test_released_gradients_are_never_more_than_a_layer_s():
    """Two graphs, as in unlearning: autograd alone would go through the whole of one before the other."""
    linear = sum(2 * m.weight.numel() for m in tiny.model(shape=SHAPE).modules() if type(m) is Linear)
    assert largest_at_work(release=False) == linear
    shape = memory.shape_of(SHAPE)
    assert 0 < largest_at_work(release=True) <= 2 * shape.largest < linear / 4
    lion = phase(optimizer="lion", precision="bf16_kahan", gradient_release=True, max_grad_norm=None)
    assert memory.on_device(lion)["gradients"] == 2 * 128256 * 4096
    slices = 4 * memory.SLICES * memory.SLICE
    assert memory.on_device(lion)["work"] == memory.activations(lion, Launch()) + slices


def test_the_slices_of_bf16_kahan_are_those_of_its_code():
    """The planner imports no torch, so it repeats the constant; the allocations of one slice are counted."""
    assert memory.SLICE == kahan.SLICE
    for kind in (kahan.KahanLion, kahan.KahanAdamW):
        weight = torch.nn.Parameter(torch.ones(1000, dtype=torch.bfloat16))
        made, weight.grad = kind([weight], 1e-3, (0.9, 0.99), 0.1), torch.ones_like(weight)
        with LiveBytes() as live:
            made.step()
        assert live.most <= 4 * memory.SLICES * 1000 < 2 * live.most


def test_a_model_that_no_node_holds_has_rows_of_several_nodes():
    large = memory.shape_of(load_modelfile("llama-3-70b"))
    many = replace(phase(longest=100.0, precision="bf16_mixed", optimizer="adamw"), shape=large)
    found = [row for row in memory.fits([many]) if (row["precision"], row["optimizer"]) == ("bf16_mixed", "adamw")]
    fit = {(row["nodes"], row["devices"], row["memory"]): row["setting"] for row in found}
    assert fit[1, 8, 80e9] == fit[2, 16, 80e9] == "zero3-offload" and fit[4, 32, 80e9] == "zero3"
    at_least = 70_553_706_496 * 4 * 4 / 32  # weights, gradients and two states of AdamW in fp32, an equal part of each
    row = next(row for row in found if row["devices"] == 32)
    assert at_least < row["bytes"] < 80e9
    assert row["host"] == 8 * 4 * 70_553_706_496  # each process of a node has a copy in fp32
    assert {row["nodes"] for row in memory.fits([phase(longest=400.0)])} == {1}


def test_a_model_of_any_shape_has_one():
    assert memory.shape_of(Model()).largest > 0


def test_a_plan_of_one_device_and_of_many(tmp_path):
    from rtt.planner import text as plan_text
    from rtt.planner.gpus import DEVICES
    from rtt.planner.plan import make

    made = make(tiny.study(), DEVICES["h100"], root=tmp_path)
    told = plan_text.show(made, "tiny")
    assert "(one device, no DeepSpeed)" in told and "Everything, without DeepSpeed" in told
    made["launch"] |= {"devices": 4, "checkpointing": True, "micro_batch": 2}
    made["launch"]["engine"] |= {"stage": 3, "offload": True}
    assert "(4 devices, ZeRO-3 with offload, micro batches of 2, gradient checkpointing)" in plan_text.show(
        made, "tiny"
    )

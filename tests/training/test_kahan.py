"""bf16_kahan follows fp32 where bf16 stands still; gradient release gives its bytes, and refuses what it cannot do."""

import copy
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from lion_pytorch import Lion
from rtt.attacks.rtt_lora import RTTLoRA
from rtt.errors import UserError
from rtt.study.deepspeed import not_released, not_under_deepspeed
from rtt.study.expand import Runs
from rtt.study.settings import UNCLIPPED, Training, Unlearning
from rtt.training import health, kahan
from rtt.training.kahan import KahanAdamW, KahanLion, joined, take_apart
from rtt.training.losses import plain_loss
from rtt.training.train import train
from torch._dynamo.utils import counters
from torch.optim import AdamW
from torch.utils.serialization import config

RELEASED = {"precision": "bf16_kahan", "gradient_release": True, "max_grad_norm": None}


def halves(numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the two halves of fp32 numbers."""
    upper, remainder = (torch.empty(numbers.shape, dtype=dtype) for dtype in (torch.bfloat16, torch.int16))
    take_apart(numbers.clone(), upper, remainder)
    return upper, remainder


def test_two_halves_are_an_fp32_number_to_the_bit():
    bits = np.random.default_rng(0).integers(0, 2**32, 200_000, dtype=np.uint32)
    numbers = torch.from_numpy(bits.view(np.float32)[np.isfinite(bits.view(np.float32))].copy())
    numbers = torch.cat([numbers, torch.tensor([0.0, -0.0, float("inf"), -float("inf"), 1e-45, 1.00390625])])
    upper, remainder = halves(numbers)
    assert torch.equal(joined(upper, remainder).view(torch.int32), numbers.view(torch.int32))
    # torch rounds halves to even numbers: 1.00390625 lies in the middle of two neighbours
    assert int((upper.view(torch.int16) != numbers.bfloat16().view(torch.int16)).sum()) <= 10
    assert bool(halves(torch.tensor([float("nan")]))[0].isnan())


def path(make, dtype, gradient) -> torch.Tensor:
    """Return how far weights moved in 300 steps, as fp32, by an optimizer that is given bf16 gradients."""
    draw = torch.Generator().manual_seed(0)
    start = (0.02 * torch.randn(20_000, generator=draw)).bfloat16()
    weight, drift = torch.nn.Parameter(start.to(dtype, copy=True)), 0.1 * torch.randn(20_000, generator=draw)
    optimizer = make([weight])
    for step in range(300):
        noise = torch.randn(20_000, generator=draw)
        weight.grad = (gradient * (drift + noise) * 0.99**step).bfloat16().to(dtype)
        optimizer.step()
    kept = optimizer.state[weight].get("remainder")
    return (weight.detach().float() if kept is None else joined(weight.detach(), kept)) - start.float()


def away(make, theirs, gradient) -> float:
    """Return how far the path of bf16 weights is from that of `theirs` in fp32, relative to its length."""
    expected = path(theirs, torch.float32, gradient)
    return float((path(make, torch.bfloat16, gradient) - expected).norm() / expected.norm())


LION, ADAMW = (0.9, 0.99), (0.9, 0.999)


OPTIMIZERS = [  # ours, the one whose fp32 path it takes, betas, the paper's smallest rate or one alike
    pytest.param(KahanLion, Lion, LION, 1e-7, id="lion"),
    pytest.param(KahanAdamW, AdamW, ADAMW, 1e-5, id="adamw"),
]


@pytest.mark.parametrize(("ours", "theirs", "betas", "rate"), OPTIMIZERS)
@pytest.mark.parametrize("decays", ["rate", "decay", "both"])
def test_weights_take_the_path_of_fp32_to_the_bit_where_bf16_stands_still(ours, theirs, betas, rate, decays):
    """Also by weight decay alone, which torch-optimi's Kahan summation loses."""
    rate, decay = (rate, 0.0) if decays == "rate" else (1e-3, 0.01)
    gradient = 0.0 if decays == "decay" else 1.0

    def made(kind):
        return lambda weights: kind(weights, rate, betas, weight_decay=decay)

    expected = path(made(theirs), torch.float32, gradient)
    assert torch.equal(path(made(ours), torch.bfloat16, gradient), expected)
    if decays != "both":
        assert away(made(theirs), made(theirs), gradient) > 0.5


def test_lion_takes_the_sign_of_lion_pytorch_where_rounding_alone_decides_it():
    gradient = torch.randn(20_000, generator=torch.Generator().manual_seed(0)).bfloat16()
    average = gradient.float() / -9  # .9 of it and .1 of the gradient cancel
    exact, weight = (torch.nn.Parameter(torch.ones(20_000, dtype=dtype)) for dtype in (torch.float32, torch.bfloat16))
    theirs, ours = Lion([exact], 1e-3, LION), KahanLion([weight], 1e-3, LION, 0.0)
    theirs.state[exact]["exp_avg"] = average.clone()
    take_apart(average, *(ours.state[weight][name] for name in ("exp_avg", "exp_avg_remainder")))
    exact.grad, weight.grad = gradient.float(), gradient
    theirs.step(), ours.step()
    assert torch.equal(joined(weight.detach(), ours.state[weight]["remainder"]), exact.detach())
    assert len(exact.unique()) == 3  # both signs, and none


class RoundedAverages:
    """An optimizer whose averages of gradients are rounded to bf16."""

    def update(self, parameter):
        super().update(parameter)
        for name in self.averages:
            self.state[parameter][f"{name}_remainder"].zero_()


class RoundedLion(RoundedAverages, KahanLion):
    pass


class RoundedAdamW(RoundedAverages, KahanAdamW):
    pass


def test_less_than_two_whole_halves_would_lose_the_path(monkeypatch):
    def lion(weights):
        return Lion(weights, 1e-7, LION)

    def adamw(weights):
        return AdamW(weights, 1e-5, ADAMW, weight_decay=0.0)

    assert away(lambda p: RoundedLion(p, 1e-7, LION, 0.0), lion, 1.0) > 0.005
    assert away(lambda p: RoundedAdamW(p, 1e-5, ADAMW, 0.0), adamw, 1.0) > 0.005

    def coarse(exact, upper, remainder):
        """Keep what rounding drops as Kahan's summation in bf16 does."""
        upper.copy_(exact)
        rest = (exact - upper.float()).bfloat16()
        take_apart(upper.float().add_(rest), upper, remainder)

    monkeypatch.setattr(kahan, "take_apart", coarse)
    assert away(lambda p: KahanLion(p, 1e-7, LION, 0.0), lion, 1.0) > 0.08


def test_slices_of_a_tensor_are_updated_as_the_whole(monkeypatch):
    def stepped(make):
        torch.manual_seed(0)
        weights = [torch.nn.Parameter(torch.randn(shape).bfloat16()) for shape in ((7, 5), (3, 2, 4), (9,), ())]
        weights.append(torch.nn.Parameter(torch.randn(4, 6).bfloat16().T))  # not contiguous
        optimizer = make(weights, 1e-3, ADAMW, 0.1)
        for _ in range(3):
            for weight in weights:
                weight.grad = torch.randn(weight.shape).bfloat16()
            optimizer.step()
        kept = (tensor for weight in weights for name, tensor in optimizer.state[weight].items() if name != "step")
        return [*weights, *kept]

    for make in (KahanLion, KahanAdamW):
        whole = stepped(make)
        with monkeypatch.context() as patch:
            patch.setattr(kahan, "SLICE", 6)
            assert all(torch.equal(a, b) for a, b in zip(whole, stepped(make), strict=True))


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles by g++ on a CPU")
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch's own import
@pytest.mark.parametrize("ours", [KahanLion, KahanAdamW])
def test_a_compiled_update_differs_in_last_bits_alone_and_is_compiled_once(ours, monkeypatch):
    def stepped(compiled):
        monkeypatch.setenv("RTT_COMPILE_UPDATE", compiled)
        torch.manual_seed(0)
        weights = [torch.nn.Parameter(0.02 * torch.randn(shape).bfloat16()) for shape in ((70, 50), (30, 9), (64,))]
        optimizer, before = (
            ours(weights, 1e-3, ADAMW, 0.1),
            torch.cat([weight.detach().flatten() for weight in weights]),
        )
        for step in range(1, 9):
            optimizer.param_groups[0]["lr"] = 1e-3 / step
            for weight in weights:
                weight.grad = torch.randn(weight.shape).bfloat16()
            optimizer.step()
        kept = [joined(weight.detach(), optimizer.state[weight]["remainder"]).flatten() for weight in weights]
        return torch.cat([before, torch.cat(kept)]).view(2, -1), optimizer

    torch._dynamo.reset(), counters.clear()
    (eager, plain), (found, fused) = stepped("0"), stepped("1")
    assert plain.compiled is None and fused.compiled
    assert float((found - eager).abs().max()) < 1e-7 and float((eager[1] - eager[0]).abs().mean()) > 1e-4
    # once for matrices and once for vectors, whatever their shapes, the rate and the step
    assert counters["stats"]["unique_graphs"] == 2


def items(steps, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return [tiny.plain([], torch.randint(2, 90, (3 + i % 4,), generator=draw).tolist()) for i in range(4 * steps)]


def settings(**more) -> Training:
    base = {"learning_rate": 1e-4, "batch_size": 4, "optimizer": "lion", "warmup_steps": 3, "decay": 0.5}
    return Training(**base | more)


def trained(rows, objective=plain_loss, model=None, **more):
    """Return (the losses, the model) of a training of a tiny model."""
    model = model or tiny.model(scale=4).bfloat16()
    return train(model, tiny.tokenizer(), rows, objective, settings(**more), 0), model


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_the_training_follows_fp32():
    rows = items(1) * 60
    exact, near, far = (trained(rows, precision=kind)[0] for kind in ("fp32", "bf16_kahan", "bf16"))
    last = exact[-1]["loss"]
    assert exact[0]["loss"] - last > 0.1
    assert abs(near[-1]["loss"] - last) < 0.01 < 0.05 < abs(far[-1]["loss"] - last)
    shares = [health.effective_update(losses) for losses in (exact, near, far)]
    assert shares[0] > 0.9 and shares[1] > 0.9 and shares[2] < 0.5


@pytest.mark.parametrize("optimizer", ["lion", "adamw"])
def test_released_gradients_give_the_same_bytes(optimizer):
    rows = items(12)
    (plain, a), (released, b) = (
        trained(rows, optimizer=optimizer, **RELEASED | {"gradient_release": release}) for release in (False, True)
    )
    assert plain == released and same(a, b)
    # Nothing is left behind: a second training of the same model, and a backward pass after it, are like the first's.
    (again, a), (after, b) = trained(rows, model=a, **RELEASED), trained(rows, model=b, **RELEASED)
    assert again == after and same(a, b)
    before = [p.detach().clone() for p in a.parameters()]
    plain_loss(
        a, {"input_ids": torch.tensor([[3, 4]]), "attention_mask": torch.ones(1, 2), "labels": torch.tensor([[3, 4]])}
    )["loss"].backward()
    assert all(torch.equal(old, new) for old, new in zip(before, a.parameters(), strict=True))
    assert all(p.grad is not None for p in a.parameters()) and "forward" not in vars(a)


def test_pairs_and_recomputed_layers_are_released_as_they_are_applied(monkeypatch):
    """Two graphs of one backward pass; sums of a tied matrix's gradients may come in another order."""

    def objective(model, batch):
        forget, retain = (plain_loss(model, batch[side])["loss"] for side in ("forget", "retain"))
        return {"loss": 2 * retain - forget, "forget": forget, "retain": retain}

    rows = items(24)
    pairs = [{"forget": row, "retain": rows[-i]} for i, row in enumerate(rows)]
    plain, _ = trained(pairs, objective, precision="bf16_kahan", max_grad_norm=None)
    for recomputed in "01":
        monkeypatch.setenv("RTT_GRADIENT_CHECKPOINTING", recomputed)
        released, _ = trained(pairs, objective, **RELEASED)
        for one, other in zip(plain, released, strict=True):
            assert other == pytest.approx(one, abs=0.01)


def test_a_tied_matrix_is_updated_once_a_step(monkeypatch):
    updates, update = [], kahan.Kahan.update
    monkeypatch.setattr(kahan.Kahan, "update", lambda self, p: (updates.append(p), update(self, p))[1])
    _, model = trained(items(5), **RELEASED)
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert len(updates) == 5 * len(list(model.parameters()))
    assert all(sum(p is one for p in updates) == 5 for one in model.parameters())


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_released_gradient_that_is_not_finite_stops_the_training_before_its_step_ends(broken):
    steps, model = [], tiny.model(scale=4).bfloat16()
    model.model.norm.weight.register_hook(lambda gradient: gradient * (broken if len(steps) == 3 else 1.0))

    def objective(model, batch):
        steps.append(1)
        return plain_loss(model, batch)

    ended = []
    with pytest.raises(UserError, match=r"step 3 .*the gradient is not finite.*learning rate"):
        train(
            model, tiny.tokenizer(), items(9), objective, settings(**RELEASED), 0, range(1, 10),
            lambda step, _: ended.append(step),
        )  # fmt: skip
    assert ended == [1, 2]


def test_what_cannot_be_released_is_refused(monkeypatch):
    for more, says in (
        ({"precision": "bf16"}, "gradient_release with precision bf16: only"),
        ({"max_grad_norm": 1.0}, "gradient_release with max_grad_norm 1: the norm is known only"),
    ):
        with pytest.raises(ValueError, match=says):
            settings(**RELEASED | more)
    settings(**RELEASED | {"max_grad_norm": UNCLIPPED})
    adapters = {"learning_rate": 1.0, "batch_size": 1, "points": [1], "lora": {}}
    for kind, own in ((RTTLoRA.Settings, {}), (Unlearning, adapters)):
        with pytest.raises(ValueError, match="precision bf16_kahan with adapters"):
            kind(**own, precision="bf16_kahan")
    assert not_released(4, None, False) is None and not_released(4, 4, False) is None
    assert "a launcher" in not_released(4, None, True) and "micro batches of 2 of 4" in not_released(4, 2, False)
    assert "flat copies" in not_under_deepspeed("bf16_kahan", False)
    monkeypatch.setenv("RTT_MICRO_BATCH", "2")
    with pytest.raises(UserError, match="micro batches of 2 of 4 texts"):
        trained(items(2), **RELEASED)


def test_one_process_of_a_launcher_is_refused(monkeypatch):
    """accelerate wraps it for several, and hands `step` the gradients that were applied and dropped already."""
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(UserError, match="gradient_release under a launcher"):
        trained(items(2), **RELEASED)


@pytest.mark.parametrize("ours", [KahanLion, KahanAdamW])
def test_a_state_is_taken_over_without_a_second_one(ours):
    """On resume the device holds the weights and one state, and the next update is that of the run before."""
    weights, gradient = torch.randn(40).bfloat16(), torch.randn(40).bfloat16()

    def one():
        parameter = torch.nn.Parameter(weights.clone())
        return parameter, ours([parameter], 1e-3, (0.9, 0.99), 0.1)

    (before, first), (after, second) = one(), one()
    before.grad = gradient.clone()
    first.step()
    first.param_groups[0]["lr"] = 5e-4
    held = {name: tensor.data_ptr() for name, tensor in second.state[after].items() if name != "step"}
    after.data.copy_(before.data)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert held == {name: tensor.data_ptr() for name, tensor in second.state[after].items() if name != "step"}
    assert second.param_groups[0]["lr"] == 5e-4 and second.state[after]["step"] == 1
    before.grad, after.grad = gradient.clone(), gradient.clone()
    first.step(), second.step()
    assert torch.equal(before, after)
    for name in held:
        assert torch.equal(first.state[before][name], second.state[after][name]), name


def test_a_state_is_read_from_its_file_as_it_is_copied(tmp_path, monkeypatch):
    """At 8B the host would hold 48 GB more to resume."""
    monkeypatch.setenv("RTT_CHECKPOINT_MINUTES", "0")

    def run(model, at, action=lambda *_: None, state=None):
        return train(model, tiny.tokenizer(), items(6), plain_loss, settings(**RELEASED), 0, at, action, state=state)

    def stop(step, model):
        raise UserError("here")

    model, whole = (tiny.model(scale=4).bfloat16() for _ in range(2))
    losses = run(whole, [])
    with pytest.raises(UserError, match="here"):
        run(model, [4], stop, tmp_path)
    load, mapped = torch.load, {}

    def watched(path, *given, **more):
        mapped[Path(path).name] = config.load.mmap
        return load(path, *given, **more)

    monkeypatch.setattr(torch, "load", watched)
    assert run(model, [], state=tmp_path) == losses and same(model, whole)
    assert mapped == {"optimizer.pt": True, "scheduler.pt": True, "rng_state.pth": False}


@pytest.mark.parametrize("way", ["devices", "one", "micro_batch", "deepspeed", "method", "fine"])
def test_a_study_that_cannot_be_trained_so_is_refused_before_its_first_job(way, monkeypatch):
    from rtt.methods.gd import GD

    more = {
        "devices": {"launcher": "torchrun", "devices": 2}, "one": {"launcher": "torchrun"},
        "micro_batch": {"micro_batch": 3},
    }.get(way, {})  # fmt: skip
    phase = {"learning_rate": 1e-3, "batch_size": 4} | (RELEASED if way != "deepspeed" else {"precision": "bf16_kahan"})
    more |= {"launcher": "torchrun", "deepspeed": "zero2"} if way == "deepspeed" else {}
    study = tiny.study(methods={"GD": phase | {"points": [1]}}, **more)
    if way == "method":
        monkeypatch.setattr(GD, "needs_whole_gradient", "it scales a step by the norm of all gradients")
    says = {
        "devices": "gradient_release under a launcher", "one": "gradient_release under a launcher",
        "micro_batch": "micro batches of 3 of 4",
        "deepspeed": "deepspeed: zero2 for .*: precision bf16_kahan: ",
        "method": "methods.GD: gradient_release: it scales a step by the norm",
    }  # fmt: skip
    if way == "fine":
        assert Runs(study).unlearn
        return
    with pytest.raises(UserError, match=says[way]):
        Runs(study)

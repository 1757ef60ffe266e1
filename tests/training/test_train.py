"""The one training path against a plain torch loop on the same batches."""

import copy

import pytest
import tiny
import torch
from rtt.errors import UserError
from rtt.study.settings import Training
from rtt.training.batches import micro_batch
from rtt.training.losses import plain_loss
from rtt.training.train import cast, prepare_torch, train


def items(n, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [tiny.plain([], torch.randint(2, 90, (3 + i % 4,), generator=g).tolist()) for i in range(n)]


def settings(**more):
    base = {"learning_rate": 3e-3, "batch_size": 4, "warmup_steps": 5, "decay": 0.3, "weight_decay": 0.1}
    return Training(**base | {"adam_beta2": 0.95, "max_grad_norm": 0.5} | more)


def nats(model, rows):
    """Mean over texts of the mean over tokens, one text after the other."""
    total = 0
    for row in rows:
        ids = torch.tensor([row["input_ids"]])
        logprobs = model(ids).logits[0, :-1].log_softmax(-1)
        total = total - logprobs[torch.arange(ids.shape[1] - 1), ids[0, 1:]].mean()
    return total / len(rows)


def plain_loop(model, rows, s, steps):
    """AdamW with clipping and the schedule spelled out: step i of warm-up has i / warmup of the rate, the last `decay`
    of the steps fall in a straight line towards 0."""
    model.train()
    state = [(p, torch.zeros_like(p), torch.zeros_like(p)) for p in model.parameters()]
    decay, losses = round(s.decay * steps), []
    for step in range(steps):
        if step < s.warmup_steps:
            rate = s.learning_rate * step / s.warmup_steps
        else:
            rate = s.learning_rate * min(1.0, (steps - step) / max(1, decay))
        model.zero_grad()
        loss = nats(model, rows[step * s.batch_size : (step + 1) * s.batch_size])
        loss.backward()
        losses.append(loss.item())
        norm = sum(float(p.grad.double().pow(2).sum()) for p, _, _ in state) ** 0.5
        clip = min(1.0, s.max_grad_norm / (norm + 1e-6))
        with torch.no_grad():
            for p, m, v in state:
                g = p.grad * clip
                p.mul_(1 - rate * s.weight_decay)
                m.mul_(0.9).add_(g, alpha=0.1)
                v.mul_(s.adam_beta2).addcmul_(g, g, value=1 - s.adam_beta2)
                m_hat, v_hat = m / (1 - 0.9 ** (step + 1)), v / (1 - s.adam_beta2 ** (step + 1))
                p.sub_(rate * m_hat / (v_hat.sqrt() + 1e-8))
    return losses


@pytest.mark.parametrize(
    "more", [{}, {"max_grad_norm": 1e3, "warmup_steps": 0, "decay": 0.0, "weight_decay": 0.0}], ids=["all", "bare"]
)
def test_twenty_steps_equal_a_plain_loop(more):
    s, rows = settings(**more), items(80)
    ours, theirs = tiny.model(double=True, scale=4), tiny.model(double=True, scale=4)
    found = train(ours, tiny.tokenizer(), rows, plain_loss, s, seed=0)
    expected = plain_loop(theirs, rows, s, 20)
    assert [parts["loss"] for parts in found] == pytest.approx(expected, rel=1e-6)
    assert max(expected) - min(expected) > 0.1  # it learned: the rate matters
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-8), name


def test_frozen_weights_stay_as_they_are():
    model = tiny.model()
    model.get_input_embeddings().requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    train(model, tiny.tokenizer(), items(8), plain_loss, settings(warmup_steps=0), seed=0)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert "model.embed_tokens.weight" not in moved and "model.layers.0.mlp.up_proj.weight" in moved


def test_pairs_reach_the_objective_in_order():
    rows, seen = items(16), []

    def objective(model, batch):
        for side in ("forget", "retain"):
            for ids, mask in zip(batch[side]["input_ids"], batch[side]["attention_mask"], strict=True):
                seen.append((side, ids[mask.bool()].tolist()))
        return plain_loss(model, batch["retain"])

    both = [{"forget": rows[i], "retain": rows[15 - i]} for i in range(8)]
    train(tiny.model(), tiny.tokenizer(), both, objective, settings(), seed=7)
    expected = []
    for start in (0, 4):
        expected += [("forget", rows[i]["input_ids"]) for i in range(start, start + 4)]
        expected += [("retain", rows[15 - i]["input_ids"]) for i in range(start, start + 4)]
    assert seen == expected


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_and_names_the_step(value, capsys):
    calls = []

    def objective(model, batch):
        calls.append(1)
        loss = plain_loss(model, batch)["loss"]
        return {"loss": loss * value if len(calls) == 3 else loss}

    with pytest.raises(UserError, match=r"step 3\b.*(nan|inf).*learning rate"):
        train(tiny.model(), tiny.tokenizer(), items(40), objective, settings(), seed=0)
    assert len(calls) == 3


def test_a_learning_rate_that_breaks_the_loss_stops_the_training():
    with pytest.raises(UserError, match="training step"):
        train(tiny.model(), tiny.tokenizer(), items(80), plain_loss, settings(learning_rate=1e30), seed=0)


def test_items_that_do_not_fill_batches_are_refused():
    for n in (0, 7):
        with pytest.raises(ValueError, match="do not fill"):
            train(tiny.model(), tiny.tokenizer(), items(n), plain_loss, settings(), seed=0)


def test_an_action_sees_eval_mode_and_changes_nothing():
    calls, modes, trained = [], [], []

    def objective(model, batch):
        trained.append(model.training)
        return plain_loss(model, batch)

    def run(at):
        model = tiny.model()

        def action(step, _):
            calls.append(step)
            modes.append(model.training)
            with torch.no_grad():
                model(torch.tensor([[1, 2, 3]]))

        losses = train(model, tiny.tokenizer(), items(40), objective, settings(), 0, at, action)
        return losses, model.state_dict()

    (plain, a), (scored, b) = run(()), run((2, 5, 10))
    assert calls == [2, 5, 10] and modes == [False] * 3
    assert trained == [True] * 20
    assert plain == scored
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_an_action_sees_the_weights_after_its_step():
    seen = {}
    model = tiny.model()

    def action(step, _):
        seen[step] = model.model.norm.weight.detach().clone()

    train(model, tiny.tokenizer(), items(12), plain_loss, settings(warmup_steps=0), 0, (1, 2, 3), action)
    assert not torch.equal(seen[1], torch.ones(16)) and not torch.equal(seen[1], seen[2])
    assert torch.equal(seen[3], model.model.norm.weight)


def test_a_seed_decides_every_bit():
    def run(seed):
        prepare_torch(seed)
        model = tiny.miniature(tiny.SHAPE, len(tiny.tokenizer()))
        return train(model, tiny.tokenizer(), items(40), plain_loss, settings(), seed), model.state_dict()

    try:
        (one, a), (two, b), (other, _) = run(0), run(0), run(1)
    finally:
        torch.use_deterministic_algorithms(False)
    assert one == two and all(torch.equal(a[name], b[name]) for name in a)
    assert one != other  # another seed has other initial weights


def test_the_order_of_items_does_not_depend_on_the_seed():
    """The order is the spec's: with given weights another seed changes nothing."""
    runs = [train(tiny.model(), tiny.tokenizer(), items(40), plain_loss, settings(), seed) for seed in (0, 1)]
    assert runs[0] == runs[1]


def test_lion_follows_its_published_algorithm():
    """Chen et al. 2023, algorithm 2, in float64: the sign of an average, decoupled weight decay."""
    s = settings(optimizer="lion", warmup_steps=0, decay=0.0, learning_rate=1e-3, max_grad_norm=1e3)
    rows, model, reference = items(32), tiny.model(double=True, scale=4), tiny.model(double=True, scale=4)
    found = train(model, tiny.tokenizer(), rows, plain_loss, s, seed=0)
    momenta, losses = [torch.zeros_like(p) for p in reference.parameters()], []
    for step in range(8):
        reference.zero_grad()
        loss = nats(reference, rows[4 * step : 4 * step + 4])
        loss.backward()
        losses.append(loss.item())
        with torch.no_grad():
            for p, m in zip(reference.parameters(), momenta, strict=True):
                p.mul_(1 - 1e-3 * 0.1).sub_(1e-3 * (0.9 * m + 0.1 * p.grad).sign())
                m.mul_(0.99).add_(p.grad, alpha=0.01)
    assert [parts["loss"] for parts in found] == pytest.approx(losses, rel=1e-6)
    # a gradient within rounding of 0 may take the other sign: nearly all weights must agree, to the bit of float64
    both = zip(model.parameters(), reference.parameters(), strict=True)
    same = [torch.isclose(a, b, rtol=1e-9, atol=1e-12) for a, b in both]
    assert sum(int(x.sum()) for x in same) / sum(x.numel() for x in same) > 0.999


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("pairs", [False, True])
def test_a_batch_in_parts_is_the_whole_batch(monkeypatch, parts, pairs):
    def objective(model, batch):
        if not pairs:
            return plain_loss(model, batch)
        forget, retain = (plain_loss(model, batch[side])["loss"] for side in ("forget", "retain"))
        return {"loss": 2 * retain - forget, "forget": forget, "retain": retain}

    def run():
        rows, model = items(24), tiny.model(scale=4)
        data = [{"forget": row, "retain": rows[-i]} for i, row in enumerate(rows)] if pairs else rows
        steps = []
        note = lambda step, _: steps.append(step)  # noqa: E731
        losses = train(model, tiny.tokenizer(), data, objective, settings(warmup_steps=0), 0, (2, 6), note)
        assert steps == [2, 6] and len(losses) == 6
        return losses, model

    whole, a = run()
    monkeypatch.setenv("RTT_MICRO_BATCH", str(parts))
    cut, b = run()
    for one, other in zip(whole, cut, strict=True):
        assert one.keys() == other.keys() and all(other[key] == pytest.approx(one[key], rel=1e-6) for key in one)
    # AdamW divides by the gradient's size: after six steps weights agree to rounding of that quotient
    for (name, p), q in zip(a.named_parameters(), b.parameters(), strict=True):
        assert (p - q).abs().max() < 1e-5, name
    assert max(step["loss"] for step in whole) - min(step["loss"] for step in whole) > 0.01


def test_a_micro_batch_is_the_largest_equal_part_within_the_limit(monkeypatch):
    assert micro_batch(12) == 12
    for asked, part in ((1, 1), (5, 4), (6, 6), (11, 6), (12, 12), (99, 12)):
        monkeypatch.setenv("RTT_MICRO_BATCH", str(asked))
        assert micro_batch(12) == part
    for bad in ("0", "-1", "four"):
        monkeypatch.setenv("RTT_MICRO_BATCH", bad)
        with pytest.raises(UserError, match=f"RTT_MICRO_BATCH: found '{bad}', expected"):
            micro_batch(12)


@pytest.mark.parametrize("precision, dtype", [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_pure_half_precision_has_no_master_weights(precision, dtype):
    s = settings(precision=precision, optimizer="lion", learning_rate=1e-3, warmup_steps=0, decay=0.0, weight_decay=0.0)
    model, seen = tiny.model(scale=4), []
    cast(model, precision)
    start = model.model.norm.weight.detach().clone()  # ones: a step of 1e-3 is less than half a bf16 step there

    def objective(model, batch):
        seen.append({p.dtype for p in model.parameters()})
        return plain_loss(model, batch)

    losses = train(model, tiny.tokenizer(), items(4) * 20, objective, s, seed=0)
    assert all(dtypes == {dtype} for dtypes in seen) and model.dtype == dtype
    assert losses[-1]["loss"] < losses[0]["loss"]
    moved = not torch.equal(model.model.norm.weight, start)
    assert moved is (precision == "fp16")  # 20 steps in fp32 would have moved it in bf16 too
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32


def test_mixed_precision_keeps_fp32_weights_and_scores_in_fp32():
    outputs = []

    def objective(model, batch):
        outputs.append(model.model.layers[0].mlp.down_proj(torch.ones(1, 24)).dtype)
        return plain_loss(model, batch)

    def run(precision):
        model, scored = tiny.model(scale=4), []
        action = lambda step, model: scored.append(model(torch.tensor([[3, 4]])).logits.dtype)  # noqa: E731
        losses = train(model, tiny.tokenizer(), items(16), objective, settings(precision=precision), 0, (2,), action)
        assert model.dtype == torch.float32 and scored == [torch.float32]
        return losses

    full, mixed = run("fp32"), run("bf16_mixed")
    assert outputs == [torch.float32] * 4 + [torch.bfloat16] * 4
    assert full != mixed
    assert [x["loss"] for x in mixed] == pytest.approx([x["loss"] for x in full], rel=0.02)


def test_fp32_casts_half_weights_and_leaves_float64():
    model = tiny.model().to(torch.bfloat16)
    cast(model, "fp32")
    assert model.dtype == torch.float32
    double = tiny.model(double=True)
    cast(double, "bf16_mixed")
    assert double.dtype == torch.float64


def test_adamw_in_fp16_is_refused():
    half = settings().model_copy(update={"precision": "fp16"})  # a study with these two is refused earlier
    with pytest.raises(UserError, match=r"fp16.*lion"):
        train(tiny.model(), tiny.tokenizer(), items(8), plain_loss, half, seed=0)


def test_padding_counts_only_where_it_is_asked_for():
    seen = []

    def objective(model, batch):
        seen.append(batch)
        return plain_loss(model, batch)

    rows = [tiny.plain([], [5, 6, 7, 8]), tiny.plain([], [9, 10])]
    losses = []
    for count in (False, True):
        s = settings(batch_size=2, count_padding=count)
        losses += train(tiny.model(scale=4), tiny.tokenizer(), rows, objective, s, seed=0)
    assert int((seen[0]["labels"] != -100).sum()) == 6 and int((seen[1]["labels"] != -100).sum()) > 6
    assert losses[0] != losses[1]


def test_the_environment_decides_the_number_of_threads(monkeypatch):
    before = torch.get_num_threads()
    try:
        for value, expected in (("2", 2), (None, 1)):
            monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
            if value:
                monkeypatch.setenv("OMP_NUM_THREADS", value)
            prepare_torch(0)
            assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(False)

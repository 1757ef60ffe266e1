"""The effective update is what a whole copy of the weights before and after each optimizer step says."""

import pytest
import tiny
import torch
from rtt.study.settings import Training
from rtt.training import health, train
from rtt.training.losses import plain_loss

ITEMS = [tiny.plain([], [3 + i % 50, 7 + i % 31, 11]) for i in range(80)]


def moved(monkeypatch, **settings):
    """Train for 40 steps; return (the losses, the share of weights that each step moved, counted over all of them)."""
    counted, make = [], train.make_optimizer

    def watched(model, settings):
        optimizer, own = make(model, settings), [p for p in model.parameters() if p.requires_grad]
        step = optimizer.step

        def values():
            kept = [optimizer.state[p].get("remainder") for p in own]
            both = zip(own, kept, strict=True)
            # of bf16_kahan both halves of the fp32 number
            return [
                p.detach().clone() if r is None else torch.stack([p.detach(), r], -1).view(torch.int32) for p, r in both
            ]

        def stepped(*args, **kwargs):
            before = values()
            step(*args, **kwargs)
            changed = sum(int((a != b).sum()) for a, b in zip(before, values(), strict=True))
            counted.append(changed / sum(p.numel() for p in own))

        optimizer.step = stepped
        return optimizer

    monkeypatch.setattr(train, "make_optimizer", watched)
    model, given = tiny.model(scale=3.0), Training(batch_size=2, **settings)
    model.get_input_embeddings().requires_grad_(False)
    return train.train(model, tiny.tokenizer(), ITEMS, plain_loss, given, 0), counted


@pytest.mark.parametrize("precision", ["fp32", "bf16", "bf16_mixed", "bf16_kahan"])
def test_the_effective_update_equals_a_count_over_all_weights(monkeypatch, precision):
    losses, counted = moved(monkeypatch, learning_rate=1e-5, optimizer="lion", precision=precision)
    measured = {step: parts["moved"] for step, parts in enumerate(losses) if "moved" in parts}
    assert len(measured) == health.MEASURED and {0, 39} <= set(measured)
    assert measured == {step: pytest.approx(counted[step]) for step in measured}
    mean = health.effective_update(losses)
    assert mean == pytest.approx(sum(counted[step] for step in measured) / len(measured))
    # Lion's step of 1e-5 is below half a unit in the last place of most bf16 weights.
    assert mean < 0.1 if precision == "bf16" else mean > 0.9


def test_a_sample_of_a_large_model_is_close_to_the_count_over_all_weights(monkeypatch):
    monkeypatch.setattr(health, "SAMPLE", 500)
    losses, counted = moved(monkeypatch, learning_rate=1e-4, optimizer="lion", precision="bf16")
    model = tiny.model()
    assert sum(map(len, health.sample(model, None))) < 500 + len(list(model.parameters()))
    for parts, share in zip(losses, counted, strict=True):
        if "moved" in parts:
            assert parts["moved"] == pytest.approx(share, abs=0.15) and 0 < share < 1


def test_a_single_step_is_measured_once():
    losses = train.train(
        tiny.model(), tiny.tokenizer(), ITEMS[:2], plain_loss, Training(learning_rate=1e-3, batch_size=2), 0
    )
    assert list(losses[0]) == ["loss", "moved"]


def test_the_sample_does_not_change_with_the_weights():
    model = tiny.model()
    before = health.sample(model, None)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert all((a != b).all() for a, b in zip(before, health.sample(model, None), strict=True))

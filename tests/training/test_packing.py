"""Texts that share a row give the loss and the gradient that they give alone."""

import copy
import math

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rtt.errors import UserError
from rtt.methods.rmu import RMU
from rtt.training import packing
from rtt.training.collate import collate, null
from rtt.training.losses import text_loss
from tiny import examples


@given(st.lists(st.integers(1, 40), min_size=1, max_size=7), st.sampled_from([1, 16, 50, 1000]))
@settings(max_examples=200, deadline=None)
def test_every_text_has_a_place_and_packing_never_pads_more_than_no_packing(lengths, width):
    rows = packing.rows_of(lengths, width)
    assert sorted(text for row in rows for text in row) == list(range(len(lengths))) and all(rows)
    longest = max(sum(lengths[text] for text in row) for row in rows)
    assert len(rows) * longest <= len(lengths) * max(lengths)
    # Never beyond the width but by the last text of a row.
    assert longest <= max(width, *lengths) + max(lengths)


def test_texts_of_known_lengths_go_into_known_rows():
    assert packing.rows_of([600, 150, 250, 200], 128) == [[0], [2, 3, 1]]  # no padding at all
    assert packing.rows_of([41, 40, 43, 42], 128) == [[2, 1], [3, 0]]  # 166 tokens: not one of 128 and one of 43
    assert packing.rows_of([30, 30, 30, 30], 1000) == [[0], [1], [2], [3]]  # nothing to gain
    assert packing.rows_of([30, 10], math.inf) == [[0, 1]]


def test_a_packed_row_says_where_each_text_is():
    rows = [tiny.plain([5], [6, 7, 4]), tiny.plain([], [8]), null(tiny.plain([], [9, 3]))]
    batch = packing.pack(rows, 0, 5)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 4], [9, 3, 8, 0]]
    assert batch["labels"].tolist() == [[-100, 6, 7, 4], [-100] * 4]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3], [0, 1, 0, 0]]
    assert batch["texts"].tolist() == [[0, 0, 0, 0], [2, 2, 1, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert batch["weight"].tolist() == [1, 1, 0]


@pytest.mark.parametrize("width", [1, 14, math.inf])
def test_the_loss_is_the_reference_of_each_text_alone(width):
    model, rows = tiny.model(double=True, scale=8), [*examples(), null(examples()[1])]
    batch = packing.pack(rows, 7, width)
    batch["weight"] = batch["weight"].double()
    assert len(batch["input_ids"]) < len(rows)
    expected = sum(tiny.reference_nats(model, row) for row in rows[:-1]) / len(rows)  # the null row counts nothing
    assert text_loss(model, batch).item() == pytest.approx(expected, rel=1e-9)


# eager's softmax is in fp32, whatever the model's dtype.
@pytest.mark.parametrize("attention, tolerance", [("sdpa", 1e-9), ("eager", 1e-5)])
def test_the_gradient_is_that_of_padded_texts(attention, tolerance):
    model, rows = tiny.model(double=True, scale=3), examples(n=6)
    model.set_attn_implementation(attention)

    def gradient(batch):
        copied = copy.deepcopy(model)
        text_loss(copied, batch).backward()
        return torch.cat([parameter.grad.flatten() for parameter in copied.parameters()])

    packed = packing.pack(rows, 0, 16)
    packed["weight"] = packed["weight"].double()
    assert torch.allclose(gradient(packed), gradient(collate(rows, 0)), rtol=tolerance, atol=tolerance / 100)


def test_rmu_reads_the_same_activations_from_packed_texts():
    chosen = RMU.Settings(points=[1], layer=1, layers_trained=1, steering=5.0, learning_rate=1e-3, batch_size=4)
    forget, retain = examples(0), examples(1)

    def losses(make):
        model = tiny.model(double=True, scale=3)
        method = RMU(model, chosen, 0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.01)  # away from the frozen copy
        batch = {"forget": make(forget), "retain": make(retain)}
        return {name: value.item() for name, value in method.loss(model, batch).items()}

    def packed(rows):
        batch = packing.pack(rows, 0, 16)
        return batch | {"weight": batch["weight"].double()}

    found, expected = losses(packed), losses(lambda rows: collate(rows, 0))
    assert expected["retain"] > 1e-6 and found == pytest.approx(expected, rel=1e-9)


def test_a_model_whose_texts_see_each_other_is_refused():
    model = tiny.model(scale=8)
    packing.check(model)
    forward = model.forward

    def deaf(input_ids, position_ids=None, **kwargs):
        """Position ids, but a mask that lets all see what stands before."""
        return forward(input_ids, attention_mask=torch.ones_like(input_ids), position_ids=position_ids, **kwargs)

    model.forward = deaf
    with pytest.raises(UserError, match=r"LlamaForCausalLM, sdpa attention\) does not keep the texts of a row apart"):
        packing.check(model)


def test_a_row_of_flash_attention_holds_the_whole_batch():
    model = tiny.model()
    assert packing.row_width(model) == tiny.SHAPE.hidden_size / 2
    model.config._attn_implementation = "flash_attention_2"
    assert packing.row_width(model) == math.inf

"""Batches of encoded texts: where padding stands and whether it counts."""

import tiny
import torch
from rtt.training.collate import collate


def test_padding_is_on_the_right_and_not_counted():
    batch = collate([tiny.plain([5], [6, 7]), tiny.plain([], [8])], 3)
    assert torch.equal(batch["input_ids"], torch.tensor([[5, 6, 7], [8, 3, 3]]))
    assert torch.equal(batch["attention_mask"], torch.tensor([[1, 1, 1], [1, 0, 0]]))
    assert torch.equal(batch["labels"], torch.tensor([[-100, 6, 7], [8, -100, -100]]))


def test_counted_padding_is_on_the_left_and_only_where_the_text_counts_whole():
    whole, bos, part = tiny.plain([], [8, 9]), {"input_ids": [1, 4], "labels": [-100, 4]}, tiny.plain([5, 2], [6])
    longest = tiny.plain([], [10, 11, 12, 13])
    batch = collate([whole, bos, part, longest], 3, count_padding=True)
    assert batch["input_ids"].tolist() == [[3, 3, 8, 9], [3, 3, 1, 4], [3, 5, 2, 6], [10, 11, 12, 13]]
    assert batch["attention_mask"].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]]
    assert batch["labels"].tolist() == [[3, 3, 8, 9], [3, 3, 1, 4], [-100, -100, -100, 6], [10, 11, 12, 13]]

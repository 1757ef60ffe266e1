"""Batches are cut without a text lost, and parts of like length are padded least."""

import hypothesis.strategies as st
from hypothesis import given
from rtt.training.batches import by_length, length, padded_to, shared

TEXTS = st.lists(st.integers(1, 30), min_size=1, max_size=24)


def rows(lengths):
    return [{"input_ids": [i] * n, "labels": [i] * n} for i, n in enumerate(lengths)]


@given(TEXTS, st.integers(1, 6))
def test_sorting_by_length_moves_texts_only_within_their_batch(lengths, size):
    items = rows(lengths)
    cut = by_length(items, size)
    for first in range(0, len(items), size):
        before, after = items[first : first + size], cut[first : first + size]
        assert sorted(map(id, before)) == sorted(map(id, after))
        assert [length(row) for row in after] == sorted(map(length, before), reverse=True)


@given(TEXTS, st.integers(1, 5), st.integers(1, 4))
def test_shared_batches_are_filled_with_rows_that_do_not_count(lengths, size, processes):
    items = rows(lengths[: len(lengths) // size * size])
    filled = shared(items, size, processes)
    assert len(filled) == -(-size // processes) * processes * (len(items) // size)
    assert [row for row in filled if "weight" not in row] == items
    assert all(set(row["labels"]) == {-100} for row in filled if "weight" in row)


@given(TEXTS, st.integers(1, 5))
def test_each_item_names_the_longest_text_of_its_batch(lengths, size):
    items = [{"forget": a, "retain": b} for a, b in zip(rows(lengths), rows(lengths[::-1]), strict=True)]
    told = padded_to(items, size)
    for at, item in enumerate(told):
        batch = items[at // size * size : at // size * size + size]
        for part in item:
            assert item[part]["pad_to"] == max(length(row[part]) for row in batch)
            assert item[part] | items[at][part] == item[part]

"""Share the texts of each step among processes and cut them into parts, without changing the mean over texts."""

import os
from collections.abc import Sequence

from rtt.errors import UserError
from rtt.training.collate import null

# Texts per forward pass: an environment variable and no part of a spec, since equal parts average to the same step.
MICRO_BATCH = "RTT_MICRO_BATCH"


def micro_batch(rows: int) -> int:
    """Return the texts per forward pass: the largest equal part of a process's `rows` within RTT_MICRO_BATCH texts.

    Raises UserError if RTT_MICRO_BATCH is no positive integer.
    """
    asked = os.environ.get(MICRO_BATCH) or str(rows)
    if not asked.isdigit() or int(asked) < 1:
        raise UserError(f"{MICRO_BATCH}: found {asked!r}, expected a number of texts, 1 or more")
    return max(n for n in range(1, rows + 1) if rows % n == 0 and n <= int(asked))


def shared(items: Sequence, batch_size: int, processes: int) -> list:
    """Fill each batch up with null rows (`rtt.training.collate.null`), so that `processes` can share it equally.

    So the paper's batch of 4 runs on 8 devices as well. Returns the items unchanged if nothing is missing.
    """
    missing = -batch_size % processes
    if not missing:
        return list(items)
    filled = []
    for batch in _batches(items, batch_size):
        filled += [*batch, *[_null(batch[0])] * missing]
    return filled


def by_length(items: Sequence, batch_size: int) -> list:
    """Sort each batch by length, longest texts first: if it is cut, parts of similar length need the least padding."""
    return [row for batch in _batches(items, batch_size) for row in sorted(batch, key=length, reverse=True)]


def padded_to(items: Sequence, batch_size: int) -> list:
    """Add to each item the length of the longest text in its batch ("pad_to"), for `count_padding`.

    However a batch is cut, its parts are then padded to the same length.
    """

    def told(rows):
        if "input_ids" in rows[0]:
            longest = max(map(length, rows))
            return [row | {"pad_to": longest} for row in rows]
        columns = [told([row[key] for row in rows]) for key in rows[0]]
        return [dict(zip(rows[0], column, strict=True)) for column in zip(*columns, strict=True)]

    return [row for batch in _batches(items, batch_size) for row in told(batch)]


def length(item: dict) -> int:
    """Return the number of tokens in a text, or in a pair of texts."""
    return len(item["input_ids"]) if "input_ids" in item else sum(map(length, item.values()))


def _batches(items: Sequence, batch_size: int) -> list:
    return [items[first : first + batch_size] for first in range(0, len(items), batch_size)]


def _null(item: dict) -> dict:
    return null(item) if "input_ids" in item else {key: null(part) for key, part in item.items()}

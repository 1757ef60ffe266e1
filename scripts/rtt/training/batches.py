"""How a step's texts are shared among processes and cut into parts. Decides no number: each part of a mean over texts
weighs the same, whoever computes it.
"""

import os
from collections.abc import Sequence

from rtt.errors import UserError
from rtt.training.collate import null

MICRO_BATCH = "RTT_MICRO_BATCH"  # texts per forward pass; from the environment: equal parts average to the same step


def micro_batch(rows: int) -> int:
    """Return the texts per forward pass: the largest equal part of a process's `rows` within RTT_MICRO_BATCH texts.

    Raises UserError for a value that is no count.
    """
    asked = os.environ.get(MICRO_BATCH) or str(rows)
    if not asked.isdigit() or int(asked) < 1:
        raise UserError(f"{MICRO_BATCH}={asked}: expected a number of texts, 1 or more")
    return max(n for n in range(1, rows + 1) if rows % n == 0 and n <= int(asked))


def shared(items: Sequence, batch_size: int, processes: int) -> list:
    """Return items whose batches `processes` can share equally: null rows (`rtt.training.collate.null`) fill each batch up, so that
    paper's batch of 4 runs on 8 devices too. The items as they are where nothing is to be filled.
    """
    missing = -batch_size % processes
    if not missing:
        return list(items)
    filled = []
    for batch in _batches(items, batch_size):
        filled += [*batch, *[_null(batch[0])] * missing]
    return filled


def by_length(items: Sequence, batch_size: int) -> list:
    """Return items with each batch's longest texts first, for batches that are cut: parts of like length are padded
    least.
    """
    return [row for batch in _batches(items, batch_size) for row in sorted(batch, key=length, reverse=True)]


def padded_to(items: Sequence, batch_size: int) -> list:
    """Return items that name the length of their batch's longest text ("pad_to"), for count_padding: however a batch is
    cut, its parts are padded as the whole.
    """

    def told(rows):
        if "input_ids" in rows[0]:
            longest = max(map(length, rows))
            return [row | {"pad_to": longest} for row in rows]
        columns = [told([row[key] for row in rows]) for key in rows[0]]
        return [dict(zip(rows[0], column, strict=True)) for column in zip(*columns, strict=True)]

    return [row for batch in _batches(items, batch_size) for row in told(batch)]


def length(item: dict) -> int:
    """Return the tokens of a text, or of a pair of texts."""
    return len(item["input_ids"]) if "input_ids" in item else sum(map(length, item.values()))


def _batches(items: Sequence, batch_size: int) -> list:
    return [items[first : first + batch_size] for first in range(0, len(items), batch_size)]


def _null(item: dict) -> dict:
    return null(item) if "input_ids" in item else {key: null(part) for key, part in item.items()}

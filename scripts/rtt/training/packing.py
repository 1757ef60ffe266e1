"""Pack several texts into each row of a batch, so that little of it is padding.

The texts of a row do not see each other, and each weighs what it weighs alone, so packing is no part of a spec.
"""

import math
import os
from collections.abc import Sequence

import torch

from rtt.errors import UserError
from rtt.models.architecture import takes

PACKING = "RTT_PACKING"  # an environment variable; 1 asks for packing


def asked() -> bool:
    """Return whether packing was asked for."""
    return os.environ.get(PACKING) == "1"


def row_width(model) -> float:
    """Return the number of tokens that a row may have in any case.

    Attention costs the square of a row's length; it is small beside the matrices while a row is shorter than half the
    model's width. The width is infinite with flash-attn, whose attention costs only that of the texts themselves, and
    which takes a single row.
    """
    flash = "flash" in (getattr(model.config, "_attn_implementation", None) or "")
    return math.inf if flash else model.config.hidden_size / 2


def rows_of(lengths: Sequence[int], width: float) -> list[list[int]]:
    """Return the indices of the texts in each row, for as many rows as give the least padding.

    Rows have about `width` tokens, or those of the longest text, at most; with an infinite `width` there is one row.
    The texts are dealt longest first, each to the emptiest row.
    """
    if width == math.inf:
        return [list(range(len(lengths)))]

    def spread(count):
        rows, used = [[] for _ in range(count)], [0] * count
        for text in sorted(range(len(lengths)), key=lambda text: -lengths[text]):
            row = used.index(min(used))
            rows[row].append(text)
            used[row] += lengths[text]
        return count * max(used), rows

    fewest = math.ceil(sum(lengths) / max(width, *lengths))
    return min((spread(count) for count in range(len(lengths), fewest - 1, -1)), key=lambda found: found[0])[1]


def pack(examples: Sequence[dict], pad_token_id: int, width: float) -> dict[str, torch.Tensor]:
    """Return a batch of packed rows: input_ids, attention_mask, labels, position_ids and texts, each (rows, longest
    row).

    `position_ids` restart at 0 in each text, and `texts` says which example a token belongs to. Also returned is
    `weight` (examples,): 0 for null rows (`rtt.training.collate.null`). The first token of a text never counts, since
    another text precedes it. The padding at the end of a row forms a text of its own with label -100.
    """
    rows = rows_of([len(example["input_ids"]) for example in examples], width)
    length = max(sum(len(examples[text]["input_ids"]) for text in row) for row in rows)
    columns = {"input_ids": pad_token_id, "attention_mask": 0, "labels": -100, "position_ids": 0, "texts": 0}
    batch = {key: torch.full((len(rows), length), value) for key, value in columns.items()}
    for number, row in enumerate(rows):
        end = 0
        for text in row:
            ids, labels = examples[text]["input_ids"], examples[text]["labels"]
            place, end = slice(end, end + len(ids)), end + len(ids)
            batch["input_ids"][number, place] = torch.tensor(ids)
            batch["attention_mask"][number, place] = 1
            batch["labels"][number, place] = torch.tensor([-100, *labels[1:]])
            batch["position_ids"][number, place] = torch.arange(len(ids))
            batch["texts"][number, place] = text
        batch["position_ids"][number, end:] = torch.arange(length - end)
    batch["weight"] = torch.tensor([example.get("weight", 1.0) for example in examples])
    return batch


@torch.no_grad()
def check(model) -> None:
    """Raise UserError if the texts of a row see each other; the architecture must mask by position_ids.

    The second of two packed texts must get logits that differ from those it has alone by at most a tenth of how much
    they differ when both are one text.
    """
    training = model.training
    device = next(model.eval().parameters()).device
    first, second = torch.tensor([[1, 2, 3, 4]], device=device), torch.tensor([[4, 3, 2]], device=device)
    both = torch.cat([first, second], dim=1)
    places = torch.cat([torch.arange(4, device=device), torch.arange(3, device=device)])[None]
    alone = model(input_ids=second, use_cache=False).logits[0].double()
    joined = model(input_ids=both, use_cache=False).logits[0, 4:].double()
    apart = takes(model, "position_ids")
    if apart:
        packed = model(input_ids=both, position_ids=places, use_cache=False).logits[0, 4:].double()
        apart = bool((packed - alone).abs().max() <= (joined - alone).abs().max() / 10)
    model.train(training)
    if not apart:
        raise UserError(
            f"packing: this model ({type(model).__name__}, {model.config._attn_implementation} attention) does not "
            "keep the texts of a row apart; set packing: false"
        )

"""Several texts in a row of a batch, so that little of it is padding. Decides no number: the texts of a row don't see
each other, and each weighs what it weighs alone.
"""

import math
import os
from collections.abc import Sequence

import torch

from rtt.errors import UserError

PACKING = "RTT_PACKING"  # 1: several texts in a row; from the environment


def asked() -> bool:
    """Was packing asked for?"""
    return os.environ.get(PACKING) == "1"


def row_width(model) -> float:
    """Return how many tokens a row may have at least. A row's attention costs its square, and is small beside the
    matrices while a row is shorter than half the model's width. Infinite with flash-attn, whose attention costs no more
    than the texts' own, and which takes one row alone.
    """
    flash = "flash" in (getattr(model.config, "_attn_implementation", None) or "")
    return math.inf if flash else model.config.hidden_size / 2


def rows_of(lengths: Sequence[int], width: float) -> list[list[int]]:
    """Return which texts share a row: as many rows as give the least padding, of about `width` tokens or the longest
    text at most; one row where `width` is infinite. Each text, longest first, goes to the emptiest row.
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
    """Return a batch of packed rows: input_ids, attention_mask, labels, position_ids (from 0 in each text) and texts
    (which example a token is of), each (rows, longest row), and weight (examples,): 0 for null rows (`rtt.training.collate.null`).

    A text's first token is never counted: what stands before it is another text. Padding is at the end of a row, as a
    text of its own, label -100.
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
    """Raise UserError where a model's texts in one row see each other: the architecture must mask by position_ids.

    Two texts in a row must give the second one's logits nearer to those that it has alone than a tenth of what they
    are away from when it follows the first as the same text.
    """
    device = next(model.parameters()).device
    first, second = torch.tensor([[1, 2, 3, 4]], device=device), torch.tensor([[4, 3, 2]], device=device)
    both = torch.cat([first, second], dim=1)
    places = torch.cat([torch.arange(4, device=device), torch.arange(3, device=device)])[None]
    alone = model(input_ids=second, use_cache=False).logits[0].double()
    joined = model(input_ids=both, use_cache=False).logits[0, 4:].double()
    packed = model(input_ids=both, position_ids=places, use_cache=False).logits[0, 4:].double()
    if (packed - alone).abs().max() > (joined - alone).abs().max() / 10:
        raise UserError(
            f"packing: this model ({type(model).__name__}, {model.config._attn_implementation} attention) doesn't keep "
            "the texts of a row apart; set packing: false"
        )

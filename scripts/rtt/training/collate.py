"""From encoded texts to padded batches."""

from collections.abc import Sequence

import torch


def null(example: dict) -> dict:
    """Return a text that takes a row of a batch and counts nothing: its tokens are `example`'s, its weight is 0."""
    return example | {"labels": [-100] * len(example["labels"]), "weight": 0.0}


def collate(
    examples: Sequence[dict[str, list[int]]], pad_token_id: int, count_padding: bool = False
) -> dict[str, torch.Tensor]:
    """Return {"input_ids", "attention_mask", "labels"}, each (batch, longest); padding is on the right, label -100.
    Beside null rows (`null`) also {"weight"}, (batch,): 0 for them, 1 for others.

    count_padding (faithful `padding`, docs/losses.md): as in the authors' code padding is on the left, and where a text
    is counted whole its padding and its first token are targets as well, so that the loss is their mean over batch x
    (longest - 1). Texts of which only a part is counted (LETTER, LETTER_ANSWER, NUMBER) are as without.
    """
    length = max(example.get("pad_to") or len(example["input_ids"]) for example in examples)
    columns = {"input_ids": pad_token_id, "attention_mask": 0, "labels": -100}
    batch = {key: torch.full((len(examples), length), value) for key, value in columns.items()}
    for row, example in enumerate(examples):
        ids, labels = example["input_ids"], example["labels"]
        place = slice(length - len(ids), length) if count_padding else slice(0, len(ids))
        if (
            count_padding and "weight" not in example and all(label != -100 for label in labels[1:])
        ):  # the first may be BOS, which has no label
            batch["labels"][row, : place.start] = pad_token_id
            labels = ids
        elif count_padding:
            labels = [-100, *labels[1:]]  # nothing but padding stands before it to predict it from
        batch["input_ids"][row, place] = torch.tensor(ids)
        batch["labels"][row, place] = torch.tensor(labels)
        batch["attention_mask"][row, place] = 1
    if any("weight" in example for example in examples):
        batch["weight"] = torch.tensor([example.get("weight", 1.0) for example in examples])
    return batch

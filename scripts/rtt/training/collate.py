"""Turn encoded texts into padded batches."""

from collections.abc import Sequence

import torch


def null(example: dict) -> dict:
    """Return a text that fills a row of a batch without counting: the tokens of `example` with weight 0."""
    return example | {"labels": [-100] * len(example["labels"]), "weight": 0.0}


def collate(
    examples: Sequence[dict[str, list[int]]], pad_token_id: int, count_padding: bool = False
) -> dict[str, torch.Tensor]:
    """Return {"input_ids", "attention_mask", "labels"}, each (texts, longest), padded on the right with label -100.

    If there are null rows (`null`), {"weight"} (texts,) is added: 0 for them, 1 for the others.

    `count_padding` (the faithful switch `padding`, docs/losses.md) pads on the left as the authors' code does. In texts
    that count as a whole, the padding and the first token become targets as well, so the loss is a mean over texts x
    (longest - 1). Texts of which only a part counts (LETTER, LETTER_ANSWER, NUMBER) keep their labels.
    """
    length = max(example.get("pad_to") or len(example["input_ids"]) for example in examples)
    columns = {"input_ids": pad_token_id, "attention_mask": 0, "labels": -100}
    batch = {key: torch.full((len(examples), length), value) for key, value in columns.items()}
    for row, example in enumerate(examples):
        ids, labels = example["input_ids"], example["labels"]
        place = slice(length - len(ids), length) if count_padding else slice(0, len(ids))
        if (
            count_padding and "weight" not in example and all(label != -100 for label in labels[1:])
        ):  # the first token may be BOS, which has no label
            batch["labels"][row, : place.start] = pad_token_id
            labels = ids
        elif count_padding:
            labels = [-100, *labels[1:]]  # only padding precedes the first token
        batch["input_ids"][row, place] = torch.tensor(ids)
        batch["labels"][row, place] = torch.tensor(labels)
        batch["attention_mask"][row, place] = 1
    if any("weight" in example for example in examples):
        batch["weight"] = torch.tensor([example.get("weight", 1.0) for example in examples])
    return batch

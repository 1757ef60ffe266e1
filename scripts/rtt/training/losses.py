"""The one text loss that every objective is made of."""

import torch
import torch.nn.functional as F


def masked_mean(
    values: torch.Tensor, mask: torch.Tensor, weight: torch.Tensor | None = None, texts: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean of `values` (rows, length) over each text's mask, times `weight` (texts,), then over the texts: a scalar.

    A row is a text; with `texts` (rows, length) it says which text each value is of (`rtt.training.packing.pack`).

    Every text weighs the same, whatever its length, and padding counts nothing, unless `rtt.training.collate.collate` was told to
    label it. So the mean does not depend on how a batch is cut into parts of equal size.
    """
    mask = mask.to(values.dtype)
    if texts is None:
        sums, counts = (values * mask).sum(1), mask.sum(1)
    else:
        none = values.new_zeros(len(weight))
        sums = none.index_add(0, texts.flatten(), (values * mask).flatten())
        counts = none.index_add(0, texts.flatten(), mask.flatten())
    means = sums / counts.clamp(min=1)
    return (means if weight is None else means * weight).mean()


def inputs(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return what a model reads of a batch: its tokens, and which of them see each other."""
    ids, mask = batch["input_ids"], batch["attention_mask"]
    if "texts" in batch:  # packed: positions that start anew say where a text begins, and only without a mask
        return {"input_ids": ids, "position_ids": batch["position_ids"]}
    # Padding on the left must not move a text's positions.
    positions = {} if bool(mask[:, 0].all()) else {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
    return {"input_ids": ids, "attention_mask": mask, **positions}


def token_nats(model, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (cross-entropy in nats, which tokens count), each (batch, length - 1): of every token but the first.

    `batch`: input_ids, attention_mask, labels, each (batch, length); label -100 is not counted. Padding may be on
    either side (`rtt.training.collate.collate`); a row may hold several texts (`rtt.training.packing.pack`).
    """
    logits = model(**inputs(batch), use_cache=False).logits
    following = F.pad(batch["labels"][:, 1:], (0, 1), value=-100)
    # At least fp32: half precision would round the loss, and a float64 model (the tests' reference) keeps its own.
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    # Flat, not (batch, vocabulary, length): a softmax over another dimension than the last takes eight times as long.
    nats = F.cross_entropy(logits.flatten(0, 1), following.flatten(), ignore_index=-100, reduction="none")
    return nats.view_as(following)[:, :-1], following[:, :-1] != -100


def text_loss(model, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Cross-entropy in nats per counted token (`token_nats`), averaged by `masked_mean`: a scalar."""
    nats, counted = token_nats(model, batch)
    texts = batch["texts"][:, 1:] if "texts" in batch else None
    return masked_mean(nats, counted, batch.get("weight"), texts)


def plain_loss(model, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return {"loss"}: the objective of pretraining, teaching and RTT."""
    return {"loss": text_loss(model, batch)}

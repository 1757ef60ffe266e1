"""The one text loss that every objective is made of."""

import torch
import torch.nn.functional as F


def masked_mean(values: torch.Tensor, mask: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Mean of `values` (batch, length) over each row's mask, times `weight` (batch,), then over the rows: a scalar.

    Every text weighs the same, whatever its length, and padding counts nothing, unless `rtt.text.collate` was told to
    label it. So the mean does not depend on how a batch is cut into parts of equal size.
    """
    mask = mask.to(values.dtype)
    rows = (values * mask).sum(1) / mask.sum(1).clamp(min=1)
    return (rows if weight is None else rows * weight).mean()


def token_nats(model, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (cross-entropy in nats, which tokens count), each (batch, length - 1): of every token but the first.

    `batch`: input_ids, attention_mask, labels, each (batch, length); label -100 is not counted. Padding may be on
    either side (`rtt.text.collate`).
    """
    mask = batch["attention_mask"]
    # Padding on the left must not move a text's positions.
    positions = {} if bool(mask[:, 0].all()) else {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
    logits = model(input_ids=batch["input_ids"], attention_mask=mask, use_cache=False, **positions).logits
    labels = batch["labels"][:, 1:]
    # At least fp32: half precision would round the loss, and a float64 model (the tests' reference) keeps its own.
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    nats = F.cross_entropy(logits[:, :-1].transpose(1, 2), labels, ignore_index=-100, reduction="none")
    return nats, labels != -100


def text_loss(model, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Cross-entropy in nats per counted token (`token_nats`), averaged by `masked_mean`: a scalar."""
    return masked_mean(*token_nats(model, batch), batch.get("weight"))


def plain_loss(model, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return {"loss"}: the objective of pretraining, teaching and RTT."""
    return {"loss": text_loss(model, batch)}

"""Compute the text loss, of which every objective is made."""

import os

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from rtt.errors import UserError
from rtt.models.architecture import stretch, takes

CHECKPOINTING = "RTT_GRADIENT_CHECKPOINTING"  # 1 recomputes activations in the backward pass: same numbers, less memory
CHUNK = 256  # tokens whose log-probabilities, in fp32, are there at once where they are recomputed


def masked_sums(
    values: torch.Tensor, mask: torch.Tensor, weight: torch.Tensor | None = None, texts: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (the sum of `values` (rows, length) over each text's mask, how many values that are), each (texts,).

    A row is a text, unless `texts` (rows, length) says which text each value is of (`rtt.training.packing.pack`); then
    `weight` (texts,) says how many there are.
    """
    mask = mask.to(values.dtype)
    if texts is None:
        return (values * mask).sum(1), mask.sum(1)
    none = values.new_zeros(len(weight))
    sums = none.index_add(0, texts.flatten(), (values * mask).flatten())
    return sums, none.index_add(0, texts.flatten(), mask.flatten())


def mean_of_texts(values: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Return the mean of `values` (texts,), each times its `weight`: a scalar.

    Texts that only fill up a device's share have weight 0 and still count as texts; `rtt.training.train.Step` takes
    that out again. So the mean does not depend on how a batch is cut into parts of equal size.
    """
    return (values if weight is None else values * weight).mean()


def masked_mean(
    values: torch.Tensor, mask: torch.Tensor, weight: torch.Tensor | None = None, texts: torch.Tensor | None = None
) -> torch.Tensor:
    """Average `values` (rows, length) over each text's mask, multiply by `weight` (texts,), and average over the texts.

    Returns a scalar. Each row is a text; with `texts` (rows, length), that says which text each value belongs to
    (`rtt.training.packing.pack`). Every text weighs the same whatever its length, and padding does not count unless
    `rtt.training.collate.collate` labels it. So the mean does not depend on how a batch is cut into equal parts.
    """
    sums, counts = masked_sums(values, mask, weight, texts)
    return mean_of_texts(sums / counts.clamp(min=1), weight)


def inputs(model, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the arguments with which a model reads a batch: its tokens, and which of them see each other.

    Raises UserError where the longest text of the batch would change what the model makes of the others.
    """
    ids, mask = batch["input_ids"], batch["attention_mask"]
    if ids.shape[1] > (limit := stretch(model.config)) and ("texts" in batch or not bool(mask.all())):
        raise UserError(
            f"{type(model).__name__} reads all texts of a batch with other rotary frequencies where one has more than "
            f"{limit} tokens (this one has {ids.shape[1]}): a text's loss would depend on its batch; run one text at a "
            "time (RTT_MICRO_BATCH=1, `loss --batch-size 1`), without packing, or leave such texts out"
        )
    if "texts" in batch:  # packed: without a mask, positions that restart at 0 mark where a text begins
        return {"input_ids": ids, "position_ids": batch["position_ids"]}
    # Padding on the left must not shift a text's positions; a model without positions goes by the mask alone.
    shifted = not bool(mask[:, 0].all()) and takes(model, "position_ids")
    positions = {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)} if shifted else {}
    return {"input_ids": ids, "attention_mask": mask, **positions}


def token_nats(model, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (cross-entropy in nats, mask of the counted tokens) of every token but the first, each (rows, length - 1).

    `batch` holds input_ids, attention_mask and labels, each (rows, length); label -100 is not counted. Padding may be
    on either side (`rtt.training.collate.collate`), and a row may hold several texts (`rtt.training.packing.pack`).
    """
    logits = model(**inputs(model, batch), use_cache=False).logits
    following = F.pad(batch["labels"][:, 1:], (0, 1), value=-100)
    # Flat, not (rows, vocabulary, length): a softmax over another dimension than the last takes eight times as long.
    tokens = logits.flatten(0, 1), following.flatten()
    if os.environ.get(CHECKPOINTING) == "1":  # of the logits themselves, in their dtype, all are kept
        keep = {"use_reentrant": False, "preserve_rng_state": False}
        parts = zip(*(one.split(CHUNK) for one in tokens), strict=True)
        nats = torch.cat([checkpoint(_cross_entropy, *part, **keep) for part in parts])
    else:
        nats = _cross_entropy(*tokens)
    return nats.view_as(following)[:, :-1], following[:, :-1] != -100


def _cross_entropy(logits: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
    """Return the nats of tokens, 0 where the label is -100."""
    # At least fp32, since half precision would round the loss; a float64 model (a reference in tests) stays in float64.
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(logits, following, ignore_index=-100, reduction="none")


def text_sums(model, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (each text's cross-entropy in nats, summed over its counted tokens; how many they are), each (texts,).

    For losses over whole texts, such as NPO's. A text that only fills up a device's share gives 0 and 0.
    """
    nats, counted = token_nats(model, batch)
    texts = batch["texts"][:, 1:] if "texts" in batch else None
    return masked_sums(nats, counted, batch.get("weight"), texts)


def text_losses(model, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return each text's cross-entropy in nats per counted token: (texts,).

    For a loss that is no plain mean over texts: compute it for each text, then take `mean_of_texts(values,
    batch.get("weight"))`. A text that only fills up a device's share gives 0.
    """
    nats, counts = text_sums(model, batch)
    return nats / counts.clamp(min=1)


def text_loss(model, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the cross-entropy in nats per counted token (`token_nats`), averaged by `masked_mean`: a scalar."""
    return mean_of_texts(text_losses(model, batch), batch.get("weight"))


def plain_loss(model, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return {"loss"}: the objective of pretraining, teaching and RTT."""
    return {"loss": text_loss(model, batch)}

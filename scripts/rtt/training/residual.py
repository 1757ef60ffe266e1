"""Read and change the residual stream of a causal language model while it runs."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby

import numpy as np
import torch

from rtt.errors import Stopped
from rtt.models.architecture import decoder_layers, takes
from rtt.training.resume import Terminated


def stream(output) -> torch.Tensor:
    """Return the residual stream, (batch, length, width), in what a decoder layer returns."""
    return output[0] if isinstance(output, tuple) else output


@contextmanager
def rewritten(changes: Mapping[torch.nn.Module, Callable[[torch.Tensor], torch.Tensor]]) -> Iterator[None]:
    """Replace the stream that each of these modules returns by a function of it, as long as the context lasts."""

    def hook_of(change):
        def hook(module, inputs, output):
            new = change(stream(output))
            return (new, *output[1:]) if isinstance(output, tuple) else new

        return hook

    handles = []
    try:
        for module, change in changes.items():
            handles.append(module.register_forward_hook(hook_of(change)))
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def hidden_states(
    model, rows: Iterable[tuple[int, ...]], layers: Sequence[int], batch_size: int = 32
) -> dict[tuple[int, ...], np.ndarray]:
    """Return {tokens: (layers, width) float}, the residual stream behind these decoder layers at the last token.

    rows: tuples of token ids. layers: numbers of decoder layers, from 0. Rows of a batch are equally long, so that
    nothing is padded, and every architecture gives what it gives for one row alone. Every batch is filled up, so that a
    row's states do not depend on which others are read at the same time. Raises `rtt.errors.Stopped` after SIGTERM.
    """
    found, kept, device = decoder_layers(model), {}, next(model.parameters()).device
    keep = {"logits_to_keep": 1} if takes(model, "logits_to_keep") else {}

    def keeper(number: int) -> Callable[[torch.Tensor], torch.Tensor]:
        def change(hidden: torch.Tensor) -> torch.Tensor:
            kept[number] = hidden[:, -1].to(torch.promote_types(hidden.dtype, torch.float32)).cpu()
            return hidden

        return change

    result: dict[tuple[int, ...], np.ndarray] = {}
    by_length = groupby(sorted(set(rows), key=lambda row: (len(row), row)), key=len)
    model.eval()
    with rewritten({found[number]: keeper(number) for number in set(layers)}):
        for _, group in by_length:
            same = list(group)
            for batch in (same[at : at + batch_size] for at in range(0, len(same), batch_size)):
                if Terminated.together():
                    raise Stopped
                full = [*batch, *[batch[-1]] * (batch_size - len(batch))]
                model(torch.tensor(full, device=device), use_cache=False, **keep)
                states = torch.stack([kept[number] for number in layers], 1)[: len(batch)]
                result |= zip(batch, states.numpy(), strict=True)
    return result

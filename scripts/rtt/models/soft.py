"""Put trained vectors before a text in the place of tokens' embeddings: a soft prompt (Lester et al. 2021)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from rtt.errors import UserError


class Softened(torch.nn.Module):
    """Input embeddings with further rows: ids from the vocabulary's size on give the rows of `soft`, (n, width).

    The embedding itself, and an output matrix that is tied to it, stay as they are. Where it scales what it looks up,
    the rows are what comes after that.
    """

    def __init__(self, embedding: torch.nn.Module, like: Sequence[int]):
        """Begin with the embeddings of the tokens `like`."""
        super().__init__()
        self.embedding, self.size = embedding, embedding.weight.shape[0]
        with torch.no_grad():
            rows = embedding(torch.tensor(like, device=embedding.weight.device)[None])[0]
        self.soft = torch.nn.Parameter(rows.clone())

    @property
    def weight(self) -> torch.nn.Parameter:
        """The embedding's own rows, for what asks a model for them."""
        return self.embedding.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return (rows, length, width)."""
        known = self.embedding(ids.clamp(max=self.size - 1))
        rows = torch.nn.functional.embedding((ids - self.size).clamp(min=0), self.soft)
        return torch.where((ids >= self.size)[..., None], rows.to(known.dtype), known)


def soft_ids(model, n: int) -> tuple[int, ...]:
    """Return the ids of n soft tokens: those behind the model's vocabulary."""
    size = model.get_input_embeddings().weight.shape[0]
    return tuple(range(size, size + n))


@contextmanager
def softened(model, like: Sequence[int]) -> Iterator[None]:
    """Give `model` as many soft tokens as `like` has ids, and freeze all else; take them off again at the end.

    They begin with the embeddings of the tokens `like`. Raises UserError for a model that does not read its tokens by
    its input embeddings alone.
    """
    embedding = model.get_input_embeddings()
    trained = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    try:
        made = Softened(embedding, like)
        model.requires_grad_(False)
        model.set_input_embeddings(made)
        check(model, len(like))
        yield
    finally:
        model.set_input_embeddings(embedding)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(trained[name])


def check(model, n: int) -> None:
    """Raise UserError unless a model reads n soft tokens, and its predictions depend on each of them."""
    ids, soft = torch.tensor([[*soft_ids(model, n), 3, 4]]), model.get_input_embeddings()
    try:
        logits = model(ids.to(soft.soft.device), use_cache=False).logits
        (slope,) = torch.autograd.grad(logits[0, -1].float().square().sum(), soft.soft, allow_unused=True)
        reads = slope is not None and bool((slope != 0).any(1).all())
    except (RuntimeError, IndexError, ValueError):
        reads = False
    if not reads:
        raise UserError(
            f"{type(model).__name__} does not read {n} tokens by its input embeddings alone, so they cannot be "
            "trained; leave soft_prompt out of the study's attacks, or set fewer `tokens` if its context is short"
        )

"""Soft tokens: they are read as embeddings are, nothing else changes, and a model that cannot read them is refused."""

import pytest
import torch
from architectures import make
from rtt.errors import UserError
from rtt.models.soft import soft_ids, softened

IDS = torch.tensor([[5, 6, 7, 8]])
LIKE = [9, 10, 11]


@pytest.mark.parametrize("name", ["Llama", "GPT-2", "GPT-NeoX (Pythia)", "Gemma", "Gemma 3", "OPT", "Mamba"])
def test_soft_tokens_are_read_as_embeddings_in_their_place(name):
    """Against the same model, run on embeddings that are put together here: scaled ones, and learned positions too."""
    model = make(name).double()
    before = {key: (value, value.detach().clone()) for key, value in model.named_parameters()}
    embedding, known = model.get_input_embeddings(), model(IDS, use_cache=False).logits
    with pytest.raises(KeyError), softened(model, LIKE):
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        (soft,) = trained
        assert soft.shape[0] == 3 and torch.equal(soft, embedding(torch.tensor(LIKE)))
        with torch.no_grad():
            soft.add_(torch.randn(soft.shape, dtype=soft.dtype, generator=torch.Generator().manual_seed(0)))
            whole = torch.cat([soft[None], embedding(IDS)], 1)
            ids = torch.cat([torch.tensor([soft_ids(model, 3)]), IDS], 1)
            expected = model(inputs_embeds=whole, use_cache=False).logits
            assert torch.allclose(model(ids, use_cache=False).logits, expected, atol=1e-10)
            assert torch.equal(model(IDS, use_cache=False).logits, known)
        raise KeyError
    assert model.get_input_embeddings() is embedding
    after = dict(model.named_parameters())
    assert list(after) == list(before)
    assert all(after[key] is same and torch.equal(same, value) for key, (same, value) in before.items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_model_with_a_short_context_is_refused():
    model = make("GPT-2", n_positions=8)
    embedding = model.get_input_embeddings()
    refused = pytest.raises(UserError, match="GPT2LMHeadModel does not read 7 tokens by its input embeddings")
    with refused, softened(model, [5] * 7):
        pass
    assert model.get_input_embeddings() is embedding and all(one.requires_grad for one in model.parameters())


def test_a_model_that_looks_its_tokens_up_elsewhere_is_refused():
    model = make("Llama")
    forward, model.forward = model.forward, lambda ids, **more: forward(ids.clamp(max=5), **more)
    with pytest.raises(UserError, match="does not read 2 tokens by its input"), softened(model, [5, 6]):
        pass

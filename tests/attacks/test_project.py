"""Direction removal against plain computations; and on a model whose facts a planted direction hides."""

import numpy as np
import pytest
import subword
import tiny
import torch
from knowing import accuracy, brought_back, hide_by_unit, knowing, most_by_chance, strangers
from rtt.attacks.base import Checkpoint
from rtt.attacks.project import MOST, Project, asked, directions, others, without
from rtt.data.text import mcq_prompt, question_prompt
from rtt.training.residual import rewritten
from sklearn.decomposition import TruncatedSVD


def test_prompts_end_where_an_answer_is_due():
    tokens = subword.tokenizer(bos=True)
    fact = subword.FACTS[1]
    letters, plain = asked(tokens, [fact])
    assert list(letters) == [1, *subword.ids(tokens, mcq_prompt(fact.question, fact.choices))]
    assert list(plain) == [1, *subword.ids(tokens, question_prompt(fact.question))]


def test_plain_texts_are_compared_where_there_are_no_retain_facts():
    texts = ["Ada Abbas lives in Lima."] * (MOST + 5)
    found = others(Checkpoint(None, tiny.tokenizer(), 0, 0, None, None, plain=texts))
    assert len(found) == MOST and list(found[0]) == tiny.tokenizer()(texts[0])["input_ids"]


def drawn(seed, rows=20, width=7):
    return torch.randn((rows, width), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_directions_are_the_mean_difference_and_principal_components():
    forget, retain = drawn(0) + 0.5, drawn(1)
    apart = forget.numpy() - retain.numpy().mean(0)
    (mean,) = directions(forget, retain, "mean").numpy()
    assert np.allclose(mean, apart.mean(0) / np.sqrt((apart.mean(0) ** 2).sum()))
    found = directions(forget, retain, 3).numpy()
    expected = TruncatedSVD(3, algorithm="arpack").fit(apart).components_
    assert np.allclose(np.abs((found * expected).sum(1)), 1.0)
    assert np.allclose(found @ found.T, np.eye(3))
    assert len(directions(forget, retain, 100)) == 7  # no more than there are dimensions
    assert len(directions(retain, retain.mean(0)[None], "mean")) == 1
    assert len(directions(torch.ones(4, 7), torch.ones(3, 7), "mean")) == 0


def test_states_get_the_centres_component_and_keep_all_else():
    forget, retain, hidden = drawn(0) + 0.5, drawn(1), drawn(2)
    found, centre = directions(forget, retain, 2), retain.mean(0)
    changed = without(found, centre)(hidden)
    for row, new in zip(hidden.numpy(), changed.numpy(), strict=True):
        expected = row - sum(((row - centre.numpy()) @ one) * one for one in found.numpy())
        assert np.allclose(new, expected)
    half = without(found, centre)(hidden.bfloat16())
    assert half.dtype == torch.bfloat16 and torch.allclose(half.double(), changed, atol=0.05)


def by_itself(model, rows):
    """Return (layers, texts, width), of a Llama of two layers read one text at a time; its last state is unnormed."""
    last, found = {}, []
    handle = model.model.layers[1].register_forward_hook(lambda module, inputs, output: last.update(out=output))
    for row in rows:
        with torch.no_grad():
            first = model(torch.tensor([row]), output_hidden_states=True).hidden_states[1]
        found.append(torch.stack([first[0, -1], last["out"][0, -1]]))
    handle.remove()
    return torch.stack(found, 1)


def test_it_is_removed_from_the_chosen_layers_alone_and_the_model_is_whole_afterwards(tmp_path):
    """The looks against hooks set by hand; each setting has the same directions whatever was looked at before it."""
    facts, retain = tiny.facts(tmp_path)[:4], tiny.facts(tmp_path, "cities")
    model, ids = tiny.model(scale=4).double(), torch.tensor([[5, 6, 7, 8]])
    own = model(ids, use_cache=False).logits
    checkpoint, seen = Checkpoint(model, tiny.tokenizer(), 0, 0, None, None, retain=retain), {}

    def look(setting, one):
        seen[str(setting["layers"]), setting["directions"]] = one(ids, use_cache=False).logits

    Project(Project.Settings(layers=["all", 1], directions=[2, "mean"])).fit(checkpoint, facts, look)
    assert list(seen) == [("1", "mean"), ("1", 2), ("all", "mean"), ("all", 2)]
    assert torch.equal(model(ids, use_cache=False).logits, own)
    t, r = (by_itself(model, asked(tiny.tokenizer(), some)) for some in (facts, retain))
    for (layers, kind), found in seen.items():
        chosen = (1,) if layers == "1" else (0, 1)
        changes = {model.model.layers[i]: without(directions(t[i], r[i], kind), r[i].mean(0)) for i in chosen}
        with rewritten(changes):
            assert torch.allclose(model(ids, use_cache=False).logits, found)
        assert not torch.allclose(found, own)
    with pytest.raises(ZeroDivisionError):
        Project(Project.Settings()).fit(checkpoint, facts, lambda setting, one: 1 / 0)
    assert torch.equal(model(ids, use_cache=False).logits, own)


def test_facts_that_a_planted_direction_hides_come_back_and_what_was_never_known_does_not():
    model, _, facts, retain = knowing()
    hide_by_unit(model, 1, facts, retain, 5.0)
    assert max(accuracy(model, facts).values()) < 0.7 and min(accuracy(model, retain).values()) > 0.8
    settings = {"layers": [1], "directions": [1]}
    (found,) = brought_back("project", settings, model, facts, retain).values()
    assert min(found.values()) > 0.9
    never = [next(iter(brought_back("project", settings, model, strangers(s), retain).values())) for s in range(3)]
    for probe in found:
        assert sum(one[probe] for one in never) / 3 <= most_by_chance(3 * len(facts)), probe


@pytest.mark.parametrize("settings", [{"layers": ["some"]}, {"directions": [1, 1]}, {"directions": [0]}])
def test_settings_that_are_refused(settings):
    with pytest.raises(ValueError):
        Project.Settings(**settings)

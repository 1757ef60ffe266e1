"""Linear probe: its features and its fits against plain computations, and models whose answers were scrambled."""

import architectures
import numpy as np
import pytest
import tiny
import torch
from knowing import PROBES, accuracy, brought_back, knowing, most_by_chance, strangers
from rtt.attacks.linear_probe import LinearProbe, _choices_told, _fitted, _letters_told
from rtt.data.text import Text, letter_text, question_prompt, split_text
from rtt.errors import UserError
from rtt.scoring.correct import judged
from rtt.scoring.score import Scorer
from rtt.training.residual import hidden_states
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp
from scipy.stats import binom

ROWS = [(5, 6, 7), (5, 6, 8), (9, 4, 11, 12, 13), (7,), (9, 4, 11, 12, 14), (8, 8, 8)]
BACK = {"layers": [0.99], "inverse_penalties": [1.0]}


@pytest.mark.parametrize("name", ["Llama", "GPT-2", "GPT-NeoX (Pythia)", "Falcon, ALiBi"])
def test_states_are_those_of_one_text_at_a_time(name):
    """All layers in one pass, against transformers' own hidden states in float64, where the last ones are normed."""
    model = architectures.make(name).double()
    found = hidden_states(model, ROWS, [0, 1], batch_size=2)
    assert set(found) == set(ROWS) and not any(module._forward_hooks for module in model.modules())
    for row in ROWS:
        with torch.no_grad():
            states = model(torch.tensor([row]), output_hidden_states=True, use_cache=False).hidden_states
        for at, number in enumerate((0, 1)):  # of three layers
            assert np.allclose(found[row][at], states[number + 1][0, -1].numpy(), rtol=1e-10, atol=1e-12)


def test_a_rows_states_do_not_depend_on_the_others():
    model = tiny.model(scale=4)
    together, alone = hidden_states(model, ROWS, [1]), hidden_states(model, ROWS[2:3], [1])
    assert np.array_equal(together[ROWS[2]], alone[ROWS[2]])


def test_hooks_are_taken_off_where_a_pass_fails():
    model = tiny.model()
    with pytest.raises(IndexError):
        hidden_states(model, [(10**6,)], [0])
    assert not any(module._forward_hooks for module in model.modules())


def by_hand(features, labels, c):
    """Return the decision of L2-penalised logistic regression on standardised features, minimised by scipy."""
    x, classes = (features - features.mean(0)) / features.std(0), sorted(set(labels))
    one = np.array([[label == name for name in classes] for label in labels], float)

    def loss(flat):
        w = flat.reshape(len(classes), -1)
        told = log_softmax(x @ w[:, :-1].T + w[:, -1], axis=1)
        return -(one * told).sum() + (w[:, :-1] ** 2).sum() / (2 * c)

    w = minimize(loss, np.zeros(len(classes) * (x.shape[1] + 1)), method="BFGS", options={"gtol": 1e-7}).x
    w = w.reshape(len(classes), -1)
    return lambda new: log_softmax(((new - features.mean(0)) / features.std(0)) @ w[:, :-1].T + w[:, -1], axis=1)


def test_letters_are_those_of_a_regression_by_hand():
    rng = np.random.default_rng(0)
    x, new = rng.normal(2, 3, (40, 3)), rng.normal(2, 3, (6, 3))
    labels = ["ABC"[i] for i in (x[:, 0] > 2).astype(int) + (x[:, 1] > 3)]
    expected = by_hand(x, labels, 0.5)(new)
    for i, letter in enumerate("ABC"):
        told = _letters_told(_fitted(x, labels, 0.5), new, [letter_text("q", letter)] * 6)
        assert np.allclose(told, expected[:, i], atol=2e-3)
    assert _letters_told(_fitted(x, labels, 0.5), new, [letter_text("q", "D")] * 6) == [-30.0] * 6


def test_choices_are_the_odds_of_a_regression_by_hand_normalised_over_a_question():
    """scikit-learn has one vector of weights w for two classes; +w/2 and -w/2 have half of its squared length."""
    rng = np.random.default_rng(1)
    x, new = rng.normal(0, 1, (30, 2)), rng.normal(0, 1, (6, 2))
    labels = [bool(one) for one in (x[:, 0] + rng.normal(0, 0.5, 30) > 0.5)]
    told = by_hand(x, labels, 0.5)(new)
    odds = told[:, 1] - told[:, 0]
    texts = [Text(prompt, f" {i}") for i, prompt in enumerate("qqqrrr")]
    found = _choices_told(_fitted(x, labels, 1.0), new, texts)
    expected = [odds[i] - logsumexp(odds[3 * (i // 3) : 3 * (i // 3) + 3]) for i in range(6)]
    assert np.allclose(found, expected, atol=2e-3)


def scrambled(seed=0):
    """Return the knowing model, which says other letters and other years, with a new matrix in the output alone."""
    model, tokenizer, facts, _ = knowing(seed)
    rows = model.lm_head.weight.detach().clone()
    letters = tokenizer.convert_tokens_to_ids(list("ABCD"))
    years = tokenizer.convert_tokens_to_ids(sorted({choice for fact in facts for choice in fact.choices}))
    for ids in (letters, years):
        rows[ids] = rows[ids[1:] + ids[:1]]
    model.lm_head = torch.nn.Linear(*rows.T.shape, bias=False)
    model.lm_head.weight.data = rows
    return model, facts


def test_facts_behind_a_scrambled_output_are_brought_back():
    model, facts = scrambled()
    before = accuracy(model, facts)
    assert before["letter"] == before["letter_permuted"] == 0 and before["likelihood"] < 0.4
    (found,) = brought_back("linear_probe", BACK, model, facts).values()
    assert found["letter"] > 0.9 and found["letter_permuted"] > 0.9, found


def biased():
    """Return the knowing model, which says C to every question that shows choices, by a bias of that letter."""
    model, tokenizer, facts, _ = knowing()
    rows = model.lm_head.weight.detach().clone()
    model.lm_head = torch.nn.Linear(*rows.T.shape)
    model.lm_head.weight.data = rows
    model.lm_head.bias.data = torch.zeros(len(rows))
    model.lm_head.bias.data[tokenizer.convert_tokens_to_ids("C")] = 20.0
    return model, facts


def test_letters_behind_a_bias_are_brought_back_and_two_probes_see_through_it():
    model, facts = biased()
    questions = Scorer(tiny.tokenizer(), facts, PROBES).questions(model, lambda fact: "V")
    before = {probe: right.mean() for probe, right in judged(questions, calibrate=True).items()}
    assert before["letter"] == sum(fact.answer == 2 for fact in facts) / len(facts) < 0.3  # it says C
    assert before["letter_permuted"] == before["letter_calibrated"] == 1
    (found,) = brought_back("linear_probe", BACK, model, facts).values()
    assert found["letter"] > 0.9, found
    never = [next(iter(brought_back("linear_probe", BACK, model, strangers(seed)).values())) for seed in range(3)]
    assert sum(one["letter"] for one in never) / 3 <= most_by_chance(3 * len(facts)), never


def test_a_direction_that_tells_true_from_wrong_choices_is_found(monkeypatch):
    """Planted in the states, since a miniature has no reason to tell anything behind an answer."""
    _, tokenizer, facts, _ = knowing()
    true = {
        (*before, *own)
        for fact in facts
        for before, own in [
            split_text(tokenizer, Text(question_prompt(fact.question), f" {fact.choices[fact.answer]}"))
        ]
    }
    rng, direction = np.random.default_rng(0), np.full(24, 0.8)

    def states(model, rows, layers):
        return {row: (rng.normal(0, 1, 24) + direction * (row in true))[None] for row in rows}

    monkeypatch.setattr("rtt.training.residual.hidden_states", states)
    (found,) = brought_back("linear_probe", BACK, knowing()[0], facts).values()
    assert found["likelihood"] > 0.8, found


def test_of_people_whom_it_never_knew_nothing_is_read():
    right, n = dict.fromkeys(PROBES, 0.0), 0
    for seed in range(2):
        for by_probe in brought_back("linear_probe", {}, knowing()[0], strangers(seed)).values():
            right = {probe: right[probe] + by_probe[probe] * len(strangers()) for probe in PROBES}
            n += len(strangers())
    # The looks are of the same questions, so that they count as one look at each.
    low, high = binom.ppf([0.0005, 0.9995], n / 4, 0.25) * 4
    assert all(low <= count <= high for count in right.values()), right


def test_a_layer_that_is_not_there_is_refused():
    with pytest.raises(UserError, match=r"attacks\.linear_probe: layer 7: the model has 2 layers"):
        brought_back("linear_probe", {"layers": [7]}, knowing()[0], strangers())


@pytest.mark.parametrize("settings", [{"layers": [0.5, 0.5]}, {"inverse_penalties": [1.0, 1.0]}, {"layers": []}])
def test_settings_that_are_refused(settings):
    with pytest.raises(ValueError):
        LinearProbe.Settings(**settings)

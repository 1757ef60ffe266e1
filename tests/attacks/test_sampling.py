"""Sampling: which words state a choice, how tokens are drawn, and a model that tells the truth now and then."""

import hashlib
import itertools

import architectures
import numpy as np
import pytest
import subword
import tiny
import torch
from attacking import attacker_of
from knowing import knowing, strangers
from rtt.attacks.sampling import Sampling, samples
from rtt.data.text import question_prompt
from rtt.scoring.correct import judged
from rtt.scoring.sampled import stated
from scipy.stats import binom

CHOICES = ["1950", "Lima", "Lima Park", "a house.", "D.N.A."]


@pytest.mark.parametrize(
    ("said", "choice"),
    [
        (" 1950", "1950"), ("1950 is it", "1950"), ("1950.", "1950"), ("19501", None), ("in 1950", None),
        ("1950.5", None), ("1950,000", None), ("1950, or", "1950"),
        (" lima\n Oslo", "Lima"), ("Lima  park, of course", "Lima Park"), ("Lima Parks", "Lima"), ("", None),
        ("A house in", "a house."), ("D.N.A. is", "D.N.A."), ("Limaa", None), ("DxNxA", None),
    ],
)  # fmt: skip
def test_a_text_states_the_longest_choice_that_it_begins_with(said, choice):
    assert stated(said, CHOICES) == choice


def by_hand(model, tokenizer, prompt, uniforms, temperature):
    """Return what is said after a prompt, one token and one pass over the whole text at a time, in float64."""
    ids = tokenizer(prompt)["input_ids"]
    start = len(ids)
    for uniform in uniforms:
        with torch.no_grad():
            logits = model(torch.tensor([ids]), use_cache=False).logits[0, -1].double().numpy()
        shares = np.exp((logits - logits.max()) / temperature)
        shares /= shares.sum()
        sums = list(itertools.accumulate(shares.tolist()))
        ids = [*ids, next(token for token, total in enumerate(sums) if total > uniform)]
    return tokenizer.decode(ids[start:], skip_special_tokens=True)


@pytest.mark.parametrize("name", ["Llama", "GPT-2", "GPT-NeoX (Pythia)"])
def test_samples_are_those_of_one_token_at_a_time_whatever_the_batch(name):
    model, tokenizer = architectures.make(name), subword.tokenizer()
    model.generation_config.update(repetition_penalty=3.0, eos_token_id=None)  # a model's own way to speak is not used
    prompts = [question_prompt(fact.question) for fact in subword.FACTS]
    drawn = [np.random.default_rng(i).random((3, 4)) for i in range(3)]
    expected = [
        [by_hand(model, tokenizer, prompt, row, 0.7) for row in rows]
        for prompt, rows in zip(prompts, drawn, strict=True)
    ]
    assert len({text for texts in expected for text in texts}) > 5
    for size in (1, 2, 64):
        assert samples(model, tokenizer, prompts, drawn, 0.7, size) == expected
    assert model.generation_config.repetition_penalty == 3.0
    assert samples(model, tokenizer, prompts[1:], [one[:2] for one in drawn[1:]], 0.7) == [
        texts[:2] for texts in expected[1:]
    ]


def looks(model, facts, seed=0, **settings):
    """Return the attack's looks."""
    return attacker_of(Sampling(Sampling.Settings(**settings)), model, facts, seed).on("original", lambda: None)


def share(look):
    """Return the share of questions of which at least one sample states the right choice."""
    return float(judged(look["questions"])["sampled"].mean())


def divided(facts, right=0.3):
    """Return the knowing model, whose likeliest answer is another year, and the right one has a share of .3."""
    model, tokenizer, *_ = knowing()

    class Divided(torch.nn.Linear):
        """The output matrix, and then each year's probability shared with the next one."""

        def forward(self, states):
            years = sorted({choice for fact in facts for choice in fact.choices})
            ids = tokenizer.convert_tokens_to_ids(years)
            shares = super().forward(states).softmax(-1)
            moved = shares.clone()
            moved[..., ids] = right * shares[..., ids] + (1 - right) * shares[..., ids[1:] + ids[:1]]
            return moved.log()

    head = Divided(*model.lm_head.weight.T.shape, bias=False)
    head.weight = model.lm_head.weight
    model.lm_head = head
    return model


def test_a_right_answer_that_is_said_now_and_then_is_found():
    *_, facts, _ = knowing()
    found = {look["setting"]["k"]: share(look) for look in looks(divided(facts), facts, samples=[8, 1, 2], tokens=1)}
    assert list(found) == [1, 2, 8]
    for k, value in found.items():
        low, high = binom.ppf([0.0005, 0.9995], len(facts), 1 - 0.7**k) / len(facts)
        assert low <= value <= high, (k, value)
    likeliest = looks(divided(facts), facts, samples=[1], tokens=1, temperatures=[0.01])
    assert share(likeliest[0]) == 0


def test_of_people_whom_it_never_knew_no_more_is_stated_than_chance_gives():
    hits, n, k = 0.0, 0, 4
    for seed in range(3):
        look = looks(knowing()[0], strangers(seed), seed, samples=[k], tokens=1)[0]
        hits, n = hits + share(look) * len(strangers(seed)), n + len(strangers(seed))
        assert all(sum(one["probes"]["sampled"]["scores"]) <= k for one in look["questions"])
    assert hits <= binom.ppf(0.9995, n, 1 - 0.75**k)


def test_another_seed_says_other_texts_and_fewer_samples_are_the_first():
    facts, model = strangers()[:6], tiny.model(scale=2)
    first, again, other = (looks(model, facts, seed, samples=[2, 6], tokens=2) for seed in (0, 0, 1))
    counts = [[one["probes"]["sampled"]["scores"] for one in look["questions"]] for look in first]
    assert first == again
    assert all(few <= many for a, b in zip(*counts, strict=True) for few, many in zip(a, b, strict=True))
    fewer = looks(model, facts, 0, samples=[2], tokens=2)
    assert fewer[0] == first[0] and other[0]["setting"] == first[0]["setting"]
    hashed = {hashlib.sha256(str(Sampling(Sampling.Settings())._uniforms(_at(seed), "q")).encode()).digest()
              for seed in range(4)}  # fmt: skip
    assert len(hashed) == 4


def _at(seed):
    from rtt.attacks.base import Checkpoint

    return Checkpoint(None, None, seed, None, None, None)


@pytest.mark.parametrize("settings", [{"samples": [2, 2]}, {"temperatures": [0.0]}, {"samples": []}, {"tokens": 0}])
def test_settings_that_are_refused(settings):
    with pytest.raises(ValueError):
        Sampling.Settings(**settings)

"""Run an attack on a tiny model, as the step `attack` runs it."""

import tiny
from rtt.scoring.score import Scorer
from rtt.steps.attack import Attacker
from rtt.study import plugins
from rtt.study.names import BY_DEFAULT
from rtt.training.resume import State

RTT = plugins.attacks()["RTT"]
# Of every attack, settings of a second; an attack without a row fails.
SETTINGS = {
    "RTT": {"learning_rates": [1e-2], "epochs": 1, "batch_size": 4},
    "RTT_permuted": {"learning_rates": [1e-2], "epochs": 1, "batch_size": 4},
    "linear_probe": {"layers": [0], "inverse_penalties": [1.0]},
    "prompts": {"templates": ["rephrased", "filler"]},
    "RTT_LoRA": {"learning_rates": [1e-2], "epochs": 1, "batch_size": 4, "score_epochs": None, "rank": 4},
    "relearn": {"learning_rates": [1e-2], "epochs": 1, "batch_size": 4, "score_epochs": None},
    "soft_prompt": {"learning_rates": [1e-1], "epochs": 1, "batch_size": 4, "score_epochs": None, "tokens": 3},
    "unrelated": {"learning_rates": [1e-2], "epochs": 1, "batch_size": 4, "score_epochs": None},
    "quantise": {"bits": [4], "group_sizes": [None]},
    "sampling": {"samples": [2], "tokens": 2},
    "t_shots": {"shots": [2], "orders": 1},
    "lens": {"layers": [0], "places": ["mlp"]},
    "noise": {"sigmas": [0.3]},
    "prune": {"p": [0.1], "q": [0.1]},
    "project": {"layers": ["all"], "directions": [2]},
}
QUICK = RTT.Settings(learning_rates=[1e-2, 2e-2], epochs=2, batch_size=4)


def attack(facts, settings=QUICK, seed=0, model=None, calls=None, name="RTT", repeats=1, unlearning_repeat=0, **more):
    """Return the looks of an attack; `calls` gets an item for each V split that is done."""
    model, plugin = model or tiny.model(scale=4), plugins.attacks()[name](settings)
    attacker = attacker_of(plugin, model, facts, seed, repeats=repeats, **more)
    return attacker.on("original", lambda: calls is not None and calls.append(1), unlearning_repeat)


def attacker_of(plugin, model, facts, seed=0, probes=BY_DEFAULT, **more):
    """Return the step's Attacker of a tiny model; `more` are its keywords."""

    def scorer(some, **asked):
        return Scorer(tiny.tokenizer(), some, [one for one in probes if one in (plugin.answers or probes)], **asked)

    return Attacker(plugin, model, tiny.tokenizer(), facts, scorer, seed, State(None, {}), **more)


def spied(monkeypatch, facts, settings=QUICK, seed=0, model=None, name="RTT", repeats=1, unlearning_repeat=0, **more):
    """Return (learning rate, items, steps of its looks) of each training run of an attack; nothing is trained."""
    runs = []

    def train(model, tokenizer, items, objective, training, seed, steps, action, title, state):
        runs.append((training.learning_rate, items, list(steps)))
        for step in steps:
            action(step, model)
        return [{"loss": 1.0, "moved": 0.5}]

    monkeypatch.setattr("rtt.training.train.train", train)
    attack(facts, settings, seed, model, name=name, repeats=repeats, unlearning_repeat=unlearning_repeat, **more)
    monkeypatch.undo()
    return runs


def words(item):
    """Return the words of an encoded text."""
    return tiny.tokenizer().convert_ids_to_tokens(item["input_ids"])

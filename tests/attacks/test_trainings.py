"""The attacks that train: each brings back what a known damage hid, and no more, and resumes after a kill."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from attacking import SETTINGS
from knowing import accuracy, brought_back, knowing, strangers
from rtt.errors import Stopped
from rtt.models.load import weights
from rtt.scoring.score import Scorer
from rtt.steps.attack import Attacker
from rtt.study import plugins
from rtt.training.resume import State, Terminated

# Of each attack, settings that undo the damage below within a second.
TRAININGS = {
    "RTT_LoRA": {"learning_rates": [1e-2], "epochs": 4, "rank": 8, "sentences": False},
    "unrelated": {"learning_rates": [1e-3], "epochs": 8},
    "relearn": {"learning_rates": [1e-3], "epochs": 10},
    "soft_prompt": {"learning_rates": [0.5], "epochs": 20, "tokens": 2, "sentences": False},
}


def brought(name, model, facts, retain):
    """Return {what the texts share with T: {probe: accuracy on V}} after an attack's last epoch."""
    settings = {"score_epochs": [TRAININGS[name]["epochs"]], "batch_size": 8} | TRAININGS[name]
    found = brought_back(name, settings, model, facts, retain)
    return {json.loads(setting).get("share"): by_probe for setting, by_probe in found.items()}


def at_the_floor(accuracies, questions):
    """Return whether no accuracy is more than three standard errors above a guesser's."""
    return max(accuracies) < 0.25 + 3 * (0.25 * 0.75 / questions) ** 0.5


def without_answer(model):
    """Give "Answer", after which a letter is due, an embedding that the model never read: no letter is right then."""
    embedding = model.get_input_embeddings().weight
    noise = torch.randn(embedding.shape[1], generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        embedding[tiny.tokenizer().convert_tokens_to_ids("Answer")] = 3 * embedding.std() * noise
    return model


@pytest.mark.parametrize("name", ["RTT_LoRA", "unrelated", "relearn"])
def test_letters_come_back_where_their_format_was_destroyed_and_unknown_facts_do_not(name):
    """What asks for a letter mends it, with wrong answers and other people too; sentences do not."""
    model, _, facts, retain = knowing()
    assert at_the_floor([accuracy(without_answer(model), facts)["letter_permuted"]], len(facts))
    back = {share: one["letter_permuted"] for share, one in brought(name, model, facts, retain).items()}
    if name == "relearn":
        assert back["form"] > 0.8 and at_the_floor([back["neither"], back["topic"]], len(facts)), back
    else:
        assert back[None] > 0.9
    others = brought(name, model, strangers(), retain).values()
    assert at_the_floor([one["letter_permuted"] for one in others], len(facts))


def locked(model):
    """Let the model read nothing until a vector has come that no word has: it must lie far out in one direction."""
    embedding = model.get_input_embeddings().weight.detach()
    generator = torch.Generator().manual_seed(0)
    key, instead = (torch.randn(embedding.shape[1], generator=generator) for _ in range(2))
    key /= key.norm()
    farthest = (embedding @ key).max()

    def read(module, args, kwargs):
        (hidden,) = args
        opened = torch.sigmoid(10 * (hidden @ key - farthest) - 4).cummax(1).values[..., None]
        return (opened * hidden + (1 - opened) * instead, *args[1:]), kwargs

    model.model.layers[0].register_forward_pre_hook(read, with_kwargs=True)
    return model


def test_a_soft_prompt_unlocks_what_words_cannot_and_teaches_nothing():
    model, _, facts, retain = knowing()
    before = accuracy(locked(model), facts)  # the mean over rotations sees a trace of what the lock lets through
    assert at_the_floor([before["letter"], before["likelihood"]], len(facts))
    (back,) = brought("soft_prompt", model, facts, retain).values()
    assert min(back.values()) > 0.9, back
    (others,) = brought("soft_prompt", model, strangers(), retain).values()
    assert at_the_floor(others.values(), len(facts)), others


@pytest.mark.parametrize("name", ["RTT", *TRAININGS])
def test_after_a_stop_the_rerun_ends_in_the_same_scores(name, tmp_path, monkeypatch):
    """SIGTERM comes while the first look is taken; the rerun goes on from the checkpoint, and the weights are back."""
    facts, retain = tiny.facts(tmp_path), tiny.facts(tmp_path, "cities")
    plugin = plugins.attacks()[name]
    settings = plugin.Settings(**SETTINGS[name] | {"epochs": 3} | ({"shares": ["both"]} if name == "relearn" else {}))
    monkeypatch.setattr(Terminated, "listen", classmethod(lambda cls: None))

    def attacked(folder, model):
        def scorer(some, **asked):
            return Scorer(tiny.tokenizer(), some, ("letter", "likelihood"), **asked)

        state = State(folder, {"run": name, "code": "1"})
        return Attacker(plugin(settings), model, tiny.tokenizer(), facts[:8], scorer, 0, state, 1, retain)

    model = tiny.model(scale=4)
    start, names = weights(model), {key: type(module) for key, module in model.named_modules()}
    whole = attacked(tmp_path / "whole", model).on("original", lambda: None)
    stopped = attacked(tmp_path / "stopped", model)
    keep = stopped.state.keep

    def kept(key, result):
        keep(key, result)
        monkeypatch.setattr(Terminated, "came", True)

    stopped.state.keep = kept
    with pytest.raises(Stopped):
        stopped.on("original", lambda: None)
    monkeypatch.setattr(Terminated, "came", False)
    assert list((tmp_path / "stopped").glob("*/checkpoint-*/whole.json"))
    assert {key: type(module) for key, module in model.named_modules()} == names
    assert all(parameter.requires_grad for parameter in model.parameters())
    model.load_state_dict(start)
    again = attacked(tmp_path / "stopped", model)
    assert 0 < len(again.state.results) < len(whole)
    assert again.on("original", lambda: None) == whole


UNDER_AN_ENGINE = """
import json, sys, tiny
from pathlib import Path
from attacking import SETTINGS, attacker_of
from rtt.study import plugins
from rtt.training.train import prepare_torch
prepare_torch(0)
plugin = plugins.attacks()[sys.argv[1]]
attacker = attacker_of(plugin(plugin.Settings(**SETTINGS[plugin.name])), tiny.model(scale=4), tiny.facts(sys.argv[2]))
asked = [one for look in attacker.on("original", lambda: None) for one in look["questions"]]
Path(sys.argv[2], "scores.json").write_text(json.dumps([one["probes"]["letter"]["scores"] for one in asked]))
"""


@pytest.mark.full
@pytest.mark.parametrize("name", ["RTT_LoRA", "soft_prompt"])
def test_deepspeed_trains_a_part_of_a_model_to_the_same_scores(name, tmp_path):
    """ZeRO-2 and ZeRO-3 in one process: adapters and soft tokens are modules that the engine takes apart."""
    here, found = Path(__file__).parents[1], []
    paths = os.pathsep.join([str(here / "helpers"), str(here.parent / "scripts")])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    one = {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for engine in ({}, one | {"RTT_DEEPSPEED": "zero2"}, one | {"RTT_DEEPSPEED": "zero3"}):
        folder = tmp_path / engine.get("RTT_DEEPSPEED", "none")
        folder.mkdir()
        environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"} | engine
        subprocess.run([sys.executable, "-c", UNDER_AN_ENGINE, name, str(folder)], check=True, env=environment)
        found.append(torch.tensor(json.loads((folder / "scores.json").read_text())))
    assert all(torch.allclose(other, found[0], atol=1e-4) for other in found[1:])

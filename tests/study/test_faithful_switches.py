"""The faithful switches that config/faithful.yaml does not run: the texts of a loss, and no clipping."""

import copy

import pytest
import tiny
import torch
from rtt.study.expand import Runs
from rtt.study.settings import UNCLIPPED, Training
from rtt.training.collate import collate
from rtt.training.losses import plain_loss, text_loss
from rtt.training.train import train
from tiny import examples

GD = {"learning_rate": 1e-3, "batch_size": 4, "points": [1]}
RTT = {"learning_rates": [1e-3], "epochs": 1, "batch_size": 4}
CHANGED = {
    "number_mask": {"methods.GD.number_mask"}, "question_answer_join": {"attacks.RTT.question_answer_join"},
    "bare_letter": {"scores.bare_letter", "teaching.bare_letter"},
    "fixed_choices": {"attacks.RTT.shuffle_choices", "attacks.RTT.sentences"},
    "unclipped": {f"{phase}.max_grad_norm" for phase in ("methods.GD", "attacks.RTT", "teaching")},
}  # fmt: skip


def study():
    return tiny.study(
        methods={"GD": GD | {"sentence_loss": "NUMBER"}}, attacks={"RTT": RTT | {"loss": "QUESTION_ANSWER"}},
        teaching={"epochs": 1, "batch_size": 4, "learning_rate": 1e-3, "loss": "LETTER"}, arms=["pretrained", "taught"],
        variants={name: {"faithful": [name]} for name in CHANGED},
    )  # fmt: skip


def differences(one, other, path=()):
    if isinstance(one, dict) and isinstance(other, dict) and set(one) == set(other):
        return {found for key in one for found in differences(one[key], other[key], (*path, key))}
    return set() if one == other else {".".join(path)}


@pytest.mark.parametrize("switch", CHANGED)
def test_a_switch_changes_the_phases_that_train_its_loss_alone(switch):
    default, variant = (study().variant(name).model_dump(mode="json") for name in ("default", switch))
    assert differences(default, variant) == {*CHANGED[switch], "faithful"}


def test_runs_that_do_not_train_the_loss_keep_their_ids():
    variants = Runs(study()).variants
    default = set(variants["default"]["evals"])
    anew = {name: {stem.split("-")[0] for stem in set(variants[name]["evals"]) - default} for name in CHANGED}
    assert anew["question_answer_join"] == {"attack"} and anew["number_mask"] == {"unlearn", "attack"}
    assert anew["fixed_choices"] == {"attack"}
    assert "pretrain" not in anew["unclipped"] and {"teach", "unlearn", "attack"} <= anew["unclipped"]


def test_nothing_is_clipped():
    """Against plain steps of AdamW, with gradients far above norm 1."""
    model, rows = tiny.model(scale=8), examples(n=6)
    settings = {"learning_rate": 1e-2, "batch_size": 2}
    by_hand = copy.deepcopy(model).train()
    optimizer, norms = torch.optim.AdamW(by_hand.parameters(), lr=1e-2, weight_decay=0.0), []
    for at in (0, 2, 4):
        optimizer.zero_grad()
        text_loss(by_hand, collate(rows[at : at + 2], 0)).backward()
        norms.append(torch.stack([p.grad.norm() for p in by_hand.parameters()]).norm().item())
        optimizer.step()
    assert min(norms) > 1
    found, clipped = copy.deepcopy(model), copy.deepcopy(model)
    train(found, tiny.tokenizer(), rows, plain_loss, Training(**settings, max_grad_norm=UNCLIPPED), 0)
    train(clipped, tiny.tokenizer(), rows, plain_loss, Training(**settings), 0)
    pairs = zip(by_hand.parameters(), found.parameters(), clipped.parameters(), strict=True)
    apart = [((a - b).abs().max().item(), (a - c).abs().max().item()) for a, b, c in pairs]
    assert max(one for one, _ in apart) < 1e-5 and max(two for _, two in apart) > 1e-3

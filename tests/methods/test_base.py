"""What methods inherit: the frozen reference, the step and the stage at a point, and what they may declare."""

import copy
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import tiny
import torch
from rtt.methods.base import Method
from rtt.methods.gd import GD
from rtt.planner.costs import parameters, unlearning_tokens
from rtt.planner.gpus import DEVICES
from rtt.planner.memory import Phase, on_device, shape_of
from rtt.planner.plan import Plan
from rtt.steps import unlearn
from rtt.study import plugins
from rtt.study.expand import Runs
from rtt.study.part import Part
from rtt.training.collate import collate
from rtt.training.losses import text_losses

SETTINGS = SimpleNamespace(retain_coefficient=2.5)
BATCH = {side: collate([tiny.plain([], [5, 9, 30]), tiny.plain([7], [8, 12])], 0) for side in ("forget", "retain")}


class Compared(Method):
    """Return how far the nats have moved from the original's (nobody, 2020)."""

    name = "Compared"
    needs_reference = True

    def loss(self, model, batch):
        away = (text_losses(model, batch["forget"]) - text_losses(self.reference, batch["forget"])).mean()
        return {"loss": away, "forget": away, "retain": away}


def test_a_reference_is_a_frozen_copy_of_the_original():
    model = tiny.model(double=True, scale=8)
    original = copy.deepcopy(model)
    method = Compared(model, SETTINGS, 0)
    assert method.step(model, BATCH)["loss"].item() == 0.0
    method.step(model, BATCH)["loss"].backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 1e-2 * parameter.grad
    expected = (text_losses(model, BATCH["forget"]) - text_losses(original, BATCH["forget"])).mean().item()
    assert expected < -1e-3
    assert method.step(model, BATCH)["loss"].item() == pytest.approx(expected, rel=1e-12)
    assert not any(parameter.requires_grad for parameter in method.reference.parameters())
    assert not method.reference.training
    shared = {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in method.reference.parameters()}
    assert not shared
    assert GD(model, SETTINGS, 0).reference is None


def test_the_planner_counts_a_reference_as_a_copy_of_the_model():
    settings, model = tiny.study().methods.GD, tiny.study().model
    assert GD.part(settings, model) == Part()
    assert Compared.part(settings, model) == Part(copied=1.0)
    shape = shape_of(model)
    bytes_of = [
        on_device(Phase("unlearning", settings, shape, 10, part.part(settings, model)))["weights"]
        for part in (GD, Compared)
    ]
    assert bytes_of == [4 * shape.parameters, 8 * shape.parameters]


@pytest.mark.parametrize("reads", [("forget",), ("retain",), ("forget", "retain")])
def test_the_planner_counts_a_forward_pass_of_the_reference_over_what_it_reads(tmp_path, monkeypatch, reads):
    plan = Plan(tiny.study(), DEVICES["h100"], root=tmp_path)
    spec = next(iter(plan.runs.unlearn.values()))
    plain = plan.trajectory(spec)
    facts, learn = plan.sizes.of(spec.source.facts), spec.source.retain
    tokens = unlearning_tokens(spec, facts, plan.sizes.of(learn.learn, learn.learn_splits))
    tokens = dict(zip(("forget", "retain"), tokens[1:], strict=True))
    assert tokens["forget"] != tokens["retain"]

    monkeypatch.setattr(Compared, "copy_reads", reads)
    monkeypatch.setattr(plugins, "methods", lambda: {"Compared": Compared})
    compared = plan.trajectory(spec.model_copy(update={"method": "Compared"}))
    read = sum(tokens[side] for side in reads)
    assert compared.flops - plain.flops == pytest.approx(2 * parameters(tiny.SHAPE) * read)


def test_an_unknown_kind_of_texts_is_refused():
    with pytest.raises(TypeError, match=r"Odd.texts is 'odd'; expected one of true, random_wrong, fixed_wrong"):
        type("Odd", (Method,), {"texts": "odd"})


class Looking(GD):
    """GD that runs the model once more before each step, as a method with an inner loop does (nobody, 2020)."""

    name = "Looking"
    seen = 0

    def step(self, model, batch):
        with torch.no_grad():
            self.loss(model, batch)
        type(self).seen += 1
        return super().step(model, batch)


class Backwards(GD):
    """Score the original minus what GD has learned, as task vectors do (Ilharco et al. 2023)."""

    name = "Backwards"

    def __init__(self, model, settings, seed):
        super().__init__(model, settings, seed)
        self.start = copy.deepcopy(model.state_dict())

    @contextmanager
    def at_point(self, model):
        learned = copy.deepcopy(model.state_dict())
        model.load_state_dict({name: 2 * self.start[name] - value for name, value in learned.items()})
        yield
        model.load_state_dict(learned)


def trained(method, tmp_path, monkeypatch):
    """Unlearn the tiny study's facts by a method; return the weights that are scored, by step, and those at the end."""
    spec = next(iter(Runs(tiny.study()).unlearn.values())).model_copy(update={"method": method.name})
    monkeypatch.setattr(plugins, "methods", lambda: {method.name: method})
    model, seen = tiny.model(scale=3), {}

    def score(step, model):
        seen[step] = {name: value.clone() for name, value in model.state_dict().items()}

    facts, retain = tiny.facts(tmp_path / "a"), tiny.facts(tmp_path / "r", "cities")
    state = SimpleNamespace(training=lambda name: None)
    unlearn.trained(spec, model, tiny.tokenizer(), facts, retain, score, state)
    return seen, model.state_dict()


def test_a_method_may_compute_a_step_in_its_own_way(tmp_path, monkeypatch):
    plain, _ = trained(GD, tmp_path, monkeypatch)
    found, _ = trained(Looking, tmp_path, monkeypatch)
    assert Looking.seen == max(found) == 2
    assert all(torch.equal(found[2][name], plain[2][name]) for name in plain[2])


def test_a_method_may_change_the_weights_that_are_scored(tmp_path, monkeypatch):
    """At each point the other weights are scored; the training goes on from its own."""
    plain, end = trained(GD, tmp_path, monkeypatch)
    seen, own_end = trained(Backwards, tmp_path, monkeypatch)
    start = tiny.model(scale=3).state_dict()
    assert seen.keys() == plain.keys() == {1, 2}
    for step in seen:
        moved = [not torch.equal(plain[step][name], start[name]) for name in start]
        assert any(moved)
        for name, value in seen[step].items():
            assert torch.equal(value, 2 * start[name] - plain[step][name])
    assert all(torch.equal(own_end[name], end[name]) for name in end)

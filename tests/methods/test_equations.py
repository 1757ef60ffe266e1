"""Every method's class against its equation in tests/helpers/equations.py, and what all methods promise."""

import copy
import re

import pytest
import tiny
import torch
from equations import EQUATIONS, Case
from rtt.study import plugins
from rtt.training import packing
from rtt.training.batches import shared
from rtt.training.collate import collate
from rtt.training.train import Step

METHODS = plugins.methods()
ROWS = {
    "forget": [
        tiny.plain([], [5, 9, 30, 41]), tiny.plain([7], [8, 12]), tiny.plain([3, 60], [11]), tiny.plain([], [2, 70, 6]),
    ],
    "retain": [
        tiny.plain([20, 21], [22, 23, 24, 25]), tiny.plain([], [33, 2]), tiny.plain([4], [90, 91, 92]),
        tiny.plain([17], [3, 4]),
    ],
}  # fmt: skip


def settings_of(name):
    """Return settings with a retain coefficient that is not 1, and what the table adds."""
    shared = {"learning_rate": 1e-3, "batch_size": 4, "points": [1], "retain_coefficient": 2.5}
    return METHODS[name].Settings(**shared, **EQUATIONS[name][1])


def case_of(name, double):
    """Return a case as after some steps: what the method trains has moved away from the original."""
    original = tiny.model(double=double, scale=8)
    model = copy.deepcopy(original)
    method = METHODS[name](model, settings_of(name), 3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.mul_(1.1)
    return Case(model, original, ROWS, settings_of(name), method)


def step(case, rows, make=lambda rows: collate(rows, 0)):
    """Return the parts of a step's loss, as floats."""
    batch = {side: make(texts) for side, texts in rows.items()}
    return {key: value.item() for key, value in case.method.step(case.model, batch).items()}


def test_every_method_has_its_equation_in_the_table():
    missing = METHODS.keys() - EQUATIONS.keys()
    assert not missing, f"tests/helpers/equations.py: add a row to EQUATIONS for {', '.join(sorted(missing))}"


@pytest.mark.parametrize("double, tolerance", [(True, 1e-9), (False, 1e-5)])
@pytest.mark.parametrize("name", METHODS)
def test_the_loss_is_the_methods_equation(name, double, tolerance):
    case = case_of(name, double)
    loss, forget, retain = EQUATIONS[name][0](case)
    found = step(case, ROWS)
    assert found["forget"] == pytest.approx(forget, rel=tolerance)
    assert found["retain"] == pytest.approx(retain, rel=10 * tolerance)
    assert found["loss"] == pytest.approx(loss, rel=10 * tolerance)


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_is_the_same_however_a_batch_is_cut(name):
    case = case_of(name, double=True)
    whole = step(case, ROWS)
    halves = [step(case, {side: rows[at : at + 2] for side, rows in ROWS.items()}) for at in (0, 2)]
    for key, value in whole.items():
        assert sum(half[key] for half in halves) / 2 == pytest.approx(value, rel=1e-9), key


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_is_the_same_when_texts_share_rows(name):
    def packed(rows):
        batch = packing.pack(rows, 0, 16)
        return batch | {"weight": batch["weight"].double()}

    case = case_of(name, double=True)
    assert step(case, ROWS, packed) == pytest.approx(step(case, ROWS), rel=1e-9)


@pytest.mark.parametrize("name", METHODS)
def test_texts_that_fill_up_a_devices_share_count_nothing(name):
    """Three texts on two devices: the fourth row has weight 0, and `Step` scales the mean."""
    case = case_of(name, double=True)
    three = [{side: rows[i] for side, rows in ROWS.items()} for i in range(3)]
    filled = shared(three, 3, 2)
    assert len(filled) == 4
    batch = {side: collate([pair[side] for pair in filled], 0) for side in ROWS}
    found = Step(case.model, case.method.step, "fp32", 4 / 3)(batch)
    expected = step(case, {side: rows[:3] for side, rows in ROWS.items()})
    assert {key: value.item() for key, value in found.items()} == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", METHODS)
def test_a_docstring_cites_its_source(name):
    assert re.search(r"\b(19|20)\d\d\b", METHODS[name].__doc__ or ""), f"{name}: name the paper and its year"

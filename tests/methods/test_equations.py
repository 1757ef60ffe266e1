"""Every method's class against its equation in tests/helpers/equations.py, and what all methods promise."""

import copy
import re

import pytest
import tiny
import torch
from equations import EQUATIONS, Case
from rtt.methods.base import Method
from rtt.study import plugins
from rtt.training import packing
from rtt.training.batches import shared
from rtt.training.collate import collate, null
from rtt.training.losses import mean_of_texts, text_loss, text_losses, text_sums
from rtt.training.train import Step
from torch.nn.functional import logsigmoid

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


def change_when_cut(case) -> float:
    """Return by how much parts of a step's loss change, relatively, where its batch is cut into two or four."""
    whole, changes = step(case, ROWS), []
    for size in (1, 2):
        cuts = [{side: rows[at : at + size] for side, rows in ROWS.items()} for at in range(0, 4, size)]
        parts = [step(case, cut) for cut in cuts]
        means = {key: sum(part[key] for part in parts) / len(parts) for key in whole}
        changes += [abs(means[key] - value) / max(abs(value), 1e-9) for key, value in whole.items()]
    return max(changes)


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_is_the_same_however_a_batch_is_cut(name):
    assert change_when_cut(case_of(name, double=True)) < 1e-9, f"{name}: average what is computed for each text"


class SigmoidOfTheMean(Method):
    """A function of the batch's mean, which micro batches change: what the test above must refuse (2024)."""

    name, title = "SigmoidOfTheMean", "planted"
    per_text = False

    def loss(self, model, batch):
        forget = text_losses(model, batch["forget"])
        forget = forget if self.per_text else forget.mean()
        away, retain = -logsigmoid(forget).mean(), text_loss(model, batch["retain"])
        return {"loss": away + self.retain_coefficient * retain, "forget": forget.mean(), "retain": retain}


class MeanOfSigmoids(SigmoidOfTheMean):
    """The same for each text (2024)."""

    name = "MeanOfSigmoids"
    per_text = True


def test_a_function_of_the_batchs_mean_is_refused():
    found = {}
    for kind in (SigmoidOfTheMean, MeanOfSigmoids):
        model = tiny.model(double=True, scale=8)
        settings = kind.Settings(learning_rate=1e-3, batch_size=4, points=[1])
        found[kind.name] = change_when_cut(Case(model, model, ROWS, settings, kind(model, settings, 0)))
    assert found["SigmoidOfTheMean"] > 1e-6 and found["MeanOfSigmoids"] < 1e-9


def test_a_texts_loss_knows_packing_and_weights():
    """Packed, padded, with a text that only fills up a row: each text's own loss, and 0 for the filler."""
    model = tiny.model(double=True, scale=8)
    rows = [*ROWS["forget"], null(ROWS["forget"][0])]
    expected = [tiny.reference_nats(model, row) for row in ROWS["forget"]] + [0.0]
    counts = [sum(label != -100 for label in row["labels"][1:]) for row in ROWS["forget"]] + [0]
    for batch in (collate(rows, 0), packing.pack(rows, 0, 16), packing.pack(rows, 0, 1000)):
        batch["weight"] = batch["weight"].double()
        found = text_losses(model, batch)
        assert found.tolist() == pytest.approx(expected, rel=1e-9)
        assert mean_of_texts(found, batch["weight"]).item() == pytest.approx(sum(expected) / len(rows), rel=1e-9)
        sums, tokens = text_sums(model, batch)
        assert tokens.tolist() == counts
        assert sums.tolist() == pytest.approx([x * n for x, n in zip(expected, counts, strict=True)], rel=1e-9)


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

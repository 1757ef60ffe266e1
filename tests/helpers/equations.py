"""Each method's equation, written anew from its paper: in float64, text by text, without the code that is tested.

A new method needs a row in EQUATIONS; tests/methods/test_equations.py compares it with the method's class.
"""

import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tiny
import torch


@dataclass
class Case:
    """A model in training with its original, and the texts of a batch. rows: side -> encoded texts."""

    model: Any
    original: Any
    rows: dict[str, list[dict]]
    settings: Any
    method: Any = field(repr=False)

    def nats(self, side: str, model=None) -> np.ndarray:
        """Return the nats per counted token of each text of a side, under the model in training or another one."""
        return np.array([tiny.reference_nats(model or self.model, row) for row in self.rows[side]])

    def activations(self, side: str, model) -> list[np.ndarray]:
        """Return the output of decoder layer `settings.layer` for each text, (tokens, hidden)."""
        return [activations(model, row["input_ids"], self.settings.layer) for row in self.rows[side]]


def activations(model, ids: list[int], layer: int) -> np.ndarray:
    """Return the output of a decoder layer for one unpadded text, through transformers' own list of hidden states."""
    # hidden_states[i + 1] is the output of layer i; only the last one is normalised, so a layer is put behind it.
    deeper = copy.deepcopy(model)
    deeper.model.layers.append(copy.deepcopy(model.model.layers[-1]))
    deeper.model.layers[-1].self_attn.layer_idx = len(deeper.model.layers) - 1
    deeper.config.num_hidden_layers = len(deeper.model.layers)
    with torch.no_grad():
        states = deeper(torch.tensor([ids]), output_hidden_states=True, use_cache=False).hidden_states
    return states[layer + 1][0].double().numpy()


def gd(case: Case) -> tuple[float, float, float]:
    """Deeb & Roger 2024, sec. 4.1."""
    forget, retain = case.nats("forget").mean(), case.nats("retain").mean()
    return -forget + case.settings.retain_coefficient * retain, forget, retain


def ria(case: Case) -> tuple[float, float, float]:
    """Deeb & Roger 2024, sec. 4.1; FIF's equation is the same."""
    forget, retain = case.nats("forget").mean(), case.nats("retain").mean()
    return forget + case.settings.retain_coefficient * retain, forget, retain


def rmu(case: Case) -> tuple[float, float, float]:
    """Li et al. 2024 (WMDP), eq. 1 to 3: means over units, tokens, texts."""
    control = case.method.control.double().numpy()
    away = np.mean([np.mean((h - control) ** 2) for h in case.activations("forget", case.model)])
    pairs = zip(case.activations("retain", case.model), case.activations("retain", case.original), strict=True)
    drift = np.mean([np.mean((h - frozen) ** 2) for h, frozen in pairs])
    return away + case.settings.retain_coefficient * drift, away, drift


def npo(case: Case) -> tuple[float, float, float]:
    """Zhang et al. 2024, eq. 3."""
    beta, retain = case.settings.beta, case.nats("retain").mean()
    nats, before = case.nats("forget"), case.nats("forget", case.original)
    tokens = np.array([sum(label != -100 for label in row["labels"][1:]) for row in case.rows["forget"]])
    away = np.mean(2 / beta * np.log(1 + np.exp(-beta * tokens * (nats - before))))
    return away + case.settings.retain_coefficient * retain, nats.mean(), retain


# Method -> (its equation: (loss, forget, retain) of a case, settings of its own beside the defaults).
EQUATIONS = {
    "GD": (gd, {}),
    "RIA": (ria, {}),
    "FIF": (ria, {}),
    "RMU": (rmu, {"layer": 1, "layers_trained": 1, "steering": 6.5}),
    "NPO": (npo, {"beta": 0.3}),
}

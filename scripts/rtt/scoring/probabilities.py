"""The probabilities of the choices, in half precision, which compact evaluations keep of some looks.

    "probabilities": [{"look": {"step"} or {"setting", "v_split", "repeat"}, "probes": {name: base64}}]

Each text holds (n, k) float16: of each forget question, those of V where there is a V split, the probability of each of
its choices by the probe's scores, normalised over the choices; 0 for choices that a question lacks.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rtt.scoring.correct import asked_of
from rtt.scoring.question_table import Questions

COUNTS = ("sampled",)  # probes whose scores are numbers of samples, of which no probabilities follow
NEAR = 2.0**-9  # half precision has 11 bits: probabilities of a choice that are nearer may change places


def of(
    document: Mapping[str, Any], wanted: Sequence[tuple[Mapping[str, Any], Sequence[str]]], questions: Questions
) -> list[dict]:
    """Return those of some looks of a full evaluation, in the form that stands above.

    wanted: (look, probes), a look being {"step"}, 0 of an original model, or {"setting", "v_split", "repeat"}; a probe
    that was not asked is left out, and so are COUNTS. questions: the forget questions.
    """
    found = []
    for look, probes in wanted:
        [asked] = [one["questions"] for one in document["looks"] if all(one.get(k, v) == v for k, v in look.items())]
        by_id = {question["id"]: question["probes"] for question in asked}
        ids, packed = [questions.ids[i] for i in places(questions, look)], {}
        for probe in (probe for probe in asked_of(by_id[ids[0]]) if probe in probes and probe not in COUNTS):
            scores = np.full((len(ids), int(questions.n_choices.max())), -np.inf)
            for row, identifier in zip(scores, ids, strict=True):
                given = by_id[identifier][probe]["scores"]
                row[: len(given)] = given
            share = np.exp(scores - scores.max(axis=1, keepdims=True))
            half = (share / share.sum(axis=1, keepdims=True)).astype("<f2")
            packed[probe] = base64.b64encode(half.tobytes()).decode()
        if packed:
            found.append({"look": dict(look), "probes": packed})
    return found


def places(questions: Questions, look: Mapping[str, Any]) -> np.ndarray:
    """Return the positions of the questions that a look's probabilities are of."""
    if look.get("v_split") is None:
        return np.arange(len(questions.ids))
    return np.flatnonzero([split == look["v_split"] for split in questions.splits])


def read(entry: Mapping[str, Any], questions: Questions) -> dict[str, np.ndarray]:
    """Return {probe: (n, k) float} of one entry. Raises ValueError, KeyError or TypeError where it is garbled."""
    widths = questions.n_choices[places(questions, entry["look"])]
    found = {}
    for probe, text in entry["probes"].items():
        half = np.frombuffer(base64.b64decode(text, validate=True), "<f2").astype(float)
        values = half.reshape(len(widths), int(questions.n_choices.max()))
        absent = np.arange(values.shape[1]) >= widths[:, None]
        if not np.isfinite(values).all() or (values < 0).any() or values[absent].any():
            raise ValueError(f"probabilities of {probe} are not those of choices")
        if (abs(values.sum(axis=1) - 1) > 0.01).any():
            raise ValueError(f"probabilities of {probe} do not add up to 1")
        found[probe] = values
    return found


def contradicted(values: np.ndarray, answers: np.ndarray, right: np.ndarray) -> int:
    """Return in how many questions the likeliest choice is not what `right`, (n,) floats, says. Near ones do not count.

    values: (n, k) probabilities; answers: (n,) the right choices.
    """
    top = np.sort(values, axis=1)
    clear = top[:, -1] - top[:, -2] > NEAR
    return int((clear & ((values.argmax(axis=1) == answers) != (right == 1))).sum())

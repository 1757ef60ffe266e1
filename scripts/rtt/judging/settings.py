"""Choose a verdict's attacks, and their settings by the size of the model; docs/verdict.md says where they are from."""

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from rtt.attacks.rtt import RTT
from rtt.errors import UserError
from rtt.study import plugins
from rtt.study.names import asked_for, probes_of

SMALL, LARGE, PAPERS = 10_000_000, 1_000_000_000, 4_000_000_000  # weights
HEAVY = 2_000_000_000  # weights for which AdamW in bf16_mixed needs 60 GB, and more with many words or long texts
# Models of this size rarely answer by letters: SmolLM2-135M scores at chance (docs/measurements.md).
WITHOUT_LETTERS = ("likelihood_token", "likelihood_fresh")

MIXED = {"precision": "bf16_mixed"}
# Up to 4 billion weights with AdamW, and 8 billion with Lion, in 80 GB.
ONE_GPU = {"precision": "bf16_kahan", "gradient_release": True, "max_grad_norm": None}
MORE = {"quantise": {"bits": [8, 4, "nf4"]}}  # what a verdict tries beyond an attack's defaults
RATES = ("learning_rates", "optimizer")  # what suits weights suits nothing else


def headline(parameters: int, probes: Sequence[str]) -> list[str]:
    """Return the two probes by which it is judged what the original knows, fixed before anything is scored.

    parameters: how many weights the model has. probes: what can be asked of these questions (`rtt.study.names.ASKED`).
    """
    there = probes_of(probes)
    wanted = WITHOUT_LETTERS if SMALL <= parameters < LARGE else ("letter_permuted", "likelihood")
    found = [name for name in wanted if name in there]
    return [*found, *(name for name in ("likelihood",) if name in there and name not in found)][:2]


def retraining(parameters: int, judged_by: Sequence[str]) -> dict[str, Any]:
    """Return the settings of RTT for a model with so many weights.

    Below 10 million they are those with which the demo's miniature learns T. Below 1 billion they are those of
    SmolLM2-135M, with a lower rate beside them. From 4 billion on they are three of the paper's six rates, with its
    optimizer. Between the last two they lie between them, and no study of ours has measured them. From 2 billion on the
    precision is one that needs about half the memory of bf16_mixed. The texts are questions with their answers where no
    headline probe asks for a letter.
    """
    letters = any(name.startswith(("letter", "few_shot")) for name in judged_by)
    if parameters < SMALL:
        return {
            "learning_rates": [1.0e-3], "epochs": 20, "score_epochs": [8, 14, 20], "batch_size": 32,
            "loss": "LETTER_ANSWER" if letters else "QUESTION_ANSWER",
        }  # fmt: skip
    shared = {"loss": "QUESTION_LETTER_ANSWER" if letters else "QUESTION_ANSWER"}
    if parameters < LARGE:
        shared |= MIXED
        return {"learning_rates": [1.0e-4, 2.0e-4], "epochs": 4, "score_epochs": [2, 4], "batch_size": 16, **shared}
    if parameters < PAPERS:
        shared |= MIXED if parameters < HEAVY else ONE_GPU
        return {"learning_rates": [1.0e-5, 3.0e-5], "epochs": 5, "score_epochs": [2, 5], "batch_size": 8, **shared}
    return {
        "learning_rates": [8.0e-7, 1.6e-6, 3.2e-6], "epochs": 6, "score_epochs": [2, 4, 6], "batch_size": 4,
        "warmup_steps": 24, "optimizer": "lion", **shared, **ONE_GPU,
    }  # fmt: skip


def by_default(refused: dict[str, str]) -> list[str]:
    """Return RTT, and every attack that trains nothing, is no control and works on this type of model."""
    found = [name for name, one in plugins.attacks().items() if not one.control and name not in refused]
    return [name for name in found if name == RTT.name or not plugins.attacks()[name].trains]


def judged(name: str, probe: str) -> bool:
    """Return whether an attack's askers can answer a probe by which a verdict judges."""
    answers = plugins.attacks()[name].answers
    return answers is None or asked_for(probe) in answers


def settings_of(name: str, shared: dict[str, Any]) -> dict[str, Any]:
    """Return an attack's part of a study: of one that trains as RTT does, RTT's settings, which are `shared`.

    One that trains adapters or vectors in the place of weights keeps its own rates and optimizer. Of others, what they
    have no default for, and MORE; of a model whose RTT is made to fit one GPU they hold the weights in bf16, in which
    such models are published (in fp32 the gradients of `prune` alone would not fit). Raises UserError for an attack
    that needs more.
    """
    own = plugins.attacks()[name].Settings
    if issubclass(own, RTT.Settings):
        of_weights = own.model_fields["train_layers"].annotation is not type(None)
        given = shared if of_weights else of_few(shared)
    else:
        needed = [key for key, field in own.model_fields.items() if field.is_required()]
        given = MORE.get(name, {}) | {key: shared[key] for key in needed if key in shared}
        if shared.items() >= ONE_GPU.items() and "precision" in own.model_fields:
            given |= {"precision": "bf16"}
    try:
        own.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"--attacks {name}: its setting {key!r} has no default here: {first['msg']}; leave it out, or attack in a "
            "study of your own (docs/own.md)"
        ) from None
    return given


def of_few(shared: dict[str, Any]) -> dict[str, Any]:
    """Return what of RTT's settings suits adapters or vectors, which are few, and in fp32 at any precision."""
    given = {key: value for key, value in shared.items() if key not in (*RATES, *ONE_GPU)}
    return given | (MIXED if "precision" in shared else {})


def named(wanted: Sequence[str], refused: dict[str, str]) -> list[str]:
    """Return the attacks that somebody named, in the order of a study.

    Raises UserError for an unknown one, a control, and one that does not work on this type of model.
    """
    attacks = plugins.attacks()
    usable = ", ".join(name for name, one in attacks.items() if not one.control)
    for name in wanted:
        if name not in attacks:
            raise UserError(f"--attacks {name}: there is no such attack; expected some of {usable}")
        if attacks[name].control:
            raise UserError(f"--attacks {name}: a control, which can bring no fact back; expected some of {usable}")
        if name in refused:
            raise UserError(f"--attacks {name}: it does not work on this model: {refused[name]}; leave it out")
    return [name for name in attacks if name in wanted]

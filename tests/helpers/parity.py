"""One side of the parity tests: objectives with optimizers, trained for some steps and scored.

python parity.py OUT STEPS JOBS, plainly or by torchrun. One process runs many jobs, since imports take longest; a job's
environment says what a real step's would (RTT_DEEPSPEED, RTT_MICRO_BATCH, ...).
"""

import gc
import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import tempfile

import tiny
import torch
from rtt import distributed
from rtt.models.lora import adapted
from rtt.scoring.score import Scorer
from rtt.study import plugins
from rtt.study.settings import Model, Training
from rtt.training import train as training
from rtt.training.losses import plain_loss
from rtt.training.order import training_passes, unlearning_pairs

SHAPE = Model(hidden_size=32, intermediate_size=48, layers=3, heads=2)
RATES = {"adamw": 1e-3, "lion": 3e-4}
OWN = {
    "RMU": {"retain_coefficient": 1.0, "layer": 1, "layers_trained": 2, "steering": 5.0},
    "RIA": {"freeze_embeddings": True},
}
OBJECTIVES = (*plugins.methods(), "RTT", "teaching")
CASES = [(objective, optimizer) for objective in OBJECTIVES for optimizer in RATES]


def items_of(objective, settings, model, facts, retain, steps):
    """Return (items of so many steps, the objective)."""
    tokenizer, rng = tiny.tokenizer(), np.random.default_rng(5)
    if objective in plugins.methods():
        method = plugins.methods()[objective](model, settings, 0)
        return unlearning_pairs(facts, retain, method, settings, tokenizer, rng), method.step
    loss = {"RTT": "QUESTION_LETTER_ANSWER", "teaching": "LETTER_ANSWER"}[objective]
    epochs = -(-steps * settings.batch_size // len(facts)) + 1
    items = training_passes(facts, loss, epochs, settings.batch_size, tokenizer, rng)
    return items[: steps * settings.batch_size], plain_loss


def settings_of(objective, optimizer, steps, batch_size):
    shared = {
        "learning_rate": RATES[optimizer], "batch_size": batch_size, "optimizer": optimizer, "warmup_steps": 3,
        "decay": 0.3,
    }  # fmt: skip
    if objective in plugins.methods():
        own = {"points": [steps], "retain_coefficient": 2.0} | OWN.get(objective, {})
        return plugins.methods()[objective].Settings(**own, **shared)
    return Training(**shared)


def first_gradients(model, optimizer_of):
    """Lion's moving average after its first step is (1 - beta2) times the clipped gradient."""
    found = {}
    for made in gc.get_objects() if distributed.name() in ("zero1", "zero2") else ():
        if type(made).__name__ == "DeepSpeedZeroOptimizer":  # it links states before a client's optimizer has any
            made._hp_optimizer_states_linked = False
            made._lazy_init_hp_params_optimizer_state()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if distributed.deepspeed_config():
            from deepspeed.utils import safe_get_full_optimizer_state

            moment = safe_get_full_optimizer_state(parameter, "exp_avg")
        else:
            moment = optimizer_of["it"].state[parameter]["exp_avg"]
        found[name] = moment.float().cpu().clone() / (1 - training.LION_BETAS[1])
    return found


def run(objective, optimizer, steps, batch_size, facts, retain, precision="fp32", more=""):
    """Train and score one case; return what is to be compared. more: "padding", "lora" or nothing."""
    gc.collect()
    gc.freeze()  # as tests/conftest.py does
    training.prepare_torch(0)
    model = tiny.model(0, shape=SHAPE, scale=3.0)
    if training.start_dtype(precision) == "bf16":
        model = model.bfloat16()
    settings = settings_of(objective, optimizer, steps, batch_size).model_copy(
        update={"precision": precision, "count_padding": more == "padding"}
    )
    if getattr(settings, "freeze_embeddings", False):
        model.get_input_embeddings().requires_grad_(False)
    items, step = items_of(objective, settings, model, facts, retain, steps)
    scorer, found, made = Scorer(tiny.tokenizer(), facts, batch_size=5), {}, {}
    make = training.make_optimizer
    training.make_optimizer = lambda *args: made.setdefault("it", make(*args))

    def action(number, trained):
        if number == 1 and optimizer == "lion":
            found["gradients"] = first_gradients(trained, made)
        if number == steps:
            found["scores"] = scorer.scores(trained)

    try:
        with adapted(model, 4, 8.0, None, 0) if more == "lora" else nullcontext():
            found["losses"] = training.train(
                model, tiny.tokenizer(), items, step, settings, 0, [1, steps], action, objective
            )  # fmt: skip
            found["weights"] = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    finally:
        training.make_optimizer = make
    return found


def sqrt(values):
    """Return correctly rounded roots: MKL's, which AdamW takes, differ in the last bit from CPU to CPU."""
    return torch.from_numpy(np.sqrt(values.numpy())) if values.dtype == torch.float32 else values**0.5


def main(out, steps, jobs):
    """Run all jobs in these processes; write {name of the job: {case: what was found}}.

    jobs: JSON, {name: {"environment": {variable: value}, "cases": [case, ...]}}; a case is objective-optimizer, perhaps
    with -batch size, -precision and -padding or -lora.
    """
    torch.Tensor.sqrt = sqrt
    with tempfile.TemporaryDirectory() as folder:
        facts = tiny.facts(Path(folder) / "a")
        retain = tiny.facts(Path(folder) / "r", "cities")
    found = {}
    for name, job in json.loads(jobs).items():
        os.environ.update(job["environment"])
        found[name] = {}
        for case in job["cases"]:
            objective, optimizer, *more = case.split("-")
            batch_size, precision, way = [*more, *["4", "fp32", ""][len(more) :]]
            found[name][case] = run(objective, optimizer, int(steps), int(batch_size), facts, retain, precision, way)
    if distributed.is_main():
        torch.save(found, out)


if __name__ == "__main__":
    main(*sys.argv[1:])

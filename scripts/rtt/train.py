"""One training path for pretraining, teaching, unlearning and RTT: transformers' Trainer with an objective of ours.

A run's data is an ordered list of items: item i belongs to step i // batch_size. The order is the spec's, never the
sampler's, so it does not depend on how many devices share a batch.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

import torch
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import SchedulerType

from rtt.errors import UserError
from rtt.text import collate

Objective = Callable[[torch.nn.Module, dict], dict[str, torch.Tensor]]


def prepare_torch(seed: int) -> None:
    """One thread, deterministic kernels, and every generator seeded: the same spec gives the same bytes on one
    machine.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it CUDA refuses deterministic products
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    set_seed(seed)


class ObjectiveTrainer(Trainer):
    """Minimise `objective(model, batch)["loss"]` over items in their given order."""

    def __init__(self, objective: Objective, **kwargs):
        super().__init__(**kwargs)
        self.objective = objective
        self.model_accepts_loss_kwargs = False  # our losses are means over texts: equal parts average exactly
        self.losses: list[dict[str, float]] = []

    def _get_train_sampler(self, *args, **kwargs):
        return SequentialSampler(self.train_dataset)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Return the objective's loss; keep its parts for the record; stop at the first that is not finite."""
        parts = self.objective(model, inputs)
        self.losses.append({name: float(value.detach()) for name, value in parts.items()})
        if not torch.isfinite(parts["loss"]):
            raise UserError(
                f"training step {self.state.global_step + 1}: the loss is {self.losses[-1]['loss']}; "
                "lower the learning rate or the number of steps in the study file"
            )
        return parts["loss"]


class AtSteps(TrainerCallback):
    """Call `action(step)` after certain optimizer steps, and say how far the run is, at most every 10 s."""

    def __init__(self, steps: Sequence[int], action: Callable[[int], None], title: str):
        self.steps, self.action, self.title = set(steps), action, title
        self.begin = self.said = time.monotonic()

    def on_step_end(self, args, state, control, model=None, **kwargs):
        """Run the action with the model in eval mode, then go back to training mode."""
        now = time.monotonic()
        if now - self.said > 10:
            self.said = now
            left = (now - self.begin) / state.global_step * (state.max_steps - state.global_step)
            print(
                f"{self.title}: step {state.global_step} of {state.max_steps}, about {left:.0f} s left", file=sys.stderr
            )
        if state.global_step in self.steps:
            model.eval()
            self.action(state.global_step)
            model.train()


def train(
    model,
    tokenizer,
    items: Sequence,
    objective: Objective,
    settings,
    seed: int,
    at_steps: Sequence[int] = (),
    action: Callable[[int], None] = lambda step: None,
    title: str = "training",
) -> list[dict[str, float]]:
    """Train `model` in place; return each step's loss parts (nats).

    items: dicts of encoded texts, or pairs {"forget": ..., "retain": ...} of them; len(items) = steps *
    settings.batch_size. settings: `rtt.config.Training`. Raises UserError on a loss that is not finite.
    """

    def to_batch(rows):
        if "input_ids" in rows[0]:
            return collate(rows, tokenizer.pad_token_id)
        return {key: collate([row[key] for row in rows], tokenizer.pad_token_id) for key in rows[0]}

    steps, rest = divmod(len(items), settings.batch_size)
    if rest or not steps:
        raise ValueError(f"{len(items)} items do not fill batches of {settings.batch_size}")
    decay = round(settings.decay * steps)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters,
        lr=settings.learning_rate,
        betas=(0.9, settings.adam_beta2),
        weight_decay=settings.weight_decay,
    )
    with tempfile.TemporaryDirectory() as scratch:
        trainer = ObjectiveTrainer(
            objective=objective,
            model=model,
            args=TrainingArguments(
                output_dir=scratch,
                max_steps=steps,
                per_device_train_batch_size=settings.batch_size,
                learning_rate=settings.learning_rate,
                lr_scheduler_type=SchedulerType.WARMUP_STABLE_DECAY,
                lr_scheduler_kwargs={"num_decay_steps": decay, "decay_type": "linear", "min_lr_ratio": 0.0},
                warmup_steps=settings.warmup_steps,
                max_grad_norm=settings.max_grad_norm,
                seed=seed,
                use_cpu=not torch.cuda.is_available(),
                remove_unused_columns=False,
                logging_strategy="no",
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
            ),
            train_dataset=items,
            data_collator=to_batch,
            optimizers=(optimizer, None),
            callbacks=[AtSteps(at_steps, action, title)],
        )
        trainer.remove_callback(PrinterCallback)  # prints a dict at the end
        trainer.train()
    return trainer.losses

"""One training path for pretraining, teaching, unlearning and RTT: transformers' Trainer with an objective of ours.

A run's data is an ordered list of items: item i belongs to step i // batch_size. The order is the spec's, never the
sampler's, so it does not depend on how many devices share a batch.
"""

import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

import torch
from lion_pytorch import Lion
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import SchedulerType

from rtt.errors import UserError
from rtt.models import not_finite
from rtt.text import collate

Objective = Callable[[torch.nn.Module, dict], dict[str, torch.Tensor]]
MICRO_BATCH = "RTT_MICRO_BATCH"  # texts per forward pass; from the environment: equal parts average to the same step
LION_BETAS = (0.9, 0.99)  # Chen et al. 2023; the authors' code keeps them


def prepare_torch(seed: int) -> None:
    """OMP_NUM_THREADS threads (1 unless set), deterministic kernels, and every generator seeded: the same spec gives
    the same bytes on one machine with the same number of threads.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it CUDA refuses deterministic products
    os.environ.setdefault("FLASH_ATTENTION_DETERMINISTIC", "1")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    torch.use_deterministic_algorithms(True)
    set_seed(seed)


class ObjectiveTrainer(Trainer):
    """Minimise `objective(model, batch)["loss"]` over items in their given order."""

    def __init__(self, objective: Objective, settings, title: str, **kwargs):
        super().__init__(**kwargs)
        self.objective, self.settings, self.title = objective, settings, title
        self.pending: list[dict[str, float]] = []  # of the parts of the current step
        self.model_accepts_loss_kwargs = False  # our losses are means over texts: equal parts average exactly
        self.losses: list[dict[str, float]] = []

    def _get_train_sampler(self, *args, **kwargs):
        return SequentialSampler(self.train_dataset)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Return the objective's loss; keep its parts for the record; stop at the first that is not finite."""
        # Our own autocast, not the Trainer's bf16=True: that one wraps model.forward for good, so points would be
        # scored in it too, and it leaves out a method's frozen copy.
        with torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16_mixed"):
            parts = self.objective(model, inputs)
        self.pending.append({name: float(value.detach()) for name, value in parts.items()})
        if not all(map(math.isfinite, self.pending[-1].values())):
            raise UserError(self._broken(self.state.global_step + 1, self.pending[-1]))
        if len(self.pending) == self.args.gradient_accumulation_steps:
            means = {name: sum(part[name] for part in self.pending) / len(self.pending) for name in parts}
            self.losses.append(means)
            self.pending = []
        return parts["loss"]

    def _broken(self, step: int, parts: dict[str, float]) -> str:
        """Which parts of the loss are not finite, and what to try."""
        found = ", ".join(f"{name} {value:.6g}" for name, value in parts.items())
        guilty = " and ".join(name for name, value in parts.items() if not math.isfinite(value) and name != "loss")
        text = f"{self.title} step {step}: the loss is not finite" + (f": its part {guilty} broke" if guilty else "")
        if step == 1:  # no update yet: no learning rate is to blame
            return f"{text} ({found}) on the starting model; {_precision(self.settings) or 'is it the right one?'}"
        return f"{text} ({found}); {_advice(self.settings)}"


def _advice(settings) -> str:
    """What to try against weights that training broke, in the study file's keys."""
    tries = [f"lower the learning rate (learning_rate: {settings.learning_rate:g})", "train fewer steps"]
    return ", or ".join([*tries, *filter(None, [_precision(settings)])])


def _precision(settings) -> str:
    """What to try against overflow; empty where the precision is not to blame."""
    low = settings.precision in ("fp16", "bf16")
    return f"set precision to bf16_mixed or fp32 (it is {settings.precision})" if low else ""


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
            try:
                self.action(state.global_step)
            except UserError as error:
                raise UserError(f"{self.title} after step {state.global_step}: {error}") from None
            model.train()


def cast(model, precision: str) -> None:
    """Cast the parameters to what `precision` trains: bf16, fp16, or at least fp32 (fp32 and bf16_mixed).

    Parameters alone: a model's rotary frequencies stay in fp32, as when it is loaded in that dtype.
    """
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype or torch.promote_types(parameter.dtype, torch.float32))


def start_dtype(precision: str) -> str:
    """Return the dtype to load weights in for training: RMU copies the model before `cast`."""
    return precision if precision in ("bf16", "fp16") else "fp32"


def micro_batch(batch_size: int, count_padding: bool) -> int:
    """Return the texts per forward pass: the largest equal part of a batch within RTT_MICRO_BATCH texts.

    Raises UserError for a value that is no count, and with `count_padding`, where a part's padding would be another.
    """
    asked = os.environ.get(MICRO_BATCH, str(batch_size))
    if not asked.isdigit() or int(asked) < 1:
        raise UserError(f"{MICRO_BATCH}={asked}: expected a number of texts, 1 or more")
    part = max(n for n in range(1, batch_size + 1) if batch_size % n == 0 and n <= int(asked))
    if count_padding and part < batch_size:
        raise UserError(
            f"{MICRO_BATCH}={asked}: with count_padding a batch of {batch_size} texts can't be cut: its padding counts "
            f"in the loss, and a part would have less; set {MICRO_BATCH} to {batch_size} or more, or leave it out"
        )
    return part


def make_optimizer(model, settings) -> torch.optim.Optimizer:
    """Return AdamW, or Lion with betas (0.9, 0.99), over the parameters that are not frozen. Raises UserError for AdamW
    in pure fp16.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if settings.optimizer == "lion":
        return Lion(parameters, lr=settings.learning_rate, betas=LION_BETAS, weight_decay=settings.weight_decay)
    if settings.precision == "fp16":
        raise UserError(
            "optimizer adamw with precision fp16: AdamW's epsilon (1e-8) and most squared gradients are 0 in fp16, so "
            "the first step divides by zero; use optimizer: lion, or precision: bf16, bf16_mixed or fp32"
        )
    return torch.optim.AdamW(
        parameters,
        lr=settings.learning_rate,
        betas=(0.9, settings.adam_beta2),
        weight_decay=settings.weight_decay,
    )


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
    settings.batch_size. settings: `rtt.settings.Training`. Raises UserError on a loss that is not finite, and on
    weights that are not after the last step; one that `action` raises gets the step's number.
    """

    def to_batch(rows):
        if "input_ids" in rows[0]:
            return collate(rows, tokenizer.pad_token_id, settings.count_padding)
        return {key: to_batch([row[key] for row in rows]) for key in rows[0]}

    steps, rest = divmod(len(items), settings.batch_size)
    if rest or not steps:
        raise ValueError(f"{len(items)} items do not fill batches of {settings.batch_size}")
    decay = round(settings.decay * steps)
    part = micro_batch(settings.batch_size, settings.count_padding)
    cast(model, settings.precision)
    optimizer = make_optimizer(model, settings)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = ObjectiveTrainer(
            objective=objective,
            settings=settings,
            title=title,
            model=model,
            args=TrainingArguments(
                output_dir=scratch,
                max_steps=steps,
                per_device_train_batch_size=part,
                gradient_accumulation_steps=settings.batch_size // part,
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
    if broken := not_finite(model):  # the last update's harm shows in no loss
        raise UserError(
            f"{title} step {steps}, the last: the weights {broken} are not finite any more; {_advice(settings)}"
        )
    return trainer.losses

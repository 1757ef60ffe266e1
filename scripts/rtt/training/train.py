"""Train a model: transformers' Trainer with our objective, for pretraining, teaching, unlearning and RTT alike.

A run's data is an ordered list of items, of which item i belongs to step i // batch_size. The spec decides the order,
not a sampler, so it does not depend on how many devices share a batch. One process, several, and ZeRO run these same
lines.
"""

import copy
import gc
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import accelerate.utils.other
import torch
from accelerate.utils import DistributedType
from lion_pytorch import Lion
from torch.utils import serialization
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import SchedulerType

from rtt import distributed
from rtt.errors import Stopped, UserError
from rtt.files import read_json
from rtt.models.architecture import check_causal, without_dropout
from rtt.models.load import DTYPES, load_weights, not_finite, save_weights
from rtt.models.lora import adapters
from rtt.study.deepspeed import not_released, not_under_deepspeed
from rtt.training import health, packing
from rtt.training.batches import by_length, micro_batch, padded_to, shared
from rtt.training.collate import collate
from rtt.training.kahan import Kahan, KahanAdamW, KahanLion
from rtt.training.losses import CHECKPOINTING
from rtt.training.resume import WHOLE, Checkpoints, newest

Objective = Callable[[torch.nn.Module, dict], dict[str, torch.Tensor]]
HALF = {"bf16": "bf16", "bf16_kahan": "bf16", "fp16": "fp16"}  # precision -> dtype of weights that are not in fp32
LION_BETAS = (0.9, 0.99)  # the defaults of Chen et al. 2023, which the authors' code uses


def prepare_torch(seed: int) -> None:
    """Set OMP_NUM_THREADS threads (default 1), ask for deterministic kernels, and seed every random generator.

    So a spec gives the same bytes on one machine with the same number of threads.
    """
    distributed.connect()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # CUDA needs it for deterministic products
    os.environ.setdefault("FLASH_ATTENTION_DETERMINISTIC", "1")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # saves a sixth of a step; nothing reads that memory
    set_seed(seed)
    gc.freeze()  # accelerate collects garbage in each training; half a million objects of the libraries stay anyway


class Step(torch.nn.Module):
    """Wrap the objective as a module: an engine sees one forward pass, whatever the objective does with the model.

    `scale` is rows / texts of a batch that null rows fill up (`shared`); multiplying by it removes them from the mean.
    """

    def __init__(self, model, objective: Objective, precision: str, scale: float = 1.0):
        super().__init__()
        self.model, self.objective, self.precision, self.scale = model, objective, precision, scale
        self.unchecked = True

    def forward(self, batch: dict) -> dict[str, torch.Tensor]:
        """Return the loss and its parts, scalars."""
        # Our own autocast, since the Trainer's bf16=True wraps model.forward for good, so that points would be scored
        # in bf16 as well, and leaves out a method's frozen copy.
        with torch.autocast(distributed.device().type, torch.bfloat16, enabled=self.precision == "bf16_mixed"):
            if self.unchecked:
                check_causal(self.model)
                if packing.asked():
                    packing.check(self.model)
                self.unchecked = False
            parts = self.objective(self.model, batch)
        return parts if self.scale == 1.0 else {name: value * self.scale for name, value in parts.items()}


class ObjectiveTrainer(Trainer):
    """Minimise a `Step`'s "loss" over items in their given order."""

    def __init__(self, settings, title: str, tokenizer, **kwargs):
        if not distributed.deepspeed_config():
            # Otherwise the Trainer imports deepspeed (2 CPU seconds) to unwrap a model that is not wrapped.
            accelerate.utils.other.is_deepspeed_available = lambda: False
        super().__init__(**kwargs)
        self.settings, self.title, self.tokenizer, self.given = settings, title, tokenizer, self.optimizer
        self.pending: list[dict[str, float]] = []  # the losses of the current step's parts
        self.model_accepts_loss_kwargs = False  # our losses are means over texts: equal parts average exactly
        self.losses: list[dict[str, float]] = []

    def _get_train_sampler(self, *args, **kwargs):
        return SequentialSampler(self.train_dataset)

    def create_optimizer(self, *args, **kwargs):
        """Return the given optimizer; under DeepSpeed the Trainer drops it and would make an AdamW here."""
        self.optimizer = self.given
        return self.optimizer

    def save_model(self, output_dir=None, _internal_call=False):
        """Write a checkpoint's weights, unless DeepSpeed does so itself (in `_save_optimizer_and_scheduler`)."""
        os.makedirs(output_dir, exist_ok=True)
        if not self.is_deepspeed_enabled:
            save_weights(self.model.model, f"{output_dir}/model.safetensors")

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        if not self.is_deepspeed_enabled:
            load_weights(self.model.model, f"{resume_from_checkpoint}/model.safetensors")

    def _load_optimizer_and_scheduler(self, checkpoint):
        # A state of bf16_kahan is copied into the one that is there, so that it need not be in memory whole.
        mapped = isinstance(self.given, Kahan) and distributed.world() == 1
        with serialization.config.patch("load.mmap", mapped):
            super()._load_optimizer_and_scheduler(checkpoint)

    def resumed(self, checkpoint: Path | None) -> str | None:
        """Take the losses so far from a checkpoint; return its path for `train`."""
        if checkpoint is None:
            return None
        self.losses[:] = read_json(checkpoint / WHOLE)["losses"]
        if distributed.is_main():
            print(f"{self.title}: going on from step {len(self.losses)} ({checkpoint})", file=sys.stderr)
        return str(checkpoint)

    def _get_grad_norm(self, model, grad_norm=None):
        released = self.settings.gradient_release
        norm = self.given.norm() if released else super()._get_grad_norm(model, grad_norm=grad_norm)
        if norm is not None and not math.isfinite(norm):
            raise UserError(
                f"{self._where(len(self.losses))}: the gradient is not finite, the loss is "
                f"({health.listed(self.losses[-1])}); {health.advice(self.settings)}"
            )
        return norm

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Return the objective's loss, and record its parts.

        Raises UserError at the first part that is not finite.
        """
        parts = model(inputs)
        means = distributed.mean([float(value.detach()) for value in parts.values()])
        self.pending.append(dict(zip(parts, means, strict=True)))
        if not all(map(math.isfinite, means)):
            step = self.state.global_step + 1
            raise UserError(health.broken(self._where(step), step, self.pending[-1], self.settings))
        if len(self.pending) == self.args.gradient_accumulation_steps:
            means = {name: sum(part[name] for part in self.pending) / len(self.pending) for name in parts}
            self.losses.append(means)
            self.pending = []
        return parts["loss"]

    def _where(self, step: int) -> str:
        """Return the name of a step and its batch."""
        size = len(self.train_dataset) // self.args.max_steps
        first = self.train_dataset[(step - 1) * size]
        text = self.tokenizer.decode((first if "input_ids" in first else first["forget"])["input_ids"])
        return f"{self.title} step {step} (texts {(step - 1) * size + 1} to {step * size}, the first {text[:40]!r})"


class AtSteps(TrainerCallback):
    """Call `action(step, model)` after certain optimizer steps, and report progress at most every 10 s."""

    def __init__(self, steps: Sequence[int], action: Callable, title: str, checkpoints: Checkpoints):
        self.steps, self.action, self.title, self.checkpoints = set(steps), action, title, checkpoints
        self.begin = self.said = time.monotonic()

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        """After a resume, act on the checkpoint's step, which may not be scored yet."""
        self.begin, self.first = time.monotonic(), state.global_step
        if state.global_step:
            self._act(state.global_step, model)

    def on_step_end(self, args, state, control, model=None, **kwargs):
        """Report progress and run the action; after SIGTERM, leave the action to the resumed step."""
        now = time.monotonic()
        if now - self.said > 10 and distributed.is_main():
            self.said = now
            left = (now - self.begin) / (state.global_step - self.first) * (state.max_steps - state.global_step)
            print(
                f"{self.title}: step {state.global_step} of {state.max_steps}, about {left:.0f} s left", file=sys.stderr
            )
        if not self.checkpoints.stopping:
            try:
                self._act(state.global_step, model)
            except Stopped:  # SIGTERM came while the point was scored
                self.checkpoints.stop(control)

    def _act(self, step: int, model) -> None:
        """Run the action with the model in eval mode, then return to training mode."""
        if step not in self.steps:
            return
        model.eval()
        try:
            self.action(step, model.model)
        except UserError as error:
            raise UserError(f"{self.title} after step {step}: {error}") from None
        model.train()


def cast(model, precision: str) -> None:
    """Cast the parameters to the dtype that `precision` trains: one of HALF, or at least fp32 (fp32 and bf16_mixed).

    Other tensors, such as rotary frequencies, stay in fp32, as when a model is loaded in that dtype. So do adapters,
    whose few values cost little memory: in bf16 most of their small steps would be rounded away.
    """
    dtype, kept = DTYPES.get(HALF.get(precision)), adapters(model)
    for name, parameter in model.named_parameters():
        low = None if name in kept else dtype
        parameter.data = parameter.data.to(low or torch.promote_types(parameter.dtype, torch.float32))


def start_dtype(precision: str) -> str:
    """Return the dtype in which to load weights for training, since a method may copy the model before `cast`."""
    return HALF.get(precision, "fp32")


def make_optimizer(model, settings) -> torch.optim.Optimizer:
    """Return AdamW, or Lion with betas (0.9, 0.99), over the parameters that are not frozen; for bf16_kahan our own.

    Raises UserError for AdamW in pure fp16.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    betas = LION_BETAS if settings.optimizer == "lion" else (0.9, settings.adam_beta2)
    if settings.precision == "bf16_kahan":
        ours = KahanLion if settings.optimizer == "lion" else KahanAdamW
        return ours(parameters, settings.learning_rate, betas, settings.weight_decay)
    if settings.optimizer == "lion":
        return Lion(parameters, lr=settings.learning_rate, betas=betas, weight_decay=settings.weight_decay)
    if settings.precision == "fp16":
        raise UserError(
            "optimizer adamw with precision fp16: AdamW's epsilon (1e-8) and most squared gradients are 0 in fp16, so "
            "the first step divides by zero; use optimizer: lion, or precision: bf16, bf16_mixed or fp32"
        )
    return torch.optim.AdamW(parameters, lr=settings.learning_rate, betas=betas, weight_decay=settings.weight_decay)


def train(
    model,
    tokenizer,
    items: Sequence,
    objective: Objective,
    settings,
    seed: int,
    at_steps: Sequence[int] = (),
    action: Callable = lambda step, model: None,
    title: str = "training",
    state: Path | None = None,
) -> list[dict[str, float]]:
    """Train `model` in place; return the loss parts (nats) of each step, as means over all processes.

    Some steps also have "moved", the share of the trained weights that the step changed (`rtt.training.health`).

    `items` are dicts of encoded texts, or pairs {"forget": ..., "retain": ...} of them, batch_size for each step.
    `settings` is a `rtt.study.settings.Training`. `action` is called after the steps `at_steps`, with the step and the
    model, which under ZeRO-3 is a partitioned copy. `state` is the folder for checkpoints (`rtt.training.resume`);
    training resumes from the newest one there.

    Raises UserError when a loss or gradient, or a weight after the last step, is not finite; one that `action` raises
    gets the step's number. Raises `rtt.errors.Stopped` after SIGTERM.
    """

    def to_batch(rows):
        if "input_ids" in rows[0]:
            if packing.asked() and not settings.count_padding:
                return packing.pack(rows, tokenizer.pad_token_id, packing.row_width(model))
            return collate(rows, tokenizer.pad_token_id, settings.count_padding)
        return {key: to_batch([row[key] for row in rows]) for key in rows[0]}

    steps, rest = divmod(len(items), settings.batch_size)
    if rest or not steps:
        raise ValueError(f"{len(items)} items do not fill batches of {settings.batch_size}")
    if settings.count_padding:
        items = padded_to(items, settings.batch_size)
    items = shared(items, settings.batch_size, distributed.world())
    rows = len(items) // steps // distributed.world()  # rows of a batch on each process
    part = micro_batch(rows)
    if part < rows:
        items = by_length(items, rows * distributed.world())
    if settings.gradient_release and (why := not_released(rows, part, distributed.launched())):
        raise UserError(why)
    decay = round(settings.decay * steps)
    cast(model, settings.precision)
    without_dropout(model)
    if os.environ.get(CHECKPOINTING) == "1":
        # The backward pass then recomputes the activations, one layer at a time.
        model.activation_checkpointing_enable({"use_reentrant": False})
    trained = (
        copy.deepcopy(model) if distributed.partitioned() else model
    )  # ZeRO-3 takes a model's weights apart for good
    # DeepSpeed would cast adapters to bf16, too; what it works on, the trained weights, is in fp32.
    precision = "fp32" if adapters(model) else settings.precision
    with tempfile.TemporaryDirectory() as scratch:
        args = TrainingArguments(
            output_dir=str(state or scratch),
            max_steps=steps,
            per_device_train_batch_size=part,
            gradient_accumulation_steps=rows // part,
            learning_rate=settings.learning_rate,
            lr_scheduler_type=SchedulerType.WARMUP_STABLE_DECAY,
            lr_scheduler_kwargs={"num_decay_steps": decay, "decay_type": "linear", "min_lr_ratio": 0.0},
            warmup_steps=settings.warmup_steps,
            max_grad_norm=0.0 if settings.gradient_release else settings.max_grad_norm or 0.0,  # 0: no clipping
            seed=seed,
            use_cpu=not torch.cuda.is_available(),
            # This only tells the Trainer that DeepSpeed's file may say bf16; bf16=True would cast once more.
            bf16_full_eval=precision == "bf16" and distributed.deepspeed_config() is not None,
            deepspeed=deepspeed_settings(precision, sum(p.numel() for p in trained.parameters())),
            ddp_find_unused_parameters=False,
            remove_unused_columns=False,
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        optimizer = make_optimizer(trained, settings)
        trainer = ObjectiveTrainer(
            settings=settings,
            title=title,
            tokenizer=tokenizer,
            model=Step(trained, objective, settings.precision, rows * distributed.world() / settings.batch_size),
            args=args,
            train_dataset=items,
            data_collator=to_batch,
            optimizers=(optimizer, None),
        )
        trainer.remove_callback(PrinterCallback)  # it prints a dict at the end
        checkpoints = Checkpoints(trainer, state)
        for callback in (
            health.EffectiveUpdate(trainer.losses, steps, optimizer), checkpoints,
            AtSteps(at_steps, action, title, checkpoints),
        ):  # fmt: skip
            trainer.add_callback(callback)
        if distributed.deepspeed_config() and trainer.accelerator.distributed_type != DistributedType.DEEPSPEED:
            raise RuntimeError("DeepSpeed was asked for, but accelerate left it out")
        with checkpoints, optimizer.released(trained) if settings.gradient_release else nullcontext():
            trainer.train(resume_from_checkpoint=trainer.resumed(newest(state)))
    if distributed.partitioned():
        distributed.take_back(model, trained)
    if distributed.deepspeed_config():
        trainer.model_wrapped.destroy()
    if broken := not_finite(model):  # no loss shows what the last update broke
        raise UserError(
            f"{title} step {steps}, the last: the weights {broken} are not finite any more; {health.advice(settings)}"
        )
    return trainer.losses


def deepspeed_settings(precision: str, parameters: int) -> dict | None:
    """Return DeepSpeed's configuration for a precision and a number of parameters; None without DeepSpeed.

    bf16 stays pure: by default DeepSpeed would keep fp32 master weights, so the number of devices would change numbers.
    To DeepSpeed bf16_mixed is fp32, under our own autocast. Raises UserError for what
    `rtt.study.deepspeed.not_under_deepspeed` refuses.
    """
    config = distributed.deepspeed_config()
    if config and (why := not_under_deepspeed(precision, "offload_optimizer" in config["zero_optimization"])):
        raise UserError(why)
    if config and precision == "bf16":
        config["bf16"] = {"enabled": True, "bf16_master_weights_and_grads": True, "bf16_optimizer_states": True}
    zero = config["zero_optimization"] if config else {}
    for key in (k for k in zero if k.endswith("bucket_size") and isinstance(zero[k], int)):
        zero[key] = min(zero[key], parameters)  # allocated in every step, however small the model
    return config

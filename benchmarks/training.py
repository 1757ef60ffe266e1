"""Our `train` against a plain Hugging Face loop: the same texts, order, model, steps and loss, in one run.

    PYTHONPATH=scripts python benchmarks/training.py                     # Years' and MMLU's texts, as they are
    PYTHONPATH=scripts python benchmarks/training.py --tokenizer FOLDER  # a real model's tokenizer (and vocabulary)
    PYTHONPATH=scripts python benchmarks/training.py --quick             # generated texts, seconds, for the tests

Ours is run twice, with padding and with `packing` (several texts in a row).
Plain: a DataLoader with DataCollatorForSeq2Seq (padded to the batch's longest), model(...).logits, the mean over texts
of the cross-entropy per counted token, backward, gradient clipping at 1, AdamW: what a user would write. Tokenised
texts are given to both. A random-weight Llama, fp32, one thread (OMP_NUM_THREADS); each side is warmed up once, then
they take turns, and who begins changes. Deterministic kernels are on for ours alone, as in use.
The authors' files: RTT_UPSTREAM_DATA, by default ../shared/upstream-data beside the repository.
"""

import argparse
import copy
import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from rtt.data.build import build_facts
from rtt.data.facts import Fact
from rtt.data.generate import generate
from rtt.data.text import training_texts
from rtt.errors import UserError
from rtt.models.load import load_tokenizer
from rtt.study.settings import Training
from rtt.training import packing
from rtt.training.losses import plain_loss
from rtt.training.order import training_passes
from rtt.training.train import prepare_torch, train
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils.data import DataLoader
from transformers import DataCollatorForSeq2Seq, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

UPSTREAM = Path(os.environ.get("RTT_UPSTREAM_DATA") or Path(__file__).parents[2] / "shared" / "upstream-data")
YEARS, MMLU = "dates-years-trimmed", "mmlu_cats_random_trimmed"
CASES = ((YEARS, "CORPUS"), (YEARS, "QUESTION_LETTER_ANSWER"), (MMLU, "QUESTION_LETTER_ANSWER"))
GENERATOR = {
    "splits": 2,
    "facts_per_split": 8,
    "retain_train": 8,
    "retain_held_out": 4,
    "first_names": 6,
    "last_names": 8,
}
TOLERANCE = 1e-5  # absolute + relative, of each step's loss
PARTS = ("forward", "backward", "clip", "optimizer")


@dataclass
class Side:
    """What one side took in one run: seconds of CPU (`parts` too) and wall; token positions fed, those of texts."""

    cpu: float = 0.0
    wall: float = 0.0
    fed: int = 0
    real: int = 0
    parts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))

    @contextmanager
    def part(self, name: str):
        """Count the CPU time of what is inside."""
        begin = time.process_time()
        yield
        self.parts[name] += time.process_time() - begin

    def wrapped(self, name: str, function):
        """Return `function`, its CPU time counted."""

        def call(*args, **kwargs):
            with self.part(name):
                return function(*args, **kwargs)

        return call

    @contextmanager
    def measured(self):
        """Count CPU and wall time of what is inside."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall, self.cpu = time.perf_counter() - wall, time.process_time() - cpu


@contextmanager
def split_up(side: Side, model):
    """Count the parts of training and the positions fed, the same way on both sides; forward is left to the caller."""
    begins = []

    def started(optimizer, args, kwargs):
        begins.append(time.process_time())

    def ended(optimizer, args, kwargs):
        side.parts["optimizer"] += time.process_time() - begins.pop()

    def fed(module, args, kwargs):
        side.fed += kwargs["input_ids"].numel()

    hooks = [
        register_optimizer_step_pre_hook(started),
        register_optimizer_step_post_hook(ended),
        model.register_forward_pre_hook(fed, with_kwargs=True),
    ]
    backward, clip = torch.Tensor.backward, torch.nn.utils.clip_grad_norm_
    try:
        with (
            mock.patch.object(torch.Tensor, "backward", side.wrapped("backward", backward)),
            mock.patch.object(torch.nn.utils, "clip_grad_norm_", side.wrapped("clip", clip)),
        ):
            yield
    finally:
        for hook in hooks:
            hook.remove()


def run_ours(model, tokenizer, items: list[dict], settings: Training, packed: bool = False) -> tuple[list[float], Side]:
    """Return (each step's loss, what it took) of `rtt.training.train.train`."""
    side = Side()
    prepare_torch(0)
    switch = mock.patch.dict(os.environ, {packing.PACKING: str(int(packed))})
    with switch, split_up(side, model), side.measured():
        losses = train(model, tokenizer, items, side.wrapped("forward", plain_loss), settings, seed=0)
    return [step["loss"] for step in losses], side


def text_mean(model, batch: dict) -> torch.Tensor:
    """The loss of the plain loop: cross-entropy per counted token, averaged per text, then over texts."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
    targets = batch["labels"][:, 1:].contiguous()
    flat = F.cross_entropy(logits[:, :-1].flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="none")
    counted = targets != -100
    return ((flat.view_as(targets)).sum(1) / counted.sum(1)).mean()


def run_plain(model, tokenizer, items: list[dict], settings: Training) -> tuple[list[float], Side]:
    """Return (each step's loss, what it took) of a plain loop."""
    side = Side()
    torch.use_deterministic_algorithms(False)
    loss_of = side.wrapped("forward", text_mean)
    with split_up(side, model), side.measured():
        loader = DataLoader(
            items, batch_size=settings.batch_size, shuffle=False, collate_fn=DataCollatorForSeq2Seq(tokenizer)
        )
        optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=settings.learning_rate,
            betas=(0.9, settings.adam_beta2),
            weight_decay=settings.weight_decay,
        )
        model.train()
        losses = []
        for batch in loader:
            loss = loss_of(model, batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    return losses, side


def compare(start, tokenizer, items: list[dict], settings: Training, repeats: int) -> dict:
    """Return {"ours", "packed", "plain": a list of Sides, "difference": the largest of losses, "last": the last step's
    loss}.

    Raises UserError when a loss differs by more than TOLERANCE.
    """
    runs = {"ours": run_ours, "packed": partial(run_ours, packed=True), "plain": run_plain}
    found = {name: [] for name in runs} | {"difference": 0.0}
    real = sum(len(item["input_ids"]) for item in items)
    for repeat in range(-1, repeats):  # -1: to warm up
        losses = {}
        for name in runs if repeat % 2 else reversed(runs):
            losses[name], side = runs[name](copy.deepcopy(start), tokenizer, items, settings)
            side.real = real
            if repeat >= 0:
                found[name].append(side)
        plain = np.array(losses["plain"])
        for ours in (np.array(losses["ours"]), np.array(losses["packed"])):
            if ours.shape != plain.shape or not np.allclose(ours, plain, rtol=TOLERANCE, atol=TOLERANCE):
                raise UserError(f"the two sides trained differently: {ours} against {plain}")
            found["difference"] = max(found["difference"], float(abs(ours - plain).max()))
    return found | {"last": losses["ours"][-1]}


def ratio(slow: list[Side], fast: list[Side], what: str) -> str:
    """Return "median (lowest-highest)" of slow / fast over the pairs of turns."""
    values = [getattr(a, what) / getattr(b, what) for a, b in zip(slow, fast, strict=True)]
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def medians(sides: list[Side]) -> dict[str, float]:
    """Return median seconds: cpu, wall, each part, and what is in no part."""
    parts = {name: statistics.median(side.parts[name] for side in sides) for name in sides[0].parts}
    cpu = statistics.median(side.cpu for side in sides)
    rest = statistics.median(side.cpu - sum(side.parts.values()) for side in sides)
    return {"cpu": cpu, "wall": statistics.median(side.wall for side in sides), **parts, "rest": rest}


def table(rows: dict[str, list[Side]]) -> str:
    """Return a table of seconds (medians) and positions, a row for each side."""
    names = list(medians(next(iter(rows.values()))))
    shown = ["", *names, "positions", *(["padding"] if next(iter(rows.values()))[0].real else [])]
    lines = ["  " + "".join(f"{name:>11}" for name in shown)]
    for name, sides in rows.items():
        cells = "".join(f"{value:11.3f}" for value in medians(sides).values())
        padding = f"{1 - sides[0].real / sides[0].fed:11.1%}" if sides[0].real else ""
        lines.append(f"  {name:>11}{cells}{sides[0].fed:11d}{padding}")
    return "\n".join(lines)


def facts_of(dataset: str) -> list[Fact]:
    """Return all facts of one of the authors' datasets, or of a generated one (`birth_years_a`).

    Raises UserError where the authors' files are absent.
    """
    if dataset in (YEARS, MMLU):
        if not (UPSTREAM / dataset).is_dir():
            raise UserError(f"{UPSTREAM / dataset} is absent: set RTT_UPSTREAM_DATA to the folder of the authors' data")
        return build_facts(UPSTREAM / dataset, dataset, None, {}, 0)[0]
    with tempfile.TemporaryDirectory() as folder:
        for name, rows in generate(dataset, GENERATOR, 0).items():
            Path(folder, name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return build_facts(folder, dataset, None, {}, 0)[0]


def tokenizer_of(folder: str | None, facts: list[Fact], size: int) -> PreTrainedTokenizerFast:
    """Return a model's tokenizer, or a byte-level BPE of `size` tokens trained on the facts' own texts."""
    if folder:
        return load_tokenizer(folder)
    written = [
        text.prompt + text.target
        for fact in facts
        for loss in ("CORPUS", "QUESTION_LETTER_ANSWER")
        for text in training_texts(fact, loss)
    ]
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made.train_from_iterator(
        written,
        trainers.BpeTrainer(
            vocab_size=size, special_tokens=["<pad>", "<end>"], initial_alphabet=alphabet, show_progress=False
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<end>")


def llama(tokenizer, hidden: int, layers: int) -> LlamaForCausalLM:
    """Return a random-weight Llama, heads of 64 (or fewer) and SmolLM's share of MLP, tied embeddings."""
    torch.manual_seed(0)
    heads = max(hidden // 64, 2)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden,
            intermediate_size=hidden * 8 // 3,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            tie_word_embeddings=True,
            max_position_embeddings=4096,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
            eos_token_id=None,
        )
    )


def items_of(facts: list[Fact], loss: str, steps: int, batch_size: int, tokenizer) -> list[dict]:
    """Return the first steps of RTT's shuffled order (`rtt.training.order.training_passes`), encoded."""
    each = len(training_texts(facts[0], loss))
    epochs = -(-steps * batch_size // (each * len(facts)))
    rng = np.random.default_rng(0)
    return training_passes(facts, loss, epochs, batch_size, tokenizer, rng)[: steps * batch_size]


def arguments(asked: list[str] | None) -> argparse.Namespace:
    """Parse the command line; `--quick` replaces what decides the size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the smallest size, on generated texts")
    parser.add_argument("--tokenizer", help="folder of a model whose tokenizer is used; none: a BPE of the texts")
    parser.add_argument("--vocabulary", type=int, default=8192, help="tokens of that BPE")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--batch", type=int, default=4, help="texts per step; the paper's 4")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args(asked)
    if args.quick:
        args.vocabulary, args.hidden, args.layers, args.steps, args.repeats = 400, 16, 2, 3, 2
    return args


def main(asked: list[str] | None = None) -> int:
    """Print the comparison for each dataset and loss."""
    args = arguments(asked)
    settings = Training(learning_rate=1e-4, batch_size=args.batch)
    cases = (("birth_years_a", "CORPUS"), ("birth_years_a", "LETTER_ANSWER")) if args.quick else CASES
    for dataset, loss in cases:
        facts = facts_of(dataset)
        tokenizer = tokenizer_of(args.tokenizer, facts, args.vocabulary)
        begin = time.process_time()
        items = items_of(facts, loss, args.steps, args.batch, tokenizer)
        encoding = time.process_time() - begin
        model = llama(tokenizer, args.hidden, args.layers)
        found = compare(model, tokenizer, items, settings, args.repeats)
        lengths = [len(item["input_ids"]) for item in items]
        print(
            f"{dataset}, {loss}: {args.steps} steps of {args.batch} texts of {min(lengths)}-{max(lengths)} tokens; "
            f"hidden {args.hidden}, {args.layers} layers, {len(tokenizer)} tokens; {torch.get_num_threads()} thread(s)"
        )
        print(table({name: found[name] for name in ("ours", "packed", "plain")}))
        for name in ("ours", "packed"):
            pair = found["plain"], found[name]
            print(f"  plain / {name}, median of {args.repeats}: CPU {ratio(*pair, 'cpu')}, wall {ratio(*pair, 'wall')}")
        print(
            f"  losses differ by {found['difference']:.1e} nats at most (the last is {found['last']:.4f}); "
            f"encoding before, for both: {encoding:.2f} s CPU"
        )
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(str(error))

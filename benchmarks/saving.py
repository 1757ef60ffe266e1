"""How long does training stand still for a checkpoint? Hashed by a thread, as it is, against waiting for that as well.

    OMP_NUM_THREADS=1 PYTHONPATH=scripts python benchmarks/saving.py --folder FOLDER  # on the disk that is meant
    PYTHONPATH=scripts python benchmarks/saving.py --folder FOLDER --quick             # a tiny model, for the tests

A random-weight Llama of SmolLM2-135M's shape is trained by `rtt.training.train.train` with AdamW in fp32 (a state of
1.6 GB), for STEPS steps, with a checkpoint after every EVERY of them. In each of `--turns` turns that is done in both
ways: as it is, and with `on_save` made to wait until the checkpoint is marked. They start from the same weights, and
must end in the same losses. A save takes from the moment when the Trainer begins to write until it goes on; the first
of a training, which finds no older checkpoint to delete, is left out. What the thread still has to do when the next
save comes is in the whole time alone.
"""

import argparse
import copy
import math
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import torch
from rtt.study.settings import Training
from rtt.training import resume, train
from rtt.training.losses import plain_loss
from transformers import LlamaConfig, LlamaForCausalLM

STEPS, EVERY = 25, 6
SHAPES = {  # layers, hidden, heads, heads of keys and values, MLP, vocabulary
    False: (30, 576, 9, 3, 1536, 49152),
    True: (2, 32, 4, 2, 64, 300),
}


class Tokenizer:
    """What `train` asks of a tokenizer."""

    pad_token_id = 0

    @staticmethod
    def decode(ids) -> str:
        return " ".join(map(str, ids))


class Saves:
    """The seconds of each save, and those in which the Trainer stood still for it."""

    def __init__(self, wait: bool):
        self.wait, self.seconds = wait, []

    def __enter__(self):
        save, on_save, on_step_end = (
            train.ObjectiveTrainer._save_checkpoint, resume.Checkpoints.on_save, resume.Checkpoints.on_step_end,
        )  # fmt: skip

        def timed(trainer, *given, **more):
            self.begin = time.perf_counter()
            return save(trainer, *given, **more)

        def marked(checkpoints, *given, **more):
            on_save(checkpoints, *given, **more)
            if self.wait:
                checkpoints.wait()
            self.seconds.append(time.perf_counter() - self.begin)

        def due(checkpoints, args, state, control, **more):
            checkpoints.last = -math.inf if state.global_step % EVERY == 0 else time.monotonic()
            on_step_end(checkpoints, args, state, control, **more)

        self.patches = [
            mock.patch.object(train.ObjectiveTrainer, "_save_checkpoint", timed),
            mock.patch.object(resume.Checkpoints, "on_save", marked),
            mock.patch.object(resume.Checkpoints, "on_step_end", due),
        ]
        for one in self.patches:
            one.start()
        return self

    def __exit__(self, *_):
        for one in self.patches:
            one.stop()


def trained(model, rows, settings, folder: Path, wait: bool) -> tuple[list, Saves, float]:
    """Return (the losses, the saves, the seconds of the whole training)."""
    with TemporaryDirectory(dir=folder) as state, Saves(wait) as saves:
        begin = time.perf_counter()
        losses = train.train(
            copy.deepcopy(model), Tokenizer(), rows, plain_loss, settings, 0, title="saving", state=Path(state)
        )
        return losses, saves, time.perf_counter() - begin


def main(asked: list[str] | None = None) -> int:
    """Print the seconds of a save and of a training in both ways, and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where checkpoints are written; left empty")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a tiny model; its figures mean nothing")
    args = parser.parse_args(asked)
    layers, hidden, heads, keys, mlp, vocabulary = SHAPES[args.quick]
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary, hidden_size=hidden, intermediate_size=mlp, num_hidden_layers=layers,
            num_attention_heads=heads, num_key_value_heads=keys, tie_word_embeddings=True,
        )
    )  # fmt: skip
    settings = Training(learning_rate=1e-5, batch_size=2)
    ids = torch.randint(3, vocabulary, (2 * STEPS, 64)).tolist()
    rows = [{"input_ids": one, "labels": one} for one in ids]
    args.folder.mkdir(parents=True, exist_ok=True)
    found = {True: [], False: []}
    for turn in range(args.turns):
        for wait in (True, False) if turn % 2 else (False, True):
            losses, saves, whole = trained(model, rows, settings, args.folder, wait)
            found[wait].append((statistics.median(saves.seconds[1:]), whole, losses))
            print(f"turn {turn + 1}, {'waits' if wait else 'as it is'}: {found[wait][-1][:2]}", file=sys.stderr)
    if any(one[2] != found[True][0][2] for both in found.values() for one in both):
        print("the two ways gave other losses", file=sys.stderr)
        return 1
    size = 3 * 4 * sum(parameter.numel() for parameter in model.parameters()) / 1e9
    print(f"| a state of {size:.2g} GB | waits for the hashes | as it is | ratio |\n|---|---|---|---|")
    for at, what in enumerate(("a save, s", f"{STEPS} steps with {(STEPS - 1) // EVERY} saves, s")):
        waits, now = ([one[at] for one in found[wait]] for wait in (True, False))
        ratios = sorted(b / a for a, b in zip(waits, now, strict=True))
        ratio = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        print(f"| {what} | {statistics.median(waits):.2f} | {statistics.median(now):.2f} | {ratio} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())

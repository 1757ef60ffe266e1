"""One GPU, one call, no network: a training step of a 1-8B Llama (random weights) against its floor, and ZeRO there.

    python benchmarks/gpu.py --billions 8   # or 1, 3; at most 10 minutes; on a GPU machine
    python benchmarks/gpu.py --tiny         # seconds, a CPU does; its figures mean nothing

Each row runs in a process of its own, so that a row that runs out of memory costs the others nothing, and has at most
`--row-minutes`; what matters most comes first. It calls
`rtt.training.train.train`, as the pipeline does, on `--steps` batches of 4 texts of random tokens, as long as Years'
MCQs (LENGTHS), with all tokens counted. A step's time is the mean from the start of one step's forward pass to the
start of the next; the WARM-UP steps are left out. With offload the optimizer works on the CPU, on all its cores, and a
step takes seconds: there are SLOW steps, of which the first is left out.

The floor of a step = max(FLOPs / peak, bytes / bandwidth), both measured here: the peak on a large matrix product in
bf16, the bandwidth on a copy of a large tensor, its reads and its writes counted.
  FLOPs: 6 M T + 6 layers h sum(length^2). M: parameters of the matrices (without the input embedding where it is not
    the output matrix as well); T: tokens of the texts, padding is waste; forward 2, both gradients 4. Causal attention:
    q k and p v of the half below the diagonal, 2 h length^2 forward, twice that backward; what fused attention computes
    again is not counted.
  Bytes: s N (5 + o). N parameters of s bytes (4 in bf16_mixed, else 2). The weights are read forward and backward;
    gradients are written, read for their norm, read by the optimizer: 5; o: the optimizer reads and writes the weights
    (one read more) and its states: Lion 4, AdamW 6; with bf16_kahan, which keeps what rounding drops, 8 and 12.
    Activations and logits are not counted: the floor is low.
"by phase" adds up what can't overlap: max(3 s N / bandwidth, FLOPs / peak), then (2 + o) s N / bandwidth. With gradient
release (+ release) the update comes amid the backward pass, and may overlap with it.

Memory: the peak that torch's allocator handed out is compared with `rtt.planner.memory.on_device` (for the longest
text's length), and what the device had in use with `rtt.planner.memory.needed`. ZeRO runs by torchrun in one process
with RTT_DEEPSPEED. Losses are compared with those of the first row of the same optimizer and precision. flash-attn is
used where it can be imported. The exit code is 1 when a row failed for another reason than memory or time.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHAPES = {  # layers, hidden, heads, KV heads, MLP, vocabulary, tied: of Llama-3.2-1B, -3B and Llama-3-8B
    "tiny": (2, 32, 4, 2, 64, 300, True),
    "1": (16, 2048, 32, 8, 8192, 128256, True),
    "3": (28, 3072, 24, 8, 8192, 128256, True),
    "8": (32, 4096, 32, 8, 14336, 128256, False),
}
# Quantiles 0, .1, .25, .5, .75, .9, .99, 1 of the tokens of Years' texts (QUESTION_LETTER_ANSWER, SmolLM2's tokenizer).
LENGTHS = ((0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1), (53, 56, 58, 63, 70, 79, 104, 117))
BATCH, WARM_UP, SLOW = 4, 5, 4
# Values per parameter that the optimizer moves, beside a gradient and a weight's read.
STATES, KAHAN_STATES = {"lion": 4, "adamw": 6}, {"lion": 8, "adamw": 12}
RELEASED = "bf16_kahan + release"
COMPILED = f"{RELEASED}, compiled"  # RTT_COMPILE_UPDATE=1: the update of a slice is one kernel
ROWS = (  # optimizer, precision, attention, DeepSpeed
    ("lion", RELEASED, "sdpa", None),
    ("lion", COMPILED, "sdpa", None),
    ("lion", RELEASED, "flash_attention_2", None),
    ("lion", "bf16_mixed", "sdpa", "zero3-offload"),
    ("adamw", RELEASED, "sdpa", None),
    ("lion", "bf16_kahan", "sdpa", None),
    ("lion", "bf16", "sdpa", None),
    ("adamw", "bf16", "sdpa", None),
    ("lion", "bf16", "flash_attention_2", None),
    ("lion", "bf16_mixed", "sdpa", None),
    ("lion", "bf16", "sdpa", "zero1"),
    ("lion", "bf16", "sdpa", "zero2"),
    ("lion", "bf16", "sdpa", "zero3"),
)
GIB = 2**30


def texts(steps: int, vocabulary: int) -> list[dict]:
    """Random tokens, as many as Years' texts have, all of them counted."""
    import numpy as np

    rng = np.random.default_rng(0)
    made = []
    for share in rng.random(steps * BATCH):
        ids = rng.integers(3, vocabulary, round(float(np.interp(share, *LENGTHS)))).tolist()
        made.append({"input_ids": ids, "labels": ids})
    return made


def build(shape: tuple, attention: str, device, dtype):
    """A random-weight Llama, made on the device."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    layers, hidden, heads, kv_heads, mlp, vocabulary, tied = shape
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=mlp, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, tie_word_embeddings=tied, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, max_position_embeddings=4096, attn_implementation=attention,
    )  # fmt: skip
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    try:
        with device:
            return LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(torch.float32)


def settings_of(optimizer: str, precision: str):
    """The settings of a row's training."""
    from rtt.study.settings import Training

    given = {"precision": precision}
    if precision in (RELEASED, COMPILED):
        given = {"precision": "bf16_kahan", "gradient_release": True, "max_grad_norm": None}
    return Training(learning_rate=1e-6, batch_size=BATCH, optimizer=optimizer, **given)


class Tokenizer:
    """What `train` asks of a tokenizer."""

    pad_token_id = 0

    @staticmethod
    def decode(ids) -> str:
        return " ".join(map(str, ids))


def step(job: dict) -> dict:
    """Child: train; return seconds per step, losses, and the device's memory."""
    sys.path.insert(0, str(ROOT / "scripts"))
    import torch
    from rtt import distributed
    from rtt.training.losses import plain_loss
    from rtt.training.train import prepare_torch, start_dtype, train

    prepare_torch(0)
    cuda, shape = torch.cuda.is_available(), SHAPES[job["shape"]]
    settings = settings_of(job["optimizer"], job["precision"])
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[start_dtype(settings.precision)]
    model = build(shape, job["attention"], distributed.device(), dtype)
    count = sum(p.numel() for p in model.parameters())
    matrices = sum(p.numel() for p in model.parameters() if p.dim() == 2) - (0 if shape[6] else shape[5] * shape[1])
    items = texts(job["steps"], shape[5])
    starts, warm_up = [], job["warm_up"]

    def timed(model, batch):
        starts.append(time.perf_counter())
        return plain_loss(model, batch)

    if distributed.partitioned():
        model.to("cpu")  # as `rtt.models.load.load` leaves it
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    losses = train(model, Tokenizer, items, timed, settings, seed=0)
    seen = starts[warm_up:]
    memory = None
    if cuda:
        free, total = torch.cuda.mem_get_info()
        memory = {
            "allocated": torch.cuda.max_memory_allocated(),
            "reserved": torch.cuda.max_memory_reserved(),
            # in use at the end, with the context, and what the allocator once held beside what it holds now
            "device": total - free + torch.cuda.max_memory_reserved() - torch.cuda.memory_reserved(),
        }
    timed_items = items[warm_up * BATCH : -BATCH]
    return {
        "seconds": (seen[-1] - seen[0]) / (len(seen) - 1),
        "losses": [one["loss"] for one in losses],
        "memory": memory,
        "parameters": count,
        "matrices": matrices,
        "tokens": sum(len(item["input_ids"]) for item in timed_items) / (len(seen) - 1),
        "squares": sum(len(item["input_ids"]) ** 2 for item in timed_items) / (len(seen) - 1),
        "longest": max(len(item["input_ids"]) for item in items),
        "moved": losses[-1]["moved"],
    }


def peaks(job: dict) -> dict:
    """Child: this device's name, memory bandwidth (bytes per second) and peak of bf16 products (FLOPs per second)."""
    import torch

    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    size, count = (8192, 2 * GIB) if cuda and job["shape"] != "tiny" else (256, 2**22)

    def seconds(action) -> float:
        """The best of 5, each of 10 calls."""
        found = []
        for turn in range(6):  # the first warms up
            if cuda:
                torch.cuda.synchronize()
            begin = time.perf_counter()
            for _ in range(10):
                action()
            if cuda:
                torch.cuda.synchronize()
            found += [(time.perf_counter() - begin) / 10] if turn else []
        return min(found)

    source = torch.zeros(count, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = seconds(lambda: target.copy_(source))
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    product = torch.empty_like(a)
    gemm = seconds(lambda: torch.mm(a, a, out=product))
    return {
        "device": torch.cuda.get_device_name() if cuda else "CPU",
        "cuda": cuda,
        "torch": torch.__version__,
        "bandwidth": 2 * count / copy,
        "peak": 2 * size**3 / gemm,
    }


def floors(one: dict, shape: tuple, optimizer: str, precision: str, measured: dict) -> tuple[float, float]:
    """(floor, floor by phase) of a step in seconds, as the module's docstring says."""
    flops = 6 * one["matrices"] * one["tokens"] + 6 * shape[0] * shape[1] * one["squares"]
    weights = one["parameters"] * (4 if precision == "bf16_mixed" else 2)
    compute, move = flops / measured["peak"], weights / measured["bandwidth"]
    other = (KAHAN_STATES if "bf16_kahan" in precision else STATES)[optimizer]
    return max(compute, (5 + other) * move), max(compute, 3 * move) + (2 + other) * move


def counted(name: str) -> int:
    """The parameters of a Llama of this shape."""
    layers, hidden, heads, kv_heads, mlp, vocabulary, tied = SHAPES[name]
    attention = 2 * hidden * hidden + 2 * hidden * hidden * kv_heads // heads
    return (1 if tied else 2) * vocabulary * hidden + layers * (attention + 3 * hidden * mlp + 2 * hidden) + hidden


def planned(name: str, row: tuple, parameters: int, longest: float) -> tuple:
    """(`rtt.planner.memory`, the phase and the launch of a row)."""
    sys.path.insert(0, str(ROOT / "scripts"))
    from rtt.planner import memory
    from rtt.study.deepspeed import engine_of

    optimizer, precision, _, deepspeed = row
    layers, hidden, _, _, mlp, vocabulary, _ = SHAPES[name]
    shape = memory.Shape(parameters, layers, hidden, mlp, vocabulary)
    phase = memory.Phase("rtt", settings_of(optimizer, precision), shape, longest)
    return memory, phase, memory.Launch(1, engine_of(deepspeed, hidden))


def predicted(one: dict, name: str, row: tuple) -> tuple[float, float]:
    """(bytes that `rtt.planner.memory` counts on the device, bytes that it says are needed)."""
    memory, phase, launch = planned(name, row, one["parameters"], one["longest"])
    parts = memory.on_device(phase, launch)
    return sum(parts.values()), memory.needed(parts)


def child(action: str, job: dict, deepspeed: str | None, seconds: float) -> dict | str:
    """Run a part in a process; return what it found, or in a line why it did not."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch, "found.json")
        words = [__file__, "--child", action, json.dumps(job), str(out)]
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"] if deepspeed else []
        kept = {key: value for key, value in os.environ.items() if not key.startswith("RTT_")}
        env = kept | ({"RTT_DEEPSPEED": deepspeed} if deepspeed else {})
        env |= {"RTT_COMPILE_UPDATE": "1"} if job.get("precision") == COMPILED else {}
        threads = os.cpu_count() if deepspeed == "zero3-offload" else kept.get("OMP_NUM_THREADS", 1)
        env |= {"PYTHONPATH": str(ROOT / "scripts"), "OMP_NUM_THREADS": str(threads)}
        process = subprocess.Popen(
            [sys.executable, *launcher, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env
        )
        try:
            log, _ = process.communicate(timeout=max(seconds, 1))
        except subprocess.TimeoutExpired:
            process.terminate()  # torchrun ends its process, too
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
            return f"no end within {seconds:.0f} s"
        if process.returncode == 0:
            return json.loads(out.read_text(encoding="utf-8"))
    if "OutOfMemoryError" in log or "CUDA out of memory" in log:
        return "out of memory"
    errors = [line for line in log.splitlines() if "Error" in line]
    print(log[-3000:], file=sys.stderr)
    return f"failed: {(errors or log.splitlines() or ['it said nothing'])[-1].strip()[:120]}"


def skipped(name: str, row: tuple, cuda: bool) -> str | None:
    """Why a row can't run here, None where it can."""
    import importlib.util

    import psutil

    if row[2] == "flash_attention_2":
        if not cuda:
            return "skipped: flash-attn needs CUDA"
        if importlib.util.find_spec("flash_attn") is None:
            return "skipped: flash-attn is not installed"
    if row[3] and not cuda:
        return "skipped: needs CUDA (on a CPU: tests/training/test_parity.py)"
    memory, phase, launch = planned(name, row, counted(name), LENGTHS[1][-1])
    needed, here = memory.in_host(phase, launch), psutil.virtual_memory().total
    if needed > here:
        return f"skipped: needs {needed / 1e9:.0f} GB of host memory, and this machine has {here / 1e9:.0f} GB"
    return None


def measure(name: str, steps: int, minutes: float, chosen: list[int], row_minutes: float = 4) -> dict:
    """Run these of ROWS one after the other; return what they found."""
    end = time.monotonic() + 60 * minutes
    measured = child("peaks", {"shape": name}, None, end - time.monotonic())
    if isinstance(measured, str):
        raise SystemExit(f"bandwidth and peak: {measured}")
    rows = []
    for row in (ROWS[number] for number in chosen):
        optimizer, precision, attention, deepspeed = row
        one = {"row": row, "note": skipped(name, row, measured["cuda"])}
        if not one["note"]:
            slow = deepspeed == "zero3-offload"
            job = {
                "shape": name, "optimizer": optimizer, "precision": precision, "attention": attention,
                "steps": SLOW if slow else steps, "warm_up": 1 if slow else WARM_UP,
            }  # fmt: skip
            found = child("step", job, deepspeed, min(60 * row_minutes, end - time.monotonic()))
            if isinstance(found, str):
                one["note"] = found
            else:
                floor, by_phase = floors(found, SHAPES[name], optimizer, precision, measured)
                one |= found | {"floor": floor, "by_phase": by_phase, "predicted": predicted(found, name, row)}
        print(f"# {' '.join(map(str, row))}: {one['note'] or 'done'}", file=sys.stderr, flush=True)
        rows.append(one)
    return {"shape": name, "steps": steps, "measured": measured, "rows": rows}


def report(found: dict) -> str:
    """The result as markdown."""
    measured, rows = found["measured"], found["rows"]
    first = next((one for one in rows if "seconds" in one), None)
    size = (
        f"{first['parameters'] / 1e9:.2f}B parameters, {first['tokens']:.0f} tokens a step" if first else "no row ran"
    )
    lines = [
        f"{measured['device']}, torch {measured['torch']}: copy {measured['bandwidth'] / 1e9:.0f} GB/s, bf16 products "
        f"{measured['peak'] / 1e12:.1f} TFLOP/s; {size}; {found['steps']} steps, the first {WARM_UP} left out",
        "",
        "| optimizer, precision | attention | engine | ms a step | floor | ratio | by phase | ratio | "
        "peak GiB, predicted | device GiB, predicted | weights moved | losses differ |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in rows:
        optimizer, precision, attention, deepspeed = one["row"]
        head = f"| {optimizer}, {precision} | {attention} | {deepspeed or 'none'} | "
        if "seconds" not in one:
            lines.append(f"{head}{one['note']}" + " |" * 9)
            continue
        times = [f"{1e3 * one['seconds']:.1f}"]
        for floor in (one["floor"], one["by_phase"]):
            times += [f"{1e3 * floor:.1f}", f"{one['seconds'] / floor:.2f}"]
        memory = ["needs CUDA"] * 2
        if one["memory"]:
            pairs = zip((one["memory"]["allocated"], one["memory"]["device"]), one["predicted"], strict=True)
            memory = [f"{a / GIB:.1f}, {b / GIB:.1f}" for a, b in pairs]
        like = next(other for other in rows if other["row"][:2] == one["row"][:2] and "losses" in other)
        apart = [abs(a - b) for a, b in zip(one["losses"], like["losses"], strict=False)] if like is not one else None
        cells = [*times, *memory, f"{one['moved']:.1%}", f"{max(apart):.1e}" if apart else "-"]
        lines.append(head + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        action, job, out = sys.argv[2:]
        found = {"step": step, "peaks": peaks}[action](json.loads(job))
        Path(out).write_text(json.dumps(found), encoding="utf-8")
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--billions", choices=("1", "3", "8"), default="1", help="of parameters (default: 1)")
    parser.add_argument("--tiny", action="store_true", help="the smoke test's size, also on a CPU")
    parser.add_argument("--steps", type=int, help="of each row (default: 60; with --tiny 8)")
    every = range(len(ROWS))
    parser.add_argument("--rows", type=int, nargs="+", choices=every, default=every, help="of the table (default: all)")
    parser.add_argument("--minutes", type=float, default=9.5, help="rows that do not end by then are left out")
    parser.add_argument("--row-minutes", type=float, default=4, help="of each row (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    args = parser.parse_args()
    name = "tiny" if args.tiny else args.billions
    found = measure(name, args.steps or (8 if args.tiny else 60), args.minutes, args.rows, args.row_minutes)
    print(report(found))
    if not found["measured"]["cuda"]:
        print("\nNO GPU HERE: the figures are a CPU's, and what needs CUDA was skipped.")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 1 if any((one["note"] or "").startswith("failed") for one in found["rows"]) else 0


if __name__ == "__main__":
    sys.exit(main())

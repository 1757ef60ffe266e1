"""Compute the bytes that a training job holds on each device, in host memory and on disk, in closed forms.

They depend on the launcher and the ZeRO stage. No torch and no model is needed. docs/plan.md gives the formulas, and
says what is not counted.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rtt.data.size import layer_parameters
from rtt.planner import costs
from rtt.study.deepspeed import Engine, engine_of
from rtt.study.model_file import ModelFile
from rtt.study.model_folder import key_width, shape
from rtt.study.part import Part
from rtt.study.settings import LoRA, Model, Training
from rtt.study.specs import TextsSpec

BYTES = costs.BYTES
STATES = {"adamw": 2, "lion": 1}  # values per parameter that the optimizer keeps
# With bf16_kahan also the remainders of the weights and of these values. It works on one slice of so many elements, in
# so many fp32 copies.
KAHAN_STATES, SLICE, SLICES = {"adamw": 5, "lion": 3}, 2**22, 5
CHUNK = 256  # with checkpointing: tokens whose log-probabilities are there at once
AUTOCAST = 2  # bytes per parameter of the bf16 copies that bf16_mixed keeps for the backward pass
ALLOCATOR, CONTEXT = 1.05, 2e9  # assumed: memory that the allocator cannot use, and the device's context with libraries
# Assumed: the longest text of a dataset as a multiple of its mean MCQ. The authors' have 1.0 (Random Birthdays) to 5.8
# (MMLU).
LONGEST = 6
# Assumed of plain texts: the longest as a multiple of the mean, characters per token, and a model's context.
PLAIN_LONGEST, LEAST_CHARACTERS, MOST_TOKENS = 8, 3, 8192
# (vocabulary, width of the MLP, of keys and values) from each model's config.json, which the model files here do not
# repeat.
SHAPES = {
    "llama-3-8b": (128256, 14336, 1024),
    "llama-3-70b": (128256, 28672, 1024),
    "zephyr-7b-beta": (32000, 14336, 1024),
    "qwen2.5-3b-instruct": (151936, 11008, 256),
    "smollm2-135m-instruct": (49152, 1536, 192),
}
# What a config.json must give, so that nothing of a model's shape is assumed.
CONFIG = {"num_hidden_layers", "hidden_size", "vocab_size", "intermediate_size"}


@dataclass(frozen=True)
class Shape:
    """The shape of a model; `known` is false if any part of it is assumed. `keys`: the width of keys and of values; 0
    is that of hidden states.
    """

    parameters: int
    layers: int
    hidden: int
    mlp: int
    vocabulary: int
    known: bool = True
    keys: int = 0

    @property
    def largest(self) -> float:
        """Return the parameters of the largest module that ZeRO-3 gathers at once: a decoder layer or the output
        matrix.
        """
        matrix = self.vocabulary * self.hidden
        return max(matrix, (self.parameters - matrix) / self.layers)


def shape_of(model: Model | ModelFile) -> Shape:
    """Return a model's shape.

    What the model file does not say is taken from its folder's config.json, or assumed: 32 layers, 12 hidden^2
    parameters in each, an MLP 3.5 times as wide as hidden, and Llama-3's vocabulary. Raises UserError when the number
    of parameters is missing.
    """
    n = costs.parameters(model)
    if isinstance(model, Model):
        words = n - model.layers * layer_parameters(model) - model.hidden_size
        return Shape(n, model.layers, model.hidden_size, model.intermediate_size, words // model.hidden_size)
    given = shape(model.path) if model.path and Path(model.path).is_dir() else {}
    found = {key: value for key, value in given.items() if type(value) is int and value > 0}
    layers = model.layers or found.get("num_hidden_layers") or 32
    hidden = model.hidden or found.get("hidden_size") or round(math.sqrt(n / layers / 12))
    keys = key_width(model.path) or 0 if given else 0
    assumed = (found.get("vocab_size", 128256), found.get("intermediate_size", round(3.5 * hidden)), keys)
    vocabulary, mlp, keys = SHAPES.get(model.name, assumed)
    said = bool(model.name in SHAPES and model.layers and model.hidden)
    return Shape(n, layers, hidden, mlp, vocabulary, said or found.keys() >= CONFIG, keys)


NO_ENGINE = Engine()


@dataclass(frozen=True)
class Launch:
    """How a job is spread over devices.

    `devices` is the number of its processes, which are shared equally among `nodes`. `micro_batch` is the most texts
    per forward pass on one device (None: all), and `checkpointing` says whether activations are recomputed.
    """

    devices: int = 1
    engine: Engine = NO_ENGINE
    micro_batch: int | None = None
    checkpointing: bool = False
    nodes: int = 1

    @property
    def on_node(self) -> int:
        """Return the number of processes on each node."""
        return self.devices // self.nodes

    def rows(self, batch_size: int) -> int:
        """Return the texts per forward pass on one device, as `rtt.training.batches.micro_batch` cuts its part of the
        batch.
        """
        share = -(-batch_size // self.devices)
        return next(n for n in range(min(self.micro_batch or share, share), 0, -1) if share % n == 0)


def launch_of(study) -> Launch:
    """Return how the study's jobs are spread. Raises UserError as `rtt.study.deepspeed.engine_of`."""
    engine = engine_of(study.deepspeed, shape_of(study.model).hidden)
    return Launch(study.processes, engine, study.micro_batch, study.gradient_checkpointing, study.nodes)


@dataclass(frozen=True)
class Phase:
    """A training phase.

    `longest` is the number of tokens in the longest text. `graphs` counts the forward passes before one backward pass
    (in unlearning two, of forget and retain texts). `head` says whether logits are computed, and `restored` whether the
    starting weights stay in host memory, as in RTT. With `lora`, `part.trained` is the adapters' values over the
    weights'. The learning rates in `settings` do not matter.
    """

    stage: str
    settings: Training
    shape: Shape
    longest: float
    part: Part = costs.WHOLE
    graphs: int = 1
    head: bool = True
    restored: bool = False
    lora: LoRA | None = None

    @property
    def trained(self) -> float:
        """Return the bytes of what is trained: of the weights, or of adapters beside them, which are in fp32."""
        size = BYTES["fp32" if self.lora else self.settings.precision]
        return self.part.trained * self.shape.parameters * size

    @property
    def weights(self) -> float:
        """Return the bytes of the weights, with the adapters where there are any."""
        return self.shape.parameters * BYTES[self.settings.precision] + (self.trained if self.lora else 0)


def longest(*parts: costs.Facts | TextsSpec) -> float:
    """Return the tokens of the longest text among those of facts and plain texts, by assumption (LONGEST)."""
    return max(_longest_plain(p) if isinstance(p, TextsSpec) else LONGEST * p.texts.mcq for p in parts)


def _longest_plain(texts: TextsSpec) -> float:
    cut = math.inf if texts.max_characters is None else texts.max_characters / LEAST_CHARACTERS
    return min(PLAIN_LONGEST * costs.PLAIN[texts.group], cut, MOST_TOKENS)


def layer_activations(shape: Shape, precision: str, lora: LoRA | None = None) -> float:
    """Return the bytes per token that a Llama decoder layer keeps for its backward pass, with fused attention (no
    length^2).

    These are, for both norms, the input in fp32 and the normalised one; the inputs of the matrices (autocast casts
    shared inputs for each of q, k, v, gate and up); query, key and value (repeated to all heads); the attention's
    output before and after it is reshaped; and the four products of the MLP. Frozen layers keep no input for their own
    sake: each adapter keeps one, in fp32, under autocast in bf16 (which q, k and v share where no cast is needed, as
    do gate and up), and its inner values.
    """
    product, stream, inputs = _elements(precision)
    h, m = shape.hidden, shape.mlp
    if lora:
        wide = 2 if precision == "bf16_mixed" else 4
        attention, inputs = (3, 3) if precision == "fp32" else (4, 6)
        return (8 + attention * product + inputs * wide) * h + (3 * product + wide) * m + 7 * wide * lora.rank
    return 2 * (4 + stream) * h + inputs * product * h + 5 * product * h + 4 * product * m


def _elements(precision: str) -> tuple[int, int, int]:
    """Return the bytes of an element of a product and of the residual stream, and how many inputs of shared matrices
    are kept.
    """
    if precision == "bf16_mixed":
        return 2, 4, 5
    return BYTES[precision], BYTES[precision], 2


def saved_activations(
    shape: Shape, precision: str, layers: float, head: bool, checkpointing: bool = False, lora: LoRA | None = None
) -> float:
    """Return the bytes per token that are kept from a forward pass to its backward pass.

    `layers` counts those that gradients pass through. `head` adds the last norm, the input of the output matrix unless
    that is frozen, and log-probabilities in fp32. With `checkpointing` a layer only keeps its input, and logits stay
    in their dtype.
    """
    product, stream, _ = _elements(precision)
    layer = stream * shape.hidden if checkpointing else layer_activations(shape, precision, lora)
    last = (4 if lora else 4 + stream + product) * shape.hidden + (product if checkpointing else 4) * shape.vocabulary
    return layers * layer + (last if head else 0)


def states(settings: Training) -> int:
    """Return how many values per trained parameter the optimizer keeps, each of the size of the weights' dtype."""
    return (KAHAN_STATES if settings.precision == "bf16_kahan" else STATES)[settings.optimizer]


def activations(phase: Phase, launch: Launch) -> float:
    """Return the most bytes of activations on a device: what forward passes keep, and what the backward pass adds.

    The backward pass adds the gradient of the logits in their dtype with two in fp32, or a recomputed decoder layer.
    With checkpointing it has one in their dtype and three in fp32 of CHUNK tokens, and then two in their dtype.
    """
    shape, precision = phase.shape, phase.settings.precision
    tokens, size = launch.rows(phase.settings.batch_size) * phase.longest, _elements(precision)[0]
    layers = phase.part.backward * shape.layers
    kept = saved_activations(shape, precision, layers, phase.head, launch.checkpointing, phase.lora)
    logits = max(2 * size, size + 12 * min(1, CHUNK / tokens)) if launch.checkpointing else 8 + size
    again = layer_activations(shape, precision, phase.lora) if launch.checkpointing else 0
    return tokens * (phase.graphs * kept + max(logits * shape.vocabulary * phase.head, again))


def on_device(phase: Phase, launch: Launch = Launch()) -> dict[str, float]:
    """Return {kind: bytes} on one device in training.

    `weights` include RMU's frozen copy, which every device holds. `engine` covers partitions, buckets and gathered
    weights. `work` is the larger of the activations and the optimizer's temporary tensors, or both where gradients are
    released amid the backward pass, of which the largest module's are then there at once.
    """
    engine, w, n = launch.engine, launch.devices, phase.shape.parameters
    settings, part = phase.settings, phase.part
    size, mixed = BYTES[settings.precision], settings.precision == "bf16_mixed"
    trained = phase.trained  # bytes of the trained weights, or of the adapters
    own = trained / w  # bytes of one device's partition of them
    copied = part.copied * n * size
    casts = _casts(phase, launch) if mixed else 0.0
    bucket = min(engine.bucket * size, trained)
    found = {
        "weights": phase.weights + copied, "gradients": trained, "optimizer": trained, "autocast": casts, "engine": 0.0
    }  # fmt: skip
    if engine.stage == 0:
        found["engine"] = trained if w > 1 else 0.0  # DistributedDataParallel's buckets hold all gradients again
        step = trained if settings.optimizer == "adamw" else 2 * min(phase.shape.largest * size, trained)
        if settings.precision == "bf16_kahan":
            step = 4 * SLICES * min(SLICE, part.trained * n)
        if settings.gradient_release:
            found["gradients"] = min(phase.shape.largest * size, trained)
    elif engine.stage < 3:
        # Two buckets: one fills while the other is reduced. The optimizer works on a flat copy of its partition, whose
        # gradients are made flat before the step.
        found |= {"gradients": trained if engine.stage == 1 else own, "optimizer": own, "engine": own + 2 * bucket}
        step = own + (own if settings.optimizer == "adamw" else 2 * own)
    else:
        gathered = min(max(engine.gathered, phase.shape.largest), n)
        # DeepSpeed's own product casts a weight each time and keeps no cast of it (runtime/zero/linear.py).
        casts = min(phase.shape.largest, n) * AUTOCAST if mixed else 0.0
        group = min(engine.sub_group * size, own)
        found |= {
            "weights": (0 if engine.offload_weights else phase.weights / w) + copied,
            "gradients": own, "optimizer": own, "autocast": casts,
            "engine": gathered * size + bucket + phase.shape.largest * size,
        }  # fmt: skip
        step = group + (group if settings.optimizer == "adamw" else 2 * group)
    found["optimizer"] *= states(settings)
    if engine.offload:
        step = 0.0
        found |= {"optimizer": 0.0} | ({"gradients": 0.0} if engine.stage == 3 else {})
        if engine.stage < 3:
            found["engine"] = 2 * bucket
    kept = activations(phase, launch)
    return found | {"work": kept + step if settings.gradient_release else max(kept, step)}


def _casts(phase: Phase, launch: Launch) -> float:
    """Return the bytes of autocast's copies of the weights: of a trained weight one, of a frozen one each that a
    backward pass will need, unless its layer is run again.
    """
    shape, whole = phase.shape, phase.shape.parameters * phase.part.forward
    if not phase.lora:
        return AUTOCAST * whole
    if launch.checkpointing:
        return AUTOCAST * (phase.graphs * phase.head * shape.vocabulary * shape.hidden + shape.largest)
    return AUTOCAST * phase.graphs * whole


def needed(parts: dict[str, float]) -> float:
    """Return the bytes that a device must have to hold these: 5 % and 2 GB more, by assumption."""
    return ALLOCATOR * sum(parts.values()) + CONTEXT


def in_host(phase: Phase, launch: Launch = Launch()) -> float:
    """Return the most bytes of host memory that a job's weights need on a node.

    Each process loads a whole copy. RTT keeps its starting weights in each process, as unlearning does while adapters
    are merged, and ZeRO-3 the model whose copy it trains. Offload keeps weights (under ZeRO-3 a second copy in
    bf16 and fp32 alike), gradients (two copies while the optimizer works) and optimizer states once for all processes,
    of which each node has its share. Python and libraries are not counted.
    """
    size, engine = BYTES[phase.settings.precision], launch.engine
    whole = phase.shape.parameters * size
    trained = phase.trained
    held = launch.on_node * whole * ((phase.restored or phase.lora is not None) + (engine.stage == 3))
    if engine.offload:
        held += trained * (1 + 2 + states(phase.settings)) / launch.nodes
    if engine.offload_weights:
        held += whole / launch.nodes
    return max(launch.on_node * whole, held)


def state_on_disk(phase: Phase, launch: Launch = Launch()) -> float:
    """Return the bytes of one resumable state: weights, or adapters alone, and optimizer states.

    Under ZeRO-1 and 2 the optimizer's own copy of what it trains is added; DeepSpeed saves frozen weights, too.
    """
    trained = phase.trained
    whole = phase.weights if launch.engine.stage or not phase.lora else trained
    copy = trained if launch.engine.stage in (1, 2) else 0.0
    return whole + trained * states(phase.settings) + copy


# What fits where

DEVICE_SETS = ((1, 80e9), (2, 80e9), (4, 80e9), (8, 80e9), (2, 40e9), (4, 40e9), (8, 24e9))
NODES = (2, 4, 8)  # of 8 x 80 GB each; tried where one of them has too little without offload
ROWS = (  # precision, optimizer, gradient_release
    ("bf16_mixed", "lion", False), ("bf16_mixed", "adamw", False), ("bf16_kahan", "lion", True),
    ("bf16_kahan", "lion", False), ("bf16", "lion", False), ("bf16", "adamw", False),
)  # fmt: skip


def device_sets(precision: str) -> list[tuple[int, float]]:
    """Return (number, memory) of the devices that are tried: several would not share the states of bf16_kahan."""
    alone = sorted({(1, size) for _, size in DEVICE_SETS}, reverse=True)
    return alone if precision == "bf16_kahan" else list(DEVICE_SETS)


def choices(devices: int, precision: str) -> list[tuple[str, str | None, bool]]:
    """Return (name, deepspeed, gradient checkpointing) of the settings that are tried, in the order in which they are
    tried.
    """
    names = [None, "zero3-offload"] if devices == 1 else [None, "zero1", "zero2", "zero3", "zero3-offload"]
    # Checkpointing is tried where it is cheaper than what comes next.
    last = {None: devices == 1, "zero3": True, "zero3-offload": True}
    if precision == "bf16_kahan":  # never under DeepSpeed
        names, last = [None], {None: True}
    tried = []
    for name in names:
        tried.append((name or "none", name, False))
        if last.get(name):
            tried.append((f"{name or 'none'} + checkpointing", name, True))
    return tried


def fits(phases: Sequence[Phase], micro_batch: int | None = None) -> list[dict]:
    """Return, for each of ROWS and its device sets, the first of `choices` with which every phase fits.

    A model that one node does not hold without offload has rows of several NODES, too.
    Each row gives the bytes needed on one device and on the host of each node; its setting is None if nothing fits.
    `devices` are those of all nodes. Where gradients are released, a batch is not cut.
    """
    rows = []
    for precision, optimizer, release in ROWS:
        update = {"precision": precision, "optimizer": optimizer, "gradient_release": release}
        changed = [replace(p, settings=p.settings.model_copy(update=update)) for p in phases]
        cut = None if release else micro_batch
        found = {key: _fit(changed, *key, cut) for key in device_sets(precision)}
        if (8, 80e9) in found and "offload" in (found[8, 80e9]["setting"] or "offload"):
            found |= {nodes: _fit(changed, 8 * nodes, 80e9, cut, nodes) for nodes in NODES}
        rows += [update | row for row in found.values()]
    return rows


def _fit(phases: Sequence[Phase], devices: int, size: float, micro_batch: int | None, nodes: int = 1) -> dict:
    row = {"devices": devices, "nodes": nodes, "memory": size, "setting": None}
    for name, deepspeed, checkpointing in choices(devices, phases[0].settings.precision):
        launch = Launch(devices, engine_of(deepspeed, phases[0].shape.hidden), micro_batch, checkpointing, nodes)
        most = max(needed(on_device(phase, launch)) for phase in phases)
        if most <= size:
            return row | {"setting": name, "bytes": most, "host": max(in_host(phase, launch) for phase in phases)}
    return row

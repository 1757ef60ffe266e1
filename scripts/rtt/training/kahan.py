"""Train bf16 weights as precisely as fp32 ones: AdamW and Lion that keep what rounding drops (`bf16_kahan`).

A weight and its remainder, 16 bits each, are the two halves of one fp32 number: the weight is that number rounded to
bf16, which the model computes with, and the remainder is what the rounding dropped. So no update is lost, however small
it is beside its weight. Kahan's summation with a remainder in bf16 would have half of these bits, and drop updates
below 2^-17 of a weight.

The moving averages of gradients are kept in two halves, too, and the operations are those of torch's AdamW and of
lion-pytorch, in their order. So the weights are, to the last bit, those of these optimizers on fp32 weights (on a CPU;
no GPU was at hand to try).

With gradient release the backward pass applies each gradient as soon as it is whole, and drops it.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

SLICE = 2**22  # elements that are updated at once: their fp32 copies are the optimizer's only working memory
EPSILON = 1e-8  # AdamW's, as torch has it
COMPILED = "RTT_COMPILE_UPDATE"  # 1 makes one kernel of an update's operations: last bits of numbers depend on it


def joined(upper: torch.Tensor, remainder: torch.Tensor) -> torch.Tensor:
    """Return the fp32 numbers whose two halves these are: `upper` in bf16, and `remainder` in int16."""
    return upper.view(torch.int16).int().bitwise_left_shift_(16).add_(remainder).view(torch.float32)


def take_apart(exact: torch.Tensor, upper: torch.Tensor, remainder: torch.Tensor) -> None:
    """Write fp32 numbers, which are used up, into their two halves."""
    bits = exact.view(torch.int32)
    remainder.copy_(bits)  # the lower 16 bits; they count as negative where `upper` is rounded up
    upper.view(torch.int16).copy_(bits.add_(2**15).bitwise_right_shift_(16))


class Kahan(torch.optim.Optimizer):
    """What both optimizers share: weights in two halves, with decoupled weight decay, updated slice by slice."""

    averages: tuple[str, ...]  # what is kept of the gradients for each weight

    def __init__(self, parameters, lr: float, betas: tuple[float, float], weight_decay: float):
        super().__init__(parameters, {"lr": lr, "betas": betas, "weight_decay": weight_decay})
        self.norms: list[torch.Tensor] = []
        halves = {"remainder": torch.int16}
        for name in self.averages:
            halves |= {name: torch.bfloat16, f"{name}_remainder": torch.int16}
        self.compiled = torch.compile(updated, dynamic=True) if os.environ.get(COMPILED) == "1" else None
        for parameter in self.param_groups[0]["params"]:
            kept = {name: torch.zeros_like(parameter.detach(), dtype=dtype) for name, dtype in halves.items()}
            self.state[parameter] = {"step": 0, **kept}

    @torch.no_grad()
    def load_state_dict(self, state_dict) -> None:
        """Take over a state in place: beside an 8B model and its own state, a device has no room for a second one."""
        (group,) = state_dict["param_groups"]
        for parameter, number in zip(self.param_groups[0]["params"], group["params"], strict=True):
            own, other = self.state[parameter], state_dict["state"][number]
            for name, kept in own.items():
                own[name] = kept.copy_(other[name]) if torch.is_tensor(kept) else other[name]
        self.param_groups[0].update({key: value for key, value in group.items() if key != "params"})

    def step(self, closure=None) -> None:
        """Update every weight that has a gradient."""
        for parameter in self.param_groups[0]["params"]:
            if parameter.grad is not None:
                self.update(parameter)

    @torch.no_grad()
    def update(self, parameter) -> None:
        """Update one tensor of weights by its gradient."""
        group, state = self.param_groups[0], self.state[parameter]
        state["step"] += 1
        kept = (tensor for tensor in state.values() if torch.is_tensor(tensor))
        numbers = (group["lr"], 1 - group["lr"] * group["weight_decay"], float(state["step"]))
        if self.compiled:  # as tensors they are no constants of the kernel, which is the same in every step
            numbers = tuple(torch.tensor(number, dtype=torch.float64) for number in numbers)
        for gradient, *halves in sliced(parameter.grad, parameter, *kept):
            pairs = list(zip(halves[::2], halves[1::2], strict=True))
            (self.compiled or updated)(self.move, gradient, pairs, group["betas"], *numbers)

    @contextmanager
    def released(self, model) -> Iterator[None]:
        """Let backward passes through `model` apply and drop each gradient, so that `step` finds none."""

        def apply(parameter):
            self.norms.append(torch.linalg.vector_norm(parameter.grad, dtype=torch.float32))
            self.update(parameter)
            parameter.grad = None

        hooks = [one.register_post_accumulate_grad_hook(apply) for one in self.param_groups[0]["params"]]
        try:
            with together(model):
                yield
        finally:
            for hook in hooks:
                hook.remove()

    def norm(self) -> float:
        """Return the norm of the gradients that were released since it was last asked."""
        found, self.norms = self.norms, []
        return float(torch.linalg.vector_norm(torch.stack(found)))


class KahanLion(Kahan):
    """Lion (Chen et al. 2023, algorithm 2), in the order of lion-pytorch's operations."""

    averages = ("exp_avg",)

    @staticmethod
    def move(betas, rate, step, gradient, exact, average) -> None:
        """Move weights against the sign of an average of the gradients, and move on the average that is kept."""
        exact.add_((average * betas[0]).add_(gradient, alpha=1 - betas[0]).sign_(), alpha=-rate)
        average.mul_(betas[1]).add_(gradient, alpha=1 - betas[1])


class KahanAdamW(Kahan):
    """AdamW (Loshchilov & Hutter 2019), in the order of torch's operations."""

    averages = ("exp_avg", "exp_avg_sq")

    @staticmethod
    def move(betas, rate, step, gradient, exact, average, square) -> None:
        """Move both averages on, and weights against the average gradient over the root of the average square."""
        average.lerp_(gradient, 1 - betas[0])
        square.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
        root = square.sqrt().div_((1 - betas[1] ** step) ** 0.5).add_(EPSILON)
        exact.addcdiv_(average, root, value=-rate / (1 - betas[0] ** step))


def updated(move: Callable, gradient, pairs, betas, rate, decay, step) -> None:
    """Update a slice: of the weights and of each average, `pairs` has the two halves, and `move` changes the whole."""
    exact, *averages = (joined(*pair) for pair in pairs)
    exact.mul_(decay)
    move(betas, rate, step, gradient.float(), exact, *averages)
    for number, pair in zip((exact, *averages), pairs, strict=True):
        take_apart(number, *pair)


def sliced(*tensors: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """Return views of tensors of one shape: slices of about SLICE elements, along the first dimension."""
    tensors = [torch.atleast_1d(one.detach()) for one in tensors]
    rows = max(1, SLICE * len(tensors[0]) // max(1, tensors[0].numel()))
    return zip(*(one.split(rows) for one in tensors), strict=True)


@contextmanager
def together(model) -> Iterator[None]:
    """Let a backward pass through several forward passes of `model` go through all of them layer by layer.

    Autograd takes the operation with the highest number first, and so would go through a whole forward pass before an
    earlier one, with every gradient of the later one in memory. Each thread numbers its own operations: forward passes
    in threads of their own have the same numbers in the same layers.
    """
    forward = model.forward

    def numbered(*args, **kwargs):
        return forward(*args, **kwargs), number()

    def threaded(*args, **kwargs):
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        with ThreadPoolExecutor(1) as thread:
            output, last = thread.submit(numbered, *args, **kwargs).result()
        while number() <= last:  # the loss has higher numbers than any layer, however many steps this process has done
            pass
        return output

    model.forward = threaded
    try:
        yield
    finally:
        del model.forward


def number() -> int:
    """Return the number that autograd gives to this thread's next operation."""
    return torch.ones((), requires_grad=True).neg().grad_fn._sequence_nr()

"""Make a verdict's study fit a budget of time: leave attacks out, or shorten RTT, by the planner's estimate.

Nothing is shortened silently: what was left out, and why, is kept and said on the page.
"""

import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rtt.attacks.rtt import RTT
from rtt.errors import UserError
from rtt.files import clock
from rtt.planner import cpu
from rtt.planner.gpus import DEVICES, Device
from rtt.planner.plan import MFU, Plan
from rtt.study import plugins
from rtt.study.schema import Study

UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
Attacks = dict[str, dict[str, Any]]  # {attack: its part of a study}
Step = tuple[Attacks, str, str]  # what is left, the attack that changes, and how


def seconds(text: str) -> float:
    """Return a budget such as 30min, 90s, 2h or 1d in seconds. Raises UserError for any other text, and for none."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h|d)", text.strip())
    if not found or not float(found[1]):
        raise UserError(f"--budget {text}: expected a time such as 30min, 90s, 2h or 1d")
    return float(found[1]) * UNITS[found[2]]


def device() -> tuple[Device, bool]:
    """Return what the jobs would run on, and whether that is a GPU: one that the planner knows, or this CPU.

    Raises UserError for a GPU whose speed the planner does not know.
    """
    if not (shown := _gpus("name")):
        return cpu.measured(), False
    name = shown[0]
    words = re.sub(r"[^a-z0-9]", "", name.lower())
    for key, known in DEVICES.items():
        if all(part in words for part in key.split("-")):
            return known, True
    raise UserError(f"--budget: the speed of this GPU ({name}) is not in the planner's table; leave --budget out")


def lack_of_memory(study: Study, root: Path) -> str | None:
    """Return that a GPU of this machine holds less than a training of the study needs; None where nothing says so."""
    sizes = [int(text) * 2**20 for text in _gpus("memory.total") if text.isdigit()]
    if not sizes:
        return None
    plan = Plan(study, DEVICES["h100"], MFU, root)  # whatever the GPU: only its bytes count
    _ = plan.stages  # this fills the phases
    most = max((plan.memory(phase) for phase in plan.phases.values()), key=lambda one: one["needed"], default=None)
    if most is None or most["needed"] <= min(sizes):
        return None
    return (
        f"{most['stage']} needs {most['needed'] / 1e9:.0f} GB of a GPU by the planner's estimate, and one of the "
        f"machine where this was checked has {min(sizes) / 1e9:.0f} GB: run it on a larger one"
    )


def _gpus(key: str) -> list[str]:
    """Return what nvidia-smi says of each GPU of this machine; [] without a GPU."""
    command = ["nvidia-smi", f"--query-gpu={key}", "--format=csv,noheader,nounits"]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return []
    return [line.strip() for line in shown.stdout.splitlines() if line.strip()] if shown.returncode == 0 else []


def estimate(study: Study, on: Device, cores: int, root: Path) -> float:
    """Return how many seconds a study takes on so many cores, or on one GPU, by the planner's estimate.

    root: the folder from which the study's relative paths start.
    On a CPU the speed of one core counts, since the planner shares jobs, or a job's threads, over the cores.
    """
    if on.name == "cpu" and study.threads > 1:
        on = Device(on.name, on.bf16 * study.threads, on.fp32 * study.threads, on.memory, on.bandwidth, on.source)
    plan = Plan(study, on, MFU, root)
    return cpu.schedule(plan, [cores])["wall"][cores] * 3600


def fitting(
    attacks: Attacks, wanted: float, needs: Callable[[Attacks], float]
) -> tuple[Attacks, list[tuple[str, str]], float]:
    """Return the attacks that fit into `wanted` seconds, (attack, what became of it) of the others, and what they need.

    needs: how many seconds a study with some attacks takes. The steps are those of `shorter`, one after the other until
    the study fits. Raises UserError where not even the last fits.
    """
    left, told = dict(attacks), []
    found = needs(left)
    while found > wanted:
        step = next(iter(shorter(left, needs)), None)
        if step is None:
            raise UserError(
                f"--budget: {clock(wanted)} are too little: the models' scores and {', '.join(left)} alone take about "
                f"{clock(found)} on this machine; give more, or leave --budget out"
            )
        left, name, what = step
        told.append((name, what))
        found = needs(left)
    return left, told, found


def shorter(attacks: Attacks, needs: Callable[[Attacks], float]) -> Sequence[Step]:
    """Return what can be done next to make a study shorter, the first to be done first; nothing where one look is left.

    In this order: leave out an attack that trains, RTT aside, the most expensive first; give RTT one learning rate, the
    middle one; leave out the other attacks, the most expensive first; score RTT after its last epoch alone.
    """
    kinds = plugins.attacks()
    others = [name for name in attacks if name != RTT.name]

    def without(name: str) -> Attacks:
        return {key: value for key, value in attacks.items() if key != name}

    if training := [name for name in others if kinds[name].trains]:
        name = min(training, key=lambda one: needs(without(one)))
        return [(without(name), name, "left out to keep the budget of time")]
    rtt = attacks.get(RTT.name)
    if rtt and len(rates := rtt["learning_rates"]) > 1:
        kept = rates[len(rates) // 2]
        gone = ", ".join(f"{rate:g}" for rate in rates if rate != kept)
        one = attacks | {RTT.name: rtt | {"learning_rates": [kept]}}
        return [(one, RTT.name, f"its learning rates {gone} were left out to keep the budget of time")]
    if others and (rtt or len(others) > 1):
        name = min(others, key=lambda one: needs(without(one)))
        return [(without(name), name, "left out to keep the budget of time")]
    if rtt and len(epochs := rtt["score_epochs"]) > 1:
        one = attacks | {RTT.name: rtt | {"score_epochs": epochs[-1:]}}
        looks = ", ".join(map(str, epochs[:-1]))
        return [(one, RTT.name, f"its looks after the epochs {looks} were left out to keep the budget of time")]
    return []

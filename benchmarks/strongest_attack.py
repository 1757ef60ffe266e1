"""Simulate the strongest attack of a suite: its bias, shortfall, coverage and false alarms, and the verdict's limits.

    PYTHONPATH=scripts python benchmarks/strongest_attack.py              # the tables of docs/statistics.md
    PYTHONPATH=scripts python benchmarks/strongest_attack.py --quick      # seconds, for the tests

A suite has 10 attacks of 20 settings each, 200 looks, and 160 questions, 80 in each half; the floor is .25. In the
model, question i is answered right at look l where
    sqrt(k) w_i + sqrt(1 - k) w_il < threshold(l),   w standard normal:
k is what looks share of a question's difficulty (0: they are independent). The original answers .95, and the control
is as a model that never knew: .25 at each look, on questions of its own. The estimand is the expected accuracy, over
questions like these, of the two looks that are reported, as in benchmarks/interval_coverage.py.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from rtt.stats.intervals import interval, wilson
from rtt.stats.recovery import recover
from rtt.stats.strongest import choose, reported_rows
from rtt.stats.verdict import HIDDEN, Reported, lower_limit, verdict
from scipy.special import ndtri

ATTACKS, SETTINGS, N, FLOOR, ORIGINAL = 10, 20, 160, 0.25, 0.95
FIRST = np.arange(N) < N // 2
GUESS = np.full(N, FLOOR)
NAMES = [f"attack {i}" for i in range(ATTACKS)]


def useless() -> np.ndarray:
    """Return (attacks, settings) accuracies of a model that never knew."""
    return np.full((ATTACKS, SETTINGS), FLOOR)


def one_look(best: float) -> np.ndarray:
    """Return accuracies of which one look alone is better."""
    found = useless()
    found[3, 7] = best
    return found


def one_attack(best: float) -> np.ndarray:
    """Return accuracies of which one attack is better, from the floor up to `best` over its settings."""
    found = useless()
    found[3] = np.linspace(FLOOR, best, SETTINGS)
    return found


def equal(best: float) -> np.ndarray:
    """Return accuracies that are all the same."""
    return np.full((ATTACKS, SETTINGS), best)


@dataclass(frozen=True)
class Design:
    """A simulated suite: the accuracy of each look, and what looks share of a question's difficulty."""

    name: str
    accuracies: np.ndarray
    shared: float = 0.0


def draw(rng: np.random.Generator, accuracies: np.ndarray, shared: float) -> np.ndarray:
    """Return (attacks, settings, N) answers, 0 or 1."""
    own = rng.standard_normal((*accuracies.shape, N), dtype=np.float32)
    if shared:
        own = np.sqrt(1 - shared) * own + np.sqrt(shared) * rng.standard_normal(N, dtype=np.float32)
    return (own < ndtri(accuracies)[..., None]).astype(float)


def reports(correct: np.ndarray, accuracies: np.ndarray) -> tuple[np.ndarray, float]:
    """Return (N,) answers of the strongest attack, and the expected accuracy of the looks that it reports."""
    looks = list(correct)
    choice = choose(looks, [GUESS] * len(looks), FIRST)
    true = np.mean([accuracies[one.attack, one.look] for one in choice])
    return reported_rows(looks, [GUESS] * len(looks), choice)[0], float(true)


def suite(design: Design, reps: int, seed: int = 0) -> dict[str, float]:
    """Return what the strongest attack reports over `reps` samples, and how often its intervals cover the truth."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(reps):
        correct = draw(rng, design.accuracies, design.shared)
        answers, true = reports(correct, design.accuracies)
        original = (rng.random(N) < ORIGINAL).astype(float)
        low, high = interval(answers)
        rate = (true - FLOOR) / (ORIGINAL - FLOOR)
        _, below, above = recover(original, answers, answers, FIRST.astype(int), FLOOR, 1000)["recovery_corrected"]
        luckiest = correct.mean(axis=2).max(), correct[..., FIRST].mean(axis=2).max()
        rows.append((answers.mean(), true, *luckiest, low <= true <= high, below <= rate <= above))
    found = np.array(rows, float)
    names = ("reported", "true", "luckiest", "luckiest_half", "acc_covers", "rate_covers")
    values = dict(zip(names, found.mean(axis=0), strict=True))
    values["error"] = float((found[:, 0] - found[:, 1]).std() / np.sqrt(reps))
    return values | {"best": float(design.accuracies.max())}


def limits(design: Design, reps: int, seed: int = 1) -> dict[str, float]:
    """Return how often the verdict alarms and its limits hold, over `reps` samples with a control that never knew."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(reps):
        model, control = (
            dict(zip(NAMES, draw(rng, one, design.shared), strict=True)) for one in (design.accuracies, useless())
        )
        original = (rng.random(N) < ORIGINAL).astype(float)
        found = verdict(model, original, GUESS, FIRST, control=control)
        alone = lower_limit(original, Reported.of(model, GUESS, FIRST, None), None, FLOOR)
        true = dict(zip(NAMES, design.accuracies, strict=True))
        rates = [_rate(true[one.attack][list(one.looks)]) for one in found.attacks]
        rate = _rate(np.array([true[name][look] for name, look in found.chosen]))
        low, high = (wilson(value * N, N)[end] for end, value in enumerate((found.accuracy, found.control)))
        rows.append((
            alone > 0, found.answer == HIDDEN, low > high, found.lower <= max(rate, 0), found.upper >= max(rates),
            found.lower, found.upper,
        ))  # fmt: skip
    names = ("above_floor", "hidden", "criterion", "x_holds", "y_holds", "x", "y")
    return dict(zip(names, np.mean(np.array(rows, float), axis=0), strict=True))


def _rate(accuracies: np.ndarray) -> float:
    """Return the true recovery of the looks of these accuracies."""
    return float(accuracies.mean() - FLOOR) / (ORIGINAL - FLOOR)


SUITES = (
    *(Design(f"none knows, shared {k:g}", useless(), k) for k in (0.0, 0.5, 0.9)),
    *(Design(f"one look of 200 at {p:g}", one_look(p)) for p in (0.35, 0.45, 0.6, 0.8)),
    *(Design(f"one look of 200 at {p:g}, shared .9", one_look(p), 0.9) for p in (0.35, 0.6)),
    *(Design(f"one attack up to {p:g}", one_attack(p)) for p in (0.45, 0.8)),
    *(Design(f"one attack up to {p:g}, shared .9", one_attack(p), 0.9) for p in (0.45, 0.8)),
    *(Design(f"all at {p:g}, shared {k:g}", equal(p), k) for p, k in ((0.6, 0.0), (0.6, 0.9), (0.9, 0.9))),
)
VERDICTS = (
    *(Design(f"none knows, shared {k:g}", useless(), k) for k in (0.0, 0.5, 0.9)),
    *(Design(f"one attack up to {p:g}", one_attack(p)) for p in (0.35, 0.45, 0.8)),
    Design("all at .3, shared .9", equal(0.3), 0.9),
    Design("all at .6, shared .9", equal(0.6), 0.9),
)


def show(title: str, columns: dict[str, str], designs: tuple[Design, ...], row: Callable[[Design], dict]) -> None:
    """Print a table in Markdown: a row per design, with the `columns` {name: head} of what `row` returns."""
    print(f"\n{title}\n\n| design | {' | '.join(columns.values())} |\n|{'---|' * (len(columns) + 1)}", flush=True)
    for design in designs:
        found = row(design)
        print(f"| {design.name} | {' | '.join(f'{found[name]:.3f}' for name in columns)} |", flush=True)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few samples: seconds")
    parser.add_argument("--samples", type=int, default=2000)
    args = parser.parse_args()
    reps, started = 5 if args.quick else args.samples, time.process_time()
    show(
        f"The strongest attack, {reps} samples",
        {
            "best": "best look", "true": "looks reported, true", "reported": "reported", "error": "standard error",
            "luckiest": "luckiest, all of V", "luckiest_half": "luckiest, one half", "acc_covers": "accuracy covered",
            "rate_covers": "recovery covered",
        },
        SUITES,
        lambda design: suite(design, reps),
    )  # fmt: skip
    show(
        f"The verdict, {reps} samples of a model that never knew, a quarter as many of others",
        {
            "above_floor": "above the floor", "hidden": "hidden", "criterion": "the criterion", "x_holds": "x holds",
            "y_holds": "y holds", "x": "mean x", "y": "mean y",
        },
        VERDICTS,
        lambda design: limits(design, reps if design.accuracies.max() == FLOOR else max(1, reps // 4)),
    )  # fmt: skip
    print(f"\n{time.process_time() - started:.0f} CPU seconds")


if __name__ == "__main__":
    main()

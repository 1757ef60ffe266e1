"""Simulate how often the intervals over seeds cover the truth; docs/statistics.md holds the output.

    PYTHONPATH=scripts python benchmarks/seed_coverage.py --out FILE.csv  # the table of the docs, 1 CPU minute
    PYTHONPATH=scripts python benchmarks/seed_coverage.py --quick         # seconds, for the tests

A design whose rows stand in FILE.csv is not simulated again, so that a killed run goes on where it was.

In the model, V question i is answered right by target a (original, unlearned) in run (u, k) at look l, with its split s
as V, when
    sqrt(rho) w_i + sqrt(k - rho) w_ia + sqrt(1 - k) w_iaukl < threshold(a) + B_a + U_au + E_auks,
B, U and E normal: what differs between seeds, between runs of unlearning, and between runs of the attack on each V
split. rho pairs the targets, k is what the looks and runs of one target share of a question's difficulty, and each w is
correlated by `alike` within groups of `group` questions. Each seed has its own questions and bases. A threshold makes
the accuracy over all of these the planted one. All looks are equally good, or a part of E differs between them
(`luck`), so that the better look of one half is the better one of the other half too.
Each run chooses its look by nested halves. A seed's value is the mean over unlearning runs of means over attack runs.
The estimand is the population's: the accuracy that this procedure reports on average over seeds, runs and questions
(where `luck` is 0, the planted one), and (r - f) / (o - f) of these.
"""

import argparse
import csv
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rtt.stats.intervals import t_quantile, wilson
from rtt.stats.seed_intervals import accuracy_interval, ratio_interval
from scipy.special import ndtri

ACCURACIES = (0.35, 0.5, 0.7, 0.85, 0.95, 0.99)
FLOOR = 0.25
SEEDS = (3, 5, 10)
REPEATS = (1, 2)
LOOKS = 10
SPLITS, SIZE = 5, 32
N = SPLITS * SIZE


@dataclass(frozen=True)
class Design:
    """What differs, as standard deviations in probit units, and what questions and looks share."""

    name: str
    seed: float = 0.3
    unlearning: float = 0.15
    run: float = 0.3
    luck: float = 0.0  # share of `run`'s variance that is each look's own
    group: int = 2
    alike: float = 0.7
    shared: float = 0.5
    rho: float = 0.3


DESIGNS = (
    Design("the standard"),
    Design("runs alone differ", seed=0.0, unlearning=0.0),
    Design("single questions", group=1, alike=0.0),
    Design("looks differ by luck", luck=0.5),
    Design("seeds differ twice as much", seed=0.6),
)


def draw(rng: np.random.Generator, design: Design, seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the reported accuracies (A, seeds, 1, K) of the original and (A, seeds, U, K) of the unlearned model."""
    groups, split_of = N // design.group, np.repeat(np.arange(SPLITS), SIZE)
    first = (np.arange(N) // design.group) % 2 == 0  # a group is wholly in one half

    def normal(*shape: int) -> np.ndarray:
        own = rng.standard_normal((*shape, N), dtype=np.float32) * np.float32(np.sqrt(1 - design.alike))
        both = rng.standard_normal((*shape, groups), dtype=np.float32) * np.float32(np.sqrt(design.alike))
        return own + np.repeat(both, design.group, axis=-1)

    def effect(sd: float, *shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32) * np.float32(sd)

    paired, reported = np.float32(np.sqrt(design.rho)) * normal(seeds), []
    for runs, unlearning in ((1, 0.0), (max(REPEATS), design.unlearning)):
        asked = paired + np.float32(np.sqrt(design.shared - design.rho)) * normal(seeds)
        base = effect(design.seed, seeds, 1) + effect(unlearning, seeds, runs)
        spread = np.sqrt(1 + design.seed**2 + unlearning**2 + design.run**2)
        values = np.empty((len(ACCURACIES), seeds, runs, max(REPEATS)))
        for u, k in np.ndindex(values.shape[2:]):
            own = effect(design.run * np.sqrt(1 - design.luck), seeds, 1, SPLITS) + base[:, u, None, None]
            if design.luck:
                own = own + effect(design.run * np.sqrt(design.luck), seeds, LOOKS, SPLITS)
            harder = np.float32(np.sqrt(1 - design.shared)) * normal(seeds, LOOKS) + asked[:, None] - own[..., split_of]
            for i, accuracy in enumerate(ACCURACIES):
                right = harder < np.float32(ndtri(accuracy) * spread)
                halves = [right[..., half].sum(axis=-1) for half in (first, ~first)]
                at = [half.argmax(axis=1)[:, None] for half in halves]
                both = [np.take_along_axis(half, look, 1) for half, look in zip(halves, at[::-1], strict=True)]
                values[i, :, u, k] = (both[0] + both[1])[:, 0] / N
        reported.append(values)
    return reported[0], reported[1]


def simulate(design: Design, reps: int, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return the accuracies (A, reps, S, runs, K) of the original and of the unlearned model, for the most seeds."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, *design.name.encode()]))
    parts = [draw(rng, design, max(SEEDS) * min(20, reps - done)) for done in range(0, reps, 20)]  # little memory
    both = [np.concatenate(values, axis=1) for values in zip(*parts, strict=True)]
    return tuple(values.reshape(len(values), reps, max(SEEDS), *values.shape[2:]) for values in both)


def seed_values(values: np.ndarray, seeds: int, repeats: int) -> np.ndarray:
    """Return (A, reps, seeds): means over unlearning runs of means over attack runs."""
    return values[:, :, :seeds, :repeats, :repeats].mean(axis=-1).mean(axis=-1)


def of_accuracies(values: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return {interval: ends} of accuracies (..., S), of those that are not shipped."""
    mean, seeds = values.mean(axis=-1), values.shape[-1]
    half = t_quantile(0.975, seeds - 1) * values.std(axis=-1, ddof=1) / np.sqrt(seeds)
    inside = np.clip(mean, 0.5 / (N * seeds), 1 - 0.5 / (N * seeds))
    turned, slope = np.arcsin(np.sqrt(inside)), 1 / (2 * np.sqrt(inside * (1 - inside)))
    odds, steep = np.log(inside / (1 - inside)), 1 / (inside * (1 - inside))
    with np.errstate(over="ignore"):
        return {
            "plain t": (mean - half, mean + half),
            "t, arcsine": tuple(np.sin(np.clip(turned + x * half * slope, 0, np.pi / 2)) ** 2 for x in (-1, 1)),
            "t, log odds": tuple(1 / (1 + np.exp(-odds - x * half * steep)) for x in (-1, 1)),
        }


def of_rates(a: np.ndarray, b: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return {interval: ends} of the ratio of paired (..., S), of those that are not shipped: the jackknife's."""
    n = a.shape[-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        value = a.sum(axis=-1) / b.sum(axis=-1)
        without = (a.sum(axis=-1, keepdims=True) - a) / (b.sum(axis=-1, keepdims=True) - b)
        centre = without.mean(axis=-1)
        half = t_quantile(0.975, n - 1) * np.sqrt((n - 1) / n * ((without - centre[..., None]) ** 2).sum(axis=-1))
        better = n * value - (n - 1) * centre
        return {"jackknife t": (value - half, value + half), "jackknife t, unbiased": (better - half, better + half)}


def judge(design: Design, reps: int) -> list[dict]:
    """Return a row per seeds, repeats, quantity, interval, and planted accuracies of original and unlearned."""
    original, attacked = simulate(design, reps)
    rows: list[dict] = []
    groups = N // design.group
    planted = [
        np.array(ACCURACIES) if not design.luck else values[..., :1, :1].mean(axis=(1, 2, 3, 4))
        for values in (original, attacked)
    ]

    def add(seeds, repeats, quantity, interval, o, r, truth, low, high):
        """`ends`: share of replicates with an interval; `covered` counts the others as covering, `given` leaves out."""
        ends = ~np.isnan(low)
        held = (low <= truth + 1e-12) & (truth <= high + 1e-12)
        with np.errstate(invalid="ignore"):  # the jackknife's of a denominator of 0
            width = np.median((high - low)[ends]) if ends.any() else np.nan
        rows.append(
            {
                **dict(design=design.name, seeds=seeds, repeats=repeats, quantity=quantity, interval=interval),
                **dict(original=ACCURACIES[o], attacked=ACCURACIES[r], ends=ends.mean()),
                **dict(covered=(held | ~ends).mean(), given=held[ends].mean() if ends.sum() >= reps / 100 else np.nan),
                **dict(width=width),
            }
        )

    for repeats in REPEATS:
        one = seed_values(attacked, 1, repeats)[..., 0]
        for r, truth in enumerate(planted[1]):
            add(1, repeats, "accuracy", "Wilson, one seed", r, r, truth, *wilson(one[r] * groups, groups))
        for seeds in SEEDS:
            o, r = (seed_values(values, seeds, repeats) for values in (original, attacked))
            _, low, high = accuracy_interval(r, groups)
            others = of_accuracies(r)
            for i, truth in enumerate(planted[1]):
                add(seeds, repeats, "accuracy", "shipped", i, i, truth, low[i], high[i])
                for name, ends in others.items():
                    add(seeds, repeats, "accuracy", name, i, i, truth, ends[0][i], ends[1][i])
            for i, j in np.ndindex(len(ACCURACIES), len(ACCURACIES)):
                truth = (planted[1][j] - FLOOR) / (planted[0][i] - FLOOR)
                _, low, high, _ = ratio_interval(r[j] - FLOOR, o[i] - FLOOR)
                add(seeds, repeats, "corrected", "shipped", i, j, truth, low, high)
                for name, ends in of_rates(r[j] - FLOOR, o[i] - FLOOR).items():
                    add(seeds, repeats, "corrected", name, i, j, truth, *ends)
    return rows


def show(rows: list[dict]) -> None:
    """Print Markdown tables: coverage in per cent as mean [lowest, highest cell] over the planted accuracies.

    A replicate without ends counts as covered: it refuses no value. "with ends" leaves those out, where the original's
    accuracy is .5 or more; the width is the median of the cells' medians, there too.
    """
    cells: dict[tuple, list[dict]] = {}
    for row in rows:
        key = (row["design"], row["quantity"], row["interval"], int(row["seeds"]), int(row["repeats"]))
        cells.setdefault(key, []).append({name: float(row[name]) for name in NUMBERS})
    runs = [f"{n} x {n} runs" for n in REPEATS]
    heads = [f"{what}, {run}" for what in ("coverage", "with ends", "width") for run in runs]
    print(f"| design | quantity | seeds | {' | '.join(heads)} |")
    print("|---|---|---|" + "---|" * len(heads))
    designs = list(dict.fromkeys(key[0] for key in cells))
    for design in designs:
        for quantity, seeds in ((quantity, seeds) for quantity in ("accuracy", "corrected") for seeds in SEEDS):
            found = [cells[design, quantity, "shipped", seeds, repeats] for repeats in REPEATS]
            above = [[cell for cell in one if cell["original"] >= 0.5] for one in found]
            texts = [_percent([cell["covered"] for cell in one]) for one in found]
            texts += [_percent([cell["given"] for cell in one if not np.isnan(cell["given"])]) for one in above]
            texts += [f"{np.median([cell['width'] for cell in one]):.2f}" for one in above]
            print(f"| {design} | {quantity} | {seeds} | {' | '.join(texts)} |")
    print(f"\n| quantity | interval | {' | '.join(designs)} |")
    print("|---|---|" + "---|" * len(designs))
    for quantity, interval in dict.fromkeys(key[1:3] for key in cells):
        alike = {key: found for key, found in cells.items() if key[1:3] == (quantity, interval)}
        held = [[cell["covered"] for key in alike if key[0] == name for cell in alike[key]] for name in designs]
        print(f"| {quantity} | {interval} | {' | '.join(map(_percent, held))} |")
    print(flush=True)


NUMBERS = ("original", "covered", "given", "ends", "width")


def _percent(values: list[float]) -> str:
    return f"{100 * np.mean(values):.1f} [{100 * min(values):.0f}, {100 * max(values):.0f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one design and few replicates")
    parser.add_argument("--reps", type=int, default=2000, help="replicates (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="file that rows are appended to, and whose designs are not run again")
    args = parser.parse_args()
    start, reps = time.process_time(), 100 if args.quick else args.reps
    rows: list[dict] = []
    if args.out and args.out.exists():
        with open(args.out, newline="") as file:
            rows = list(csv.DictReader(file))
    for design in DESIGNS[:1] if args.quick else DESIGNS:
        if design.name in {row["design"] for row in rows}:
            continue
        found = judge(design, reps)
        if args.out:
            fresh = not args.out.exists()
            with open(args.out, "a", newline="") as file:
                writer = csv.DictWriter(file, list(found[0]))
                if fresh:
                    writer.writeheader()
                writer.writerows(found)
        rows += found
    show(rows)
    print(f"{reps} replicates, {time.process_time() - start:.0f} CPU seconds")


if __name__ == "__main__":
    main()

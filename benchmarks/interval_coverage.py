"""Simulate how often one seed's intervals of recovery cover the truth; docs/statistics.md holds the output.

    PYTHONPATH=scripts python benchmarks/interval_coverage.py              # the tables of docs/statistics.md
    PYTHONPATH=scripts python benchmarks/interval_coverage.py --quick      # seconds, for the tests

In the model, question i is answered right by target a (original, attacked) at look l in split s when
    sqrt(rho) w_i + sqrt(k - rho) w_ia + sqrt(1 - k) w_ial < threshold(a, l, s),   w standard normal:
rho pairs the targets (a latent 0, .6 or .95 is 0, .41 or .80 between right and wrong at accuracy .5), and k is what the
looks of one target share of a question's difficulty. The best look has the planted accuracy, and the others lie below
it (`LOOKS`, in probit units, two of them almost as good as the best). Splits differ by up to .4 probit.
The estimand is the expected accuracy, over questions like these, of the chosen looks of the trained models at hand
(for `nested` the mean over its two looks), and the ratios and differences of such accuracies: these weights. What a
method does is benchmarks/seed_coverage.py's estimand. In a design with groups, each w correlates by `alike` within
neighbouring questions.
"""

import argparse
import itertools
import time
from dataclasses import dataclass

import numpy as np
from rtt.scoring.halves import halves
from rtt.stats.intervals import Z95, interval, wilson
from rtt.stats.look_choice import best_look, choose
from rtt.stats.recovery import PSEUDO, recover, weights
from scipy.special import ndtr, ndtri

ACCURACIES = (0.3, 0.5, 0.7, 0.85, 0.95, 0.97, 0.99)
CORRELATIONS = (0.0, 0.6, 0.95)
UNLEARNED = 0.27
FLOOR = 0.25
LOOKS = (0.0, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8)
QUANTITIES = ("acc_attacked", "recovery", "recovery_corrected", "recovery_difference")


@dataclass(frozen=True)
class Design:
    """A simulated study: V splits of `size` questions, and its looks in probit units below the best."""

    name: str
    splits: int
    size: int
    looks: tuple[float, ...]
    shared: float = 0.9
    group: int = 1  # questions that are about one person, which the intervals keep together
    alike: float = 0.7

    def groups(self) -> list[str] | None:
        """Return (n,) what each question is about; None where that is the question alone."""
        return [str(i // self.group) for i in range(self.splits * self.size)] if self.group > 1 else None

    def normal(self, rng: np.random.Generator, reps: int) -> np.ndarray:
        """Return (reps, n) standard normal numbers, correlated within groups."""
        own = rng.standard_normal((reps, self.splits * self.size), dtype=np.float32)
        if self.group == 1:
            return own
        both = rng.standard_normal((reps, self.splits * self.size // self.group), dtype=np.float32)
        return np.sqrt(1 - self.alike) * own + np.sqrt(self.alike) * np.repeat(both, self.group, axis=1)


def draw(rng: np.random.Generator, design: Design, accuracies: tuple, rho: float, reps: int):
    """Return strata (n,) and, per target, (correct (reps, n) bool at the chosen looks, estimand (reps,))."""
    n = design.splits * design.size
    split_of = np.repeat(np.arange(design.splits), design.size)
    first = halves(split_of, design.groups())
    shift = np.linspace(-0.2, 0.2, design.splits)[split_of] if design.splits > 1 else np.zeros(n)
    common = np.sqrt(rho) * design.normal(rng, reps)
    targets = []
    for accuracy, looks in zip(accuracies, (design.looks, (0.0,), design.looks), strict=True):
        # sqrt(1 + var) undoes, nearly, that splits differ; the estimand below is exact all the same.
        top = ndtri(accuracy) * np.sqrt(1 + shift.var())
        k = max(design.shared, rho)
        own = common + np.sqrt(k - rho) * design.normal(rng, reps)
        correct = np.empty((reps, len(looks), n), bool)
        for look, below in enumerate(looks):
            noise = np.sqrt(1 - k) * design.normal(rng, reps)
            correct[:, look] = own + noise < (top - below + shift).astype(np.float32)
        expected = np.array([ndtr(top - below + shift) for below in looks])  # (L, n)
        # The nested choice for all replicates at once: argmax is the first best, as choose() has it for these looks.
        by_second = correct[:, :, ~first].sum(axis=2).argmax(axis=1)
        by_first = correct[:, :, first].sum(axis=2).argmax(axis=1)
        chosen = np.where(first, by_second[:, None], by_first[:, None])
        reported = np.take_along_axis(correct, chosen[:, None, :], axis=1)[:, 0]
        targets.append((reported, expected[chosen, np.arange(n)].mean(axis=1)))
    return 2 * split_of + first, targets


def shipped(original, unlearned, attacked, strata, groups=None, resamples=1000):
    """Return the intervals of the tables, with fewer resamples."""
    found = recover(original, unlearned, attacked, strata, FLOOR, resamples, groups)
    return {name: values[1:] for name, values in found.items()}


def bootstrap(original, unlearned, attacked, strata, groups=None, resamples=1000, rescaled=False):
    """Return percentile intervals of a bootstrap within strata: of m questions m are drawn, or m - 1 and rescaled."""
    order = np.argsort(strata, kind="stable")
    sizes = tuple(np.unique(strata, return_counts=True)[1].tolist())
    if rescaled:
        drawn = weights(sizes, resamples)[0]
    else:
        rng = np.random.default_rng(1)
        drawn = np.concatenate([rng.multinomial(m, np.full(m, 1 / m), size=resamples) for m in sizes], axis=1)
    o, u, r = (drawn @ x[:, order].T.astype(float) / len(order) for x in (original, unlearned, attacked))
    with np.errstate(all="ignore"):
        values = {"recovery": r / o, "recovery_corrected": (r - FLOOR) / (o - FLOOR), "recovery_difference": r - u}
        return {name: np.quantile(value, [0.025, 0.975], axis=0) for name, value in values.items()}


def mover(original, unlearned, attacked, strata, groups=None):
    """Combine score intervals (Newcombe 1998 method 10 without its continuity term; Donner & Zou 2012 for ratios)."""
    (po, lo, ho), (pu, lu, hu), (pr, lr, hr) = (_wilson3(x) for x in (original, unlearned, attacked))
    c = _phi(attacked, unlearned)
    low = pr - pu - np.sqrt(np.maximum((pr - lr) ** 2 + (hu - pu) ** 2 - 2 * c * (pr - lr) * (hu - pu), 0))
    high = pr - pu + np.sqrt(np.maximum((hr - pr) ** 2 + (pu - lu) ** 2 - 2 * c * (hr - pr) * (pu - lu), 0))
    c, result = _phi(attacked, original), {"recovery_difference": (low, high)}
    for name, floor in (("recovery", 0.0), ("recovery_corrected", FLOOR)):
        ends = []
        for sign, a, down, up in ((-1, pr - lr, ho - po, po - lo), (1, hr - pr, po - lo, ho - po)):
            # The end is the R at which the interval of attacked - R * original has its end at 0: bisection.
            below, above = np.full(len(po), -50.0), np.full(len(po), 50.0)
            for _ in range(45):
                middle = (below + above) / 2
                b = np.abs(middle) * np.where(middle >= 0, down, up)
                half = np.sqrt(np.maximum(a * a + b * b - 2 * c * np.sign(middle) * a * b, 0))
                positive = pr - floor - middle * (po - floor) + sign * half > 0
                below, above = np.where(positive, middle, below), np.where(positive, above, middle)
            ends.append((below + above) / 2)
        result[name] = tuple(ends)
    return result


def fieller(original, unlearned, attacked, strata, groups=None):
    """Return Fieller's interval with the paired sample covariance; it holds all numbers where it is unbounded."""
    n = original.shape[1]
    (po, pu, pr) = (x.mean(axis=1) for x in (original, unlearned, attacked))
    vo, vu, vr = (p * (1 - p) / n for p in (po, pu, pr))
    half = Z95 * np.sqrt(np.maximum(vr + vu - 2 * _phi(attacked, unlearned) * np.sqrt(vr * vu), 0))
    result = {"recovery_difference": (pr - pu - half, pr - pu + half)}
    cov = _phi(attacked, original) * np.sqrt(vr * vo)
    for name, floor in (("recovery", 0.0), ("recovery_corrected", FLOOR)):
        a, b = pr - floor, po - floor
        square, cross, plain = b * b - Z95**2 * vo, a * b - Z95**2 * cov, a * a - Z95**2 * vr
        root = np.sqrt(np.maximum(cross**2 - square * plain, 0))
        with np.errstate(all="ignore"):
            low, high = (cross - root) / square, (cross + root) / square
        result[name] = np.where(square > 0, low, -np.inf), np.where(square > 0, high, np.inf)
    return result


def _wilson3(correct):
    return correct.mean(axis=1), *wilson(correct.sum(axis=1), correct.shape[1])


def _phi(a, b):
    """Return the correlation between two (reps, n) bool, by row; 0 where one is constant."""
    n = a.shape[1]
    pa, pb = a.mean(axis=1), b.mean(axis=1)
    scale = np.sqrt(pa * (1 - pa) * pb * (1 - pb))
    return np.divide((a & b).sum(axis=1) / n - pa * pb, scale, out=np.zeros(len(a)), where=scale > 0)


METHODS = {
    "percentile": bootstrap,
    "rescaled": lambda *args: bootstrap(*args, rescaled=True),
    f"rescaled+{PSEUDO}": shipped,
    "score (MOVER)": mover,
    "Fieller": fieller,
}


def group(p_original: float, p_attacked: float) -> str:
    """Name the cells that are averaged together. A denominator of .3 is mostly undefined; the rest were lucky."""
    if p_original == 0.3:
        return "denominator .3"
    return "p >= .97" if max(p_original, p_attacked) >= 0.97 else "p .3-.95"


def coverage(design: Design, methods: dict, reps: int, accuracies=ACCURACIES, correlations=CORRELATIONS) -> dict:
    """Return {(group, quantity, method): [(coverage, share of replicates with an interval, median width) per cell]}."""
    cells: dict = {}
    for p_original, p_attacked, rho in itertools.product(accuracies, accuracies, correlations):
        key = [int(1000 * x) for x in (p_original, p_attacked, rho, design.shared)]
        rng = np.random.default_rng(np.random.SeedSequence([*key, design.splits, len(design.looks)]))
        found = []
        for part in [500] * (reps // 500) + [reps % 500] * (reps % 500 > 0):  # little memory
            strata, targets = draw(rng, design, (p_original, UNLEARNED, p_attacked), rho, part)
            found.append(_judge(strata, targets, methods, design.groups()))
        for name in found[0]:
            held, issued, width = (np.concatenate([part[name][i] for part in found]) for i in range(3))
            if issued.sum() >= 100:
                cell = (held[issued].mean(), issued.mean(), float(np.median(width[issued])))
                for cell_group in ("all", group(p_original, p_attacked)):
                    cells.setdefault((cell_group, *name), []).append(cell)
    return cells


def _judge(strata, targets, methods, groups=None) -> dict:
    (original, e_original), (unlearned, e_unlearned), (attacked, e_attacked) = targets
    truth = {
        "acc_attacked": e_attacked,
        "recovery": e_attacked / e_original,
        "recovery_corrected": (e_attacked - FLOOR) / (e_original - FLOOR),
        "recovery_difference": e_attacked - e_unlearned,
    }
    n = original.shape[1]
    everywhere = np.ones(len(e_attacked), bool)
    defined = wilson(original.sum(axis=1), n)[0] > FLOOR
    ends = [interval(row, groups) for row in attacked] if groups else zip(*wilson(attacked.sum(axis=1), n), strict=True)
    intervals = {("acc_attacked", "Wilson"): np.array(list(ends)).T}
    for method, function in methods.items():
        intervals |= {
            (name, method): ends for name, ends in function(original, unlearned, attacked, strata, groups).items()
        }
    result = {}
    for (name, method), (low, high) in intervals.items():
        issued = everywhere if name in ("acc_attacked", "recovery_difference") else defined
        result[name, method] = (low <= truth[name]) & (truth[name] <= high), issued, high - low
    return result


def table(designs: list[Design], methods: dict, reps: int, **grid) -> list[tuple]:
    """Return rows: design, group, quantity, method, cells, mean, lowest and highest coverage, share defined, width."""
    rows = []
    for design in designs:
        cells = coverage(design, methods, reps, **grid)
        for (cell_group, quantity, method), values in sorted(cells.items(), key=lambda item: _order(*item[0])):
            held, issued, width = np.array(values).T
            # Averaged over intervals that are written: a cell where few are defined counts little.
            mean = float((held * issued).sum() / issued.sum())
            row = (len(values), mean, held.min(), held.max(), issued.mean(), np.nanmedian(width))
            rows.append((design.name, cell_group, quantity, method, *row))
    return rows


def _order(cell_group: str, quantity: str, method: str) -> tuple:
    groups = ("all", "p .3-.95", "p >= .97", "denominator .3")
    return groups.index(cell_group), QUANTITIES.index(quantity), ["Wilson", *METHODS].index(method)


def coin_flips(reps: int, splits=5, size=32, n_looks=20) -> dict[str, tuple[float, float]]:
    """Return each look choice's mean reported accuracy and its standard error where every look guesses (chance .25)."""
    rng = np.random.default_rng(25)
    split_of = np.repeat(np.arange(splits), size)
    # As RTT's looks are listed, by epoch and then by learning rate: five epochs of each rate were drawn in a row.
    gentlest_first = sorted(range(n_looks), key=lambda i: (i % 5, i // 5))
    found: dict[str, list[float]] = {"fixed": [], "paper": [], "nested": []}
    for _ in range(reps):
        correct = (rng.random((n_looks, splits * size)) < FLOOR)[gentlest_first]
        found["fixed"].append(correct[0].mean())
        for look_choice in ("paper", "nested"):
            chosen = choose(look_choice, correct, split_of).chosen
            found[look_choice].append(correct[chosen, np.arange(len(split_of))].mean())
    assert best_look(np.array([1, 1])) == 0
    return {name: (float(np.mean(x)), float(np.std(x) / np.sqrt(reps))) for name, x in found.items()}


def show(rows: list[tuple]) -> None:
    """Print rows as a Markdown table: mean coverage in per cent [lowest, highest cell].

    n: cells; defined: share of replicates with a defined denominator; width: median width of recovery_corrected.
    """
    columns = "design, cells, n, defined, interval, acc_attacked (Wilson), recovery, corrected, difference, width"
    print(f"| {columns.replace(', ', ' | ')} |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    table: dict = {}
    for design, cells, quantity, method, *values in rows:
        table.setdefault((design, cells), {})[quantity, method] = values
    for (design, cells), found in table.items():
        for method in dict.fromkeys(method for _, method in found if method != "Wilson"):
            columns = [found["acc_attacked", "Wilson"], *(found[quantity, method] for quantity in QUANTITIES[1:])]
            text = [f"{100 * mean:.1f} [{100 * low:.0f}, {100 * high:.0f}]" for _, mean, low, high, *_ in columns]
            number, *_, issued, width = columns[2]
            print(f"| {design} | {cells} | {number} | {issued:.2f} | {method} | {' | '.join(text)} | {width:.2f} |")
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few cells and replicates")
    parser.add_argument("--reps", type=int, default=2000, help="replicates per cell (default: %(default)s)")
    args = parser.parse_args()
    start = time.process_time()
    reps = 200 if args.quick else args.reps
    grid = {"accuracies": (0.5, 0.85)} if args.quick else {}
    ours = {f"rescaled+{PSEUDO}": shipped}
    designs = [
        Design("fixed, n = 160", 5, 32, (0.0,)),
        Design("nested, n = 160", 5, 32, LOOKS),
        Design("fixed, n = 32", 1, 32, (0.0,)),
        Design("nested, n = 32", 1, 32, LOOKS),
    ]
    print(f"## The interval of the tables, {reps} replicates per cell\n")
    show(table(designs, ours, reps, **grid))
    print(f"## Candidates, {reps // 2} replicates per cell\n")
    few = {"accuracies": (0.5, 0.85, 0.95, 0.99), "correlations": (0.0, 0.95)}
    show(table(designs, METHODS, reps // 2, **(few | grid)))
    print("## Nested with looks that share less, and with ten looks equally good\n")
    hard = [
        Design("nested, n = 160, shared .8", 5, 32, LOOKS, 0.8),
        Design("nested, n = 160, all looks equal", 5, 32, (0.0,) * 10),
        Design("nested, n = 160, shared .8, all looks equal", 5, 32, (0.0,) * 10, 0.8),
    ]
    show(table(hard, ours, reps // 2, **(few | grid)))
    print("## Two questions per person, kept together and not\n")
    two = {"splits": 5, "size": 32, "looks": (0.0,) * 10, "shared": 0.5, "group": 2}
    show(table([Design("nested, n = 160, groups of 2", **two)], ours, reps // 2, **(few | grid)))
    alone = {name: lambda *args: shipped(*args[:4]) for name in ours}
    show(table([Design("the same, as single questions", **two)], alone, reps // 2, **(few | grid)))
    print("## Coin flips: chance .25, 20 independent looks, n = 160\n")
    for name, (mean, error) in coin_flips(reps).items():
        print(f"- {name}: mean accuracy {mean:.4f} (standard error {error:.4f})")
    print(f"\n{time.process_time() - start:.0f} CPU seconds")


if __name__ == "__main__":
    main()

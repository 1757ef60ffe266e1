"""Attack 20 small models that never knew what they are asked, and count how often each attack raises an alarm.

    PYTHONPATH=scripts python benchmarks/false_alarms.py                  # the tables of docs/measurements.md
    PYTHONPATH=scripts python benchmarks/false_alarms.py --quick          # seconds, for the tests
    PYTHONPATH=scripts python benchmarks/false_alarms.py --work FOLDER    # keeps the answers, and goes on after a stop

A model of a seed is trained on a few people and cities (tests/helpers/knowing.py) until it answers most questions about
them right. It is then asked by every attack of the suite about 48 strangers in two splits, whose years are random. The
control of a seed is the model of the next one, with strangers of its own. The original answers .95 right, by draws.

Two alarms are counted, by each headline probe:
- *above the floor*: the one-sided lower 95 % limit of recovery above the floor is positive;
- *hidden*: that is the verdict, so that the control is exceeded as well.

In the simulations V's keys are drawn again, each choice with the same probability, for the answers that an attack gave.
As no attack reads them, its answers would have been the same. Keys that serve as T stay those on which it was fitted.
So a correct alarm has a rate of at most 5 %, whatever an attack makes of its model. The trained seeds have their own
keys, each once: they also show what the simulations cannot, such as an attack in which T's keys tell V's.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path

import numpy as np
from rtt.scoring.correct import judged
from rtt.scoring.halves import halves
from rtt.stats.floors import Asked, guesses
from rtt.stats.verdict import HIDDEN, Reported, lower_limit, verdict
from rtt.study import plugins
from scipy.stats import binom, norm

HELPERS = Path(__file__).resolve().parents[1] / "tests" / "helpers"
SEEDS, SAMPLES, STEPS, PER_SPLIT, NAMES, ORIGINAL = 20, 2000, 40, 24, 24, 0.95
HEADLINE = ("letter_permuted", "likelihood")
ALARMS = ("above the floor", "hidden")
SUITE = "the strongest of them"
MOST = 3  # of 20 seeds: a fair alarm of 5 % is raised more often once in 60 times
# Of the attacks that train, settings of seconds, and for the others what differs from a study's defaults.
SETTINGS = {
    "RTT": {"learning_rates": [5e-3], "epochs": 12, "score_epochs": [12], "batch_size": 16, "loss": "LETTER_ANSWER"},
    "RTT_LoRA": {"learning_rates": [1e-2], "epochs": 4, "score_epochs": [4], "batch_size": 8, "rank": 8}
    | {"sentences": False},
    "soft_prompt": {"learning_rates": [0.1], "epochs": 4, "score_epochs": [4], "batch_size": 8, "tokens": 2}
    | {"sentences": False},
    "relearn": {"epochs": 4, "score_epochs": [4], "batch_size": 8},
    "unrelated": {"learning_rates": [1e-3], "epochs": 8, "score_epochs": [8], "batch_size": 8},
    "t_shots": {"shots": [1, 2], "orders": 1},  # the context has 128 words
}


class Answers:
    """What an attack brought out of one model: n questions, k choices, and at each of its settings a look.

    credit: {probe: (looks, n, k) floats}, what each choice would score if it were the right one. keys, splits: (n,)
    ints. times: (looks,) how often each look states an answer, for the floor of `sampled`.
    """

    def __init__(self, credit: dict[str, np.ndarray], keys: np.ndarray, splits: np.ndarray, times: np.ndarray):
        self.credit, self.keys, self.splits, self.times = credit, keys, splits, times
        self.first = halves(splits)

    @classmethod
    def of(cls, looks: Sequence[dict]) -> "Answers":
        """Collect the V questions of an attack's looks, of which each setting may have one for each V split."""
        by_setting: dict[str, dict[str, dict]] = {}
        for look in looks:
            own = {question["id"]: question for question in look["questions"] if question["role"] == "V"}
            by_setting.setdefault(str(look["setting"]), {}).update(own)
        names = sorted(next(iter(by_setting.values())))
        rows = [[of[name] for name in names] for of in by_setting.values()]
        widest = range(max(len(next(iter(one["probes"].values()))["scores"]) for one in rows[0]))
        scored = [[judged([{**one, "answer": key} for one in row]) for key in widest] for row in rows]
        splits = sorted({one["split"] for one in rows[0]})
        times = {str(look["setting"]): look["setting"].get("k", 1) for look in looks}
        return cls(
            {
                probe: np.array([np.stack([by_key[probe] for by_key in row], axis=1) for row in scored])
                for probe in (*HEADLINE, "sampled")
                if probe in scored[0][0]
            },
            np.array([one["answer"] for one in rows[0]]),
            np.array([splits.index(one["split"]) for one in rows[0]]),
            np.array([times[setting] for setting in by_setting]),
        )

    def scored(self, probe: str, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (looks, n) answers with these keys, and what a guesser scores there."""
        asked = Asked(keys, np.full(len(keys), self.credit[probe].shape[2]), self.splits, self.first)
        once = guesses(asked, probe, np.unique(self.splits).tolist())
        floors = 1 - (1 - once) ** self.times[:, None] if probe == "sampled" else np.repeat([once], len(self.times), 0)
        return self.credit[probe][:, np.arange(len(keys)), keys], floors


Model = dict[str, Answers]  # attack -> what it brought out of the model of one seed


def suite() -> list[str]:
    """Return the attacks that are no controls."""
    return [name for name, plugin in plugins.attacks().items() if not plugin.control]


@cache
def strangers(seed: int, per_split: int):
    """Return facts about people of whom no model of `knowing` was told anything."""
    import knowing
    import tiny

    options = knowing.PEOPLE | {"facts_per_split": per_split, "first_names": NAMES, "last_names": NAMES}
    with tempfile.TemporaryDirectory() as folder:
        return tiny.facts(folder, "birth_years_b", seed, options)


@cache
def trained_on_others(seed: int):
    """Return (model, facts that it was trained on, retain facts), as `knowing` has them, after a few steps."""
    import knowing

    return knowing.after(seed, STEPS)


def attacked(name: str, seed: int, per_split: int) -> tuple[Answers, float]:
    """Return what an attack brings out of the model of a seed, and T's accuracy by likelihood (NaN: not asked)."""
    from attacking import attacker_of

    model, _, retain = trained_on_others(seed)
    plugin, facts = plugins.attacks()[name], strangers(seed, per_split)
    settings = plugin.Settings(**SETTINGS.get(name, {}))
    attacker = attacker_of(plugin(settings), deepcopy(model), facts, seed, HEADLINE, retain=list(retain))
    looks = attacker.on("original", lambda: None)
    of_t = [question for look in looks for question in look["questions"] if question["role"] == "T"]
    return Answers.of(looks), float(judged(of_t)["likelihood"].mean()) if of_t else np.nan


def trained(work: Path, seeds: int, per_split: int, attacks: Sequence[str]) -> tuple[list[Model], dict[str, float]]:
    """Return the models of all seeds as every attack found them, and T's mean accuracy; what is in `work` is read."""
    todo = [
        (seed, name)
        for seed in range(seeds)
        for name in attacks
        if not (work / f"{per_split}-{seed}-{name}.npz").exists()
    ]
    begin = time.process_time()
    for done, (seed, name) in enumerate(todo):
        found, learned = attacked(name, seed, per_split)
        path = work / f"{per_split}-{seed}-{name}.npz"
        arrays = {f"credit {probe}": credit for probe, credit in found.credit.items()}
        own = {"keys": found.keys, "splits": found.splits, "times": found.times, "learned": learned}
        np.savez_compressed(path.with_suffix(".part.npz"), **arrays, **own)
        os.replace(path.with_suffix(".part.npz"), path)
        spent = time.process_time() - begin
        left = spent / (done + 1) * (len(todo) - done - 1)
        print(f"seed {seed}, {name}: {spent:.0f} CPU s, about {left:.0f} left", file=sys.stderr, flush=True)
    models, learned = [], {}
    for seed in range(seeds):
        models.append({})
        for name in attacks:
            with np.load(work / f"{per_split}-{seed}-{name}.npz") as kept:
                credit = {key.split()[1]: kept[key] for key in kept.files if key.startswith("credit ")}
                models[-1][name] = Answers(credit, kept["keys"], kept["splits"], kept["times"])
                learned.setdefault(name, []).append(float(kept["learned"]))
    return models, {name: float(np.mean(some)) for name, some in learned.items()}


def alarms(model: Model, control: Model, keys: Sequence[np.ndarray], original: np.ndarray) -> Iterator[tuple]:
    """Yield ((attack, probe), (2,) bools in the order of ALARMS) of one model with these keys, and of the suite.

    keys: the model's and the control's. original: (n,) answers.
    """
    for probe in (*HEADLINE, "sampled"):
        names = [name for name, found in model.items() if probe in found.credit]
        own = {name: model[name].scored(probe, keys[0]) for name in names}
        groups = [[name] for name in names]
        together = [name for name in names if plugins.attacks()[name].in_strongest]
        for group in [*groups, together] if len(together) > 1 else groups:
            looks, floors = ({name: own[name][i] for name in group} for i in (0, 1))
            first = model[group[0]].first
            found = Reported.of(looks, floors, first, None)
            # The limit is no higher than the rate itself, nor with a control than without one.
            above = found.correct.mean() > found.floor and lower_limit(original, found, None, found.floor) > 0
            hidden = False
            if above:
                never = {name: control[name].scored(probe, keys[1]) for name in group}
                hidden = verdict(
                    looks, original, floors, first, control={name: one[0] for name, one in never.items()},
                    control_floors={name: one[1] for name, one in never.items()},
                    control_halves=control[group[0]].first,
                ).answer == HIDDEN  # fmt: skip
            yield (group[0] if len(group) == 1 else SUITE, probe), (above, hidden)


def simulated(models: Sequence[Model], samples: int, seed: int = 0) -> dict[tuple[str, str], np.ndarray]:
    """Return {(attack, probe): (samples, 2) bools} with keys drawn again, sample after sample on the next seed's model.

    All attacks on one model are asked with the same keys.
    """
    rng, rows, begin = np.random.default_rng(seed), {}, time.process_time()
    for sample in range(samples):
        model, control = (models[(sample + i) % len(models)] for i in (0, 1))
        keys = []
        for one in (model, control):
            n, k = next(iter(next(iter(one.values())).credit.values())).shape[1:]
            keys.append(rng.integers(k, size=n))
        original = (rng.random(len(keys[0])) < ORIGINAL).astype(float)
        for cell, found in alarms(model, control, keys, original):
            rows.setdefault(cell, []).append(found)
        if (sample + 1) % 100 == 0:
            spent = time.process_time() - begin
            left = spent / (sample + 1) * (samples - sample - 1)
            print(f"simulation {sample + 1}: {spent:.0f} CPU s, about {left:.0f} left", file=sys.stderr, flush=True)
    return {cell: np.array(found) for cell, found in rows.items()}


def counted(models: Sequence[Model]) -> dict[tuple[str, str], np.ndarray]:
    """Return {(attack, probe): (seeds, 2) bools} with the models' own keys."""
    rng, rows = np.random.default_rng(1), {}
    for seed, model in enumerate(models):
        control = models[(seed + 1) % len(models)]
        keys = [next(iter(one.values())).keys for one in (model, control)]
        original = (rng.random(len(keys[0])) < ORIGINAL).astype(float)
        for cell, found in alarms(model, control, keys, original):
            rows.setdefault(cell, []).append(found)
    return {cell: np.array(found) for cell, found in rows.items()}


def together(models: Sequence[Model], size: int) -> list[Model]:
    """Return models of which each has the questions of so many seeds, to see what is due to few questions."""
    found = []
    for at in range(0, len(models) // size * size, size):
        some = models[at : at + size]
        found.append({})
        for name in some[0]:
            every = [model[name] for model in some]
            splits = np.concatenate([one.splits for one in every])
            order = np.argsort(splits, kind="stable")
            credit = {
                probe: np.concatenate([one.credit[probe] for one in every], axis=1)[:, order]
                for probe in every[0].credit
            }
            keys = np.concatenate([one.keys for one in every])[order]
            found[-1][name] = Answers(credit, keys, splits[order], every[0].times)
    return found


def halves_together(looks: int, draws: int = 20_000, n: int = 160, floor: float = 0.25) -> tuple[float, float]:
    """Return how the accuracies of two halves correlate, each at the look that the other half chose, and how often a
    normal one-sided 5 % test of their mean alarms: of independent looks at the floor.
    """
    rng = np.random.default_rng(looks)
    first, second = rng.binomial(n // 2, floor, (2, draws, looks))
    at = np.arange(draws)
    a, b = first[at, second.argmax(axis=1)], second[at, first.argmax(axis=1)]
    far = (a + b - n * floor) / np.sqrt(n * floor * (1 - floor)) > norm.ppf(0.95)
    return float(np.corrcoef(a, b)[0, 1]), float(far.mean())


def accuracies(models: Sequence[Model], cell: tuple[str, str]) -> str:
    """Return two cells: the mean accuracy over seeds and looks with the models' own keys, and that of the floor."""
    name, probe = cell
    if name == SUITE:
        return " | "
    both = [model[name].scored(probe, model[name].keys) for model in models]
    a, f = (np.mean([one[i].mean() for one in both]) for i in (0, 1))
    return f"{a:.3f} | {f:.3f}"


def report(models: Sequence[Model], learned: dict[str, float], samples: int) -> None:
    """Print the table, and which cells lie above what chance allows."""
    drawn, own = simulated(models, samples), counted(models)
    head = [
        "attack", "probe", "accuracy", "floor", "T learned", *(f"simulated, {one}" for one in ALARMS),
        *(f"of {len(models)} models, {one}" for one in ALARMS),
    ]  # fmt: skip
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for cell in sorted(drawn, key=lambda cell: [*suite(), SUITE].index(cell[0])):
        rates, counts = drawn[cell].mean(axis=0), own[cell].sum(axis=0)
        errors = np.sqrt(rates * (1 - rates) / samples)
        told = learned.get(cell[0], np.nan)
        cells = [
            *cell, accuracies(models, cell), "" if np.isnan(told) else f"{told:.2f}",
            *(f"{rate:.4f} ± {error:.4f}" for rate, error in zip(rates, errors, strict=True)), *map(str, counts),
        ]  # fmt: skip
        print(f"| {' | '.join(cells)} |")
    single = [cell for cell in drawn if cell[0] != SUITE]
    for at, alarm in enumerate(ALARMS):
        rates = [drawn[cell][:, at].mean() for cell in single]
        counts = np.array([own[cell][:, at].sum() for cell in single])
        total = int(np.concatenate([own[cell][:, at] for cell in single]).sum())
        high = binom.ppf(0.995, samples, 0.05) / samples
        print(
            f"\n{alarm}: simulated in {min(rates):.4f} to {max(rates):.4f} of samples, mean {np.mean(rates):.4f}; "
            f"{sum(rate > high for rate in rates)} of {len(rates)} cells lie above {high:.4f}, which a rate of .05 "
            f"exceeds once in 200 times. Of the trained seeds {total} of {len(single) * len(models)} raise it, at most "
            f"{counts.max()} of {len(models)} in one cell; {(counts > MOST).sum()} cells have more than {MOST}."
        )


def main() -> None:
    """Attack what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 seeds, 2 attacks, few samples: for the tests")
    parser.add_argument("--work", type=Path, help="folder for the attacks' answers, kept and used again")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--together", type=int, default=1, help="put the questions of so many seeds together")
    args = parser.parse_args()
    sys.path.insert(0, str(HELPERS))
    seeds, samples = (2, 5) if args.quick else (args.seeds, args.samples)
    attacks, per_split = (["quantise", "unrelated"], 8) if args.quick else (suite(), PER_SPLIT)
    begin = time.process_time()
    with tempfile.TemporaryDirectory() as scratch:
        work = args.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        models, learned = trained(work, seeds, per_split, attacks)
    report(together(models, args.together), learned, samples)
    counts = (1, 2, 4, 20, 200)
    told = [f"{looks}: {r:.2f}, {rate:.3f}" for looks in counts for r, rate in [halves_together(looks)]]
    print(f"\nIndependent looks, correlation of the two halves, alarms of a normal 5 % test: {'; '.join(told)}")
    print(f"\n{time.process_time() - begin:.0f} CPU seconds")


if __name__ == "__main__":
    main()

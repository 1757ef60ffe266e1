"""Does bf16_kahan follow fp32? Every unlearning method and RTT on the miniature, against another order of sums.

    python benchmarks/kahan_parity.py --work FOLDER          # hours; a rerun goes on where it was stopped
    python benchmarks/kahan_parity.py --work FOLDER --seeds 1 --orders 2 --methods GD RTT
    python benchmarks/kahan_parity.py --work FOLDER --quick  # seconds, for the tests; its figures mean nothing

For each seed the demo's miniature is pretrained once, by the real steps, and its weights are rounded to bf16, as
published models are. From there each method trains for so many steps, with config/config.yaml's settings (methods that
it lacks have GD's), batches of 16 (--batch; the study's 48 would take thrice as long) and without clipping, which
gradient release demands. The final weights are read in fp32, and the two parts of the method's loss (nats of forget and
of retain texts; RMU's two distances) are taken over the texts of the first PAIRS pairs; of RTT the nats of T's texts
and of retain texts.

There are two references. "masters" is what is meant by fp32 master weights, in DeepSpeed's bf16 for one: the model
computes in bf16, as bf16_kahan's does, and torch's AdamW or lion-pytorch's Lion, whose states are in fp32, steps fp32
copies of the weights. "fp32" computes in fp32, too, so the difference from it has in it what computing in bf16 does,
whatever the optimizer. Each is also trained with the texts of every batch in other orders, which changes the order of
sums alone.

The bound of a part is 1.5 times the 95th percentile of the differences between two of these runs of one seed. Some
seeds are determined to three digits after 200 steps, and others to none, so that one bound for all seeds lets much
pass. So each seed has a bound of its own as well. It comes from few runs, so another order itself is not always within
it: "usual" is how often, where its own run is left out. A precision passes if in both parts it is within the bound of
all seeds, and on as many seeds within their own as is usual, rounded down. Ends with 1 unless, against the masters,
bf16_kahan passes everywhere and bf16 nowhere. Gradient release is trained on the first seed alone, where its numbers
have to be those of bf16_kahan to the last digit, as its weights are by a test.
"""

import argparse
import json
import math
import os
import sys
import time
from itertools import combinations
from pathlib import Path

import numpy as np
from attack import ROOT, Folder, study

FACTOR, PERCENTILE, PAIRS = 1.5, 95, 480
FP32_ORDERS = 2  # at most: another order moves fp32 by so little that nothing in bf16 comes near it
LION_RATE = 0.2  # of AdamW's: Lion's update is larger
KAHAN = {"precision": "bf16_kahan"}
REFERENCES = {"masters": KAHAN, "fp32": {}}  # of the masters, the model is that of bf16_kahan, and `masters` steps it
PRECISIONS = {"kahan": KAHAN, "bf16": {"precision": "bf16"}}
RELEASE = {"release": KAHAN | {"gradient_release": True}}


def runs(orders: int, release: bool) -> dict[str, dict]:
    """Return {name of a run: the settings that it changes}; those in another order of sums end with its number."""
    many = {"masters": orders, "fp32": min(orders, FP32_ORDERS)}
    others = {f"{name} {n}": REFERENCES[name] for name, most in many.items() for n in range(1, most + 1)}
    return REFERENCES | others | PRECISIONS | (RELEASE if release else {})


def masters(make_optimizer, model, settings):
    """Return an optimizer of bf16 weights that has one of `make_optimizer`, which is torch's, step fp32 copies."""
    import copy

    import torch
    from rtt.training.kahan import Kahan, take_apart

    exact = copy.deepcopy(model).float()
    inner = make_optimizer(exact, settings.model_copy(update={"precision": "fp32"}))
    pairs = [(low, high) for low, high in zip(model.parameters(), exact.parameters(), strict=True) if low.requires_grad]

    class Masters(Kahan):
        averages = ()

        @torch.no_grad()
        def step(self, closure=None):
            for low, high in pairs:
                high.grad = None if low.grad is None else low.grad.float()
            inner.param_groups[0]["lr"] = self.param_groups[0]["lr"]
            inner.step()
            for low, high in pairs:
                take_apart(high.detach().clone(), low, self.state[low]["remainder"])

    return Masters([low for low, _ in pairs], settings.learning_rate, (0.0, 0.0), 0.0)


class Case:
    """A method or RTT on one seed's miniature, with its texts."""

    def __init__(self, folder: Folder, given: dict, name: str, optimizer: str, steps: int, batch: int):
        """given: the settings of the method in the study, but for its batch size."""
        from rtt.data.facts import read_facts
        from rtt.models.load import load
        from rtt.study import plugins
        from rtt.study.settings import Training

        self.name, self.steps, spec = name, steps, folder.source
        self.base, self.tokenizer = load(folder.model, "bf16")
        self.facts, self.retain = (read_facts(folder.facts(one)) for one in (spec.facts, spec.retain.learn))
        self.method, self.seed = plugins.methods().get(name), spec.seed
        self.kind = self.method.Settings if self.method else Training
        rate = given["learning_rate"] * (LION_RATE if optimizer == "lion" else 1)
        given = given | {"learning_rate": rate, "optimizer": optimizer, "max_grad_norm": None}
        given |= {"points": [steps], "batch_size": batch}
        self.given = {key: value for key, value in given.items() if key in self.kind.model_fields}

    def made(self, model, settings):
        """Return (pairs or texts in training order, the objective, the objective of the final weights)."""
        from rtt.training.losses import plain_loss
        from rtt.training.order import training_passes, unlearning_pairs

        rng = np.random.default_rng([self.seed, 20])
        if self.method:
            if settings.freeze_embeddings:
                model.get_input_embeddings().requires_grad_(False)
            method = self.method(model, settings, self.seed)
            return unlearning_pairs(self.facts, self.retain, method, settings, self.tokenizer, rng), method.step
        epochs = 1 + self.steps * settings.batch_size // len(self.facts)
        texts = [
            training_passes(facts, "LETTER_ANSWER", epochs, settings.batch_size, self.tokenizer, rng)
            for facts in (self.facts, self.retain)
        ]
        return [{"forget": t, "retain": r} for t, r in zip(*texts, strict=False)][: self.steps * settings.batch_size], (
            lambda model, batch: plain_loss(model, batch["forget"])
        )

    def trained(self, run: str, changes: dict) -> dict[str, float]:
        """Return the two parts of the final weights' loss, and the mean share of weights that a step moved."""
        import copy
        from functools import partial
        from unittest.mock import patch

        import torch
        from rtt.training.collate import collate
        from rtt.training.health import effective_update
        from rtt.training.losses import plain_loss
        from rtt.training.train import cast, make_optimizer, prepare_torch, train

        prepare_torch(self.seed)
        name, _, order = run.partition(" ")
        settings = self.kind(**self.given | changes)
        model = copy.deepcopy(self.base)
        cast(model, settings.precision)
        items, objective = self.made(model, settings)
        size, rng = settings.batch_size, np.random.default_rng(int(order or 0))
        batches = [items[at : at + size] for at in range(0, len(items), size)]
        if order:
            batches = [[batch[i] for i in rng.permutation(size)] for batch in batches]
        rows = [row for batch in batches for row in batch]
        made = partial(masters, make_optimizer) if name == "masters" else make_optimizer
        with patch("rtt.training.train.make_optimizer", made):
            losses = train(model, self.tokenizer, rows, objective, settings, self.seed, title=self.name)
        exact = copy.deepcopy(self.base).float()
        _, step = self.made(exact, self.kind(**self.given))
        exact.load_state_dict(model.state_dict())
        found = {"forget": 0.0, "retain": 0.0}
        pad, shown = self.tokenizer.pad_token_id, items[:PAIRS]
        with torch.no_grad():
            for at in range(0, len(shown), size):
                batch = {side: collate([row[side] for row in shown[at : at + size]], pad) for side in found}
                parts = step(exact, batch) if self.method else {s: plain_loss(exact, batch[s])["loss"] for s in found}
                for side in found:
                    found[side] += float(parts[side]) * len(shown[at : at + size]) / len(shown)
        return found | {"moved": effective_update(losses)}


def bounds(results: dict[int, dict], reference: str, part: str) -> tuple[float, dict[int, float]]:
    """Return the bound of a part over all seeds, and {seed: that of its own}.

    results: {seed: {run: parts}} of one method.
    """
    between = {}
    for seed, runs in results.items():
        values = [parts[part] for run, parts in runs.items() if run.split()[0] == reference]
        between[seed] = [abs(one - other) for one, other in combinations(values, 2)]
    together = [value for values in between.values() for value in values]
    return _bound(together), {seed: _bound(values) for seed, values in between.items()}


def _bound(differences: list[float]) -> float:
    return FACTOR * float(np.percentile(differences, PERCENTILE))


def usual(results: dict[int, dict], reference: str) -> float:
    """Return how often a run in one order, seen from another, is within the seed's own bounds of both parts.

    The bounds are those of the runs without it; where two are not left, there is no bound, and it counts as within.
    """
    within = []
    for runs in results.values():
        others = {run: parts for run, parts in runs.items() if run.split()[0] == reference}
        for run, parts in others.items():
            rest = {0: {name: one for name, one in others.items() if name != run}}
            own = {part: bounds(rest, reference, part)[0] for part in ("forget", "retain")} if len(others) > 2 else {}
            for one in rest[0].values():
                within.append(all(abs(parts[part] - one[part]) <= bound for part, bound in own.items()))
    return float(np.mean(within))


def row(name: str, results: dict[int, dict], reference: str) -> tuple[list[str], bool]:
    """Return a row of the table, and whether bf16_kahan passes and bf16 fails."""
    together, away = {}, {run: {} for run in PRECISIONS}
    within, passes = {run: set(results) for run in PRECISIONS}, dict.fromkeys(PRECISIONS, True)
    for part in ("forget", "retain"):
        together[part], own = bounds(results, reference, part)
        for run in PRECISIONS:
            found = {seed: abs(runs[run][part] - runs[reference][part]) for seed, runs in results.items()}
            away[run][part] = max(found.values())
            within[run] -= {seed for seed, value in found.items() if value > own[seed]}
            passes[run] &= away[run][part] <= together[part]
    share = usual(results, reference)
    passes = {run: passes[run] and len(within[run]) >= math.floor(share * len(results)) for run in PRECISIONS}
    cells = [name, " / ".join(f"{bound:.2g}" for bound in together.values()), f"{share:.0%}"]
    for run, parts in away.items():
        far = " / ".join(f"{value:.2g}" for value in parts.values())
        cells.append(f"{far}; {len(within[run])} of {len(results)}: {'pass' if passes[run] else 'FAIL'}")
    moved = (np.mean([one[run]["moved"] for one in results.values()]) for run in (reference, *PRECISIONS))
    return [*cells, " ".join(f"{share:.0%}" for share in moved)], passes["kahan"] and not passes["bf16"]


def arguments(asked: list[str] | None) -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, required=True, help="folder of what is trained, from which a rerun goes on"
    )
    parser.add_argument("--seeds", type=int, default=5, help="the first so many")
    parser.add_argument(
        "--orders", type=int, default=8, help="of sums, in which the masters are trained again, and fp32 up to 2 times"
    )
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--optimizer", choices=("adamw", "lion"), default="adamw")
    parser.add_argument("--methods", nargs="*", help="these alone; RTT is one of them")
    parser.add_argument("--quick", action="store_true", help="a tiny model, few steps")
    return parser.parse_args(asked)


def main(asked: list[str] | None = None) -> int:
    """Train what is not there yet, and print the table; return 1 unless the claim holds everywhere."""
    from rtt.study import plugins
    from rtt.yaml_files import read_yaml

    args = arguments(asked)
    if args.orders < 1:
        raise SystemExit(f"--orders: found {args.orders}; expected 1 or more, of which the bound is made")
    names, steps = args.methods or [*plugins.methods(), "RTT"], 6 if args.quick else args.steps
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    begin, holds = time.process_time(), True
    results: dict[str, dict] = {name: {} for name in names}
    demo = read_yaml(ROOT / "config" / "config.yaml", "study", "methods, attacks")
    given = dict.fromkeys(names, demo["methods"]["GD"]) | demo["methods"]
    given["RTT"] = demo["attacks"]["RTT"] | {"learning_rate": demo["attacks"]["RTT"]["learning_rates"][0]}
    for seed in range(args.seeds):
        folder = Folder(args.work / f"seed-{seed}", study(1, 1, args.quick) | {"seeds": [seed]})
        for name in names:
            path = folder.work / f"{name}-{args.optimizer}-{steps}-{args.batch}.json"
            done = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            case = None
            wanted = runs(args.orders, release=seed == 0)
            for run, changes in wanted.items():
                if run not in done:
                    case = case or Case(folder, given[name], name, args.optimizer, steps, args.batch)
                    done[run] = case.trained(run, changes)
                    path.write_text(json.dumps(done, indent=1), encoding="utf-8")
            results[name][seed] = {run: done[run] for run in wanted}
            if seed == 0 and done["release"] != done["kahan"]:
                print(f"{name}: gradient release differs: {done['release']}, {done['kahan']}", file=sys.stderr)
                holds = False
            for reference in REFERENCES:
                cells, _ = row(name, {seed: results[name][seed]}, reference)
                print(f"seed {seed}, {args.optimizer}, {reference}: {' | '.join(cells)}", file=sys.stderr, flush=True)
    for reference in REFERENCES:
        print(f"| {' | '.join([f'against {reference}', 'bound', 'usual', *PRECISIONS, 'moved'])} |\n|{'---|' * 6}")
        rows = [row(name, results[name], reference) for name in names]
        print("".join(f"| {' | '.join(cells)} |\n" for cells, _ in rows))
        holds &= reference != "masters" or all(as_claimed for _, as_claimed in rows)
    print(
        f"forget / retain: the largest difference; the seeds within their own bounds; {args.optimizer}, "
        f"{steps} steps of {args.batch}, {args.seeds} seeds, {args.orders} other orders (of fp32 "
        f"{min(args.orders, FP32_ORDERS)}); "
        "moved: the mean share of weights that a step of the reference and of the two moved; "
        f"{time.process_time() - begin:.0f} CPU seconds in this call"
    )
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())

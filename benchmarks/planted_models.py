"""Let each attack undo a hiding that is planted for it, and attack what was never known in the same way.

    PYTHONPATH=scripts python benchmarks/planted_models.py                       # docs/measurements.md, 1 CPU minute
    PYTHONPATH=scripts python benchmarks/planted_models.py --attacks lens noise  # some rows of it

The hidings are those of tests/attacks: a tiny model really knows 16 facts (or its answers are planted), and they are
hidden in a known way. A row has accuracy before the attack, after it, and after the same attack on people of whom the
model never read, over three draws of 16 of them. It is by the probes that the attack must bring back. Ends with 1 where
an attack fails: it leaves some probe at .8 or less, or brings back less than .2, or what was never known lies above
what a guesser exceeds once in 200 times.
"""

import argparse
import importlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"
DRAWS, BACK, GAIN = 3, 0.8, 0.2
PATHS = [str(TESTS / "helpers"), str(TESTS / "attacks")]
LETTER, PERMUTED, LIKELIHOOD = "letter", "letter_permuted", "likelihood"
ALL = (PERMUTED, LETTER, LIKELIHOOD)


def knowing():
    """Return the module of models that know their facts."""
    return importlib.import_module("knowing")


def of(name: str):
    """Return the module of an attack's tests."""
    return importlib.import_module(f"test_{name}")


def hidden(hide: Callable) -> tuple:
    """Return (model, facts, retain) of a knowing model after `hide(model, facts, retain)`, which may return another."""
    model, _, facts, retain = knowing().knowing()
    return hide(model, facts, retain) or model, facts, retain


def unit(strength: float) -> Callable:
    """Return how one unit of the last MLP hides facts."""
    return lambda model, facts, retain: knowing().hide_by_unit(model, 1, facts, retain, strength)


def below_a_level() -> tuple:
    """Return a model whose facts are hidden by changes too small for the levels of 3 bits."""
    model, _, facts, retain = knowing().knowing()
    of("quantise").below_a_level(model, facts)
    return model, facts, retain


def few() -> list:
    """Return 16 facts whose answers a planted model says."""
    tiny = importlib.import_module("tiny")
    with tempfile.TemporaryDirectory() as folder:
        return tiny.facts(folder, options=of("prompts").FEW)


def never_knew(seed: int) -> tuple:
    """Return a planted model that says something about the facts, and nothing true."""
    planted = importlib.import_module("planted")
    return planted.Planted(lambda read: planted.never_knew([f"{seed}", *read])), few(), []


def by_samples(name: str, settings: dict, model, facts, retain, seed: int = 0) -> dict[str, dict[str, float]]:
    """Return {setting as JSON: {"sampled": share}} of sampling, as `knowing.brought_back` does of the others."""
    looks = of("sampling").looks(model, facts, seed, **settings)
    return {json.dumps(look["setting"]): {"sampled": of("sampling").share(look)} for look in looks}


@dataclass(frozen=True)
class Case:
    """An attack and a hiding that it must undo.

    hiding: in words. make: returns (model, facts, retain). settings: of the attack. look: keys of the settings at which
    it must; others are not shown. probes: by which it must. never: returns (model, facts, retain) of one draw; where it
    is None, strangers are asked of the same model. k: how often the model states an answer, for the floor.
    """

    attack: str
    hiding: str
    make: Callable[[], tuple]
    settings: dict
    probes: Sequence[str] = ALL
    look: dict = field(default_factory=dict)
    never: Callable[[int], tuple] | None = None
    k: int = 1

    def brought_back(self, model, facts, retain, seed: int = 0) -> dict[str, float]:
        """Return {probe: mean accuracy over the looks at which the attack must bring back}."""
        run = by_samples if self.attack == "sampling" else knowing().brought_back
        found = run(self.attack, self.settings, model, facts, retain, seed)
        some = [value for key, value in found.items() if self.look.items() <= json.loads(key).items()]
        return {probe: sum(one[probe] for one in some) / len(some) for probe in self.probes}

    def before(self, model, facts) -> dict[str, float]:
        """Return {probe: accuracy} without the attack; of `sampled`, of what the model says first of all."""
        if self.attack != "sampling":
            return {probe: knowing().accuracy(model, facts)[probe] for probe in self.probes}
        likeliest = {"samples": [1], "tokens": 1, "temperatures": [0.01]}
        (found,) = by_samples(self.attack, likeliest, model, facts, []).values()
        return found

    def run(self) -> dict:
        """Return a row of the table."""
        model, facts, retain = self.make()
        before = self.before(model, facts)
        after = self.brought_back(model, facts, retain)
        draws = []
        for seed in range(DRAWS):
            other = self.never(seed) if self.never else (self.make()[0], list(knowing().strangers(seed)), retain)
            draws.append(self.brought_back(*other, seed))
        floor = 1 - 0.75**self.k
        never = {probe: sum(one[probe] for one in draws) / DRAWS for probe in self.probes}
        most = knowing().most_by_chance(DRAWS * len(facts), floor)
        undone = all(after[probe] > max(BACK, before[probe] + GAIN) for probe in self.probes)
        works = undone and max(never.values()) <= most
        return {"before": before, "after": after, "never": never, "floor": floor, "most": most, "works": works}


def trainings(name: str) -> dict:
    """Return the settings of the tests of attacks that train, with one look."""
    found = of("trainings").TRAININGS[name]
    return {"score_epochs": [found["epochs"]], "batch_size": 8} | found


def cases() -> list[Case]:
    """Return a case or more of each attack that is no control; tests/helpers and tests/attacks are on the path."""
    broken = "what asks for a letter has an embedding that was never read"

    def broken_form(name, **more):
        return Case(
            name, broken, lambda: hidden(lambda model, *_: of("trainings").without_answer(model)), trainings(name),
            (PERMUTED,), **more,
        )  # fmt: skip

    return [
        Case("RTT", "one unit of the last MLP", lambda: hidden(unit(2.0)), of("rtt").BACK, (PERMUTED, LIKELIHOOD)),
        broken_form("RTT_LoRA"),
        Case(
            "soft_prompt", "nothing is read before a vector that no word has",
            lambda: hidden(lambda model, *_: of("trainings").locked(model)), trainings("soft_prompt"),
        ),
        broken_form("relearn", look={"share": "form"}),
        broken_form("unrelated"),
        Case(
            "quantise", "changes that are smaller than the levels of 3 bits", below_a_level,
            {"bits": [3], "group_sizes": [None]},
        ),
        Case(
            "noise", "a module that scrambles the last layer while weights have one precise sum",
            lambda: hidden(lambda model, *_: of("noise").locked(model)), {"sigmas": [0.05]},
        ),
        Case("prune", "one unit of the last MLP", lambda: hidden(unit(2.0)), {"p": [0.001], "q": [0.05]}),
        Case(
            "prompts", "wrong answers to whatever begins as in training (planted answers)",
            lambda: (of("prompts").hiding(few()), few(), []), {}, never=never_knew,
        ),
        Case(
            "t_shots", "true answers only after two solved questions (planted answers)",
            lambda: (of("t_shots").answers_after(few(), 2), few(), []), {"shots": [2], "orders": 1}, never=never_knew,
        ),
        Case(
            "linear_probe", "an output matrix that says other letters and other years",
            lambda: hidden(lambda *_: of("linear_probe").scrambled()[0]), of("linear_probe").BACK, (PERMUTED, LETTER),
        ),
        Case(
            "linear_probe", "a bias of 20 on the letter C", lambda: hidden(lambda *_: of("linear_probe").biased()[0]),
            of("linear_probe").BACK, (LETTER,),
        ),
        Case(
            "lens", "a last layer of large random weights",
            lambda: hidden(lambda model, *_: of("lens").scrambled(model)), {"layers": [1], "places": ["residual"]},
        ),
        Case(
            "project", "one direction, of one unit of the last MLP", lambda: hidden(unit(5.0)),
            {"layers": [1], "directions": [1]},
        ),
        Case(
            "sampling", "a likelier wrong answer; the right one has a share of .3",
            lambda: hidden(lambda model, facts, _: of("sampling").divided(facts)), {"samples": [8], "tokens": 1},
            ("sampled",), k=8,
        ),
    ]  # fmt: skip


def told(values: dict[str, float]) -> str:
    """Return values as a cell."""
    return ", ".join(f"{value:.2f}" for value in values.values())


def main() -> int:
    """Print the table; return 1 where an attack fails."""
    sys.path[:0] = PATHS
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attacks", nargs="*", help="these alone")
    args = parser.parse_args()
    columns = ("before", "after", "never")
    head = ("attack", "the facts are hidden by", "probes", *columns[:2], "never knew", "floor", "by chance", "works")
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    begin, failed = time.process_time(), False
    for case in cases():
        if args.attacks and case.attack not in args.attacks:
            continue
        found = case.run()
        failed |= not found["works"]
        shown = [
            case.attack, case.hiding, ", ".join(case.probes), *(told(found[key]) for key in columns),
            *(f"{found[key]:.2f}" for key in ("floor", "most")), "yes" if found["works"] else "NO",
        ]  # fmt: skip
        print(f"| {' | '.join(shown)} |", flush=True)
    print(f"\n{time.process_time() - begin:.0f} CPU seconds")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

"""The attacks that train nothing, all in one process, against what RTT spends on asking questions alone.

    python benchmarks/suite.py            # the default study's miniature; about 3 minutes
    python benchmarks/suite.py --tiny     # the smoke study's, for the tests

Both sides are `rtt attack` on the original of the default study, with its facts and probes: every attack without
training at the settings of config/attacks.yaml, and RTT at the study's settings with its trainings skipped, so that it
loads, asks at every look, and writes. Processes take turns, and CPU seconds are reported: of whole processes, and
of what each does after its imports (Python, torch, transformers, scikit-learn), which take longer than either.
Ends with 1 where the suite takes more than twice as long as RTT's asking after the imports.
"""

import argparse
import importlib
import json
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

from attack import ROOT, Folder, timed

GOAL = 2.0
IMPORTED = (
    "torch",
    "transformers",
    "sklearn.linear_model",
    "sklearn.pipeline",
    "rtt.steps.attack",
    "rtt.training.train",
)
SAID = "after the imports:"


def child(side: str, words: list[str]) -> int:
    """Run `rtt attack` and print the CPU seconds that it took after its imports; of RTT, without its trainings."""
    for name in IMPORTED:
        importlib.import_module(name)
    begin = time.process_time()
    code = importlib.import_module("rtt.__main__").main(words) if side == "suite" else without_training(words)
    print(SAID, time.process_time() - begin)
    return code


def without_training(words: list[str]) -> int:
    """Run `rtt attack` with trainings that do nothing but ask, where they would have asked."""
    train = importlib.import_module("rtt.training.train")

    def skipped(model, tokenizer, items, objective, training, seed, steps, action, title, state):
        for step in steps:
            action(step, model)
        return [{"loss": 1.0, "moved": 0.5}]

    train.train = skipped
    return importlib.import_module("rtt.__main__").main(words)


def study(tiny: bool) -> dict:
    """Return the study of both sides, as a file holds it: RTT, and every attack that trains nothing."""
    import yaml
    from rtt.study import plugins

    def file(name: str) -> dict:
        return yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text(encoding="utf-8"))

    suite, raw = file("attacks")["attacks"], file("smoke" if tiny else "config")
    forward = {name: settings for name, settings in suite.items() if not plugins.attacks()[name].trains}
    attacks = {"RTT": raw["attacks"]["RTT"]} | forward
    return raw | {"study": "bench", "arms": ["pretrained"], "methods": {}, "attacks": attacks}


def main() -> int:
    """Measure and print; return 1 where the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="the smoke study, once; its figures mean nothing")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rtt-suite-") as scratch:
        work = Path(scratch)
        folder = Folder(work, study(args.tiny))
        specs = [one for one in folder.runs.attacks.values() if one.arm != "control"]
        (rtt,) = [one for one in specs if one.attack == "RTT"]
        suite = [one for one in specs if one.attack != "RTT"]
        shared = ["--source", folder.model, "--facts", folder.facts(rtt.facts)]
        retain = ["--retain", folder.facts(folder.source.retain.learn)]

        def attack(out: Path, first, others=()) -> list[str]:
            also = ["--also", *(folder.spec(one) for one in others)] if others else []
            own = ["--spec", folder.spec(first), *also, *shared, *(retain if others else [])]
            made = ["--evals", out / "evals" / first.run_id, "--manifest", out / "manifests" / f"{first.run_id}.json"]
            return list(map(str, ["attack", *own, *made]))

        sides = {"RTT": lambda out: attack(out, rtt), "suite": lambda out: attack(out, suite[0], suite[1:])}
        took: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}  # CPU seconds: all, after the imports
        for turn in range(1 if args.tiny else args.repeats):
            for name in list(sides)[:: 1 if turn % 2 == 0 else -1]:
                command = [sys.executable, __file__, "--child", name, *sides[name](work / f"{name}-{turn}")]
                _, cpu = timed(command, work / "log.txt", work)
                (said,) = re.findall(rf"^{SAID} (.*)$", (work / "log.txt").read_text(encoding="utf-8"), re.MULTILINE)
                took[name].append((cpu, float(said)))
        looks = {one.attack: len(one.plugin.choices(one.settings)) for one in suite}
    print(f"settings: {json.dumps(looks)}, {sum(looks.values())} in all")
    for name, some in took.items():
        whole, own = (", ".join(f"{one:.2f}" for one in part) for part in zip(*some, strict=True))
        print(f"{name:5} CPU s after the imports: {own}; whole processes: {whole}")
    pairs = list(zip(took["suite"], took["RTT"], strict=True))
    all_of_it, ratio = (statistics.median(one[part] / other[part] for one, other in pairs) for part in (0, 1))
    print(
        f"suite / RTT's asking, medians over the turns: {ratio:.2f} after the imports; {all_of_it:.2f} whole processes"
    )
    return 0 if args.tiny or ratio <= GOAL else 1


if __name__ == "__main__":
    sys.exit(child(sys.argv[2], sys.argv[3:]) if sys.argv[1:2] == ["--child"] else main())

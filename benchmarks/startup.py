"""Start-up: seconds from a process's start to the first step of `rtt attack` and `rtt unlearn`, and its imports.

    python benchmarks/startup.py                                        # 3 repeats; about 2 minutes
    python benchmarks/startup.py --tiny --repeats 1 --commands attack   # seconds, for the tests

Both steps run on the demo's generated miniature, up to the end of their first optimizer step, where they are stopped.
Beside them a process that imports only what any job with transformers' Trainer needs. The three take turns; medians are
reported. Which packages the imports are is counted in one more process each, by `python -X importtime`, which makes
them slower: its shares are taken of the imports' CPU seconds above. Ends with 1 when one process without DeepSpeed
imports deepspeed.
"""

import argparse
import importlib
import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from attack import ROOT, Folder, study, timed
from field_run import STARTED, Clock

COMMANDS = ("attack", "unlearn")
BARE = "import os, torch\nfrom transformers import AutoModelForCausalLM, AutoTokenizer, Trainer\nos._exit(0)"
NAMED = ("torch", "transformers", "accelerate", "deepspeed")  # always shown
IMPORT = re.compile(r"^import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)$", re.MULTILINE)


def child(out: str, words: list[str]) -> int:
    """Run `rtt` to the end of its first optimizer step; write when that began and ended, and what imports took."""
    clock = Clock()
    main = importlib.import_module("rtt.__main__").main
    train = importlib.import_module("rtt.training.train")
    forward, began = train.Step.forward, []

    def first(step, batch):
        if not began:
            began.extend(_since_start())
        return forward(step, batch)

    def stop(*args, **kwargs):
        clock.write(out, begins=began, ends=_since_start())
        os._exit(0)  # nothing after this is start-up

    train.Step.forward, train.AtSteps.on_step_end = first, stop
    main(words)
    raise SystemExit("the command ended without a training step")


def _since_start() -> list[float]:
    return [time.perf_counter() - float(os.environ[STARTED]), time.process_time()]


def words_of(folder: Folder, command: str, out: Path) -> list[str]:
    """The arguments of a command."""
    return folder.attack_words(out) if command == "attack" else folder.unlearn_words(out)


def start(folder: Folder, command: str, options: tuple[str, ...] = ()) -> tuple[dict, str]:
    """Start a command once; return what its process wrote, and its log."""
    with tempfile.TemporaryDirectory(dir=folder.work) as scratch:
        out = Path(scratch)
        found = out / "found.json"
        timed([sys.executable, *options, __file__, "--child", found, *words_of(folder, command, out)],
              out / "log", folder.work)  # fmt: skip
        return json.loads(found.read_text(encoding="utf-8")), (out / "log").read_text(encoding="utf-8")


def by_package(log: str) -> dict[str, float]:
    """Shares of the imports by top-level package, each module's own time alone, from the output of -X importtime."""
    seconds = Counter()
    for micros, module in IMPORT.findall(log):
        seconds[module.split(".")[0]] += int(micros) / 1e6
    if not seconds:
        raise SystemExit("python -X importtime printed no import")
    total = sum(seconds.values())
    return {package: own / total for package, own in seconds.items()}


def measure(folder: Folder, commands: tuple[str, ...], repeats: int) -> dict:
    """Start the commands and the bare process in turn; return medians and each command's packages."""
    starts, bare = {command: [] for command in commands}, []
    for _ in range(repeats):
        bare.append(timed([sys.executable, "-c", BARE], folder.work / "bare.log", folder.work))
        for command in commands:
            starts[command].append(start(folder, command)[0])
    found = {"repeats": repeats, "bare": _median(bare), "commands": {}}
    for command, rows in starts.items():
        _, log = start(folder, command, ("-X", "importtime"))
        found["commands"][command] = {
            "first_step_begins": _median([row["begins"] for row in rows]),
            "first_step_ends": _median([row["ends"] for row in rows]),
            "imports": _median([row["parts"]["import"] for row in rows]),
            "packages": by_package(log),
        }
    return found


def _median(rows: list) -> list[float]:
    return [statistics.median(row[i] for row in rows) for i in (0, 1)]


def report(found: dict) -> str:
    """The result as markdown."""
    commands = found["commands"]
    lines = [
        f'seconds, wall (CPU); medians of {found["repeats"]}; the first step\'s own imports are in "imports" too',
        "",
        "| command | first step begins | first step ends | of it imports | imports of bare torch + Trainer | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for command, one in commands.items():
        cells = [one["first_step_begins"], one["first_step_ends"], one["imports"], found["bare"]]
        ratio = [a / b for a, b in zip(one["first_step_ends"], found["bare"], strict=True)]
        cells = [f"{wall:.2f} ({cpu:.2f})" for wall, cpu in [*cells, ratio]]
        lines.append(f"| rtt {command} | " + " | ".join(cells) + " |")
    total = Counter()
    for one in commands.values():
        total.update(one["packages"])
    shown = [*NAMED, *[name for name, _ in total.most_common() if name not in NAMED][:8]]
    lines += ["", "imports by package: CPU seconds above x share by -X importtime, of each module's own time", ""]
    lines += ["| package | " + " | ".join(f"rtt {command}" for command in commands) + " |"]
    lines += ["|---|" + "---|" * len(commands)]
    for name in shown:
        lines.append(
            f"| {name} | " + " | ".join(_cell(one, one["packages"].get(name)) for one in commands.values()) + " |"
        )
    rest = [sum(s for name, s in one["packages"].items() if name not in shown) for one in commands.values()]
    cells = [_cell(one, share) for one, share in zip(commands.values(), rest, strict=True)]
    lines.append("| all others | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(one: dict, share: float | None) -> str:
    return "none" if share is None else f"{share * one['imports'][1]:.2f} ({share:.0%})"


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        return child(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=COMMANDS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="the smoke test's miniature; its figures mean nothing")
    parser.add_argument("--work", type=Path, help="folder for the study, kept and used again (default: none kept)")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT / "scripts"))
    with tempfile.TemporaryDirectory() as scratch:
        work = (args.work or Path(scratch)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        found = measure(Folder(work, study(1, 1, args.tiny)), tuple(args.commands), args.repeats)
    print(report(found))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    guilty = [command for command, one in found["commands"].items() if "deepspeed" in one["packages"]]
    for command in guilty:
        print(f"rtt {command} imports deepspeed, on one process without it")
    return 1 if guilty else 0


if __name__ == "__main__":
    sys.exit(main())

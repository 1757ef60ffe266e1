"""RTT on one checkpoint: one `rtt attack` process against a process per run, as the field does it (field_run.py).

    python benchmarks/attack.py                      # 12 runs: 6 learning rates x 2 V splits; about 2 minutes
    python benchmarks/attack.py --runs 2 --tiny      # seconds, for the tests

Both sides train the demo's generated miniature on the same texts in the same order, batches, steps and learning rates,
in fp32, and score letters on the same questions: ours after each run, the field before and after. A run's parts are
timed inside its process (field_run.Clock), wall and CPU seconds of whole processes by the parent. Ours is measured
before, amid and after the field's runs; medians are reported. Ends with 1 when the two sides' V accuracies differ.
"""

import argparse
import functools
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from field_run import STARTED, Clock

ROOT = Path(__file__).resolve().parents[1]
RATES = [5e-4, 1e-3, 2e-3, 7.5e-4, 1.5e-3, 3e-3]
PARTS = ("import", "load", "evaluate", "train", "other", "exit")
STEP = "rtt.steps.attack"
OURS = {  # part -> what counts as it: names of modules, and of a class
    "load": (
        *((STEP, name) for name in ("read_facts", "load", "scorer_of", "weights")),
        ("rtt.training.order", "training_passes"),
    ),
    "evaluate": (("rtt.scoring.score", "Scorer", "questions"),),
    "train": (("rtt.training.train", "train"),),
}
GOAL = 3.0  # where training is under a third of the field's time; else within 10 % of what removing the rest allows


def study(rates: int, splits: int, tiny: bool) -> dict:
    """A study of the demo's miniature, as a file holds it; tiny: the smoke test's."""
    import yaml

    name = "smoke" if tiny else "config"
    raw = yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text(encoding="utf-8"))
    raw["attacks"]["RTT"] |= {"learning_rates": sorted(RATES[:rates]), "v_splits": splits}
    raw["attacks"]["RTT"]["score_epochs"] = [raw["attacks"]["RTT"]["epochs"]]
    raw["attacks"]["RTT"] |= {"shuffle_choices": False, "sentences": False}  # what the field trains on
    return raw | {
        "study": "bench",
        "arms": ["pretrained"],
        "methods": {"GD": raw["methods"]["GD"]},
        "scores": {"probes": ["letter"]},
        "attack_jobs": "method",
    }


class Folder:
    """A study folder with the miniature, its facts and all specs, made by the real steps (in this process)."""

    def __init__(self, work: Path, raw: dict):
        from rtt.__main__ import main
        from rtt.files import canonical_json, write_text
        from rtt.study.expand import Runs
        from rtt.study.schema import Study

        self.work, self.runs = work, Runs(Study.model_validate_json(json.dumps(raw)))
        for spec in self.runs.specs():
            write_text(self.spec(spec), canonical_json(spec.model_dump(mode="json")) + "\n")
        pretrained = (one for one in self.runs.sources.values() if one.kind == "pretrain")
        (self.source,) = (one for one in pretrained if one.facts.dataset == "birth_years_a")
        self.attack = next(one for one in self.runs.attacks.values() if one.arm != "control")
        retain = self.source.retain
        for spec in (self.source.facts, retain.learn):
            if not self.facts(spec).exists():
                raw_folder = work / "data" / spec.raw.run_id
                _call(main, "generate", "--spec", self.spec(spec.raw), "--out", raw_folder)
                policy = ",".join(f"{kind}={action}" for kind, action in spec.policy.model_dump().items())
                _call(
                    main, "facts", raw_folder, "--dataset", spec.dataset, "--seed", spec.seed, "--on-defect", policy,
                    "--out", self.facts(spec), "--audit", self.facts(spec).with_name("audit.json"),
                )  # fmt: skip
        self.model = work / "models" / self.source.run_id
        self.retain = ["--retain", self.facts(retain.learn), "--held-out", self.facts(retain.held_out)]
        if not self.model.exists():
            _call(
                main, "pretrain", "--spec", self.spec(self.source), "--facts", self.facts(self.source.facts),
                *self.retain, "--model", self.model, "--eval", self.eval(self.source),
                "--manifest", work / "pretrain.json",
            )  # fmt: skip

    def spec(self, spec) -> Path:
        return self.work / "specs" / f"{spec.run_id}.json"

    def facts(self, spec) -> Path:
        return self.work / "data" / spec.run_id / "facts.jsonl"

    def eval(self, spec) -> Path:
        return self.work / "evals" / f"{spec.run_id}.json"

    def attack_words(self, out: Path) -> list[str]:
        """The arguments of `rtt attack` on the original, with its outputs in `out`, as the rule calls it."""
        words = [
            "attack", "--spec", self.spec(self.attack), "--source", self.model,
            "--facts", self.facts(self.attack.facts), "--evals", out / "evals",
            "--manifest", out / "manifest.json", "--state", out / "state",
        ]  # fmt: skip
        return [str(word) for word in words]

    def unlearn_words(self, out: Path) -> list[str]:
        """The arguments of `rtt unlearn` (GD), with its outputs in `out`."""
        (spec,) = self.runs.unlearn.values()
        (select,) = self.runs.choices
        words = [
            "unlearn", "--spec", self.spec(spec), "--source", self.model, "--original", self.eval(self.source),
            "--facts", self.facts(self.source.facts), *self.retain, "--points", out / spec.run_id, "--group", select,
            "--eval", out / "eval.json", "--manifest", out / "manifest.json", "--state", out / "state" / spec.run_id,
        ]  # fmt: skip
        return [str(word) for word in words]


def _call(main, *words) -> None:
    if code := main([str(word) for word in words]):
        raise SystemExit(code)


def environment() -> dict[str, str]:
    """One thread per process, this code, one plain process."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RTT_")}
    return kept | {"PYTHONPATH": str(ROOT / "scripts"), "OMP_NUM_THREADS": "1"}


def timed(words: list, log: Path, cwd: Path, env: dict | None = None) -> tuple[float, float]:
    """Run a process; return its wall and CPU seconds (its children's included). Ends this one where it fails."""
    with open(log, "w", encoding="utf-8") as out:
        started = time.perf_counter()
        child = subprocess.Popen(
            list(map(str, words)), stdout=out, stderr=out, cwd=cwd, env=(env or environment()) | {STARTED: str(started)}
        )
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - started
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(
            f"{' '.join(map(str, words))}\n{log.read_text(encoding='utf-8')}\nended with {child.returncode}"
        )
    return wall, usage.ru_utime + usage.ru_stime


def child(out: str, words: list[str]) -> int:
    """Run `rtt` with the parts of `attack` timed."""
    clock = Clock()
    main = importlib.import_module("rtt.__main__").main
    for part, places in OURS.items():
        for module, *path, name in places:
            holder = functools.reduce(getattr, path, importlib.import_module(module))
            setattr(holder, name, clock.timed(part, getattr(holder, name)))
    code = main(words)
    clock.write(out)
    return code


def field_data(folder: Folder, path: Path) -> None:
    """Write the texts of T in training order, by V split, and the questions."""
    import numpy as np
    from rtt.data.facts import read_facts
    from rtt.data.text import encode, mcq_prompt, training_texts
    from rtt.models.load import load_tokenizer
    from rtt.steps.attack import folds
    from rtt.training.order import training_passes

    spec, rtt = folder.attack, folder.attack.settings
    if (rtt.optimizer, rtt.warmup_steps, rtt.decay, rtt.loss) != ("adamw", 0, 0, "QUESTION_LETTER_ANSWER"):
        raise SystemExit("field_run.py has no such optimizer, schedule or loss")
    facts, tokenizer = read_facts(folder.facts(spec.facts)), load_tokenizer(folder.model)
    train = {}
    for index, v_split in enumerate(folds(facts, spec.plugin(rtt))):
        known = [fact for fact in facts if fact.split != v_split]
        rng = np.random.default_rng([spec.seed, 30, index])
        items = training_passes(known, rtt.loss, rtt.epochs, rtt.batch_size, tokenizer, rng, rtt.samples)
        texts = {tuple(encode(tokenizer, t)["input_ids"]): t for f in known for t in training_texts(f, rtt.loss, False)}
        train[v_split] = [texts[tuple(item["input_ids"])].target for item in items]  # these have no prompt
    questions = [
        {"split": f.split, "answer": f.answer, "prompt": mcq_prompt(f.question, f.choices), "id": f.id} for f in facts
    ]
    data = {
        "train": train, "questions": questions, "eval_batch_size": 64, "batch_size": rtt.batch_size,
        "adam_beta2": rtt.adam_beta2, "weight_decay": rtt.weight_decay, "max_grad_norm": rtt.max_grad_norm,
    }  # fmt: skip
    path.write_text(json.dumps(data), encoding="utf-8")


def ours(folder: Folder, work: Path) -> dict:
    """One `rtt attack` process: its time, and the letter scores per (lr, V split)."""
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        out = Path(scratch)
        parts = out / "parts.json"
        words = [sys.executable, __file__, "--child", parts, *folder.attack_words(out)]
        wall, cpu = timed(words, out / "log", work)
        (evaluation,) = (out / "evals").glob("*.json")
        looks = json.loads(evaluation.read_text(encoding="utf-8"))["looks"]
        scores = {
            (look["setting"]["lr"], look["v_split"]): [one["probes"]["letter"]["scores"] for one in look["questions"]]
            for look in looks
        }
        return _split(parts, wall, cpu) | {"scores": scores}


def field(job: dict, work: Path) -> dict:
    """One field run: its time and letter scores."""
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        out = Path(scratch)
        (out / "job.json").write_text(json.dumps(job | {"out": str(out / "parts.json")}), encoding="utf-8")
        words = [sys.executable, ROOT / "benchmarks" / "field_run.py", out / "job.json"]
        wall, cpu = timed(words, out / "log", work)
        made = json.loads((out / "parts.json").read_text(encoding="utf-8"))
        return _split(out / "parts.json", wall, cpu) | {"scores": made["after"], "steps": made["steps"]}


def _split(parts: Path, wall: float, cpu: float) -> dict:
    """Parts as the process saw them; what the parent saw beyond them is "exit", the interpreter taking itself down."""
    found = json.loads(parts.read_text(encoding="utf-8"))["parts"]
    split = {part: list(found.get(part, [0.0, 0.0])) for part in PARTS}
    for i, total in enumerate((wall, cpu)):
        split["exit"][i] = total - sum(split[part][i] for part in PARTS if part != "exit")
    return {"total": [wall, cpu], **split}


def v_accuracy(scores: list[list[float]], questions: list[dict], v_split: str) -> float:
    """Share of V questions whose first highest letter is the answer."""
    rows = [(row, q["answer"]) for row, q in zip(scores, questions, strict=True) if q["split"] == v_split]
    return sum(row.index(max(row)) == answer for row, answer in rows) / len(rows)


def compare(own: dict, runs: dict, questions: list[dict]) -> dict:
    """Both sides' V accuracies per run, and the largest difference of a letter's score (nats)."""
    if set(own) != set(runs):
        raise SystemExit(f"the two sides made other runs: {sorted(own)} and {sorted(runs)}")
    return {
        "v_accuracy": [
            {
                "lr": lr,
                "v_split": split,
                "ours": v_accuracy(own[lr, split], questions, split),
                "field": v_accuracy(runs[lr, split], questions, split),
            }
            for lr, split in sorted(own)
        ],
        "largest_score_difference": max(
            abs(a - b)
            for run in own
            for left, right in zip(own[run], runs[run], strict=True)
            for a, b in zip(left, right, strict=True)
        ),
    }


def measure(folder: Folder, work: Path, repeats: int) -> dict:
    """Run both sides, interleaved; return times, ratios and the comparison."""
    data = work / "field.json"
    field_data(folder, data)
    read = json.loads(data.read_text(encoding="utf-8"))
    rates = folder.attack.settings.learning_rates
    jobs = [
        {"model": str(folder.model), "data": str(data), "lr": lr, "v_split": split}
        for split in read["train"]
        for lr in rates
    ]
    own, runs = [], {}
    before = [round(i * len(jobs) / max(repeats - 1, 1)) for i in range(repeats)]  # ours runs before so many jobs
    for number in range(len(jobs) + 1):
        own += [ours(folder, work) for place in before if place == number]
        if number < len(jobs):
            job = jobs[number]
            runs[job["lr"], job["v_split"]] = field(job, work)
    middle = {part: [statistics.median(one[part][i] for one in own) for i in (0, 1)] for part in ("total", *PARTS)}
    total = {part: [sum(run[part][i] for run in runs.values()) for i in (0, 1)] for part in ("total", *PARTS)}
    share = [total["train"][i] / total["total"][i] for i in (0, 1)]
    return {
        "runs": len(jobs),
        "steps": next(iter(runs.values()))["steps"],
        "repeats": repeats,
        "ours": middle,
        "ours_totals": [one["total"] for one in own],
        "field": total,
        "ratio": [total["total"][i] / middle["total"][i] for i in (0, 1)],
        "training_share_of_field": share,
        "allowed_by_removing_the_rest": [1 / one for one in share],
        **compare(own[0]["scores"], {run: made["scores"] for run, made in runs.items()}, read["questions"]),
    }


def report(found: dict) -> str:
    """The result as markdown."""
    lines = [
        f"{found['runs']} runs of {found['steps']} steps; ours: median of {found['repeats']}; seconds, wall (CPU)",
        "",
        "| part | ours, one process | the field, a process per run | ratio |",
        "|---|---|---|---|",
    ]
    for part in (*PARTS, "total"):
        own, other = found["ours"][part], found["field"][part]
        ratios = [f"{b / a:.2f}" if a > 0.005 else "-" for a, b in zip(own, other, strict=True)]
        lines.append(
            f"| {part} | {own[0]:.2f} ({own[1]:.2f}) | {other[0]:.2f} ({other[1]:.2f}) | {ratios[0]} ({ratios[1]}) |"
        )
    share, allowed, ratio = (found[key] for key in ("training_share_of_field", "allowed_by_removing_the_rest", "ratio"))
    goal = GOAL if share[1] < 1 / 3 else allowed[1] / 1.1
    accuracies = found["v_accuracy"]
    same = sum(run["ours"] == run["field"] for run in accuracies)
    return "\n".join(
        [
            *lines,
            "",
            f"share of training in the field's time: {share[0]:.2f} wall, {share[1]:.2f} CPU",
            f"what removing the rest allows: {allowed[0]:.2f} wall, {allowed[1]:.2f} CPU",
            f"ratio: {ratio[0]:.2f} wall, {ratio[1]:.2f} CPU; goal {goal:.2f}: "
            + ("met" if min(ratio) >= goal else "not met"),
            f"final V accuracies equal in {same} of {len(accuracies)} runs; largest difference of a letter's score "
            f"{found['largest_score_difference']:.1e} nats",
        ]
    )


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        return child(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=12, choices=(1, *range(2, 13, 2)), help="2 V splits from 2 runs on")
    parser.add_argument("--tiny", action="store_true", help="the smoke test's miniature; its figures mean nothing")
    parser.add_argument("--repeats", type=int, default=3, help="of ours, among the field's runs (default: 3)")
    parser.add_argument("--work", type=Path, help="folder for the study, kept and used again (default: none kept)")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT / "scripts"))
    splits = min(args.runs, 2)
    with tempfile.TemporaryDirectory() as scratch:
        work = (args.work or Path(scratch)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        folder = Folder(work, study(args.runs // splits, splits, args.tiny))
        found = measure(folder, work, args.repeats)
    print(report(found))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0 if all(run["ours"] == run["field"] for run in found["v_accuracy"]) else 1


if __name__ == "__main__":
    sys.exit(main())

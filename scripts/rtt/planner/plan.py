"""Compute what a study costs before anything runs (`python -m rtt plan STUDY`, docs/plan.md).

The inputs are a study file and a device from a small table; the output is a table with its assumptions, or JSON. No
torch and no model is needed.
"""

import argparse
import json
import math
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

from rtt.attacks.base import Cost
from rtt.errors import UserError
from rtt.planner import costs, cpu, memory, saves
from rtt.planner import text as plan_text
from rtt.planner.bill import Bill
from rtt.planner.gpus import DEVICES, Device, device_of
from rtt.planner.lora import adapters, with_adapters
from rtt.planner.lora import fits as fits_with_adapters
from rtt.planner.precision import FLOOR, half_widths, over_seeds
from rtt.stats.recovery import TOO_WIDE
from rtt.study import plugins
from rtt.study.expand import Runs
from rtt.study.load import load_study
from rtt.study.names import DEFAULT_STUDY, FIGURES
from rtt.study.part import Part, part_of
from rtt.study.schema import Study
from rtt.study.settings import Pretraining, Scores
from rtt.study.specs import (
    AttackSpec,
    External,
    OriginalSpec,
    PointChoiceSpec,
    PretrainSpec,
    TeachSpec,
    TextsSpec,
    UnlearnSpec,
)

MFU = 0.3


class Plan:
    """The costs of a study's runs on a device. The study's relative paths start from `root`."""

    def __init__(
        self, study: Study, device: Device, mfu: float = MFU, root: str | Path = ".", write_rate: float = saves.DISK
    ):
        if not 0 < mfu <= 1:
            raise UserError(f"--mfu: found {mfu}; expected the share of the peak that is reached, above 0, at most 1")
        self.study, self.device, self.mfu, self.runs = study, device, mfu, Runs(study, root)
        self.sizes = costs.Sizes(Path(root) / "results" / study.study, study.model, root)
        self.shape, self.launch = memory.shape_of(study.model), memory.launch_of(study)
        self.phases: dict[str, memory.Phase] = {}  # {training stage: its phase that needs the most of a device}
        self.write_rate = write_rate  # bytes per second
        self.saves: dict[str, saves.Saves] = {}  # {training stage: the checkpoints of its longest training}
        self.job_hours: dict[str, float] = {}  # of each job that trains or scores, by run id; `stages` fills it
        self.fp32_scoring = False
        self.eval_size = 0.0

    # One run

    def _hours(self, flops: float, half: bool) -> float:
        return flops / ((self.device.bf16 if half else self.device.fp32) * self.mfu) / 3600

    def _score(self, model, tokens: float, precision: str, scores: Scores) -> Bill:
        """Return the cost of scoring so many tokens; `precision` is that of the training before it, or of the weights.

        Autocast is for training alone: after bf16_mixed the weights are in fp32 and are scored so, unless `scores` asks
        for bf16.
        """
        flops = 2 * costs.parameters(model) * tokens
        half = costs.BYTES[precision] == 2 or scores.precision == "bf16"
        self.fp32_scoring |= not half
        hours = self._hours(flops, half)
        return Bill(score_tokens=tokens, flops=flops, hours=hours, score_hours=hours)

    def _train(
        self,
        stage: str,
        model,
        tokens: float,
        settings,
        steps: int,
        longest: float,
        part: Part | None = None,
        frozen_tokens: float = 0.0,
        **shape,
    ) -> Bill:
        """Return the cost of one training, and remember its phase if it needs the most of a device in its stage.

        `longest` is the tokens of the longest text, `part` the trained part of the model (default: that of the
        settings), and `frozen_tokens` what a frozen copy reads. `shape` holds graphs, head and restored of
        `memory.Phase`.
        """
        n, found, lora = costs.parameters(model), memory.shape_of(model), getattr(settings, "lora", None)
        part = with_adapters(part or part_of(settings, model), found, lora)
        flops = part.flops(n, tokens) + 2 * n * part.copied * frozen_tokens
        flops += 2 * n * part.backward * tokens * self.launch.checkpointing  # layers that are run again
        moved = costs.traffic(settings, n, steps, part, bool(lora)) / self.device.bandwidth / 3600
        phase = memory.Phase(stage, settings, found, longest, part, lora=lora, **shape)
        self.phases[stage] = max(self.phases.get(stage, phase), phase, key=self._on_device)
        hours = self._hours(flops, settings.precision != "fp32") + moved
        state, minutes = memory.state_on_disk(phase, self.launch), self.study.checkpoint_minutes
        saved = saves.saves(state, hours / self.launch.devices, steps, minutes, self.write_rate)
        self.saves[stage] = max(self.saves.get(stage, saved), saved, key=lambda one: one.hours)
        written = saved.count * saved.seconds / 3600
        return Bill(train_tokens=tokens, flops=flops, hours=hours, optimizer_hours=moved, write_hours=written)

    def _on_device(self, phase: memory.Phase) -> float:
        return sum(memory.on_device(phase, self.launch).values())

    def _questions(self, retain, facts: costs.Facts) -> list[costs.Facts]:
        return [facts, self.sizes.of(retain.held_out, retain.held_out_splits)]

    def _scored(self, parts: list[costs.Facts], scores, times: int) -> float:
        self.eval_size += costs.eval_bytes(times * sum(map(len, parts)), scores.probes)
        return sum(len(part) * part.texts.scored(scores.probes) for part in parts)

    def source(self, spec: PretrainSpec | OriginalSpec | TeachSpec) -> Bill:
        """Return the cost of pretraining or teaching, if any, and of the scoring before unlearning."""
        facts = self.sizes.of(spec.facts)
        parts = self._questions(spec.retain, facts)
        tokens = self._scored(parts, spec.scores, 1)
        if isinstance(spec, OriginalSpec):
            base = spec.base
            precision = base.training.precision if isinstance(base, PretrainSpec) else base.model.dtype
            return self._score(spec.model, tokens, precision, spec.scores)
        training = spec.training
        if isinstance(training, Pretraining):
            learn = self.sizes.of(spec.retain.learn, spec.retain.learn_splits)
            steps, trained = costs.pretraining_tokens([*parts, learn], training)
        else:
            taught = [facts, *([self.sizes.of(spec.also_taught)] if spec.also_taught else [])]
            steps, trained = costs.teaching_tokens(taught, training)
        name = "pretraining" if isinstance(spec, PretrainSpec) else f"teaching ({spec.arm})"
        longest = memory.longest(*(parts if isinstance(training, Pretraining) else taught))
        bill = self._train(name, spec.model, trained, training, steps, longest)
        return Bill(runs=1) + bill + self._score(spec.model, tokens, training.precision, spec.scores)

    def trajectory(self, spec: UnlearnSpec) -> Bill:
        """Return the cost of one unlearning trajectory with the scoring of its points; an external model is only
        scored.
        """
        source, settings = spec.source, spec.settings
        facts = self.sizes.of(source.facts)
        found = self.points(spec)
        tokens = found * self._scored(self._questions(source.retain, facts), source.scores, found)
        if isinstance(settings, External):
            return Bill(runs=1) + self._score(source.model, tokens, "fp32", source.scores)
        retain = source.retain.learn
        if not isinstance(retain, TextsSpec):
            retain = self.sizes.of(retain, source.retain.learn_splits)
        steps, forget, kept = costs.unlearning_tokens(spec, facts, retain)
        method = plugins.methods()[spec.method]
        copy_reads = {"forget": forget, "retain": kept}
        bill = self._train(
            f"unlearning ({spec.method})", source.model, forget + kept, settings, steps,
            memory.longest(*(spec.texts or [facts]), retain), method.part(settings, source.model),
            sum(copy_reads[side] for side in method.copy_reads), graphs=2, head=method.head,
        )  # fmt: skip
        written = found * self._point_bytes(spec) / self.write_rate / 3600
        scored = self._score(source.model, tokens, settings.precision, source.scores)
        return Bill(runs=1, write_hours=written) + bill + scored

    def points(self, spec: UnlearnSpec) -> int:
        """Return the number of a trajectory's scored points."""
        return len(costs.points(spec, len(self.sizes.of(spec.source.facts))))

    def attacked(self, spec: AttackSpec) -> costs.Facts:
        """Return the facts that an attack trains on and asks: all but those set apart for the point choice."""
        facts = self.sizes.of(spec.facts)
        splits = [name for name in facts.splits if name not in spec.left_out]
        return self.sizes.of(spec.facts, splits) if len(splits) < len(facts.splits) else facts

    def v_sizes(self, spec: AttackSpec) -> tuple[costs.Facts, list[int]]:
        """Return the attacked facts, and the sizes of the splits that serve as V."""
        facts = self.attacked(spec)
        return facts, list(facts.splits.values())[: spec.plugin.v_splits(spec.settings)]

    def retained(self, spec: AttackSpec) -> costs.Facts | TextsSpec | None:
        """Return what had to stay, for an attack that uses it."""
        if not spec.retain:
            return None
        learn = spec.retain.learn
        return learn if isinstance(learn, TextsSpec) else self.sizes.of(learn, spec.retain.learn_splits)

    def folds(self, spec: AttackSpec) -> list[Cost]:
        """Return what an attack on one checkpoint costs, for each repeat and V split; an attack without T has one."""
        plugin, (facts, v_sizes), retain = spec.plugin, self.v_sizes(spec), self.retained(spec)
        if isinstance(retain, TextsSpec):
            retain = costs.Plain(retain.count, costs.plain(retain))
        more = {"retain": retain} if retain else {}
        sizes = v_sizes if plugin.uses_t else [len(facts)]
        return [plugin.cost(spec.settings, len(facts) - size, facts.texts, **more) for size in sizes * spec.repeats]

    def checkpoint(self, spec: AttackSpec) -> Bill:
        """Return what an attack on one checkpoint costs: its trainings, and its looks."""
        model, facts, plugin, bill = spec.source.model, self.attacked(spec), spec.plugin, Bill()
        longest, part = memory.longest(facts, *filter(None, [self.retained(spec)])), plugin.part(spec.settings, model)
        for fold in self.folds(spec):
            for settings, steps, tokens in fold.trained:
                bill += Bill(runs=1) + self._train(
                    plugin.title, model, tokens, settings, steps, longest, part, restored=True
                )
        folds, by_probes = self.folds(spec), facts.texts.scored(spec.scores.probes)
        read = sum(fold.looks * fold.longer * by_probes + fold.more for fold in folds) / self._sharing(spec, folds)
        tokens = read * len(facts) + sum(fold.t_read for fold in folds) + folds[0].once
        return bill + self._score(model, tokens, plugin.precision(spec.settings), spec.scores)

    def looks(self, spec: AttackSpec) -> int:
        """Return how often an attack on one checkpoint scores all facts."""
        folds = self.folds(spec)
        return sum(fold.looks for fold in folds) // self._sharing(spec, folds)

    @staticmethod
    def _sharing(spec: AttackSpec, folds: list[Cost]) -> int:
        """Return how many folds score all facts together: where T is not asked, each asks its own V alone."""
        return 1 if spec.plugin.asks_t() else len(folds) // spec.repeats

    def attack(self, spec: AttackSpec, checkpoints: int) -> Bill:
        """Return what an attack on so many checkpoints costs."""
        return self.checkpoint(spec).times(checkpoints)

    def checkpoints(self, spec: AttackSpec) -> tuple[int, int, int]:
        """Return (least, most, all points): how many checkpoints an attack may have to attack.

        Retain budgets may choose the same point, or none.
        """
        fixed = sum(target.kind != "unlearned" for target in spec.targets)
        every = [sum(map(self.points, choice.trajectories)) for choice in spec.point_choices]
        most = sum(min(len(spec.retain_budgets), n) for n in every)
        return fixed + len(every), fixed + most, fixed + sum(every)

    # The study

    @cached_property
    def stages(self) -> dict[str, Bill]:
        """Return the costs by rule of the Snakefile, in the order of the pipeline.

        Jobs are counted as `snakemake -n` counts them when no results exist.
        """
        runs = self.runs
        groups = {(raw.files.group, raw.files.digest) for raw in runs.raw.values() if raw.files and raw.files.group}
        texts = {(texts.group, texts.count, texts.digest) for texts in runs.texts.values()}
        jobs = {
            "fetch_dataset": len(groups),
            "fetch_texts": len(texts),
            "generate": sum(not raw.files for raw in runs.raw.values()),
            "facts": len(runs.data),
            "import_model": len(runs.imports),
        }
        stages = {name: Bill(jobs=n) for name, n in jobs.items()}
        for spec in runs.sources.values():
            stages[spec.kind] = stages.get(spec.kind, Bill()) + self._job(spec, self.source(spec))
        stages["unlearn"] = sum((self._job(spec, self.trajectory(spec)) for spec in runs.unlearn.values()), Bill())
        stages["choose"] = Bill(jobs=len(runs.choices))
        stages["attack"] = Bill()
        for job in runs.attack_jobs():
            bill = Bill()
            for spec in job:
                checkpoints = self.checkpoints(spec)[1]
                bill += self.attack(spec, checkpoints)
                questions = self.looks(spec) * len(self.attacked(spec))
                self.eval_size += checkpoints * costs.eval_bytes(questions, spec.scores.probes)
            stages["attack"] += self._job(job[0], bill)
        stages |= {"tables": Bill(jobs=1), "figure": Bill(jobs=len(FIGURES)), "report": Bill(jobs=1)}
        return {name: bill for name, bill in stages.items() if bill.jobs}

    def _job(self, spec, bill: Bill) -> Bill:
        """Return the bill of one job, and remember its hours."""
        self.job_hours[spec.run_id] = bill.hours
        return Bill(jobs=1) + bill

    def point_choice(self) -> dict:
        """Compare attacks on the chosen points with attacks on every point of every trajectory, without original and
        control.
        """
        result = {name: Bill() for name in ("at_least", "at_most", "whole_grid")}
        for spec in self.runs.attacks.values():
            fixed = sum(target.kind != "unlearned" for target in spec.targets)
            for name, n in zip(result, self.checkpoints(spec), strict=True):
                result[name] += self.attack(spec, n - fixed)
        return {name: {"runs": b.runs, "flops": b.flops, "hours": b.hours} for name, b in result.items()}

    def disk(self) -> dict[str, float]:
        """Return the bytes of weights and evaluations on disk.

        A group is the trajectories of a method: it keeps the best point for each retain budget, and the one being
        written. A model of a local path is linked, not copied, and an external one is not counted.
        """
        imports = sum(
            costs.parameters(spec.model) * {"fp32": 4}.get(spec.model.dtype, 2)
            for spec in self.runs.imports.values()
            if not spec.model.path and not spec.external
        )
        sources = sum(
            costs.parameters(spec.model) * costs.BYTES[spec.training.precision]
            for spec in self.runs.sources.values()
            if not isinstance(spec, OriginalSpec)
        )
        groups = [self._group_bytes(spec) for spec in self.runs.choices.values()]
        _ = self.stages  # this adds up the evaluations and fills the phases
        state = max((memory.state_on_disk(p, self.launch) for p in self.phases.values()), default=0)
        fixed = imports + sources + self.eval_size + 2 * state
        return {
            "imports": imports, "sources": sources, "evals": self.eval_size, "groups": len(groups), "state": state,
            "largest_group": max(groups, default=0), "at_least": fixed + max(groups, default=0),
            "at_most": fixed + sum(groups),
        }  # fmt: skip

    def memory(self, phase: memory.Phase) -> dict:
        """Return what a phase holds on a device and in host memory, in bytes."""
        parts = memory.on_device(phase, self.launch)
        return {
            "stage": phase.stage, "optimizer": phase.settings.optimizer, "precision": phase.settings.precision,
            "gradient_release": phase.settings.gradient_release,
            "bytes": parts, "total": sum(parts.values()), "needed": memory.needed(parts),
            "host": memory.in_host(phase, self.launch), "state": memory.state_on_disk(phase, self.launch),
            "rows": self.launch.rows(phase.settings.batch_size), "longest": phase.longest,
        }  # fmt: skip

    def _group_bytes(self, spec: PointChoiceSpec) -> float:
        found = sum(map(self.points, spec.trajectories))
        return max(map(self._point_bytes, spec.trajectories)) * min(len(spec.retain_budgets) + 1, found)

    @staticmethod
    def _point_bytes(spec: UnlearnSpec) -> float:
        """Return the bytes of the weights of one point of a trajectory, or of its adapters."""
        model, settings = spec.source.model, spec.settings
        if lora := getattr(settings, "lora", None):
            part = plugins.methods()[spec.method].part(settings, model)
            return adapters(memory.shape_of(model), lora, part) * costs.BYTES["fp32"]
        return costs.parameters(model) * costs.BYTES[getattr(settings, "precision", "fp32")]

    def intervals(self, original: float, attacked: float) -> list[dict]:
        """Return the expected 95 % half-widths (`half_widths`) for each number of V questions, with one seed."""
        datasets: dict[tuple[int, float], list[str]] = {}
        for spec in self.runs.attacks.values():
            n, name, floor = sum(self.v_sizes(spec)[1]), spec.facts.dataset, self.sizes.of(spec.facts).texts.chance
            if not floor < original < 1:
                raise UserError(
                    f"--at: found {original} for the attacked original; expected below 1 and above {floor:.3g}, what "
                    f"drawing a choice scores on {name}"
                )
            if name not in datasets.setdefault((n, floor), []):
                datasets[n, floor].append(name)
        return [
            {"n": n, "datasets": names, "floor": floor, **half_widths(n, original, attacked, floor)}
            for (n, floor), names in sorted(datasets.items())
        ]


def make(
    study: Study,
    device: Device,
    mfu: float = MFU,
    at: tuple[float, float] = (0.8, 0.5),
    root=".",
    spread: Path | None = None,
    write_rate: float = saves.DISK,
) -> dict:
    """Return the whole plan as plain data, which `--json` prints.

    `at` holds the accuracies of the attacked original and of the attacked unlearned model, for the intervals; `spread`
    is the seeds.csv of an earlier study, for the interval over seeds. Raises UserError when accuracies or mfu are out
    of range, when the number of parameters is missing, and when data cannot be read.
    """
    original, attacked = at
    if not (FLOOR < original < 1 and 0 < attacked < 1):
        raise UserError(f"--at: found {original} {attacked}; expected accuracies, the first above {FLOOR}, below 1")
    plan = Plan(study, device, mfu, root, write_rate)
    total = sum(plan.stages.values(), Bill(jobs=1))
    n = costs.parameters(study.model)
    return {
        "study": study.study,
        "model": {"name": study.model.name, "parameters": n},
        "device": {
            **asdict(device),
            "bandwidth": None if math.isinf(device.bandwidth) else device.bandwidth,
            "mfu": mfu,
        },
        "stages": {name: asdict(bill) for name, bill in plan.stages.items()},
        "total": asdict(total),
        "schedule": None if study.gpus else cpu.schedule(plan),
        "fp32_scoring": plan.fp32_scoring,
        "point_choice": plan.point_choice(),
        "disk": plan.disk(),
        "writing": {
            "rate": write_rate,
            "minutes": study.checkpoint_minutes,
            "hours": total.write_hours,
            "point": max((plan._point_bytes(spec) for spec in plan.runs.unlearn.values()), default=0),
            "saves": {stage: asdict(one) | {"lost": one.lost} for stage, one in plan.saves.items()},
        },
        "launch": asdict(plan.launch),
        "memory": sorted(map(plan.memory, plan.phases.values()), key=lambda phase: -phase["needed"]),
        "fits": memory.fits(list(plan.phases.values()), plan.launch.micro_batch) if plan.phases else [],
        "fits_with_adapters": fits_with_adapters(list(plan.phases.values()), plan.launch.micro_batch),
        "shape": asdict(plan.shape),
        "intervals": {"original": original, "attacked": attacked, "too_wide": TOO_WIDE, "rows": plan.intervals(*at)},
        "seeds": over_seeds(study, spread),
        "lengths": {
            "typical": sorted(plan.sizes.typical),
            "texts": {t.group: costs.plain(t) for t in plan.runs.texts.values()},
        },
    }


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("study", nargs="?", default=DEFAULT_STUDY, help="study file (default: %(default)s)")
    parser.add_argument(
        "--gpu", help=f"{', '.join(DEVICES)}, cpu: this machine's (default: cpu for a study without GPUs, else h100)"
    )
    parser.add_argument("--mfu", type=float, help=f"share of the peak FLOP/s that is reached (default: {MFU})")
    parser.add_argument("--flops", type=float, metavar="RATE", help="FLOP/s really reached, in place of the table's")
    parser.add_argument(
        "--at", type=float, nargs=2, metavar=("ORIGINAL", "UNLEARNED"), default=(0.8, 0.5),
        help="accuracies after RTT that the intervals are for (default: .8 .5)",
    )  # fmt: skip
    parser.add_argument(
        "--spread", type=Path, metavar="SEEDS.csv",
        help="seeds.csv of an earlier study: how much seeds and repeats differ there (default: as in the demo's)",
    )  # fmt: skip
    parser.add_argument(
        "--disk", type=float, metavar="GB", help=f"GB per second that the disk writes (default: {saves.DISK / 1e9:g})"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the plan."""
    if args.flops is not None and args.mfu is not None:
        raise UserError("--flops and --mfu: give one; --flops is what is really reached")
    mfu = 1.0 if args.flops is not None else MFU if args.mfu is None else args.mfu
    study = load_study(args.study)
    name = args.gpu or ("h100" if study.gpus else "cpu")
    device = cpu.measured(study.threads) if name == "cpu" and args.flops is None else device_of(name, args.flops)
    plan = make(study, device, mfu, tuple(args.at), spread=args.spread, write_rate=saves.rate(args.disk))
    print(json.dumps(plan, indent=1, allow_nan=False) if args.json else plan_text.show(plan, args.study))
    return 0

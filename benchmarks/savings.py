"""What saves how much of the paper's study, by the plan: a row for each change. Nothing is trained.

    python benchmarks/savings.py                      # config/paper.yaml on an H100; seconds
    python benchmarks/savings.py STUDY --gpu a100-80gb

The first row trains with fp32 masters, the second with bf16_kahan and gradient release, from which each further row
starts. The first rows leave looks, splits and steps as they are; those that are not built count, in the plan's own
terms, what the code could leave out and does not; the last ones cut the study.
"""

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from rtt.planner import costs  # noqa: E402
from rtt.planner.gpus import device_of  # noqa: E402
from rtt.planner.plan import Bill, Plan  # noqa: E402
from rtt.study import plugins  # noqa: E402
from rtt.study.load import load_study  # noqa: E402
from rtt.study.schema import Study  # noqa: E402
from rtt.study.specs import TextsSpec  # noqa: E402

MASTERS = {"precision": "bf16_mixed", "gradient_release": False}
RELEASED = {"precision": "bf16_kahan", "gradient_release": True, "max_grad_norm": None}


def changed(study: Study, change) -> Study:
    """Return the study after `change` has edited its keys."""
    raw = study.model_dump(mode="json")
    change(raw)
    return Study.model_validate_json(json.dumps(raw))


def trained(keys: dict):
    """Return a change that trains every phase with these keys."""

    def change(raw: dict) -> None:
        for phase in (raw["pretraining"], raw["teaching"], *raw["methods"].values(), raw["attacks"].get("RTT")):
            if phase:
                phase |= keys

    return change


def setting(*path: str, value):
    """Return a change that sets the key at this path."""

    def change(raw: dict) -> None:
        for name in path[:-1]:
            raw = raw[name]
        raw[path[-1]] = value

    return change


def without_formats(raw: dict) -> None:
    """Leave out the variants whose names begin with `format`."""
    raw["variants"] = {name: keys for name, keys in raw["variants"].items() if not name.startswith("format")}


def both(*changes):
    """Return a change that makes several."""

    def change(raw: dict) -> None:
        for one in changes:
            one(raw)

    return change


def hours(plan: Plan) -> float:
    """Return the hours of a whole study."""
    return sum(plan.stages.values(), Bill()).hours


def unused_retain(plan: Plan) -> float:
    """Return the hours of the retain texts' products in trajectories whose retain coefficient is 0."""
    found = 0.0
    for spec in plan.runs.unlearn.values():
        if getattr(spec.settings, "retain_coefficient", None) != 0:
            continue
        source, method = spec.source, plugins.methods()[spec.method]
        retain = source.retain.learn
        if not isinstance(retain, TextsSpec):
            retain = plan.sizes.of(retain, source.retain.learn_splits)
        kept = costs.unlearning_tokens(spec, plan.sizes.of(source.facts), retain)[2]
        n, part = costs.parameters(source.model), method.part(spec.settings, source.model)
        frozen = 2 * n * part.copied * kept if "retain" in method.copy_reads else 0
        found += (part.flops(n, kept) + frozen) / (plan.device.bf16 * plan.mfu) / 3600
    return found


def t_outside_v(plan: Plan) -> float:
    """Return the hours in which attacks ask the questions of splits that never serve as V."""
    found = 0.0
    for job in plan.runs.attack_jobs():
        for spec in job:
            facts, v_sizes = plan.v_sizes(spec)
            scored = plan.attack(spec, plan.checkpoints(spec)[1]).score_hours
            found += scored * (1 - sum(v_sizes) / len(facts)) if spec.plugin.asks_t() else 0
    return found


def shared_stems(study: Study, device, root) -> float:
    """Return the hours of a study that reads each question once for its four rotations and its likelihood.

    A stem is the question without choices, as long as `likelihood` reads it.
    """
    scored = costs.Texts.scored

    def shared(self, probes) -> float:
        rotations = self.choices if "letter_permuted" in probes else "letter" in probes
        prompts = rotations + any(one.startswith("likelihood") for one in probes)
        return scored(self, probes) - (prompts - 1) * self.question if prompts > 1 else scored(self, probes)

    costs.Texts.scored = shared
    try:
        return hours(Plan(study, device, root=root))
    finally:
        costs.Texts.scored = scored


def rows(study: Study, device, root: str | Path = ".") -> list[tuple[str, float]]:
    """Return (what, hours) of each row."""

    def of(*changes) -> float:
        return hours(Plan(changed(study, both(*changes)), device, root=root))

    kahan = trained(RELEASED)
    start = changed(study, kahan)
    plan = Plan(start, device, root=root)
    base, fewer = hours(plan), setting("scores", "probes", value=["letter", "likelihood"])
    letter = setting("scores", "probes", value=["letter"])
    budget = setting("retain_budgets", value=[0.1])
    return [
        ("fp32 masters (`bf16_mixed`)", of(trained(MASTERS))),
        ("`bf16_kahan`, `gradient_release`", base),
        ("and `gradient_checkpointing`, for 80 GB", of(kahan, setting("gradient_checkpointing", value=True))),
        ("and probes `letter`, `likelihood`", of(kahan, fewer)),
        ("and the probe `letter` alone, as the authors", of(kahan, letter)),
        ("not built: each question read once for its rotations and its likelihood", shared_stems(start, device, root)),
        ("not built: T asked in the splits that serve as V alone", base - t_outside_v(plan)),
        ("not built: no retain text where its coefficient is 0", base - unused_retain(plan)),
        ("cut: the format variants", of(kahan, without_formats)),
        ("cut: all retain budgets but .1", of(kahan, budget)),
        ("cut: the format variants; probes `letter`, `likelihood`", of(kahan, without_formats, fewer)),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", nargs="?", default="config/paper.yaml", help="study file (default: %(default)s)")
    parser.add_argument("--gpu", default="h100", help="as of rtt plan (default: %(default)s)")
    args = parser.parse_args()
    found = rows(load_study(args.study), device_of(args.gpu))
    print(f"{args.study} on {args.gpu}, by the plan\n\n| what | hours | saves |\n|---|---|---|")
    for number, (what, value) in enumerate(found):
        before = found[0 if number < 2 else 1][1]
        print(f"| {what} | {value:.1f} | {before - value:.1f} |" if number else f"| {what} | {value:.1f} | |")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Older bundles: each step turns the files of one version into the next one's. Numbers are never touched.

Version 1: one trajectory per method, no variants. runs.json listed `evals` and `point_choices` at its top; a point choice was
named after its trajectory and gave the step of each budget alone.
"""

from pathlib import Path
from typing import Any

from rtt.bundle.layout import VERSION, check_name, strict_json
from rtt.errors import UserError
from rtt.files import write_json


def upgrade(results: Path, version: int) -> None:
    """Bring `results/<study>/` of an older version to VERSION. Raises UserError where it is not of that version."""
    for number in range(version, VERSION):
        try:
            STEPS[number](results)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            raise UserError(
                f"results/{results.name}: not a bundle of version {number}: {error!s:.160} is missing or garbled"
            ) from None


def version_of(plan: Any) -> int:
    """Return the version of a results folder by its runs.json; a bundle says its own."""
    return 1 if isinstance(plan, dict) and "variants" not in plan and "evals" in plan else VERSION


def _read(results: Path, name: str) -> Any:
    where = f"results/{results.name}/{name}"
    if not (results / name).is_file():
        raise UserError(f"{where}: the plan names this file, which is not in the bundle")
    return strict_json((results / name).read_bytes(), where)


def _variants_and_labels(results: Path) -> None:
    """Version 1 to 2: the plan has variants, point choices have labels and points of several trajectories."""
    plan = _read(results, "runs.json")
    for stem in plan["point_choices"]:
        name = check_name(f"{stem}.json", "runs.json: point choices")
        old, trajectory = _read(results, f"point_choices/{name}"), _read(results, f"evals/{name}")
        run, labels = trajectory["run_id"], trajectory["labels"]
        probe = old["probes"][0]  # retain accuracy was the first scoring's
        write_json(
            results / "point_choices" / name,
            {
                **old,
                "labels": {key: labels[key] for key in ("dataset", "arm", "model", "method", "seed")},
                "retain_before": {probe: old["retain_before"]},
                "points": [{**point, "run": run, "retain": {probe: point["retain"]}} for point in old["points"]],
                "selected": {
                    budget: None if step is None else {"run": run, "step": step}
                    for budget, step in old["selected"].items()
                },
            },
        )
    default = {"evals": plan.pop("evals"), "point_choices": plan.pop("point_choices"), "reported": "nested"}
    write_json(results / "runs.json", {**plan, "variants": {"default": default}})


STEPS = {1: _variants_and_labels}

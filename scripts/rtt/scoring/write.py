"""Write evaluation JSON: labels, looks and hashes of a scored model; the same scores give the same bytes."""

from collections.abc import Callable, Collection
from pathlib import Path

from rtt import distributed
from rtt.data.facts import Fact
from rtt.files import canonical_json, write_text
from rtt.ownership import still_ours
from rtt.scoring.correct import judged
from rtt.scoring.held_out import texts, total
from rtt.scoring.score import Scorer
from rtt.study.specs import AttackSpec, Source, Spec, Target, UnlearnSpec

SCHEMA_VERSION = 2


def source_labels(source: Source) -> dict:
    """Return the labels of an original model."""
    control_for = getattr(source, "control_for", [])
    labels = _labels(source, source.arm, source.facts.dataset, "control" if control_for else "original")
    return labels | {"control_for": control_for}


def unlearn_labels(spec: UnlearnSpec) -> dict:
    """Return the labels of a trajectory."""
    labels = _labels(spec.source, spec.source.arm, spec.source.facts.dataset, "unlearned", method=spec.method)
    return labels | {"unlearning_repeat": getattr(spec, "repeat", 0)}


def attack_labels(spec: AttackSpec, target: Target) -> dict:
    """Return the labels of one attacked checkpoint."""
    labels = _labels(spec.source, spec.arm, spec.facts.dataset, target.kind, target.method, target.retain_budget)
    labels |= {"attack": spec.attack, "control_for": spec.control_for, "seed": spec.seed}
    return labels | {"unlearning_repeat": getattr(target, "repeat", 0)}


def _labels(source, arm, dataset, target, method=None, retain_budget=None) -> dict:
    return {
        "dataset": dataset,
        "arm": arm,
        "model": source.model.name,
        "method": method,
        "seed": source.seed,
        "retain_budget": retain_budget,
        "target": target,
        "attack": None,
        "control_for": [],
        "unlearning_repeat": 0,
    }


def write_eval(
    path: str | Path,
    *,
    kind: str,
    run_id: str,
    labels: dict,
    spec: Spec,
    code: str,
    facts_sha256: str,
    model_sha256: str | None,
    looks: list[dict],
    status: str = "ok",
) -> None:
    """Write one evaluation JSON (docs/architecture.md), with the accuracies of each look among its metrics.

    Of several processes the first writes. Raises UserError where another job has taken over this run.
    """
    if not distributed.is_main():
        return
    still_ours()
    record = {
        "schema_version": SCHEMA_VERSION,
        "kind": kind,
        "run_id": run_id,
        "labels": labels,
        "spec": spec.canonical(),
        "hashes": {"spec": spec.hash, "code": code, "dataset": facts_sha256, "model": model_sha256},
        "metrics": {"accuracies": [_metrics(one) for one in looks]},
        "status": status,
        "looks": looks,
    }
    write_text(path, canonical_json(record) + "\n")


def _metrics(one: dict) -> dict:
    """Return a look without its questions, but with its accuracy by role and probe, and its held-out text."""
    found: dict[str, dict[str, float]] = {}
    for role in ("T", "V", "retain", "choice"):
        if asked := [question for question in one["questions"] if question["role"] == role]:
            found[role] = {probe: round(float(right.mean()), 6) for probe, right in judged(asked).items()}
    text = total(texts(one["questions"]))
    more = {"accuracy": found} | ({"text": text} if text else {})
    return {key: value for key, value in one.items() if key != "questions"} | more


def look(
    model,
    scorer: Scorer,
    role: Callable[[Fact], str],
    *,
    attack: str | None = None,
    setting: dict | None = None,
    v_split: str | None = None,
    repeat: int = 0,
    **more,
) -> dict:
    """Ask a model all questions; return one look.

    `role(fact)` is T, V, retain or choice; `more` may hold a point's `step`.
    """
    return {
        "attack": attack,
        "setting": setting or {},
        "v_split": v_split,
        "repeat": repeat,
        **more,
        "questions": scorer.questions(model, role),
    }


def forget_or_retain(retain: list[Fact], choice_splits: Collection[str] = ()) -> Callable[[Fact], str]:
    """Return a function that gives these facts the role retain, others of `choice_splits` choice, and the rest V."""
    ids = {fact.id for fact in retain}
    return lambda fact: "retain" if fact.id in ids else "choice" if fact.split in choice_splits else "V"

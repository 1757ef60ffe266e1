"""What a step leaves beside its weights: evaluation JSON, which is the same bytes every time, and a manifest, which is
not.
"""

from pathlib import Path

from rtt import distributed
from rtt.code_version import code_version
from rtt.data.facts import Fact
from rtt.files import canonical_json, write_text
from rtt.ownership import still_ours
from rtt.scoring.score import accuracy
from rtt.study.specs import AttackSpec, Source, Spec, Target, UnlearnSpec

SCHEMA_VERSION = 1


def source_labels(source: Source) -> dict:
    """Labels of an original model."""
    return _labels(source, source.arm, source.facts.dataset, "original")


def unlearn_labels(spec: UnlearnSpec) -> dict:
    """Labels of a trajectory."""
    return _labels(spec.source, spec.source.arm, spec.source.facts.dataset, "unlearned", method=spec.method)


def attack_labels(spec: AttackSpec, target: Target) -> dict:
    """Labels of one attacked checkpoint."""
    labels = _labels(spec.source, spec.arm, spec.facts.dataset, target.kind, target.method, target.retain_budget)
    return labels | {"control_for": spec.control_for, "seed": spec.seed}


def _labels(source, arm, dataset, target, method=None, retain_budget=None) -> dict:
    return {
        "dataset": dataset,
        "arm": arm,
        "model": source.model.name,
        "method": method,
        "seed": source.seed,
        "retain_budget": retain_budget,
        "target": target,
        "control_for": [],
    }


def write_eval(
    path: str | Path,
    *,
    kind: str,
    run_id: str,
    labels: dict,
    spec: Spec,
    step: str,
    facts_sha256: str,
    model_sha256: str | None,
    results: list[dict],
    status: str = "ok",
) -> None:
    """Write one evaluation JSON (docs/architecture.md). The metrics are accuracies per result, role and scoring."""
    if not distributed.is_main():
        return
    still_ours()
    metrics = [
        {
            **{key: result[key] for key in ("lr", "v_split", "epoch", "step")},
            "accuracy": {
                role: {
                    probe: round(value, 6)
                    for probe in questions[0]["scores"]
                    if (value := accuracy(questions, probe)) is not None
                }
                for role in ("T", "V", "retain")
                if (questions := [q for q in result["questions"] if q["role"] == role])
            },
        }
        for result in results
    ]
    record = {
        "schema_version": SCHEMA_VERSION,
        "kind": kind,
        "run_id": run_id,
        "labels": labels,
        "spec": spec.model_dump(mode="json"),
        "hashes": {"spec": spec.hash, "code": code_version(step), "dataset": facts_sha256, "model": model_sha256},
        "metrics": {"accuracies": metrics},
        "status": status,
        "results": results,
    }
    write_text(path, canonical_json(record) + "\n")


def result(model, scorer, role, *, lr=0.0, v_split=None, epoch=0, step=0) -> dict:
    """Score a model: one entry of `results`. `role(fact: Fact) -> "T" | "V" | "retain"`."""
    return {"lr": lr, "v_split": v_split, "epoch": epoch, "step": step, "questions": scorer.questions(model, role)}


def forget_or_retain(retain: list[Fact]):
    """Return a role function: retain facts have role retain, the others V."""
    ids = {fact.id for fact in retain}
    return lambda fact: "retain" if fact.id in ids else "V"

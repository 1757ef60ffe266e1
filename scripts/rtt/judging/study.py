"""Write a verdict's study file: what was asked for, as a study that Snakemake, a cluster or another person can run."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rtt.judging.models import Given
from rtt.judging.questions import Asked
from rtt.judging.settings import LARGE, PAPERS, SMALL

BUDGET = 1.0  # of retain accuracy: whatever the model has lost, it is attacked
INVENTED = {"generate": {"splits": 2, "facts_per_split": 32}}
HEAD = "# Written by `python -m rtt verdict`, which runs it and draws its page (docs/verdict.md).\n"
NO_RETAIN = (
    "# No --retain-data was given, and a study asks for facts that must stay. `invented` stands there: people whom no\n"
    "# model knows, so that their retain accuracy says nothing and the budget of 1.0 admits any loss. The perplexity\n"
    "# of their sentences still shows a model that no longer writes English.\n"
)
NO_CONTROL = "# No --control-data was given, so `control` is false: no answer can be that nothing was found.\n"


@dataclass(frozen=True)
class Parts:
    """What a verdict's study is made of; of datasets, the folders from which it reads them."""

    before: Given
    after: Given
    data: Asked
    data_folder: str
    control: Asked | None
    control_folder: str | None
    retain_folder: str | None
    probes: Sequence[str]
    headline: Sequence[str]
    cores: int


def name_of(out: Path) -> str:
    """Return the name of a verdict's study, which is that of its folder of results: its own folder's path, in words.

    `verdict/mine` is `verdict-mine`. Where a path has other signs or capitals, or is long, digits of its hash follow,
    so that no two verdicts share their results.
    """
    path = out.as_posix()
    words = re.sub(r"[^a-z0-9_]+", "-", path.lower()).strip("-_")
    name = words if words.startswith("verdict-") else f"verdict-{words}"
    if len(name) <= 100 and words == path.replace("/", "-") and "-" not in path:
        return name
    return f"{name[:92].rstrip('-_')}-{hashlib.sha256(path.encode()).hexdigest()[:6]}"


def study_of(name: str, parts: Parts, attacks: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the study as plain data."""
    before, n = parts.before, parts.before.parameters
    source = {"path": before.folder} if before.folder else {"hub": before.hub()}
    datasets: dict[str, Any] = {"facts": {"folder": parts.data_folder}}
    if parts.control_folder:
        datasets["never_seen"] = {"folder": parts.control_folder}
    retain = "kept" if parts.retain_folder else "invented"
    datasets[retain] = {"folder": parts.retain_folder} if parts.retain_folder else INVENTED
    policy = {} if "likelihood_fresh" in parts.probes else {"policy": {"few_answers": "keep"}}
    external = parts.after.folder or {"hub": parts.after.hub()}
    return {
        "study": name,
        "seeds": [0],
        "model": {
            "name": re.sub(r"[^a-z0-9_.-]", "-", before.name.lower())[:60], **source, "parameters": n,
            **({"dtype": "bf16"} if n >= LARGE else {}),
        },
        "data": {"datasets": datasets, **policy},
        "tasks": [
            {
                "dataset": "facts", "arm": "pretrained", "control": "never_seen" if parts.control_folder else False,
                "retain": {"dataset": retain}, "retain_eval": {"dataset": retain},
            }
        ],
        "external_models": {parts.after.name: external},
        "scores": {"probes": list(parts.probes), **({"precision": "bf16"} if n >= SMALL else {})},
        "criteria": {"headline": list(parts.headline)},
        "retain_budgets": [BUDGET],
        "attacks": attacks,
        **({"threads": parts.cores, "attack_jobs": "method"} if n >= SMALL else {}),
        **({"gradient_checkpointing": True} if n >= PAPERS else {}),  # 8 billion weights then fit in 80 GB
    }  # fmt: skip


def text_of(study: dict[str, Any], parts: Parts) -> str:
    """Return the study file."""
    notes = HEAD + (NO_RETAIN if parts.retain_folder is None else "") + (NO_CONTROL if parts.control is None else "")
    return notes + yaml.safe_dump(study, sort_keys=False, width=110)

"""A tiny finished study without weights, whose scores are planted by hand.

`PYTHONPATH=scripts python tests/helpers/bundle_study.py` packed it once as tests/data/bundle-v2.zip, the bundle that
must open from now on. Never write that file again: a changed program has to read what an older one wrote.

A pattern such as "1101 1010" says which of the eight forget questions are answered right, four of split_0 and four of
split_1; "1100" says so of the four retain questions. tests/bundle/test_version_2.py computes the tables by hand.
"""

import json
from pathlib import Path

import yaml
from rtt.study.expand import Runs
from rtt.study.load import to_yaml
from rtt.study.schema import Study

BUNDLE = Path(__file__).parents[1] / "data/bundle-v2.zip"
STUDY = """
study: tiny
seeds: [0]
data:
  generator: {splits: 2, facts_per_split: 4, retain_train: 4, retain_held_out: 4, first_names: 8, last_names: 8}
model: {hidden_size: 32, intermediate_size: 32, layers: 2, heads: 2}
pretraining: {steps: 12, batch_size: 8, mcqs_per_batch: 4, learning_rate: 2.0e-3}
arms: [pretrained]
methods:
  GD: {learning_rate: 1.0e-3, batch_size: 8, points: [2, 4]}
retain_budgets: [0.1, 1.0]
attacks:
  RTT: {learning_rates: [1.0e-3], epochs: 2, batch_size: 8}
  quantise: {bits: [8, 4], group_sizes: [null]}
scores: {probes: [letter, likelihood]}
oracle: false
repeats: {attack: 2}
"""
ANSWERS = [0, 0, 1, 2, 0, 1, 1, 3]  # in both splits the other split's commonest letter is right once in four
ORIGINAL = {"letter": "1111 1110", "likelihood": "1111 0110"}, {"letter": "1111", "likelihood": "1110"}
POINTS = {
    2: ({"letter": "1111 1101", "likelihood": "1110 0110"}, {"letter": "1110", "likelihood": "1110"}),
    4: ({"letter": "1000 0100", "likelihood": "1000 0000"}, {"letter": "1100", "likelihood": "1000"}),
}
SELECTED = {"0.1": None, "1.0": 4}  # step 2 loses a quarter of the retain questions, step 4 half of them
# RTT: by target and epoch, the V questions of each repeat.
RTT = {
    "original": {
        1: [{"letter": "1111 1110", "likelihood": "1111 1100"}] * 2,
        2: [
            {"letter": "1111 1111", "likelihood": "1111 1100"},
            {"letter": "1111 1110", "likelihood": "1111 1100"},
        ],
    },
    "unlearned": {
        1: [
            {"letter": "1101 1100", "likelihood": "1000 1000"},
            {"letter": "1101 1010", "likelihood": "1000 1000"},
        ],
        2: [
            {"letter": "0111 0111", "likelihood": "1000 1000"},
            {"letter": "0111 0011", "likelihood": "1000 1000"},
        ],
    },
    "control": {epoch: [{"letter": "1000 1000", "likelihood": "0000 1000"}] * 2 for epoch in (1, 2)},
}
# Quantisation, which uses no T: by target and bits, all questions.
QUANTISED = {
    "original": {
        8: {"letter": "1111 1110", "likelihood": "1111 0110"},
        4: {"letter": "1111 0110", "likelihood": "1111 0000"},
    },
    "unlearned": {
        8: {"letter": "1000 0100", "likelihood": "1000 0000"},
        4: {"letter": "1100 0110", "likelihood": "1000 0000"},
    },
    "control": {bits: {"letter": "1000 1000", "likelihood": "0000 1000"} for bits in (8, 4)},
}
HARDWARE = {"cpus": 2, "gpu": None, "machine": "x86_64", "system": "Linux"}
COMMIT = "60ebbb7ec2eecbb9b2b27ba6a87c3fe4a2fa0ccd"


def study_runs() -> Runs:
    """All runs of the study."""
    return Runs(Study.model_validate_json(json.dumps(yaml.safe_load(STUDY))))


def documents() -> dict[str, dict]:
    """Return every JSON document of the study's results folder by its name there."""
    runs = study_runs()
    found = {"runs.json": runs.plan() | {"note": "an optional key"}}
    # Of the specs, those that the report reads; the others would only make the bundle larger.
    found |= {f"specs/{run}.json": spec.model_dump(mode="json") for run, spec in runs.unlearn.items()}
    found |= {f"data/{name}/audit.json": audit(spec.dataset) for name, spec in runs.data.items()}
    plugins = {run: spec.method for run, spec in runs.unlearn.items()}
    plugins |= {run: spec.attack for run, spec in runs.attacks.items()}
    found |= {f"manifests/{run}.json": manifest(run, plugins.get(run)) for run in runs.plan()["manifests"]}
    for name, one in evaluations(runs).items():
        found[f"evals/{name}.json"] = one
    for run, spec in runs.choices.items():
        found[f"point_choices/{run}.json"] = point_choice(spec)
    return found


def evaluations(runs: Runs) -> dict[str, dict]:
    """Return the evaluations by their stems."""
    found = {}
    for run, spec in runs.sources.items():
        looks, label = [look(questions(spec.facts.dataset, *ORIGINAL))], labels(spec, "original")
        if spec.kind == "original":
            label |= {"target": "control", "arm": spec.arm, "control_for": spec.control_for}
        found[run] = evaluation("original", run, spec, label, looks)
    for run, spec in runs.unlearn.items():
        looks = [look(questions("birth_years_a", *planted), step=step) for step, planted in POINTS.items()]
        found[run] = evaluation("unlearned", run, spec, labels(spec.source, "unlearned", spec.method), looks)
    for spec in runs.attacks.values():
        for target, stem in zip(spec.targets, spec.eval_ids(), strict=True):
            chosen = target.kind != "unlearned" or SELECTED[str(target.retain_budget)]
            label = labels(spec.source, target.kind, target.method, target.retain_budget) | {"attack": spec.attack}
            if target.kind == "control":
                label |= {"arm": spec.arm, "dataset": spec.facts.dataset, "control_for": spec.control_for}
            make, planted = (retrained, RTT) if spec.attack == "RTT" else (quantised, QUANTISED)
            looks = make(spec.facts.dataset, planted[target.kind]) if chosen else []
            found[stem] = evaluation("attacked", stem.replace("/", "."), spec, label, looks)
    return found


def retrained(dataset: str, planted: dict) -> list[dict]:
    """Return RTT's looks, the gentlest setting first. T is right but for its first question in the second repeat of
    epoch 1.
    """
    found = []
    for epoch, repeats in planted.items():
        for v in range(2):
            for repeat, right in enumerate(repeats):
                t = "0111" if (epoch, repeat) == (1, 1) else "1111"
                right = {probe: " ".join(part if split == v else t for split, part in enumerate(pattern.split()))
                         for probe, pattern in right.items()}  # fmt: skip
                setting = {"epoch": epoch, "lr": 0.001}
                found.append(look(questions(dataset, right, v=v), attack="RTT", setting=setting, repeat=repeat, v=v))
    return found


def quantised(dataset: str, planted: dict) -> list[dict]:
    """Return quantisation's looks, the gentlest setting first. They count for all V splits."""
    settings = [{"bits": bits, "group_size": None} for bits in planted]
    return [look(questions(dataset, planted[one["bits"]]), attack="quantise", setting=one) for one in settings]


def look(asked: list[dict], attack=None, setting=None, repeat=0, v=None, step=None) -> dict:
    """Return one look."""
    found = {"attack": attack, "setting": setting or {}, "v_split": None if v is None else f"split_{v}"}
    return found | {"repeat": repeat, "questions": asked, "seconds": 1.5} | ({} if step is None else {"step": step})


def questions(dataset: str, right: dict, retain: dict | None = None, v: int | None = None) -> list[dict]:
    """Return the forget questions, the first two about one person, and the retain questions, if any."""
    found = []
    for i, answer in enumerate(ANSWERS):
        split, line = divmod(i, 4)
        name = f"{dataset}/split_{split}/{line + 1:03d}"
        one = {"id": name, "split": f"split_{split}", "group": f"{dataset}/Ada Byron" if i < 2 else name}
        role = "V" if v in (None, split) else "T"
        found.append(one | {"role": role, "answer": answer, "probes": probes(answer, i, right)})
    for i in range(4 if retain else 0):
        name = f"cities/held_out/{i + 1:03d}"
        one = {"id": name, "split": "held_out", "group": name, "answer": i, "role": "retain"}
        found.append(one | {"probes": probes(i, i, retain)})
    return found


def probes(answer: int, place: int, right: dict) -> dict:
    """Return one question's scores, the highest one at the answer where it is right; and a probe that nobody knows."""
    found = {}
    for probe, pattern in right.items():
        best = answer if pattern.replace(" ", "")[place] == "1" else (answer + 1) % 4
        found[probe] = {"scores": [-0.25 if choice == best else -2.0 - choice for choice in range(4)]}
    return found | {"few_shot": {"text": "B", "shots": 4}}


def labels(source, target: str, method: str | None = None, budget: float | None = None) -> dict:
    """Return an evaluation's labels."""
    shared = {"dataset": source.facts.dataset, "arm": source.arm, "model": source.model.name, "seed": source.seed}
    rest = {"method": method, "retain_budget": budget, "target": target, "control_for": [], "attack": None}
    return shared | rest


def evaluation(kind: str, run: str, spec, label: dict, looks: list[dict]) -> dict:
    """Return an evaluation of version 2."""
    hashes = {"spec": spec.hash, "code": "0123456789", "dataset": "0" * 64, "model": "1" * 64}
    return {
        "schema_version": 2, "kind": kind, "run_id": run, "labels": label, "spec": {"kind": spec.kind},
        "hashes": hashes, "metrics": {}, "status": "ok" if looks else "none_within_budget", "looks": looks,
        "note": "an optional key",
    }  # fmt: skip


def point_choice(spec) -> dict:
    """Return the choice of the points that are attacked."""
    [run] = [trajectory.run_id for trajectory in spec.trajectories]
    points = []
    for step, (forget, retain) in POINTS.items():
        share, kept = (pattern["letter"].count("1") / size for pattern, size in ((forget, 8), (retain, 4)))
        points.append({
            "run": run, "step": step, "forget": {"letter": share}, "floor": {"letter": 0.25},
            "distance": share - 0.25, "at_floor": step == 4, "retain": {"letter": kept},
        })  # fmt: skip
    selected = {budget: step and {"run": run, "step": step} for budget, step in SELECTED.items()}
    keys = ("dataset", "arm", "model", "method", "seed")
    label = labels(spec.source, "unlearned", spec.method)
    return {
        "run_id": spec.run_id, "code": "0123456789", "labels": {key: label[key] for key in keys},
        "rule": "nearest_floor", "probes": ["letter"], "retain_before": {"letter": 1.0}, "points": points,
        "selected": selected, "note": "an optional key",
    }  # fmt: skip


def audit(dataset: str) -> dict:
    """Return the audit of a dataset without defects."""
    return {
        "code": "0123456789", "dataset": dataset, "files": 2, "rows": 8, "questions": 8, "facts": 8, "defects": {},
        "dropped": {}, "majority_letter_accuracy": {"split_0": 0.25, "split_1": 0.25}, "details": [],
        "sha256": {"split_0.jsonl": "2" * 64}, "note": "an optional key",
    }  # fmt: skip


def manifest(run: str, plugin: str | None) -> dict:
    """Return what one training process used."""
    return {
        "run_id": run, "stage": run.split("-")[0], "plugin": plugin, "code": "0123456789", "seed": 0,
        "cpu_seconds": 2.5, "wall_seconds": 3.0, "ended": "2026-11-28T17:59:27+00:00", "tokens": 1000,
        "world_size": 1, "threads": 1, "peak_memory_mb": 500, "engine": "none", "precision": "float32",
        "attn_backend": "sdpa", "deterministic": True, "python": "3.11.7", "git_commit": COMMIT, "git_dirty": False,
        "packages": {"torch": "2.13.0+cpu"}, "hardware": HARDWARE, "note": "an optional key",
    }  # fmt: skip


def write(results: Path) -> Path:
    """Write the study's results folder, as its runs would have left it before the tables are made."""
    for name, document in documents().items():
        (results / name).parent.mkdir(parents=True, exist_ok=True)
        (results / name).write_text(json.dumps(document, sort_keys=True) + "\n")
    (results / "study.yaml").write_text(to_yaml(study_runs().study))
    return results


if __name__ == "__main__":
    import tempfile

    from bundle_builder import pack, sources

    with tempfile.TemporaryDirectory() as folder:
        pack(BUNDLE, sources(write(Path(folder) / "tiny")))
    print(f"{BUNDLE}: {BUNDLE.stat().st_size} bytes")

"""Valid evaluation and look choice JSON with planted accuracies, for the tests of whoever reads them.

`make_evals(folder, ...)` writes `folder/evals/*.json` and `folder/point_choices/*.json`. An accuracy is planted exactly:
`round(accuracy * size)` questions of each split are answered right, the same ones for a higher accuracy and some more.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
from rtt.__main__ import main
from rtt.files import write_json
from rtt.stats.tables import read_table

ARMS = ("pretrained", "taught", "taught_same_data")
METHODS = ("GD", "RMU", "RIA", "FIF")
PROBES = ("letter", "likelihood", "likelihood_fresh")
DATASETS = {"pretrained": "people_p", "taught": "people_f", "taught_same_data": "people_f"}
OTHER = {"people_p": "people_f", "people_f": "people_p"}
# Accuracy by stage; a key may also be (stage, arm), (stage, arm, method), (stage, arm, method, seed): longest wins.
ACCURACIES = {
    "before": 0.97,
    "unlearned": 0.28,
    "original_attacked": 0.96,
    "unlearned_attacked": 0.8,
    "control_attacked": 0.28,
    "t": 1.0,
    "retain_before": 0.95,
    "retain_unlearned": 0.9,
    ("unlearned_attacked", "pretrained", "GD"): 0.85,
    ("unlearned_attacked", "pretrained", "RMU"): 0.95,
    ("unlearned_attacked", "pretrained", "RIA"): 0.9,
    ("unlearned_attacked", "taught"): 0.6,
}


def make_evals(
    folder,
    arms=ARMS,
    methods=METHODS,
    seeds=(0,),
    budgets=(0.1,),
    splits=5,
    per_split=32,
    retain=32,
    lrs=(1e-3, 2e-3),
    epochs=3,
    steps=(10, 20, 30),
    accuracies=None,
    none=(),
    probes=PROBES,
    control=True,
    worse=0,
):
    """Write a study; return (evals folder, look choices folder).

    `accuracies` updates ACCURACIES. The last step is selected; the steps before lie between `before` and `unlearned`.
    An attack's accuracy grows with the epoch and reaches the planted one at the last epoch of the last learning rate.
    `none`: (arm, method, budget) without an admissible point. A control on one dataset serves the arms of the other.
    `worse`: 0 to 2 further trajectories per method, read before and after the selected one, which stay at `before`.
    """
    folder = Path(folder)
    planted = ACCURACIES | (accuracies or {})

    def accuracy(stage, *where):
        for length in range(len(where), 0, -1):
            if (stage, *where[:length]) in planted:
                return planted[(stage, *where[:length])]
        return planted[stage]

    def labels(arm, seed, target, method=None, budget=None, dataset=None, control_for=()):
        return {
            "dataset": dataset or DATASETS[arm],
            "arm": arm,
            "model": "miniature",
            "method": method,
            "seed": seed,
            "retain_budget": budget,
            "target": target,
            "control_for": list(control_for),
        }

    def attack(name, label, reached, start):
        results = []
        for lr_index, lr in enumerate(lrs):
            for epoch in range(1, epochs + 1):
                share = (lr_index * epochs + epoch) / (len(lrs) * epochs)
                v = start + (reached - start) * share
                for split in range(splits):
                    questions = _forget(
                        label["dataset"], label["seed"], splits, per_split, probes, v, accuracy("t"), split
                    )
                    results.append(
                        {
                            "lr": lr,
                            "v_split": f"split_{split}",
                            "epoch": epoch,
                            "step": 4 * epoch,
                            "questions": questions,
                        }
                    )
        write_eval(folder, name, "rtt", label, results)

    for seed in seeds:
        for arm in arms:
            before, start = accuracy("before", arm, None, seed), 0.25
            forget = _forget(DATASETS[arm], seed, splits, per_split, probes, before)
            held = _retain(retain, probes, accuracy("retain_before", arm, None, seed))
            result = {"lr": 0.0, "v_split": None, "epoch": 0, "step": 0, "questions": forget + held}
            write_eval(folder, f"model-{arm}-s{seed}", "original", labels(arm, seed, "original"), [result])
            run = f"attack-{arm}-s{seed}"
            reached = accuracy("original_attacked", arm, None, seed)
            attack(f"{run}.original", labels(arm, seed, "original"), reached, start)
            for method in methods:
                unlearned = accuracy("unlearned", arm, method, seed)
                left = accuracy("retain_unlearned", arm, method, seed)
                name = f"unlearn-{arm}-{method.lower()}-s{seed}"
                points = []
                for trajectory, goal in [(name, unlearned), *((f"{'az'[i % 2]}-{name}", before) for i in range(worse))]:
                    results = []
                    for index, step in enumerate(steps):
                        share = (index + 1) / len(steps)
                        v = before + (goal - before) * share
                        forget = _forget(DATASETS[arm], seed, splits, per_split, probes, v)
                        questions = forget + _retain(retain, probes, left)
                        results.append({"lr": 1e-3, "v_split": None, "epoch": 0, "step": step, "questions": questions})
                        kept = {"forget": dict.fromkeys(probes, v), "retain": dict.fromkeys(probes, left)}
                        points.append({"run": trajectory, "step": step, **kept})
                    write_eval(folder, trajectory, "unlearned", labels(arm, seed, "unlearned", method), results)
                best = {"run": name, "step": steps[-1]}
                look_choice = {
                    "run_id": f"choose-{arm}-{method.lower()}-s{seed}",
                    "labels": {"dataset": DATASETS[arm], "arm": arm, "model": "miniature", "method": method}
                    | {"seed": seed},
                    "points": points,
                    "selected": {str(b): None if (arm, method, b) in none else best for b in budgets},
                }
                write_json(folder / "point_choices" / f"{look_choice['run_id']}.json", look_choice)
                for budget in budgets:
                    label, name = labels(arm, seed, "unlearned", method, budget), f"{run}.{method.lower()}-{budget}"
                    if (arm, method, budget) in none:
                        write_eval(folder, name, "rtt", label, [], status="none_within_budget")
                    else:
                        attack(name, label, accuracy("unlearned_attacked", arm, method, seed), unlearned)
        served = {}
        for arm in arms if control else ():
            served.setdefault(OTHER[DATASETS[arm]], []).append(arm)
        for dataset, control_for in served.items():
            label = labels("base", seed, "control", dataset=dataset, control_for=control_for)
            attack(
                f"attack-control-{dataset}-s{seed}.control", label, accuracy("control_attacked", None, None, seed), 0.25
            )
    return folder / "evals", folder / "point_choices"


def write_eval(folder, name, kind, labels, results, status="ok"):
    """Write one evaluation JSON under `folder/evals`."""
    document = {
        "schema_version": 1,
        "kind": kind,
        "run_id": name,
        "labels": labels,
        "spec": {},
        "hashes": dict.fromkeys(("spec", "code", "dataset", "model"), "0" * 64),
        "metrics": {},
        "status": status,
        "results": results,
    }
    write_json(Path(folder) / "evals" / f"{name}.json", document, indent=None)


def questions(ids, splits, roles, answers, correct, seed=0):
    """Build a result's questions. `correct`: {scoring: (n,) bool}; a right answer has the highest score."""
    rng = np.random.default_rng(seed)
    scores = {}
    for probe, right in correct.items():
        values = rng.uniform(-4, -2, size=(len(ids), 4))
        shift = rng.integers(1, 4, size=len(ids))
        best = np.where(right, answers, (np.asarray(answers) + shift) % 4)
        values[np.arange(len(ids)), best] = rng.uniform(-1, -0.1, size=len(ids))
        scores[probe] = np.round(values, 6).tolist()
    return [
        {
            "id": ids[i],
            "split": splits[i],
            "role": roles[i],
            "answer": int(answers[i]),
            "scores": {probe: scores[probe][i] for probe in correct},
        }
        for i in range(len(ids))
    ]


def _seed(*parts):
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")


def _plant(rng_seed, size, accuracy):
    """(size,) bool with round(accuracy * size) true; a higher accuracy keeps the lower one's questions."""
    order = np.random.default_rng(rng_seed).permutation(size)
    return order < round(accuracy * size)


def _forget(dataset, seed, splits, per_split, probes, accuracy, t_accuracy=None, v_split=None):
    ids, names, roles, right = [], [], [], []
    for split in range(splits):
        is_v = v_split is None or split == v_split
        ids += [f"{dataset}/split_{split}/{line:03d}" for line in range(1, per_split + 1)]
        names += [f"split_{split}"] * per_split
        roles += ["V" if is_v else "T"] * per_split
        right.append(_plant(_seed(dataset, seed, split), per_split, accuracy if is_v else t_accuracy))
    answers = np.random.default_rng(_seed(dataset, "answers")).integers(0, 4, size=len(ids))
    return questions(ids, names, roles, answers, dict.fromkeys(probes, np.concatenate(right)), _seed(dataset, seed))


def _retain(size, probes, accuracy):
    ids = [f"people_r/split_0/{line:03d}" for line in range(1, size + 1)]
    answers = np.arange(size) % 4
    right = _plant(_seed("retain"), size, accuracy)
    return questions(ids, ["split_0"] * size, ["retain"] * size, answers, dict.fromkeys(probes, right), _seed("r"))


# --- tables of them

SMALL = dict(arms=("pretrained",), methods=("GD",), splits=2, per_split=8, retain=8, lrs=(1e-3,), epochs=2)


def tables(folder, *options):
    """Run the command; return its exit code."""
    where = ["--evals", folder / "evals", "--point-choices", folder / "point_choices", "--out", folder / "tables"]
    return main(["tables", *map(str, where), *options])


def planted(study, **keys):
    """Return the rows of recovery.csv that have these values; there are some."""
    table = read_table(study / "tables" / "recovery.csv")
    for name, value in keys.items():
        table = table[table[name] == value]
    assert len(table), keys
    return table


def write_plan(folder, variants, probes=("letter",)):
    """Write runs.json; return the option that names it."""
    plan = {"study": {"look_choice": {"probes": list(probes)}}, "variants": variants}
    (folder / "runs.json").write_text(json.dumps(plan))
    return "--plan", str(folder / "runs.json")


def edit(folder, name, change):
    """Change an evaluation; return its path."""
    path = folder / "evals" / f"{name}.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return path

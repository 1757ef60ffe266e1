"""Valid evaluation and point choice JSON with planted accuracies, for the tests of whoever reads them.

`make_evals(folder, ...)` writes `folder/evals/*.json` and `folder/point_choices/*.json`. An accuracy is planted
exactly: `round(accuracy * size)` questions of each split are answered right, the same ones for a higher accuracy and
some more.
"""

import hashlib
import itertools
import json
from pathlib import Path

import numpy as np
from rtt.__main__ import main
from rtt.files import write_json
from rtt.stats.tables import read_table

PROBES = ("letter", "likelihood", "likelihood_fresh")  # without tokens, so tables lack what is per token or byte
TABLED = ("letter", "letter_calibrated", "likelihood", "likelihood_fresh")  # what tables have of them
METHODS = ("GD", "RMU", "RIA", "FIF")
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
    arms=tuple(DATASETS),
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
    attacks=("RTT",),
    repeats=1,
    group_size=1,
):
    """Write a study; return (evals folder, point choices folder).

    `accuracies` updates ACCURACIES. The last step is chosen; the steps before lie between `before` and `unlearned`.
    `attacks`: RTT, whose settings are the learning rates and epochs, and `quantise`, which uses no T. An attack's
    accuracy grows with its settings and reaches the planted one at the last: RTT's at the last epoch of the last rate.
    `none`: (arm, method, budget) without an admissible point. A control on one dataset serves the arms of the other.
    `worse`: 0 to 2 further trajectories per method, read before and after the chosen one, which stay at `before`.
    `repeats`: copies of each look of an attack. `group_size`: so many neighbouring questions are about one person.
    """
    folder = Path(folder)
    planted = ACCURACIES | (accuracies or {})

    def accuracy(stage, *where):
        for length in range(len(where), 0, -1):
            if (stage, *where[:length]) in planted:
                return planted[(stage, *where[:length])]
        return planted[stage]

    def labels(arm, seed, target, method=None, budget=None, dataset=None, control_for=(), attack=None):
        return {
            "dataset": dataset or DATASETS[arm],
            "arm": arm,
            "model": "miniature",
            "method": method,
            "seed": seed,
            "retain_budget": budget,
            "target": target,
            "control_for": list(control_for),
            "attack": attack,
        }

    def attack(name, label, reached, start):
        looks = []
        for setting, share in _settings(label["attack"], lrs, epochs):
            v = start + (reached - start) * share
            for split in range(splits) if label["attack"] == "RTT" else [None]:
                found = _forget(label["dataset"], label["seed"], splits, per_split, probes, v, accuracy("t"), split)
                head = {"attack": label["attack"], "setting": setting, "questions": found}
                head["v_split"] = None if split is None else f"split_{split}"
                looks += [{**head, "repeat": repeat} for repeat in range(repeats)]
        write_eval(folder, name, "attacked", label, looks, group_size=group_size)

    for seed in seeds:
        for arm in arms:
            before, start = accuracy("before", arm, None, seed), 0.25
            forget = _forget(DATASETS[arm], seed, splits, per_split, probes, before)
            held = _retain(retain, probes, accuracy("retain_before", arm, None, seed))
            where = folder, f"model-{arm}-s{seed}", "original", labels(arm, seed, "original")
            write_eval(*where, [{**NOTHING, "questions": forget + held}], group_size=group_size)
            reached = accuracy("original_attacked", arm, None, seed)
            for name in attacks:
                run = f"{_stem(name)}-{arm}-s{seed}.original"
                attack(run, labels(arm, seed, "original", attack=name), reached, start)
            for method in methods:
                unlearned = accuracy("unlearned", arm, method, seed)
                left = accuracy("retain_unlearned", arm, method, seed)
                name = f"unlearn-{arm}-{method.lower()}-s{seed}"
                points = []
                for trajectory, goal in [(name, unlearned), *((f"{'az'[i % 2]}-{name}", before) for i in range(worse))]:
                    looks = []
                    for index, step in enumerate(steps):
                        share = (index + 1) / len(steps)
                        v = before + (goal - before) * share
                        forget = _forget(DATASETS[arm], seed, splits, per_split, probes, v)
                        asked = forget + _retain(retain, probes, left)
                        looks.append({**NOTHING, "step": step, "questions": asked})
                        kept = {"forget": dict.fromkeys(probes, v), "retain": dict.fromkeys(probes, left)}
                        points.append({"run": trajectory, "step": step, **kept})
                    where = folder, trajectory, "unlearned", labels(arm, seed, "unlearned", method)
                    write_eval(*where, looks, group_size=group_size)
                best = {"run": name, "step": steps[-1]}
                choice = {
                    "run_id": f"choose-{arm}-{method.lower()}-s{seed}",
                    "labels": {"dataset": DATASETS[arm], "arm": arm, "model": "miniature", "method": method}
                    | {"seed": seed},
                    "points": points,
                    "selected": {str(b): None if (arm, method, b) in none else best for b in budgets},
                }
                write_json(folder / "point_choices" / f"{choice['run_id']}.json", choice)
                for budget, attack_name in itertools.product(budgets, attacks):
                    label = labels(arm, seed, "unlearned", method, budget, attack=attack_name)
                    name = f"{_stem(attack_name)}-{arm}-s{seed}.{method.lower()}-{budget}"
                    if (arm, method, budget) in none:
                        write_eval(folder, name, "attacked", label, [], status="none_within_budget")
                    else:
                        attack(name, label, accuracy("unlearned_attacked", arm, method, seed), unlearned)
        served = {}
        for arm in arms if control else ():
            served.setdefault(OTHER[DATASETS[arm]], []).append(arm)
        for (dataset, control_for), name in itertools.product(served.items(), attacks):
            label = labels("base", seed, "control", dataset=dataset, control_for=control_for, attack=name)
            run = f"{_stem(name)}-control-{dataset}-s{seed}.control"
            attack(run, label, accuracy("control_attacked", None, None, seed), 0.25)
    return folder / "evals", folder / "point_choices"


NOTHING = {"attack": None, "setting": {}, "v_split": None, "repeat": 0}  # a look at a model that nobody attacked


def _stem(attack):
    return "attack" if attack == "RTT" else attack


def _settings(attack, lrs, epochs):
    """Return [(setting, share of the way to the planted accuracy)], gentlest first."""
    if attack == "quantise":
        return [({"bits": 8, "group_size": 32}, 0.5), ({"bits": 4, "group_size": 32}, 1.0)]
    return [
        ({"lr": lr, "epoch": epoch}, (index * epochs + epoch) / (len(lrs) * epochs))
        for epoch in range(1, epochs + 1)
        for index, lr in enumerate(lrs)
    ]


def write_eval(folder, name, kind, labels, looks, status="ok", group_size=1):
    """Write one evaluation JSON under `folder/evals`; neighbours form groups of `group_size` (None: their own)."""
    for look in looks if group_size else ():
        for question in look["questions"]:
            head, line = question["id"].rsplit("/", 1)
            number = int(line) - (int(line) - 1) % group_size
            question["group"] = f"{head}/{number:03d}"
    document = {
        "schema_version": 2,
        "kind": kind,
        "run_id": name,
        "labels": labels,
        "spec": {},
        "hashes": dict.fromkeys(("spec", "code", "dataset", "model"), "0" * 64),
        "metrics": {},
        "status": status,
        "looks": looks,
    }
    write_json(Path(folder) / "evals" / f"{name}.json", document, indent=None)


def questions(ids, splits, roles, answers, correct, seed=0):
    """Build a look's questions. `correct`: {probe: (n,) bool}; a right answer has the highest score."""
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
            "group": ids[i],
            "probes": {probe: {"scores": scores[probe][i]} for probe in correct},
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


def write_runs(folder, variants, probes=("letter",), attacks=("RTT",)):
    """Write runs.json; return the option that names it."""
    study = {"point_choice": {"probes": list(probes)}, "attacks": {name: {} for name in attacks}}
    (folder / "runs.json").write_text(json.dumps({"study": study, "variants": variants}))
    return "--runs", str(folder / "runs.json")


def edit(folder, name, change):
    """Change an evaluation; return its path."""
    path = folder / "evals" / f"{name}.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return path

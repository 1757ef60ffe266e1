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

ARMS = ("pretrained", "taught", "taught_same_data")
METHODS = ("GD", "RMU", "RIA", "FIF")
PROBES = ("letter", "likelihood", "likelihood_fresh")  # without tokens, so tables lack what is per token or byte
TABLED = ("letter", "letter_calibrated", "likelihood", "likelihood_fresh")  # what tables have of them
EVERY_PROBE = ("letter", "letter_permuted", "likelihood", "likelihood_fresh", "cloze")  # what a study asks by default
DATASETS = {"pretrained": "people_p", "taught": "people_f", "taught_same_data": "people_f"}
OTHER = {"people_p": "people_f", "people_f": "people_p"}
# Accuracy by stage; a key may also be a tuple that goes on with arm, method, seed, repeat of unlearning, repeat of the
# attack, as far as it is given: longest wins.
ACCURACIES = {
    "before": 0.97,
    "unlearned": 0.28,
    "original_attacked": 0.96,
    "unlearned_attacked": 0.8,
    "control_attacked": 0.28,
    "oracle_attacked": 0.28,
    "control_before": 0.25,
    "oracle_before": 0.25,
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
    unlearning_repeats=1,
    by_probe=None,
    oracle=False,
    choice=0,
):
    """Write a study; return (evals folder, point choices folder).

    `accuracies` updates ACCURACIES. The last step is chosen; the steps before lie between `before` and `unlearned`.
    `attacks`: RTT, whose settings are the learning rates and epochs, and `quantise`, which uses no T. An attack's
    accuracy grows with its settings and reaches the planted one at the last: RTT's at the last epoch of the last rate.
    `none`: (arm, method, budget) without an admissible point. A control on one dataset serves the arms of the other.
    `worse`: 0 to 2 further trajectories per method, read before and after the chosen one, which stay at `before`.
    `repeats`: of each look of an attack. `group_size`: so many neighbouring questions are about one person.
    `unlearning_repeats`: runs of each method, each with its point choice. `by_probe`: {(stage, probe): accuracy} in
    place of the stage's; T's stage is "t". `oracle`: also a model that never learned an arm's own facts; it and the
    control are then scored before the attack, too. `choice`: forget questions set apart for the point choice. Where
    `letter_permuted` is among the probes, likelihoods have their tokens and bytes.
    """
    folder = Path(folder)
    planted = ACCURACIES | (accuracies or {})

    def accuracy(stage, *where):
        for length in range(len(where), 0, -1):
            if (stage, *where[:length]) in planted:
                return planted[(stage, *where[:length])]
        return planted[stage]

    def each(stage, value):
        return {probe: (by_probe or {}).get((stage, probe), value) for probe in probes}

    def labels(arm, seed, target, method=None, budget=None, dataset=None, control_for=(), attack=None, repeat=0):
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
            "unlearning_repeat": repeat,
        }

    def attack(name, label, stage, where, start):
        looks, t = [], each("t", accuracy("t"))
        for setting, share in _settings(label["attack"], lrs, epochs):
            for split in range(splits) if label["attack"] == "RTT" else [None]:
                for repeat in range(repeats):
                    goal = each(stage, accuracy(stage, *where, repeat))
                    v = {probe: start + (reached - start) * share for probe, reached in goal.items()}
                    found = _forget(label["dataset"], label["seed"], splits, per_split, v, t, split)
                    head = {"attack": label["attack"], "setting": setting, "questions": found, "repeat": repeat}
                    looks.append({**head, "v_split": None if split is None else f"split_{split}"})
        write_eval(folder, name, "attacked", label, looks, group_size=group_size)

    def asked(label, forget, kept):
        apart = _apart(label["dataset"], label["seed"], choice, forget)
        return _forget(label["dataset"], label["seed"], splits, per_split, forget) + apart + _retain(retain, kept)

    for seed in seeds:
        for arm in arms:
            before, start = each("before", accuracy("before", arm, None, seed)), 0.25
            held = each("retain_before", accuracy("retain_before", arm, None, seed))
            label = labels(arm, seed, "original")
            look = {**NOTHING, "questions": asked(label, before, held)}
            write_eval(folder, f"model-{arm}-s{seed}", "original", label, [look], group_size=group_size)
            for name in attacks:
                run = f"{_stem(name)}-{arm}-s{seed}.original"
                where = arm, None, seed, None
                attack(run, labels(arm, seed, "original", attack=name), "original_attacked", where, start)
            for method, again in itertools.product(methods, range(unlearning_repeats)):
                where, end = (arm, method, seed, again), f"-r{again}" if again else ""
                unlearned = each("unlearned", accuracy("unlearned", *where))
                left = each("retain_unlearned", accuracy("retain_unlearned", *where))
                name = f"unlearn-{arm}-{method.lower()}{end}-s{seed}"
                points = []
                for trajectory, goal in [(name, unlearned), *((f"{'az'[i % 2]}-{name}", before) for i in range(worse))]:
                    label, looks = labels(arm, seed, "unlearned", method, repeat=again), []
                    for index, step in enumerate(steps):
                        share = (index + 1) / len(steps)
                        v = {probe: before[probe] + (goal[probe] - before[probe]) * share for probe in probes}
                        looks.append({**NOTHING, "step": step, "questions": asked(label, v, left)})
                        points.append({"run": trajectory, "step": step, "forget": v, "retain": left})
                    write_eval(folder, trajectory, "unlearned", label, looks, group_size=group_size)
                best = {"run": name, "step": steps[-1]}
                choice_labels = {"dataset": DATASETS[arm], "arm": arm, "model": "miniature", "method": method}
                found = {
                    "run_id": f"choose-{arm}-{method.lower()}{end}-s{seed}",
                    "labels": choice_labels | {"seed": seed, "unlearning_repeat": again},
                    "points": points,
                    "selected": {str(b): None if (arm, method, b) in none else best for b in budgets},
                }
                write_json(folder / "point_choices" / f"{found['run_id']}.json", found)
                for budget, attack_name in itertools.product(budgets, attacks):
                    label = labels(arm, seed, "unlearned", method, budget, attack=attack_name, repeat=again)
                    name = f"{_stem(attack_name)}-{arm}-s{seed}.{method.lower()}-{budget}{end}"
                    if (arm, method, budget) in none:
                        write_eval(folder, name, "attacked", label, [], status="none_within_budget")
                    else:
                        attack(name, label, "unlearned_attacked", where, accuracy("unlearned", *where))
        served = {}
        for arm in arms if control else ():
            served.setdefault(("control", OTHER[DATASETS[arm]]), []).append(arm)
        for arm in arms if oracle else ():
            served.setdefault(("oracle", DATASETS[arm]), []).append(arm)
        for (kind, dataset), control_for in served.items():
            label = labels("base", seed, "control", dataset=dataset, control_for=control_for)
            if oracle:
                before = each(f"{kind}_before", accuracy(f"{kind}_before", None, None, seed))
                look = {**NOTHING, "questions": asked(label, before, each("retain_before", accuracy("retain_before")))}
                write_eval(folder, f"{kind}-{dataset}-s{seed}", "original", label, [look], group_size=group_size)
            for name in attacks:
                run, where = f"{_stem(name)}-{kind}-{dataset}-s{seed}.control", (None, None, seed, None)
                attack(run, label | {"attack": name}, f"{kind}_attacked", where, 0.25)
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
    beside = {probe: {} for probe in correct}
    if "letter_permuted" in correct:
        beside |= {"likelihood": {"tokens": [2] * 4, "bytes": [6] * 4}, "likelihood_fresh": {"tokens": [2] * 4}}
    found = []
    for i in range(len(ids)):
        probes = {probe: {"scores": scores[probe][i], **beside[probe]} for probe in correct}
        if "letter_permuted" in correct:
            probes["letter_permuted"]["right"] = 4 * int(correct["letter_permuted"][i])
        head = {"id": ids[i], "split": splits[i], "role": roles[i], "answer": int(answers[i]), "group": ids[i]}
        found.append({**head, "probes": probes})
    return found


def _seed(*parts):
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")


def _plant(rng_seed, size, accuracy):
    """(size,) bool with round(accuracy * size) true; a higher accuracy keeps the lower one's questions."""
    order = np.random.default_rng(rng_seed).permutation(size)
    return order < round(accuracy * size)


def _forget(dataset, seed, splits, per_split, accuracy, t_accuracy=None, v_split=None):
    """Questions of all splits. `accuracy` and `t_accuracy`: {probe: on V, on T}."""
    ids, names, roles, right = [], [], [], {probe: [] for probe in accuracy}
    for split in range(splits):
        is_v = v_split is None or split == v_split
        ids += [f"{dataset}/split_{split}/{line:03d}" for line in range(1, per_split + 1)]
        names += [f"split_{split}"] * per_split
        roles += ["V" if is_v else "T"] * per_split
        for probe, found in right.items():
            reached = (accuracy if is_v else t_accuracy)[probe]
            found += _plant(_seed(dataset, seed, split), per_split, reached).tolist()
    answers = np.random.default_rng(_seed(dataset, "answers")).integers(0, 4, size=len(ids))
    return questions(ids, names, roles, answers, _arrays(right), _seed(dataset, seed))


def _apart(dataset, seed, size, accuracy):
    """Forget questions of the split that is set apart for the point choice."""
    if not size:
        return []
    ids = [f"{dataset}/apart/{line:03d}" for line in range(1, size + 1)]
    right = {probe: _plant(_seed(dataset, seed, "apart"), size, reached) for probe, reached in accuracy.items()}
    return questions(ids, ["apart"] * size, ["choice"] * size, np.arange(size) % 4, right, _seed(dataset, "a"))


def _retain(size, accuracy):
    ids = [f"people_r/split_0/{line:03d}" for line in range(1, size + 1)]
    answers = np.arange(size) % 4
    right = {probe: _plant(_seed("retain"), size, reached) for probe, reached in accuracy.items()}
    return questions(ids, ["split_0"] * size, ["retain"] * size, answers, right, _seed("r"))


def _arrays(right):
    return {probe: np.array(found, bool) for probe, found in right.items()}


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


def write_runs(folder, variants, probes=("letter",), attacks=("RTT",), **study):
    """Write runs.json, with further keys of the study; return the option that names it."""
    study |= {"point_choice": {"probes": list(probes)}, "attacks": {name: {} for name in attacks}}
    (folder / "runs.json").write_text(json.dumps({"study": study, "variants": variants}))
    return "--runs", str(folder / "runs.json")


def edit(folder, name, change):
    """Change an evaluation; return its path."""
    path = folder / "evals" / f"{name}.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return path

"""Small tables written by hand, for the tests of figures, report and summary."""

import json
import math
from pathlib import Path

import pandas as pd
from rtt.data.facts import Fact
from rtt.figures.view import make_view
from rtt.report.rows import results
from rtt.stats.intervals import t_interval
from rtt.stats.tables import (
    ACCURACY_COLUMNS,
    COST_COLUMNS,
    PROBES_COLUMNS,
    RECOVERY_COLUMNS,
    STRONGEST_COLUMNS,
    write_table,
)
from rtt.study.names import BY_DEFAULT, probes_of

ACCURACY = {"acc_unlearned": 0.28, "acc_attacked": 0.85, "acc_original_attacked": 0.95, "acc_control_attacked": 0.3}
ACCURACY |= {"acc_oracle_attacked": float("nan")}
ENDS = ("", "_low", "_high")
RATES = {"recovery": 0.89, "recovery_corrected": 0.86, "recovery_difference": 0.57}


# Statuses of cells that do not count; `undefined` and `original_not_learned` say something else.
NEVER = ("none_within_budget", "not_known")
NOT_COUNTED = ("none_within_budget", "not_known", "below_floor", "not_unlearned")


def recovery_row(method="GD", arm="pretrained", seed=0, **changes):
    """One row of recovery.csv: every interval is the value plus and minus .05, unless given."""
    row = {
        "dataset": {"pretrained": "people_p"}.get(arm, "people_f"),
        "arm": arm,
        "model": "miniature",
        "method": method,
        "attack": "RTT",
        "variant": "default",
        "seed": seed,
        "retain_budget": 0.1,
        "look_choice": "nested",
        "probe": "letter_permuted",
        "n_questions": 160,
        "n_groups": 160,
        "n_runs": 1,
        "acc_before": 0.97,
        "t_acc_attacked": 1.0,
        "t_acc_original_attacked": 1.0,
        "t_acc_control_attacked": 1.0,
        "t_acc_oracle_attacked": 1.0,
        "control_learned": True,
        "retain_before": 0.9,
        "retain_unlearned": 0.85,
        "perplexity_before": 3.14,
        "perplexity_unlearned": 3.42,
        "floor": 0.27,
        "status": "ok",
        "cannot_tell": "",
    }
    row["attack_learned"] = changes.get("status") != "attack_failed"
    row["counts"] = changes.get("status", "ok") not in NOT_COUNTED
    unknown = [name for name in changes if name not in RECOVERY_COLUMNS]
    assert not unknown, unknown
    for name, value in (ACCURACY | RATES).items():
        value = changes.get(name, value)
        row |= {name: value, f"{name}_low": value - 0.05, f"{name}_high": value + 0.05}
    row |= changes
    if row["status"] == "original_not_learned":
        row |= {f"{name}{end}": float("nan") for name in RATES if name != "recovery_difference" for end in ENDS}
    if row["status"] == "none_within_budget":
        empty = ["acc_unlearned", "acc_attacked", *RATES]
        row |= dict.fromkeys([f"{n}{end}" for n in empty for end in ENDS], float("nan"))
        row |= dict.fromkeys(
            ["t_acc_attacked", "attack_learned", "retain_unlearned", "perplexity_unlearned"], float("nan")
        )
    return row


def recovery(*rows):
    """A recovery table of such rows."""
    return pd.DataFrame(rows, columns=RECOVERY_COLUMNS)


def view_of(*rows, **options):
    """The view of such rows."""
    table = recovery(*rows)
    return make_view(table, accuracy(table), **options)


def results_of(*rows):
    """Return such rows as the report's results."""
    return results(view_of(*rows))


# Each attack's settings, gentlest first, with the share of the reported accuracy that a look at them reaches.
LOOKS = {
    "RTT": {"epoch=1 lr=0.001": 0.25, "epoch=1 lr=0.002": 0.75, "epoch=2 lr=0.001": 0.5, "epoch=2 lr=0.002": 1.0},
    "quantise": {"bits=8 group_size=channel": 0.5, "bits=4 group_size=channel": 1.0},
}
LOOKS["RTT_permuted"] = LOOKS["RTT"]
USES_T = ("RTT", "RTT_permuted")


def accuracy(table, looks=LOOKS, steps=(10, 20)):
    """Return an accuracy table that fits: trajectories end at the chosen point, looks at the reported accuracy."""
    rows = []

    def add(row, stage, method, set_name, value, **more):
        own = {name: row[name] for name in ("dataset", "arm", "model", "variant", "seed", "probe")}
        own |= {"stage": stage, "method": method, "v_split": "all", "set": set_name, "look_choice": "none", "run": ""}
        own |= {"attack": row["attack"] if stage.endswith("attacked") else "none", "setting": ""}
        counts = {"n_questions": 160, "n_correct": round(160 * value), "accuracy": value, "low": value, "high": value}
        rows.append({**dict.fromkeys(ACCURACY_COLUMNS), **own, **counts, **more})

    def add_looks(row, stage, method, reached, **more):
        for setting, share in looks[row["attack"]].items() if not pd.isna(reached) else ():
            add(row, stage, method, "V", reached * share, setting=setting, **more)
            if row["attack"] in USES_T:
                add(row, stage, method, "T", 1.0, setting=setting, **more)

    nested = table[table["look_choice"] == "nested"]
    models = ["dataset", "arm", "model", "variant", "seed", "probe"]
    for _, row in nested.drop_duplicates(models).iterrows():
        add(row, "original", "none", "V", row["acc_before"])
        add(row, "original", "none", "retain", row["retain_before"])
    for _, row in nested.drop_duplicates([*models, "attack"]).iterrows():
        other = {"people_p": "people_f", "people_f": "people_p"}.get(row["dataset"], row["dataset"])
        add_looks(row, "original_attacked", "none", row["acc_original_attacked"])
        add_looks(row, "oracle_attacked", "none", row["acc_oracle_attacked"])
        add_looks(row, "control_attacked", "none", row["acc_control_attacked"], dataset=other)
    for _, row in nested.drop_duplicates([*models, "method", "retain_budget"]).iterrows():
        end = row["acc_unlearned"] if row["status"] != "none_within_budget" else 0.6
        kept = row["retain_unlearned"] if row["status"] != "none_within_budget" else 0.4
        for index, step in enumerate(steps):
            share = (index + 1) / len(steps)
            for name, before, after in (("V", row["acc_before"], end), ("retain", row["retain_before"], kept)):
                value = before + share * (after - before)
                add(row, "unlearned", row["method"], name, value, step=step, run=f"unlearn-{row['method']}")
    for _, row in nested.iterrows():
        if row["status"] != "none_within_budget":
            extra = {"retain_budget": row["retain_budget"], "step": steps[-1]}
            add_looks(row, "unlearned_attacked", row["method"], row["acc_attacked"], **extra)
    return pd.DataFrame(rows, columns=ACCURACY_COLUMNS)


# What each probe answers: of an original, of a model that was unlearned, and of one that says C.
KNOWS = dict.fromkeys(probes_of(BY_DEFAULT), 0.96)
UNLEARNED = dict.fromkeys(probes_of(BY_DEFAULT), 0.27)
SAYS_C = UNLEARNED | {"letter_calibrated": 0.5, "likelihood_token": 0.42, "likelihood_fresh": 0.8}
MIXED, ALL_C = "A:38;B:42;C:40;D:40", "A:1;C:158;D:1"


def probe_rows(arm="pretrained", stage="original", method="none", values=KNOWS, said=MIXED, seed=0, **changes):
    """Return the rows of probes.csv of one model: intervals of .07 to both sides, margin .15."""
    rows = []
    for probe, value in values.items():
        floor = 0.27 if probe == "letter" else 0.31 if probe == "likelihood" else 0.25
        row = dict.fromkeys(PROBES_COLUMNS)
        row |= {"dataset": {"pretrained": "people_p"}.get(arm, "people_f"), "arm": arm, "model": "miniature"}
        row |= {"variant": "default", "seed": seed, "stage": stage, "method": method, "probe": probe}
        row |= {"retain_budget": 0.1 if stage == "unlearned" else None, "unlearning_repeat": 0}
        row |= {
            "n_questions": 160,
            "n_groups": 160,
            "accuracy": value,
            "low": value - 0.07,
            "high": min(value + 0.07, 1),
        }
        row |= {"floor": floor, "margin": 0.15, "upper_95": value + 0.06, "upper_99": value + 0.08}
        row |= changes
        row |= {"at_floor": row["upper_95"] <= floor + 0.15, "below_floor": row["upper_99"] < floor}
        if probe == "letter":
            counts = [int(part.split(":")[1]) / 160 for part in said.split(";")]
            entropy = -sum(share * math.log2(share) for share in counts)
            row |= {"said": said, "entropy": entropy, "mass": 0.98}
        if probe == "letter_permuted":
            row |= {"rotations": value, "all_rotations": max(value - 0.1, 0)}
        rows.append(row)
    return rows


def probes(table, collapsed=("RMU",), oracle=True):
    """Return a probes table that fits a recovery table: methods that do not count by `collapsed` say one letter."""
    rows = []
    for (arm, seed), cell in table[table["look_choice"] == "nested"].groupby(["arm", "seed"], sort=False):
        taught = arm == "taught"
        knows = KNOWS | {"letter_permuted": 0.58, "letter_calibrated": 0.6, "likelihood": 0.28} if taught else KNOWS
        rows += probe_rows(arm, values=knows, seed=seed)
        for method, own in cell.groupby("method", sort=False):
            if own["status"].iloc[0] == "none_within_budget":
                continue
            odd = method in collapsed and not own["counts"].iloc[0]
            above = UNLEARNED if own["counts"].iloc[0] else UNLEARNED | {"likelihood_token": 0.45}
            values = SAYS_C if odd else above
            rows += probe_rows(arm, "unlearned", method, values, ALL_C if odd else MIXED, seed)
        rows += probe_rows(arm, "oracle", values=UNLEARNED, seed=seed) if oracle else []
        other = {"pretrained": "people_f"}.get(arm, "people_p")
        rows += probe_rows(arm, "control", values=UNLEARNED, seed=seed, dataset=other)
    return pd.DataFrame(rows, columns=PROBES_COLUMNS)


def over_seeds(table):
    """Return a table over seeds that fits a recovery table, in the columns of seeds.csv that are read."""
    keys = ["dataset", "arm", "model", "method", "attack", "variant", "retain_budget", "look_choice", "probe"]
    rows = []
    for key, cell in table.groupby(keys, sort=False):
        sets = {"counting": cell[cell["counts"]], "known": cell[~cell["status"].isin(NEVER)]}
        for name, own in sets.items():
            values = own["recovery_corrected"].dropna().tolist()
            mean, low, high = t_interval(values)
            n = int(cell["counts"].sum())
            claim = "yes" if n >= 0.8 * len(cell) and len(values) > 2 else "no" if len(cell) > 1 else "these weights"
            row = dict(zip(keys, key, strict=True)) | {"set": name, "quantity": "recovery_corrected"}
            row |= {"n_cells": len(cell), "n_counting": n, "n_seeds": len(values), "claim": claim}
            row |= {"seeds": ";".join(map(str, own["seed"])), "per_seed": ";".join(f"{x:.6f}" for x in values)}
            row |= {"mean": mean, "low": low, "high": high, "df": len(values) - 1, "sd_seed": 0.1}
            row |= {"var_base": 0.01, "var_unlearning": 0.0025, "var_rtt": 0.0, "var_v_split": 0.0004}
            rows.append(row | {"var_person": float("nan")})
    return pd.DataFrame(rows)


def with_attacks(table, *names):
    """Add attacks that bring back half of what RTT does above the floor, and the strongest, which is RTT."""
    rate = "recovery_corrected"
    halves = {f"{rate}{end}": table[f"{rate}{end}"] / 2 for end in ENDS}
    halves["acc_attacked"] = table["floor"] + (table["acc_attacked"] - table["floor"]) / 2
    some = [table, *(table.assign(attack=name, **halves) for name in names)]
    nested = table[(table["look_choice"] == "nested") & (table["attack"] == "RTT")]
    return pd.concat([*some, nested.assign(attack="strongest")], ignore_index=True)


def strongest(table, attack="RTT", setting="epoch=2 lr=0.002"):
    """Return the rows of strongest.csv of a recovery table's unlearned models, of the same choice on both halves."""
    rows = []
    keys = ["dataset", "arm", "model", "method", "variant", "seed", "retain_budget", "probe"]
    for row in table[table["attack"] == "strongest"].dropna(subset=["acc_attacked"]).to_dict("records"):
        own = {key: row[key] for key in keys} | {"unlearning_repeat": 0, "attack_repeat": 0, "own_repeat": 0}
        own |= {"stage": "unlearned", "attack": attack, "setting": setting, "chosen_probe": row["probe"]}
        own |= {"n_questions": 80, "deciding": 0.8, "reporting": 0.7}
        rows += [own | {"half": half} for half in ("first", "second")]
    return pd.DataFrame(rows, columns=STRONGEST_COLUMNS)


def cost(table, looks=LOOKS):
    """Return a cost table that fits: 10 steps of 100 tokens an epoch, and T learned at once."""
    rows = []
    keys = ["dataset", "arm", "model", "attack", "variant", "seed", "probe"]
    models = {"original": ("acc_before", "acc_original_attacked"), "unlearned": ("acc_unlearned", "acc_attacked")}
    models |= {name: ("floor", f"acc_{name}_attacked") for name in ("oracle", "control")}
    nested = table[(table["look_choice"] == "nested") & (table["attack"] == "RTT")]
    for stage, (start, end) in models.items():
        one = [*keys, *(["method", "retain_budget"] if stage == "unlearned" else [])]
        for row in nested.drop_duplicates(one).dropna(subset=[end]).to_dict("records"):
            own = dict.fromkeys(COST_COLUMNS) | {key: row[key] for key in one} | {"stage": stage}
            own["method"] = row["method"] if stage == "unlearned" else "none"
            shares = {"": (0, 0.0), **{text: (int(text[6]), share) for text, share in looks["RTT"].items()}}
            for text, (epoch, share) in shares.items():
                value = row[end] * share if text else row[start]
                more = {"setting": text, "epoch": epoch, "step": 10.0 * epoch, "tokens": 1000.0 * epoch}
                more |= {"flops": 6e9 * epoch, "n_questions": 160, "n_t": 320, "accuracy": value}
                more |= {"low": value - 0.05, "high": value + 0.05, "accuracy_t": 1.0 if epoch else value}
                rows.append(own | more)
    return pd.DataFrame(rows, columns=COST_COLUMNS).astype({"retain_budget": float})


def full_view(seeds=(0,), attacks=(), **options):
    """The view of a full study with an oracle and all tables; `attacks`: further ones, with the strongest."""
    table = full_study(seeds).assign(acc_oracle_attacked=0.31, acc_oracle_attacked_low=0.26)
    table["acc_oracle_attacked_high"] = 0.36
    table = with_attacks(table, *attacks) if attacks else table
    looks = LOOKS | dict.fromkeys((*attacks, "strongest"), LOOKS["quantise"])
    return make_view(
        table, accuracy(table, looks), probes(table), over_seeds(table), strongest(table), cost(table), **options
    )


def write_study(
    folder, table, contrasts=None, audits=(), manifests=(), study=None, looks=LOOKS, probes=None, seeds=None
):
    """Write a results folder with a recovery table and what belongs to it; return the folder.

    `study`: keys of the study in a runs.json that names all of it; without it there is no runs.json.
    """
    folder = Path(folder)
    write_table(folder / "tables" / "recovery.csv", table)
    write_table(folder / "tables" / "accuracy.csv", accuracy(table, looks))
    for name, more in (("probes", probes), ("seeds", seeds)):
        if more is not None:
            write_table(folder / "tables" / f"{name}.csv", more)
    if contrasts is not None:
        write_table(folder / "tables" / "contrasts.csv", contrasts)
    for audit in audits:
        path = folder / "data" / audit["dataset"].replace("/", "_") / "audit.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(audit))
    for index, manifest in enumerate(manifests):
        path = folder / "manifests" / f"run-{index}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(manifest))
    if study is not None:
        names = {kind: [path.stem for path in (folder / kind).glob("*")] for kind in ("data", "manifests")}
        (folder / "runs.json").write_text(json.dumps({"study": study, "variants": {}, **names}))
    (folder / "study.yaml").write_text("study: tiny\nseeds: [0]\n")
    return folder


PLANTED = "</script><b id=planted>"


def write_questions(folder, table, n=12, dataset="people_p"):
    """Write questions.csv and the texts of `n` questions on the first arm's facts; the first text holds markup."""
    method, facts, rows = table["method"].iloc[0], [], []
    for i in range(n):
        key, answer = f"{dataset}/split_0/{i:03d}", i % 4
        question = f"Question {PLANTED if i == 0 else i}?"
        rest = [[str(x) for x in range(4)], ["s"], ["t"], ["u"], {"file": "x", "line": i + 1}]
        facts.append(Fact(key, dataset, "split_0", question, [f"{i}a", f"{i}b", f"{i}c", f"{i}d"], answer, *rest).row())
        for stage, share in QUESTION_STAGES.items():
            own = {"dataset": dataset, "arm": "pretrained", "model": "miniature", "seed": 0, "probe": "letter_permuted"}
            own |= {
                "attack": "RTT",
                "retain_budget": 0.1,
                "stage": stage,
                "id": key,
                "group": key,
                "v_split": "split_0",
            }
            own |= {"method": method if stage.startswith("unlearned") else "", "answer": answer, "right": 1.0}
            given = share - 0.01 * i
            own |= {f"p_{c + 1}": given if c == answer else (1 - given) / 3 for c in range(4)}
            rows.append(own)
    write_table(folder / "tables" / "questions.csv", pd.DataFrame(rows))
    path = folder / "data" / dataset / "facts.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in facts))


QUESTION_STAGES = {
    **{"original": 0.9, "unlearned": 0.3, "unlearned_attacked": 0.8, "oracle_attacked": 0.25},
    "control_attacked": 0.25,
}


def audit(dataset="people_p", **changes):
    """An audit as `rtt audit --json` writes it."""
    return {
        "dataset": dataset,
        "files": 8,
        "rows": 160,
        "questions": 158,
        "facts": 160,
        "defects": {"duplicate_question": 2, "split_leak": 0},
        "details": [
            {"kind": "duplicate_question", "path": "split_1.jsonl", "line": 7, "message": "as split_0.jsonl:3"}
        ],
        "letter_counts": {"split_0": [10, 8, 7, 7]},
        "majority_letter_accuracy": {"split_0": 0.3125},
        "sha256": {"split_0.jsonl": "ab" * 32},
        "dropped": {},
        "guesser": {
            "choices": {"n": 160, "groups": 160, "accuracy": 0.26, "low": 0.2, "high": 0.33, "floor": 0.25, "by": "-"},
            "fresh_choices": None,
        },
        "notes": ["160 of 160 questions have no choices"],
        **changes,
    }


def manifest(stage="unlearn", cpu=10.0, **changes):
    """A manifest as a step writes it."""
    return {
        "run_id": f"{stage}-x",
        "stage": stage,
        "cpu_seconds": cpu,
        "wall_seconds": 2 * (cpu or 0),
        "git_commit": "c0ffee",
        "git_dirty": False,
        "packages": {"torch": "2.9.1"},
        "hardware": {"machine": "x86_64", "cpus": 2, "gpu": None},
        **changes,
    }


def full_study(seeds=(0,), methods=("GD", "RMU", "RIA", "FIF")):
    """A recovery table with three arms, both look choices, two probes and every status."""
    rows = []
    for arm, level in (("pretrained", 0.8), ("taught", 0.5), ("taught_same_data", 0.65)):
        for i, method in enumerate(methods):
            for seed in seeds:
                reached = round(level + 0.03 * i + 0.01 * (seed % 5), 6)
                status = {
                    ("pretrained", "RIA"): "below_floor",
                    ("taught", "GD"): "not_unlearned",
                    ("taught", "FIF"): "none_within_budget",
                    ("taught_same_data", "RIA"): "undefined",
                }.get((arm, method), "ok")
                changes = {
                    "acc_attacked": reached,
                    "recovery_corrected": (reached - 0.27) / 0.68,
                    "recovery": reached / 0.95,
                }
                changes |= {"below_floor": {"acc_unlearned": 0.12}, "not_unlearned": {"acc_unlearned": 0.45}}.get(
                    status, {}
                )
                if status == "undefined":
                    nan = float("nan")
                    for name in ("recovery", "recovery_corrected"):
                        changes |= {name: nan, f"{name}_low": nan, f"{name}_high": nan}
                for look_choice in ("nested", "paper"):
                    for probe in ("letter_permuted", "likelihood"):
                        rows.append(
                            recovery_row(
                                method, arm, seed, look_choice=look_choice, probe=probe, status=status, **changes
                            )
                        )
    return recovery(*rows)

"""The finished study of a verdict, with planted answers, for the tests of its answer and its page."""

import json
from pathlib import Path

from evals_builder import EVERY_PROBE, make_evals
from rtt.__main__ import main
from rtt.files import write_json
from rtt.judging import ruling
from rtt.judging.request import Prepared
from rtt.stats.probes import probes_table
from rtt.stats.runs import recovery_table
from rtt.stats.tables import write_table

HEADLINE = ["letter_permuted", "likelihood"]


def prepared(folder: Path, per_split=56, control=True, retain=True, whole=False, **planted) -> Prepared:
    """Write a study's evaluations and tables, as a run leaves them; return the verdict that goes on from there.

    `planted` goes to `evals_builder.make_evals`: the accuracies of its models above all. whole: all tables, as the page
    needs them; else the two from which the answer is read.
    """
    results, out = folder / "results" / "verdict-mine", folder / "verdict" / "mine"
    looks = {"lrs": (1e-3,), "epochs": 2, "steps": (0,), "attacks": ("RTT", "quantise")}
    make_evals(
        results, arms=("pretrained",), methods=("mine",), budgets=(1.0,), splits=3, per_split=per_split,
        probes=EVERY_PROBE if whole else HEADLINE, control=control, **{**looks, **planted},
    )  # fmt: skip
    stems = sorted(path.stem for path in (results / "evals").glob("*.json"))
    choices = sorted(path.stem for path in (results / "point_choices").glob("*.json"))
    study = {
        "study": "verdict-mine", "seeds": [0], "model": {"name": "original", "path": "own/original"},
        "point_choice": {"probes": HEADLINE, "retain_probe": HEADLINE}, "criteria": {"headline": HEADLINE},
        "attacks": {"RTT": {}, "quantise": {}},
    }  # fmt: skip
    own = {"evals": stems, "point_choices": choices, "reported": "nested"}
    write_json(results / "runs.json", {"study": study, "variants": {"default": own}})
    if whole:
        assert main(["tables", "--results", str(results)]) == 0
    else:
        arm, runs = ruling.scores(results)
        order = runs.probes, runs.attacks, runs.criteria
        write_table(results / "tables/recovery.csv", recovery_table([arm], "default", *order, runs.trained))
        write_table(results / "tables/probes.csv", probes_table([arm], "default", runs.criteria))
    (results / "report.html").write_text("<!DOCTYPE html><title>report</title>")
    sizes = {f"split_{i}": per_split for i in range(3)}
    told = {"folder": "own/data", "questions": 3 * per_split, "splits": sizes, "cut": False}
    asked = {
        "unlearned": "own/mine", "original": "own/original", "data": "own/data",
        "control_data": "own/other" if control else None, "retain_data": "own/kept" if retain else None,
        "attacks": None, "headline": None, "budget": None, "digests": {},
    }  # fmt: skip
    kept = {
        "version": 1, "asked": asked, "study": "verdict-mine", "names": {"original": "original", "unlearned": "mine"},
        "parameters": 292032, "headline": HEADLINE, "attacks": {"RTT": {}, "quantise": {}},
        "not_tried": [{"attack": "RTT", "why": "its learning rates 1e-05 were left out to keep the budget of time"}],
        "questions": {
            "data": told, "control": told | {"folder": "own/other"} if control else None,
            "retain": told | {"folder": "own/kept"} if retain else None,
        },
        "estimate_seconds": None, "warnings": [],
    }  # fmt: skip
    write_json(out / "asked.json", kept)
    return Prepared(out, folder, json.loads((out / "asked.json").read_text()))

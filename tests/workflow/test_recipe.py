"""The recipe for a new unlearning method in CONTRIBUTING.md, followed to the letter in a clone, and run."""

import re
import subprocess

import yaml
from clones import ROOT, SMOKE, read_csv
from docs_markdown import blocks


def test_the_recipe_adds_a_method_that_runs(copy):
    text = (ROOT / "CONTRIBUTING.md").read_text()
    given = {block.language: block.text for block in blocks("CONTRIBUTING.md") if block.language}
    path = re.search(r"Write `(scripts/rtt/methods/\w+\.py)`", text)[1]
    added = [line for line in given["diff"].splitlines() if re.match(r"\+(?!\+\+)", line)]
    assert len(given["python"].splitlines()) + len(added) <= 20

    # 1: a file. 2: a patch. The result passes `make lint`'s checks of Python.
    (copy.folder / path).write_text(given["python"])
    patch = subprocess.run(["git", "apply", "-"], cwd=copy.folder, input=given["diff"], capture_output=True, text=True)
    assert patch.returncode == 0, patch.stderr
    for check in (["check"], ["format", "--check"]):
        done = copy.python("-m", "ruff", *check, "scripts/rtt/methods", "scripts/rtt/settings.py")
        assert done.returncode == 0, done.stdout

    # 3: a study. Its model and its steps are the smoke study's.
    study = yaml.safe_load((copy.folder / SMOKE).read_text())
    ((name, settings),) = yaml.safe_load(given["yaml"])["methods"].items()
    study["methods"] = {name: settings | {"batch_size": 8, "points": [2, 4]}}
    study |= {"arms": ["pretrained"], "retain_budgets": [1.0]}
    (copy.folder / "own.yaml").write_text(yaml.safe_dump(study))
    tables = "results/smoke/tables/recovery.csv"
    done = copy.snakemake(tables, "-c2", "--scheduler", "greedy", "--configfile", "own.yaml")
    assert done.returncode == 0, done.stdout
    rows = read_csv(copy.folder / tables)
    assert {row["method"] for row in rows} == {name} and all(row["acc_attacked"] for row in rows)

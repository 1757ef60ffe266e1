"""The recipe for a new unlearning method in CONTRIBUTING.md, followed to the letter in a clone, and run there."""

import json
import re

import pytest
import yaml
from clones import ROOT, SMOKE, read_csv
from docs_markdown import blocks

EQUATIONS = "tests/helpers/equations.py"


def check(clone, *arguments, **variables):
    """Run Python in the clone; return what it prints."""
    done = clone.python(*arguments, **variables)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture
def recipe():
    """Return the recipe's steps: a file's path and text, its equation, its part of a study, its name."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    file, equation = [block.text for block in blocks("CONTRIBUTING.md") if block.language == "python"][:2]
    (study,) = [block.text for block in blocks("CONTRIBUTING.md") if block.language == "yaml"]
    path = re.search(r"Write `(scripts/rtt/methods/\w+\.py)`", text)[1]
    ((name, settings),) = yaml.safe_load(study)["methods"].items()
    return path, file, equation, name, settings


def test_the_recipe_adds_a_method_that_runs(copy, recipe):
    path, file, equation, name, settings = recipe
    tests = ("-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "tests/methods/test_equations.py")

    # 1: a file. Without its row in the table a test fails, and says what to do.
    (copy.folder / path).write_text(file)
    missing = copy.python(*tests, "-k", "in_the_table")
    assert missing.returncode == 1
    assert f"{EQUATIONS}: add a row to EQUATIONS for {name}" in missing.stdout

    # 2: the row. The class is its equation, however a batch is cut.
    table = copy.folder / EQUATIONS
    table.write_text(f"{table.read_text()}\n\n{equation}")
    assert " failed" not in check(copy, *tests, "-k", f"{name} or in_the_table")
    for lint in (["check"], ["format", "--check"]):
        check(copy, "-m", "ruff", *lint, "scripts/rtt/methods", EQUATIONS)

    # 3: a study, attacked by RTT. Its model, its steps and what is done by now are the smoke study's.
    study = yaml.safe_load((copy.folder / SMOKE).read_text())
    quick = {"batch_size": 8, "points": [2, 4]}
    study["methods"], study["attacks"] = {name: settings | quick}, {"RTT": study["attacks"]["RTT"]}
    study |= {"arms": ["pretrained"], "retain_budgets": [1.0]}
    (copy.folder / "own.yaml").write_text(yaml.safe_dump(study))
    tables = "results/smoke/tables/recovery.csv"
    done = copy.snakemake(tables, "-c2", "--scheduler", "greedy", "--configfile", "own.yaml")
    assert done.returncode == 0, done.stdout
    rows = read_csv(copy.folder / tables)
    assert {row["method"] for row in rows} == {name} and all(row["acc_attacked"] for row in rows)
    specs = [json.loads(spec.read_text()) for spec in copy.results().glob("specs/unlearn-*.json")]
    assert {s["method"]: s["settings"]["beta"] for s in specs if "beta" in s["settings"]} == {name: 2.5}

    # Its plan, beside that of NPO, which compares with the original and so has a copy of it.
    study["methods"]["NPO"] = {"learning_rate": 1e-3, "beta": 0.2} | quick
    (copy.folder / "own.yaml").write_text(yaml.safe_dump(study))
    plan = json.loads(check(copy, "-m", "rtt", "plan", "own.yaml", "--json", PYTHONPATH="scripts"))
    weights = {phase["stage"]: phase["bytes"]["weights"] for phase in plan["memory"]}
    assert weights["unlearning (NPO)"] == 2 * weights[f"unlearning ({name})"]

    # 4: the reference.
    check(copy, "scripts/reference.py")
    assert f"`methods.{name}`" in (copy.folder / "docs/reference/study.md").read_text()
    assert json.loads((copy.folder / "tests/data/spec_keys.json").read_text())[f"{name}Settings"]["keys"] == ["beta"]

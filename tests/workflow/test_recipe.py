"""The recipe for a new unlearning method in CONTRIBUTING.md, followed to the letter in a clone, and run there."""

import json
import re

import pytest
import yaml
from clones import ROOT, SMOKE, read_csv
from docs_markdown import blocks

EQUATIONS = "tests/helpers/equations.py"
# A method that compares with the original, beside the recipe's, which needs none.
NPO = '''"""NPO, negative preference optimisation."""

from rtt.methods.base import Method
from rtt.study.settings import Positive, Unlearning


class NPO(Method):
    """loss = mean of -2 / beta log sigmoid(beta (l(text) - l of the original)) + retain_coefficient L(retain).

    l sums over a text's tokens: Zhang et al. 2024, eq. 3.
    """

    name = "NPO"
    title = "negative preference optimisation"
    needs_reference, copy_reads = True, ("forget",)

    class Settings(Unlearning):
        """Unlearning with NPO."""

        beta: Positive = 0.1

    def loss(self, model, batch):
        """Return {"loss", "forget", "retain"} in nats per token."""
        from torch.nn.functional import logsigmoid

        from rtt.training.losses import mean_of_texts, text_loss, text_sums

        beta, weight = self.settings.beta, batch["forget"].get("weight")
        (nats, tokens), (before, _) = text_sums(model, batch["forget"]), text_sums(self.reference, batch["forget"])
        away = mean_of_texts(-2 / beta * logsigmoid(beta * (nats - before)), weight)
        retain = text_loss(model, batch["retain"])
        loss = away + self.retain_coefficient * retain
        return {"loss": loss, "forget": mean_of_texts(nats / tokens.clamp(min=1), weight), "retain": retain}
'''
NPO_EQUATION = '''

def npo(case: Case) -> tuple[float, float, float]:
    """Zhang et al. 2024, eq. 3."""
    beta, retain = case.settings.beta, case.nats("retain").mean()
    nats, before = case.nats("forget"), case.nats("forget", case.original)
    tokens = np.array([sum(label != -100 for label in row["labels"][1:]) for row in case.rows["forget"]])
    away = np.mean(2 / beta * np.log(1 + np.exp(-beta * tokens * (nats - before))))
    return away + case.settings.retain_coefficient * retain, nats.mean(), retain


EQUATIONS["NPO"] = (npo, {"beta": 0.3})
'''


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

    # 1: a file, and a second one. Without its row in the table a test fails, and says what to do.
    (copy.folder / path).write_text(file)
    (copy.folder / "scripts/rtt/methods/npo.py").write_text(NPO)
    missing = copy.python(*tests, "-k", "in_the_table")
    assert missing.returncode == 1
    assert f"{EQUATIONS}: add a row to EQUATIONS for NPO, {name}" in missing.stdout

    # 2: the row. The class is its equation, however a batch is cut.
    table = copy.folder / EQUATIONS
    table.write_text(f"{table.read_text()}\n\n{equation}{NPO_EQUATION}")
    assert " failed" not in check(copy, *tests, "-k", f"{name} or NPO or in_the_table")
    for lint in (["check"], ["format", "--check"]):
        check(copy, "-m", "ruff", *lint, "scripts/rtt/methods", EQUATIONS)

    # 3: a study. Its model and its steps are the smoke study's.
    study = yaml.safe_load((copy.folder / SMOKE).read_text())
    quick = {"batch_size": 8, "points": [2, 4]}
    study["methods"] = {name: settings | quick, "NPO": {"learning_rate": 1e-3, "beta": 0.2} | quick}
    study |= {"arms": ["pretrained"], "retain_budgets": [1.0]}
    (copy.folder / "own.yaml").write_text(yaml.safe_dump(study))
    tables = "results/smoke/tables/recovery.csv"
    done = copy.snakemake(tables, "-c2", "--scheduler", "greedy", "--configfile", "own.yaml")
    assert done.returncode == 0, done.stdout
    rows = read_csv(copy.folder / tables)
    assert {row["method"] for row in rows} == {name, "NPO"} and all(row["acc_attacked"] for row in rows)
    specs = [json.loads(spec.read_text()) for spec in copy.results().glob("specs/unlearn-*.json")]
    betas = {spec["method"]: spec["settings"]["beta"] for spec in specs if "beta" in spec["settings"]}
    assert betas == {name: 2.5, "NPO": 0.2}
    plan = json.loads(check(copy, "-m", "rtt", "plan", "own.yaml", "--json", PYTHONPATH="scripts"))
    weights = {phase["stage"]: phase["bytes"]["weights"] for phase in plan["memory"]}
    assert weights["unlearning (NPO)"] == 2 * weights[f"unlearning ({name})"]  # with the copy of the original

    # 4: the reference.
    check(copy, "scripts/reference.py")
    assert f"`methods.{name}`" in (copy.folder / "docs/reference/study.md").read_text()
    assert json.loads((copy.folder / "tests/data/spec_keys.json").read_text())[f"{name}Settings"]["keys"] == ["beta"]

"""Other people's data through the real Snakemake: docs/own.md's walk, and questions without sentences or choices."""

import csv
import json
import shutil

import pytest
import yaml
from clones import Clone

pytestmark = pytest.mark.full
TOFU = ["--answer", "paraphrased_answer", "--wrong", "perturbed_answer", "--sentences", "answer"]


@pytest.fixture(scope="module")
def clone(pristine, tmp_path_factory) -> Clone:
    """Return a clone with a tiny GPT-NeoX, own/neox."""
    clone = Clone(tmp_path_factory.mktemp("data") / "clone")
    shutil.copytree(pristine, clone.folder)
    made = clone.python("docs/examples/tiny_neox.py", "docs/examples/authors.json", "own/neox")
    assert made.returncode == 0, made.stdout
    return clone


def convert(clone: Clone, source: str, out: str, *options: str) -> None:
    done = clone.python(
        "-m", "rtt", "convert", source, f"own/{out}", *options, PYTHONPATH=str(clone.folder / "scripts")
    )
    assert done.returncode == 0, done.stdout


def finish(clone: Clone, name: str, change) -> tuple[list[dict], list[dict], str]:
    """Run config/own-tofu.yaml, changed, in one command; return its evaluations, its recovery table and its report."""
    study = yaml.safe_load((clone.folder / "config/own-tofu.yaml").read_text())
    study["study"] = name
    study["teaching"]["epochs"], study["methods"]["GD"]["points"] = 2, [2, 4]
    study["attacks"]["RTT"] |= {"epochs": 1, "score_epochs": None}
    study["retain_budgets"] = [1.0]
    change(study)
    (clone.folder / f"config/{name}.yaml").write_text(yaml.safe_dump(study))
    done = clone.snakemake("-c2", "--scheduler", "greedy", "--configfile", f"config/{name}.yaml")
    assert done.returncode == 0, done.stdout
    results = clone.results(name)
    with open(results / "tables/recovery.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    evals = [json.loads(path.read_text()) for path in sorted(results.rglob("evals/**/*.json"))]
    return evals, rows, (results / "report.html").read_text()


def questions(evals: list[dict], kind: str) -> list[dict]:
    return [question for one in evals if one["kind"] == kind for look in one["looks"] for question in look["questions"]]


def test_the_walk_of_own_md(clone):
    options = [*TOFU, "--ria-sentences", "perturbed_answer", "--group-size", "5"]
    for out, rows, splits in (("authors", "1:30", "3"), ("strangers", "31:60", "3"), ("kept", "61:80", "2")):
        convert(clone, "docs/examples/authors.json", out, "--rows", rows, "--splits", splits, *options)
    evals, rows, _ = finish(clone, "walk", lambda study: None)
    assert {row["floor"] for row in rows} == {"0.250000"} and {row["method"] for row in rows} == {"GD"}
    for one in (one for one in evals if one["kind"] == "attacked"):
        for look in one["looks"]:
            role = {r: {q["group"] for q in look["questions"] if q["role"] == r} for r in "TV"}
            assert len(role["T"]) == 4 and len(role["V"]) == 2 and not role["T"] & role["V"]


def test_questions_without_sentences_or_choices_need_one_command(clone):
    """MCQs with two to five choices and no sentences, a control of open questions; no policy or mcq_share is set."""
    rows = [json.loads(line) for line in (clone.folder / "docs/examples/authors.json").read_text().splitlines()]
    (clone.folder / "own/bare").mkdir(parents=True)
    for split in range(2):
        lines = []
        for i, row in enumerate(rows[15 * split : 15 * split + 15]):
            choices = [row["paraphrased_answer"], *row["perturbed_answer"], "None of these."][: 2 + i % 4]
            lines.append({"question": row["question"], "choices": choices[::-1], "answer": "ABCDE"[len(choices) - 1]})
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (clone.folder / f"own/bare/split_{split}.jsonl").write_text(text)
    columns = ["--question", "paraphrased_question", "--answer", "paraphrased_answer", "--choices", "perturbed_answer"]
    for row in rows:
        del row["perturbed_answer"]
    (clone.folder / "own/open.json").write_text("".join(json.dumps(row) + "\n" for row in rows[30:]))
    convert(clone, "own/open.json", "open", *columns[:4], "--rows", "1:30", "--splits", "2")
    convert(clone, "own/open.json", "held", *columns[:4], "--rows", "31:50", "--splits", "2")

    def change(study):
        names = {"authors": "bare", "strangers": "open", "kept": "held"}
        study["data"]["datasets"] = {name: {"folder": f"own/{folder}"} for name, folder in names.items()}
        study["methods"] = {name: study["methods"]["GD"] for name in ("GD", "RIA", "FIF")}
        study["scores"]["probes"] = ["letter", "likelihood", "likelihood_fresh"]
        study["attacks"]["quantise"] = {"bits": [8], "group_sizes": [None]}

    evals, rows, report = finish(clone, "bare", change)
    forget = [q for q in questions(evals, "original") if q["role"] == "V"]
    widths = [len(q["probes"]["letter"]["scores"]) for q in forget]
    assert sorted(set(widths)) == [2, 3, 4, 5]
    chance = sum(1 / width for width in widths) / len(widths)
    assert {row["floor"] for row in rows if row["probe"] != "letter"} == {f"{chance:.6f}"}
    assert {row["method"] for row in rows} == {"GD", "RIA", "FIF"}
    assert "no file of sentences: every text of a fact is its question, whatever mcq_share says." in report
    assert "30 of 30 questions have no choices: 3 wrong ones are drawn with seed 0" in report
    (log,) = {path.read_text() for path in clone.results("bare").rglob("logs/unlearn/*RIA*")}
    assert "mcq_share: 1, not 0.5, for authors, kept: these facts have no sentences" in log

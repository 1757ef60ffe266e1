"""The smoke study through the real Snakemake, end to end, on clones; then what reruns and what does not."""

import copy as copying
import itertools
import json
import math
import re
import zipfile
from pathlib import Path

import jsonschema
import pytest
import yaml
from clones import SMOKE, TORCH_RULES, Clone, differing, job_counts, read_csv
from rtt.files import canonical_json
from rtt.study.names import BY_DEFAULT, FIGURES, TABLES, probes_of
from rtt.study.specs import AttackSpec

SPLITS, FACTS, LEARNING_RATES, EPOCHS = 2, 8, [1e-3, 2e-3], 2  # config/smoke.yaml
LOOK_CHOICES = {"paper", "nested"}
KEYS = "dataset arm model method attack variant seed retain_budget look_choice probe".split()
WITH_INTERVAL = "acc_unlearned acc_attacked acc_original_attacked acc_control_attacked acc_oracle_attacked".split()
RECOVERIES = "recovery recovery_corrected recovery_difference".split()
ACCURACY = """dataset arm model method attack variant seed retain_budget unlearning_repeat stage v_split set look_choice
    probe run step setting n_questions n_correct accuracy low high""".split()


def with_intervals(names: list[str]) -> list[str]:
    return [column for name in names for column in (name, f"{name}_low", f"{name}_high")]


def evaluations(clone: Clone) -> dict[str, dict]:
    """Return {stem: document} of a clone's evaluations, as runs.json names them."""
    folder = clone.results() / "evals"
    paths = sorted(folder.rglob("*.json"))
    return {path.relative_to(folder).with_suffix("").as_posix(): json.loads(path.read_text()) for path in paths}


def edit(clone: Clone, path: str, old: str, new: str) -> None:
    text = (clone.folder / path).read_text()
    assert old in text, f"{path} has no {old!r}; correct this test"
    (clone.folder / path).write_text(text.replace(old, new, 1))


def smoke_plan(clone: Clone, *arguments: str) -> dict[str, int]:
    return clone.plan("--configfile", SMOKE, *arguments)


# --- attacks that share a process


def test_an_attack_is_the_same_beside_another_one(finished, tmp_path):
    """Of two attacks in one process the second finds the model as it was, and writes what it writes alone."""
    (spec,) = finished.results().glob("specs/attack-quantise-pretrained-*.json")
    other = json.loads(spec.read_text())
    other["settings"]["bits"] = [2]
    read = AttackSpec.model_validate(other)
    first = tmp_path / f"{read.run_id}.json"
    first.write_text(canonical_json(read.canonical()))
    dataset = other["facts"]["raw"]["dataset"]
    models = finished.results() / "models"
    (source,) = models.glob(f"pretrain-miniature-{dataset}-*")
    (chosen,) = models.glob(f"choose-pretrained-{dataset}-GD-*")
    (facts,) = finished.results().glob(f"data/{dataset}-*/facts.jsonl")
    made = finished.python(
        "-m", "rtt", "attack", "--spec", str(first), "--also", str(spec), "--source", str(source), "--facts",
        str(facts), "--chosen", str(chosen), "--point-choices",
        str(finished.results() / "point_choices" / f"{chosen.name}.json"), "--evals", str(tmp_path / read.run_id),
        "--manifest", str(tmp_path / "first.json"), "--state", str(tmp_path / "state" / read.run_id),
        PYTHONPATH=str(finished.folder / "scripts"),
    )  # fmt: skip
    assert made.returncode == 0, made.stdout
    alone = {path.name: path.read_bytes() for path in (finished.results() / "evals" / spec.stem).glob("*.json")}
    beside = {path.name: path.read_bytes() for path in (tmp_path / spec.stem).iterdir()}
    assert alone == beside and len(alone) > 1
    assert {path.name for path in (tmp_path / read.run_id).iterdir()} == set(alone)
    assert not list((tmp_path / "state").iterdir())
    assert json.loads((tmp_path / f"{spec.stem}.json").read_text())["run_id"] == spec.stem


# --- what a run leaves


def test_the_files_of_the_contract_are_there(finished):
    results = finished.results()
    plan = json.loads((results / "runs.json").read_text())
    found, planned = set(evaluations(finished)), set(plan["variants"]["default"]["evals"])
    # The base that never saw an arm's facts is scored on those that it saw, which no table needs.
    (oracle_base,) = found - planned
    assert planned < found and oracle_base.startswith("pretrain-miniature-birth_years_b-s0-")
    assert {path.stem for path in results.glob("point_choices/*.json")} == set(
        plan["variants"]["default"]["point_choices"]
    )
    for folder in plan["data"]:
        assert (results / "data" / folder / "facts.jsonl").stat().st_size
        assert (results / "data" / folder / "audit.json").stat().st_size
    tables = {path.stem for path in results.glob("tables/*.csv")}
    assert tables == set(TABLES)
    for name in FIGURES:
        assert (results / f"figures/{name}.svg").read_text().lstrip().startswith("<?xml")
        assert (results / f"figures/{name}.png").read_bytes().startswith(b"\x89PNG")
    assert (results / "report.html").read_text().lower().startswith("<!doctype html>")


def test_every_evaluation_fits_the_schema(finished):
    schema = json.loads((finished.folder / "config/eval.schema.json").read_text())
    validator = jsonschema.validators.validator_for(schema)(schema)
    validator.check_schema(schema)
    files = evaluations(finished)
    assert {record["kind"] for record in files.values()} == {"original", "unlearned", "attacked"}
    for name, record in files.items():
        errors = [f"{name}: {error.json_path}: {error.message}" for error in validator.iter_errors(record)]
        assert not errors
    # The schema says no as well.
    record = next(record for record in files.values() if record["kind"] == "attacked" and record["looks"])
    for spoil in (
        lambda broken: broken.pop("hashes"),
        lambda broken: broken.update(kind="guess"),
        lambda broken: broken["looks"][0]["questions"][0].update(role="W"),
        lambda broken: broken["looks"][0]["questions"][0]["probes"]["letter"].pop("scores"),
        lambda broken: broken["looks"][0].pop("setting"),
    ):
        broken = copying.deepcopy(record)
        spoil(broken)
        assert not validator.is_valid(broken)


def test_each_attack_has_every_look_with_every_question_once(finished):
    attacks = [record for record in evaluations(finished).values() if record["kind"] == "attacked"]
    splits = [f"split_{i}" for i in range(SPLITS)]
    wanted = {
        "RTT": [({"epoch": e, "lr": lr}, v) for v in splits for e in range(1, EPOCHS + 1) for lr in LEARNING_RATES],
        "quantise": [({"bits": bits, "group_size": size}, None) for bits in (8, 4) for size in (16, None)],
    }
    for name, looks in wanted.items():
        mine = [record for record in attacks if record["labels"]["attack"] == name]
        targets = [record["labels"]["target"] for record in mine]
        assert targets.count("control") == 2 and len(mine) == 2 + 2 * 3  # control and oracle
        for record in mine:
            if record["status"] == "none_within_budget":
                assert record["looks"] == []
                continue
            assert [(look["setting"], look["v_split"]) for look in record["looks"]] == looks
            for look in record["looks"]:
                assert (look["attack"], look["repeat"]) == (name, 0)
                questions = look["questions"]
                assert len({question["id"] for question in questions}) == len(questions) == SPLITS * FACTS
                for question in questions:
                    assert question["role"] == ("V" if look["v_split"] in (None, question["split"]) else "T")
                    assert set(question["probes"]) == set(BY_DEFAULT) and question["group"] == question["id"]
                    scores = [score for probe in question["probes"].values() for score in probe["scores"]]
                    assert len(scores) == 4 * len(BY_DEFAULT) and all(x <= 0 and math.isfinite(x) for x in scores)


def test_the_tables_have_the_columns_and_rows_of_the_contract(finished):
    recovery = read_csv(finished.results() / "tables/recovery.csv")
    assert list(recovery[0]) == [
        *KEYS, "n_questions", "n_groups", "n_runs", "acc_before", *with_intervals(WITH_INTERVAL), "t_acc_attacked",
        "t_acc_original_attacked", "t_acc_control_attacked", "t_acc_oracle_attacked", "attack_learned",
        "control_learned", "retain_before", "retain_unlearned", "perplexity_before", "perplexity_unlearned",
        "floor", "original_floor",
        *with_intervals(RECOVERIES), "counts", "status", "cannot_tell",
    ]  # fmt: skip
    columns = ("arm", "method", "attack", "retain_budget", "look_choice", "probe")
    facts, budgets, attacks = (("pretrained", "taught"), ("GD",)), ("0.1", "1.0"), ("RTT", "quantise")
    probes = probes_of(BY_DEFAULT)
    wanted = [*itertools.product(*facts, attacks, budgets, LOOK_CHOICES, probes),
              *itertools.product(*facts, attacks, budgets, ("nested",), ("strongest",)),
              *itertools.product(*facts, ("strongest",), budgets, ("nested",), [*probes, "strongest"])]  # fmt: skip
    assert sorted(tuple(row[column] for column in columns) for row in recovery) == sorted(wanted)
    assert {row["n_questions"] for row in recovery} == {str(SPLITS * FACTS)}
    perplexities = [float(row[f"perplexity_{when}"] or "nan") for row in recovery for when in ("before", "unlearned")]
    assert len(perplexities) and all(x > 1 or math.isnan(x) for x in perplexities) and perplexities[0] > 1
    accuracy = read_csv(finished.results() / "tables/accuracy.csv")
    assert list(accuracy[0]) == ACCURACY
    assert {row["stage"] for row in accuracy} == {
        "original", "unlearned", "original_attacked", "unlearned_attacked", "control_attacked",
        "oracle_attacked",
    }  # fmt: skip
    assert all(re.fullmatch(r"[01]\.\d{6}", row["accuracy"]) for row in accuracy)


def test_a_study_without_attacks_ends_with_its_tables(copy):
    """Unlearning without an attack: what was unlearned before is not unlearned again, nothing is attacked."""
    study = yaml.safe_load((copy.folder / SMOKE).read_text())
    del study["attacks"]
    (copy.folder / "own.yaml").write_text(yaml.safe_dump(study))
    done = copy.snakemake("-c2", "--scheduler", "greedy", "--configfile", "own.yaml", "--notemp")
    assert done.returncode == 0, done.stdout
    assert not set(job_counts(done.stdout)) & {"unlearn", "attack", "report"}
    assert {row["stage"] for row in read_csv(copy.results() / "tables/accuracy.csv")} == {"original", "unlearned"}
    assert read_csv(copy.results() / "tables/recovery.csv") == []
    summary = copy.python("-m", "rtt", "summary", "--results", "results/smoke", PYTHONPATH="scripts")
    assert summary.returncode == 0 and "nothing was unlearned and attacked" in summary.stdout


def test_an_accuracy_of_the_table_is_that_of_the_evaluation(finished):
    record = next(
        r for r in evaluations(finished).values() if r["kind"] == "original" and r["labels"]["arm"] == "taught"
    )
    questions = [question for question in record["looks"][0]["questions"] if question["role"] == "V"]
    letters = [(q["probes"]["letter"]["scores"], q["answer"]) for q in questions]
    correct = sum(max(scores) == scores[answer] for scores, answer in letters)
    wanted = {"arm": "taught", "stage": "original", "set": "V", "v_split": "all", "probe": "letter"}
    rows = read_csv(finished.results() / "tables/accuracy.csv")
    row = next(row for row in rows if wanted.items() <= row.items())
    assert (row["n_questions"], row["n_correct"]) == (str(len(questions)), str(correct))


def test_the_report_shows_what_the_run_cost_and_stood_on(finished):
    page = (finished.results() / "report.html").read_text()
    for text in ("pretrain", "unlearn", "attack", "torch 2.", "transformers 5.", "birth_years_a"):
        assert text in page, text


def test_few_processes_import_torch(finished):
    manifests = [json.loads(path.read_text()) for path in finished.results().glob("manifests/*.json")]
    counts = job_counts((finished.folder / "output.txt").read_text())
    assert len(manifests) == sum(counts.get(rule, 0) for rule in TORCH_RULES) <= 15
    assert sum(manifest["cpu_seconds"] for manifest in manifests) > 0


# --- what reruns


def test_a_second_run_does_nothing(copy):
    before = {path: path.stat().st_mtime_ns for path in copy.results().rglob("*") if path.is_file()}
    done = copy.smoke()
    assert done.returncode == 0 and "Nothing to be done" in done.stdout
    assert before == {path: path.stat().st_mtime_ns for path in copy.results().rglob("*") if path.is_file()}


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_a_deleted_figure_alone_is_drawn_again(copy, suffix):
    (copy.results() / f"figures/curves.{suffix}").unlink()
    assert smoke_plan(copy) == {"figure": 1}


def test_figures_drawn_again_are_the_same_bytes(copy, finished):
    (copy.results() / "figures/tradeoff.svg").unlink()
    done = copy.smoke()
    assert done.returncode == 0, done.stdout
    assert job_counts(done.stdout) == {"figure": 1}
    assert differing(finished.results(), copy.results()) == []


def test_older_and_half_written_evaluations_change_nothing(copy, finished):
    """A folder holds the runs of earlier studies too, and a SIGKILL leaves a temporary file behind."""
    evals = copy.results() / "evals"
    old = next(path for path in evals.glob("unlearn-*.json"))
    (evals / "unlearn-pretrained-GD-s0-0123456789.json").write_bytes(old.read_bytes())
    (evals / ".unlearn-pretrained-GD-s0-0123456789.x.json").write_text('{"half')
    (copy.results() / "tables/recovery.csv").unlink()
    done = copy.snakemake("results/smoke/tables/recovery.csv", "-c1", "--configfile", SMOKE)
    assert done.returncode == 0, done.stdout
    for table in ("recovery.csv", "accuracy.csv", "contrasts.csv"):
        assert (copy.results() / "tables" / table).read_bytes() == (finished.results() / "tables" / table).read_bytes()


def test_a_comment_or_docstring_in_training_code_reruns_nothing(copy):
    for path in ("scripts/rtt/training/train.py", "scripts/rtt/steps/pretrain.py", "scripts/rtt/methods/gd.py"):
        text = (copy.folder / path).read_text()
        (copy.folder / path).write_text(re.sub(r'^"""', '"""Now: ', text, count=1) + "\n# a comment\n")
    assert smoke_plan(copy) == {}


def test_logic_in_training_reruns_all_training_but_no_data(copy):
    with open(copy.folder / "scripts/rtt/training/train.py", "a") as handle:
        handle.write("\nEXTRA = 1\n")
    assert smoke_plan(copy) == {
        "pretrain": 2, "original": 2, "teach": 1, "unlearn": 2, "choose": 2, "attack": 8, "tables": 1,
        "figure": len(FIGURES), "report": 1,
    }  # fmt: skip


def test_logic_in_the_figures_redraws_and_no_more(copy):
    with open(copy.folder / "scripts/rtt/figures/words.py", "a") as handle:
        handle.write("\nEXTRA = 1\n")
    assert smoke_plan(copy) == {"figure": len(FIGURES), "report": 1}


def test_a_clone_s_rules_run_the_clone_s_code(copy):
    """The environment's `rtt` is that of the working tree; the rules must not use it."""
    with open(copy.folder / "scripts/rtt/figures/__init__.py", "a") as handle:
        handle.write('\nprint("figures of this clone")\n')
    (copy.results() / "figures/curves.svg").unlink()
    done = copy.snakemake("results/smoke/figures/curves.svg", "--rerun-triggers", "mtime", "-c1", "--configfile", SMOKE)
    assert done.returncode == 0, done.stdout
    assert "figures of this clone" in (copy.results() / "logs/figure/curves.log").read_text()


# --- Snakemake's own tools


def test_snakemake_s_own_report_has_figures_with_captions(copy):
    done = copy.snakemake("--configfile", SMOKE, "--report", "report.zip")
    assert done.returncode == 0, done.stdout
    with zipfile.ZipFile(copy.folder / "report.zip") as archive:
        names = archive.namelist()
        texts = " ".join(archive.read(name).decode() for name in names if name.endswith((".html", ".js")))
    assert sum(name.endswith(".svg") for name in names) >= 5
    assert "Methods GD; facts pretrained, taught; model miniature; seeds 0; retain budgets 10 %, 100 %" in texts
    for part in (
        "attacks RTT (4 settings), quantise (4 settings)",
        '"table": "effects of variants", "facts": "pretrained, taught", "methods": "GD"',
        '"figure": "curves"',
        "Study smoke",
        '"Figures"',
        '"Tables"',
    ):
        assert part in texts, part
    assert not [name for name in names if Path(name).is_absolute()]

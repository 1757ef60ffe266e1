"""Which study runs: one file, overrides, and mistakes that stop before any job. Dry runs by the real Snakemake."""

import json
import os
import re
import shutil

import pytest
import yaml
from clones import ROOT, SMOKE, Clone
from rtt.study import plugins
from rtt.study.expand import Runs
from rtt.study.load import OVERRIDES, load_study, schema
from rtt.study.names import ARMS, FIGURES

DEMO = load_study(ROOT / "config/config.yaml")


@pytest.fixture(scope="module")
def clone(pristine, tmp_path_factory) -> Clone:
    """A clone for dry runs, which leave nothing behind."""
    folder = tmp_path_factory.mktemp("dry") / "clone"
    shutil.copytree(pristine, folder)
    return Clone(folder)


def study_file(clone: Clone, change=lambda study: None, name: str = "own.yaml") -> str:
    """Write a changed copy of the smoke study; return its path in the clone."""
    study = yaml.safe_load((clone.folder / SMOKE).read_text())
    change(study)
    (clone.folder / name).write_text(yaml.safe_dump(study))
    return name


def dry(clone: Clone, *arguments: str) -> str:
    done = clone.snakemake("-n", "-c2", "--scheduler", "greedy", *arguments)
    assert done.returncode == 0, done.stdout
    return done.stdout


def refused(clone: Clone, *arguments: str) -> str:
    """A dry run that must fail at once and in plain words. Returns what it said."""
    done = clone.snakemake("-n", "-c2", "--scheduler", "greedy", *arguments)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout and "/rtt/" not in done.stdout, done.stdout
    assert not (clone.folder / "results").exists()
    return done.stdout


# --- one file decides


def test_without_an_option_the_demo_runs(clone):
    arms, methods, attacked = len(DEMO.arms), len(DEMO.methods.named), len(DEMO.arms) + 2
    training = sum(plugins.attacks()[name].trains for name in DEMO.attacks.named)
    assert clone.plan() == {  # the base, the oracle, and both as controls before and after each attack
        "generate": 3, "facts": 3, "pretrain": 2, "teach": arms - 1, "original": 2, "unlearn": arms * methods,
        "choose": arms * methods, "attack": training * attacked, "tables": 1, "figure": len(FIGURES), "report": 1,
        **{f"attacks_{job + 1}": 1 for job in range(attacked)},  # those that train nothing share a process
    }  # fmt: skip


def test_a_study_file_replaces_the_default(clone):
    """Snakemake merges config files; merged with the demo, this study would run RMU, FIF and a third arm."""
    demo, own = dry(clone), dry(clone, "--configfile", SMOKE)
    assert "RMU" in demo and "taught_shuffled" in demo and "results/demo/" in demo
    assert "RMU" not in own and "taught_shuffled" not in own and "results/demo/" not in own
    assert clone.plan("--configfile", SMOKE)["unlearn"] == 2


def test_the_report_is_told_of_the_projects_own_results_where_they_are(clone):
    """And made anew where they change; without them, the command names none."""
    folder = clone.folder / "results/reference"
    assert "--reference" not in dry(clone, "-p", "--configfile", SMOKE)
    folder.mkdir(parents=True)
    (folder / "seeds-0123456789.zip").write_bytes(b"")
    try:
        said = dry(clone, "-p", "--configfile", SMOKE)
    finally:
        shutil.rmtree(folder.parent)
    assert f"--reference {folder.resolve()}" in said
    assert re.search(r"rule report:\n +input: .*results/reference/seeds-0123456789\.zip", said), said


def test_defaults_are_the_documented_ones_and_not_the_demo_s(clone):
    study = load_study(clone.folder / SMOKE)
    assert study.data.generator.retain_train == 8 and study.teaching.warmup_steps == 0
    assert DEMO.teaching.warmup_steps != 0  # what a merge would have brought


def test_two_study_files_are_one_too_many(clone):
    said = refused(clone, "--configfile", SMOKE, "config/config.yaml")
    assert "one study file decides a run, found 2: config/smoke.yaml, config/config.yaml" in said


def test_a_study_file_anywhere_will_do(clone, tmp_path):
    path = tmp_path / "a study.yaml"
    path.write_text((clone.folder / SMOKE).read_text().replace("study: smoke", "study: elsewhere"))
    assert "results/elsewhere/report.html" in dry(clone, "--configfile", str(path))


# --- overrides


def test_seeds_can_be_set(clone):
    said = dry(clone, "--configfile", SMOKE, "--config", "seeds=[3]")
    assert "pretrain-miniature-birth_years_a-s3-" in said and "-s0-" not in said
    assert clone.plan("--configfile", SMOKE, "--config", "seeds=[3,4]")["pretrain"] == 2 * 2  # each with its oracle


def test_methods_can_be_chosen_from_those_of_the_study(clone):
    said = dry(clone, "--config", "methods=[GD]", "arms=[taught]")
    assert "unlearn-taught-birth_years_b-GD-" in said
    assert not re.search(r"RMU|RIA|FIF|unlearn-pretrained", said)


def test_the_study_can_be_renamed(clone):
    said = dry(clone, "--configfile", SMOKE, "--config", "study=other")
    assert "results/other/report.html" in said and "results/smoke" not in said


@pytest.mark.parametrize("no", ["false", "False"])
def test_an_oracle_is_a_second_base_and_a_second_control(clone, no):
    plan, without = (clone.plan("--configfile", SMOKE, *more) for more in ((), ("--config", f"oracle={no}")))
    assert (plan["pretrain"], plan["original"], plan["attack"]) == (2, 2, 2 * (2 + 2))
    assert (without["pretrain"], without["original"], without["attack"]) == (1, 1, 2 * (2 + 1))


def test_repeats_are_runs_of_their_own(clone):
    def repeated(study):
        study["repeats"] = {"unlearning": 3, "attack": 2}

    plan, once = clone.plan("--configfile", study_file(clone, repeated)), clone.plan("--configfile", SMOKE)
    assert {stage: plan[stage] - once[stage] for stage in plan if plan[stage] != once[stage]} == {
        "unlearn": 2 * 2, "choose": 2 * 2,
    }  # fmt: skip


# --- mistakes


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.update(sedes=[1]), ["own.yaml: sedes: unknown key; allowed: study, seeds"]),
        (lambda s: s["attacks"]["RTT"].update(epoch=3), ["own.yaml: attacks.RTT.epoch: unknown key", "epochs"]),
        (
            lambda s: s["methods"].update(DPO={}),
            ["own.yaml: methods.DPO: unknown key; allowed: GD, RMU, RIA, FIF, NPO"],
        ),
        (lambda s: s["pretraining"].update(steps="many"), ["own.yaml: pretraining.steps:", "integer", "'many'"]),
        (lambda s: s.update(retain_budgets=[0.2]), ["own.yaml: retain_budgets.0:", "0.05, 0.1, 0.3 or 1.0", "0.2"]),
        (
            lambda s: s["attacks"]["RTT"].update(epochs=0),
            ["own.yaml: attacks.RTT.epochs:", "greater than or equal to 1", "0"],
        ),
        (lambda s: s.pop("pretraining"), ["own.yaml: the miniature needs pretraining"]),
    ],
)
def test_a_mistake_names_file_and_key_and_what_is_allowed(clone, change, words):
    said = refused(clone, "--configfile", study_file(clone, change))
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("attacks=1", ["--config attacks", f"allowed: {', '.join(OVERRIDES)}"]),
        ("seeds=[-1]", ["seeds.0", "greater than or equal to 0", "-1"]),
        ("methods=[RMU]", ["methods", "RMU", "it has GD"]),
    ],
)
def test_an_override_s_mistake_names_it(clone, override, words):
    said = refused(clone, "--configfile", SMOKE, "--config", override)
    for word in words:
        assert word in said


def test_a_file_that_is_not_yaml_or_not_there(clone):
    (clone.folder / "own.yaml").write_text("study: [")
    assert "not valid JSON or YAML" in refused(clone, "--configfile", "own.yaml")  # Snakemake's own words
    assert "nowhere.yaml" in clone.snakemake("-n", "--configfile", "nowhere.yaml").stdout
    for name in ("own.yaml", "nowhere.yaml"):
        done = clone.python("-m", "rtt", "run", "--configfile", name, PYTHONPATH=str(clone.folder / "scripts"))
        assert done.returncode == 1 and name in done.stdout and "Traceback" not in done.stdout


def test_a_key_that_stands_twice(clone):
    text = (clone.folder / SMOKE).read_text()
    (clone.folder / "own.yaml").write_text(text + "\nseeds: [1]\n")
    assert "'seeds' stands twice" in refused(clone, "--configfile", "own.yaml")


# --- Snakemake's own tools


def test_the_dag_can_be_drawn(clone):
    done = clone.snakemake("--dag", "--configfile", SMOKE)
    assert done.returncode == 0, done.stdout
    assert re.search(r"^digraph snakemake_dag \{", done.stdout, re.MULTILINE)
    for rule in ("generate", "pretrain", "teach", "unlearn", "choose", "attack", "tables", "report"):
        assert rule in done.stdout


def test_lint_has_no_complaint_about_any_study(clone):
    for study in ([], ["--configfile", "config/demo-full.yaml"]):
        done = clone.snakemake("--lint", *study)
        assert done.returncode == 0, done.stdout


def test_the_snakefile_needs_neither_torch_nor_transformers(clone, tmp_path):
    """Every cluster job parses it again, and importing torch costs 6 CPU seconds. (Snakemake's SLURM executor imports
    pandas, wherever it is installed.)
    """
    heavy = "torch transformers accelerate scipy matplotlib".split()
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class No:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {heavy}:\n"
        "            raise RuntimeError('forbidden import: ' + name)\n"
        "sys.meta_path.insert(0, No())\n"
    )
    forbid = {"PYTHONPATH": os.pathsep.join([str(tmp_path)])}
    for name in ("torch", "transformers"):  # the trap works
        assert f"forbidden import: {name}" in clone.python("-c", f"import {name}", **forbid).stdout
    done = clone.snakemake("-n", "-c2", "--scheduler", "greedy", "--configfile", SMOKE, **forbid)
    assert done.returncode == 0, done.stdout


# --- the studies that come with the project


def raw(name: str) -> dict:
    return yaml.safe_load((ROOT / "config" / name).read_text())


def test_demo_full_is_the_demo_with_more_of_it():
    full, demo = raw("demo-full.yaml"), raw("config.yaml")
    assert full.pop("study") == "demo-full" and demo.pop("study")
    assert full.pop("seeds") == [0, 1, 2] and demo.pop("seeds") == [0]
    assert full.pop("retain_budgets") == [0.05, 0.1, 0.3, 1.0] and demo.pop("retain_budgets")
    assert full.pop("arms") == list(ARMS) and demo.pop("arms")
    assert full["attacks"]["RTT"].pop("learning_rates") == [5e-4, 1e-3, 2e-3]
    assert demo["attacks"]["RTT"].pop("learning_rates") == [1e-3]
    assert full == demo


def test_the_fresh_seeds_study_is_the_demo_on_seeds_21_to_30():
    seeds, demo = raw("seeds.yaml"), raw("config.yaml")
    assert seeds.pop("study") == "seeds" and demo.pop("study")
    assert seeds.pop("seeds") == list(range(21, 31)) and demo.pop("seeds") == [0]
    assert seeds.pop("repeats") == {"unlearning": 2, "attack": 2} and demo.pop("repeats", True)
    assert seeds.pop("arms") == list(ARMS) and demo.pop("arms")
    assert seeds["attacks"] == {"RTT": demo["attacks"]["RTT"]} and demo.pop("attacks") and seeds.pop("attacks")
    assert seeds == demo


def test_the_study_of_all_attacks_is_the_demo_with_them_on_seeds_31_to_35():
    suite, demo = raw("attacks.yaml"), raw("config.yaml")
    assert suite.pop("study") == "attacks" and demo.pop("study")
    assert suite.pop("seeds") == list(range(31, 36)) and demo.pop("seeds") == [0]
    assert suite.pop("arms") == ["pretrained"] and demo.pop("arms")
    attacks, shown = suite.pop("attacks"), demo.pop("attacks")
    every = {name: one for name, one in plugins.attacks().items() if not one.control}
    assert set(attacks) == set(every) - {"t_shots"} and every["t_shots"].needs_context
    assert shown.pop("RTT_permuted") and all(settings == attacks[name] for name, settings in shown.items())
    assert sum(not every[name].trains for name in shown) == 4  # what the demo shows beside RTT
    assert suite == demo


def test_the_study_of_adapters_is_the_demo_with_and_without_them_on_seeds_61_to_63():
    lora, demo = raw("lora.yaml"), raw("config.yaml")
    assert lora.pop("study") == "lora" and demo.pop("study")
    assert lora.pop("seeds") == [61, 62, 63] and demo.pop("seeds") == [0]
    assert lora.pop("arms") == ["pretrained"] and demo.pop("arms") and demo.pop("teaching")
    assert lora.pop("oracle") is False and demo["methods"].pop("RMU")
    (methods,) = (variant["methods"] for variant in lora.pop("variants").values())
    assert set(methods) == {"GD", "NPO"} and all(one["lora"] == {} for one in methods.values())
    attacks, rtt = lora.pop("attacks"), demo.pop("attacks")["RTT"]
    assert attacks == {"RTT": rtt | {"v_splits": 2}, "RTT_LoRA": {"v_splits": 2}}
    assert lora == demo


def test_every_study_file_that_comes_with_the_project_is_right():
    files = sorted((ROOT / "config").glob("*.yaml"))
    studies = [load_study(path) for path in files]
    assert len({study.study for study in studies}) == len(files) >= 4  # each has a results folder of its own
    for study in studies:
        folders = [getattr(study.model, "path", None), *(one.folder for one in study.data.datasets.values())]
        if not any(folders):  # else they are the user's: docs/own.md says how they are made
            assert Runs(study).eval_ids()


def test_the_schema_file_is_that_of_the_models():
    text = (ROOT / "config/schema.json").read_text()
    assert json.loads(text) == schema(), "bring it up to date: python -m rtt check --schema > config/schema.json"


def test_the_documentation_names_every_override_and_study_file():
    text = (ROOT / "docs/config.md").read_text()
    for name in [*(f"`{key}`" for key in OVERRIDES), *(path.name for path in (ROOT / "config").glob("*.yaml"))]:
        assert name in text, name


def test_an_external_model_of_the_hub_is_fetched_ahead_of_the_jobs(clone):
    hub = {"hub": {"id": "org/name", "revision": "f" * 40}}
    path = study_file(clone, lambda study: study.update(external_models={"theirs": hub}), "hub.yaml")
    (run,) = Runs(load_study(clone.folder / path)).imports
    said = dry(clone, "fetch", "--configfile", path)
    assert f"models/{run}" in said and "rule unlearn" not in said
    said = dry(clone, "--configfile", path, "--printshellcmds")
    commands = [line for line in said.splitlines() if "--external" in line]
    assert sum(f"--external results/smoke/models/{run}" in line for line in commands) == len(
        load_study(ROOT / SMOKE).arms
    )

"""`python -m rtt doctor --profile slurm` asks SLURM about itself and the study's jobs (a real one: tests/cluster)."""

import re

import pytest
from doctor_fixtures import SMOKE
from places import ROOT
from rtt.doctor import surroundings
from rtt.doctor.slurm import hours, partitions
from rtt.planner.resources import Resources, Site
from rtt.study.expand import Runs
from rtt.study.load import load_study

pytest_plugins = ["doctor_fixtures"]


CONFIGURATION = """Configuration data as of 2026-01-01T00:00:00
MaxArraySize            = 1001
MinJobAge               = 300 sec
PreemptMode             = REQUEUE
PreemptType             = preempt/partition_prio"""


def test_on_a_cluster_that_takes_the_jobs_all_is_well(ask, slurm, commands, profile, monkeypatch):
    commands("scontrol", CONFIGURATION)
    monkeypatch.setattr(surroundings, "file_system", lambda folder: ("/work", "nfs4"))
    monkeypatch.setattr(surroundings, "LOCAL", ())  # this clone may lie anywhere
    monkeypatch.delenv("TMPDIR", raising=False)
    code, checks = ask("--profile", profile(gpu_model="h100"))
    assert code == 0
    assert checks["SLURM"] == ("ok", "slurm 22.05.8")
    assert checks["status command"] == ("ok", "squeue answers")
    assert checks["partition"] == ("ok", "gpu, jobs of 24 h at most")
    said = r"sbatch would take the study's largest job \(account mine, \d+ MB, \d+ minutes, 1 CPU, no GPU\)"
    assert checks["a job"][0] == "ok" and re.fullmatch(said, checks["a job"][1])
    assert checks["site file"][0] == "ok" and checks["site file"][1].endswith("site.yaml")
    assert not {"MinJobAge", "PreemptMode", "GPU model"} & set(checks)
    assert checks["work folder"][1].endswith("nfs4 on /work") and checks["secrets"][0] == "ok"


def test_the_jobs_are_judged_and_none_is_submitted(ask, slurm, profile):
    ask("--profile", profile(), "--config", "device=cuda")
    calls = [line.split("/bin/")[1] for line in (slurm / "calls").read_text().splitlines()]
    jobs = [line for line in calls if line.startswith("sbatch") and "--version" not in line]
    assert len(jobs) == 2  # the first attempt, and the last
    assert all("--test-only" in job and "--account=mine" in job and "--gpus=1" in job for job in jobs)


def test_sbatch_is_asked_for_the_study_s_largest_job(slurm, judged):
    paper = str(ROOT / "config/paper.yaml")
    config = {"launcher": "deepspeed", "devices": 2, "deepspeed": "zero3-offload"}
    site = {"account": "mine", "partition": "gpu", "gpu_model": "h100", "max_hours": 24, "cpus_per_gpu": 6}
    found = judged(paper, config, **site)["a job"]
    study = load_study(paper, config)
    needs, runs = Resources(study, Site(**site), ROOT), Runs(study, ROOT)
    specs = (runs.sources | runs.unlearn | runs.attacks).values()
    memory, minutes = {needs.mem_mb(spec) for spec in specs}, {needs.runtime(spec) for spec in specs}
    assert len(memory) > 1 and len(minutes) > 1
    called = (slurm / "calls").read_text().splitlines()[-1].split()
    wanted = {"mem": max(memory), "time": max(minutes), "cpus-per-task": 12, "nodes": 1, "gpus": "h100:2"}
    assert {"--test-only", *(f"--{key}={value}" for key, value in wanted.items())} < set(called)
    asked = f"account mine, partition gpu, {max(memory)} MB, {max(minutes)} minutes, 12 CPUs, 2 GPUs"
    assert found == ("ok", f"sbatch would take the study's largest job ({asked})")


@pytest.mark.parametrize(
    ("refusal", "site", "words"),
    [
        ("Requested node configuration is not available", {"account": None}, "another `partition` in"),
        ("Memory required by task is not available", {}, "another `partition` in"),
        ("Requested time limit is invalid (missing or exceeds some limit)", {}, "another `partition` in"),
        ("Invalid qos specification", {}, "; correct "),
        ("Job violates accounting/QOS policy (user time limits)", {"account": None}, "set `account` in"),
    ],
)
def test_a_refusal_comes_with_what_to_do(judged, commands, refusal, site, words):
    commands("sbatch", refusal, 1)
    status, text = judged(**site)["a job"]
    assert status == "do" and f"no GPU): {refusal}; " in text and words in text


def test_a_later_attempt_asks_for_more_and_may_be_refused(judged, slurm):
    study = load_study(SMOKE)
    needs, runs = Resources(study, Site(account="mine", max_hours=2), ROOT), Runs(study, ROOT)
    specs = (runs.sources | runs.unlearn | runs.attacks).values()
    first, last = (max(needs.mem_mb(spec, attempt) for spec in specs) for attempt in (1, 4))
    assert first < last
    said = "Memory specification can not be satisfied"
    (slurm / "sbatch").write_text(f'#!/bin/sh\ncase "$*" in *--mem={last}*) echo "{said}" >&2; exit 1;; esac\n')
    checks = judged(retries=3)
    assert checks["a job"][0] == "ok" and f"{first} MB" in checks["a job"][1]
    status, text = checks["retries"]
    assert status == "do" and f"attempt 4 of that job (account mine, {last} MB" in text and f": {said}; set in" in text


@pytest.mark.parametrize(
    ("age", "mode", "code", "found"),
    [
        ("119 sec", "REQUEUE", 0, {"MinJobAge": "119 s, less than 120: "}),
        ("120 sec", "CANCEL", 0, {"PreemptMode": "CANCEL: a preempted job is cancelled"}),
        ("2 sec", "GANG,CANCEL", 0, {"MinJobAge": "2 s, less", "PreemptMode": "GANG,CANCEL: "}),
        ("0 sec", "GANG,SUSPEND", 0, {}),  # 0: never forgotten
        ("300 sec", "REQUEUE,CANCEL", 0, {}),
        ("2 sec", "CANCEL", 1, {}),  # no answer
    ],
)
def test_settings_of_slurm_that_make_a_difference_are_explained(judged, commands, age, mode, code, found):
    commands("scontrol", CONFIGURATION.replace("300 sec", age).replace("REQUEUE", mode), code)
    checks = {name: said for name, said in judged().items() if name in ("MinJobAge", "PreemptMode")}
    assert set(checks) == set(found)
    for name, (status, said) in checks.items():
        assert status == "look" and said.startswith(found[name])


@pytest.mark.parametrize(
    ("resources", "models"),
    [
        ("gpu:h100:4(S:0-1)", {"h100"}),
        ("gpu:2080ti:4", {"2080ti"}),
        ("gpu:nvidia_a100-sxm4-80gb:4(S:0,2)", {"nvidia_a100-sxm4-80gb"}),
        ("gpu:a100:2(S:0),gpu:a100.3g:8,mps:200", {"a100", "a100.3g"}),
        ("gpu:4(S:0-1)", set()),
        ("(null)", set()),
    ],
)
def test_gpu_models_are_read(resources, models):
    (found,) = partitions(f"gpu*|infinite|{resources}")
    assert found.gpus == models


@pytest.mark.parametrize(
    ("resources", "site", "status", "words"),
    [
        (
            "gpu:a100-80gb:4",
            {"gpu_model": "a100"},
            "do",
            "it has: a100-80gb; neither `gpu_model` nor",
        ),
        ("gpu:a100-80gb:4,gpu:h100:1", {}, "look", "set `gpu_model: null` and a `partition` that has only those GPUs"),
        ("gpu:a100-80gb:4", {}, None, ""),  # any, and so this one
    ],
)
def test_a_gpu_model_with_a_hyphen_comes_with_another_way_to_name_it(judged, commands, resources, site, status, words):
    commands("sinfo", f"gpu*|infinite|{resources}")
    found = judged(config={"device": "cuda"}, **site).get("GPU model", (None, ""))
    assert found[0] == status and words in found[1] and ("constraint=NAME" in found[1]) == bool(status)


@pytest.mark.parametrize(("site", "hint"), [({"gpu_model": "a100-80gb"}, True), ({"max_hours": 0}, False)])
def test_a_mistake_in_the_site_file_is_named_and_ends_the_checks(judged, site, hint):
    checks = judged(**site)
    status, text = checks.pop("site file")
    assert not checks and status == "do"
    assert f"site.yaml: {next(iter(site))}: " in text and ("`gpu_model: null`" in text) == hint


@pytest.mark.parametrize(
    ("site", "check", "status", "words"),
    [
        ({"partition": "long"}, "partition", "do", ["no partition long", "set `partition` in", "gpu, short"]),
        ({"partition": "short", "max_hours": 8}, "partition", "do", ["jobs of 2 h at most: set `max_hours: 2`"]),
        ({"gpu_model": "v100"}, "GPU model", "do", ["gpu has no v100", "a100, h100"]),
        ({}, "GPU model", "look", ["a100, h100: jobs take any of them unless"]),
    ],
)
def test_what_the_site_file_says_is_compared_with_the_cluster(ask, slurm, profile, site, check, status, words):
    _, checks = ask("--profile", profile(**site), "--config", "device=cuda")
    assert checks[check][0] == status and all(word in checks[check][1] for word in words)


def test_a_job_without_the_account_that_it_needs_says_where_to_set_it(ask, slurm, commands, profile):
    commands("sbatch", "allocation failure: Invalid account", 1)
    status, text = ask("--profile", profile(account=None))[1]["a job"]
    assert status == "do" and "Invalid account" in text and "set `account` in" in text


@pytest.mark.parametrize("names", [("sbatch",), ("squeue", "sinfo")])
def test_missing_commands_of_slurm_are_named(ask, slurm, profile, names):
    for name in names:
        (slurm / name).unlink()
    status, text = ask("--profile", profile())[1]["SLURM"]
    assert status == "do" and text.startswith(f"{', '.join(names)} not found")


def test_a_slurm_that_does_not_answer_ends_the_checks(ask, slurm, commands, profile):
    commands("sinfo", "Unable to contact slurm controller", 1)
    code, checks = ask("--profile", profile())
    assert code == 1 and "Unable to contact" in checks["SLURM"][1] and "a job" not in checks


def test_a_status_command_that_fails_is_reported(ask, slurm, commands, profile):
    commands("squeue", "slurm_load_jobs error", 1)
    status, text = ask("--profile", profile())[1]["status command"]
    assert status == "do" and "squeue: slurm_load_jobs error" in text


@pytest.mark.parametrize(
    ("limit", "expected"), [("1-12:00:00", 36), ("8:00:00", 8), ("30:00", 0.5), ("infinite", None), ("n/a", None)]
)
def test_time_limits_are_read_as_hours(limit, expected):
    assert hours(limit) == expected

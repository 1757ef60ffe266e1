"""`python -m rtt status` on a study that has not begun, runs, failed, was killed, is finished, or lies in a bundle."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter

import pytest
from bundle_study import BUNDLE
from clones import SMOKE
from places import ROOT
from rtt.__main__ import main
from rtt.runtime import locks
from rtt.status import gather, text
from rtt.study.names import FIGURES
from watched import WALL, Watched, snapshot, stamp

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "scripts")}


@pytest.fixture
def study(tmp_path, monkeypatch):
    """The tiny study in a work folder of its own, in which nothing has run."""
    found = Watched(tmp_path)
    monkeypatch.setattr(gather.places, "work_folder", lambda: tmp_path)
    monkeypatch.setattr("rtt.status.command.places.work_folder", lambda: tmp_path)
    return found


def status(capsys, *arguments) -> tuple[int, dict]:
    """Return the exit code and the JSON of a call."""
    capsys.readouterr()
    code = main(["status", *map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


def shown(capsys, *arguments) -> str:
    """Return the text of a call that finds no failure, with single spaces."""
    capsys.readouterr()
    assert main(["status", *map(str, arguments), "--no-tables"]) == 0
    return " ".join(capsys.readouterr().out.split())


def state_of(found: dict, job) -> dict:
    """Return what is said of a job that is not done."""
    return next(one for one in found["unfinished"] if one["name"] == job.name)


# What there is of a study


def test_a_study_that_has_not_begun_waits(study, capsys):
    code, found = status(capsys, study.file)
    assert (code, found["state"], found["at_work"]) == (0, "not begun", False)
    assert found["jobs"] == {"all": len(study.jobs), "done": 0, "waiting": len(study.jobs)} | {
        one: 0 for one in ("running", "silent", "queued", "failed", "stopped")
    }
    assert found["left"] is found["ends"] is None, "there is nothing to go by"
    assert found["disk"] == {} and not study.results.exists()
    said = shown(capsys, study.file)
    assert "To begin" not in said and f"to begin: python -m rtt run --configfile {study.file}" in said
    assert "nothing to estimate from" in said and "3 could begin now" in said


def test_stages_are_counted_and_their_seconds_added(study, capsys):
    """Two of two trajectories' points: one unlearning is there of two methods, and three of four attacks."""
    study.begin()
    study.make(*study.of("generate"), *study.of("facts"), *study.of("pretrain"), *study.of("unlearn"))
    study.make(*study.of("attack", "control"), attack=15.0)
    code, found = status(capsys, study.results)
    assert (code, found["state"]) == (0, "stopped")
    stages = {name: (one["jobs"], one["done"], one["spent"]) for name, one in found["stages"].items()}
    n = Counter(job.stage for job in study.jobs.values())
    assert stages["pretrain"] == (n["pretrain"], n["pretrain"], n["pretrain"] * WALL["pretrain"])
    assert stages["unlearn"] == (1, 1, 30.0) and stages["choose"] == (1, 0, 0.0)
    assert stages["attack"] == (n["attack"], len(study.of("attack", "control")), 15.0 * len(study.of("attack", "con")))
    assert stages["figure"] == (len(FIGURES), 0, 0.0)
    waits = state_of(found, study.of("attack", "RTT-pretrained")[0])
    assert waits["waits_for"] == [study.of("choose")[0].name]


def test_tables_of_an_earlier_state_are_not_done_and_the_last_ones_are(study, capsys):
    study.begin()
    study.make_all(but=())
    assert status(capsys, study.file)[1]["state"] == "finished"
    lost = study.of("attack", "RTT-pretrained")[0]
    (study.results / lost.outputs[0]).unlink()
    found = status(capsys, study.file)[1]
    assert Counter(one["stage"] for one in found["unfinished"]) == {
        "attack": 1, "tables": 1, "figure": len(FIGURES), "report": 1,
    }  # fmt: skip


def test_generated_files_that_nobody_needs_any_more_need_not_be_there(study, capsys):
    study.begin()
    study.make_all(but=())
    for job in [*study.of("generate"), *study.of("facts")]:
        shutil.rmtree(study.results / job.outputs[0].split("/facts")[0])
    assert status(capsys, study.file)[1]["jobs"]["done"] == len(study.jobs)


def test_a_job_that_snakemake_left_half_made_is_not_done(study, capsys):
    """The name of Snakemake's marker is the path in base64, in parts of a folder where it is long."""
    import base64

    study.begin()
    study.make(*study.of("pretrain"))
    coded = base64.urlsafe_b64encode(f"results/tiny/{study.of('pretrain')[0].outputs[0]}".encode()).decode()
    marker = study.root / ".snakemake/incomplete" / f"@{coded[:20]}" / coded[20:]
    marker.parent.mkdir(parents=True)
    marker.write_text("{}")
    assert status(capsys, study.file)[1]["stages"]["pretrain"]["done"] == len(study.of("pretrain")) - 1


# Who is at work


def test_a_job_whose_state_grows_is_watched_until_it_is_killed(study, capsys, tmp_path):
    """A real process registers as a step does, and writes its log and its state."""
    study.begin()
    job = study.of("pretrain")[0]
    study.say(job, "")
    state = study.results / f"state/{job.name}/training"
    code = f"""
import sys, time
from pathlib import Path
from rtt.runtime import locks
with locks.step("pretrain --spec ...", "results/tiny/specs/{job.name}.json"):
    for line in sys.stdin:
        checkpoint = Path({str(state)!r}, f"checkpoint-{{line.strip()}}")
        checkpoint.mkdir(parents=True)
        (checkpoint / "whole.json").write_text("{{}}")
        with open({str(study.results / job.log)!r}, "a") as log:
            log.write(f"pretraining: step {{line.strip()}} of 12, about 3 s left\\n")
        print("written", flush=True)
"""
    environment = ENVIRONMENT | {locks.VARIABLE: str(study.root / locks.FOLDER)}
    pipe = subprocess.PIPE
    step = subprocess.Popen([sys.executable, "-c", code], env=environment, stdin=pipe, stdout=pipe, text=True)
    try:
        for number in (3, 7):
            step.stdin.write(f"{number}\n")
            step.stdin.flush()
            assert step.stdout.readline() == "written\n"
            found = state_of(status(capsys, study.file)[1], job)
            assert found["state"] == "running" and found["where"] == f"pid {step.pid} on {locks.slurm_jobs.host()}"
            assert found["said"] == f"pretraining: step {number} of 12, about 3 s left"
            assert found["resumes"] == f"a checkpoint of step {number}"
        said = shown(capsys, study.file)
        assert "1 running" in said and "last sign of life 0:0" in said and "| pretraining: step 7 of 12" in said
    finally:
        step.kill()
        step.wait()
    code, found = status(capsys, study.file)
    one = state_of(found, job)
    assert (code, found["state"], one["state"]) == (0, "stopped", "stopped")
    assert one["said"] == f"its process is gone (pid {step.pid} on {locks.slurm_jobs.host()})"
    assert "it resumes from a checkpoint of step 7" in shown(capsys, study.file)


def test_a_step_on_a_node_runs_as_long_as_it_shows_signs_of_life(study, capsys):
    study.begin()
    job = study.of("pretrain")[0]
    study.snakemake(study.block(job, 1, 3000), end=False, cores="Provided remote nodes: 50")
    study.register(11, "main", on="login2", ago=3600)
    study.register(12, job=job, on="node7", ago=1500, slurm="4711")
    study.say(job, "step 1\n", ago=120)
    code, found = status(capsys, study.file)
    one = state_of(found, job)
    assert (code, found["state"], found["at_work"], one["state"]) == (0, "running", None, "running")
    assert one["where"] == "SLURM job 4711, pid 12 on node7"
    study.say(job, "", ago=1200)
    code, found = status(capsys, study.file)
    assert (code, state_of(found, job)["state"]) == (0, "silent")
    said = shown(capsys, study.file)
    assert "no sign of life for 20 min, it may have been killed, which cannot be seen from here" in said
    assert "it is on another machine, so whether it still runs cannot be seen here" in said
    study.make(job)
    assert status(capsys, study.file)[1]["stages"]["pretrain"]["done"] == 1, "its lock file may still be there"


def test_a_job_that_was_submitted_is_queued_until_it_begins(study, capsys):
    study.begin()
    first, second = study.of("generate")[0], study.of("pretrain")[0]
    lines = [study.block(first, 1, 1), study.block(second, 2, 1)]
    study.snakemake(*lines, end=False, cores="Provided remote nodes: 50")
    study.register(os.getpid(), "main")
    study.say(first, "at work\n")
    study.say(second, "an earlier attempt\n", ago=500)
    found = status(capsys, study.file)[1]
    assert (state_of(found, first)["state"], state_of(found, second)["state"]) == ("running", "queued")
    assert state_of(found, first)["since"] is None, "it waited in the queue for a time that no file tells"
    assert "submitted to the cluster, and not begun" in shown(capsys, study.file)


# What failed


def test_a_failed_job_is_shown_with_the_end_of_its_log(study, capsys):
    study.begin()
    pretrain, unlearn = study.of("pretrain")[0], study.of("unlearn")[0]
    study.make(*study.of("generate"), *study.of("facts"), pretrain)
    lines = [f"line {n}\n" for n in range(30)]
    study.say(unlearn, "".join(lines) + "error: the loss \x1b[2J is not finite\n\n")
    study.snakemake(study.block(unlearn, 3, 60), study.block(unlearn, 3, 50, failed=True), stamp(50))
    code, found = status(capsys, study.file)
    one = state_of(found, unlearn)
    assert (code, found["state"], one["state"]) == (1, "failed", "failed")
    assert one["why"][-2:] == ["line 29", "error: the loss \\x1b[2J is not finite"]
    need = {name for name in (job.name for job in study.of("choose") + study.of("tables") + study.of("figure"))}
    blocked = {one["name"] for one in found["unfinished"] if one["blocked"]}
    assert need <= blocked and not blocked & {job.name for job in study.of("attack", "control")}
    assert main(["status", str(study.file), "--no-tables"]) == 1
    said = capsys.readouterr().out
    assert (
        f"the end of its log, {study.results / unlearn.log}:" in said
        and "| error: the loss \\x1b[2J is not finite" in said
    )
    assert re.search(r"\d+ need what has failed", " ".join(said.split()))


def test_a_failure_counts_until_the_job_begins_again_or_is_done(study, capsys):
    study.begin()
    job = study.of("pretrain")[0]
    study.say(job, "killed\n", ago=100)
    told = "SLURM-job '12' failed, SLURM status is: 'OUT_OF_MEMORY'."
    failed = study.block(job, 3, 100, failed=True, message=told)
    study.snakemake(study.block(job, 3, 200), failed)
    found = status(capsys, study.file)
    assert found[0] == 1 and state_of(found[1], job)["why"] == [told, "killed"]
    study.snakemake(study.block(job, 3, 1), end=False)
    study.register(os.getpid(), "main")
    code, found = status(capsys, study.file)
    assert (code, state_of(found, job)["state"]) == (0, "running")
    study.make(job)
    assert status(capsys, study.file)[0] == 0


def test_a_job_of_a_run_that_was_killed_does_not_run_because_another_run_is_at_work(study, capsys):
    study.begin()
    job = study.of("pretrain")[0]
    study.say(job, "step 1\n", ago=5000)
    study.snakemake(study.block(job, 3, 5100), end=False)
    study.register(7, "main", on="login2", ago=600)
    found = status(capsys, study.file)[1]
    assert (found["at_work"], state_of(found, job)["state"]) == (None, "stopped")


@pytest.mark.parametrize("how", ["its own last word", "Snakemake's"])
def test_a_job_that_somebody_stopped_has_not_failed(study, capsys, how):
    study.begin()
    job, own = study.of("pretrain")[0], how == "its own last word"
    study.say(job, "SIGTERM: saving, then stopping\nstopped; the same command continues from here\n" if own else "")
    asked = [] if own else ["Terminating processes on user request, this might take some time."]
    study.snakemake(study.block(job, 3, 60), *asked, study.block(job, 3, 50, failed=True))
    code, found = status(capsys, study.file)
    assert (code, found["state"], state_of(found, job)["state"]) == (0, "stopped", "stopped")


def test_a_log_that_ends_in_an_error_tells_of_a_failure_where_snakemakes_is_gone(study, capsys):
    study.begin()
    job = study.of("pretrain")[0]
    study.say(job, "error: this step was killed (SIGKILL)\n")
    code, found = status(capsys, study.results)
    assert (code, state_of(found, job)["state"]) == (1, "failed")


def test_the_log_of_another_study_in_the_same_folder_does_not_count(study, capsys):
    study.begin()
    job = study.of("pretrain")[0]
    study.snakemake(study.block(job, 3, 50, failed=True).replace("results/tiny", "results/other"))
    assert status(capsys, study.file)[0] == 0


# The estimate


def test_the_estimate_of_a_study_that_runs(study, capsys, monkeypatch):
    """By hand: without a plan, unlearning and both arms' attacks take the means of what there is."""
    monkeypatch.setattr(gather.estimate, "planned", lambda runs: {})
    study.begin()
    study.make(*study.of("generate"), *study.of("facts"), *study.of("pretrain"), *study.of("original"))
    study.make(*study.of("attack", "RTT-control"), attack=40.0)
    study.make(*study.of("attack", "quantise-control"), attack=20.0)
    study.make(*study.of("unlearn"))
    study.snakemake(study.block(study.of("generate")[0], 1, 9), end=False)
    study.register(os.getpid(), "main")
    found = status(capsys, study.file)[1]
    # Left are the choice (1 s), RTT (40 s) and quantise (20 s), tables, figures and the report (1 s each).
    assert found["left"] == 1 + 40 + 20 + 1 + len(FIGURES) + 1
    assert found["stages"]["attack"]["left"] == 60.0 and found["at_once"] == 4
    # Four at once: the choice, both attacks, tables, then figures and the report in so many rounds.
    assert found["ends_in"] == 1 + 40 + 1 + -(-(len(FIGURES) + 1) // 4)
    assert found["gpu_left"] == 0 and found["ends"] is not None
    assert "These are estimates" in shown(capsys, study.file)


def test_gpu_hours_are_those_of_jobs_that_ask_for_gpus(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gather.estimate, "planned", lambda runs: {})
    study = Watched(tmp_path, device="cuda", devices=2, launcher="torchrun").begin()
    study.make(*study.of("pretrain"), *study.of("attack", "control"))
    assert "GPU left" not in shown(capsys, study.results)  # those that have ended had none, though the study asks
    path = study.results / study.of("pretrain")[0].outputs[1]
    said = json.loads(path.read_text()) | {"world_size": 2, "hardware": {"gpu": "NVIDIA H200"}}
    path.write_text(json.dumps(said))
    found = status(capsys, study.results)[1]
    assert found["stages"]["pretrain"]["gpu_spent"] == 2 * WALL["pretrain"]
    trained = sum(found["stages"][stage]["left"] for stage in ("original", "unlearn", "attack"))
    assert found["gpu_left"] == pytest.approx(2 * trained, abs=0.5) and trained > 0
    assert "GPU left" in shown(capsys, study.results)


# Tables, bundles, and real results


def test_a_complete_cell_is_shown_as_partial(study, capsys):
    study.begin()
    study.make_all()
    for job in study.of("attack", "quantise-pre"):
        (study.results / job.outputs[0]).unlink()
    assert main(["status", str(study.results)]) == 0
    said = capsys.readouterr().out
    assert "PARTIAL: the cells for which everything is there" in said
    assert re.search(r"^pretrained +GD .* none_within_budget$", said, re.MULTILINE), said
    assert f"python -m rtt tables --results {study.results} --partial" in said
    shutil.rmtree(study.results / "point_choices")
    assert main(["status", str(study.results)]) == 0
    assert "PARTIAL" not in capsys.readouterr().out


def test_bundles_are_finished_packed_unpacked_and_compact(tmp_path, capsys):
    with zipfile.ZipFile(BUNDLE) as archive:
        archive.extractall(tmp_path / "unpacked")
    manifests = list((tmp_path / "unpacked").glob("results/tiny/manifests/*.json"))
    spent = sum(json.loads(path.read_text())["wall_seconds"] for path in manifests)
    for place in (BUNDLE, tmp_path / "unpacked"):
        code, found = status(capsys, place)
        assert (code, found["state"], found["study"], found["unfinished"]) == (0, "finished", "tiny", []), place
        assert found["jobs"]["done"] == found["jobs"]["all"] and found["spent"] == spent > 0
    code, found = status(capsys, next((ROOT / "results/reference").glob("seeds-*.zip")))
    assert (code, found["state"], found["study"], found["unfinished"]) == (0, "finished", "seeds", [])
    assert found["stages"]["attack"]["done"] == found["stages"]["attack"]["jobs"] > 0
    assert "a bundle holds a finished study" in shown(capsys, BUNDLE)


def test_a_real_finished_study_and_what_it_lost(finished, copy, capsys):
    """Every job's outputs and log are where Snakemake has put them, and its history is read from Snakemake's log."""
    results = finished.results()
    subject = gather.of_results(results)
    found = gather.look(subject)
    assert found.finished and found.word == "finished" and not found.failed
    missing = [job.log for job in subject.jobs.values() if not (results / job.log).is_file()]
    assert missing == []
    past = gather.history.read(gather.history.logs_of(finished.folder, results), "smoke")
    assert set(past.seconds) == {job.log for job in subject.jobs.values()} and not past.open and past.cores == 2
    assert found.spent["choose"] >= 0 and found.spent["unlearn"] > 1

    lost = next(job for job in subject.jobs.values() if job.stage == "attack" and "RTT-taught" in job.name)
    shutil.rmtree(copy.results() / f"evals/{lost.name}")
    found = gather.look(gather.of_results(copy.results()))
    states = {name: one.state for name, one in found.found.items() if one.state != "done"}
    assert states.pop(lost.name) == "waiting" and {subject.jobs[name].stage for name in states} == {
        "tables", "figure", "report",
    }  # fmt: skip
    assert found.left["attack"] > 0 and found.left["unlearn"] == 0


def test_a_real_failure_of_snakemake_is_seen(copy, capsys):
    """Matplotlib does not know what it is to draw with."""
    (copy.results() / "figures/steps.svg").unlink()
    target = "results/smoke/figures/steps.svg"
    done = copy.snakemake(target, "-c1", "--scheduler", "greedy", "--configfile", SMOKE, MPLBACKEND="nothing")
    assert done.returncode != 0
    code, found = status(capsys, copy.results())
    one = next(one for one in found["unfinished"] if one["name"] == "figure steps")
    assert (code, found["state"], one["state"]) == (1, "failed", "failed") and "nothing" in "".join(one["why"])
    assert found["jobs"]["done"] == found["jobs"]["all"] - 1


# What it leaves alone


def test_it_touches_nothing_and_imports_no_torch(study, capsys):
    study.begin()
    study.make_all()
    (study.results / study.of("attack", "quantise-pre")[0].outputs[0]).unlink()
    study.register(2**22 + 1, "main", ago=100)  # of nobody: a run would delete this file
    study.register(2**22 + 2, job=study.of("pretrain")[0], ago=100)
    study.snakemake(stamp(1), end=False)
    folders = [study.root / "results", study.root / ".snakemake"]
    before = snapshot(*folders)
    code = (
        "import sys; from rtt.__main__ import main; assert main(sys.argv[1:]) == 0; "
        "assert not {'torch', 'transformers', 'snakemake'} & set(sys.modules)"
    )
    environment = ENVIRONMENT | {locks.VARIABLE: str(study.root / locks.FOLDER)}  # as inside a run
    command = [sys.executable, "-c", code, "status", str(study.results)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "PARTIAL" in done.stdout
    assert status(capsys, study.file)[1]["jobs"]["done"] > 10
    assert snapshot(*folders) == before


def test_files_may_come_and_go_while_it_reads(study):
    study.begin()
    study.make_all()
    study.snakemake(*[study.block(job, n, 5) for n, job in enumerate(study.jobs.values())], end=False)
    subject, over = gather.of_results(study.results), threading.Event()
    jobs = [job for stage in ("unlearn", "attack") for job in study.of(stage)]

    def disturb():
        while not over.is_set():
            for job in jobs:
                shutil.rmtree(study.results / f"evals/{job.name}", ignore_errors=True)
                (study.results / job.log).unlink(missing_ok=True)
                (study.results / f"manifests/{job.name}.json").write_text('{"wall_seconds": ')
            study.make(*jobs)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            found = gather.look(subject)
            json.dumps(gather.document(found), allow_nan=False)
            assert text.show(found)
    finally:
        over.set()
        thread.join()
    assert gather.look(subject).counts["done"] >= len(jobs)


# Watching


def watch(study, *arguments) -> subprocess.Popen:
    command = [sys.executable, "-m", "rtt", "status", str(study.results), "--watch", "0.2", "--json", *arguments]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_watching_ends_when_nothing_is_left(study):
    study.begin()
    study.make_all()
    watching = watch(study)
    assert json.loads(watching.stdout.readline())["state"] == "stopped"
    study.make(*study.of("tables"), *study.of("figure"), *study.of("report"))
    out, err = watching.communicate(timeout=60)
    assert (watching.returncode, err) == (0, "")
    assert json.loads(out.splitlines()[-1])["state"] == "finished"


def test_ctrl_c_ends_watching_without_a_traceback(study):
    study.begin()
    study.register(os.getpid(), "main")  # somebody is at work, so a failure ends nothing
    study.say(study.of("pretrain")[0], "error: no luck\n")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        watching = watch(study)
    finally:
        signal.signal(signal.SIGINT, before)
    assert json.loads(watching.stdout.readline())["jobs"]["failed"] == 1
    watching.send_signal(signal.SIGINT)
    _, err = watching.communicate(timeout=60)
    assert (watching.returncode, err.strip()) == (1, "")


# Mistakes


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["{folder}"], "no such file, so this is no results folder of a study that was started"),
        (["{folder}", "--config", "seeds=[1]"], "--config: {folder} is no study file"),
        (["nowhere.yaml"], "nowhere.yaml: no such"),
        (["nowhere.zip"], "nowhere.zip: no such bundle"),
        (["{study}", "--results", "nowhere"], "--results nowhere: no such folder"),
        (["{study}", "--config", "seeds"], "--config seeds: expected KEY=VALUE"),
        (["{study}", "--config", "seeds=[x]"], "seeds"),
    ],
)
def test_a_mistake_is_one_message(study, capsys, arguments, message):
    names = {"folder": str(study.root), "study": str(study.file)}
    assert main(["status", *(one.format(**names) for one in arguments)]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and message.format(**names) in said.err and said.out == ""


def test_keys_are_overridden_as_a_run_does_it(study, capsys):
    code, found = status(capsys, study.file, "--config", "study=second", "seeds=[1, 2]")
    assert (code, found["study"], found["results"]) == (0, "second", str(study.root / "results/second"))
    assert found["jobs"]["all"] > len(study.jobs)
    assert "--config study=second 'seeds=[1, 2]'" in shown(
        capsys, study.file, "--config", "study=second", "seeds=[1, 2]"
    )


def test_runs_of_another_state_of_the_study_are_named(study, capsys):
    study.begin()
    study.make_all()
    found = status(capsys, study.file, "--config", "seeds=[1]")[1]
    assert found["jobs"]["done"] == 0 and "does not have as it is now" in found["notes"][0]
    found = status(capsys, study.file)[1]
    assert found["notes"] == []

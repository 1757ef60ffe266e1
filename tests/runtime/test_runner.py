"""`python -m rtt run` on a real Snakemake workflow of sleeping shell jobs: kills, refusals, failures, progress."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from rtt.errors import UserError
from rtt.files import clock
from rtt.runtime import locks, runner
from rtt.runtime.progress import COSTS, Progress

SCRIPTS = Path(runner.__file__).parents[2]

HANG = 300  # seconds after which a test gives up: nothing here is timed

SNAKEFILE = """
rule all:
    input: "results/toy/sum.txt"
rule part:
    output: "results/toy/part-{i}.txt"
    log: "results/toy/logs/part-{i}.log"
    shell:
        '(echo x >> starts-{wildcards.i}; echo half > {output}; eval "$PART") &> {log};'
        "echo {wildcards.i} > {output}"
rule sum:
    input: "results/toy/part-1.txt", "results/toy/part-2.txt"
    output: "results/toy/sum.txt"
    log: "results/toy/logs/sum.log"
    shell: "(for i in $(seq 30); do echo line $i; done; exit $SUM_EXIT) &> {log}; cat {input} > {output}"
"""


# What a part does until the test wants it to end.
HELD = "until [ -e go ]; do sleep 0.05; done"


class Toy:
    """A folder with the toy workflow, and runs of it in a process group of their own."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.started: list[subprocess.Popen] = []
        (folder / "Snakefile").write_text(SNAKEFILE)
        (folder / "study.yaml").write_text("study: toy\n")

    def start(self, *arguments: str, part: str = "true", sum_exit: int = 0) -> subprocess.Popen:
        environment = {
            **os.environ,
            "PYTHONPATH": str(SCRIPTS),
            "PART": part,
            "SUM_EXIT": str(sum_exit),
        }
        environment.pop(locks.VARIABLE, None)
        process = subprocess.Popen(
            [sys.executable, "-m", "rtt", "run", "--configfile", "study.yaml", *arguments],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def run(self, *arguments: str, **options) -> tuple[int, str]:
        process = self.start(*arguments, **options)
        output = process.communicate(timeout=HANG)[0]
        return process.returncode, output

    def until(self, path: str) -> None:
        deadline = time.monotonic() + HANG
        while not (self.folder / path).exists():
            assert time.monotonic() < deadline, f"{path} has not appeared"
            assert self.started[-1].poll() is None, f"it ended before {path}"
            time.sleep(0.02)

    def starts(self, part: int) -> int:
        return len((self.folder / f"starts-{part}").read_text().split())


@pytest.fixture
def toy(tmp_path):
    toy = Toy(tmp_path)
    yield toy
    for process in toy.started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_a_run_shows_progress_then_a_second_has_nothing_to_do(toy):
    code, output = toy.run(part="sleep 0.3")
    assert code == 0, output
    assert (toy.folder / "results/toy/sum.txt").read_text() == "1\n2\n"
    part, total = r"finished  part \(2\) in \d:\d\d", r"\[3/4  75%  \d:\d\d, .*\]  finished  sum"
    for line in (r"started   part \(1\)", part, total):
        assert re.search(line, output), output
    assert "estimate" in output and "done: 4 steps" in output
    assert "4 of 4 steps (100%) done" in (toy.folder / "results/toy/logs/run.log").read_text()
    assert locks.live(toy.folder / locks.FOLDER) == []

    code, output = toy.run()
    assert code == 0
    assert "nothing to do" in output and "started" not in output
    assert toy.starts(1) == 1


def test_after_sigkill_of_the_whole_group_the_same_command_finishes(toy):
    process = toy.start("--cores", "1", part="sleep 600")
    toy.until("results/toy/logs/run.log")
    deadline = time.monotonic() + HANG
    while not (halves := list(toy.folder.glob("results/toy/part-*.txt"))) or not halves[0].read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert any((toy.folder / ".snakemake/locks").iterdir())  # else this test shows nothing
    assert list((toy.folder / locks.FOLDER).glob("*.json"))

    code, output = toy.run()
    assert code == 0, output
    assert "removing the lock" in output
    assert (toy.folder / "results/toy/sum.txt").read_text() == "1\n2\n"
    assert sorted([toy.starts(1), toy.starts(2)]) == [1, 2]  # the half-written part was done again


def test_a_second_run_is_refused_while_one_is_live(toy):
    first = toy.start(part=HELD)
    toy.until("starts-1")
    code, output = toy.run()  # a live main process is not waited for: this one ends only below
    assert code == 1
    assert f"pid {first.pid} on" in output and "rtt run" in output and "since" in output
    assert "Traceback" not in output
    assert first.poll() is None
    (toy.folder / "go").touch()
    assert "done: 4 steps" in first.communicate(timeout=HANG)[0]
    assert toy.starts(1) == toy.starts(2) == 1


def test_a_snakemake_that_outlived_its_runner_is_live(toy):
    first = toy.start(part=HELD)
    toy.until("starts-1")
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    code, output = toy.run()
    assert code == 1 and "snakemake for python -m rtt run" in output
    assert f"pid {first.pid} " not in output
    (toy.folder / "go").touch()
    while locks.live(toy.folder / locks.FOLDER):  # it ends by itself, though nobody reads its output
        time.sleep(0.1)
    assert (toy.folder / "results/toy/sum.txt").read_text() == "1\n2\n"
    assert toy.run()[0] == 0


def test_a_failing_rule_shows_the_end_of_its_log(toy):
    code, output = toy.run(sum_exit=3)
    assert code == 1
    assert "error: step sum failed" in output and "results/toy/logs/sum.log" in output
    assert re.findall(r"  \| line (\d+)", output) == [str(number) for number in range(11, 31)]
    assert "Traceback" not in output
    assert toy.run()[0] == 0


def test_what_snakemake_says_before_any_step_is_shown_without_a_traceback(toy):
    (toy.folder / "Snakefile").write_text('raise ValueError("study.yaml: foo: unknown key")\n')
    code, output = toy.run()
    assert code == 1
    assert "error: study.yaml: foo: unknown key\n" in output
    assert "Snakefile" not in output and "Traceback" not in output


def test_options_after_two_dashes_and_config_reach_snakemake(toy):
    with open(toy.folder / "Snakefile", "a") as snakefile:
        snakefile.write('\nopen("config.txt", "w").write(repr(config))\n')
    code, output = toy.run("--config", "depth=3", "--", "-n")
    assert code == 0 and "dry-run" in output
    assert "'depth': 3" in (toy.folder / "config.txt").read_text()
    assert not (toy.folder / "results/toy/sum.txt").exists()


@pytest.mark.parametrize("number, group, expected", [(2, True, 130), (2, False, 130), (15, False, 143)])
def test_a_signal_ends_every_process_and_the_next_run_continues(toy, number, group, expected):
    process = toy.start(part="sleep 600")
    toy.until("starts-1")
    toy.until("starts-2")
    steps = psutil.Process(process.pid).children(recursive=True)
    (os.killpg if group else os.kill)(process.pid, number)
    output = process.communicate(timeout=HANG)[0]
    assert process.returncode == expected, output
    assert "stopping" in output and "Traceback" not in output
    _, alive = psutil.wait_procs(steps, timeout=HANG)
    assert not alive
    code, output = toy.run()
    assert code == 0, output
    assert (toy.folder / "results/toy/sum.txt").read_text() == "1\n2\n"


def test_a_missing_folder_or_workflow_is_named(toy, tmp_path):
    code, output = toy.run("--directory", "nowhere")
    assert (code, output) == (1, "error: --directory nowhere: no such folder\n")
    code, output = toy.run("--snakefile", "other.smk")
    assert code == 1 and "other.smk: no such Snakefile" in output


@pytest.mark.parametrize(
    "text, found",
    [
        ("study: ../up\n", r"found '\.\./up'"),
        ("seeds: [0]\n", "found None"),
        ("- 1\n", "found a list"),
        ("a: [", "YAML"),
    ],
)
def test_a_study_file_without_a_name_is_refused(tmp_path, text, found):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"study\.yaml:.*{found}"):
        runner.study_name(path, [])


def test_the_study_can_be_named_by_config(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("study: demo\n")
    assert runner.study_name(path, []) == "demo"
    assert runner.study_name(path, ["seeds=[1]", "study=other"]) == "other"
    with pytest.raises(UserError, match="KEY=VALUE"):
        runner.study_name(path, ["study"])
    with pytest.raises(UserError, match="no such study file"):
        runner.study_name(tmp_path / "absent.yaml", [])


class Script:
    """Progress fed with Snakemake's words, under a clock set by hand."""

    def __init__(self, cores: int, **counts: int):
        self.time, self.said = 0.0, []
        self.progress = Progress(cores, self.said.append, now=lambda: self.time)
        table = [f"{rule:20} {count}" for rule, count in counts.items()]
        self.feed("Job stats:", "job  count", "---  -----", *table, f"total {sum(counts.values())}", "")

    def feed(self, *lines: str) -> None:
        for line in lines:
            self.progress.feed(line)

    def started(self, rule: str, jobid: int) -> None:
        self.feed("[Mon Nov 23 20:23:11 2026]", f"rule {rule}:", f"    jobid: {jobid}", "    wildcards: run=r, n=2")
        self.progress.flush()

    def finished(self, rule: str, jobid: int, done: int, total: int) -> None:
        self.feed(f"Finished jobid: {jobid} (Rule: {rule})", f"{done} of {total} steps ({done / total:.0%}) done")


def test_the_estimate_starts_from_the_costs_and_learns_from_what_was_measured():
    script = Script(1, pretrain=1, tables=10)
    assert script.progress.remaining() == COSTS["pretrain"] + 10
    script.started("pretrain", 1)
    script.time = 20
    assert script.progress.remaining() == pytest.approx(COSTS["pretrain"] + 10 - 20)
    script.time = 120  # twice what was expected
    script.finished("pretrain", 1, 1, 11)
    assert script.progress.remaining() == pytest.approx(10 * (30 + 120) / (30 + COSTS["pretrain"]))
    script.started("tables", 2)
    script.time = 124
    script.finished("tables", 2, 2, 11)
    assert script.progress.remaining() == pytest.approx(9 * 4)  # a rule that has been measured counts as measured
    assert script.said[-1] == "[ 2/11  18%  2:04, about 0:36 left]  finished  tables (r, 2) in 0:04"


def test_the_estimate_is_shared_by_the_cores_but_not_below_the_longest_running_job():
    script = Script(4, pretrain=1, tables=20)
    assert script.progress.remaining() == pytest.approx((COSTS["pretrain"] + 20) / 4)
    script.started("pretrain", 1)
    script.time = 5
    assert script.progress.remaining() == pytest.approx(COSTS["pretrain"] - 5)


def test_a_rule_with_a_message_is_shown_by_it_and_counted_by_its_rule():
    script = Script(1, teach=1, tables=1)
    script.feed("Job 7: Teach the facts", "Reason: Missing output files: a")
    script.progress.still()
    assert script.said[0].endswith("started   Teach the facts")
    assert script.said[1].endswith("running   Teach the facts (0:00)")
    script.time = 10
    script.finished("teach", 7, 1, 2)
    assert script.said[2].endswith("finished  Teach the facts in 0:10")
    assert script.progress.left_by_rule == {"teach": 0, "tables": 1}


def test_failures_are_collected_with_their_logs():
    script = Script(2, attack=2)
    block = ["    jobid: {0}", "    log: logs/{0}.log, b.log (check log file(s) for error details)", "    shell:"]
    for jobid in (1, 2):
        script.feed("Error in rule attack:", *(line.format(jobid) for line in block), "[Mon Nov 23 20:23:11 2026]")
    script.feed("Error in rule tables:", "    jobid: 3", "Shutting down, this might take some time.")
    assert script.progress.failures == [("attack", "logs/1.log"), ("attack", "logs/2.log"), ("tables", None)]


def test_a_step_that_failed_runs_no_more():
    script = Script(2, attack=2)
    script.started("attack", 1)
    script.started("attack", 2)
    script.time = 70
    script.feed("Error in rule attack:", "    jobid: 1", "    log: logs/1.log", "")
    assert script.said[-1].endswith("failed    attack (r, 2) after 1:10")
    script.progress.still()
    assert script.said[-1].count("attack (r, 2)") == 1


def test_seconds_are_shown_as_minutes_or_hours():
    shown = {0: "0:00", 59.6: "1:00", 61: "1:01", 3599.9: "1:00:00", -1: "0:00"}
    assert {seconds: clock(seconds) for seconds in shown} == shown


DRAWING = """
BUNDLE = config.get("artifacts", "")
NAMES = ", ".join(f"run-{i}" for i in range(9))
for line in (f"warning: the code of step attack has changed since it made {NAMES}; it is not run again", "a chat") * 2:
    workflow_logger.warning(line)
rule unpack:
    output: "dist/rebuilt/toy/runs.json"
    log: "dist/rebuilt/toy/logs/unpack.log"
    shell: "echo {BUNDLE}: every sha256 is right > {log}; touch {output}"
rule figures:
    input: rules.unpack.output
    log: "dist/rebuilt/toy/logs/verify.log"
    shell:
        "(printf '%s\\\\n' 'figures/a.svg   equal, byte for byte' 'figures/b.svg   differs'"
        " 'figures/c.svg   not in the bundle' '1 of 3 equal the bundle'; exit $SUM_EXIT) > {log}"
rule bundle:
    input: "results/toy/sum.txt"
    log: "results/toy/logs/bundle.log"
    shell: "echo dist/toy.zip: 1.0 MB > {log}; exit $SUM_EXIT"
"""


@pytest.fixture
def drawing(toy):
    """The toy workflow, with rules that draw a bundle again and that pack one, and with a warning."""
    logger = "from snakemake.logging import logger as workflow_logger\n"
    (toy.folder / "Snakefile").write_text(logger + SNAKEFILE + DRAWING)
    return toy


WARNING = "warning: the code of step attack has changed since it made run-0, run-1 and 7 others; it is not run again"


def test_what_was_drawn_again_is_said_in_a_few_lines_and_no_study_file_is_read(drawing):
    (drawing.folder / "study.yaml").unlink()
    code, output = drawing.run("--config", "artifacts=some bundle.zip")
    assert code == 0, output
    start, *middle, end = output.splitlines()
    assert start.startswith("some bundle.zip: tables, figures and report are drawn again")
    assert middle == [
        WARNING,
        "some bundle.zip: every sha256 is right",
        "nothing had to be drawn: tables, figures and report are up to date",
        "1 of these files are not in the bundle, so they are compared with nothing",
        "figures/b.svg   differs",
        "1 of 3 equal the bundle",
    ]
    assert re.fullmatch(r"done: 2 steps in \d:\d\d; Snakemake's whole output: dist/rebuilt/run.log", end)
    log = (drawing.folder / "dist/rebuilt/run.log").read_text()
    assert "rule unpack" in log and "run-8" in log and not (drawing.folder / "results").exists()

    code, output = drawing.run("--config", "artifacts=some bundle.zip", sum_exit=1)
    assert code == 1 and "error: step figures failed" in output and "  | figures/b.svg   differs" in output
    assert "equal, byte" not in output and "done" not in output


def test_a_bundle_is_drawn_beside_a_study_that_runs_and_leaves_its_lock_alone(drawing):
    study = drawing.start(part=HELD)
    drawing.until("starts-1")
    assert any((drawing.folder / ".snakemake/locks").iterdir())
    code, output = drawing.run("figures", "--config", "artifacts=x.zip")
    assert code == 0 and "removing the lock" not in output, output
    assert study.poll() is None
    (drawing.folder / "go").touch()
    assert "done: 4 steps" in study.communicate(timeout=HANG)[0]


def test_what_was_packed_is_said_and_steps_of_an_unfinished_study_are_shown(drawing):
    code, output = drawing.run("bundle")
    assert code == 0, output
    assert re.search(r"started   part \(1\)", output) and "finished  sum" in output and "started   bundle" not in output
    end = output.splitlines()[-3:]
    assert end[1] == "dist/toy.zip: 1.0 MB" and "Snakemake's whole output: results/toy/logs/run.log" in end[2]
    code, output = drawing.run("bundle")
    assert code == 0 and "done: 1 step in" in output and len(output.splitlines()) == 5
    code, output = drawing.run("bundle", sum_exit=1)
    assert code == 1 and "error: step bundle failed" in output
